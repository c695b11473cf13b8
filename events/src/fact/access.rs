//! Facts about programs that use the API: their keys, and how far they have read.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Subject, fact};
use crate::id::{AccountName, Author, CursorName, KeyId, SecretRef, Seq};
use crate::time::Timestamp;

/// What a key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Submit messages.
    Send,
    /// Read everything that the account may see.
    Read,
    /// Change suppression lists.
    Suppressions,
    /// Hold, release, cancel and reschedule deliveries, and send them again.
    Queue,
    /// Change endpoints, their calls and replays.
    Webhooks,
    /// Change flags and mailboxes of received messages, and delete them.
    Mailboxes,
    /// All of it, and what only an administrator may do if the key is for no account.
    Admin,
}

impl Scope {
    pub const ALL: [Scope; 7] =
        [Scope::Send, Scope::Read, Scope::Suppressions, Scope::Queue, Scope::Webhooks, Scope::Mailboxes, Scope::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Scope::Send => "send",
            Scope::Read => "read",
            Scope::Suppressions => "suppressions",
            Scope::Queue => "queue",
            Scope::Webhooks => "webhooks",
            Scope::Mailboxes => "mailboxes",
            Scope::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(s: &str) -> Result<Scope, String> {
        let found = Scope::ALL.into_iter().find(|scope| scope.name() == s);
        found.ok_or_else(|| format!("there is no scope {s:?}; there are {}", Scope::ALL.map(Scope::name).join(", ")))
    }
}

/// Addresses that begin with so many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub address: IpAddr,
    pub bits: u8,
}

impl Network {
    /// `None` if there are not so many bits, or some behind them are set.
    pub fn new(address: IpAddr, bits: u8) -> Option<Network> {
        let network = Network { address, bits };
        (bits <= network.bits_max() && leading(address, bits) == leading(address, network.bits_max()))
            .then_some(network)
    }

    /// Whether a client is in it. An IPv4 client is in no IPv6 network, however it is written.
    pub fn contains(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        client.is_ipv4() == self.address.is_ipv4() && leading(client, self.bits) == leading(self.address, self.bits)
    }

    fn bits_max(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }
}

/// The first bits of an address, followed by zeros. Asking for more than there are is asking for all.
fn leading(address: IpAddr, bits: u8) -> u128 {
    let (all, width) = match address {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    };
    let rest = width - u32::from(bits).min(width);
    all.checked_shr(rest).and_then(|kept| kept.checked_shl(rest)).unwrap_or(0)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Network {
    type Err = String;

    /// `192.0.2.0/24`, or an address alone.
    fn from_str(s: &str) -> Result<Network, String> {
        let (address, bits) = s.split_once('/').map_or((s, None), |(address, bits)| (address, Some(bits)));
        let network = || {
            let address: IpAddr = address.parse().ok()?;
            let all = if address.is_ipv4() { 32 } else { 128 };
            Network::new(address, bits.map_or(Some(all), |bits| bits.parse().ok())?)
        };
        // Clients that come over IPv4 are known by their IPv4 address, so a mapped network would never have one in it.
        let found = network().filter(|network| network.address == network.address.to_canonical());
        found.ok_or_else(|| {
            format!("{s:?} is no network such as 192.0.2.0/24 or 2001:db8::/32, with nothing set behind its bits")
        })
    }
}

/// A key was given out. It was shown once; the vault has its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyAdded {
    pub key: KeyId,
    /// The account it is confined to; `None`: it is an administrator's.
    pub account: Option<AccountName>,
    /// What people call it.
    pub label: String,
    pub scopes: Vec<Scope>,
    pub hash: SecretRef,
    /// `None`: it lasts until it is revoked.
    pub expires: Option<Timestamp>,
    /// From where it can be used; empty: from everywhere.
    pub networks: Vec<Network>,
    pub by: Author,
}
fact!(KeyAdded);

/// A key is good for nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRevoked {
    pub key: KeyId,
    pub account: Option<AccountName>,
    pub by: Author,
}
fact!(KeyRevoked);

/// A key was used, for the first time in a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUsed {
    pub key: KeyId,
    pub account: Option<AccountName>,
    pub at: Timestamp,
    #[serde(skip)]
    pub personal: Option<KeyUsedPersonal>,
}
fact!(KeyUsed, KeyUsedPersonal, |f| Subject::Key(f.key));

/// Names the one who used a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyUsedPersonal {
    pub client: IpAddr,
}

/// A group of consumers has come this far: it has dealt with all facts up to this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorSet {
    /// Whose it is; `None`: the administrators'.
    pub account: Option<AccountName>,
    pub cursor: CursorName,
    pub seq: Seq,
    pub by: Author,
}
fact!(CursorSet);

/// The place of a group of consumers is no longer kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CursorRemoved {
    pub account: Option<AccountName>,
    pub cursor: CursorName,
    pub by: Author,
}
fact!(CursorRemoved);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_hold_what_begins_alike() {
        let check = |network: &str, client: &str, expect: Option<bool>| {
            let network = network.parse::<Network>();
            let got = network.as_ref().ok().map(|network| network.contains(client.parse().unwrap()));
            assert_eq!(got, expect, "{network:?} {client}");
            if let Ok(network) = network {
                assert_eq!(network.to_string().parse(), Ok(network));
            }
        };
        check("192.0.2.0/24", "192.0.2.9", Some(true));
        check("192.0.2.0/24", "::ffff:192.0.2.9", Some(true));
        check("192.0.2.0/24", "192.0.3.9", Some(false));
        check("192.0.2.7", "192.0.2.7", Some(true));
        check("192.0.2.7", "192.0.2.6", Some(false));
        check("0.0.0.0/0", "203.0.113.1", Some(true));
        check("0.0.0.0/0", "2001:db8::1", Some(false));
        check("::/0", "2001:db8::1", Some(true));
        check("2001:db8::/32", "2001:db8:5::1", Some(true));
        check("2001:db8::/32", "2001:db9::1", Some(false));
        check("192.0.2.1/24", "192.0.2.1", None);
        check("192.0.2.0/33", "192.0.2.1", None);
        check("2001:db8::/129", "::1", None);
        check("::ffff:192.0.2.0/120", "192.0.2.1", None);
        check("192.0.2.0/", "192.0.2.1", None);
        check("example.org", "192.0.2.1", None);
    }

    #[test]
    fn a_network_of_too_many_bits_is_one_address() {
        let network = Network { address: "192.0.2.1".parse().unwrap(), bits: 255 };
        assert!(network.contains("192.0.2.1".parse().unwrap()) && !network.contains("192.0.2.2".parse().unwrap()));
    }

    #[test]
    fn scopes_are_named_as_records_name_them() {
        for scope in Scope::ALL {
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
            assert_eq!(scope.name().parse(), Ok(scope));
        }
        assert!("everything".parse::<Scope>().is_err());
    }
}
