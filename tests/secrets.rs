//! What is secret stays in the vault: it is searched for in everything else that the program writes or answers.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use postledger::clock::Clock;
use postledger::ledger::{Ledger, Options};
use postledger_events::id::SecretId;
use postledger_projections::{Order, Rows as _, Table};
use serde_json::{Value, json};

use crate::access::{self, bearer};
use crate::server::{self, ADMIN, ADMIN_PASSWORD, Server, USER, wait_until};
use crate::webhooks::{self, Answer, Receiver};

const PASSWORD: &str = "Account-Passw0rd-of-this-test";
const NEXT_HOP_PASSWORD: &str = "Next-Hop-Passw0rd-of-this-test";
/// What endpoints are told in Authorization, and a secret that was chosen for one.
const AUTHORIZATION: &str = "Bearer Hook-Passw0rd-of-this-test";
const CHOSEN_SECRET: &str = "whsec_VGhlIHNlY3JldCBvZiBhbiBlbmRwb2ludCBvZiB0aGlz";
/// What names people; a program log has none of it.
const PEOPLE: [&str; 4] = ["@", "reader-of-this-test", "bounced-permerror", "nchen"];
/// Shorter texts in a stored password hash are parameters, not secrets.
const SECRET_TEXT_BYTES_MIN: usize = 16;
/// Rows looked at in one table; the test makes far fewer.
const ROWS_MAX: usize = 10_000;

/// Something that may be seen from outside the vault.
struct Place {
    name: String,
    bytes: Vec<u8>,
}

