//! The vocabulary of the ledger: what facts, commands and refusals are, and how facts are written down.
//! No I/O, no clock, no dice.

pub mod address;
pub mod command;
pub mod draft;
pub mod event;
pub mod fact;
pub mod id;
pub mod record;
pub mod refusal;
pub mod reply;
mod text;
pub mod time;

pub use command::{Answer, Command};
pub use event::Event;
pub use record::Record;
pub use refusal::Refusal;
