//! Facts about the ledger itself.

use serde::{Deserialize, Serialize};

use super::fact;
use crate::id::{
    Author, DeliveryId, Fingerprint, HoldRuleId, JobId, KeyId, LedgerId, MsgId, Seq, Sha256, SuppressionId,
};
use crate::time::Timestamp;

/// Record 1 of every ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerCreated {
    pub ledger: LedgerId,
    /// The ledger's number within its installation, 0 to 1023; the upper bits of every number it gives out.
    pub number: u16,
    /// Version of the record format.
    pub format: u32,
    /// The program that created it.
    pub code_version: String,
    /// Of the key that pseudonyms of recipients are made with. The program does not start with another key.
    pub pepper: Fingerprint,
}
fact!(LedgerCreated);

/// The clock of the machine was changed, and somebody said that this is right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStepped {
    /// The time of the last record before.
    pub from: Timestamp,
    /// What the clock says now; the times of later records go on from here.
    pub to: Timestamp,
    pub by: Author,
}
fact!(ClockStepped);

/// The ledger was restored or repaired: what had been written after `from_seq` is not part of it any more. The only record
/// that may follow a gap: it stands at `next_seq`, so that no number of what was cut off is ever given again. Whatever was
/// queued or running may have been sent by the other branch; it is on hold until somebody releases it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerBranched {
    /// The last record that both branches have.
    pub from_seq: Seq,
    /// Of that record.
    pub from_hash: Sha256,
    /// The place of this record.
    pub next_seq: Seq,
    /// Numbers up to these count as given out.
    pub numbers: LastNumbers,
    /// Puts what was queued on hold, without haste; nothing of it leaves from now on.
    pub job: JobId,
    /// Such as `restored from a backup`.
    pub reason: String,
    pub by: Author,
}
fact!(LedgerBranched);

/// The last number of each sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastNumbers {
    pub delivery: DeliveryId,
    pub msg_id: MsgId,
    pub suppression: SuppressionId,
    pub hold_rule: HoldRuleId,
    pub key: KeyId,
}

impl LastNumbers {
    /// Before any was given out.
    pub const NONE: LastNumbers = LastNumbers {
        delivery: DeliveryId(0),
        msg_id: MsgId(0),
        suppression: SuppressionId(0),
        hold_rule: HoldRuleId(0),
        key: KeyId(0),
    };
}
