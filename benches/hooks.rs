//! Telling endpoints: calls that wait, beside an endpoint that hangs; a history that is told again; streams with nothing to say.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::history::grow;
use super::probe::Probes;
use super::receiver::{Receiver, hanging};
use super::server::{ADMIN, Next, Server, scratch, set_up};
use super::table::{Asked, Line, Table};

/// Messages that are told of in one turn; each endpoint gets a call for each.
const MESSAGES: u64 = 15_000;
const ENDPOINTS: u64 = 4;
/// With and without an endpoint that hangs, in turn, so that what else the machine does meets both.
const TURNS: u32 = 3;
/// Calls that go before the time is taken.
const WARM_UP: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(600);
const RATE_ASKED: f64 = 5_000.0;
const CPU_ASKED_MS: f64 = 0.25;
const SHARE_MIN: f64 = 0.95;
/// Records that a replay walks over, three of each message.
const REPLAYED: f64 = 1_000_000.0;
const REPLAY_CONCURRENCY: u32 = 32;
const STREAMS: usize = 1_000;
const STREAMS_MIB_MAX: f64 = 50.0;

struct Told {
    rate: f64,
    cpu_ms: f64,
}

/// Calls of four endpoints that wait when the server starts.
pub fn calls(probes: &Probes, table: &mut Table) {
    let (mut alone, mut beside) = (Told { rate: 0.0, cpu_ms: 0.0 }, Told { rate: 0.0, cpu_ms: 0.0 });
    for _ in 0..TURNS {
        for (told, with_hanging) in [(&mut alone, false), (&mut beside, true)] {
            let turn = turn(with_hanging);
            told.rate += turn.rate / f64::from(TURNS);
            told.cpu_ms += turn.cpu_ms / f64::from(TURNS);
        }
    }
    let Told { rate, cpu_ms } = alone;
    let figures =
        format!("{rate:.0}/s (asked: ≥ {RATE_ASKED}), {cpu_ms:.3} ms of CPU each (asked: ≤ {CPU_ASKED_MS} ms)");
    let case = "calls of 4 endpoints".to_owned();
    let ratio = cpu_ms / probes.ed25519_ms;
    table.add(Line { case, ratio, of: "an Ed25519 signature", asked: Asked::Nothing, figures });
    let figures = format!("{:.0}/s after {rate:.0}/s", beside.rate);
    let case = "the same beside an endpoint that hangs".to_owned();
    table.add(Line { case, ratio: beside.rate / rate, of: "without it", asked: Asked::AtLeast(SHARE_MIN), figures });
}

fn turn(with_hanging: bool) -> Told {
    let (home, receiver) = (scratch(), Receiver::start());
    let hanging = with_hanging.then(hanging);
    prepare(home.path(), |server| {
        for n in 0..ENDPOINTS {
            add(server, &format!("works{n}"), &receiver.url(), None);
        }
        if let Some(url) = &hanging {
            add(server, "hangs", url, None);
        }
    });
    grow(home.path(), MESSAGES, 0);
    let server = Server::start(home.path());
    receiver.wait_for(WARM_UP, PATIENCE);
    let (before, from, began) = (receiver.count(), server.usage(), Instant::now());
    receiver.wait_for(MESSAGES * ENDPOINTS, PATIENCE);
    let calls = (receiver.count() - before) as f64;
    let (took, used) = (began.elapsed(), server.usage().since(&from));
    Told { rate: calls / took.as_secs_f64(), cpu_ms: used.cpu_ms / calls }
}

/// An endpoint that is told of a history from before it was there.
pub fn replay(scale: f64, probes: &Probes, table: &mut Table) {
    let (home, receiver) = (scratch(), Receiver::start());
    prepare(home.path(), |_| {});
    let records = REPLAYED * scale;
    grow(home.path(), (records / 3.0) as u64, 0);
    let server = Server::start(home.path());
    add(&server, "new", &receiver.url(), Some(REPLAY_CONCURRENCY));
    let (from, began) = (server.usage(), Instant::now());
    server.api("POST", "/endpoints/mox/new/replays", r#"{"from":1}"#);
    while !server.api("GET", "/replays", "").contains(r#""state":"done""#) {
        assert!(began.elapsed() < PATIENCE, "{} calls were made", receiver.count());
        std::thread::sleep(Duration::from_millis(100));
    }
    let (took, used, calls) = (began.elapsed(), server.usage().since(&from), receiver.count() as f64);
    let (rate, cpu_ms) = (calls / took.as_secs_f64(), used.cpu_ms / calls);
    let figures = format!("{calls:.0} calls at {rate:.0}/s (asked: ≥ {RATE_ASKED}), {cpu_ms:.3} ms of CPU each");
    let case = format!("replay of {records:.0} records");
    let ratio = cpu_ms / probes.ed25519_ms;
    table.add(Line { case, ratio, of: "an Ed25519 signature", asked: Asked::Nothing, figures });
}

/// What open streams of records take in memory.
pub fn streams(table: &mut Table) {
    let home = scratch();
    set_up(home.path(), Next::Hold);
    let server = Server::start(home.path());
    let _first = stream(&server);
    let before = server.resident_mib();
    let open: Vec<BufReader<TcpStream>> = (0..STREAMS).map(|_| stream(&server)).collect();
    let mib = server.resident_mib() - before;
    let case = format!("memory of {} idle streams", open.len());
    let figures = format!("{mib:.0} MiB (asked: ≤ {STREAMS_MIB_MAX} MiB)");
    table.add(Line { case, ratio: mib / STREAMS_MIB_MAX, of: "what is asked", asked: Asked::AtMost(1.0), figures });
}

/// A stream of records that never come, once it is open.
fn stream(server: &Server) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.http()).expect("a connection");
    let user = BASE64_STANDARD.encode(ADMIN);
    let request = format!(
        "GET /api/v1/events/stream?kind=KeyRevoked HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {user}\r\n\r\n",
        server.http()
    );
    stream.write_all(request.as_bytes()).expect("the request is taken");
    let (mut answer, mut line) = (BufReader::with_capacity(512, stream), String::new());
    answer.read_line(&mut line).expect("an answer");
    assert!(line.starts_with("HTTP/1.1 200"), "{line}");
    answer
}

/// The domain, account and address of a localserve, and what `with` adds.
fn prepare(dir: &Path, with: impl FnOnce(&Server)) {
    set_up(dir, Next::Hop(([127, 0, 0, 1], 9).into()));
    let server = Server::start(dir);
    with(&server);
    server.stop();
}

fn add(server: &Server, name: &str, url: &str, concurrency: Option<u32>) {
    let concurrency = concurrency.map_or(String::new(), |n| format!(r#","concurrency_max":{n}"#));
    let settings = format!(r#"{{"direction":"outgoing","url":"{url}"{concurrency}}}"#);
    server.api("PUT", &format!("/endpoints/mox/{name}"), &settings);
}
