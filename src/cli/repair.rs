//! `repair`: makes a damaged ledger whole again, from a backup or by accepting what is lost.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, Args};

use super::error::Error;
use super::out::Out;
use super::restore::{read_vault, without};
use crate::clock::Clock;
use crate::ledger::Options;
use crate::ledger::repair::{Outcome, Report, Sources, repair};
use crate::run::command_line_author;

/// Make a damaged ledger whole again; the server must not be running
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("means").required(true).multiple(true))]
pub struct Repair {
    /// A backup of this ledger, for what cannot be read any more
    #[arg(long, value_name = "BACKUPDIR", group = "means")]
    from: Option<PathBuf>,
    /// Go on without what nobody has any more; only says what that is, unless with --yes
    #[arg(long, group = "means")]
    accept_loss: bool,
    /// Having read what is lost
    #[arg(long, requires = "accept_loss")]
    yes: bool,
    /// What `backup-vault` wrote, should the vault be unreadable or lack secrets
    #[arg(long, value_name = "FILE", group = "means")]
    vault: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  postledger verify                                        what is wrong
  postledger repair --from /mnt/backup/postledger
  postledger repair --accept-loss                          what would be lost
  postledger repair --accept-loss --yes
  postledger repair --from backup --accept-loss --yes      as much as the backup has

It reads all that can be read, takes what is missing from the backup, and cuts the log at the first record that nobody has. The
ledger as it was stays in damaged-N/, with the records behind the cut in damaged-N/lost.jsonl. What was queued may have been sent,
so it waits until `postledger queue release --restored`. If only rows are wrong, `postledger rebuild --all` is enough.";

impl Repair {
    pub fn run(self, dir: &Path, mut out: Out) -> Result<ExitCode, Error> {
        let secrets = self.vault.as_deref().map(read_vault).transpose()?;
        let sources = Sources {
            backup: self.from.as_deref(),
            secrets: secrets.as_ref(),
            accept_loss: self.accept_loss && self.yes,
        };
        let mut progress = |seq| eprintln!("repairing: record {seq}");
        let outcome = repair(&Options::new(dir), &sources, command_line_author(), Clock::system(), &mut progress)?;
        let (said, code) = self.said(&outcome);
        out.said(said)?;
        out.finish()?;
        Ok(code)
    }

    fn said(&self, outcome: &Outcome) -> (String, ExitCode) {
        match outcome {
            Outcome::Whole => {
                let said = "the log, its contents and the vault are whole, so nothing was changed. If `postledger verify` \
                            finds rows that are wrong, `postledger rebuild --all` makes them anew";
                (said.to_owned(), ExitCode::SUCCESS)
            }
            Outcome::Installed => {
                ("a repair that had been cut off at its very end is in its place".to_owned(), ExitCode::SUCCESS)
            }
            Outcome::WouldLose(report) => {
                (format!("nothing was changed yet. {}. {}", lost(report), self.advice()), ExitCode::FAILURE)
            }
            Outcome::Repaired(report, replaced) => (repaired(report, replaced.as_deref()), ExitCode::SUCCESS),
        }
    }

    fn advice(&self) -> &'static str {
        match self.from {
            Some(_) => "If nothing has it, add --accept-loss --yes",
            None => "A backup may have it: --from BACKUPDIR. If nothing has it, add --yes",
        }
    }
}

/// What nobody has.
fn lost(report: &Report) -> String {
    let Report { end, known, records_set_aside, cut, lost_contents, missing_secrets, end_unknown, .. } = report;
    let mut parts = Vec::new();
    if *end_unknown {
        parts
            .push(format!("the watermark cannot be read, so nothing says whether the log went on behind record {end}"));
    }
    if end < known {
        let why = cut.as_deref().unwrap_or("nobody has more");
        parts.push(format!("{why}, so the log ends with record {end} of {known}"));
    }
    if *records_set_aside > 0 {
        parts.push(format!(
            "{records_set_aside} records that can be read do not follow from the rest and are set aside"
        ));
    }
    if *lost_contents > 0 {
        parts.push(format!("{lost_contents} contents of messages are lost"));
    }
    if !missing_secrets.is_empty() {
        parts.push(without(missing_secrets));
    }
    parts.join("; ")
}

fn repaired(report: &Report, replaced: Option<&Path>) -> String {
    let Report { end, records, records_from_backup, contents_from_backup, .. } = report;
    let mut said = format!(
        "repaired: {records} records up to {end}; {records_from_backup} records and {contents_from_backup} contents came from \
         the backup"
    );
    if report.secrets_from_copy {
        said += "; secrets came from the vault's copy";
    }
    if report.is_loss() {
        said += &format!("; {}", lost(report));
    }
    if let Some(replaced) = replaced {
        said += &format!(". What was there is in {}", replaced.display());
    }
    said + ". What was queued waits for `postledger queue release --restored`"
}
