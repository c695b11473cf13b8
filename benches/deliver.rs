//! Delivering, from the sender's request to the last recipient at a sink, beside Postfix as the relay to the same sink.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use postledger_events::event::Event;
use postledger_events::id::Seq;

use super::load::{Load, percentile_ms};
use super::postfix::Postfix;
use super::probe::Probes;
use super::server::{self, Next, Server, Usage, scratch, set_up};
use super::sink::Sink;
use super::smtp_load::SmtpLoad;
use super::table::{Asked, Line, Table};

const MEASURE: Duration = Duration::from_secs(8);
const WARM_UP: Duration = Duration::from_secs(1);
const CLIENTS: usize = 64;
/// Of Postfix, which gets slower with more.
const SMTP_CLIENTS: usize = 20;
const MANY_CLIENTS: usize = 8;
const MANY_RECIPIENTS: u64 = 100;
/// Clients when the time to the first attempt is taken: few, so that it is not the time in a queue.
const UNHURRIED_CLIENTS: usize = 4;
/// Messages that are due at one moment, with nothing else to do than to deliver them.
const DRAIN_MESSAGES: u64 = 20_000;
/// How long before that moment they are sent.
const DRAIN_AHEAD: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);
const TIMES_POSTFIX: f64 = 4.0;
const CPU_ASKED_MS: f64 = 0.3;

/// Recipients that came through, in what time, and the CPU that they took if it is known.
struct Through {
    recipients: u64,
    took: Duration,
    used: Option<Usage>,
}

impl Through {
    fn rate(&self) -> f64 {
        self.recipients as f64 / self.took.as_secs_f64()
    }
}

pub fn one_recipient(table: &mut Table) {
    let sink = &Sink::start();
    let ours = {
        let home = scratch();
        set_up(home.path(), Next::Hop(sink.addr()));
        let server = Server::start(home.path());
        ours(&server, sink, &Load::small(server.http(), CLIENTS))
    };
    compare("one recipient", &ours, &postfix(sink, SMTP_CLIENTS, 1), table);
}

pub fn many_recipients(table: &mut Table) {
    let sink = &Sink::start();
    let ours = {
        let home = scratch();
        set_up(home.path(), Next::Hop(sink.addr()));
        let server = Server::start(home.path());
        server.without_fromids();
        ours(&server, sink, &Load { recipients: MANY_RECIPIENTS, ..Load::small(server.http(), MANY_CLIENTS) })
    };
    compare("100 recipients", &ours, &postfix(sink, SMTP_CLIENTS, MANY_RECIPIENTS), table);
}

fn ours(server: &Server, sink: &Sink, load: &Load) -> Through {
    let before = sink.count();
    let warm = load.run(WARM_UP).count() * load.recipients;
    sink.wait_for(before + warm, PATIENCE);
    let (from, began) = (server.usage(), Instant::now());
    let sent = load.run(MEASURE).count() * load.recipients;
    sink.wait_for(before + warm + sent, PATIENCE);
    let took = began.elapsed();
    Through { recipients: sent, took, used: Some(server.usage().since(&from)) }
}

fn postfix(sink: &Sink, clients: usize, recipients: u64) -> Through {
    let postfix = Postfix::start(sink.addr());
    let load = SmtpLoad { smtp: postfix.addr(), clients, recipients };
    let before = sink.count();
    let warm = load.run(WARM_UP) * recipients;
    sink.wait_for(before + warm, PATIENCE);
    let began = Instant::now();
    let sent = load.run(MEASURE) * recipients;
    sink.wait_for(before + warm + sent, PATIENCE);
    Through { recipients: sent, took: began.elapsed(), used: None }
}

fn compare(what: &str, ours: &Through, postfix: &Through, table: &mut Table) {
    let (rate, theirs, n) = (ours.rate(), postfix.rate(), ours.recipients as f64);
    let used = ours.used.as_ref().expect("ours is known");
    let figures = format!(
        "{rate:.0} recipients/s, Postfix {theirs:.0}/s; {:.3} ms of CPU, {:.3} syncs and {:.2} key-value operations each",
        used.cpu_ms / n,
        used.syncs / n,
        used.operations / n
    );
    let case = format!("accept and deliver 4 KB, {what} a message");
    let asked = Asked::AtLeast(TIMES_POSTFIX);
    table.add(Line { case, ratio: rate / theirs, of: "Postfix", asked, figures });
}

/// What delivering alone takes.
pub fn due_at_once(probes: &Probes, table: &mut Table) {
    let (sink, home) = (Sink::start(), scratch());
    set_up(home.path(), Next::Hop(sink.addr()));
    let server = Server::start(home.path());
    let due = server::now() + DRAIN_AHEAD;
    let load = Load { due: Some(due), messages_max: DRAIN_MESSAGES, ..Load::small(server.http(), CLIENTS) };
    let waiting = load.run(DRAIN_AHEAD).count();
    assert!(server::now() < due, "the messages were not accepted before they were due");
    let from = server.usage();
    server::sleep_until(due);
    let began = Instant::now();
    sink.wait_for(waiting, PATIENCE);
    let (took, used, n) = (began.elapsed(), server.usage().since(&from), waiting as f64);
    let (rate, cpu, syncs) = (n / took.as_secs_f64(), used.cpu_ms / n, used.syncs / n);
    let case = "deliver 4 KB that is due at once".to_owned();
    let figures = format!("{rate:.0}/s, {cpu:.3} ms of CPU (asked: ≤ {CPU_ASKED_MS} ms) and {syncs:.3} syncs each");
    table.add(Line {
        case,
        ratio: cpu / probes.ed25519_ms,
        of: "an Ed25519 signature",
        asked: Asked::Nothing,
        figures,
    });
}

/// From the record of a message to the record of its first attempt.
pub fn first_attempt(probes: &Probes, table: &mut Table) {
    let (sink, home) = (Sink::start(), scratch());
    set_up(home.path(), Next::Hop(sink.addr()));
    let server = Server::start(home.path());
    let sent = Load::small(server.http(), UNHURRIED_CLIENTS).run(MEASURE).count();
    sink.wait_for(sent, PATIENCE);
    server.stop();
    let waits = waits(home.path());
    let (p50, p99) = (percentile_ms(&waits, 50), percentile_ms(&waits, 99));
    let case = format!("time to the first attempt, {UNHURRIED_CLIENTS} clients");
    let figures = format!("p50 {p50:.2} ms, p99 {p99:.2} ms");
    table.add(Line { case, ratio: p50 / probes.sync_ms, of: "a sync", asked: Asked::Nothing, figures });
}

fn waits(dir: &Path) -> Vec<Duration> {
    let snapshot = server::open(dir).snapshot();
    let (mut submitted, mut waits) = (HashMap::new(), Vec::new());
    for line in snapshot.records(Seq(1)..=snapshot.position()) {
        let (seq, _) = line.expect("a record");
        let record = snapshot.record(seq).expect("a record").expect("it is there");
        match record.event {
            Event::MessageSubmitted(e) => drop(submitted.insert(e.message, record.at)),
            Event::AttemptStarted(e) => waits.extend(submitted.remove(&e.message).map(|at| record.at.since(at))),
            _ => {}
        }
    }
    waits.sort_unstable();
    waits
}
