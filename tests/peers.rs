//! Postfix as the next hop: what we hand over arrives once, intact and signed, and each recipient has its own fate.
//!
//! Every test has a Postfix of its own, in a directory of its own. This needs root, as Postfix does.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postledger_events::id::Sha256;
use serde_json::{Value, json};

use crate::server::{Server, new_ip, wait_until};

/// The system's Python, which has the distribution's packages; another one may come first in the path.
pub const PYTHON: &str = "/usr/bin/python3";
/// Who owns the mailboxes.
const NOBODY: u32 = 65534;
const SMTP_PORT: u16 = 25;
const DOMAIN: &str = "peer.example";

/// The services that receiving and storing needs, without the ones that send.
const MASTER_CF: &str = "\
{ip}:25 inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
tlsmgr unix - - n 1000? 1 tlsmgr
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
";

/// Postfix takes only addresses of real interfaces for `inet_interfaces`; the address it listens on is in `master.cf`.
const MAIN_CF: &str = "\
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = peer.example
mydestination =
alias_maps =
alias_database =
mynetworks = 127.0.0.0/8
virtual_mailbox_domains = peer.example
virtual_mailbox_base = {dir}/mail
virtual_mailbox_maps = inline:{ one@peer.example=one/, two@peer.example=two/, three@peer.example=three/ }
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
virtual_minimum_uid = 1
";

const TLS_CF: &str = "\
smtpd_tls_security_level = encrypt
smtpd_tls_cert_file = {dir}/certificate.pem
smtpd_tls_key_file = {dir}/key.pem
";

struct Postfix {
    ip: IpAddr,
    dir: tempfile::TempDir,
}

impl Postfix {
    fn start(tls: bool) -> Postfix {
        let postfix = Postfix { ip: new_ip(), dir: tempfile::tempdir().expect("a directory") };
        postfix.configure(tls);
        postfix.control("start");
        let addr = SocketAddr::new(postfix.ip, SMTP_PORT);
        wait_until("Postfix listens", || TcpStream::connect(addr).is_ok());
        postfix
    }

