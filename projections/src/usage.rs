//! What accounts used of their limits, whom they sent to before, and answers to repeated requests.
//!
//! Keys: `u` counts of an account, `f` a recipient it sent to, `i` answer by key, `j` answers by end of keep period.

use postledger_events::address::Address;
use postledger_events::fact::submission::{Idempotency, MessageSubmitted};
use postledger_events::id::{AccountName, DeliveryId, FromId, MessageUuid, Sha256};
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use serde::{Deserialize, Serialize};

use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, end_of, key, read, write};

const TABLE: Table = Table::Usage;
/// Length of the slots that usage is counted in.
const SLOT_S: i64 = 15 * 60;
/// Slots that 24 hours can touch: 96, and the one that has begun. Counting them all errs on the strict side.
const SLOTS: i64 = 97;

/// Recipients that an account sent to, in slots of 15 minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Slot {
    /// Slots since 1970.
    n: i64,
    recipients: u64,
    first_time: u64,
}

impl Usage {
    /// Recipients, and first-time recipients, in the 24 hours before `now`.
    pub fn last_day(&self, now: Timestamp) -> (u64, u64) {
        let from = slot_of(now) - SLOTS + 1;
        let slots = self.slots.iter().filter(|s| s.n >= from);
        slots.fold((0, 0), |(all, first), s| (all + s.recipients, first + s.first_time))
    }

    fn add(&mut self, at: Timestamp, recipients: u64, first_time: u64) {
        let n = slot_of(at);
        // The record's own time decides, so that a replay drops the same slots.
        self.slots.retain(|s| s.n > n - SLOTS);
        match self.slots.iter_mut().find(|s| s.n == n) {
            Some(slot) => {
                slot.recipients += recipients;
                slot.first_time += first_time;
            }
            None => self.slots.push(Slot { n, recipients, first_time }),
        }
    }
}

/// What a request with an Idempotency-Key was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRow {
    pub request: Sha256,
    pub until: Timestamp,
    /// `None`: the answer was empty.
    pub submitted: Option<SubmittedAnswer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedAnswer {
    pub message: MessageUuid,
    pub message_id: String,
    pub recipients: Vec<(String, DeliveryId, Option<FromId>)>,
}

pub fn usage(rows: &(impl Rows + ?Sized), account: &AccountName) -> Result<Usage, Error> {
    Ok(read(rows, TABLE, &usage_key(account))?.unwrap_or_default())
}

/// Whether the account sent to this address before.
pub fn knows(rows: &(impl Rows + ?Sized), account: &AccountName, to: &Address) -> Result<bool, Error> {
    Ok(rows.get(TABLE, &known_key(account, to))?.is_some())
}

pub fn answer(rows: &(impl Rows + ?Sized), key: Sha256) -> Result<Option<AnswerRow>, Error> {
    read(rows, TABLE, &answer_key(key))
}

/// Answers whose keep period ends from `from` to `until`, soonest first.
pub fn expiring_answers(
    rows: &(impl Rows + ?Sized),
    from: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<(Timestamp, Sha256)>, Error> {
    let start = key(&[b"j", &from.to_key()]);
    let end = end_of(&key(&[b"j", &until.to_key()]));
    let found = rows.scan(TABLE, &start, &end, Order::Ascending, limit)?;
    let parsed = found.iter().filter_map(|(k, _)| {
        Some((Timestamp::from_key(k.get(1..9)?.try_into().ok()?), Sha256(k.get(9..41)?.try_into().ok()?)))
    });
    Ok(parsed.collect())
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    match &record.event {
        Event::MessageSubmitted(e) => submitted(record, e, rows)?,
        Event::AddressSuppressed(e) => keep_answer(rows, e.idempotency.as_ref(), None)?,
        Event::SuppressionLifted(e) => keep_answer(rows, e.idempotency.as_ref(), None)?,
        Event::AccountRemoved(e) => rows.remove(TABLE, usage_key(&e.account)),
        Event::Expired(e) => {
            for k in &e.idempotency_keys {
                rows.remove(TABLE, answer_key(k.key));
                rows.remove(TABLE, expiry_key(k.until, k.key));
            }
        }
        Event::LedgerCreated(_)
        | Event::ClockStepped(_)
        | Event::LedgerBranched(_)
        | Event::AccountConfigured(_)
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
        | Event::MessageReceived(_)
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
        | Event::CursorRemoved(_) => {}
    }
    Ok(())
}

fn submitted(record: &Record, e: &MessageSubmitted, rows: &mut dyn RowsMut) -> Result<(), Error> {
    let mut first_time = 0;
    for r in e.personal.iter().flat_map(|p| &p.recipients) {
        if !knows(rows, &e.account, &r.address)? {
            rows.put(TABLE, known_key(&e.account, &r.address), Vec::new());
            first_time += 1;
        }
    }
    let mut usage = usage(rows, &e.account)?;
    usage.add(record.at, e.deliveries.len() as u64, first_time);
    write(rows, TABLE, usage_key(&e.account), &usage);
    if e.idempotency.is_some() {
        keep_answer(rows, e.idempotency.as_ref(), Some(answer_of(e)))?;
    }
    Ok(())
}

fn answer_of(e: &MessageSubmitted) -> SubmittedAnswer {
    let given = |n: usize| e.personal.as_ref()?.recipients.get(n).map(|r| r.given());
    let recipients = e.deliveries.iter().enumerate();
    SubmittedAnswer {
        message: e.message,
        message_id: e.personal.as_ref().map(|p| p.message_id.clone()).unwrap_or_default(),
        recipients: recipients.map(|(n, d)| (given(n).unwrap_or_default(), d.id, d.fromid.clone())).collect(),
    }
}

fn keep_answer(
    rows: &mut dyn RowsMut,
    idempotency: Option<&Idempotency>,
    submitted: Option<SubmittedAnswer>,
) -> Result<(), Error> {
    let Some(i) = idempotency else { return Ok(()) };
    if let Some(over) = answer(rows, i.key)? {
        rows.remove(TABLE, expiry_key(over.until, i.key));
    }
    let row = AnswerRow { request: i.request, until: i.until, submitted };
    write(rows, TABLE, answer_key(i.key), &row);
    rows.put(TABLE, expiry_key(i.until, i.key), Vec::new());
    Ok(())
}

fn slot_of(at: Timestamp) -> i64 {
    at.as_secs().div_euclid(SLOT_S)
}

fn usage_key(account: &AccountName) -> Key {
    key(&[b"u", account.as_str().as_bytes()])
}

fn known_key(account: &AccountName, to: &Address) -> Key {
    key(&[b"f", account.as_str().as_bytes(), &[0], to.to_text().as_bytes()])
}

fn answer_key(of: Sha256) -> Key {
    key(&[b"i", &of.0])
}

fn expiry_key(until: Timestamp, of: Sha256) -> Key {
    key(&[b"j", &until.to_key(), &of.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_counted_on_the_strict_side() {
        let hour = |h: i64| Timestamp::from_secs(h * 3600);
        let mut usage = Usage::default();
        usage.add(hour(100), 3, 1);
        usage.add(hour(110), 4, 0);
        assert_eq!(usage.last_day(hour(110)), (7, 1));
        assert_eq!(usage.last_day(hour(124)), (7, 1), "24 hours later the first slot still counts");
        assert_eq!(usage.last_day(Timestamp::from_secs(124 * 3600 + SLOT_S)), (4, 0));
        usage.add(hour(200), 1, 1);
        assert_eq!(usage.slots.len(), 1, "slots that are over are dropped by the next record");
    }
}
