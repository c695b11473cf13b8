//! `backup`, `backup-vault` and `export`: a copy of the ledger in files, from a running server as well.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt;
use postledger_events::id::{Seq, Sha256};

use super::Session;
use super::client::{Client, whole};
use super::error::Error;
use super::query::Query;
use crate::files;
use crate::ledger::import::{self, Summary};

/// What is read back of an export's end, to see that it has one.
const END_BYTES_MAX: usize = 64 * 1024;

/// Back up the ledger into a directory: everything the first time, then what came since
#[derive(Debug, Args)]
#[command(after_help = BACKUP_EXAMPLES)]
pub struct Backup {
    /// Where the parts are; made if it is not there
    #[arg(value_name = "BACKUPDIR")]
    to: PathBuf,
}

const BACKUP_EXAMPLES: &str = "\
Examples:
  postledger backup /mnt/backup/postledger
  postledger backup-vault /mnt/safe/postledger-vault.json

Consistent while the server runs. Each call adds one part, which is read back and checked before it counts; parts are never
changed, so they can be copied away at any time. Secrets are not in it: back up the vault apart, after every change of a
password or key. `postledger restore` makes a ledger of both.";

/// Back up the secrets (keys, hashes of passwords) into a file of its own
#[derive(Debug, Args)]
#[command(after_help = VAULT_EXAMPLES)]
pub struct BackupVault {
    /// Replaced if it is there; only its owner may read it
    file: PathBuf,
}

const VAULT_EXAMPLES: &str = "\
Examples:
  postledger backup-vault /mnt/safe/postledger-vault.json

Keep it apart from the backup: whoever has both can sign mail as you do. It leaves the server by the control socket only.";

/// Write the log with all contents as JSON Lines
#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub struct Export {
    /// - is the standard output
    #[arg(value_name = "FILE|-")]
    to: PathBuf,
    /// Only what came after this record
    #[arg(long, default_value_t = Seq(0), value_name = "SEQ")]
    after: Seq,
}

const EXPORT_EXAMPLES: &str = "\
Examples:
  postledger export ledger.jsonl
  postledger export - | zstd > ledger.jsonl.zst
  postledger import ledger.jsonl --vault vault.json --dir new

The first line says which ledger it is, the last one that nothing is missing. Each record's line stands as it is in the log;
behind it are the contents that came with it, as far as they are still kept. `postledger events export` has records only.";

impl Backup {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        files::create_private_dir(&self.to).map_err(at(&self.to))?;
        // Locked before it is asked where the last part ends: two that go on from the same record cannot be restored.
        let unfinished = Unfinished::create(&self.to.join(import::UNFINISHED))?;
        let last = last_part(&self.to)?;
        let (after, hash) = last.as_ref().map_or((Seq(0), None), |last| (last.end, Some(last.hash)));
        let export = stream(&session.client, after, hash, &unfinished).await;
        let part = unfinished.checked(export.map_err(|e| self.advise(e)))?;
        if part.records == 0 {
            unfinished.remove()?;
            return session.out.said(format!("nothing came since record {}", part.end));
        }
        let name = import::part_name(part.after, part.end);
        unfinished.rename(&self.to.join(&name))?;
        let Summary { end, records, bodies, .. } = part;
        session.out.said(format!("{name}: {records} records and {bodies} contents; the backup ends with record {end}"))
    }

    /// What to do if the ledger went on from before the last part's end.
    fn advise(&self, e: Error) -> Error {
        match e {
            Error::Refused(details) if details.last_common.is_some() => Error::Failed(format!(
                "{}. Keep {} as it is, and begin a new backup in another directory",
                details.detail,
                self.to.display()
            )),
            other => other,
        }
    }
}

fn last_part(dir: &Path) -> Result<Option<Summary>, Error> {
    Ok(import::parts(dir)?.last().map(|part| import::glance(part)).transpose()?)
}

impl BackupVault {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        let answer = session.client.stream(Query::path(&["ledger", "vault"])).await?;
        let bytes = zeroize::Zeroizing::new(whole(answer).await?.to_vec());
        files::write_private(&self.file, &bytes).map_err(at(&self.file))?;
        session.out.said(format!("the vault is in {}; keep it apart from the backup", self.file.display()))
    }
}

impl Export {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        if self.to.as_os_str() == "-" {
            return self.print(session).await;
        }
        let unfinished = Unfinished::create(&self.to.with_added_extension(import::UNFINISHED))?;
        let export = stream(&session.client, self.after, None, &unfinished).await;
        let part = unfinished.checked(export)?;
        unfinished.rename(&self.to)?;
        let Summary { end, records, bodies, .. } = part;
        session.out.said(format!("{records} records up to {end} and {bodies} contents"))
    }

    async fn print(&self, session: &mut Session) -> Result<(), Error> {
        let mut pieces = session.client.stream(query(self.after, None)).await?.into_data_stream();
        let mut end = Vec::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| Error::Broken(e.to_string()))?;
            session.out.bytes(&piece)?;
            end.extend_from_slice(&piece);
            end.drain(..end.len().saturating_sub(END_BYTES_MAX));
        }
        import::check_end(&self.to, &end)?;
        session.out.finish()
    }
}

fn query(after: Seq, hash: Option<Sha256>) -> Query {
    Query::path(&["ledger", "export"]).with("after", Some(after)).with("hash", hash)
}

async fn stream(client: &Client, after: Seq, hash: Option<Sha256>, to: &Unfinished) -> Result<(), Error> {
    let mut pieces = client.stream(query(after, hash)).await?.into_data_stream();
    let mut file = BufWriter::new(&to.file);
    while let Some(piece) = pieces.next().await {
        file.write_all(&piece.map_err(|e| Error::Broken(e.to_string()))?).map_err(at(&to.path))?;
    }
    file.flush().and_then(|()| to.file.sync_all()).map_err(at(&to.path))
}

/// A file under a name that nobody takes for the whole. One process at a time can write it.
struct Unfinished {
    path: PathBuf,
    file: File,
}

impl Unfinished {
    fn create(path: &Path) -> Result<Unfinished, Error> {
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = opened.map_err(at(path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Failed(format!("{}: another process is writing it", path.display())));
            }
            Err(TryLockError::Error(e)) => return Err(at(path)(e)),
        }
        // Whoever had it before may have finished it, and then this is no longer the file of that name.
        let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        if std::fs::metadata(path).map(place).ok() != Some(place(file.metadata().map_err(at(path))?)) {
            return Err(Error::Failed(format!("{}: another process has just finished it; try again", path.display())));
        }
        file.set_len(0).map_err(at(path))?;
        Ok(Unfinished { path: path.to_owned(), file })
    }

    /// Reads back what was written; without an end it goes.
    fn checked(&self, written: Result<(), Error>) -> Result<Summary, Error> {
        let checked = written.and_then(|()| Ok(import::check(&self.path)?));
        checked.inspect_err(|_| drop(self.remove()))
    }

    fn rename(&self, to: &Path) -> Result<(), Error> {
        std::fs::rename(&self.path, to).map_err(at(to))?;
        let dir = to.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
    }

    fn remove(&self) -> Result<(), Error> {
        std::fs::remove_file(&self.path).map_err(at(&self.path))
    }
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    |e| Error::File(path.to_owned(), e)
}
