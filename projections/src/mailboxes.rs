//! Messages in the mailboxes of accounts.
//!
//! Keys: `m` message by mailbox, `i` the mailbox of a message, `b` copies of a content, `l` mailboxes and octets of an
//! account, `c` last number.

use postledger_events::address::Address;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{AccountName, MailboxName, MessageUuid, MsgId};
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use serde::{Deserialize, Serialize};

use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, end_of, key, parse, read, write};

const TABLE: Table = Table::Mailboxes;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxMessageRow {
    pub msg_id: MsgId,
    pub account: AccountName,
    pub mailbox: MailboxName,
    pub received: Timestamp,
    pub body: BodyRef,
    /// The flags of the contract, sorted.
    pub flags: Vec<String>,
    /// `None` if it was forgotten.
    pub personal: Option<MailboxPersonal>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxPersonal {
    /// The reverse-path; `None`: null.
    pub mail_from: Option<Address>,
    pub recipient: Option<Address>,
    pub from: Option<String>,
    pub subject: Option<String>,
    pub message_id: Option<String>,
}

/// What an account stores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    pub mailboxes: Vec<MailboxName>,
    pub octets: u64,
    pub messages: u64,
}

pub fn storage(rows: &(impl Rows + ?Sized), account: &AccountName) -> Result<Storage, Error> {
    Ok(read(rows, TABLE, &storage_key(account))?.unwrap_or_default())
}

pub fn message(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    msg_id: MsgId,
) -> Result<Option<MailboxMessageRow>, Error> {
    match read::<MailboxName>(rows, TABLE, &index_key(account, msg_id))? {
        None => Ok(None),
        Some(mailbox) => read(rows, TABLE, &message_key(account, &mailbox, msg_id)),
    }
}

/// Messages of a mailbox, newest first, with numbers below `before`.
pub fn list(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    mailbox: &MailboxName,
    before: MsgId,
    limit: usize,
) -> Result<Vec<MailboxMessageRow>, Error> {
    let (start, end) = (message_key(account, mailbox, MsgId(0)), message_key(account, mailbox, before));
    let found = rows.scan(TABLE, &start, &end, Order::Descending, limit)?;
    found.iter().map(|(_, v)| parse(TABLE, v)).collect()
}

/// Some messages of an account, from all its mailboxes.
pub fn some(rows: &(impl Rows + ?Sized), account: &AccountName, limit: usize) -> Result<Vec<MailboxMessageRow>, Error> {
    let prefix = key(&[b"m", account.as_str().as_bytes(), &[0]]);
    let found = rows.scan(TABLE, &prefix, &end_of(&prefix), Order::Ascending, limit)?;
    found.iter().map(|(_, v)| parse(TABLE, v)).collect()
}

/// Mailboxes that have this content.
pub fn copies(rows: &(impl Rows + ?Sized), body: MessageUuid) -> Result<u32, Error> {
    Ok(read(rows, TABLE, &copies_key(body))?.unwrap_or(0))
}

