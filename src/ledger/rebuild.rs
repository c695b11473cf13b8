//! Rebuilding tables from the log: folds in memory, brings the rows into new keyspaces in bounded chunks, and leaves the switch
//! to the writer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use fjall::Keyspace;
use tokio::sync::mpsc;

use postledger_events::Record;
use postledger_events::id::Seq;
use postledger_projections::Projection;
use postledger_projections::rows::{Key, Value};

use super::fresh::{Chunk, Fresh, Runs};
use super::snapshot::{Lines, Snapshot};
use super::store::{Error, Store};
use super::writer::Message;
use super::{Options, Shared};

/// Records after which progress is shown.
const STEP_RECORDS: u64 = 10_000;
/// Lines that are read and decoded at once, by their size: single records may be large.
const PART_BYTES: usize = 256 * 1024;
/// How many of these may be read ahead of the folding.
const PARTS_AHEAD: usize = 4;
const FOLDERS_MAX: usize = 4;
/// What is left for the writer, which folds it between two batches.
const REST_RECORDS_MAX: u64 = 1_000;

/// How far a rebuild has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    pub tables: Vec<&'static str>,
    pub done: Seq,
    /// What was stored of it, and readers see.
    pub stored: Seq,
    pub end: Seq,
}

/// A table that is being rebuilt.
pub(super) struct Target {
    pub(super) projection: Projection,
    pub(super) generation: u64,
    pub(super) keyspace: Keyspace,
    pub(super) applied: Seq,
    pub(super) replaces: Option<Keyspace>,
}

impl Target {
    fn fresh(&self, aside: bool) -> Fresh {
        let stored = (!aside || self.applied > Seq(0)).then(|| self.keyspace.clone());
        Fresh::new(self.projection, stored, self.applied == Seq(0))
    }

    /// Folds what the log has after [`Target::applied`] without storing it.
    pub(super) fn fold_rest(&mut self, snapshot: &Snapshot) -> Result<Vec<(Key, Option<Value>)>, Error> {
        let mut rows = self.fresh(false);
        for line in snapshot.records(self.applied.next()..=snapshot.position()) {
            let (seq, line) = line?;
            rows.fold(&Record::decode(&line)?)?;
            self.applied = seq;
        }
        Ok(rows.into_changes())
    }
}

/// How a rebuild goes about it.
pub(super) struct Manner<'a> {
    /// What it may hold in memory before it stores it, about.
    pub(super) bytes_max: usize,
    /// Chunks are stored aside here, and merged into the targets once at the end. Otherwise they go into the targets.
    pub(super) aside: Option<&'a Store>,
    /// Readers see the targets meanwhile: all are stored together, so that each is as far as is said.
    pub(super) seen: bool,
    /// Threads that fold, beside one that reads and one for each of them that stores; none: all is done by the caller's thread,
    /// for those who keep to their share of a processor.
    pub(super) folders: usize,
}

/// As many as the machine has processors; more than a few have nothing to do, as one table has half of the work.
pub(super) fn folders() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(FOLDERS_MAX)
}

/// Brings all targets, which are equally far, to the end of `snapshot`. `step` is asked again and again whether to go on, and
/// told now and then how far it is.
pub(super) fn replay(
    targets: &mut [Target],
    snapshot: &Snapshot,
    manner: &Manner<'_>,
    step: &mut dyn FnMut(Option<Progress>) -> bool,
) -> Result<(), Error> {
    let Some(applied) = targets.first().map(|target| target.applied) else { return Ok(()) };
    let names = targets.iter().map(|target| target.projection.name).collect();
    let mut telling = Telling { names, end: snapshot.position(), next: applied.0 + STEP_RECORDS, step };
    let parts = Parts::behind(applied, snapshot);
    let budget = Budget::new(manner);
    let folded = match manner.folders {
        0 => alone(Folder::new(targets.iter_mut(), manner, &budget, Storing::Here), parts, &mut telling)?,
        _ => together(targets, parts, manner, &budget, &mut telling)?,
    };
    // It was told to stop.
    let Some(foldings) = folded else { return Ok(()) };
    finish(foldings, manner, snapshot.position().max(applied))?;
    telling.last();
    Ok(())
}

