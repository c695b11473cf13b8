//! Delivery status notifications to our own senders (RFC 3464, RFC 6522, RFC 6533): failed and delayed.
//!
//! The null reverse-path, and the Return-Path and Delivered-To fields of its delivery, are the caller's.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postledger_events::address::Address;
use postledger_events::reply::{EnhancedCode, Reply};
use postledger_events::time::Timestamp;

use super::compose::Composed;
use super::header::{self, Charset, Field, Fold};
use super::mime;

/// Of what a remote host or a program said, in a field or in the text.
const SAID_BYTES_MAX: usize = 2000;
/// Of the original's header; what comes after is left out.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// A word of a folded field; a longer one would not fit a line, and is cut.
const WORD_BYTES_MAX: usize = 900;
/// Of the text for people.
const TEXT_COLUMNS: usize = 70;

/// What is to be said about one message, to its sender.
#[derive(Clone, Copy, Debug)]
pub struct Dsn<'a> {
    /// Our own, in ASCII: Reporting-MTA, and where postmaster is.
    pub hostname: &'a str,
    /// The sender of the original.
    pub to: &'a Address,
    pub now: Timestamp,
    pub message_id_random: [u8; 16],
    pub boundary_random: [u8; 16],
    /// When we took the original.
    pub arrival: Timestamp,
    /// As submitted: `for;<seconds>` or `until;<time>` (RFC 4865 §5).
    pub future_release: Option<&'a str>,
    /// ENVID (RFC 3461 §4.4), decoded.
    pub envelope_id: Option<&'a str>,
    pub original_message_id: Option<&'a str>,
    /// The original up to the empty line; a longer piece is cut there.
    pub original_header: &'a [u8],
    /// The original was sent with SMTPUTF8.
    pub original_smtputf8: bool,
    /// At least one; the notice is a delayed one if all are.
    pub recipients: &'a [Recipient<'a>],
}

#[derive(Clone, Copy, Debug)]
pub struct Recipient<'a> {
    pub address: &'a Address,
    /// ORCPT (RFC 3461 §4.2) as `type;address`, decoded.
    pub original: Option<&'a str>,
    pub action: Action,
    pub status: EnhancedCode,
    /// The host that answered or could not be reached.
    pub remote_mta: Option<(&'a str, Option<IpAddr>)>,
    /// What it answered, if it did.
    pub reply: Option<&'a Reply>,
    /// In our words.
    pub error: &'a str,
    pub last_attempt: Option<Timestamp>,
    pub will_retry_until: Option<Timestamp>,
    /// The attempts that are still to come, as scheduled.
    pub next_attempts: &'a [Timestamp],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Failed,
    Delayed,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Action::Failed => "failed",
            Action::Delayed => "delayed",
        }
    }
}

pub fn compose(dsn: &Dsn) -> Composed {
    let charset = dsn.charset();
    let message_id = format!("<{}@{}>", URL_SAFE_NO_PAD.encode(dsn.message_id_random), dsn.hostname);
    // No part holds it: no line of the text or the status begins with --, and `OriginalForm` asks the header.
    let boundary = format!("=_{}_d", URL_SAFE_NO_PAD.encode(dsn.boundary_random));
    let mut out = Vec::new();
    write_header(&mut out, dsn, &message_id, &boundary, charset);
    write_part(&mut out, &boundary, &text_type(charset), charset, explanation(dsn, charset).as_bytes());
    let status_type = match charset {
        Charset::Ascii => "message/delivery-status",
        Charset::Utf8 => "message/global-delivery-status",
    };
    write_part(&mut out, &boundary, status_type, charset, &status(dsn, charset));
    write_original(&mut out, &boundary, dsn, charset);
    out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let eight_bit = !out.is_ascii();
    Composed { message_id, message: out, smtputf8: charset == Charset::Utf8, eight_bit }
}

impl Dsn<'_> {
    /// UTF-8 if the sender's side showed that it can read it, or if there is an address that ASCII cannot name.
    fn charset(&self) -> Charset {
        let needs = self.to.needs_smtputf8() || self.recipients.iter().any(|r| r.address.needs_smtputf8());
        Charset::of(self.original_smtputf8 || needs)
    }

    fn is_delayed(&self) -> bool {
        self.recipients.iter().all(|recipient| recipient.action == Action::Delayed)
    }
}

