//! Receivers of webhooks fail in every way while the process is killed at any moment. When they are well again, they have heard of
//! everything that concerns them, in order, and what they heard again had the same name and the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;

use postledger::clock::Clock;
use postledger::ledger::{Ledger, Options};
use postledger_events::{Event, Record};
use serde_json::json;

use super::account::Verdict;
use super::dice::{Dice, seed};
use super::kill::lock_holder;
use super::load::Request;
use super::receiver::{ARRIVED, Heard, Receiver};
use super::scale::Scale;
use super::subject::{RETRY_SCALE, drain, prepare, recover, spin_until};
use super::table::Row;
use crate::server::{Server, arrives, native, new_ip, wait_until};
use crate::sink::Sink;
use crate::tls::Authority;
use crate::webhooks::add;

/// Messages of one round. Each tells every endpoint without a filter of one thing at least.
const MESSAGES: u64 = 10;
/// Between two attempts of a call, before it is scaled down to a fifth of a second.
const WAIT_S: u32 = 1800;
/// As many as an endpoint may have, so that none is given up.
const WAITS: usize = 99;
/// So long may a receiver hang.
const TIMEOUT_S: u32 = 1;

/// An endpoint of localserve's account.
#[derive(Clone, Copy, Debug)]
struct Kind {
    name: &'static str,
    direction: &'static str,
    format: &'static str,
    tls: bool,
    /// What it is told of; nothing stands for everything.
    events: &'static [&'static str],
}

const ALL: Kind = Kind { name: "plain", direction: "outgoing", format: "mox", tls: false, events: &[] };
const KINDS: [Kind; 4] = [
    ALL,
    Kind { name: "tls", format: "cloudevents", tls: true, ..ALL },
    Kind { name: "filtered", events: &["failed", "suppressed", "canceled"], ..ALL },
    Kind { name: "inbox", direction: "incoming", ..ALL },
];

struct Endpoint {
    kind: Kind,
    receiver: Receiver,
}

impl Endpoint {
    fn add(kind: Kind, server: &Server, authority: &Authority, seed: u64) -> Endpoint {
        let receiver = Receiver::start(kind.tls.then_some(authority), seed);
        let settings = json!({
            "direction": kind.direction, "url": receiver.url(), "format": kind.format, "events": kind.events,
            "retry_waits_s": vec![WAIT_S; WAITS], "connect_timeout_s": TIMEOUT_S, "timeout_s": TIMEOUT_S,
        });
        receiver.expect(add(server, kind.name, &settings));
        Endpoint { kind, receiver }
    }

    fn concerns(&self, told: &Told) -> bool {
        let arrived = told.event == ARRIVED;
        arrived == (self.kind.direction == "incoming")
            && (self.kind.events.is_empty() || self.kind.events.contains(&told.event))
    }
}

/// What an endpoint is to be told: a fact about a delivery, or about a message in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    about: u64,
    fact: u64,
    event: &'static str,
}

#[test]
fn every_fact_arrives_at_receivers_that_fail_while_the_program_is_killed() {
    let (seed, home) = (seed(), tempfile::tempdir().expect("a directory"));
    let (mut dice, sink, authority) = (Dice::new(seed), Sink::start(), Authority::new());
    let mut server = Server::on(&home.path().join("data"), &home.path().join("log"), new_ip(), RETRY_SCALE);
    server.set_environment(&[authority.environment()]);
    prepare(&mut server, &sink);
    server.restart();
    let endpoints = KINDS.map(|kind| Endpoint::add(kind, &server, &authority, dice.roll()));
    let count = || endpoints.iter().map(|endpoint| endpoint.receiver.count()).sum::<u64>();
    let (http, smtp, mut row) = (server.http(), server.smtp(), Row::new("(e) receivers"));
    let (submit, requests) = mpsc::channel();
    let sending = std::thread::spawn(move || {
        for request in requests {
            send(http, &request);
            arrive(smtp, &request);
        }
    });
    for round in 0..Scale::of_this_run().kills_amid_calls() {
        row.rounds += 1;
        server.kill();
        // Now and then in the middle of a start.
        if round % 6 == 5 {
            server.spawn();
            let pid = server.pid().to_string();
            wait_until("it holds the directory", || lock_holder(&server) == pid);
            server.kill();
        }
        row.recovery.push(recover(&mut server).unwrap_or_else(|e| panic!("seed {seed}: it does not start:\n{e}")));
        let heard = count() + 1 + dice.below(2 * MESSAGES);
        for n in 0..MESSAGES {
            submit.send(request(round, n, &mut dice)).expect("the sender goes on to the end");
        }
        if dice.one_in(2) {
            // Right behind a call, when its outcome is not written down yet.
            spin_until("calls were made", || count() >= heard);
        } else {
            wait_until("calls were made", || count() >= heard);
        }
    }
    server.kill();
    server.restart();
    drop(submit);
    sending.join().expect("all was sent");
    endpoints.iter().for_each(|endpoint| endpoint.receiver.heal());
    row.verdict.lost.extend(drain(&server).stuck());
    for Endpoint { kind, .. } in &endpoints {
        let calls = |phase: &str| server.items(&format!("/endpoints/mox/{}/calls?phase={phase}", kind.name));
        wait_until("no call waits", || calls("waiting").is_empty());
        let given_up = ["failed", "canceled", "held"].into_iter().flat_map(calls);
        row.verdict.lost.extend(given_up.map(|call| format!("{} gave up {call}", kind.name)));
    }
    server.stop();
    server.cli(&["verify", "--full"]);

    let told = read(server.dir());
    let mut shown = BTreeSet::new();
    for endpoint in &endpoints {
        let expected: BTreeSet<Told> = told.iter().filter(|told| endpoint.concerns(told)).copied().collect();
        let heard = endpoint.receiver.heard();
        row.notes.push(format!("{}: {} calls for {} facts", endpoint.kind.name, heard.len(), expected.len()));
        row.add(named(compare(&expected, &heard), endpoint.kind));
        shown.extend(endpoint.receiver.shown());
    }
    row.settle(seed);
    assert_eq!(shown, Receiver::all(), "the receivers did not fail in every way; the load is too thin");
}

