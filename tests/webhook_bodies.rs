//! Webhooks that the contract's reference server sent, and ours about the same happenings: the same bytes, apart from the wording
//! of errors, what this version does not check yet, and the keys that are added at the end.

use std::collections::BTreeMap;
use std::path::Path;

use postledger::mail::contents::contents;
use postledger::webhook::payload::{self, Name, Told};
use postledger_events::fact::attempt::Session;
use postledger_events::fact::call::{BODY_VERSION, CallRef};
use postledger_events::fact::endpoint::CallFormat;
use postledger_events::fact::mailbox::{MailboxCopy, MessageReceived, ReceivedPersonal};
use postledger_events::id::{AccountName, EndpointName, LedgerId, MailboxName, MsgId, Seq, Sha256};
use postledger_events::reply::Reply;
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use serde_json::Value;
use uuid::Uuid;

/// Captures of what arrives in notifications of other servers: not in this version.
const FROM_NOTIFICATIONS: [&str; 3] = ["relayed", "expanded", "unrecognized"];
/// What the reference server has checked about the sender of a message, and this version has not.
const CHECKED: [(&str, &str); 3] = [
    ("\"MailFromValidated\":true", "\"MailFromValidated\":false"),
    ("\"MsgFromValidated\":true", "\"MsgFromValidated\":false"),
    ("\"DKIMVerifiedDomains\":[\"localhost\"]", "\"DKIMVerifiedDomains\":[]"),
];

#[test]
fn webhooks_have_the_recorded_form() {
    let (mut outgoing, mut incoming) = (0, 0);
    for (name, text) in captures() {
        let json: Value = serde_json::from_str(&text).expect(&name);
        if json.get("Event").is_none() {
            incoming += 1;
            check_incoming(&name, &text, &json);
        } else if json["DSN"] == false && !FROM_NOTIFICATIONS.contains(&json["Event"].as_str().expect("an event")) {
            outgoing += 1;
            check_outgoing(&name, &text, &json);
        }
    }
    assert!(outgoing >= 20 && incoming >= 10, "{outgoing} outgoing, {incoming} incoming");
}

/// The bodies of the captures.
fn captures() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures/webhooks");
    let entries = folder.read_dir().expect("the captures").map(|entry| entry.expect("an entry").path());
    let mut captures: Vec<(String, String)> = entries
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("text");
            let (_, body) = text.split_once("\r\n\r\n").or(text.split_once("\n\n")).expect("a body");
            (path.file_name().expect("a name").to_string_lossy().into_owned(), body.trim_end().to_owned())
        })
        .collect();
    captures.sort();
    captures
}

fn text<'a>(json: &'a Value, key: &str) -> &'a str {
    json[key].as_str().unwrap_or_else(|| panic!("{key} is a text in {json}"))
}

fn number(json: &Value, key: &str) -> u64 {
    json[key].as_u64().unwrap_or_else(|| panic!("{key} is a number in {json}"))
}

fn body(fact: &Record, told: Told<'_>) -> String {
    let account = AccountName::new("mox").expect("a name");
    let endpoint = EndpointName::new("e").expect("a name");
    let call = CallRef { fact: fact.seq, place: 0 };
    let name = Name { ledger: LedgerId(Uuid::nil()), account: &account, endpoint: &endpoint, call };
    let body = payload::body(BODY_VERSION, CallFormat::Mox, &name, told).expect("a body");
    assert_eq!(body.content_type, "application/json; charset=utf-8");
    String::from_utf8(body.bytes).expect("text")
}

fn check_outgoing(name: &str, recorded: &str, json: &Value) {
    let (fact, submitted) = (outgoing_fact(json), submission(json));
    let ours = body(&fact, Told::Outgoing { fact: &fact, submitted: &submitted });
    let (head, after) = recorded.split_once(",\"Error\":").expect("an error");
    let extra = &after[after.find(",\"Extra\":").expect("extra")..];
    let (our_head, our_after) = ours.split_once(",\"Error\":").expect("an error");
    let our_extra = &our_after[our_after.find(",\"Extra\":").expect("extra")..];
    assert_eq!(our_head, head, "{name}");
    // Without the closing brace, since our own keys follow.
    let extra = extra.strip_suffix('}').expect("the end");
    assert!(our_extra.starts_with(&format!("{extra},\"EventID\":")), "{name}: {our_extra} instead of {extra}");
    let (theirs, own) = (text(json, "Error"), our_after.split(",\"Extra\"").next().unwrap_or_default());
    assert_eq!(own == "\"\"", theirs.is_empty(), "{name}: {own} instead of {theirs}");
    if ["canceled", "suppressed"].contains(&text(json, "Event")) {
        assert_eq!(serde_json::from_str::<String>(own).expect("a text"), theirs, "{name}");
    }
}

