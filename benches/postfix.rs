//! A Postfix of its own, in a directory of its own, with the default configuration of its Debian package.
//!
//! Set are only where it keeps its files, where it listens, that it relays everything, and that it does not look up the
//! names of its clients, which would cost it time.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::server::scratch;

const PORT: u16 = 25;
const PATIENCE: Duration = Duration::from_secs(20);
const GLANCE: Duration = Duration::from_millis(20);
/// As the package ships it.
const MASTER_CF: &str = "/usr/share/postfix/master.cf.dist";
const MAIN_CF_DEBIAN: &str = "/usr/share/postfix/main.cf.debian";
const MAIN_CF: &str = "
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
relayhost = {next}
smtpd_peername_lookup = no
";

pub struct Postfix {
    ip: IpAddr,
    dir: tempfile::TempDir,
}

impl Postfix {
    /// Relays everything to this next hop.
    pub fn start(next: SocketAddr) -> Postfix {
        let [.., a, b] = std::process::id().to_be_bytes();
        let ip = IpAddr::V4(Ipv4Addr::new(127, a.max(1), b, 250));
        let postfix = Postfix { ip, dir: scratch() };
        postfix.configure(next);
        postfix.control("start");
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect(postfix.addr()).is_err() {
            assert!(Instant::now() < end, "Postfix does not listen: {}", postfix.log());
            std::thread::sleep(GLANCE);
        }
        postfix
    }

    pub fn addr(&self) -> SocketAddr {
        SocketAddr::new(self.ip, PORT)
    }

    fn configure(&self, next: SocketAddr) {
        // Its processes run as several users, who all have to get in.
        std::fs::set_permissions(self.dir.path(), PermissionsExt::from_mode(0o755)).expect("permissions");
        for folder in ["etc", "queue", "data"] {
            std::fs::create_dir(self.path(folder)).expect("a folder");
        }
        let owner = Command::new("chown").arg("postfix").arg(self.path("data")).status().expect("chown runs");
        assert!(owner.success(), "tests/install-peers.sh installs Postfix; it needs root");
        let shipped = |path: &str| std::fs::read_to_string(path).expect("the package's configuration");
        let next = format!("[{}]:{}", next.ip(), next.port());
        let ours = MAIN_CF.replace("{dir}", &self.path("").display().to_string()).replace("{next}", &next);
        std::fs::write(self.path("etc/main.cf"), shipped(MAIN_CF_DEBIAN) + &ours).expect("a file");
        let listens = |line: &str| match line.strip_prefix("smtp      inet") {
            Some(rest) => format!("{}:{PORT} inet{rest}\n", self.ip),
            None => format!("{line}\n"),
        };
        let master: String = shipped(MASTER_CF).lines().map(listens).collect();
        std::fs::write(self.path("etc/master.cf"), master).expect("a file");
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
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let stop = Command::new("postfix").arg("-c").arg(self.path("etc")).arg("stop").stderr(Stdio::null()).status();
        // While the bench is failing, its own words matter more.
        assert!(std::thread::panicking() || stop.is_ok_and(|status| status.success()), "Postfix does not stop");
    }
}
