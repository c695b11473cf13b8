//! What starts in which order, and how it stops.

mod doors;
pub mod localserve;
pub mod quickstart;
pub mod serve;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use postledger_events::fact::account::RetrySchedule;
use postledger_events::id::{Author, Seq};
use postledger_web::api::tail::Tail;
use postledger_web::{INTAKE_KIB_MAX, LocalUser};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::certificate;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::credentials::Credentials;
use crate::credentials::password::Hashed;
use crate::jobs;
use crate::ledger::{self, Ledger, Options};
use crate::program::Program;
use crate::submit::Submitter;
use crate::webhook::Caller;
use crate::webhook::client;
use crate::webhook::target::Allowed;

/// The control socket, below the directory of the server.
pub const SOCKET: &str = "control.sock";
/// The hash of the administrator's password, below the directory of the server.
pub const ADMIN_PASSWORD: &str = "adminpasswd";

/// Why a server does not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Config(#[from] config::Error),
    #[error("{0}")]
    Open(#[from] ledger::open::Error),
    #[error("{0}")]
    Ledger(#[from] ledger::Error),
    #[error("{0}")]
    Certificate(#[from] certificate::Error),
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    File(PathBuf, std::io::Error),
    #[error("{0}")]
    Socket(#[from] std::io::Error),
    #[error("{0}")]
    Setup(String),
}

/// A ledger that was opened by this process alone, with the API that a server would serve.
pub struct Embedded {
    pub router: Router,
    ledger: Ledger,
    stop: CancellationToken,
    jobs: JoinHandle<()>,
}

impl Embedded {
    /// Leaves a directory that opens without questions.
    pub async fn close(self) -> Result<(), Error> {
        drop(self.router);
        self.stop.cancel();
        self.jobs.await.map_err(|e| Error::Setup(e.to_string()))?;
        Ok(self.ledger.close().await?)
    }
}

/// Opens the directory in this process, for when no server runs on it. Needs a runtime around it.
pub fn embedded(dir: &Path) -> Result<Embedded, Error> {
    let clock = Clock::system();
    let config = match Config::load(dir) {
        Ok(config) => Some(config),
        Err(config::Error::Missing(_)) => None,
        Err(e) => return Err(e.into()),
    };
    let settings = Settings::of(config.as_ref())?;
    let ledger = Ledger::open(settings.options(dir, None), clock.clone())?;
    let program = settings.program(ledger.clone(), clock, None);
    let stop = program.stop.clone();
    // What a command leaves to a job is done while it waits; no mail is delivered.
    let jobs = tokio::spawn(jobs::run(ledger.clone(), stop.clone()));
    Ok(Embedded { router: doors::local_router(program), ledger, stop, jobs })
}

/// How a ledger is opened and mail is made, from the configuration or localserve's defaults.
struct Settings {
    hostname: String,
    message_bytes_max: u64,
    retry: RetrySchedule,
    retry_scale: u32,
    reply_rules: Arc<crate::decide::classify::Rules>,
    webhook: client::Settings,
    /// `None`: as the ledger does by itself.
    upkeep: Option<Upkeep>,
}

/// How a ledger looks after itself.
struct Upkeep {
    verify_every: Option<Duration>,
    free_bytes_min: u64,
}

impl Settings {
    fn of(config: Option<&Config>) -> Result<Settings, Error> {
        let Some(config) = config else {
            return Ok(Settings {
                hostname: localserve::HOSTNAME.to_owned(),
                message_bytes_max: postledger_web::MESSAGE_BYTES_MAX,
                retry: RetrySchedule::contract(),
                retry_scale: 1,
                reply_rules: Arc::new(crate::decide::classify::Rules::shipped()),
                webhook: client::Settings { allowed: Allowed::loopback(), proxy: None },
                upkeep: None,
            });
        };
        Ok(Settings {
            hostname: config.hostname.to_string(),
            message_bytes_max: config.message_bytes_max,
            retry: config.retry_waits_s.clone(),
            retry_scale: 1,
            reply_rules: config.reply_rules()?,
            webhook: config.webhook(),
            upkeep: Some(Upkeep {
                verify_every: (config.verify_hours > 0)
                    .then(|| Duration::from_secs(u64::from(config.verify_hours) * 3600)),
                free_bytes_min: config.free_bytes_min,
            }),
        })
    }

    fn options(&self, dir: &Path, accept_clock: Option<Author>) -> Options {
        let options = Options::new(dir);
        let upkeep = self.upkeep.as_ref();
        Options {
            verify_every: upkeep.map_or(options.verify_every, |upkeep| upkeep.verify_every),
            free_bytes_min: upkeep.map_or(options.free_bytes_min, |upkeep| upkeep.free_bytes_min),
            retry: self.retry.clone(),
            retry_scale: self.retry_scale,
            reply_rules: Arc::clone(&self.reply_rules),
            accept_clock,
            progress: Arc::new(|p| {
                let (tables, done, end) = (p.tables.join(", "), p.done, p.end);
                // A new ledger makes its tables out of nothing.
                if end != Seq::default() {
                    tracing::info!("rebuilding {tables}: record {done} of {end}");
                }
            }),
            ..options
        }
    }

    fn program(&self, ledger: Ledger, clock: Clock, admin: Option<Hashed>) -> Arc<Program> {
        let (hostname, size) = (self.hostname.clone(), self.message_bytes_max);
        Arc::new(Program {
            credentials: Credentials::new(clock.clone(), admin),
            submitter: Submitter::new(ledger.clone(), clock.clone(), hostname, size),
            retry: self.retry.clone(),
            retry_scale: self.retry_scale,
            tail: Tail::default(),
            stop: CancellationToken::new(),
            caller: Arc::new(Caller::new(ledger.clone(), clock.clone(), self.webhook.clone())),
            ledger,
            clock,
        })
    }
}

/// Room for the message bytes of all doors together.
fn intake() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(INTAKE_KIB_MAX))
}

/// The user that this process runs as.
pub fn this_user() -> LocalUser {
    // The numbers of this process are always there to read.
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("/proc is mounted"));
    LocalUser(crate::http::user_name(uid))
}

/// Who a command line says it is.
pub fn command_line_author() -> Author {
    Author(format!("unix:{}", this_user().0))
}

fn admin_password(dir: &Path) -> Result<Option<Hashed>, Error> {
    let path = dir.join(ADMIN_PASSWORD);
    match std::fs::read(&path) {
        Ok(bytes) => {
            let hashed = Hashed::from_bytes(&bytes);
            hashed
                .map(Some)
                .ok_or_else(|| Error::Setup(format!("{} is damaged: remove it and run quickstart", path.display())))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::File(path, e)),
    }
}

fn write_admin_password(dir: &Path, hashed: &Hashed) -> Result<(), Error> {
    let path = dir.join(ADMIN_PASSWORD);
    crate::files::write_private(&path, &hashed.to_bytes()).map_err(|e| Error::File(path, e))
}
