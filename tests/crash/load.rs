//! Mixed load, and what was asked and answered: messages with small and large contents, with and without a key; suppressions;
//! holds, releases and cancellations of what was just sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postledger_events::id::DeliveryId;
use serde_json::json;

use super::dice::Dice;
use crate::server::{PASSWORD, Response, USER, exchange, form_encode, native, try_webapi, wait_until};

const CLIENTS: u64 = 6;
/// What a text is made of.
pub const LINE: &str = "All work and no play.\n";
/// How the address begins that a client has suppressed before it sends there.
const SUPPRESSED: &str = "suppressed";

/// A message; its subject tells it from all others.
#[derive(Clone, Debug)]
pub struct Request {
    pub subject: String,
    pub key: Option<String>,
    pub recipients: Vec<String>,
    pub lines: usize,
}

impl Request {
    fn new(subject: String, suppressed: Option<String>, dice: &mut Dice) -> Request {
        let recipients = (0..=dice.below(5)).map(|n| recipient(&subject, n, dice)).chain(suppressed).collect();
        let key = dice.one_in(2).then(|| format!("key-{subject}"));
        // Above 32 KiB a body is a file of its own.
        let lines = if dice.one_in(6) { 1_800 + dice.below(1_800) } else { 5 + dice.below(180) };
        Request { subject, key, recipients, lines: usize::try_from(lines).expect("a small number") }
    }

    /// An error: the server went before it answered.
    pub fn send(&self, to: SocketAddr) -> std::io::Result<Response> {
        let people: Vec<_> = self.recipients.iter().map(|a| json!({ "Address": a })).collect();
        let body = json!({ "To": people, "Subject": self.subject, "Text": LINE.repeat(self.lines) }).to_string();
        let body = format!("request={}", form_encode(&body));
        let auth = BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"));
        let key = self.key.iter().map(|key| format!("Idempotency-Key: {key}\r\n")).collect::<String>();
        let head = format!(
            "POST /webapi/v0/Send HTTP/1.1\r\nHost: {to}\r\nAuthorization: Basic {auth}\r\n{key}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        exchange(to, [head.as_bytes(), body.as_bytes()].concat().as_slice())
    }
}

fn recipient(subject: &str, n: u64, dice: &mut Dice) -> String {
    let order = match dice.below(20) {
        0 => "temperror",
        1 => "permerror",
        _ => "",
    };
    format!("to{n}for{subject}{order}@d{}.example", dice.below(4))
}

/// Of the message that this address was made for.
pub fn subject_of(address: &str) -> &str {
    let localpart = address.split('@').next().unwrap_or_default();
    let subject = localpart.split_once("for").map_or(localpart, |(_, subject)| subject);
    subject.trim_end_matches("temperror").trim_end_matches("permerror")
}

/// Whether nothing may be sent to this address: it was suppressed before.
pub fn is_suppressed(address: &str) -> bool {
    address.starts_with(SUPPRESSED)
}

/// What is done with a delivery that was just accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    Hold,
    Release,
    Cancel,
}

impl Action {
    fn word(self) -> &'static str {
        match self {
            Action::Hold => "hold",
            Action::Release => "release",
            Action::Cancel => "cancel",
        }
    }
}

/// What became of something that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nobody knows.
    Unanswered,
    Acknowledged,
}

/// All that was asked, and what was answered.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Begins every subject.
    pub name: String,
    /// By subject.
    pub asked: BTreeMap<String, Request>,
    /// By subject: the answers with status 200.
    pub answered: BTreeMap<String, Vec<u8>>,
    /// By address.
    pub suppressions: BTreeMap<String, Asked>,
    pub actions: BTreeMap<(DeliveryId, Action), Asked>,
    /// Answers that are neither a yes nor a "not now".
    pub surprises: BTreeSet<String>,
}

impl Sent {
    pub fn acknowledged(&self) -> u64 {
        let others = self.suppressions.values().chain(self.actions.values());
        (self.answered.len() + others.filter(|asked| **asked == Asked::Acknowledged).count()) as u64
    }
}

