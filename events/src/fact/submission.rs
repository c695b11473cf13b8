//! The fact that a message was accepted for delivery.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Subject, fact};
use crate::address::{Address, Domain, Localpart};
use crate::id::{AccountName, DeliveryId, FromId, HoldRuleId, MailboxName, MessageUuid, MsgId, RecipientKey, Sha256};
use crate::time::Timestamp;

/// The door that a message came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    Webapi,
    /// An earlier submission was sent again.
    Redelivery,
}

/// What a submission sends again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    pub message: MessageUuid,
    /// In the order of the deliveries, the ones that they repeat.
    pub deliveries: Vec<DeliveryId>,
}

/// The stored bytes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BodyRef {
    /// Names the stored bytes; for a submission the same as its message.
    pub body: MessageUuid,
    /// Octets.
    pub size: u64,
    pub sha256: Sha256,
}

/// One recipient of a submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedDelivery {
    pub id: DeliveryId,
    pub recipient: RecipientKey,
    /// The domain of the recipient.
    pub domain: Domain,
    pub fromid: Option<FromId>,
    /// The rule that holds it; without one it is due at the submission's `due`.
    pub hold: Option<HoldRuleId>,
}

/// A copy that was stored in a mailbox of the sender, in the same batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentCopy {
    pub msg_id: MsgId,
    pub mailbox: MailboxName,
    pub body: BodyRef,
}

/// A request with an Idempotency-Key: the same key gives the same answer until `until`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// Of account, method and key; what the answer is found by.
    pub key: Sha256,
    /// Of the parsed request.
    pub request: Sha256,
    pub until: Timestamp,
}

/// A message was accepted, with one delivery for each of its recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageSubmitted {
    pub message: MessageUuid,
    pub account: AccountName,
    pub via: Via,
    pub body: BodyRef,
    /// Some octet of the content is above 127: needs 8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// Headers or addresses need SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RFC 8689: `true` REQUIRETLS, `false` as if `TLS-Required: No`.
    pub require_tls: Option<bool>,
    /// When the first attempt is due: at once, or at the time that was asked for.
    pub due: Timestamp,
    /// The time that was asked for (RFC 4865).
    pub future_release: Option<Timestamp>,
    /// What the localpart of the reverse-path and the fromid are joined with.
    pub separator: Option<char>,
    /// How long deliveries are kept after their end, in seconds.
    pub keep_s: u64,
    /// Whether the content is kept as long.
    pub keep_contents: bool,
    pub deliveries: Vec<SubmittedDelivery>,
    pub sent_copy: Option<SentCopy>,
    /// The earlier submission that this one sends again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    pub idempotency: Option<Idempotency>,
    /// The trace id of the request (W3C traceparent).
    pub trace: Option<String>,
    /// The program that accepted it.
    pub code_version: String,
    #[serde(skip)]
    pub personal: Option<SubmissionPersonal>,
}
fact!(MessageSubmitted, SubmissionPersonal, |f| Subject::Message(f.message));

/// Names the sender and the recipients of a message, and quotes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmissionPersonal {
    /// The address that was logged in with, as typed.
    pub login: String,
    pub client: Option<IpAddr>,
    /// The address in the From field.
    pub from: Address,
    /// The reverse-path, without fromid.
    pub reverse_path: Option<Address>,
    /// In the order of `deliveries`.
    pub recipients: Vec<SubmittedRecipient>,
    /// With angle brackets.
    pub message_id: String,
    pub subject: String,
    /// What the application gave along to get it back with every event.
    pub extra: BTreeMap<String, String>,
    pub idempotency_key: Option<String>,
}

/// A recipient as the envelope has it, and as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmittedRecipient {
    pub address: Address,
    /// As the request wrote it, if that differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
}

impl SubmittedRecipient {
    pub fn new(address: Address, given: &str) -> SubmittedRecipient {
        let same = address.to_string() == given;
        SubmittedRecipient { address, given: (!same).then(|| given.to_owned()) }
    }

    pub fn given(&self) -> String {
        self.given.clone().unwrap_or_else(|| self.address.to_string())
    }
}

/// The reverse-path of one delivery: with the fromid joined to what stands before the separator.
pub fn reverse_path(base: &Address, separator: Option<char>, fromid: Option<&FromId>) -> Address {
    let (Some(separator), Some(fromid)) = (separator, fromid) else { return base.clone() };
    let local = format!("{}{separator}{fromid}", base.localpart.base(&[separator]));
    // A localpart near its limit has no room for a fromid; decide gives none then.
    let localpart = Localpart::new(&local).unwrap_or_else(|_| base.localpart.clone());
    Address::new(localpart, base.domain.clone())
}
