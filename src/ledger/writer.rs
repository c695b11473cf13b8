//! The one writer: takes whatever commands wait, decides on them one after the other, and puts all that follows into one
//! batch with one sync. Only then it answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use fjall::OwnedWriteBatch;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use postledger_events::event::Event;
use postledger_events::id::{MessageUuid, SecretId, Seq, Sha256};
use postledger_events::time::Timestamp;
use postledger_events::{Record, Refusal};

use super::bodies::{Place, Staged, StagedFile, is_inline};
use super::fold::fold;
use super::overlay::Overlay;
use super::rebuild::Target;
use super::snapshot::{Moment as Published, Segment, Snapshot, TableView, View};
use super::store::{Error, Head, Note, SegmentNote, TableNote};
use super::watermark::Watermark;
use super::{Committed, Intent, Program, Round, Shared, SubmitError};
use crate::clock::Clock;
use crate::decide::{Decision, Moment, Policy};

/// Commands that are taken at once.
const BATCH_COMMANDS_MAX: usize = 4096;
/// A batch that has grown to this is written before more is taken.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long a batch waits for more, and how often: 2 ms in all, and 0.6 ms while nothing comes, in which each processor signs
/// a message with RSA.
const GATHER_STEP: Duration = Duration::from_micros(200);
const GATHER_STEPS_MAX: u32 = 10;
const GATHER_EMPTY_MAX: u32 = 3;

pub(super) enum Message {
    Command(Box<Request>),
    /// Tables that were rebuilt beside the running ledger, almost to its end.
    Adopt(Vec<Target>),
    /// How far the tables have come that are being rebuilt.
    Rebuilt(Seq),
    /// The log was read back up to here.
    Verified(Seq),
    /// A round over the whole ledger came to its end.
    Round(Round),
    Close(oneshot::Sender<Result<(), Error>>),
}

pub(super) struct Request {
    pub(super) intent: Intent,
    pub(super) answer: oneshot::Sender<Result<Committed, SubmitError>>,
}

/// The only holder of a write handle.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    /// Shared with the snapshots, and copied when it changes.
    pub(super) view: Arc<View>,
    pub(super) head: Head,
    pub(super) watermark: Watermark,
    pub(super) policy: Policy,
    pub(super) clock: Clock,
    pub(super) program: Program,
    pub(super) segment_records_max: u64,
}

