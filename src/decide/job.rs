//! Jobs: the next part of an intent that touches many rows. A crash between two parts loses nothing.

use std::time::Duration;

use postledger_events::command::AdvanceJob;
use postledger_events::fact::account::{AccountRemoved, AddressRemoved};
use postledger_events::fact::call::{CallRef, CallsHeld, Canceling};
use postledger_events::fact::delivery::HoldCause;
use postledger_events::fact::endpoint::EndpointRemoved;
use postledger_events::fact::job::{
    CallAction, CallFilter, CallPhase, HoldMatch, JobAdvanced, JobFinished, QueueAction, QueueFilter, Work,
};
use postledger_events::fact::mailbox::MessageDeleted;
use postledger_events::fact::replay::ReplayEnd;
use postledger_events::fact::suppression::SuppressionLifted;
use postledger_events::id::{AccountName, Author, DeliveryId, EndpointName, HoldRuleId};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Refusal};
use postledger_projections::accounts::{self, JobRow};
use postledger_projections::calls::{self, CallRow, CallState, EndpointRow, ReplayState};
use postledger_projections::deliveries::{self, Due};
use postledger_projections::{Error, Rows, mailboxes, suppressions};

use super::call_walk::{CallPlace, Part, walk as walk_calls};
use super::queue::Changes;
use super::{Decision, Moment, access, call, damaged, endpoint, replay};

/// Rows that one part of a job looks at.
const ROWS_MAX: usize = 500;

/// Does the next part. `Answer::More(false)`: the job is finished, or must wait for running attempts.
pub fn advance(c: &AdvanceJob, rows: &dyn Rows, moment: Moment) -> Result<Decision, Refusal> {
    let job = accounts::job(rows, c.job).map_err(damaged)?.filter(|job| !job.finished);
    let job = job.ok_or_else(|| Refusal::NoSuch(Thing::Job(c.job.to_string())))?;
    let mut step = Step { decision: Decision::new(Answer::More(true)), affected: job.affected };
    if lets_go(&job.work) && job.job.0 < accounts::counters(rows).map_err(damaged)?.branch_job {
        step.finish(&job);
        return Ok(step.decision);
    }
    match &job.work {
        Work::ApplyHoldRule(rule, matching) => step.apply_hold_rule(&job, *rule, matching, rows, moment),
        Work::HoldRestored(_) => step.hold_restored(&job, rows, moment),
        Work::Queue(filter, action) => step.queue(&job, filter, *action, rows, moment),
        Work::RemoveAccount(account) => step.remove_account(&job, account, rows, moment),
        Work::Calls(filter, action) => step.calls(&job, filter, *action, rows, moment),
        Work::RemoveEndpoint(account, endpoint) => step.remove_endpoint(&job, account, endpoint, rows, moment),
    }
    .map_err(damaged)?;
    Ok(step.decision)
}

/// Whether it sends what is on hold. Who asked for that before the ledger was cut off did not mean what is on hold since.
fn lets_go(work: &Work) -> bool {
    match work {
        Work::Queue(_, action) => *action == QueueAction::Release,
        Work::Calls(_, action) => *action == CallAction::Retry,
        Work::ApplyHoldRule(..) | Work::HoldRestored(_) | Work::RemoveAccount(_) | Work::RemoveEndpoint(..) => false,
    }
}

/// Where a walk over the open deliveries is: first the others by due time, then those on hold, since what is held meanwhile,
/// as an attempt's end may have it, must not be passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Due(Due),
    Held(DeliveryId),
    /// Past all deliveries.
    End,
    /// Past all deliveries, and among the calls.
    Calls(CallPlace),
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
            ["calls", parts @ ..] => CallPlace::parse(parts).map_or(Place::End, Place::Calls),
            _ => Place::START,
        }
    }

    const START: Place = Place::Due(Due::FIRST);

    fn is_past_deliveries(&self) -> bool {
        match self {
            Place::Due(_) | Place::Held(_) => false,
            Place::End | Place::Calls(_) => true,
        }
    }

    fn of_call(&self) -> Option<&CallPlace> {
        match self {
            Place::Calls(place) => Some(place),
            Place::Due(_) | Place::Held(_) | Place::End => None,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Held(id) => write!(f, "held {id}"),
            Place::Due(due) => write!(f, "due {} {}", due.at.as_nanos(), due.id),
            Place::End => f.write_str("end"),
            Place::Calls(place) => write!(f, "calls {place}"),
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
        Place::End | Place::Calls(_) => Ok((Vec::new(), Place::End)),
    }
}

