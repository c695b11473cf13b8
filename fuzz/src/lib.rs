//! What every reader of bytes from outside promises, whatever it is given. Each `check` takes any bytes and panics if a promise
//! is broken: `make fuzz` calls it with what libFuzzer makes up, tests/fuzz.rs with the inputs in seeds/.

pub mod address;
pub mod http_request;
pub mod import;
pub mod message;
pub mod record;
pub mod smtp_client;
pub mod smtp_server;
