//! Message content on the wire (RFC 5321 §4.5.2): dots stuffed on the way out, unstuffed on the way in.
//!
//! Only CRLF ends a line and only CRLF.CRLF ends the content. A carriage return or line feed alone spoils a message in
//! both directions: servers disagree on what it means, and that is how one message gets smuggled inside another.

/// Bytes handed to the socket at once; each such block has its own time limit (RFC 5321 §4.5.3.2.5).
pub const BLOCK_BYTES: usize = 64 * 1024;

/// Whether `message` can be sent: every line ends in CRLF, the last as well, and CR and LF stand nowhere else.
pub fn is_canonical(message: &[u8]) -> bool {
    let mut before = b'\n';
    for &b in message {
        if (b == b'\n') != (before == b'\r') {
            return false;
        }
        before = b;
    }
    message.is_empty() || message.ends_with(b"\r\n")
}

/// Gives the stuffed form of a message block by block, the end mark in the last.
#[derive(Debug)]
pub struct Stuffer<'a> {
    rest: &'a [u8],
    at_line_start: bool,
    ended: bool,
}

impl<'a> Stuffer<'a> {
    /// # Panics
    /// If `message` is not canonical: sending it would let its content be read as commands.
    pub fn new(message: &'a [u8]) -> Stuffer<'a> {
        assert!(is_canonical(message), "a message with bare line ends must not be sent");
        Stuffer { rest: message, at_line_start: true, ended: false }
    }

    /// The next block into `out` (emptied before). False when there is none left.
    pub fn next_block(&mut self, out: &mut Vec<u8>) -> bool {
        out.clear();
        if self.ended {
            return false;
        }
        let (block, rest) = self.rest.split_at(self.rest.len().min(BLOCK_BYTES));
        self.rest = rest;
        self.stuff(block, out);
        if rest.is_empty() {
            out.extend_from_slice(b".\r\n");
            self.ended = true;
        }
        true
    }

    /// Whether the block last given holds the end mark.
    pub fn is_last(&self) -> bool {
        self.ended
    }

    fn stuff(&mut self, block: &[u8], out: &mut Vec<u8>) {
        for line in block.split_inclusive(|&b| b == b'\n') {
            if self.at_line_start && line[0] == b'.' {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            self.at_line_start = line.ends_with(b"\n");
        }
    }
}

/// Reads content as it comes, holding at most `bytes_max` of it.
#[derive(Debug)]
pub struct DataReader {
    state: State,
    message: Vec<u8>,
    bytes_max: usize,
    spoiled: Option<Spoiled>,
    discarded: u64,
}

/// What was read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    /// A dot at the start of a line.
    Dot,
    /// A dot and a CR, with nothing else on the line.
    DotCr,
    Text,
    Cr,
    End,
}

/// Why content is not taken, though it is read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoiled {
    TooLarge,
    BareLineEnd,
    /// Whoever reads has no room for it.
    NoRoom,
}

impl DataReader {
    pub fn new(bytes_max: usize) -> DataReader {
        DataReader { state: State::LineStart, message: Vec::new(), bytes_max, spoiled: None, discarded: 0 }
    }

    /// Takes bytes off the front of `input`, at most to the end mark. True when that was read.
    pub fn read(&mut self, input: &mut &[u8]) -> bool {
        while self.state != State::End && !input.is_empty() {
            let plain = if self.state == State::Text { line_end(input) } else { 0 };
            if plain > 0 {
                self.keep(&input[..plain]);
                *input = &input[plain..];
            } else {
                self.step(input[0]);
                *input = &input[1..];
            }
        }
        self.state == State::End
    }

    /// Stops holding the content; the rest is only read over.
    pub fn spoil(&mut self, why: Spoiled) {
        self.discarded += self.message.len() as u64;
        self.message = Vec::new();
        self.spoiled.get_or_insert(why);
    }

