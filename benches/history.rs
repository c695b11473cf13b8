//! Large ledgers: what a long queue takes, what a long history costs, and how fast rows are made anew.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use postledger::deliver::due;
use postledger::ledger::Snapshot;
use postledger_events::id::FromId;
use postledger_projections::deliveries::{self, Due};
use postledger_projections::fromids;

use super::generate::{self, Generator, account};
use super::load::{self, Load};
use super::probe::Probes;
use super::server::{self, Next, PROGRAM, Server, USER, scratch, set_up, status_mib};
use super::table::{Asked, Line, Table};

/// Records: three of each finished delivery, one of each that waits or is suppressed.
const FINISHED_FIRST: u64 = 1_000_000;
const QUEUED: u64 = 1_000_000;
const SUPPRESSED: u64 = 100_000;
const RECORDS: u64 = 10_000_000;
/// What the ledger that counts as empty has, so that its lists have full pages, too.
const FEW: u64 = 3_000;
const SUPPRESSED_FEW: u64 = 500;
/// How far ahead queued messages are due: after the bench.
const DUE_AHEAD: Duration = Duration::from_secs(24 * 3600);

const CLIENTS: usize = 64;
/// Both servers take turns, so that what else the machine does meets both; and so many that memtables of both are written out and
/// merged several times, for that is part of what accepting costs.
const TURNS: u32 = 8;
const TURN: Duration = Duration::from_secs(5);
const RATE_MIN: f64 = 0.85;
const COST_MAX: f64 = 1.5;
const QUERIES: usize = 300;
const DUE_LOOKS: usize = 2_000;
const GLANCE: Duration = Duration::from_millis(20);

const QUEUE_MIB_MAX: f64 = 400.0;
const START_S_MAX: f64 = 5.0;
const REBUILD_RATE_ASKED: f64 = 150_000.0;
const REBUILD_MIB_MAX: f64 = 512.0;

/// `scale` makes everything smaller, for a quick look.
pub fn measure(scale: f64, probes: &Probes, table: &mut Table) {
    let scaled = |n: u64| (n as f64 * scale) as u64;
    let (few, many) = (scratch(), scratch());
    for home in [&few, &many] {
        prepare(home.path());
    }
    suppress(few.path(), SUPPRESSED_FEW);
    grow(few.path(), FEW, FEW);
    let (began, end) = (Instant::now(), scaled(RECORDS));
    suppress(many.path(), scaled(SUPPRESSED));
    grow(many.path(), scaled(FINISHED_FIRST), 0);
    next_due(few.path(), many.path(), table);
    grow(many.path(), 0, scaled(QUEUED));
    queue(many.path(), probes, table);
    grow(many.path(), (end - scaled(QUEUED) - scaled(SUPPRESSED)) / 3 - scaled(FINISHED_FIRST), 0);
    made(many.path(), began.elapsed(), probes, table);
    accepting(few.path(), many.path(), table);
    queries(few.path(), many.path(), [FEW / 5, scaled(FINISHED_FIRST) / 2], table);
    rebuild(many.path(), probes, table);
}

/// The domain, account and address of a localserve, and a next hop where nobody listens: nothing is due during the bench.
fn prepare(dir: &Path) {
    set_up(dir, Next::Hop(([127, 0, 0, 1], 9).into()));
    Server::start(dir).stop();
}

/// Puts so many addresses on the list of a server that does not run.
fn suppress(dir: &Path, addresses: u64) {
    let generator = Generator::new(server::open(dir));
    generator.suppressed(addresses);
    generator.close();
}

/// Adds so many messages that were delivered and that are due later, to the ledger of a server that does not run.
pub fn grow(dir: &Path, delivered: u64, queued: u64) {
    let generator = Generator::new(server::open(dir));
    generator.delivered(delivered);
    generator.queued(queued, server::now() + DUE_AHEAD);
    generator.close();
}

