//! Reads all that can be read of a damaged ledger, around what cannot, and leaves it as it is: the engine mends what it opens,
//! so it gets a copy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postledger_events::fact::ledger::LedgerCreated;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{Seq, Sha256};

use super::bodies::Bodies;
use super::lock::Lock;
use super::open::open_segments;
use super::snapshot::{Lines, Moment, Snapshot, View};
use super::store::{Error, Head, Note, Store, at_path};
use super::watermark::{Mark, Watermark};
use super::{Options, Secrets, journals};

/// Places behind an unreadable record that are tried one by one: more than a block of the engine has.
const PLACES_MAX: u64 = 1_000;
/// Steps beyond that grow up to this, which is further than any log goes.
const STEP_MAX: u64 = 1 << 53;
/// Batches that are cut out of journals; behind the last one a journal ends.
const CUTS_MAX: usize = 32;
/// Where the engine's copy is.
const COPY: &str = "salvaging";
/// Ends each batch of a journal.
const BATCH_END: &[u8] = b"FJL\x03";

/// A damaged ledger, as far as it can be read.
pub(super) struct Damaged {
    copy: PathBuf,
    pub(super) mark: Option<Mark>,
    store: Option<(Store, Snapshot, Bodies)>,
    /// Why the engine does not open.
    pub(super) why: Option<String>,
    /// It opens only without some batches of its journals.
    pub(super) batches_cut_out: bool,
}

impl Damaged {
    /// Under the lock of its directory.
    pub(super) fn open(options: &Options, lock: Arc<Lock>) -> Result<Damaged, Error> {
        let home = &options.dir;
        let mark = Watermark::open(home).ok().flatten().map(|watermark| watermark.mark().clone());
        let copy = home.join(COPY);
        let aside = mark.as_ref().and_then(|mark| mark.aside).map(|number| journals::copy(home, number));
        let engine =
            Engine { engine: home.join("ledger"), aside, copy: copy.clone(), cache_bytes: options.cache_bytes };
        let (opened, cuts) = engine.open()?;
        let opened = opened.and_then(|store| read(home, store, lock));
        let (store, why) = opened.map_or_else(|e| (None, Some(e.to_string())), |store| (Some(store), None));
        Ok(Damaged { copy, mark, store, why, batches_cut_out: cuts > 0 })
    }

    /// Removes the copy.
    pub(super) fn close(self) -> Result<(), Error> {
        drop(self.store);
        remove(&self.copy)
    }

    /// Every record that can be read.
    pub(super) fn lines(&self) -> Records {
        let snapshot = self.store.as_ref().map(|(_, snapshot, _)| snapshot.clone());
        Records { snapshot, next: Seq::FIRST, lines: None }
    }

    /// The last record that was written for certain.
    pub(super) fn known(&self) -> Seq {
        let head = self.store.as_ref().map(|(_, snapshot, _)| snapshot.position());
        head.max(self.mark.as_ref().map(|mark| mark.seq)).unwrap_or_default()
    }

    /// A content, if it is whole.
    pub(super) fn content(&self, body: &BodyRef) -> Option<(Vec<u8>, PathBuf)> {
        let (_, _, bodies) = self.store.as_ref()?;
        let bytes = bodies.read(body).ok().filter(|bytes| Sha256::of(bytes) == body.sha256)?;
        Some((bytes.to_vec(), bodies.path(body.body)))
    }

    pub(super) fn secrets(&self, created: &LedgerCreated) -> Result<Secrets, String> {
        let Some((store, snapshot, _)) = &self.store else { return Err("the engine does not open".to_owned()) };
        let read = Secrets::read(created.ledger, &snapshot.0.engine, &store.vault);
        let secrets = read.map_err(|e| e.to_string())?;
        secrets.check(created).map(|()| secrets).map_err(|e| e.to_string())
    }
}

fn read(home: &Path, store: Store, lock: Arc<Lock>) -> Result<(Store, Snapshot, Bodies), Error> {
    let view = Arc::new(View { segments: open_segments(&store)?, tables: Vec::new() });
    let head = store.note(Note::Head)?.unwrap_or(Head::NONE);
    let engine = store.db.snapshot();
    let bodies = Bodies::open(home, store.bodies.clone())?;
    Ok((store, Snapshot(Arc::new(Moment { engine, view, head, _lock: lock })), bodies))
}

