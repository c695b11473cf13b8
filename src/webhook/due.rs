//! Which calls of an endpoint are to be made now: one look at its index. Pure.

use std::collections::{HashSet, VecDeque};

use postledger_events::fact::call::{CallAbout, CallRef};
use postledger_events::id::{AccountName, DeliveryId, EndpointName};
use postledger_events::time::Timestamp;
use postledger_projections::calls::{self, CallRow, Due, EndpointRow, EndpointState};
use postledger_projections::{Error, Rows, accounts};

/// Due calls that are looked at in one round.
const WINDOW: usize = 256;

/// What one look at the index found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// To be made, soonest due first.
    pub calls: Vec<Ready>,
    /// Where the next look begins.
    pub bound: Due,
    /// When the first call that is not due yet will be, if that is soon.
    pub next_due: Option<Timestamp>,
    /// There may be more that is due.
    pub more: bool,
}

/// A call that may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    pub call: CallRef,
    /// What it is about, where others may be about the same.
    pub delivery: Option<DeliveryId>,
}

impl Ready {
    fn of(row: &CallRow) -> Ready {
        let delivery = match row.about {
            CallAbout::Delivery(delivery, _) => Some(delivery),
            CallAbout::Message(_) => None,
        };
        Ready { call: row.call, delivery }
    }
}

/// Looks at what is due from `from` on, apart from what is `known`, and when more will be up to `soon`. The last record of these
/// rows was written at `written`.
pub fn look(
    rows: &impl Rows,
    endpoint: &EndpointRow,
    written: Timestamp,
    from: Due,
    now: Timestamp,
    soon: Timestamp,
    known: &HashSet<CallRef>,
) -> Result<Found, Error> {
    let (account, name) = (&endpoint.account, &endpoint.endpoint);
    let state = calls::state(rows, account, name)?;
    let nothing = Found { calls: Vec::new(), bound: from, next_due: None, more: false };
    if !calls::is_enabled(endpoint, &state) {
        return Ok(nothing);
    }
    if state.failing.is_some() {
        return Ok(Found { bound: from, ..probe(rows, (account, name), &state, from, now, known)? });
    }
    let branch = accounts::counters(rows)?.branch;
    let limit = WINDOW + known.len();
    let due = calls::due(rows, account, name, from, now, limit)?;
    let mut found = Vec::new();
    for call in due.iter().map(|due| due.call).filter(|call| !known.contains(call)) {
        if let Some(row) = calls::call(rows, account, name, call)?.filter(|row| row.may_go(branch)) {
            found.push(Ready::of(&row));
        }
    }
    let later = Due { at: now, call: calls::LAST };
    let next_due = calls::due(rows, account, name, later.max(from), soon, 1)?;
    Ok(Found {
        calls: found,
        bound: bound(written, from, due.first().copied()),
        next_due: next_due.first().map(|due| due.at),
        more: due.len() == limit,
    })
}

/// Of a failing endpoint only the oldest call goes out, and only if no other is on its way.
fn probe(
    rows: &impl Rows,
    (account, endpoint): (&AccountName, &EndpointName),
    state: &EndpointState,
    from: Due,
    now: Timestamp,
    known: &HashSet<CallRef>,
) -> Result<Found, Error> {
    let nothing = Found { calls: Vec::new(), bound: from, next_due: None, more: false };
    if !known.is_empty() {
        return Ok(nothing);
    }
    if let Some(next) = state.next_probe.filter(|next| *next > now) {
        return Ok(Found { next_due: Some(next), ..nothing });
    }
    let branch = accounts::counters(rows)?.branch;
    let mut waiting = calls::due(rows, account, endpoint, from, Timestamp::MAX, WINDOW)?;
    waiting.sort_by_key(|due| due.call);
    for due in waiting {
        if let Some(row) = calls::call(rows, account, endpoint, due.call)?.filter(|row| row.may_go(branch)) {
            return Ok(Found { calls: vec![Ready::of(&row)], ..nothing });
        }
    }
    Ok(nothing)
}

/// Where the next look begins. IMPORTANT: an entry that is written later is due at its record's time or after, so none comes
/// in before the time of the last record of this snapshot.
fn bound(written: Timestamp, from: Due, first: Option<Due>) -> Due {
    let written = Due { at: written, call: calls::FIRST };
    first.map_or(written, |first| first.min(written)).max(from)
}

/// The first of what is ready that may be started beside what is under way. IMPORTANT: a call that was canceled while it was under
/// way has left its lane, but may still arrive. The next one about its delivery waits for its end, so as not to overtake it.
pub fn startable<'a>(ready: &VecDeque<Ready>, under_way: impl Iterator<Item = &'a Ready> + Clone) -> Option<usize> {
    let is_told = |delivery| under_way.clone().any(|other| other.delivery == Some(delivery));
    ready.iter().position(|ready| !ready.delivery.is_some_and(is_told))
}

#[cfg(test)]
mod tests {
    use postledger_events::id::Seq;

    use super::*;

    #[test]
    fn a_call_waits_for_another_about_its_delivery() {
        let ready = |fact: u64, delivery: Option<u64>| Ready {
            call: CallRef { fact: Seq(fact), place: 0 },
            delivery: delivery.map(DeliveryId),
        };
        let waiting = VecDeque::from([ready(11, Some(1)), ready(12, Some(2)), ready(13, None)]);
        let check = |under_way: &[Ready], expect: Option<usize>| {
            assert_eq!(startable(&waiting, under_way.iter()), expect, "beside {under_way:?}");
        };
        check(&[], Some(0));
        check(&[ready(9, Some(3)), ready(10, None)], Some(0));
        check(&[ready(10, Some(1))], Some(1));
        check(&[ready(9, Some(2)), ready(10, Some(1))], Some(2));
        let waiting = VecDeque::from([ready(11, Some(1))]);
        assert_eq!(startable(&waiting, [ready(10, Some(1))].iter()), None);
    }
}