impl Writer {
    /// Works until it is closed or nobody is left to ask it.
    pub(super) fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let _obituary = Obituary(self.shared.clone());
        let mut waiting = Vec::new();
        while inbox.blocking_recv_many(&mut waiting, BATCH_COMMANDS_MAX) > 0 {
            self.await_expected(&mut inbox, &mut waiting);
            let mut batch = None;
            for message in waiting.drain(..) {
                batch = self.take(message, batch);
            }
            self.finish(batch);
        }
    }

    /// Waits a little for requests that are being read, as long as they keep coming: one sync then serves more of them. With
    /// one client there is nothing to wait for.
    fn await_expected(&self, inbox: &mut mpsc::Receiver<Message>, waiting: &mut Vec<Message>) {
        let mut empty = 0;
        for _ in 0..GATHER_STEPS_MAX {
            if empty == GATHER_EMPTY_MAX || self.shared.expected.load(Ordering::Acquire) == 0 {
                return;
            }
            std::thread::sleep(GATHER_STEP);
            let before = waiting.len();
            while waiting.len() < BATCH_COMMANDS_MAX
                && let Ok(message) = inbox.try_recv()
            {
                waiting.push(message);
            }
            empty = if waiting.len() == before { empty + 1 } else { 0 };
        }
    }

    fn take(&mut self, message: Message, batch: Option<Batch>) -> Option<Batch> {
        let request = match message {
            Message::Command(request) => *request,
            other => {
                self.finish(batch);
                self.control(other);
                return None;
            }
        };
        if let Some(why) = self.shared.stopped() {
            request.refuse(SubmitError::Stopped(why));
            return None;
        }
        let mut batch = batch.unwrap_or_else(|| self.begin());
        if let Err(e) = self.decide(request, &mut batch) {
            batch.fail(&self.shared.stop(format!("a record cannot be folded: {e}")));
            return None;
        }
        if batch.bytes < BATCH_BYTES_MAX {
            return Some(batch);
        }
        self.finish(Some(batch));
        None
    }

    fn control(&mut self, message: Message) {
        match message {
            Message::Command(_) => unreachable!("commands are taken into batches"),
            Message::Adopt(targets) => {
                if let Err(e) = self.adopt(targets) {
                    self.shared.stop(format!("a rebuilt table cannot be taken in: {e}"));
                }
            }
            Message::Rebuilt(as_of) => {
                for table in Arc::make_mut(&mut self.view).tables.iter_mut().flatten().filter(|t| t.as_of.is_some()) {
                    table.as_of = Some(as_of);
                }
                self.publish();
                self.announce();
            }
            Message::Verified(seq) => self.note(|mark| mark.verified = seq),
            Message::Round(round) => self.note(|mark| mark.round = Some(round)),
            Message::Close(done) => {
                let closed = self.close();
                // Nobody waits any more if the program is going down in a hurry.
                let _ = done.send(closed);
            }
        }
    }

    fn note(&mut self, change: impl FnOnce(&mut super::watermark::Mark)) {
        if let Err(e) = self.mark(change) {
            self.shared.stop(format!("the watermark cannot be written: {e}"));
        }
    }

    /// A batch over what is stored now. Its time never goes back.
    pub(super) fn begin(&self) -> Batch {
        Batch::new(self.shared.snapshot(), self.head, self.clock.now().max(self.head.at))
    }

    /// An error is a bug or damage: nothing of the batch may be written.
    fn decide(&self, request: Request, batch: &mut Batch) -> Result<(), Error> {
        let Request { intent, answer } = request;
        let moment = Moment { now: batch.at, next: batch.head.seq.next() };
        match (self.program.decide)(&intent.command, &batch.overlay, &self.policy, moment) {
            Err(refusal) => batch.refused(answer, refusal),
            Ok(decision) => {
                let committed = self.apply(decision, intent, batch)?;
                batch.answers.push(Due { answer, result: Ok(committed) });
            }
        }
        Ok(())
    }

    fn apply(&self, decision: Decision, intent: Intent, batch: &mut Batch) -> Result<Committed, Error> {
        let Decision { events, answer, forget_secrets, forget_bodies } = decision;
        let first = batch.head.seq.next();
        // Without a fact that names them, bodies and secrets have no owner; this is the answer to a repeated request.
        if !events.is_empty() {
            batch.store(intent.bodies, intent.secrets);
        }
        for event in events {
            self.append(event, batch)?;
        }
        batch.secrets.extend(forget_secrets.into_iter().map(|id| (id, None)));
        for body in forget_bodies {
            batch.forget_body(&body);
        }
        Ok(Committed { answer, first, last: batch.head.seq, at: batch.at })
    }

    /// Gives an event its place and folds it.
    pub(super) fn append(&self, event: Event, batch: &mut Batch) -> Result<(), Error> {
        let seq = match &event {
            Event::LedgerBranched(branched) => branched.next_seq,
            _ => batch.head.seq.next(),
        };
        let record = Record { seq, at: batch.at, prev: batch.head.hash, event };
        let line = record.to_line();
        for projection in self.program.projections {
            if self.view.table(projection.table)?.as_of.is_none() {
                fold(projection, &record, &mut batch.overlay)?;
            }
        }
        batch.head = Head { seq: record.seq, hash: Sha256::of(&line), at: record.at };
        batch.bytes += line.len();
        batch.lines.push((record.seq, line));
        Ok(())
    }

    fn finish(&mut self, batch: Option<Batch>) {
        let Some(mut batch) = batch else { return };
        match self.commit(&mut batch) {
            Ok(written) => {
                // Who waits for an answer comes first.
                batch.answer();
                if written {
                    self.settle();
                }
            }
            // IMPORTANT: the outcome is unknown, and a second sync may say yes to what the first one lost. Only a new start,
            // which reads what is there, may go on.
            Err(e) => {
                // And the engine keeps what it could not write, which it would try to write again when it is dropped, behind what the
                // first attempt may have left: so it is never dropped.
                std::mem::forget(self.shared.store.db.clone());
                batch.fail(&self.shared.stop(format!("writing failed: {e}")));
            }
        }
    }

    /// Everything or nothing, on disk when it returns. `false`: there was nothing to write.
    pub(super) fn commit(&mut self, batch: &mut Batch) -> Result<bool, Error> {
        batch.files_kept.drain(..).for_each(StagedFile::keep);
        if batch.lines.is_empty() && batch.secrets.is_empty() && batch.bodies.is_empty() {
            return Ok(false);
        }
        let mut engine = self.shared.store.batch();
        if let Some((first, _)) = batch.lines.first().filter(|(first, _)| self.is_segment_full(*first)) {
            self.roll(&mut engine, *first)?;
        }
        self.fill(batch, &mut engine);
        self.shared.space.take(batch.bytes);
        self.write(engine)?;
        self.head = batch.head;
        self.publish();
        // Before the answers: whoever is told that a content was forgotten finds it gone.
        batch.files_forgotten.drain(..).for_each(|body| self.shared.bodies.forget_file(body));
        Ok(true)
    }

    /// What follows a batch that is on disk.
    pub(super) fn settle(&mut self) {
        // IMPORTANT: after the sync, so that the watermark is never ahead of the log. If this fails, no more commands are taken.
        self.note(|_| {});
        self.announce();
    }

    /// Writes, syncs and counts.
    fn write(&self, engine: OwnedWriteBatch) -> Result<(), Error> {
        let (operations, began) = (engine.len() as u64, self.clock.now());
        engine.commit()?;
        let took_us = u64::try_from(self.clock.now().since(began).as_micros()).unwrap_or(u64::MAX);
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.operations.fetch_add(operations, Ordering::Relaxed);
        self.shared.commit_max_us.fetch_max(took_us, Ordering::Relaxed);
        Ok(())
    }

    fn fill(&self, batch: &mut Batch, engine: &mut OwnedWriteBatch) {
        let store = &self.shared.store;
        let log = &self.view.active().keyspace;
        for (seq, line) in batch.lines.drain(..) {
            engine.insert(log, seq.0.to_be_bytes(), line);
        }
        for (body, bytes) in std::mem::take(&mut batch.bodies) {
            match bytes {
                Some(bytes) => engine.insert(&store.bodies, body.0.as_bytes(), &bytes[..]),
                None => engine.remove(&store.bodies, body.0.as_bytes()),
            }
        }
        for (id, value) in std::mem::take(&mut batch.secrets) {
            match value {
                Some(value) => engine.insert(&store.vault, id.0.as_bytes(), &value[..]),
                None => engine.remove(&store.vault, id.0.as_bytes()),
            }
        }
        for projection in self.program.projections {
            let Some(table) = &self.view.tables[projection.table as usize] else { continue };
            store_rows(batch.overlay.take(projection.table), table, engine);
        }
        store.put_note(engine, Note::Head, &batch.head);
    }

    /// A batch is never split, so a segment may have more than its share by one batch.
    fn is_segment_full(&self, next: Seq) -> bool {
        next.0 - self.view.active().first.0 >= self.segment_records_max
    }

    /// A new segment from `first` on; noted in the batch that brings its first records.
    fn roll(&mut self, engine: &mut OwnedWriteBatch, first: Seq) -> Result<(), Error> {
        let note = SegmentNote { number: self.view.active().note.number + 1, first };
        let keyspace = self.shared.store.segment(&note)?;
        Arc::make_mut(&mut self.view).segments.push(Segment { first, note, keyspace });
        let notes: Vec<&SegmentNote> = self.view.segments.iter().map(|s| &s.note).collect();
        self.shared.store.put_note(engine, Note::Segments, &notes);
        Ok(())
    }

    /// Takes in tables that were rebuilt: folds what came in meanwhile, and switches in the same batch. IMPORTANT: one batch for
    /// all, since it notes that rows are as far as the log; a table that is left behind would be believed to be so, too.
    pub(super) fn adopt(&mut self, targets: Vec<Target>) -> Result<(), Error> {
        if targets.is_empty() {
            return Ok(());
        }
        let (snapshot, store) = (self.shared.snapshot(), &self.shared.store);
        let (mut engine, mut replaced) = (store.batch(), Vec::new());
        let tables = &mut Arc::make_mut(&mut self.view).tables;
        for mut target in targets {
            let changes = target.fold_rest(&snapshot)?;
            let projection = target.projection;
            let note = TableNote { version: projection.version, generation: target.generation };
            let new = TableView { projection: projection.name, keyspace: target.keyspace, as_of: None };
            store_rows(changes, &new, &mut engine);
            store.put_note(&mut engine, Note::Table(projection.name), &note);
            tables[projection.table as usize] = Some(new);
            replaced.extend(target.replaces);
        }
        store.put_note(&mut engine, Note::Head, &self.head);
        engine.commit()?;
        self.publish();
        self.announce();
        replaced.into_iter().try_for_each(|old| Ok(self.shared.store.db.delete_keyspace(old)?))
    }

    /// Shows readers what is stored.
    pub(super) fn publish(&self) {
        let engine = self.shared.store.db.snapshot();
        let lock = self.shared.lock.clone();
        let published = Published { engine, view: self.view.clone(), head: self.head, _lock: lock };
        self.shared.current.store(Arc::new(published));
    }

    /// Wakes those who watch the ledger.
    fn announce(&self) {
        self.shared.position.send_replace(self.head.seq);
    }

    pub(super) fn mark(&mut self, change: impl FnOnce(&mut super::watermark::Mark)) -> Result<(), Error> {
        let head = self.head;
        self.watermark.update(|mark| {
            (mark.seq, mark.hash) = (head.seq, head.hash);
            change(mark);
        })
    }

    /// A stop that the next start need not look into.
    fn close(&mut self) -> Result<(), Error> {
        if let Some(why) = self.shared.stopped() {
            tracing::warn!("the ledger had stopped before: {why}");
            return Ok(());
        }
        self.shared.stop("it is closed".to_owned());
        self.shared.store.db.persist(fjall::PersistMode::SyncAll)?;
        self.mark(|mark| mark.clean = true)?;
        self.watermark.sync()
    }
}

