//! Work beside the running ledger takes its share of a processor and no more, and ends when it is told to.

use std::cell::Cell;
use std::time::Duration;

use postledger_events::time::Timestamp;
use postledger_projections::rows::{Key, Value};
use postledger_projections::{Error, Order, Rows, Table};

use crate::clock::Clock;

/// Work before a rest.
const SLICE: Duration = Duration::from_millis(10);
/// A machine that stood still did not work.
const REST_MAX: Duration = Duration::from_secs(30);
/// A stop is noticed after this, at rest.
const GLANCE: Duration = Duration::from_millis(500);

/// Asked again and again by work that takes long.
pub struct Pace<'a> {
    /// With the share in percent; `None`: as fast as it goes.
    share: Option<(Clock, u32)>,
    stop: &'a dyn Fn() -> bool,
    since: Cell<Timestamp>,
    stopped: Cell<bool>,
}

impl<'a> Pace<'a> {
    pub fn unhindered(stop: &'a dyn Fn() -> bool) -> Pace<'a> {
        Pace { share: None, stop, since: Cell::new(Timestamp::EPOCH), stopped: Cell::new(false) }
    }

    /// `percent` of one processor, 1 to 100.
    pub fn share(clock: Clock, percent: u32, stop: &'a dyn Fn() -> bool) -> Pace<'a> {
        let since = Cell::new(clock.now());
        Pace { share: Some((clock, percent.clamp(1, 100))), stop, since, stopped: Cell::new(false) }
    }

    pub(super) fn is_unhindered(&self) -> bool {
        self.share.is_none()
    }

    /// Rests if it is time to, for as long as the work before asks for. Whether to go on.
    pub fn breathe(&self) -> bool {
        if let Some((clock, percent)) = &self.share {
            let worked = clock.now().since(self.since.get());
            if worked >= SLICE {
                let mut rest = (worked * (100 - percent) / *percent).min(REST_MAX);
                while !rest.is_zero() && self.goes_on() {
                    let nap = rest.min(GLANCE);
                    std::thread::sleep(nap);
                    rest -= nap;
                }
                self.since.set(clock.now());
            }
        }
        self.goes_on()
    }

    fn goes_on(&self) -> bool {
        if !self.stopped.get() && (self.stop)() {
            self.stopped.set(true);
        }
        !self.stopped.get()
    }

    /// It was told to end: what it found is not the whole.
    pub fn is_stopped(&self) -> bool {
        self.stopped.get()
    }
}

/// Rows whose every read may rest.
pub(super) struct Paced<'a, R> {
    pub(super) rows: &'a R,
    pub(super) pace: &'a Pace<'a>,
}

impl<R> Paced<'_, R> {
    fn breathe(&self, table: Table) -> Result<(), Error> {
        if self.pace.breathe() { Ok(()) } else { Err(Error::new(table, "stopped")) }
    }
}

impl<R: Rows> Rows for Paced<'_, R> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error> {
        self.breathe(table)?;
        self.rows.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, Error> {
        self.breathe(table)?;
        self.rows.scan(table, start, end, order, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_by_its_share_and_ends_when_told() {
        let told = Cell::new(false);
        let stop = || told.get();
        let clock = Clock::manual(Timestamp::from_secs(100));
        let pace = Pace::share(clock.clone(), 99, &stop);
        assert!(pace.breathe());
        clock.advance(SLICE);
        assert!(pace.breathe());
        assert_eq!(pace.since.get(), clock.now(), "it rested");
        told.set(true);
        assert!(!pace.breathe() && pace.is_stopped());
        told.set(false);
        assert!(!pace.breathe(), "for good");
    }
}
