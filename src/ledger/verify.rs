//! Verifying a ledger, beside the server that runs on it or without one: the chain, the watermark, the bodies, the books, and
//! with `full` every body's hash and every row, against a replay of the log into a store beside it.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use fjall::Readable;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use postledger_events::Record;
use postledger_events::event::Event;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{MessageUuid, Seq, Sha256};
use postledger_projections::Projection;
use postledger_projections::books::Books;

use super::bodies::{self, Bodies};
use super::chain::{self, Chain, Damage};
use super::open::{self, Opened, open_store, open_tables};
use super::pace::{Pace, Paced};
use super::rebuild::{self, Manner, Target};
use super::snapshot::Snapshot;
use super::space::Room;
use super::store::{Error, Head, Note, Store, TableNote, at_path, is_passing};
use super::{Options, Program, Shared, vault};

/// Findings that are listed, of those about contents and of all others; more are only counted.
const FINDINGS_MAX: u64 = 1_000;
/// Records after which progress is shown.
const STEP_RECORDS: u64 = 10_000;
/// Where the log is replayed into, below the ledger's directory.
const SCRATCH: &str = "verify-scratch";

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// The log itself: records, their order, their end.
    Log,
    /// The content of a message.
    Body,
    /// Rows that are not what the log says, or do not agree with each other.
    Rows,
    Vault,
    /// A single secret.
    Secret,
}

impl About {
    /// Whether it hinders only what needs that content or secret.
    pub(super) fn is_alone(self) -> bool {
        matches!(self, About::Body | About::Secret)
    }
}

/// Something that is not as it should be, and the exact place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub about: About,
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub first: Seq,
    pub last: Seq,
    pub records: u64,
    /// Of the last record.
    pub hash: Option<Sha256>,
    pub watermark: Seq,
    /// Contents that messages have.
    pub bodies: u64,
    /// `None` if the rows cannot be read as this program would.
    pub books: Option<Books>,
    /// With a full scope only.
    pub tables: Vec<Digested>,
    /// Empty if all is well.
    pub findings: Vec<Finding>,
    pub findings_total: u64,
    /// How many of them are about contents of messages and single secrets.
    #[serde(default)]
    pub alone_total: u64,
    /// What the next start will do by itself, and what was left out.
    pub notes: Vec<String>,
}

/// A table, in one number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digested {
    pub projection: String,
    pub version: u32,
    pub rows: u64,
    /// SHA-256 over all keys and values in order, each with its length in eight bytes before it.
    pub digest: Sha256,
}

impl Report {
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    /// How many findings are about log, rows and the vault as a whole.
    pub fn damage_total(&self) -> u64 {
        self.findings_total - self.alone_total
    }

    pub(super) fn find(&mut self, about: About, finding: impl fmt::Display) {
        self.findings_total += 1;
        let alike = if about.is_alone() {
            self.alone_total += 1;
            self.alone_total
        } else {
            self.damage_total()
        };
        // Many contents do not hide a damaged log, nor the other way round.
        if alike <= FINDINGS_MAX {
            self.findings.push(Finding { about, text: finding.to_string() });
        }
    }
}

/// Takes the ledger's lock, so no server may be running. `full`: also the hash of every body, and all rows against a replay.
/// `progress` is told records done and records in all. Blocks.
pub fn verify(options: &Options, full: bool, progress: &mut dyn FnMut(Seq, Seq)) -> Result<Report, open::Error> {
    let opened = open_store(&options.dir, false, options.cache_bytes)?;
    let never = || false;
    let pace = Pace::unhindered(&never);
    let (report, end) = Verifier::of_opened(&opened, options, &pace)?.run(full, &options.dir, progress)?;
    if let Some(end) = end {
        remember(opened, end)?;
    }
    Ok(report)
}

/// Verifies a moment of the ledger while it runs. `None`: it was told to stop. Blocks.
pub(super) fn beside(
    shared: &Shared,
    program: Program,
    full: bool,
    pace: &Pace<'_>,
    progress: &mut dyn FnMut(Seq, Seq),
) -> Result<Option<Report>, Error> {
    let (report, _) = Verifier::of_running(shared, program, pace).run(full, &shared.dir, progress)?;
    Ok((!pace.is_stopped()).then_some(report))
}

/// The next start need not read again what was read now.
fn remember(mut opened: Opened, end: Head) -> Result<(), Error> {
    opened.watermark.update(|mark| (mark.seq, mark.hash, mark.verified) = (end.seq, end.hash, end.seq))?;
    opened.watermark.sync()
}

