//! Jobs: the next part of an intent that touches many rows. A crash between two parts loses nothing.

use std::time::Duration;

use postledger_events::command::AdvanceJob;
use postledger_events::fact::account::{AccountRemoved, AddressRemoved};
use postledger_events::fact::delivery::HoldCause;
use postledger_events::fact::job::{HoldMatch, JobAdvanced, JobFinished, QueueAction, QueueFilter, Work};
use postledger_events::fact::mailbox::MessageDeleted;
use postledger_events::fact::suppression::SuppressionLifted;
use postledger_events::id::{AccountName, DeliveryId, HoldRuleId};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Refusal};
use postledger_projections::accounts::{self, JobRow};
use postledger_projections::deliveries::{self, Due};
use postledger_projections::{Error, Rows, mailboxes, suppressions};

use super::queue::Changes;
use super::{Decision, Moment, access, damaged};

/// Rows that one part of a job looks at.
const ROWS_MAX: usize = 500;

/// Does the next part. `Answer::More(false)`: the job is finished, or must wait for running attempts.
pub fn advance(c: &AdvanceJob, rows: &dyn Rows, moment: Moment) -> Result<Decision, Refusal> {
    let job = accounts::job(rows, c.job).map_err(damaged)?.filter(|job| !job.finished);
    let job = job.ok_or_else(|| Refusal::NoSuch(Thing::Job(c.job.to_string())))?;
    let mut step = Step { decision: Decision::new(Answer::More(true)), affected: job.affected };
    match &job.work {
        Work::ApplyHoldRule(rule, matching) => step.apply_hold_rule(&job, *rule, matching, rows, moment),
        Work::HoldRestored(_) => step.hold_restored(&job, rows, moment),
        Work::Queue(filter, action) => step.queue(&job, filter, *action, rows, moment),
        Work::RemoveAccount(account) => step.remove_account(&job, account, rows, moment),
    }
    .map_err(damaged)?;
    Ok(step.decision)
}

/// Where a walk over the open deliveries is: first the others by due time, then those on hold, since what is held meanwhile,
/// as an attempt's end may have it, must not be passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Due(Due),
    Held(DeliveryId),
    /// Past all deliveries.
    End,
}

impl Place {
    fn parse(cursor: &str) -> Place {
        let number = |s: &str| s.parse().ok();
        let parts: Vec<&str> = cursor.split(' ').collect();
        match parts.as_slice() {
            ["held", id] => number(id).map_or(Place::START, |id: u64| Place::Held(DeliveryId(id))),
            ["due", at, id] => match (at.parse(), number(id)) {
                (Ok(at), Some(id)) => Place::Due(Due { at: Timestamp::from_nanos(at), id: DeliveryId(id) }),
                _ => Place::START,
            },
            ["end"] => Place::End,
            _ => Place::START,
        }
    }

    const START: Place = Place::Due(Due::FIRST);
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Held(id) => write!(f, "held {id}"),
            Place::Due(due) => write!(f, "due {} {}", due.at.as_nanos(), due.id),
            Place::End => f.write_str("end"),
        }
    }
}

/// The open deliveries at a place, and the place behind them.
fn walk(place: Place, rows: &dyn Rows) -> Result<(Vec<DeliveryId>, Place), Error> {
    match place {
        Place::Held(from) => {
            let ids = deliveries::held(rows, from, ROWS_MAX)?;
            let next = match ids.last() {
                Some(last) if ids.len() == ROWS_MAX => Place::Held(DeliveryId(last.0 + 1)),
                _ => Place::End,
            };
            Ok((ids, next))
        }
        Place::Due(from) => {
            let due = deliveries::due(rows, from, Timestamp::MAX, ROWS_MAX)?;
            let next = match due.last() {
                Some(last) if due.len() == ROWS_MAX => Place::Due(last.after()),
                _ => Place::Held(DeliveryId(0)),
            };
            Ok((due.into_iter().map(|due| due.id).collect(), next))
        }
        Place::End => Ok((Vec::new(), Place::End)),
    }
}

struct Step {
    decision: Decision,
    affected: u64,
}

impl Step {
    fn apply_hold_rule(
        &mut self,
        job: &JobRow,
        rule: HoldRuleId,
        matching: &HoldMatch,
        rows: &dyn Rows,
        moment: Moment,
    ) -> Result<(), Error> {
        // A rule that was removed meanwhile holds nothing more.
        if accounts::hold_rule(rows, rule)?.is_none() {
            self.finish(job);
            return Ok(());
        }
        let filter = QueueFilter {
            account: matching.account.clone(),
            sender_domain: matching.sender_domain.clone(),
            recipient_domain: matching.recipient_domain.clone(),
            ..QueueFilter::default()
        };
        let changes = Changes::new(QueueAction::Hold, Some(job.job), job.by.clone()).because(HoldCause::Rule(rule));
        let (next, _) = self.change(changes, &filter, Place::parse(&job.cursor), rows, moment)?;
        self.go_on(job, next);
        Ok(())
    }

    /// Those whose attempts were running are given up first; then this part is looked at again.
    fn hold_restored(&mut self, job: &JobRow, rows: &dyn Rows, moment: Moment) -> Result<(), Error> {
        let changes = Changes::new(QueueAction::Hold, Some(job.job), job.by.clone()).because(HoldCause::Restored);
        let (next, running) = self.change(changes, &QueueFilter::default(), Place::parse(&job.cursor), rows, moment)?;
        if running > 0 {
            self.decision.answer = Answer::More(false);
        } else {
            self.go_on(job, next);
        }
        Ok(())
    }

