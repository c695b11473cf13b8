//! Runs the protocol over tokio: sockets, TLS and time limits. The only part of [`crate::smtp`] that waits.

pub use client::{Client, Report, SessionFacts, Spent, Target, Timeouts};
pub use serve::{Handler, ServerConfig, ServerTimeouts, serve};
pub use tls::{ClientTls, TlsMode};

mod client;
mod serve;
mod tls;
mod wire;