struct Verifier<'a> {
    snapshot: Snapshot,
    store: &'a Store,
    program: Program,
    bodies: Bodies,
    chain: Chain,
    mark: (Seq, Sha256),
    rows_are_current: bool,
    /// The ledger goes on meanwhile.
    running: Option<&'a Shared>,
    pace: &'a Pace<'a>,
    report: Report,
}

impl<'a> Verifier<'a> {
    fn of_opened(opened: &'a Opened, options: &Options, pace: &'a Pace<'a>) -> Result<Verifier<'a>, Error> {
        let snapshot = opened.snapshot(open_tables(&opened.store, options.program.projections)?);
        let mark = opened.watermark.mark();
        let notes = stale_tables(&opened.store, options.program.projections)?;
        Ok(Verifier {
            store: &opened.store,
            program: options.program,
            bodies: Bodies::open(&options.dir, opened.store.bodies.clone())?,
            chain: Chain::from(snapshot.first()),
            mark: (mark.seq, mark.hash),
            rows_are_current: notes.is_empty(),
            running: None,
            pace,
            report: Report { first: snapshot.first(), watermark: mark.seq, notes, ..Report::default() },
            snapshot,
        })
    }

    fn of_running(shared: &'a Shared, program: Program, pace: &'a Pace<'a>) -> Verifier<'a> {
        let snapshot = shared.snapshot();
        let notes = snapshot.lagging().map(|t| format!("{} is being rebuilt; no rows were checked", t.projection));
        let (notes, head): (Vec<String>, Head) = (notes.collect(), snapshot.0.head);
        Verifier {
            store: &shared.store,
            program,
            bodies: shared.bodies.clone(),
            chain: Chain::from(snapshot.first()),
            mark: (head.seq, head.hash),
            rows_are_current: notes.is_empty(),
            running: Some(shared),
            pace,
            report: Report { first: snapshot.first(), watermark: head.seq, notes, ..Report::default() },
            snapshot,
        }
    }

    /// Also the end of the log, if the log is whole.
    fn run(
        mut self,
        full: bool,
        dir: &Path,
        progress: &mut dyn FnMut(Seq, Seq),
    ) -> Result<(Report, Option<Head>), Error> {
        match self.check(full, dir, progress) {
            Ok(end) => Ok((self.report, end)),
            Err(e) => Err(self.unfinished(&e)),
        }
    }

    /// Also what was found before it, as nobody gets the report.
    fn unfinished(&self, e: &Error) -> Error {
        let found =
            self.report.findings.first().map(|first| {
                format!("; before that there were {} findings, such as: {first}", self.report.findings_total)
            });
        Error::Unfinished(format!("{e}{}", found.unwrap_or_default()))
    }

    fn check(&mut self, full: bool, dir: &Path, progress: &mut dyn FnMut(Seq, Seq)) -> Result<Option<Head>, Error> {
        self.walk(full, progress)?;
        let log_is_damaged = self.report.findings.iter().any(|finding| finding.about == About::Log);
        self.check_end();
        let end = self.chain.end().filter(|_| self.report.is_clean());
        self.check_rows_end();
        let pepper = self.check_vault()?;
        if self.rows_are_current {
            self.check_books()?;
            pepper.map_or(Ok(()), |pepper| self.check_secrets(&pepper))?;
            self.check_forgotten()?;
            if full && log_is_damaged {
                self.report.notes.push("the log is damaged, so the rows were not compared with it".to_owned());
            } else if full {
                self.compare_with_replay(dir, progress)?;
            }
        }
        Ok(end)
    }

    /// Every record: its place in the chain, and the bodies it brought.
    fn walk(&mut self, full: bool, progress: &mut dyn FnMut(Seq, Seq)) -> Result<(), Error> {
        for line in self.snapshot.records(Seq(0)..=Seq(u64::MAX)) {
            if !self.pace.breathe() {
                break;
            }
            let (place, line) = match line {
                Ok(line) => line,
                Err(e) if e.is_passing() => return Err(e),
                Err(e) => {
                    self.report.find(About::Log, format!("after record {}: {e}", self.report.last));
                    break;
                }
            };
            self.report.last = place;
            self.report.records += 1;
            self.check_record(place, &line, full)?;
            if self.report.records.is_multiple_of(STEP_RECORDS) {
                progress(place, self.snapshot.position());
            }
        }
        Ok(())
    }

    fn check_record(&mut self, place: Seq, line: &[u8], full: bool) -> Result<(), Error> {
        let record = match chain::decode(place, line) {
            Ok(record) => record,
            Err(damage) => {
                self.report.find(About::Log, damage);
                self.chain.skip(place);
                return Ok(());
            }
        };
        match self.chain.step(place, &record, line) {
            Ok(head) => {
                self.report.hash = Some(head.hash);
                if place == self.mark.0 && head.hash != self.mark.1 {
                    let damage = Damage::Changed { seq: place, written: self.mark.1, found: head.hash };
                    self.report.find(About::Log, damage);
                }
            }
            Err(damage) => {
                self.report.find(About::Log, damage);
                self.chain.skip(place);
            }
        }
        bodies_of(&record.event).try_for_each(|body| self.check_body(place, &body, full))
    }

    fn check_body(&mut self, place: Seq, body: &BodyRef, full: bool) -> Result<(), Error> {
        if !self.rows_are_current || self.is_live(Some(body.body))? != Some(true) {
            return Ok(());
        }
        self.report.bodies += 1;
        let checked = if full { self.check_content(body) } else { self.bodies.check_present(body) };
        match checked {
            Ok(()) => Ok(()),
            Err(bodies::Error::Store(e)) if e.is_passing() => Err(e),
            Err(_) if self.is_forgotten_meanwhile(body) => Ok(()),
            Err(e) => {
                self.report.find(About::Body, format!("record {place}: {e}"));
                Ok(())
            }
        }
    }

    fn check_content(&mut self, body: &BodyRef) -> Result<(), bodies::Error> {
        let found = Sha256::of(&self.bodies.read(body)?);
        if found != body.sha256 {
            let finding = format!("body {} has the hash {found} instead of {}", body.body, body.sha256);
            self.report.find(About::Body, finding);
        }
        Ok(())
    }

    /// Contents are read as they are now, and not as they were at the moment that is verified.
    fn is_forgotten_meanwhile(&self, body: &BodyRef) -> bool {
        let live = self.running.map(|shared| (self.program.is_body_live)(&shared.snapshot(), body.body));
        matches!(live, Some(Ok(false)))
    }

    fn check_end(&mut self) {
        let (end, watermark) = (self.report.last, self.mark.0);
        if end < watermark && !self.pace.is_stopped() {
            self.report.find(About::Log, Damage::EndsEarly { end, watermark });
        }
    }

    fn check_rows_end(&mut self) {
        let (rows, log) = (self.snapshot.0.head.seq, self.report.last);
        if rows != log && !self.pace.is_stopped() {
            self.report.find(About::Rows, Damage::RowsApart { rows, log });
        }
    }

    /// Answers the vault's pepper if it is the right one.
    fn check_vault(&mut self) -> Result<Option<[u8; 32]>, Error> {
        let pepper = match vault::pepper(&self.store.vault) {
            Ok(pepper) => pepper,
            Err(e) if e.is_passing() => return Err(e),
            Err(e) => {
                self.report.find(About::Vault, format!("the vault's pepper cannot be read: {e}"));
                return Ok(None);
            }
        };
        // If it cannot be read, that was found before.
        let first = self.snapshot.record_line(Seq::FIRST).ok().flatten();
        let first = first.and_then(|line| Record::decode(&line).ok());
        match (pepper, first.map(|r| r.event)) {
            (None, _) => self.report.find(About::Vault, "the vault has no pepper"),
            (Some(pepper), Some(Event::LedgerCreated(fact))) => {
                if vault::fingerprint(&pepper, &pepper) == fact.pepper {
                    return Ok(Some(pepper));
                }
                self.report.find(About::Vault, "the vault's pepper is not the one that record 1 tells of");
            }
            // Without record 1 nothing says which it must be.
            (Some(_), _) => {}
        }
        Ok(None)
    }

    /// Each secret that rows name is there, and is the one that was given.
    fn check_secrets(&mut self, pepper: &[u8; 32]) -> Result<(), Error> {
        let named = match (self.program.secrets)(&Paced { rows: &self.snapshot, pace: self.pace }) {
            Ok(named) => named,
            Err(e) if e.passing => return Err(e.into()),
            Err(e) => {
                self.report.find(About::Rows, e);
                return Ok(());
            }
        };
        for (what, secret) in named {
            match self.snapshot.0.engine.get(&self.store.vault, secret.id.0.as_bytes()) {
                Ok(Some(value)) if vault::fingerprint(pepper, &value) == secret.fingerprint => {}
                Ok(Some(_)) => self.report.find(About::Secret, format!("{what} is not the one that was given")),
                Ok(None) => self.report.find(About::Secret, format!("{what} is missing in the vault")),
                Err(e) if is_passing(&e) => return Err(e.into()),
                Err(e) => self.report.find(About::Vault, format!("{what} cannot be read: {e}")),
            }
        }
        Ok(())
    }

    fn check_books(&mut self) -> Result<(), Error> {
        match (self.program.check_books)(&Paced { rows: &self.snapshot, pace: self.pace }) {
            Ok(books) => {
                books.findings.iter().for_each(|finding| self.report.find(About::Rows, finding));
                self.report.findings_total += books.findings_total.saturating_sub(books.findings.len() as u64);
                self.report.books = Some(books);
            }
            Err(e) if e.passing => return Err(e.into()),
            Err(e) => self.report.find(About::Rows, e),
        }
        Ok(())
    }

    /// What was forgotten must be gone.
    fn check_forgotten(&mut self) -> Result<(), Error> {
        for guard in self.snapshot.0.engine.iter(&self.store.bodies) {
            if !self.pace.breathe() {
                return Ok(());
            }
            let key = match guard.key() {
                Ok(key) => key,
                Err(e) if is_passing(&e) => return Err(e.into()),
                Err(e) => {
                    self.report.find(About::Body, format!("the small contents cannot all be read: {e}"));
                    break;
                }
            };
            if self.is_live(bodies::name(&key))? == Some(false) {
                self.report.find(About::Body, format!("body {key:02x?} is stored, but no message has it"));
            }
        }
        // Beside a running ledger a file may be one whose message is just being accepted or forgotten.
        if self.running.is_some() {
            return Ok(());
        }
        for (path, body) in self.bodies.files()? {
            if self.is_live(body)? == Some(false) {
                self.report.notes.push(format!("{} belongs to no message and will be removed", path.display()));
            }
        }
        Ok(())
    }

    /// Whether a message has it; `None` if the rows do not tell, which is a finding.
    fn is_live(&mut self, body: Option<MessageUuid>) -> Result<Option<bool>, Error> {
        let Some(body) = body else { return Ok(Some(false)) };
        match (self.program.is_body_live)(&self.snapshot, body) {
            Ok(live) => Ok(Some(live)),
            Err(e) if e.passing => Err(e.into()),
            Err(e) => {
                self.report.find(About::Rows, format!("body {body}: {e}"));
                Ok(None)
            }
        }
    }

    /// Whatever the store beside it cannot do says nothing about the ledger, so it is an error and no finding.
    fn compare_with_replay(&mut self, dir: &Path, progress: &mut dyn FnMut(Seq, Seq)) -> Result<(), Error> {
        remove_scratch(dir)?;
        self.compare_all(&dir.join(SCRATCH), progress).and(remove_scratch(dir))
    }

    fn compare_all(&mut self, scratch: &Path, progress: &mut dyn FnMut(Seq, Seq)) -> Result<(), Error> {
        let (_beside, targets) = self.replay(scratch, progress)?;
        targets.iter().take_while(|_| !self.pace.is_stopped()).try_for_each(|target| self.compare(target))
    }

    /// Replaying takes room on the disk, which the running ledger needs more.
    fn check_room(&self, scratch: &Path) -> Result<(), Error> {
        self.running.map_or(Ok(()), |shared| enough(scratch, shared.space.room()))
    }

    /// Stops early if it is told to.
    fn replay(&self, scratch: &Path, progress: &mut dyn FnMut(Seq, Seq)) -> Result<(Store, Vec<Target>), Error> {
        self.check_room(scratch)?;
        let beside = Store::open(scratch, super::CACHE_BYTES)?;
        let target = |projection: &Projection| {
            let keyspace = beside.runs(projection.name)?;
            Ok(Target { projection: *projection, generation: 1, keyspace, applied: Seq(0), replaces: None })
        };
        let mut targets = self.program.projections.iter().map(target).collect::<Result<Vec<Target>, Error>>()?;
        let folders = if self.pace.is_unhindered() { rebuild::folders() } else { 0 };
        let manner = Manner { bytes_max: super::REBUILD_CHUNK_BYTES_MAX, aside: None, seen: false, folders };
        let mut room = Ok(());
        rebuild::replay(&mut targets, &self.snapshot, &manner, &mut |now| {
            if let Some(now) = now {
                progress(now.done, now.end);
            }
            room = self.check_room(scratch);
            room.is_ok() && self.pace.breathe()
        })?;
        room?;
        Ok((beside, targets))
    }

    /// Row by row, both in the order of their keys.
    fn compare(&mut self, target: &Target) -> Result<(), Error> {
        let projection = target.projection.name.to_owned();
        let grown = self.snapshot.0.view.table(target.projection.table)?.keyspace.clone();
        let mut pairs =
            Merge { left: rows_of(self.snapshot.0.engine.iter(&grown)), right: rows_of(target.keyspace.iter()) };
        let (mut hash, mut rows) = (sha2::Sha256::new(), 0);
        loop {
            let pair = match pairs.next() {
                Ok(Some(pair)) => pair,
                Ok(None) => break,
                Err(Unread::Stored(e)) if !is_passing(&e) => {
                    self.report.find(About::Rows, format!("rows of {projection} cannot be read: {e}"));
                    return Ok(());
                }
                Err(Unread::Stored(e) | Unread::Replayed(e)) => return Err(e.into()),
            };
            if !self.pace.breathe() {
                return Ok(());
            }
            if let Some(row) = &pair.stored {
                digest(&mut hash, row);
                rows += 1;
            }
            if pair.stored != pair.replayed {
                self.report.find(About::Rows, difference(&projection, pair));
            }
        }
        let digest = Sha256(hash.finalize().into());
        self.report.tables.push(Digested { projection, version: target.projection.version, rows, digest });
        Ok(())
    }
}

fn enough(scratch: &Path, room: Room) -> Result<(), Error> {
    let full =
        || io::Error::new(io::ErrorKind::StorageFull, "the disk has too little room to compare the rows with the log");
    if room.low { Err(full()).map_err(at_path(scratch)) } else { Ok(()) }
}

fn digest(hash: &mut sha2::Sha256, row: &Row) {
    for part in [&row.key, &row.value] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
}

#[derive(PartialEq, Eq)]
struct Row {
    key: fjall::UserKey,
    value: fjall::UserValue,
}

fn difference(name: &str, pair: Pair) -> String {
    let what = match (&pair.stored, &pair.replayed) {
        (Some(_), Some(_)) => "is not what the log says",
        (Some(_), None) => "is stored, but the log says there is none",
        (None, _) => "is missing",
    };
    let key = pair.stored.or(pair.replayed).map(|row| row.key.escape_ascii().to_string()).unwrap_or_default();
    format!("row {key} of {name} {what}")
}

/// What both have under one key; one side has nothing if the other's key is before its own.
struct Pair {
    stored: Option<Row>,
    replayed: Option<Row>,
}

fn rows_of(rows: fjall::Iter) -> std::iter::Peekable<impl Iterator<Item = Result<Row, fjall::Error>>> {
    let row = |guard: fjall::Guard| guard.into_inner().map(|(key, value)| Row { key, value });
    rows.map(row).peekable()
}

/// Two sorted tables side by side.
struct Merge<I: Iterator> {
    left: std::iter::Peekable<I>,
    right: std::iter::Peekable<I>,
}

/// Which of them cannot be read.
#[derive(Debug)]
enum Unread {
    Stored(fjall::Error),
    Replayed(fjall::Error),
}

impl<I: Iterator<Item = Result<Row, fjall::Error>>> Merge<I> {
    fn next(&mut self) -> Result<Option<Pair>, Unread> {
        let take = match (self.left.peek(), self.right.peek()) {
            (None, None) => return Ok(None),
            (Some(Ok(left)), Some(Ok(right))) => (left.key <= right.key, right.key <= left.key),
            (Some(_), None) => (true, false),
            (None, Some(_)) => (false, true),
            // The error comes out below.
            (Some(_), Some(_)) => (true, true),
        };
        let stored = if take.0 { self.left.next().transpose().map_err(Unread::Stored)? } else { None };
        let replayed = if take.1 { self.right.next().transpose().map_err(Unread::Replayed)? } else { None };
        Ok(Some(Pair { stored, replayed }))
    }
}

/// Tables that another version built, or that were never completed.
fn stale_tables(store: &Store, projections: &[Projection]) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    for projection in projections {
        let built = store.note::<TableNote>(Note::Table(projection.name))?.map(|note| note.version);
        if built != Some(projection.version) {
            let by = built.map_or("not built".to_owned(), |version| format!("built by version {version}"));
            notes.push(format!("the rows of {} are {by} and will be rebuilt; they were not checked", projection.name));
        }
    }
    Ok(notes)
}

/// What a verification that was cut off left behind goes too.
pub(super) fn remove_scratch(dir: &Path) -> Result<(), Error> {
    let scratch = dir.join(SCRATCH);
    if scratch.exists() { fs::remove_dir_all(&scratch).map_err(at_path(&scratch)) } else { Ok(()) }
}

/// The contents that came with an event.
pub(super) fn bodies_of(event: &Event) -> impl Iterator<Item = BodyRef> {
    let (first, second) = match event {
        Event::MessageSubmitted(fact) => (Some(fact.body), fact.sent_copy.as_ref().map(|copy| copy.body)),
        Event::MessageReceived(fact) => (Some(fact.body), None),
        Event::LedgerCreated(_)
        | Event::ClockStepped(_)
        | Event::LedgerBranched(_)
        | Event::AccountConfigured(_)
        | Event::AccountRemoved(_)
        | Event::DomainConfigured(_)
        | Event::DomainRemoved(_)
        | Event::AddressAdded(_)
        | Event::AddressRemoved(_)
        | Event::TransportConfigured(_)
        | Event::TransportRemoved(_)
        | Event::AttemptStarted(_)
        | Event::Delivered(_)
        | Event::AttemptDeferred(_)
        | Event::DeliveryFailed(_)
        | Event::AttemptInDoubt(_)
        | Event::DeliverySuppressed(_)
        | Event::DeliveryCanceled(_)
        | Event::DeliveryHeld(_)
        | Event::DeliveryReleased(_)
        | Event::DeliveryRescheduled(_)
        | Event::WishNoted(_)
        | Event::AddressSuppressed(_)
        | Event::SuppressionLifted(_)
        | Event::MessageDeleted(_)
        | Event::HoldRuleAdded(_)
        | Event::HoldRuleRemoved(_)
        | Event::JobStarted(_)
        | Event::JobAdvanced(_)
        | Event::JobFinished(_)
        | Event::EndpointConfigured(_)
        | Event::EndpointDisabled(_)
        | Event::EndpointRemoved(_)
        | Event::CallsQueued(_)
        | Event::CallsAttempted(_)
        | Event::CallsCanceled(_)
        | Event::CallsRetried(_)
        | Event::CallsHeld(_)
        | Event::TestCallMade(_)
        | Event::ReplayStarted(_)
        | Event::ReplayAdvanced(_)
        | Event::ReplayStopped(_)
        | Event::ReplayResumed(_)
        | Event::ReplayEnded(_)
        | Event::KeyAdded(_)
        | Event::KeyRevoked(_)
        | Event::KeyUsed(_)
        | Event::CursorSet(_)
        | Event::CursorRemoved(_)
        | Event::Expired(_) => (None, None),
    };
    // A sent copy may share the message's own content.
    let second = second.filter(|second| first.is_none_or(|first| first.body != second.body));
    first.into_iter().chain(second)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} records, {} to {}; watermark {}", self.records, self.first, self.last, self.watermark)?;
        if let Some(hash) = self.hash {
            writeln!(f, "hash of the last record {hash}")?;
        }
        writeln!(f, "{} contents", self.bodies)?;
        if let Some(b) = &self.books {
            let Books { queued, held, running, delivered, failed, suppressed, canceled, .. } = b;
            writeln!(f, "recipients: {queued} queued, {held} held, {running} running")?;
            writeln!(
                f,
                "            {delivered} delivered, {failed} failed, {suppressed} suppressed, {canceled} canceled"
            )?;
        }
        for Digested { projection, version, rows, digest } in &self.tables {
            writeln!(f, "{projection} version {version}: {rows} rows, {digest}")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "FINDING: {finding}"))?;
        match self.findings_total {
            0 => writeln!(f, "all is well"),
            n => writeln!(f, "{n} findings"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_leaves_room_for_mail() {
        let room = |low: bool| Room { free_bytes: 300, reserve_bytes: 200, low, short: false };
        assert!(enough(Path::new("d/verify-scratch"), room(false)).is_ok());
        let said = enough(Path::new("d/verify-scratch"), room(true)).unwrap_err().to_string();
        assert_eq!(said, "d/verify-scratch: the disk has too little room to compare the rows with the log");
    }
}
