//! An export that was changed anywhere is not taken.

use std::path::Path;

use postledger::ledger::import::{Error, Summary, read_through};

/// As `postledger export` wrote it.
const EXPORT: &[u8] = include_bytes!("../seeds/import/export");
/// A place in the export, and how many bytes are taken away there.
const CHANGE_BYTES: usize = 3;

/// As a file of its own, and as a change of one that is sound.
pub fn check(bytes: &[u8]) {
    _ = read(bytes);
    let Some((change, instead)) = bytes.split_first_chunk::<CHANGE_BYTES>() else { return };
    let place = (usize::from(change[0]) << 8 | usize::from(change[1])).min(EXPORT.len());
    let (head, tail) = EXPORT.split_at(place);
    let tail = &tail[usize::from(change[2]).min(tail.len())..];
    if let Ok(found) = read(&[head, instead, tail].concat()) {
        let whole = read(EXPORT).expect("it is sound");
        assert_eq!(found, whole, "at byte {place}, {} is taken", instead.escape_ascii());
    }
}

fn read(bytes: &[u8]) -> Result<Summary, Error> {
    read_through(Path::new("an export"), bytes)
}
