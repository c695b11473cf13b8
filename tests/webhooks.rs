//! What happens to mail is told to endpoints: signed, in order, at least once whatever breaks, and only where calls may go.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::server::{Server, wait_until};
use crate::tls::accept;

/// Between two octets that drip.
const DRIP: Duration = Duration::from_millis(20);

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    Status(u16),
    Redirect,
    /// It takes the request and says nothing, as long as the test runs.
    Hang,
    /// The status is 429; this is the value of `Retry-After`.
    Later(&'static str),
    /// It begins well, and then one octet follows the other as long as somebody listens.
    Drip {
        head: &'static str,
    },
    /// It begins well, and then comes as much as somebody takes in.
    Endless {
        head: &'static str,
    },
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Got {
    pub path: String,
    headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers))
    }
}

/// A program that is called.
#[derive(Clone)]
pub struct Receiver {
    pub addr: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<Mutex<Answer>>,
    /// Connections that the caller has closed while it was answered.
    cut: Arc<AtomicUsize>,
}

impl Receiver {
    pub fn start(answer: Answer) -> Receiver {
        Receiver::listen(answer, None)
    }

    pub fn start_tls(answer: Answer, tls: Arc<ServerConfig>) -> Receiver {
        Receiver::listen(answer, Some(tls))
    }

    fn listen(answer: Answer, tls: Option<Arc<ServerConfig>>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("its address");
        let (got, answer, cut) = (Arc::default(), Arc::new(Mutex::new(answer)), Arc::default());
        let receiver = Receiver { addr, tls, got, answer, cut };
        let serving = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || match &serving.tls {
                    Some(tls) => serving.serve(accept(tls, stream)),
                    None => serving.serve(stream),
                });
            }
        });
        receiver
    }

    pub fn url(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.addr)
    }

    pub fn set(&self, answer: Answer) {
        *self.answer.lock().expect("no test failed") = answer;
    }

    pub fn got(&self) -> Vec<Got> {
        self.got.lock().expect("no test failed").clone()
    }

    pub fn cut(&self) -> usize {
        self.cut.load(Ordering::Relaxed)
    }

    /// One request after the other on the same connection.
    fn serve(&self, stream: impl Read + Write) {
        let mut reader = BufReader::new(stream);
        while let Some(got) = read_request(&mut reader) {
            let answer = *self.answer.lock().expect("no test failed");
            self.got.lock().expect("no test failed").push(got);
            if self.write(reader.get_mut(), answer).is_err() {
                self.cut.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    fn write(&self, to: &mut impl Write, answer: Answer) -> std::io::Result<()> {
        let text = match answer {
            Answer::Status(status) => format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\nhello"),
            Answer::Redirect => {
                let to = self.url("/elsewhere");
                format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
            }
            Answer::Later(when) => format!("HTTP/1.1 429 x\r\nRetry-After: {when}\r\nContent-Length: 0\r\n\r\n"),
            Answer::Hang => loop {
                std::thread::park();
            },
            Answer::Drip { head } => {
                to.write_all(head.as_bytes())?;
                loop {
                    to.write_all(b"x")?;
                    std::thread::sleep(DRIP);
                }
            }
            Answer::Endless { head } => {
                to.write_all(head.as_bytes())?;
                loop {
                    to.write_all(&[b'x'; 4096])?;
                }
            }
        };
        to.write_all(text.as_bytes())
    }
}

/// `None`: there is no other one.
pub fn read_request(reader: &mut impl BufRead) -> Option<Got> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    assert!(line.starts_with("POST "), "{line}");
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok())?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Got { path, headers, body })
}

/// Adds an endpoint of localserve's account; answers the secret that was made.
pub fn add(server: &Server, name: &str, settings: &Value) -> String {
    let saved = server.api("PUT", &format!("/endpoints/mox/{name}"), settings).json();
    saved["secret"].as_str().expect("a new endpoint gets a secret").to_owned()
}

/// Whether it is signed with this secret, by the clock of now.
pub fn is_signed(secret: &str, got: &Got) -> bool {
    let webhook = Webhook::new(secret).expect("a secret in the form of the specification");
    webhook.verify(&got.body, &http_headers(got)).is_ok()
}