fn store_rows(changes: Vec<(Vec<u8>, Option<Vec<u8>>)>, table: &TableView, engine: &mut OwnedWriteBatch) {
    for (key, value) in changes {
        match value {
            Some(value) => engine.insert(&table.keyspace, key, value),
            None => engine.remove(&table.keyspace, key),
        }
    }
}

impl Request {
    fn refuse(self, why: SubmitError) {
        // Who asked may have gone away.
        let _ = self.answer.send(Err(why));
    }
}

/// An answer that is due when the batch is on disk.
struct Due {
    answer: oneshot::Sender<Result<Committed, SubmitError>>,
    result: Result<Committed, Refusal>,
}

/// What goes to disk together.
pub(super) struct Batch {
    overlay: Overlay<Snapshot>,
    pub(super) at: Timestamp,
    pub(super) head: Head,
    lines: Vec<(Seq, Vec<u8>)>,
    bodies: BTreeMap<MessageUuid, Option<Bytes>>,
    secrets: BTreeMap<SecretId, Option<Zeroizing<Vec<u8>>>>,
    files_kept: Vec<StagedFile>,
    files_forgotten: Vec<MessageUuid>,
    bytes: usize,
    answers: Vec<Due>,
}

impl Batch {
    fn new(snapshot: Snapshot, head: Head, at: Timestamp) -> Batch {
        Batch {
            overlay: Overlay::new(snapshot),
            at,
            head,
            lines: Vec::new(),
            bodies: BTreeMap::new(),
            secrets: BTreeMap::new(),
            files_kept: Vec::new(),
            files_forgotten: Vec::new(),
            bytes: 0,
            answers: Vec::new(),
        }
    }

