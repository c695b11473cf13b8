//! Keys of the API: what they are good for, for how long, from where, and that everything they do is told of them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::server::{Response, Server, USER, exchange, wait_until, webapi};

/// A request with a key as its bearer token.
pub fn bearer(addr: SocketAddr, token: &str, method: &str, path: &str, request: &Value) -> Response {
    let body = if request.is_null() { String::new() } else { request.to_string() };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    exchange(addr, request.as_bytes()).expect("an answer")
}

pub fn add(server: &Server, args: &[&str]) -> (u64, String) {
    let given = server.cli_json(&[&["key", "add", "of this test"], args].concat());
    (given["key"].as_u64().expect("a number"), given["token"].as_str().expect("a token").to_owned())
}

fn message() -> Value {
    json!({"To": [{"Address": "you@localhost"}], "Subject": "s", "Text": "t"})
}

#[test]
fn what_a_key_does_is_told_of_the_key_and_no_more_than_it_may() {
    let server = Server::start(&[]);
    let (n, token) = add(&server, &["--account", "mox", "--scope", "send"]);
    assert!(token.starts_with(&format!("pl_{n}_")) && token.len() == format!("pl_{n}_").len() + 43, "{token}");
    let sent = bearer(server.http(), &token, "POST", "/webapi/v0/Send", &message());
    assert_eq!(sent.status, 200, "{}", sent.text());
    assert_ne!(sent.json()["Submissions"][0]["FromID"], "", "it sends as a fromid login, as the address itself would");
    let submitted = &server.records("MessageSubmitted")[0];
    assert!(submitted["personal"].to_string().contains(&format!("\"key:{n}\"")), "{submitted}");
    let refused = bearer(server.http(), &token, "GET", "/api/v1/queue", &Value::Null);
    assert_eq!(refused.status, 403);
    assert!(refused.text().contains("scope read"), "{}", refused.text());

    // Programs that know only of user names and passwords.
    assert_eq!(webapi(server.http(), USER, &token, "Send", &message()).status, 200);
    assert_eq!(webapi(server.http(), USER, &token, "SuppressionList", &json!({})).status, 403);
    assert_eq!(webapi(server.http(), "other@localhost", &token, "Send", &message()).status, 401);

    let (n, token) = add(&server, &["--operators", "--scope", "admin"]);
    let rule = bearer(server.http(), &token, "POST", "/api/v1/holdrules", &json!({"all": true}));
    assert_eq!(rule.status, 201, "{}", rule.text());
    assert_eq!(server.records("HoldRuleAdded")[0]["data"]["by"], format!("key:{n}"));
    assert_eq!(bearer(server.http(), &token, "POST", "/webapi/v0/Send", &message()).status, 403);

    wait_until("the uses are recorded, each key's once", || server.records("KeyUsed").len() == 2);
    let log = std::fs::read_to_string(server.log_path()).expect("the log");
    assert!(log.contains("key=1") && log.contains("key=2"), "{log}");
    assert!(!log.contains("pl_1_") && !log.contains("pl_2_"), "{log}");
    assert!(!server.cli(&["events", "export"]).contains(&token[5..]));
}

#[test]
fn a_key_that_is_not_good_is_no_better_than_a_wrong_password() {
    let server = Server::start(&[]);
    let (n, revoked) = add(&server, &["--account", "mox", "--scope", "read"]);
    let events = |token: &str| bearer(server.http(), token, "GET", "/api/v1/events?limit=1", &Value::Null);
    assert_eq!(events(&revoked).status, 200);
    server.cli(&["key", "revoke", &n.to_string()]);
    let (_, elsewhere) = add(&server, &["--account", "mox", "--scope", "read", "--network", "192.0.2.0/24"]);
    let (n, right) = add(&server, &["--account", "mox", "--scope", "read", "--network", "127.0.0.0/8"]);
    let other = right.replace(&format!("pl_{n}_"), "pl_99_");
    let mut end = right.clone();
    end.replace_range(end.len() - 5..end.len() - 4, if end.as_bytes()[end.len() - 5] == b'A' { "B" } else { "A" });
    let refused = events("nonsense");
    assert_eq!(refused.status, 401);
    for token in [&revoked, &elsewhere, &other, &end] {
        assert_eq!((events(token).status, events(token).text()), (401, refused.text()));
    }
    // Ten failures are one too many, whatever they were tried with; a key that is right is refused as well.
    assert_eq!(events("nonsense").status, 401);
    assert_eq!(events(&right).status, 429);
    assert_eq!(webapi(server.http(), USER, "wrong", "Send", &message()).status, 429);
}

#[test]
fn keys_go_with_their_account_and_come_back_with_the_server() {
    let mut server = Server::start(&[]);
    server.cli(&["account", "add", "shop", "--address", "shop@localhost"]);
    let (_, token) = add(&server, &["--account", "shop", "--scope", "send,read"]);
    let events = |server: &Server| bearer(server.http(), &token, "GET", "/api/v1/events", &Value::Null).status;
    server.kill();
    server.restart();
    assert_eq!(events(&server), 200);
    assert_eq!(server.cli_json(&["key", "list", "--account", "shop"])[0]["scopes"], json!(["send", "read"]));
    server.cli(&["account", "remove", "shop"]);
    wait_until("the account is gone", || !server.records("AccountRemoved").is_empty());
    assert_eq!(events(&server), 401);
    assert_eq!(server.cli_json(&["key", "list"]), json!([]));
}
