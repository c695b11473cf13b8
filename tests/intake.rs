//! swaks and Python's smtplib hand mail to the SMTP listener, and find it in the mailbox as they gave it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::peers::{PYTHON, read};
use crate::server::Server;

/// What the listener offers in clear, and over TLS: RFC 3207 §4.2 (not again), RFC 8689 §4.1 (only then).
const IN_CLEAR: [&str; 7] = ["8bitmime", "enhancedstatuscodes", "limits", "pipelining", "size", "smtputf8", "starttls"];
const OVER_TLS: [&str; 7] =
    ["8bitmime", "enhancedstatuscodes", "limits", "pipelining", "requiretls", "size", "smtputf8"];

#[test]
fn swaks_is_served_in_clear_and_over_tls() {
    let server = Server::start(&[]);
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), (0..=u8::MAX).collect::<Vec<u8>>()).expect("its octets");
    let attach = format!("@{}", file.path().display());
    let rest =
        ["--attach-name", "octets.bin", "--attach", &attach, "--body", ".\n..\n.dots\nend", "--h-Subject", "peers"];

    for (n, (tls, with)) in [(None, "with ESMTP id"), (Some("--tls"), "with ESMTPS id")].into_iter().enumerate() {
        let args: Vec<&str> = tls.into_iter().chain(["--to", "friend@localhost"]).chain(rest).collect();
        let Output { status, stdout, .. } = swaks(&server, &args);
        assert!(status.success(), "{}", String::from_utf8_lossy(&stdout));
        assert_eq!(received(&server), n as f64 + 1.0);

        let raw = raw(&server, &inbox(&server)[0]);
        assert!(String::from_utf8_lossy(&raw).contains(with), "{}", String::from_utf8_lossy(&raw));
        let read = read(&server, &raw);
        assert_eq!(read["subject"], "peers");
        assert_eq!(read["text"].as_str().map(str::trim_end), Some(".\n..\n.dots\nend"));
        let octets = BASE64_STANDARD.encode((0..=u8::MAX).collect::<Vec<u8>>());
        assert_eq!(read["files"], json!({"octets.bin": octets}));
    }
}

#[test]
fn the_client_library_of_others_is_served() {
    let server = Server::start(&[]);
    let body = "Subject: from a library\r\n\r\n.one\r\n\u{fc}\r\n";
    let message =
        mail_send::smtp::message::Message::new("a@localhost", ["b@localhost", "c@localhost"], body.as_bytes());
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let sent = runtime.block_on(async {
        let builder = mail_send::SmtpClientBuilder::new(server.ip.to_string(), 1025).expect("TLS");
        let mut client = builder.implicit_tls(false).allow_invalid_certs().connect().await?;
        client.send(message).await
    });
    assert!(sent.is_ok(), "{sent:?}");
    let inbox = inbox(&server);
    assert_eq!(inbox.len(), 2, "one copy for each recipient");
    let raw = raw(&server, &inbox[0]);
    // It adds a line end of its own behind every message.
    assert!(String::from_utf8_lossy(&raw).contains(body), "{}", String::from_utf8_lossy(&raw));
}

#[test]
fn failures_are_simulated_as_ordered() {
    let server = Server::start(&[]);
    // (from, to, the line with which the failure comes, what came before it, what swaks exits with)
    let cases = [
        ("a@localhost", "xpermerror@localhost", "<** 550 5.0.0 ", " -> .", 26),
        ("a@localhost", "xtemperror@localhost", "<** 451 4.0.0 ", " -> .", 26),
        ("a@localhost", "code554@localhost", "<** 554 5.0.0 ", " -> .", 26),
        ("a@localhost", "rcptto550@localhost", "<** 550 5.0.0 ", " -> RCPT TO:<rcptto550@localhost>", 24),
        ("mailfrom451@localhost", "b@localhost", "<** 451 4.0.0 ", " -> MAIL FROM:<mailfrom451@localhost>", 23),
    ];
    for (from, to, failure, after, exit) in cases {
        let output = swaks(&server, &["--from", from, "--to", to]);
        let transcript = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = transcript.lines().collect();
        let at = lines.iter().position(|line| line.starts_with(failure));
        let at = at.unwrap_or_else(|| panic!("{from} to {to} lacks {failure:?}:\n{transcript}"));
        assert_eq!((lines[at - 1], output.status.code()), (after, Some(exit)), "{transcript}");
    }
    assert_eq!(received(&server), 0.0);
}

