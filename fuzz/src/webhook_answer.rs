//! What a receiver of calls answers: when to come again, in one line, and a body. It has no control characters for a terminal.

use postledger::webhook::client::{excerpt, retry_after};
use postledger_events::time::Timestamp;

/// In the year 2096.
const LATER: Timestamp = Timestamp::from_secs(4_000_000_000);
/// A byte that is no text becomes a character of three.
const GROWTH_MAX: usize = 3;

pub fn check(bytes: &[u8]) {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (line, body) = bytes.split_at(end);
    if let Ok(value) = std::str::from_utf8(line) {
        let [early, late] = [Timestamp::EPOCH, LATER].map(|now| retry_after(value, now));
        assert_eq!(early.is_some(), late.is_some(), "{value:?} is read at any time or at none");
        assert!(early >= late, "{value:?} is nearer when it is later, not {late:?} instead of {early:?}");
    }
    let shown = excerpt(body);
    assert!(shown.len() <= GROWTH_MAX * body.len(), "{} bytes of {}", shown.len(), body.len());
    assert!(!shown.contains(|c: char| c.is_control() && !"\n\t".contains(c)), "{shown:?} holds a control character");
}
