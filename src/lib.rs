//! The program, as a library for its own binary and tests.

pub mod clock;
pub mod credentials;
pub mod decide;
pub mod deliver;
pub mod ledger;
pub mod mail;
pub mod program;
pub mod signers;
pub mod smtp;
pub mod submit;
