//! Whatever a received message is, what lists show of it is short and has no control characters.

use postledger::mail::read::{LIST_LENGTH_MAX, Mailbox, TEXT_BYTES_MAX, summary};

pub fn check(bytes: &[u8]) {
    let found = summary(bytes);
    assert!(found.references.len() <= LIST_LENGTH_MAX && found.to.len() <= LIST_LENGTH_MAX, "{found:?}");
    let ids = [&found.message_id, &found.in_reply_to].into_iter().flatten().chain(&found.references);
    let people = found.from.iter().chain(&found.to).flat_map(|Mailbox { name, address }| [name, address]);
    for text in ids.chain(people).chain(&found.subject) {
        assert!(text.len() <= TEXT_BYTES_MAX, "{} bytes", text.len());
        assert!(!text.contains(|c: char| c.is_control()), "{text:?} holds a control character");
    }
}
