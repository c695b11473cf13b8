//! The queue and the history of what left it: one row for each delivery, from acceptance until its keep period is over.
//!
//! Keys: `m` message, `d` delivery, `n` queued by due time, `h` on hold, `x` finished by end of keep period, `o` records that
//! senders and accounts are to be told of, `c` last number.

use std::collections::BTreeMap;

use postledger_events::address::{Address, Domain};
use postledger_events::fact::attempt::{Failure, Problem, Replies};
use postledger_events::fact::delivery::{HoldCause, Wish};
use postledger_events::fact::submission::{BodyRef, MessageSubmitted, SubmittedDelivery, reverse_path};
use postledger_events::id::{
    AccountName, AttemptId, Author, DeliveryId, FromId, JobId, MessageUuid, RecipientKey, Seq,
};
use postledger_events::reply::EnhancedCode;
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record, Refusal};
use serde::{Deserialize, Serialize};

use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, end_of, key, read, write};

const TABLE: Table = Table::Deliveries;
/// The failed attempt after which the sender is told that the message is delayed.
pub const DELAY_NOTICE_ATTEMPT: u32 = 5;
/// Deliveries that are read together if so many have numbers no further than this from one to the next.
const TOGETHER_MIN: usize = 16;
const GAP_MAX: u64 = 2;
/// Jobs that a delivery remembers to have been treated by; no more than that are open at once and want the same delivery.
const JOBS_MAX: usize = 8;

/// What the deliveries of a message have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageRow {
    pub message: MessageUuid,
    pub account: AccountName,
    /// Its MessageSubmitted record.
    pub seq: Seq,
    pub submitted: Timestamp,
    pub body: BodyRef,
    /// The content is still stored.
    pub contents: bool,
    pub keep_contents: bool,
    pub keep_s: u64,
    pub eight_bit: bool,
    pub smtputf8: bool,
    pub require_tls: Option<bool>,
    pub separator: Option<char>,
    /// Its deliveries are numbered from here.
    pub first: DeliveryId,
    pub count: u32,
    /// Deliveries whose rows are left.
    pub remaining: u32,
    /// `None` if it was forgotten.
    pub personal: Option<MessagePersonal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessagePersonal {
    pub from: Address,
    pub reverse_path: Option<Address>,
    pub message_id: String,
    pub subject: String,
    pub extra: BTreeMap<String, String>,
}

/// Where a delivery is. Exactly one of these at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Queued,
    Held(HoldCause),
    Running(AttemptId, Timestamp),
    Delivered,
    Failed(Failure),
    Suppressed,
    Canceled,
}

impl State {
    /// No attempt will follow.
    pub fn is_terminal(self) -> bool {
        match self {
            State::Queued | State::Held(_) | State::Running(..) => false,
            State::Delivered | State::Failed(_) | State::Suppressed | State::Canceled => true,
        }
    }

    /// One word for people and programs.
    pub fn word(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Held(_) => "held",
            State::Running(..) => "running",
            State::Delivered => "delivered",
            State::Failed(_) => "failed",
            State::Suppressed => "suppressed",
            State::Canceled => "canceled",
        }
    }
}

/// One recipient of one message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRow {
    pub id: DeliveryId,
    pub message: MessageUuid,
    pub account: AccountName,
    pub recipient: RecipientKey,
    pub domain: Domain,
    pub fromid: Option<FromId>,
    /// `None` if it was forgotten.
    pub address: Option<Address>,
    pub state: State,
    /// Attempts that were started.
    pub attempts: u32,
    /// Of these, attempts whose outcome nobody knows.
    pub in_doubt: u32,
    /// When it is, was, or after a release will be due.
    pub due: Timestamp,
    pub last: Option<LastProblem>,
    /// When the last attempt started or the delivery ended.
    pub last_activity: Timestamp,
    pub wish: Option<(Wish, Author)>,
    /// The last jobs that treated it, so that none does it again while others do, too.
    pub jobs: Vec<JobId>,
    /// The record that released it last: rules that were there before hold it no more.
    pub released: Option<Seq>,
    /// Finished deliveries are listed until then.
    pub keep_until: Option<Timestamp>,
}

