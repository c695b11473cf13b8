//! Deciding: a command, the rows it reads, the policy and the time give events or a refusal. Pure.

pub mod access;
mod account;
mod announce;
pub mod attempt;
mod branch;
mod call;
mod call_walk;
pub mod classify;
mod domain;
mod endpoint;
mod expire;
mod job;
mod lose;
mod mailbox;
pub mod pseudonym;
mod queue;
mod replay;
mod retry;
mod submit;
mod suppression;
mod transport;

use std::sync::Arc;

use postledger_events::event::Event;
use postledger_events::fact::account::RetrySchedule;
use postledger_events::fact::ledger::ClockStepped;
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{SecretId, Seq};
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections::{Error, Rows};

pub use branch::hold_open;
pub use submit::preflight;

/// What the static configuration and the vault add to a decision.
#[derive(Clone)]
pub struct Policy {
    /// Key of the pseudonyms of recipients.
    pub pepper: [u8; 32],
    /// Upper bits of every number given out.
    pub ledger_number: u16,
    /// For accounts that have none of their own.
    pub retry: RetrySchedule,
    /// All waits are divided by this (1, but for trials).
    pub retry_scale: u32,
    /// What reply texts mean.
    pub reply_rules: Arc<classify::Rules>,
}

#[cfg(test)]
impl Policy {
    /// As the program decides without any settings.
    fn plain() -> Policy {
        Policy {
            pepper: [7; 32],
            ledger_number: 0,
            retry: RetrySchedule::contract(),
            retry_scale: 1,
            reply_rules: Arc::new(classify::Rules::shipped()),
        }
    }
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

impl Decision {
    fn new(answer: Answer) -> Decision {
        Decision { events: Vec::new(), answer, forget_secrets: Vec::new(), forget_bodies: Vec::new() }
    }

    fn done(event: impl Into<Event>) -> Decision {
        Decision { events: vec![event.into()], ..Decision::new(Answer::Done) }
    }
}

/// Decides; changes nothing.
pub fn decide(command: &Command, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    let mut decision = judge(command, rows, policy, moment)?;
    announce::announce(&mut decision, rows, moment)?;
    Ok(decision)
}

fn judge(command: &Command, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    match command {
        Command::Submit(c) => submit::submit(c, rows, policy, moment),
        Command::StartAttempt(c) => attempt::start(c, rows, policy, moment),
        Command::FinishAttempt(c) => attempt::finish(c, rows, policy, moment),
        Command::AbandonAttempt(c) => attempt::abandon(c, rows, policy, moment),
        Command::Receive(c) => mailbox::receive(c, rows, policy),
        Command::DropNotice(c) => Ok(mailbox::drop_notice(c.notice_of)),
        Command::DeleteMessage(c) => mailbox::delete(c, rows),
        Command::Suppress(c) => suppression::suppress(c, rows, policy, moment),
        Command::LiftSuppression(c) => suppression::lift(c, rows, policy, moment),
        Command::Queue(c) => queue::queue(c, rows, policy, moment),
        Command::AddHoldRule(c) => queue::add_hold_rule(c, rows, policy),
        Command::RemoveHoldRule(c) => queue::remove_hold_rule(c, rows),
        Command::AdvanceJob(c) => job::advance(c, rows, moment),
        Command::ConfigureAccount(c) => account::configure(c, rows),
        Command::RemoveAccount(c) => account::remove(c, rows, policy),
        Command::AddAddress(c) => account::add_address(c, rows),
        Command::RemoveAddress(c) => account::remove_address(c, rows),
        Command::ConfigureDomain(c) => domain::configure(c, rows),
        Command::RemoveDomain(c) => domain::remove(c, rows),
        Command::ConfigureTransport(c) => transport::configure(c, rows),
        Command::RemoveTransport(c) => transport::remove(c, rows),
        Command::ConfigureEndpoint(c) => endpoint::configure(c, rows),
        Command::RemoveEndpoint(c) => endpoint::remove(c, rows, policy),
        Command::RecordTestCall(c) => endpoint::record_test(c, rows),
        Command::FinishCalls(c) => call::finish(c, rows, policy, moment),
        Command::Calls(c) => call::change(c, rows, policy, moment),
        Command::StartReplay(c) => replay::start(c, rows, moment),
        Command::AdvanceReplay(c) => replay::advance(c, rows, policy, moment),
        Command::StopReplay(c) => replay::stop(c, rows),
        Command::ResumeReplay(c) => replay::resume(c, rows),
        Command::CancelReplay(c) => replay::cancel(c, rows),
        Command::Expire(c) => expire::expire(c, rows, moment),
        Command::Branch(c) => branch::branch(c, rows, policy, moment),
        Command::LoseContents(c) => lose::lose(c, rows, moment),
        Command::AddKey(c) => access::add_key(c, rows, policy, moment),
        Command::RevokeKey(c) => access::revoke_key(c, rows),
        Command::UseKey(c) => access::use_key(c, rows, moment),
        Command::SetCursor(c) => access::set_cursor(c, rows, moment),
        Command::RemoveCursor(c) => access::remove_cursor(c, rows),
        Command::AcceptClock(c) => Ok(Decision::done(ClockStepped { from: c.from, to: moment.now, by: c.by.clone() })),
    }
}

/// The number after `last`, within the range of this ledger.
fn next_number(last: u64, ledger: u16) -> u64 {
    (last + 1).max(postledger_events::id::first_number(ledger))
}

fn damaged(e: Error) -> Refusal {
    Refusal::Damaged(e.to_string())
}
