//! One moment of the ledger: its rows and its records up to one position.

use std::ops::RangeInclusive;
use std::sync::Arc;

use fjall::{Keyspace, Readable};

use postledger_events::Record;
use postledger_events::event::Event;
use postledger_events::fact::ledger::LedgerCreated;
use postledger_events::id::Seq;
use postledger_events::time::Timestamp;
use postledger_projections::rows::{Key, Value};
use postledger_projections::{self as projections, Order, Rows, Table};

use super::lock::Lock;
use super::store::{Error, Head, SegmentNote, is_passing};

/// All reads of a snapshot see the same moment. Cheap to clone. Point reads that hit the engine's cache may run on a thread
/// that must not block; scans must not.
#[derive(Clone)]
pub struct Snapshot(pub(super) Arc<Moment>);

pub(super) struct Moment {
    pub(super) engine: fjall::Snapshot,
    pub(super) view: Arc<View>,
    pub(super) head: Head,
    pub(super) _lock: Arc<Lock>,
}

/// Where log and tables are.
#[derive(Clone)]
pub(super) struct View {
    /// In order; the last takes new records.
    pub(super) segments: Vec<Segment>,
    /// By table; `None` where no projection builds it.
    pub(super) tables: Vec<Option<TableView>>,
}

#[derive(Clone)]
pub(super) struct Segment {
    pub(super) first: Seq,
    pub(super) note: SegmentNote,
    pub(super) keyspace: Keyspace,
}

#[derive(Clone)]
pub(super) struct TableView {
    pub(super) projection: &'static str,
    pub(super) keyspace: Keyspace,
    /// Being rebuilt, and has come this far.
    pub(super) as_of: Option<Seq>,
}

impl View {
    pub(super) fn active(&self) -> &Segment {
        self.segments.last().expect("a ledger has a segment from its creation on")
    }

    pub(super) fn table(&self, table: Table) -> Result<&TableView, projections::Error> {
        let why = || projections::Error::new(table, "no projection builds it");
        self.tables[table as usize].as_ref().ok_or_else(why)
    }
}

impl Snapshot {
    /// Tables that are being rebuilt.
    pub(super) fn lagging(&self) -> impl Iterator<Item = &TableView> {
        self.0.view.tables.iter().flatten().filter(|table| table.as_of.is_some())
    }

    /// The last record that this moment knows; 0 if there is none.
    pub fn position(&self) -> Seq {
        self.0.head.seq
    }

    /// The time of that record.
    pub fn at(&self) -> Timestamp {
        self.0.head.at
    }

    /// The oldest record that is still in the live ledger.
    pub fn first(&self) -> Seq {
        self.0.view.segments[0].first
    }

    /// How far a table has come that is being rebuilt; `None`: it is complete.
    pub fn as_of(&self, table: Table) -> Option<Seq> {
        self.0.view.tables[table as usize].as_ref().and_then(|t| t.as_of)
    }

    /// The exact bytes of a record, without line end.
    pub fn record_line(&self, seq: Seq) -> Result<Option<Vec<u8>>, Error> {
        let segments = &self.0.view.segments;
        let after = segments.partition_point(|s| s.first <= seq);
        let Some(segment) = after.checked_sub(1).map(|n| &segments[n]) else { return Ok(None) };
        let line = self.0.engine.get(&segment.keyspace, seq.0.to_be_bytes())?;
        Ok(line.map(|line| line.to_vec()))
    }

    pub fn record(&self, seq: Seq) -> Result<Option<Record>, Error> {
        Ok(self.record_line(seq)?.map(|line| Record::decode(&line)).transpose()?)
    }

    /// The record that begins the ledger and names it; `None` if it is not here.
    pub fn created(&self) -> Result<Option<LedgerCreated>, Error> {
        Ok(match self.record(Seq::FIRST)?.map(|record| record.event) {
            Some(Event::LedgerCreated(created)) => Some(created),
            Some(_) | None => None,
        })
    }

    /// Lines in order, across segments, read as they are asked for.
    pub fn records(&self, range: RangeInclusive<Seq>) -> Lines {
        Lines { snapshot: self.clone(), range, segment: 0, lines: None }
    }
}

/// See [`Snapshot::records`].
pub struct Lines {
    snapshot: Snapshot,
    range: RangeInclusive<Seq>,
    segment: usize,
    lines: Option<fjall::Iter>,
}

impl Lines {
    /// The next segment that has some of the range.
    fn open_next(&mut self) -> Option<fjall::Iter> {
        let moment = &self.snapshot.0;
        let segments = &moment.view.segments;
        loop {
            let segment = segments.get(self.segment)?;
            self.segment += 1;
            let ends_before = segments.get(self.segment).is_some_and(|next| next.first <= *self.range.start());
            if segment.first > *self.range.end() || self.range.is_empty() {
                return None;
            }
            if !ends_before {
                let keys = self.range.start().0.to_be_bytes()..=self.range.end().0.to_be_bytes();
                return Some(moment.engine.range(&segment.keyspace, keys));
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<(Seq, Vec<u8>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(lines) = &mut self.lines
                && let Some(guard) = lines.next()
            {
                return Some(guard.into_inner().map_err(Error::from).and_then(|(k, v)| Ok((seq_of(&k)?, v.to_vec()))));
            }
            self.lines = Some(self.open_next()?);
        }
    }
}

fn seq_of(key: &[u8]) -> Result<Seq, Error> {
    let bytes = key.try_into().map_err(|_| Error::Notes(format!("a record has the key {key:02x?}")))?;
    Ok(Seq(u64::from_be_bytes(bytes)))
}

impl Rows for Snapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, projections::Error> {
        let keyspace = &self.0.view.table(table)?.keyspace;
        let value = self.0.engine.get(keyspace, key).map_err(failed(table))?;
        Ok(value.map(|v| v.to_vec()))
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, projections::Error> {
        if start >= end {
            return Ok(Vec::new());
        }
        let keyspace = &self.0.view.table(table)?.keyspace;
        let range = self.0.engine.range(keyspace, start..end);
        let own = |guard: fjall::Guard| {
            let (key, value) = guard.into_inner().map_err(failed(table))?;
            Ok((key.to_vec(), value.to_vec()))
        };
        match order {
            Order::Ascending => range.take(limit).map(own).collect(),
            Order::Descending => range.rev().take(limit).map(own).collect(),
        }
    }
}

pub(super) fn failed(table: Table) -> impl Fn(fjall::Error) -> projections::Error {
    move |e| projections::Error { table, why: e.to_string(), passing: is_passing(&e) }
}