impl DeliveryRow {
    /// The reverse-path that this delivery goes out with.
    pub fn reverse_path(&self, message: &MessageRow) -> Option<Address> {
        let base = message.personal.as_ref()?.reverse_path.as_ref()?;
        Some(reverse_path(base, message.separator, self.fromid.as_ref()))
    }
}

impl DeliveryRow {
    /// Refuses to send again what has arrived or may still arrive.
    pub fn check_sent_again(&self) -> Result<(), Refusal> {
        match self.state {
            State::Failed(_) | State::Suppressed | State::Canceled => Ok(()),
            State::Delivered => Err(Refusal::Conflict(format!("delivery {} has arrived", self.id))),
            State::Queued | State::Held(_) | State::Running(..) => {
                let state = self.state.word();
                Err(Refusal::Conflict(format!("delivery {} is {state}, and not over; cancel it first", self.id)))
            }
        }
    }
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastProblem {
    pub code: u16,
    pub enhanced: Option<EnhancedCode>,
    /// `None` if it was forgotten.
    pub text: Option<String>,
}

pub fn message(rows: &(impl Rows + ?Sized), message: MessageUuid) -> Result<Option<MessageRow>, Error> {
    read(rows, TABLE, &message_key(message))
}

pub fn delivery(rows: &(impl Rows + ?Sized), id: DeliveryId) -> Result<Option<DeliveryRow>, Error> {
    read(rows, TABLE, &delivery_key(id))
}

/// Those of these deliveries that are there, in the order of their numbers. What was submitted together is read together, which
/// costs a third of reading row by row.
pub fn numbered(rows: &(impl Rows + ?Sized), mut ids: Vec<DeliveryId>) -> Result<Vec<DeliveryRow>, Error> {
    ids.sort_unstable();
    ids.dedup();
    let mut found = Vec::with_capacity(ids.len());
    for together in ids.chunk_by(|a, b| b.0 - a.0 <= GAP_MAX) {
        let (Some(first), Some(last)) = (together.first(), together.last()) else { continue };
        if together.len() < TOGETHER_MIN {
            for id in together {
                found.extend(delivery(rows, *id)?);
            }
            continue;
        }
        let (start, end) = (delivery_key(*first), delivery_key(DeliveryId(last.0.saturating_add(1))));
        for (k, value) in rows.scan(TABLE, &start, &end, Order::Ascending, together.len() * GAP_MAX as usize)? {
            let id = k.get(1..9).and_then(|id| id.try_into().ok()).map(|id| DeliveryId(u64::from_be_bytes(id)));
            if id.is_some_and(|id| together.binary_search(&id).is_ok()) {
                found.push(crate::rows::parse(TABLE, &value)?);
            }
        }
    }
    Ok(found)
}

/// The last number given out; 0 if none was.
pub fn last_number(rows: &(impl Rows + ?Sized)) -> Result<u64, Error> {
    Ok(read(rows, TABLE, b"c")?.unwrap_or(0))
}

/// A place in the order of due times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub at: Timestamp,
    pub id: DeliveryId,
}

impl Due {
    pub const FIRST: Due = Due { at: Timestamp::EPOCH, id: DeliveryId(0) };

    /// The place right behind this one.
    pub fn after(self) -> Due {
        Due { at: self.at, id: DeliveryId(self.id.0.saturating_add(1)) }
    }
}

/// Deliveries that are queued or running, not held, in the order of their due times: from `from` on, due at `until` or before.
pub fn due(rows: &(impl Rows + ?Sized), from: Due, until: Timestamp, limit: usize) -> Result<Vec<Due>, Error> {
    let start = due_key(from.at, from.id);
    let end = end_of(&key(&[b"n", &until.to_key()]));
    let found = rows.scan(TABLE, &start, &end, Order::Ascending, limit)?;
    Ok(found.iter().filter_map(|(k, _)| parse_index(k)).map(|(at, id)| Due { at, id }).collect())
}

