//! What is taken for a key's token is the only one that this key has.

use postledger::credentials::token::Secret;

pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((key, secret)) = Secret::parse(text) else { return };
    assert!(secret.token(key) == text, "{text} is another spelling of it");
}
