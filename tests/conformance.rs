//! Recorded requests of the contract's reference server, replayed in their order, and its answers compared with ours.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::server::{self, Response, Server, USER, wait_until};

/// Header fields that clients or browsers act on.
const FIELDS: [&str; 7] = [
    "Content-Type",
    "WWW-Authenticate",
    "Location",
    "Content-Security-Policy",
    "Referrer-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
];
/// Keys whose values are another run's (ids, times) or wording; their types must agree, and whether they are empty.
const OF_THE_RUN: [&str; 7] = ["Message", "MessageID", "QueueMsgID", "FromID", "ID", "Created", "Reason"];
/// Failed logins until further ones are not looked at.
const FAILED_LOGINS_MAX: usize = 10;

/// Captures that this version answers otherwise on purpose.
const OTHERWISE: [(u16, Otherwise); 13] = [
    // "`application/json` bodies are accepted too (the body is the request)."
    (18, Otherwise::Sends(1)),
    // "The same address twice in To/CC/BCC […] gives one Submission and one delivery, not two."
    (65, Otherwise::Sends(1)),
    // The Message* methods belong to a later version; until then they say so.
    (93, Otherwise::NotInThisVersion),
    (94, Otherwise::NotInThisVersion),
    (95, Otherwise::NotInThisVersion),
    (97, Otherwise::NotInThisVersion),
    (98, Otherwise::NotInThisVersion),
    (99, Otherwise::NotInThisVersion),
    (101, Otherwise::NotInThisVersion),
    (102, Otherwise::NotInThisVersion),
    (103, Otherwise::NotInThisVersion),
    (105, Otherwise::NotInThisVersion),
    (106, Otherwise::NotInThisVersion),
];

/// The capture that presupposes failed logins and closes the door for all that follow; it gets a server of its own.
const AFTER_FAILED_LOGINS: u16 = 117;

#[derive(Clone, Copy, Debug)]
enum Otherwise {
    /// The request is a Send that is accepted, with as many submissions.
    Sends(usize),
    /// 400 with code `server`.
    NotInThisVersion,
}

/// One recorded exchange.
struct Capture {
    number: u16,
    name: String,
    request: Vec<u8>,
    answer: Response,
}

#[test]
fn the_captures_are_answered_as_recorded() {
    let server = Server::start(&[]);
    set_up(&server);
    let mut differences = Vec::new();
    for capture in captures().iter().filter(|capture| capture.number != AFTER_FAILED_LOGINS) {
        prepare(&server, capture.number);
        let answer = server::exchange(server.http(), &capture.request).expect(&capture.name);
        let found = match OTHERWISE.iter().find(|(number, _)| *number == capture.number) {
            Some((_, otherwise)) => check_otherwise(*otherwise, &answer),
            None => compare(&capture.answer, &answer),
        };
        differences.extend(found.into_iter().map(|difference| format!("{}: {difference}", capture.name)));
    }
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));

    // "`sentOverQuota` means nothing was sent": the recorded server had sent it.
    let exported = server.api("GET", "/events/export?kind=MessageSubmitted&account=quota", &Value::Null);
    assert_eq!(exported.text(), "");
}

#[test]
fn ten_failed_logins_close_the_door() {
    let server = Server::start(&[]);
    let all = captures();
    let capture = all.iter().find(|capture| capture.number == AFTER_FAILED_LOGINS).expect("the capture");
    for n in 0..FAILED_LOGINS_MAX {
        let answer = server::webapi(server.http(), USER, &format!("bad{n}"), "Send", &json!({}));
        assert_eq!(answer.status, 401, "login {n}");
    }
    let answer = server::exchange(server.http(), &capture.request).expect("an answer");
    assert_eq!(compare(&capture.answer, &answer), Vec::<String>::new());
    assert!(answer.header("Retry-After").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{answer:?}");
}

#[test]
fn the_index_lists_what_can_be_called() {
    let server = Server::start(&[]);
    let index = server::get(server.http(), "/webapi/v0/").text();
    for method in ["Send", "SuppressionAdd", "SuppressionList", "SuppressionPresent", "SuppressionRemove"] {
        assert!(index.contains(&format!("href=\"{method}\"")), "{method} is missing:\n{index}");
        assert_eq!(server::get(server.http(), &format!("/webapi/v0/{method}")).status, 200, "{method}");
    }
    assert!(!index.contains("href=\"Message"), "{index}");
}

/// The accounts of the recorded server that localserve does not come with.
fn set_up(server: &Server) {
    server.api("POST", "/domains", &json!({"domain": "disabled.example", "settings": {"disabled": true}}));
    let given = json!({"address": "mox@disabled.example", "account": "mox"});
    server.api("POST", "/addresses", &given);
    let accounts = [
        ("plain", json!({})),
        ("nologin", json!({"login_disabled": true})),
        ("msglimited", json!({"messages_per_day_max": 1})),
        ("rcptlimited", json!({"first_time_recipients_per_day_max": 1})),
        ("quota", json!({"quota_bytes": 1})),
    ];
    for (account, settings) in accounts {
        server.api("POST", "/accounts", &json!({"account": account, "settings": settings}));
        let given = json!({"address": format!("{account}@localhost"), "account": account});
        server.api("POST", "/addresses", &given);
        let password = json!({"password": server::PASSWORD});
        server.api("PUT", &format!("/accounts/{account}/password"), &password);
    }
    // An account that gets an address uses fromids with it, unless it is told otherwise.
    server.api("PATCH", "/accounts/plain", &json!({"fromid_logins": []}));
}

/// What has to happen before a capture: steps whose numbers are missing, and waits that the recording had.
fn prepare(server: &Server, number: u16) {
    match number {
        // The recorded server's failures came seconds later, so that its suppression list was still empty.
        70 => {
            server.api("POST", "/holdrules", &json!({"account": "mox"}));
        }
        77 => {
            let request = json!({"EmailAddress": "Sup.Pressed+tag@localhost", "Manual": true, "Reason": "asked"});
            assert_eq!(server.webapi("SuppressionAdd", &request).status, 200);
        }
        85 => {
            for recipient in ["rcptto550@localhost", "multipermerror@localhost"] {
                server.send(&json!({"To": [{"Address": recipient}], "Text": "x"}));
            }
            release_held(server);
            wait_until("three failures have suppressed their addresses", || {
                server.webapi("SuppressionList", &json!({})).json()["Suppressions"].as_array().map(Vec::len) == Some(5)
            });
        }
        _ => {}
    }
}

fn release_held(server: &Server) {
    for rule in server.items("/holdrules") {
        server.api("DELETE", &format!("/holdrules/{}", rule["rule"]), &Value::Null);
    }
    let release = json!({"action": "release", "filter": {"account": "mox"}});
    server.api("POST", "/queue", &release);
}

fn captures() -> Vec<Capture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let entries = folder.read_dir().expect("the captures").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().map(|path| capture(path)).collect()
}