/// One to three recipients: some refuse for good, some are suppressed since, some refuse until the ledger gives up.
fn request(round: u64, n: u64, dice: &mut Dice) -> Request {
    let subject = format!("e{round}n{n}");
    let recipient = |at: u64, dice: &mut Dice| match dice.below(8) {
        0 => "gonepermerror@d0.example".to_owned(),
        1 => format!("to{at}for{subject}permerror@d1.example"),
        2 | 3 => format!("to{at}for{subject}temperror@d2.example"),
        _ => format!("to{at}for{subject}@d3.example"),
    };
    let recipients: BTreeSet<String> = (0..=dice.below(3)).map(|at| recipient(at, dice)).collect();
    Request { key: Some(format!("key-{subject}")), recipients: recipients.into_iter().collect(), lines: 1, subject }
}

/// Until it is answered, however often the server is killed meanwhile. Some of what it defers is canceled.
fn send(http: SocketAddr, request: &Request) {
    let mut ids = Vec::new();
    wait_until("the message is accepted", || {
        let Ok(answer) = request.send(http) else { return false };
        if answer.status == 200 {
            ids = answer.json()["Submissions"].as_array().expect("submissions").clone();
        }
        answer.status == 200
    });
    let deferred = ids.iter().find(|id| id["Address"].as_str().is_some_and(|to| to.contains("temperror")));
    if let Some(id) = deferred {
        let cancel = json!({ "action": "cancel", "filter": { "ids": [id["QueueMsgID"]] } });
        // If the server is killed before it answers, the ledger knows what became of this.
        let _ = native(http, "POST", "/queue", &cancel);
    }
}

/// A message comes in from outside, until it is taken. Where the answer was lost, it comes in again as another.
fn arrive(smtp: SocketAddr, request: &Request) {
    let subject = &request.subject;
    wait_until("the message is taken in", || {
        let taken = arrives(smtp, ["a@x.example", "mox@localhost"], &format!("Subject: {subject}\r\n\r\nx\r\n"));
        taken.is_ok_and(|reply| reply.starts_with("250 "))
    });
}

/// All that the log has to tell.
fn read(dir: &Path) -> Vec<Told> {
    let ledger = Ledger::open(Options::new(dir), Clock::system()).expect("the ledger opens");
    let snapshot = ledger.snapshot();
    let mut told = Vec::new();
    for line in snapshot.records(snapshot.first()..=snapshot.position()) {
        let (seq, line) = line.expect("a line");
        let (event, about) = news(Record::decode(&line).expect("a record").event);
        told.extend(about.into_iter().map(|about| Told { about, fact: seq.0, event }));
    }
    told
}

fn news(event: Event) -> (&'static str, Vec<u64>) {
    match event {
        Event::Delivered(e) => ("delivered", e.deliveries.iter().map(|d| d.id.0).collect()),
        Event::AttemptDeferred(e) => ("delayed", e.deliveries.iter().map(|d| d.id.0).collect()),
        // Where no attempt follows, its failure is told.
        Event::AttemptInDoubt(e) => {
            ("delayed", e.deliveries.iter().filter(|d| d.next.is_some()).map(|d| d.id.0).collect())
        }
        Event::DeliveryFailed(e) => ("failed", e.deliveries.iter().map(|d| d.id.0).collect()),
        Event::DeliverySuppressed(e) => ("suppressed", e.deliveries.iter().map(|d| d.id.0).collect()),
        Event::DeliveryCanceled(e) => ("canceled", e.deliveries.iter().map(|d| d.id.0).collect()),
        // Notices are of our own.
        Event::MessageReceived(e) if e.notice_of.is_none() => {
            (ARRIVED, e.copies.iter().map(|copy| copy.msg_id.0).collect())
        }
        _ => ("", Vec::new()),
    }
}

