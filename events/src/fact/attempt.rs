//! Facts about attempts: one transaction with a next hop, for one or more recipients of a message.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Subject, fact};
use crate::address::Domain;
use crate::id::{AccountName, AttemptId, DeliveryId, MessageUuid, RecipientKey, SuppressionId, TransportName};
use crate::reply::{EnhancedCode, Reply};
use crate::time::Timestamp;

/// A delivery and the number of its attempt, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumberedDelivery {
    pub id: DeliveryId,
    pub number: u32,
}

/// An attempt is about to be made. On disk before the first packet leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStarted {
    pub attempt: AttemptId,
    pub message: MessageUuid,
    pub account: AccountName,
    pub transport: TransportName,
    pub deliveries: Vec<NumberedDelivery>,
    pub started: Timestamp,
}
fact!(AttemptStarted);

/// How a connection was protected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsUsed {
    /// Such as `TLSv1.3`.
    pub protocol: String,
    pub cipher: String,
    pub verified: bool,
}

/// What is known about the connection and the transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub remote_host: String,
    pub remote_addr: Option<SocketAddr>,
    pub source_addr: Option<SocketAddr>,
    /// The connection had served another transaction before.
    pub reused: bool,
    pub tls: Option<TlsUsed>,
    pub connect_us: u64,
    pub tls_us: u64,
    /// MAIL and RCPT.
    pub envelope_us: u64,
    /// The content, to the final dot.
    pub data_us: u64,
    /// From the final dot to its reply.
    pub final_us: u64,
    /// Octets of content that were sent.
    pub bytes: u64,
}

/// A recipient that the next hop took.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveredRecipient {
    pub id: DeliveryId,
    pub number: u32,
    pub recipient: RecipientKey,
    /// Which of the record's replies is its final one.
    pub reply: u16,
}

/// The next hop took responsibility for these recipients (RFC 5321 §6.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub attempt: AttemptId,
    pub message: MessageUuid,
    pub account: AccountName,
    pub deliveries: Vec<DeliveredRecipient>,
    pub session: Session,
    pub ended: Timestamp,
    pub keep_until: Timestamp,
    #[serde(skip)]
    pub personal: Option<Replies>,
}
fact!(Delivered, Replies, |f| Subject::Message(f.message));

/// What the next hop said, each reply once, verbatim, and what went wrong on our side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replies {
    pub replies: Vec<Reply>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// Why an attempt did not deliver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The reply's code; 0 if it was no reply.
    pub code: u16,
    pub enhanced: Option<EnhancedCode>,
    /// Which of the record's replies.
    pub reply: Option<u16>,
    /// Which of the record's errors.
    pub error: Option<u16>,
}

/// A recipient that is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeferredRecipient {
    pub id: DeliveryId,
    pub number: u32,
    pub next: Timestamp,
    pub problem: Problem,
}

/// An attempt failed for now; these recipients will be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptDeferred {
    pub attempt: AttemptId,
    pub message: MessageUuid,
    pub account: AccountName,
    pub deliveries: Vec<DeferredRecipient>,
    pub session: Session,
    pub ended: Timestamp,
    #[serde(skip)]
    pub personal: Option<Replies>,
}
fact!(AttemptDeferred, Replies, |f| Subject::Message(f.message));

/// Why a delivery failed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The next hop refused for good, or we can never satisfy it.
    Permanent,
    /// The last attempt failed for now.
    Exhausted,
    /// The last attempt was cut off, and it may have been delivered.
    OutcomeUnknown,
    /// Somebody said so.
    Operator,
    /// Its account was removed.
    AccountRemoved,
    /// What it needs was forgotten.
    Forgotten,
}

/// A recipient that will not be tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedRecipient {
    pub id: DeliveryId,
    /// Attempts that were made.
    pub number: u32,
    pub recipient: RecipientKey,
    pub why: Failure,
    pub problem: Problem,
    /// It was on hold.
    pub held: bool,
    /// The suppression that this failure caused; its own record follows.
    pub suppressing: Option<SuppressionId>,
}

/// These recipients were given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryFailed {
    /// `None`: not at the end of an attempt.
    pub attempt: Option<AttemptId>,
    pub message: MessageUuid,
    pub account: AccountName,
    pub deliveries: Vec<FailedRecipient>,
    pub session: Session,
    pub ended: Timestamp,
    pub keep_until: Timestamp,
    /// Who gave it up, if a person did.
    pub by: Option<crate::id::Author>,
    #[serde(skip)]
    pub personal: Option<Replies>,
}
fact!(DeliveryFailed, Replies, |f| Subject::Message(f.message));

/// A recipient of an attempt in doubt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoubtfulRecipient {
    pub id: DeliveryId,
    pub number: u32,
    /// When it is tried again; `None`: this was its last attempt, and its failure follows.
    pub next: Option<Timestamp>,
}

/// The process or task that made an attempt died: nobody knows how far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptInDoubt {
    pub attempt: AttemptId,
    pub message: MessageUuid,
    pub account: AccountName,
    pub deliveries: Vec<DoubtfulRecipient>,
}
fact!(AttemptInDoubt);

/// Where recipients of a message are that share a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NextHop {
    pub transport: TransportName,
    pub domain: Option<Domain>,
}
