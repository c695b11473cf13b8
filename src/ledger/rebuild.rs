//! Rebuilding tables from the log: folds in memory in bounded chunks, brings each sorted into a new keyspace, and leaves the
//! switch to the writer.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, sync_channel};

use fjall::Keyspace;
use tokio::sync::mpsc;

use postledger_events::Record;
use postledger_events::id::Seq;
use postledger_projections::rows::{Key, Value};
use postledger_projections::{self as projections, Order, Projection, Rows, Table};

use super::overlay::Overlay;
use super::snapshot::{Snapshot, failed};
use super::store::Error;
use super::writer::Message;
use super::{Options, Shared};

/// Records after which progress is shown and a stop is noticed.
const STEP_RECORDS: u64 = 10_000;
/// Records that are read and decoded at once beside the folding, and how often that is ahead of it.
const PART_RECORDS: usize = 1_000;
const PARTS_AHEAD: usize = 8;
/// What is left for the writer, which folds it between two batches.
const REST_RECORDS_MAX: u64 = 1_000;

/// How far a rebuild has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub tables: Vec<&'static str>,
    pub done: Seq,
    /// What was stored of it, and readers see.
    pub stored: Seq,
    pub end: Seq,
}

/// A table that is being rebuilt.
pub(super) struct Target {
    pub(super) projection: Projection,
    pub(super) generation: u64,
    pub(super) keyspace: Keyspace,
    pub(super) applied: Seq,
    pub(super) replaces: Option<Keyspace>,
}

impl Target {
    /// Folds what the log has after [`Target::applied`] without storing it.
    pub(super) fn fold_rest(&mut self, snapshot: &Snapshot) -> Result<Vec<(Key, Option<Value>)>, Error> {
        let mut overlay = Overlay::new(Below::of(std::slice::from_ref(self)));
        for line in snapshot.records(self.applied.next()..=snapshot.position()) {
            let (seq, line) = line?;
            overlay.fold(&self.projection, &Record::decode(&line)?)?;
            self.applied = seq;
        }
        Ok(overlay.take(self.projection.table))
    }
}

/// Brings all targets, which are equally far, to the end of `snapshot`; `step` says whether to go on.
pub(super) fn replay(
    targets: &mut [Target],
    snapshot: &Snapshot,
    chunk_bytes_max: usize,
    step: &mut dyn FnMut(Progress) -> bool,
) -> Result<(), Error> {
    let Some(from) = targets.first().map(|t| t.applied.max(before(snapshot.first()))) else { return Ok(()) };
    let names: Vec<&'static str> = targets.iter().map(|t| t.projection.name).collect();
    let end = snapshot.position();
    let mut overlay = Overlay::new(Below::of(targets));
    let mut done = from;
    let told = |done, stored| Progress { tables: names.clone(), done, stored, end };
    let finished = std::thread::scope(|scope| {
        let (ahead, parts) = sync_channel(PARTS_AHEAD);
        scope.spawn(move || read_ahead(snapshot, from.next()..=end, &ahead));
        for part in parts {
            for record in part? {
                for target in &*targets {
                    overlay.fold(&target.projection, &record)?;
                }
                done = record.seq;
                if overlay.bytes() >= chunk_bytes_max {
                    store_chunk(targets, &mut overlay, done)?;
                }
                if done.0.is_multiple_of(STEP_RECORDS) && !step(told(done, targets[0].applied)) {
                    return Ok(false);
                }
            }
        }
        Ok::<bool, Error>(true)
    })?;
    if finished {
        store_chunk(targets, &mut overlay, done)?;
        step(told(done, done));
    }
    Ok(())
}

/// Reads and decodes records in parts, until there are no more, one cannot be read, or nobody takes them.
fn read_ahead(snapshot: &Snapshot, range: RangeInclusive<Seq>, ahead: &SyncSender<Result<Vec<Record>, Error>>) {
    let read = |line: Result<(Seq, Vec<u8>), Error>| Ok(Record::decode(&line?.1)?);
    let mut records = snapshot.records(range).map(read).peekable();
    while records.peek().is_some() {
        let part: Result<Vec<Record>, Error> = records.by_ref().take(PART_RECORDS).collect();
        let is_end = part.is_err();
        if ahead.send(part).is_err() || is_end {
            return;
        }
    }
}

fn before(seq: Seq) -> Seq {
    Seq(seq.0 - 1)
}

/// Each chunk becomes a run of its own in the engine, whose removals hide what older runs have; so chunks may overlap.
fn store_chunk(targets: &mut [Target], overlay: &mut Overlay<Below>, done: Seq) -> Result<(), Error> {
    for target in targets {
        let mut ingestion = target.keyspace.start_ingestion()?;
        for (key, value) in overlay.take(target.projection.table) {
            match value {
                Some(value) => ingestion.write(key, value)?,
                None => ingestion.write_tombstone(key)?,
            }
        }
        ingestion.finish()?;
        target.applied = done;
    }
    Ok(())
}

/// Rebuilds beside the running ledger, and hands over when little is left.
pub(super) fn in_background(
    shared: &Arc<Shared>,
    mut targets: Vec<Target>,
    writer: &mpsc::WeakSender<Message>,
    options: &Options,
) -> Result<(), Error> {
    let closing = || shared.closing.load(Ordering::Acquire) || shared.stopped().is_some();
    loop {
        let snapshot = shared.snapshot();
        replay(&mut targets, &snapshot, options.rebuild_chunk_bytes_max, &mut |now| {
            if let Some(writer) = writer.upgrade() {
                // Only for readers, so it is left out when the writer has enough to do.
                let _ = writer.try_send(Message::Rebuilt(now.stored));
            }
            (options.progress)(now);
            !closing()
        })?;
        let Some(writer) = writer.upgrade().filter(|_| !closing()) else { return Ok(()) };
        let rest = shared.snapshot().position().0 - snapshot.position().0;
        if rest <= REST_RECORDS_MAX {
            // If the writer is gone, so is the ledger, and what was rebuilt is dropped at the next start.
            let _ = writer.blocking_send(Message::Adopt(targets));
            return Ok(());
        }
    }
}

/// The rows of targets as far as they are stored.
pub(super) struct Below {
    tables: Vec<Option<Keyspace>>,
}

impl Below {
    pub(super) fn of(targets: &[Target]) -> Below {
        let keyspace =
            |table: &Table| targets.iter().find(|t| t.projection.table == *table).map(|t| t.keyspace.clone());
        Below { tables: Table::ALL.iter().map(keyspace).collect() }
    }
}

impl Rows for Below {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, projections::Error> {
        let why = || projections::Error { table, why: "it is not being rebuilt".to_owned() };
        let keyspace = self.tables[table as usize].as_ref().ok_or_else(why)?;
        Ok(keyspace.get(key).map_err(failed(table))?.map(|v| v.to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        _: &[u8],
        _: &[u8],
        _: Order,
        _: usize,
    ) -> Result<Vec<(Key, Value)>, projections::Error> {
        Err(projections::Error { table, why: "no scan while it is being rebuilt".to_owned() })
    }
}