/// Every record that can be read, around what cannot.
pub(super) struct Records {
    snapshot: Option<Snapshot>,
    next: Seq,
    lines: Option<Lines>,
}

impl Iterator for Records {
    type Item = (Seq, Vec<u8>);

    fn next(&mut self) -> Option<(Seq, Vec<u8>)> {
        let snapshot = self.snapshot.clone()?;
        loop {
            let lines = self.lines.get_or_insert_with(|| snapshot.records(self.next..=Seq(u64::MAX)));
            match lines.next()? {
                Ok((seq, line)) => {
                    self.next = seq.next();
                    return Some((seq, line));
                }
                Err(_) => {
                    self.lines = None;
                    self.next = behind_damage(&snapshot, self.next)?;
                }
            }
        }
    }
}

/// The first place after an unreadable one from which the log can be read on.
fn behind_damage(snapshot: &Snapshot, bad: Seq) -> Option<Seq> {
    let is_good = |place: u64| !matches!(snapshot.records(Seq(place)..=Seq(u64::MAX)).next(), Some(Err(_)));
    if let Some(good) = (bad.0 + 1..=bad.0 + PLACES_MAX).find(|place| is_good(*place)) {
        return Some(Seq(good));
    }
    let (mut bad, mut step) = (bad.0 + PLACES_MAX, PLACES_MAX);
    while !is_good(bad + step) {
        bad += step;
        step *= 2;
        if step > STEP_MAX {
            return None;
        }
    }
    let mut good = bad + step;
    while bad + 1 < good {
        let middle = bad + (good - bad) / 2;
        if is_good(middle) { good = middle } else { bad = middle }
    }
    Some(Seq(good))
}

/// The engine's files, and how its copy comes to open.
struct Engine {
    engine: PathBuf,
    /// Journals as they were before the engine mended them.
    aside: Option<PathBuf>,
    copy: PathBuf,
    cache_bytes: u64,
}

/// A journal of the copy.
struct Journal {
    name: PathBuf,
    bytes: Vec<u8>,
}

impl Engine {
    /// Cuts batches out of journals until the copy opens with all the others. Answers how many, and the store or why it never
    /// opens.
    fn open(&self) -> Result<(Result<Store, Error>, usize), Error> {
        let (mut journals, mut cuts) = (self.journals()?, 0);
        loop {
            let error = match self.try_open(&journals)? {
                Ok(store) => match self.mended(&journals)?.filter(|_| cuts < CUTS_MAX) {
                    None => return Ok((Ok(store), cuts)),
                    Some((number, at)) => {
                        drop(store);
                        cuts += 1;
                        cut(&mut journals[number].bytes, at);
                        continue;
                    }
                },
                Err(e) => e,
            };
            let Some((number, at)) = self.find_damage(&journals)?.filter(|_| cuts < CUTS_MAX) else {
                return Ok((Err(error), cuts));
            };
            cuts += 1;
            cut(&mut journals[number].bytes, at);
        }
    }

    fn journals(&self) -> Result<Vec<Journal>, Error> {
        let mut paths = journals::list(&self.engine)?;
        paths.retain(|path| is_journal(path));
        paths.sort_by_key(|path| path.file_stem().and_then(|name| name.to_str()?.parse::<u64>().ok()));
        paths.iter().map(|path| self.journal(path)).collect()
    }

    /// As it was before the engine mended it, if that is longer.
    fn journal(&self, path: &Path) -> Result<Journal, Error> {
        let name = PathBuf::from(path.file_name().expect("a listed file has a name"));
        let own = data(fs::read(path).map_err(at_path(path))?);
        let older = self.aside.as_ref().and_then(|aside| fs::read(aside.join(&name)).ok()).map(data);
        let bytes = older.filter(|older| older.len() > own.len()).unwrap_or(own);
        Ok(Journal { name, bytes })
    }

