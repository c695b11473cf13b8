//! A stop that was planned leaves nothing in doubt, and two programs cannot have one directory.

use std::collections::BTreeMap;

use super::account::Account;
use super::dice::seed;
use super::load::Load;
use super::subject::{RETRY_SCALE, drain, prepare};
use crate::server::{Server, get, new_ip, wait_until};
use crate::sink::Sink;

#[test]
fn a_planned_restart_under_load_leaves_nothing_in_doubt() {
    let (seed, home) = (seed(), tempfile::tempdir().expect("a directory"));
    let sink = Sink::start();
    let mut server = Server::on(&home.path().join("data"), &home.path().join("log"), new_ip(), RETRY_SCALE);
    prepare(&mut server, &sink);
    server.restart();
    let load = Load::start(server.http(), "p", seed);
    for _ in 0..3 {
        let taken = sink.count() + 30;
        wait_until("there was some load", || sink.count() >= taken);
        server.stop();
        server.restart();
    }
    let sent = load.finish();
    let drained = drain(&server);
    server.stop();
    let account = Account::read(server.dir());
    assert_eq!(account.doubts, BTreeMap::new());
    let verdict = account.compare(&sent, Some(&sink), drained.work());
    assert_eq!((verdict.lost, verdict.duplicated, verdict.phantom), Default::default());
    assert_eq!(drained.stuck(), None);
    assert_eq!(sent.surprises, Default::default());
    assert!(verdict.acknowledged > 0);
}

#[test]
fn a_second_start_says_who_holds_the_directory() {
    let server = Server::start(&[]);
    let second = server.command(&["localserve", "--ip", &server.ip.to_string()]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success(), "{said}");
    assert!(said.contains(&format!("process {} holds this ledger", server.pid())), "{said}");
    assert_eq!(get(server.http(), "/readyz").status, 200, "the first one goes on");
}