pub fn verify(secret: &str, got: &Got) {
    let mut headers = http_headers(got);
    let webhook = Webhook::new(secret).expect("a secret in the form of the specification");
    webhook.verify(&got.body, &headers).unwrap_or_else(|e| panic!("{e:?}: {got:?}"));
    headers.insert("webhook-id", "other".parse().expect("a value"));
    assert!(webhook.verify(&got.body, &headers).is_err(), "a signature over another id is none");
}

fn http_headers(got: &Got) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        headers.insert(name, got.header(name).parse().expect("a value"));
    }
    headers
}

pub fn send(server: &Server, to: &str) -> u64 {
    server.send(&json!({"To": [{"Address": to}], "Subject": "<hi>", "Text": "x", "Extra": {"order": "17"}}))[0]
}

/// The events about a delivery in the order in which they came in.
fn events_of(receiver: &Receiver, delivery: u64) -> Vec<String> {
    let got = receiver.got();
    let about = got.iter().map(Got::json).filter(|json| json["QueueMsgID"] == delivery);
    about.map(|json| json["Event"].as_str().expect("an event").to_owned()).collect()
}

#[test]
fn every_outcome_is_told_signed_and_in_order() {
    let server = Server::start(&[]);
    let (outgoing, incoming) = (Receiver::start(Answer::Status(200)), Receiver::start(Answer::Status(204)));
    let settings =
        json!({"direction": "outgoing", "url": outgoing.url("/out?a=b"), "authorization": "Basic aG9vazpzZWNyZXQ="});
    let secret = add(&server, "out", &settings);
    let incoming_secret =
        add(&server, "in", &json!({"direction": "incoming", "url": incoming.url("/in"), "format": "cloudevents"}));

    let delivered = send(&server, "you@example.org");
    let failed = send(&server, "xpermerror@example.org");
    let delayed = send(&server, "xtemperror@example.org");
    wait_until("the first outcomes are told", || {
        [delivered, failed, delayed].iter().all(|id| !events_of(&outgoing, *id).is_empty())
    });
    let suppressed = send(&server, "xpermerror@example.org");
    server.api("POST", "/queue", &json!({"action": "cancel", "filter": {"ids": [delayed]}}));
    wait_until("the last outcomes are told", || {
        events_of(&outgoing, delayed).len() == 2 && events_of(&outgoing, suppressed).len() == 1
    });
    assert_eq!(events_of(&outgoing, delivered), ["delivered"]);
    assert_eq!(events_of(&outgoing, failed), ["failed"]);
    assert_eq!(events_of(&outgoing, delayed), ["delayed", "canceled"]);
    assert_eq!(events_of(&outgoing, suppressed), ["suppressed"]);
    for got in outgoing.got() {
        verify(&secret, &got);
        let json = got.json();
        assert_eq!(got.path, "/out?a=b");
        assert_eq!(got.header("authorization"), "Basic aG9vazpzZWNyZXQ=");
        assert_eq!(got.header("content-type"), "application/json; charset=utf-8");
        assert_eq!(got.header("x-mox-webhook-attempt"), "1");
        assert!(got.header("user-agent").ends_with("(webhook)"), "{got:?}");
        assert_eq!((&json["Subject"], &json["Extra"]), (&json!("<hi>"), &json!({"order": "17"})));
        let fact = got.header("x-mox-webhook-id").parse::<u64>().expect("a number") / 1024;
        assert_eq!(json["EventID"], fact);
    }

    wait_until("the message that arrived is told", || !incoming.got().is_empty());
    let got = incoming.got()[0].clone();
    verify(&incoming_secret, &got);
    let event = got.json();
    assert_eq!(got.header("content-type"), "application/cloudevents+json; charset=utf-8");
    assert_eq!((&event["specversion"], &event["type"]), (&json!("1.0"), &json!("postledger.message.received")));
    assert_eq!(event["id"], got.header("webhook-id"));
    assert_eq!((&event["data"]["Subject"], &event["data"]["Text"]), (&json!("<hi>"), &json!("x\n")));
    assert_eq!(event["data"]["Meta"]["RcptTo"], "you@example.org");

    wait_until("the calls are recorded", || {
        let calls = server.items("/endpoints/mox/out/calls?phase=delivered");
        calls.len() == 5 && calls.iter().all(|call| call["last"]["response"] == "hello")
    });
    let metrics = crate::server::get(server.metrics(), "/metrics").text();
    assert!(metrics.contains("postledger_webhook_calls_total{outcome=\"delivered\"} "), "{metrics}");
    assert!(metrics.contains("postledger_webhook_endpoints{state=\"working\"} 2\n"), "{metrics}");
    let log = server.cli(&["events", "export"]);
    assert!(!log.contains(&secret) && !log.contains("aG9vazpzZWNyZXQ"), "secrets are in the vault alone");
}

