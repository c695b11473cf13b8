//! Header fields: folding, encoded words, address lists and parameters, written so that no value can end its field.
//!
//! Values with control characters never get here: the composers refuse or replace them first ([`has_control`]).

use std::fmt::Write as _;

use postledger_events::address::Address;
use postledger_events::draft::NameAddress;

/// Columns of a folded line: the contract's, one below the 78 that RFC 5322 §2.1.1 recommends.
const COLUMNS_MAX: usize = 77;
/// RFC 5322 §2.1.1, without the CRLF.
pub const LINE_BYTES_MAX: usize = 998;
/// A word up to this length is written as it is, so that links can be copied; a longer one would not fit a line.
const WORD_BYTES_MAX: usize = 900;
/// RFC 2047 §2.
const ENCODED_WORD_BYTES_MAX: usize = 75;
const ENCODED_WORD_START: &str = "=?utf-8?q?";
const ENCODED_WORD_END: &str = "?=";
/// A line with less room than this is not worth beginning an encoded word on; no character needs more than 12.
const ENCODED_TEXT_BYTES_MIN: usize = 24;
/// The longest name of an address field with its colon and space, `Reply-To: `.
const ADDRESS_FIELD_COLUMN: usize = 10;
/// A quoted name that would fill a line by itself is written as encoded words, which can be folded.
const QUOTED_NAME_BYTES_MAX: usize = 75;
const PARAMETER_BYTES_MAX: usize = 60;

/// What a header may hold as it is: UTF-8 only in a message sent with SMTPUTF8 (RFC 6532 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    Ascii,
    Utf8,
}

impl Charset {
    pub fn of(smtputf8: bool) -> Charset {
        if smtputf8 { Charset::Utf8 } else { Charset::Ascii }
    }

    pub fn holds(self, text: &str) -> bool {
        match self {
            Charset::Ascii => text.is_ascii(),
            // Some readers take these for line ends.
            Charset::Utf8 => !text.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')),
        }
    }

    /// The address in angle brackets.
    pub fn angle(self, address: &Address) -> String {
        match self {
            Charset::Ascii => format!("<{address}>"),
            Charset::Utf8 => format!("<{}>", address.to_unicode()),
        }
    }
}

/// Whether the text has a character that could end or garble a header field.
pub fn has_control(text: &str) -> bool {
    text.bytes().any(|b| b < b' ' || b == 0x7f)
}

/// RFC 5322 §2.2 field-name: printable ASCII without colon.
pub fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

/// One field as it is written: words come with a space before them, or on a new line where they do not fit.
pub struct Field<'a> {
    out: &'a mut Vec<u8>,
    column: usize,
    is_empty: bool,
    fold: Fold,
}

/// What begins a continuation line.
#[derive(Clone, Copy)]
pub enum Fold {
    /// As the contract has it, in structured fields, where all blanks are equal.
    Tab,
    /// In texts: unfolding takes away the CRLF only (RFC 5322 §2.2.3), and leaves the space that was there.
    Space,
}

