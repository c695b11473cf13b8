//! Facts about programs that use the API: their keys, and how far they have read.

use std::net::IpAddr;

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

/// Addresses that begin with so many bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub address: IpAddr,
    pub bits: u8,
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
