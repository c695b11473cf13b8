//! Room on the disk: intake ends while there is still enough for the outcomes of what was taken in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Unless the configuration says otherwise; never more than a tenth of the file system.
pub const FREE_BYTES_MIN: u64 = 256 * 1024 * 1024;
/// What a byte of a batch may become until the next look: journal, table, and their merging.
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
    /// Of files that are being written now.
    claimed: AtomicU64,
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
    pub(super) fn new(dir: &Path, wanted: u64) -> Arc<Space> {
        let space = Arc::new(Space {
            dir: dir.to_owned(),
            wanted,
            reserve: AtomicU64::new(wanted),
            free: AtomicU64::new(u64::MAX),
            taken: AtomicU64::new(0),
            claimed: AtomicU64::new(0),
            low: AtomicBool::new(false),
            short: AtomicBool::new(false),
        });
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

    /// A batch of so much is written.
    pub(super) fn take(&self, bytes: usize) {
        self.taken.fetch_add((bytes as u64).saturating_mul(GROWTH), Ordering::Relaxed);
    }

    /// Room for a file that leaves the reserve alone, also together with all that are being written at the same time.
    pub(super) fn claim(self: &Arc<Self>, bytes: usize) -> Result<Claim, Short> {
        let claim = |claimed: u64| Some(claimed + bytes as u64).filter(|claimed| self.is_left_beside(*claimed));
        match self.claimed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim) {
            Ok(_) => Ok(Claim { space: self.clone(), bytes: bytes as u64 }),
            Err(_) => Err(self.shortage()),
        }
    }

    pub(super) fn check(&self) -> Result<(), Short> {
        if self.is_left_beside(self.claimed.load(Ordering::Relaxed)) { Ok(()) } else { Err(self.shortage()) }
    }

    /// Whether the reserve is there when files of so much are written.
    fn is_left_beside(&self, claimed: u64) -> bool {
        let left = self.free.load(Ordering::Relaxed).saturating_sub(self.taken.load(Ordering::Relaxed));
        !self.short.load(Ordering::Relaxed) && left.saturating_sub(claimed) >= self.reserve.load(Ordering::Relaxed)
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

/// Room for a file that is being written; held until it is.
pub(super) struct Claim {
    space: Arc<Space>,
    bytes: u64,
}

impl Drop for Claim {
    fn drop(&mut self) {
        // In this order: rather counted twice for a moment than not at all.
        self.space.taken.fetch_add(self.bytes, Ordering::Relaxed);
        self.space.claimed.fetch_sub(self.bytes, Ordering::Relaxed);
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

    #[test]
    fn files_that_are_written_at_once_leave_the_reserve_alone() {
        let space = Space::new(Path::new("/"), 100 * MIB);
        let claim = |mib: u64| space.claim((mib * MIB) as usize);
        space.seen(140 * MIB, 10_000 * MIB);
        let first = claim(30).unwrap();
        assert!(claim(11).is_err());
        let second = claim(10).unwrap();
        assert_eq!(space.check(), Ok(()));
        // A look sees nothing of what is not written yet.
        space.seen(140 * MIB, 10_000 * MIB);
        assert!(claim(1).is_err());
        // What is written counts until the next look sees it.
        drop(first);
        assert!(claim(1).is_err());
        space.seen(111 * MIB, 10_000 * MIB);
        drop(second);
        space.seen(101 * MIB, 10_000 * MIB);
        assert!(claim(1).is_ok());
    }
}
