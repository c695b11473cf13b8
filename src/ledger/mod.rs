//! The ledger: the log, its rows, bodies and secrets, one writer, and a handle that hides the engine below.

mod assemble;
mod bodies;
mod chain;
mod export;
mod fold;
mod fresh;
pub mod import;
mod journals;
mod lock;
pub mod open;
mod overlay;
pub mod pace;
mod rebuild;
pub mod repair;
pub mod restore;
mod rounds;
mod salvage;
mod scrub;
mod snapshot;
mod space;
mod store;
mod vault;
pub mod verify;
mod watermark;
mod writer;

#[cfg(test)]
mod product_tests;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use zeroize::Zeroizing;

use postledger_events::fact::account::RetrySchedule;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{Author, Fingerprint, MessageUuid, SecretId, Seq, Sha256};
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections::books::{self, Books};
use postledger_projections::{self as projections, Projection, Rows, secrets};

use crate::clock::Clock;
use crate::decide::{self, Decision, Moment, Policy};

pub use bodies::{BODY_INLINE_BYTES_MAX, Error as BodyError, Staged};
pub use chain::Damage;
pub use export::{Error as ExportError, Export};
pub use rebuild::Progress;
pub use rounds::Round;
pub use snapshot::{Lines, Snapshot};
pub use space::{FREE_BYTES_MIN, Room, Short};
pub use store::Error;
pub use vault::{FileError as SecretsError, Secrets};

use bodies::{Bodies, is_inline};
use lock::Lock;
use space::Space;
use store::Store;
use writer::{Message, Request};

/// How long a command waits for a place in the queue before its sender is told that the ledger is busy.
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Those who make something of stored bodies beyond this take turns, so that together they stay within memory.
pub const BODY_LARGE_BYTES: u64 = 1024 * 1024;
/// Records of one segment of the log.
const SEGMENT_RECORDS_MAX: u64 = 4_000_000;
/// What a rebuild holds in memory before it stores it, half of it while that is being stored. 3.3 million records took 25.2 s
/// with 48 MiB, 23.7 s with 128 and 23.1 s with 256 (540 MiB in all at their height). 10 million took 53.9 and 58.0 s with 96 MiB
/// (353 MiB in all), 53.9 and 54.1 s with 128 (445 MiB, and once 510).
const REBUILD_CHUNK_BYTES_MAX: usize = 112 * 1024 * 1024;
/// Blocks of the engine that are kept in memory.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;
/// From the end of one round over the whole ledger to the next.
const VERIFY_EVERY: Duration = Duration::from_secs(24 * 3600);

/// A handle to an open ledger; cheap to clone. When the last one goes, the writer finishes what it has and ends; dropping
/// that one blocks until then.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    program: Program,
    /// Taken when the ledger goes.
    sender: Option<mpsc::Sender<Message>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the writer and all handles have in common.
struct Shared {
    dir: PathBuf,
    program: Program,
    store: Store,
    bodies: Bodies,
    pepper: [u8; 32],
    current: ArcSwap<snapshot::Moment>,
    position: watch::Sender<Seq>,
    stopped: OnceLock<String>,
    closing: AtomicBool,
    /// Batches written since the start.
    commits: AtomicU64,
    /// Keys set or removed by them.
    operations: AtomicU64,
    /// What the slowest of them took.
    commit_max_us: AtomicU64,
    /// Requests that are being read.
    expected: AtomicUsize,
    /// Somebody verifies it.
    verifying: AtomicBool,
    /// The last round over the whole ledger, and the record that the running one is at; 0 if none is.
    round: ArcSwapOption<Round>,
    round_at: AtomicU64,
    space: Arc<Space>,
    /// In nanoseconds since 1970, see [`Ledger::first_due`].
    first_due: AtomicI64,
    lock: Arc<Lock>,
}

