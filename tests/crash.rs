//! What was acknowledged is there after the process was killed at any moment, arrives, and arrives once but for attempts in doubt.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postledger::clock::Clock;
use postledger::ledger::verify::{Scope, verify};
use postledger::ledger::{Ledger, Options};
use postledger_events::command::ConfigureTransport;
use postledger_events::fact::account::{TransportSettings, TransportTls};
use postledger_events::fact::attempt::Failure;
use postledger_events::id::{Author, DeliveryId, TransportName};
use postledger_events::{Command, Event, Record};
use serde_json::json;

use crate::server::{PASSWORD, Response, Server, USER, exchange, form_encode, get, wait_until};
use crate::sink::{Sink, refusal};

/// Times that the process is killed.
const KILLS: usize = 24;
const CLIENTS: u64 = 6;
/// Waits between attempts are divided by this, so that what is in doubt is tried again within a test.
const RETRY_SCALE: &str = "9000";
/// Set to repeat a run.
const SEED: &str = "POSTLEDGER_TEST_SEED";

#[test]
fn what_was_acknowledged_survives_kill_and_arrives_once() {
    let seed = seed();
    println!("set {SEED}={seed} to repeat this run");
    let mut dice = Dice(seed);
    let sink = Sink::start();
    let mut server = start(&sink);
    let load = Load::start(&server, seed);
    for round in 0..KILLS {
        // Now and then in the middle of a start.
        if round % 6 == 5 {
            let pid = server.pid().to_string();
            wait_until("it holds the directory", || lock_holder(&server) == pid);
        } else {
            server.wait_up();
            let (answers, taken) = (load.answers() + dice.below(40), sink.count() + dice.below(80));
            let by_answers = dice.below(2) == 0;
            if by_answers {
                // Right behind an answer, when whatever it should have waited for is about to happen.
                spin_until("there was an answer", || load.answers() >= answers);
            } else {
                wait_until("there was some load", || sink.count() >= taken);
            }
        }
        server.kill();
        server.spawn();
    }
    server.wait_up();
    let sent = load.finish();
    wait_until("all is delivered", || is_drained(&server));
    check_repeats(&server, &sent);
    server.stop();
    let account = Account::read(&server);
    account.check(&sent, &sink);
    assert!(account.doubts.values().sum::<u32>() > 0, "no kill came in the middle of an attempt; the load is too thin");
    check_ledger(&server);
}

#[test]
fn a_planned_restart_under_load_leaves_nothing_in_doubt() {
    let seed = seed();
    println!("set {SEED}={seed} to repeat this run");
    let sink = Sink::start();
    let mut server = start(&sink);
    let load = Load::start(&server, seed);
    for _ in 0..3 {
        let taken = sink.count() + 30;
        wait_until("there was some load", || sink.count() >= taken);
        server.stop();
        server.restart();
    }
    let sent = load.finish();
    wait_until("all is delivered", || is_drained(&server));
    server.stop();
    let account = Account::read(&server);
    assert_eq!(account.doubts, BTreeMap::new());
    account.check(&sent, &sink);
    check_ledger(&server);
}

