//! Secrets by id, and the key of pseudonyms and fingerprints (the pepper). Written in the same batch as the facts that name
//! them, and never part of a record or row.

use aws_lc_rs::hmac;
use fjall::Keyspace;
use zeroize::Zeroizing;

use postledger_events::id::{Fingerprint, SecretId};

use super::store::Error;

const PEPPER_KEY: &[u8] = b"pepper";

pub(super) fn secret(vault: &Keyspace, id: SecretId) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    Ok(vault.get(id.0.as_bytes())?.map(|value| Zeroizing::new(value.to_vec())))
}

pub(super) fn pepper(vault: &Keyspace) -> Result<Option<[u8; 32]>, Error> {
    let Some(value) = vault.get(PEPPER_KEY)? else { return Ok(None) };
    let pepper = <[u8; 32]>::try_from(&value[..]);
    pepper.map(Some).map_err(|_| Error::Notes("the vault's pepper does not have 32 bytes".to_owned()))
}

pub(super) fn put_pepper(batch: &mut fjall::OwnedWriteBatch, vault: &Keyspace, pepper: &[u8; 32]) {
    batch.insert(vault, PEPPER_KEY, pepper);
}

/// Tells secrets apart; the prefix keeps it apart from other uses of the key.
pub(super) fn fingerprint(pepper: &[u8; 32], bytes: &[u8]) -> Fingerprint {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, pepper));
    context.update(b"fingerprint\0");
    context.update(bytes);
    let tag = context.sign();
    Fingerprint(tag.as_ref()[..8].try_into().expect("a SHA-256 has more than eight bytes"))
}
