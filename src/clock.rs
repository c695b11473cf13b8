//! The only file that asks the time or rolls dice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use postledger_events::time::Timestamp;

/// Time and dice: the machine's own, or for tests a time that stands still and dice that fall the same way every time.
#[derive(Clone)]
pub struct Clock(Arc<Source>);

enum Source {
    System,
    Manual(Mutex<Manual>),
}

struct Manual {
    now: Timestamp,
    dice: u64,
}

impl Clock {
    pub fn system() -> Clock {
        Clock(Arc::new(Source::System))
    }

    /// A clock that says `now` until it is told otherwise.
    pub fn manual(now: Timestamp) -> Clock {
        Clock(Arc::new(Source::Manual(Mutex::new(Manual { now, dice: 0 }))))
    }

    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Source::System => system_now(),
            Source::Manual(manual) => lock(manual).now,
        }
    }

    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        match &*self.0 {
            Source::System => aws_lc_rs::rand::fill(&mut bytes).expect("the system gives random bytes"),
            Source::Manual(manual) => lock(manual).fill(&mut bytes),
        }
        bytes
    }

    /// A new name that sorts by time (RFC 9562 §5.7).
    pub fn uuid_v7(&self) -> Uuid {
        let millis = u64::try_from(self.now().as_nanos() / 1_000_000).unwrap_or(0);
        uuid::Builder::from_unix_timestamp_millis(millis, &self.random()).into_uuid()
    }

    /// Seconds, -5 to 4: the contract's spread of the first wait.
    pub fn jitter_s(&self) -> i8 {
        let [a, b] = self.random();
        let roll = u16::from_be_bytes([a, b]) % 10;
        i8::try_from(roll).expect("below ten") - 5
    }

    /// Thousandths, -10 to 9: the contract's spread of the waits of calls.
    pub fn jitter_permille(&self) -> i8 {
        let [a, b] = self.random();
        let roll = u16::from_be_bytes([a, b]) % 20;
        i8::try_from(roll).expect("below twenty") - 10
    }

    /// Moves a manual clock on. The machine's clock cannot be moved: asking for it is a mistake in a test.
    pub fn advance(&self, by: Duration) {
        let now = self.now();
        self.set(now + by);
    }

    /// Sets a manual clock, also back.
    pub fn set(&self, now: Timestamp) {
        match &*self.0 {
            Source::System => panic!("only a manual clock can be set"),
            Source::Manual(manual) => lock(manual).now = now,
        }
    }
}

impl Manual {
    /// SplitMix64: plain, and the same on every machine.
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            self.dice = self.dice.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.dice;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes()[..chunk.len()]);
        }
    }
}

fn system_now() -> Timestamp {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp::EPOCH + since,
        Err(before) => Timestamp::EPOCH - before.duration(),
    }
}

fn lock(manual: &Mutex<Manual>) -> MutexGuard<'_, Manual> {
    manual.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_still_and_its_dice_fall_alike() {
        let (a, b) = (Clock::manual(Timestamp::from_secs(9)), Clock::manual(Timestamp::from_secs(9)));
        assert_eq!(a.random::<12>(), b.random::<12>());
        assert_ne!(a.random::<12>(), a.random::<12>());
        a.advance(Duration::from_secs(1));
        assert_eq!(a.now(), Timestamp::from_secs(10));
        assert_eq!(b.now(), Timestamp::from_secs(9));
    }

    #[test]
    fn names_sort_by_time_and_jitter_stays_in_its_range() {
        let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
        let first = clock.uuid_v7();
        clock.advance(Duration::from_millis(1));
        assert!(first < clock.uuid_v7());
        assert_eq!(first.get_version_num(), 7);
        let rolls: std::collections::BTreeSet<i8> = (0..1000).map(|_| clock.jitter_s()).collect();
        assert_eq!(rolls, (-5..=4).collect());
    }
}