/// Clients that send as fast as they are answered, whether the server is there or not.
pub struct Load {
    shared: Arc<Shared>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

struct Shared {
    to: SocketAddr,
    done: AtomicBool,
    answers: AtomicU64,
    /// Since the power was cut, no answer counts.
    cut: AtomicBool,
    sent: Mutex<Sent>,
}

impl Load {
    /// The name must be unlike that of any other load of the same sink.
    pub fn start(to: SocketAddr, name: &str, seed: u64) -> Load {
        let sent = Mutex::new(Sent { name: name.to_owned(), ..Sent::default() });
        let (done, answers, cut) = (AtomicBool::new(false), AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { to, done, answers, cut, sent });
        let client = |n: u64| {
            let (shared, name) = (Arc::clone(&shared), format!("{name}c{n}"));
            std::thread::spawn(move || Client { shared, name, dice: Dice::new(seed ^ (n + 1)) }.run())
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load { shared, clients }
    }

    /// Acknowledged so far.
    pub fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Lets every client come to the end of what it is at, or give it up if the server is gone.
    pub fn finish(mut self) -> Sent {
        self.shared.done.store(true, Ordering::Relaxed);
        for client in std::mem::take(&mut self.clients) {
            client.join().expect("no client failed");
        }
        self.shared.sent().clone()
    }

    /// Cuts the power: what was answered before counts, and nothing after until [`Load::resume`].
    pub fn cut(&self, cut: impl FnOnce()) {
        // No answer is written down while this is held.
        let _sent = self.shared.sent();
        self.shared.cut.store(true, Ordering::Relaxed);
        cut();
    }

    pub fn resume(&self) {
        self.shared.cut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Load {
    /// A test that failed needs no load any more.
    fn drop(&mut self) {
        self.shared.done.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn sent(&self) -> MutexGuard<'_, Sent> {
        self.sent.lock().expect("no client failed")
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Writes down a yes, if it counts.
    fn acknowledge(&self, write_down: impl FnOnce(&mut Sent)) {
        let mut sent = self.sent();
        if !self.cut.load(Ordering::Relaxed) {
            self.answers.fetch_add(1, Ordering::Relaxed);
            write_down(&mut sent);
        }
    }

    /// The server is gone, or going.
    fn wait_back(&self, answer: std::io::Result<Response>) {
        if let Ok(answer) = answer
            && answer.status != 503
        {
            self.sent().surprises.insert(format!("{} {}", answer.status, answer.text()));
        }
        let is_back = || TcpStream::connect_timeout(&self.to, Duration::from_secs(1)).is_ok();
        wait_until("the server is back", || self.is_done() || is_back());
    }
}

struct Client {
    shared: Arc<Shared>,
    name: String,
    dice: Dice,
}

impl Client {
    fn run(mut self) {
        for n in 0.. {
            if self.shared.is_done() {
                return;
            }
            let subject = format!("{}n{n}", self.name);
            let suppressed = if self.dice.one_in(12) { self.suppress(&subject) } else { None };
            let request = Request::new(subject, suppressed, &mut self.dice);
            self.shared.sent().asked.insert(request.subject.clone(), request.clone());
            if let Some(first) = self.send(&request)
                && self.dice.one_in(6)
            {
                self.interfere(first);
            }
        }
    }

    /// With a key it is sent until it is answered; without, nobody could say whether it was accepted.
    fn send(&self, request: &Request) -> Option<DeliveryId> {
        loop {
            match request.send(self.shared.to) {
                Ok(answer) if answer.status == 200 => {
                    let first = answer.json()["Submissions"][0]["QueueMsgID"].as_u64().map(DeliveryId);
                    let subject = request.subject.clone();
                    self.shared.acknowledge(|sent| _ = sent.answered.insert(subject, answer.body));
                    return first;
                }
                answer => self.shared.wait_back(answer),
            }
            if request.key.is_none() || self.shared.is_done() {
                return None;
            }
        }
    }

    /// Answers the address if nothing may go there any more.
    fn suppress(&self, subject: &str) -> Option<String> {
        let address = format!("{SUPPRESSED}for{subject}@d0.example");
        self.shared.sent().suppressions.insert(address.clone(), Asked::Unanswered);
        let request = json!({ "EmailAddress": address, "Manual": true, "Reason": subject });
        match try_webapi(self.shared.to, USER, PASSWORD, "SuppressionAdd", &request) {
            Ok(answer) if answer.status == 200 => {
                self.shared.acknowledge(|sent| _ = sent.suppressions.insert(address.clone(), Asked::Acknowledged));
                Some(address)
            }
            answer => {
                self.shared.wait_back(answer);
                None
            }
        }
    }

    fn interfere(&mut self, delivery: DeliveryId) {
        if self.dice.one_in(2) {
            self.act(delivery, Action::Cancel);
        } else {
            self.act(delivery, Action::Hold);
            self.act(delivery, Action::Release);
        }
    }

    fn act(&self, delivery: DeliveryId, action: Action) {
        self.shared.sent().actions.insert((delivery, action), Asked::Unanswered);
        let request = json!({ "action": action.word(), "filter": { "ids": [delivery.0] } });
        match native(self.shared.to, "POST", "/queue", &request) {
            // It may have ended before: then there is nothing to remember.
            Ok(answer) if answer.status == 200 && answer.json()["affected"] == 0 => {}
            Ok(answer) if answer.status == 200 => {
                self.shared.acknowledge(|sent| _ = sent.actions.insert((delivery, action), Asked::Acknowledged));
            }
            answer => self.shared.wait_back(answer),
        }
    }
}
