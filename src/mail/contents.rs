//! Reads all of a received message that a program is told: addresses, texts, and the tree of its parts. Tolerant of anything,
//! bounded in what it gives back.

use std::collections::BTreeMap;

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;
use mail_parser::{Encoding, HeaderName, Message, MessageParser, MessagePart, MimeHeaders, PartType};
use postledger_events::draft::Date;

use super::read::{Mailbox, date, every_mailbox, ids};

/// Of each text, as the contract has it.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Parts that are told of; the rest of the tree is left out.
pub const PARTS_MAX: usize = 1000;
/// Multiparts within one another that are looked into.
pub const DEPTH_MAX: usize = 50;
/// Addresses of one header field.
pub const ADDRESSES_MAX: usize = 1000;

/// A field that the message does not have is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    pub from: Vec<Mailbox>,
    pub to: Vec<Mailbox>,
    pub cc: Vec<Mailbox>,
    pub bcc: Vec<Mailbox>,
    pub reply_to: Vec<Mailbox>,
    pub subject: String,
    /// With the angle brackets, as are the other ids.
    pub message_id: String,
    pub in_reply_to: String,
    /// In lower case, oldest first.
    pub references: Vec<String>,
    pub date: Option<Date>,
    /// With LF line ends.
    pub text: String,
    pub html: String,
    pub structure: Part,
    /// Its header says that no person wrote it to the recipient alone.
    pub is_automated: bool,
}

/// A part of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// In lower case; `/` without one.
    pub content_type: String,
    pub content_type_params: BTreeMap<String, String>,
    /// With the angle brackets.
    pub content_id: String,
    /// In lower case.
    pub content_disposition: String,
    pub filename: String,
    /// Octets, with CRLF line ends; 0 for a multipart.
    pub decoded_size: u64,
    pub parts: Vec<Part>,
}

pub fn contents(raw: &[u8]) -> Contents {
    let Some(message) = MessageParser::default().parse(raw) else {
        return Contents { structure: untyped(), ..Contents::default() };
    };
    let addresses = |name| every_mailbox(&message, name, ADDRESSES_MAX);
    let id = |name| ids(&message, name).pop().unwrap_or_default();
    let readable = message.parts.first().map(|root| Reader { message: &message }.readable(root, 0)).unwrap_or_default();
    Contents {
        from: addresses(HeaderName::From),
        to: addresses(HeaderName::To),
        cc: addresses(HeaderName::Cc),
        bcc: addresses(HeaderName::Bcc),
        reply_to: addresses(HeaderName::ReplyTo),
        subject: message.subject().unwrap_or_default().to_owned(),
        message_id: id(HeaderName::MessageId),
        in_reply_to: id(HeaderName::InReplyTo),
        references: ids(&message, HeaderName::References).iter().map(|id| id.to_lowercase()).collect(),
        date: message.date().and_then(date),
        text: readable.text.unwrap_or_default(),
        html: readable.html.unwrap_or_default(),
        structure: structure(&message),
        is_automated: is_automated(&message),
    }
}

fn untyped() -> Part {
    Part { content_type: "/".to_owned(), ..Part::default() }
}

/// What the contract takes as a sign of a list or a program.
fn is_automated(message: &Message) -> bool {
    let header = |name: &'static str| message.header_raw(name).map(str::trim);
    let is_filled = |name| header(name).is_some_and(|value| !value.is_empty());
    ["List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "Precedence"].into_iter().any(is_filled)
        || header("Auto-Submitted").is_some_and(|value| !value.eq_ignore_ascii_case("no"))
        || message.parts.first().is_some_and(|root| type_of(root) == "multipart/report")
}

fn type_of(part: &MessagePart) -> String {
    part.content_type().map_or("/".to_owned(), |t| {
        format!("{}/{}", t.c_type.to_lowercase(), t.c_subtype.as_deref().unwrap_or_default().to_lowercase())
    })
}

fn structure(message: &Message) -> Part {
    let mut left = PARTS_MAX;
    message.parts.first().map_or_else(untyped, |root| part(message, root, 0, &mut left))
}

fn part(message: &Message, part_of: &MessagePart, depth: usize, left: &mut usize) -> Part {
    *left = left.saturating_sub(1);
    let mut parts = Vec::new();
    if let PartType::Multipart(children) = &part_of.body
        && depth < DEPTH_MAX
    {
        for child in children.iter().filter_map(|id| message.parts.get(*id as usize)) {
            if *left == 0 {
                break;
            }
            parts.push(part(message, child, depth + 1, left));
        }
    }
    let params = part_of.content_type().and_then(|t| t.attributes.as_ref());
    let params = params.into_iter().flatten().map(|a| (a.name.to_lowercase(), a.value.clone().into_owned()));
    Part {
        content_type: type_of(part_of),
        content_type_params: params.collect(),
        content_id: part_of.content_id().map(|id| format!("<{id}>")).unwrap_or_default(),
        content_disposition: part_of.content_disposition().map(|d| d.c_type.to_lowercase()).unwrap_or_default(),
        filename: part_of.attachment_name().unwrap_or_default().to_owned(),
        decoded_size: decoded_size(message, part_of),
        parts,
    }
}

fn decoded_size(message: &Message, part: &MessagePart) -> u64 {
    if let PartType::Multipart(_) = part.body {
        return 0;
    }
    let encoded = message.raw_message.get(part.offset_body as usize..part.offset_end as usize).unwrap_or_default();
    let decoded = match part.encoding {
        Encoding::None => None,
        Encoding::QuotedPrintable => quoted_printable_decode(encoded),
        Encoding::Base64 => base64_decode(encoded),
    };
    decoded.map_or(encoded.len(), |decoded| decoded.len()) as u64
}

#[derive(Default)]
struct Readable {
    text: Option<String>,
    html: Option<String>,
}

impl Readable {
    fn is_empty(&self) -> bool {
        self.text.is_none() && self.html.is_none()
    }
}

struct Reader<'a> {
    message: &'a Message<'a>,
}

