//! Programs that follow the log: over a stream, by long polls, and from where they were.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::server::{ADMIN, ADMIN_PASSWORD, PATIENCE, Server, wait_until};

/// A stream of events that is read as it comes.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(server: &Server, query: &str, last: Option<u64>) -> Stream {
        let admin = BASE64_STANDARD.encode(format!("{ADMIN}:{ADMIN_PASSWORD}"));
        Stream::open_as(server, &format!("Basic {admin}"), query, last)
    }

    fn open_as(server: &Server, auth: &str, query: &str, last: Option<u64>) -> Stream {
        let mut socket = TcpStream::connect(server.http()).expect("a connection");
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        let last = last.map_or(String::new(), |last| format!("Last-Event-ID: {last}\r\n"));
        let head = format!(
            "GET /api/v1/events/stream{query} HTTP/1.1\r\nHost: x\r\nAuthorization: {auth}\r\n\
             Accept: text/event-stream\r\n{last}\r\n"
        );
        socket.write_all(head.as_bytes()).expect("it takes a request");
        let mut stream = Stream(BufReader::new(socket));
        assert_eq!(stream.line(), "HTTP/1.1 200 OK");
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.0.read_line(&mut line).expect("it goes on"), 0, "it was broken off");
        line.trim_end().to_owned()
    }

    /// The next record, with the id that came before it.
    fn event(&mut self) -> (u64, Value) {
        let mut id = 0;
        loop {
            let line = self.line();
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.parse().expect("a number");
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (id, serde_json::from_str(data).expect("a record"));
            }
        }
    }
}

fn send(server: &Server) {
    server.send(&json!({"To": [{"Address": "you@localhost"}], "Subject": "s", "Text": "t"}));
}

#[test]
fn a_stream_tells_what_happens_and_goes_on_after_a_crash() {
    let mut server = Server::start(&[]);
    let query = "?kind=MessageSubmitted,Delivered";
    let mut stream = Stream::open(&server, query, None);
    send(&server);
    let (submitted, record) = stream.event();
    assert_eq!((record["seq"].as_u64(), record["kind"].as_str()), (Some(submitted), Some("MessageSubmitted")));
    let (delivered, record) = stream.event();
    assert_eq!(record["kind"], "Delivered");
    server.kill();
    server.restart();
    send(&server);
    let mut stream = Stream::open(&server, query, Some(submitted));
    assert_eq!(stream.event().0, delivered);
    assert_eq!(stream.event().1["kind"], "MessageSubmitted");
    assert_eq!(stream.event().1["kind"], "Delivered");
    // A stop does not wait for streams: it would wait for ever.
    server.signal("TERM");
    while stream.line() != "0" {}
    wait_until("the server has stopped", || server.has_ended());
}

#[test]
fn a_cursor_is_kept_and_moves_both_ways() {
    let mut server = Server::start(&[]);
    send(&server);
    let put = |server: &Server, seq: u64| server.try_api("PUT", "/cursors/billing?account=mox", &json!({"seq": seq}));
    let page = |server: &Server| server.api("GET", "/events?cursor=billing&account=mox", &Value::Null).json();
    let submitted = server.records("MessageSubmitted")[0]["seq"].as_u64().expect("a record");
    let first = |server: &Server| page(server)["items"][0]["seq"].as_u64().expect("a record");
    assert_eq!(put(&server, submitted).status, 204);
    let common = |seq: u64| {
        let beyond = put(&server, seq);
        assert_eq!(beyond.status, 409);
        beyond.json()["last_common"].as_u64().expect("a record")
    };
    assert!(common(submitted + 1_000) >= submitted);
    assert_eq!(common(1 << 40), 0, "of a branch that nobody here knows");
    server.kill();
    server.restart();
    assert!(first(&server) > submitted);
    server.cli(&["cursor", "set", "billing", "0", "--account", "mox"]);
    assert_eq!(server.cli_json(&["cursor", "list", "--account", "mox"])[0]["seq"], 0);
    assert!(first(&server) < submitted);
    assert!(!page(&server).to_string().contains("CursorSet"), "its own moves would never come to an end");
    assert_eq!(server.records("CursorSet").len(), 2);
    server.cli(&["cursor", "remove", "billing", "--account", "mox"]);
    assert_eq!(server.try_api("GET", "/events?cursor=billing&account=mox", &Value::Null).status, 404);
}

#[test]
fn a_thousand_streams_that_have_nothing_to_say() {
    let server = Server::start(&[]);
    send(&server);
    // Not with a password: each check of one takes memory that has nothing to do with streams.
    let given = server.cli_json(&["key", "add", "follower", "--operators", "--scope", "read"]);
    let auth = format!("Bearer {}", given["token"].as_str().expect("a token"));
    let open = || Stream::open_as(&server, &auth, "?kind=KeyRevoked", None);
    let _first = open();
    let before = resident_kib(server.pid());
    let streams: Vec<Stream> = (0..1000).map(|_| open()).collect();
    let after = resident_kib(server.pid());
    println!("1,000 idle streams take {} KiB", after.saturating_sub(before));
    assert!(
        after.saturating_sub(before) < 50 * 1024,
        "{before} KiB before, {after} KiB with {} streams",
        streams.len()
    );
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its state");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
