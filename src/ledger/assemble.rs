//! Putting a ledger together from records, contents and secrets, beside whatever is in the directory; only when it is whole
//! does it take that place. A crash before leaves nothing but a directory to remove; one after is made good by the next start.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::Keyspace;
use zeroize::Zeroizing;

use postledger_events::command::{LoseContents, LostContent};
use postledger_events::event::Event;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{Author, MessageUuid, SecretId, Seq};
use postledger_events::{Answer, Command};
use postledger_projections::secrets::Named;

use super::bodies::{self, Bodies, is_inline};
use super::lock::Lock;
use super::open::{self, open_store, open_tables};
use super::snapshot::Snapshot;
use super::store::{Error, Head, Note, SegmentNote, Store, at_path, sync_dir};
use super::verify::bodies_of;
use super::watermark::Watermark;
use super::{BranchWish, Ledger, Options, Rebuild, chain, vault};
use crate::clock::Clock;

/// Records that are brought into the engine at once.
const LINES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Small contents that are brought into the engine at once.
const CONTENTS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Contents that one command gives up.
const LOST_CONTENTS_MAX: usize = 200;
/// Contents that are removed at once.
const REMOVED_MAX: usize = 10_000;

/// Where a ledger is put together.
const UNFINISHED: &str = "assembling";
/// Where it waits to be put in its place; a number follows.
const FINISHED: &str = "assembled-";
/// Where what was in its place goes; the same number follows.
const REPLACED: &str = "damaged-";
/// What is put in place, and what it takes the place of. `ledger` is last: without it there is no ledger.
const PARTS: [&str; 4] = [LOST_RECORDS, "bodies", "watermark", "ledger"];
/// Records that were read and are not part of the ledger any more, as JSON Lines.
const LOST_RECORDS: &str = "lost.jsonl";

/// A ledger that is being put together.
pub(super) struct Assembly {
    home: PathBuf,
    dir: PathBuf,
    lock: Arc<Lock>,
    store: Store,
    bodies: Bodies,
    segment_records_max: u64,
    segments: Vec<SegmentNote>,
    log: Option<Keyspace>,
    lines: Vec<(Seq, Vec<u8>)>,
    lines_bytes: usize,
    contents: Vec<(MessageUuid, Vec<u8>)>,
    contents_bytes: usize,
    file: Option<File>,
    lost: Option<File>,
    end: Head,
}

impl Assembly {
    /// Beside what `home` has, under its lock. What an earlier try left half done goes.
    pub(super) fn create(home: &Path, options: &Options) -> Result<Assembly, open::Error> {
        crate::files::create_private_dir(home).map_err(at_path(home))?;
        let lock = Arc::new(Lock::take(home)?);
        let dir = home.join(UNFINISHED);
        remove_dir(&dir)?;
        crate::files::create_private_dir(&dir).map_err(at_path(&dir))?;
        let store = Store::open(&dir.join("ledger"), options.cache_bytes)?;
        let bodies = Bodies::open(&dir, store.bodies.clone())?;
        Ok(Assembly {
            home: home.to_owned(),
            dir,
            lock,
            store,
            bodies,
            segment_records_max: options.segment_records_max.max(1),
            segments: Vec::new(),
            log: None,
            lines: Vec::new(),
            lines_bytes: 0,
            contents: Vec::new(),
            contents_bytes: 0,
            file: None,
            lost: None,
            end: Head::NONE,
        })
    }

    /// The next record of the chain.
    pub(super) fn record(&mut self, head: Head, line: Vec<u8>) -> Result<(), Error> {
        assert!(head.seq > self.end.seq, "records come in order");
        let first = self.segments.last().map(|segment| segment.first);
        if first.is_none_or(|first| head.seq.0 - first.0 >= self.segment_records_max) {
            self.begin_segment(head.seq)?;
        }
        self.lines_bytes += line.len();
        self.lines.push((head.seq, line));
        self.end = head;
        if self.lines_bytes >= LINES_BYTES_MAX { self.store_lines() } else { Ok(()) }
    }

    fn begin_segment(&mut self, first: Seq) -> Result<(), Error> {
        self.store_lines()?;
        let note = SegmentNote { number: self.segments.len() as u64 + 1, first };
        self.log = Some(self.store.segment(&note)?);
        self.segments.push(note);
        Ok(())
    }