impl Reader<'_> {
    /// The contract's choice of what a person would read: a leaf that is text; else what the direct children have (of an
    /// alternative the last of each kind, otherwise the first); else what the first child has that has something.
    fn readable(&self, part: &MessagePart, depth: usize) -> Readable {
        let PartType::Multipart(children) = &part.body else { return leaf(part) };
        let children: Vec<_> = children.iter().filter_map(|id| self.message.parts.get(*id as usize)).collect();
        let is_alternative = type_of(part) == "multipart/alternative";
        let mut found = Readable::default();
        for child in &children {
            let read = leaf(child);
            found.text = read.text.or(found.text);
            found.html = read.html.or(found.html);
            if !is_alternative && !found.is_empty() {
                break;
            }
        }
        if !found.is_empty() || depth == DEPTH_MAX {
            return found;
        }
        let inner = children.iter().map(|child| self.readable(child, depth + 1)).find(|read| !read.is_empty());
        inner.unwrap_or_default()
    }
}

fn leaf(part: &MessagePart) -> Readable {
    let text = match &part.body {
        PartType::Text(text) | PartType::Html(text) => text.clone(),
        PartType::Binary(bytes) | PartType::InlineBinary(bytes) => String::from_utf8_lossy(bytes),
        PartType::Message(_) | PartType::Multipart(_) => return Readable::default(),
    };
    match type_of(part).as_str() {
        "text/plain" | "/" => Readable { text: Some(to_lf(&text)), html: None },
        "text/html" => Readable { text: None, html: Some(to_lf(&text)) },
        _ => Readable::default(),
    }
}

fn to_lf(text: &str) -> String {
    let mut text = text.replace("\r\n", "\n");
    let end = (0..=text.len().min(TEXT_BYTES_MAX)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Contents {
        contents(text.replace('\n', "\r\n").as_bytes())
    }

    fn check_text(message: &str, text: &str, html: &str) {
        let got = parsed(message);
        assert_eq!((got.text.as_str(), got.html.as_str()), (text, html), "{message}");
    }

    #[test]
    fn what_a_person_would_read() {
        check_text("Subject: x\n\nplain\n", "plain\n", "");
        check_text("Content-Type: text/html\n\n<p>\n", "", "<p>\n");
        check_text("Content-Type: image/png\n\n<p>\n", "", "");
        let multi = |kind: &str, parts: &[&str]| {
            let parts: String = parts.iter().map(|part| format!("--b\n{part}\n")).collect();
            format!("Content-Type: multipart/{kind}; boundary=b\n\n{parts}--b--\n")
        };
        let (plain, html) = ("Content-Type: text/plain\n\nT", "Content-Type: text/html\n\nH");
        check_text(&multi("alternative", &[plain, html]), "T", "H");
        check_text(&multi("mixed", &[plain, html]), "T", "");
        check_text(&multi("mixed", &["Content-Type: image/png\n\nx", html]), "", "H");
        check_text(&multi("alternative", &[plain, "Content-Type: text/plain\n\nlast"]), "last", "");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        let text = parsed(&format!("Content-Type: text/plain; charset=utf-8\n\n{}", "é".repeat(TEXT_BYTES_MAX))).text;
        assert_eq!(text.len(), TEXT_BYTES_MAX);
        let text = parsed(&format!("Content-Type: text/plain; charset=utf-8\n\nx{}", "é".repeat(TEXT_BYTES_MAX))).text;
        assert_eq!(text.len(), TEXT_BYTES_MAX - 1);
    }

    #[test]
    fn signs_of_programs() {
        let check = |header: &str, expect: bool| {
            assert_eq!(parsed(&format!("{header}\n\nx")).is_automated, expect, "{header}");
        };
        check("Subject: x", false);
        check("List-Id: <x.example.org>", true);
        check("List-Unsubscribe: <https://example.org/>", true);
        check("Precedence: bulk", true);
        check("Precedence:", false);
        check("Auto-Submitted: no", false);
        check("Auto-Submitted: No", false);
        check("Auto-Submitted: auto-replied", true);
        check("Content-Type: multipart/report; boundary=b", true);
    }

    #[test]
    fn a_deep_or_broad_tree_is_cut() {
        let deep: String =
            (0..200).map(|n| format!("Content-Type: multipart/mixed; boundary=b{n}\n\n--b{n}\n")).collect();
        let mut part = &parsed(&deep).structure;
        let mut depth = 0;
        while let [child] = part.parts.as_slice() {
            (part, depth) = (child, depth + 1);
        }
        assert!(depth <= DEPTH_MAX, "{depth}");
        let broad = "--b\nContent-Type: image/png\n\n\n".repeat(2 * PARTS_MAX);
        let got = parsed(&format!("Content-Type: multipart/mixed; boundary=b\n\n{broad}--b--\n"));
        assert_eq!(got.structure.parts.len(), PARTS_MAX - 1);
    }

    proptest! {
        #[test]
        fn never_panics(raw in proptest::collection::vec(any::<u8>(), 0..400), start in 0..3usize) {
            let mut message = [&b""[..], b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n", b"To: "][start].to_vec();
            message.extend(raw);
            prop_assert!(contents(&message).text.len() <= TEXT_BYTES_MAX);
        }
    }
}
