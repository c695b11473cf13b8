//! Addresses that an account does not send to, and the last failures that decide about the next.
//!
//! Keys: `s` suppression, `a` the same by base address, `k` the last failed deliveries of a recipient, `c` last number.

use postledger_events::address::Address;
use postledger_events::fact::suppression::{AddressSuppressed, Cause};
use postledger_events::id::{AccountName, DeliveryId, RecipientKey, SuppressionId};
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use serde::{Deserialize, Serialize};

use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, Value, end_of, key, parse, read, write};

const TABLE: Table = Table::Suppressions;
/// Failed deliveries of a recipient that are remembered.
pub const STREAK_MAX: usize = 3;
/// Suppressions of one account that one list answers.
pub const LIST_MAX: usize = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressionRow {
    pub id: SuppressionId,
    pub account: AccountName,
    pub recipient: RecipientKey,
    pub created: Timestamp,
    pub manual: bool,
    pub cause: Cause,
    /// `None` if it was forgotten; the suppression stays.
    pub personal: Option<SuppressedPerson>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressedPerson {
    pub base_address: String,
    pub original_address: Address,
    pub reason: String,
}

/// The failed deliveries of one recipient since the last that was delivered, oldest first. Most recipients have none, and no
/// row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak(pub Vec<DeliveryId>);

impl Streak {
    pub fn failures(&self) -> usize {
        self.0.len()
    }
}

pub fn suppression(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    recipient: RecipientKey,
) -> Result<Option<SuppressionRow>, Error> {
    read(rows, TABLE, &suppression_key(account, recipient))
}

/// The list of an account, ordered by base address; what was forgotten comes last.
pub fn list(rows: &(impl Rows + ?Sized), account: &AccountName) -> Result<Vec<SuppressionRow>, Error> {
    let prefix = key(&[b"s", account.as_str().as_bytes(), &[0]]);
    let found = rows.scan(TABLE, &prefix, &end_of(&prefix), Order::Ascending, LIST_MAX)?;
    let mut list: Vec<SuppressionRow> = found.iter().map(|(_, v)| parse(TABLE, v)).collect::<Result<_, _>>()?;
    list.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
    Ok(list)
}

/// At most `limit` entries of an account in the order of [`list`], from `place` on, and the place of the one behind them.
pub fn page(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    place: Option<&[u8]>,
    limit: usize,
) -> Result<(Vec<SuppressionRow>, Option<Vec<u8>>), Error> {
    let prefix = place_key(account, &[]);
    let start = place_key(account, place.unwrap_or_default());
    let mut found = rows.scan(TABLE, &start, &end_of(&prefix), Order::Ascending, limit + 1)?;
    let next = if found.len() > limit { found.pop() } else { None };
    let row = |(_, recipient): &(Key, Value)| {
        let recipient: RecipientKey = parse(TABLE, recipient)?;
        let row = suppression(rows, account, recipient)?;
        row.ok_or_else(|| Error::new(TABLE, format!("the index names {recipient}, which has no row")))
    };
    let page = found.iter().map(row).collect::<Result<_, _>>()?;
    Ok((page, next.map(|(key, _)| key[prefix.len()..].to_vec())))
}

/// At most `limit` entries of an account, in no order that means anything.
pub fn some(rows: &(impl Rows + ?Sized), account: &AccountName, limit: usize) -> Result<Vec<SuppressionRow>, Error> {
    let prefix = key(&[b"s", account.as_str().as_bytes(), &[0]]);
    let found = rows.scan(TABLE, &prefix, &end_of(&prefix), Order::Ascending, limit)?;
    found.iter().map(|(_, v)| parse(TABLE, v)).collect()
}

pub fn streak(rows: &(impl Rows + ?Sized), account: &AccountName, recipient: RecipientKey) -> Result<Streak, Error> {
    Ok(read(rows, TABLE, &streak_key(account, recipient))?.unwrap_or_default())
}

/// The last number given out; 0 if none was.
pub fn last_number(rows: &(impl Rows + ?Sized)) -> Result<u64, Error> {
    Ok(read(rows, TABLE, b"c")?.unwrap_or(0))
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    match &record.event {
        Event::AddressSuppressed(e) => suppress(record, e, rows),
        Event::SuppressionLifted(e) => {
            if let Some(row) = suppression(rows, &e.account, e.recipient)? {
                rows.remove(TABLE, place_key(&e.account, &place_of(&row)));
            }
            rows.remove(TABLE, suppression_key(&e.account, e.recipient));
            rows.remove(TABLE, streak_key(&e.account, e.recipient));
        }
        Event::Delivered(e) => {
            for d in &e.deliveries {
                delivered(rows, &e.account, d.recipient)?;
            }
        }
        Event::DeliveryFailed(e) => {
            for d in e.deliveries.iter().filter(|d| d.problem.code != 0) {
                failed(rows, &e.account, d.recipient, d.id)?;
            }
        }
        Event::LedgerBranched(e) => write(rows, TABLE, b"c".to_vec(), &e.numbers.suppression.0),
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
        | Event::MessageSubmitted(_)
        | Event::AttemptStarted(_)
        | Event::AttemptDeferred(_)
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
        | Event::CursorRemoved(_)
        | Event::Expired(_) => {}
    }
    Ok(())
}

fn suppress(record: &Record, e: &AddressSuppressed, rows: &mut dyn RowsMut) {
    let row = SuppressionRow {
        id: e.id,
        account: e.account.clone(),
        recipient: e.recipient,
        created: record.at,
        manual: e.manual,
        cause: e.cause.clone(),
        personal: e.personal.as_ref().map(|p| SuppressedPerson {
            base_address: p.base_address.clone(),
            original_address: p.original_address.clone(),
            reason: p.reason.clone(),
        }),
    };
    write(rows, TABLE, place_key(&e.account, &place_of(&row)), &row.recipient);
    write(rows, TABLE, suppression_key(&e.account, e.recipient), &row);
    write(rows, TABLE, b"c".to_vec(), &e.id.0);
}

fn delivered(rows: &mut dyn RowsMut, account: &AccountName, recipient: RecipientKey) -> Result<(), Error> {
    let key = streak_key(account, recipient);
    if rows.get(TABLE, &key)?.is_some() {
        rows.remove(TABLE, key);
    }
    Ok(())
}

fn failed(rows: &mut dyn RowsMut, account: &AccountName, recipient: RecipientKey, id: DeliveryId) -> Result<(), Error> {
    let mut streak = streak(rows, account, recipient)?;
    streak.0.push(id);
    if streak.0.len() > STREAK_MAX {
        streak.0.remove(0);
    }
    write(rows, TABLE, streak_key(account, recipient), &streak);
    Ok(())
}

fn sort_key(row: &SuppressionRow) -> (bool, &str, SuppressionId) {
    match &row.personal {
        Some(person) => (false, &person.base_address, row.id),
        None => (true, "", row.id),
    }
}

/// What sorts as [`sort_key`] does, and tells all recipients apart: no address has a zero byte, and no text a byte 255.
fn place_of(row: &SuppressionRow) -> Vec<u8> {
    match &row.personal {
        Some(person) => key(&[person.base_address.as_bytes(), &[0], &row.recipient.0]),
        None => key(&[&[0xff], &row.recipient.0]),
    }
}

fn place_key(account: &AccountName, place: &[u8]) -> Key {
    key(&[b"a", account.as_str().as_bytes(), &[0], place])
}

fn suppression_key(account: &AccountName, recipient: RecipientKey) -> Key {
    key(&[b"s", account.as_str().as_bytes(), &[0], &recipient.0])
}

fn streak_key(account: &AccountName, recipient: RecipientKey) -> Key {
    key(&[b"k", account.as_str().as_bytes(), &[0], &recipient.0])
}

#[cfg(test)]
mod tests {
    use postledger_events::fact::suppression::{SuppressionLifted, SuppressionPersonal};
    use postledger_events::id::{Author, Seq, Sha256};

    use super::*;
    use crate::Memory;

    fn account(name: &str) -> AccountName {
        AccountName::new(name).unwrap()
    }

    fn suppressed(owner: &str, n: u8, address: Option<&str>) -> Event {
        let person = |address: &str| SuppressionPersonal {
            base_address: address.to_owned(),
            original_address: address.parse().unwrap(),
            reason: String::new(),
        };
        AddressSuppressed {
            id: SuppressionId(n.into()),
            account: account(owner),
            recipient: RecipientKey([n; 16]),
            cause: Cause::Person(Author::program()),
            manual: true,
            idempotency: None,
            personal: address.map(person),
        }
        .into()
    }

    #[test]
    fn pages_follow_the_base_addresses_and_forget_what_is_lifted() {
        let events = vec![
            suppressed("a", 1, Some("c@x.example")),
            suppressed("a", 2, None),
            suppressed("a", 3, Some("a@x.example")),
            suppressed("ab", 4, Some("a@x.example")),
            suppressed("a", 5, Some("a@x.example.org")),
            suppressed("a", 6, Some("b@x.example")),
        ];
        let mut rows = Memory::default();
        let tell = |rows: &mut Memory, event: Event| {
            let record = Record { seq: Seq(1), at: Timestamp::EPOCH, prev: Sha256::ZERO, event };
            fold(&record, rows).unwrap();
        };
        events.into_iter().for_each(|event| tell(&mut rows, event));
        let all = |rows: &Memory, limit: usize| {
            let (mut ids, mut place) = (Vec::new(), None);
            loop {
                let (page, next) = page(rows, &account("a"), place.as_deref(), limit).unwrap();
                assert!(page.len() <= limit);
                ids.extend(page.iter().map(|row| row.id.0));
                place = next;
                if place.is_none() {
                    return ids;
                }
            }
        };
        let listed: Vec<u64> = list(&rows, &account("a")).unwrap().iter().map(|row| row.id.0).collect();
        assert_eq!(listed, [3, 5, 6, 1, 2]);
        (1..=6).for_each(|limit| assert_eq!(all(&rows, limit), listed, "{limit}"));
        for n in [2, 6] {
            let recipient = RecipientKey([n; 16]);
            let lifted = SuppressionLifted {
                id: SuppressionId(n.into()),
                account: account("a"),
                recipient,
                by: Author::program(),
                idempotency: None,
            };
            tell(&mut rows, lifted.into());
        }
        assert_eq!(all(&rows, 2), [3, 5, 1]);
    }
}
