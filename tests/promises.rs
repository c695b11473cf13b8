//! The promises, each in a file of its own, held against the real program.

mod boundaries;
mod events_doc;
mod server;
