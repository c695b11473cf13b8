//! What happens to queued deliveries outside of attempts.

use serde::{Deserialize, Serialize};

use super::fact;
use crate::id::{AccountName, Author, DeliveryId, HoldRuleId, JobId, MessageUuid, RecipientKey, SuppressionId};
use crate::time::Timestamp;

/// A recipient that is not tried, since its address is on the account's suppression list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SuppressedRecipient {
    pub id: DeliveryId,
    /// Attempts that were made.
    pub number: u32,
    pub recipient: RecipientKey,
    pub suppression: SuppressionId,
}

/// Deliveries ended without an attempt, since their recipients are suppressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverySuppressed {
    pub message: MessageUuid,
    pub account: AccountName,
    pub deliveries: Vec<SuppressedRecipient>,
    pub keep_until: Timestamp,
}
fact!(DeliverySuppressed);

/// A delivery that is withdrawn, and whether it was on hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanceledDelivery {
    pub id: DeliveryId,
    pub held: bool,
}

/// Deliveries of a message were withdrawn by a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryCanceled {
    pub message: MessageUuid,
    pub account: AccountName,
    pub deliveries: Vec<CanceledDelivery>,
    pub keep_until: Timestamp,
    pub job: Option<JobId>,
    pub by: Author,
}
fact!(DeliveryCanceled);

/// Why a delivery waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldCause {
    Rule(HoldRuleId),
    /// A person held this one.
    Person,
    /// It was queued or being tried when the ledger was cut off and restored, so it is in doubt whether it was sent.
    Restored,
}

/// Deliveries of a message wait until they are released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryHeld {
    pub message: MessageUuid,
    pub account: AccountName,
    pub deliveries: Vec<DeliveryId>,
    pub cause: HoldCause,
    pub job: Option<JobId>,
    pub by: Author,
}
fact!(DeliveryHeld);

/// Deliveries of a message wait no longer; they are due as they were before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReleased {
    pub message: MessageUuid,
    pub account: AccountName,
    pub deliveries: Vec<DeliveryId>,
    pub job: Option<JobId>,
    pub by: Author,
}
fact!(DeliveryReleased);

/// A delivery and when it is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RescheduledDelivery {
    pub id: DeliveryId,
    pub next: Timestamp,
}

/// Deliveries of a message are due at another time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRescheduled {
    pub message: MessageUuid,
    pub account: AccountName,
    pub deliveries: Vec<RescheduledDelivery>,
    pub job: Option<JobId>,
    pub by: Author,
}
fact!(DeliveryRescheduled);

/// What is wished for a delivery whose attempt is running; decided when the attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    Cancel,
    Fail,
    Hold,
    Reschedule(Timestamp),
}

/// A wish for a delivery was noted while an attempt of it was running. A later wish replaces an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WishNoted {
    pub message: MessageUuid,
    pub account: AccountName,
    pub delivery: DeliveryId,
    pub wish: Wish,
    pub job: Option<JobId>,
    pub by: Author,
}
fact!(WishNoted);
