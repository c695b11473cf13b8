//! Contents of messages: small ones ride in the batch, larger ones are files that are on disk before their message is.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fjall::{Keyspace, Readable};

use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{MessageUuid, Sha256};

use super::store::{self, at_path, sync_dir};

/// Where a body is follows from its size, so this is part of the format.
pub const BODY_INLINE_BYTES_MAX: usize = 32 * 1024;

/// The places of bodies.
#[derive(Clone)]
pub(super) struct Bodies {
    dir: PathBuf,
    keyspace: Keyspace,
}

/// A body that is safe, or will be together with the command that it comes with. If no message takes it, its file goes
/// when this is dropped.
pub struct Staged {
    pub body: BodyRef,
    pub(super) place: Place,
}

pub(super) enum Place {
    Inline(Bytes),
    File(StagedFile),
}

/// Removes its file unless it was kept.
pub(super) struct StagedFile {
    path: PathBuf,
    kept: bool,
}

impl StagedFile {
    /// A message has it now, or may have.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.kept {
            remove_file(&self.path);
        }
    }
}

impl Bodies {
    pub(super) fn open(dir: &Path, keyspace: Keyspace) -> Result<Bodies, store::Error> {
        let bodies = Bodies { dir: dir.join("bodies"), keyspace };
        if !bodies.dir.exists() {
            bodies.make_shelves()?;
            sync_dir(dir)?;
        }
        Ok(bodies)
    }

    /// All at once, so that nobody writes into a shelf whose own name is not on disk yet. They appear whole or not at all.
    fn make_shelves(&self) -> Result<(), store::Error> {
        let new = self.dir.with_extension("new");
        for shelf in 0..=u8::MAX {
            let shelf = new.join(format!("{shelf:02x}"));
            fs::create_dir_all(&shelf).map_err(at_path(&shelf))?;
        }
        sync_dir(&new)?;
        fs::rename(&new, &self.dir).map_err(at_path(&self.dir))
    }

    /// Blocks while a large body is written and synced.
    pub(super) fn stage(&self, name: MessageUuid, bytes: Bytes) -> Result<Staged, store::Error> {
        let body = BodyRef { body: name, size: bytes.len() as u64, sha256: Sha256::of(&bytes) };
        let place = if is_inline(&body) { Place::Inline(bytes) } else { Place::File(self.write_file(name, &bytes)?) };
        Ok(Staged { body, place })
    }

    // IMPORTANT: the file, then its name, then the name's directory must be on disk before the message's record is.
    fn write_file(&self, name: MessageUuid, bytes: &[u8]) -> Result<StagedFile, store::Error> {
        let path = self.path(name);
        let shelf = path.parent().expect("a body's file is on a shelf");
        let mut staged = StagedFile { path: path.with_extension("tmp"), kept: false };
        let written = File::create(&staged.path).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(at_path(&staged.path))?;
        fs::rename(&staged.path, &path).map_err(at_path(&path))?;
        staged.path.clone_from(&path);
        sync_dir(shelf)?;
        Ok(staged)
    }

    pub(super) fn read(&self, body: &BodyRef) -> Result<Bytes, Error> {
        let bytes = if is_inline(body) { self.read_inline(body)? } else { self.read_file(body)? };
        check_size(body, bytes.len() as u64).map(|()| bytes)
    }

    /// To read it piece by piece, a small one as it was at a moment.
    pub(super) fn open_content(&self, body: &BodyRef, engine: &fjall::Snapshot) -> Result<Box<dyn Read + Send>, Error> {
        if is_inline(body) {
            let value = engine.get(&self.keyspace, body.body.0.as_bytes()).map_err(store::Error::from)?;
            let value = value.ok_or(Error::Missing(*body))?;
            check_size(body, value.len() as u64)?;
            return Ok(Box::new(io::Cursor::new(value)));
        }
        let path = self.path(body.body);
        match File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((size, file)) => check_size(body, size).map(|()| Box::new(file) as Box<dyn Read + Send>),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Missing(*body)),
            Err(e) => Err(at_path(&path)(e).into()),
        }
    }

    fn read_inline(&self, body: &BodyRef) -> Result<Bytes, Error> {
        let value = self.keyspace.get(body.body.0.as_bytes()).map_err(store::Error::from)?;
        value.map(|v| Bytes::from(v.to_vec())).ok_or(Error::Missing(*body))
    }

    fn read_file(&self, body: &BodyRef) -> Result<Bytes, Error> {
        let path = self.path(body.body);
        match fs::read(&path) {
            Ok(bytes) => Ok(Bytes::from(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Missing(*body)),
            Err(e) => Err(at_path(&path)(e).into()),
        }
    }

    /// Like [`Bodies::read`], without reading a large body.
    pub(super) fn check_present(&self, body: &BodyRef) -> Result<(), Error> {
        if is_inline(body) {
            return self.read(body).map(drop);
        }
        let path = self.path(body.body);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() == body.size => Ok(()),
            Ok(meta) => Err(Error::Size { body: *body, found: meta.len() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::Missing(*body)),
            Err(e) => Err(at_path(&path)(e).into()),
        }
    }

    #[cfg(test)]
    pub(super) fn file_of(&self, name: MessageUuid) -> PathBuf {
        self.path(name)
    }

    /// The file of a body that no message has any more; not an error if it is gone already.
    pub(super) fn forget_file(&self, name: MessageUuid) {
        remove_file(&self.path(name));
    }

    /// All files, with the body that each should be; `None` for what a crash left half written or is not ours.
    pub(super) fn files(&self) -> Result<Vec<(PathBuf, Option<MessageUuid>)>, store::Error> {
        let mut files = Vec::new();
        for shelf in list(&self.dir)? {
            for path in list(&shelf)? {
                let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok());
                files.push((path, name));
            }
        }
        Ok(files)
    }

    /// Brings the names of all files to disk.
    pub(super) fn sync_shelves(&self) -> Result<(), store::Error> {
        list(&self.dir)?.iter().try_for_each(|shelf| sync_dir(shelf))
    }

    /// A directory for every first byte of the hash of the name: the first bytes of the name itself are a time.
    pub(super) fn path(&self, name: MessageUuid) -> PathBuf {
        let [shelf, ..] = Sha256::of(name.0.as_bytes()).0;
        self.dir.join(format!("{shelf:02x}")).join(name.to_string())
    }
}

/// Whose content a key of the engine is; `None`: it is not ours.
pub(super) fn name(key: &[u8]) -> Option<MessageUuid> {
    <[u8; 16]>::try_from(key).ok().map(|bytes| MessageUuid(uuid::Uuid::from_bytes(bytes)))
}

pub(super) fn is_inline(body: &BodyRef) -> bool {
    body.size <= BODY_INLINE_BYTES_MAX as u64
}

fn check_size(body: &BodyRef, found: u64) -> Result<(), Error> {
    if found == body.size { Ok(()) } else { Err(Error::Size { body: *body, found }) }
}

pub(super) fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        // What stays is found and removed at the next start.
        Err(e) => tracing::warn!("{}: cannot be removed: {e}", path.display()),
    }
}

pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, store::Error> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|e| e.map(|e| e.path())).collect());
    entries.map_err(at_path(dir))
}

/// A body cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("body {} ({} bytes) is missing", .0.body, .0.size)]
    Missing(BodyRef),
    #[error("body {} has {found} bytes instead of {}", body.body, body.size)]
    Size { body: BodyRef, found: u64 },
    #[error("{0}")]
    Store(#[from] store::Error),
}
