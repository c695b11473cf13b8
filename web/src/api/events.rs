//! The records of the log, as they stand in it: in pages, or all that follow as JSON Lines.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures_util::stream;
use postledger_events::Record;
use postledger_events::id::{CursorName, Seq};
use postledger_events::record::Envelope;
use postledger_projections::accounts;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::answer::Lines as JsonLines;
use super::caller::Caller;
use super::cursors;
use super::events_filter::{Conditions, Filter};
use super::extract::{LastEventId, Query, read};
use super::page::limit;
use super::problem::Problem;
use super::tail::{Entry, Follower, Next, Tail};
use crate::openapi::{Describe, Table};
use crate::port::{PART_BYTES, View};
use crate::{Port, Site};

/// Records that one request, or one piece of an export, looks at.
const EXAMINED_MAX: usize = 5_000;
/// Records that are read at once.
const CHUNK: usize = 500;
/// How long a request may wait for something to happen.
const WAIT_MAX_S: u64 = 25;

/// A part of the log. Records that were looked at and left out are counted as seen.
#[derive(Debug, Serialize, Deserialize, Describe)]
#[describe(name = "Records")]
pub struct Part {
    /// Each exactly as it stands in the log.
    pub items: Vec<Box<RawValue>>,
    /// What to ask `after` to see what follows.
    pub next: Seq,
    /// The last record there is; nothing follows now if `next` has reached it.
    pub position: Seq,
}

/// Which records are asked for, and where to begin.
#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub(super) struct Listing {
    /// Begin behind this record.
    after: Option<Seq>,
    /// Begin behind the place that is kept under this name.
    cursor: Option<CursorName>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
    /// Seconds to wait for a record if there is none yet.
    #[serde(default)]
    wait_s: u64,
    account: Option<String>,
    /// Its uuid.
    message: Option<String>,
    /// An address: records about deliveries to it, and records that name it.
    recipient: Option<String>,
    /// Names of kinds, with commas between.
    kind: Option<String>,
    /// Written at or after this time.
    since: Option<String>,
    /// Written before this time.
    until: Option<String>,
}

impl Listing {
    pub(super) fn is_endless(&self) -> bool {
        self.limit.is_none() && self.wait_s == 0
    }

    /// The filter, and the record behind which to begin, if the request says so.
    pub(super) async fn understood<P: Port>(
        self,
        site: &Arc<Site<P>>,
        caller: &Caller,
    ) -> Result<(Filter, Option<Seq>), Problem> {
        let Listing { after, cursor, account, message, recipient, kind, since, until, .. } = self;
        let without_cursors = cursor.is_some();
        let filter =
            Filter::new(caller, Conditions { account, message, recipient, kind, since, until, without_cursors })?;
        let after = match (after, cursor) {
            (Some(_), Some(_)) => return Err(Problem::invalid("say after or cursor, not both")),
            (after, None) => after,
            (None, Some(name)) => Some(cursors::find(site, filter.account().cloned(), name).await?.seq),
        };
        Ok((filter, after))
    }
}

pub const TAG: &str = "Events";
pub const ABOUT: &str =
    "The records of the log, as they stand in it. An account's login gets those that are wholly its own.";

pub fn routes<P: Port>() -> Table<P> {
    Table::of(TAG, ABOUT)
        .get("/events", "Get the next records, or wait for them", list::<P>)
        .more("`items` may be few, even none, although `next` has not reached `position`: ask again with `after=next`.")
        .get("/events/export", "Get all records as JSON Lines", export::<P>)
}

async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    LastEventId(last): LastEventId,
    Query(listing): Query<Listing>,
) -> Result<Json<Part>, Problem> {
    let (limit, wait_s) = (limit(listing.limit)?, listing.wait_s.min(WAIT_MAX_S));
    let (filter, after) = listing.understood(&site, &caller).await?;
    let after = after.or(last).unwrap_or_default();
    if wait_s > 0 {
        return wait(&site, filter, after, limit, Duration::from_secs(wait_s)).await.map(Json);
    }
    let part = read(&site, move |view| {
        check_cursor(view, after)?;
        let Lines { found, seen: next, .. } =
            lines(view, &filter, after, Bounds { records: limit, bytes: PART_BYTES })?;
        let items = found.into_iter().map(|(_, line)| raw(line)).collect::<Result<_, _>>()?;
        Ok(Part { items, next, position: view.position() })
    });
    part.await.map(Json)
}

