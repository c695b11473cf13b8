//! A received message, with mox's keys and then our own.

use std::collections::BTreeMap;

use postledger_events::address::Address;
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use serde::Serialize;

use super::About;
use super::json::Time;
use crate::mail::contents::{Contents, Part};
use crate::mail::read::Mailbox;

/// The version that mox gives its own form.
const MOX_VERSION: u32 = 0;

/// `webhook.Incoming`, in the order of the contract.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Incoming {
    version: u32,
    from: Vec<NameAddress>,
    to: Vec<NameAddress>,
    #[serde(rename = "CC")]
    cc: Vec<NameAddress>,
    #[serde(rename = "BCC")]
    bcc: Vec<NameAddress>,
    reply_to: Vec<NameAddress>,
    subject: String,
    #[serde(rename = "MessageID")]
    message_id: String,
    in_reply_to: String,
    references: Vec<String>,
    date: Option<Time>,
    text: String,
    #[serde(rename = "HTML")]
    html: String,
    structure: Structure,
    meta: Meta,
    /// Of the ledger.
    #[serde(rename = "EventID")]
    event_id: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NameAddress {
    name: String,
    address: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Structure {
    content_type: String,
    content_type_params: BTreeMap<String, String>,
    #[serde(rename = "ContentID")]
    content_id: String,
    content_disposition: String,
    filename: String,
    decoded_size: u64,
    parts: Vec<Structure>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    #[serde(rename = "MsgID")]
    msg_id: u64,
    mail_from: String,
    /// By SPF, which nobody checks yet; so it is never claimed.
    mail_from_validated: bool,
    /// As DMARC has it; not checked yet either.
    msg_from_validated: bool,
    rcpt_to: String,
    #[serde(rename = "DKIMVerifiedDomains")]
    dkim_verified_domains: Vec<String>,
    #[serde(rename = "RemoteIP")]
    remote_ip: String,
    received: Time,
    mailbox_name: String,
    automated: bool,
}

impl Incoming {
    pub(super) fn about(&self) -> About {
        About { kind: "postledger.message.received".to_owned(), subject: format!("messages/{}", self.meta.msg_id) }
    }
}

/// `None`: the fact has no such place.
pub(super) fn of(fact: &Record, contents: &Contents, place: u16) -> Option<Incoming> {
    let Event::MessageReceived(received) = &fact.event else { return None };
    let copy = received.copies.get(usize::from(place))?;
    let personal = received.personal.as_ref();
    let mail_from = personal.and_then(|p| p.mail_from.as_ref());
    let is_null = personal.is_some() && mail_from.is_none();
    let rcpt_to = personal.and_then(|p| p.recipients.get(usize::from(copy.recipient)));
    let peer = personal.and_then(|p| p.peer);
    let meta = Meta {
        msg_id: copy.msg_id.0,
        mail_from: mail_from.map(Address::to_unicode).unwrap_or_default(),
        mail_from_validated: false,
        msg_from_validated: false,
        rcpt_to: rcpt_to.map(Address::to_unicode).unwrap_or_default(),
        dkim_verified_domains: Vec::new(),
        remote_ip: peer.map(|peer| peer.ip().to_string()).unwrap_or_default(),
        received: Time::utc(fact.at),
        mailbox_name: copy.mailbox.to_string(),
        automated: is_null || contents.is_automated,
    };
    Some(written(contents, meta, fact.seq.0))
}

/// An invented event.
pub(super) fn test(at: Timestamp) -> Incoming {
    let address = "test@postledger.invalid";
    let mailbox = Mailbox { name: String::new(), address: address.to_owned() };
    let contents = Contents {
        from: vec![mailbox.clone()],
        to: vec![mailbox],
        subject: "a test call of Postledger".to_owned(),
        message_id: "<test@postledger.invalid>".to_owned(),
        text: "hello\n".to_owned(),
        structure: Part { content_type: "text/plain".to_owned(), decoded_size: 7, ..Part::default() },
        ..Contents::default()
    };
    let meta = Meta {
        msg_id: 0,
        mail_from: address.to_owned(),
        mail_from_validated: false,
        msg_from_validated: false,
        rcpt_to: address.to_owned(),
        dkim_verified_domains: Vec::new(),
        remote_ip: String::new(),
        received: Time::utc(at),
        mailbox_name: "Inbox".to_owned(),
        automated: false,
    };
    written(&contents, meta, 0)
}

fn written(contents: &Contents, meta: Meta, event_id: u64) -> Incoming {
    let addresses = |list: &[Mailbox]| list.iter().map(name_address).collect();
    Incoming {
        version: MOX_VERSION,
        from: addresses(&contents.from),
        to: addresses(&contents.to),
        cc: addresses(&contents.cc),
        bcc: addresses(&contents.bcc),
        reply_to: addresses(&contents.reply_to),
        subject: contents.subject.clone(),
        message_id: contents.message_id.clone(),
        in_reply_to: contents.in_reply_to.clone(),
        references: contents.references.clone(),
        date: contents.date.map(Time::of),
        text: contents.text.clone(),
        html: contents.html.clone(),
        structure: structure(&contents.structure),
        meta,
        event_id,
    }
}

/// With the domain in Unicode, if it is an address.
fn name_address(mailbox: &Mailbox) -> NameAddress {
    let address = Address::parse(&mailbox.address).map_or_else(|_| mailbox.address.clone(), |a| a.to_unicode());
    NameAddress { name: mailbox.name.clone(), address }
}

fn structure(part: &Part) -> Structure {
    Structure {
        content_type: part.content_type.clone(),
        content_type_params: part.content_type_params.clone(),
        content_id: part.content_id.clone(),
        content_disposition: part.content_disposition.clone(),
        filename: part.filename.clone(),
        decoded_size: part.decoded_size,
        parts: part.parts.iter().map(structure).collect(),
    }
}
