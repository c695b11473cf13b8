//! Forgetting what was kept long enough.

use std::collections::BTreeMap;

use postledger_events::command::Expire;
use postledger_events::fact::expiry::{Expired, ExpiredBody, ExpiredDelivery, ExpiredKey};
use postledger_events::id::MessageUuid;
use postledger_events::{Answer, Refusal};
use postledger_projections::{Error, Rows, deliveries, usage};

use super::{Decision, Moment, damaged};

/// Deliveries, and answers, that one command forgets.
const ROWS_MAX: usize = 300;

pub fn expire(c: &Expire, rows: &dyn Rows, moment: Moment) -> Result<Decision, Refusal> {
    let mut decision = Decision::new(Answer::More(false));
    let mut expired = Expired::default();
    let more_deliveries = deliveries_over(c, rows, moment, &mut expired, &mut decision).map_err(damaged)?;
    let keys = usage::expiring_answers(rows, c.from, moment.now, ROWS_MAX).map_err(damaged)?;
    expired.idempotency_keys = keys.iter().map(|(until, key)| ExpiredKey { key: *key, until: *until }).collect();
    decision.answer = Answer::More(more_deliveries || keys.len() == ROWS_MAX);
    if expired != Expired::default() {
        decision.events.push(expired.into());
    }
    Ok(decision)
}

/// Whether there may be more.
fn deliveries_over(
    c: &Expire,
    rows: &dyn Rows,
    moment: Moment,
    expired: &mut Expired,
    decision: &mut Decision,
) -> Result<bool, Error> {
    let due = deliveries::expiring(rows, c.from, moment.now, ROWS_MAX)?;
    let mut by_message: BTreeMap<MessageUuid, u32> = BTreeMap::new();
    for (keep_until, id) in &due {
        let Some(row) = deliveries::delivery(rows, *id)? else { continue };
        *by_message.entry(row.message).or_default() += 1;
        expired.deliveries.push(ExpiredDelivery {
            id: *id,
            account: row.account,
            fromid: row.fromid,
            keep_until: *keep_until,
            message: row.message,
        });
    }
    for (id, count) in by_message {
        let Some(message) = deliveries::message(rows, id)?.filter(|m| m.remaining <= count) else { continue };
        expired.bodies.push(ExpiredBody { message: id, size: message.body.size, row: true });
        if message.contents {
            decision.forget_bodies.push(message.body);
        }
    }
    Ok(due.len() == ROWS_MAX)
}
