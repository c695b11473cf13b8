use postledger_events::Record;
use postledger_events::address::Address;
use postledger_events::fact::attempt::{
    AttemptStarted, DeferredRecipient, FailedRecipient, NumberedDelivery, Session, TlsUsed,
};
use postledger_events::fact::submission::{BodyRef, SubmissionPersonal, SubmittedDelivery, SubmittedRecipient};
use postledger_events::id::{
    AccountName, AttemptId, MessageUuid, RecipientKey, Seq, Sha256, SuppressionId, TransportName,
};

use super::*;

fn uuid(n: u8) -> String {
    format!("00000000-0000-7000-8000-0000000000{n:02}")
}

fn message() -> MessageUuid {
    uuid(1).parse().unwrap()
}

fn attempt(n: u8) -> AttemptId {
    uuid(n).parse().unwrap()
}

fn account() -> AccountName {
    AccountName::new("shop").unwrap()
}

fn submitted() -> MessageSubmitted {
    MessageSubmitted {
        message: message(),
        account: account(),
        via: Via::Webapi,
        body: BodyRef { body: message(), size: 812, sha256: Sha256::ZERO },
        eight_bit: false,
        smtputf8: false,
        require_tls: None,
        due: Timestamp::from_secs(100),
        future_release: None,
        separator: None,
        keep_s: 0,
        keep_contents: false,
        deliveries: vec![SubmittedDelivery {
            id: DeliveryId(17),
            recipient: RecipientKey([0; 16]),
            domain: "example.net".parse().unwrap(),
            fromid: None,
            hold: None,
        }],
        sent_copy: None,
        origin: None,
        idempotency: None,
        trace: None,
        code_version: "0".to_owned(),
        personal: Some(SubmissionPersonal {
            login: "shop@example.org".to_owned(),
            client: Some("192.0.2.1".parse().unwrap()),
            from: "shop@example.org".parse().unwrap(),
            reverse_path: None,
            recipients: vec![SubmittedRecipient::new(you(), "you@example.net")],
            message_id: "<1@example.org>".to_owned(),
            subject: "Hello\u{1b}[2J".to_owned(),
            extra: [("order".to_owned(), "7".to_owned())].into(),
            idempotency_key: None,
        }),
    }
}

fn you() -> Address {
    "you@example.net".parse().unwrap()
}

fn session() -> Session {
    Session {
        remote_host: "mx.example.net".to_owned(),
        remote_addr: Some("192.0.2.7:25".parse().unwrap()),
        tls: Some(TlsUsed { protocol: "TLSv1_3".to_owned(), cipher: "AES".to_owned(), verified: true }),
        connect_us: 1_500,
        envelope_us: 2_000,
        data_us: 30,
        final_us: 45_000,
        ..Session::default()
    }
}

fn started(n: u32) -> AttemptStarted {
    AttemptStarted {
        attempt: attempt(2),
        message: message(),
        account: account(),
        transport: TransportName::new("default").unwrap(),
        deliveries: vec![NumberedDelivery { id: DeliveryId(17), number: n }],
        started: Timestamp::from_secs(100),
    }
}

fn greylisted() -> AttemptDeferred {
    let problem = Problem { code: 451, enhanced: None, reply: Some(0), error: None };
    let next = Timestamp::from_secs(550);
    AttemptDeferred {
        attempt: attempt(2),
        message: message(),
        account: account(),
        deliveries: vec![DeferredRecipient { id: DeliveryId(17), number: 1, next, problem }],
        session: session(),
        ended: Timestamp::from_secs(100),
        personal: Some(Replies {
            replies: vec![Reply { code: 451, lines: vec!["4.7.1 greylisted".to_owned(), "come again".to_owned()] }],
            errors: Vec::new(),
        }),
    }
}

fn refused() -> DeliveryFailed {
    DeliveryFailed {
        attempt: Some(attempt(3)),
        message: message(),
        account: account(),
        deliveries: vec![FailedRecipient {
            id: DeliveryId(17),
            number: 2,
            recipient: RecipientKey([0; 16]),
            why: Failure::Permanent,
            problem: Problem { code: 550, enhanced: None, reply: Some(0), error: None },
            held: false,
            suppressing: Some(SuppressionId(3)),
        }],
        session: Session { reused: true, tls: None, ..session() },
        ended: Timestamp::from_secs(550),
        keep_until: Timestamp::from_secs(9999),
        by: None,
        personal: None,
    }
}

fn check(events: Vec<(i64, Event)>, expect: &str) {
    let records: Vec<Record> = (5..)
        .zip(events)
        .map(|(seq, (ms, event))| {
            let at = Timestamp::from_nanos(ms * 1_000_000);
            Record { seq: Seq(seq), at, prev: Sha256::ZERO, event }
        })
        .collect();
    let told = tell(&records);
    assert_eq!(told, expect, "\n{told}");
}

#[test]
fn a_story_with_a_deferral_and_a_failure_whose_reply_was_forgotten() {
    let events = vec![
        (100_000, submitted().into()),
        (100_012, started(1).into()),
        (100_100, greylisted().into()),
        (550_500, refused().into()),
    ];
    check(
        events,
        "\
1970-01-01T00:01:40.000000000Z
            #5 +0s  submitted by account shop over the webapi, 812 octets
                    message 00000000-0000-7000-8000-000000000001
                    login shop@example.org from 192.0.2.1
                    from shop@example.org, Message-ID <1@example.org>
                    subject: Hello\u{fffd}[2J
                    extra order: 7
                    delivery 17 to you@example.net
        #6 +0.012s  attempt started, by transport default
                    delivery 17 to you@example.net, attempt 1
        #7 +0.100s  deferred, mx.example.net (192.0.2.7:25)
                    delivery 17 to you@example.net, attempt 1; next 1970-01-01T00:09:10.000000000Z (+7m30s)
                      451-4.7.1 greylisted
                      451 come again
                    connection made in 1.500 ms, TLSv1_3 AES, verified; envelope 2.000 ms, content 0.030 ms, final reply 45.000 ms
         #8 +7m30s  failed, mx.example.net (192.0.2.7:25)
                    delivery 17 to you@example.net, after 2 attempts: refused for good
                      (forgotten)
                      the address is suppressed from now on (suppression 3)
                    connection reused, no TLS; envelope 2.000 ms, content 0.030 ms, final reply 45.000 ms
",
    );
}

#[test]
fn a_submission_whose_people_were_forgotten() {
    let forgotten = MessageSubmitted { personal: None, ..submitted() };
    check(
        vec![(0, forgotten.into()), (3_600_000, started(1).into())],
        "\
1970-01-01T00:00:00.000000000Z
            #5 +0s  submitted by account shop over the webapi, 812 octets
                    message 00000000-0000-7000-8000-000000000001
                    from, subject and recipients: (forgotten)
                    delivery 17 to (forgotten)
         #6 +1h00m  attempt started, by transport default
                    delivery 17 to (forgotten), attempt 1
",
    );
}
