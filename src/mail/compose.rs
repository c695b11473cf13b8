//! Makes a message of a draft. All of it is decided by the arguments, so the same draft composes to the same bytes.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postledger_events::address::Domain;
use postledger_events::draft::{Date, Draft, File};
use postledger_events::time::Timestamp;

use super::header::{self, Charset};
use super::mime::{self, Stem};

/// Of a custom header, with room for some of its value on the line.
const HEADER_NAME_BYTES_MAX: usize = 255;
/// With the brackets; so that each fits a line of its own (RFC 5322 §2.1.1).
const MESSAGE_ID_BYTES_MAX: usize = 900;
const CONTENT_TYPE_BYTES_MAX: usize = 900;
const CONTENT_ID_BYTES_MAX: usize = 900;
/// RFC 5322 §3.3 zones are within a day; other offsets are written as UTC.
const OFFSET_MINUTES_MAX: i16 = 24 * 60 - 1;

/// Fields that the composer, the signer or the envelope writes; all of `Content-*` is theirs too.
const OWNED: [&str; 15] = [
    "From",
    "To",
    "Cc",
    "Bcc",
    "Sender",
    "Reply-To",
    "Subject",
    "Date",
    "Message-ID",
    "References",
    "In-Reply-To",
    "MIME-Version",
    "Received",
    "Return-Path",
    "DKIM-Signature",
];

/// What a message needs besides its draft.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The right side of generated Message-Ids, in ASCII.
    pub hostname: &'a str,
    /// The Date, unless the draft has one.
    pub now: Timestamp,
    pub message_id_random: [u8; 16],
    pub boundary_random: [u8; 16],
    /// `program/version`.
    pub user_agent: &'a str,
    /// Of the composed message.
    pub size_max: u64,
}

/// A message as it is signed, stored and sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// With the angle brackets.
    pub message_id: String,
    /// Header and body; every line ends in CRLF.
    pub message: Vec<u8>,
    /// Its header has UTF-8, so it can only be sent with SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// It has 8-bit bytes, so it is sent with BODY=8BITMIME (RFC 6152).
    pub eight_bit: bool,
}

pub fn compose(draft: &Draft, context: &Context) -> Result<Composed, Error> {
    let charset = Charset::of(draft.needs_smtputf8());
    check(draft, charset)?;
    let files_size = check_files(draft, charset)?;
    check_size(files_size, context.size_max)?;
    let message_id = draft.message_id.clone().unwrap_or_else(|| generated_id(context, charset));
    let text_size = (draft.text.len() + draft.html.len()) as u64;
    let mut message = Vec::with_capacity(usize::try_from(files_size + text_size).unwrap_or(0) + 4096);
    write_header(&mut message, draft, &message_id, context, charset);
    mime::structure(draft).write(&mut message, &Stem::new(context.boundary_random), charset);
    check_size(message.len() as u64, context.size_max)?;
    let eight_bit = !message.is_ascii();
    Ok(Composed { message_id, message, smtputf8: charset == Charset::Utf8, eight_bit })
}

/// Everything but the Content fields, which come from the MIME structure.
fn write_header(out: &mut Vec<u8>, draft: &Draft, message_id: &str, context: &Context, charset: Charset) {
    header::addresses(out, "From", std::slice::from_ref(&draft.from), charset);
    header::addresses(out, "Reply-To", &draft.reply_to, charset);
    header::addresses(out, "To", &draft.to, charset);
    header::addresses(out, "Cc", &draft.cc, charset);
    if !draft.subject.is_empty() {
        header::text(out, "Subject", &draft.subject, charset);
    }
    let date = draft.date.unwrap_or(Date { at: context.now, offset_minutes: 0 });
    header::line(out, "Date", &date_time(date));
    header::line(out, "Message-Id", message_id);
    write_references(out, &draft.references);
    header::line(out, "MIME-Version", "1.0");
    for (name, value) in &draft.headers {
        write_custom(out, name, value, charset);
    }
    let names_agent = |name: &str| ["User-Agent", "X-Mailer"].iter().any(|agent| name.eq_ignore_ascii_case(agent));
    if !draft.headers.iter().any(|(name, _)| names_agent(name)) {
        header::line(out, "User-Agent", context.user_agent);
    }
}

