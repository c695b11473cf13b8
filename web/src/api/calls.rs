//! Calls: what endpoints were told or are to be told, call by call.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use postledger_events::Command;
use postledger_events::command::CallsCommand;
use postledger_events::fact::call::{CallAbout, CallRef};
use postledger_events::fact::endpoint::OutgoingEvent;
use postledger_events::fact::job::{CallAction, CallFilter, CallPhase};
use postledger_events::id::{AccountName, DeliveryId, EndpointName, MessageUuid, MsgId, Seq};
use postledger_events::time::Timestamp;
use postledger_projections::Order;
use postledger_projections::calls::{self, CallRow, LastAttempt};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::endpoints::no_endpoint;
use super::extract::{Body, Path, Query, read};
use super::jobs::Started;
use super::page::{Looked, Page, bad_cursor, limit, look};
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// An endpoint is told of one fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Call {
    pub fact: Seq,
    pub place: u16,
    /// `null` for a received message.
    pub event: Option<OutgoingEvent>,
    pub delivery: Option<DeliveryId>,
    pub msg_id: Option<MsgId>,
    pub message: MessageUuid,
    pub queued: Timestamp,
    pub phase: CallPhase,
    /// When it is due, if it waits and no earlier one about the same delivery does.
    pub due: Option<Timestamp>,
    /// Since it was queued or last retried; a probe of a failing endpoint is none.
    pub attempts: u32,
    pub last: Option<LastAttempt>,
    /// The records that tell of its attempts.
    pub records: Vec<Seq>,
}

/// What to do, and with which calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(
    name = "CallsAct",
    example = r#"{"action": "retry", "filter": {"account": "mox", "endpoint": "shop", "phases": ["failed"]}}"#
)]
pub struct Act {
    pub action: CallAction,
    #[serde(default)]
    pub filter: CallFilter,
    /// A filter without any condition means all calls and must be confirmed.
    #[serde(default)]
    pub all: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    phase: Option<CallPhase>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Calls", "What endpoints were told or are to be told, call by call.")
        .post("/calls", "Retry or cancel calls", act::<P>)
        .get("/endpoints/{account}/{endpoint}/calls", "List an endpoint's calls", list::<P>)
        .more("Newest first. A page may be short, even empty, and have a next.")
        .get("/endpoints/{account}/{endpoint}/calls/{fact}/{place}", "Show a call", show::<P>)
}

/// Newest first.
async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((account, endpoint)): Path<(AccountName, EndpointName)>,
    Query(asked): Query<Asked>,
) -> Result<Json<Page<Call>>, Problem> {
    let account = caller.one(Some(account))?;
    let limit = limit(asked.limit)?;
    let before = asked.cursor.as_deref().map_or(Ok(calls::LAST), parse_cursor)?;
    let page = read(&site, move |view| {
        if calls::endpoint(view, &account, &endpoint)?.is_none() {
            return Err(no_endpoint(&account, &endpoint));
        }
        let older = |before: CallRef, size: usize| {
            calls::list(view, &account, &endpoint, (calls::FIRST, before), Order::Descending, size)
        };
        let is_meant = |row: &CallRow| asked.phase.is_none_or(|phase| row.state.phase() == phase);
        let Looked { mut found, end } = look(limit, before, older, |row| row.call, is_meant)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = if more { found.last().map(|row| row.call) } else { end };
        let items = found.into_iter().map(call_of).collect();
        Ok(Page { items, next: next.map(|call| format!("{}-{}", call.fact, call.place)) })
    });
    page.await.map(Json)
}

async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((account, endpoint, fact, place)): Path<(AccountName, EndpointName, Seq, u16)>,
) -> Result<Json<Call>, Problem> {
    let account = caller.one(Some(account))?;
    let shown = read(&site, move |view| {
        let row = calls::call(view, &account, &endpoint, CallRef { fact, place })?;
        let missing = || Problem::not_found(format!("endpoint {endpoint} has no call {fact}/{place}, or not any more"));
        row.map(call_of).ok_or_else(missing)
    });
    shown.await.map(Json)
}

async fn act<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Body(act): Body<Act>,
) -> Result<Started, Problem> {
    let Act { action, mut filter, all } = act;
    if filter == CallFilter::default() && !all {
        return Err(Problem::invalid("a filter without any condition means all calls; say so with all"));
    }
    filter.account = caller.scope(filter.account.take())?;
    let command = CallsCommand { filter, action, by: caller.author() };
    Started::of(site.port.execute(Command::Calls(command)).await?)
}

fn parse_cursor(cursor: &str) -> Result<CallRef, Problem> {
    let parsed = cursor
        .split_once('-')
        .and_then(|(fact, place)| Some(CallRef { fact: Seq(fact.parse().ok()?), place: place.parse().ok()? }));
    parsed.ok_or_else(bad_cursor)
}

fn call_of(row: CallRow) -> Call {
    let is_first = row.state.phase() == CallPhase::Waiting && row.earlier.is_none();
    let (event, delivery, msg_id) = match row.about {
        CallAbout::Delivery(id, event) => (Some(event), Some(id), None),
        CallAbout::Message(id) => (None, None, Some(id)),
    };
    // The row of a call that waits counts the attempts behind it; the one that ended it has its own number.
    let attempts = match (&row.last, row.ended) {
        (Some(last), Some(_)) => last.attempt,
        _ => row.attempts,
    };
    Call {
        fact: row.call.fact,
        place: row.call.place,
        event,
        delivery,
        msg_id,
        message: row.message,
        queued: row.queued,
        phase: row.state.phase(),
        due: Some(row.due).filter(|_| is_first),
        attempts,
        last: row.last,
        records: row.records,
    }
}
