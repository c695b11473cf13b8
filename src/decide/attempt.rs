//! Attempts: leave to start, what their end means, and those whose end nobody saw.

use std::collections::BTreeSet;
use std::time::Duration;

use postledger_events::Event;
use postledger_events::command::{
    AbandonAttempt, AttemptLeave, FinishAttempt, LeaveRecipient, RecipientOutcome, StartAttempt,
};
use postledger_events::fact::attempt::{
    AttemptDeferred, AttemptInDoubt, AttemptStarted, DeferredRecipient, Delivered, DeliveredRecipient, DeliveryFailed,
    DoubtfulRecipient, FailedRecipient, Failure, NumberedDelivery, Problem, Replies, Session,
};
use postledger_events::fact::delivery::{
    CanceledDelivery, DeliveryCanceled, DeliveryHeld, DeliveryRescheduled, DeliverySuppressed, HoldCause,
    RescheduledDelivery, SuppressedRecipient, Wish,
};
use postledger_events::fact::expiry::{Expired, ExpiredBody};
use postledger_events::fact::suppression::{AddressSuppressed, Cause, SuppressionPersonal};
use postledger_events::id::{AttemptId, Author, DeliveryId, RecipientKey, Seq, SuppressionId};
use postledger_events::refusal::Thing;
use postledger_events::reply::EnhancedCode;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Refusal};
use postledger_projections::accounts::{self, AccountRow};
use postledger_projections::deliveries::{self, DeliveryRow, MessageRow, State};
use postledger_projections::suppressions::{self, STREAK_MAX};
use postledger_projections::{Error, Rows};

use super::{Decision, Moment, Policy, classify, damaged, next_number, pseudonym, queue, retry};

/// No reply, no text: the problem of a delivery that ended outside of an attempt.
pub const NO_PROBLEM: Problem = Problem { code: 0, enhanced: None, reply: None, error: None };

/// Gives leave for those deliveries that are due and may go. The others are held, suppressed or failed at once.
pub fn start(c: &StartAttempt, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    let message = find_message(rows, c.message)?;
    let account = accounts::account(rows, &message.account).map_err(damaged)?;
    let due = due(c, rows, moment).map_err(damaged)?;
    if is_sender_disabled(&message, rows).map_err(damaged)? {
        let mut decision = defer_disabled(c, &message, account.as_ref(), due, policy, moment);
        forget_contents(&message, rows, &mut decision).map_err(damaged)?;
        return Ok(decision);
    }
    let mut gate = Gate::new(&message, account.as_ref(), rows, moment)?;
    for row in due {
        gate.admit(row, rows).map_err(damaged)?;
    }
    let changes = std::mem::take(&mut gate.changes);
    let mut decision = gate.decide(c, moment);
    for changes in changes {
        changes.decide(rows, moment, &mut decision).map_err(damaged)?;
    }
    forget_contents(&message, rows, &mut decision).map_err(damaged)?;
    Ok(decision)
}

/// Those of the deliveries that can be tried now.
fn due(c: &StartAttempt, rows: &dyn Rows, moment: Moment) -> Result<Vec<DeliveryRow>, Error> {
    let mut seen = BTreeSet::new();
    let mut due = Vec::new();
    for id in c.deliveries.iter().filter(|id| seen.insert(**id)) {
        let row = deliveries::delivery(rows, *id)?;
        due.extend(row.filter(|row| row.message == c.message && row.state == State::Queued && row.due <= moment.now));
    }
    Ok(due)
}

fn is_sender_disabled(message: &MessageRow, rows: &dyn Rows) -> Result<bool, Error> {
    let Some(sender) = message.personal.as_ref().and_then(|p| p.reverse_path.as_ref()) else { return Ok(false) };
    Ok(accounts::domain(rows, &sender.domain)?.is_some_and(|domain| domain.settings.disabled))
}