impl<'a> Field<'a> {
    pub fn new(out: &'a mut Vec<u8>, name: &str, fold: Fold) -> Field<'a> {
        out.extend_from_slice(name.as_bytes());
        out.push(b':');
        Field { out, column: name.len() + 1, is_empty: true, fold }
    }

    /// A word, which stays in one piece.
    pub fn word(&mut self, word: &str) {
        let fits = self.column + 1 + word.len() <= COLUMNS_MAX;
        if fits || self.is_empty {
            self.glue(" ");
        } else {
            self.new_line();
        }
        self.glue(word);
        self.is_empty = false;
    }

    /// A word without a space before it.
    pub fn glue(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
        self.column += text.len();
    }

    /// Like [`Field::glue`], but on a new line where it does not fit. Only for places where blanks mean nothing.
    pub fn glue_or_fold(&mut self, text: &str) {
        if self.column + text.len() > COLUMNS_MAX {
            self.new_line();
        }
        self.glue(text);
    }

    pub fn new_line(&mut self) {
        self.out.extend_from_slice(match self.fold {
            Fold::Tab => b"\r\n\t",
            Fold::Space => b"\r\n ",
        });
        self.column = 1;
    }

    pub fn end(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// A field on one line, for values that are short and safe by construction.
pub fn line(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// An unstructured field (RFC 5322 §2.2.1) that reads back exactly as the value is.
pub fn text(out: &mut Vec<u8>, name: &str, value: &str, charset: Charset) {
    let words: Vec<&str> = value.split(' ').collect();
    let marked: Vec<(bool, &str)> =
        words.iter().enumerate().map(|(at, word)| (must_encode(&words, at, charset), *word)).collect();
    let mut field = Field::new(out, name, Fold::Space);
    for run in marked.chunk_by(|a, b| a.0 == b.0) {
        text_run(&mut field, run);
    }
    field.end();
}

/// Words that are all to be encoded or all not. Readers drop the blanks between encoded words (RFC 2047 §6.2), so the
/// spaces of an encoded run are inside of it.
fn text_run(field: &mut Field, run: &[(bool, &str)]) {
    if !run[0].0 {
        run.iter().for_each(|(_, word)| field.word(word));
        return;
    }
    let joined = run.iter().map(|(_, word)| *word).collect::<Vec<_>>().join(" ");
    for word in encoded_words(&joined, Place::Text, field.column + 1) {
        field.word(&word);
    }
}

/// A word is encoded if the header cannot hold it, if a reader would take it for an encoded word, or if it stands beside
/// an empty one, which means two spaces in a row or one at an end: these do not survive every reader.
fn must_encode(words: &[&str], at: usize, charset: Charset) -> bool {
    let is_empty = |at: usize| words.get(at).is_some_and(|word| word.is_empty());
    let word = words[at];
    !charset.holds(word)
        || word.contains("=?")
        || word.len() > WORD_BYTES_MAX
        || is_empty(at)
        || is_empty(at + 1)
        || at.checked_sub(1).is_some_and(is_empty)
}

/// Where an encoded word stands; a phrase allows fewer characters (RFC 2047 §5).
#[derive(Clone, Copy)]
enum Place {
    Text,
    Phrase,
}

/// The text as encoded words, of which the first fits a line that is at `column`.
fn encoded_words(text: &str, place: Place, column: usize) -> Vec<String> {
    let around = ENCODED_WORD_START.len() + ENCODED_WORD_END.len();
    let full = ENCODED_WORD_BYTES_MAX - around;
    let left = COLUMNS_MAX.saturating_sub(column + around).min(full);
    let mut room = if left < ENCODED_TEXT_BYTES_MIN { full } else { left };
    let mut words = Vec::new();
    let mut word = String::new();
    let mut piece = String::new();
    for c in text.chars() {
        piece.clear();
        q_encode(c, place, &mut piece);
        // RFC 2047 §5: no character is split over two encoded words.
        if word.len() + piece.len() > room {
            words.push(format!("{ENCODED_WORD_START}{word}{ENCODED_WORD_END}"));
            word.clear();
            room = full;
        }
        word.push_str(&piece);
    }
    words.push(format!("{ENCODED_WORD_START}{word}{ENCODED_WORD_END}"));
    words
}

/// RFC 2047 §4.2.
fn q_encode(c: char, place: Place, out: &mut String) {
    let plain = match place {
        Place::Text => c.is_ascii_graphic() && !"=?_".contains(c),
        Place::Phrase => c.is_ascii_alphanumeric() || "!*+-/".contains(c),
    };
    if plain {
        out.push(c);
    } else if c == ' ' {
        out.push('_');
    } else {
        for byte in c.encode_utf8(&mut [0; 4]).bytes() {
            write!(out, "={byte:02X}").expect("a String takes all that is written");
        }
    }
}

/// An address list (RFC 5322 §3.4); nothing if it is empty.
pub fn addresses(out: &mut Vec<u8>, name: &str, list: &[NameAddress], charset: Charset) {
    let Some((first, rest)) = list.split_first() else { return };
    let mut field = Field::new(out, name, Fold::Tab);
    mailbox(&mut field, first, charset);
    for entry in rest {
        field.glue(",");
        mailbox(&mut field, entry, charset);
    }
    field.end();
}

/// The Bcc field, which only the sender's own copy has.
pub fn bcc(list: &[NameAddress]) -> Vec<u8> {
    let mut out = Vec::new();
    let smtputf8 = list.iter().any(|entry| entry.address.needs_smtputf8());
    addresses(&mut out, "Bcc", list, Charset::of(smtputf8));
    out
}

fn mailbox(field: &mut Field, entry: &NameAddress, charset: Charset) {
    let angle = charset.angle(&entry.address);
    if entry.name.is_empty() {
        return field.word(&angle);
    }
    let words = name_words(&entry.name, charset);
    let whole = format!("{} {angle}", words.join(" "));
    if whole.len() < COLUMNS_MAX {
        return field.word(&whole);
    }
    words.iter().for_each(|word| field.word(word));
    field.word(&angle);
}

/// A display name, quoted where the header can hold it, else as encoded words.
fn name_words(name: &str, charset: Charset) -> Vec<String> {
    let quoted = quote(name);
    if charset.holds(name) && !name.contains("=?") && quoted.len() <= QUOTED_NAME_BYTES_MAX {
        return vec![quoted];
    }
    encoded_words(name, Place::Phrase, ADDRESS_FIELD_COLUMN)
}

/// RFC 5322 §3.2.4.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A parameter after a `;` (RFC 2045 §5.1), extended and continued as RFC 2231 §3 and §4 have it where needed.
pub fn parameter(field: &mut Field, name: &str, value: &str) {
    field.glue(";");
    let is_token = !value.is_empty() && value.bytes().all(is_token_byte);
    let plain = if is_token { value.to_owned() } else { quote(value) };
    // Some readers decode encoded words here, too.
    if value.is_ascii() && !value.contains("=?") && plain.len() <= PARAMETER_BYTES_MAX {
        return field.word(&format!("{name}={plain}"));
    }
    let segments = percent_segments(value);
    if let [only] = segments.as_slice() {
        return field.word(&format!("{name}*=utf-8''{only}"));
    }
    for (at, segment) in segments.iter().enumerate() {
        let charset = if at == 0 {
            "utf-8''"
        } else {
            field.glue(";");
            ""
        };
        field.word(&format!("{name}*{at}*={charset}{segment}"));
    }
}

/// RFC 2045 §5.1 token.
pub fn is_token_byte(b: u8) -> bool {
    b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b)
}

/// Percent-encoded, in pieces that fit a line; no character is split.
fn percent_segments(value: &str) -> Vec<String> {
    let mut segments = Vec::new();
    let mut segment = String::new();
    for c in value.chars() {
        let mut piece = String::new();
        // RFC 2231 §7 attribute-char.
        if c.is_ascii_alphanumeric() || "!#$&+-.^_`{|}~".contains(c) {
            piece.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                write!(piece, "%{byte:02X}").expect("a String takes all that is written");
            }
        }
        if segment.len() + piece.len() > PARAMETER_BYTES_MAX {
            segments.push(std::mem::take(&mut segment));
        }
        segment.push_str(&piece);
    }
    segments.push(segment);
    segments
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;

    use super::*;

    fn subject(value: &str, charset: Charset) -> String {
        let mut out = Vec::new();
        text(&mut out, "Subject", value, charset);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts() {
        let check = |value: &str, expect: &str| assert_eq!(subject(value, Charset::Ascii), format!("{expect}\r\n"));
        check("simple words", "Subject: simple words");
        check("h\u{e9}llo <&> \"q\"", "Subject: =?utf-8?q?h=C3=A9llo?= <&> \"q\"");
        // Adjacent encoded words keep their space.
        check("\u{fc} \u{e4} b", "Subject: =?utf-8?q?=C3=BC_=C3=A4?= b");
        check("two  spaces", "Subject: =?utf-8?q?two__spaces?=");
        check(" ends ", "Subject: =?utf-8?q?_ends_?=");
        check(" ", "Subject: =?utf-8?q?_?=");
        check("no =?utf-8?q?word?= here", "Subject: no =?utf-8?q?=3D=3Futf-8=3Fq=3Fword=3F=3D?= here");
        check(
            "a rather long subject that has to be folded since it does not fit on one single line",
            "Subject: a rather long subject that has to be folded since it does not fit on\r\n one single line",
        );
        assert_eq!(subject("h\u{e9}llo", Charset::Utf8), "Subject: h\u{e9}llo\r\n");
        assert_eq!(subject("a\u{85}b", Charset::Utf8), "Subject: =?utf-8?q?a=C2=85b?=\r\n");
    }

    #[test]
    fn texts_fit_their_lines_and_read_back() {
        let check = |value: &str, columns_max: usize| {
            let header = subject(value, Charset::Ascii);
            let longest = header.lines().map(str::len).max().unwrap();
            assert!(longest <= columns_max, "{longest} columns: {header}");
            let message = format!("{header}\r\n");
            let read = MessageParser::new().parse(message.as_bytes()).unwrap().subject().map(str::to_owned);
            assert_eq!(read.as_deref(), Some(value));
        };
        check(&"w\u{f6}rter ".repeat(100), COLUMNS_MAX);
        check(&"\u{263a}".repeat(1000), COLUMNS_MAX);
        check(&"x".repeat(WORD_BYTES_MAX), LINE_BYTES_MAX);
        check(&"x".repeat(WORD_BYTES_MAX + 1), COLUMNS_MAX);
        check(&"word ".repeat(3000), COLUMNS_MAX);
    }

    #[test]
    fn address_lists() {
        let entry = |name: &str, address: &str| NameAddress {
            name: name.to_owned(),
            address: Address::parse(address).unwrap(),
        };
        let check = |charset: Charset, list: &[NameAddress], expect: &str| {
            let mut out = Vec::new();
            addresses(&mut out, "To", list, charset);
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check(Charset::Ascii, &[], "");
        check(Charset::Ascii, &[entry("", "mox@localhost")], "To: <mox@localhost>\r\n");
        check(Charset::Ascii, &[entry("To Name", "mox@localhost")], "To: \"To Name\" <mox@localhost>\r\n");
        check(Charset::Ascii, &[entry("a\"b\\c", "\"x y\"@localhost")], "To: \"a\\\"b\\\\c\" <\"x y\"@localhost>\r\n");
        let smile = entry("Mox \u{263a}, (x)", "mox@m\u{f6}x.example");
        check(
            Charset::Ascii,
            std::slice::from_ref(&smile),
            "To: =?utf-8?q?Mox_=E2=98=BA=2C_=28x=29?= <mox@xn--mx-fka.example>\r\n",
        );
        check(Charset::Utf8, &[smile], "To: \"Mox \u{263a}, (x)\" <mox@m\u{f6}x.example>\r\n");
        check(
            Charset::Ascii,
            &[entry("One", "one@example.org"), entry("Two", "two@example.org"), entry("", "three@test.example.org")],
            "To: \"One\" <one@example.org>, \"Two\" <two@example.org>,\r\n\t<three@test.example.org>\r\n",
        );
        let long = entry(&"long ".repeat(20), "one@example.org");
        check(
            Charset::Ascii,
            &[long],
            "To: =?utf-8?q?long_long_long_long_long_long_long_long_long_long_long_?=\r\n\
             \t=?utf-8?q?long_long_long_long_long_long_long_long_long_?= <one@example.org>\r\n",
        );
    }

    #[test]
    fn parameters() {
        let check = |value: &str, expect: &str| {
            let mut out = Vec::new();
            let mut field = Field::new(&mut out, "Content-Disposition", Fold::Tab);
            field.word("inline");
            parameter(&mut field, "filename", value);
            field.end();
            assert_eq!(String::from_utf8(out).unwrap(), format!("Content-Disposition: inline;{expect}\r\n"));
        };
        check("hi.png", " filename=hi.png");
        check("a b.bin", " filename=\"a b.bin\"");
        check("a\"\\b", " filename=\"a\\\"\\\\b\"");
        check("a \u{fc}.bin", " filename*=utf-8''a%20%C3%BC.bin");
        check(
            &"0123456789".repeat(8),
            "\r\n\tfilename*0*=utf-8''012345678901234567890123456789012345678901234567890123456789;\r\n\
             \tfilename*1*=01234567890123456789",
        );
    }
}
