//! The disk fails at one call: a sync that fails, once or from then on; no space left, in the middle of a write; a write that
//! writes only half, which is no failure; a crash right before a sync. Whether the program goes on or stops and says so, what it
//! acknowledged must be there at the next start.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::account::{Account, Verdict, Work};
use super::dice::{Dice, seed};
use super::load::Load;
use super::scale::Scale;
use super::subject::{RETRY_SCALE, last_words, prepare, recover};
use super::table::{Row, skip};
use super::tools::{Tools, run, tools};
use crate::server::{Server, new_ip, try_get, wait_until};
use crate::sink::Sink;

/// Servers that are tried beside each other.
const LANES: usize = 2;
/// What the shim does, see tests/faults/fault.c.
const MODES: &[&str] = &["eio", "eio_sticky", "kill", "enospc", "torn", "short"];
/// Answers after which a call that has not come does not come any more.
const ANSWERS_MAX: u64 = 600;
/// Answers behind a fault that nobody noticed.
const ANSWERS_AFTER: u64 = 8;

/// One call that fails.
#[derive(Clone, Copy, Debug)]
struct Case {
    mode: &'static str,
    call: u64,
    ledger: Beginning,
}

#[derive(Clone, Copy, Debug)]
enum Beginning {
    /// A ledger that is ready; nearly all of its calls are of the load.
    Ready,
    /// None: calls are counted from the first one that makes it. Nobody has told it of the sink, so its mail stays with it.
    New,
}

#[test]
fn what_was_acknowledged_survives_any_call_that_fails() {
    let campaign = "(c) failing calls";
    let tools = match tools() {
        Ok(tools) => tools,
        Err(why) => return skip(campaign, &why),
    };
    let (seed, cases, next) = (seed(), cases(), AtomicUsize::new(0));
    let row = Mutex::new(Row::new(campaign));
    let tally = Mutex::new(Tally::default());
    let lane = |n: usize| {
        let lane = Lane::new(n, tools);
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (verdict, recovery) = lane.examine(*case, seed, &tally);
            let mut row = row.lock().expect("no lane failed");
            row.rounds += 1;
            row.add(verdict);
            row.recovery.extend(recovery);
        }
    };
    let lane = &lane;
    std::thread::scope(|scope| (0..LANES).for_each(|n| drop(scope.spawn(move || lane(n)))));
    let mut row = row.into_inner().expect("no lane failed");
    let tally = tally.into_inner().expect("no lane failed");
    row.notes.push(format!("{tally:?}"));
    assert!(tally.struck * 10 >= row.rounds * 8, "too few calls came to be made: {tally:?}");
    row.settle(seed);
}

/// Every call of a ledger that is ready, and some of one that is being made, in every way.
fn cases() -> Vec<Case> {
    let scale = Scale::of_this_run();
    let ready = scale.calls().map(|call| (call, Beginning::Ready));
    let new = scale.calls().step_by(10).map(|call| (call, Beginning::New));
    let calls = ready.chain(new);
    match scale {
        // Each call in one way, all ways in turn.
        Scale::Short => {
            MODES.iter().cycle().zip(calls).map(|(mode, (call, ledger))| Case { mode, call, ledger }).collect()
        }
        Scale::Full(_) => {
            calls.flat_map(|(call, ledger)| MODES.iter().map(move |mode| Case { mode, call, ledger })).collect()
        }
    }
}

/// How the program took it.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    /// The call came to be made.
    struck: u64,
    /// The program ended, or said at its door that it takes nothing any more.
    said_so: u64,
    /// It went on as if nothing had been.
    went_on: u64,
}

/// A place where one server after the other is tried.
struct Lane {
    home: tempfile::TempDir,
    ready: PathBuf,
    ip: IpAddr,
    sink: Sink,
    tools: &'static Tools,
}