    /// Bytes held, unless the content is spoiled.
    pub fn held_bytes(&self) -> Option<usize> {
        self.spoiled.is_none().then_some(self.message.len())
    }

    /// Bytes read over since the content was spoiled, and those dropped with it.
    pub fn discarded_bytes(&self) -> u64 {
        self.discarded
    }

    /// The message, or why there is none.
    pub fn finish(self) -> Result<Vec<u8>, Spoiled> {
        assert_eq!(self.state, State::End, "the content was not read to its end");
        self.spoiled.map_or(Ok(self.message), Err)
    }

    fn step(&mut self, b: u8) {
        self.state = match (self.state, b) {
            (State::LineStart, b'.') => State::Dot,
            (State::Dot, b'\r') => State::DotCr,
            (State::DotCr, b'\n') => State::End,
            (State::LineStart | State::Text, b'\r') => State::Cr,
            (State::Cr, b'\n') => {
                self.keep(b"\r\n");
                State::LineStart
            }
            // Neither a CR before another nor one before text, and no LF without CR, may count as a line's end.
            (State::Cr | State::DotCr, b'\r') => {
                self.spoil(Spoiled::BareLineEnd);
                State::Cr
            }
            (State::Cr | State::DotCr, _) | (State::LineStart | State::Dot | State::Text, b'\n') => {
                self.spoil(Spoiled::BareLineEnd);
                State::Text
            }
            // RFC 5321 §4.5.2: a dot before other characters is deleted.
            (State::LineStart | State::Dot | State::Text, b) => {
                self.keep(&[b]);
                State::Text
            }
            (State::End, _) => State::End,
        };
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.spoiled.is_some() {
            self.discarded += bytes.len() as u64;
        } else if self.message.len() + bytes.len() > self.bytes_max {
            self.spoil(Spoiled::TooLarge);
            self.discarded += bytes.len() as u64;
        } else {
            self.message.extend_from_slice(bytes);
        }
    }
}

