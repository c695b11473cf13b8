//! Opening: the lock, the evidence, the engine, the check, the tables, and only then the writer.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::{mpsc, watch};

use postledger_events::Refusal;
use postledger_events::command::{AcceptClock, Branch, Command};
use postledger_events::event::Event;
use postledger_events::fact::ledger::LedgerCreated;
use postledger_events::id::{LedgerId, Seq};
use postledger_events::record::FORMAT;
use postledger_events::time::Timestamp;
use postledger_projections::{Projection, Table};

use super::bodies::{Bodies, remove_file};
use super::chain::{self, Damage};
use super::lock::Lock;
use super::rebuild::{self, Manner, Target};
use super::rounds::Rounds;
use super::snapshot::{Moment as Published, Segment, Snapshot, TableView, View};
use super::space::Space;
use super::store::{self, Head, Note, SegmentNote, Store, TableNote, at_path};
use super::watermark::Watermark;
use super::writer::Writer;
use super::{BranchWish, Inner, Ledger, Options, Rebuild, Shared, assemble, journals, scrub, vault, verify};
use crate::clock::Clock;
use crate::decide::{Moment, Policy};

/// Commands that wait for the writer.
const QUEUE_COMMANDS_MAX: usize = 4096;
/// How far the clock may be behind the last record at start.
const CLOCK_BACK_MAX: Duration = Duration::from_secs(5 * 60);
/// How far the clock may be ahead of the last record at start.
const CLOCK_AHEAD_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the watermark may lag behind the log on disk.
const WATERMARK_SYNC: Duration = Duration::from_secs(1);

/// A directory under its lock, with the engine open and nothing checked.
pub(super) struct Opened {
    pub(super) lock: Arc<Lock>,
    pub(super) watermark: Watermark,
    pub(super) store: Store,
    pub(super) segments: Vec<Segment>,
    pub(super) head: Head,
    pub(super) aside: Option<PathBuf>,
}

pub(super) fn open(options: Options, clock: Clock) -> Result<Ledger, Error> {
    let dir = options.dir.clone();
    check_names(&options)?;
    let mut opened = open_store(&dir, options.create, options.cache_bytes)?;
    let verified = check(&opened, &dir)?;
    if opened.head != verified {
        let damage = Damage::RowsApart { rows: opened.head.seq, log: verified.seq };
        if options.rebuild != Rebuild::All {
            return Err(Error::Damaged { damage: Box::new(damage), dir, aside: opened.aside });
        }
        tracing::warn!("{damage}; all rows are built anew");
        opened.head = verified;
    }
    let was_clean = opened.watermark.mark().clean;
    // From here on the directory counts as in use, whatever happens.
    opened.watermark.update(|mark| {
        mark.clean = false;
        mark.aside = None;
        mark.verified = verified.seq;
    })?;
    opened.watermark.sync()?;
    let pepper = pepper(&opened, &clock)?;
    let mut writer = writer(opened, &options, clock, pepper)?;
    let later = rebuild_tables(&mut writer, &options)?;
    write_first_records(&mut writer, &options)?;
    if !was_clean {
        verify::remove_scratch(&dir)?;
        remove_orphans(&writer, &options)?;
    }
    Ok(start(writer, verified, later, options))
}

fn check_names(options: &Options) -> Result<(), Error> {
    let Rebuild::Named(names) = &options.rebuild else { return Ok(()) };
    let known = |name: &String| options.program.projections.iter().any(|p| p.name == name);
    match names.iter().find(|name| !known(name)) {
        Some(name) => Err(Error::NoProjection(name.clone())),
        None => Ok(()),
    }
}

/// Takes the lock, sets journals aside and opens the engine.
pub(super) fn open_store(dir: &Path, create: bool, cache_bytes: u64) -> Result<Opened, Error> {
    let engine = dir.join("ledger");
    if !create && !engine.exists() && !assemble::is_waiting(dir)? {
        return Err(Error::NoLedger { dir: dir.to_owned() });
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at_path(dir))?;
    let lock = Arc::new(Lock::take(dir)?);
    assemble::install(dir)?;
    let mut watermark = open_watermark(dir, &engine)?;
    let aside = set_journals_aside(dir, &engine, &mut watermark)?;
    let refused = |e: store::Error| Error::Engine { why: e.to_string(), aside: aside.clone() };
    let store = Store::open(&engine, cache_bytes).map_err(refused)?;
    let segments = open_segments(&store)?;
    let head = store.note(Note::Head)?.unwrap_or(Head::NONE);
    Ok(Opened { lock, watermark, store, segments, head, aside })
}