#[test]
fn smtplib_is_served_with_every_extension() {
    let server = Server::start(&[]);
    let plain = message("plain", "Hello,\r\n.\r\n..\r\n.dots\r\n\r\n\r\nbye\r\n");
    let eight_bit = message("eight bits", "Gr\u{fc}\u{df}e, \u{3c0}\u{3ac}\u{3bd}\u{3c4}\u{3b1} \u{1f600}\r\n");
    let long = message("long lines", &format!("{}\r\n", "x".repeat(998)).repeat(200));
    let utf8 = message("\u{fc}ber", "text\r\n");
    let one = ["friend@localhost"].as_slice();
    let many = ["a@localhost", "b@example.org", "c@example.net"].as_slice();
    let cases = [
        (false, "a@example.org", one, &[][..], &plain),
        (true, "a@example.org", one, &[], &plain),
        (false, "a@example.org", one, &["BODY=8BITMIME"], &eight_bit),
        (true, "a@example.org", many, &["BODY=8BITMIME"], &long),
        (false, "\u{e4}@example.org", &["j\u{f6}rg@localhost"], &["SMTPUTF8", "BODY=8BITMIME"], &utf8),
    ];
    let mut copies = 0;
    for (starttls, from, to, options, message) in cases {
        let answer = smtplib(&server, starttls, from, to, options, message);
        assert_eq!((&answer["error"], &answer["refused"]), (&Value::Null, &json!({})), "{answer}");
        assert_eq!(answer["features"], json!(if starttls { OVER_TLS } else { IN_CLEAR }));
        copies += to.len();
        assert_eq!(received(&server), copies as f64, "{from} to {to:?}");
        let stored = inbox(&server);
        let mut recipients: Vec<&str> = stored[..to.len()].iter().filter_map(|m| m["recipient"].as_str()).collect();
        recipients.sort_unstable();
        assert_eq!(recipients, to);
        for copy in &stored[..to.len()] {
            assert_eq!(copy["mail_from"], from);
            let raw = raw(&server, copy);
            assert!(raw.ends_with(message.as_bytes()), "{}", String::from_utf8_lossy(&raw));
            assert!(
                raw.starts_with(format!("Return-Path: <{from}>\r\n").as_bytes()),
                "{}",
                String::from_utf8_lossy(&raw)
            );
        }
    }
}

#[test]
fn each_recipient_has_its_own_fate() {
    let server = Server::start(&[]);
    let to = ["a@localhost", "xpermerror@localhost", "b@localhost", "rcptto451@localhost"];
    let answer = smtplib(&server, false, "c@example.org", &to, &[], &message("four", "text\r\n"));
    let refused = json!({"xpermerror@localhost": 550, "rcptto451@localhost": 451});
    assert_eq!((&answer["error"], &answer["refused"]), (&Value::Null, &refused));
    assert_eq!(received(&server), 2.0);
}

fn message(subject: &str, body: &str) -> String {
    format!(
        "From: <a@example.org>\r\nTo: <friend@localhost>\r\nSubject: {subject}\r\n\
             Date: Mon, 05 Jan 2026 12:00:00 +0000\r\nMessage-ID: <peer@example.org>\r\n\r\n{body}"
    )
}

fn swaks(server: &Server, args: &[&str]) -> Output {
    let mut command = Command::new("swaks");
    command.arg("--server").arg(server.smtp().to_string()).args(args).stdin(Stdio::null());
    command.output().expect("tests/install-peers.sh installs swaks")
}

fn smtplib(server: &Server, starttls: bool, from: &str, to: &[&str], options: &[&str], message: &str) -> Value {
    let request = json!({
        "host": server.smtp().ip().to_string(),
        "port": server.smtp().port(),
        "starttls": starttls,
        "from": from,
        "to": to,
        "options": options,
        "message": BASE64_STANDARD.encode(message),
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/send_mail.py");
    let mut command = Command::new(PYTHON);
    let mut child =
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python is installed");
    child.stdin.take().expect("a pipe").write_all(request.to_string().as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "smtplib ended with {}", output.status);
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn received(server: &Server) -> f64 {
    server.metric("postledger_messages_received_total")
}

/// What is in the mailbox Inbox of localserve's account, newest first.
fn inbox(server: &Server) -> Vec<Value> {
    server.items("/inbox?account=mox")
}

fn raw(server: &Server, stored: &Value) -> Vec<u8> {
    let id = stored["msg_id"].as_u64().expect("a number");
    server.api("GET", &format!("/inbox/{id}/raw?account=mox"), &Value::Null).body
}