    fn store_lines(&mut self) -> Result<(), Error> {
        self.lines_bytes = 0;
        let Some(log) = self.log.as_ref().filter(|_| !self.lines.is_empty()) else { return Ok(()) };
        let mut ingestion = log.start_ingestion()?;
        for (seq, line) in self.lines.drain(..) {
            ingestion.write(seq.0.to_be_bytes(), line)?;
        }
        Ok(ingestion.finish()?)
    }

    /// A part of a content. The last part comes only after the whole was checked.
    pub(super) fn chunk(&mut self, body: &BodyRef, offset: u64, data: &[u8]) -> Result<(), Error> {
        if is_inline(body) {
            return self.small_content(body.body, data.to_vec());
        }
        let path = self.bodies.path(body.body);
        let unfinished = path.with_extension("tmp");
        let written = (|| {
            let mut file = match self.file.take() {
                Some(file) if offset > 0 => file,
                Some(_) | None => File::create(&unfinished)?,
            };
            file.write_all(data)?;
            if offset + (data.len() as u64) < body.size {
                self.file = Some(file);
                return Ok(());
            }
            file.sync_all()?;
            fs::rename(&unfinished, &path)
        })();
        written.map_err(at_path(&path))
    }

    fn small_content(&mut self, body: MessageUuid, bytes: Vec<u8>) -> Result<(), Error> {
        self.contents_bytes += bytes.len();
        self.contents.push((body, bytes));
        if self.contents_bytes >= CONTENTS_BYTES_MAX { self.store_contents() } else { Ok(()) }
    }