/// Not again for a start that follows one that did not succeed: its copy is the evidence.
fn set_journals_aside(dir: &Path, engine: &Path, watermark: &mut Watermark) -> Result<Option<PathBuf>, store::Error> {
    let mark = watermark.mark();
    if mark.clean || !engine.exists() {
        return Ok(None);
    }
    if let Some(copy) = mark.aside.map(|n| journals::copy(dir, n)).filter(|copy| copy.exists()) {
        return Ok(Some(copy));
    }
    let number = journals::set_aside(dir, engine)?;
    watermark.update(|mark| mark.aside = number)?;
    watermark.sync()?;
    Ok(number.map(|n| journals::copy(dir, n)))
}

fn open_watermark(dir: &Path, engine: &Path) -> Result<Watermark, Error> {
    match Watermark::open(dir)? {
        // The first start did not come to its first record.
        Some(watermark) if watermark.mark().seq == Seq(0) && !engine.join("version").exists() => {
            if engine.exists() {
                fs::remove_dir_all(engine).map_err(at_path(engine))?;
            }
            Ok(watermark)
        }
        Some(watermark) => Ok(watermark),
        None if engine.exists() => Err(Error::NoWatermark { dir: dir.to_owned() }),
        None => {
            // The vault's secrets are below, and the directory may have been there before.
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(at_path(dir))?;
            Ok(Watermark::create(dir)?)
        }
    }
}

pub(super) fn open_segments(store: &Store) -> Result<Vec<Segment>, store::Error> {
    let notes = match store.note::<Vec<SegmentNote>>(Note::Segments)? {
        Some(notes) if !notes.is_empty() => notes,
        Some(_) | None => vec![SegmentNote { number: 1, first: Seq::FIRST }],
    };
    let open = |note: SegmentNote| Ok(Segment { first: note.first, keyspace: store.segment(&note)?, note });
    notes.into_iter().map(open).collect()
}

fn check(opened: &Opened, dir: &Path) -> Result<Head, Error> {
    let damaged =
        |damage| Error::Damaged { damage: Box::new(damage), dir: dir.to_owned(), aside: opened.aside.clone() };
    chain::check_tail(&opened.snapshot(Vec::new()), opened.watermark.mark()).map_err(damaged)
}

impl Opened {
    /// Of the log, and of these tables.
    pub(super) fn snapshot(&self, tables: Vec<Option<TableView>>) -> Snapshot {
        let view = Arc::new(View { segments: self.segments.clone(), tables });
        let engine = self.store.db.snapshot();
        Snapshot(Arc::new(Published { engine, view, head: self.head, _lock: self.lock.clone() }))
    }
}

/// The vault's key; made for a new ledger, and otherwise the one that its first record tells of.
fn pepper(opened: &Opened, clock: &Clock) -> Result<[u8; 32], Error> {
    let pepper = vault::pepper(&opened.store.vault)?;
    let Some(created) = opened.snapshot(Vec::new()).record(Seq::FIRST).map_err(Error::Store)? else {
        // No record says which it must be: a new ledger, or one whose first segment was moved away.
        return match pepper {
            Some(pepper) => Ok(pepper),
            None if opened.head.seq == Seq(0) => Ok(make_pepper(&opened.store, clock)?),
            None => Err(Error::Pepper),
        };
    };
    let pepper = pepper.ok_or(Error::Pepper)?;
    match created.event {
        Event::LedgerCreated(fact) if fact.pepper == vault::fingerprint(&pepper, &pepper) => Ok(pepper),
        _ => Err(Error::Pepper),
    }
}

fn make_pepper(store: &Store, clock: &Clock) -> Result<[u8; 32], store::Error> {
    let pepper = clock.random();
    let mut batch = store.batch();
    vault::put_pepper(&mut batch, &store.vault, &pepper);
    batch.commit()?;
    Ok(pepper)
}

