//! The watermark: where the log ended when its last batch was synced, kept outside the engine, which may lose the end of its
//! journal without a word. Two slots of 4 KiB are written in turn, so that a torn write leaves the other.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use postledger_events::id::{Seq, Sha256};

use super::rounds::Round;
use super::store::{Error, at_path, sync_dir};

const SLOT_BYTES: usize = 4096;

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Grows with every write; the higher of two slots is the newer.
    pub(super) count: u64,
    /// The last record; 0 before the first.
    pub(super) seq: Seq,
    /// Of its line.
    pub(super) hash: Sha256,
    /// The log was read back and found whole up to here.
    pub(super) verified: Seq,
    /// The ledger was closed, and nothing is left in the engine's journals that matters.
    pub(super) clean: bool,
    /// The copy of the journals that was made for a start that has not succeeded yet; a second try makes no other.
    pub(super) aside: Option<u64>,
    /// How the last round over the whole ledger ended.
    #[serde(default)]
    pub(super) round: Option<Round>,
}

pub(super) struct Watermark {
    file: Arc<File>,
    path: PathBuf,
    mark: Mark,
    dirty: Arc<AtomicBool>,
}

impl Watermark {
    /// `None` if there is none.
    pub(super) fn open(dir: &Path) -> Result<Option<Watermark>, Error> {
        let path = dir.join("watermark");
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(at_path(&path)(e)),
        };
        let slots = [0, 1].map(|n| read_slot(&file, n));
        let newest = slots.into_iter().flatten().max_by_key(|mark| mark.count);
        let mark = newest.ok_or_else(|| {
            Error::Notes(format!(
                "{}: neither slot can be read. Run `postledger repair`, which goes on from what is there",
                path.display()
            ))
        })?;
        Ok(Some(Watermark { file: Arc::new(file), path, mark, dirty: Arc::default() }))
    }

    /// Of a log that has no record yet.
    pub(super) fn create(dir: &Path) -> Result<Watermark, Error> {
        let path = dir.join("watermark");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(at_path(&path))?;
        let mark =
            Mark { count: 0, seq: Seq(0), hash: Sha256::ZERO, verified: Seq(0), clean: true, aside: None, round: None };
        let mut watermark = Watermark { file: Arc::new(file), path, mark, dirty: Arc::default() };
        watermark.update(|_| {})?;
        watermark.sync()?;
        sync_dir(dir)?;
        Ok(watermark)
    }

    pub(super) fn mark(&self) -> &Mark {
        &self.mark
    }

    /// Writes the older slot; [`Keeper`] or [`Watermark::sync`] brings it to disk.
    pub(super) fn update(&mut self, change: impl FnOnce(&mut Mark)) -> Result<(), Error> {
        change(&mut self.mark);
        self.mark.count += 1;
        let offset = (self.mark.count % 2) * SLOT_BYTES as u64;
        self.file.write_all_at(&encode(&self.mark), offset).map_err(at_path(&self.path))?;
        self.dirty.store(true, Ordering::Release);
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<(), Error> {
        self.dirty.store(false, Ordering::Release);
        self.file.sync_all().map_err(at_path(&self.path))
    }

    pub(super) fn keeper(&self) -> Keeper {
        Keeper { file: self.file.clone(), dirty: self.dirty.clone() }
    }
}

/// Syncs what was written since it was last asked; lives on a thread of its own so that no batch waits for it.
pub(super) struct Keeper {
    file: Arc<File>,
    dirty: Arc<AtomicBool>,
}

impl Keeper {
    pub(super) fn sync_if_dirty(&self) -> std::io::Result<()> {
        if self.dirty.swap(false, Ordering::AcqRel) { self.file.sync_data() } else { Ok(()) }
    }
}

/// A line of JSON, the SHA-256 of it, and spaces to the end: a person can read it too.
fn encode(mark: &Mark) -> Vec<u8> {
    let json = serde_json::to_string(mark).expect("numbers and hashes are JSON");
    let mut slot = format!("{json}\n{}\n", Sha256::of(json.as_bytes())).into_bytes();
    assert!(slot.len() < SLOT_BYTES, "a mark fits its slot");
    slot.resize(SLOT_BYTES, b' ');
    slot
}

fn read_slot(file: &File, n: u64) -> Option<Mark> {
    let mut slot = vec![0; SLOT_BYTES];
    file.read_exact_at(&mut slot, n * SLOT_BYTES as u64).ok()?;
    let text = str::from_utf8(&slot).ok()?;
    let mut lines = text.lines();
    let (json, hash) = (lines.next()?, lines.next()?);
    (hash.parse() == Ok(Sha256::of(json.as_bytes()))).then_some(())?;
    serde_json::from_str(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_slot_counts() {
        let dir = tempfile::tempdir().unwrap();
        let mut watermark = Watermark::create(dir.path()).unwrap();
        for n in 1..=5 {
            watermark.update(|mark| mark.seq = Seq(n)).unwrap();
        }
        let newest = watermark.mark().clone();
        assert_eq!(Watermark::open(dir.path()).unwrap().unwrap().mark(), &newest);
        let offset = (newest.count % 2) * SLOT_BYTES as u64;
        watermark.file.write_all_at(b"torn", offset).unwrap();
        assert_eq!(Watermark::open(dir.path()).unwrap().unwrap().mark().seq, Seq(4));
        watermark.file.write_all_at(b"torn", SLOT_BYTES as u64 - offset).unwrap();
        assert!(Watermark::open(dir.path()).is_err());
    }
}
