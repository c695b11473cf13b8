//! Making a damaged ledger whole again: of what can still be read in it, and of a backup, as far as the hash chain holds it
//! together. What was there is kept beside.

use std::iter::Peekable;
use std::path::{Path, PathBuf};

use postledger_events::Record;
use postledger_events::event::Event;
use postledger_events::fact::ledger::LedgerCreated;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{Author, SecretId, Seq, Sha256};

use super::assemble::{self, Assembly};
use super::chain::{Chain, Damage};
use super::import::{self, Found, Item, Parts};
use super::lock::Lock;
use super::open;
use super::salvage::{Damaged, Records};
use super::store::{self, Head};
use super::verify::{bodies_of, verify};
use super::{BranchWish, Options, Secrets, vault};
use crate::clock::Clock;

/// Records after which progress is shown.
const STEP_RECORDS: u64 = 10_000;

/// What may be used.
pub struct Sources<'a> {
    /// A backup's directory, or an export.
    pub backup: Option<&'a Path>,
    /// A copy of the vault, should the one in the ledger be unreadable.
    pub secrets: Option<&'a Secrets>,
    /// Go on without what nobody has any more.
    pub accept_loss: bool,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Log, contents and secrets are whole; nothing was changed.
    Whole,
    /// A repair had come to its end before, but for its place.
    Installed,
    /// Something would be lost; nothing was changed.
    WouldLose(Report),
    Repaired(Report, Option<PathBuf>),
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The last record of the repaired ledger, before the one that begins its new branch.
    pub end: Seq,
    pub records: u64,
    /// Records and contents that only the backup has whole.
    pub records_from_backup: u64,
    pub contents_from_backup: u64,
    /// The vault is the copy, or has secrets of it.
    pub secrets_from_copy: bool,
    /// Secrets that the ledger needs and that nobody has.
    pub missing_secrets: Vec<String>,
    /// The engine opens only without some batches of its journals.
    pub batches_cut_out: bool,
    /// Nothing says how far the log went: its watermark cannot be read.
    pub end_unknown: bool,
    /// The last record that is known to have been written.
    pub known: Seq,
    /// Records behind the end that were read, and that nothing holds together with those before.
    pub records_set_aside: u64,
    /// Why it ends where it ends.
    pub cut: Option<String>,
    /// Contents that messages have, and that nobody has whole.
    pub lost_contents: u64,
}

impl Report {
    pub fn is_loss(&self) -> bool {
        let misses = self.lost_contents > 0 || !self.missing_secrets.is_empty();
        self.end < self.known || self.records_set_aside > 0 || misses || self.end_unknown
    }

