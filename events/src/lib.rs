//! The vocabulary of the ledger. No I/O, no clock, no dice.

pub mod address;
pub mod reply;
pub mod time;