/// Whether all that is in doubt since the ledger was restored is meant, or all of an account or a message. A condition that only
/// deliveries can meet leaves calls alone.
fn releases_calls(filter: &QueueFilter, action: QueueAction) -> bool {
    let QueueFilter { account, message, restored, .. } = filter.clone();
    let whole = QueueFilter { account, message, restored, ..QueueFilter::default() };
    action == QueueAction::Release && restored == Some(true) && *filter == whole
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

    /// Those whose attempts were running are given up first; then this part is looked at again. Calls and replays come last.
    fn hold_restored(&mut self, job: &JobRow, rows: &dyn Rows, moment: Moment) -> Result<(), Error> {
        let place = Place::parse(&job.cursor);
        if place.is_past_deliveries() {
            return self.hold_restored_calls(job, place, rows);
        }
        let changes = Changes::new(QueueAction::Hold, Some(job.job), job.by.clone()).because(HoldCause::Restored);
        let (next, running) = self.change(changes, &QueueFilter::default(), place, rows, moment)?;
        if running > 0 {
            self.decision.answer = Answer::More(false);
        } else {
            self.advance(job, next);
        }
        Ok(())
    }

    fn hold_restored_calls(&mut self, job: &JobRow, place: Place, rows: &dyn Rows) -> Result<(), Error> {
        let branch = accounts::counters(rows)?.branch;
        let before = CallRef { fact: branch, place: 0 };
        let part = walk_calls(calls::all_endpoints(rows)?, place.of_call(), (calls::FIRST, before), rows)?;
        for (endpoint, found) in part.found {
            let in_doubt = |row: &&CallRow| row.state == CallState::Waiting && row.is_in_doubt(branch);
            let calls: Vec<CallRef> = found.iter().filter(in_doubt).map(|row| row.call).collect();
            self.affected += calls.len() as u64;
            if !calls.is_empty() {
                let EndpointRow { account, endpoint, .. } = endpoint;
                self.decision.events.push(CallsHeld { account, endpoint, calls, job: Some(job.job) }.into());
            }
        }
        if let Some(next) = part.next {
            self.advance(job, Place::Calls(next));
            return Ok(());
        }
        let running = |row: &&calls::ReplayRow| row.state == ReplayState::Running && !row.may_go(branch);
        for row in calls::open_replays(rows)?.iter().filter(running) {
            let why = "the ledger was restored; what it had told since is not known".to_owned();
            self.decision.events.push(replay::stop_event(row, Some(why), Author::program()));
        }
        self.finish(job);
        Ok(())
    }

    fn calls(
        &mut self,
        job: &JobRow,
        filter: &CallFilter,
        action: CallAction,
        rows: &dyn Rows,
        moment: Moment,
    ) -> Result<(), Error> {
        // What was queued after the wish is not meant by it.
        let after = job.started + Duration::from_nanos(1);
        let queued_before = Some(filter.queued_before.map_or(after, |before| before.min(after)));
        let filter = &CallFilter { queued_before, ..filter.clone() };
        let mut endpoints = match &filter.account {
            Some(account) => calls::endpoints(rows, account)?,
            None => calls::all_endpoints(rows)?,
        };
        endpoints.retain(|row| filter.endpoint.as_ref().is_none_or(|endpoint| row.endpoint == *endpoint));
        let first = filter.from.map_or(calls::FIRST, |fact| CallRef { fact, place: 0 });
        let before = filter.to.map_or(calls::LAST, |fact| CallRef { fact: fact.next(), place: 0 });
        let part = walk_calls(endpoints, Place::parse(&job.cursor).of_call(), (first, before), rows)?;
        self.change_calls(job, part, action, |row, changes| changes.add(row, filter, moment));
        Ok(())
    }

    /// Changes what `add` takes in of a part of a walk, and goes on or finishes.
    fn change_calls(
        &mut self,
        job: &JobRow,
        part: Part,
        action: CallAction,
        add: impl Fn(&CallRow, &mut call::Changes),
    ) {
        for (endpoint, found) in part.found {
            let mut changes = call::Changes::new(action, Some(job.job), job.by.clone());
            found.iter().for_each(|row| add(row, &mut changes));
            self.affected += changes.affected();
            changes.decide(&endpoint.account, &endpoint.endpoint, &mut self.decision);
        }
        match part.next {
            Some(next) => self.advance(job, Place::Calls(next)),
            None => self.finish(job),
        }
    }

    fn remove_endpoint(
        &mut self,
        job: &JobRow,
        account: &AccountName,
        endpoint: &EndpointName,
        rows: &dyn Rows,
        moment: Moment,
    ) -> Result<(), Error> {
        let row = calls::endpoint(rows, account, endpoint)?;
        // A ledger that was cut off between the last two records has the job, but no endpoint, or a new one of that name.
        let Some(row) = row.filter(|row| row.removing == Some(job.job)) else {
            self.finish(job);
            return Ok(());
        };
        if self.end_endpoint(job, row, rows, moment)? {
            self.finish(job);
        }
        Ok(())
    }

    /// Cancels the next part of its calls; with the last it goes itself, which is answered.
    fn end_endpoint(&mut self, job: &JobRow, row: EndpointRow, rows: &dyn Rows, moment: Moment) -> Result<bool, Error> {
        let place = Place::parse(&job.cursor);
        let part = walk_calls(vec![row.clone()], place.of_call(), (calls::FIRST, calls::LAST), rows)?;
        let changes = call::Changes::new(CallAction::Cancel, Some(job.job), job.by.clone());
        let mut changes = changes.because(Canceling::EndpointRemoved);
        for call in part.found.iter().flat_map(|(_, found)| found) {
            changes.add(call, &CallFilter::default(), moment);
        }
        self.affected += changes.affected();
        changes.decide(&row.account, &row.endpoint, &mut self.decision);
        if let Some(next) = part.next {
            self.advance(job, Place::Calls(next));
            return Ok(false);
        }
        let own = |replay: &&calls::ReplayRow| replay.account == row.account && replay.endpoint == row.endpoint;
        for open in calls::open_replays(rows)?.iter().filter(own) {
            self.decision.events.push(replay::ended(open, ReplayEnd::EndpointRemoved, job.by.clone()));
        }
        self.decision.forget_secrets.extend(endpoint::secrets(&row.settings));
        let EndpointRow { account, endpoint, .. } = row;
        self.decision.events.push(EndpointRemoved { account, endpoint, by: job.by.clone() }.into());
        Ok(true)
    }

    fn queue(
        &mut self,
        job: &JobRow,
        filter: &QueueFilter,
        action: QueueAction,
        rows: &dyn Rows,
        moment: Moment,
    ) -> Result<(), Error> {
        let place = Place::parse(&job.cursor);
        if place.is_past_deliveries() {
            return self.release_calls(job, filter, &place, rows, moment);
        }
        let changes = Changes::new(action, Some(job.job), job.by.clone());
        // What was submitted after the wish is not meant by it.
        let after = job.started + Duration::from_nanos(1);
        let submitted_before = Some(filter.submitted_before.map_or(after, |before| before.min(after)));
        let meant = QueueFilter { submitted_before, ..filter.clone() };
        let (next, _) = self.change(changes, &meant, place, rows, moment)?;
        if next == Place::End && releases_calls(filter, action) {
            self.advance(job, next);
        } else {
            self.go_on(job, next);
        }
        Ok(())
    }

    /// Calls that wait since the ledger was restored go with the deliveries that do.
    fn release_calls(
        &mut self,
        job: &JobRow,
        filter: &QueueFilter,
        place: &Place,
        rows: &dyn Rows,
        moment: Moment,
    ) -> Result<(), Error> {
        // What is still to be put on hold would be passed over.
        if accounts::jobs(rows)?.iter().any(|other| matches!(other.work, Work::HoldRestored(_))) {
            self.decision.answer = Answer::More(false);
            return Ok(());
        }
        let endpoints = match &filter.account {
            Some(account) => calls::endpoints(rows, account)?,
            None => calls::all_endpoints(rows)?,
        };
        let held = CallFilter { phases: vec![CallPhase::Held], ..CallFilter::default() };
        let part = walk_calls(endpoints, place.of_call(), (calls::FIRST, calls::LAST), rows)?;
        self.change_calls(job, part, CallAction::Retry, |row, changes| {
            if filter.message.is_none_or(|message| row.message == message) {
                changes.add(row, &held, moment);
            }
        });
        Ok(())
    }

    /// Fails what is queued, then forgets the endpoints, the list, the mailboxes and the addresses, then the keys, the cursors and the
    /// account.
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
        if !place.is_past_deliveries() {
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
        if let Some(row) = calls::endpoints(rows, account)?.into_iter().min_by(|a, b| a.endpoint.cmp(&b.endpoint)) {
            self.end_endpoint(job, row, rows, moment)?;
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
    use postledger_events::Record;
    use postledger_events::event::Event;
    use postledger_events::fact::job::JobStarted;
    use postledger_events::fact::ledger::{LastNumbers, LedgerBranched};
    use postledger_events::id::{JobId, Seq, Sha256};
    use postledger_projections::{Memory, fold};

    use super::*;

    #[test]
    fn a_release_from_before_the_cut_lets_nothing_go() {
        let by = Author::program;
        let works = [
            Work::Queue(QueueFilter::default(), QueueAction::Release),
            Work::Calls(CallFilter::default(), CallAction::Retry),
            Work::Queue(QueueFilter::default(), QueueAction::Cancel),
        ];
        let started = |n, work: &Work| Event::from(JobStarted { job: JobId(n), work: work.clone(), by: by() });
        let branched = LedgerBranched {
            from_seq: Seq(3),
            from_hash: Sha256::ZERO,
            next_seq: Seq(100),
            numbers: LastNumbers::NONE,
            job: JobId(10),
            reason: "restored".to_owned(),
            by: by(),
        };
        let before = (1..).zip(&works).map(|(n, work)| (n, started(n, work)));
        let after = (11..).zip(&works).map(|(n, work)| (100 + n, started(n, work)));
        let mut rows = Memory::default();
        for (seq, event) in before.chain([(100, branched.into())]).chain(after) {
            fold(&Record { seq: Seq(seq), at: Timestamp::EPOCH, prev: Sha256::ZERO, event }, &mut rows).unwrap();
        }
        let moment = Moment { now: Timestamp::EPOCH, next: Seq(200) };
        let ends = |job| {
            let decision = advance(&AdvanceJob { job: JobId(job) }, &rows, moment).unwrap();
            matches!(decision.events[..], [Event::JobFinished(_)])
        };
        assert_eq!([1, 2, 3].map(ends), [true, true, false]);
        assert_eq!([11, 13].map(ends), [false, false]);
    }

    #[test]
    fn cursors_round_trip() {
        let due = Due { at: Timestamp::from_nanos(17), id: DeliveryId(3) };
        for place in [Place::START, Place::Held(DeliveryId(9)), Place::Due(due), Place::End] {
            assert_eq!(Place::parse(&place.to_string()), place);
        }
        assert_eq!(Place::parse(""), Place::START);
    }
}