fn write_header(out: &mut Vec<u8>, dsn: &Dsn, message_id: &str, boundary: &str, charset: Charset) {
    let subject = if dsn.is_delayed() { "mail delivery delayed" } else { "mail delivery failed" };
    header::line(out, "From", &format!("<postmaster@{}>", dsn.hostname));
    header::line(out, "To", &charset.angle(dsn.to));
    header::line(out, "Subject", subject);
    header::line(out, "Date", &dsn.now.to_rfc5322());
    header::line(out, "Message-Id", message_id);
    if let Some(id) = dsn.original_message_id {
        field(out, "References", id, charset);
        field(out, "In-Reply-To", id, charset);
    }
    header::line(out, "MIME-Version", "1.0");
    // RFC 3834 §5: an answer to a message, made without a person.
    header::line(out, "Auto-Submitted", "auto-replied");
    let report_type = match charset {
        Charset::Ascii => "delivery-status",
        Charset::Utf8 => "global-delivery-status",
    };
    let mut content = Field::new(out, "Content-Type", Fold::Tab);
    content.word("multipart/report;");
    content.word(&format!("report-type={report_type};"));
    content.word(&format!("boundary=\"{boundary}\""));
    content.end();
}

fn text_type(charset: Charset) -> String {
    match charset {
        Charset::Ascii => "text/plain; charset=us-ascii".to_owned(),
        Charset::Utf8 => "text/plain; charset=utf-8".to_owned(),
    }
}

fn write_part(out: &mut Vec<u8>, boundary: &str, content_type: &str, charset: Charset, body: &[u8]) {
    let encoding = if charset == Charset::Utf8 { "8bit" } else { "7bit" };
    out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
    header::line(out, "Content-Type", content_type);
    header::line(out, "Content-Transfer-Encoding", encoding);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// For the person who reads it.
fn explanation(dsn: &Dsn, charset: Charset) -> String {
    let mut text = String::new();
    for recipient in dsn.recipients {
        explain(&mut text, recipient, charset);
    }
    text.replace('\n', "\r\n")
}

fn explain(text: &mut String, recipient: &Recipient, charset: Charset) {
    let address = printable(&recipient.address.to_unicode(), charset);
    let what = match recipient.action {
        Action::Failed => "Delivery has failed permanently for your email to:",
        Action::Delayed => "Delivery is delayed of your email to:",
    };
    text.push_str(&format!("{what}\n\n\t{address}\n\n{}\n\n", prospect(recipient)));
    let said = said(recipient, charset);
    if !said.is_empty() {
        text.push_str(&format!("Error during the last delivery attempt:\n\n\t{}\n\n", wrap(&said)));
    }
}

fn prospect(recipient: &Recipient) -> String {
    let times: Vec<String> = recipient.next_attempts.iter().map(|at| at.to_rfc5322()).collect();
    match recipient.action {
        Action::Failed => "No further deliveries will be attempted.".to_owned(),
        Action::Delayed if times.is_empty() => "Delivery will be attempted again.".to_owned(),
        Action::Delayed => {
            let list = times.join("\n\t");
            format!(
                "Delivery will be attempted again at:\n\n\t{list}\n\nIf all of these fail, you will receive a notice."
            )
        }
    }
}

/// RFC 3464 §2: a group about the message, and one for each recipient.
fn status(dsn: &Dsn, charset: Charset) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(id) = dsn.envelope_id {
        field(&mut out, "Original-Envelope-Id", id, charset);
    }
    field(&mut out, "Reporting-MTA", &format!("dns; {}", dsn.hostname), charset);
    header::line(&mut out, "Arrival-Date", &dsn.arrival.to_rfc5322());
    if let Some(request) = dsn.future_release {
        field(&mut out, "Future-Release-Request", request, charset);
    }
    for recipient in dsn.recipients {
        out.extend_from_slice(b"\r\n");
        recipient_status(&mut out, recipient, charset);
    }
    out
}

/// RFC 3464 §2.3.
fn recipient_status(out: &mut Vec<u8>, recipient: &Recipient, charset: Charset) {
    if let Some(original) = recipient.original {
        field(out, "Original-Recipient", original, charset);
    }
    // RFC 6533 §3: an address beyond ASCII has a type of its own.
    let kind = if recipient.address.needs_smtputf8() { "utf-8" } else { "rfc822" };
    header::line(out, "Final-Recipient", &format!("{kind}; {}", recipient.address));
    field(out, "Action", recipient.action.as_str(), charset);
    field(out, "Status", &commented(&recipient.status.to_string(), recipient.error), charset);
    if let Some((host, ip)) = recipient.remote_mta {
        let ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
        field(out, "Remote-MTA", &commented(&format!("dns; {host}"), &ip), charset);
    }
    if let Some(reply) = recipient.reply {
        field(out, "Diagnostic-Code", &format!("smtp; {reply}"), charset);
    }
    if let Some(at) = recipient.last_attempt {
        header::line(out, "Last-Attempt-Date", &at.to_rfc5322());
    }
    if let Some(until) = recipient.will_retry_until {
        header::line(out, "Will-Retry-Until", &until.to_rfc5322());
    }
}

