//! The promises, each in a file of its own, held against the real program.

mod boundaries;
mod conformance;
mod events_doc;
mod intake;
mod peers;
mod secrets;
mod server;
