//! lib
pub mod smtp;
