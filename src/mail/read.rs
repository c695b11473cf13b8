//! Reads what lists show of a received message: tolerant of anything, bounded in what it looks at and gives back.

use mail_parser::{Addr, Address, DateTime, HeaderName, HeaderValue, Message, MessageParser};
use postledger_events::draft::Date;
use postledger_events::time::Timestamp;

/// Of a header; what comes after is not looked at.
const HEADER_BYTES_MAX: usize = 256 * 1024;
/// Of each text that is given back.
pub const TEXT_BYTES_MAX: usize = 1000;
/// Of each list that is given back.
pub const LIST_LENGTH_MAX: usize = 100;

/// Each field as far as the message has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// With the angle brackets.
    pub message_id: Option<String>,
    /// With the angle brackets; the last, if there are several.
    pub in_reply_to: Option<String>,
    /// With the angle brackets, oldest first.
    pub references: Vec<String>,
    pub subject: Option<String>,
    pub from: Option<Mailbox>,
    pub to: Vec<Mailbox>,
    pub date: Option<Date>,
}

/// An address as the message writes it, which need not be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    pub name: String,
    pub address: String,
}

pub fn summary(raw: &[u8]) -> Summary {
    let head = &raw[..raw.len().min(HEADER_BYTES_MAX)];
    let Some(message) = MessageParser::new().with_minimal_headers().with_message_ids().parse_headers(head) else {
        return Summary::default();
    };
    Summary {
        message_id: ids(&message, HeaderName::MessageId).pop(),
        in_reply_to: ids(&message, HeaderName::InReplyTo).pop(),
        references: ids(&message, HeaderName::References),
        subject: message.subject().map(clip),
        from: mailboxes(message.from()).into_iter().next(),
        to: mailboxes(message.to()),
        date: message.date().and_then(date),
    }
}

pub(super) fn ids(message: &Message, name: HeaderName<'static>) -> Vec<String> {
    let ids: Vec<&str> = match message.header(name) {
        Some(HeaderValue::Text(id)) => vec![id.as_ref()],
        Some(HeaderValue::TextList(ids)) => ids.iter().map(AsRef::as_ref).collect(),
        Some(_) | None => Vec::new(),
    };
    let newest = ids.len().saturating_sub(LIST_LENGTH_MAX);
    ids[newest..].iter().map(|id| clip(&format!("<{id}>"))).collect()
}

fn mailboxes(list: Option<&Address>) -> Vec<Mailbox> {
    addresses(list).into_iter().take(LIST_LENGTH_MAX).map(mailbox).collect()
}

/// Of all fields of this name, up to `max`.
pub(super) fn every_mailbox(message: &Message, name: HeaderName<'static>, max: usize) -> Vec<Mailbox> {
    let fields = message.header_values(name).map(HeaderValue::as_address);
    fields.flat_map(addresses).take(max).map(mailbox).collect()
}

fn addresses<'a>(list: Option<&'a Address>) -> Vec<&'a Addr<'a>> {
    match list {
        Some(Address::List(list)) => list.iter().collect(),
        Some(Address::Group(groups)) => groups.iter().flat_map(|group| &group.addresses).collect(),
        None => Vec::new(),
    }
}

fn mailbox(addr: &Addr) -> Mailbox {
    let text = |value: Option<&str>| value.map(clip).unwrap_or_default();
    Mailbox { name: text(addr.name.as_deref()), address: text(addr.address.as_deref()) }
}

pub(super) fn date(date: &DateTime) -> Option<Date> {
    if !date.is_valid() {
        return None;
    }
    let minutes = i16::from(date.tz_hour) * 60 + i16::from(date.tz_minute);
    let offset_minutes = if date.tz_before_gmt { -minutes } else { minutes };
    Some(Date { at: Timestamp::from_secs(date.to_timestamp()), offset_minutes })
}

/// Without control characters, and not longer than a list can use.
fn clip(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=clean.len().min(TEXT_BYTES_MAX)).rev().find(|&at| clean.is_char_boundary(at)).unwrap_or(0);
    clean[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_is_there() {
        let raw = b"From: =?utf-8?q?J=C3=B6rg?= <j@example.org>\r\nTo: a@example.org, B <b@example.org>\r\n\
            Subject: =?utf-8?q?h=C3=A9llo?=\r\nMessage-ID: <1@example.org>\r\nReferences: <a@x>\r\n\t<b@x>\r\n\
            In-Reply-To: <b@x>\r\nDate: Fri, 02 Jan 2026 05:04:05 +0200\r\n\r\nbody";
        let got = summary(raw);
        assert_eq!(got.message_id.as_deref(), Some("<1@example.org>"));
        assert_eq!(got.in_reply_to.as_deref(), Some("<b@x>"));
        assert_eq!(got.references, ["<a@x>", "<b@x>"]);
        assert_eq!(got.subject.as_deref(), Some("h\u{e9}llo"));
        assert_eq!(got.from, Some(Mailbox { name: "J\u{f6}rg".into(), address: "j@example.org".into() }));
        assert_eq!(got.to.len(), 2);
        assert_eq!(got.date, Some(Date { at: Timestamp::from_secs(1_767_323_045), offset_minutes: 120 }));
    }

    #[test]
    fn nothing_is_needed() {
        let check = |raw: &[u8]| assert_eq!(summary(raw), Summary::default(), "{raw:?}");
        check(b"");
        check(b"\r\n\r\n");
        check(b"no header at all");
        check(b"Date: never\r\n\r\n");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let raw = format!("Subject: {}\r\n\r\n", "\u{e9}x".repeat(5000));
        let subject = summary(raw.as_bytes()).subject.unwrap();
        assert!((TEXT_BYTES_MAX - 1..=TEXT_BYTES_MAX).contains(&subject.len()), "{}", subject.len());
    }

    proptest! {
        #[test]
        fn never_panics(raw in proptest::collection::vec(any::<u8>(), 0..400), start in 0..4usize) {
            let mut message = [&b""[..], b"Date: ", b"From: ", b"Subject: =?"][start].to_vec();
            message.extend(raw);
            prop_assert!(summary(&message).subject.is_none_or(|subject| subject.len() <= TEXT_BYTES_MAX));
        }
    }
}
