//! An endpoint can be told of any part of history again, or for the first time: the same calls in the same order, and a crash in
//! the middle costs nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::server::{Server, wait_until};
use crate::webhooks::{Answer, Got, Receiver, add, send, verify};

/// The parts of a request that are the same every time.
fn name(got: &Got) -> (String, String, String) {
    let body = String::from_utf8_lossy(&got.body).into_owned();
    (got.header("webhook-id").to_owned(), got.header("x-mox-webhook-id").to_owned(), body)
}

fn fact(got: &Got) -> u64 {
    got.json()["EventID"].as_u64().expect("a number")
}

/// The facts about each delivery, in the order in which they were told.
fn by_delivery(got: &[Got]) -> BTreeMap<u64, Vec<u64>> {
    let mut told: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for got in got {
        told.entry(got.json()["QueueMsgID"].as_u64().expect("a number")).or_default().push(fact(got));
    }
    told
}

fn facts(got: &[Got]) -> BTreeSet<u64> {
    got.iter().map(fact).collect()
}

fn begin(server: &Server, endpoint: &str, wish: &Value) -> u64 {
    let begun = server.api("POST", &format!("/endpoints/mox/{endpoint}/replays"), wish).json();
    begun["replay"].as_u64().expect("a number")
}

fn show(server: &Server, replay: u64) -> Value {
    server.api("GET", &format!("/replays/{replay}"), &Value::Null).json()
}

fn wait_for(server: &Server, replay: u64, state: &str) -> Value {
    wait_until(&format!("replay {replay} is {state}"), || show(server, replay)["state"] == state);
    show(server, replay)
}

/// Sends messages to addresses that take them, and waits until that is known; answers the facts.
fn deliver(server: &Server, count: usize) -> BTreeSet<u64> {
    for n in 0..count {
        send(server, &format!("you{n}@example.org"));
    }
    wait_until("all is delivered", || server.records("Delivered").len() >= count);
    server.records("Delivered").iter().map(|record| record["seq"].as_u64().expect("a number")).collect()
}

#[test]
fn history_is_told_again_as_it_was() {
    let server = Server::start(&[]);
    let receiver = Receiver::start(Answer::Status(200));
    let secret = add(&server, "out", &json!({"direction": "outgoing", "url": receiver.url("/")}));
    let delayed = send(&server, "xtemperror@example.org");
    deliver(&server, 5);
    send(&server, "xpermerror@example.org");
    wait_until("the first outcomes are told", || receiver.got().len() == 7);
    server.api("POST", "/queue", &json!({"action": "cancel", "filter": {"ids": [delayed]}}));
    wait_until("the last is told", || receiver.got().len() == 8);

    let shown = server.cli(&["replay", "--account", "mox", "--endpoint", "out", "--from", "1"]);
    assert!(shown.contains("done") && shown.contains("8 arrived"), "{shown}");
    let got = receiver.got();
    let (first, again) = got.split_at(8);
    assert_eq!(
        first.iter().map(name).collect::<BTreeSet<_>>(),
        again.iter().map(name).collect::<BTreeSet<_>>(),
        "the same names and bytes"
    );
    assert_eq!(by_delivery(first), by_delivery(again));
    assert_eq!(by_delivery(again)[&delayed].len(), 2, "what was deferred, and what was canceled");
    again.iter().for_each(|got| verify(&secret, got));

    let (one, last) = (fact(&first[2]), fact(&first[7]));
    let wish = json!({"from": one, "to": last, "kinds": ["canceled", "failed"], "calls_per_second_max": 100});
    wait_for(&server, begin(&server, "out", &wish), "done");
    let events = |got: &[Got]| got.iter().map(|got| got.json()["Event"].clone()).collect::<Vec<_>>();
    let mut told = events(&receiver.got()[16..]);
    told.sort_by_key(ToString::to_string);
    assert_eq!(told, ["canceled", "failed"]);
    let list = server.cli(&["replay", "list", "mox"]);
    assert_eq!(list.lines().count(), 3, "{list}");
    assert_eq!(server.items("/endpoints/mox/out/replays").len(), 2);
    let refused = server.try_api("POST", "/endpoints/mox/out/replays", &json!({"from": "2100-01-01T00:00:00Z"}));
    assert_eq!((refused.status, refused.text().contains("there is nothing")), (422, true), "{}", refused.text());
}

#[test]
fn a_new_endpoint_hears_what_was_before_it() {
    let server = Server::start(&[]);
    let delivered = deliver(&server, 5);
    let received: BTreeSet<u64> =
        server.records("MessageReceived").iter().map(|record| record["seq"].as_u64().expect("a number")).collect();
    let (outgoing, incoming) = (Receiver::start(Answer::Status(200)), Receiver::start(Answer::Status(200)));
    add(&server, "out", &json!({"direction": "outgoing", "url": outgoing.url("/")}));
    add(&server, "in", &json!({"direction": "incoming", "url": incoming.url("/")}));
    for (endpoint, receiver, expect) in [("out", &outgoing, delivered), ("in", &incoming, received)] {
        let done = wait_for(&server, begin(&server, endpoint, &json!({"from": "2000-01-01T00:00:00Z"})), "done");
        assert_eq!(facts(&receiver.got()), expect);
        assert_eq!((&done["delivered"], &done["records_done"]), (&json!(expect.len()), &done["records"]));
    }
    assert!(incoming.got().iter().all(|got| got.json()["Text"] == "x\n"));
}