/// A value with a comment (RFC 5322 §3.2.2), which cannot hold what would end it.
fn commented(value: &str, comment: &str) -> String {
    let comment: String = comment
        .chars()
        .map(|c| match c {
            '(' => '[',
            ')' => ']',
            '\\' => '/',
            c => c,
        })
        .take(SAID_BYTES_MAX)
        .collect();
    if comment.trim().is_empty() { value.to_owned() } else { format!("{value} ({})", comment.trim()) }
}

/// The header of the original, for the sender to know it by (RFC 6522 §4, RFC 6533 §4).
fn write_original(out: &mut Vec<u8>, boundary: &str, dsn: &Dsn, charset: Charset) {
    let header = header_only(dsn.original_header);
    let form = OriginalForm::of(header, boundary, charset);
    out.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
    header::line(out, "Content-Type", form.content_type());
    header::line(out, "Content-Transfer-Encoding", form.encoding());
    out.extend_from_slice(b"\r\n");
    match form {
        OriginalForm::Ascii | OriginalForm::Global => out.extend_from_slice(header),
        OriginalForm::Encoded | OriginalForm::EncodedBytes => mime::base64_lines(out, header),
    }
}

/// How the header of the original can be shown.
#[derive(Clone, Copy)]
enum OriginalForm {
    Ascii,
    Global,
    /// What cannot stand in the notice as it is, such as UTF-8 for a reader that has not asked for it.
    Encoded,
    /// What is no text in any charset that we know of.
    EncodedBytes,
}

impl OriginalForm {
    fn of(header: &[u8], boundary: &str, charset: Charset) -> OriginalForm {
        let Ok(text) = std::str::from_utf8(header) else { return OriginalForm::EncodedBytes };
        let can_stand = is_well_formed(text) && !text.contains(boundary);
        match charset {
            Charset::Ascii if can_stand && text.is_ascii() => OriginalForm::Ascii,
            Charset::Utf8 if can_stand => OriginalForm::Global,
            Charset::Ascii | Charset::Utf8 => OriginalForm::Encoded,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            OriginalForm::Ascii => "text/rfc822-headers",
            OriginalForm::Global => "message/global-headers",
            OriginalForm::Encoded => "text/rfc822-headers; charset=utf-8",
            // RFC 1428 §3.
            OriginalForm::EncodedBytes => "text/rfc822-headers; charset=unknown-8bit",
        }
    }

    fn encoding(self) -> &'static str {
        match self {
            OriginalForm::Ascii => "7bit",
            OriginalForm::Global => "8bit",
            OriginalForm::Encoded | OriginalForm::EncodedBytes => "base64",
        }
    }
}

/// Up to the empty line, in whole lines.
fn header_only(original: &[u8]) -> &[u8] {
    let head = &original[..original.len().min(HEADER_BYTES_MAX)];
    let mut end = 0;
    for line in head.split_inclusive(|&b| b == b'\n') {
        if line == b"\r\n" || line == b"\n" || !line.ends_with(b"\n") {
            break;
        }
        end += line.len();
    }
    &head[..end]
}

/// RFC 5322 §2.1.1, §2.3: lines of legal length that end in CRLF.
fn is_well_formed(text: &str) -> bool {
    let is_line = |line: &str| line.len() <= header::LINE_BYTES_MAX && !line.contains(['\r', '\0']);
    text.split_inclusive('\n').all(|line| line.strip_suffix("\r\n").is_some_and(is_line))
}

/// What went wrong: in our words, or else in those of the remote host.
fn said(recipient: &Recipient, charset: Charset) -> String {
    let from_reply = || recipient.reply.map(Reply::to_string).unwrap_or_default();
    let text = if recipient.error.is_empty() { from_reply() } else { recipient.error.to_owned() };
    printable(&text, charset).trim().to_owned()
}

/// A field with any text as its value. Blanks and line ends of the text become places to fold at.
fn field(out: &mut Vec<u8>, name: &str, value: &str, charset: Charset) {
    let mut field = Field::new(out, name, Fold::Tab);
    for word in printable(value, charset).split_ascii_whitespace() {
        pieces(word, WORD_BYTES_MAX).for_each(|piece| field.word(piece));
    }
    field.end();
}

