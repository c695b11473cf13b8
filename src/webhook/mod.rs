//! Reactor: calls endpoints with what happened to an account's mail, and records the outcome.

pub mod payload;
pub mod sign;
