//! The promises, each in a file of its own, held against the real program.

mod boundaries;
mod crash;
mod logs;
mod model;
mod server;
mod sink;
