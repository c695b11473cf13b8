//! An export that was changed anywhere is not taken.

use std::path::Path;

use postledger::ledger::import::{Error, Summary, read_through};

use super::changed;

/// As `postledger export` wrote it.
const EXPORT: &[u8] = include_bytes!("../seeds/import/export");

/// As a file of its own, and as a change of one that is sound.
pub fn check(bytes: &[u8]) {
    _ = read(bytes);
    let Some(changed) = changed(EXPORT, bytes) else { return };
    if let Ok(found) = read(&changed) {
        let whole = read(EXPORT).expect("it is sound");
        assert_eq!(found, whole, "the change {} is taken", bytes.escape_ascii());
    }
}

fn read(bytes: &[u8]) -> Result<Summary, Error> {
    read_through(Path::new("an export"), bytes)
}
