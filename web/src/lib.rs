//! HTTP: the only place that knows request and response bodies, status codes and HTML.

pub mod api;
pub mod auth;
pub mod csrf;
pub mod health;
pub mod mount;
mod openapi;
pub mod peer;
pub mod port;
pub mod request_log;
pub mod status;
pub mod webapi;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use tokio::sync::Semaphore;

pub use mount::Mount;
pub use peer::{LocalUser, Peer};
pub use port::Port;
use status::Fault;

/// KiB of request bodies held in memory at once, over all listeners and protocols.
pub const INTAKE_KIB_MAX: usize = 256 * 1024;
/// Bytes of one message.
pub const MESSAGE_BYTES_MAX: u64 = 100 * 1024 * 1024;

/// How one listener serves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the webapi is.
    pub webapi: Mount,
    /// Clients come through a proxy that says in X-Forwarded-For who they are.
    pub forwarded: bool,
    /// Bytes of one message; files of one request may not be more together.
    pub message_bytes_max: u64,
    /// Permits of one KiB each; bounds what all requests together hold in memory.
    pub intake: Arc<Semaphore>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            webapi: Mount::default(),
            forwarded: false,
            message_bytes_max: MESSAGE_BYTES_MAX,
            intake: Arc::new(Semaphore::new(INTAKE_KIB_MAX)),
        }
    }
}

/// What every handler has at hand.
pub struct Site<P> {
    pub port: Arc<P>,
    pub config: Config,
}

/// Everything that one listener serves. Requests carry a [`Peer`] extension from the accept loop.
pub fn router<P: Port>(port: Arc<P>, config: Config) -> Router {
    let ids = request_log::RequestIds::new(port.now());
    let site = Arc::new(Site { port, config });
    Router::new()
        .merge(health::router(Arc::clone(&site)))
        .merge(api::router(Arc::clone(&site)))
        .merge(webapi::router(site))
        .fallback(|| async { Fault::NotFound })
        .layer(map_response(with_safety_headers))
        .layer(from_fn_with_state(ids, request_log::log))
}

/// A handler that sets one of these itself keeps its own.
async fn with_safety_headers(mut response: Response) -> Response {
    const SAFETY: [(HeaderName, &str); 4] = [
        (header::X_FRAME_OPTIONS, "deny"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'self' 'unsafe-inline' data:"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in SAFETY {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