/// Answers when there is something that passes, time is over, or many records were looked at in vain.
async fn wait<P: Port>(
    site: &Arc<Site<P>>,
    filter: Filter,
    after: Seq,
    limit: usize,
    time: Duration,
) -> Result<Part, Problem> {
    read(site, move |view| check_cursor(view, after)).await?;
    let end = Instant::now() + time;
    let mut follower = Tail::follow(&site.port, filter.account().cloned(), after);
    let (filter, mut examined) = (Arc::new(filter), 0);
    let bounds = Bounds { records: limit, bytes: PART_BYTES };
    loop {
        let mut found = look(site, &filter, &mut follower, bounds).await?;
        examined += found.examined;
        let mut is_over = !found.found.is_empty() || examined >= EXAMINED_MAX;
        if !is_over && found.examined == 0 && is_time_over(site, &mut follower, end).await {
            // What came in meanwhile for others counts as seen.
            (is_over, found) = (true, look(site, &filter, &mut follower, bounds).await?);
        }
        if is_over {
            let items = found.found.iter().map(|found| raw(found.line.to_vec())).collect::<Result<_, _>>()?;
            let position = site.port.view().position().max(follower.at());
            return Ok(Part { items, next: follower.at(), position });
        }
    }
}

/// Waits for something new, and says whether there was no time for that.
async fn is_time_over<P: Port>(site: &Site<P>, follower: &mut Follower<P>, end: Instant) -> bool {
    tokio::select! {
        () = site.port.stopping() => true,
        woken = timeout_at(end, follower.woken()) => !matches!(woken, Ok(Ok(()))),
    }
}

/// What a follower finds next.
pub(super) struct Look {
    pub(super) found: Vec<Found>,
    /// Records that were looked at. None: there is nothing new.
    pub(super) examined: usize,
}

/// How much may be found at once. One record may be larger than that.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// A record that passes.
pub(super) struct Found {
    pub(super) seq: Seq,
    pub(super) kind: String,
    pub(super) line: Bytes,
}

/// Has a follower look at what comes next, in the ring or in the log.
pub(super) async fn look<P: Port>(
    site: &Arc<Site<P>>,
    filter: &Arc<Filter>,
    follower: &mut Follower<P>,
    bounds: Bounds,
) -> Result<Look, Problem> {
    let (look, seen) = match follower.look() {
        Next::Nothing => return Ok(Look { found: Vec::new(), examined: 0 }),
        Next::Recent(entries) => recent(site, filter, entries, bounds).await?,
        Next::Older => {
            let _reader = site.port.tail().reader().await;
            let (filter, after) = (Arc::clone(filter), follower.at());
            read(site, move |view| older(view, &filter, after, bounds)).await?
        }
    };
    follower.seen(seen);
    Ok(look)
}

async fn recent<P: Port>(
    site: &Arc<Site<P>>,
    filter: &Arc<Filter>,
    entries: Vec<Arc<Entry>>,
    bounds: Bounds,
) -> Result<(Look, Seq), Problem> {
    if filter.reads_rows() {
        let filter = Arc::clone(filter);
        return read(site, move |view| passing(view, &filter, entries, bounds)).await;
    }
    passing(&site.port.view(), filter, entries, bounds)
}