/// Looks for the next hundred that are due, behind a million that were delivered. The first look of a process crosses all
/// that these have left in the index; every other begins where the one before it ended.
fn next_due(few: &Path, many: &Path, table: &mut Table) {
    let look = |snapshot: &Snapshot| {
        let began = Instant::now();
        let now = server::now();
        let first = due::look(snapshot, snapshot.at(), Due::FIRST, now, now, &HashSet::new());
        let (bound, first_ms) = (first.expect("the index").bound, began.elapsed().as_secs_f64() * 1000.0);
        let until = server::now() + DUE_AHEAD + DUE_AHEAD;
        let us = each_us(DUE_LOOKS, || {
            let found = deliveries::due(snapshot, bound, until, 100).expect("the index");
            let ids = found.iter().map(|due| due.id).collect();
            assert_eq!(deliveries::numbered(snapshot, ids).expect("rows").len(), 100);
        });
        (us, first_ms)
    };
    let [(before, _), (after, first_ms)] = [few, many].map(|dir| {
        let generator = Generator::new(server::open(dir));
        generator.queued(FEW, server::now() + DUE_AHEAD);
        generator.close();
        let ledger = server::open(dir);
        look(&ledger.snapshot())
    });
    let case = "next 100 due after 1 million finished deliveries".to_owned();
    let figures = format!("{after:.0} µs after {before:.0} µs; the first look of a process takes {first_ms:.0} ms");
    table.add(Line { case, ratio: after / before, of: "an empty ledger", asked: Asked::AtMost(COST_MAX), figures });
}

/// Memory and start with a million queued.
fn queue(dir: &Path, probes: &Probes, table: &mut Table) {
    let server = Server::start(dir);
    let (start, sync) = (server.started_in.as_secs_f64(), probes.sync_ms / 1000.0);
    // The first looks of the reactors are part of it.
    std::thread::sleep(Duration::from_secs(3));
    let mib = server.resident_mib();
    server.stop();
    let figures = format!("{mib:.0} MiB (asked: ≤ {QUEUE_MIB_MAX} MiB)");
    let case = "resident with 1 million queued".to_owned();
    table.add(Line { case, ratio: mib / QUEUE_MIB_MAX, of: "what is asked", asked: Asked::AtMost(1.0), figures });
    let figures = format!("{start:.2} s (asked: ≤ {START_S_MAX} s)");
    let case = "start with 1 million queued".to_owned();
    table.add(Line { case, ratio: start / sync, of: "a sync", asked: Asked::Nothing, figures });
}

fn made(dir: &Path, took: Duration, probes: &Probes, table: &mut Table) {
    let records = server::open(dir).snapshot().position().0 as f64;
    let rate = records / took.as_secs_f64();
    let gb = size_bytes(dir) as f64 / 1e9;
    let figures = format!("{records:.0} records at {rate:.0}/s, {gb:.1} GB on disk");
    let ratio = rate * probes.batch_share_ms / 1000.0;
    let case = "generator through the writer".to_owned();
    table.add(Line { case, ratio, of: "messages in bare batches", asked: Asked::Nothing, figures });
}

/// The rate of accepts on a long history and on none. What is accepted is due after the bench: a hold would be put on the million
/// that is queued, too, and the engine would still merge those rows while accepts are measured.
fn accepting(few: &Path, many: &Path, table: &mut Table) {
    let servers = [few, many].map(Server::start);
    let due = Some(server::now() + DUE_AHEAD);
    let send = |server: &Server, time| Load { due, ..Load::small(server.http(), CLIENTS) }.run(time).count();
    for server in &servers {
        send(server, TURN / 2);
    }
    let mut rates = [0.0; 2];
    for _ in 0..TURNS {
        for (rate, server) in rates.iter_mut().zip(&servers) {
            let (began, sent) = (Instant::now(), send(server, TURN));
            *rate += sent as f64 / began.elapsed().as_secs_f64() / f64::from(TURNS);
        }
    }
    let stall = servers[1].stall_ms();
    servers.into_iter().for_each(Server::stop);
    let [before, after] = rates;
    let case = "accept 4 KB with 10 million records of history, 64 clients".to_owned();
    let figures = format!("{after:.0}/s after {before:.0}/s, slowest batch {stall:.0} ms");
    table.add(Line { case, ratio: after / before, of: "an empty ledger", asked: Asked::AtLeast(RATE_MIN), figures });
}

/// The path of the n-th question.
type PathOf = fn(u64) -> String;

