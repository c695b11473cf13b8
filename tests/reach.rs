//! How endpoints are reached: over TLS that is verified, through a proxy if one is configured and only then, and never longer or
//! for more than a call may take; an endpoint that asks for time gets it.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use postledger_events::time::Timestamp;
use serde_json::{Value, json};

use crate::server::{Server, wait_until};
use crate::tls::Authority;
use crate::webhooks::{Answer, Receiver, add, send, verify};

/// A server that trusts this authority.
fn trusting(authority: &Authority) -> Server {
    let mut server = Server::start(&[]);
    server.stop();
    server.set_environment(&[authority.environment()]);
    server.restart();
    server
}

/// Calls an endpoint with an invented event; answers what came of it.
fn call(server: &Server, name: &str) -> Value {
    server.api("POST", &format!("/endpoints/mox/{name}/test"), &Value::Null).json()
}

/// Fails if the call did, or did for another reason.
fn fails(outcome: &Value, why: &[&str]) {
    let error = outcome["error"].as_str().unwrap_or_else(|| panic!("no error in {outcome}"));
    assert!(why.iter().all(|why| error.contains(why)), "{error}, without {why:?}");
    assert_eq!(outcome["status"], 0, "{outcome}");
}

/// The last attempt of the only call of an endpoint, when there is one.
fn last(server: &Server, name: &str) -> Value {
    let calls = || server.items(&format!("/endpoints/mox/{name}/calls"));
    wait_until("the call was made", || calls().first().is_some_and(|call| !call["last"].is_null()));
    calls()[0]["last"].clone()
}

#[test]
fn a_certificate_must_be_the_right_one() {
    let authority = Authority::new();
    let server = trusting(&authority);
    let host = "127.0.0.1";
    let right = Receiver::start_tls(Answer::Status(200), authority.certify(host));
    let other_name = Receiver::start_tls(Answer::Status(200), authority.certify("127.0.0.2"));
    let other_authority = Receiver::start_tls(Answer::Status(200), Authority::new().certify(host));
    let plain = Receiver::start(Answer::Status(200));
    let outgoing = |url: String| json!({"direction": "outgoing", "url": url});

    let secret = add(&server, "right", &outgoing(right.url("/hook")));
    send(&server, "you@example.org");
    assert_eq!((&last(&server, "right")["status"], &last(&server, "right")["error"]), (&json!(200), &Value::Null));
    verify(&secret, &right.got()[0]);

    add(&server, "name", &outgoing(other_name.url("/")));
    fails(&call(&server, "name"), &["TLS cannot be used", "certificate", "127.0.0.2"]);
    add(&server, "authority", &outgoing(other_authority.url("/")));
    fails(&call(&server, "authority"), &["TLS cannot be used", "certificate", "UnknownIssuer"]);
    add(&server, "plain", &outgoing(plain.url("/").replace("http:", "https:")));
    fails(&call(&server, "plain"), &["TLS cannot be used"]);
    // What is queued fails for the same reason, and is tried again.
    send(&server, "you@example.org");
    assert!(last(&server, "authority")["error"].as_str().is_some_and(|e| e.contains("UnknownIssuer")));
    assert_eq!(server.items("/endpoints/mox/authority/calls?phase=waiting").len(), 1);
    for receiver in [other_name, other_authority, plain] {
        assert_eq!(receiver.got().len(), 0, "nothing is said to whom nobody knows");
    }
}

#[test]
fn an_endpoint_gets_the_time_it_asks_for() {
    let server = Server::start(&[]);
    let day_s = 24 * 3600;
    // With a wait of our own of a minute, and what becomes of it.
    for (name, asked, expect_s) in [("hours", "7200", 7200), ("years", "99999999", day_s), ("nothing", "soon", 0)] {
        let receiver = Receiver::start(Answer::Later(asked));
        add(&server, name, &json!({"direction": "outgoing", "url": receiver.url("/"), "retry_waits_s": [60]}));
        send(&server, &format!("{name}@example.org"));
        assert_eq!(last(&server, name)["status"], 429);
        let attempts = server.records("CallsAttempted");
        let record = attempts.iter().find(|record| record["data"]["endpoint"] == name).expect("the record");
        let result = &record["data"]["results"][0];
        let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok()).expect("a time");
        let ended =
            time(&result["started"]) + std::time::Duration::from_micros(result["took_us"].as_u64().expect("µs"));
        let (next, asked) = (time(&result["outcome"]["deferred"]), ended + std::time::Duration::from_secs(expect_s));
        if expect_s > 0 {
            assert_eq!(next, asked, "{result}");
        } else {
            assert!(next > asked && next.since(asked).as_secs() < 120, "{result}");
        }
        let waiting = &server.items(&format!("/endpoints/mox/{name}/calls?phase=waiting"))[0];
        assert_eq!(time(&waiting["due"]), next, "{waiting}");
        server.api("DELETE", &format!("/endpoints/mox/{name}"), &Value::Null);
    }
}

