//! The promises, each in a file of its own, held against the real program.

mod conformance;
mod intake;
mod peers;
mod server;