/// What lists and lookups cost, asked over HTTP by the account whose mail it all is: in both from a number on behind which records
/// and deliveries are of the same kinds, finished ones.
fn queries(few: &Path, many: &Path, from: [u64; 2], table: &mut Table) {
    let servers = [few, many].map(Server::start);
    let mut askers = [servers[0].asker(USER), servers[1].asker(USER)];
    let queries: [(&str, PathOf); 6] = [
        ("queue list", |_| "/queue?limit=100".to_owned()),
        ("show of a delivery", |n| format!("/queue/{n}")),
        ("timeline of a message", |n| format!("/messages/{n}/timeline")),
        ("lookup of an address", |n| format!("/suppressions/present?account=mox&address={}", asked_address(n))),
        ("suppressions list", |_| "/suppressions?account=mox&limit=100".to_owned()),
        ("page of events", |n| format!("/events?after={n}&limit=100")),
    ];
    for (what, path) in queries {
        let mut costs = [0.0; 2];
        for ((asker, from), cost) in askers.iter_mut().zip(from).zip(&mut costs) {
            let mut n = from;
            *cost = each_us(QUERIES, || {
                n += 7;
                asker.ask("GET", &path(n), "");
            });
        }
        cost(what, costs, Asked::AtMost(COST_MAX), table);
    }
    drop(askers);
    servers.into_iter().for_each(Server::stop);
    let costs = [few, many].map(|dir| {
        let ledger = server::open(dir);
        let (snapshot, mut n) = (ledger.snapshot(), 0);
        each_us(QUERIES, || {
            n += 7;
            let fromid = FromId::new(&format!("generated{n}")).expect("letters and digits");
            fromids::find(&snapshot, &account(), &fromid).expect("a row").expect("it is there");
        })
    });
    // Nobody asks for it alone, and an empty ledger has it in memory.
    cost("one row of a fromid, without a request", costs, Asked::Nothing, table);
}

/// Every other one is on the list of both ledgers.
fn asked_address(n: u64) -> String {
    if n.is_multiple_of(2) { generate::suppressed(n % SUPPRESSED_FEW) } else { load::address(n) }
}

fn cost(what: &str, [before, after]: [f64; 2], asked: Asked, table: &mut Table) {
    let case = format!("{what}, 10 million records of history");
    let figures = format!("{after:.0} µs after {before:.0} µs");
    table.add(Line { case, ratio: after / before, of: "an empty ledger", asked, figures });
}

/// All rows anew from the log, by the command that does it.
fn rebuild(dir: &Path, probes: &Probes, table: &mut Table) {
    let records = server::open(dir).snapshot().position().0 as f64;
    let began = Instant::now();
    let mut command = Command::new(PROGRAM);
    command.args(["rebuild", "--all", "--dir"]).arg(dir).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program starts");
    let mut mib: f64 = 0.0;
    let status = loop {
        mib = status_mib(child.id(), "VmHWM:").unwrap_or_default().max(mib);
        match child.try_wait().expect("its state") {
            Some(status) => break status,
            None => std::thread::sleep(GLANCE),
        }
    };
    assert!(status.success(), "the rebuild ended with {status}");
    let rate = records / began.elapsed().as_secs_f64();
    let figures = format!("{rate:.0} records/s (asked: ≥ {REBUILD_RATE_ASKED})");
    let ratio = rate * probes.batch_share_ms / 1000.0;
    let case = "rebuild of all rows".to_owned();
    table.add(Line { case, ratio, of: "messages in bare batches", asked: Asked::Nothing, figures });
    let figures = format!("{mib:.0} MiB (asked: ≤ {REBUILD_MIB_MAX} MiB)");
    let case = "memory of the rebuild, at its height".to_owned();
    table.add(Line { case, ratio: mib / REBUILD_MIB_MAX, of: "what is asked", asked: Asked::AtMost(1.0), figures });
}

/// The median of so many runs.
fn each_us(runs: usize, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<Duration> = (0..runs)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[runs / 2].as_secs_f64() * 1e6
}

fn size_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let size = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.expect("an entry");
        let meta = entry.metadata().expect("it is there");
        if meta.is_dir() { size_bytes(&entry.path()) } else { meta.len() }
    };
    entries.map(size).sum()
}