    fn queue(
        &mut self,
        job: &JobRow,
        filter: &QueueFilter,
        action: QueueAction,
        rows: &dyn Rows,
        moment: Moment,
    ) -> Result<(), Error> {
        let changes = Changes::new(action, Some(job.job), job.by.clone());
        // What was submitted after the wish is not meant by it.
        let after = job.started + Duration::from_nanos(1);
        let submitted_before = Some(filter.submitted_before.map_or(after, |before| before.min(after)));
        let filter = &QueueFilter { submitted_before, ..filter.clone() };
        let (next, _) = self.change(changes, filter, Place::parse(&job.cursor), rows, moment)?;
        self.go_on(job, next);
        Ok(())
    }

    /// Fails what is queued, then forgets the list, the mailboxes and the addresses, then the keys, the cursors and the account.
    fn remove_account(
        &mut self,
        job: &JobRow,
        account: &AccountName,
        rows: &dyn Rows,
        moment: Moment,
    ) -> Result<(), Error> {
        // A ledger that was cut off between the last two records has the job, but no account, or a new one of that name.
        if accounts::account(rows, account)?.is_none_or(|row| row.removing != Some(job.job)) {
            self.finish(job);
            return Ok(());
        }
        let place = Place::parse(&job.cursor);
        if place != Place::End {
            let filter = QueueFilter { account: Some(account.clone()), ..QueueFilter::default() };
            let changes = Changes::new(QueueAction::Fail, Some(job.job), job.by.clone()).by_account_removal();
            let (next, running) = self.change(changes, &filter, place, rows, moment)?;
            // What is running ends first; then this part is looked at again.
            if running > 0 {
                self.decision.answer = Answer::More(false);
            } else {
                self.advance(job, next);
            }
            return Ok(());
        }
        if self.lift_suppressions(job, account, rows)?
            || self.delete_messages(job, account, rows)?
            || self.remove_addresses(job, account, rows)?
        {
            return Ok(());
        }
        access::remove_all(account, &job.by, rows, &mut self.decision)?;
        if let Some(password) = accounts::account(rows, account)?.and_then(|row| row.settings.password) {
            self.decision.forget_secrets.push(password.id);
        }
        self.decision.events.push(AccountRemoved { account: account.clone(), by: job.by.clone() }.into());
        self.finish(job);
        Ok(())
    }

    fn change(
        &mut self,
        mut changes: Changes,
        filter: &QueueFilter,
        place: Place,
        rows: &dyn Rows,
        moment: Moment,
    ) -> Result<(Place, u64), Error> {
        let (ids, next) = walk(place, rows)?;
        for id in ids {
            if let Some(row) = deliveries::delivery(rows, id)? {
                changes.add(row, filter, rows)?;
            }
        }
        let running = changes.running;
        self.affected += changes.affected;
        changes.decide(rows, moment, &mut self.decision)?;
        Ok((next, running))
    }

    fn lift_suppressions(&mut self, job: &JobRow, account: &AccountName, rows: &dyn Rows) -> Result<bool, Error> {
        let found = suppressions::some(rows, account, ROWS_MAX)?;
        for row in &found {
            let (id, recipient, by) = (row.id, row.recipient, job.by.clone());
            let lifted = SuppressionLifted { id, account: account.clone(), recipient, by, idempotency: None };
            self.decision.events.push(lifted.into());
        }
        Ok(!found.is_empty())
    }

    fn delete_messages(&mut self, job: &JobRow, account: &AccountName, rows: &dyn Rows) -> Result<bool, Error> {
        let found = mailboxes::some(rows, account, ROWS_MAX)?;
        for (n, row) in found.iter().enumerate() {
            let earlier = found[..n].iter().filter(|r| r.body.body == row.body.body).count();
            let last = mailboxes::copies(rows, row.body.body)? as usize == earlier + 1;
            if last {
                self.decision.forget_bodies.push(row.body);
            }
            let deleted = MessageDeleted {
                account: account.clone(),
                mailbox: row.mailbox.clone(),
                msg_id: row.msg_id,
                body: row.body,
                last,
                by: job.by.clone(),
            };
            self.decision.events.push(deleted.into());
        }
        Ok(!found.is_empty())
    }

    fn remove_addresses(&mut self, job: &JobRow, account: &AccountName, rows: &dyn Rows) -> Result<bool, Error> {
        let found = accounts::addresses_of(rows, account, ROWS_MAX)?;
        for row in &found {
            let removed = AddressRemoved { address: row.address.clone(), account: account.clone(), by: job.by.clone() };
            self.decision.events.push(removed.into());
        }
        Ok(!found.is_empty())
    }

    fn go_on(&mut self, job: &JobRow, next: Place) {
        if next == Place::End { self.finish(job) } else { self.advance(job, next) }
    }

    fn advance(&mut self, job: &JobRow, next: Place) {
        let advanced = JobAdvanced { job: job.job, cursor: next.to_string(), affected: self.affected };
        self.decision.events.push(advanced.into());
    }

    fn finish(&mut self, job: &JobRow) {
        self.decision.events.push(JobFinished { job: job.job, affected: self.affected }.into());
        self.decision.answer = Answer::More(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip() {
        let due = Due { at: Timestamp::from_nanos(17), id: DeliveryId(3) };
        for place in [Place::START, Place::Held(DeliveryId(9)), Place::Due(due), Place::End] {
            assert_eq!(Place::parse(&place.to_string()), place);
        }
        assert_eq!(Place::parse(""), Place::START);
    }
}