/// The entries that pass, and the last one looked at.
fn passing<V: View>(
    view: &V,
    filter: &Filter,
    entries: Vec<Arc<Entry>>,
    bounds: Bounds,
) -> Result<(Look, Seq), Problem> {
    let (mut look, mut seen, mut bytes) = (Look { found: Vec::new(), examined: 0 }, Seq::default(), 0);
    for entry in entries {
        if look.found.len() == bounds.records || bytes >= bounds.bytes {
            break;
        }
        let Record { seq, event, .. } = &entry.record;
        if filter.passes_record(view, &entry.record)? {
            bytes += entry.line.len();
            look.found.push(Found { seq: *seq, kind: event.kind().to_owned(), line: entry.line.clone() });
        }
        seen = *seq;
        look.examined += 1;
    }
    Ok((look, seen))
}

/// The same from the log.
fn older<V: View>(view: &V, filter: &Filter, after: Seq, bounds: Bounds) -> Result<(Look, Seq), Problem> {
    let Lines { found, seen, examined } = lines(view, filter, after, bounds)?;
    let found = found.into_iter().map(|(seq, line)| {
        let kind = Envelope::decode(&line)?.kind.into_owned();
        Ok::<_, Problem>(Found { seq, kind, line: line.into() })
    });
    Ok((Look { found: found.collect::<Result<_, _>>()?, examined }, seen))
}

/// A cursor beyond a cut would pass over what this branch has in the place of what was cut off.
pub(super) fn check_cursor<V: View>(view: &V, after: Seq) -> Result<(), Problem> {
    let last_common = accounts::last_common(view, after, view.position())?;
    last_common.map_or(Ok(()), |last_common| Err(Problem::cut_off(after, last_common)))
}

fn raw(line: Vec<u8>) -> Result<Box<RawValue>, Problem> {
    let text = String::from_utf8(line).map_err(|e| Problem::internal(format!("a record is no text: {e}")))?;
    RawValue::from_string(text).map_err(|e| Problem::internal(format!("a record is no JSON: {e}")))
}

/// Lines that pass, the last record looked at, and how many were.
struct Lines {
    found: Vec<(Seq, Vec<u8>)>,
    seen: Seq,
    examined: usize,
}

fn lines<V: View>(view: &V, filter: &Filter, after: Seq, bounds: Bounds) -> Result<Lines, Problem> {
    let (mut lines, mut bytes) = (Lines { found: Vec::new(), seen: after, examined: 0 }, 0);
    let is_full = |found: &Vec<_>, bytes| found.len() == bounds.records || bytes >= bounds.bytes;
    while lines.examined < EXAMINED_MAX && !is_full(&lines.found, bytes) {
        let chunk = view.lines_after(lines.seen, CHUNK)?;
        if chunk.is_empty() {
            break;
        }
        for (seq, line) in chunk {
            if is_full(&lines.found, bytes) {
                break;
            }
            if filter.passes(view, &line)? {
                bytes += line.len();
                lines.found.push((seq, line));
            }
            lines.seen = seq;
            lines.examined += 1;
        }
    }
    Ok(lines)
}

/// Everything after `after` that there is now, one record a line.
async fn export<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    LastEventId(last): LastEventId,
    Query(listing): Query<Listing>,
) -> Result<JsonLines<Box<RawValue>>, Problem> {
    if !listing.is_endless() {
        return Err(Problem::invalid("an export has no limit and waits for nothing"));
    }
    let (filter, after) = listing.understood(&site, &caller).await?;
    let (filter, after) = (Arc::new(filter), after.or(last).unwrap_or_default());
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
    Ok(JsonLines::new(Body::from_stream(pieces)))
}

/// The next lines of an export; `None`: that was all.
fn piece<V: View>(view: &V, filter: &Filter, after: Seq) -> io::Result<Option<(Bytes, Seq)>> {
    let mut from = after;
    while from < view.position() {
        let bounds = Bounds { records: CHUNK, bytes: PART_BYTES };
        let Lines { found, seen, .. } =
            lines(view, filter, from, bounds).map_err(|p| io::Error::other(format!("{p:?}")))?;
        if !found.is_empty() {
            let bytes = found.into_iter().flat_map(|(_, line)| line.into_iter().chain([b'\n'])).collect::<Vec<u8>>();
            return Ok(Some((bytes.into(), seen)));
        }
        if seen == from {
            break;
        }
        from = seen;
    }
    Ok(None)
}
