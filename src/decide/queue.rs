//! Changes to queued deliveries by people, and hold rules.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postledger_events::address::Domain;
use postledger_events::command::{AddHoldRule, QueueCommand, RemoveHoldRule};
use postledger_events::fact::attempt::Failure;
use postledger_events::fact::delivery::{
    CanceledDelivery, DeliveryCanceled, DeliveryHeld, DeliveryReleased, DeliveryRescheduled, HoldCause,
    RescheduledDelivery, Wish, WishNoted,
};
use postledger_events::fact::job::{
    HoldMatch, HoldRuleAdded, HoldRuleRemoved, JobStarted, QueueAction, QueueFilter, Work,
};
use postledger_events::id::{AccountName, Author, HoldRuleId, JobId, MessageUuid};
use postledger_events::refusal::Thing;
use postledger_events::{Answer, Refusal};
use postledger_projections::accounts::JobRow;
use postledger_projections::deliveries::{self, DeliveryRow, MessageRow, State};
use postledger_projections::{Error, Rows, accounts};

use super::attempt::{NO_PROBLEM, failed, forget_contents, without_attempt};
use super::{Decision, Moment, Policy, damaged, next_number};

/// Deliveries that one command changes.
pub const DELIVERIES_MAX: usize = 1000;

/// With numbers, the deliveries are changed at once; a filter becomes a job.
pub fn queue(c: &QueueCommand, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    if c.filter.ids.len() > DELIVERIES_MAX {
        return Err(Refusal::Invalid(format!("more than {DELIVERIES_MAX} ids; use a filter")));
    }
    if c.filter.ids.is_empty() {
        let job = next_job(rows, policy)?;
        let work = Work::Queue(c.filter.clone(), c.action);
        let event = JobStarted { job, work, by: c.by.clone() };
        return Ok(Decision { events: vec![event.into()], ..Decision::new(Answer::Job(job)) });
    }
    let jobs = accounts::jobs(rows).map_err(damaged)?;
    let mut changes = Changes::new(c.action, None, c.by.clone());
    let mut ended = Vec::new();
    let ids: BTreeSet<_> = c.filter.ids.iter().collect();
    for id in ids {
        let Some(row) = deliveries::delivery(rows, *id).map_err(damaged)? else { continue };
        match ended_by_job(&jobs, &row, rows).map_err(damaged)? {
            Some(end) if !is_end(c.action) => ended.push(end),
            Some(_) | None => changes.add(row, &c.filter, rows).map_err(damaged)?,
        }
    }
    let mut decision = Decision::new(Answer::Affected(changes.affected));
    for end in ended {
        end.decide(rows, moment, &mut decision).map_err(damaged)?;
    }
    changes.decide(rows, moment, &mut decision).map_err(damaged)?;
    Ok(decision)
}

fn is_end(action: QueueAction) -> bool {
    match action {
        QueueAction::Cancel | QueueAction::Fail => true,
        QueueAction::Hold | QueueAction::Release | QueueAction::ScheduleAt(_) | QueueAction::ScheduleAdd(_) => false,
    }
}

/// Its end, if somebody wished for it earlier and the job has not come to it: it must not be moved to where the job has been.
fn ended_by_job(jobs: &[JobRow], row: &DeliveryRow, rows: &dyn Rows) -> Result<Option<Changes>, Error> {
    let ending = |job: &&JobRow| matches!(job.work, Work::Queue(_, action) if is_end(action));
    if !jobs.iter().any(|job| ending(&job)) {
        return Ok(None);
    }
    let Some(message) = deliveries::message(rows, row.message)? else { return Ok(None) };
    wished(jobs.iter().filter(ending), row, &message, rows)
}

/// What an open job would do with this delivery when it came to it: that is obeyed at once.
pub fn wished<'a>(
    mut jobs: impl Iterator<Item = &'a JobRow>,
    row: &DeliveryRow,
    message: &MessageRow,
    rows: &dyn Rows,
) -> Result<Option<Changes>, Error> {
    let changed = jobs.find_map(|job| {
        let Work::Queue(filter, action) = &job.work else { return None };
        if job.started < message.submitted {
            return None;
        }
        let mut changes = Changes::new(*action, Some(job.job), job.by.clone());
        match changes.add(row.clone(), filter, rows) {
            Ok(()) if changes.affected == 0 => None,
            Ok(()) => Some(Ok(changes)),
            Err(e) => Some(Err(e)),
        }
    });
    changed.transpose()
}

pub fn add_hold_rule(c: &AddHoldRule, rows: &dyn Rows, policy: &Policy) -> Result<Decision, Refusal> {
    if let Some(name) = &c.matching.account
        && accounts::account(rows, name).map_err(damaged)?.is_none()
    {
        return Err(Refusal::NoSuch(Thing::Account(name.to_string())));
    }
    let rules = accounts::hold_rules(rows).map_err(damaged)?;
    if rules.len() >= HOLD_RULES_MAX {
        return Err(Refusal::Invalid(format!("there are {HOLD_RULES_MAX} hold rules already; remove some")));
    }
    let last = accounts::counters(rows).map_err(damaged)?.hold_rule;
    let rule = HoldRuleId(next_number(last, policy.ledger_number));
    let job = next_job(rows, policy)?;
    let event = HoldRuleAdded { rule, matching: c.matching.clone(), job, by: c.by.clone() };
    Ok(Decision { events: vec![event.into()], ..Decision::new(Answer::HoldRule(rule, job)) })
}

