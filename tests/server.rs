//! A real localserve for a test: on an address and in a directory of its own, stopped when the test ends.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// How long anything may take that a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const GLANCE: Duration = Duration::from_millis(20);

/// A directory that has this file is that of a real server.
const CONFIGURATION: &str = "postledger.toml";

pub const USER: &str = "mox@localhost";
pub const PASSWORD: &str = "moxmoxmox";
pub const ADMIN: &str = "admin";
pub const ADMIN_PASSWORD: &str = "moxadmin";

pub struct Server {
    pub ip: IpAddr,
    home: Home,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    child: Option<Child>,
}

/// Where a server keeps its data.
enum Home {
    /// Gone when the test ends.
    Own(tempfile::TempDir),
    /// The test's business.
    Given { dir: PathBuf, log: PathBuf },
}

impl Server {
    /// Starts localserve with these arguments more, and waits until it is up.
    pub fn start(args: &[&str]) -> Server {
        let dir = tempfile::tempdir().expect("a directory");
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let mut server = Server { ip: new_ip(), home: Home::Own(dir), args, environment: Vec::new(), child: None };
        server.restart();
        server
    }

    /// One that is not started yet, on a directory that the test keeps; the program's log goes elsewhere.
    pub fn on(dir: &Path, log: &Path, ip: IpAddr, args: &[&str]) -> Server {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        let home = Home::Given { dir: dir.to_owned(), log: log.to_owned() };
        Server { ip, home, args, environment: Vec::new(), child: None }
    }