#[test]
fn no_answer_takes_longer_or_more_than_it_may() {
    let server = Server::start(&[]);
    let try_out = |name: &str, answer: Answer| {
        let receiver = Receiver::start(answer);
        let limits = json!({"direction": "outgoing", "url": receiver.url("/"), "connect_timeout_s": 1, "timeout_s": 1});
        add(&server, name, &limits);
        let outcome = call(&server, name);
        wait_until("the connection is cut", || receiver.cut() == 1);
        outcome
    };
    // Of a good answer the status alone counts, and the beginning is kept.
    let (ok, field) = ("HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nX-Long: ");
    for (name, answer) in [("drips", Answer::Drip { head: ok }), ("floods", Answer::Endless { head: ok })] {
        let outcome = try_out(name, answer);
        assert_eq!((&outcome["status"], &outcome["error"]), (&json!(200), &Value::Null), "{outcome}");
        let kept = outcome["response"].as_str().map(str::len);
        assert!(kept.is_some_and(|bytes| (1..=512).contains(&bytes)), "{outcome}");
    }
    fails(&try_out("drips-head", Answer::Drip { head: field }), &["no answer within 1 s"]);
    fails(&try_out("floods-head", Answer::Endless { head: field }), &["the connection broke", "too large"]);
}

/// An HTTP proxy that only tunnels, and remembers where to.
#[derive(Clone)]
struct Proxy {
    addr: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    answer: Arc<Mutex<&'static str>>,
}

impl Proxy {
    fn start() -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("its address");
        let proxy = Proxy { addr, asked: Arc::default(), answer: Arc::new(Mutex::new("200 there you are")) };
        let serving = proxy.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        proxy
    }

    fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    /// The first lines of all requests.
    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no test failed").clone()
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let request = lines.first().cloned().unwrap_or_default();
        self.asked.lock().expect("no test failed").push(request.clone());
        let answer = *self.answer.lock().expect("no test failed");
        stream.write_all(format!("HTTP/1.1 {answer}\r\n\r\n").as_bytes())?;
        if !answer.starts_with('2') {
            return Ok(());
        }
        let to = request.split(' ').nth(1).unwrap_or_default();
        let mut there = TcpStream::connect(to)?;
        let (mut back, mut from_there) = (stream, there.try_clone()?);
        std::thread::spawn(move || std::io::copy(&mut from_there, &mut back));
        std::io::copy(&mut reader, &mut there)?;
        there.shutdown(std::net::Shutdown::Write)
    }
}

#[test]
fn a_proxy_is_used_if_it_is_configured_and_only_then() {
    let (authority, proxy, from_environment) = (Authority::new(), Proxy::start(), Proxy::start());
    let plain = Receiver::start(Answer::Status(200));
    let secure = Receiver::start_tls(Answer::Status(200), authority.certify("127.0.0.1"));
    let impostor = Receiver::start_tls(Answer::Status(200), Authority::new().certify("127.0.0.1"));
    let mut server = Server::start(&[]);
    let receivers = [("plain", &plain), ("secure", &secure), ("impostor", &impostor)];
    for (name, receiver) in receivers {
        add(&server, name, &json!({"direction": "outgoing", "url": receiver.url("/hook")}));
    }
    add(&server, "private", &json!({"direction": "outgoing", "url": "http://10.0.0.1/"}));
    let url = from_environment.url();
    let variables = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];
    let variables = variables.map(|name| (name, url.as_str()));
    server.set_environment(&[&variables[..], &[authority.environment()]].concat());
    let allowed = "[webhook]\nallow_networks = [\"127.0.0.0/8\"]";
    for (settings, through) in [(allowed.to_owned(), 0), (format!("{allowed}\nproxy = \"{}\"", proxy.url()), 1)] {
        server.stop();
        server.set_configuration(&settings);
        server.restart();
        for (name, receiver) in [("plain", &plain), ("secure", &secure)] {
            let before = (receiver.got().len(), proxy.asked().len());
            let outcome = call(&server, name);
            assert_eq!((&outcome["status"], &outcome["error"]), (&json!(200), &Value::Null), "{outcome}");
            assert_eq!(receiver.got().len(), before.0 + 1);
            assert_eq!(receiver.got()[before.0].path, "/hook");
            let asked = vec![format!("CONNECT {} HTTP/1.1", receiver.addr); through];
            assert_eq!(proxy.asked()[before.1..], asked);
        }
        fails(&call(&server, "impostor"), &["UnknownIssuer"]);
        let before = proxy.asked().len();
        fails(&call(&server, "private"), &["network that calls must not go to"]);
        assert_eq!(proxy.asked().len(), before, "a proxy is no way around what is forbidden");
    }
    assert_eq!(from_environment.asked(), [""; 0], "what the environment says of proxies is not meant for calls");

    server.stop();
    *proxy.answer.lock().expect("no test failed") = "403 not there";
    server.restart();
    fails(&call(&server, "plain"), &["the proxy", "403 not there"]);
}