/// Each reference on its own line, as the contract has it; the last is what the message replies to.
fn write_references(out: &mut Vec<u8>, references: &[String]) {
    let ids: Vec<&str> = references.iter().flat_map(|reference| reference.split_ascii_whitespace()).collect();
    let Some(last) = ids.last() else { return };
    header::line(out, "References", &ids.join("\r\n\t"));
    header::line(out, "In-Reply-To", last);
}

/// Verbatim where that makes one legal line.
fn write_custom(out: &mut Vec<u8>, name: &str, value: &str, charset: Charset) {
    let is_short = name.len() + 2 + value.len() <= header::LINE_BYTES_MAX;
    if is_short && charset.holds(value) {
        header::line(out, name, value);
    } else {
        header::text(out, name, value, charset);
    }
}

/// The layout `2 Jan 2006 15:04:05 -0700`.
fn date_time(date: Date) -> String {
    let offset = if date.offset_minutes.abs() <= OFFSET_MINUTES_MAX { date.offset_minutes } else { 0 };
    let shift_nanos = i64::from(offset) * 60 * 1_000_000_000;
    let local = Timestamp::from_nanos(date.at.as_nanos().saturating_add(shift_nanos)).to_rfc5322();
    let local = local.trim_end_matches("+0000");
    let sign = if offset < 0 { '-' } else { '+' };
    format!("{local}{sign}{:02}{:02}", offset.abs() / 60, offset.abs() % 60)
}

fn generated_id(context: &Context, charset: Charset) -> String {
    let hostname = match charset {
        Charset::Ascii => context.hostname.to_owned(),
        Charset::Utf8 => {
            Domain::new(context.hostname).map_or_else(|_| context.hostname.to_owned(), |host| host.to_unicode())
        }
    };
    format!("<{}@{hostname}>", URL_SAFE_NO_PAD.encode(context.message_id_random))
}

/// In the order in which the contract reports what is wrong.
fn check(draft: &Draft, charset: Charset) -> Result<(), Error> {
    if draft.text.is_empty() && draft.html.is_empty() {
        return Err(Error::MissingBody);
    }
    for person in draft.people() {
        no_control(&person.name, "a name")?;
    }
    no_control(&draft.subject, "Subject")?;
    if let Some(id) = &draft.message_id {
        check_message_id(id, charset)?;
    }
    for reference in &draft.references {
        check_reference(reference, charset)?;
    }
    for (name, value) in &draft.headers {
        check_custom(name, value)?;
    }
    Ok(())
}

fn no_control(text: &str, place: &'static str) -> Result<(), Error> {
    if header::has_control(text) { Err(Error::ControlCharacters { place }) } else { Ok(()) }
}

fn check_message_id(id: &str, charset: Charset) -> Result<(), Error> {
    let inner = id.strip_prefix('<').and_then(|id| id.strip_suffix('>')).ok_or(Error::MalformedMessageId)?;
    let is_whole = !inner.is_empty() && !inner.contains([' ', '<', '>']);
    if !is_whole || id.len() > MESSAGE_ID_BYTES_MAX || !charset.holds(id) {
        return Err(Error::MalformedMessageId);
    }
    no_control(id, "MessageID")
}

/// References come from other people's programs, so their form is not insisted on.
fn check_reference(reference: &str, charset: Charset) -> Result<(), Error> {
    no_control(reference, "References")?;
    let is_writable = charset.holds(reference) && reference.split(' ').all(|id| id.len() <= MESSAGE_ID_BYTES_MAX);
    if is_writable { Ok(()) } else { Err(Error::MalformedMessageId) }
}

fn check_custom(name: &str, value: &str) -> Result<(), Error> {
    no_control(name, "the name of a header")?;
    no_control(value, "the value of a header")?;
    if !header::is_field_name(name) || name.len() > HEADER_NAME_BYTES_MAX {
        return Err(Error::HeaderName { name: name.to_owned() });
    }
    if is_owned(name) { Err(Error::HeaderOwned { name: name.to_owned() }) } else { Ok(()) }
}

