//! Records as they are written, as a stream of server-sent events (WHATWG HTML §9.2): each with its number as the id, so that a
//! client that was cut off goes on where it was.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{FutureExt, stream};
use tokio::time::Instant;

use super::caller::Caller;
use super::events::{ABOUT, Bounds, Found, Listing, TAG, check_cursor, look};
use super::events_filter::Filter;
use super::extract::{LastEventId, Query, read};
use super::problem::Problem;
use super::tail::{Follower, Tail};
use crate::openapi::{Answer, Content, Operation, Output, Schema, Schemas, Table};
use crate::port::View;
use crate::{Port, Site};

/// From one sign of life to the next.
const BEAT: Duration = Duration::from_secs(15);
/// How long a client shall wait before it connects again.
const RETRY_MS: u32 = 3_000;
/// Of one stream that are in memory and that the connection has not taken yet.
const PIECE: Bounds = Bounds { records: 100, bytes: 64 * 1024 };
/// Asks proxies to pass everything on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

pub fn routes<P: Port>() -> Table<P> {
    Table::of(TAG, ABOUT).get("/events/stream", "Get records as they are written", open::<P>).more(
        "Server-sent events: `id` is the record's `seq`, `event` its kind, `data` its line. It begins behind Last-Event-ID, or else \
         `after`, or a `cursor`, or else with what comes from now on.",
    )
}

/// Begins behind what the client had last, or behind `after` or a cursor, or else with what comes from now on.
async fn open<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    LastEventId(last): LastEventId,
    Query(listing): Query<Listing>,
) -> Result<EventStream, Problem> {
    if !listing.is_endless() {
        return Err(Problem::invalid("a stream has no limit and waits as long as you like"));
    }
    let (filter, after) = listing.understood(&site, &caller).await?;
    // A client that connects again sends the address that it was given at first, and what it had last.
    let after = last.or(after).unwrap_or_else(|| site.port.view().position());
    read(&site, move |view| check_cursor(view, after)).await?;
    let follower = Tail::stream(&site.port, filter.account().cloned(), after)?;
    let stream = Stream { site, caller, filter: Arc::new(filter), follower, beat: Instant::now(), is_new: true };
    let pieces = stream::unfold(stream, Stream::piece);
    Ok(EventStream(Body::from_stream(pieces)))
}

/// A body that goes on as long as somebody listens.
struct EventStream(Body);

impl IntoResponse for EventStream {
    fn into_response(self) -> Response {
        const HEADERS: [(HeaderName, &str); 3] = [
            (header::CONTENT_TYPE, "text/event-stream"),
            (header::CACHE_CONTROL, "no-store"),
            (X_ACCEL_BUFFERING, "no"),
        ];
        (HEADERS, self.0).into_response()
    }
}

impl Output for EventStream {
    fn describe(operation: &mut Operation, _: &mut Schemas) {
        let content = Content::of("text/event-stream", Schema::default());
        operation.answers.push(Answer::new("200", "Server-sent events.").with(content));
    }
}

struct Stream<P: Port> {
    site: Arc<Site<P>>,
    caller: Caller,
    filter: Arc<Filter>,
    follower: Follower<P>,
    /// When the next sign of life is due.
    beat: Instant,
    is_new: bool,
}

impl<P: Port> Stream<P> {
    /// The next piece, made when the connection asks for it. `None`: it ends; the client may come again.
    async fn piece(mut self) -> Option<(io::Result<Bytes>, Stream<P>)> {
        loop {
            if self.site.port.stopping().now_or_never().is_some() {
                return None;
            }
            if self.beat <= Instant::now() {
                return self.sign_of_life();
            }
            let found = match look(&self.site, &self.filter, &mut self.follower, PIECE).await {
                Err(problem) => return self.broken(&format!("{problem:?}")),
                Ok(look) if look.examined == 0 => match self.woken().await {
                    Some(true) => continue,
                    Some(false) => return self.broken("the log cannot be followed any more"),
                    None => return None,
                },
                Ok(look) => look.found,
            };
            if !found.is_empty() {
                return Some((Ok(events(&found)), self));
            }
        }
    }

    /// Returns when there may be something to do; `None`: the program stops.
    async fn woken(&mut self) -> Option<bool> {
        tokio::select! {
            biased;
            () = self.site.port.stopping() => None,
            woken = self.follower.woken() => Some(woken.is_ok()),
            () = tokio::time::sleep_until(self.beat) => Some(true),
        }
    }

    /// Shows that the connection is alive and how far it is, also to proxies, and whether anybody is at its end. `None`: the
    /// caller may not see it any more.
    fn sign_of_life(mut self) -> Option<(io::Result<Bytes>, Stream<P>)> {
        match self.caller.is_welcome(&self.site.port.view(), self.site.port.now()) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(problem) => return self.broken(&format!("{problem:?}")),
        }
        self.beat = Instant::now() + BEAT;
        let retry = if self.is_new { format!("retry: {RETRY_MS}\n") } else { String::new() };
        self.is_new = false;
        // Without data it is no event, but the client keeps the id and goes on from there if it is cut off.
        let text = format!(": at record {at}\n{retry}id: {at}\n\n", at = self.follower.at());
        Some((Ok(text.into()), self))
    }

    /// Breaks the transfer off, so nobody takes it for an end.
    fn broken(self, why: &str) -> Option<(io::Result<Bytes>, Stream<P>)> {
        tracing::error!("a stream of events is broken off: {why}");
        Some((Err(io::Error::other("the stream is broken off")), self))
    }
}

/// Lines of JSON have no line breaks in them, so each is one field.
fn events(found: &[Found]) -> Bytes {
    let bytes = found.iter().map(|found| found.line.len() + 80).sum();
    let mut text = Vec::with_capacity(bytes);
    for Found { seq, kind, line } in found {
        write!(text, "id: {seq}\nevent: {kind}\ndata: ").expect("a Vec takes all");
        text.extend_from_slice(line);
        text.extend_from_slice(b"\n\n");
    }
    text.into()
}