/// An attempt that fails before it leaves, since the sender's domain is disabled; on the schedule, it may be enabled later.
fn defer_disabled(
    c: &StartAttempt,
    message: &MessageRow,
    account: Option<&AccountRow>,
    due: Vec<DeliveryRow>,
    policy: &Policy,
    moment: Moment,
) -> Decision {
    let mut decision = Decision::new(Answer::Attempt(AttemptLeave { recipients: Vec::new() }));
    if due.is_empty() {
        return decision;
    }
    let finish = FinishAttempt {
        attempt: c.attempt,
        message: c.message,
        results: Vec::new(),
        replies: Vec::new(),
        errors: vec!["the domain of the sender is disabled".to_owned()],
        session: Session::default(),
        ended: moment.now,
        jitter_s: 0,
    };
    let (mut end, mut started) = (End::default(), Vec::new());
    let schedule = retry::schedule(account, policy);
    for row in due {
        let row = DeliveryRow { attempts: row.attempts + 1, ..row };
        started.push(NumberedDelivery { id: row.id, number: row.attempts });
        let next = retry::next(schedule, policy.retry_scale, row.attempts, c.started, 0).map(|t| t.max(moment.now));
        end.add(&row, RecipientOutcome::Local { permanent: false, enhanced: None, error: 0 }, &finish, moment, next);
    }
    let (attempt, transport, account) = (c.attempt, c.transport.clone(), message.account.clone());
    let (message_id, started_at) = (c.message, c.started);
    let event =
        AttemptStarted { attempt, message: message_id, account, transport, deliveries: started, started: started_at };
    decision.events.push(event.into());
    end.events(&finish, message, &mut decision);
    decision
}

/// Sorts deliveries by what stands in their way.
struct Gate<'a> {
    message: &'a MessageRow,
    account: Option<&'a AccountRow>,
    rules: Vec<accounts::HoldRuleRow>,
    /// Wishes for many deliveries that were recorded and have not come to all of them.
    jobs: Vec<accounts::JobRow>,
    /// The last record that branched the ledger.
    branch: Seq,
    changes: Vec<queue::Changes>,
    keep_until: Timestamp,
    leave: Vec<LeaveRecipient>,
    started: Vec<NumberedDelivery>,
    held: Vec<(DeliveryId, HoldCause)>,
    suppressed: Vec<SuppressedRecipient>,
    failed: Vec<FailedRecipient>,
}

impl<'a> Gate<'a> {
    fn new(
        message: &'a MessageRow,
        account: Option<&'a AccountRow>,
        rows: &dyn Rows,
        moment: Moment,
    ) -> Result<Gate<'a>, Refusal> {
        Ok(Gate {
            message,
            account,
            rules: accounts::hold_rules(rows).map_err(damaged)?,
            jobs: accounts::jobs(rows).map_err(damaged)?,
            branch: accounts::counters(rows).map_err(damaged)?.branch,
            changes: Vec::new(),
            keep_until: moment.now + Duration::from_secs(message.keep_s),
            leave: Vec::new(),
            started: Vec::new(),
            held: Vec::new(),
            suppressed: Vec::new(),
            failed: Vec::new(),
        })
    }

    fn admit(&mut self, row: DeliveryRow, rows: &dyn Rows) -> Result<(), Error> {
        let going = self.account.is_none_or(|a| a.removing.is_some());
        let sender_domain = self.message.personal.as_ref().and_then(|p| p.reverse_path.as_ref()).map(|a| &a.domain);
        let rule = self.rules.iter().find(|r| {
            row.released.is_none_or(|released| r.seq > released)
                && queue::matches(&r.matching, &row.account, sender_domain, &row.domain)
        });
        if going {
            self.failed.push(failed(&row, Failure::AccountRemoved, NO_PROBLEM));
        } else if let Some(changes) = queue::wished(self.jobs.iter(), &row, self.message, rows)? {
            self.changes.push(changes);
        } else if accounts::is_restored(self.branch, self.message.seq, row.released) {
            self.held.push((row.id, HoldCause::Restored));
        } else if let Some(rule) = rule {
            self.held.push((row.id, HoldCause::Rule(rule.rule)));
        } else if let Some(entry) = suppressions::suppression(rows, &row.account, row.recipient)? {
            let (id, number, recipient) = (row.id, row.attempts, row.recipient);
            self.suppressed.push(SuppressedRecipient { id, number, recipient, suppression: entry.id });
        } else {
            self.leave_or_fail(row);
        }
        Ok(())
    }

    fn leave_or_fail(&mut self, row: DeliveryRow) {
        let reverse_path = row.reverse_path(self.message);
        match (&row.address, self.message.contents && self.message.personal.is_some()) {
            (Some(address), true) => {
                self.leave.push(LeaveRecipient { id: row.id, address: address.clone(), reverse_path });
                self.started.push(NumberedDelivery { id: row.id, number: row.attempts + 1 });
            }
            // There is nobody to send it to, or nothing to send.
            (None, _) | (_, false) => self.failed.push(failed(&row, Failure::Forgotten, NO_PROBLEM)),
        }
    }

    fn decide(self, c: &StartAttempt, moment: Moment) -> Decision {
        let (message, account) = (self.message.message, self.message.account.clone());
        let mut decision = Decision::new(Answer::Attempt(AttemptLeave { recipients: self.leave }));
        for (id, cause) in self.held {
            let by = Author::program();
            let held = DeliveryHeld { message, account: account.clone(), deliveries: vec![id], cause, job: None, by };
            decision.events.push(held.into());
        }
        if !self.suppressed.is_empty() {
            let (deliveries, keep_until) = (self.suppressed, self.keep_until);
            decision
                .events
                .push(DeliverySuppressed { message, account: account.clone(), deliveries, keep_until }.into());
        }
        if !self.failed.is_empty() {
            let failed = without_attempt(self.message, self.failed, moment.now, None);
            decision.events.push(failed.into());
        }
        if !self.started.is_empty() {
            let started = AttemptStarted {
                attempt: c.attempt,
                message,
                account,
                transport: c.transport.clone(),
                deliveries: self.started,
                started: c.started,
            };
            decision.events.push(started.into());
        }
        decision
    }
}

