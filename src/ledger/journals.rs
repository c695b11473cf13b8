//! The engine truncates its journals when it opens a directory that was not closed, and what it cuts off may be evidence; so
//! they are copied aside first.

use std::fs;
use std::path::{Path, PathBuf};

use super::store::{Error, at_path};

/// Copies that are kept; the oldest goes.
const COPIES_MAX: usize = 3;

/// Where a copy is.
pub(super) fn copy(dir: &Path, number: u64) -> PathBuf {
    dir.join("journals-aside").join(number.to_string())
}

/// Copies `engine/*.jnl` into a new directory and gives its number.
pub(super) fn set_aside(dir: &Path, engine: &Path) -> Result<Option<u64>, Error> {
    let journals: Vec<PathBuf> =
        list(engine)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "jnl")).collect();
    if journals.is_empty() {
        return Ok(None);
    }
    let aside = dir.join("journals-aside");
    fs::create_dir_all(&aside).map_err(at_path(&aside))?;
    let mut copies: Vec<u64> = list(&aside)?.iter().filter_map(|path| number(path)).collect();
    copies.sort_unstable();
    let new = copies.last().map_or(1, |last| last + 1);
    let to = copy(dir, new);
    fs::create_dir(&to).map_err(at_path(&to))?;
    let copied = journals.iter().try_for_each(|journal| {
        let name = journal.file_name().expect("a listed file has a name");
        fs::copy(journal, to.join(name)).map(drop).map_err(at_path(journal))
    });
    // On a full disk each start would leave less room for the next one.
    copied.inspect_err(|_| drop(fs::remove_dir_all(&to)))?;
    for old in copies.iter().rev().skip(COPIES_MAX - 1) {
        let old = copy(dir, *old);
        fs::remove_dir_all(&old).map_err(at_path(&old))?;
    }
    Ok(Some(new))
}

pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect());
    entries.map_err(at_path(dir))
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let engine = dir.path().join("ledger");
        // What cannot be copied as a file.
        fs::create_dir_all(engine.join("1.jnl")).unwrap();
        fs::write(engine.join("0.jnl"), "a journal").unwrap();
        assert!(set_aside(dir.path(), &engine).is_err());
        assert_eq!(list(&dir.path().join("journals-aside")).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn the_newest_copies_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let engine = dir.path().join("ledger");
        fs::create_dir(&engine).unwrap();
        assert_eq!(set_aside(dir.path(), &engine).unwrap(), None);
        fs::write(engine.join("0.jnl"), "a journal").unwrap();
        for n in 1..=5 {
            assert_eq!(set_aside(dir.path(), &engine).unwrap(), Some(n));
            assert_eq!(fs::read_to_string(copy(dir.path(), n).join("0.jnl")).unwrap(), "a journal");
        }
        let mut kept: Vec<u64> =
            list(&dir.path().join("journals-aside")).unwrap().iter().filter_map(|p| number(p)).collect();
        kept.sort_unstable();
        assert_eq!(kept, [3, 4, 5]);
    }
}
