//! How far groups of consumers have read: a place in the log under a name, kept for them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use postledger_events::command::{RemoveCursor, SetCursor};
use postledger_events::id::{AccountName, CursorName, Seq};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Command, Refusal};
use postledger_projections::access::{self, CursorRow};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::extract::{Body, Path, Query, read};
use super::page::{Page, Paging};
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// A place in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Cursor {
    /// `null`: the operators'.
    pub account: Option<AccountName>,
    pub cursor: CursorName,
    /// Everything up to this record has been dealt with.
    pub seq: Seq,
    pub set: Timestamp,
    pub by: String,
}

/// Where to move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(name = "CursorPlace")]
pub struct Place {
    pub seq: Seq,
}

/// Whose cursors are meant; an account's login has only its own. An operator who names no account means the operators'.
#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
struct Owner {
    account: Option<AccountName>,
}

#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
struct Listing {
    /// Whose. An account's login has only its own.
    account: Option<AccountName>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Cursors", "How far groups of consumers have read: a place in the log under a name, kept for them.")
        .get("/cursors", "List cursors", list::<P>)
        .get("/cursors/{cursor}", "Show a cursor", show::<P>)
        .put("/cursors/{cursor}", "Move a cursor", set::<P>)
        .more("Both ways; one that is not there yet is made.")
        .delete("/cursors/{cursor}", "Remove a cursor", remove::<P>)
}

/// By name.
async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(listing): Query<Listing>,
) -> Result<Json<Page<Cursor>>, Problem> {
    let account = caller.scope(listing.account)?;
    let paging = Paging { cursor: listing.cursor, limit: listing.limit };
    let list = read(&site, move |view| {
        let all = access::cursors(view, account.as_ref(), usize::MAX)?;
        paging.cut(all.into_iter().map(cursor_of).collect(), |cursor: &Cursor| cursor.cursor.to_string())
    });
    list.await.map(Json)
}

async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(name): Path<CursorName>,
    Query(Owner { account }): Query<Owner>,
) -> Result<Json<Cursor>, Problem> {
    find(&site, caller.scope(account)?, name).await.map(cursor_of).map(Json)
}

async fn set<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(cursor): Path<CursorName>,
    Query(Owner { account }): Query<Owner>,
    Body(Place { seq }): Body<Place>,
) -> Result<NoContent, Problem> {
    let command = SetCursor { account: caller.scope(account)?, cursor, seq, by: caller.author() };
    site.port.execute(Command::SetCursor(command)).await?;
    Ok(NoContent)
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(cursor): Path<CursorName>,
    Query(Owner { account }): Query<Owner>,
) -> Result<NoContent, Problem> {
    let command = RemoveCursor { account: caller.scope(account)?, cursor, by: caller.author() };
    site.port.execute(Command::RemoveCursor(command)).await?;
    Ok(NoContent)
}

/// The cursor of this name, or the problem that there is none.
pub async fn find<P: Port>(
    site: &Arc<Site<P>>,
    account: Option<AccountName>,
    name: CursorName,
) -> Result<CursorRow, Problem> {
    let row = read(site, move |view| {
        let row = access::cursor(view, account.as_ref(), &name)?;
        row.ok_or_else(|| Refusal::NoSuch(Thing::Cursor(name.to_string())).into())
    });
    row.await
}

fn cursor_of(row: CursorRow) -> Cursor {
    let CursorRow { account, cursor, seq, set, by } = row;
    Cursor { account, cursor, seq, set, by: by.0 }
}