    fn is_whole(&self) -> bool {
        let from_elsewhere = self.records_from_backup > 0 || self.contents_from_backup > 0 || self.secrets_from_copy;
        !self.is_loss() && !from_elsewhere && !self.batches_cut_out
    }
}

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: there is no ledger here", .0.display())]
    NoLedger(PathBuf),
    #[error("not even record 1 can be read{}, and no backup has it: there is nothing to repair from", because(.0.as_deref()))]
    Nothing(Option<String>),
    #[error("{0}. Start the newer program")]
    Newer(Damage),
    #[error(
        "the vault cannot be read: {0}. Name a copy of it with --vault FILE; without one no ledger can be repaired"
    )]
    NoVault(String),
    #[error("the backup is of another ledger. Name a backup of this one, or none")]
    OtherLedger,
    #[error(
        "the backup is of another branch of this ledger: record {0} here is as it was written, and the backup has something else in \
         its place. Name a backup of this branch, or none"
    )]
    OtherBranch(Seq),
    #[error("what was put together is not whole, so all was left as it was: {0}")]
    StillDamaged(String),
    #[error("the backup: {0}")]
    Part(#[from] import::Error),
    #[error("{0}")]
    Secrets(#[from] vault::FileError),
    #[error("{0}")]
    Open(#[from] open::Error),
    #[error("{0}")]
    Store(#[from] store::Error),
}

fn because(why: Option<&str>) -> String {
    why.map(|why| format!(" ({why})")).unwrap_or_default()
}

/// Repairs the ledger in `options.dir`, which nobody else may have open. Blocks.
pub fn repair(
    options: &Options,
    sources: &Sources<'_>,
    by: Author,
    clock: Clock,
    progress: &mut dyn FnMut(Seq),
) -> Result<Outcome, Error> {
    let home = &options.dir;
    if assemble::is_waiting(home)? {
        let _lock = Lock::take(home)?;
        assemble::install(home)?;
        return Ok(Outcome::Installed);
    }
    if !home.join("ledger").exists() {
        return Err(Error::NoLedger(home.clone()));
    }
    let assembly = Assembly::create(home, options)?;
    let damaged = Damaged::open(options, assembly.lock())?;
    let backup = sources.backup.map(Parts::open).transpose()?;
    let mut merge = Merge::new(assembly, &damaged, backup)?;
    let merged = merge.run(progress).and_then(|()| merge.secrets(sources.secrets));
    let Merge { assembly, mut report, .. } = merge;
    damaged.close()?;
    let (secrets, taken) = match merged {
        Ok(merged) => merged,
        Err(e) => {
            assembly.discard()?;
            return Err(e);
        }
    };
    let assembled = assembly.finish(&secrets.pepper, &secrets.secrets)?;
    let reason = sources.backup.map_or("repaired, accepting the loss", |_| "repaired from a backup").to_owned();
    let wish = BranchWish { known: report.known, reason, by };
    let completed = assembled.complete(options, wish, clock)?;
    (report.lost_contents, report.missing_secrets) = (completed.lost_contents, completed.missing_secrets);
    report.secrets_from_copy |= taken.iter().any(|id| completed.secrets.contains(id));
    if report.is_whole() {
        assembled.discard()?;
        return Ok(Outcome::Whole);
    }
    if report.is_loss() && !sources.accept_loss {
        assembled.discard()?;
        return Ok(Outcome::WouldLose(report));
    }
    let options = Options { dir: assembled.dir().to_owned(), ..options.clone() };
    let verified = verify(&options, false, &mut |seq, _| progress(seq))?;
    if !verified.is_clean() {
        assembled.discard()?;
        let findings: Vec<_> = verified.findings.into_iter().map(|finding| finding.text).collect();
        return Err(Error::StillDamaged(findings.join("; ")));
    }
    let replaced = assembled.install()?;
    Ok(Outcome::Repaired(report, replaced))
}

/// Puts together what the chain holds together.
struct Merge<'a> {
    assembly: Assembly,
    damaged: &'a Damaged,
    lines: Peekable<Records>,
    backup: Option<Backup>,
    chain: Chain,
    /// The last record, if only the damaged ledger has it: whether it is what was written shows when the next one names its
    /// hash.
    unconfirmed: Option<(Chain, Box<Found>)>,
    created: Option<LedgerCreated>,
    report: Report,
}

/// A backup of which the next record is known.
struct Backup {
    parts: Parts,
    next: Option<Box<Found>>,
}

impl Backup {
    /// Drops records before `seq`, with their contents.
    fn skip_to(&mut self, seq: Seq) -> Result<(), import::Error> {
        while self.next.as_ref().is_some_and(|found| found.head.seq < seq) {
            self.take(|_, _, _| Ok::<_, import::Error>(()))?;
        }
        Ok(())
    }

    /// Gives all parts of its contents, and goes on to the next record.
    fn take<E: From<import::Error>>(
        &mut self,
        mut chunk: impl FnMut(&BodyRef, u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        loop {
            match self.parts.next()? {
                Some(Item::Chunk { body, offset, data }) => chunk(&body, offset, &data)?,
                Some(Item::Record(found)) => {
                    self.next = Some(found);
                    return Ok(());
                }
                None => {
                    self.next = None;
                    return Ok(());
                }
            }
        }
    }
}

/// Where the next record is from.
enum Origin {
    Ledger(Box<Found>),
    Backup,
    Nowhere,
}

impl<'a> Merge<'a> {
    fn new(assembly: Assembly, damaged: &'a Damaged, parts: Option<Parts>) -> Result<Merge<'a>, Error> {
        let mut backup = parts.map(|parts| Backup { parts, next: None });
        if let Some(backup) = &mut backup {
            backup.take(|_, _, _| Ok::<_, import::Error>(()))?;
        }
        let report = Report {
            known: damaged.known(),
            batches_cut_out: damaged.batches_cut_out,
            end_unknown: damaged.mark.is_none(),
            ..Report::default()
        };
        Ok(Merge {
            assembly,
            lines: damaged.lines().peekable(),
            damaged,
            backup,
            chain: Chain::from(Seq::FIRST),
            unconfirmed: None,
            created: None,
            report,
        })
    }

    fn run(&mut self, progress: &mut dyn FnMut(Seq)) -> Result<(), Error> {
        loop {
            match self.choose()? {
                Origin::Ledger(found) => {
                    self.confirm()?;
                    let before = self.chain;
                    self.chain = Chain::after(found.head);
                    self.lines.next();
                    self.unconfirmed = Some((before, found));
                }
                Origin::Backup => {
                    self.confirm()?;
                    self.take_from_backup()?;
                }
                Origin::Nowhere => break,
            }
            let seq = self.chain.end().unwrap_or(Head::NONE).seq;
            if seq.0.is_multiple_of(STEP_RECORDS) {
                progress(seq);
            }
        }
        self.cut()
    }

    /// The backup was checked as a whole, so it goes first, unless the ledger branched off from it.
    fn choose(&mut self) -> Result<Origin, Error> {
        let next = self.chain.next();
        while self.lines.peek().is_some_and(|(seq, _)| *seq < next) {
            self.lines.next();
        }
        let own = match self.lines.peek() {
            Some((seq, line)) => fits(self.chain, *seq, line)?,
            None => None,
        };
        if own.as_ref().is_some_and(|found| matches!(found.event, Event::LedgerBranched(_))) {
            return Ok(own.map_or(Origin::Nowhere, Origin::Ledger));
        }
        if let Some(backup) = &mut self.backup {
            backup.skip_to(next)?;
            if let Some(found) = &backup.next
                && fits(self.chain, found.head.seq, &found.line)?.is_some()
            {
                self.check_same(next)?;
                return Ok(Origin::Backup);
            }
        }
        Ok(own.map_or(Origin::Nowhere, Origin::Ledger))
    }

    /// Where the ledger has another record than the backup has next, and what follows there, or the watermark, names its hash, it
    /// is no rot: the two went different ways.
    fn check_same(&mut self, next: Seq) -> Result<(), Error> {
        let Some(theirs) = self.backup.as_ref().and_then(|backup| backup.next.as_ref()) else { return Ok(()) };
        let (place, hash) = (theirs.head.seq, theirs.head.hash);
        let Some((seq, line)) = self.lines.next_if(|(seq, line)| *seq == next && Sha256::of(line) != hash) else {
            return self.leave_behind(place);
        };
        let own = Sha256::of(&line);
        let follows = |(_, line): &(Seq, Vec<u8>)| Record::decode(line).is_ok_and(|record| record.prev == own);
        let is_marked = self.damaged.mark.as_ref().is_some_and(|mark| mark.seq == seq && mark.hash == own);
        if is_marked || self.lines.peek().is_some_and(follows) {
            return Err(if seq == Seq::FIRST { Error::OtherLedger } else { Error::OtherBranch(seq) });
        }
        if seq < place {
            self.set_aside(seq, &line)?;
        }
        self.leave_behind(place)
    }

    /// What the ledger has in a gap of the backup's branch is lost with it.
    fn leave_behind(&mut self, place: Seq) -> Result<(), Error> {
        while let Some((seq, line)) = self.lines.next_if(|(seq, _)| *seq < place) {
            self.set_aside(seq, &line)?;
        }
        Ok(())
    }

    fn confirm(&mut self) -> Result<(), Error> {
        let Some((_, found)) = self.unconfirmed.take() else { return Ok(()) };
        for body in bodies_of(&found.event) {
            if let Some((bytes, file)) = self.damaged.content(&body) {
                self.assembly.content(&body, bytes, &file)?;
            }
        }
        self.keep(*found)
    }

    fn keep(&mut self, found: Found) -> Result<(), Error> {
        if let Event::LedgerCreated(created) = &found.event {
            self.created = Some(created.clone());
        }
        self.report.records += 1;
        self.report.end = found.head.seq;
        Ok(self.assembly.record(found.head, found.line)?)
    }

    fn take_from_backup(&mut self) -> Result<(), Error> {
        let Merge { backup: Some(backup), assembly, damaged, report, .. } = self else { return Ok(()) };
        let Some(found) = backup.next.take() else { return Ok(()) };
        let mut wanted = Vec::new();
        for body in bodies_of(&found.event) {
            match damaged.content(&body) {
                Some((bytes, file)) => assembly.content(&body, bytes, &file)?,
                None => wanted.push(body),
            }
        }
        backup.take(|body, offset, data| {
            if !wanted.contains(body) {
                return Ok(());
            }
            report.contents_from_backup += u64::from(offset == 0);
            assembly.chunk(body, offset, data).map_err(Error::from)
        })?;
        let is_here = self.lines.peek().is_some_and(|(seq, line)| *seq == found.head.seq && *line == found.line);
        self.report.records_from_backup += u64::from(!is_here);
        self.chain = Chain::after(found.head);
        self.keep(*found)
    }

    /// The end of what holds together. What can be read behind it is set aside.
    fn cut(&mut self) -> Result<(), Error> {
        if let Some((before, found)) = self.unconfirmed.take() {
            if self.is_changed(&found) {
                self.chain = before;
                self.report.cut = Some(format!("record {} is not what was written", found.head.seq));
                self.set_aside(found.head.seq, &found.line)?;
            } else {
                self.unconfirmed = Some((before, found));
                self.confirm()?;
            }
        }
        if self.report.records == 0 {
            return Err(Error::Nothing(self.damaged.why.clone()));
        }
        while let Some((seq, line)) = self.lines.next() {
            self.set_aside(seq, &line)?;
        }
        if self.report.end < self.report.known && self.report.cut.is_none() {
            self.report.cut = Some(format!("record {} cannot be read", self.chain.next()));
        }
        Ok(())
    }

    /// Whether the next record, or the watermark, names another hash than it has.
    fn is_changed(&mut self, found: &Found) -> bool {
        let mark = self.damaged.mark.as_ref().filter(|mark| mark.seq == found.head.seq);
        let is_next = self.lines.peek().is_some_and(|(seq, _)| *seq == found.head.seq.next());
        is_next || mark.is_some_and(|mark| mark.hash != found.head.hash)
    }

    fn set_aside(&mut self, seq: Seq, line: &[u8]) -> Result<(), Error> {
        self.report.known = self.report.known.max(seq);
        self.report.records_set_aside += 1;
        Ok(self.assembly.lost_record(line)?)
    }

    /// Also which of them only the copy has.
    fn secrets(&mut self, copy: Option<&Secrets>) -> Result<(Secrets, Vec<SecretId>), Error> {
        let created = self.created.as_ref().ok_or(Error::Nothing(None))?;
        let own = self.damaged.secrets(created);
        let Some(copy) = copy else { return own.map(|own| (own, Vec::new())).map_err(Error::NoVault) };
        copy.check(created)?;
        let Ok(mut secrets) = own else {
            self.report.secrets_from_copy = true;
            return Ok((copy.clone(), Vec::new()));
        };
        let taken = secrets.take_missing(copy);
        Ok((secrets, taken))
    }
}

/// The record as the next of the chain, if it is that.
fn fits(mut chain: Chain, seq: Seq, line: &[u8]) -> Result<Option<Box<Found>>, Error> {
    match chain.read(seq, line) {
        Ok((head, Record { event, .. })) => Ok(Some(Box::new(Found { head, line: line.to_vec(), event }))),
        Err(newer @ Damage::Newer { .. }) => Err(Error::Newer(newer)),
        Err(_) => Ok(None),
    }
}
