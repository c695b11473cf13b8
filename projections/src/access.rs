//! What programs come in with and where they are: the keys of the API, and the cursors of groups of consumers.

use std::net::IpAddr;

use postledger_events::fact::access::{Network, Scope};
use postledger_events::id::{AccountName, Author, CursorName, KeyId, SecretRef, Seq};
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use serde::{Deserialize, Serialize};

use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, key, parse, read, scan_prefix, write};

const TABLE: Table = Table::Access;

/// A key that is not revoked. It may be over, or for other networks than where it is tried from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    pub key: KeyId,
    /// `None`: it is an administrator's.
    pub account: Option<AccountName>,
    pub label: String,
    pub scopes: Vec<Scope>,
    pub hash: SecretRef,
    pub expires: Option<Timestamp>,
    /// Empty: it can be used from everywhere.
    pub networks: Vec<Network>,
    pub added: Timestamp,
    pub by: Author,
    pub used: Option<KeyUse>,
}

/// When a key was last used, as far as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUse {
    pub at: Timestamp,
    /// `None` if it was forgotten.
    pub client: Option<IpAddr>,
}

/// How far a group of consumers has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorRow {
    /// `None`: the administrators'.
    pub account: Option<AccountName>,
    pub cursor: CursorName,
    pub seq: Seq,
    pub set: Timestamp,
    pub by: Author,
}

/// A key by its number.
pub fn key_row(rows: &(impl Rows + ?Sized), id: KeyId) -> Result<Option<KeyRow>, Error> {
    read(rows, TABLE, &key_key(id))
}

/// At most `limit` keys of one account, or of the administrators, in the order of their numbers.
pub fn keys_of(rows: &(impl Rows + ?Sized), account: Option<&AccountName>, limit: usize) -> Result<Vec<KeyRow>, Error> {
    let found = scan_prefix(rows, TABLE, &key_of_prefix(account), limit)?;
    found.iter().map(|(_, id)| parse(TABLE, id).and_then(|id| indexed(rows, id))).collect()
}

/// At most `limit` keys, whose they may be, with numbers from `from` on.
pub fn keys(rows: &(impl Rows + ?Sized), from: KeyId, limit: usize) -> Result<Vec<KeyRow>, Error> {
    let found = rows.scan(TABLE, &key_key(from), b"l", Order::Ascending, limit)?;
    found.iter().map(|(_, row)| parse(TABLE, row)).collect()
}

/// The last number that was given to a key.
pub fn last_number(rows: &(impl Rows + ?Sized)) -> Result<u64, Error> {
    Ok(read(rows, TABLE, b"n")?.unwrap_or(0))
}

pub fn cursor(
    rows: &(impl Rows + ?Sized),
    account: Option<&AccountName>,
    cursor: &CursorName,
) -> Result<Option<CursorRow>, Error> {
    read(rows, TABLE, &cursor_key(account, cursor))
}

/// At most `limit` cursors of one account, or of the administrators, by name.
pub fn cursors(
    rows: &(impl Rows + ?Sized),
    account: Option<&AccountName>,
    limit: usize,
) -> Result<Vec<CursorRow>, Error> {
    let found = scan_prefix(rows, TABLE, &owned(b"c", account), limit)?;
    found.iter().map(|(_, row)| parse(TABLE, row)).collect()
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    match &record.event {
        Event::KeyAdded(e) => {
            let row = KeyRow {
                key: e.key,
                account: e.account.clone(),
                label: e.label.clone(),
                scopes: e.scopes.clone(),
                hash: e.hash,
                expires: e.expires,
                networks: e.networks.clone(),
                added: record.at,
                by: e.by.clone(),
                used: None,
            };
            write(rows, TABLE, key_key(e.key), &row);
            write(rows, TABLE, key_of_key(e.account.as_ref(), e.key), &e.key);
            write(rows, TABLE, b"n".to_vec(), &e.key.0);
        }
        Event::KeyRevoked(e) => {
            rows.remove(TABLE, key_key(e.key));
            rows.remove(TABLE, key_of_key(e.account.as_ref(), e.key));
        }
        Event::KeyUsed(e) => {
            if let Some(mut row) = key_row(rows, e.key)? {
                let client = e.personal.as_ref().map(|p| p.client);
                row.used = Some(KeyUse { at: e.at, client });
                write(rows, TABLE, key_key(e.key), &row);
            }
        }
        Event::CursorSet(e) => {
            let (account, cursor, by) = (e.account.clone(), e.cursor.clone(), e.by.clone());
            let row = CursorRow { account, cursor, seq: e.seq, set: record.at, by };
            write(rows, TABLE, cursor_key(e.account.as_ref(), &e.cursor), &row);
        }
        Event::CursorRemoved(e) => rows.remove(TABLE, cursor_key(e.account.as_ref(), &e.cursor)),
        Event::LedgerBranched(e) => write(rows, TABLE, b"n".to_vec(), &e.numbers.key.0),
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
        | Event::AddressSuppressed(_)
        | Event::SuppressionLifted(_)
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
        | Event::Expired(_) => {}
    }
    Ok(())
}

/// What the index names must be there.
fn indexed(rows: &(impl Rows + ?Sized), id: KeyId) -> Result<KeyRow, Error> {
    let why = || Error::new(TABLE, format!("the index names key {id}, which has no row"));
    key_row(rows, id)?.ok_or_else(why)
}