impl Place {
    fn new(name: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Place {
        Place { name: name.into(), bytes: bytes.into() }
    }
}

#[test]
fn no_secret_leaves_the_vault() {
    let mut server = Server::start(&[]);
    let shown_once = live(&server);
    let mut places = answers(&server);
    let records = server.events();
    server.stop();
    places.push(Place::new("verify", server.cli(&["verify", "--full"])));

    let ledger = Ledger::open(Options::new(server.dir()), Clock::system()).expect("the ledger opens");
    places.extend(lines_and_rows(&ledger));
    places.extend(files(server.dir(), &server.dir().join("ledger")));

    for secret in hidden(&ledger, &records) {
        nowhere(&secret, &places);
    }
    let passwords = [PASSWORD, NEXT_HOP_PASSWORD, server::PASSWORD, ADMIN_PASSWORD, AUTHORIZATION, CHOSEN_SECRET];
    for secret in passwords.into_iter().chain(shown_once.iter().map(String::as_str)) {
        nowhere(secret.as_bytes(), &places);
    }
    for file in ["adminpasswd", "localhost.key"] {
        let (own, others): (Vec<Place>, Vec<Place>) = places.into_iter().partition(|place| place.name.ends_with(file));
        for secret in own.iter().flat_map(|place| parts(&place.bytes)) {
            nowhere(&secret, &others);
        }
        places = own.into_iter().chain(others).collect();
    }
    // The search itself: what it looks through has what it must have.
    for name in [
        "/events/export",
        "/metrics",
        "/keys",
        "/endpoints/mox/hook/calls",
        "rows of Accounts",
        "rows of Calls",
        "records",
        "localhost.crt",
        "test.log",
        "adminpasswd",
    ] {
        assert!(places.iter().any(|p| p.name.ends_with(name) && !p.bytes.is_empty()), "nothing seen of {name}");
    }
}

#[test]
fn the_program_log_names_messages_and_requests_but_nobody() {
    let server = Server::start(&[]);
    let shown_once = live(&server);
    let log = std::fs::read_to_string(server.log_path()).expect("the log");
    let secrets = [PASSWORD, NEXT_HOP_PASSWORD, AUTHORIZATION, CHOSEN_SECRET];
    for name in PEOPLE.into_iter().chain(secrets).chain(shown_once.iter().map(String::as_str)) {
        assert!(!log.contains(name), "the log has {name:?}:\n{log}");
    }
    for submitted in server.records("MessageSubmitted") {
        let message = submitted["data"]["message"].as_str().expect("an id");
        assert!(log.contains(message), "the log has nothing of message {message}:\n{log}");
    }
}

/// Fails if a place has the secret, in any form.
fn nowhere(secret: &[u8], places: &[Place]) {
    for form in forms(secret) {
        for place in places {
            let found = place.bytes.windows(form.len()).any(|window| window == form);
            assert!(!found, "{} has {:?}", place.name, String::from_utf8_lossy(&form));
        }
    }
}

/// A bit of everything that has to do with secrets or people: logins good and bad, keys, endpoints, deliveries that end and that
/// fail. Answers secrets that were shown once.
fn live(server: &Server) -> Vec<String> {
    server.api("PUT", "/accounts/mox/password", &json!({"password": PASSWORD}));
    let key = json!({"selector": "second", "algorithm": "rsa-sha256"});
    server.api("POST", "/domains/localhost/dkim", &key);
    for wrong in ["wrong", server::PASSWORD] {
        assert_eq!(server::webapi(server.http(), USER, wrong, "Send", &json!({})).status, 401);
    }
    let mut shown_once = use_key(server);
    let hook = Receiver::start(Answer::Status(500));
    shown_once.push(add_endpoint(server, &hook));
    let send = |request: Value| {
        let answer = server::webapi(server.http(), USER, PASSWORD, "Send", &request);
        (answer.status, answer.json()["Submissions"][0]["QueueMsgID"].as_u64())
    };
    let message = |to: &str| json!({"To": [{"Address": to}], "Subject": "s", "Text": "t", "SaveSent": true});
    let sent = send(message("reader-of-this-test@localhost"));
    let failed = send(message("bounced-permerror@m\u{fc}nchen.example"));
    assert_eq!(send(message("no address")), (400, None));
    reaches(server, sent.1.expect("an id"), "delivered");
    reaches(server, failed.1.expect("an id"), "failed");

    // A next hop that asks for nothing but would be told: the password goes to no peer that has not proved who it is.
    let ip = server.ip.to_string();
    let credentials = json!({"username": "us@localhost", "password": NEXT_HOP_PASSWORD});
    let transport = json!({"host": ip, "port": 1025, "tls": "starttls", "credentials": credentials});
    server.api("PUT", "/transports/default", &transport);
    let deferred = send(message("reader-of-this-test@localhost")).1.expect("an id");
    wait_until("an attempt with credentials has ended", || {
        let delivery = delivery(server, deferred);
        delivery["attempts"] == 1 && delivery["state"] != "running"
    });
    wait_until("an endpoint was called, and what it said is recorded", || {
        server.items("/endpoints/mox/hook/calls").iter().any(|call| call["last"]["status"] == 500)
    });
    assert_eq!(hook.got()[0].header("authorization"), AUTHORIZATION);
    shown_once
}

/// A key that is used well and wrongly; answers its token, and what of it is secret.
fn use_key(server: &Server) -> Vec<String> {
    let (n, token) = access::add(server, &["--account", "mox", "--scope", "read"]);
    let secret = token.strip_prefix(&format!("pl_{n}_")).expect("a token names its key").to_owned();
    let ask = |token: &str, path: &str| bearer(server.http(), token, "GET", path, &Value::Null).status;
    assert_eq!(ask(&token, "/api/v1/queue"), 200);
    assert_eq!(ask(&token, "/api/v1/domains"), 403);
    assert_eq!(ask(&format!("pl_{}_{secret}", n + 1), "/api/v1/queue"), 401);
    assert_eq!(server::webapi(server.http(), USER, &token, "Send", &json!({})).status, 403);
    assert_eq!(server::webapi(server.http(), "other@localhost", &token, "Send", &json!({})).status, 401);
    vec![token, secret]
}

/// An endpoint that is called, tried out, and cannot be reached; answers the secret that was made for it.
fn add_endpoint(server: &Server, hook: &Receiver) -> String {
    let settings = json!({"direction": "outgoing", "url": hook.url("/"), "authorization": AUTHORIZATION});
    let made = webhooks::add(server, "hook", &settings);
    server.api("PUT", "/endpoints/mox/hook", &json!({"secrets": [CHOSEN_SECRET]}));
    server.api("POST", "/endpoints/mox/hook/test", &Value::Null);
    let nowhere = json!({"direction": "outgoing", "url": "http://10.0.0.1/", "authorization": AUTHORIZATION});
    webhooks::add(server, "nowhere", &nowhere);
    server.api("POST", "/endpoints/mox/nowhere/test", &Value::Null);
    made
}

fn reaches(server: &Server, id: u64, state: &str) {
    wait_until(state, || delivery(server, id)["state"] == state);
}

fn delivery(server: &Server, id: u64) -> Value {
    server.api("GET", &format!("/queue/{id}"), &Value::Null).json()
}

/// What the program says to those who ask.
fn answers(server: &Server) -> Vec<Place> {
    let paths = [
        "/events/export",
        "/accounts",
        "/accounts/mox",
        "/addresses",
        "/domains",
        "/domains/localhost/dkim",
        "/transports",
        "/status",
        "/queue",
        "/queue/1",
        "/messages/1/timeline",
        "/suppressions?account=mox",
        "/mailboxes?account=mox",
        "/inbox?account=mox",
        "/inbox?account=mox&mailbox=Sent",
        "/keys",
        "/endpoints",
        "/endpoints/mox/hook",
        "/endpoints/mox/hook/calls",
        "/endpoints/mox/nowhere/calls",
    ];
    let mut places: Vec<Place> = paths.map(|path| Place::new(path, server.api("GET", path, &Value::Null).body)).into();
    places.push(Place::new("/metrics", server::get(server.metrics(), "/metrics").body));
    let refused =
        json!({"host": "h", "port": 25, "tls": "none", "credentials": {"username": "u", "password": PASSWORD}});
    places.push(Place::new("a refusal", server.try_api("PUT", "/transports/other", &refused).body));
    let refused =
        json!({"direction": "outgoing", "url": "http://127.0.0.1/", "secrets": [format!("{CHOSEN_SECRET}?")]});
    places.push(Place::new("a refusal", server.try_api("PUT", "/endpoints/mox/other", &refused).body));
    places.push(Place::new("events export", server.cli(&["events", "export"])));
    let lists = [
        &["transport", "list"][..],
        &["account", "show", "mox"],
        &["dkim", "list", "localhost"],
        &["key", "list"],
        &["webhook", "list", "mox"],
        &["webhook", "calls", "mox", "hook"],
    ];
    for args in lists {
        places.push(Place::new(args.join(" "), server.cli(args)));
        places.push(Place::new(args.join(" "), server.cli_json(args).to_string()));
    }
    let malformed = json!({"pass": PASSWORD});
    places.push(Place::new("a complaint", server.try_api("PUT", "/accounts/mox/password", &malformed).body));
    places
}

/// Every record and every row, as stored.
fn lines_and_rows(ledger: &Ledger) -> Vec<Place> {
    let snapshot = ledger.snapshot();
    let lines = snapshot.records(snapshot.first()..=snapshot.position());
    let mut places: Vec<Place> = lines.map(|line| Place::new("records", line.expect("a record").1)).collect();
    for table in Table::ALL {
        let rows = snapshot.scan(table, &[], &[0xff; 64], Order::Ascending, ROWS_MAX).expect("rows");
        let name = format!("rows of {table:?}");
        places.extend(rows.into_iter().map(|(key, value)| Place::new(name.clone(), [key, value].concat())));
    }
    places
}

/// The files below `dir`, but for the ledger, which has the vault, among other things that are searched by themselves.
fn files(dir: &Path, ledger: &Path) -> Vec<Place> {
    let mut places = Vec::new();
    for entry in dir.read_dir().expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            places.push(Place::new(path.display().to_string(), std::fs::read(&path).expect("a file")));
        } else if path.is_dir() && path != ledger {
            places.extend(files(&path, ledger));
        }
    }
    places
}