fn writer(opened: Opened, options: &Options, clock: Clock, pepper: [u8; 32]) -> Result<Writer, Error> {
    let tables = open_tables(&opened.store, options.program.projections)?;
    let snapshot = opened.snapshot(tables);
    let Opened { lock, watermark, store, head, .. } = opened;
    let bodies = Bodies::open(&options.dir, store.bodies.clone())?;
    let view = snapshot.0.view.clone();
    let ledger_number = created(&snapshot)?.map_or(options.ledger_number, |c| c.number);
    let shared = Arc::new(Shared {
        dir: options.dir.clone(),
        program: options.program,
        store,
        bodies,
        pepper,
        current: ArcSwap::new(snapshot.0),
        position: watch::Sender::new(head.seq),
        stopped: OnceLock::new(),
        closing: AtomicBool::new(false),
        commits: AtomicU64::new(0),
        operations: AtomicU64::new(0),
        commit_max_us: AtomicU64::new(0),
        expected: AtomicUsize::new(0),
        verifying: AtomicBool::new(false),
        round: ArcSwapOption::from(watermark.mark().round.clone().map(Arc::new)),
        round_at: AtomicU64::new(0),
        space: Space::new(&options.dir, options.free_bytes_min),
        first_due: AtomicI64::new(0),
        lock,
    });
    let policy = Policy {
        pepper,
        ledger_number,
        retry: options.retry.clone(),
        retry_scale: options.retry_scale,
        reply_rules: Arc::clone(&options.reply_rules),
    };
    let (program, segment_records_max) = (options.program, options.segment_records_max.max(1));
    Ok(Writer { shared, view, head, watermark, policy, clock, program, segment_records_max })
}

fn created(snapshot: &Snapshot) -> Result<Option<LedgerCreated>, Error> {
    let record = snapshot.record(Seq::FIRST).map_err(Error::Store)?;
    Ok(record.and_then(|r| if let Event::LedgerCreated(fact) = r.event { Some(fact) } else { None }))
}

/// The tables as they are noted, whatever version built them.
pub(super) fn open_tables(store: &Store, projections: &[Projection]) -> Result<Vec<Option<TableView>>, store::Error> {
    let mut tables: Vec<Option<TableView>> = Table::ALL.iter().map(|_| None).collect();
    for projection in projections {
        let Some(note) = store.note::<TableNote>(Note::Table(projection.name))? else { continue };
        let keyspace = store.table(&note.keyspace(projection.name))?;
        tables[projection.table as usize] = Some(TableView { projection: projection.name, keyspace, as_of: None });
    }
    Ok(tables)
}

/// Rebuilds what decisions read, and returns what can be rebuilt later.
fn rebuild_tables(writer: &mut Writer, options: &Options) -> Result<Vec<Target>, Error> {
    drop_leftovers(writer)?;
    let (mut now, mut later) = (Vec::new(), Vec::new());
    for projection in writer.program.projections {
        if let Some(target) = target(writer, projection, &options.rebuild)? {
            let wanted = projection.decides || options.rebuild.names(projection.name) || writer.head.seq == Seq(0);
            if wanted { now.push(target) } else { later.push(target) }
        }
    }
    for target in &later {
        let view =
            TableView { projection: target.projection.name, keyspace: target.keyspace.clone(), as_of: Some(Seq(0)) };
        Arc::make_mut(&mut writer.view).tables[target.projection.table as usize] = Some(view);
    }
    let aside = Some(&writer.shared.store);
    let manner = Manner { bytes_max: options.rebuild_chunk_bytes_max, aside, seen: false, folders: rebuild::folders() };
    rebuild::replay(&mut now, &writer.shared.snapshot(), &manner, &mut |progress| {
        if let Some(progress) = progress {
            (options.progress)(progress);
        }
        true
    })?;
    writer.adopt(now)?;
    writer.publish();
    Ok(later)
}

fn drop_leftovers(writer: &Writer) -> Result<(), store::Error> {
    let tables = writer.view.tables.iter().flatten();
    let known: Vec<String> = tables.map(|t| t.keyspace.name().to_string()).collect();
    writer.shared.store.drop_unknown_tables(&known)
}