    fn configure(&self, tls: bool) {
        let fill = |text: &str| text.replace("{dir}", &self.path("").display().to_string());
        let write = |name: &str, text: &str| std::fs::write(self.path(name), text).expect("a file");
        // Its processes run as several users, who all have to get in.
        std::fs::set_permissions(self.dir.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
        for folder in ["etc", "queue", "data", "mail"] {
            std::fs::create_dir(self.path(folder)).expect("a folder");
        }
        let owner = Command::new("chown").arg("postfix").arg(self.path("data")).status().expect("chown runs");
        assert!(owner.success(), "tests/install-peers.sh installs Postfix; it needs root");
        chown(self.path("mail"), Some(NOBODY), Some(NOBODY)).expect("an owner");

        let tls_cf = if tls { fill(TLS_CF) } else { String::new() };
        write("etc/main.cf", &[fill(MAIN_CF), tls_cf].concat());
        write("etc/master.cf", &MASTER_CF.replace("{ip}", &self.ip.to_string()));
        if tls {
            let pair = rcgen::generate_simple_self_signed([DOMAIN.to_owned()]).expect("a certificate");
            write("certificate.pem", &pair.cert.pem());
            write("key.pem", &pair.signing_key.serialize_pem());
        }
    }

    fn control(&self, verb: &str) {
        let mut command = Command::new("postfix");
        command.arg("-c").arg(self.path("etc")).arg(verb).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.stderr(Stdio::null()).status().expect("Postfix is installed");
        assert!(status.success(), "postfix {verb} ended with {status}: {}", self.log());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// What is in the mailbox of this localpart.
    fn mailbox(&self, localpart: &str) -> Vec<Vec<u8>> {
        files(&self.path("mail").join(localpart).join("new"))
            .iter()
            .map(|path| std::fs::read(path).expect("a message"))
            .collect()
    }

    /// Waits until these mailboxes have one message each and Postfix's queue is empty; answers the messages.
    fn one_each(&self, localparts: &[&str]) -> Vec<Vec<u8>> {
        wait_until("Postfix has stored all", || {
            localparts.iter().all(|localpart| !self.mailbox(localpart).is_empty()) && self.queue_is_empty()
        });
        localparts.iter().map(|localpart| one(self.mailbox(localpart), localpart)).collect()
    }

    fn empty(&self, localparts: &[&str]) {
        for localpart in localparts {
            std::fs::remove_dir_all(self.path("mail").join(localpart)).expect("a mailbox");
        }
    }

    fn queue_is_empty(&self) -> bool {
        ["maildrop", "incoming", "active", "deferred"]
            .iter()
            .all(|name| files(&self.path("queue").join(name)).is_empty())
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let stop = Command::new("postfix").arg("-c").arg(self.path("etc")).arg("stop").stderr(Stdio::null()).status();
        // While a test is failing, its own words matter more.
        assert!(std::thread::panicking() || stop.is_ok_and(|status| status.success()), "Postfix does not stop");
    }
}

#[test]
fn postfix_gets_each_message_once_intact_and_signed() {
    let (postfix, server) = (Postfix::start(false), Server::start(&[]));
    let key = json!({"selector": "rsa", "algorithm": "rsa-sha256"});
    server.api("POST", "/domains/localhost/dkim", &key);
    next_hop(&server, &postfix, "none");

    let octets = BASE64_STANDARD.encode((0..=u8::MAX).collect::<Vec<u8>>().repeat(300));
    let messages = [
        json!({"Subject": "plain", "Text": "Dear reader,\n.\n..\n.leading dot\n\nbye\n"}),
        json!({"Subject": "hällo wörld ☺ and so on", "Text": "Grüße aus Köln\nπάντα ῥεῖ\n.\n"}),
        json!({"Subject": "long lines", "Text": format!("{}\n{}\n", "word ".repeat(600), "x".repeat(5000))}),
        json!({"Subject": "several parts", "Text": "see the files\n", "HTML": "<p>see the <b>files</b></p>\n",
            "AttachedFiles": [{"Name": "octets.bin", "ContentType": "application/octet-stream", "Data": octets}],
            "InlineFiles": [{"Name": "dot.png", "ContentType": "image/png", "ContentID": "<dot>", "Data": "iVBORw0K"}]}),
    ];
    for message in messages {
        let mut request = message.clone();
        request["To"] = json!([address("one"), address("two")]);
        request["BCC"] = json!([address("three")]);
        for id in server.send(&request) {
            delivered(&server, id);
        }
        for stored in postfix.one_each(&["one", "two", "three"]) {
            let sent = below_trace(&stored);
            intact(&server, sent.as_bytes());
            as_asked(&message, &read(&server, sent.as_bytes()));
        }
        postfix.empty(&["one", "two", "three"]);
    }
}

#[test]
fn starttls_is_used_and_recorded() {
    let (postfix, server) = (Postfix::start(true), Server::start(&[]));
    next_hop(&server, &postfix, "starttls-unverified");
    let id = server.send(&json!({"To": [address("one")], "Text": "secret"}))[0];
    delivered(&server, id);
    let stored = postfix.one_each(&["one"]);
    assert!(String::from_utf8_lossy(&stored[0]).contains("with ESMTPS"), "{}", String::from_utf8_lossy(&stored[0]));
    let record = one(server.records("Delivered"), "records");
    let tls = &record["data"]["session"]["tls"];
    assert_eq!((&tls["protocol"], &tls["verified"]), (&json!("TLSv1.3"), &json!(false)), "{record}");
    assert!(tls["cipher"].as_str().is_some_and(|cipher| cipher.starts_with("TLS13_")), "{record}");
}

#[test]
fn a_certificate_that_is_asked_for_and_does_not_verify_keeps_the_message_here() {
    let (postfix, server) = (Postfix::start(true), Server::start(&[]));
    next_hop(&server, &postfix, "starttls");
    let id = server.send(&json!({"To": [address("one")], "Text": "secret"}))[0];
    wait_until("an attempt has failed", || {
        state(&server, id)["attempts"] == 1 && state(&server, id)["state"] == "queued"
    });
    assert!(postfix.mailbox("one").is_empty(), "{}", postfix.log());
    assert_eq!(server.records("AttemptDeferred").len(), 1);
}

#[test]
fn a_recipient_that_postfix_refuses_fails_alone() {
    let (postfix, server) = (Postfix::start(false), Server::start(&[]));
    // With one reverse-path for all, they share a transaction.
    server.api("PATCH", "/accounts/mox", &json!({"fromid_logins": []}));
    next_hop(&server, &postfix, "none");
    let ids = server.send(&json!({"To": [address("one"), address("nobody"), address("two")], "Text": "to three"}));
    delivered(&server, ids[0]);
    delivered(&server, ids[2]);
    wait_until("the second has failed", || state(&server, ids[1])["state"] == "failed");
    let refused = state(&server, ids[1]);
    assert_eq!(refused["last_problem"]["code"], 550, "{refused}");
    assert_eq!(refused["last_problem"]["enhanced"], "5.1.1", "{refused}");
    assert!(refused["last_problem"]["text"].as_str().is_some_and(|text| text.contains("User unknown")), "{refused}");
    let started = one(server.records("AttemptStarted"), "records");
    assert_eq!(started["data"]["deliveries"].as_array().map(Vec::len), Some(3), "{started}");
    postfix.one_each(&["one", "two"]);
    let suppressed = server.items("/suppressions?account=mox");
    assert_eq!(one(suppressed, "suppressions")["original_address"], "nobody@peer.example");
}

fn next_hop(server: &Server, postfix: &Postfix, tls: &str) {
    let transport = json!({"host": postfix.ip.to_string(), "port": SMTP_PORT, "tls": tls});
    server.api("PUT", "/transports/default", &transport);
}

fn address(localpart: &str) -> Value {
    json!({"Address": format!("{localpart}@{DOMAIN}")})
}

fn state(server: &Server, id: u64) -> Value {
    server.api("GET", &format!("/queue/{id}"), &Value::Null).json()
}

fn delivered(server: &Server, id: u64) {
    wait_until("the next hop has taken it", || state(server, id)["state"] == "delivered");
}

/// The message as Postfix got it: below the trace fields that it put on top, with the line ends of SMTP.
fn below_trace(stored: &[u8]) -> String {
    let text = std::str::from_utf8(stored).expect("UTF-8").replace("\r\n", "\n");
    let received = text.find("\nReceived: ").expect("Postfix's Received field") + 1;
    let end = received + next_field(&text[received..]).expect("our fields");
    text[end..].replace('\n', "\r\n")
}

/// Where the field after the first one begins.
fn next_field(fields: &str) -> Option<usize> {
    fields.match_indices('\n').map(|(at, _)| at + 1).find(|at| !fields[*at..].starts_with([' ', '\t']))
}

/// Exactly the octets that the ledger says it has for the last submission.
fn intact(server: &Server, sent: &[u8]) {
    let submitted = server.records("MessageSubmitted");
    let body = &submitted.last().expect("a submission")["data"]["body"];
    let digest = Sha256::of(sent).to_string();
    let expected = (&json!(sent.len()), &json!(digest));
    assert_eq!((&body["size"], &body["sha256"]), expected, "{}", String::from_utf8_lossy(sent));
}

/// What Python's packages make of the message.
pub fn read(server: &Server, message: &[u8]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/read_mail.py");
    let mut command = Command::new(PYTHON);
    command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
    for key in server.items("/domains/localhost/dkim") {
        command.arg(key["name"].as_str().expect("a name")).arg(key["record"].as_str().expect("a record"));
    }
    let mut child = command.spawn().expect("tests/install-peers.sh installs Python");
    child.stdin.take().expect("a pipe").write_all(message).expect("it reads");
    let output = child.wait_with_output().expect("its end");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(message));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Both keys have signed, and the contents are those of the request.
fn as_asked(request: &Value, read: &Value) {
    assert_eq!(read["signatures"], json!([true, true]), "{read}");
    assert_eq!(read["defects"], json!([]), "{read}");
    assert_eq!(read["subject"], request["Subject"]);
    assert_eq!(read["text"], request["Text"]);
    assert_eq!(read["html"], request["HTML"]);
    let asked = ["AttachedFiles", "InlineFiles"].iter().filter_map(|key| request[key].as_array()).flatten();
    let files: serde_json::Map<_, _> =
        asked.map(|file| (file["Name"].as_str().expect("a name").to_owned(), file["Data"].clone())).collect();
    assert_eq!(read["files"], Value::Object(files));
}

fn files(folder: &Path) -> Vec<PathBuf> {
    // Postfix creates its folders when it needs them.
    let Ok(entries) = folder.read_dir() else { return Vec::new() };
    entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file()).collect()
}

fn one<T: std::fmt::Debug>(mut all: Vec<T>, what: &str) -> T {
    assert_eq!(all.len(), 1, "{what}: {all:?}");
    all.remove(0)
}
