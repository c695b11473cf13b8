//! The engine's database: which keyspaces there are and with which settings, and the ledger's own notes about them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use postledger_events::id::{Seq, Sha256};
use postledger_events::record;
use postledger_events::time::Timestamp;

/// A keyspace may hold five of these in memory (one that grows, four that are being written out); the engine's default of
/// 64 MiB took 344 to 411 MB with 5 keyspaces, this 143 MB at the same rate.
const MEMTABLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What a start after a crash has to read again at most, and what is set aside before it.
const JOURNALS_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// The engine's threads that flush and compact. The first leaves compactions to the others, and asks again and again, with a whole
/// core, while all others are at one: with two threads (the engine's choice for two cores) 100 recipients a message took 0.071 ms
/// of CPU each, with four 0.051.
const WORKERS: usize = 4;

/// Chunks of a table that is made anew. At 32 the engine merged chunks of the largest table from 3 million records on.
const RUNS_MAX: u8 = 128;

const FORMAT: u32 = 1;

pub(super) struct Store {
    pub(super) db: Database,
    pub(super) meta: Keyspace,
    pub(super) bodies: Keyspace,
    pub(super) vault: Keyspace,
}

impl Store {
    pub(super) fn open(dir: &Path, cache_bytes: u64) -> Result<Store, Error> {
        let db = Database::builder(dir)
            .cache_size(cache_bytes)
            // The engine checks a compressed journal by compressing again, so another version of the compressor could
            // make an old journal unreadable.
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNALS_BYTES_MAX)
            .worker_threads(WORKERS)
            .open()?;
        let meta = db.keyspace("meta", row_options)?;
        let bodies = db.keyspace("bodies", log_options)?;
        let vault = db.keyspace("vault", vault_options)?;
        let store = Store { db, meta, bodies, vault };
        store.check_format()?;
        Ok(store)
    }

    fn check_format(&self) -> Result<(), Error> {
        match self.note::<u32>(Note::Format)? {
            Some(FORMAT) => Ok(()),
            Some(other) => Err(Error::Notes(format!("format {other} of the store, which only another program knows"))),
            None => {
                let mut batch = self.batch();
                self.put_note(&mut batch, Note::Format, &FORMAT);
                Ok(batch.commit()?)
            }
        }
    }

    /// A batch that is on disk when its commit returns.
    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.db.batch().durability(Some(PersistMode::SyncData))
    }

    pub(super) fn segment(&self, note: &SegmentNote) -> Result<Keyspace, Error> {
        Ok(self.db.keyspace(&format!("log.{}", note.number), log_options)?)
    }

    pub(super) fn table(&self, name: &str) -> Result<Keyspace, Error> {
        Ok(self.db.keyspace(name, row_options)?)
    }

    /// For chunks of rows that are made anew.
    pub(super) fn runs(&self, of: &str) -> Result<Keyspace, Error> {
        Ok(self.db.keyspace(&format!("{of}.runs"), runs_options)?)
    }

    pub(super) fn note<T: DeserializeOwned>(&self, note: Note<'_>) -> Result<Option<T>, Error> {
        let key = note.key();
        let Some(value) = self.meta.get(&key)? else { return Ok(None) };
        serde_json::from_slice(&value).map(Some).map_err(|e| Error::Notes(format!("{key}: {e}")))
    }

    pub(super) fn put_note<T: Serialize>(&self, batch: &mut OwnedWriteBatch, note: Note<'_>, value: &T) {
        batch.insert(&self.meta, note.key(), serde_json::to_vec(value).expect("notes hold only what JSON can say"));
    }

    /// Deletes what a rebuild that never came to its end, or the one before the last switch, left behind.
    pub(super) fn drop_unknown_tables(&self, known: &[String]) -> Result<(), Error> {
        let own = |name: &str| matches!(name, "meta" | "bodies" | "vault") || name.starts_with("log.");
        for name in self.db.list_keyspace_names() {
            if !own(&name) && !known.iter().any(|k| **k == *name) {
                self.db.delete_keyspace(self.table(&name)?)?;
            }
        }
        Ok(())
    }
}

/// What the ledger notes about itself, beside log and rows.
#[derive(Clone, Copy)]
pub(super) enum Note<'a> {
    Format,
    /// [`Head`], written with every batch: all tables that are not being rebuilt are at this record.
    Head,
    /// A list of [`SegmentNote`].
    Segments,
    /// [`TableNote`] of the projection of this name.
    Table(&'a str),
}