    fn refused(&mut self, answer: oneshot::Sender<Result<Committed, SubmitError>>, refusal: Refusal) {
        // Not at once: it may rest on a command of this batch that is not on disk yet.
        self.answers.push(Due { answer, result: Err(refusal) });
    }

    fn store(&mut self, bodies: Vec<Staged>, secrets: Vec<(SecretId, Zeroizing<Vec<u8>>)>) {
        for Staged { body, place } in bodies {
            match place {
                Place::Inline(bytes) => {
                    self.bytes += bytes.len();
                    self.bodies.insert(body.body, Some(bytes));
                }
                Place::File(file) => self.files_kept.push(file),
            }
        }
        self.secrets.extend(secrets.into_iter().map(|(id, value)| (id, Some(value))));
    }

    fn forget_body(&mut self, body: &postledger_events::fact::submission::BodyRef) {
        if is_inline(body) {
            self.bodies.insert(body.body, None);
        } else {
            self.files_forgotten.push(body.body);
        }
    }

    fn answer(&mut self) {
        for Due { answer, result } in self.answers.drain(..) {
            // Who asked may have gone away; the fact stays.
            let _ = answer.send(result.map_err(SubmitError::Refused));
        }
    }

    fn fail(self, why: &str) {
        for Due { answer, .. } in self.answers {
            let _ = answer.send(Err(SubmitError::Stopped(why.to_owned())));
        }
    }
}

/// If the writer ends by a panic, every door must say so.
struct Obituary(Arc<Shared>);

impl Drop for Obituary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop("the writer died of a mistake in the program".to_owned());
        }
    }
}
