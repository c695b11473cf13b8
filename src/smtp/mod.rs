//! SMTP (RFC 5321), both sides: the protocol without input or output, and [`drive`], which runs it over tokio.
//!
//! Nothing here but `drive` knows sockets, TLS or time, and nothing at all knows the ledger.

pub mod client;
pub mod command;
pub mod data;
pub mod drive;
pub mod reply;
pub mod server;
pub mod tls;
