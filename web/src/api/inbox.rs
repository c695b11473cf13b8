//! Mailboxes of an account and the messages in them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, NoContent, Response};
use bytes::Bytes;
use postledger_events::address::Address;
use postledger_events::command::DeleteMessage;
use postledger_events::id::{AccountName, MailboxName, MessageUuid, MsgId};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Command, Refusal};
use postledger_projections::Rows;
use postledger_projections::mailboxes::{self, MailboxMessageRow};
use serde::{Deserialize, Serialize};

use super::accounts::existing;
use super::caller::Caller;
use super::extract::{Path, Query, read};
use super::page::{Page, limit};
use super::problem::Problem;
use crate::openapi::{Answer, Content, Describe, Operation, Output, Schema, Schemas, Table};
use crate::port::View;
use crate::{Port, Site};

/// What an account stores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Mailboxes {
    pub account: AccountName,
    pub mailboxes: Vec<MailboxName>,
    pub stored_bytes: u64,
    pub stored_messages: u64,
}

/// A message in a mailbox. What names or quotes people is `null` if it was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct StoredMessage {
    pub msg_id: MsgId,
    pub account: AccountName,
    pub mailbox: MailboxName,
    /// What its timeline is found by.
    pub message: MessageUuid,
    pub received: Timestamp,
    pub size: u64,
    pub flags: Vec<String>,
    /// The reverse-path; also `null` for the null reverse-path.
    pub mail_from: Option<Address>,
    pub recipient: Option<Address>,
    /// The From field.
    pub from: Option<String>,
    pub subject: Option<String>,
    pub message_id: Option<String>,
}

#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
struct Whose {
    /// Whose. An account's login has only its own.
    account: Option<AccountName>,
}

#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
struct Listing {
    /// Whose. An account's login has only its own.
    account: Option<AccountName>,
    mailbox: Option<MailboxName>,
    /// Messages with numbers below this.
    cursor: Option<MsgId>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Inbox", "Mailboxes of an account and the messages in them.")
        .get("/mailboxes", "Show what an account stores", list_mailboxes::<P>)
        .get("/inbox", "List messages of a mailbox", list::<P>)
        .more("Newest first; of the mailbox Inbox if none is named.")
        .get("/inbox/{msg_id}", "Show a message", show::<P>)
        .delete("/inbox/{msg_id}", "Delete a message", remove::<P>)
        .get("/inbox/{msg_id}/raw", "Get a message as it was received", raw::<P>)
}

async fn list_mailboxes<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(whose): Query<Whose>,
) -> Result<Json<Mailboxes>, Problem> {
    let account = caller.one(whose.account)?;
    let found = read(&site, move |view| {
        existing(view, &account)?;
        let storage = mailboxes::storage(view, &account)?;
        let (stored_bytes, stored_messages) = (storage.octets, storage.messages);
        Ok(Mailboxes { account, mailboxes: storage.mailboxes, stored_bytes, stored_messages })
    });
    found.await.map(Json)
}

/// Newest first; of the mailbox Inbox if none is named.
async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(listing): Query<Listing>,
) -> Result<Json<Page<StoredMessage>>, Problem> {
    let account = caller.one(listing.account)?;
    let limit = limit(listing.limit)?;
    let list = read(&site, move |view| {
        existing(view, &account)?;
        let mailbox = listing.mailbox.unwrap_or_else(MailboxName::inbox);
        let before = listing.cursor.unwrap_or(MsgId(u64::MAX));
        let found = mailboxes::list(view, &account, &mailbox, before, limit)?;
        let next = found.last().filter(|_| found.len() == limit).map(|row| row.msg_id.to_string());
        Ok(Page { items: found.into_iter().map(message_of).collect(), next })
    });
    list.await.map(Json)
}

async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(msg_id): Path<MsgId>,
    Query(whose): Query<Whose>,
) -> Result<Json<StoredMessage>, Problem> {
    let account = caller.one(whose.account)?;
    read(&site, move |view| find(view, &account, msg_id)).await.map(|row| Json(message_of(row)))
}

/// The bytes of the message as they were received.
async fn raw<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(msg_id): Path<MsgId>,
    Query(whose): Query<Whose>,
) -> Result<Rfc822, Problem> {
    let account = caller.one(whose.account)?;
    let bytes = read(&site, move |view| {
        let row = find(view, &account, msg_id)?;
        view.body(&row.body).map_err(|e| Problem::internal(format!("the content of message {msg_id}: {e}")))
    });
    bytes.await.map(Rfc822)
}

/// A message.
struct Rfc822(Bytes);

impl IntoResponse for Rfc822 {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, "message/rfc822")], self.0).into_response()
    }
}

impl Output for Rfc822 {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        let content = Content::of("message/rfc822", Schema::default());
        operation.answers.push(Answer::new("200", "The bytes of the message.").with(content));
    }
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(msg_id): Path<MsgId>,
    Query(whose): Query<Whose>,
) -> Result<NoContent, Problem> {
    let command = DeleteMessage { account: caller.one(whose.account)?, msg_id, by: caller.author() };
    site.port.execute(Command::DeleteMessage(command)).await?;
    Ok(NoContent)
}

fn find(rows: &impl Rows, account: &AccountName, msg_id: MsgId) -> Result<MailboxMessageRow, Problem> {
    let row = mailboxes::message(rows, account, msg_id)?;
    row.ok_or_else(|| Refusal::NoSuch(Thing::Message(msg_id.to_string())).into())
}

fn message_of(row: MailboxMessageRow) -> StoredMessage {
    let p = row.personal;
    let (mail_from, recipient, from, subject, message_id) = match p {
        Some(p) => (p.mail_from, p.recipient, p.from, p.subject, p.message_id),
        None => (None, None, None, None, None),
    };
    StoredMessage {
        msg_id: row.msg_id,
        account: row.account,
        mailbox: row.mailbox,
        message: row.body.body,
        received: row.received,
        size: row.body.size,
        flags: row.flags,
        mail_from,
        recipient,
        from,
        subject,
        message_id,
    }
}