#[test]
fn a_second_start_says_who_holds_the_directory() {
    let server = Server::start(&[]);
    let second = server.command(&["localserve", "--ip", &server.ip.to_string()]).output().expect("the program runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success(), "{said}");
    assert!(said.contains(&format!("process {} holds this ledger", server.pid())), "{said}");
    assert_eq!(get(server.http(), "/readyz").status, 200, "the first one goes on");
}

/// Looks without a pause, so that not even a millisecond passes between the condition and what comes next.
fn spin_until(what: &str, holds: impl Fn() -> bool) {
    let end = std::time::Instant::now() + crate::server::PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < end, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// A server whose mail goes to the sink.
fn start(sink: &Sink) -> Server {
    let mut server = Server::start(&["--retry-scale", RETRY_SCALE]);
    server.stop();
    configure(&server, sink.addr);
    server.restart();
    server
}

fn configure(server: &Server, sink: SocketAddr) {
    let ledger = open(server);
    let settings = TransportSettings {
        host: sink.ip().to_string(),
        port: sink.port(),
        tls: TransportTls::None,
        credentials: None,
        connections_max: 10,
    };
    let transport = TransportName::new("default").expect("a valid name");
    let command = Command::ConfigureTransport(ConfigureTransport { transport, settings, by: Author::program() });
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    runtime.block_on(ledger.submit(command)).expect("it is accepted");
    runtime.block_on(ledger.close()).expect("it closes");
}

fn open(server: &Server) -> Ledger {
    Ledger::open(Options::new(server.dir()), Clock::system()).expect("the ledger opens")
}

fn lock_holder(server: &Server) -> String {
    std::fs::read_to_string(server.dir().join("lock")).unwrap_or_default().trim().to_owned()
}

fn is_drained(server: &Server) -> bool {
    get(server.metrics(), "/metrics").text().lines().any(|line| line == "postledger_queue_open 0")
}

fn check_ledger(server: &Server) {
    let scope = Scope { full: true, ..Scope::default() };
    let report = verify(&Options::new(server.dir()), scope, &mut |_, _| {}).expect("it can be verified");
    assert_eq!(report.findings, Vec::<String>::new());
}

fn seed() -> u64 {
    let set = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let nanos = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    set.unwrap_or_else(|| nanos().into())
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }
}

/// A request; its subject tells it from all others.
#[derive(Clone, Debug)]
struct Request {
    subject: String,
    key: Option<String>,
    recipients: Vec<String>,
    text_bytes: usize,
}

impl Request {
    fn new(subject: String, dice: &mut Dice) -> Request {
        let recipients = (0..=dice.below(5)).map(|n| recipient(&subject, n, dice)).collect();
        let key = (dice.below(2) == 0).then(|| format!("key-{subject}"));
        // Above 32 KiB a body is a file of its own.
        let text_bytes = if dice.below(6) == 0 { 40_000 + dice.below(40_000) } else { 100 + dice.below(4000) };
        Request { subject, key, recipients, text_bytes: usize::try_from(text_bytes).expect("a small number") }
    }

    /// An error: the server went before it answered.
    fn send(&self, to: SocketAddr) -> std::io::Result<Response> {
        let people: Vec<_> = self.recipients.iter().map(|a| json!({ "Address": a })).collect();
        let text = "All work and no play.\n".repeat(self.text_bytes / 22);
        let body = json!({ "To": people, "Subject": self.subject, "Text": text }).to_string();
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

/// Clients that send as fast as they are answered, whether the server is there or not.
struct Load {
    shared: Arc<Shared>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    done: AtomicBool,
    answers: AtomicU64,
    sent: Mutex<Sent>,
}

/// By subject.
#[derive(Clone, Debug, Default)]
struct Sent {
    asked: BTreeMap<String, Request>,
    /// The answers with status 200.
    answered: BTreeMap<String, Vec<u8>>,
}

impl Load {
    fn start(server: &Server, seed: u64) -> Load {
        let (shared, http) = (Arc::<Shared>::default(), server.http());
        let client = |n: u64| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || shared.send_on(n, http, Dice(seed ^ (n + 1))))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Load { shared, clients }
    }

    fn answers(&self) -> u64 {
        self.shared.answers.load(Ordering::Relaxed)
    }

    /// Lets every client finish what it is at.
    fn finish(self) -> Sent {
        self.shared.done.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("no client failed");
        }
        self.shared.sent.lock().expect("no client failed").clone()
    }
}

impl Shared {
    fn send_on(&self, client: u64, to: SocketAddr, mut dice: Dice) {
        for n in 0.. {
            if self.done.load(Ordering::Relaxed) {
                return;
            }
            let request = Request::new(format!("c{client}n{n}"), &mut dice);
            self.sent.lock().expect("no client failed").asked.insert(request.subject.clone(), request.clone());
            self.send(&request, to);
        }
    }

    /// With a key it is sent until it is answered; without, nobody could say whether it was accepted.
    fn send(&self, request: &Request, to: SocketAddr) {
        loop {
            if let Ok(response) = request.send(to) {
                // A server that is stopping may say so.
                if response.status == 200 {
                    self.answers.fetch_add(1, Ordering::Relaxed);
                    let mut sent = self.sent.lock().expect("no client failed");
                    sent.answered.insert(request.subject.clone(), response.body);
                    return;
                }
                assert_eq!(response.status, 503, "{}", response.text());
            }
            wait_until("the server is back", || TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok());
            if request.key.is_none() {
                return;
            }
        }
    }
}

fn check_repeats(server: &Server, sent: &Sent) {
    for (subject, answer) in &sent.answered {
        let request = &sent.asked[subject];
        if request.key.is_some() {
            let again = request.send(server.http()).expect("an answer");
            assert_eq!((again.status, &again.body), (200, answer), "{request:?}: {}", again.text());
        }
    }
}

/// What the ledger says of all this.
#[derive(Default)]
struct Account {
    /// By subject: the Message-ID and the deliveries.
    submitted: BTreeMap<String, (String, BTreeMap<DeliveryId, String>)>,
    outcomes: BTreeMap<DeliveryId, Vec<Outcome>>,
    /// Attempts of a delivery that may have arrived although nobody saw the reply.
    doubts: BTreeMap<DeliveryId, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Delivered,
    Failed(Failure),
    Other,
}

impl Account {
    fn read(server: &Server) -> Account {
        let ledger = open(server);
        let snapshot = ledger.snapshot();
        let mut account = Account::default();
        for line in snapshot.records(snapshot.first()..=snapshot.position()) {
            let (_, line) = line.expect("a line");
            account.add(Record::decode(&line).expect("a record").event);
        }
        account
    }

    fn add(&mut self, event: Event) {
        match event {
            Event::MessageSubmitted(e) => {
                let personal = e.personal.expect("nothing was forgotten");
                let addresses = personal.recipients.iter().map(|r| r.address.to_string());
                let deliveries = e.deliveries.iter().map(|d| d.id).zip(addresses).collect();
                let before = self.submitted.insert(personal.subject.clone(), (personal.message_id, deliveries));
                assert_eq!(before, None, "{} was accepted twice", personal.subject);
            }
            Event::Delivered(e) => self.end(e.deliveries.iter().map(|d| (d.id, Outcome::Delivered))),
            Event::DeliveryFailed(e) => self.end(e.deliveries.iter().map(|d| (d.id, Outcome::Failed(d.why)))),
            Event::DeliverySuppressed(e) => self.end(e.deliveries.iter().map(|d| (d.id, Outcome::Other))),
            Event::DeliveryCanceled(e) => self.end(e.deliveries.iter().map(|d| (d.id, Outcome::Other))),
            Event::AttemptInDoubt(e) => self.doubt(e.deliveries.iter().map(|d| d.id)),
            Event::AttemptDeferred(e) => {
                let errors = e.personal.map(|p| p.errors).unwrap_or_default();
                let may_have_arrived = |n: u16| errors[usize::from(n)].contains("may have arrived");
                let doubtful = e.deliveries.iter().filter(|d| d.problem.error.is_some_and(may_have_arrived));
                self.doubt(doubtful.map(|d| d.id));
            }
            _ => {}
        }
    }

    fn end(&mut self, ended: impl Iterator<Item = (DeliveryId, Outcome)>) {
        for (id, outcome) in ended {
            self.outcomes.entry(id).or_default().push(outcome);
        }
    }

    fn doubt(&mut self, doubtful: impl Iterator<Item = DeliveryId>) {
        for id in doubtful {
            *self.doubts.entry(id).or_default() += 1;
        }
    }

    fn check(&self, sent: &Sent, sink: &Sink) {
        for (subject, answer) in &sent.answered {
            self.check_answer(subject, answer);
        }
        let mut taken = sink.taken().clone();
        for (subject, (message_id, deliveries)) in &self.submitted {
            let request = sent.asked.get(subject).unwrap_or_else(|| panic!("nobody submitted {subject:?}"));
            let asked: BTreeSet<_> = request.recipients.iter().collect();
            assert_eq!(deliveries.values().collect::<BTreeSet<_>>(), asked, "{subject} is there in part");
            for (id, address) in deliveries {
                let times = taken.remove(&(message_id.clone(), address.clone())).unwrap_or(0);
                self.check_delivery(*id, address, times);
            }
        }
        assert_eq!(taken, BTreeMap::new(), "arrived, but the ledger knows nothing of it");
    }

    fn check_answer(&self, subject: &str, answer: &[u8]) {
        let answer: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
        let (message_id, deliveries) = self.submitted.get(subject).unwrap_or_else(|| panic!("{subject} was lost"));
        assert_eq!(answer["MessageID"], **message_id);
        let told = answer["Submissions"].as_array().expect("submissions").iter();
        let told: BTreeMap<_, _> = told
            .map(|s| (DeliveryId(s["QueueMsgID"].as_u64().expect("a number")), s["Address"].as_str().expect("text")))
            .collect();
        let kept: BTreeMap<_, _> = deliveries.iter().map(|(id, address)| (*id, address.as_str())).collect();
        assert_eq!(told, kept, "{subject}");
    }

    fn check_delivery(&self, id: DeliveryId, address: &str, times: u32) {
        let outcomes = self.outcomes.get(&id).map(Vec::as_slice).unwrap_or_default();
        let [outcome] = outcomes else { panic!("delivery {id} to {address} has the outcomes {outcomes:?}") };
        let doubts = self.doubts.get(&id).copied().unwrap_or(0);
        let what = format!("delivery {id} to {address} ended as {outcome:?}, {doubts} in doubt, arrived {times} times");
        match (outcome, refusal(address)) {
            (Outcome::Delivered, None) => assert!((1..=1 + doubts).contains(&times), "{what}"),
            (Outcome::Failed(Failure::OutcomeUnknown), None) => assert!(times <= doubts, "{what}"),
            (Outcome::Failed(Failure::Exhausted), Some("451 4.3.0 later")) => assert_eq!(times, 0, "{what}"),
            (Outcome::Failed(Failure::Permanent), Some("550 5.1.1 never")) => assert_eq!(times, 0, "{what}"),
            (Outcome::Failed(Failure::OutcomeUnknown), Some(_)) => assert_eq!(times, 0, "{what}"),
            (Outcome::Delivered | Outcome::Failed(_) | Outcome::Other, _) => panic!("{what}"),
        }
    }
}
