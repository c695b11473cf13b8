//! `restore` and `import`: a ledger made again from a backup or an export.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use postledger_events::time::Timestamp;
use zeroize::Zeroizing;

use super::error::Error;
use super::out::{Out, second};
use super::when::Place;
use crate::clock::Clock;
use crate::ledger::restore::{Cut, Restored, restore};
use crate::ledger::{Options, Secrets};
use crate::run::command_line_author;

/// Missing secrets that are named; of more, how many.
const NAMED_MAX: usize = 10;

/// Make a ledger again from a backup, in a directory without one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Restore {
    /// Directory of a backup
    #[arg(value_name = "BACKUPDIR")]
    from: PathBuf,
    /// What `backup-vault` wrote
    #[arg(long, value_name = "FILE")]
    vault: PathBuf,
    /// The last record to take, or the time of the last one
    #[arg(long, value_name = "SEQ|WHEN", allow_hyphen_values = true)]
    to: Option<Place>,
}

/// Make a ledger again from an export, in a directory without one
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct Import {
    /// What `export` wrote; - is the standard input
    #[arg(value_name = "FILE|-")]
    from: PathBuf,
    /// What `backup-vault` wrote
    #[arg(long, value_name = "FILE")]
    vault: PathBuf,
}

const EXAMPLES: &str = "\
Examples:
  postledger restore /mnt/backup/postledger --vault vault.json --dir /var/lib/postledger
  postledger restore backup --vault vault.json --dir yesterday --to -1d
  postledger restore backup --vault vault.json --dir trial --to 120000
  postledger import ledger.jsonl --vault vault.json --dir new
  postledger import - --vault vault.json --dir new      as in: zstd -dc ledger.jsonl.zst | postledger import - …

Everything is checked: the chain from record 1 on, each content's hash, the end of each part. What was queued at that moment may
have been sent since, so it waits until `postledger queue release --restored`. Configuration files are not in a backup: copy
postledger.toml and adminpasswd.";

fn cut(to: Place, now: Timestamp) -> Cut {
    match to {
        Place::Record(seq) => Cut::Record(seq),
        Place::Time(when) => Cut::Time(when.resolve(now)),
    }
}

impl Restore {
    pub fn run(self, dir: &Path, out: Out) -> Result<ExitCode, Error> {
        let cut = self.to.map_or(Cut::End, |to| cut(to, Clock::system().now()));
        run(&self.from, &self.vault, cut, dir, out)
    }
}

impl Import {
    pub fn run(self, dir: &Path, out: Out) -> Result<ExitCode, Error> {
        run(&self.from, &self.vault, Cut::End, dir, out)
    }
}

fn run(from: &Path, vault: &Path, cut: Cut, dir: &Path, mut out: Out) -> Result<ExitCode, Error> {
    let (secrets, options) = (read_vault(vault)?, Options::new(dir));
    let mut progress = |seq| eprintln!("restoring: record {seq}");
    let restored = restore(&options, from, &secrets, cut, command_line_author(), Clock::system(), &mut progress)?;
    out.said(said(&restored, dir))?;
    out.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// What `backup-vault` wrote.
pub fn read_vault(file: &Path) -> Result<Secrets, Error> {
    let bytes = std::fs::read(file).map_err(|e| Error::File(file.to_owned(), e))?;
    Secrets::from_json(&Zeroizing::new(bytes)).map_err(|e| Error::Failed(format!("{}: {e}", file.display())))
}

/// Which secrets a ledger has to do without, and what to do.
pub fn without(missing: &[String]) -> String {
    let (some, more) = missing.split_at(missing.len().min(NAMED_MAX));
    let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
    format!(
        "SECRETS ARE MISSING: {}{more}; the copy of the vault is older than they are: `postledger repair --vault FILE` with a newer \
         copy, or set them anew",
        some.join(", ")
    )
}

fn said(restored: &Restored, dir: &Path) -> String {
    let Restored { end, at, known, records, lost_contents, missing_secrets } = restored;
    let mut said = format!("{}: {records} records, up to {end} of {}", dir.display(), second(*at));
    if known > end {
        said += &format!("; the backup goes on to {known}");
    }
    if *lost_contents > 0 {
        said += &format!("; {lost_contents} contents that had been forgotten since are gone, and recorded as gone");
    }
    if !missing_secrets.is_empty() {
        said += &format!("; {}", without(missing_secrets));
    }
    said + ". What was queued waits for `postledger queue release --restored`"
}
