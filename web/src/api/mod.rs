//! The native API under `/api/v1/`: what the command line and the pages call. JSON in snake_case, times in RFC 3339.
//!
//! On the control socket the caller is a user of this machine; elsewhere HTTP Basic names `admin` or an account's address, or a
//! key comes as a bearer token.
//! An account's login sees and changes what is its own; a record of the log it sees if everything in it is its own.

mod about;
pub mod accounts;
pub mod addresses;
mod answer;
pub mod caller;
pub mod calls;
pub mod cursors;
pub mod dkim;
pub mod domains;
pub mod endpoints;
pub mod events;
mod events_filter;
mod events_stream;
mod extract;
pub mod holdrules;
pub mod inbox;
pub mod jobs;
pub mod keys;
mod ledger;
pub mod overview;
pub mod page;
pub mod place;
pub mod problem;
pub mod queue;
pub mod queue_act;
pub mod queue_redeliver;
pub mod queue_walk;
pub mod replays;
pub(crate) mod scopes;
pub mod suppressions;
pub mod tail;
pub mod timeline;
pub mod transports;
pub mod verify;

#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::{Extension, Router};
use tower_http::catch_panic::CatchPanicLayer;

use crate::openapi::{self, Documents, Table};
use crate::{Port, Site};
use caller::authenticate;
use problem::{Problem, panicked};

/// Where the API is.
pub const PREFIX: &str = "/api/v1";
/// Bytes of a request's body.
const BODY_BYTES_MAX: usize = 1024 * 1024;

pub fn router<P: Port>(site: Arc<Site<P>>) -> Router {
    // Only operators pass to their routes, whatever the handlers do; the others confine an account's login themselves.
    let (routes, mut entries) = routes::<P>().merge(operator_routes::<P>().for_operators()).into_parts();
    let (open, open_entries) = openapi::routes::<P>().into_parts();
    entries.extend(open_entries);
    let mount = site.config.webapi.clone();
    let documents = Documents::new(move || openapi::document(&entries, &mount));
    let api = routes
        .route_layer(from_fn_with_state(Arc::clone(&site), authenticate::<P>))
        .merge(open.route_layer(Extension(Arc::new(documents))))
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .fallback(|| async { Problem::not_found("there is nothing at this address") })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(site);
    Router::new().nest(PREFIX, api)
}

fn routes<P: Port>() -> Table<P> {
    accounts::routes()
        .merge(addresses::routes())
        .merge(cursors::routes())
        .merge(calls::routes())
        .merge(endpoints::routes())
        .merge(events::routes())
        .merge(events_stream::routes())
        .merge(inbox::routes())
        .merge(jobs::routes())
        .merge(keys::routes())
        .merge(queue::routes())
        .merge(queue_act::routes())
        .merge(queue_redeliver::routes())
        .merge(replays::routes())
        .merge(suppressions::routes())
        .merge(timeline::routes())
}

fn operator_routes<P: Port>() -> Table<P> {
    accounts::operator_routes()
        .merge(addresses::operator_routes())
        .merge(dkim::operator_routes())
        .merge(domains::operator_routes())
        .merge(holdrules::operator_routes())
        .merge(ledger::operator_routes())
        .merge(overview::operator_routes())
        .merge(transports::operator_routes())
        .merge(verify::operator_routes())
}
