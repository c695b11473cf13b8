//! Why a command did not do what was asked, in a line for the person who asked.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use postledger_web::api::problem::Details;

use crate::{ledger, run};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The server understood and said no.
    #[error("{}", .0.detail)]
    Refused(Details),
    #[error("{0}")]
    Directory(#[from] run::Error),
    #[error(
        "{0}. Start a server first (`postledger localserve` or `postledger quickstart`), or name its directory with --dir"
    )]
    NoLedger(ledger::open::Error),
    #[error("{0}")]
    Ledger(#[from] ledger::open::Error),
    #[error("{0}")]
    Part(#[from] ledger::import::Error),
    #[error("{0}")]
    Restore(#[from] ledger::restore::Error),
    #[error("{0}")]
    Repair(#[from] ledger::repair::Error),
    #[error("the server at {} does not answer: {why}", path.display())]
    Socket { path: PathBuf, why: String },
    #[error("the server broke off its answer: {0}")]
    Broken(String),
    #[error("the server's answer cannot be read, so it may be of another version: {0}")]
    Answer(String),
    #[error("{}: {}", .0.display(), .1)]
    File(PathBuf, io::Error),
    #[error("the password cannot be read: {0}")]
    Password(io::Error),
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
    #[error("this process cannot start its tasks: {0}")]
    Runtime(io::Error),
    #[error("{0}")]
    Failed(String),
}

impl Error {
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Error::Usage(_) => ExitCode::from(2),
            _ if self.is_silent() => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// Whoever read the output has seen enough, as in `postledger events export | head`.
    pub fn is_silent(&self) -> bool {
        matches!(self, Error::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }
}