/// How to open a ledger.
#[derive(Clone)]
pub struct Options {
    pub dir: PathBuf,
    /// Make a new one if there is none.
    pub create: bool,
    /// Of a new ledger within its installation.
    pub ledger_number: u16,
    /// For accounts that have no schedule of their own.
    pub retry: RetrySchedule,
    /// All waits are divided by this.
    pub retry_scale: u32,
    /// What reply texts mean.
    pub reply_rules: Arc<decide::classify::Rules>,
    /// Who says that the clock is right although it differs much from the last record's time.
    pub accept_clock: Option<Author>,
    /// The log goes on from its last record as another branch; it may have gone on differently before.
    pub branch: Option<BranchWish>,
    pub rebuild: Rebuild,
    /// What a rebuild may hold in memory before it stores it, about.
    pub rebuild_chunk_bytes_max: usize,
    pub segment_records_max: u64,
    pub cache_bytes: u64,
    /// How often everything is verified beside the work; `None`: never.
    pub verify_every: Option<Duration>,
    /// What intake leaves free of the file system, for the outcomes of what was taken in.
    pub free_bytes_min: u64,
    pub program: Program,
    /// Told now and then while tables are rebuilt.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

impl Options {
    /// The product's settings for the ledger in `dir`, which must exist.
    pub fn new(dir: impl Into<PathBuf>) -> Options {
        Options {
            dir: dir.into(),
            create: false,
            ledger_number: 0,
            retry: RetrySchedule::contract(),
            retry_scale: 1,
            reply_rules: Arc::new(decide::classify::Rules::shipped()),
            accept_clock: None,
            branch: None,
            rebuild: Rebuild::Changed,
            rebuild_chunk_bytes_max: REBUILD_CHUNK_BYTES_MAX,
            segment_records_max: SEGMENT_RECORDS_MAX,
            cache_bytes: CACHE_BYTES,
            verify_every: Some(VERIFY_EVERY),
            free_bytes_min: space::FREE_BYTES_MIN,
            program: Program::product(),
            progress: Arc::new(|_| {}),
        }
    }
}

/// Why a ledger goes on as another branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BranchWish {
    /// The last record that is known to have been written by any branch.
    pub known: Seq,
    pub reason: String,
    pub by: Author,
}

/// Which tables are rebuilt at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rebuild {
    /// Those whose projection has another version than the one that built them.
    #[default]
    Changed,
    /// Those, and these.
    Named(Vec<String>),
    All,
}

impl Rebuild {
    fn names(&self, projection: &str) -> bool {
        match self {
            Rebuild::Changed => false,
            Rebuild::Named(names) => names.iter().any(|n| n == projection),
            Rebuild::All => true,
        }
    }
}

/// The pure parts that the ledger runs.
#[derive(Clone, Copy)]
pub struct Program {
    pub projections: &'static [Projection],
    pub decide: fn(&Command, &dyn Rows, &Policy, Moment) -> Result<Decision, Refusal>,
    /// Whether a message still has this body. Reads only tables that decisions read: the others may be incomplete.
    pub is_body_live: fn(&dyn Rows, MessageUuid) -> Result<bool, projections::Error>,
    /// Whether the rows agree with each other.
    pub check_books: fn(&dyn Rows) -> Result<Books, projections::Error>,
    /// The secrets that the rows name.
    pub secrets: fn(&dyn Rows) -> Result<Vec<secrets::Named>, projections::Error>,
    /// What is to be done, right after the ledger was branched, about what was open at the cut.
    pub hold_open: fn(&dyn Rows) -> Result<Vec<Command>, projections::Error>,
}

impl Program {
    pub fn product() -> Program {
        Program {
            projections: projections::PROJECTIONS,
            decide: decide::decide,
            is_body_live: |rows, body| projections::is_body_live(rows, body),
            check_books: books::check,
            secrets: |rows| secrets::named(rows),
            hold_open: decide::hold_open,
        }
    }
}