    /// With these journals in place of its own.
    fn try_open(&self, journals: &[Journal]) -> Result<Result<Store, Error>, Error> {
        remove(&self.copy)?;
        link(&self.engine, &self.copy)?;
        for journal in journals {
            let path = self.copy.join(&journal.name);
            fs::write(&path, &journal.bytes).map_err(at_path(&path))?;
        }
        Ok(Store::open(&self.copy, self.cache_bytes))
    }

    /// Where the engine cut off a journal although there is more behind.
    fn mended(&self, journals: &[Journal]) -> Result<Option<(usize, usize)>, Error> {
        for (number, journal) in journals.iter().enumerate() {
            let path = self.copy.join(&journal.name);
            // One whose rows are all in tables is gone.
            let Ok(found) = fs::read(&path) else { continue };
            let common = found.iter().zip(&journal.bytes).take_while(|(found, given)| found == given).count();
            let is_more = journal.bytes[common..].windows(BATCH_END.len()).any(|end| end == BATCH_END);
            if data(found).len() < journal.bytes.len() && is_more {
                return Ok(Some((number, common)));
            }
        }
        Ok(None)
    }

    /// The first journal with which the copy does not open, and how much of it does no harm. `None`: it is not the journals.
    fn find_damage(&self, journals: &[Journal]) -> Result<Option<(usize, usize)>, Error> {
        if self.try_open(&[])?.is_err() {
            return Ok(None);
        }
        let mut good = 0;
        let mut bad = journals.len();
        while good + 1 < bad {
            let middle = good.midpoint(bad);
            if self.try_open(&journals[..middle])?.is_ok() { good = middle } else { bad = middle }
        }
        let Some(journal) = journals.get(good) else { return Ok(None) };
        let (mut whole, mut broken) = (0, journal.bytes.len());
        while whole + 1 < broken {
            let middle = whole.midpoint(broken);
            let part = Journal { name: journal.name.clone(), bytes: journal.bytes[..middle].to_vec() };
            if self.try_open(&[part])?.is_ok() { whole = middle } else { broken = middle }
        }
        Ok(Some((good, whole)))
    }
}

/// Cuts out the batch that has this place.
fn cut(bytes: &mut Vec<u8>, at: usize) {
    let ends = |range: &[u8], last: bool| {
        let mut ends = range.windows(BATCH_END.len());
        let found = if last { ends.rposition(|end| end == BATCH_END) } else { ends.position(|end| end == BATCH_END) };
        found.map(|end| end + BATCH_END.len())
    };
    let begin = ends(&bytes[..at], true).unwrap_or(0);
    match ends(&bytes[at..], false) {
        Some(end) => drop(bytes.drain(begin..at + end)),
        None => bytes.truncate(begin),
    }
}

/// Without the room that is reserved behind.
fn data(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
    bytes
}

fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

/// Copies all but journals. What the engine never writes again once it is there is not copied but linked.
fn link(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir(to).map_err(at_path(to))?;
    let is_final = from.file_name().is_some_and(|name| name == "tables" || name == "blobs");
    for path in journals::list(from)? {
        let place = to.join(path.file_name().expect("a listed file has a name"));
        if path.is_dir() {
            link(&path, &place)?;
        } else if is_journal(&path) || is_final && fs::hard_link(&path, &place).is_ok() {
            continue;
        } else {
            fs::copy(&path, &place).map_err(at_path(&path))?;
        }
    }
    Ok(())
}

fn remove(dir: &Path) -> Result<(), Error> {
    if dir.exists() { fs::remove_dir_all(dir).map_err(at_path(dir)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_batch_is_cut_out() {
        let check = |at: usize, expect: &[u8]| {
            let mut bytes = b"oneFJL\x03twoFJL\x03threeFJL\x03four".to_vec();
            cut(&mut bytes, at);
            assert_eq!(bytes.escape_ascii().to_string(), expect.escape_ascii().to_string(), "{at}");
        };
        check(0, b"twoFJL\x03threeFJL\x03four");
        check(7, b"oneFJL\x03threeFJL\x03four");
        check(9, b"oneFJL\x03threeFJL\x03four");
        check(27, b"oneFJL\x03twoFJL\x03threeFJL\x03");
    }
}
