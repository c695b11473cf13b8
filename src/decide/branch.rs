//! Going on from a record behind which something was cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use postledger_events::command::{AbandonAttempt, AdvanceJob, Branch};
use postledger_events::fact::job::Work;
use postledger_events::fact::ledger::{LastNumbers, LedgerBranched};
use postledger_events::id::{
    AttemptId, COUNTER_BITS, DeliveryId, HoldRuleId, JobId, KeyId, MessageUuid, MsgId, Seq, SuppressionId, first_number,
};
use postledger_events::time::Timestamp;
use postledger_events::{Command, Refusal};
use postledger_projections::accounts::BRANCH_GAP;
use postledger_projections::deliveries::{Due, State};
use postledger_projections::{Error, Rows, access, accounts, deliveries, mailboxes, suppressions};

use super::{Decision, Moment, Policy, damaged, next_number};

/// What any branch leaves out of the log's places by its age alone.
const PLACES_MIN: u64 = 1 << 32;
/// More places than a ledger takes in a millisecond, over its whole life.
const PLACES_PER_MS: u64 = 64;
/// A branch begins with its place, divided by this, in all other numbers: they last for 34 years, and for 8 recipients each
/// millisecond.
const PLACES_PER_NUMBER: u64 = 8;
/// Deliveries that are looked at together.
const WINDOW: usize = 1_000;

pub fn branch(c: &Branch, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    let next_seq = beginning(c.known.max(c.from_seq), moment.now.since(c.created));
    let last = |last: u64| last_before(last, next_seq, policy.ledger_number);
    let counters = accounts::counters(rows).map_err(damaged)?;
    let numbers = LastNumbers {
        delivery: DeliveryId(last(deliveries::last_number(rows).map_err(damaged)?)?),
        msg_id: MsgId(last(mailboxes::last_number(rows).map_err(damaged)?)?),
        suppression: SuppressionId(last(suppressions::last_number(rows).map_err(damaged)?)?),
        hold_rule: HoldRuleId(last(counters.hold_rule)?),
        key: KeyId(last(access::last_number(rows).map_err(damaged)?)?),
    };
    let job = JobId(last(counters.job)?);
    let (from_seq, from_hash, reason, by) = (c.from_seq, c.from_hash, c.reason.clone(), c.by.clone());
    Ok(Decision::done(LedgerBranched { from_seq, from_hash, next_seq, numbers, job, reason, by }))
}

/// The first place of a branch that begins `age` after the ledger did, where all up to `known` are known to be taken. All branches of
/// a ledger, from whatever record, and those that nobody knows of any more, too, follow one line of time: what begins later begins
/// behind all that those before it have taken.
fn beginning(known: Seq, age: Duration) -> Seq {
    let ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    Seq(ms.saturating_mul(PLACES_PER_MS).saturating_add(PLACES_MIN).max(known.0.saturating_add(BRANCH_GAP)))
}

/// The number before the first that the branch gives out, where `last` is the last that was given out here.
fn last_before(last: u64, next_seq: Seq, ledger: u16) -> Result<u64, Refusal> {
    let first = first_number(ledger);
    let (given, line) = (next_number(last, ledger) - first, next_seq.0 / PLACES_PER_NUMBER);
    let begin = if given < line { line } else { given.saturating_add(BRANCH_GAP) };
    let left = (1 << COUNTER_BITS) - PLACES_MIN;
    if begin < left {
        Ok(first - 1 + begin)
    } else {
        Err(Refusal::Invalid("this ledger has no numbers left".to_owned()))
    }
}

/// What puts everything on hold that was open at the cut, so that it is seen as such before anything runs on the new branch: its
/// attempts are given up, and the job that came with the branch is to be advanced to its end.
pub fn hold_open(rows: &dyn Rows) -> Result<Vec<Command>, Error> {
    let abandon = |(attempt, (message, deliveries))| {
        Command::AbandonAttempt(AbandonAttempt { attempt, message, deliveries, jitter_s: 0 })
    };
    let jobs = accounts::jobs(rows)?.into_iter().filter(|job| matches!(job.work, Work::HoldRestored(_)));
    let advance = jobs.map(|job| Command::AdvanceJob(AdvanceJob { job: job.job }));
    Ok(running(rows)?.into_iter().map(abandon).chain(advance).collect())
}

fn running(rows: &dyn Rows) -> Result<BTreeMap<AttemptId, (MessageUuid, Vec<DeliveryId>)>, Error> {
    let (mut from, mut running) = (Due::FIRST, BTreeMap::new());
    loop {
        let window = deliveries::due(rows, from, Timestamp::MAX, WINDOW)?;
        for due in &window {
            let Some(row) = deliveries::delivery(rows, due.id)? else { continue };
            if let State::Running(attempt, _) = row.state {
                running.entry(attempt).or_insert((row.message, Vec::new())).1.push(row.id);
            }
        }
        match window.last() {
            Some(last) if window.len() == WINDOW => from = Due { at: last.at, id: DeliveryId(last.id.0 + 1) },
            Some(_) | None => return Ok(running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_share_no_numbers() {
        let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
        let begin = |known: u64, age: Duration| beginning(Seq(known), age).0;
        // A trial of a restore to record 10 that takes a thousand records each second, and then one to record 30; or the other
        // way round.
        let (taken, later) = (60 * 1000, hour + minute);
        assert!(begin(10, hour) + taken < begin(30, later));
        assert!(begin(30, hour) + taken < begin(10, later));
        // A branch of the trial, and one of the original on the next day.
        let nested = begin(begin(10, hour) + taken, later);
        assert!(nested + taken < begin(30, hour * 24));
        // At one and the same moment, or when the clock went back.
        assert_eq!(begin(nested, minute), nested + BRANCH_GAP);
        assert!(begin(0, Duration::ZERO) >= PLACES_MIN);
    }

    #[test]
    fn numbers_last_for_decades() {
        let age = |years: u64| beginning(Seq(1_000_000), Duration::from_secs(years * 365 * 24 * 3600));
        assert!(last_before(1_000_000, age(30), 0).is_ok());
        assert!(last_before(1_000_000, age(40), 0).is_err());
        let (next, first) = (age(0), 3 << COUNTER_BITS);
        assert_eq!(last_before(0, next, 3), Ok(first + PLACES_MIN / PLACES_PER_NUMBER));
        assert_eq!(
            last_before(first + PLACES_MIN, next, 3),
            Ok(first + PLACES_MIN + BRANCH_GAP),
            "a ledger that was faster"
        );
    }
}
