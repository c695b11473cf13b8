//! Who may come in: passwords and their hashes, keys, the memory of checks that succeeded, and the limits on those that fail.

pub mod limit;
pub mod password;
pub mod token;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postledger_events::Command;
use postledger_events::address::Address;
use postledger_events::command::UseKey;
use postledger_events::fact::account::Destination;
use postledger_events::id::{AccountName, KeyId, SecretId, SecretRef};
use postledger_events::time::Timestamp;
use postledger_projections::access::{self, KeyRow};
use postledger_projections::accounts::{self, AccountRow};
use postledger_web::port::{Holder, Key, Login, LoginError};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::Clock;
use crate::decide::access::USE_INTERVAL;
use crate::ledger::Ledger;
use limit::FailureLimit;
use password::{Hashed, Prepared};
use token::Secret;

/// How long a check that succeeded is remembered.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);
const REMEMBERED_MAX: usize = 10_000;
/// Password hashes computed at once; each takes 19 MiB and one core.
const CHECKS_AT_ONCE: usize = 2;
/// Addresses of an account that are looked through for one that a key sends as.
const ADDRESSES_MAX: usize = 100;

/// Checks credentials.
pub struct Credentials {
    clock: Clock,
    limit: Mutex<FailureLimit>,
    remembered: Mutex<HashMap<[u8; 32], Remembered>>,
    /// Under this key remembered passwords are hashed, so that the memory tells nothing.
    key: [u8; 32],
    checks: Semaphore,
    /// What unknown users are checked against, so that they take as long.
    decoy: Hashed,
    admin: Option<Hashed>,
    /// What unknown keys are looked up as, and compared with.
    no_key: SecretId,
    no_hash: [u8; 32],
    /// Uses that were told to the ledger, so that the requests that come at once tell it only once.
    used: Mutex<HashMap<KeyId, Timestamp>>,
}

#[derive(Clone, Copy)]
struct Remembered {
    password: SecretId,
    until: Timestamp,
}

impl Credentials {
    pub fn new(clock: Clock, admin: Option<Hashed>) -> Credentials {
        let key = clock.random();
        let (no_key, no_hash, used) = (SecretId(clock.uuid_v7()), clock.random(), Mutex::new(HashMap::new()));
        let decoy = Hashed::of(&Prepared::new("no password at all").expect("plain text"), &clock);
        Credentials {
            clock,
            limit: Mutex::new(FailureLimit::default()),
            remembered: Mutex::new(HashMap::new()),
            key,
            checks: Semaphore::new(CHECKS_AT_ONCE),
            decoy,
            admin,
            no_key,
            no_hash,
            used,
        }
    }

    /// Checks an account's login. `user` is an address of the account, with or without an extension.
    pub async fn login(
        &self,
        ledger: &Ledger,
        user: &str,
        password: &str,
        client: IpAddr,
    ) -> Result<Login, LoginError> {
        // Programs that know only of user names and passwords may bring a key as the password of the account that it is for.
        if Secret::parse(password).is_some() {
            return self.login_with_key(ledger, user, password, client).await;
        }
        self.check_limit(client)?;
        let found = find(ledger, user).map_err(|e| LoginError::Unavailable(e.to_string()))?;
        let right = self.is_right(ledger, found.as_ref(), user, password, client).await?;
        match found {
            Some((account, address)) if right && account.removing.is_none() => {
                if account.settings.login_disabled {
                    self.failed(client);
                    return Err(LoginError::Disabled);
                }
                lock(&self.limit).succeeded(client);
                Ok(Login { account: account.account, user: user.to_owned(), address: Some(address), key: None })
            }
            Some(_) | None => {
                self.failed(client);
                Err(LoginError::BadCredentials)
            }
        }
    }

    async fn login_with_key(
        &self,
        ledger: &Ledger,
        user: &str,
        token: &str,
        client: IpAddr,
    ) -> Result<Login, LoginError> {
        let found = find(ledger, user).map_err(|e| LoginError::Unavailable(e.to_string()))?;
        match (self.login_key(ledger, token, client)?, found) {
            (Holder::Account(login), Some((account, address))) if login.account == account.account => {
                Ok(Login { address: Some(address), ..login })
            }
            (Holder::Account(_) | Holder::Operator(_), _) => {
                self.failed(client);
                Err(LoginError::BadCredentials)
            }
        }
    }

