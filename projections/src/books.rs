//! The books: whether the rows agree with each other and every accepted recipient is accounted for exactly once.

use postledger_events::id::DeliveryId;
use serde::{Deserialize, Serialize};

use crate::deliveries::{self, DeliveryRow, State};
use crate::rows::{Error, Rows};
use crate::tally::{Tally, tally};

/// Rows that are read at once.
const CHUNK: usize = 10_000;
/// Differences that are listed; more are only counted.
const FINDINGS_MAX: usize = 1_000;

/// What was counted, and what does not add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    pub tally: Tally,
    pub queued: u64,
    pub held: u64,
    pub running: u64,
    pub delivered: u64,
    pub failed: u64,
    pub suppressed: u64,
    pub canceled: u64,
    /// Empty if all is well. Each names the exact place.
    pub findings: Vec<String>,
    pub findings_total: u64,
}

/// Counts all deliveries and holds them against the tally and the indexes.
pub fn check(rows: &dyn Rows) -> Result<Books, Error> {
    let mut books = Books { tally: tally(rows)?, ..Books::default() };
    let mut from = Some(DeliveryId(0));
    while let Some(first) = from {
        let chunk = deliveries::all(rows, first, CHUNK)?;
        from = chunk.last().and_then(|last| last.id.0.checked_add(1)).map(DeliveryId);
        for row in &chunk {
            books.count(row);
            books.check_row(rows, row)?;
        }
    }
    books.check_indexes(rows)?;
    books.check_sums();
    Ok(books)
}

impl Books {
    fn count(&mut self, row: &DeliveryRow) {
        let counter = match row.state {
            State::Queued => &mut self.queued,
            State::Held(_) => &mut self.held,
            State::Running(..) => &mut self.running,
            State::Delivered => &mut self.delivered,
            State::Failed(_) => &mut self.failed,
            State::Suppressed => &mut self.suppressed,
            State::Canceled => &mut self.canceled,
        };
        *counter += 1;
    }

    fn check_row(&mut self, rows: &dyn Rows, row: &DeliveryRow) -> Result<(), Error> {
        if !deliveries::is_indexed(rows, row)? {
            self.find(format!("delivery {} is {} but no index lists it as such", row.id, row.state.word()));
        }
        match deliveries::message(rows, row.message)? {
            None => self.find(format!("delivery {} belongs to message {}, which has no row", row.id, row.message)),
            Some(m) => {
                let last = m.first.0.saturating_add(u64::from(m.count));
                if m.account != row.account || row.id < m.first || row.id.0 >= last {
                    self.find(format!("delivery {} is not one of message {}'s", row.id, row.message));
                }
                if !row.state.is_terminal() && !m.contents {
                    self.find(format!("delivery {} is open but its content was forgotten", row.id));
                }
            }
        }
        Ok(())
    }

    /// Each row has its entry (checked before), so equal numbers mean that there are no others.
    fn check_indexes(&mut self, rows: &dyn Rows) -> Result<(), Error> {
        let (mut due, mut held, mut ended) = (0u64, 0u64, 0u64);
        let mut from = vec![0u8];
        loop {
            let keys = deliveries::index_entries(rows, &from, CHUNK)?;
            let Some(last) = keys.last() else { break };
            from = [last.as_slice(), &[0]].concat();
            for k in &keys {
                match k.first() {
                    Some(b'n') => due += 1,
                    Some(b'h') => held += 1,
                    Some(b'x') => ended += 1,
                    _ => {}
                }
            }
        }
        let states = [
            ("due", due, self.queued + self.running),
            ("held", held, self.held),
            ("finished", ended, self.delivered + self.failed + self.suppressed + self.canceled),
        ];
        for (name, entries, rows) in states {
            if entries != rows {
                self.find(format!("the index of {name} deliveries has {entries} entries for {rows} rows"));
            }
        }
        Ok(())
    }

    fn check_sums(&mut self) {
        let t = self.tally;
        let open = self.queued + self.held + self.running;
        let ended = self.delivered + self.failed + self.suppressed + self.canceled;
        let sums = [
            ("recipients without an outcome", open, t.open()),
            ("held recipients", self.held, t.held),
            ("recipients with an outcome, listed or expired", ended + t.expired, t.ended()),
            ("accepted recipients", open + ended + t.expired, t.accepted),
        ];
        for (what, counted, told) in sums {
            if counted != told {
                self.find(format!("{what}: {counted} by their rows, {told} by the log's tally"));
            }
        }
    }

    fn find(&mut self, what: String) {
        self.findings_total += 1;
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(what);
        }
    }
}
