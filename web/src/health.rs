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
    match site.port.status().accepting {
        Ok(()) => text(StatusCode::OK, "ready"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}