#[test]
fn all_arrives_after_failures_and_a_kill() {
    let mut server = Server::start(&["--retry-scale", "20"]);
    let receiver = Receiver::start(Answer::Status(503));
    let waits = vec![1; 90];
    let settings = json!({"direction": "outgoing", "url": receiver.url("/"), "retry_waits_s": waits});
    let secret = add(&server, "out", &settings);
    let ids: BTreeSet<u64> = (0..10).map(|n| send(&server, &format!("you{n}@example.org"))).collect();
    wait_until("calls have failed", || receiver.got().len() >= 5);
    server.kill();
    receiver.set(Answer::Status(200));
    let before = receiver.got().len();
    server.restart();

    let arrived = || -> BTreeSet<u64> {
        receiver.got()[before..].iter().filter_map(|got| got.json()["QueueMsgID"].as_u64()).collect()
    };
    wait_until("everything is told", || arrived() == ids);
    let mut names: BTreeMap<u64, BTreeSet<(String, Vec<u8>)>> = BTreeMap::new();
    for got in receiver.got() {
        verify(&secret, &got);
        let json = got.json();
        let fact = json["EventID"].as_u64().expect("a number");
        names.entry(fact).or_default().insert((got.header("webhook-id").to_owned(), got.body.clone()));
    }
    assert!(names.values().all(|names| names.len() == 1), "one id and the same bytes every time: {names:?}");
    wait_until("all calls are recorded", || {
        server.items("/endpoints/mox/out/calls?phase=delivered").len() == ids.len()
    });
}

#[test]
fn a_hanging_endpoint_delays_no_other() {
    let server = Server::start(&[]);
    let (hanging, working) = (Receiver::start(Answer::Hang), Receiver::start(Answer::Status(200)));
    add(&server, "hanging", &json!({"direction": "outgoing", "url": hanging.url("/"), "concurrency_max": 2}));
    add(&server, "working", &json!({"direction": "outgoing", "url": working.url("/")}));
    let ids: BTreeSet<u64> = (0..10).map(|n| send(&server, &format!("you{n}@example.org"))).collect();
    let told = |receiver: &Receiver| -> BTreeSet<u64> {
        receiver.got().iter().filter_map(|got| got.json()["QueueMsgID"].as_u64()).collect()
    };
    wait_until("the working one knows all", || told(&working) == ids);
    assert_eq!(server.items("/endpoints/mox/hanging/calls?phase=waiting").len(), ids.len());
    assert!(told(&hanging).len() <= 2, "no more calls at once than the endpoint may have");
}

#[test]
fn calls_go_only_where_they_may() {
    let server = Server::start(&[]);
    let receiver = Receiver::start(Answer::Redirect);
    add(&server, "out", &json!({"direction": "outgoing", "url": receiver.url("/hook")}));
    send(&server, "you@example.org");
    // There is none until the message has its outcome.
    let last = || server.items("/endpoints/mox/out/calls").first().map(|call| call["last"].clone()).unwrap_or_default();
    wait_until("the call has failed", || !last().is_null());
    assert_eq!(last()["status"], 302);
    assert!(receiver.got().iter().all(|got| got.path == "/hook"), "no redirect is followed");

    for (n, url) in
        ["http://10.0.0.1/", "http://167772161/", "http://[::ffff:10.0.0.1]/", "http://[fe80::1]/"].iter().enumerate()
    {
        let name = format!("private{n}");
        add(&server, &name, &json!({"direction": "outgoing", "url": url}));
        let tested = server.api("POST", &format!("/endpoints/mox/{name}/test"), &Value::Null).json();
        assert_eq!(tested["status"], 0, "{url}");
        assert!(tested["error"].as_str().is_some_and(|e| e.contains("network that calls must not go to")), "{tested}");
    }
    for url in ["ftp://example.org/", "http://me:secret@example.org/", "http://"] {
        let settings = json!({"direction": "outgoing", "url": url});
        assert_eq!(server.try_api("PUT", "/endpoints/mox/bad", &settings).status, 422, "{url}");
    }
}