pub fn remove_hold_rule(c: &RemoveHoldRule, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let row = accounts::hold_rule(rows, c.rule).map_err(damaged)?;
    row.ok_or_else(|| Refusal::NoSuch(Thing::HoldRule(c.rule.to_string())))?;
    Ok(Decision::done(HoldRuleRemoved { rule: c.rule, by: c.by.clone() }))
}

/// Hold rules at once; each submission and attempt looks at all of them.
const HOLD_RULES_MAX: usize = 1000;

pub fn next_job(rows: &dyn Rows, policy: &Policy) -> Result<JobId, Refusal> {
    let last = accounts::counters(rows).map_err(damaged)?.job;
    Ok(JobId(next_number(last, policy.ledger_number)))
}

/// Whether all fields that are set agree.
pub fn matches(rule: &HoldMatch, account: &AccountName, sender: Option<&Domain>, recipient: &Domain) -> bool {
    rule.account.as_ref().is_none_or(|a| a == account)
        && rule.sender_domain.as_ref().is_none_or(|d| Some(d) == sender)
        && rule.recipient_domain.as_ref().is_none_or(|d| d == recipient)
}

fn is_meant(filter: &QueueFilter, row: &DeliveryRow, message: &MessageRow) -> bool {
    let rule = HoldMatch {
        account: filter.account.clone(),
        sender_domain: filter.sender_domain.clone(),
        recipient_domain: filter.recipient_domain.clone(),
    };
    let sender = message.personal.as_ref().and_then(|p| p.reverse_path.as_ref()).map(|a| &a.domain);
    (filter.ids.is_empty() || filter.ids.contains(&row.id))
        && matches(&rule, &row.account, sender, &row.domain)
        && filter.message.is_none_or(|message| message == row.message)
        && filter.held.is_none_or(|held| held == matches!(row.state, State::Held(_)))
        && filter.restored.is_none_or(|restored| restored == (row.state == State::Held(HoldCause::Restored)))
        && filter.submitted_before.is_none_or(|t| message.submitted < t)
        && filter.submitted_after.is_none_or(|t| message.submitted > t)
        && filter.due_before.is_none_or(|t| row.due < t)
        && filter.due_after.is_none_or(|t| row.due > t)
}

/// The same change for many deliveries, collected by message.
pub struct Changes {
    action: QueueAction,
    job: Option<JobId>,
    /// Of a hold.
    cause: HoldCause,
    failure: Failure,
    by: Author,
    messages: BTreeMap<MessageUuid, (MessageRow, Vec<DeliveryRow>)>,
    /// Deliveries that are or will be changed.
    pub affected: u64,
    /// Of these, how many have a running attempt.
    pub running: u64,
}

impl Changes {
    pub fn new(action: QueueAction, job: Option<JobId>, by: Author) -> Changes {
        Changes {
            action,
            job,
            cause: HoldCause::Person,
            failure: Failure::Operator,
            by,
            messages: BTreeMap::new(),
            affected: 0,
            running: 0,
        }
    }

    /// Why it is a hold.
    pub fn because(self, cause: HoldCause) -> Changes {
        Changes { cause, ..self }
    }

    /// The failure is because the account goes.
    pub fn by_account_removal(self) -> Changes {
        Changes { failure: Failure::AccountRemoved, ..self }
    }

    /// Takes a delivery in if it is meant, open, not as wished already, and not treated by this job before.
    pub fn add(&mut self, row: DeliveryRow, filter: &QueueFilter, rows: &dyn Rows) -> Result<(), Error> {
        let treated = self.job.is_some_and(|job| row.jobs.contains(&job)) && !matches!(self.action, QueueAction::Fail);
        if treated || !self.changes(&row) || self.is_released(&row, rows)? || self.is_going(&row, rows)? {
            return Ok(());
        }
        let message = match self.messages.get(&row.message) {
            Some((message, _)) => message.clone(),
            None => match deliveries::message(rows, row.message)? {
                Some(message) => message,
                None => return Ok(()),
            },
        };
        if !is_meant(filter, &row, &message) {
            return Ok(());
        }
        if self.cause == HoldCause::Restored {
            let branch = accounts::counters(rows)?.branch;
            if !accounts::is_restored(branch, message.seq, row.released) {
                return Ok(());
            }
        }
        if matches!(row.state, State::Running(..)) {
            self.running += 1;
            // Its attempt is of the other branch, and is given up before anything else happens to it.
            if self.cause == HoldCause::Restored {
                return Ok(());
            }
            if row.wish.as_ref().is_some_and(|(wished, _)| *wished == wish_for(&row, self.action)) {
                return Ok(());
            }
        }
        self.affected += 1;
        let entry = self.messages.entry(row.message).or_insert_with(|| (message, Vec::new()));
        if entry.1.iter().all(|r| r.id != row.id) {
            entry.1.push(row);
        }
        Ok(())
    }

