//! The MIME layers of a message, each only when it is needed, and the encodings of its parts.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use postledger_events::draft::{Draft, File};

use super::header::{self, Charset, Field, Fold};
use super::sniff;

/// RFC 2045 §6.7 and §6.8, without the CRLF. A longer line makes a text quoted-printable.
const BODY_COLUMNS_MAX: usize = 76;
/// Bytes that make a full line of base64.
const BASE64_LINE_BYTES: usize = 57;

/// What all boundaries of a message have in them.
///
/// It begins with `=_`, which neither base64 nor quoted-printable ever has; a text that has it is written
/// quoted-printable. So no part can hold a boundary.
pub struct Stem(String);

impl Stem {
    pub fn new(random: [u8; 16]) -> Stem {
        Stem(format!("=_{}", URL_SAFE_NO_PAD.encode(random)))
    }

    /// Of equal length for every layer, so that none begins another.
    fn boundary(&self, layer: Layer) -> String {
        format!("{}_{}", self.0, &layer.subtype()[..1])
    }
}

/// A part of a message: a leaf, or a layer with the parts in it.
pub enum Part<'a> {
    Text { subtype: &'static str, text: &'a str },
    File { disposition: &'static str, file: &'a File },
    Multipart { layer: Layer, parts: Vec<Part<'a>> },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    Mixed,
    Related,
    Alternative,
}

impl Layer {
    fn subtype(self) -> &'static str {
        match self {
            Layer::Mixed => "mixed",
            Layer::Related => "related",
            Layer::Alternative => "alternative",
        }
    }
}

/// The parts of a draft, outermost first. It has a text or HTML.
pub fn structure(draft: &Draft) -> Part<'_> {
    let mut alternatives = Vec::new();
    if !draft.text.is_empty() {
        alternatives.push(Part::Text { subtype: "plain", text: &draft.text });
    }
    if !draft.html.is_empty() {
        alternatives.push(Part::Text { subtype: "html", text: &draft.html });
    }
    alternatives.extend(files("inline", &draft.alternative_files));
    let body = layered(Layer::Alternative, alternatives);
    let related = layered(Layer::Related, with_files(body, "inline", &draft.inline_files));
    layered(Layer::Mixed, with_files(related, "attachment", &draft.attached_files))
}

fn files<'a>(disposition: &'static str, files: &'a [File]) -> impl Iterator<Item = Part<'a>> {
    files.iter().map(move |file| Part::File { disposition, file })
}

fn with_files<'a>(first: Part<'a>, disposition: &'static str, list: &'a [File]) -> Vec<Part<'a>> {
    std::iter::once(first).chain(files(disposition, list)).collect()
}

/// One part stays as it is.
fn layered(layer: Layer, mut parts: Vec<Part<'_>>) -> Part<'_> {
    match parts.len() {
        1 => parts.remove(0),
        _ => Part::Multipart { layer, parts },
    }
}

impl Part<'_> {
    /// The media type without parameters.
    fn media_type(&self) -> String {
        match self {
            Part::Text { subtype, .. } => format!("text/{subtype}"),
            Part::File { file, .. } => file.content_type.clone(),
            Part::Multipart { layer, .. } => format!("multipart/{}", layer.subtype()),
        }
    }

    /// Writes the part: its header fields, an empty line, its body.
    pub fn write(&self, out: &mut Vec<u8>, stem: &Stem, charset: Charset) {
        match self {
            Part::Text { subtype, text } => write_text(out, subtype, text, stem, charset),
            Part::File { disposition, file } => write_file(out, disposition, file),
            Part::Multipart { layer, parts } => write_multipart(out, *layer, parts, stem, charset),
        }
    }
}

fn write_multipart(out: &mut Vec<u8>, layer: Layer, parts: &[Part], stem: &Stem, charset: Charset) {
    let boundary = stem.boundary(layer);
    let mut field = Field::new(out, "Content-Type", Fold::Tab);
    field.word(&format!("multipart/{};", layer.subtype()));
    if layer == Layer::Related {
        // RFC 2387 §3.1: the type of the root, which is the first part.
        field.word(&format!("type=\"{}\";", parts[0].media_type()));
    }
    field.word(&format!("boundary=\"{boundary}\""));
    field.end();
    for part in parts {
        out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        part.write(out, stem, charset);
    }
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
}

fn write_text(out: &mut Vec<u8>, subtype: &str, text: &str, stem: &Stem, charset: Charset) {
    let text_charset = if text.is_ascii() { "us-ascii" } else { "utf-8" };
    let encoding = TextEncoding::of(text, stem, charset);
    header::line(out, "Content-Type", &format!("text/{subtype}; charset={text_charset}"));
    header::line(out, "Content-Transfer-Encoding", encoding.as_str());
    out.extend_from_slice(b"\r\n");
    for line in lines(text.as_bytes()) {
        match encoding {
            TextEncoding::SevenBit | TextEncoding::EightBit => out.extend_from_slice(line),
            TextEncoding::QuotedPrintable => quoted_printable_line(out, line),
        }
        out.extend_from_slice(b"\r\n");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextEncoding {
    SevenBit,
    EightBit,
    QuotedPrintable,
}

impl TextEncoding {
    fn of(text: &str, stem: &Stem, charset: Charset) -> TextEncoding {
        // A bare CR and NUL may stand in no message (RFC 5322 §2.3, RFC 2045 §2.7).
        let cannot_stand = |line: &[u8]| line.len() > BODY_COLUMNS_MAX || line.iter().any(|&b| b == b'\r' || b == 0);
        if lines(text.as_bytes()).any(cannot_stand) || text.contains(&stem.0) {
            TextEncoding::QuotedPrintable
        } else if text.is_ascii() && charset == Charset::Ascii {
            TextEncoding::SevenBit
        } else {
            TextEncoding::EightBit
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            TextEncoding::SevenBit => "7bit",
            TextEncoding::EightBit => "8bit",
            TextEncoding::QuotedPrintable => "quoted-printable",
        }
    }
}

/// The lines of a text, whose lines end in LF or CRLF; a last line need not end.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&b| b == b'\n').map(|line| match line {
        [line @ .., b'\r', b'\n'] => line,
        [line @ .., b'\n'] => line,
        line => line,
    })
}

