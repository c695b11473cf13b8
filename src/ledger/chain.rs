//! Whether the log is whole: no gap, every record naming the hash of the one before, and no shorter than its watermark.

use postledger_events::Record;
use postledger_events::event::Event;
use postledger_events::id::{Seq, Sha256};
use postledger_events::record;

use super::snapshot::Snapshot;
use super::store::Head;
use super::watermark::Mark;

/// What is wrong with a log, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("the log ends at record {end}, but record {watermark} had been written and synced")]
    EndsEarly { end: Seq, watermark: Seq },
    #[error("the log has no record {missing}; the next one is {found}")]
    Gap { missing: Seq, found: Seq },
    #[error("record {seq} cannot be read: {why}")]
    Unreadable { seq: Seq, why: String },
    #[error("record {seq} is of kind {kind} version {version}, which only a newer program knows")]
    Newer { seq: Seq, kind: String, version: u32 },
    #[error("record {seq} is stored in the place of record {place}")]
    Misplaced { place: Seq, seq: Seq },
    #[error("the chain breaks at record {seq}: it names {named} as the hash of record {}, which is {found}", seq.0 - 1)]
    Broken { seq: Seq, named: Sha256, found: Sha256 },
    #[error("record {seq} is not what was written: its hash is {found} instead of {written}")]
    Changed { seq: Seq, written: Sha256, found: Sha256 },
    #[error("the time of record {seq} is before that of the record before it")]
    TimeGoesBack { seq: Seq },
    #[error("rows are at record {rows}, the log at record {log}")]
    RowsApart { rows: Seq, log: Seq },
}

/// Follows the chain record by record.
#[derive(Clone, Copy)]
pub(super) struct Chain {
    last: Option<Head>,
    next: Seq,
}

impl Chain {
    /// Begins at `first`, of which nothing is known before.
    pub(super) fn from(first: Seq) -> Chain {
        Chain { last: None, next: first }
    }

    /// Goes on behind a record that was checked before.
    pub(super) fn after(head: Head) -> Chain {
        Chain { last: (head.seq > Seq(0)).then_some(head), next: head.seq.next() }
    }

    /// The record that must come next.
    pub(super) fn next(&self) -> Seq {
        self.next
    }

    /// The end of what was seen.
    pub(super) fn end(&self) -> Option<Head> {
        self.last
    }

    /// Goes on behind a record that does not fit.
    pub(super) fn skip(&mut self, place: Seq) {
        self.last = None;
        self.next = place.next();
    }

    /// Reads the record in this place, which must be the next.
    pub(super) fn read(&mut self, place: Seq, line: &[u8]) -> Result<(Head, Record), Damage> {
        let record = decode(place, line)?;
        let head = self.step(place, &record, line)?;
        Ok((head, record))
    }

    /// Goes on to a record that was read from this line.
    pub(super) fn step(&mut self, place: Seq, record: &Record, line: &[u8]) -> Result<Head, Damage> {
        if place != self.next && !self.is_branch(place, &record.event) {
            return Err(Damage::Gap { missing: self.next, found: place });
        }
        if record.seq != place {
            return Err(Damage::Misplaced { place, seq: record.seq });
        }
        if place == Seq::FIRST && record.prev != Sha256::ZERO {
            return Err(Damage::Broken { seq: place, named: record.prev, found: Sha256::ZERO });
        }
        if let Some(last) = self.last {
            if record.prev != last.hash {
                return Err(Damage::Broken { seq: place, named: record.prev, found: last.hash });
            }
            if record.at < last.at && !matches!(record.event, Event::ClockStepped(_)) {
                return Err(Damage::TimeGoesBack { seq: place });
            }
        }
        let head = Head { seq: place, hash: Sha256::of(line), at: record.at };
        self.last = Some(head);
        self.next = place.next();
        Ok(head)
    }

    /// Only the record that names a gap may follow it.
    fn is_branch(&self, place: Seq, event: &Event) -> bool {
        let Event::LedgerBranched(e) = event else { return false };
        let follows = self.last.is_none_or(|last| last.hash == e.from_hash);
        follows && e.from_seq.next() == self.next && e.next_seq == place && place > self.next
    }
}

/// The record in this place.
pub(super) fn decode(place: Seq, line: &[u8]) -> Result<Record, Damage> {
    Record::decode(line).map_err(|e| match e {
        record::Error::UnknownKind { kind, version, .. } => Damage::Newer { seq: place, kind, version },
        record::Error::Damaged { why, .. } => Damage::Unreadable { seq: place, why },
    })
}

/// Fewer records than this are read by one thread.
const PART_RECORDS_MIN: u64 = 20_000;

/// Reads the log from the last record that was verified, and returns its end. Each processor reads a part of a long tail.
pub(super) fn check_tail(snapshot: &Snapshot, mark: &Mark) -> Result<Head, Damage> {
    let first = snapshot.first().max(mark.verified);
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let waiting = snapshot.position().0.saturating_sub(first.0);
    check_parts(snapshot, mark, &starts(snapshot, first, threads.min(waiting / PART_RECORDS_MIN)))
}

