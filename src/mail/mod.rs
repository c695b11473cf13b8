//! The message format, pure: bytes, times and random bytes come in as arguments, bytes go out.

pub mod compose;
pub mod header;
mod mime;
pub mod read;
mod sniff;
pub mod trace;