/// The values of all secrets that these records name.
fn hidden(ledger: &Ledger, records: &[Value]) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    records.iter().for_each(|record| secrets_named(&record["data"], &mut names));
    let values: Vec<_> = names.iter().filter_map(|id| ledger.secret(*id).expect("the vault")).collect();
    // The password, two DKIM keys, the next hop's password, an API key; of the endpoints two values of Authorization, three secrets.
    assert!(values.len() >= 10, "not only {names:?}");
    values.iter().flat_map(|value| parts(value)).collect()
}

/// A secret is named by `{"id": …, "fingerprint": …}`.
fn secrets_named(value: &Value, names: &mut Vec<SecretId>) {
    match value {
        Value::Object(object) if object.contains_key("fingerprint") => {
            names.push(serde_json::from_value(object["id"].clone()).expect("an id"));
        }
        Value::Object(object) => object.values().for_each(|value| secrets_named(value, names)),
        Value::Array(array) => array.iter().for_each(|value| secrets_named(value, names)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A password's hashes and keys are texts in JSON, and a PEM file has lines, each as secret as the whole.
fn parts(secret: &[u8]) -> Vec<Vec<u8>> {
    fn texts(value: &Value, found: &mut Vec<Vec<u8>>) {
        match value {
            Value::String(text) if text.len() >= SECRET_TEXT_BYTES_MIN => found.push(text.clone().into_bytes()),
            Value::Object(object) => object.values().for_each(|value| texts(value, found)),
            Value::Array(array) => array.iter().for_each(|value| texts(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let mut found = vec![secret.to_vec()];
    if let Ok(value) = serde_json::from_slice(secret) {
        texts(&value, &mut found);
    } else if let Ok(pem) = std::str::from_utf8(secret) {
        let lines = pem.lines().filter(|line| line.len() >= SECRET_TEXT_BYTES_MIN && !line.starts_with("-----"));
        found.extend(lines.map(|line| line.as_bytes().to_vec()));
    }
    found
}

/// The ways in which a secret could be written.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let array = serde_json::to_string(secret).expect("numbers are JSON");
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let login = |user: &str| BASE64_STANDARD_NO_PAD.encode([user.as_bytes(), b":", secret].concat());
    let texts = [
        array.trim_matches(['[', ']']).to_owned(),
        hex.to_uppercase(),
        hex,
        BASE64_STANDARD_NO_PAD.encode(secret),
        BASE64_URL_SAFE_NO_PAD.encode(secret),
        login(USER),
        login(ADMIN),
    ];
    std::iter::once(secret.to_vec()).chain(texts.map(String::into_bytes)).collect()
}
