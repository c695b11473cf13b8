//! Going on from a record behind which something was cut off.

use std::collections::BTreeMap;

use postledger_events::command::{AbandonAttempt, AdvanceJob, Branch};
use postledger_events::fact::job::Work;
use postledger_events::fact::ledger::{LastNumbers, LedgerBranched};
use postledger_events::id::{
    AttemptId, COUNTER_BITS, DeliveryId, HoldRuleId, JobId, KeyId, MessageUuid, MsgId, Seq, SuppressionId,
};
use postledger_events::refusal::RECIPIENTS_MAX;
use postledger_events::time::Timestamp;
use postledger_events::{Command, Refusal};
use postledger_projections::deliveries::{Due, State};
use postledger_projections::{Error, Rows, access, accounts, deliveries, mailboxes, suppressions};

use super::{Decision, Policy, damaged, next_number};

/// More than another branch can have given out that nobody knows of: 4 billion, of the 8,796 billion that there are.
const SKIP: u64 = 1 << 32;
/// Deliveries that are looked at together.
const WINDOW: usize = 1_000;

pub fn branch(c: &Branch, rows: &dyn Rows, policy: &Policy) -> Result<Decision, Refusal> {
    let known = c.known.max(c.from_seq).0 - c.from_seq.0;
    let skip = given_out(known).saturating_add(SKIP);
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
    let next_seq = Seq(c.from_seq.0 + known + SKIP);
    let (from_seq, from_hash, reason, by) = (c.from_seq, c.from_hash, c.reason.clone(), c.by.clone());
    Ok(Decision::done(LedgerBranched { from_seq, from_hash, next_seq, numbers, job, reason, by }))
}

/// The most numbers that a branch has given out which is `known` places longer. A record gives out one for each recipient. What
/// is cut off may have branched itself: its gaps are no records, and where its places jumped, so did its numbers.
fn given_out(known: u64) -> u64 {
    let (jumped, records) = (known / SKIP * SKIP, known % SKIP);
    records * RECIPIENTS_MAX as u64 + jumped
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
    fn cut_off_branches_cost_no_more_numbers_than_they_gave_out() {
        assert_eq!(given_out(0), 0);
        assert_eq!(given_out(7), 7 * RECIPIENTS_MAX as u64);
        // Ten records, a branch that knew of three, ten records.
        let (places, numbers) = (10 + (3 + SKIP) + 10, 20 * 1000 + given_out(3) + SKIP);
        assert!(given_out(places) >= numbers);
        assert!(given_out(100 * SKIP) < 1 << COUNTER_BITS, "a ledger can be restored a hundred times to its beginning");
    }
}