/// The last number given out; 0 if none was.
pub fn last_number(rows: &(impl Rows + ?Sized)) -> Result<u64, Error> {
    Ok(read(rows, TABLE, b"c")?.unwrap_or(0))
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    match &record.event {
        Event::AccountConfigured(e) => {
            if rows.get(TABLE, &storage_key(&e.account))?.is_none() {
                let storage = Storage { mailboxes: MailboxName::initial().to_vec(), ..Storage::default() };
                write(rows, TABLE, storage_key(&e.account), &storage);
            }
        }
        Event::AccountRemoved(e) => rows.remove(TABLE, storage_key(&e.account)),
        Event::MessageSubmitted(e) => {
            let Some(copy) = &e.sent_copy else { return Ok(()) };
            let row = MailboxMessageRow {
                msg_id: copy.msg_id,
                account: e.account.clone(),
                mailbox: copy.mailbox.clone(),
                received: record.at,
                body: copy.body,
                flags: vec!["$notjunk".to_owned(), "\\seen".to_owned()],
                personal: e.personal.as_ref().map(|p| MailboxPersonal {
                    mail_from: p.reverse_path.clone(),
                    recipient: None,
                    from: Some(p.from.to_string()),
                    subject: Some(p.subject.clone()),
                    message_id: Some(p.message_id.clone()),
                }),
            };
            insert(rows, row)?;
        }
        Event::MessageReceived(e) => {
            for copy in &e.copies {
                let row = MailboxMessageRow {
                    msg_id: copy.msg_id,
                    account: copy.account.clone(),
                    mailbox: copy.mailbox.clone(),
                    received: record.at,
                    body: e.body,
                    flags: Vec::new(),
                    personal: e.personal.as_ref().map(|p| MailboxPersonal {
                        mail_from: p.mail_from.clone(),
                        recipient: p.recipients.get(usize::from(copy.recipient)).cloned(),
                        from: p.from.clone(),
                        subject: p.subject.clone(),
                        message_id: p.message_id.clone(),
                    }),
                };
                insert(rows, row)?;
            }
        }
        Event::MessageDeleted(e) => {
            if rows.get(TABLE, &index_key(&e.account, e.msg_id))?.is_none() {
                return Ok(());
            }
            rows.remove(TABLE, message_key(&e.account, &e.mailbox, e.msg_id));
            rows.remove(TABLE, index_key(&e.account, e.msg_id));
            count(rows, e.body.body, -1)?;
            store(rows, &e.account, |s| {
                s.octets = s.octets.saturating_sub(e.body.size);
                s.messages = s.messages.saturating_sub(1);
            })?;
        }
        Event::LedgerBranched(e) => write(rows, TABLE, b"c".to_vec(), &e.numbers.msg_id.0),
        Event::LedgerCreated(_)
        | Event::ClockStepped(_)
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
        | Event::AddressSuppressed(_)
        | Event::SuppressionLifted(_)
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

fn insert(rows: &mut dyn RowsMut, row: MailboxMessageRow) -> Result<(), Error> {
    write(rows, TABLE, message_key(&row.account, &row.mailbox, row.msg_id), &row);
    write(rows, TABLE, index_key(&row.account, row.msg_id), &row.mailbox);
    write(rows, TABLE, b"c".to_vec(), &row.msg_id.0);
    count(rows, row.body.body, 1)?;
    store(rows, &row.account, |s| {
        s.octets = s.octets.saturating_add(row.body.size);
        s.messages += 1;
    })
}

fn count(rows: &mut dyn RowsMut, body: MessageUuid, by: i64) -> Result<(), Error> {
    let left = i64::from(copies(rows, body)?).saturating_add(by);
    match u32::try_from(left) {
        Ok(0) | Err(_) => rows.remove(TABLE, copies_key(body)),
        Ok(n) => write(rows, TABLE, copies_key(body), &n),
    }
    Ok(())
}

fn store(rows: &mut dyn RowsMut, account: &AccountName, with: impl FnOnce(&mut Storage)) -> Result<(), Error> {
    let mut storage = storage(rows, account)?;
    with(&mut storage);
    write(rows, TABLE, storage_key(account), &storage);
    Ok(())
}

fn message_key(account: &AccountName, mailbox: &MailboxName, msg_id: MsgId) -> Key {
    key(&[b"m", account.as_str().as_bytes(), &[0], mailbox.as_str().as_bytes(), &[0], &msg_id.to_key()])
}

fn index_key(account: &AccountName, msg_id: MsgId) -> Key {
    key(&[b"i", account.as_str().as_bytes(), &[0], &msg_id.to_key()])
}

fn copies_key(body: MessageUuid) -> Key {
    key(&[b"b", body.0.as_bytes()])
}

fn storage_key(account: &AccountName) -> Key {
    key(&[b"l", account.as_str().as_bytes()])
}
