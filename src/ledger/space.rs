//! Room on the disk: intake ends while there is still enough for the outcomes of what was taken in.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Unless the configuration says otherwise; never more than a tenth of the file system.
pub const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// What a byte of a record or content may become until the next look: journal, table, and their merging.
const GROWTH: u64 = 4;
const MIB: u64 = 1024 * 1024;

/// Looked at now and then, and reckoned with in between.
pub(super) struct Space {
    dir: PathBuf,
    wanted: u64,
    reserve: AtomicU64,
    free: AtomicU64,
    /// Written since the last look.
    taken: AtomicU64,
    low: AtomicBool,
    short: AtomicBool,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub free_bytes: u64,
    /// What intake leaves.
    pub reserve_bytes: u64,
    /// Less than twice the reserve is left.
    pub low: bool,
    /// No new mail is taken in.
    pub short: bool,
}

/// No new mail is taken in, since the disk is nearly full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the disk of the ledger has {} MiB free, and {} are kept for the outcomes of what was taken in: make room there; \
     mail is accepted again by itself", .free_bytes / MIB, .reserve_bytes / MIB
)]
pub struct Short {
    free_bytes: u64,
    reserve_bytes: u64,
}

impl Space {
    pub(super) fn new(dir: &Path, wanted: u64) -> Space {
        let space = Space {
            dir: dir.to_owned(),
            wanted,
            reserve: AtomicU64::new(wanted),
            free: AtomicU64::new(u64::MAX),
            taken: AtomicU64::new(0),
            low: AtomicBool::new(false),
            short: AtomicBool::new(false),
        };
        space.look();
        space
    }

    /// Asks the file system.
    pub(super) fn look(&self) {
        match rustix::fs::statvfs(&self.dir) {
            Ok(fs) => self.seen(fs.f_bavail.saturating_mul(fs.f_frsize), fs.f_blocks.saturating_mul(fs.f_frsize)),
            // The next failed write says more.
            Err(e) => tracing::warn!("{}: nobody knows how much space is left: {e}", self.dir.display()),
        }
    }

    fn seen(&self, free: u64, total: u64) {
        let reserve = self.wanted.min(total / 10);
        self.reserve.store(reserve, Ordering::Relaxed);
        self.free.store(free, Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
        let was = (self.low.load(Ordering::Relaxed), self.short.load(Ordering::Relaxed));
        // What goes away must have been gone for good, or intake opens and closes all the time.
        let below = |limit: u64, was: bool| free < if was { limit + limit / 4 } else { limit };
        let now = (below(reserve * 2, was.0), below(reserve, was.1));
        self.low.store(now.0, Ordering::Relaxed);
        self.short.store(now.1, Ordering::Relaxed);
        match (was, now) {
            ((_, false), (_, true)) => tracing::error!("no mail is accepted: {}", self.shortage()),
            ((_, true), (_, false)) => tracing::info!("mail is accepted again: {} MiB are free", free / MIB),
            ((false, _), (true, _)) => {
                tracing::warn!("the disk fills up: at {} MiB no more mail is accepted", reserve / MIB);
            }
            _ => {}
        }
    }

    /// So much is written.
    pub(super) fn take(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn check(&self) -> Result<(), Short> {
        let taken = self.taken.load(Ordering::Relaxed).saturating_mul(GROWTH);
        let left = self.free.load(Ordering::Relaxed).saturating_sub(taken);
        if self.short.load(Ordering::Relaxed) || left < self.reserve.load(Ordering::Relaxed) {
            return Err(self.shortage());
        }
        Ok(())
    }

    fn shortage(&self) -> Short {
        let Room { free_bytes, reserve_bytes, .. } = self.room();
        Short { free_bytes, reserve_bytes }
    }

    pub(super) fn room(&self) -> Room {
        Room {
            free_bytes: self.free.load(Ordering::Relaxed),
            reserve_bytes: self.reserve.load(Ordering::Relaxed),
            low: self.low.load(Ordering::Relaxed),
            short: self.short.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_early_and_begins_again_late() {
        let space = Space::new(Path::new("/"), 100 * MIB);
        let check = |free: u64, low: bool, short: bool| {
            space.seen(free * MIB, 10_000 * MIB);
            let room = space.room();
            assert_eq!((room.low, room.short, space.check().is_err()), (low, short, short), "{free}");
        };
        check(1_000, false, false);
        check(199, true, false);
        check(99, true, true);
        check(124, true, true);
        check(125, true, false);
        check(240, true, false);
        check(250, false, false);
        // A small file system keeps a tenth.
        space.seen(60 * MIB, 500 * MIB);
        assert_eq!(space.check(), Ok(()));
    }

    #[test]
    fn what_was_written_since_counts() {
        let space = Space::new(Path::new("/"), 100 * MIB);
        space.seen(140 * MIB, 10_000 * MIB);
        space.take(10 * MIB as usize);
        assert_eq!(space.check(), Ok(()));
        space.take(1);
        let said = space.check().unwrap_err().to_string();
        assert!(said.starts_with("the disk of the ledger has 140 MiB free, and 100 are kept"), "{said}");
        space.seen(140 * MIB, 10_000 * MIB);
        assert_eq!(space.check(), Ok(()));
    }
}