    /// What the next starts find in their environment, in place of what they found before.
    pub fn set_environment(&mut self, variables: &[(&str, &str)]) {
        self.environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// From the next start on it is a real server with these settings, on the addresses that localserve had.
    pub fn set_configuration(&mut self, settings: &str) {
        let (http, metrics) = (self.http(), self.metrics());
        let text = format!(
            "hostname = \"mail.example.org\"\n[[http]]\nlisten = \"{http}\"\n[metrics]\nlisten = \"{metrics}\"\n{settings}\n"
        );
        std::fs::write(self.dir().join(CONFIGURATION), text).expect("it is written");
    }

    /// Starts it again on the same directory, and waits until it is up.
    pub fn restart(&mut self) {
        self.spawn();
        self.wait_up();
    }

    /// Starts it without waiting.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let log = std::fs::File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = if self.dir().join(CONFIGURATION).exists() {
            self.command(&["serve"])
        } else {
            self.command(&["localserve", "--ip", &self.ip.to_string()])
        };
        command
            .args(&self.args)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.child = Some(command.spawn().expect("the program starts"));
    }

    pub fn wait_up(&mut self) {
        let (http, log) = (self.http(), self.log_path());
        let child = self.child.as_mut().expect("it was started");
        wait_until("the server is up", || {
            if let Some(status) = child.try_wait().expect("its state") {
                panic!("the server ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            }
            TcpStream::connect_timeout(&http, Duration::from_secs(1)).is_ok() && get(http, "/readyz").status == 200
        });
    }

    /// Stops it as an operator does, and waits for its end.
    pub fn stop(&mut self) {
        self.signal("TERM");
        let mut child = self.child.take().expect("it runs");
        wait_until("the server has stopped", || child.try_wait().expect("its state").is_some());
    }

    /// Stops it in the middle of whatever it does.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("its end");
    }

    /// Whether it runs no more, though nobody stopped it.
    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| child.try_wait().expect("its state").is_some())
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs");
        assert!(status.success());
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn dir(&self) -> &Path {
        match &self.home {
            Home::Own(dir) => dir.path(),
            Home::Given { dir, .. } => dir,
        }
    }

    pub fn log_path(&self) -> PathBuf {
        match &self.home {
            Home::Own(dir) => dir.path().join("test.log"),
            Home::Given { log, .. } => log.clone(),
        }
    }

    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 1080)
    }

    pub fn smtp(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 1025)
    }

    pub fn metrics(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 1081)
    }

    /// The program on this server's directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postledger"));
        command.args(args).arg("--dir").arg(self.dir());
        command
    }

    /// Runs the command line and expects it to succeed; answers what it printed.
    pub fn cli(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(args).output().expect("the program runs");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{args:?} ended with {status}\n{stdout}\n{stderr}");
        stdout
    }

    /// What a command prints with `--json`.
    pub fn cli_json(&self, args: &[&str]) -> serde_json::Value {
        let printed = self.cli(&[args, &["--json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{args:?} printed no JSON ({e}):\n{printed}"))
    }

    /// All records, as `events export` prints them.
    pub fn events(&self) -> Vec<serde_json::Value> {
        let printed = self.cli(&["events", "export"]);
        printed.lines().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
    }

    /// A call of the webapi as the account of localserve.
    pub fn webapi(&self, method: &str, request: &serde_json::Value) -> Response {
        webapi(self.http(), USER, PASSWORD, method, request)
    }

    /// A call of the native API as the administrator, which must succeed.
    pub fn api(&self, method: &str, path: &str, request: &serde_json::Value) -> Response {
        let response = self.try_api(method, path, request);
        assert!((200..300).contains(&response.status), "{method} {path}: {} {}", response.status, response.text());
        response
    }

    pub fn try_api(&self, method: &str, path: &str, request: &serde_json::Value) -> Response {
        native(self.http(), method, path, request).expect("an answer")
    }

    /// The items of a list of the native API.
    pub fn items(&self, path: &str) -> Vec<serde_json::Value> {
        let answer = self.api("GET", path, &serde_json::Value::Null).json();
        answer["items"].as_array().expect("items").clone()
    }

    /// Records of these kinds (separated by commas), as the native API exports them.
    pub fn records(&self, kinds: &str) -> Vec<serde_json::Value> {
        let exported = self.api("GET", &format!("/events/export?kind={kinds}"), &serde_json::Value::Null).text();
        exported.lines().map(|line| serde_json::from_str(line).expect("a record is JSON")).collect()
    }

    /// What a counter or gauge without labels says.
    pub fn metric(&self, name: &str) -> f64 {
        let metrics = get(self.metrics(), "/metrics").text();
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in:\n{metrics}")).parse().expect("a number")
    }

    /// Sends a message and answers its QueueMsgIDs.
    pub fn send(&self, request: &serde_json::Value) -> Vec<u64> {
        let response = self.webapi("Send", request);
        assert_eq!(response.status, 200, "{}", response.text());
        let answer = response.json();
        let submissions = answer["Submissions"].as_array().expect("submissions");
        submissions.iter().map(|s| s["QueueMsgID"].as_u64().expect("a number")).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

pub fn get(addr: SocketAddr, path: &str) -> Response {
    try_get(addr, path).expect("an answer")
}

/// Like [`get`], but the server may be gone.
pub fn try_get(addr: SocketAddr, path: &str) -> std::io::Result<Response> {
    exchange(addr, format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n").as_bytes())
}

/// A call of the webapi in the form that most clients use.
pub fn webapi(addr: SocketAddr, user: &str, password: &str, method: &str, request: &serde_json::Value) -> Response {
    try_webapi(addr, user, password, method, request).expect("an answer")
}

/// Like [`webapi`], but the server may be gone in the middle.
pub fn try_webapi(
    addr: SocketAddr,
    user: &str,
    password: &str,
    method: &str,
    request: &serde_json::Value,
) -> std::io::Result<Response> {
    let body = format!("request={}", form_encode(&request.to_string()));
    let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let head = format!(
        "POST /webapi/v0/{method} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Basic {auth}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    exchange(addr, [head.as_bytes(), body.as_bytes()].concat().as_slice())
}

/// A call of the native API as the administrator of localserve; the server may be gone in the middle.
pub fn native(addr: SocketAddr, method: &str, path: &str, request: &serde_json::Value) -> std::io::Result<Response> {
    let body = if request.is_null() { String::new() } else { request.to_string() };
    let auth = BASE64_STANDARD.encode(format!("{ADMIN}:{ADMIN_PASSWORD}"));
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nHost: {addr}\r\nAuthorization: Basic {auth}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    exchange(addr, request.as_bytes())
}

/// Sends raw bytes and reads the answer to its end. A connection that ends without an answer is an error.
pub fn exchange(addr: SocketAddr, request: &[u8]) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes, !request.starts_with(b"HEAD "))
        .ok_or_else(|| std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no whole answer"))
}

/// Reads a whole answer; the one to HEAD has no body, whatever its fields say.
pub fn parse(bytes: &[u8], has_body: bool) -> Option<Response> {
    let split = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..split]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned()))
        .collect();
    let length =
        headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("content-length")).and_then(|(_, v)| v.parse().ok());
    let chunked = headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("transfer-encoding"));
    let body = &bytes[split + 4..];
    let body = if chunked { unchunk(body)? } else { body.to_vec() };
    if has_body && length.is_some_and(|length: usize| body.len() < length) {
        return None;
    }
    Some(Response { status, headers, body })
}

fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line]).ok()?.trim(), 16).ok()?;
        bytes = &bytes[line + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(..size)?);
        bytes = bytes.get(size + 2..)?;
    }
}

pub fn form_encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Looks again and again until it holds; fails the test when patience is over.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(GLANCE);
    }
}

/// A loopback address that no other test has, so that every server can have the usual ports.
pub fn new_ip() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [.., a, b] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, a.max(1), b, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// The answer to a message from the first to the second of these, if the server lives to give it.
pub fn arrives(smtp: SocketAddr, [from, to]: [&str; 2], message: &str) -> std::io::Result<String> {
    let stream = TcpStream::connect(smtp)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut replies = BufReader::new(stream.try_clone()?).lines();
    let mut reply = |sent: &str| {
        (&stream).write_all(sent.as_bytes())?;
        loop {
            let line = replies.next().ok_or(ErrorKind::UnexpectedEof)??;
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    };
    let envelope = [format!("MAIL FROM:<{from}>\r\n"), format!("RCPT TO:<{to}>\r\n")];
    for sent in ["", "EHLO x.example\r\n", &envelope[0], &envelope[1], "DATA\r\n"] {
        reply(sent)?;
    }
    reply(&format!("{message}.\r\n"))
}
