//! Replies on the wire: reading a peer's, bounded and as it said them, and writing ours.

use std::fmt;

use postledger_events::reply::{EnhancedCode, REPLY_BYTES_MAX, REPLY_LINES_MAX, Reply};

// RFC 5321 §4.2.3, RFC 4954 §6, RFC 7504 §2.
pub const READY_220: u16 = 220;
pub const CLOSING_221: u16 = 221;
pub const AUTHENTICATED_235: u16 = 235;
pub const OK_250: u16 = 250;
pub const CANNOT_VERIFY_252: u16 = 252;
pub const START_INPUT_354: u16 = 354;
pub const SERVICE_CLOSING_421: u16 = 421;
pub const LOCAL_ERROR_451: u16 = 451;
pub const STORAGE_452: u16 = 452;
pub const SYNTAX_500: u16 = 500;
pub const ARGUMENT_SYNTAX_501: u16 = 501;
pub const NOT_IMPLEMENTED_502: u16 = 502;
pub const BAD_SEQUENCE_503: u16 = 503;
pub const PARAMETER_NOT_IMPLEMENTED_504: u16 = 504;
pub const REFUSED_550: u16 = 550;
pub const TOO_LARGE_552: u16 = 552;
pub const MAILBOX_NAME_553: u16 = 553;
pub const FAILED_554: u16 = 554;
pub const PARAMETERS_UNKNOWN_555: u16 = 555;

/// Bytes of one reply that are read before the peer counts as broken; of these, only [`REPLY_BYTES_MAX`] are kept.
pub const READ_BYTES_MAX: usize = 64 * 1024;

/// Puts a reply together from bytes as they come. Bytes behind the reply stay with the caller.
#[derive(Debug, Default)]
pub struct ReplyReader {
    line: Vec<u8>,
    code: Option<u16>,
    lines: Vec<String>,
    bytes_read: usize,
    bytes_kept: usize,
}

impl ReplyReader {
    /// Takes bytes off the front of `input`, at most to the end of a reply, and returns the reply once it is whole.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Reply>, Error> {
        while !input.is_empty() {
            let end = input.iter().position(|&b| b == b'\n');
            let (taken, rest) = input.split_at(end.map_or(input.len(), |at| at + 1));
            *input = rest;
            self.bytes_read += taken.len();
            if self.bytes_read > READ_BYTES_MAX {
                return Err(Error::TooLong);
            }
            self.line.extend_from_slice(taken);
            if end.is_some() && self.line_is_last()? {
                return Ok(Some(self.finish()));
            }
        }
        Ok(None)
    }

    /// Whether no byte of a reply has come yet.
    pub fn is_idle(&self) -> bool {
        self.bytes_read == 0
    }

    /// RFC 5321 §4.2.1: a hyphen behind the code says that more lines follow; all lines have the same code.
    fn line_is_last(&mut self) -> Result<bool, Error> {
        let line = std::mem::take(&mut self.line);
        let (code, last, text) = split(&line).ok_or_else(|| Error::Malformed(quote(&line)))?;
        match self.code {
            Some(first) if first != code => return Err(Error::CodesDiffer(first, code)),
            Some(_) | None => self.code = Some(code),
        }
        self.keep(text);
        Ok(last)
    }

    fn keep(&mut self, text: &[u8]) {
        let room = REPLY_BYTES_MAX - self.bytes_kept;
        if self.lines.len() == REPLY_LINES_MAX || room == 0 {
            return;
        }
        let mut text = String::from_utf8_lossy(text).into_owned();
        text.truncate(text.floor_char_boundary(room));
        self.bytes_kept += text.len();
        self.lines.push(text);
    }

    fn finish(&mut self) -> Reply {
        let whole = std::mem::take(self);
        Reply { code: whole.code.expect("a line was read"), lines: whole.lines }
    }
}

/// Code, whether it is the last line, and text. A code without text is in use and allowed (RFC 5321 §4.2: clients should
/// take a bare code). So is a line feed alone at the end: it changes nothing in what a reply means.
fn split(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (digits, rest) = line.split_at_checked(3)?;
    if !matches!(digits[0], b'2'..=b'5') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    match rest.split_first() {
        None => Some((code, true, rest)),
        Some((b' ', text)) => Some((code, true, text)),
        Some((b'-', text)) => Some((code, false, text)),
        Some(_) => None,
    }
}

fn quote(line: &[u8]) -> String {
    const SHOWN_CHARS_MAX: usize = 80;
    String::from_utf8_lossy(line).trim_end().chars().take(SHOWN_CHARS_MAX).collect()
}

/// A reply of ours: code, enhanced code (RFC 2034 §4) and text.
pub fn reply(code: u16, (subject, detail): (u16, u16), text: &str) -> Reply {
    let class = u8::try_from(code / 100).expect("a reply code has three digits");
    Reply::new(code, format!("{} {text}", EnhancedCode::new(class, subject, detail)))
}

