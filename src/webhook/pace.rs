//! The rate of calls: when the next one may go.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postledger_events::time::Timestamp;

/// How much of a pause may be caught up with.
const BURST: Duration = Duration::from_millis(10);

/// Shared by all who call an endpoint.
#[derive(Debug)]
pub struct Pace {
    next: Mutex<Timestamp>,
}

impl Pace {
    pub fn new() -> Pace {
        Pace { next: Mutex::new(Timestamp::EPOCH) }
    }

    /// Takes the place of one call, if there is one now. `None`: calls go as fast as they can.
    pub fn take(&self, calls_per_second_max: Option<u32>, now: Timestamp) -> bool {
        let Some(rate) = calls_per_second_max else { return true };
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if *next > now {
            return false;
        }
        *next = (*next).max(now - BURST) + Duration::from_secs(1) / rate.max(1);
        true
    }

    /// When there is a place, where calls have a rate.
    pub fn next(&self) -> Timestamp {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_no_more_calls_than_it_may() {
        let start = Timestamp::from_secs(1_800_000_000);
        let pace = Pace::new();
        let taken = (0..1000u64).filter(|ms| pace.take(Some(100), start + Duration::from_millis(*ms)));
        assert_eq!(taken.count(), 101);
        assert!(pace.next() > start + Duration::from_millis(999));
        assert!((0..1000).all(|_| pace.take(None, start)));
    }
}
