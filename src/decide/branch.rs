//! Going on from a record behind which something was cut off.

use postledger_events::Refusal;
use postledger_events::command::Branch;
use postledger_events::fact::ledger::{LastNumbers, LedgerBranched};
use postledger_events::id::{COUNTER_BITS, DeliveryId, HoldRuleId, JobId, MsgId, Seq, SuppressionId};
use postledger_events::refusal::RECIPIENTS_MAX;
use postledger_projections::{Rows, accounts, deliveries, mailboxes, suppressions};

use super::{Decision, Policy, damaged, next_number};

/// More than another branch can have given out that nobody knows of: 4 billion, of the 8,796 billion that there are.
const SKIP: u64 = 1 << 32;

pub fn branch(c: &Branch, rows: &dyn Rows, policy: &Policy) -> Result<Decision, Refusal> {
    let known = c.known.max(c.from_seq).0 - c.from_seq.0;
    // A record gives out a number for each recipient.
    let skip = known.saturating_mul(RECIPIENTS_MAX as u64).saturating_add(SKIP);
    let last = |last: u64| skipped(last, skip, policy.ledger_number);
    let counters = accounts::counters(rows).map_err(damaged)?;
    let numbers = LastNumbers {
        delivery: DeliveryId(last(deliveries::last_number(rows).map_err(damaged)?)?),
        msg_id: MsgId(last(mailboxes::last_number(rows).map_err(damaged)?)?),
        suppression: SuppressionId(last(suppressions::last_number(rows).map_err(damaged)?)?),
        hold_rule: HoldRuleId(last(counters.hold_rule)?),
    };
    let job = JobId(last(counters.job)?);
    let next_seq = Seq(c.from_seq.0 + known + SKIP);
    let (from_seq, from_hash, reason, by) = (c.from_seq, c.from_hash, c.reason.clone(), c.by.clone());
    Ok(Decision::done(LedgerBranched { from_seq, from_hash, next_seq, numbers, job, reason, by }))
}

/// `skip` numbers after the last one that was given out here.
fn skipped(last: u64, skip: u64, ledger: u16) -> Result<u64, Refusal> {
    let skipped = (next_number(last, ledger) - 1).saturating_add(skip);
    let end = (u64::from(ledger) + 1) << COUNTER_BITS;
    if skipped < end - SKIP { Ok(skipped) } else { Err(Refusal::Invalid("this ledger has no numbers left".to_owned())) }
}
