//! What every reader of bytes from outside promises, whatever it is given. Each `check` takes any bytes and panics if a promise
//! is broken: `make fuzz` calls it with what libFuzzer makes up, tests/fuzz.rs with the inputs in seeds/.

pub mod address;
pub mod http_request;
pub mod import;
pub mod message;
pub mod record;
pub mod smtp_client;
pub mod smtp_server;
pub mod token;
pub mod vault;
pub mod webhook_answer;

/// A place, and how many bytes are taken away there.
const CHANGE_BYTES: usize = 3;

/// What is sound, with a change that begins so; what else there is of the change comes instead.
fn changed(sound: &[u8], change: &[u8]) -> Option<Vec<u8>> {
    let ([high, low, removed], instead) = change.split_first_chunk::<CHANGE_BYTES>()?;
    let place = usize::from(u16::from_be_bytes([*high, *low])).min(sound.len());
    let (head, tail) = sound.split_at(place);
    Some([head, instead, &tail[usize::from(*removed).min(tail.len())..]].concat())
}
