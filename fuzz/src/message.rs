//! Whatever a received message is, what lists show of it is short and has no control characters, and what programs are told of it
//! is within its bounds.

use postledger::mail::contents::{self, ADDRESSES_MAX, DEPTH_MAX, PARTS_MAX, Part, contents};
use postledger::mail::read::{LIST_LENGTH_MAX, Mailbox, TEXT_BYTES_MAX, summary};

pub fn check(bytes: &[u8]) {
    check_summary(bytes);
    check_contents(bytes);
}

fn check_summary(bytes: &[u8]) {
    let found = summary(bytes);
    assert!(found.references.len() <= LIST_LENGTH_MAX && found.to.len() <= LIST_LENGTH_MAX, "{found:?}");
    let ids = [&found.message_id, &found.in_reply_to].into_iter().flatten().chain(&found.references);
    let people = found.from.iter().chain(&found.to).flat_map(|Mailbox { name, address }| [name, address]);
    for text in ids.chain(people).chain(&found.subject) {
        assert!(text.len() <= TEXT_BYTES_MAX, "{} bytes", text.len());
        assert!(!text.contains(|c: char| c.is_control()), "{text:?} holds a control character");
    }
}

fn check_contents(bytes: &[u8]) {
    let found = contents(bytes);
    for people in [&found.from, &found.to, &found.cc, &found.bcc, &found.reply_to] {
        assert!(people.len() <= ADDRESSES_MAX, "{} addresses", people.len());
    }
    for text in [&found.text, &found.html] {
        assert!(text.len() <= contents::TEXT_BYTES_MAX, "{} bytes", text.len());
    }
    let parts = count(&found.structure, 0);
    assert!(parts <= PARTS_MAX, "{parts} parts");
}

fn count(part: &Part, depth: usize) -> usize {
    assert!(depth <= DEPTH_MAX, "{depth} multiparts within one another");
    1 + part.parts.iter().map(|inner| count(inner, depth + 1)).sum::<usize>()
}
