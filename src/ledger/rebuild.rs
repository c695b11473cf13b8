//! Rebuilding tables from the log: folds in memory in bounded chunks, brings each sorted into a new keyspace, and leaves the
//! switch to the writer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

use fjall::Keyspace;
use tokio::sync::mpsc;

use postledger_events::Record;
use postledger_events::id::Seq;
use postledger_projections::rows::{Key, Value};
use postledger_projections::{self as projections, Order, Projection, Rows, Table};

use super::overlay::Overlay;
use super::snapshot::{Lines, Snapshot, failed};
use super::store::Error;
use super::writer::Message;
use super::{Options, Shared};

/// Records after which progress is shown.
const STEP_RECORDS: u64 = 10_000;
/// Lines that are read and decoded at once, by their size: single records may be large.
const PART_BYTES: usize = 128 * 1024;
/// How many of these may be read ahead of the folding.
const PARTS_AHEAD: usize = 4;
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

/// Brings all targets, which are equally far, to the end of `snapshot`, with a second thread that reads the log. `step` is asked
/// again and again whether to go on, and told now and then how far it is.
pub(super) fn replay(
    targets: &mut [Target],
    snapshot: &Snapshot,
    chunk_bytes_max: usize,
    step: &mut dyn FnMut(Option<Progress>) -> bool,
) -> Result<(), Error> {
    std::thread::scope(|scope| {
        let (ahead, read) = sync_channel(PARTS_AHEAD);
        let mut parts = Parts::behind(targets, snapshot);
        // It ends with the log, or when nobody takes its parts any more.
        scope.spawn(move || parts.all(|part| ahead.send(part).is_ok()));
        fold(targets, &mut read.into_iter(), snapshot.position(), chunk_bytes_max, step)
    })
}

/// The same without a second thread, for those who keep to their share of a processor.
pub(super) fn replay_alone(
    targets: &mut [Target],
    snapshot: &Snapshot,
    chunk_bytes_max: usize,
    step: &mut dyn FnMut(Option<Progress>) -> bool,
) -> Result<(), Error> {
    let mut parts = Parts::behind(targets, snapshot);
    fold(targets, &mut parts, snapshot.position(), chunk_bytes_max, step)
}

fn fold(
    targets: &mut [Target],
    parts: &mut dyn Iterator<Item = Result<Vec<Record>, Error>>,
    end: Seq,
    chunk_bytes_max: usize,
    step: &mut dyn FnMut(Option<Progress>) -> bool,
) -> Result<(), Error> {
    let Some(mut done) = targets.first().map(|target| target.applied) else { return Ok(()) };
    let tables: Vec<&'static str> = targets.iter().map(|t| t.projection.name).collect();
    let told = |done, stored| Some(Progress { tables: tables.clone(), done, stored, end });
    let mut overlay = Overlay::new(Below::of(targets));
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
                return Ok(());
            }
        }
        if !step(None) {
            return Ok(());
        }
    }
    store_chunk(targets, &mut overlay, done)?;
    step(told(done, done));
    Ok(())
}

/// What the log has behind the targets, decoded, in parts.
struct Parts(Lines);

impl Parts {
    fn behind(targets: &[Target], snapshot: &Snapshot) -> Parts {
        let first = targets.first().map_or(Seq(u64::MAX), |target| target.applied.next());
        Parts(snapshot.records(first.max(snapshot.first())..=snapshot.position()))
    }

    fn read(&mut self) -> Result<Vec<Record>, Error> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < PART_BYTES
            && let Some(line) = self.0.next()
        {
            let (_, line) = line?;
            bytes += line.len();
            part.push(Record::decode(&line)?);
        }
        Ok(part)
    }
}

impl Iterator for Parts {
    type Item = Result<Vec<Record>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.read()).filter(|part| !part.as_ref().is_ok_and(Vec::is_empty))
    }
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
            if let Some(now) = now {
                if let Some(writer) = writer.upgrade() {
                    // Only for readers, so it is left out when the writer has enough to do.
                    let _ = writer.try_send(Message::Rebuilt(now.stored));
                }
                (options.progress)(now);
            }
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
