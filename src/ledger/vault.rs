//! Secrets by id, and the key of pseudonyms and fingerprints (the pepper). Written in the same batch as the facts that name
//! them, and never part of a record or row.

use std::collections::{BTreeMap, HashSet};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use fjall::{Keyspace, Readable};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::{Zeroize, Zeroizing};

use postledger_events::fact::ledger::LedgerCreated;
use postledger_events::id::{Fingerprint, LedgerId, SecretId};

use super::snapshot::Snapshot;
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

/// Whose value is under a key of the vault, if it is a secret's.
pub(super) fn id_of(key: &[u8]) -> Option<SecretId> {
    key.try_into().ok().map(|id| SecretId(Uuid::from_bytes(id)))
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

/// Version of the form in files.
const FORMAT: u32 = 1;
/// What [`File::postledger`] says.
const KIND: &str = "vault";

/// A copy of a vault. Whoever has it and a backup has all that the ledger has.
#[derive(Clone)]
pub struct Secrets {
    pub(super) ledger: LedgerId,
    pub(super) pepper: Zeroizing<[u8; 32]>,
    pub(super) secrets: Vec<(SecretId, Zeroizing<Vec<u8>>)>,
}

/// How a copy stands in a file.
#[derive(Serialize, Deserialize)]
struct File {
    /// What the file is: `vault`.
    postledger: String,
    format: u32,
    ledger: LedgerId,
    /// In hex.
    pepper: String,
    /// In Base64 (RFC 4648 §4).
    secrets: BTreeMap<SecretId, String>,
    /// Of the file with this field empty, under the pepper; in hex.
    hmac: String,
}

/// A file is not the copy of the vault that is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    #[error("this is no copy of a vault: {0}")]
    Unreadable(String),
    #[error("the copy of the vault has format {0}, which only a newer program knows")]
    Newer(u32),
    #[error("the copy of the vault was changed or damaged: its HMAC does not fit")]
    Changed,
    #[error("the copy of the vault is of ledger {found}, not of {wanted}")]
    OtherLedger { found: LedgerId, wanted: LedgerId },
    #[error("the copy of the vault has another key than the one that record 1 tells of")]
    OtherKey,
}

impl Secrets {
    /// As they are at this moment.
    pub(super) fn of(snapshot: &Snapshot, vault: &Keyspace) -> Result<Secrets, Error> {
        let Some(created) = snapshot.created()? else {
            return Err(Error::Notes("record 1, which names the ledger, is not here".to_owned()));
        };
        Secrets::read(created.ledger, &snapshot.0.engine, vault)
    }

    /// Of a ledger that may be damaged otherwise.
    pub(super) fn read(ledger: LedgerId, engine: &fjall::Snapshot, vault: &Keyspace) -> Result<Secrets, Error> {
        let (mut pepper, mut secrets) = (None, Vec::new());
        for guard in engine.iter(vault) {
            let (key, value) = guard.into_inner()?;
            let value = Zeroizing::new(value.to_vec());
            match id_of(&key) {
                Some(id) => secrets.push((id, value)),
                None if *key == *PEPPER_KEY => pepper = <[u8; 32]>::try_from(&value[..]).ok(),
                None => return Err(Error::Notes(format!("the vault has the key {key:02x?}"))),
            }
        }
        let pepper = pepper.ok_or_else(|| Error::Notes("the vault has no pepper of 32 bytes".to_owned()))?;
        Ok(Secrets { ledger, pepper: Zeroizing::new(pepper), secrets })
    }

    /// Those of a copy that are not here. Answers which.
    pub(super) fn take_missing(&mut self, copy: &Secrets) -> Vec<SecretId> {
        let own: HashSet<SecretId> = self.secrets.iter().map(|(id, _)| *id).collect();
        let missing = copy.secrets.iter().filter(|(id, _)| !own.contains(id));
        self.secrets.extend(missing.cloned());
        self.secrets[own.len()..].iter().map(|(id, _)| *id).collect()
    }

    /// Whether it is the vault of this ledger.
    pub(super) fn check(&self, created: &LedgerCreated) -> Result<(), FileError> {
        if self.ledger != created.ledger {
            return Err(FileError::OtherLedger { found: self.ledger, wanted: created.ledger });
        }
        if fingerprint(&self.pepper, &self.pepper[..]) != created.pepper { Err(FileError::OtherKey) } else { Ok(()) }
    }

    /// For a file that only its owner may read.
    pub fn to_json(&self) -> Zeroizing<Vec<u8>> {
        let encode = |(id, value): &(SecretId, Zeroizing<Vec<u8>>)| (*id, BASE64_STANDARD.encode(value));
        let mut file = File {
            postledger: KIND.to_owned(),
            format: FORMAT,
            ledger: self.ledger,
            pepper: hex::encode(&self.pepper[..]),
            secrets: self.secrets.iter().map(encode).collect(),
            hmac: String::new(),
        };
        file.hmac = hex::encode(hmac::sign(&file_key(&self.pepper), &file.to_bytes()));
        file.to_bytes()
    }