fn alone<'a>(
    mut folder: Folder<'a>,
    parts: Parts,
    telling: &mut Telling<'_>,
) -> Result<Option<Vec<Folding<'a>>>, Error> {
    for part in parts {
        folder.part(&part?)?;
        if !telling.tell(&folder) {
            return Ok(None);
        }
    }
    Ok(Some(folder.foldings))
}

fn together<'a>(
    targets: &'a mut [Target],
    parts: Parts,
    manner: &'a Manner<'a>,
    budget: &'a Budget,
    telling: &mut Telling<'_>,
) -> Result<Option<Vec<Folding<'a>>>, Error> {
    let mut shares: Vec<Vec<&mut Target>> = (0..manner.folders.min(targets.len())).map(|_| Vec::new()).collect();
    let count = shares.len();
    targets.iter_mut().enumerate().for_each(|(n, target)| shares[n % count].push(target));
    std::thread::scope(|scope| {
        let (mut senders, mut folders) = (Vec::new(), Vec::new());
        for share in shares {
            let (sender, given) = sync_channel(PARTS_AHEAD);
            senders.push(sender);
            let (to, chunks) = sync_channel::<(Arc<Chunk>, Keyspace)>(1);
            let (stored, from) = sync_channel(1);
            scope.spawn(move || chunks.into_iter().all(|(chunk, into)| stored.send(chunk.store(&into)).is_ok()));
            let storing = Storing::There { to, from };
            folders.push((Folder::new(share.into_iter(), manner, budget, storing), given));
        }
        let reader = scope.spawn(move || read_ahead(parts, &senders));
        let mut folders = folders.into_iter();
        let (mut first, given) = folders.next().expect("there is a target");
        let others: Vec<_> = folders.map(|(folder, given)| scope.spawn(move || folder.all(&given))).collect();
        let mut went_on = true;
        for part in &given {
            first.part(&part)?;
            went_on = telling.tell(&first);
            if !went_on {
                break;
            }
        }
        // Nobody reads on for those who do not take.
        drop(given);
        first.wait()?;
        let mut foldings = first.foldings;
        reader.join().expect("reading does not panic")?;
        for other in others {
            foldings.extend(other.join().expect("folding does not panic")?);
        }
        Ok(went_on.then_some(foldings))
    })
}

/// Gives each part to all, until one of them takes no more.
fn read_ahead(parts: Parts, folders: &[SyncSender<Arc<Vec<Record>>>]) -> Result<(), Error> {
    let mut given: VecDeque<Arc<Vec<Record>>> = VecDeque::new();
    for part in parts {
        let part = Arc::new(part?);
        if !folders.iter().all(|folder| folder.send(Arc::clone(&part)).is_ok()) {
            break;
        }
        given.push_back(part);
        // Whoever allocated them frees them at less cost.
        while given.front().is_some_and(|part| Arc::strong_count(part) == 1) {
            given.pop_front();
        }
    }
    Ok(())
}

/// Stores what is in memory, and merges what is aside.
fn finish(foldings: Vec<Folding<'_>>, manner: &Manner<'_>, done: Seq) -> Result<(), Error> {
    let runs: Mutex<Vec<Runs>> = Mutex::default();
    share_out(manner, foldings, |Folding { target, rows }| {
        let aside = rows.store_rest(&target.keyspace)?;
        target.applied = done;
        // Locked for a moment only.
        runs.lock().expect("nothing panics").extend(aside);
        Ok(())
    })?;
    let runs = runs.into_inner().expect("nothing panics");
    let merges = runs.iter().flat_map(|runs| runs.firsts.iter().map(move |first| (runs, *first))).collect();
    share_out(manner, merges, |(runs, first)| runs.merge(first))?;
    manner.aside.map_or(Ok(()), |store| runs.into_iter().try_for_each(|runs| runs.remove(store)))
}

/// Works on all tasks, some at a time: they differ much in size, so more of them than there are processors.
fn share_out<T: Send>(
    manner: &Manner<'_>,
    tasks: Vec<T>,
    work: impl Fn(T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let tasks = Mutex::new(tasks.into_iter());
    let next = || tasks.lock().expect("taking does not panic").next();
    let take = || std::iter::from_fn(next).try_for_each(&work);
    std::thread::scope(|scope| {
        let others: Vec<_> = (0..manner.folders * 4).map(|_| scope.spawn(take)).collect();
        if others.is_empty() {
            return take();
        }
        others.into_iter().try_for_each(|other| other.join().expect("storing does not panic"))
    })
}

/// Who wants to know how far it is.
struct Telling<'a> {
    names: Vec<&'static str>,
    end: Seq,
    /// Is told when this many records are done.
    next: u64,
    step: &'a mut dyn FnMut(Option<Progress>) -> bool,
}

