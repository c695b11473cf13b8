//! What is kept of a password: an argon2id hash, and the keys that SCRAM needs (RFC 5802 §3), derived together.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use aws_lc_rs::{hmac, pbkdf2};
use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use zeroize::Zeroizing;

use crate::clock::Clock;

/// Octets of a password.
pub const PASSWORD_BYTES_MAX: usize = 1024;
/// Characters that a new password needs.
pub const PASSWORD_CHARS_MIN: usize = 8;
/// OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
const ARGON2: (u32, u32, u32) = (19 * 1024, 2, 1);
/// The contract's iterations (SCRAM-SHA-256, SCRAM-SHA-1).
const ITERATIONS: (u32, u32) = (4096, 8192);

/// A password under the OpaqueString profile (RFC 8265 §4.2).
#[derive(Clone)]
pub struct Prepared(Zeroizing<String>);

impl Prepared {
    /// `None`: no text that can be a password.
    pub fn new(password: &str) -> Option<Prepared> {
        if password.len() > PASSWORD_BYTES_MAX {
            return None;
        }
        let prepared = OpaqueString::enforce(password).ok()?;
        Some(Prepared(Zeroizing::new(prepared.into_owned())))
    }

    pub fn is_long_enough(&self) -> bool {
        self.0.chars().count() >= PASSWORD_CHARS_MIN
    }
}

/// What goes into the vault.
#[derive(Clone, Serialize, Deserialize)]
pub struct Hashed {
    /// In the PHC format, with its salt and parameters.
    argon2id: String,
    scram_sha_256: ScramKeys,
    scram_sha_1: ScramKeys,
}

/// What a server needs to check and answer a SCRAM exchange (RFC 5802 §3), in hexadecimal.
#[derive(Clone, Serialize, Deserialize)]
struct ScramKeys {
    salt: String,
    iterations: u32,
    stored_key: String,
    server_key: String,
}

impl Hashed {
    /// Takes tens of milliseconds.
    pub fn of(password: &Prepared, clock: &Clock) -> Hashed {
        let salt: [u8; 16] = clock.random();
        let hash: Result<PasswordHash, _> = argon2().hash_password_with_salt(password.0.as_bytes(), &salt);
        Hashed {
            argon2id: hash.expect("parameters and salt are valid").to_string(),
            scram_sha_256: scram(password, pbkdf2::PBKDF2_HMAC_SHA256, hmac::HMAC_SHA256, ITERATIONS.0, clock),
            scram_sha_1: scram(
                password,
                pbkdf2::PBKDF2_HMAC_SHA1,
                hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                ITERATIONS.1,
                clock,
            ),
        }
    }

    /// Takes tens of milliseconds, whatever the password.
    pub fn matches(&self, password: &Prepared) -> bool {
        argon2().verify_password(password.0.as_bytes(), self.argon2id.as_str()).is_ok()
    }

    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self).expect("strings and numbers are JSON"))
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Hashed> {
        serde_json::from_slice(bytes).ok()
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(ARGON2.0, ARGON2.1, ARGON2.2, None).expect("constant parameters are valid");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn scram(
    password: &Prepared,
    derivation: pbkdf2::Algorithm,
    mac: hmac::Algorithm,
    iterations: u32,
    clock: &Clock,
) -> ScramKeys {
    let salt: [u8; 16] = clock.random();
    let mut salted = Zeroizing::new(vec![0; mac.digest_algorithm().output_len()]);
    let rounds = NonZeroU32::new(iterations).expect("constant iterations are positive");
    pbkdf2::derive(derivation, rounds, &salt, password.0.as_bytes(), &mut salted);
    let key = hmac::Key::new(mac, &salted);
    let client_key = hmac::sign(&key, b"Client Key");
    let stored_key = aws_lc_rs::digest::digest(mac.digest_algorithm(), client_key.as_ref());
    let server_key = hmac::sign(&key, b"Server Key");
    ScramKeys {
        salt: hex::encode(salt),
        iterations,
        stored_key: hex::encode(stored_key.as_ref()),
        server_key: hex::encode(server_key.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_and_wrong_passwords() {
        let clock = Clock::system();
        let hashed = Hashed::of(&Prepared::new("p\u{e9}ssword\u{2003}x").unwrap(), &clock);
        let check = |password: &str, expect: bool| {
            assert_eq!(Prepared::new(password).is_some_and(|p| hashed.matches(&p)), expect, "{password:?}");
        };
        check("pe\u{301}ssword x", true);
        check("p\u{e9}ssword x", true);
        check("P\u{e9}ssword x", false);
        check("", false);
        let stored = Hashed::from_bytes(&hashed.to_bytes()).unwrap();
        assert!(stored.matches(&Prepared::new("p\u{e9}ssword x").unwrap()));
        assert!(!hashed.to_bytes().windows(7).any(|w| w == b"ssword "), "the password itself is nowhere");
    }
}