/// A command with the contents and secrets that its facts will name.
pub struct Intent {
    pub command: Command,
    pub bodies: Vec<Staged>,
    pub secrets: Vec<(SecretId, Zeroizing<Vec<u8>>)>,
}

impl From<Command> for Intent {
    fn from(command: Command) -> Intent {
        Intent { command, bodies: Vec::new(), secrets: Vec::new() }
    }
}

/// What a command led to; on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub answer: Answer,
    /// Its first record; after `last` if nothing had to be recorded.
    pub first: Seq,
    pub last: Seq,
    pub at: Timestamp,
}

/// Why a command led to nothing, or is not known to have led to anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("the ledger is busy; try again later")]
    Busy,
    #[error("{0}")]
    NoSpace(space::Short),
    /// Whether it took place is not known if the ledger stopped meanwhile.
    #[error("the ledger takes nothing any more: {0}")]
    Stopped(String),
}

/// A command that is coming; see [`Ledger::expect`]. Dropped if it does not come after all.
pub struct Expected {
    ledger: Ledger,
}

impl Expected {
    /// As [`Ledger::submit`]; it is no longer expected as soon as it waits for the writer.
    pub async fn submit(self, intent: impl Into<Intent>) -> Result<Committed, SubmitError> {
        let (ledger, intent) = (self.ledger.clone(), intent.into());
        let place = ledger.place(&intent.command).await?;
        // Before the writer is woken: it would wait for this one.
        drop(self);
        let answered = place.take(intent);
        answered.await.unwrap_or_else(|_| Err(ledger.inner.shared.gone()))
    }
}

/// A place in the writer's queue that nothing stands in yet.
struct Waiting<'a>(mpsc::Permit<'a, Message>);

impl Waiting<'_> {
    fn take(self, intent: Intent) -> oneshot::Receiver<Result<Committed, SubmitError>> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Message::Command(Box::new(Request { intent, answer })));
        answered
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.ledger.inner.shared.expected.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a ledger is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("it is being verified already; wait until that is over")]
    Busy,
    #[error("{0}")]
    Store(#[from] Error),
}

/// One at a time: it takes disk space and a share of the processor.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// How the ledger is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Why it takes nothing any more.
    pub stopped: Option<String>,
    pub position: Seq,
    /// Batches written since the start, each with one sync.
    pub commits: u64,
    /// Keys set or removed by these batches.
    pub operations: u64,
    /// What the slowest of these batches took, from its first write to its sync.
    pub commit_max: Duration,
    /// Tables that are being rebuilt, and how far they are.
    pub lagging: Vec<(&'static str, Seq)>,
    /// The last round over the whole ledger, and the record that the running one is at.
    pub round: Option<Arc<Round>>,
    pub round_at: Option<Seq>,
    pub space: Room,
}

impl Ledger {
    /// Takes the lock, checks the log, rebuilds what decisions need, and starts the writer. Blocks.
    pub fn open(options: Options, clock: Clock) -> Result<Ledger, open::Error> {
        open::open(options, clock)
    }

    /// Brings a body to where its message will look for it: before this returns for a large one, with the batch for a small
    /// one. A large one needs room beside the reserve; if it cannot be written and synced, the ledger stops.
    pub async fn stage(&self, body: MessageUuid, bytes: Bytes) -> Result<Staged, SubmitError> {
        let shared = self.inner.shared.clone();
        if bytes.len() <= BODY_INLINE_BYTES_MAX {
            return shared.bodies.stage(body, bytes).map_err(|e| SubmitError::Stopped(e.to_string()));
        }
        let claim = shared.space.claim(bytes.len()).map_err(SubmitError::NoSpace)?;
        let write = move || {
            let _claim = claim;
            let staged = shared.bodies.stage(body, bytes);
            staged.map_err(|e| shared.stop(format!("a body cannot be written: {e}")))
        };
        let staged = tokio::task::spawn_blocking(write).await;
        let staged = staged.unwrap_or_else(|e| Err(format!("the thread that wrote a body died: {e}")));
        staged.map_err(SubmitError::Stopped)
    }