impl Telling<'_> {
    /// Whether to go on.
    fn tell(&mut self, folder: &Folder<'_>) -> bool {
        let now = (folder.done.0 >= self.next).then(|| self.progress(folder.done, folder.stored()));
        if now.is_some() {
            self.next = folder.done.0 + STEP_RECORDS;
        }
        (self.step)(now)
    }

    fn last(&mut self) {
        let now = self.progress(self.end, self.end);
        (self.step)(Some(now));
    }

    fn progress(&self, done: Seq, stored: Seq) -> Progress {
        Progress { tables: self.names.clone(), done, stored, end: self.end }
    }
}

/// What all folders may hold in memory together, beside as much that is being stored.
struct Budget {
    bytes_max: usize,
    /// Of one folder.
    share: usize,
    held: AtomicUsize,
}

impl Budget {
    fn new(manner: &Manner<'_>) -> Budget {
        let bytes_max = manner.bytes_max / 2;
        Budget { bytes_max, share: bytes_max / manner.folders.max(1), held: AtomicUsize::new(0) }
    }
}

/// A target, and the rows that are folded for it.
struct Folding<'a> {
    target: &'a mut Target,
    rows: Fresh,
}

/// Folds into some of the targets.
struct Folder<'a> {
    foldings: Vec<Folding<'a>>,
    done: Seq,
    budget: &'a Budget,
    /// What the others know of its part of the budget.
    told: usize,
    manner: &'a Manner<'a>,
    storing: Storing,
    /// Whose chunk is being stored, and up to where it is then.
    under_way: Option<(usize, Seq)>,
}

/// Where chunks are stored.
enum Storing {
    Here,
    /// One at a time.
    There {
        to: SyncSender<(Arc<Chunk>, Keyspace)>,
        from: Receiver<Result<(), Error>>,
    },
}

impl<'a> Folder<'a> {
    fn new(
        targets: impl Iterator<Item = &'a mut Target>,
        manner: &'a Manner<'a>,
        budget: &'a Budget,
        storing: Storing,
    ) -> Folder<'a> {
        let folding = |target: &'a mut Target| Folding { rows: target.fresh(manner.aside.is_some()), target };
        let foldings: Vec<Folding<'a>> = targets.map(folding).collect();
        let done = foldings.first().map_or(Seq(0), |folding| folding.target.applied);
        Folder { foldings, done, budget, told: 0, manner, storing, under_way: None }
    }

    fn all(mut self, given: &Receiver<Arc<Vec<Record>>>) -> Result<Vec<Folding<'a>>, Error> {
        given.iter().try_for_each(|part| self.part(&part))?;
        self.wait()?;
        Ok(self.foldings)
    }

    fn part(&mut self, part: &[Record]) -> Result<(), Error> {
        part.iter().try_for_each(|record| self.fold(record))?;
        self.tell();
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.foldings.iter().map(|folding| folding.rows.bytes()).sum()
    }

    fn tell(&mut self) {
        let bytes = self.bytes();
        self.budget.held.fetch_add(bytes.wrapping_sub(self.told), Ordering::Relaxed);
        self.told = bytes;
    }

    fn fold(&mut self, record: &Record) -> Result<(), Error> {
        for folding in &mut self.foldings {
            folding.rows.fold(record)?;
        }
        self.done = record.seq;
        let own = self.bytes();
        // The larger chunks are, the fewer of them have to be merged. So whoever has less than its share keeps it.
        let held = self.budget.held.load(Ordering::Relaxed).wrapping_add(own.wrapping_sub(self.told));
        if held < self.budget.bytes_max || own < self.budget.share {
            return Ok(());
        }
        let mut all = 0..self.foldings.len();
        if self.manner.seen {
            all.try_for_each(|n| self.store(n))?;
        } else if let Some(largest) = all.max_by_key(|n| self.foldings[*n].rows.bytes()) {
            self.store(largest)?;
        }
        self.tell();
        Ok(())
    }

    fn store(&mut self, n: usize) -> Result<(), Error> {
        self.wait()?;
        let Folding { target, rows } = &mut self.foldings[n];
        let into = match (rows.stored(), self.manner.aside) {
            (Some(keyspace), _) => keyspace.clone(),
            (None, Some(store)) => store.runs(target.keyspace.name())?,
            (None, None) => target.keyspace.clone(),
        };
        let chunk = rows.take(into.clone());
        self.under_way = Some((n, self.done));
        match &self.storing {
            Storing::Here => chunk.store(&into)?,
            Storing::There { to, .. } => to.send((chunk, into)).expect("storing does not panic"),
        }
        Ok(())
    }

    /// Until nothing is being stored.
    fn wait(&mut self) -> Result<(), Error> {
        let Some((n, applied)) = self.under_way.take() else { return Ok(()) };
        if let Storing::There { from, .. } = &self.storing {
            from.recv().expect("storing does not panic")?;
        }
        let Folding { target, rows } = &mut self.foldings[n];
        rows.taken_is_stored();
        target.applied = applied;
        Ok(())
    }

    /// Up to where all of its targets are stored.
    fn stored(&self) -> Seq {
        self.foldings.iter().map(|folding| folding.target.applied).min().unwrap_or(self.done)
    }
}

