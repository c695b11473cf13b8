//! One line in the program's log for each request, under an id that its answer carries: with what became of it, since each
//! line costs whoever waits for the answer. No path is logged as it came, since paths can hold addresses: the route that it
//! matched is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use postledger_events::command::Submitted;
use postledger_events::id::KeyId;
use postledger_events::time::Timestamp;
use tokio::time::Instant;
use tracing::field::Empty;
use tracing::{Instrument, Span};

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives out ids: the time of the start, and a count.
#[derive(Debug)]
pub struct RequestIds {
    started: u64,
    count: AtomicU64,
}

impl RequestIds {
    pub fn new(started: Timestamp) -> Arc<RequestIds> {
        let started = u64::try_from(started.as_nanos() / 1000).unwrap_or(0);
        Arc::new(RequestIds { started, count: AtomicU64::new(0) })
    }

    fn next(&self) -> String {
        format!("{:x}-{:x}", self.started, self.count.fetch_add(1, Ordering::Relaxed))
    }
}

/// Has this request's line, and all lines from here on that belong to it, tell which key it came with.
pub fn note_key(key: KeyId) {
    Span::current().record("key", key.0);
}

/// Has this request's line tell what was accepted.
pub fn note_submitted(submitted: &Submitted) {
    let span = Span::current();
    // Not `message`, which the log takes for a line's text.
    span.record("submitted", tracing::field::display(&submitted.message));
    span.record("recipients", submitted.recipients.len());
    if submitted.repeated {
        span.record("repeated", true);
    }
}

/// What a log line tells, and where the id is set.
pub async fn log(State(ids): State<Arc<RequestIds>>, request: Request, next: Next) -> Response {
    let id = ids.next();
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", MatchedPath::as_str).to_owned();
    let method = request.method().clone();
    let started = Instant::now();
    let span = tracing::info_span!("request", id, key = Empty, submitted = Empty, recipients = Empty, repeated = Empty);
    let mut response = next.run(request).instrument(span.clone()).await;
    let (status, micros) = (response.status().as_u16(), started.elapsed().as_micros());
    tracing::info!(parent: &span, %method, route, status, micros);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}