/// RFC 2045 §6.7.
fn quoted_printable_line(out: &mut Vec<u8>, line: &[u8]) {
    let mut column = 0;
    for (at, &b) in line.iter().enumerate() {
        let is_last = at + 1 == line.len();
        let is_literal = if b == b' ' || b == b'\t' { !is_last } else { b.is_ascii_graphic() && b != b'=' };
        let width = if is_literal { 1 } else { 3 };
        // Unless the line ends here, the = of a soft line break needs a column as well.
        let room = if is_last { BODY_COLUMNS_MAX } else { BODY_COLUMNS_MAX - 1 };
        if column + width > room {
            out.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if is_literal {
            out.push(b);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble)];
            out.extend_from_slice(&[b'=', digit(b >> 4), digit(b & 15)]);
        }
        column += width;
    }
}

fn write_file(out: &mut Vec<u8>, disposition: &str, file: &File) {
    let content_type = if file.content_type.is_empty() { sniff::content_type(&file.data) } else { &file.content_type };
    header::line(out, "Content-Type", content_type);
    let mut field = Field::new(out, "Content-Disposition", Fold::Tab);
    field.word(disposition);
    if !file.name.is_empty() {
        header::parameter(&mut field, "filename", &file.name);
    }
    field.end();
    if !file.content_id.is_empty() {
        header::line(out, "Content-ID", &bracketed(&file.content_id));
    }
    header::line(out, "Content-Transfer-Encoding", "base64");
    out.extend_from_slice(b"\r\n");
    base64_lines(out, &file.data);
}

/// RFC 2045 §7: a Content-ID has the form of a Message-ID, without which no `cid:` link finds it.
fn bracketed(id: &str) -> String {
    if id.starts_with('<') { id.to_owned() } else { format!("<{id}>") }
}

pub fn base64_lines(out: &mut Vec<u8>, data: &[u8]) {
    let mut line = [0; BODY_COLUMNS_MAX];
    for chunk in data.chunks(BASE64_LINE_BYTES) {
        let length = STANDARD.encode_slice(chunk, &mut line).expect("57 bytes make 76 of base64");
        out.extend_from_slice(&line[..length]);
        out.extend_from_slice(b"\r\n");
    }
}

/// How many bytes [`base64_lines`] makes of so many, to refuse what is too large before it is encoded.
pub fn base64_size(bytes: usize) -> u64 {
    let lines = bytes.div_ceil(BASE64_LINE_BYTES);
    (bytes.div_ceil(3) * 4 + lines * 2) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stem() -> Stem {
        Stem::new([7; 16])
    }

    #[test]
    fn text_encodings() {
        let check = |text: &str, charset: Charset, expect: TextEncoding| {
            assert_eq!(TextEncoding::of(text, &stem(), charset), expect, "{text:?}");
        };
        check("text\nlines\r\n", Charset::Ascii, TextEncoding::SevenBit);
        check("text", Charset::Utf8, TextEncoding::EightBit);
        check("\u{263a}\n", Charset::Ascii, TextEncoding::EightBit);
        check(&"x".repeat(76), Charset::Ascii, TextEncoding::SevenBit);
        check(&"x".repeat(77), Charset::Ascii, TextEncoding::QuotedPrintable);
        check("bare\rreturn", Charset::Ascii, TextEncoding::QuotedPrintable);
        check("ends\r", Charset::Ascii, TextEncoding::QuotedPrintable);
        check("nul\0", Charset::Ascii, TextEncoding::QuotedPrintable);
        check(&format!("--{}", stem().boundary(Layer::Mixed)), Charset::Ascii, TextEncoding::QuotedPrintable);
    }

    #[test]
    fn quoted_printable() {
        let check = |line: &str, expect: &str| {
            let mut out = Vec::new();
            quoted_printable_line(&mut out, line.as_bytes());
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check("a=b", "a=3Db");
        check("space ", "space=20");
        check("tab\t", "tab=09");
        check("in side", "in side");
        check("\u{e9}\r", "=C3=A9=0D");
        check(&"x".repeat(76), &"x".repeat(76));
        check(&"x".repeat(77), &format!("{}=\r\nxx", "x".repeat(75)));
        check(&format!("{}=y", "x".repeat(74)), &format!("{}=\r\n=3Dy", "x".repeat(74)));
    }

    #[test]
    fn base64_size_is_exact() {
        for bytes in [0, 1, 2, 3, 56, 57, 58, 114, 115, 1000] {
            let mut out = Vec::new();
            base64_lines(&mut out, &vec![1; bytes]);
            assert_eq!(out.len() as u64, base64_size(bytes), "{bytes} bytes");
        }
    }
}
