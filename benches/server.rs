//! A real localserve, set up for one case, and what it uses.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postledger::clock::Clock;
use postledger::ledger::{Ledger, Options};
use postledger_events::command::{AddHoldRule, ConfigureTransport};
use postledger_events::fact::account::{TransportSettings, TransportTls};
use postledger_events::fact::job::HoldMatch;
use postledger_events::id::{Author, TransportName};
use postledger_events::time::Timestamp;

const PATIENCE: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_millis(10);
const CONNECTIONS: u32 = 20;
/// Clock ticks of /proc/PID/stat in a second: fixed in what Linux shows to programs.
const TICKS_PER_SECOND: f64 = 100.0;

pub struct Server {
    child: Child,
    ip: IpAddr,
    _dir: tempfile::TempDir,
}

/// What it has used since it started.
pub struct Usage {
    pub cpu_ms: f64,
    pub syncs: f64,
}

impl Usage {
    pub fn since(&self, before: &Usage) -> Usage {
        Usage { cpu_ms: self.cpu_ms - before.cpu_ms, syncs: self.syncs - before.syncs }
    }
}

impl Server {
    /// Delivers to this next hop; without one, all mail is on hold.
    pub fn start(next_hop: Option<SocketAddr>) -> Server {
        let dir = scratch();
        set_up(dir.path(), next_hop);
        let [.., a, b] = std::process::id().to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(127, a.max(1), b, if next_hop.is_some() { 2 } else { 1 }));
        let mut command = Command::new(env!("CARGO_BIN_EXE_postledger"));
        command.args(["localserve", "--ip", &ip.to_string(), "--dir"]).arg(dir.path());
        // It logs as a server in use does: that is part of what it costs.
        let log = std::fs::File::create(dir.path().join("bench.log")).expect("a log file");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        let child = child.expect("the program starts");
        let server = Server { child, ip, _dir: dir };
        server.wait_up();
        server
    }

    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 1080)
    }

    pub fn usage(&self) -> Usage {
        let metrics = get(SocketAddr::new(self.ip, 1081), "/metrics").expect("the metrics");
        let syncs = metrics.lines().find_map(|line| line.strip_prefix("postledger_ledger_commits_total "));
        let syncs = syncs.and_then(|n| n.trim().parse().ok()).expect("the commits are counted");
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
        let fields = stat.rsplit_once(") ").expect("a name").1;
        let ticks: f64 = fields.split(' ').skip(11).take(2).map(|n| n.parse::<f64>().expect("a number")).sum();
        Usage { cpu_ms: ticks / TICKS_PER_SECOND * 1000.0, syncs }
    }

    fn wait_up(&self) {
        let end = Instant::now() + PATIENCE;
        while !get(self.http(), "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(Instant::now() < end, "the server does not come up");
            std::thread::sleep(GLANCE);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory on the disk that is built on, gone when it is dropped.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

pub fn now() -> Timestamp {
    Clock::system().now()
}

pub fn sleep_until(moment: Timestamp) {
    std::thread::sleep(moment.since(now()));
}

fn set_up(dir: &std::path::Path, next_hop: Option<SocketAddr>) {
    let by = Author("bench".to_owned());
    let command = match next_hop {
        Some(addr) => {
            let settings = TransportSettings {
                host: addr.ip().to_string(),
                port: addr.port(),
                tls: TransportTls::None,
                credentials: None,
                connections_max: CONNECTIONS,
            };
            let transport = TransportName::new("default").expect("a constant name is valid");
            postledger_events::Command::ConfigureTransport(ConfigureTransport { transport, settings, by })
        }
        None => postledger_events::Command::AddHoldRule(AddHoldRule { matching: HoldMatch::default(), by }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = Options { create: true, ..Options::new(dir) };
        let ledger = Ledger::open(options, Clock::system()).expect("a new ledger");
        ledger.submit(command).await.expect("it is taken");
        ledger.close().await.expect("it closes");
    });
}

fn get(addr: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