/// `None`: the projection's rows are as its code would build them.
fn target(writer: &Writer, projection: &Projection, rebuild: &Rebuild) -> Result<Option<Target>, store::Error> {
    let store = &writer.shared.store;
    let note = store.note::<TableNote>(Note::Table(projection.name))?;
    let same = note.as_ref().is_some_and(|n| n.version == projection.version);
    if same && !rebuild.names(projection.name) {
        return Ok(None);
    }
    let generation = note.map_or(1, |n| n.generation + 1);
    let keyspace = store.table(&TableNote { version: projection.version, generation }.keyspace(projection.name))?;
    let replaces = writer.view.tables[projection.table as usize].as_ref().map(|t| t.keyspace.clone());
    Ok(Some(Target { projection: *projection, generation, keyspace, applied: Seq(0), replaces }))
}

/// The record that begins a ledger, or one that accepts a changed clock.
fn write_first_records(writer: &mut Writer, options: &Options) -> Result<(), Error> {
    let (now, head) = (writer.clock.now(), writer.head);
    if head.seq == Seq(0) {
        let fact = ledger_created(writer);
        return Ok(write(writer, fact.into(), now)?);
    }
    if let Some(wish) = &options.branch {
        return branch(writer, wish, now);
    }
    let back = head.at.since(now) > CLOCK_BACK_MAX;
    let ahead = now.since(head.at) > CLOCK_AHEAD_MAX;
    if !back && !ahead {
        return Ok(());
    }
    let Some(by) = options.accept_clock.clone() else { return Err(Error::Clock { last: head.at, now }) };
    execute(writer, &Command::AcceptClock(AcceptClock { from: head.at, by }), now)
}

/// The time does not go back, and whoever asks for a branch says that it may go ahead.
fn branch(writer: &mut Writer, wish: &BranchWish, now: Timestamp) -> Result<(), Error> {
    let (head, BranchWish { known, reason, by }) = (writer.head, wish.clone());
    let Head { seq: from_seq, hash: from_hash, .. } = head;
    let first = writer.shared.snapshot().record(Seq::FIRST)?;
    let created = first.map_or(head.at, |record| record.at);
    let command = Command::Branch(Branch { from_seq, from_hash, created, known, reason, by });
    execute(writer, &command, now.max(head.at))
}

fn execute(writer: &mut Writer, command: &Command, now: Timestamp) -> Result<(), Error> {
    let moment = Moment { now, next: writer.head.seq.next() };
    let decided = (writer.program.decide)(command, &writer.shared.snapshot(), &writer.policy, moment);
    let events = decided.map_err(Error::Refused)?.events;
    events.into_iter().try_for_each(|event| Ok(write(writer, event, now)?))
}

fn ledger_created(writer: &Writer) -> LedgerCreated {
    LedgerCreated {
        ledger: LedgerId(writer.clock.uuid_v7()),
        number: writer.policy.ledger_number,
        format: FORMAT,
        code_version: env!("CARGO_PKG_VERSION").to_owned(),
        pepper: vault::fingerprint(&writer.policy.pepper, &writer.policy.pepper),
    }
}

fn write(writer: &mut Writer, event: Event, at: Timestamp) -> Result<(), store::Error> {
    let mut batch = writer.begin();
    batch.at = at;
    writer.append(event, &mut batch)?;
    writer.commit(&mut batch)?;
    writer.settle();
    Ok(())
}

/// Files without a message: their command was refused or never came, or they were forgotten and the machine stopped.
fn remove_orphans(writer: &Writer, options: &Options) -> Result<(), Error> {
    let snapshot = writer.shared.snapshot();
    for (path, body) in writer.shared.bodies.files()? {
        let live = match body {
            Some(body) => (options.program.is_body_live)(&snapshot, body).map_err(store::Error::from)?,
            None => false,
        };
        if !live {
            remove_file(&path);
        }
    }
    Ok(())
}