/// Held deliveries with numbers from `from` on.
pub fn held(rows: &(impl Rows + ?Sized), from: DeliveryId, limit: usize) -> Result<Vec<DeliveryId>, Error> {
    let found = rows.scan(TABLE, &held_key(from), &end_of(b"h"), Order::Ascending, limit)?;
    Ok(found.iter().filter_map(|(k, _)| k.get(1..9)?.try_into().ok()).map(u64::from_be_bytes).map(DeliveryId).collect())
}

/// Finished deliveries whose keep period ends from `from` to `until`, soonest first.
pub fn expiring(
    rows: &(impl Rows + ?Sized),
    from: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<(Timestamp, DeliveryId)>, Error> {
    let start = key(&[b"x", &from.to_key()]);
    let end = end_of(&key(&[b"x", &until.to_key()]));
    let found = rows.scan(TABLE, &start, &end, Order::Ascending, limit)?;
    Ok(found.iter().filter_map(|(k, _)| parse_index(k)).collect())
}

/// The deliveries of a message whose rows are left.
pub fn of_message(rows: &(impl Rows + ?Sized), message: &MessageRow) -> Result<Vec<DeliveryRow>, Error> {
    let (first, end) = (message.first, DeliveryId(message.first.0.saturating_add(u64::from(message.count))));
    let found = rows.scan(TABLE, &delivery_key(first), &delivery_key(end), Order::Ascending, message.count as usize)?;
    found.iter().map(|(_, value)| crate::rows::parse(TABLE, value)).collect()
}

/// All rows of deliveries with numbers from `from` on, finished ones too.
pub fn all(rows: &(impl Rows + ?Sized), from: DeliveryId, limit: usize) -> Result<Vec<DeliveryRow>, Error> {
    let found = rows.scan(TABLE, &delivery_key(from), &end_of(b"d"), Order::Ascending, limit)?;
    found.iter().map(|(_, value)| crate::rows::parse(TABLE, value)).collect()
}

/// Records from `from` on that senders, or the account itself, are to be told of, oldest first.
pub fn notices(rows: &(impl Rows + ?Sized), from: Seq, limit: usize) -> Result<Vec<Seq>, Error> {
    let found = rows.scan(TABLE, &notice_key(from), &end_of(b"o"), Order::Ascending, limit)?;
    Ok(found.iter().filter_map(|(k, _)| k.get(1..9)?.try_into().ok()).map(u64::from_be_bytes).map(Seq).collect())
}

/// Whether somebody is still to be told of this record.
pub fn is_notice_due(rows: &(impl Rows + ?Sized), of: Seq) -> Result<bool, Error> {
    Ok(rows.get(TABLE, &notice_key(of))?.is_some())
}

/// Whether the index that lists this row by its state has it.
pub(crate) fn is_indexed(rows: &(impl Rows + ?Sized), row: &DeliveryRow) -> Result<bool, Error> {
    Ok(rows.get(TABLE, &index_key(row))?.is_some())
}

/// How many entries the indexes have, as their keys.
pub(crate) fn index_entries(rows: &(impl Rows + ?Sized), from: &[u8], limit: usize) -> Result<Vec<Key>, Error> {
    let found = rows.scan(TABLE, from, &[0xff], Order::Ascending, limit)?;
    Ok(found.into_iter().map(|(k, _)| k).collect())
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    match &record.event {
        Event::MessageSubmitted(e) => submitted(record, e, rows)?,
        Event::AttemptStarted(e) => {
            for d in &e.deliveries {
                change(rows, d.id, |row| {
                    row.state = State::Running(e.attempt, e.started);
                    row.attempts = d.number;
                    row.last_activity = e.started;
                })?;
            }
        }
        Event::Delivered(e) => {
            for d in &e.deliveries {
                end(rows, d.id, State::Delivered, e.ended, e.keep_until, None)?;
            }
        }
        Event::AttemptDeferred(e) => {
            for d in &e.deliveries {
                change(rows, d.id, |row| {
                    row.state = State::Queued;
                    row.due = d.next;
                    row.last = Some(last_problem(&d.problem, e.personal.as_ref()));
                })?;
            }
            if e.deliveries.iter().any(|d| d.number == DELAY_NOTICE_ATTEMPT) {
                tell_sender(rows, record.seq, e.message)?;
            }
        }
        Event::DeliveryFailed(e) => {
            for d in &e.deliveries {
                let last = last_problem(&d.problem, e.personal.as_ref());
                end(rows, d.id, State::Failed(d.why), e.ended, e.keep_until, Some(last))?;
            }
            let told = |why: Failure| !matches!(why, Failure::AccountRemoved | Failure::Forgotten);
            if e.deliveries.iter().any(|d| told(d.why)) {
                tell_sender(rows, record.seq, e.message)?;
            }
        }
        Event::AttemptInDoubt(e) => {
            for d in &e.deliveries {
                change(rows, d.id, |row| {
                    row.in_doubt += 1;
                    row.state = State::Queued;
                    row.due = d.next.unwrap_or(row.due);
                })?;
            }
        }
        Event::DeliverySuppressed(e) => {
            for d in &e.deliveries {
                end(rows, d.id, State::Suppressed, record.at, e.keep_until, None)?;
            }
            tell_sender(rows, record.seq, e.message)?;
        }
        Event::DeliveryCanceled(e) => {
            for d in &e.deliveries {
                end(rows, d.id, State::Canceled, record.at, e.keep_until, None)?;
            }
        }
        Event::DeliveryHeld(e) => {
            for id in &e.deliveries {
                change(rows, *id, |row| {
                    row.state = State::Held(e.cause);
                    treated(row, e.job);
                    row.wish = None;
                })?;
            }
        }
        Event::DeliveryReleased(e) => {
            for id in &e.deliveries {
                change(rows, *id, |row| {
                    row.state = State::Queued;
                    // No entry comes into the index before the times that were looked at already.
                    row.due = row.due.max(record.at);
                    row.released = Some(record.seq);
                    treated(row, e.job);
                })?;
            }
        }
        Event::DeliveryRescheduled(e) => {
            for d in &e.deliveries {
                change(rows, d.id, |row| {
                    row.due = d.next;
                    treated(row, e.job);
                    row.wish = None;
                })?;
            }
        }
        Event::WishNoted(e) => change(rows, e.delivery, |row| {
            row.wish = Some((e.wish, e.by.clone()));
            treated(row, e.job);
        })?,
        Event::MessageReceived(e) => {
            if let Some(of) = e.notice_of {
                rows.remove(TABLE, notice_key(of));
            }
        }
        Event::Expired(e) => {
            for d in &e.deliveries {
                expire(rows, d.id, d.message)?;
            }
            for b in &e.bodies {
                forget_contents(rows, b.message, b.row)?;
            }
            for of in &e.notices {
                rows.remove(TABLE, notice_key(*of));
            }
        }
        Event::LedgerBranched(e) => write(rows, TABLE, b"c".to_vec(), &e.numbers.delivery.0),
        Event::EndpointDisabled(_) => rows.put(TABLE, notice_key(record.seq), Vec::new()),
        Event::LedgerCreated(_)
        | Event::ClockStepped(_)
        | Event::AccountConfigured(_)
        | Event::AccountRemoved(_)
        | Event::DomainConfigured(_)
        | Event::DomainRemoved(_)
        | Event::AddressAdded(_)
        | Event::AddressRemoved(_)
        | Event::TransportConfigured(_)
        | Event::TransportRemoved(_)
        | Event::AddressSuppressed(_)
        | Event::SuppressionLifted(_)
        | Event::MessageDeleted(_)
        | Event::HoldRuleAdded(_)
        | Event::HoldRuleRemoved(_)
        | Event::JobStarted(_)
        | Event::JobAdvanced(_)
        | Event::JobFinished(_)
        | Event::EndpointConfigured(_)
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
    let (Some(first), Some(last)) = (e.deliveries.first(), e.deliveries.last()) else { return Ok(()) };
    let count = u32::try_from(e.deliveries.len()).unwrap_or(u32::MAX);
    let row = MessageRow {
        message: e.message,
        account: e.account.clone(),
        seq: record.seq,
        submitted: record.at,
        body: e.body,
        contents: true,
        keep_contents: e.keep_contents,
        keep_s: e.keep_s,
        eight_bit: e.eight_bit,
        smtputf8: e.smtputf8,
        require_tls: e.require_tls,
        separator: e.separator,
        first: first.id,
        count,
        remaining: count,
        personal: e.personal.as_ref().map(|p| MessagePersonal {
            from: p.from.clone(),
            reverse_path: p.reverse_path.clone(),
            message_id: p.message_id.clone(),
            subject: p.subject.clone(),
            extra: p.extra.clone(),
        }),
    };
    write(rows, TABLE, message_key(e.message), &row);
    write(rows, TABLE, b"c".to_vec(), &last.id.0);
    for (n, d) in e.deliveries.iter().enumerate() {
        let address = e.personal.as_ref().and_then(|p| p.recipients.get(n)).map(|r| r.address.clone());
        insert(rows, new_delivery(record, e, d, address));
    }
    Ok(())
}

fn new_delivery(record: &Record, e: &MessageSubmitted, d: &SubmittedDelivery, address: Option<Address>) -> DeliveryRow {
    DeliveryRow {
        id: d.id,
        message: e.message,
        account: e.account.clone(),
        recipient: d.recipient,
        domain: d.domain.clone(),
        fromid: d.fromid.clone(),
        address,
        state: d.hold.map_or(State::Queued, |rule| State::Held(HoldCause::Rule(rule))),
        attempts: 0,
        in_doubt: 0,
        due: e.due,
        last: None,
        last_activity: record.at,
        wish: None,
        jobs: Vec::new(),
        released: None,
        keep_until: None,
    }
}

fn insert(rows: &mut dyn RowsMut, row: DeliveryRow) {
    rows.put(TABLE, index_key(&row), Vec::new());
    write(rows, TABLE, delivery_key(row.id), &row);
}

/// Changes a row and keeps the one index entry it has in step. A delivery that is not there is passed over.
fn change(rows: &mut dyn RowsMut, id: DeliveryId, with: impl FnOnce(&mut DeliveryRow)) -> Result<(), Error> {
    let Some(mut row) = delivery(rows, id)? else { return Ok(()) };
    let before = index_key(&row);
    with(&mut row);
    let after = index_key(&row);
    if before != after {
        rows.remove(TABLE, before);
        rows.put(TABLE, after, Vec::new());
    }
    write(rows, TABLE, delivery_key(id), &row);
    Ok(())
}

fn end(
    rows: &mut dyn RowsMut,
    id: DeliveryId,
    state: State,
    ended: Timestamp,
    keep_until: Timestamp,
    last: Option<LastProblem>,
) -> Result<(), Error> {
    change(rows, id, |row| {
        row.state = state;
        row.last_activity = ended;
        row.keep_until = Some(keep_until);
        row.wish = None;
        row.last = last.or(row.last.take());
    })
}

fn treated(row: &mut DeliveryRow, job: Option<JobId>) {
    let Some(job) = job else { return };
    row.jobs.retain(|earlier| *earlier != job);
    if row.jobs.len() == JOBS_MAX {
        row.jobs.remove(0);
    }
    row.jobs.push(job);
}

/// Notes that the sender is to be told of a record; a null reverse-path is never told (RFC 5321 §4.5.5).
fn tell_sender(rows: &mut dyn RowsMut, of: Seq, id: MessageUuid) -> Result<(), Error> {
    if message(rows, id)?.and_then(|m| m.personal).is_some_and(|p| p.reverse_path.is_some()) {
        rows.put(TABLE, notice_key(of), Vec::new());
    }
    Ok(())
}

fn expire(rows: &mut dyn RowsMut, id: DeliveryId, of: MessageUuid) -> Result<(), Error> {
    let Some(row) = delivery(rows, id)? else { return Ok(()) };
    rows.remove(TABLE, index_key(&row));
    rows.remove(TABLE, delivery_key(id));
    if let Some(mut message) = message(rows, of)? {
        message.remaining = message.remaining.saturating_sub(1);
        write(rows, TABLE, message_key(of), &message);
    }
    Ok(())
}

fn forget_contents(rows: &mut dyn RowsMut, of: MessageUuid, with_row: bool) -> Result<(), Error> {
    if with_row {
        rows.remove(TABLE, message_key(of));
    } else if let Some(mut message) = message(rows, of)? {
        message.contents = false;
        write(rows, TABLE, message_key(of), &message);
    }
    Ok(())
}

fn last_problem(problem: &Problem, personal: Option<&Replies>) -> LastProblem {
    let text = personal.and_then(|p| match (problem.reply, problem.error) {
        (Some(reply), _) => p.replies.get(usize::from(reply)).map(ToString::to_string),
        (None, Some(error)) => p.errors.get(usize::from(error)).cloned(),
        (None, None) => None,
    });
    LastProblem { code: problem.code, enhanced: problem.enhanced, text }
}

/// The one entry that lists a row by its state.
fn index_key(row: &DeliveryRow) -> Key {
    match row.state {
        State::Queued | State::Running(..) => due_key(row.due, row.id),
        State::Held(_) => held_key(row.id),
        State::Delivered | State::Failed(_) | State::Suppressed | State::Canceled => {
            let until = row.keep_until.unwrap_or(row.last_activity);
            key(&[b"x", &until.to_key(), &row.id.to_key()])
        }
    }
}

fn message_key(message: MessageUuid) -> Key {
    key(&[b"m", message.0.as_bytes()])
}

fn delivery_key(id: DeliveryId) -> Key {
    key(&[b"d", &id.to_key()])
}

fn due_key(at: Timestamp, id: DeliveryId) -> Key {
    key(&[b"n", &at.to_key(), &id.to_key()])
}

fn notice_key(of: Seq) -> Key {
    key(&[b"o", &of.0.to_be_bytes()])
}

fn held_key(id: DeliveryId) -> Key {
    key(&[b"h", &id.to_key()])
}

/// The time and number of an entry of `n` or `x`.
fn parse_index(k: &[u8]) -> Option<(Timestamp, DeliveryId)> {
    let at = Timestamp::from_key(k.get(1..9)?.try_into().ok()?);
    Some((at, DeliveryId(u64::from_be_bytes(k.get(9..17)?.try_into().ok()?))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memory;

    fn row(id: u64) -> DeliveryRow {
        DeliveryRow {
            id: DeliveryId(id),
            message: MessageUuid(Default::default()),
            account: AccountName::new("mox").unwrap(),
            recipient: RecipientKey([0; 16]),
            domain: Domain::new("example.org").unwrap(),
            fromid: None,
            address: None,
            state: State::Queued,
            attempts: 0,
            in_doubt: 0,
            due: Timestamp::EPOCH,
            last: None,
            last_activity: Timestamp::EPOCH,
            wish: None,
            jobs: Vec::new(),
            released: None,
            keep_until: None,
        }
    }

    #[test]
    fn rows_that_are_read_together_are_those_that_were_meant() {
        let mut rows = Memory::default();
        // Some are gone, some by themselves, and the last of all numbers is there.
        let there = (1..200).filter(|id| id % 7 != 0).chain([500, 900, u64::MAX]);
        there.for_each(|id| write(&mut rows, TABLE, delivery_key(DeliveryId(id)), &row(id)));
        for meant in [1..2, 1..20, 10..90, 190..210, 480..920] {
            for step in [1, 2, 3] {
                let ids: Vec<DeliveryId> =
                    meant.clone().rev().step_by(step).chain([u64::MAX]).map(DeliveryId).collect();
                let mut each: Vec<_> = ids.iter().filter_map(|id| delivery(&rows, *id).unwrap()).collect();
                each.sort_by_key(|row| row.id);
                assert_eq!(numbered(&rows, ids).unwrap(), each, "{meant:?} {step}");
            }
        }
    }
}
