//! Tokens: a key's number, and 256 random bits that only its holder has. `pl_7_` and 43 characters.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use postledger_events::id::{KeyId, Sha256};
use zeroize::Zeroizing;

const PREFIX: &str = "pl_";
/// Random bytes of a token. They cannot be guessed, so unlike a password they need no slow hash.
pub const SECRET_BYTES: usize = 32;

/// What makes a key one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<[u8; SECRET_BYTES]>);

impl Secret {
    pub fn new(random: [u8; SECRET_BYTES]) -> Secret {
        Secret(Zeroizing::new(random))
    }

    /// What the vault has of it.
    pub fn hash(&self) -> Sha256 {
        Sha256::of(&self.0[..])
    }

    /// Takes as long whether it is the right one or not.
    pub fn matches(&self, hash: &[u8]) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.hash().0, hash).is_ok()
    }

    /// As it is shown, once.
    pub fn token(&self, key: KeyId) -> String {
        format!("{PREFIX}{key}_{}", BASE64_URL_SAFE_NO_PAD.encode(&self.0[..]))
    }

    /// `None` if this is no token.
    pub fn parse(token: &str) -> Option<(KeyId, Secret)> {
        let (number, text) = token.strip_prefix(PREFIX)?.split_once('_')?;
        let key: KeyId = number.parse().ok()?;
        let mut secret = Secret::new([0; SECRET_BYTES]);
        let decoded = BASE64_URL_SAFE_NO_PAD.decode_slice(text, &mut secret.0[..]).ok()?;
        // One key has one token, whatever else a reader of numbers would take.
        (decoded == SECRET_BYTES && number == key.to_string()).then_some((key, secret))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_round_trip_and_nothing_else_is_one() {
        let secret = Secret::new([0xfb; SECRET_BYTES]);
        let token = secret.token(KeyId(7));
        assert_eq!(token, format!("pl_7_{}-_s", "-_v7".repeat(10)));
        assert_eq!(Secret::parse(&token), Some((KeyId(7), secret)));
        let check = |token: &str| assert_eq!(Secret::parse(token), None, "{token}");
        check("");
        check("pl_7_");
        check("pl_7");
        check(&token[3..]);
        check(&token[..token.len() - 1]);
        check(&format!("{token}A"));
        check(&token.replace("pl_7", "pl_07"));
        check(&token.replace("pl_7", "pl_+7"));
        check(&token.replace("pl_7", "pl_-7"));
        // Bits behind the last byte: another spelling of the same.
        check(&format!("{}t", &token[..token.len() - 1]));
    }

    #[test]
    fn a_hash_is_of_one_secret_and_nothing_shows_it() {
        let (a, b) = (Secret::new([1; SECRET_BYTES]), Secret::new([2; SECRET_BYTES]));
        assert!(a.matches(&a.hash().0) && !a.matches(&b.hash().0) && !a.matches(&[]));
        assert_eq!(format!("{a:?}"), "Secret");
    }
}