    /// Returns when the command's facts are on disk, or it was refused and left no trace.
    pub async fn submit(&self, intent: impl Into<Intent>) -> Result<Committed, SubmitError> {
        let intent = intent.into();
        let answered = self.place(&intent.command).await?.take(intent);
        answered.await.unwrap_or_else(|_| Err(self.inner.shared.gone()))
    }

    /// Says that a command is coming: the writer may wait a moment for it, to sync once for several.
    pub fn expect(&self) -> Expected {
        self.inner.shared.expected.fetch_add(1, Ordering::AcqRel);
        Expected { ledger: self.clone() }
    }

    /// A place in the writer's queue.
    async fn place(&self, command: &Command) -> Result<Waiting<'_>, SubmitError> {
        if is_new_mail(command) {
            self.has_room().map_err(SubmitError::NoSpace)?;
        }
        if let Some(why) = self.inner.shared.stopped() {
            return Err(SubmitError::Stopped(why));
        }
        let place = tokio::time::timeout(QUEUE_WAIT_MAX, self.inner.sender().reserve()).await;
        Ok(Waiting(place.map_err(|_| SubmitError::Busy)?.map_err(|_| self.inner.shared.gone())?))
    }

    /// The last moment that is on disk.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.shared.snapshot()
    }

    /// Reads a file if the body is a large one: blocks.
    pub fn body(&self, body: &BodyRef) -> Result<Bytes, BodyError> {
        self.inner.shared.bodies.read(body)
    }

    /// Whether reading it means reading a file.
    pub fn is_body_file(body: &BodyRef) -> bool {
        !is_inline(body)
    }

    pub fn secret(&self, id: SecretId) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        vault::secret(&self.inner.shared.store.vault, id)
    }

    /// The key of pseudonyms.
    pub fn pepper(&self) -> &[u8; 32] {
        &self.inner.shared.pepper
    }

    /// What facts say of a secret instead of its value.
    pub fn fingerprint(&self, secret: &[u8]) -> Fingerprint {
        vault::fingerprint(&self.inner.shared.pepper, secret)
    }

    /// Says when the log has grown.
    pub fn watch(&self) -> watch::Receiver<Seq> {
        self.inner.shared.position.subscribe()
    }

    pub fn status(&self) -> Status {
        let snapshot = self.snapshot();
        let lagging = snapshot.lagging().filter_map(|t| t.as_of.map(|as_of| (t.projection, as_of))).collect();
        let shared = &self.inner.shared;
        let round_at = Some(Seq(shared.round_at.load(Ordering::Relaxed))).filter(|seq| *seq > Seq(0));
        Status {
            stopped: shared.stopped(),
            position: snapshot.position(),
            commits: shared.commits.load(Ordering::Relaxed),
            operations: shared.operations.load(Ordering::Relaxed),
            commit_max: Duration::from_micros(shared.commit_max_us.load(Ordering::Relaxed)),
            lagging,
            round: shared.round(),
            round_at,
            space: shared.space.room(),
        }
    }

    /// Nothing that is queued is due before it, in any snapshot that is taken from now on. Whoever looks at the queue from its
    /// beginning need not cross what the deliveries that are over have left there.
    pub fn first_due(&self) -> Timestamp {
        Timestamp::from_nanos(self.inner.shared.first_due.load(Ordering::Acquire))
    }

    /// A look at the queue has found where it begins; it never begins earlier again.
    pub fn found_first_due(&self, at: Timestamp) {
        self.inner.shared.first_due.fetch_max(at.as_nanos(), Ordering::AcqRel);
    }

    /// Whether new mail may come in.
    pub fn has_room(&self) -> Result<(), space::Short> {
        self.inner.shared.space.check()
    }

    pub fn is_being_verified(&self) -> bool {
        self.inner.shared.verifying.load(Ordering::Acquire)
    }

    /// Verifies this moment while the ledger goes on. `Ok(None)`: `pace` was told to stop. Blocks.
    pub fn verify(
        &self,
        full: bool,
        pace: &pace::Pace<'_>,
        progress: &mut dyn FnMut(Seq, Seq),
    ) -> Result<Option<verify::Report>, VerifyError> {
        let shared = &self.inner.shared;
        let _turn = shared.verifying().ok_or(VerifyError::Busy)?;
        Ok(verify::beside(shared, shared.program, full, pace, progress)?)
    }

    /// Finishes what waits and leaves a directory that opens without questions. Other handles can still read.
    pub async fn close(&self) -> Result<(), Error> {
        self.inner.shared.closing.store(true, Ordering::Release);
        let (done, closed) = oneshot::channel();
        if self.inner.sender().send(Message::Close(done)).await.is_err() {
            return Ok(());
        }
        closed.await.unwrap_or(Ok(()))
    }

    /// What the ledger has after a record, all of one moment, as JSON Lines. With a hash, the record must have it. Blocks.
    pub fn export(&self, after: Seq, hash: Option<Sha256>) -> Result<Export, ExportError> {
        let shared = self.inner.shared.clone();
        Export::new(shared, self.snapshot(), self.inner.program, after, hash)
    }

    /// All secrets, to be kept apart from backups. Blocks.
    pub fn secrets(&self) -> Result<Secrets, Error> {
        Secrets::of(&self.snapshot(), &self.inner.shared.store.vault)
    }

    /// Like [`Ledger::submit`], for a thread that may block.
    fn submit_blocking(&self, command: Command) -> Result<Committed, SubmitError> {
        let (answer, answered) = oneshot::channel();
        let message = Message::Command(Box::new(Request { intent: command.into(), answer }));
        self.inner.sender().blocking_send(message).map_err(|_| self.inner.shared.gone())?;
        answered.blocking_recv().unwrap_or_else(|_| Err(self.inner.shared.gone()))
    }

    /// Like [`Ledger::close`], for a thread that may block.
    fn close_blocking(&self) -> Result<(), Error> {
        let (done, closed) = oneshot::channel();
        if self.inner.sender().blocking_send(Message::Close(done)).is_err() {
            return Ok(());
        }
        closed.blocking_recv().unwrap_or(Ok(()))
    }
}