fn capture(path: &Path) -> Capture {
    const REQUEST: &[u8] = b">>> request\n";
    const ANSWER: &[u8] = b"\n<<< response\n";
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    let bytes = std::fs::read(path).expect("the capture");
    let split = bytes.windows(ANSWER.len()).rposition(|w| w == ANSWER).expect("an answer");
    let request = later(bytes[..split].strip_prefix(REQUEST).expect("a request"));
    let answer = server::parse(&bytes[split + ANSWER.len()..], !request.starts_with(b"HEAD ")).expect("an answer");
    Capture { number: name[..3].parse().expect("a number"), name, request, answer }
}

/// Moves the one date that must lie in the future (capture 49) out of reach.
fn later(request: &[u8]) -> Vec<u8> {
    const RECORDED: &[u8] = b"%222027-03-02T";
    let mut request = request.to_vec();
    if let Some(at) = request.windows(RECORDED.len()).position(|w| w == RECORDED) {
        request[at..at + RECORDED.len()].copy_from_slice(b"%222999-03-02T");
    }
    request
}

fn check_otherwise(otherwise: Otherwise, answer: &Response) -> Vec<String> {
    let json = answer.json();
    let holds = match otherwise {
        Otherwise::Sends(count) => {
            answer.status == 200 && json["Submissions"].as_array().is_some_and(|submissions| submissions.len() == count)
        }
        Otherwise::NotInThisVersion => answer.status == 400 && json["Code"] == "server",
    };
    let difference = format!("not {otherwise:?}: {} {json}", answer.status);
    if holds { Vec::new() } else { vec![difference] }
}

fn compare(recorded: &Response, ours: &Response) -> Vec<String> {
    let mut differences = Vec::new();
    if recorded.status != ours.status {
        differences.push(format!("status {} instead of {}: {}", ours.status, recorded.status, ours.text()));
    }
    for field in FIELDS {
        let (theirs, own) = (recorded.header(field), ours.header(field));
        if theirs != own {
            differences.push(format!("{field}: {own:?} instead of {theirs:?}"));
        }
    }
    if recorded.header("Content-Type").is_some_and(|kind| kind.starts_with("application/json")) {
        match serde_json::from_slice(&ours.body) {
            Ok(json) => compare_json("", &recorded.json(), &json, &mut differences),
            Err(e) => differences.push(format!("no JSON ({e}): {}", ours.text())),
        }
    }
    differences
}

fn compare_json(key: &str, recorded: &Value, ours: &Value, differences: &mut Vec<String>) {
    match (recorded, ours) {
        (Value::Object(recorded), Value::Object(ours)) => {
            if !recorded.keys().eq(ours.keys()) {
                differences.push(format!("keys of {key:?}: {ours:?} instead of {recorded:?}"));
            }
            for (key, recorded) in recorded {
                compare_json(key, recorded, ours.get(key).unwrap_or(&Value::Null), differences);
            }
        }
        (Value::Array(recorded), Value::Array(ours)) => {
            if recorded.len() != ours.len() {
                differences.push(format!("items of {key:?}: {ours:?} instead of {recorded:?}"));
            }
            for (recorded, ours) in recorded.iter().zip(ours) {
                compare_json(key, recorded, ours, differences);
            }
        }
        (Value::String(recorded), Value::String(ours)) if OF_THE_RUN.contains(&key) => {
            if recorded.is_empty() != ours.is_empty() {
                differences.push(format!("{key}: {ours:?} instead of {recorded:?}"));
            }
        }
        (Value::Number(recorded), Value::Number(ours)) if OF_THE_RUN.contains(&key) => {
            assert!(recorded.is_u64(), "a number of the recorded server");
            if !ours.is_u64() {
                differences.push(format!("{key}: {ours} instead of {recorded}"));
            }
        }
        (recorded, ours) if recorded == ours => {}
        (recorded, ours) => differences.push(format!("{key}: {ours} instead of {recorded}")),
    }
}