fn compare(expected: &BTreeSet<Told>, heard: &[Heard]) -> Verdict {
    let mut verdict = Verdict { acknowledged: expected.len() as u64, ..Verdict::default() };
    let key = |heard: &Heard| (heard.about, heard.fact);
    let expected: BTreeMap<(u64, u64), &str> = expected.iter().map(|t| ((t.about, t.fact), t.event)).collect();
    let mut first: BTreeMap<(u64, u64), &Heard> = BTreeMap::new();
    let mut taken: BTreeSet<(u64, u64)> = BTreeSet::new();
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for heard in heard {
        let what = format!("{} of fact {} about {}", heard.event, heard.fact, heard.about);
        if expected.get(&key(heard)) != Some(&heard.event.as_str()) {
            verdict.phantom.push(format!("{what} is not in the ledger"));
        }
        if !heard.signed {
            verdict.phantom.push(format!("{what} is not signed"));
        }
        if heard.taken {
            taken.insert(key(heard));
        }
        if let Some(first) = first.get(&key(heard)) {
            if (&first.id, &first.body) != (&heard.id, &heard.body) {
                verdict.duplicated.push(format!("{what} came again as another"));
            }
            continue;
        }
        first.insert(key(heard), heard);
        // Whatever comes about it comes behind what it was before, and when that was taken.
        if let Some(before) = last.insert(heard.about, heard.fact)
            && (before > heard.fact || !taken.contains(&(heard.about, before)))
        {
            verdict.lost.push(format!("{what} came behind fact {before}, too late or too early: the order was lost"));
        }
    }
    let ids: BTreeSet<&str> = first.values().map(|heard| heard.id.as_str()).collect();
    if ids.len() != first.len() {
        verdict.duplicated.push(format!("{} calls have only {} ids", first.len(), ids.len()));
    }
    let silent = expected.iter().filter(|(told, _)| !taken.contains(told));
    verdict
        .lost
        .extend(silent.map(|((about, fact), event)| format!("{event} of fact {fact} about {about} was not taken")));
    verdict
}

fn named(verdict: Verdict, kind: Kind) -> Verdict {
    let name = |found: Vec<String>| found.into_iter().map(|f| format!("{}: {f}", kind.name)).collect();
    let Verdict { acknowledged, lost, duplicated, phantom } = verdict;
    Verdict { acknowledged, lost: name(lost), duplicated: name(duplicated), phantom: name(phantom) }
}

#[test]
fn what_was_heard_is_held_against_the_ledger() {
    let told = |fact: u64, event: &'static str| Told { about: 7, fact, event };
    let heard = |fact: u64, event: &str, id: &str| Heard {
        id: id.to_owned(),
        fact,
        about: 7,
        event: event.to_owned(),
        body: b"{}".to_vec(),
        signed: true,
        taken: true,
    };
    let expected = BTreeSet::from([told(1, "delayed"), told(2, "delivered")]);
    let check = |heard: &[Heard], expect: [usize; 3]| {
        let Verdict { lost, duplicated, phantom, .. } = compare(&expected, heard);
        assert_eq!([lost.len(), duplicated.len(), phantom.len()], expect, "{lost:?} {duplicated:?} {phantom:?}");
    };
    let (one, two) = (heard(1, "delayed", "a"), heard(2, "delivered", "b"));
    check(&[one.clone(), one.clone(), two.clone()], [0, 0, 0]);
    check(&[one.clone(), two.clone(), one.clone()], [0, 0, 0]);
    check(std::slice::from_ref(&one), [1, 0, 0]);
    let refused = Heard { taken: false, ..one.clone() };
    check(&[refused.clone(), one.clone(), two.clone()], [0, 0, 0]);
    check(&[refused.clone(), two.clone(), one.clone()], [1, 0, 0]);
    check(&[one.clone(), Heard { taken: false, ..two.clone() }], [1, 0, 0]);
    check(&[two.clone(), one.clone()], [1, 0, 0]);
    check(&[one.clone(), heard(1, "delayed", "c"), two.clone()], [0, 1, 0]);
    check(&[one.clone(), Heard { body: b"{ }".to_vec(), ..one.clone() }, two.clone()], [0, 1, 0]);
    check(&[one.clone(), heard(2, "delivered", "a")], [0, 1, 0]);
    check(&[one.clone(), two.clone(), heard(3, "failed", "c")], [0, 0, 1]);
    check(&[heard(1, "failed", "a"), two.clone()], [0, 0, 1]);
    check(&[Heard { signed: false, ..one }, two], [0, 0, 1]);
}