/// Opens the ledger, rebuilds what `options.rebuild` names, and closes it. Blocks.
pub fn rebuild(options: Options, clock: Clock) -> Result<(), open::Error> {
    Ok(Ledger::open(options, clock)?.close_blocking()?)
}

/// Notices of ours are outcomes of what was taken in.
fn is_new_mail(command: &Command) -> bool {
    let is_received = matches!(command, Command::Receive(receive) if receive.notice_of.is_none());
    is_received || matches!(command, Command::Submit(_))
}

impl Inner {
    fn sender(&self) -> &mpsc::Sender<Message> {
        self.sender.as_ref().expect("it is taken only when the last handle goes")
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Release);
        self.sender.take();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            thread.thread().unpark();
            // A thread that died has said so in the status.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn snapshot(&self) -> Snapshot {
        Snapshot(self.current.load_full())
    }

    fn round(&self) -> Option<Arc<Round>> {
        self.round.load_full()
    }

    fn verifying(&self) -> Option<Turn<'_>> {
        (!self.verifying.swap(true, Ordering::AcqRel)).then_some(Turn(&self.verifying))
    }

    fn stopped(&self) -> Option<String> {
        self.stopped.get().cloned()
    }

    /// Takes nothing from now on; the first reason counts.
    fn stop(&self, why: String) -> String {
        let why = self.stopped.get_or_init(|| why);
        tracing::info!("the ledger stops: {why}");
        why.clone()
    }

    fn gone(&self) -> SubmitError {
        SubmitError::Stopped(self.stopped().unwrap_or_else(|| "the writer is gone".to_owned()))
    }
}
