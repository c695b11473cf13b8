//! Making a ledger again from an export or a backup, up to its end or to any record before it.

use std::path::{Path, PathBuf};

use postledger_events::event::Event;
use postledger_events::id::{Author, Seq};
use postledger_events::time::Timestamp;

use super::assemble::{self, Assembly, Completed};
use super::import::{self, Found, Item, Parts};
use super::{BranchWish, Options, Secrets, open, store, vault};
use crate::clock::Clock;

/// Records after which progress is shown.
const STEP_RECORDS: u64 = 10_000;

/// Where the restored ledger ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// With all that the backup has.
    End,
    /// With this record.
    Record(Seq),
    /// With the last record up to this time.
    Time(Timestamp),
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The last record.
    pub end: Seq,
    pub at: Timestamp,
    /// The last record that the backup has.
    pub known: Seq,
    pub records: u64,
    /// Contents that were there at this moment, and that the backup does not have.
    pub lost_contents: u64,
    /// Secrets that the ledger needs and that the copy of the vault does not have.
    pub missing_secrets: Vec<String>,
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: there is a ledger here already; restore into a directory without one", .0.display())]
    Exists(PathBuf),
    #[error("{0}")]
    Part(#[from] import::Error),
    #[error("{0}")]
    Secrets(#[from] vault::FileError),
    #[error("the backup ends with record {0}")]
    EndsBefore(Seq),
    #[error("the backup has no record up to that time")]
    BeginsAfter,
    #[error("{0}")]
    Open(#[from] open::Error),
    #[error("{0}")]
    Store(#[from] store::Error),
}

/// Builds the ledger in `options.dir` from a backup's directory, or from a single export. All of the backup is checked, also
/// what is behind the cut. Blocks.
pub fn restore(
    options: &Options,
    from: &Path,
    secrets: &Secrets,
    cut: Cut,
    by: Author,
    clock: Clock,
    progress: &mut dyn FnMut(Seq),
) -> Result<Restored, Error> {
    let home = &options.dir;
    if home.join("ledger").exists() || assemble::is_waiting(home)? {
        return Err(Error::Exists(home.clone()));
    }
    let mut parts = Parts::open(from)?;
    let mut assembly = Assembly::create(home, options)?;
    let taken = take(&mut parts, &mut assembly, secrets, cut, progress);
    let taken = match taken {
        Ok(taken) => taken,
        Err(e) => {
            assembly.discard()?;
            return Err(e);
        }
    };
    let end = assembly.end();
    let assembled = assembly.finish(&secrets.pepper, &secrets.secrets)?;
    let wish = BranchWish { known: taken.known, reason: reason(from, cut), by };
    let Completed { lost_contents, missing_secrets, .. } = assembled.complete(options, wish, clock)?;
    assembled.install()?;
    let Taken { known, records } = taken;
    Ok(Restored { end: end.seq, at: end.at, known, records, lost_contents, missing_secrets })
}

struct Taken {
    known: Seq,
    records: u64,
}

fn take(
    parts: &mut Parts,
    assembly: &mut Assembly,
    secrets: &Secrets,
    cut: Cut,
    progress: &mut dyn FnMut(Seq),
) -> Result<Taken, Error> {
    let (mut taken, mut is_over) = (Taken { known: Seq(0), records: 0 }, false);
    while let Some(item) = parts.next()? {
        match item {
            Item::Record(found) => {
                if found.head.seq == Seq::FIRST {
                    check_first(parts, &found, secrets)?;
                }
                taken.known = found.head.seq;
                is_over = is_over || is_behind(cut, &found);
                if !is_over {
                    assembly.record(found.head, found.line)?;
                    taken.records += 1;
                }
                if found.head.seq.0.is_multiple_of(STEP_RECORDS) {
                    progress(found.head.seq);
                }
            }
            Item::Chunk { body, offset, data } => {
                if !is_over {
                    assembly.chunk(&body, offset, &data)?;
                }
            }
        }
    }
    match cut {
        Cut::Record(seq) if taken.known < seq => Err(Error::EndsBefore(taken.known)),
        Cut::Record(_) | Cut::Time(_) if taken.records == 0 => Err(Error::BeginsAfter),
        Cut::End | Cut::Record(_) | Cut::Time(_) => Ok(taken),
    }
}

fn is_behind(cut: Cut, found: &Found) -> bool {
    match cut {
        Cut::End => false,
        Cut::Record(seq) => found.head.seq > seq,
        Cut::Time(at) => found.head.at > at,
    }
}

/// It says whose ledger this is.
fn check_first(parts: &Parts, found: &Found, secrets: &Secrets) -> Result<(), Error> {
    let Event::LedgerCreated(created) = &found.event else {
        return Err(parts.error("record 1 does not begin a ledger".to_owned()).into());
    };
    if created.ledger != parts.ledger() {
        return Err(parts
            .error(format!("record 1 is of ledger {}, the file of {}", created.ledger, parts.ledger()))
            .into());
    }
    Ok(secrets.check(created)?)
}

fn reason(from: &Path, cut: Cut) -> String {
    let name = from.file_name().unwrap_or(from.as_os_str());
    let name = if from.as_os_str() == import::STDIN { "standard input".into() } else { name.to_string_lossy() };
    match cut {
        Cut::End => format!("restored from {name}"),
        Cut::Record(seq) => format!("restored from {name} up to record {seq}"),
        Cut::Time(at) => format!("restored from {name} up to {at}"),
    }
}