    /// Checks a key. One that is unknown, over or for other networks is no worse than one that is wrong.
    pub fn login_key(&self, ledger: &Ledger, token: &str, client: IpAddr) -> Result<Holder, LoginError> {
        self.check_limit(client)?;
        let row = self.right_key(ledger, token, client).map_err(LoginError::Unavailable)?;
        let Some(row) = row else {
            self.failed(client);
            return Err(LoginError::BadCredentials);
        };
        let key = Key { key: row.key, scopes: row.scopes.clone() };
        let holder = match &row.account {
            None => Holder::Operator(key),
            Some(name) => Holder::Account(self.account_of_key(ledger, name, key, client)?),
        };
        lock(&self.limit).succeeded(client);
        self.note_use(ledger, &row, client);
        Ok(holder)
    }

    fn account_of_key(
        &self,
        ledger: &Ledger,
        name: &AccountName,
        key: Key,
        client: IpAddr,
    ) -> Result<Login, LoginError> {
        let unavailable = |e: postledger_projections::Error| LoginError::Unavailable(e.to_string());
        let rows = ledger.snapshot();
        let account = accounts::account(&rows, name).map_err(unavailable)?;
        let Some(account) = account.filter(|account| account.removing.is_none()) else {
            self.failed(client);
            return Err(LoginError::BadCredentials);
        };
        if account.settings.login_disabled {
            self.failed(client);
            return Err(LoginError::Disabled);
        }
        let addresses = accounts::addresses_of(&rows, name, ADDRESSES_MAX).map_err(unavailable)?;
        let address = addresses.into_iter().find_map(|row| match row.address {
            Destination::Address(address) => Some(address),
            Destination::CatchAll(_) => None,
        });
        Ok(Login { account: account.account, user: key.author().0, address, key: Some(key) })
    }

    /// The row of a key that is good here and now. Whatever is wrong with it, all of this is done.
    fn right_key(&self, ledger: &Ledger, token: &str, client: IpAddr) -> Result<Option<KeyRow>, String> {
        let (id, secret) = Secret::parse(token).unwrap_or((KeyId(0), Secret::new(self.no_hash)));
        let row = access::key_row(&ledger.snapshot(), id).map_err(|e| e.to_string())?;
        let name = row.as_ref().map_or(self.no_key, |row| row.hash.id);
        let stored = ledger.secret(name).map_err(|e| e.to_string())?;
        let right = secret.matches(stored.as_ref().map_or(&self.no_hash[..], |hash| &hash[..]));
        Ok(row.filter(|row| {
            let in_time = row.expires.is_none_or(|expires| self.clock.now() < expires);
            let in_place = row.networks.is_empty() || row.networks.iter().any(|network| network.contains(client));
            right & in_time & in_place
        }))
    }

    /// Has the ledger record a use, if that is due. Nobody waits for it.
    fn note_use(&self, ledger: &Ledger, row: &KeyRow, client: IpAddr) {
        let now = self.clock.now();
        let is_known = |at: Timestamp| at + USE_INTERVAL > now;
        if row.used.as_ref().is_some_and(|used| is_known(used.at)) {
            return;
        }
        let mut used = lock(&self.used);
        if used.len() >= REMEMBERED_MAX {
            used.clear();
        }
        if used.insert(row.key, now).is_some_and(is_known) {
            return;
        }
        let (ledger, key) = (ledger.clone(), row.key);
        tokio::spawn(async move {
            if let Err(e) = ledger.submit(Command::UseKey(UseKey { key, client })).await {
                tracing::warn!(%key, "the use of a key was not recorded: {e}");
            }
        });
    }

    /// Checks the password of the administrator.
    pub async fn login_admin(&self, password: &str, client: IpAddr) -> Result<(), LoginError> {
        self.check_limit(client)?;
        let hashed = self.admin.as_ref().unwrap_or(&self.decoy).clone();
        let _permit = self.permit().await?;
        let right = self.matches(hashed, password, client).await? && self.admin.is_some();
        if right {
            lock(&self.limit).succeeded(client);
            Ok(())
        } else {
            self.failed(client);
            Err(LoginError::BadCredentials)
        }
    }