fn check_parts(snapshot: &Snapshot, mark: &Mark, starts: &[Seq]) -> Result<Head, Damage> {
    // Each ends with the record that the next one begins with, so that the chain goes on from one to the other.
    let ends = starts.iter().skip(1).copied().chain([Seq(u64::MAX)]);
    let parts = starts.iter().copied().zip(ends);
    let ends = std::thread::scope(|scope| {
        let check = |(first, last)| scope.spawn(move || check_part(snapshot, first, last, mark));
        let threads: Vec<_> = parts.map(check).collect();
        // What is wrong first is told.
        threads.into_iter().map(|thread| thread.join().expect("checking does not panic")).collect::<Result<Vec<_>, _>>()
    })?;
    let end = ends.into_iter().flatten().last().unwrap_or(Head::NONE);
    if end.seq < mark.seq {
        return Err(Damage::EndsEarly { end: end.seq, watermark: mark.seq });
    }
    Ok(end)
}

/// The first records of so many parts of the log from `first` on; there may be fewer.
fn starts(snapshot: &Snapshot, first: Seq, parts: u64) -> Vec<Seq> {
    let waiting = snapshot.position().0.saturating_sub(first.0);
    let mut starts = vec![first];
    for part in 1..parts {
        let near = Seq(first.0 + waiting / parts * part);
        // The number itself may not have been given out where a branch begins. What cannot be read, its part tells of.
        if let Some(Ok((seq, _))) = snapshot.records(near..=Seq(u64::MAX)).next()
            && starts.last().is_none_or(|last| seq > *last)
        {
            starts.push(seq);
        }
    }
    starts
}

/// From `first`, which must be there, to `last`.
fn check_part(snapshot: &Snapshot, first: Seq, last: Seq, mark: &Mark) -> Result<Option<Head>, Damage> {
    let mut chain = Chain::from(first);
    for line in snapshot.records(first..=last) {
        let (seq, line) = line.map_err(|e| Damage::Unreadable { seq: chain.next(), why: e.to_string() })?;
        let (head, _) = chain.read(seq, &line)?;
        if seq == mark.seq && head.hash != mark.hash {
            return Err(Damage::Changed { seq, written: mark.hash, found: head.hash });
        }
    }
    Ok(chain.end())
}

#[cfg(test)]
mod tests {
    use postledger_events::fact::job::HoldRuleRemoved;
    use postledger_events::fact::ledger::{LastNumbers, LedgerBranched};
    use postledger_events::id::{Author, HoldRuleId, JobId};
    use postledger_events::time::Timestamp;

    use super::super::tests::{account, closed, open, run};
    use super::*;

    fn head(seq: u64) -> Head {
        Head { seq: Seq(seq), hash: Sha256::of(b"the record before"), at: Timestamp::EPOCH }
    }

    fn branched(from: Head, next_seq: u64) -> Event {
        let numbers = LastNumbers::NONE;
        let (reason, by) = ("restored".to_owned(), Author::program());
        let (from_seq, from_hash, next_seq, job) = (from.seq, from.hash, Seq(next_seq), JobId(1));
        LedgerBranched { from_seq, from_hash, next_seq, numbers, job, reason, by }.into()
    }

    fn mark() -> Mark {
        Mark { count: 1, seq: Seq(41), hash: Sha256::ZERO, verified: Seq(0), clean: true, aside: None, round: None }
    }

    #[test]
    fn in_parts_it_finds_the_same() {
        let damages: [fn(&fjall::Keyspace); 4] = [
            |_| {},
            |log| log.remove(20u64.to_be_bytes()).unwrap(),
            |log| log.insert(23u64.to_be_bytes(), log.get(22u64.to_be_bytes()).unwrap().unwrap()).unwrap(),
            |log| (21..=41u64).for_each(|seq| log.remove(seq.to_be_bytes()).unwrap()),
        ];
        for (damage, found) in damages.into_iter().zip([true, false, false, false]) {
            let dir = closed();
            let ledger = open(dir.path());
            let mark = Mark { hash: ledger.snapshot().0.head.hash, ..mark() };
            damage(&ledger.snapshot().0.view.segments[0].keyspace);
            run(ledger.submit(account("one-more", true))).unwrap();
            let snapshot = ledger.snapshot();
            let at_once = check_parts(&snapshot, &mark, &[Seq::FIRST]);
            assert_eq!(at_once.is_ok(), found, "{at_once:?}");
            for parts in 2..9 {
                let starts = starts(&snapshot, Seq::FIRST, parts);
                assert_eq!(check_parts(&snapshot, &mark, &starts), at_once, "{starts:?}");
            }
        }
    }

    #[test]
    fn only_a_gap_that_a_branch_names_is_allowed() {
        let check = |event: Event, place: u64, allowed: bool| {
            let record = postledger_events::Record { seq: Seq(place), at: Timestamp::EPOCH, prev: head(7).hash, event };
            let stepped = Chain::after(head(7)).read(record.seq, &record.to_line()).map(|(head, _)| head.seq);
            let gap = Damage::Gap { missing: Seq(8), found: Seq(place) };
            assert_eq!(stepped, if allowed { Ok(Seq(place)) } else { Err(gap) }, "{record:?}");
        };
        let other = || HoldRuleRemoved { rule: HoldRuleId(1), by: Author::program() }.into();
        check(other(), 8, true);
        check(other(), 9, false);
        check(branched(head(7), 1000), 1000, true);
        check(branched(head(7), 1000), 1001, false);
        check(branched(head(6), 1000), 1000, false);
        check(branched(Head { hash: Sha256::ZERO, ..head(7) }, 1000), 1000, false);
    }
}
