//! The promises, each in a file of its own, held against the real program.

mod crash;
mod server;
mod sink;
