//! What has arrived so far, counted by all connections and waited for by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const GLANCE: Duration = Duration::from_millis(2);

#[derive(Clone, Default)]
pub struct Count(Arc<AtomicU64>);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Waits until so many have arrived.
    pub fn wait_for(&self, expected: u64, patience: Duration) {
        let end = Instant::now() + patience;
        while self.get() < expected {
            assert!(Instant::now() < end, "{} of {expected} arrived", self.get());
            std::thread::sleep(GLANCE);
        }
    }
}
