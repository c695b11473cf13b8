//! The libraries that are published for Standard Webhooks take our calls: those of PyPI and npm here, that of crates.io wherever a
//! test verifies. While a secret is changed, whoever knows either of the two can verify.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::server::{Server, wait_until};
use crate::webhooks::{Answer, Got, Receiver, add, verify};

#[test]
fn the_published_libraries_take_calls_with_either_secret() {
    let (server, receiver) = (Server::start(&[]), Receiver::start(Answer::Status(200)));
    let mut secrets = Vec::new();
    for (name, format) in [("mox", "mox"), ("events", "cloudevents")] {
        let settings = json!({"direction": "outgoing", "url": receiver.url(&format!("/{name}")), "format": format});
        let old = add(&server, name, &settings);
        let saved = server.api("PUT", &format!("/endpoints/mox/{name}"), &json!({"new_secret": true})).json();
        secrets.push((name, [old, saved["secret"].as_str().expect("the new secret").to_owned()]));
    }
    for to in ["you@example.org", "xpermerror@example.org"] {
        server.send(&json!({"To": [{"Address": to}], "Subject": "Grüße <☺> & \u{2028}", "Text": "x"}));
    }
    wait_until("both endpoints were told of both messages", || receiver.got().len() == 4);
    for (name, [old, new]) in &secrets {
        let calls: Vec<Got> = receiver.got().into_iter().filter(|got| got.path == format!("/{name}")).collect();
        assert_eq!(calls.len(), 2, "{calls:?}");
        calls.iter().for_each(|call| [old, new].iter().for_each(|secret| verify(secret, call)));
        let other = secrets.iter().find(|(other, _)| other != name).map(|(_, [old, _])| old);
        // With a secret of its own; with that of another endpoint.
        let expect = json!([[true, false], [true, false], [false, false]]);
        let given = json!({"secrets": [old, new, other], "calls": calls.iter().map(call).collect::<Vec<_>>()});
        for library in [python(), node()] {
            assert_eq!(taken(library, &given), json!([expect, expect]), "{name}: {given}");
        }
    }
}

/// As a receiver hands it to a library.
fn call(got: &Got) -> Value {
    let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
    let headers: serde_json::Map<_, _> =
        names.map(|name| (name.to_owned(), json!(got.header(name)))).into_iter().collect();
    json!({"headers": headers, "body": String::from_utf8_lossy(&got.body)})
}

fn python() -> Command {
    let mut command = Command::new(installed("python/bin/python"));
    command.arg(script("verify.py"));
    command
}

fn node() -> Command {
    let mut command = Command::new("node");
    command.arg(script("verify.js")).env("NODE_PATH", installed("npm/node_modules"));
    command
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/verifiers").join(name)
}

fn installed(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/verifiers").join(path);
    assert!(path.exists(), "tests/install-peers.sh installs {}", path.display());
    path
}

/// What a library makes of these calls.
fn taken(mut library: Command, given: &Value) -> Value {
    let mut child =
        library.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("tests/install-peers.sh installs it");
    child.stdin.take().expect("a pipe").write_all(given.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{library:?}: {given}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}