fn key_key(id: KeyId) -> Key {
    key(&[b"k", &id.to_key()])
}

fn key_of_prefix(account: Option<&AccountName>) -> Key {
    owned(b"a", account)
}

fn key_of_key(account: Option<&AccountName>, id: KeyId) -> Key {
    key(&[&key_of_prefix(account), &id.to_key()])
}

fn cursor_key(account: Option<&AccountName>, cursor: &CursorName) -> Key {
    key(&[&owned(b"c", account), cursor.as_str().as_bytes()])
}

/// Where the things of one account are; no account has an empty name, so what is before the first is the administrators'.
fn owned(letter: &[u8], account: Option<&AccountName>) -> Key {
    key(&[letter, account.map_or("", AccountName::as_str).as_bytes(), &[0]])
}

#[cfg(test)]
mod tests {
    use postledger_events::fact::access::{CursorRemoved, CursorSet, KeyAdded, KeyRevoked, KeyUsed, KeyUsedPersonal};
    use postledger_events::id::{Fingerprint, Sha256};

    use super::*;
    use crate::Memory;

    fn told(events: Vec<Event>) -> Memory {
        let mut rows = Memory::default();
        for (n, event) in (1..).zip(events) {
            let record = Record { seq: Seq(n), at: Timestamp::from_secs(n as i64), prev: Sha256::ZERO, event };
            fold(&record, &mut rows).unwrap();
        }
        rows
    }

    fn account(name: &str) -> AccountName {
        AccountName::new(name).unwrap()
    }

    fn added(key: u64, owner: Option<&str>) -> Event {
        let hash =
            SecretRef { id: "00000000-0000-7000-8000-000000000001".parse().unwrap(), fingerprint: Fingerprint([0; 8]) };
        KeyAdded {
            key: KeyId(key),
            account: owner.map(account),
            label: "the shop's".to_owned(),
            scopes: vec![Scope::Send],
            hash,
            expires: None,
            networks: Vec::new(),
            by: Author::program(),
        }
        .into()
    }

    fn numbers(rows: Vec<KeyRow>) -> Vec<u64> {
        rows.into_iter().map(|row| row.key.0).collect()
    }

    #[test]
    fn keys_are_listed_by_their_owner_until_they_are_revoked() {
        let revoked = KeyRevoked { key: KeyId(2), account: Some(account("a")), by: Author::program() };
        let events =
            vec![added(1, None), added(2, Some("a")), added(3, Some("a")), added(4, Some("ab")), revoked.into()];
        let rows = told(events);
        assert_eq!(numbers(keys_of(&rows, Some(&account("a")), 10).unwrap()), [3]);
        assert_eq!(numbers(keys_of(&rows, Some(&account("ab")), 10).unwrap()), [4]);
        assert_eq!(numbers(keys_of(&rows, None, 10).unwrap()), [1]);
        assert_eq!(numbers(keys(&rows, KeyId(2), 10).unwrap()), [3, 4]);
        assert_eq!(key_row(&rows, KeyId(2)).unwrap(), None);
        assert_eq!(last_number(&rows).unwrap(), 4, "a number is not given twice");
    }

    #[test]
    fn a_use_is_known_also_when_its_client_was_forgotten() {
        let client = "192.0.2.9".parse().unwrap();
        let used = |personal| KeyUsed { key: KeyId(1), account: None, at: Timestamp::from_secs(5), personal };
        let row = |personal| key_row(&told(vec![added(1, None), used(personal).into()]), KeyId(1)).unwrap().unwrap();
        let use_of = |client| Some(KeyUse { at: Timestamp::from_secs(5), client });
        assert_eq!(row(Some(KeyUsedPersonal { client })).used, use_of(Some(client)));
        assert_eq!(row(None).used, use_of(None));
        assert_eq!(told(vec![used(None).into()]), Memory::default(), "a use of a key that is gone");
    }

    #[test]
    fn cursors_are_their_owners() {
        let name = |s: &str| CursorName::new(s).unwrap();
        let set = |owner: Option<&str>, cursor: &str, seq| {
            let (account, cursor, by) = (owner.map(account), name(cursor), Author::program());
            Event::from(CursorSet { account, cursor, seq: Seq(seq), by })
        };
        let removed = CursorRemoved { account: Some(account("a")), cursor: name("y"), by: Author::program() };
        let events = vec![
            set(None, "x", 1),
            set(Some("a"), "x", 2),
            set(Some("a"), "y", 3),
            set(Some("a"), "x", 1),
            removed.into(),
        ];
        let rows = told(events);
        let seq = |owner: Option<&AccountName>, cursor_name: &str| {
            cursor(&rows, owner, &name(cursor_name)).unwrap().map(|row| row.seq.0)
        };
        assert_eq!((seq(None, "x"), seq(Some(&account("a")), "x")), (Some(1), Some(1)));
        assert_eq!((seq(None, "y"), seq(Some(&account("a")), "y")), (None, None));
        assert_eq!(cursors(&rows, Some(&account("a")), 10).unwrap().len(), 1);
        assert_eq!(cursors(&rows, Some(&account("b")), 10).unwrap(), []);
    }
}
