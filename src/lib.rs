//! The program, as a library for its own binary and tests.

pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod decide;
pub mod deliver;
pub mod expiry;
pub mod files;
pub mod http;
pub mod jobs;
pub mod ledger;
pub mod mail;
pub mod metrics;
pub mod notify;
pub mod program;
pub mod receive;
pub mod run;
pub mod signers;
pub mod smtp;
pub mod submit;
pub mod webhook;