/// The bytes of a reply (RFC 5321 §4.2.1). Control characters in its texts go out as `?`, so that no text makes a line.
pub fn write(reply: &Reply, out: &mut Vec<u8>) {
    assert!((200..600).contains(&reply.code), "{} is no reply code", reply.code);
    let last = reply.lines.len().saturating_sub(1);
    for (at, text) in reply.lines.iter().enumerate() {
        let separator = if at == last { ' ' } else { '-' };
        let text = text.replace(|c: char| c.is_control(), "?");
        out.extend_from_slice(format!("{}{separator}{text}\r\n", reply.code).as_bytes());
    }
    if reply.lines.is_empty() {
        out.extend_from_slice(format!("{}\r\n", reply.code).as_bytes());
    }
}

/// How a peer's reply is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    Malformed(String),
    CodesDiffer(u16, u16),
    TooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Malformed(line) => write!(f, "the peer sent {line:?}, which is not an SMTP reply"),
            Error::CodesDiffer(first, other) => write!(f, "the peer mixed codes {first} and {other} in one reply"),
            Error::TooLong => write!(f, "the peer sent a reply longer than {READ_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fed whole, and in two parts split at every place: always the same.
    fn check(input: &[u8], expect: Result<Option<(u16, &[&str])>, Error>) {
        let expect = expect.map(|reply| {
            reply.map(|(code, lines)| Reply { code, lines: lines.iter().map(|&line| line.to_owned()).collect() })
        });
        for at in 0..=input.len() {
            let mut reader = ReplyReader::default();
            let (mut head, mut tail) = input.split_at(at);
            let got = match reader.read(&mut head) {
                Ok(None) => reader.read(&mut tail),
                done => done,
            };
            assert_eq!(got, expect, "{:?} split at {at}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn replies() {
        check(b"250 OK\r\n", Ok(Some((250, &["OK"]))));
        check(b"250\r\n", Ok(Some((250, &[""]))));
        check(b"250 \r\n", Ok(Some((250, &[""]))));
        check(b"250-a\r\n250- b \r\n250-\r\n250 2.0.0 c\r\n", Ok(Some((250, &["a", " b ", "", "2.0.0 c"]))));
        check(b"550 5.1.1 no\xffne\r\n", Ok(Some((550, &["5.1.1 no\u{fffd}ne"]))));
        check(b"250 a\rb\n", Ok(Some((250, &["a\rb"]))));
        check(b"250 OK\r\n250 next\r\n", Ok(Some((250, &["OK"]))));
        check(b"250-a\r\n", Ok(None));
        check(b"25", Ok(None));
        check(b"250-a\r\n251 b\r\n", Err(Error::CodesDiffer(250, 251)));
        check(b"250_a\r\n", Err(Error::Malformed("250_a".into())));
        check(b"25 a\r\n", Err(Error::Malformed("25 a".into())));
        check(b"2500 a\r\n", Err(Error::Malformed("2500 a".into())));
        check(b"650 a\r\n", Err(Error::Malformed("650 a".into())));
        check(b"SSH-2.0-x\r\n", Err(Error::Malformed("SSH-2.0-x".into())));
        check(b"\r\n", Err(Error::Malformed("".into())));
    }

    #[test]
    fn what_follows_a_reply_is_left() {
        let mut input: &[u8] = b"250 a\r\n421 b\r\n";
        let mut reader = ReplyReader::default();
        assert_eq!(reader.read(&mut input), Ok(Some(Reply::new(250, "a"))));
        assert_eq!(input, b"421 b\r\n");
        assert!(reader.is_idle());
        assert_eq!(reader.read(&mut input), Ok(Some(Reply::new(421, "b"))));
    }

    #[test]
    fn a_long_reply_is_clipped_and_an_endless_one_refused() {
        let many = "250-line\r\n".repeat(REPLY_LINES_MAX + 7) + "250 end\r\n";
        let reply = ReplyReader::default().read(&mut many.as_bytes()).unwrap().unwrap();
        assert_eq!(reply.lines.len(), REPLY_LINES_MAX);

        let wide = format!("250 {}\r\n", "ü".repeat(REPLY_BYTES_MAX));
        let reply = ReplyReader::default().read(&mut wide.as_bytes()).unwrap().unwrap();
        assert_eq!(reply.lines[0].len(), REPLY_BYTES_MAX);

        let endless = "250-line\r\n".repeat(READ_BYTES_MAX / 10 + 1);
        assert_eq!(ReplyReader::default().read(&mut endless.as_bytes()), Err(Error::TooLong));
        let line = vec![b'2'; READ_BYTES_MAX + 1];
        assert_eq!(ReplyReader::default().read(&mut line.as_slice()), Err(Error::TooLong));
    }

    #[test]
    fn written_replies() {
        let check = |reply: Reply, expect: &str| {
            let mut out = Vec::new();
            write(&reply, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check(reply(250, (1, 5), "OK"), "250 2.1.5 OK\r\n");
        check(Reply { code: 250, lines: vec!["a".into(), "b".into()] }, "250-a\r\n250 b\r\n");
        check(Reply { code: 250, lines: vec![] }, "250\r\n");
        check(Reply::new(550, "x\r\n250 y"), "550 x??250 y\r\n");
    }
}
