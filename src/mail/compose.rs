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