/// What the log has behind the targets, decoded, in parts.
struct Parts(Lines);

impl Parts {
    fn behind(applied: Seq, snapshot: &Snapshot) -> Parts {
        Parts(snapshot.records(applied.next().max(snapshot.first())..=snapshot.position()))
    }

    fn read(&mut self) -> Result<Vec<Record>, Error> {
        let (mut part, mut bytes) = (Vec::new(), 0);
        while bytes < PART_BYTES
            && let Some(line) = self.0.next()
        {
            let (_, line) = line?;
            bytes += line.len();
            part.push(Record::decode(&line)?);
        }
        Ok(part)
    }
}

impl Iterator for Parts {
    type Item = Result<Vec<Record>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.read()).filter(|part| !part.as_ref().is_ok_and(Vec::is_empty))
    }
}

/// Rebuilds beside the running ledger, and hands over when little is left.
pub(super) fn in_background(
    shared: &Arc<Shared>,
    mut targets: Vec<Target>,
    writer: &mpsc::WeakSender<Message>,
    options: &Options,
) -> Result<(), Error> {
    let closing = || shared.closing.load(Ordering::Acquire) || shared.stopped().is_some();
    loop {
        let snapshot = shared.snapshot();
        let manner = Manner { bytes_max: options.rebuild_chunk_bytes_max, aside: None, seen: true, folders: 1 };
        replay(&mut targets, &snapshot, &manner, &mut |now| {
            if let Some(now) = now {
                if let Some(writer) = writer.upgrade() {
                    // Only for readers, so it is left out when the writer has enough to do.
                    let _ = writer.try_send(Message::Rebuilt(now.stored));
                }
                (options.progress)(now);
            }
            !closing()
        })?;
        let Some(writer) = writer.upgrade().filter(|_| !closing()) else { return Ok(()) };
        let rest = shared.snapshot().position().0 - snapshot.position().0;
        if rest <= REST_RECORDS_MAX {
            // If the writer is gone, so is the ledger, and what was rebuilt is dropped at the next start.
            let _ = writer.blocking_send(Message::Adopt(targets));
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{PROGRAM, closed, open};
    use super::*;

    #[test]
    fn what_readers_see_is_as_far_as_is_said() {
        let dir = closed();
        let ledger = open(dir.path());
        let (snapshot, store) = (ledger.snapshot(), &ledger.inner.shared.store);
        for (bytes_max, expect) in [(1, snapshot.position()), (1024 * 1024, Seq(0))] {
            let target = |projection: &Projection| {
                let keyspace = store.table(&format!("{}.{bytes_max}", projection.name)).unwrap();
                Target { projection: *projection, generation: 1, keyspace, applied: Seq(0), replaces: None }
            };
            let mut targets: Vec<Target> = PROGRAM.projections.iter().map(target).collect();
            let manner = Manner { bytes_max, aside: None, seen: true, folders: 0 };
            let budget = Budget::new(&manner);
            let mut folder = Folder::new(targets.iter_mut(), &manner, &budget, Storing::Here);
            Parts::behind(Seq(0), &snapshot).for_each(|part| folder.part(&part.unwrap()).unwrap());
            folder.wait().unwrap();
            assert_eq!((folder.stored(), folder.done), (expect, snapshot.position()), "{bytes_max}");
        }
    }
}
