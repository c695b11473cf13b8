//! What did not arrive can be sent again: the same content as a new message, which names its origin.

use serde_json::{Value, json};

use crate::server::{Server, wait_until};
use crate::webhooks::{Answer, Receiver, add, send};

/// More than rides in a batch.
const LARGE: usize = 100_000;

fn state(server: &Server, delivery: u64) -> String {
    let shown = server.api("GET", &format!("/queue/{delivery}"), &Value::Null).json();
    shown["state"].as_str().expect("a state").to_owned()
}

fn wait_for(server: &Server, delivery: u64, expect: &str) {
    wait_until(&format!("delivery {delivery} is {expect}"), || state(server, delivery) == expect);
}

/// Sends one again; answers its new number and its message.
fn again(server: &Server, delivery: u64) -> (u64, String) {
    let made = server.api("POST", &format!("/queue/{delivery}/redeliver"), &Value::Null).json();
    assert_eq!(made["origin"], delivery);
    (made["delivery"].as_u64().expect("a number"), made["message"].as_str().expect("a uuid").to_owned())
}

/// The record of a message's submission.
fn submission(server: &Server, message: &str) -> Value {
    let all = server.records("MessageSubmitted");
    all.into_iter().find(|record| record["data"]["message"] == message).expect("a submission")
}

fn message_of(server: &Server, delivery: u64) -> String {
    let shown = server.api("GET", &format!("/queue/{delivery}"), &Value::Null).json();
    shown["message"].as_str().expect("a uuid").to_owned()
}

#[test]
fn what_failed_is_sent_again_with_its_content_and_names_its_origin() {
    let server = Server::start(&[]);
    let receiver = Receiver::start(Answer::Status(200));
    add(&server, "out", &json!({"direction": "outgoing", "url": receiver.url("/")}));
    for text in ["small".to_owned(), "line\n".repeat(LARGE / 5)] {
        let to = format!("x{}permerror@example.org", text.len());
        let origin = server.send(&json!({"To": [{"Address": to}], "Subject": "s", "Text": text}))[0];
        wait_for(&server, origin, "failed");
        // It is suppressed since; that is obeyed, and a suppressed delivery can be sent again as well.
        let (second, _) = again(&server, origin);
        wait_for(&server, second, "suppressed");
        server.api("DELETE", &format!("/suppressions?account=mox&address={to}"), &Value::Null);
        let (third, message) = again(&server, second);
        wait_for(&server, third, "failed");

        let (first, last) = (submission(&server, &message_of(&server, origin)), submission(&server, &message));
        assert_eq!(last["data"]["via"], "redelivery");
        assert_eq!(last["data"]["origin"], json!({"message": message_of(&server, second), "deliveries": [second]}));
        assert_eq!(last["data"]["body"]["sha256"], first["data"]["body"]["sha256"], "the same content");
        assert_ne!(last["data"]["body"]["body"], first["data"]["body"]["body"], "under a name of its own");
        let said = |record: &Value, key: &str| {
            record["personal"].as_object().and_then(|p| p.values().next()).map(|p| p[key].clone())
        };
        for key in ["message_id", "subject", "from", "reverse_path", "recipients"] {
            assert_eq!(said(&last, key), said(&first, key), "{key}");
        }
        assert_ne!(last["data"]["deliveries"][0]["fromid"], first["data"]["deliveries"][0]["fromid"]);
        assert!(last["data"]["deliveries"][0]["fromid"].is_string(), "as new mail has one");

        let told = || receiver.got().into_iter().map(|got| got.json()).find(|json| json["QueueMsgID"] == third);
        wait_until("the failure is told", || told().is_some());
        assert_eq!(told().expect("it was told")["OriginQueueMsgID"], second);
        let story = server.cli(&["show", &third.to_string()]);
        assert!(story.contains(&format!("in place of delivery {second}")), "{story}");
        let story = server.cli(&["show", &second.to_string()]);
        assert!(story.contains(&message), "the story of the origin goes on: {story}");
    }
    let report = server.cli(&["verify", "--full", "--fast"]);
    assert!(report.contains("all is well"), "{report}");
}

#[test]
fn what_arrived_or_may_arrive_or_is_gone_is_not_sent_again() {
    let server = Server::start(&[]);
    let check = |delivery: u64, status: u16, why: &str| {
        let refused = server.try_api("POST", &format!("/queue/{delivery}/redeliver"), &Value::Null);
        assert_eq!(refused.status, status, "{}", refused.text());
        assert!(refused.text().contains(why), "{}", refused.text());
    };
    let (delivered, queued) = (send(&server, "you@example.org"), send(&server, "xtemperror@example.org"));
    wait_for(&server, delivered, "delivered");
    check(delivered, 409, "has arrived");
    check(queued, 409, "not over");
    check(9999, 404, "there is no");
    server.api("PATCH", "/accounts/mox", &json!({"keep_contents": false}));
    let gone = send(&server, "xpermerror@example.org");
    wait_for(&server, gone, "failed");
    check(gone, 409, "not kept any more");
    assert_eq!(server.records("MessageSubmitted").len(), 3, "nothing was sent");
}

#[test]
fn a_selection_is_sent_again_once() {
    let server = Server::start(&[]);
    let to = |names: &[&str]| -> Vec<u64> {
        let to: Vec<Value> = names.iter().map(|name| json!({"Address": format!("{name}@example.org")})).collect();
        server.send(&json!({"To": to, "Subject": "s", "Text": "t"}))
    };
    let (one, two) = (to(&["apermerror", "b", "cpermerror"]), to(&["dpermerror"]));
    let canceled = to(&["xtemperror"])[0];
    server.api("POST", "/queue", &json!({"action": "cancel", "filter": {"ids": [canceled]}}));
    let failed = [one[0], one[2], two[0]];
    failed.iter().for_each(|id| wait_for(&server, *id, "failed"));
    wait_for(&server, one[1], "delivered");
    wait_for(&server, canceled, "canceled");

    let ask = ["queue", "redeliver", "--account", "mox", "--to", "permerror", "--idempotency-key", "k1"];
    let first = server.cli_json(&ask);
    let origins = |part: &Value| -> Vec<u64> {
        let made = part["made"].as_array().expect("a list");
        made.iter().map(|made| made["origin"].as_u64().expect("a number")).collect()
    };
    assert_eq!(origins(&first), failed);
    assert_eq!(first["made"][0]["message"], first["made"][1]["message"], "recipients of one message stay together");
    assert_ne!(first["made"][0]["message"], first["made"][2]["message"]);
    let submitted = server.records("MessageSubmitted").len();
    let ids = failed.map(|id| id.to_string());
    let named = ["queue", "redeliver", &ids[0], &ids[1], &ids[2], "--idempotency-key", "k1"];
    let repeated = server.cli_json(&named);
    assert!(repeated["made"].as_array().expect("a list").iter().all(|made| made["repeated"] == true), "{repeated}");
    assert_eq!(repeated["made"][2]["delivery"], first["made"][2]["delivery"]);
    assert_eq!(server.records("MessageSubmitted").len(), submitted);

    let mixed = server.cli_json(&["queue", "redeliver", &canceled.to_string(), &one[1].to_string()]);
    assert_eq!(origins(&mixed), [canceled]);
    assert_eq!(mixed["refused"][0]["origin"], one[1]);
    let all = server.api("POST", "/queue/redeliver", &json!({"all": true, "states": ["canceled"]})).json();
    assert_eq!(origins(&all), [canceled]);
    assert_eq!(server.try_api("POST", "/queue/redeliver", &json!({})).status, 422);
}