fn line_end(input: &[u8]) -> usize {
    input.iter().position(|&b| b == b'\r' || b == b'\n').unwrap_or(input.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOMY: usize = 1 << 20;

    /// What was read, and what was left behind its end.
    #[derive(Debug, PartialEq, Eq)]
    struct Content {
        message: Result<Vec<u8>, Spoiled>,
        rest: Vec<u8>,
    }

    fn content(message: Result<&[u8], Spoiled>, rest: &[u8]) -> Option<Content> {
        Some(Content { message: message.map(<[u8]>::to_vec), rest: rest.to_vec() })
    }

    /// Reads `wire` in parts of this many bytes. None if there was no end.
    fn read(wire: &[u8], parts: usize, bytes_max: usize) -> Option<Content> {
        let mut reader = DataReader::new(bytes_max);
        let mut rest = wire;
        while !rest.is_empty() {
            let (mut part, after) = rest.split_at(parts.clamp(1, rest.len()));
            if reader.read(&mut part) {
                return Some(Content { message: reader.finish(), rest: [part, after].concat() });
            }
            rest = after;
        }
        None
    }

    fn stuffed(message: &[u8]) -> Vec<u8> {
        let (mut stuffer, mut block, mut wire) = (Stuffer::new(message), Vec::new(), Vec::new());
        while stuffer.next_block(&mut block) {
            wire.extend_from_slice(&block);
        }
        wire
    }

    #[test]
    fn reading() {
        let check = |wire: &str, expect: Option<(Result<&str, Spoiled>, &str)>| {
            let content = || expect.and_then(|(message, rest)| content(message.map(str::as_bytes), rest.as_bytes()));
            for parts in 1..=wire.len() {
                assert_eq!(read(wire.as_bytes(), parts, ROOMY), content(), "{wire:?} in parts of {parts}");
            }
        };
        check(".\r\n", Some((Ok(""), "")));
        check("a\r\n.\r\n", Some((Ok("a\r\n"), "")));
        check("a\r\n.\r\nQUIT\r\n", Some((Ok("a\r\n"), "QUIT\r\n")));
        check("..\r\n.a\r\n...\r\n.\r\n", Some((Ok(".\r\na\r\n..\r\n"), "")));
        check("\r\n\r\n.\r\n", Some((Ok("\r\n\r\n"), "")));
        check("a\r\n.\r", None);
        // Nothing that looks like an end is one, and the message is refused at the real end.
        let bare = Some((Err(Spoiled::BareLineEnd), "R"));
        for fake in [
            "\n.\n",
            "\r\n.\n",
            "\n.\r\n",
            "\r.\r",
            "\r.\r\n",
            "\r\n.\r",
            "\r\n.\r\r\n",
            "\n",
            "\r",
            "\r\r\n",
            "\n\r\n",
        ] {
            check(&format!("a{fake}b\r\n.\r\nR"), bare);
        }
        check("a\n.\r\n\r\n.\r\nR", bare);
        check("a\r\r\n.\r\nR", bare);
        check(".\rX\r\n.\r\nR", bare);
        check(".\n\r\n.\r\nR", bare);
    }

    #[test]
    fn the_size_is_bounded_and_the_end_still_found() {
        let wire = format!("{}\r\n.\r\nR", "x".repeat(100));
        assert_eq!(read(wire.as_bytes(), 7, 102), content(Ok(&wire.as_bytes()[..102]), b"R"));
        assert_eq!(read(wire.as_bytes(), 7, 101), content(Err(Spoiled::TooLarge), b"R"));
        let mut reader = DataReader::new(10);
        assert!(!reader.read(&mut &vec![b'x'; 1000][..]));
        assert_eq!(reader.held_bytes(), None);
        assert_eq!(reader.discarded_bytes(), 1000);
    }

    #[test]
    fn canonical_messages() {
        for (message, expect) in [
            ("", true),
            ("a\r\n", true),
            ("\r\n\r\n", true),
            ("a", false),
            ("a\n", false),
            ("\n", false),
            ("\r", false),
            ("a\rb\r\n", false),
            ("a\r\r\n", false),
            ("a\nb\r\n", false),
            ("a\r\n\n", false),
            ("a\r\nb\r", false),
        ] {
            assert_eq!(is_canonical(message.as_bytes()), expect, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_stuffed_comes_back(lines in prop::collection::vec("[.a\\x00-\\x09é]{0,4}", 0..30), parts in 1usize..40) {
            let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let wire = stuffed(message.as_bytes());
            prop_assert_eq!(read(&wire, parts, ROOMY), content(Ok(message.as_bytes()), b""));
        }

        #[test]
        fn parts_make_no_difference(wire in prop::collection::vec(prop::sample::select(b".\r\na".to_vec()), 0..40), parts in 1usize..40) {
            let mut wire = wire;
            wire.extend_from_slice(b"\r\n.\r\n");
            let whole = read(&wire, wire.len(), ROOMY);
            prop_assert_eq!(&read(&wire, parts, ROOMY), &whole);
            // What is taken is what a stuffer would have sent.
            let Content { message, rest } = whole.unwrap();
            if let Ok(message) = message {
                prop_assert!(is_canonical(&message));
                let taken = wire.len() - rest.len();
                prop_assert!(wire[..taken].ends_with(b"\r\n.\r\n") || &wire[..taken] == b".\r\n");
            }
        }
    }

    #[test]
    fn long_messages_are_stuffed_across_blocks() {
        let line = format!(".{}\r\n", "x".repeat(997));
        let message = line.repeat(3 * BLOCK_BYTES / line.len());
        let wire = stuffed(message.as_bytes());
        assert_eq!(wire.len(), message.len() + message.lines().count() + 3);
        assert_eq!(read(&wire, BLOCK_BYTES, ROOMY), content(Ok(message.as_bytes()), b""));
    }
}
