//! A real localserve, set up for one case, and what it uses.

use std::io::{BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postledger::clock::Clock;
use postledger::ledger::{Ledger, Options};
use postledger_events::command::{AddHoldRule, ConfigureTransport};
use postledger_events::fact::account::{TransportSettings, TransportTls};
use postledger_events::fact::job::HoldMatch;
use postledger_events::id::{Author, TransportName};
use postledger_events::time::Timestamp;

use super::load::read_answer;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_postledger");
pub const TRANSPORT: &str = "default";
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(5);
const CONNECTIONS: u32 = 20;
pub const ADMIN: &str = "admin:moxadmin";
pub const USER: &str = "mox@localhost:moxmoxmox";
/// Clock ticks of /proc/PID/stat in a second: fixed in what Linux shows to programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// Where a server's mail goes.
#[derive(Clone, Copy)]
pub enum Next {
    /// Nowhere: all is on hold.
    Hold,
    Hop(SocketAddr),
}

/// The signatures of the mail that it accepts.
#[derive(Clone, Copy)]
pub enum Keys {
    Ed25519,
    Both,
}

pub struct Server {
    child: Child,
    ip: IpAddr,
    pub started_in: Duration,
}

/// What it has used since it started.
pub struct Usage {
    pub cpu_ms: f64,
    pub syncs: f64,
    pub operations: f64,
}

impl Usage {
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            cpu_ms: self.cpu_ms - before.cpu_ms,
            syncs: self.syncs - before.syncs,
            operations: self.operations - before.operations,
        }
    }
}

impl Server {
    /// On what is in this directory.
    pub fn start(dir: &Path) -> Server {
        let ip = address_of(dir);
        let mut command = Command::new(PROGRAM);
        command.args(["localserve", "--ip", &ip.to_string(), "--dir"]).arg(dir);
        // It logs as a service does, to a reader of its own: that is part of what it costs. A file beside the ledger would be
        // part of each sync.
        let began = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the program starts");
        let mut log = child.stderr.take().expect("a pipe");
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let mut server = Server { child, ip, started_in: Duration::ZERO };
        server.wait_up();
        server.started_in = began.elapsed();
        server
    }

    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 1080)
    }

    pub fn usage(&self) -> Usage {
        let counted = |name| self.metric(name);
        let (syncs, operations) =
            (counted("postledger_ledger_commits_total"), counted("postledger_ledger_operations_total"));
        Usage { cpu_ms: cpu_ms(self.child.id()), syncs, operations }
    }

    /// What its slowest batch has taken.
    pub fn stall_ms(&self) -> f64 {
        self.metric("postledger_ledger_commit_microseconds_max") / 1000.0
    }

    pub fn resident_mib(&self) -> f64 {
        status_mib(self.child.id(), "VmRSS:").expect("it runs")
    }

    /// Signs with these from now on; a new one has Ed25519 alone.
    pub fn sign_with(&self, keys: Keys) {
        match keys {
            Keys::Ed25519 => {}
            Keys::Both => {
                self.api("POST", "/domains/localhost/dkim", r#"{"selector":"rsa","algorithm":"rsa-sha256"}"#);
            }
        }
    }

    /// One reverse-path for all recipients of a message, so that they share transactions.
    pub fn without_fromids(&self) {
        self.api("PATCH", "/accounts/mox", r#"{"fromid_logins":[]}"#);
    }

    /// Asks the native API as the operator, over a connection of its own.
    pub fn api(&self, method: &str, path: &str, body: &str) -> String {
        self.asker(ADMIN).ask(method, path, body)
    }

    /// Somebody who asks one thing after the other.
    pub fn asker(&self, login: &'static str) -> Asker {
        let stream = TcpStream::connect(self.http()).expect("a connection");
        stream.set_nodelay(true).expect("a socket option");
        let answers = BufReader::new(stream.try_clone().expect("a second handle"));
        Asker { stream, answers, http: self.http(), login }
    }

    /// As an operator stops it.
    pub fn stop(mut self) {
        let told = Command::new("kill").arg(self.child.id().to_string()).status().expect("kill runs");
        assert!(told.success(), "it still runs");
        self.child.wait().expect("its end");
    }

    fn metric(&self, name: &str) -> f64 {
        let metrics = get(SocketAddr::new(self.ip, 1081), "/metrics").expect("the metrics");
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|n| n.trim().parse().ok()).unwrap_or_else(|| panic!("{name} is counted"))
    }

    fn wait_up(&mut self) {
        let end = Instant::now() + PATIENCE;
        while !get(self.http(), "/readyz").is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            assert!(self.child.try_wait().expect("its state").is_none(), "the server has ended");
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

pub struct Asker {
    stream: TcpStream,
    answers: BufReader<TcpStream>,
    http: SocketAddr,
    login: &'static str,
}

impl Asker {
    pub fn ask(&mut self, method: &str, path: &str, body: &str) -> String {
        let (user, length) = (BASE64_STANDARD.encode(self.login), body.len());
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {user}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
            self.http
        );
        self.stream.write_all(request.as_bytes()).expect("the request is taken");
        read_answer(&mut self.answers)
    }
}

/// User and system time of a process and all its threads.
fn cpu_ms(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The name in parentheses may hold spaces; user and system time are fields 14 and 15.
    let fields = stat.rsplit_once(") ").expect("a name").1;
    let ticks: f64 = fields.split(' ').skip(11).take(2).map(|n| n.parse::<f64>().expect("a number")).sum();
    ticks / TICKS_PER_SECOND * 1000.0
}

/// A line of /proc/PID/status; `None`: the process has ended.
pub fn status_mib(pid: u32, name: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
    Some(kib?.parse::<f64>().ok()? / 1024.0)
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

/// Makes a ledger in the directory that knows where its mail goes.
pub fn set_up(dir: &Path, next: Next) {
    let by = Author("bench".to_owned());
    let command = match next {
        Next::Hop(addr) => {
            let settings = TransportSettings {
                host: addr.ip().to_string(),
                port: addr.port(),
                tls: TransportTls::None,
                credentials: None,
                connections_max: CONNECTIONS,
            };
            let transport = TransportName::new(TRANSPORT).expect("a constant name is valid");
            postledger_events::Command::ConfigureTransport(ConfigureTransport { transport, settings, by })
        }
        Next::Hold => postledger_events::Command::AddHoldRule(AddHoldRule { matching: HoldMatch::default(), by }),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let ledger = open(dir);
        ledger.submit(command).await.expect("it is taken");
        ledger.close().await.expect("it closes");
    });
}

/// The ledger of a server that does not run.
pub fn open(dir: &Path) -> Ledger {
    Ledger::open(Options { create: true, ..Options::new(dir) }, Clock::system()).expect("a ledger that opens")
}

/// The address that this directory's server listens on: what it once was it stays.
fn address_of(dir: &Path) -> IpAddr {
    static TAKEN: AtomicU8 = AtomicU8::new(1);
    let kept = std::fs::read_to_string(dir.join("bench.ip")).ok().and_then(|text| text.parse().ok());
    kept.unwrap_or_else(|| {
        let [.., a, b] = std::process::id().to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(127, a.max(1), b, TAKEN.fetch_add(1, Ordering::Relaxed)));
        std::fs::write(dir.join("bench.ip"), ip.to_string()).expect("a file");
        ip
    })
}

fn get(addr: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(addr).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
