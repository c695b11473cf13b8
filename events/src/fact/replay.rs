//! Facts about replays: an endpoint is called again with what happened before, or for the first time.

use serde::{Deserialize, Serialize};

use super::call::{CallRef, CallResult, CallTexts};
use super::endpoint::OutgoingEvent;
use super::{Subject, fact};
use crate::id::{AccountName, Author, EndpointName, ReplayId, Seq};

/// Which facts are told again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayScope {
    /// The first fact.
    pub from: Seq,
    /// The last.
    pub to: Seq,
    /// Only calls that failed, or were canceled.
    pub only_failed: bool,
    /// Outgoing: only these, if there are any.
    #[serde(default)]
    pub kinds: Vec<OutgoingEvent>,
}

/// An endpoint is to be told again of a part of history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStarted {
    pub replay: ReplayId,
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub scope: ReplayScope,
    /// `None`: as fast as it goes.
    pub calls_per_second_max: Option<u32>,
    pub by: Author,
}
fact!(ReplayStarted);

/// A replay has come this far; these calls were made on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayAdvanced {
    pub replay: ReplayId,
    pub account: AccountName,
    pub endpoint: EndpointName,
    /// All before this is done.
    pub cursor: CallRef,
    pub results: Vec<CallResult>,
    #[serde(skip)]
    pub personal: Option<CallTexts>,
}
fact!(ReplayAdvanced, CallTexts, |f| Subject::Account(f.account.clone()));

/// A replay waits until somebody resumes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayStopped {
    pub replay: ReplayId,
    pub account: AccountName,
    pub endpoint: EndpointName,
    /// By the program, why it cannot go on.
    pub error: Option<String>,
    pub by: Author,
}
fact!(ReplayStopped);

/// A replay goes on where it was stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayResumed {
    pub replay: ReplayId,
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub by: Author,
}
fact!(ReplayResumed);

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplayEnd {
    /// It came to its last fact.
    Done,
    /// Somebody said so.
    Canceled,
    EndpointRemoved,
}

/// A replay is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayEnded {
    pub replay: ReplayId,
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub end: ReplayEnd,
    pub by: Author,
}
fact!(ReplayEnded);