    fn check_limit(&self, client: IpAddr) -> Result<(), LoginError> {
        match lock(&self.limit).retry_after_s(client, self.clock.now()) {
            Some(retry_after_s) => Err(LoginError::TooMany { retry_after_s }),
            None => Ok(()),
        }
    }

    fn failed(&self, client: IpAddr) {
        tracing::info!("a login failed");
        lock(&self.limit).failed(client, self.clock.now());
    }

    async fn is_right(
        &self,
        ledger: &Ledger,
        found: Option<&(AccountRow, Address)>,
        user: &str,
        password: &str,
        client: IpAddr,
    ) -> Result<bool, LoginError> {
        let secret = found.and_then(|(account, _)| account.settings.password);
        let memory = self.memory_key(user, password);
        if self.remembers(&memory, secret) {
            return Ok(true);
        }
        let _permit = self.permit().await?;
        // Many connections may begin at once with the same password: while this one waited, another was checked.
        if self.remembers(&memory, secret) {
            return Ok(true);
        }
        let hashed = match secret {
            Some(secret) => stored(ledger, secret.id)?,
            None => None,
        };
        let right = self.matches(hashed.clone().unwrap_or_else(|| self.decoy.clone()), password, client).await?;
        match secret {
            Some(secret) if right && hashed.is_some() => {
                let until = self.clock.now() + REMEMBERED;
                self.remember(memory, Remembered { password: secret.id, until });
                Ok(true)
            }
            Some(_) | None => Ok(false),
        }
    }

    fn remembers(&self, memory: &[u8; 32], secret: Option<SecretRef>) -> bool {
        let known = lock(&self.remembered).get(memory).copied();
        // A new password has a new name in the vault, so whatever was remembered of the old one is void.
        known.is_some_and(|known| {
            secret.is_some_and(|secret| secret.id == known.password) && known.until > self.clock.now()
        })
    }

    /// Leave to compute a password's hash.
    async fn permit(&self) -> Result<SemaphorePermit<'_>, LoginError> {
        self.checks.acquire().await.map_err(|e| LoginError::Unavailable(e.to_string()))
    }

    /// Computes a password's hash; the caller has leave.
    async fn matches(&self, hashed: Hashed, password: &str, client: IpAddr) -> Result<bool, LoginError> {
        let Some(prepared) = Prepared::new(password) else { return Ok(false) };
        // Those that failed while this one waited for leave count as well: guesses in parallel are no way around the limit.
        self.check_limit(client)?;
        let matching = tokio::task::spawn_blocking(move || hashed.matches(&prepared)).await;
        matching.map_err(|e| LoginError::Unavailable(e.to_string()))
    }

    fn remember(&self, memory: [u8; 32], what: Remembered) {
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(memory, what);
    }

    fn memory_key(&self, user: &str, password: &str) -> [u8; 32] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &self.key);
        let tag = aws_lc_rs::hmac::sign(&key, format!("{}\0{user}\0{password}", user.len()).as_bytes());
        let mut out = [0; 32];
        out.copy_from_slice(tag.as_ref());
        out
    }
}

/// The account that a user name leads to. Addresses in disabled domains still log in.
fn find(ledger: &Ledger, user: &str) -> Result<Option<(AccountRow, Address)>, postledger_projections::Error> {
    let Ok(address) = Address::parse(user) else { return Ok(None) };
    let rows = ledger.snapshot();
    let Some((name, _)) = accounts::resolve(&rows, &address)? else { return Ok(None) };
    Ok(accounts::account(&rows, &name)?.map(|account| (account, address)))
}

fn stored(ledger: &Ledger, id: SecretId) -> Result<Option<Hashed>, LoginError> {
    let bytes = ledger.secret(id).map_err(|e| LoginError::Unavailable(e.to_string()))?;
    Ok(bytes.and_then(|bytes| Hashed::from_bytes(&bytes)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
