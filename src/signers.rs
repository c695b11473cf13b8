//! DKIM keys from the vault, parsed once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use postledger_events::address::Domain;
use postledger_events::id::SecretId;
use postledger_projections::accounts;

use crate::ledger::Ledger;
use crate::mail::dkim::{Signer, SigningKey};

/// Domains whose signers are remembered.
const DOMAINS_MAX: usize = 1000;

/// The signers of our domains.
pub struct Signers {
    ledger: Ledger,
    known: Mutex<HashMap<Domain, Known>>,
}

struct Known {
    keys: Vec<SecretId>,
    signers: Arc<[Signer]>,
}

/// Why a message cannot be signed although its domain signs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Rows(#[from] postledger_projections::Error),
    #[error("the vault cannot be read: {0}")]
    Vault(#[from] crate::ledger::Error),
    #[error(
        "the private key of DKIM selector {selector} of {domain} is missing or damaged: restore the vault, or make a new key with `postledger dkim generate {domain} {selector}`"
    )]
    Key { domain: Domain, selector: String },
}

impl Signers {
    pub fn new(ledger: Ledger) -> Signers {
        Signers { ledger, known: Mutex::default() }
    }

    /// Those that sign for a domain; none if it does not sign.
    pub fn of(&self, domain: &Domain) -> Result<Arc<[Signer]>, Error> {
        let Some(row) = accounts::domain(&self.ledger.snapshot(), domain)? else { return Ok(Arc::new([])) };
        let keys: Vec<SecretId> = row.settings.signing_keys().map(|(_, key)| key.private_key.id).collect();
        if let Some(known) = self.known().get(domain)
            && known.keys == keys
        {
            return Ok(Arc::clone(&known.signers));
        }
        let signers =
            row.settings.signing_keys().map(|(selector, key)| self.load(domain, selector, key.private_key.id));
        let signers: Arc<[Signer]> = signers.collect::<Result<Vec<_>, _>>()?.into();
        let mut known = self.known();
        if known.len() >= DOMAINS_MAX {
            known.clear();
        }
        known.insert(domain.clone(), Known { keys, signers: Arc::clone(&signers) });
        Ok(signers)
    }

    fn load(&self, domain: &Domain, selector: &str, key: SecretId) -> Result<Signer, Error> {
        let damaged = || Error::Key { domain: domain.clone(), selector: selector.to_owned() };
        let der = self.ledger.secret(key)?.ok_or_else(damaged)?;
        let key = SigningKey::from_pkcs8_der(&der).map_err(|_| damaged())?;
        Signer::new(domain.clone(), selector, key).map_err(|_| damaged())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<Domain, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