impl Note<'_> {
    fn key(self) -> String {
        match self {
            Note::Format => "format".to_owned(),
            Note::Head => "head".to_owned(),
            Note::Segments => "segments".to_owned(),
            Note::Table(name) => format!("table/{name}"),
        }
    }
}

/// The end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) seq: Seq,
    pub(super) hash: Sha256,
    pub(super) at: Timestamp,
}

impl Head {
    /// Of a log without records.
    pub(super) const NONE: Head = Head { seq: Seq(0), hash: Sha256::ZERO, at: Timestamp::EPOCH };
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentNote {
    /// Names its keyspace; never used twice.
    pub(super) number: u64,
    pub(super) first: Seq,
}

/// Which keyspace has a projection's rows, and what built them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableNote {
    pub(super) version: u32,
    pub(super) generation: u64,
}

impl TableNote {
    pub(super) fn keyspace(&self, name: &str) -> String {
        format!("{name}.{}", self.generation)
    }
}

// The engine keeps a keyspace's settings from its creation on; a change here concerns new keyspaces only.

/// Records and bodies: written once, read in order or rarely. Without a policy the engine leaves a growing log uncompressed;
/// LZ4 over 16 KiB halves it (947 against 1,845 MB for 3 million records) and still takes over 150,000 records a second.
fn log_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES_MAX)
        .data_block_size_policy(BlockSizePolicy::all(16 * 1024))
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
}

/// Rows: read one by one, so blocks stay small and the young levels uncompressed, as is the engine's default.
fn row_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX)
}

/// Chunks of rows, read once in order when the last has come: the engine is to leave them as they are, until there are so many
/// that looking for one row in all of them would take long.
fn runs_options() -> KeyspaceCreateOptions {
    row_options()
        .data_block_size_policy(BlockSizePolicy::all(16 * 1024))
        .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(RUNS_MAX)))
}

/// Secrets: few, and random bytes do not compress.
fn vault_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES_MAX)
        .data_block_compression_policy(CompressionPolicy::disabled())
}

/// The store cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the storage engine failed: {0}")]
    Engine(#[from] fjall::Error),
    #[error("{0}")]
    Record(#[from] record::Error),
    #[error("{0}")]
    Rows(#[from] postledger_projections::Error),
    #[error("the ledger's notes about itself are damaged: {0}")]
    Notes(String),
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// Nothing is wrong with the ledger by that.
    #[error("the ledger could not be verified to the end: {0}")]
    Unfinished(String),
}

impl Error {
    /// Whether it is the process that lacks something for the moment, and what it read may be as it should.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Error::Engine(e) => is_passing(e),
            Error::Rows(e) => e.passing,
            Error::File { source, .. } => is_passing(source),
            Error::Record(_) | Error::Notes(_) | Error::Unfinished(_) => false,
        }
    }
}

/// Whether anything in the chain of its causes is a lack of descriptors or memory.
pub(super) fn is_passing(e: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(e), |e| e.source());
    let mut errnos = causes.filter_map(|e| e.downcast_ref::<io::Error>()).filter_map(Errno::from_io_error);
    errnos.any(|e| [Errno::MFILE, Errno::NFILE, Errno::NOMEM].contains(&e))
}

pub(super) fn at_path(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    |source| Error::File { path: path.to_owned(), source }
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(at_path(dir))
}

#[cfg(test)]
mod tests {
    use postledger_projections::{self as projections, Table};

    use super::super::snapshot::failed;
    use super::*;

    #[test]
    fn what_the_process_lacks_is_no_damage() {
        let check = |e: Error, expect: bool| assert_eq!(e.is_passing(), expect, "{e}");
        let io = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let engine = |errno: Errno| fjall::Error::Io(io(errno));
        let rows = |errno: Errno| failed(Table::Tally)(engine(errno));
        for (errno, expect) in [(Errno::MFILE, true), (Errno::NFILE, true), (Errno::NOMEM, true), (Errno::IO, false)] {
            check(engine(errno).into(), expect);
            check(rows(errno).into(), expect);
            check(at_path(Path::new("bodies/00"))(io(errno)), expect);
        }
        check(fjall::Error::Poisoned.into(), false);
        check(projections::Error::new(Table::Tally, "3 bytes follow it").into(), false);
    }
}
