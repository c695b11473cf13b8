//! The story of a message: every record about it, in order.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use postledger_events::id::{DeliveryId, MessageUuid, Seq};
use postledger_events::refusal::Thing;
use postledger_events::{Record, Refusal};
use postledger_projections::{Rows, deliveries, timeline};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::about::About;
use super::caller::Caller;
use super::extract::{Path, Query, read};
use super::page::limit;
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::port::View;
use crate::{Port, Site};

/// The projection that timelines are read from.
const PROJECTION: &str = "timeline";

/// Records about a message, oldest first.
#[derive(Debug, Serialize, Deserialize, Describe)]
pub struct Timeline {
    pub message: MessageUuid,
    /// Each exactly as it stands in the log.
    pub items: Vec<Box<RawValue>>,
    /// What to ask `after` to see what follows; `null`: nothing follows.
    pub next: Option<Seq>,
    /// While timelines are being rebuilt: the record up to which they are complete.
    pub as_of: Option<Seq>,
}

#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
struct Listing {
    #[serde(default)]
    after: Seq,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Messages", "The story of a message.")
        .get("/messages/{id}/timeline", "Show every record about a message, in order", show::<P>)
        .more(
            "The id is the message's uuid or the number of one of its deliveries. An account's login sees the records that are \
             wholly its own.",
        )
}

/// `id` is the message's uuid or the number of one of its deliveries. An account's login sees the records that are wholly its
/// own.
async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(id): Path<String>,
    Query(listing): Query<Listing>,
) -> Result<Json<Timeline>, Problem> {
    let limit = limit(listing.limit)?;
    let lagging = site.port.status().lagging;
    let as_of = lagging.into_iter().find(|(name, _)| name == PROJECTION).map(|(_, seq)| seq);
    let timeline = read(&site, move |view| {
        let message = resolve(view, &caller, &id)?;
        let (items, next) = visible(view, &caller, message, listing.after, limit)?;
        if items.is_empty() && listing.after == Seq::default() {
            return Err(no_such(&id));
        }
        Ok(Timeline { message, items, next, as_of })
    });
    timeline.await.map(Json)
}

/// Up to `limit` records after `after` that the caller may see, and where to go on if there may be more.
fn visible<V: View>(
    view: &V,
    caller: &Caller,
    message: MessageUuid,
    after: Seq,
    limit: usize,
) -> Result<(Vec<Box<RawValue>>, Option<Seq>), Problem> {
    let (mut items, mut seen) = (Vec::new(), after);
    loop {
        let seqs = timeline::of(view, message, seen, limit)?;
        if seqs.is_empty() {
            return Ok((items, None));
        }
        for seq in &seqs {
            if items.len() == limit {
                return Ok((items, Some(seen)));
            }
            let line = view.record_line(*seq)?;
            let line =
                line.ok_or_else(|| Problem::internal(format!("record {seq} is gone; run `postledger verify`")))?;
            if is_visible(caller, &line)? {
                items.push(serde_json::from_slice(&line).map_err(|e| Problem::internal(e.to_string()))?);
            }
            seen = *seq;
        }
    }
}

fn resolve(rows: &impl Rows, caller: &Caller, id: &str) -> Result<MessageUuid, Problem> {
    if let Ok(number) = id.parse::<DeliveryId>() {
        let row = deliveries::delivery(rows, number)?;
        let own = row.filter(|row| caller.confined().is_none_or(|account| *account == row.account));
        return Ok(own.ok_or_else(|| no_such(id))?.message);
    }
    id.parse()
        .map_err(|_| Problem::invalid(format!("{id:?} is neither the number of a delivery nor the uuid of a message")))
}

fn is_visible(caller: &Caller, line: &[u8]) -> Result<bool, Problem> {
    match caller.confined() {
        None => Ok(true),
        Some(own) => Ok(About::of(&Record::decode(line)?.event).is_only(own)),
    }
}

/// The same for what is not there and what is not this caller's.
fn no_such(id: &str) -> Problem {
    Refusal::NoSuch(Thing::Message(id.to_owned())).into()
}