#[test]
fn a_killed_server_goes_on_from_the_cursor() {
    let mut server = Server::start(&[]);
    let all = deliver(&server, 40);
    let receiver = Receiver::start(Answer::Status(200));
    add(&server, "out", &json!({"direction": "outgoing", "url": receiver.url("/")}));
    let replay = begin(&server, "out", &json!({"from": 1, "calls_per_second_max": 15}));
    wait_until("some of it is recorded", || show(&server, replay)["delivered"].as_u64() >= Some(5));
    let cursor = show(&server, replay)["cursor"].as_u64().expect("a number");
    server.kill();
    assert_ne!(facts(&receiver.got()), all, "it was killed in the middle");
    server.restart();
    let done = wait_for(&server, replay, "done");
    let mut times: BTreeMap<u64, usize> = BTreeMap::new();
    receiver.got().iter().for_each(|got| *times.entry(fact(got)).or_default() += 1);
    assert_eq!(times.keys().copied().collect::<BTreeSet<_>>(), all);
    assert!(times.iter().all(|(fact, times)| *fact >= cursor || *times == 1), "{times:?}, cursor {cursor}");
    assert!(done["delivered"].as_u64() >= Some(all.len() as u64), "{done}");
}

#[test]
fn only_what_failed_is_told() {
    let server = Server::start(&[]);
    let receiver = Receiver::start(Answer::Status(500));
    add(&server, "out", &json!({"direction": "outgoing", "url": receiver.url("/"), "retry_waits_s": []}));
    deliver(&server, 3);
    let phase = |phase: &str| server.items(&format!("/endpoints/mox/out/calls?phase={phase}"));
    wait_until("calls have failed", || phase("failed").len() == 3);
    let failed = facts(&receiver.got());
    receiver.set(Answer::Status(200));
    deliver(&server, 2);
    wait_until("others have arrived", || phase("delivered").len() == 2);
    let before = receiver.got().len();
    let done = wait_for(&server, begin(&server, "out", &json!({"from": 1, "only_failed": true})), "done");
    assert_eq!(facts(&receiver.got()[before..]), failed);
    assert_eq!(done["delivered"], 3);
    wait_until("they count as delivered", || phase("failed").is_empty() && phase("delivered").len() == 5);
}

#[test]
fn a_replay_is_held_up_stopped_resumed_and_canceled() {
    let server = Server::start(&["--retry-scale", "20"]);
    let all = deliver(&server, 20);
    let receiver = Receiver::start(Answer::Status(503));
    add(&server, "out", &json!({"direction": "outgoing", "url": receiver.url("/"), "retry_waits_s": vec![1; 90]}));
    let replay = begin(&server, "out", &json!({"from": 1}));
    wait_until("it is tried again", || show(&server, replay)["trouble"]["last"]["attempt"].as_u64() >= Some(3));
    let trouble = &show(&server, replay)["trouble"];
    assert_eq!((&trouble["last"]["status"], trouble["fact"].as_u64()), (&json!(503), all.first().copied()));
    assert_eq!(show(&server, replay)["delivered"], 0);
    assert_eq!(server.try_api("POST", "/endpoints/mox/out/replays", &json!({"from": 1})).status, 409);

    server.cli(&["replay", "stop", &replay.to_string()]);
    assert_eq!(show(&server, replay)["state"], "stopped");
    receiver.set(Answer::Status(200));
    let before = receiver.got().len();
    server.cli(&["replay", "resume", &replay.to_string()]);
    wait_for(&server, replay, "done");
    assert_eq!(facts(&receiver.got()[before..]), all);

    let slow = begin(&server, "out", &json!({"from": 1, "calls_per_second_max": 1}));
    server.api("PUT", "/endpoints/mox/out", &json!({"disabled": true}));
    let stopped = wait_for(&server, slow, "stopped");
    assert!(stopped["error"].as_str().is_some_and(|why| why.contains("disabled")), "{stopped}");
    assert_eq!(server.try_api("POST", &format!("/replays/{slow}/resume"), &Value::Null).status, 409);
    server.cli(&["replay", "cancel", &slow.to_string()]);
    assert_eq!(show(&server, slow)["state"], "canceled");
    server.api("PUT", "/endpoints/mox/out", &json!({"disabled": false}));
    let removed = begin(&server, "out", &json!({"from": 1, "calls_per_second_max": 1}));
    server.api("DELETE", "/endpoints/mox/out", &Value::Null);
    wait_for(&server, removed, "endpoint_removed");
}