/// What remote hosts and programs said, in a form that can stand anywhere.
fn printable(text: &str, charset: Charset) -> String {
    let clean = |c: char| match c {
        c if c.is_control() => ' ',
        c if !c.is_ascii() && charset == Charset::Ascii => '?',
        c => c,
    };
    let mut clean: String = text.chars().map(clean).collect();
    clean.truncate(clean.floor_char_boundary(SAID_BYTES_MAX));
    clean
}

/// In lines for people, each but the first beginning with a tab.
fn wrap(text: &str) -> String {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ').flat_map(|word| pieces(word, TEXT_COLUMNS)) {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= TEXT_COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines.join("\n\t")
}

/// The word in pieces of at most so many bytes, between characters.
fn pieces(word: &str, bytes_max: usize) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, after) = rest.split_at(rest.floor_char_boundary(bytes_max));
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_379_148);

    fn dsn<'a>(to: &'a Address, recipients: &'a [Recipient<'a>]) -> Dsn<'a> {
        Dsn {
            hostname: "mx.example",
            to,
            now: NOW,
            message_id_random: [0; 16],
            boundary_random: [0; 16],
            arrival: NOW,
            future_release: None,
            envelope_id: None,
            original_message_id: Some("<1@app.example>"),
            original_header: b"From: <a@app.example>\r\nSubject: s\r\n\r\nbody\r\n",
            original_smtputf8: false,
            recipients,
        }
    }

    fn recipient(address: &Address) -> Recipient<'_> {
        Recipient {
            address,
            original: None,
            action: Action::Failed,
            status: EnhancedCode::new(5, 1, 1),
            remote_mta: None,
            reply: None,
            error: "",
            last_attempt: None,
            will_retry_until: None,
            next_attempts: &[],
        }
    }

    fn text(dsn: &Dsn) -> String {
        String::from_utf8(compose(dsn).message).unwrap()
    }

    #[test]
    fn failed() {
        let (to, gone) = (Address::parse("a@app.example").unwrap(), Address::parse("gone@b.example").unwrap());
        let reply = Reply { code: 550, lines: vec!["5.1.1 no such user".to_owned(), "5.1.1 (really)".to_owned()] };
        let recipients = [Recipient {
            original: Some("rfc822;Gone@b.example"),
            remote_mta: Some(("mx.b.example", Some("192.0.2.1".parse().unwrap()))),
            reply: Some(&reply),
            error: "mx.b.example said: no such user (550)",
            last_attempt: Some(NOW),
            ..recipient(&gone)
        }];
        let dsn = Dsn { envelope_id: Some("env-1"), future_release: Some("for;60"), ..dsn(&to, &recipients) };
        let expect = "From: <postmaster@mx.example>
To: <a@app.example>
Subject: mail delivery failed
Date: 22 Nov 2026 20:25:48 +0000
Message-Id: <AAAAAAAAAAAAAAAAAAAAAA@mx.example>
References: <1@app.example>
In-Reply-To: <1@app.example>
MIME-Version: 1.0
Auto-Submitted: auto-replied
Content-Type: multipart/report; report-type=delivery-status;
\tboundary=\"=_AAAAAAAAAAAAAAAAAAAAAA_d\"

--=_AAAAAAAAAAAAAAAAAAAAAA_d
Content-Type: text/plain; charset=us-ascii
Content-Transfer-Encoding: 7bit

Delivery has failed permanently for your email to:

\tgone@b.example

No further deliveries will be attempted.

Error during the last delivery attempt:

\tmx.b.example said: no such user (550)


--=_AAAAAAAAAAAAAAAAAAAAAA_d
Content-Type: message/delivery-status
Content-Transfer-Encoding: 7bit

Original-Envelope-Id: env-1
Reporting-MTA: dns; mx.example
Arrival-Date: 22 Nov 2026 20:25:48 +0000
Future-Release-Request: for;60

Original-Recipient: rfc822;Gone@b.example
Final-Recipient: rfc822; gone@b.example
Action: failed
Status: 5.1.1 (mx.b.example said: no such user [550])
Remote-MTA: dns; mx.b.example (192.0.2.1)
Diagnostic-Code: smtp; 550 5.1.1 no such user 5.1.1 (really)
Last-Attempt-Date: 22 Nov 2026 20:25:48 +0000

--=_AAAAAAAAAAAAAAAAAAAAAA_d
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: 7bit

From: <a@app.example>
Subject: s

--=_AAAAAAAAAAAAAAAAAAAAAA_d--
";
        assert_eq!(text(&dsn), expect.replace('\n', "\r\n"));
    }

    #[test]
    fn delayed() {
        let (to, slow) = (Address::parse("a@app.example").unwrap(), Address::parse("slow@b.example").unwrap());
        let next = [NOW, Timestamp::from_secs(NOW.as_secs() + 7200)];
        let recipients = [Recipient {
            action: Action::Delayed,
            status: EnhancedCode::new(4, 4, 1),
            error: "connection refused",
            will_retry_until: Some(next[1]),
            next_attempts: &next,
            ..recipient(&slow)
        }];
        let text = text(&dsn(&to, &recipients)).replace("\r\n", "\n");
        assert!(text.contains("\nSubject: mail delivery delayed\n"), "{text}");
        assert!(
            text.contains("again at:\n\n\t22 Nov 2026 20:25:48 +0000\n\t22 Nov 2026 22:25:48 +0000\n\nIf all"),
            "{text}"
        );
        assert!(text.contains("\nAction: delayed\nStatus: 4.4.1 (connection refused)\n"), "{text}");
        assert!(text.contains("\nWill-Retry-Until: 22 Nov 2026 22:25:48 +0000\n"), "{text}");
    }

    #[test]
    fn smtputf8_originals() {
        let (to, gone) = (Address::parse("\u{e4}@app.example").unwrap(), Address::parse("\u{fc}@b.example").unwrap());
        let recipients = [recipient(&gone)];
        let header = "Subject: \u{263a}\r\n".as_bytes();
        let composed = compose(&Dsn { original_header: header, original_smtputf8: true, ..dsn(&to, &recipients) });
        assert!(composed.smtputf8 && composed.eight_bit);
        let text = String::from_utf8(composed.message).unwrap();
        assert!(
            text.contains("\r\nContent-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n")
        );
        assert!(text.contains("\r\nFinal-Recipient: utf-8; \u{fc}@b.example\r\n"));
        assert!(text.contains("\r\nContent-Type: message/global-headers\r\n"));
        assert!(text.contains("\r\n\r\nSubject: \u{263a}\r\n\r\n--"));
    }

    #[test]
    fn headers_that_cannot_stand_are_encoded() {
        let to = Address::parse("a@app.example").unwrap();
        let recipients = [recipient(&to)];
        let long = format!("X: {}\r\n", "x".repeat(1000));
        let boundary = b"X: =_AAAAAAAAAAAAAAAAAAAAAA_d\r\n";
        for header in
            ["Subject: \u{263a}\r\n".as_bytes(), b"X: \xff\r\n", b"X: a\rb\r\n", b"X: a\n", long.as_bytes(), boundary]
        {
            let composed = compose(&Dsn { original_header: header, ..dsn(&to, &recipients) });
            assert!(!composed.eight_bit);
            let mut encoded = b"base64\r\n\r\n".to_vec();
            mime::base64_lines(&mut encoded, header);
            let text = String::from_utf8(composed.message).unwrap();
            assert!(text.contains(std::str::from_utf8(&encoded).unwrap()), "{text}");
        }
    }

    /// What a remote host says can neither add a field nor end a part.
    #[test]
    fn nothing_can_be_injected() {
        let to = Address::parse("a@app.example").unwrap();
        let evil = "x\r\nAction: delivered\r\n\r\n--=_guess_d\r\n(\u{263a}) ".repeat(100);
        let reply = Reply { code: 550, lines: vec![evil.clone(), "y".repeat(5000)] };
        let recipients = [Recipient {
            original: Some(&evil),
            remote_mta: Some((&evil, None)),
            reply: Some(&reply),
            error: &evil,
            ..recipient(&to)
        }];
        let message = compose(&Dsn {
            envelope_id: Some(&evil),
            future_release: Some(&evil),
            original_message_id: Some(&evil),
            ..dsn(&to, &recipients)
        })
        .message;
        let text = String::from_utf8(message.clone()).unwrap();
        assert!(text.is_ascii() && text.lines().all(|line| line.len() <= header::LINE_BYTES_MAX));
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
        assert_eq!(text.lines().filter(|line| line.starts_with("Action:")).count(), 1);
        let read = MessageParser::new().parse(&message).unwrap();
        let types: Vec<_> =
            read.parts.iter().map(|part| part.content_type().and_then(|c| c.subtype()).unwrap()).collect();
        assert_eq!(types, ["report", "plain", "delivery-status", "rfc822-headers"]);
    }
}
