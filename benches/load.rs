//! Clients that send as fast as they are answered, each over a connection of its own that stays open.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postledger_events::time::Timestamp;

use super::server::USER;

pub const DOMAINS: u64 = 20;
/// A multiple of the domains.
const PEOPLE: u64 = 1_000_000;
pub const SMALL_BYTES: usize = 4 * 1024;
/// Of the text, with its line end.
const LINE_BYTES: usize = 72;

#[derive(Clone, Copy)]
pub struct Load {
    pub http: SocketAddr,
    pub clients: usize,
    pub text_bytes: usize,
    /// Of each message.
    pub recipients: u64,
    /// Not delivered before.
    pub due: Option<Timestamp>,
    /// All clients together end after this many.
    pub messages_max: u64,
}

/// What was accepted.
pub struct Sent {
    latencies: Vec<Duration>,
}

impl Sent {
    pub fn count(&self) -> u64 {
        self.latencies.len() as u64
    }

    pub fn percentile_ms(&self, percent: usize) -> f64 {
        percentile_ms(&self.latencies, percent)
    }
}

/// Of durations in their order.
pub fn percentile_ms(sorted: &[Duration], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len() - 1);
    sorted[at].as_secs_f64() * 1000.0
}

impl Load {
    /// Messages of 4 KB to one recipient, all of them at once.
    pub fn small(http: SocketAddr, clients: usize) -> Load {
        Load { http, clients, text_bytes: SMALL_BYTES, recipients: 1, due: None, messages_max: u64::MAX }
    }

    /// Sends for this long.
    pub fn run(&self, time: Duration) -> Sent {
        let (end, taken) = (Instant::now() + time, AtomicU64::new(0));
        let mut latencies: Vec<Duration> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..self.clients).map(|_| scope.spawn(|| self.client(end, &taken))).collect();
            clients.into_iter().flat_map(|client| client.join().expect("a client that comes through")).collect()
        });
        latencies.sort_unstable();
        Sent { latencies }
    }

    fn client(&self, end: Instant, taken: &AtomicU64) -> Vec<Duration> {
        let mut stream = TcpStream::connect(self.http).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        let mut answers = BufReader::new(stream.try_clone().expect("a second handle"));
        let (head, tail) = (self.head(), self.tail());
        let mut latencies = Vec::new();
        while Instant::now() < end {
            let number = taken.fetch_add(1, Ordering::Relaxed);
            if number >= self.messages_max {
                break;
            }
            let request = self.request(&head, &tail, number);
            let began = Instant::now();
            stream.write_all(&request).expect("the request is taken");
            read_answer(&mut answers);
            latencies.push(began.elapsed());
        }
        latencies
    }

    fn head(&self) -> String {
        format!(
            "POST /webapi/v0/Send HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n",
            self.http,
            BASE64_STANDARD.encode(USER)
        )
    }

    /// The request after the address.
    fn tail(&self) -> String {
        let line = "x".repeat(LINE_BYTES - 1) + "\\n";
        let due = self.due.map_or(String::new(), |due| format!(",\"FutureRelease\":\"{due}\""));
        let text = line.repeat(self.text_bytes / LINE_BYTES);
        form_encode(&format!("\"}}],\"Subject\":\"A measured message\",\"Text\":\"{text}\"{due}}}"))
    }

    fn request(&self, head: &str, tail: &str, number: u64) -> Vec<u8> {
        let first = number * self.recipients;
        let addresses: Vec<String> = (first..first + self.recipients).map(address).collect();
        let start = form_encode(&format!("{{\"To\":[{{\"Address\":\"{}", addresses.join("\"},{\"Address\":\"")));
        let length = "request=".len() + start.len() + tail.len();
        format!("{head}Content-Length: {length}\r\n\r\nrequest={start}{tail}").into_bytes()
    }
}

/// One of a million.
pub fn address(number: u64) -> String {
    format!("user{}@domain{}.example", number % PEOPLE, number % DOMAINS)
}

/// Reads one answer, which must be a success.
pub fn read_answer(answers: &mut impl BufRead) -> String {
    let (mut line, mut length, mut ok) = (String::new(), 0, false);
    loop {
        line.clear();
        answers.read_line(&mut line).expect("an answer");
        ok |= line.starts_with("HTTP/1.1 2");
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse().expect("a number");
            }
            Some(_) => {}
            None if line.trim_end().is_empty() => break,
            None => {}
        }
    }
    let mut body = vec![0; length];
    answers.read_exact(&mut body).expect("the whole answer");
    let body = String::from_utf8(body).expect("text");
    assert!(ok, "not accepted: {body}");
    body
}

fn form_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => encoded.push(char::from(byte)),
            b' ' => encoded.push('+'),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}
