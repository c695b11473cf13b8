//! Whether the program runs (`/healthz`) and whether it accepts mail (`/readyz`).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;

use crate::status::text;
use crate::{Port, Site};

pub fn router<P: Port>(site: Arc<Site<P>>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { text(StatusCode::OK, "ok") }))
        .route("/readyz", get(ready::<P>))
        .with_state(site)
}

async fn ready<P: Port>(State(site): State<Arc<Site<P>>>) -> Response {
    let status = site.port.status();
    let warnings = status.warnings.iter().map(|warning| format!("\ndegraded: {warning}")).collect::<String>();
    match status.accepting {
        Ok(()) => text(StatusCode::OK, &format!("ready{warnings}")),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}{warnings}")),
    }
}
