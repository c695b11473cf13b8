//! `localserve`, `serve`, `quickstart`: what starts a server, or makes one ready.

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::builder::RangedU64ValueParser;
use postledger_events::address::{Address, Domain};
use postledger_events::id::AccountName;
use tracing_subscriber::EnvFilter;

use super::error::Error;
use crate::run;

/// The storage engine says much at info that concerns its own authors.
const LOG_DEFAULT: &str = "info,fjall=warn,lsm_tree=warn";

/// Run everything on this machine, for trying things out: mail goes to its own listener, whoever it is for
#[derive(Debug, Args)]
#[command(after_help = LOCALSERVE_EXAMPLES)]
pub struct Localserve {
    /// Listen on this address instead of 127.0.0.1 and ::1
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Divide all waits between attempts by N
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = RangedU64ValueParser::<u32>::new().range(1..))]
    retry_scale: u32,
    #[command(flatten)]
    server: Server,
}

const LOCALSERVE_EXAMPLES: &str = "\
Examples:
  postledger localserve
  postledger localserve --dir trial --ip 127.0.0.2 --retry-scale 100
  postledger localserve --log debug

Log in as mox@localhost with password moxmoxmox; webapi at http://localhost:1080/webapi/v0/, SMTP at port 1025.";

/// Run the server that the directory is configured for
#[derive(Debug, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct Serve {
    #[command(flatten)]
    server: Server,
}

const SERVE_EXAMPLES: &str = "\
Examples:
  postledger serve --dir /var/lib/postledger
  postledger serve --dir /var/lib/postledger --log debug

`postledger quickstart` makes the directory.";

/// Write a configuration, and make the first domain and account of a real host
#[derive(Debug, Args)]
#[command(after_help = QUICKSTART_EXAMPLES)]
pub struct Quickstart {
    /// The first address; its domain is the first domain
    address: Address,
    /// The name of this host in the DNS
    #[arg(long)]
    hostname: Domain,
    /// The first account
    #[arg(long, default_value = "main")]
    account: AccountName,
}

const QUICKSTART_EXAMPLES: &str = "\
Examples:
  postledger quickstart --dir /var/lib/postledger --hostname mail.example.org shop@example.org
  postledger serve --dir /var/lib/postledger";

#[derive(Debug, Args)]
struct Server {
    /// The clock is right although it differs much from the last record's time
    #[arg(long)]
    accept_clock: bool,
    /// What to log on standard error: error, warn, info, debug, or parts such as postledger::deliver=debug
    #[arg(long, default_value = LOG_DEFAULT, value_name = "FILTER", value_parser = filter)]
    log: String,
}

impl Localserve {
    pub fn run(self, dir: PathBuf) -> Result<ExitCode, Error> {
        let Localserve { ip, retry_scale, server: Server { accept_clock, log } } = self;
        serve(log, run::localserve::run(run::localserve::Request { dir, ip, retry_scale, accept_clock }))
    }
}

impl Serve {
    pub fn run(self, dir: PathBuf) -> Result<ExitCode, Error> {
        let Server { accept_clock, log } = self.server;
        serve(log, run::serve::run(run::serve::Request { dir, accept_clock }))
    }
}

impl Quickstart {
    pub fn run(self, dir: PathBuf) -> Result<ExitCode, Error> {
        let Quickstart { address, hostname, account } = self;
        serve("warn".to_owned(), run::quickstart::run(run::quickstart::Request { dir, hostname, address, account }))
    }
}

/// A filter is refused before anything starts.
fn filter(s: &str) -> Result<String, String> {
    EnvFilter::try_new(s).map(|_| s.to_owned()).map_err(|e| e.to_string())
}

fn serve(log: String, server: impl Future<Output = Result<(), run::Error>>) -> Result<ExitCode, Error> {
    let colours = std::io::stderr().is_terminal();
    let log = EnvFilter::new(log);
    tracing_subscriber::fmt().with_env_filter(log).with_ansi(colours).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Runtime::new().map_err(Error::Runtime)?;
    runtime.block_on(server)?;
    Ok(ExitCode::SUCCESS)
}
