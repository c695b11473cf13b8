//! The message format, pure: bytes, times and random bytes come in as arguments, bytes go out.

pub mod compose;
pub mod contents;
pub mod dkim;
pub mod dsn;
pub mod header;
mod mime;
pub mod read;
mod sniff;
pub mod trace;
