//! The server that is maltreated: how it is made ready, started against the clock, and brought to rest.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use postledger::clock::Clock;
use postledger::ledger::{Ledger, Options};
use postledger_events::Command;
use postledger_events::command::ConfigureTransport;
use postledger_events::fact::account::{TransportSettings, TransportTls};
use postledger_events::id::{Author, TransportName};
use serde_json::json;

use super::account::Work;
use crate::server::{PATIENCE, Server};
use crate::sink::Sink;

/// Waits between attempts are divided by this, so that what is in doubt is tried again within a test.
pub const RETRY_SCALE: &[&str] = &["--retry-scale", "9000"];
/// Between two looks at a port, when every millisecond counts.
const BLINK: Duration = Duration::from_millis(1);
/// Between two looks at what is still open.
const GLANCE: Duration = Duration::from_millis(50);

/// Makes a ledger whose mail goes to the sink, and stops it.
pub fn prepare(server: &mut Server, sink: &Sink) {
    server.restart();
    server.stop();
    configure(server.dir(), sink.addr);
}

fn configure(dir: &Path, sink: SocketAddr) {
    let ledger = Ledger::open(Options::new(dir), Clock::system()).expect("the ledger opens");
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

/// Starts it; answers how long it took until the port accepts, or what it said when it refused.
pub fn recover(server: &mut Server) -> Result<Duration, String> {
    let start = Instant::now();
    server.spawn();
    while TcpStream::connect(server.http()).is_err() {
        if server.has_ended() {
            return Err(last_words(server));
        }
        assert!(start.elapsed() < PATIENCE, "the server neither starts nor ends:\n{}", last_words(server));
        std::thread::sleep(BLINK);
    }
    Ok(start.elapsed())
}

/// The end of its log.
pub fn last_words(server: &Server) -> String {
    let log = std::fs::read_to_string(server.log_path()).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// Whether every delivery came to its outcome.
pub enum Drained {
    Wholly,
    /// What is still open after a long time.
    Stuck(String),
}

impl Drained {
    pub fn work(&self) -> Work {
        match self {
            Drained::Wholly => Work::AllDone,
            Drained::Stuck(_) => Work::MayBeOpen,
        }
    }

    pub fn stuck(self) -> Option<String> {
        match self {
            Drained::Wholly => None,
            Drained::Stuck(open) => Some(format!("stuck: {open}")),
        }
    }
}

/// Waits until every delivery has its outcome; what a crash left on hold is let go.
pub fn drain(server: &Server) -> Drained {
    let end = Instant::now() + PATIENCE;
    while server.metric("postledger_queue_open") > 0.0 {
        if Instant::now() > end {
            let open = server.items("/queue");
            return Drained::Stuck(open.iter().take(5).map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        }
        if server.metric("postledger_queue_held") > 0.0 {
            server.api("POST", "/queue", &json!({ "action": "release", "filter": { "held": true } }));
        }
        std::thread::sleep(GLANCE);
    }
    Drained::Wholly
}

/// Looks without a pause, so that not even a millisecond passes between the condition and what comes next.
pub fn spin_until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::yield_now();
    }
}
