//! Deciding: a command, the rows it reads, the policy and the time give events or a refusal. Pure.

use postledger_events::event::Event;
use postledger_events::fact::account::RetrySchedule;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{SecretId, Seq};
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections::Rows;

/// What the static configuration and the vault add to a decision.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Key of the pseudonyms of recipients.
    pub pepper: [u8; 32],
    /// Upper bits of every number given out.
    pub ledger_number: u16,
    /// For accounts that have none of their own.
    pub retry: RetrySchedule,
    /// All waits are divided by this (1, but for trials).
    pub retry_scale: u32,
}

/// The moment of a decision.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time that its records will carry.
    pub now: Timestamp,
    /// The number that its first record will have.
    pub next: Seq,
}

/// What follows from a command that is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub events: Vec<Event>,
    pub answer: Answer,
    /// Secrets that nothing needs any more; their values go in the same batch.
    pub forget_secrets: Vec<SecretId>,
    /// Contents that nothing needs any more.
    pub forget_bodies: Vec<BodyRef>,
}

/// Decides; changes nothing.
pub fn decide(command: &Command, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    let _ = (command, rows, policy, moment);
    Err(Refusal::NoRecipients)
}