/// Decides what the end of an attempt means for each of its recipients.
pub fn finish(c: &FinishAttempt, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    let message = find_message(rows, c.message)?;
    let account = accounts::account(rows, &message.account).map_err(damaged)?;
    let mut end = End::default();
    let mut wishes = Vec::new();
    // A delivery that is named twice has one outcome all the same.
    let mut seen = BTreeSet::new();
    for (id, outcome) in c.results.iter().filter(|(id, _)| seen.insert(*id)) {
        let Some((row, started)) = running(rows, *id, c.attempt)? else { continue };
        let due = retry::next(
            retry::schedule(account.as_ref(), policy),
            policy.retry_scale,
            row.attempts,
            started,
            c.jitter_s,
        )
        .map(|due| due.max(moment.now));
        if end.add(&row, *outcome, c, moment, due) {
            wishes.push(row);
        }
    }
    if end.is_empty() {
        return Err(Refusal::StaleAttempt(c.attempt));
    }
    let mut decision = Decision::new(Answer::Done);
    let failed_seq = Seq(moment.next.0 + u64::from(!end.delivered.is_empty()) + u64::from(!end.deferred.is_empty()));
    let suppressions = end.suppressing(c, account.as_ref(), failed_seq, rows, policy)?;
    end.events(c, &message, &mut decision);
    decision.events.extend(suppressions.into_iter().map(Event::from));
    for row in &wishes {
        decision.events.extend(granted(row, &message, moment));
    }
    forget_contents(&message, rows, &mut decision).map_err(damaged)?;
    Ok(decision)
}

/// Recipients by what became of them.
#[derive(Default)]
struct End {
    delivered: Vec<DeliveredRecipient>,
    deferred: Vec<DeferredRecipient>,
    failed: Vec<FailedRecipient>,
}

impl End {
    fn is_empty(&self) -> bool {
        self.delivered.is_empty() && self.deferred.is_empty() && self.failed.is_empty()
    }

    /// Whether the recipient will be tried again, so that a wish for it can be granted.
    fn add(
        &mut self,
        row: &DeliveryRow,
        outcome: RecipientOutcome,
        c: &FinishAttempt,
        moment: Moment,
        due: Option<Timestamp>,
    ) -> bool {
        let number = row.attempts;
        let (problem, permanent, last) = match outcome {
            RecipientOutcome::Accepted { reply } => {
                self.delivered.push(DeliveredRecipient { id: row.id, number, recipient: row.recipient, reply });
                return false;
            }
            RecipientOutcome::Rejected { reply } => {
                let (code, enhanced) = codes(c, reply);
                (Problem { code, enhanced, reply: Some(reply), error: None }, code / 100 == 5, Failure::Exhausted)
            }
            RecipientOutcome::Local { permanent, enhanced, error } => {
                (Problem { enhanced, error: Some(error), ..NO_PROBLEM }, permanent, Failure::Exhausted)
            }
            RecipientOutcome::Unknown { error } => {
                (Problem { error: Some(error), ..NO_PROBLEM }, false, Failure::OutcomeUnknown)
            }
            RecipientOutcome::Untried { error } => {
                let problem = Problem { error: Some(error), ..NO_PROBLEM };
                // A stop that was planned is no reason to wait, nor to give up.
                self.deferred.push(DeferredRecipient { id: row.id, number, next: moment.now, problem });
                return true;
            }
        };
        match due.filter(|_| !permanent) {
            Some(next) => self.deferred.push(DeferredRecipient { id: row.id, number, next, problem }),
            None => {
                let why = if permanent { Failure::Permanent } else { last };
                self.failed.push(failed(row, why, problem));
            }
        }
        due.is_some() && !permanent
    }