/// A record of the vocabulary's golden files.
fn golden(kind: &str) -> Record {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("events/testdata/{kind}.1.json"));
    Record::decode(std::fs::read(path).expect("a golden record").trim_ascii_end()).expect("a record")
}

fn outgoing_fact(json: &Value) -> Record {
    let event = text(json, "Event");
    let kind = match event {
        "delivered" => "Delivered",
        "delayed" => "AttemptDeferred",
        "failed" => "DeliveryFailed",
        "suppressed" => "DeliverySuppressed",
        "canceled" => "DeliveryCanceled",
        other => panic!("{other} is an event"),
    };
    let mut fact = golden(kind);
    fact.at = text(json, "WebhookQueued").parse().expect("a time");
    let id = postledger_events::id::DeliveryId(number(json, "QueueMsgID"));
    let code = u16::try_from(number(json, "SMTPCode")).expect("a code");
    let reply = Reply::new(code, format!("{} refused", text(json, "SMTPEnhancedCode")));
    match &mut fact.event {
        Event::Delivered(e) => e.deliveries[0].id = id,
        Event::AttemptDeferred(e) => {
            e.deliveries[0].id = id;
            e.deliveries[0].problem.code = code;
            e.deliveries[0].problem.enhanced = reply.enhanced();
            e.personal.as_mut().expect("it is there").replies = vec![reply];
        }
        Event::DeliveryFailed(e) => {
            e.deliveries[0].id = id;
            e.deliveries[0].problem.code = code;
            e.deliveries[0].problem.enhanced = reply.enhanced();
            if json["Suppressing"] == false {
                e.deliveries[0].suppressing = None;
            }
            e.session = Session::default();
            e.personal.as_mut().expect("it is there").replies = vec![reply];
        }
        Event::DeliverySuppressed(e) => e.deliveries[0].id = id,
        Event::DeliveryCanceled(e) => e.deliveries[0].id = id,
        other => panic!("{other:?} is told"),
    }
    fact
}

fn submission(json: &Value) -> Record {
    let mut submitted = golden("MessageSubmitted");
    let Event::MessageSubmitted(e) = &mut submitted.event else { panic!("{submitted:?}") };
    e.deliveries[0].id = postledger_events::id::DeliveryId(number(json, "QueueMsgID"));
    e.deliveries[0].fromid = text(json, "FromID").parse().ok();
    let personal = e.personal.as_mut().expect("it is there");
    personal.message_id = text(json, "MessageID").to_owned();
    personal.subject = text(json, "Subject").to_owned();
    personal.extra = serde_json::from_value::<BTreeMap<String, String>>(json["Extra"].clone()).expect("texts");
    if let Some(address) = text(json, "Error").strip_prefix("not delivering to recipient address ") {
        let address = address.split(": ").next().expect("an address");
        personal.recipients[0].address = address.parse().expect("an address");
    }
    submitted
}

fn check_incoming(name: &str, recorded: &str, json: &Value) {
    let meta = &json["Meta"];
    let fact = Record {
        seq: Seq(7),
        at: text(meta, "Received").parse::<Timestamp>().expect("a time"),
        prev: Sha256::of(b""),
        event: Event::MessageReceived(received(meta)),
    };
    let raw = raw_message(json);
    let contents = contents(&raw);
    let ours = body(&fact, Told::Incoming { fact: &fact, contents: &contents });
    let expected = CHECKED.iter().fold(recorded.to_owned(), |text, (theirs, own)| text.replace(theirs, own));
    let expected = format!("{},\"EventID\":7}}", expected.strip_suffix('}').expect("the end"));
    assert_eq!(ours, expected, "{name}: {}", String::from_utf8_lossy(&raw));
}