fn is_owned(name: &str) -> bool {
    let is_content = name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("Content-"));
    is_content || OWNED.iter().any(|owned| name.eq_ignore_ascii_case(owned))
}

/// The size that all files will have, or what is wrong with one.
fn check_files(draft: &Draft, charset: Charset) -> Result<u64, Error> {
    let lists = [&draft.alternative_files, &draft.inline_files, &draft.attached_files];
    let mut size = 0;
    for file in lists.into_iter().flatten() {
        check_file(file, charset).map_err(|why| Error::File { why })?;
        size += mime::base64_size(file.data.len());
    }
    Ok(size)
}

fn check_file(file: &File, charset: Charset) -> Result<(), &'static str> {
    if [&file.name, &file.content_type, &file.content_id].into_iter().any(|text| header::has_control(text)) {
        return Err("control characters in a name, type or id");
    }
    if !file.content_type.is_empty() && !is_content_type(&file.content_type) {
        return Err("the type is not like text/plain, optionally with parameters");
    }
    // RFC 2045 §6.4: no base64 around other parts, and files are always in base64.
    if file.content_type.get(..10).is_some_and(|start| start.eq_ignore_ascii_case("multipart/")) {
        return Err("a file cannot be multipart");
    }
    if file.content_id.len() > CONTENT_ID_BYTES_MAX || !charset.holds(&file.content_id) {
        return Err("the content id is too long or not ASCII");
    }
    Ok(())
}

/// RFC 2045 §5.1; the parameters stay as they were given.
fn is_content_type(value: &str) -> bool {
    let (media, _) = value.split_once(';').unwrap_or((value, ""));
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(header::is_token_byte);
    let is_media = media.trim_end().split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    is_media && value.is_ascii() && value.len() <= CONTENT_TYPE_BYTES_MAX
}

fn check_size(size: u64, max: u64) -> Result<(), Error> {
    if size > max { Err(Error::TooLarge { size, max }) } else { Ok(()) }
}

/// Why a draft makes no message; always the fault of its writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    MissingBody,
    ControlCharacters { place: &'static str },
    MalformedMessageId,
    HeaderName { name: String },
    HeaderOwned { name: String },
    File { why: &'static str },
    TooLarge { size: u64, max: u64 },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::MissingBody => f.write_str("at least one of text and html must be given"),
            Error::ControlCharacters { place } => write!(f, "control characters in {place}"),
            Error::MalformedMessageId => {
                f.write_str("a message id must be enclosed in < and >, without spaces, in ASCII and of sensible length")
            }
            Error::HeaderName { name } => write!(f, "{:?} is not a header name", clip(name)),
            Error::HeaderOwned { name } => write!(f, "header {name} is written by the server and cannot be given"),
            Error::File { why } => write!(f, "bad file: {why}"),
            Error::TooLarge { size, max } => {
                write!(f, "message would be {size} bytes or more; at most {max} are allowed")
            }
        }
    }
}

impl std::error::Error for Error {}

fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use mail_parser::{Addr, MessageParser, MimeHeaders};
    use postledger_events::address::{Address, Localpart};
    use postledger_events::draft::NameAddress;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const CONTEXT: Context = Context {
        hostname: "xn--mx-fka.example",
        now: Timestamp::from_secs(1_795_379_148),
        message_id_random: [0; 16],
        boundary_random: [0; 16],
        user_agent: "postledger/0.1.0",
        size_max: 100 << 20,
    };

    fn person(name: &str, address: &str) -> NameAddress {
        NameAddress { name: name.to_owned(), address: Address::parse(address).unwrap() }
    }

    fn file(name: &str, content_type: &str, content_id: &str, data: &[u8]) -> File {
        File {
            name: name.to_owned(),
            content_type: content_type.to_owned(),
            content_id: content_id.to_owned(),
            data: data.to_vec(),
        }
    }

    fn draft() -> Draft {
        let to = vec![person("", "mox@localhost")];
        Draft { to, text: "text".to_owned(), ..Draft::from(person("", "mox@localhost")) }
    }

    fn composed(draft: &Draft) -> String {
        String::from_utf8(compose(draft, &CONTEXT).unwrap().message).unwrap()
    }

    /// Expected text is written with LF.
    fn check(draft: &Draft, expect: &str) {
        assert_eq!(composed(draft), expect.replace('\n', "\r\n"));
    }

    /// The body structure of a message from its Content-Type on.
    fn check_body(draft: &Draft, expect: &str) {
        let message = composed(draft);
        let from = message.find("Content-").unwrap();
        assert_eq!(&message[from..], expect.replace('\n', "\r\n"));
    }

    #[test]
    fn plain_text() {
        check(
            &draft(),
            "From: <mox@localhost>
To: <mox@localhost>
Date: 22 Nov 2026 20:25:48 +0000
Message-Id: <AAAAAAAAAAAAAAAAAAAAAA@xn--mx-fka.example>
MIME-Version: 1.0
User-Agent: postledger/0.1.0
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 7bit

text
",
        );
    }

    #[test]
    fn every_field_in_order() {
        let draft = Draft {
            from: person("Mox \u{263a}", "mox@localhost"),
            to: vec![person("To Name", "mox@localhost")],
            cc: vec![person("", "mox+cc@localhost")],
            bcc: vec![person("", "mox+bcc@localhost")],
            reply_to: vec![person("R", "mox+reply@localhost")],
            message_id: Some("<custom-id-1@localhost>".to_owned()),
            references: vec!["<ref1@localhost>".to_owned(), "<ref2@localhost>".to_owned()],
            date: Some(Date { at: Timestamp::from_secs(1_767_315_845), offset_minutes: 120 }),
            subject: "h\u{e9}llo <&> \"q\"".to_owned(),
            text: "text\nlines \u{263a}\n".to_owned(),
            headers: vec![
                ("X-Custom".to_owned(), "value".to_owned()),
                ("X-Note".to_owned(), "na\u{ef}ve \u{e9}t\u{e9} note".to_owned()),
                ("x-mailer".to_owned(), "mine".to_owned()),
            ],
            ..draft()
        };
        check(
            &draft,
            "From: =?utf-8?q?Mox_=E2=98=BA?= <mox@localhost>
Reply-To: \"R\" <mox+reply@localhost>
To: \"To Name\" <mox@localhost>
Cc: <mox+cc@localhost>
Subject: =?utf-8?q?h=C3=A9llo?= <&> \"q\"
Date: 2 Jan 2026 03:04:05 +0200
Message-Id: <custom-id-1@localhost>
References: <ref1@localhost>
\t<ref2@localhost>
In-Reply-To: <ref2@localhost>
MIME-Version: 1.0
X-Custom: value
X-Note: =?utf-8?q?na=C3=AFve_=C3=A9t=C3=A9?= note
x-mailer: mine
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

text
lines \u{263a}
",
        );
        let composed = compose(&draft, &CONTEXT).unwrap();
        assert!(composed.eight_bit && !composed.smtputf8);
    }

    #[test]
    fn smtputf8() {
        let draft = Draft {
            to: vec![person("\u{fc}", "mox+\u{fc}@m\u{f6}x.example")],
            subject: "h\u{e9}".to_owned(),
            ..draft()
        };
        check(
            &draft,
            "From: <mox@localhost>
To: \"\u{fc}\" <mox+\u{fc}@m\u{f6}x.example>
Subject: h\u{e9}
Date: 22 Nov 2026 20:25:48 +0000
Message-Id: <AAAAAAAAAAAAAAAAAAAAAA@m\u{f6}x.example>
MIME-Version: 1.0
User-Agent: postledger/0.1.0
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 8bit

text
",
        );
        assert!(compose(&draft, &CONTEXT).unwrap().smtputf8);
    }

    #[test]
    fn alternative() {
        check_body(
            &Draft { html: "<p>html</p>".to_owned(), ..draft() },
            "Content-Type: multipart/alternative; boundary=\"=_AAAAAAAAAAAAAAAAAAAAAA_a\"

--=_AAAAAAAAAAAAAAAAAAAAAA_a
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 7bit

text

--=_AAAAAAAAAAAAAAAAAAAAAA_a
Content-Type: text/html; charset=us-ascii
Content-Transfer-Encoding: 7bit

<p>html</p>

--=_AAAAAAAAAAAAAAAAAAAAAA_a--
",
        );
    }

    #[test]
    fn related() {
        check_body(
            &Draft {
                text: String::new(),
                html: "<img src=\"cid:hi\" />".to_owned(),
                inline_files: vec![file("img.png", "image/png", "<hi>", b"made you look!")],
                ..draft()
            },
            "Content-Type: multipart/related; type=\"text/html\";
\tboundary=\"=_AAAAAAAAAAAAAAAAAAAAAA_r\"

--=_AAAAAAAAAAAAAAAAAAAAAA_r
Content-Type: text/html; charset=us-ascii
Content-Transfer-Encoding: 7bit

<img src=\"cid:hi\" />

--=_AAAAAAAAAAAAAAAAAAAAAA_r
Content-Type: image/png
Content-Disposition: inline; filename=img.png
Content-ID: <hi>
Content-Transfer-Encoding: base64

bWFkZSB5b3UgbG9vayE=

--=_AAAAAAAAAAAAAAAAAAAAAA_r--
",
        );
    }

    #[test]
    fn mixed() {
        check_body(
            &Draft { attached_files: vec![file("a \u{fc}.bin", "", "id@x", &[0, 1, 2])], ..draft() },
            "Content-Type: multipart/mixed; boundary=\"=_AAAAAAAAAAAAAAAAAAAAAA_m\"

--=_AAAAAAAAAAAAAAAAAAAAAA_m
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 7bit

text

--=_AAAAAAAAAAAAAAAAAAAAAA_m
Content-Type: application/octet-stream
Content-Disposition: attachment; filename*=utf-8''a%20%C3%BC.bin
Content-ID: <id@x>
Content-Transfer-Encoding: base64

AAEC

--=_AAAAAAAAAAAAAAAAAAAAAA_m--
",
        );
    }

    #[test]
    fn all_layers() {
        check_body(
            &Draft {
                alternative_files: vec![file("e.ics", "text/calendar", "", b"BEGIN")],
                inline_files: vec![file("", "image/png", "<hi>", b"png")],
                attached_files: vec![file("a.txt", "", "", b"hello")],
                ..draft()
            },
            "Content-Type: multipart/mixed; boundary=\"=_AAAAAAAAAAAAAAAAAAAAAA_m\"

--=_AAAAAAAAAAAAAAAAAAAAAA_m
Content-Type: multipart/related; type=\"multipart/alternative\";
\tboundary=\"=_AAAAAAAAAAAAAAAAAAAAAA_r\"

--=_AAAAAAAAAAAAAAAAAAAAAA_r
Content-Type: multipart/alternative; boundary=\"=_AAAAAAAAAAAAAAAAAAAAAA_a\"

--=_AAAAAAAAAAAAAAAAAAAAAA_a
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 7bit

text

--=_AAAAAAAAAAAAAAAAAAAAAA_a
Content-Type: text/calendar
Content-Disposition: inline; filename=e.ics
Content-Transfer-Encoding: base64

QkVHSU4=

--=_AAAAAAAAAAAAAAAAAAAAAA_a--

--=_AAAAAAAAAAAAAAAAAAAAAA_r
Content-Type: image/png
Content-Disposition: inline
Content-ID: <hi>
Content-Transfer-Encoding: base64

cG5n

--=_AAAAAAAAAAAAAAAAAAAAAA_r--

--=_AAAAAAAAAAAAAAAAAAAAAA_m
Content-Type: text/plain; charset=utf-8
Content-Disposition: attachment; filename=a.txt
Content-Transfer-Encoding: base64

aGVsbG8=

--=_AAAAAAAAAAAAAAAAAAAAAA_m--
",
        );
    }

    #[test]
    fn dates() {
        let check = |offset_minutes: i16, expect: &str| {
            assert_eq!(date_time(Date { at: CONTEXT.now, offset_minutes }), expect);
        };
        check(0, "22 Nov 2026 20:25:48 +0000");
        check(330, "23 Nov 2026 01:55:48 +0530");
        check(-210, "22 Nov 2026 16:55:48 -0330");
        check(i16::MIN + 1, "22 Nov 2026 20:25:48 +0000");
    }

    #[test]
    fn refusals_in_order() {
        let check = |draft: &Draft, expect: Error| assert_eq!(compose(draft, &CONTEXT), Err(expect));
        let control = |place| Error::ControlCharacters { place };
        let mut draft = draft();
        // Each fault is put right after it was refused, from the first that is reported to the last.
        let header = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        draft.attached_files = vec![file("a", "", "", &vec![0; 100 << 20])];
        draft.inline_files = vec![file("a\nb", "", "", b"")];
        draft.headers = header("X:", "a\r\nb");
        draft.references = vec!["<a>\r\n\t".to_owned()];
        draft.message_id = Some("a\nb".to_owned());
        draft.subject = "a\nb".to_owned();
        draft.cc = vec![person("a\0", "a@localhost")];
        draft.text = String::new();
        check(&draft, Error::MissingBody);
        draft.text = "text".to_owned();
        check(&draft, control("a name"));
        draft.cc[0].name = String::new();
        check(&draft, control("Subject"));
        draft.subject = String::new();
        check(&draft, Error::MalformedMessageId);
        draft.message_id = Some("<a\nb>".to_owned());
        check(&draft, control("MessageID"));
        draft.message_id = Some("<a>".to_owned());
        check(&draft, control("References"));
        draft.references = vec![];
        check(&draft, control("the value of a header"));
        draft.headers = header("X:", "");
        check(&draft, Error::HeaderName { name: "X:".to_owned() });
        for name in ["from", "BCC", "Content-Language", "content-x", "Message-Id", "DKIM-Signature"] {
            draft.headers = header(name, "");
            check(&draft, Error::HeaderOwned { name: name.to_owned() });
        }
        draft.headers = header("X-Fine", "");
        check(&draft, Error::File { why: "control characters in a name, type or id" });
        for content_type in ["text", "text/", "/plain", "te xt/plain", "text/pl\u{e4}in", "multipart/mixed"] {
            draft.inline_files = vec![file("", content_type, "", b"")];
            assert!(matches!(compose(&draft, &CONTEXT), Err(Error::File { .. })), "{content_type}");
        }
        draft.inline_files = vec![file("", "text/plain; x=\"y z\"", "", b"")];
        let size = mime::base64_size(100 << 20);
        check(&draft, Error::TooLarge { size, max: 100 << 20 });
        draft.attached_files = vec![];
        assert!(compose(&draft, &CONTEXT).is_ok());
    }

    #[test]
    fn malformed_message_ids() {
        for id in ["", "<>", "a@b", "<a@b", "a@b>", "<a b>", "<a><b>", "<\u{e9}@b>"] {
            let draft = Draft { message_id: Some(id.to_owned()), ..draft() };
            assert_eq!(compose(&draft, &CONTEXT), Err(Error::MalformedMessageId), "{id:?}");
        }
    }

    #[test]
    fn the_size_is_that_of_the_message() {
        let size = compose(&draft(), &CONTEXT).unwrap().message.len() as u64;
        assert!(compose(&draft(), &Context { size_max: size, ..CONTEXT }).is_ok());
        let max = size - 1;
        assert_eq!(compose(&draft(), &Context { size_max: max, ..CONTEXT }), Err(Error::TooLarge { size, max }));
    }

    /// Work that grows with the square of a body would not end within the test's patience.
    #[test]
    fn large_bodies() {
        let size = 16 << 20;
        let draft = Draft {
            text: "\n".repeat(size),
            html: "\u{e9}=".repeat(size / 4),
            attached_files: vec![file("", "", "", &vec![b'x'; size])],
            ..draft()
        };
        let message = compose(&draft, &CONTEXT).unwrap().message;
        assert!(message.len() > 3 * size);
    }

    /// Text that likes to break things; now and then such as must be refused.
    fn nasty() -> impl Strategy<Value = String> {
        prop_oneof![
            20 => "[ -~]{0,40}",
            20 => "\\PC{0,40}",
            20 => "[a-z\u{e9}\u{263a} =?_\"\\\\<>@,;:()]{0,200}",
            5 => "x{0,1100}",
            5 => "(=\\?utf-8\\?q\\?a\\?= ?){0,3}",
            1 => "[ -~]{0,5}(\r\n|\r|\n|\0)(Bcc: x@y\r\n)?[ -~]{0,5}",
        ]
    }

    /// Mostly of the form that is asked for.
    fn mostly(form: &'static str) -> impl Strategy<Value = String> {
        prop_oneof![40 => form, 1 => nasty()]
    }

    fn people(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<NameAddress>> {
        let address = ("[ -~\u{e9}]{1,4}|[a-z\u{e9}.]{1,20}", "[a-z\u{e9}]{1,10}\\.example")
            .prop_filter_map("an address", |(local, domain)| {
                Some(Address::new(Localpart::new(&local).ok()?, Domain::new(&domain).ok()?))
            });
        vec((nasty(), address).prop_map(|(name, address)| NameAddress { name, address }), range)
    }

    fn files() -> impl Strategy<Value = Vec<File>> {
        let content_type = mostly("(text/plain(; x=\"y, z\")?)?");
        let file = (nasty(), content_type, mostly("[ -~]{0,30}"), vec(any::<u8>(), 0..100))
            .prop_map(|(name, content_type, content_id, data)| File { name, content_type, content_id, data });
        vec(file, 0..2)
    }

    fn drafts() -> impl Strategy<Value = Draft> {
        let lists = (people(1..2), people(0..4), people(0..3), people(0..2), people(0..2));
        let id = proptest::option::of(mostly("<[!-;=?-~]{1,90}>"));
        let headers = vec((mostly("X-[!-9;-~]{1,9}"), nasty()), 0..3);
        let fields = (id, vec(mostly("[ -~]{0,200}"), 0..3), nasty(), headers);
        let bodies = (nasty(), nasty(), files(), files(), files());
        (lists, fields, bodies).prop_map(|(lists, fields, bodies)| Draft {
            from: lists.0[0].clone(),
            to: lists.1,
            cc: lists.2,
            bcc: lists.3,
            reply_to: lists.4,
            message_id: fields.0,
            references: fields.1,
            date: None,
            subject: fields.2,
            headers: fields.3,
            text: bodies.0,
            html: bodies.1,
            alternative_files: bodies.2,
            inline_files: bodies.3,
            attached_files: bodies.4,
        })
    }

    /// The names of the header fields, read line by line without any tolerance.
    fn strict_names(header: &str) -> Vec<&str> {
        let mut names = Vec::new();
        for line in header.split("\r\n") {
            assert!(line.len() <= header::LINE_BYTES_MAX, "line of {} octets", line.len());
            assert!(!line.contains(['\r', '\n', '\0']), "{line:?}");
            if line.starts_with([' ', '\t']) {
                assert!(!line.trim().is_empty(), "a line of blanks in {header:?}");
            } else {
                names.push(line.split_once(':').expect("a field has a colon").0);
            }
        }
        names
    }

    fn expected_names(draft: &Draft) -> Vec<&str> {
        let mut names = vec!["From"];
        let mut when = |is: bool, name| {
            if is {
                names.push(name)
            }
        };
        when(!draft.reply_to.is_empty(), "Reply-To");
        when(!draft.to.is_empty(), "To");
        when(!draft.cc.is_empty(), "Cc");
        when(!draft.subject.is_empty(), "Subject");
        names.extend(["Date", "Message-Id"]);
        if draft.references.iter().any(|reference| !reference.trim().is_empty()) {
            names.extend(["References", "In-Reply-To"]);
        }
        names.push("MIME-Version");
        names.extend(draft.headers.iter().map(|(name, _)| name.as_str()));
        names.extend(["User-Agent", "Content-Type"]);
        names
    }

    fn name_and_address(addr: &Addr) -> (String, String) {
        let text = |value: Option<&str>| value.unwrap_or_default().trim().to_owned();
        (text(addr.name()), text(addr.address()))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

        /// Whatever is in a draft, it is refused, or it makes a message with just the fields it should have.
        #[test]
        fn nothing_can_be_injected(draft in drafts()) {
            let Ok(composed) = compose(&draft, &CONTEXT) else { return Ok(()) };
            let message = std::str::from_utf8(&composed.message).expect("all parts are text or encoded");
            prop_assert!(message.ends_with("\r\n"));
            prop_assert!(!message.replace("\r\n", "").contains(['\r', '\n', '\0']));
            let (header, _) = message.split_once("\r\n\r\n").unwrap();
            prop_assert!(composed.smtputf8 || header.is_ascii());
            let mut names = strict_names(header);
            names.retain(|name| *name != "Content-Transfer-Encoding");
            prop_assert_eq!(names, expected_names(&draft));
        }

        /// A draft without faults reads back as it was written.
        #[test]
        fn reads_back(mut draft in drafts()) {
            let printable = |text: &mut String| text.retain(|c| !c.is_control());
            printable(&mut draft.subject);
            draft.from.name.clear();
            draft.headers.clear();
            draft.references.clear();
            draft.message_id = None;
            draft.text.push('x');
            for person in draft.to.iter_mut().chain(&mut draft.cc).chain(&mut draft.bcc).chain(&mut draft.reply_to) {
                printable(&mut person.name);
            }
            for file in draft.alternative_files.iter_mut().chain(&mut draft.inline_files).chain(&mut draft.attached_files) {
                printable(&mut file.name);
                (file.content_type, file.content_id) = ("application/x-any".to_owned(), String::new());
            }
            let composed = compose(&draft, &CONTEXT).expect("no fault is left");
            let read = MessageParser::new().parse(&composed.message).unwrap();
            prop_assert_eq!(read.subject().unwrap_or_default(), &draft.subject);
            let plain = draft.text.replace("\r\n", "\n").replace('\n', "\r\n") + "\r\n";
            prop_assert_eq!(read.body_text(0).unwrap().trim_end().replace("\r\n", "\n"), plain.trim_end().replace("\r\n", "\n"));
            let files = [&draft.alternative_files, &draft.inline_files, &draft.attached_files];
            let files: Vec<&File> = files.into_iter().flatten().collect();
            let parts: Vec<_> = read.parts.iter().filter(|part| part.content_disposition().is_some()).collect();
            prop_assert_eq!(parts.len(), files.len());
            for (part, file) in parts.iter().zip(files) {
                prop_assert_eq!(part.attachment_name().unwrap_or_default(), &file.name);
                prop_assert_eq!(part.contents(), &file.data[..]);
            }
            for (got, list) in [(read.to(), &draft.to), (read.cc(), &draft.cc), (read.reply_to(), &draft.reply_to)] {
                check_people(got, list, composed.smtputf8)?;
            }
        }
    }

    fn check_people(
        got: Option<&mail_parser::Address>,
        list: &[NameAddress],
        smtputf8: bool,
    ) -> Result<(), TestCaseError> {
        // The reader takes some characters of quoted localparts for comments and brackets.
        if list.iter().any(|person| person.address.to_string().starts_with('"')) {
            return Ok(());
        }
        let got: Vec<(String, String)> =
            got.map(|list| list.iter().map(name_and_address).collect()).unwrap_or_default();
        let written = |person: &NameAddress| match smtputf8 {
            true => person.address.to_unicode(),
            false => person.address.to_string(),
        };
        let expect: Vec<(String, String)> =
            list.iter().map(|person| (person.name.trim().to_owned(), written(person))).collect();
        prop_assert_eq!(got, expect);
        Ok(())
    }
}
