//! The program, as a library for its own binary and tests.

pub mod decide;
pub mod mail;
pub mod smtp;
