//! Runs the protocol over tokio: sockets, TLS and time limits. The only part of [`crate::smtp`] that waits.