#[test]
fn an_account_is_told_that_its_endpoint_was_disabled() {
    let server = Server::start(&[]);
    let receiver = Receiver::start(Answer::Status(410));
    add(&server, "old", &json!({"direction": "outgoing", "url": receiver.url("/")}));
    send(&server, "you@example.org");
    // What localserve delivers comes into the same mailbox.
    let notice = || {
        server.items("/inbox?account=mox").iter().find_map(|item| {
            let path = format!("/inbox/{}/raw?account=mox", item["msg_id"]);
            let raw = String::from_utf8(server.api("GET", &path, &Value::Null).body).expect("ASCII");
            raw.contains("Auto-Submitted").then_some(raw)
        })
    };
    wait_until("the account is told", || notice().is_some());
    let raw = notice().expect("it stays");
    for part in [
        "Auto-Submitted: auto-generated\r\n",
        "Subject: Endpoint old was disabled\r\n",
        "It answered 410 Gone to the call about record ",
        "postledger webhook set mox old --disabled false\r\n",
    ] {
        assert!(raw.contains(part), "{part:?} in {raw}");
    }
    server.api("PUT", "/endpoints/mox/old", &json!({"calls_per_second_max": 5, "new_secret": true}));
    assert_eq!(server.items("/endpoints")[0]["state"], "disabled", "another change does not enable it");
    let metrics = crate::server::get(server.metrics(), "/metrics").text();
    assert!(metrics.contains("postledger_webhook_endpoints{state=\"disabled\"} 1\n"), "{metrics}");
    receiver.set(Answer::Status(200));
    server.cli(&["webhook", "set", "mox", "old", "--disabled", "false"]);
    send(&server, "you@example.org");
    wait_until("it is called again", || server.items("/endpoints/mox/old/calls?phase=delivered").len() == 1);
}

#[test]
fn an_endpoint_is_tried_out_and_its_calls_are_canceled_and_retried() {
    let server = Server::start(&[]);
    let receiver = Receiver::start(Answer::Status(500));
    let secret = add(&server, "out", &json!({"direction": "outgoing", "url": receiver.url("/"), "retry_waits_s": []}));
    let tested = server.api("POST", "/endpoints/mox/out/test", &Value::Null).json();
    assert_eq!((&tested["status"], &tested["response"]), (&json!(500), &json!("hello")));
    assert_eq!(receiver.got()[0].json()["EventID"], 0);
    verify(&secret, &receiver.got()[0]);

    send(&server, "you@example.org");
    let phase = |phase: &str| server.items(&format!("/endpoints/mox/out/calls?phase={phase}"));
    wait_until("its only attempt has failed", || phase("failed").len() == 1);
    receiver.set(Answer::Status(200));
    let retry = json!({"action": "retry", "filter": {"account": "mox", "endpoint": "out", "phases": ["failed"]}});
    server.api("POST", "/calls", &retry);
    wait_until("it has arrived", || phase("delivered").len() == 1);

    server.api("PUT", "/endpoints/mox/out", &json!({"disabled": true}));
    send(&server, "you@example.org");
    wait_until("the next waits", || phase("waiting").len() == 1);
    let call = &phase("waiting")[0];
    let named = json!([{"fact": call["fact"], "place": call["place"]}]);
    let cancel = json!({"action": "cancel", "filter": {"account": "mox", "endpoint": "out", "calls": named}});
    assert_eq!(server.api("POST", "/calls", &cancel).json(), json!({"affected": 1}));
    assert_eq!(phase("canceled").len(), 1);
    server.api("DELETE", "/endpoints/mox/out", &Value::Null);
    wait_until("the endpoint is gone", || server.items("/endpoints").is_empty());
}
