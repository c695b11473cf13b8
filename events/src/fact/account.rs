//! Facts about who may do what: accounts, domains, addresses, transports. An edit says the whole new state.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Subject, fact};
use crate::address::{Address, Domain};
use crate::id::{AccountName, Author, SecretRef, Selector, TransportName};

/// How the addresses of a recipient are folded to the one that a suppression is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fold {
    /// Cut at the first `+`, lower case.
    #[default]
    Plus,
    /// Also cut at the first `-` and without dots, as mox does.
    Mox,
}

/// Seconds to wait after each failed attempt; one more attempt than waits is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RetrySchedule {
    pub waits_s: Vec<u32>,
}

impl RetrySchedule {
    /// The contract's: 7.5 minutes, doubled after each attempt, eight attempts in all.
    pub fn contract() -> RetrySchedule {
        RetrySchedule { waits_s: (0..7).map(|n| 450 << n).collect() }
    }
}

/// What can be set for an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSettings {
    pub login_disabled: bool,
    /// The password's hash and keys; `None`: nobody can log in.
    pub password: Option<SecretRef>,
    /// Logins with one of these addresses send with a reverse-path of its own for every delivery.
    pub fromid_logins: Vec<Address>,
    /// How long a finished delivery is kept, in seconds; 0: not at all.
    pub keep_s: u64,
    /// Whether contents are kept as long as the finished deliveries.
    pub keep_contents: bool,
    /// Recipients in 24 hours; `None`: unlimited.
    pub messages_per_day_max: Option<u32>,
    /// Recipients in 24 hours that this account never sent to before; `None`: unlimited.
    pub first_time_recipients_per_day_max: Option<u32>,
    /// Bytes in all mailboxes; `None`: unlimited.
    pub quota_bytes: Option<u64>,
    pub fold: Fold,
    /// `None`: the ledger's own schedule.
    pub retry: Option<RetrySchedule>,
}

impl Default for AccountSettings {
    fn default() -> AccountSettings {
        AccountSettings {
            login_disabled: false,
            password: None,
            fromid_logins: Vec::new(),
            keep_s: 30 * 24 * 3600,
            keep_contents: true,
            messages_per_day_max: Some(1000),
            first_time_recipients_per_day_max: Some(200),
            quota_bytes: None,
            fold: Fold::Plus,
            retry: None,
        }
    }
}

/// An account was created or changed. A new one starts with the mailboxes Inbox, Sent and Archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountConfigured {
    pub account: AccountName,
    pub settings: AccountSettings,
    pub by: Author,
    #[serde(skip)]
    pub personal: Option<AccountPersonal>,
}
fact!(AccountConfigured, AccountPersonal, |f| Subject::Account(f.account.clone()));

/// Names the account's owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountPersonal {
    /// The name in the From of messages that give none.
    pub full_name: String,
}

/// An account is no more; what it had queued was failed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRemoved {
    pub account: AccountName,
    pub by: Author,
}
fact!(AccountRemoved);

/// How a DKIM selector signs (RFC 6376 §3.3, RFC 8463).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DkimAlgorithm {
    RsaSha256,
    Ed25519Sha256,
}

/// A DKIM key of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimKey {
    pub algorithm: DkimAlgorithm,
    /// What to publish at `SELECTOR._domainkey.DOMAIN` (RFC 6376 §3.6.1).
    pub record: String,
    /// Whether messages are signed with it; a key that was rotated out stays published for a while.
    pub signing: bool,
    pub private_key: SecretRef,
}

/// What can be set for a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSettings {
    /// Nothing is sent from a disabled domain and nothing received for it.
    pub disabled: bool,
    /// What parts a localpart from its extension; the first is used for fromid.
    pub separators: Vec<char>,
    pub localpart_case_sensitive: bool,
    pub dkim: BTreeMap<String, DkimKey>,
}

impl DomainSettings {
    /// The keys that sign, with their selectors.
    pub fn signing_keys(&self) -> impl Iterator<Item = (&str, &DkimKey)> {
        self.dkim.iter().filter(|(_, k)| k.signing).map(|(s, k)| (s.as_str(), k))
    }

    /// Whether a key of this selector exists.
    pub fn has_selector(&self, selector: &Selector) -> bool {
        self.dkim.contains_key(selector.as_str())
    }
}

/// A domain of ours was added or changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainConfigured {
    pub domain: Domain,
    pub settings: DomainSettings,
    pub by: Author,
}
fact!(DomainConfigured);

/// A domain is no longer ours. No address was left in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRemoved {
    pub domain: Domain,
    pub by: Author,
}
fact!(DomainRemoved);

/// Which addresses of a domain something stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Destination {
    Address(Address),
    /// Every address of the domain that is not given out by itself; written `@domain`.
    CatchAll(Domain),
}

impl Destination {
    pub fn domain(&self) -> &Domain {
        match self {
            Destination::Address(a) => &a.domain,
            Destination::CatchAll(d) => d,
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Destination::Address(a) => a.fmt(f),
            Destination::CatchAll(d) => write!(f, "@{d}"),
        }
    }
}

impl std::str::FromStr for Destination {
    type Err = crate::address::Error;
    fn from_str(s: &str) -> Result<Destination, Self::Err> {
        match s.strip_prefix('@') {
            Some(domain) => Domain::new(domain).map(Destination::CatchAll),
            None => Address::parse(s).map(Destination::Address),
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Destination, D::Error> {
        crate::text::parsed(d)
    }
}

/// An address (or all of a domain) was given to an account: it receives there, sends from there and logs in as it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressAdded {
    pub address: Destination,
    pub account: AccountName,
    pub by: Author,
}
fact!(AddressAdded);

/// An address no longer leads to an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressRemoved {
    pub address: Destination,
    pub account: AccountName,
    pub by: Author,
}
fact!(AddressRemoved);

/// How the connection to a next hop is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransportTls {
    /// None, ever.
    None,
    /// STARTTLS where offered, unverified.
    Opportunistic,
    /// STARTTLS required, certificate verified.
    Starttls,
    /// STARTTLS required, certificate not verified.
    StarttlsUnverified,
    /// TLS from the first byte (RFC 8314 §3.3), certificate verified.
    Implicit,
}

impl TransportTls {
    /// Whether the peer is known to be who it should be.
    pub fn is_verified(self) -> bool {
        matches!(self, TransportTls::Starttls | TransportTls::Implicit)
    }
}

/// Where mail goes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportSettings {
    pub host: String,
    pub port: u16,
    pub tls: TransportTls,
    pub credentials: Option<TransportCredentials>,
    /// Connections at once.
    pub connections_max: u32,
}

/// AUTH PLAIN (RFC 4616); used over verified TLS only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportCredentials {
    pub username: String,
    pub password: SecretRef,
}

/// A next hop was added or changed. The one named `default` takes all mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportConfigured {
    pub transport: TransportName,
    pub settings: TransportSettings,
    pub by: Author,
}
fact!(TransportConfigured);

/// A next hop is no longer known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportRemoved {
    pub transport: TransportName,
    pub by: Author,
}
fact!(TransportRemoved);
