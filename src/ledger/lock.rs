//! One process at a time holds a ledger, and whoever comes second learns which.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use super::open;
use super::store::at_path;

/// Held as long as this lives.
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// A process that is being started may have a copy of the file for a moment, so that closing ours alone would not do.
    fn drop(&mut self) {
        if let Err(e) = self.file.unlock() {
            tracing::warn!("the lock of the ledger is let go with the file only: {e}");
        }
    }
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Lock, open::Error> {
        let path = dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(at_path(&path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(dir, file)),
            Err(TryLockError::Error(e)) => return Err(at_path(&path)(e).into()),
        }
        write_pid(&mut file).map_err(at_path(&path))?;
        Ok(Lock { file })
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn held(dir: &Path, mut file: File) -> open::Error {
    let mut text = String::new();
    let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
    open::Error::Held { dir: dir.to_owned(), pid }
}