impl Lane {
    fn new(n: usize, tools: &'static Tools) -> Lane {
        let home = memory_dir();
        let (ready, ip, sink) = (home.path().join(format!("ready{n}")), new_ip(), Sink::start());
        prepare(&mut Server::on(&ready, &home.path().join("log"), ip, RETRY_SCALE), &sink);
        Lane { home, ready, ip, sink, tools }
    }

    fn examine(&self, case: Case, seed: u64, tally: &Mutex<Tally>) -> (Verdict, Option<std::time::Duration>) {
        let home = tempfile::tempdir_in(self.home.path()).expect("a directory");
        let (dir, log) = (home.path().join("data"), home.path().join("log"));
        if let Beginning::Ready = case.ledger {
            copy(&self.ready, &dir);
        }
        let mut server = Server::on(&dir, &log, self.ip, RETRY_SCALE);
        let shim = self.tools.shim(&dir, case.mode, case.call);
        server.set_environment(&shim.each_ref().map(|(name, value)| (*name, value.as_str())));
        server.spawn();
        let name = format!("f{:?}{}at{}x", case.ledger, case.mode.replace('_', ""), case.call);
        let load = Load::start(server.http(), &name, Dice::new(seed ^ case.call).roll());
        let said_so = await_fault(&mut server, &load);
        let struck = has_struck(&log);
        assert!(!said_so || case.mode != "short", "{case:?}: a short write is no failure:\n{}", last_words(&server));
        count(&mut tally.lock().expect("no lane failed"), struck, said_so);
        // A stop after a fault must be no better than a crash.
        if case.call.is_multiple_of(2) || said_so && server.has_ended() {
            server.kill()
        } else {
            server.stop()
        }
        let sent = load.finish();
        server.set_environment(&[]);
        let recovery = match recover(&mut server) {
            Ok(recovery) => recovery,
            Err(why) => {
                let lost = vec![format!("{case:?}: all, it does not start any more:\n{why}")];
                return (Verdict { acknowledged: sent.acknowledged(), lost, ..Verdict::default() }, None);
            }
        };
        server.stop();
        let sink = match case.ledger {
            Beginning::Ready => Some(&self.sink),
            Beginning::New => None,
        };
        let verdict = Account::read(&dir).compare(&sent, sink, Work::MayBeOpen);
        (named(verdict, case), Some(recovery))
    }
}

/// Until the program has said that it takes nothing any more (the answer), or went on behind the fault, or the call never came.
fn await_fault(server: &mut Server, load: &Load) -> bool {
    let (log, http) = (server.log_path(), server.http());
    let (mut after, mut said_so) = (None, false);
    wait_until("the fault has shown", || {
        if server.has_ended() {
            said_so = has_struck(&log);
            assert!(said_so, "it ended without a reason:\n{}", last_words(server));
            return true;
        }
        if !has_struck(&log) {
            return load.answers() >= ANSWERS_MAX;
        }
        let enough = *after.get_or_insert(load.answers() + ANSWERS_AFTER);
        said_so = try_get(http, "/readyz").is_ok_and(|answer| answer.status == 503);
        said_so || load.answers() >= enough
    });
    said_so
}

fn has_struck(log: &Path) -> bool {
    std::fs::read(log).is_ok_and(|log| String::from_utf8_lossy(&log).contains("FAULT struck"))
}

fn count(tally: &mut Tally, struck: bool, said_so: bool) {
    tally.struck += u64::from(struck);
    tally.said_so += u64::from(said_so);
    tally.went_on += u64::from(struck && !said_so);
}

fn named(verdict: Verdict, case: Case) -> Verdict {
    let name = |found: Vec<String>| found.into_iter().map(|f| format!("{case:?}: {f}")).collect();
    let Verdict { acknowledged, lost, duplicated, phantom } = verdict;
    Verdict { acknowledged, lost: name(lost), duplicated: name(duplicated), phantom: name(phantom) }
}

/// In memory where that can be had: what fails here is not the disk itself.
pub fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// With holes where the engine has reserved room.
pub fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").args(["-a", "--sparse=always", "--reflink=auto"]).arg(from).arg(to)).expect("it is copied");
}