    /// Somebody released it after the rule was there.
    fn is_released(&self, row: &DeliveryRow, rows: &dyn Rows) -> Result<bool, Error> {
        let (HoldCause::Rule(rule), Some(released)) = (self.cause, row.released) else { return Ok(false) };
        Ok(accounts::hold_rule(rows, rule)?.is_some_and(|rule| rule.seq < released))
    }

    /// Deliveries of an account that is being removed are only ended.
    fn is_going(&self, row: &DeliveryRow, rows: &dyn Rows) -> Result<bool, Error> {
        match self.action {
            QueueAction::Cancel | QueueAction::Fail => Ok(false),
            QueueAction::Hold | QueueAction::Release | QueueAction::ScheduleAt(_) | QueueAction::ScheduleAdd(_) => {
                Ok(accounts::account(rows, &row.account)?.is_none_or(|account| account.removing.is_some()))
            }
        }
    }

    fn changes(&self, row: &DeliveryRow) -> bool {
        match (row.state, self.action) {
            (State::Delivered | State::Failed(_) | State::Suppressed | State::Canceled, _) => false,
            (State::Held(_), QueueAction::Hold) => false,
            (State::Queued | State::Running(..), QueueAction::Release) => false,
            (State::Queued | State::Running(..) | State::Held(_), _) => true,
        }
    }

    pub fn decide(self, rows: &dyn Rows, moment: Moment, decision: &mut Decision) -> Result<(), Error> {
        let Changes { action, job, cause, failure, by, messages, .. } = self;
        for (message, found) in messages.into_values() {
            let (running, open): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|row| matches!(row.state, State::Running(..)));
            for row in running {
                decision.events.push(note(&row, action, job, &by).into());
            }
            if !open.is_empty() {
                change(action, cause, failure, &message, open, job, &by, moment, decision);
                forget_contents(&message, rows, decision)?;
            }
        }
        Ok(())
    }
}

fn wish_for(row: &DeliveryRow, action: QueueAction) -> Wish {
    match action {
        // A running delivery is on no hold; `changes` lets none come here.
        QueueAction::Hold | QueueAction::Release => Wish::Hold,
        QueueAction::Cancel => Wish::Cancel,
        QueueAction::Fail => Wish::Fail,
        QueueAction::ScheduleAt(at) => Wish::Reschedule(at),
        QueueAction::ScheduleAdd(s) => Wish::Reschedule(row.due + Duration::from_secs(u64::from(s))),
    }
}

fn note(row: &DeliveryRow, action: QueueAction, job: Option<JobId>, by: &Author) -> WishNoted {
    let wish = wish_for(row, action);
    WishNoted { message: row.message, account: row.account.clone(), delivery: row.id, wish, job, by: by.clone() }
}

#[expect(clippy::too_many_arguments, reason = "one call, in a loop over what they are taken from")]
fn change(
    action: QueueAction,
    cause: HoldCause,
    failure: Failure,
    of: &MessageRow,
    open: Vec<DeliveryRow>,
    job: Option<JobId>,
    by: &Author,
    moment: Moment,
    decision: &mut Decision,
) {
    let (message, account, by) = (of.message, of.account.clone(), by.clone());
    let ids = open.iter().map(|row| row.id).collect();
    let at = |next: &dyn Fn(&DeliveryRow) -> postledger_events::time::Timestamp| {
        open.iter().map(|row| RescheduledDelivery { id: row.id, next: next(row).max(moment.now) }).collect()
    };
    let event = match action {
        QueueAction::Hold => DeliveryHeld { message, account, deliveries: ids, cause, job, by }.into(),
        QueueAction::Release => DeliveryReleased { message, account, deliveries: ids, job, by }.into(),
        QueueAction::Cancel => {
            let held = |row: &DeliveryRow| matches!(row.state, State::Held(_));
            let deliveries = open.iter().map(|row| CanceledDelivery { id: row.id, held: held(row) }).collect();
            let keep_until = moment.now + Duration::from_secs(of.keep_s);
            DeliveryCanceled { message, account, deliveries, keep_until, job, by }.into()
        }
        QueueAction::Fail => {
            let deliveries = open.iter().map(|row| failed(row, failure, NO_PROBLEM)).collect();
            without_attempt(of, deliveries, moment.now, Some(by)).into()
        }
        QueueAction::ScheduleAt(t) => DeliveryRescheduled { message, account, deliveries: at(&|_| t), job, by }.into(),
        QueueAction::ScheduleAdd(s) => {
            let later = Duration::from_secs(u64::from(s));
            DeliveryRescheduled { message, account, deliveries: at(&|row| row.due + later), job, by }.into()
        }
    };
    decision.events.push(event);
}
