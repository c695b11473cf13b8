//! `rebuild`: drops rows and makes them anew from the log.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use postledger_projections::PROJECTIONS;

use super::error::Error;
use super::out::Out;
use crate::clock::Clock;
use crate::ledger::{self, Options, Progress};

/// Make the rows of projections anew from the log; the server must not be running
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Rebuild {
    /// Names of projections; without any, those that have changed with the program
    names: Vec<String>,
    /// All of them
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

const EXAMPLES: &str = "\
Examples:
  postledger rebuild --all
  postledger rebuild timeline tally

The log itself is never changed, and the same rows come back.";

impl Rebuild {
    pub fn run(self, dir: &Path, mut out: Out) -> Result<ExitCode, Error> {
        let rebuild = self.which()?;
        let options = Options { rebuild, progress: Arc::new(show), ..Options::new(dir) };
        ledger::rebuild(options, Clock::system())?;
        out.said("rebuilt")?;
        out.finish()?;
        Ok(ExitCode::SUCCESS)
    }

    fn which(self) -> Result<ledger::Rebuild, Error> {
        if let Some(unknown) = self.names.iter().find(|name| !PROJECTIONS.iter().any(|p| p.name == *name)) {
            let known: Vec<&str> = PROJECTIONS.iter().map(|p| p.name).collect();
            return Err(Error::Usage(format!("there is no projection {unknown:?}; there are {}", known.join(", "))));
        }
        Ok(match (self.all, self.names) {
            (true, _) => ledger::Rebuild::All,
            (false, names) if names.is_empty() => ledger::Rebuild::Changed,
            (false, names) => ledger::Rebuild::Named(names),
        })
    }
}

fn show(progress: Progress) {
    eprintln!("rebuilding {}: record {} of {}", progress.tables.join(", "), progress.done, progress.end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        let which = |names: &[&str], all| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Rebuild { names, all }.which().map_err(|e| e.to_string())
        };
        assert_eq!(which(&[], true), Ok(ledger::Rebuild::All));
        assert_eq!(which(&[], false), Ok(ledger::Rebuild::Changed));
        assert_eq!(which(&["tally"], false), Ok(ledger::Rebuild::Named(vec!["tally".to_owned()])));
        assert!(which(&["tale"], false).unwrap_err().contains("timeline"));
    }
}