    /// The suppressions that these failures cause; marks the failures. An address is put on the list once.
    fn suppressing(
        &mut self,
        c: &FinishAttempt,
        account: Option<&AccountRow>,
        failed_seq: Seq,
        rows: &dyn Rows,
        policy: &Policy,
    ) -> Result<Vec<AddressSuppressed>, Refusal> {
        let Some(account) = account else { return Ok(Vec::new()) };
        let mut last = suppressions::last_number(rows).map_err(damaged)?;
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for f in self.failed.iter_mut().filter(|f| f.problem.code != 0) {
            let Some(reason) = reason(f, c, account, rows, policy).map_err(damaged)? else { continue };
            let address = deliveries::delivery(rows, f.id).map_err(damaged)?.and_then(|row| row.address);
            if !seen.insert(f.recipient) {
                continue;
            }
            last = next_number(last, policy.ledger_number);
            f.suppressing = Some(SuppressionId(last));
            found.push(AddressSuppressed {
                id: SuppressionId(last),
                account: account.account.clone(),
                recipient: f.recipient,
                cause: Cause::Failure(failed_seq),
                manual: false,
                idempotency: None,
                personal: address.map(|address| SuppressionPersonal {
                    base_address: pseudonym::base_address(&address, account.settings.fold),
                    original_address: address,
                    reason,
                }),
            });
        }
        Ok(found)
    }

    fn events(self, c: &FinishAttempt, message: &MessageRow, decision: &mut Decision) {
        let account = &message.account;
        let keep_until = c.ended + Duration::from_secs(message.keep_s);
        let personal = Some(Replies { replies: c.replies.clone(), errors: c.errors.clone() });
        if !self.delivered.is_empty() {
            let event = Delivered {
                attempt: c.attempt,
                message: c.message,
                account: account.clone(),
                deliveries: self.delivered,
                session: c.session.clone(),
                ended: c.ended,
                keep_until,
                personal: personal.clone(),
            };
            decision.events.push(event.into());
        }
        if !self.deferred.is_empty() {
            let event = AttemptDeferred {
                attempt: c.attempt,
                message: c.message,
                account: account.clone(),
                deliveries: self.deferred,
                session: c.session.clone(),
                ended: c.ended,
                personal: personal.clone(),
            };
            decision.events.push(event.into());
        }
        if !self.failed.is_empty() {
            let event = DeliveryFailed {
                attempt: Some(c.attempt),
                message: c.message,
                account: account.clone(),
                deliveries: self.failed,
                session: c.session.clone(),
                ended: c.ended,
                keep_until,
                by: None,
                personal,
            };
            decision.events.push(event.into());
        }
    }
}

fn codes(c: &FinishAttempt, reply: u16) -> (u16, Option<EnhancedCode>) {
    c.replies.get(usize::from(reply)).map_or((0, None), |r| (r.code, r.enhanced()))
}

/// Why this failure puts the address on the list, if it does.
fn reason(
    f: &FailedRecipient,
    c: &FinishAttempt,
    account: &AccountRow,
    rows: &dyn Rows,
    policy: &Policy,
) -> Result<Option<String>, Error> {
    if suppressions::suppression(rows, &account.account, f.recipient)?.is_some() {
        return Ok(None);
    }
    let text = f.problem.reply.and_then(|r| c.replies.get(usize::from(r))).map(|r| r.text()).unwrap_or_default();
    if classify::is_immediate(&policy.reply_rules, f.problem.code, f.problem.enhanced, &text) {
        let enhanced = f.problem.enhanced.map(EnhancedCode::without_class).unwrap_or_default();
        let code = f.problem.code;
        return Ok(Some(format!("delivery failure from queue with smtp code {code}, enhanced code \"{enhanced}\"")));
    }
    let failures = suppressions::streak(rows, &account.account, f.recipient)?.failures() + 1;
    Ok((failures >= STREAK_MAX).then(|| "delivery failure from queue and three consecutive failures".to_owned()))
}

