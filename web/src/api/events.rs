//! The records of the log, as they stand in it: in pages, or all that follow as JSON Lines.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use futures_util::stream;
use postledger_events::id::Seq;
use postledger_projections::accounts;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::caller::Caller;
use super::events_filter::{Conditions, Filter};
use super::extract::{Query, read};
use super::page::limit;
use super::problem::Problem;
use crate::port::View;
use crate::{Port, Site};

/// Records that one request, or one piece of an export, looks at.
const EXAMINED_MAX: usize = 5_000;
/// Records that are read at once.
const CHUNK: usize = 500;
/// How long a request may wait for something to happen.
const WAIT_MAX_S: u64 = 25;
/// The last record that a reader has seen, where `after` does not say it.
const LAST_EVENT_ID: &str = "last-event-id";

/// A part of the log. Records that were looked at and left out are counted as seen.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    /// Each exactly as it stands in the log.
    pub items: Vec<Box<RawValue>>,
    /// What to ask `after` to see what follows.
    pub next: Seq,
    /// The last record there is; nothing follows now if `next` has reached it.
    pub position: Seq,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    after: Option<Seq>,
    limit: Option<usize>,
    /// Seconds to wait for a record if there is none yet.
    #[serde(default)]
    wait_s: u64,
    account: Option<String>,
    message: Option<String>,
    recipient: Option<String>,
    kind: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

impl Listing {
    /// Where the reader has got to. Readers of event streams say it in a header (WHATWG server-sent events, Last-Event-ID).
    fn after(&self, headers: &HeaderMap) -> Result<Seq, Problem> {
        let last = headers.get(LAST_EVENT_ID).filter(|_| self.after.is_none());
        let parse = |last: &HeaderValue| last.to_str().ok()?.parse().ok();
        let last =
            last.map(|last| parse(last).ok_or_else(|| Problem::invalid("Last-Event-ID is no number of a record")));
        Ok(last.transpose()?.or(self.after).unwrap_or(Seq(0)))
    }

    fn filter(self, caller: &Caller) -> Result<Filter, Problem> {
        let Listing { account, message, recipient, kind, since, until, .. } = self;
        Filter::new(caller, Conditions { account, message, recipient, kind, since, until })
    }
}

pub fn routes<P: Port>() -> Router<Arc<Site<P>>> {
    Router::new().route("/events", get(list::<P>)).route("/events/export", get(export::<P>))
}

async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    headers: HeaderMap,
    Query(listing): Query<Listing>,
) -> Result<Json<Part>, Problem> {
    let (after, limit, wait_s) = (listing.after(&headers)?, limit(listing.limit)?, listing.wait_s.min(WAIT_MAX_S));
    let filter = Arc::new(listing.filter(&caller)?);
    if wait_s > 0 {
        read(&site, move |view| check_cursor(view, after)).await?;
        let waited = tokio::time::timeout(Duration::from_secs(wait_s), site.port.wait_past(after)).await;
        if waited.is_err() {
            let position = site.port.status().position;
            return Ok(Json(Part { items: Vec::new(), next: after, position }));
        }
    }
    let part = read(&site, move |view| {
        check_cursor(view, after)?;
        let (lines, next) = lines(view, &filter, after, limit)?;
        let items = lines.into_iter().map(raw).collect::<Result<_, _>>()?;
        Ok(Part { items, next, position: view.position() })
    });
    part.await.map(Json)
}

/// A cursor beyond a cut would pass over what this branch has in the place of what was cut off.
fn check_cursor<V: View>(view: &V, after: Seq) -> Result<(), Problem> {
    let gap = accounts::branches(view)?.into_iter().find(|gap| gap.from < after && after < gap.next);
    match gap {
        Some(gap) => Err(Problem::cut_off(after, gap.from)),
        None if after > view.position() => Err(Problem::cut_off(after, view.position())),
        None => Ok(()),
    }
}

fn raw(line: Vec<u8>) -> Result<Box<RawValue>, Problem> {
    let text = String::from_utf8(line).map_err(|e| Problem::internal(format!("a record is no text: {e}")))?;
    RawValue::from_string(text).map_err(|e| Problem::internal(format!("a record is no JSON: {e}")))
}

/// Up to `limit` lines after `after` that pass, and the last record looked at.
fn lines<V: View>(view: &V, filter: &Filter, after: Seq, limit: usize) -> Result<(Vec<Vec<u8>>, Seq), Problem> {
    let (mut found, mut seen, mut examined) = (Vec::new(), after, 0);
    while examined < EXAMINED_MAX && found.len() < limit {
        let chunk = view.lines_after(seen, CHUNK)?;
        if chunk.is_empty() {
            break;
        }
        for (seq, line) in chunk {
            if found.len() == limit {
                break;
            }
            if filter.passes(view, &line)? {
                found.push(line);
            }
            seen = seq;
            examined += 1;
        }
    }
    Ok((found, seen))
}

/// Everything after `after` that there is now, one record a line.
async fn export<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    headers: HeaderMap,
    Query(listing): Query<Listing>,
) -> Result<Response, Problem> {
    if listing.limit.is_some() || listing.wait_s != 0 {
        return Err(Problem::invalid("an export has no limit and waits for nothing"));
    }
    let after = listing.after(&headers)?;
    let filter = Arc::new(listing.filter(&caller)?);
    read(&site, move |view| check_cursor(view, after)).await?;
    let view = Arc::new(site.port.view());
    // A fault in the middle breaks the transfer off, so nobody takes a part for the whole.
    let pieces = stream::try_unfold(after, move |after| {
        let (view, filter) = (Arc::clone(&view), Arc::clone(&filter));
        async move {
            let piece = tokio::task::spawn_blocking(move || piece(&*view, &filter, after)).await;
            piece.map_err(io::Error::other)?
        }
    });
    let content_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((content_type, Body::from_stream(pieces)).into_response())
}

/// The next lines of an export; `None`: that was all.
fn piece<V: View>(view: &V, filter: &Filter, after: Seq) -> io::Result<Option<(Bytes, Seq)>> {
    let mut from = after;
    while from < view.position() {
        let (found, seen) = lines(view, filter, from, CHUNK).map_err(|p| io::Error::other(format!("{p:?}")))?;
        if !found.is_empty() {
            let mut bytes = found.join(&b'\n');
            bytes.push(b'\n');
            return Ok(Some((bytes.into(), seen)));
        }
        if seen == from {
            break;
        }
        from = seen;
    }
    Ok(None)
}
