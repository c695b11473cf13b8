//! Facts about endpoints: programs that are called with what happened to an account's mail. An edit says the whole new state.

use serde::{Deserialize, Serialize};

use super::account::RetrySchedule;
use super::fact;
use crate::id::{AccountName, Author, EndpointName, SecretRef, Seq};
use crate::time::Timestamp;

/// What an endpoint is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// What becomes of messages that the account sends.
    Outgoing,
    /// Messages that the account receives.
    Incoming,
}

/// What can become of a message, as the contract names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutgoingEvent {
    Delivered,
    Delayed,
    Failed,
    Suppressed,
    Canceled,
}

/// How a call is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallFormat {
    /// As mox writes its webhooks.
    #[default]
    Mox,
    /// A CloudEvents 1.0 envelope in structured mode, with the same as its `data`.
    CloudEvents,
}

/// Which calls about one delivery are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Superseding {
    /// All, in the order of the ledger.
    #[default]
    All,
    /// A later one takes the place of one that waits, as mox does it.
    Latest,
}

impl RetrySchedule {
    /// The contract's for calls: 1 minute, then longer and longer to 16 hours, twelve attempts in all.
    pub fn contract_of_calls() -> RetrySchedule {
        RetrySchedule { waits_s: vec![60, 120, 240, 450, 900, 1800, 3600, 7200, 14_400, 28_800, 57_600] }
    }
}

/// What can be set for an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSettings {
    pub direction: Direction,
    /// `http` or `https`, without user name and password.
    pub url: String,
    pub format: CallFormat,
    /// Outgoing: only these, if there are any.
    #[serde(default)]
    pub events: Vec<OutgoingEvent>,
    /// The value of the Authorization header.
    pub authorization: Option<SecretRef>,
    /// Keys of the Standard Webhooks signature; every call is signed with each, so that they can be changed one after the other.
    #[serde(default)]
    pub secrets: Vec<SecretRef>,
    pub superseding: Superseding,
    /// Calls at once.
    pub concurrency_max: u32,
    /// `None`: as fast as it goes.
    pub calls_per_second_max: Option<u32>,
    pub retry: RetrySchedule,
    /// For name lookup, connection and TLS, in seconds.
    pub connect_timeout_s: u32,
    /// For all of it, in seconds.
    pub timeout_s: u32,
    /// How long calls are kept after their end, in seconds; 0: not at all.
    pub keep_s: u64,
    /// Nothing is called; what happens is queued.
    pub disabled: bool,
}

impl EndpointSettings {
    /// What an endpoint has if nothing else is said.
    pub fn new(direction: Direction, url: String) -> EndpointSettings {
        EndpointSettings {
            direction,
            url,
            format: CallFormat::default(),
            events: Vec::new(),
            authorization: None,
            secrets: Vec::new(),
            superseding: Superseding::default(),
            concurrency_max: 8,
            calls_per_second_max: None,
            retry: RetrySchedule::contract_of_calls(),
            connect_timeout_s: 10,
            timeout_s: 60,
            keep_s: 7 * 24 * 3600,
            disabled: false,
        }
    }

    /// Whether it is to be told of this.
    pub fn wants(&self, event: OutgoingEvent) -> bool {
        self.direction == Direction::Outgoing && (self.events.is_empty() || self.events.contains(&event))
    }
}

/// An endpoint was added or changed. One that was failing begins anew, and so does one that the program had disabled, unless it
/// stays so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointConfigured {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub settings: EndpointSettings,
    /// The program had disabled it, and nobody said that it is to be enabled.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stays_disabled: bool,
    pub by: Author,
}
fact!(EndpointConfigured);

/// Why the program calls an endpoint no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disabling {
    /// It answered 410 (RFC 9110 §15.5.11) to the call about this fact.
    Gone(Seq),
    /// No call has succeeded since this time.
    FailingSince(Timestamp),
}

/// An endpoint is called no more until somebody enables it. Its calls wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointDisabled {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub why: Disabling,
}
fact!(EndpointDisabled);

/// An endpoint is no more; its calls were canceled before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRemoved {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub by: Author,
}
fact!(EndpointRemoved);
