//! Going on from a record behind which something was cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use postledger_events::command::{AbandonAttempt, AdvanceJob, Branch};
use postledger_events::fact::job::Work;
use postledger_events::fact::ledger::{LastNumbers, LedgerBranched};
use postledger_events::id::{
    AttemptId, COUNTER_BITS, DeliveryId, HoldRuleId, JobId, KeyId, MessageUuid, MsgId, Seq, SuppressionId,
};
use postledger_events::time::Timestamp;
use postledger_events::{Command, Refusal};
use postledger_projections::deliveries::{Due, State};
use postledger_projections::{Error, Rows, access, accounts, deliveries, mailboxes, suppressions};

use super::{Decision, Moment, Policy, damaged, next_number};

/// What a branch leaves out in any case: 4 billion, of the 8,796 billion numbers that there are.
const SKIP: u64 = 1 << 32;
/// More numbers than any branch gives out in a millisecond, over any length of time that takes more than [`SKIP`] of them.
const NUMBERS_PER_MS: u64 = 16;
/// Deliveries that are looked at together.
const WINDOW: usize = 1_000;

pub fn branch(c: &Branch, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    let known = c.known.max(c.from_seq).0 - c.from_seq.0;
    let skip = left_out(known, moment.now.since(c.from_at));
    let last = |last: u64| skipped(last, skip, policy.ledger_number);
    let counters = accounts::counters(rows).map_err(damaged)?;
    let numbers = LastNumbers {
        delivery: DeliveryId(last(deliveries::last_number(rows).map_err(damaged)?)?),
        msg_id: MsgId(last(mailboxes::last_number(rows).map_err(damaged)?)?),
        suppression: SuppressionId(last(suppressions::last_number(rows).map_err(damaged)?)?),
        hold_rule: HoldRuleId(last(counters.hold_rule)?),
        key: KeyId(last(access::last_number(rows).map_err(damaged)?)?),
    };
    let job = JobId(last(counters.job)?);
    let next_seq = Seq(c.from_seq.0.saturating_add(skip));
    let (from_seq, from_hash, reason, by) = (c.from_seq, c.from_hash, c.reason.clone(), c.by.clone());
    Ok(Decision::done(LedgerBranched { from_seq, from_hash, next_seq, numbers, job, reason, by }))
}

/// How far places and numbers jump, so that all of the branches that were made from a record meet with none of each other's: those
/// that nobody knows of any more, too. What was cut off is `known` places longer; where it branched itself its numbers jumped as
/// far as its places. All that any branch gave out by itself it did in the time `since` the record, and those that were made
/// later begin where those before cannot have come to.
fn left_out(known: u64, since: Duration) -> u64 {
    let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    known.saturating_add(SKIP).saturating_add(ms.saturating_mul(NUMBERS_PER_MS))
}

/// `skip` numbers after the last one that was given out here.
fn skipped(last: u64, skip: u64, ledger: u16) -> Result<u64, Refusal> {
    let skipped = (next_number(last, ledger) - 1).saturating_add(skip);
    let end = (u64::from(ledger) + 1) << COUNTER_BITS;
    if skipped < end - SKIP { Ok(skipped) } else { Err(Refusal::Invalid("this ledger has no numbers left".to_owned())) }
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
    fn branches_of_one_record_share_no_numbers() {
        let (hour, minute) = (Duration::from_secs(3600), Duration::from_secs(60));
        // A trial of a restore that takes a thousand recipients each second, and the restore itself, from the same backup.
        let (trial, restore) = (left_out(7, hour), left_out(7, hour + minute));
        assert!(trial + 60 * 1000 < restore);
        assert!(left_out(0, Duration::from_nanos(1)) >= SKIP);
        // Ten records of a thousand recipients, a branch that knew of three more, and ten such records again.
        let jump = left_out(3, hour);
        assert!(left_out(10 + jump + 10, hour + minute) > 20 * 1000 + jump);
    }

    #[test]
    fn numbers_last_for_many_branches() {
        let week = Duration::from_secs(7 * 24 * 3600);
        let beginning = (0..100).fold(0, |known, _| left_out(known, week));
        assert!(beginning < 1 << COUNTER_BITS, "a ledger can be restored a hundred times to what it was a week ago");
    }
}
