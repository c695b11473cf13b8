//! Every body that was ever written is written again, byte for byte: the golden files are kept for ever.

use std::path::PathBuf;

use postledger_events::Event;
use postledger_events::fact::submission::Origin;
use postledger_events::id::{DeliveryId, MessageUuid};
use uuid::Uuid;

use super::*;
use crate::mail::contents::contents;

/// Rewrites the golden files of forms that are not released yet.
const UPDATE: &str = "UPDATE";

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The golden record of a kind, which the vocabulary's own tests keep.
fn record(kind: &str) -> Record {
    let line = std::fs::read(folder("events/testdata").join(format!("{kind}.1.json"))).unwrap();
    Record::decode(line.trim_ascii_end()).unwrap()
}

fn check(file: &str, written: &Body) {
    let path = folder("src/webhook/testdata").join(file);
    let text = String::from_utf8(written.bytes.clone()).unwrap() + "\n";
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{file}");
}

fn check_all_formats(file: &str, fact: &Record, place: u16, told: Told<'_>) {
    let account = AccountName::new("mox").unwrap();
    let endpoint = EndpointName::new("crm.main").unwrap();
    let ledger = LedgerId(Uuid::from_u128(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057));
    let name = Name { ledger, account: &account, endpoint: &endpoint, call: CallRef { fact: fact.seq, place } };
    for (format, ending) in [(CallFormat::Mox, "mox"), (CallFormat::CloudEvents, "cloudevents")] {
        check(&format!("{file}.{BODY_VERSION}.{ending}.json"), &body(BODY_VERSION, format, &name, told).unwrap());
    }
}

#[test]
fn bodies_of_deliveries_stay_as_they_are() {
    let submitted = record("MessageSubmitted");
    let check = |file: &str, kind: &str, place: u16| {
        let fact = record(kind);
        check_all_formats(file, &fact, place, Told::Outgoing { fact: &fact, submitted: &submitted });
    };
    check("delivered", "Delivered", 0);
    check("delayed", "AttemptDeferred", 0);
    check("delayed-without-reply", "AttemptDeferred", 1);
    check("delayed-in-doubt", "AttemptInDoubt", 0);
    check("failed", "DeliveryFailed", 0);
    check("suppressed", "DeliverySuppressed", 0);
    check("canceled", "DeliveryCanceled", 0);
}

#[test]
fn what_is_sent_again_names_its_origin() {
    let (fact, mut submitted) = (record("Delivered"), record("MessageSubmitted"));
    let Event::MessageSubmitted(e) = &mut submitted.event else { panic!("{submitted:?}") };
    e.origin = Some(Origin { message: MessageUuid(Uuid::nil()), deliveries: vec![DeliveryId(7); e.deliveries.len()] });
    check_all_formats("delivered-again", &fact, 0, Told::Outgoing { fact: &fact, submitted: &submitted });
}

#[test]
fn a_body_without_what_was_forgotten_is_still_one() {
    let (mut fact, mut submitted) = (record("DeliveryFailed"), record("MessageSubmitted"));
    forget(&mut fact);
    forget(&mut submitted);
    check_all_formats("failed-forgotten", &fact, 0, Told::Outgoing { fact: &fact, submitted: &submitted });
}

#[test]
fn bodies_of_messages_stay_as_they_are() {
    let mut fact = record("MessageReceived");
    let raw = concat!(
        "Return-Path: <>\r\nFrom: A <a@xn--jrg-sna.example>\r\nTo: mox@example.org, B <b@example.org>\r\n",
        "Subject: =?utf-8?q?h=C3=A9llo_<b>?=\r\nMessage-ID: <Y@there.example>\r\nIn-Reply-To: <B@x>\r\n",
        "References: <A@x>\r\n\t<B@x>\r\nDate: Fri, 02 Jan 2026 05:04:05 +0200\r\nMIME-Version: 1.0\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\n\r\nh=C3=A9llo=20\r\nline\u{2028}\r\n--b\r\n",
        "Content-Type: image/png; name=\"=?utf-8?q?=C3=BC.png?=\"\r\nContent-Disposition: ATTACHMENT\r\n",
        "Content-ID: <hi>\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEC\r\n--b--\r\n",
    );
    let contents = contents(raw.as_bytes());
    check_all_formats("incoming", &fact, 0, Told::Incoming { fact: &fact, contents: &contents });
    forget(&mut fact);
    check_all_formats("incoming-forgotten", &fact, 0, Told::Incoming { fact: &fact, contents: &contents });
}

#[test]
fn test_calls() {
    let fact = Record { seq: postledger_events::id::Seq(0), ..record("Delivered") };
    check_all_formats("test-outgoing", &fact, 0, Told::Test(Direction::Outgoing, fact.at));
    check_all_formats("test-incoming", &fact, 0, Told::Test(Direction::Incoming, fact.at));
}

#[test]
fn what_is_no_call_has_no_body() {
    let (fact, submitted) = (record("Delivered"), record("MessageSubmitted"));
    let account = AccountName::new("mox").unwrap();
    let endpoint = EndpointName::new("crm").unwrap();
    let ledger = LedgerId(Uuid::nil());
    let body = |version, place, fact, submitted| {
        let name =
            Name { ledger, account: &account, endpoint: &endpoint, call: CallRef { fact: fact_seq(fact), place } };
        body(version, CallFormat::Mox, &name, Told::Outgoing { fact, submitted }).map(drop)
    };
    assert_eq!(body(BODY_VERSION, 1, &fact, &submitted), Err(Error::Place));
    assert_eq!(body(BODY_VERSION, 0, &submitted, &submitted), Err(Error::Place));
    assert_eq!(body(BODY_VERSION, 0, &fact, &fact), Err(Error::Place));
    assert_eq!(body(BODY_VERSION + 1, 0, &fact, &submitted), Err(Error::Version(2)));
}

fn forget(record: &mut Record) {
    match &mut record.event {
        Event::DeliveryFailed(e) => e.personal = None,
        Event::MessageSubmitted(e) => e.personal = None,
        Event::MessageReceived(e) => e.personal = None,
        other => panic!("{other:?} is not forgotten here"),
    }
}

fn fact_seq(record: &Record) -> postledger_events::id::Seq {
    record.seq
}