fn received(meta: &Value) -> MessageReceived {
    let Event::MessageReceived(golden) = golden("MessageReceived").event else { panic!("a received message") };
    let copy = MailboxCopy {
        account: AccountName::new("mox").expect("a name"),
        mailbox: MailboxName::new(text(meta, "MailboxName")).expect("a name"),
        msg_id: MsgId(number(meta, "MsgID")),
        recipient: 0,
    };
    let personal = ReceivedPersonal {
        peer: Some((text(meta, "RemoteIP").parse::<std::net::IpAddr>().expect("an address"), 25).into()),
        helo: String::new(),
        mail_from: text(meta, "MailFrom").parse().ok(),
        recipients: vec![text(meta, "RcptTo").parse().expect("an address")],
        message_id: None,
        from: None,
        subject: None,
    };
    MessageReceived { copies: vec![copy], personal: Some(personal), ..golden }
}

/// A message of which the reference server says this, as it would have been written.
fn raw_message(json: &Value) -> Vec<u8> {
    let addresses = |name: &str, key: &str| {
        let list = json[key].as_array().expect("addresses").iter();
        let list: Vec<_> = list.map(|a| format!("{} <{}>", text(a, "Name"), text(a, "Address"))).collect();
        if list.is_empty() { String::new() } else { format!("{name}: {}\r\n", list.join(", ")) }
    };
    let field = |name: &str, value: &str| if value.is_empty() { String::new() } else { format!("{name}: {value}\r\n") };
    let references: Vec<_> = json["References"].as_array().expect("ids").iter().filter_map(Value::as_str).collect();
    let mut raw = [
        addresses("From", "From"),
        addresses("To", "To"),
        addresses("Cc", "CC"),
        addresses("Bcc", "BCC"),
        addresses("Reply-To", "ReplyTo"),
        field("Subject", text(json, "Subject")),
        field("Message-ID", text(json, "MessageID")),
        field("In-Reply-To", text(json, "InReplyTo")),
        field("References", &references.join("\r\n\t")),
        field("Date", &rfc5322(text(json, "Date"))),
        if json["Meta"]["Automated"] == true { "List-Id: <x.example.org>\r\n".to_owned() } else { String::new() },
    ]
    .concat()
    .into_bytes();
    write_part(&mut raw, &json["Structure"], json);
    raw
}

/// Only the offsets that the captures have.
fn rfc5322(date: &str) -> String {
    let (local, zone) = match date.strip_suffix("+02:00") {
        Some(local) => (format!("{local}Z"), "+0200"),
        None => (date.to_owned(), "+0000"),
    };
    let at: Timestamp = local.parse().expect("a time");
    at.to_rfc5322().replace("+0000", zone)
}

fn write_part(raw: &mut Vec<u8>, part: &Value, message: &Value) {
    let kind = text(part, "ContentType");
    let params = part["ContentTypeParams"].as_object().expect("parameters").iter();
    let params: String = params.map(|(name, value)| format!("; {name}={}", value.as_str().expect("a text"))).collect();
    if kind != "/" {
        raw.extend_from_slice(format!("Content-Type: {kind}{params}\r\n").as_bytes());
    }
    let (disposition, filename) = (text(part, "ContentDisposition"), text(part, "Filename"));
    if !disposition.is_empty() {
        let disposition = format!("Content-Disposition: {disposition}; filename=\"{filename}\"\r\n");
        raw.extend_from_slice(disposition.as_bytes());
    }
    if !text(part, "ContentID").is_empty() {
        raw.extend_from_slice(format!("Content-ID: {}\r\n", text(part, "ContentID")).as_bytes());
    }
    let children = part["Parts"].as_array().expect("parts");
    if children.is_empty() {
        raw.extend_from_slice(b"Content-Transfer-Encoding: 8bit\r\n\r\n");
        raw.extend_from_slice(&content(part, message));
        return;
    }
    raw.extend_from_slice(b"\r\n");
    let boundary = text(&part["ContentTypeParams"], "boundary");
    for child in children {
        raw.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        write_part(raw, child, message);
        raw.extend_from_slice(b"\r\n");
    }
    raw.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
}

/// The text of the message where it is as long as the part, otherwise anything as long.
fn content(part: &Value, message: &Value) -> Vec<u8> {
    let size = usize::try_from(number(part, "DecodedSize")).expect("a size");
    let texts = ["Text", "HTML"].map(|key| text(message, key).replace('\n', "\r\n").into_bytes());
    texts.into_iter().find(|text| text.len() == size).unwrap_or_else(|| vec![b'x'; size])
}
