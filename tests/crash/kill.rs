//! The process is killed at any moment under load: right behind an answer, in the middle of deliveries, in the middle of a start.

use super::account::Account;
use super::dice::{Dice, seed};
use super::load::{Load, Sent};
use super::scale::Scale;
use super::subject::{RETRY_SCALE, drain, prepare, recover, spin_until};
use super::table::Row;
use crate::server::{Server, new_ip, wait_until};
use crate::sink::Sink;

#[test]
fn what_was_acknowledged_survives_kill_and_arrives_once() {
    let (seed, home) = (seed(), tempfile::tempdir().expect("a directory"));
    let (mut dice, sink) = (Dice::new(seed), Sink::start());
    let mut server = Server::on(&home.path().join("data"), &home.path().join("log"), new_ip(), RETRY_SCALE);
    prepare(&mut server, &sink);
    let mut row = Row::new("(a) kill");
    let load = Load::start(server.http(), "a", seed);
    for round in 0..Scale::of_this_run().kills() {
        row.rounds += 1;
        // Now and then in the middle of a start.
        if round % 6 == 5 {
            server.spawn();
            let pid = server.pid().to_string();
            wait_until("it holds the directory", || lock_holder(&server) == pid);
        } else {
            row.recovery.push(recover(&mut server).unwrap_or_else(|e| panic!("seed {seed}: it does not start:\n{e}")));
            await_moment(&load, &sink, &mut dice);
        }
        server.kill();
    }
    server.restart();
    let sent = load.finish();
    let drained = drain(&server);
    check_repeats(&server, &sent);
    server.stop();
    let account = Account::read(server.dir());
    row.add(account.compare(&sent, Some(&sink), drained.work()));
    row.verdict.lost.extend(drained.stuck());
    assert_eq!(sent.surprises, Default::default());
    assert!(account.doubts.values().sum::<u32>() > 0, "no kill came in the middle of an attempt; the load is too thin");
    row.settle(seed);
}

/// Some time later, told by what has happened.
pub fn await_moment(load: &Load, sink: &Sink, dice: &mut Dice) {
    let (answers, taken) = (load.answers() + 1 + dice.below(120), sink.count() + 1 + dice.below(240));
    if dice.one_in(2) {
        // Right behind an answer, when whatever it should have waited for is about to happen.
        spin_until("there was an answer", || load.answers() >= answers);
    } else {
        wait_until("there was some load", || sink.count() >= taken);
    }
}

/// The process that has the ledger.
pub fn lock_holder(server: &Server) -> String {
    std::fs::read_to_string(server.dir().join("lock")).unwrap_or_default().trim().to_owned()
}

/// The same key gives the same answer, also across crashes.
fn check_repeats(server: &Server, sent: &Sent) {
    for (subject, answer) in &sent.answered {
        let request = &sent.asked[subject];
        if request.key.is_some() {
            let again = request.send(server.http()).expect("an answer");
            assert_eq!((again.status, &again.body), (200, answer), "{request:?}: {}", again.text());
        }
    }
}
