//! Facts about calls: telling an endpoint of a fact. A call is named by its endpoint, the fact and the place in it, so it has
//! the same name at every retry and replay, also where it was never queued.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::endpoint::OutgoingEvent;
use super::{Subject, fact};
use crate::id::{AccountName, Author, DeliveryId, EndpointName, JobId, MessageUuid, MsgId, Seq};
use crate::time::Timestamp;

/// The form in which bodies are written today.
pub const BODY_VERSION: u16 = 1;

/// A place within the facts: a recipient or mailbox copy of one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallRef {
    pub fact: Seq,
    /// Which of the fact's deliveries or copies, from 0.
    pub place: u16,
}

/// What a call is about; calls of one endpoint about the same thing are made in the order of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallAbout {
    Delivery(DeliveryId, OutgoingEvent),
    Message(MsgId),
}

/// A call that is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedCall {
    pub place: u16,
    pub about: CallAbout,
}

/// The calls that one endpoint gets for a fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointCalls {
    pub endpoint: EndpointName,
    /// Of the form of its body.
    pub version: u16,
    /// How long they are kept after their end, in seconds.
    pub keep_s: u64,
    pub calls: Vec<QueuedCall>,
}

/// Endpoints are to be told of a fact, which stands before this one in the same batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsQueued {
    pub account: AccountName,
    /// The message that the fact is about, submitted or received.
    pub message: MessageUuid,
    pub fact: Seq,
    pub endpoints: Vec<EndpointCalls>,
}
fact!(CallsQueued);

impl CallsQueued {
    /// The deliveries that the endpoints are told of, some more than once.
    pub fn deliveries(&self) -> impl Iterator<Item = DeliveryId> {
        self.endpoints.iter().flat_map(|e| &e.calls).filter_map(|call| match call.about {
            CallAbout::Delivery(id, _) => Some(id),
            CallAbout::Message(_) => None,
        })
    }
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallOutcome {
    /// A status of 2xx.
    Delivered,
    /// It is tried again at this time.
    Deferred(Timestamp),
    Failed(CallFailure),
}

/// Why a call is not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallFailure {
    /// The last attempt failed.
    Exhausted,
    /// The endpoint answered 410.
    Gone,
    /// What its body is made of was forgotten; nothing was sent.
    Forgotten,
}

/// One POST and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallResult {
    #[serde(flatten)]
    pub call: CallRef,
    /// From 1.
    pub attempt: u32,
    /// It was made to see whether a failing endpoint answers again; if it failed, the attempt was not used up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probe: bool,
    pub started: Timestamp,
    pub took_us: u64,
    pub remote_addr: Option<SocketAddr>,
    /// Of the response; 0 if there was none.
    pub status: u16,
    pub outcome: CallOutcome,
    /// Which of the record's responses.
    pub response: Option<u16>,
    /// Which of the record's errors.
    pub error: Option<u16>,
}

/// What endpoints answered, each text once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallTexts {
    /// The beginnings of responses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// Calls of one endpoint were made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsAttempted {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub results: Vec<CallResult>,
    #[serde(skip)]
    pub personal: Option<CallTexts>,
}
fact!(CallsAttempted, CallTexts, |f| Subject::Account(f.account.clone()));

/// Why a call is not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Canceling {
    /// Somebody said so.
    Person,
    /// The call about this later fact, and the same delivery, takes its place.
    Superseded(Seq),
    EndpointRemoved,
    /// Its endpoint was disabled for longer than calls are kept.
    KeptTooLong,
}

/// Calls of one endpoint that waited are not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsCanceled {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub calls: Vec<CallRef>,
    pub why: Canceling,
    pub job: Option<JobId>,
    pub by: Author,
}
fact!(CallsCanceled);

/// Calls of one endpoint are due at once: those that wait for their next attempt, are on hold since a restore, failed or were
/// canceled. They have all attempts before them again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsRetried {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub calls: Vec<CallRef>,
    pub job: Option<JobId>,
    pub by: Author,
}
fact!(CallsRetried);

/// Calls of one endpoint were due when the ledger was cut off and restored, so it is in doubt whether they were made. They wait until
/// they are released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallsHeld {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub calls: Vec<CallRef>,
    pub job: Option<JobId>,
}
fact!(CallsHeld);

/// Somebody called an endpoint with an invented event, to see whether it answers. No call was queued for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestCallMade {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub started: Timestamp,
    pub took_us: u64,
    pub remote_addr: Option<SocketAddr>,
    /// Of the response; 0 if there was none.
    pub status: u16,
    pub by: Author,
    #[serde(skip)]
    pub personal: Option<CallTexts>,
}
fact!(TestCallMade, CallTexts, |f| Subject::Account(f.account.clone()));