    /// A content that was read whole and checked; a large one is in this file, which stays.
    pub(super) fn content(&mut self, body: &BodyRef, bytes: Vec<u8>, file: &Path) -> Result<(), Error> {
        if is_inline(body) {
            return self.small_content(body.body, bytes);
        }
        let path = self.bodies.path(body.body);
        match fs::hard_link(file, &path) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(at_path(&path)(e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn store_contents(&mut self) -> Result<(), Error> {
        self.contents_bytes = 0;
        let mut batch = self.store.db.batch();
        for (body, bytes) in self.contents.drain(..) {
            batch.insert(&self.store.bodies, body.0.as_bytes(), bytes);
        }
        Ok(batch.commit()?)
    }

    /// A line of a record that nothing can follow: kept as evidence.
    pub(super) fn lost_record(&mut self, line: &[u8]) -> Result<(), Error> {
        let path = self.dir.join(LOST_RECORDS);
        let mut file = match self.lost.take() {
            Some(file) => file,
            None => File::create(&path).map_err(at_path(&path))?,
        };
        file.write_all(&[line, b"\n"].concat()).map_err(at_path(&path))?;
        self.lost = Some(file);
        Ok(())
    }

    /// Leaves everything as it was.
    pub(super) fn discard(self) -> Result<(), Error> {
        drop(self.store);
        remove_dir(&self.dir)
    }

    /// Of the place that it is for.
    pub(super) fn lock(&self) -> Arc<Lock> {
        self.lock.clone()
    }

    /// The last record so far.
    pub(super) fn end(&self) -> Head {
        self.end
    }

    /// Brings all to disk. The rows are still missing.
    pub(super) fn finish(
        mut self,
        pepper: &[u8; 32],
        secrets: &[(SecretId, Zeroizing<Vec<u8>>)],
    ) -> Result<Assembled, Error> {
        self.store_lines()?;
        self.store_contents()?;
        let mut batch = self.store.batch();
        vault::put_pepper(&mut batch, &self.store.vault, pepper);
        for (id, value) in secrets {
            batch.insert(&self.store.vault, id.0.as_bytes(), &value[..]);
        }
        self.store.put_note(&mut batch, Note::Segments, &self.segments);
        self.store.put_note(&mut batch, Note::Head, &self.end);
        batch.commit()?;
        self.store.db.persist(fjall::PersistMode::SyncAll)?;
        self.bodies.sync_shelves()?;
        if let Some(lost) = &self.lost {
            lost.sync_all().map_err(at_path(&self.dir))?;
        }
        let end = self.end;
        let mut watermark = Watermark::create(&self.dir)?;
        watermark.update(|mark| (mark.seq, mark.hash, mark.verified) = (end.seq, end.hash, end.seq))?;
        watermark.sync()?;
        Ok(Assembled { home: self.home, dir: self.dir, _lock: self.lock })
    }
}

/// What came of a ledger that was put together.
pub(super) struct Completed {
    pub(super) lost_contents: u64,
    /// What the rows name and the vault does not have, for people.
    pub(super) missing_secrets: Vec<String>,
    /// All that the rows name.
    pub(super) secrets: HashSet<SecretId>,
}

/// A ledger that is whole but for its rows and its place.
pub(super) struct Assembled {
    home: PathBuf,
    dir: PathBuf,
    _lock: Arc<Lock>,
}

impl Assembled {
    /// Where it is now.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the rows, begins a new branch, records which contents are lost, puts what was open on hold, and removes contents
    /// and secrets that nothing names.
    pub(super) fn complete(&self, options: &Options, wish: BranchWish, clock: Clock) -> Result<Completed, open::Error> {
        let by = wish.by.clone();
        let options = Options {
            dir: self.dir.clone(),
            create: false,
            rebuild: Rebuild::All,
            branch: Some(wish),
            ..options.clone()
        };
        let ledger = Ledger::open(options.clone(), clock)?;
        let lost = lost_contents(&ledger, &options)?;
        let lost_contents = lost.len() as u64;
        give_up(&ledger, lost, by)?;
        hold_open(&ledger, &options)?;
        let named = (options.program.secrets)(&ledger.snapshot()).map_err(Error::from)?;
        let missing_secrets = missing(&ledger, &named)?;
        ledger.close_blocking()?;
        drop(ledger);
        let secrets: HashSet<SecretId> = named.into_iter().map(|(_, secret)| secret.id).collect();
        self.sweep(&options, &secrets)?;
        Ok(Completed { lost_contents, missing_secrets, secrets })
    }

    /// Removes the contents that no message has, and secrets that no row names: what was forgotten does not come back.
    fn sweep(&self, options: &Options, secrets: &HashSet<SecretId>) -> Result<(), open::Error> {
        let opened = open_store(&self.dir, false, options.cache_bytes)?;
        let snapshot = opened.snapshot(open_tables(&opened.store, options.program.projections)?);
        let is_live = |body: Option<MessageUuid>| match body {
            Some(body) => (options.program.is_body_live)(&snapshot, body).map_err(Error::from),
            None => Ok(false),
        };
        let (mut batch, mut removed) = (opened.store.batch(), 0);
        for guard in opened.store.bodies.iter() {
            let key = guard.key().map_err(Error::from)?;
            if !is_live(bodies::name(&key))? {
                batch.remove(&opened.store.bodies, key);
                removed += 1;
            }
            if removed == REMOVED_MAX {
                std::mem::replace(&mut batch, opened.store.batch()).commit().map_err(Error::from)?;
                removed = 0;
            }
        }
        for guard in opened.store.vault.iter() {
            let key = guard.key().map_err(Error::from)?;
            if vault::id_of(&key).is_some_and(|id| !secrets.contains(&id)) {
                batch.remove(&opened.store.vault, key);
            }
        }
        batch.commit().map_err(Error::from)?;
        for (path, body) in Bodies::open(&self.dir, opened.store.bodies.clone())?.files()? {
            if !is_live(body)? {
                bodies::remove_file(&path);
            }
        }
        Ok(())
    }

    /// Puts it in its place. Answers where that is which was there before, if anything was.
    pub(super) fn install(self) -> Result<Option<PathBuf>, Error> {
        let number = next_number(&self.home)?;
        let finished = self.home.join(format!("{FINISHED}{number}"));
        sync_dir(&self.dir)?;
        // From here on the next start does the rest, should this process not come to it.
        fs::rename(&self.dir, &finished).map_err(at_path(&finished))?;
        sync_dir(&self.home)?;
        install(&self.home)?;
        let replaced = self.home.join(format!("{REPLACED}{number}"));
        Ok(replaced.exists().then_some(replaced))
    }

    /// Leaves everything as it was.
    pub(super) fn discard(self) -> Result<(), Error> {
        remove_dir(&self.dir)
    }
}

/// Whether something waits to be put in its place.
pub(super) fn is_waiting(home: &Path) -> Result<bool, Error> {
    Ok(home.exists() && waiting(home)?.is_some())
}

/// Puts what waits in its place; goes on where a crash ended it. Only under the lock of `home`.
pub(super) fn install(home: &Path) -> Result<(), Error> {
    let Some((number, finished)) = waiting(home)? else { return Ok(()) };
    let replaced = home.join(format!("{REPLACED}{number}"));
    for part in PARTS {
        let (new, place) = (finished.join(part), home.join(part));
        if !new.exists() {
            continue;
        }
        if place.exists() || part == LOST_RECORDS {
            fs::create_dir_all(&replaced).map_err(at_path(&replaced))?;
        }
        if part == LOST_RECORDS {
            fs::rename(&new, replaced.join(part)).map_err(at_path(&new))?;
            continue;
        }
        if place.exists() {
            fs::rename(&place, replaced.join(part)).map_err(at_path(&place))?;
        }
        fs::rename(&new, &place).map_err(at_path(&place))?;
        sync_dir(home)?;
    }
    if replaced.exists() {
        sync_dir(&replaced)?;
    }
    remove_dir(&finished)?;
    sync_dir(home)
}

fn waiting(home: &Path) -> Result<Option<(u64, PathBuf)>, Error> {
    let mut found = bodies::list(home)?.into_iter().filter_map(|path| Some((number(&path, FINISHED)?, path)));
    Ok(found.next())
}

fn next_number(home: &Path) -> Result<u64, Error> {
    Ok(bodies::list(home)?.iter().filter_map(|path| number(path, REPLACED)).max().unwrap_or(0) + 1)
}

fn number(path: &Path, prefix: &str) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok()
}

fn remove_dir(dir: &Path) -> Result<(), Error> {
    if dir.exists() { fs::remove_dir_all(dir).map_err(at_path(dir)) } else { Ok(()) }
}

/// Secrets that are not there, or not those that were given.
fn missing(ledger: &Ledger, named: &[Named]) -> Result<Vec<String>, Error> {
    let mut missing = Vec::new();
    for (what, secret) in named {
        let value = ledger.secret(secret.id)?;
        if value.is_none_or(|value| ledger.fingerprint(&value) != secret.fingerprint) {
            missing.push(what.clone());
        }
    }
    Ok(missing)
}

/// Contents that messages have by the rows, and that are not there.
fn lost_contents(ledger: &Ledger, options: &Options) -> Result<Vec<LostContent>, Error> {
    let (snapshot, mut lost) = (ledger.snapshot(), Vec::new());
    for line in snapshot.records(Seq(0)..=snapshot.position()) {
        let (seq, line) = line?;
        let event = chain::decode(seq, &line).map_err(|damage| Error::Notes(damage.to_string()))?.event;
        for body in bodies_of(&event) {
            if (options.program.is_body_live)(&snapshot, body.body)? && !is_there(ledger, &snapshot, &body)? {
                lost.push(lost_content(&event, body));
            }
        }
    }
    Ok(lost)
}

fn is_there(ledger: &Ledger, snapshot: &Snapshot, body: &BodyRef) -> Result<bool, Error> {
    match ledger.inner.shared.bodies.open_content(body, &snapshot.0.engine) {
        Ok(_) => Ok(true),
        Err(bodies::Error::Missing(_) | bodies::Error::Size { .. }) => Ok(false),
        Err(bodies::Error::Store(e)) => Err(e),
    }
}

fn lost_content(event: &Event, body: BodyRef) -> LostContent {
    let mut lost = LostContent { body, copies: Vec::new() };
    if let Event::MessageReceived(received) = event {
        lost.copies = received.copies.iter().map(|copy| (copy.account.clone(), copy.msg_id)).collect();
    }
    if let Event::MessageSubmitted(submitted) = event {
        let copy = submitted.sent_copy.iter().filter(|copy| copy.body.body == body.body);
        lost.copies = copy.map(|copy| (submitted.account.clone(), copy.msg_id)).collect();
    }
    lost
}

fn give_up(ledger: &Ledger, lost: Vec<LostContent>, by: Author) -> Result<(), Error> {
    let mut lost = lost.into_iter().peekable();
    while lost.peek().is_some() {
        let contents = lost.by_ref().take(LOST_CONTENTS_MAX).collect();
        let command = Command::LoseContents(LoseContents { contents, by: by.clone() });
        ledger.submit_blocking(command).map_err(|e| Error::Notes(e.to_string()))?;
    }
    Ok(())
}

fn hold_open(ledger: &Ledger, options: &Options) -> Result<(), Error> {
    for command in (options.program.hold_open)(&ledger.snapshot())? {
        let advance = || ledger.submit_blocking(command.clone()).map_err(|e| Error::Notes(e.to_string()));
        while advance()?.answer == Answer::More(true) {}
    }
    Ok(())
}