/// Notes that an attempt's process or task is gone.
pub fn abandon(c: &AbandonAttempt, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    let message = find_message(rows, c.message)?;
    let account = accounts::account(rows, &message.account).map_err(damaged)?;
    let schedule = retry::schedule(account.as_ref(), policy);
    let branch = accounts::counters(rows).map_err(damaged)?.branch;
    let (mut doubtful, mut over, mut wishes, mut restored) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut seen = BTreeSet::new();
    for id in c.deliveries.iter().filter(|id| seen.insert(**id)) {
        let Some((row, started)) = running(rows, *id, c.attempt)? else { continue };
        if accounts::is_restored(branch, message.seq, row.released) {
            doubtful.push(DoubtfulRecipient { id: row.id, number: row.attempts, next: None });
            restored.push(row);
            continue;
        }
        let next = retry::next(schedule, policy.retry_scale, row.attempts, started, c.jitter_s);
        let next = next.map(|next| next.max(moment.now));
        doubtful.push(DoubtfulRecipient { id: row.id, number: row.attempts, next });
        match next {
            Some(_) => wishes.push(row),
            None => over.push(failed(&row, Failure::OutcomeUnknown, NO_PROBLEM)),
        }
    }
    if doubtful.is_empty() {
        return Err(Refusal::StaleAttempt(c.attempt));
    }
    let account = message.account.clone();
    let mut decision =
        Decision::done(AttemptInDoubt { attempt: c.attempt, message: c.message, account, deliveries: doubtful });
    if !over.is_empty() {
        let failed = DeliveryFailed { attempt: Some(c.attempt), ..without_attempt(&message, over, moment.now, None) };
        decision.events.push(failed.into());
    }
    for row in &wishes {
        decision.events.extend(granted(row, &message, moment));
    }
    for row in &restored {
        decision.events.push(hold_restored(row, &message, moment));
    }
    forget_contents(&message, rows, &mut decision).map_err(damaged)?;
    Ok(decision)
}

/// An attempt that the other branch may have brought to its end: nothing is tried again before somebody says so.
fn hold_restored(row: &DeliveryRow, of: &MessageRow, moment: Moment) -> Event {
    let ends = matches!(row.wish, Some((Wish::Cancel | Wish::Fail, _)));
    if ends && let Some(event) = granted(row, of, moment) {
        return event;
    }
    let (message, account, deliveries) = (row.message, row.account.clone(), vec![row.id]);
    let (cause, by) = (HoldCause::Restored, Author::program());
    DeliveryHeld { message, account, deliveries, cause, job: None, by }.into()
}

/// What was wished for a delivery while its attempt was running.
fn granted(row: &DeliveryRow, of: &MessageRow, moment: Moment) -> Option<Event> {
    let (wish, by) = row.wish.clone()?;
    let (message, account, job) = (row.message, row.account.clone(), None);
    let keep_until = moment.now + Duration::from_secs(of.keep_s);
    Some(match wish {
        Wish::Cancel => {
            let deliveries = vec![CanceledDelivery { id: row.id, held: false }];
            DeliveryCanceled { message, account, deliveries, keep_until, job, by }.into()
        }
        Wish::Fail => {
            without_attempt(of, vec![failed(row, Failure::Operator, NO_PROBLEM)], moment.now, Some(by)).into()
        }
        Wish::Hold => {
            let cause = HoldCause::Person;
            DeliveryHeld { message, account, deliveries: vec![row.id], cause, job, by }.into()
        }
        Wish::Reschedule(next) => {
            let deliveries = vec![RescheduledDelivery { id: row.id, next: next.max(moment.now) }];
            DeliveryRescheduled { message, account, deliveries, job, by }.into()
        }
    })
}

/// A failure that no attempt ends with.
pub fn without_attempt(
    message: &MessageRow,
    deliveries: Vec<FailedRecipient>,
    ended: Timestamp,
    by: Option<Author>,
) -> DeliveryFailed {
    DeliveryFailed {
        attempt: None,
        message: message.message,
        account: message.account.clone(),
        deliveries,
        session: Session::default(),
        ended,
        keep_until: ended + Duration::from_secs(message.keep_s),
        by,
        personal: Some(Replies::default()),
    }
}

