//! Forgetting what was kept long enough.

use std::collections::BTreeMap;
use std::time::Duration;

use postledger_events::command::Expire;
use postledger_events::fact::call::{CallRef, CallsCanceled, Canceling};
use postledger_events::fact::expiry::{Expired, ExpiredBody, ExpiredCalls, ExpiredDelivery, ExpiredKey};
use postledger_events::id::{Author, MessageUuid};
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Refusal};
use postledger_projections::calls::{self, Due, EndpointRow, Expiring};
use postledger_projections::{Error, Rows, deliveries, usage};

use super::{Decision, Moment, call, damaged};

/// Deliveries, and answers, that one command forgets.
const ROWS_MAX: usize = 300;
/// Records whose ended calls one command forgets, if they are not too many.
const ENDINGS_MAX: usize = 100;
/// For how long at least the calls of a disabled endpoint wait: a week, also where ended calls are not kept at all.
const WAIT_MIN_S: u64 = 7 * 24 * 3600;

pub fn expire(c: &Expire, rows: &dyn Rows, moment: Moment) -> Result<Decision, Refusal> {
    let mut decision = Decision::new(Answer::More(false));
    let mut expired = Expired::default();
    let more_deliveries = deliveries_over(c, rows, moment, &mut expired, &mut decision).map_err(damaged)?;
    let keys = usage::expiring_answers(rows, c.from, moment.now, ROWS_MAX).map_err(damaged)?;
    expired.idempotency_keys = keys.iter().map(|(until, key)| ExpiredKey { key: *key, until: *until }).collect();
    let more_calls = calls_over(c, rows, moment, &mut expired).map_err(damaged)?;
    let more_waiting = kept_too_long(c, rows, moment, &mut decision).map_err(damaged)?;
    decision.answer = Answer::More(more_deliveries || keys.len() == ROWS_MAX || more_calls || more_waiting);
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

/// Ended calls, with all that ended with them. Whether there may be more.
fn calls_over(c: &Expire, rows: &dyn Rows, moment: Moment, expired: &mut Expired) -> Result<bool, Error> {
    let due = calls::expiring(rows, c.from, moment.now, ENDINGS_MAX)?;
    let (count, mut taken) = (due.len(), 0);
    for Expiring { keep_until, ended, account, endpoint, calls } in due {
        if taken > 0 && taken + calls.len() > call::CALLS_MAX {
            return Ok(true);
        }
        taken += calls.len();
        let mut over = Vec::with_capacity(calls.len());
        for call in calls {
            // What was retried has another end, or none.
            let row = calls::call(rows, &account, &endpoint, call)?;
            over.extend(row.filter(|row| row.ended.is_some_and(|end| end.seq == ended)).map(|row| row.call));
        }
        expired.calls.push(ExpiredCalls { account, endpoint, ended, keep_until, calls: over });
    }
    Ok(count == ENDINGS_MAX)
}

/// Calls of disabled endpoints that waited longer than calls are kept. Whether there may be more.
fn kept_too_long(c: &Expire, rows: &dyn Rows, moment: Moment, decision: &mut Decision) -> Result<bool, Error> {
    for row in calls::all_endpoints(rows)? {
        let state = calls::state(rows, &row.account, &row.endpoint)?;
        let by_person = row.settings.disabled.then_some(state.configured);
        let Some(since) = state.disabled.map(|disabled| disabled.at).or(by_person) else { continue };
        let keep = Duration::from_secs(row.settings.keep_s.max(WAIT_MIN_S));
        if since + keep > moment.now {
            continue;
        }
        // What waited too long at the last look is gone, and so the index is read from there, unless there was no such look.
        let at = if since + keep < c.from { c.from - keep } else { Timestamp::EPOCH };
        let calls = waiting_before(&row, Due { at, ..Due::FIRST }, moment.now - keep, rows)?;
        if calls.is_empty() {
            continue;
        }
        let EndpointRow { account, endpoint, .. } = row;
        let (why, by) = (Canceling::KeptTooLong, Author::program());
        decision.events.push(CallsCanceled { account, endpoint, calls, why, job: None, by }.into());
        return Ok(true);
    }
    Ok(false)
}

/// Calls that wait since `until` or longer: the first of their lanes, and those behind them.
fn waiting_before(row: &EndpointRow, from: Due, until: Timestamp, rows: &dyn Rows) -> Result<Vec<CallRef>, Error> {
    let mut found = Vec::new();
    for due in calls::due(rows, &row.account, &row.endpoint, from, until, ROWS_MAX)? {
        let mut next = Some(due.call);
        while let Some(call) = next.take()
            && found.len() < call::CALLS_MAX
        {
            let Some(call) = calls::call(rows, &row.account, &row.endpoint, call)? else { break };
            if call.queued <= until {
                next = call.later;
                found.push(call.call);
            }
        }
    }
    Ok(found)
}
