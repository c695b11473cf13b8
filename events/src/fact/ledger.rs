//! Facts about the ledger itself.

use serde::{Deserialize, Serialize};

use super::fact;
use crate::id::{Author, Fingerprint, LedgerId};
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