fn start(writer: Writer, verified: Head, later: Vec<Target>, options: Options) -> Ledger {
    let (shared, program, clock) = (writer.shared.clone(), writer.program, writer.clock.clone());
    let (sender, inbox) = mpsc::channel(QUEUE_COMMANDS_MAX);
    let keeper = keep_watermark(&writer);
    let mut threads = vec![spawn("ledger-writer", move || writer.run(inbox)), keeper];
    let (scrubbed, weak) = (shared.clone(), sender.downgrade());
    threads.push(spawn("ledger-scrub", move || scrub::run(&scrubbed, verified, &weak)));
    if let Some(every) = options.verify_every {
        let (program, writer) = (options.program, sender.downgrade());
        let rounds = Rounds { shared: shared.clone(), program, started: clock.now(), clock, every, writer };
        threads.push(spawn("ledger-rounds", move || rounds.run()));
    }
    if !later.is_empty() {
        let (shared, weak) = (shared.clone(), sender.downgrade());
        threads.push(spawn("ledger-rebuild", move || {
            if let Err(e) = rebuild::in_background(&shared, later, &weak, &options) {
                shared.stop(format!("a table cannot be rebuilt: {e}"));
            }
        }));
    }
    Ledger { inner: Arc::new(Inner { shared, program, sender: Some(sender), threads: Mutex::new(threads) }) }
}

/// Brings the watermark to disk once a second, so that no batch has to wait for that, and looks how much space is left.
fn keep_watermark(writer: &Writer) -> std::thread::JoinHandle<()> {
    let (keeper, shared) = (writer.watermark.keeper(), writer.shared.clone());
    spawn("ledger-watermark", move || {
        while !shared.closing.load(std::sync::atomic::Ordering::Acquire) {
            std::thread::park_timeout(WATERMARK_SYNC);
            shared.space.look();
            if let Err(e) = keeper.sync_if_dirty() {
                shared.stop(format!("the watermark cannot be synced: {e}"));
                return;
            }
        }
    })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    std::thread::Builder::new().name(name.to_owned()).spawn(work).expect("the system gives a thread")
}

/// Why a ledger does not open, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: there is no ledger here", dir.display())]
    NoLedger { dir: PathBuf },
    #[error("{}: {} holds this ledger", dir.display(), holder(*pid))]
    Held { dir: PathBuf, pid: Option<u32> },
    #[error("{}: the log cannot be taken as it is: {damage}. {}", dir.display(), remedy(damage, aside.as_deref()))]
    Damaged { damage: Box<Damage>, dir: PathBuf, aside: Option<PathBuf> },
    #[error("the storage engine does not open: {why}. `postledger repair` makes it anew. {}", evidence(aside.as_deref()))]
    Engine { why: String, aside: Option<PathBuf> },
    #[error(
        "{}: the file `watermark` is missing, so nobody can say whether the log is complete. Put it back as it was \
         at this moment, or run `postledger repair`, which goes on from what is there",
        dir.display()
    )]
    NoWatermark { dir: PathBuf },
    #[error(
        "the vault's key is missing or is not the one this ledger was made with: put back the directory of one moment, or run \
         `postledger repair --from BACKUPDIR --vault FILE`"
    )]
    Pepper,
    #[error(
        "the clock says {now}, but the last record was written at {last}. Set the clock right, or, if it is right now, start \
         once with --accept-clock"
    )]
    Clock { last: Timestamp, now: Timestamp },
    #[error("the ledger does not go on: {0}")]
    Refused(Refusal),
    #[error("there is no projection {0:?}")]
    NoProjection(String),
    #[error("{0}")]
    Store(#[from] store::Error),
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or("another process".to_owned(), |pid| format!("process {pid}"))
}

fn remedy(damage: &Damage, aside: Option<&Path>) -> String {
    let advice = match damage {
        Damage::EndsEarly { .. } => {
            "Run `postledger repair`, which goes on from what is there, or from a backup that has more"
        }
        Damage::RowsApart { .. } => "Run `postledger rebuild --all`",
        Damage::Newer { .. } => "Start the newer program",
        Damage::Gap { .. }
        | Damage::Unreadable { .. }
        | Damage::Misplaced { .. }
        | Damage::Broken { .. }
        | Damage::Changed { .. }
        | Damage::TimeGoesBack { .. } => "`postledger verify` lists all that is wrong, `postledger repair` mends it",
    };
    format!("{advice}. {}", evidence(aside))
}

fn evidence(aside: Option<&Path>) -> String {
    match aside {
        Some(path) => format!("The engine's journals as they were found are in {}", path.display()),
        None => "The last stop was clean, so no journals were set aside".to_owned(),
    }
}