    pub fn from_json(bytes: &[u8]) -> Result<Secrets, FileError> {
        let unreadable = |e: &dyn std::fmt::Display| FileError::Unreadable(e.to_string());
        let mut file: File = serde_json::from_slice(bytes).map_err(|e| unreadable(&e))?;
        if file.postledger != KIND {
            return Err(FileError::Unreadable(format!("it says that it is {:?}", file.postledger)));
        }
        if file.format != FORMAT {
            return Err(FileError::Newer(file.format));
        }
        let mut pepper = Zeroizing::new([0; 32]);
        hex::decode_to_slice(file.pepper.as_bytes(), &mut pepper[..]).map_err(|e| unreadable(&e))?;
        let tag = hex::decode(std::mem::take(&mut file.hmac)).map_err(|e| unreadable(&e))?;
        hmac::verify(&file_key(&pepper), &file.to_bytes(), &tag).map_err(|_| FileError::Changed)?;
        let mut secrets = Vec::with_capacity(file.secrets.len());
        for (id, value) in &file.secrets {
            let value = BASE64_STANDARD.decode(value.as_bytes()).map_err(|e| unreadable(&e))?;
            secrets.push((*id, Zeroizing::new(value)));
        }
        Ok(Secrets { ledger: file.ledger, pepper, secrets })
    }
}

impl File {
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("texts and numbers are JSON");
        bytes.push(b'\n');
        Zeroizing::new(bytes)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.pepper.zeroize();
        self.secrets.values_mut().for_each(Zeroize::zeroize);
    }
}

/// Derived, so that the pepper has one use for each key.
fn file_key(pepper: &[u8; 32]) -> hmac::Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, pepper), b"copy of the vault\0");
    hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy() -> Secrets {
        let secret = |n: u8| (SecretId(Uuid::from_bytes([n; 16])), Zeroizing::new(vec![n; 3]));
        Secrets {
            ledger: LedgerId(Uuid::from_bytes([9; 16])),
            pepper: Zeroizing::new([7; 32]),
            secrets: vec![secret(1), secret(2)],
        }
    }

    #[test]
    fn copies_round_trip_and_notice_every_change() {
        let json = copy().to_json();
        let read = Secrets::from_json(&json).ok().unwrap();
        assert_eq!((read.ledger, &read.pepper, &read.secrets), (copy().ledger, &copy().pepper, &copy().secrets));
        let text = String::from_utf8(json.to_vec()).unwrap();
        let check = |from: &str, to: &str, expect: &str| {
            assert!(text.contains(from), "{from} is not in {text}");
            let error = Secrets::from_json(text.replacen(from, to, 1).as_bytes()).err().unwrap().to_string();
            assert!(error.starts_with(expect), "{error}");
        };
        check("AQEB", "AQEC", "the copy of the vault was changed");
        check("0909", "0908", "the copy of the vault was changed");
        check("07", "08", "the copy of the vault was changed");
        check(r#""format": 1"#, r#""format": 2"#, "the copy of the vault has format 2");
        check("vault", "export", "this is no copy of a vault");
        check("{", "", "this is no copy of a vault");
    }

    #[test]
    fn a_copy_belongs_to_one_ledger() {
        let copy = copy();
        let created = LedgerCreated {
            ledger: copy.ledger,
            number: 0,
            format: 1,
            code_version: String::new(),
            pepper: fingerprint(&copy.pepper, &copy.pepper[..]),
        };
        assert_eq!(copy.check(&created), Ok(()));
        let other = LedgerCreated { ledger: LedgerId(Uuid::from_bytes([8; 16])), ..created.clone() };
        assert_eq!(copy.check(&other), Err(FileError::OtherLedger { found: copy.ledger, wanted: other.ledger }));
        let other = LedgerCreated { pepper: Fingerprint([0; 8]), ..created };
        assert_eq!(copy.check(&other), Err(FileError::OtherKey));
    }

    #[test]
    fn only_what_is_missing_is_taken_from_a_copy() {
        let mut own = Secrets { secrets: copy().secrets[..1].to_vec(), ..copy() };
        own.secrets[0].1 = Zeroizing::new(vec![9]);
        assert_eq!(own.take_missing(&copy()), [copy().secrets[1].0]);
        assert_eq!(own.secrets, [(copy().secrets[0].0, Zeroizing::new(vec![9])), copy().secrets[1].clone()]);
        assert_eq!(own.take_missing(&copy()), []);
    }
}