pub fn failed(row: &DeliveryRow, why: Failure, problem: Problem) -> FailedRecipient {
    let held = matches!(row.state, State::Held(_));
    let recipient: RecipientKey = row.recipient;
    FailedRecipient { id: row.id, number: row.attempts, recipient, why, problem, held, suppressing: None }
}

/// Where contents are not kept, they go with the end of the last delivery.
pub fn forget_contents(message: &MessageRow, rows: &dyn Rows, decision: &mut Decision) -> Result<(), Error> {
    if message.keep_contents || !message.contents {
        return Ok(());
    }
    let ending: BTreeSet<DeliveryId> = decision.events.iter().flat_map(endings).collect();
    let open = deliveries::of_message(rows, message)?;
    if open.iter().any(|row| !row.state.is_terminal() && !ending.contains(&row.id)) {
        return Ok(());
    }
    let bodies = vec![ExpiredBody { message: message.message, size: message.body.size, row: false }];
    decision.events.push(Expired { bodies, ..Expired::default() }.into());
    decision.forget_bodies.push(message.body);
    Ok(())
}

/// The deliveries that an event ends.
fn endings(event: &Event) -> Vec<DeliveryId> {
    match event {
        Event::Delivered(e) => e.deliveries.iter().map(|d| d.id).collect(),
        Event::DeliveryFailed(e) => e.deliveries.iter().map(|d| d.id).collect(),
        Event::DeliverySuppressed(e) => e.deliveries.iter().map(|d| d.id).collect(),
        Event::DeliveryCanceled(e) => e.deliveries.iter().map(|d| d.id).collect(),
        Event::LedgerCreated(_)
        | Event::ClockStepped(_)
        | Event::LedgerBranched(_)
        | Event::AccountConfigured(_)
        | Event::AccountRemoved(_)
        | Event::DomainConfigured(_)
        | Event::DomainRemoved(_)
        | Event::AddressAdded(_)
        | Event::AddressRemoved(_)
        | Event::TransportConfigured(_)
        | Event::TransportRemoved(_)
        | Event::MessageSubmitted(_)
        | Event::AttemptStarted(_)
        | Event::AttemptDeferred(_)
        | Event::AttemptInDoubt(_)
        | Event::DeliveryHeld(_)
        | Event::DeliveryReleased(_)
        | Event::DeliveryRescheduled(_)
        | Event::WishNoted(_)
        | Event::AddressSuppressed(_)
        | Event::SuppressionLifted(_)
        | Event::MessageReceived(_)
        | Event::MessageDeleted(_)
        | Event::HoldRuleAdded(_)
        | Event::HoldRuleRemoved(_)
        | Event::JobStarted(_)
        | Event::JobAdvanced(_)
        | Event::JobFinished(_)
        | Event::EndpointConfigured(_)
        | Event::EndpointDisabled(_)
        | Event::EndpointRemoved(_)
        | Event::CallsQueued(_)
        | Event::CallsAttempted(_)
        | Event::CallsCanceled(_)
        | Event::CallsRetried(_)
        | Event::CallsHeld(_)
        | Event::TestCallMade(_)
        | Event::ReplayStarted(_)
        | Event::ReplayAdvanced(_)
        | Event::ReplayStopped(_)
        | Event::ReplayResumed(_)
        | Event::ReplayEnded(_)
        | Event::KeyAdded(_)
        | Event::KeyRevoked(_)
        | Event::KeyUsed(_)
        | Event::CursorSet(_)
        | Event::CursorRemoved(_)
        | Event::Expired(_) => Vec::new(),
    }
}

fn find_message(rows: &dyn Rows, id: postledger_events::id::MessageUuid) -> Result<MessageRow, Refusal> {
    let found = deliveries::message(rows, id).map_err(damaged)?;
    found.ok_or_else(|| Refusal::NoSuch(Thing::Message(id.to_string())))
}

/// The delivery and the start of the attempt, if this attempt of it is running.
fn running(rows: &dyn Rows, id: DeliveryId, attempt: AttemptId) -> Result<Option<(DeliveryRow, Timestamp)>, Refusal> {
    let row = deliveries::delivery(rows, id).map_err(damaged)?;
    Ok(row.and_then(|row| match row.state {
        State::Running(running, started) if running == attempt => Some((row, started)),
        _ => None,
    }))
}
