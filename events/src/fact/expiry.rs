//! Forgetting by age. Only these records make time pass for what is kept.

use serde::{Deserialize, Serialize};

use super::call::CallRef;
use super::fact;
use crate::id::{AccountName, DeliveryId, EndpointName, FromId, MessageUuid, Seq, Sha256};
use crate::time::Timestamp;

/// A finished delivery that is no longer listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredDelivery {
    pub id: DeliveryId,
    pub account: AccountName,
    pub fromid: Option<FromId>,
    pub keep_until: Timestamp,
    pub message: MessageUuid,
}

/// A content that is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredBody {
    pub message: MessageUuid,
    /// Octets.
    pub size: u64,
    /// The message's row goes as well, as no delivery of it is left.
    pub row: bool,
}

/// An answer to a repeated request that is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredKey {
    pub key: Sha256,
    pub until: Timestamp,
}

/// Calls of one endpoint that one record ended, and that are no longer listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiredCalls {
    pub account: AccountName,
    pub endpoint: EndpointName,
    /// The record that ended them.
    pub ended: Seq,
    pub keep_until: Timestamp,
    pub calls: Vec<CallRef>,
}

/// The keep periods of these are over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expired {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deliveries: Vec<ExpiredDelivery>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bodies: Vec<ExpiredBody>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub idempotency_keys: Vec<ExpiredKey>,
    /// Records whose sender is not told: the mailbox is full, or the account or the content is gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<Seq>,
    /// Ended calls that are no longer listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ExpiredCalls>,
}
fact!(Expired);
