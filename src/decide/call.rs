//! Calls: what became of POSTs, and what people want done with calls.

use std::collections::BTreeMap;
use std::time::Duration;

use postledger_events::command::{CallReply, CallsCommand, FinishCalls, FinishedCall};
use postledger_events::fact::account::RetrySchedule;
use postledger_events::fact::call::{
    CallFailure, CallOutcome, CallRef, CallResult, CallsAttempted, CallsCanceled, CallsRetried, Canceling,
};
use postledger_events::fact::endpoint::{Disabling, EndpointDisabled};
use postledger_events::fact::job::{CallAction, CallFilter, JobStarted, Work};
use postledger_events::id::{AccountName, Author, EndpointName, JobId};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Event, Refusal};
use postledger_projections::Rows;
use postledger_projections::calls::{self, CallRow, CallState, EndpointRow, EndpointState};

use super::{Decision, Moment, Policy, damaged, endpoint, queue};

/// Calls that one command changes.
pub const CALLS_MAX: usize = 1000;
/// An endpoint that was failing for so long is disabled: 5 days.
const FAILING_MAX: Duration = Duration::from_secs(5 * 24 * 3600);
/// The longest wait that an endpoint can ask for: a day.
const RETRY_AFTER_S_MAX: u32 = 24 * 3600;
const GONE_410: u16 = 410;

/// Decides what the end of calls means. One that was canceled while it was under way, or was delivered by a replay, is told of as well;
/// there is no attempt after it.
pub fn finish(c: &FinishCalls, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    check_count(c.results.len())?;
    let row = endpoint::find(rows, &c.account, &c.endpoint)?;
    let mut state = calls::state(rows, &c.account, &c.endpoint).map_err(damaged)?;
    let was_disabled = state.disabled.is_some();
    let mut found: BTreeMap<CallRef, CallRow> = BTreeMap::new();
    let (mut results, mut gone) = (Vec::new(), None);
    for finished in &c.results {
        // A call that is named twice has one outcome all the same.
        if found.contains_key(&finished.call) {
            continue;
        }
        let call = calls::call(rows, &c.account, &c.endpoint, finished.call).map_err(damaged)?;
        let Some(call) = call.filter(|call| call.state.is_open() || is_late(call, finished)) else { continue };
        let mut result = Verdict { row: &row, state: &state, policy, now: moment.now }.of(finished, call.attempts + 1);
        if !call.state.is_open() && matches!(result.outcome, CallOutcome::Deferred(_)) {
            result.outcome = CallOutcome::Failed(CallFailure::Exhausted);
        }
        state.take(&result, moment.now);
        if result.outcome == CallOutcome::Failed(CallFailure::Gone) {
            gone = gone.or(Some(result.call.fact));
        }
        found.insert(finished.call, call);
        results.push(result);
    }
    if results.is_empty() {
        let names: Vec<String> = c.results.iter().take(3).map(|r| name(r.call)).collect();
        return Err(Refusal::NoSuch(Thing::Call(format!("{} that is open", names.join(", ")))));
    }
    let (account, endpoint) = (c.account.clone(), c.endpoint.clone());
    let attempted = CallsAttempted { account, endpoint, results, personal: Some(c.texts.clone()) };
    let mut decision = Decision::done(attempted);
    let long = state.since.filter(|since| state.failing.is_some() && moment.now.since(*since) >= FAILING_MAX);
    let why = gone.map(Disabling::Gone).or(long.map(Disabling::FailingSince));
    decision.events.extend(why.filter(|_| !was_disabled).map(|why| disabled(&c.account, &c.endpoint, why)));
    Ok(decision)
}

/// The call ended otherwise while it was under way, and this is no attempt that was told before.
fn is_late(call: &CallRow, finished: &FinishedCall) -> bool {
    let is_told = call.last.as_ref().is_some_and(|last| last.started >= finished.started);
    let ended_otherwise = matches!(call.state, CallState::Canceled(_) | CallState::Delivered);
    ended_otherwise && !is_told && finished.reply != CallReply::Forgotten
}

pub fn disabled(account: &AccountName, endpoint: &EndpointName, why: Disabling) -> Event {
    EndpointDisabled { account: account.clone(), endpoint: endpoint.clone(), why }.into()
}

pub fn check_count(calls: usize) -> Result<(), Refusal> {
    if calls <= CALLS_MAX { Ok(()) } else { Err(Refusal::Invalid(format!("more than {CALLS_MAX} calls; name fewer"))) }
}

/// What calls are called towards people.
pub fn name(call: CallRef) -> String {
    format!("{}/{}", call.fact, call.place)
}

/// What decides on the end of one call.
pub struct Verdict<'a> {
    pub row: &'a EndpointRow,
    pub state: &'a EndpointState,
    pub policy: &'a Policy,
    pub now: Timestamp,
}

impl Verdict<'_> {
    /// `number` is that of the attempt.
    pub fn of(&self, finished: &FinishedCall, number: u32) -> CallResult {
        let probe = self.state.failing.is_some_and(|failing| finished.started >= failing);
        let (status, outcome) = match finished.reply {
            CallReply::Answered { status, .. } if finished.reply.is_success() => (status, CallOutcome::Delivered),
            CallReply::Answered { status: GONE_410, .. } => (GONE_410, CallOutcome::Failed(CallFailure::Gone)),
            CallReply::Answered { status, retry_after_s } => {
                (status, self.later(finished, number, probe, retry_after_s))
            }
            CallReply::Unanswered => (0, self.later(finished, number, probe, None)),
            CallReply::Forgotten => (0, CallOutcome::Failed(CallFailure::Forgotten)),
        };
        CallResult {
            call: finished.call,
            attempt: number,
            probe,
            started: finished.started,
            took_us: finished.took_us,
            remote_addr: finished.remote_addr,
            status,
            outcome,
            response: finished.response,
            error: finished.error,
        }
    }

    fn later(&self, f: &FinishedCall, number: u32, probe: bool, retry_after_s: Option<u32>) -> CallOutcome {
        let schedule = &self.row.settings.retry;
        let wait = if probe { Some(probe_wait(schedule, self.state.probes)) } else { wait(schedule, number) };
        let Some(wait_s) = wait else { return CallOutcome::Failed(CallFailure::Exhausted) };
        let planned = f.started + spread(wait_s, f.jitter_permille) / self.policy.retry_scale.max(1);
        // The endpoint's own word counts from its answer.
        let asked = retry_after_s.map(|s| Duration::from_secs(u64::from(s.min(RETRY_AFTER_S_MAX))));
        let asked = asked.map(|wait| f.started + Duration::from_micros(f.took_us) + wait);
        let next = asked.map_or(planned, |asked| planned.max(asked)).max(self.now);
        // So that an endpoint is disabled when its time is over, and not only with the probe after.
        let end = self.state.since.filter(|_| probe).map(|since| (since + FAILING_MAX).max(self.now));
        CallOutcome::Deferred(end.map_or(next, |end| next.min(end)))
    }
}

fn wait(schedule: &RetrySchedule, number: u32) -> Option<u32> {
    schedule.waits_s.get(usize::try_from(number).ok()?.checked_sub(1)?).copied()
}

/// Probes go on with the last wait, an endpoint's only attempt being followed by the contract's.
fn probe_wait(schedule: &RetrySchedule, probes: u32) -> u32 {
    let contract = RetrySchedule::contract_of_calls();
    let waits = if schedule.waits_s.is_empty() { &contract.waits_s } else { &schedule.waits_s };
    let n = usize::try_from(probes).unwrap_or(usize::MAX).min(waits.len() - 1);
    waits[n]
}

fn spread(wait_s: u32, jitter_permille: i8) -> Duration {
    let permille = u64::try_from(1000 + i64::from(jitter_permille)).unwrap_or(1000);
    Duration::from_millis(u64::from(wait_s) * permille)
}

/// Calls that are named are changed at once; a filter becomes a job.
pub fn change(c: &CallsCommand, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    check_count(c.filter.calls.len())?;
    let named = (&c.filter.account, &c.filter.endpoint);
    if let (Some(account), Some(endpoint)) = named {
        endpoint::find(rows, account, endpoint)?;
    }
    if c.filter.calls.is_empty() {
        let job = queue::next_job(rows, policy)?;
        let work = Work::Calls(c.filter.clone(), c.action);
        let event = JobStarted { job, work, by: c.by.clone() };
        return Ok(Decision { events: vec![event.into()], ..Decision::new(Answer::Job(job)) });
    }
    let (Some(account), Some(endpoint)) = named else {
        return Err(Refusal::Invalid("calls are named together with their account and endpoint".to_owned()));
    };
    let mut changes = Changes::new(c.action, None, c.by.clone());
    for call in &c.filter.calls {
        if let Some(row) = calls::call(rows, account, endpoint, *call).map_err(damaged)? {
            changes.add(&row, &c.filter, moment);
        }
    }
    let mut decision = Decision::new(Answer::Affected(changes.affected()));
    changes.decide(account, endpoint, &mut decision);
    Ok(decision)
}

/// The same change for some calls of one endpoint.
pub struct Changes {
    action: CallAction,
    why: Canceling,
    job: Option<JobId>,
    by: Author,
    calls: Vec<CallRef>,
}

impl Changes {
    pub fn new(action: CallAction, job: Option<JobId>, by: Author) -> Changes {
        Changes { action, why: Canceling::Person, job, by, calls: Vec::new() }
    }

    /// Why it is a cancellation.
    pub fn because(self, why: Canceling) -> Changes {
        Changes { why, ..self }
    }

    /// Takes a call in if it is meant and there is something to change.
    pub fn add(&mut self, row: &CallRow, filter: &CallFilter, moment: Moment) {
        let changes = match (row.state, self.action) {
            (CallState::Waiting, CallAction::Retry) => row.attempts > 0 || row.due > moment.now,
            (CallState::Held | CallState::Failed(_) | CallState::Canceled(_), CallAction::Retry) => true,
            (CallState::Waiting | CallState::Held, CallAction::Cancel) => true,
            (CallState::Delivered, _) | (CallState::Failed(_) | CallState::Canceled(_), CallAction::Cancel) => false,
        };
        if changes && is_meant(filter, row) && !self.calls.contains(&row.call) {
            self.calls.push(row.call);
        }
    }

    pub fn affected(&self) -> u64 {
        self.calls.len() as u64
    }

    pub fn decide(self, account: &AccountName, endpoint: &EndpointName, decision: &mut Decision) {
        let Changes { action, why, job, by, calls } = self;
        if calls.is_empty() {
            return;
        }
        let (account, endpoint) = (account.clone(), endpoint.clone());
        decision.events.push(match action {
            CallAction::Retry => CallsRetried { account, endpoint, calls, job, by }.into(),
            CallAction::Cancel => CallsCanceled { account, endpoint, calls, why, job, by }.into(),
        });
    }
}

/// Whether all fields that are set agree, those that name the endpoint aside.
fn is_meant(filter: &CallFilter, row: &CallRow) -> bool {
    (filter.calls.is_empty() || filter.calls.contains(&row.call))
        && (filter.phases.is_empty() || filter.phases.contains(&row.state.phase()))
        && filter.from.is_none_or(|from| row.call.fact >= from)
        && filter.to.is_none_or(|to| row.call.fact <= to)
        && filter.queued_before.is_none_or(|t| row.queued < t)
        && filter.queued_after.is_none_or(|t| row.queued > t)
}

#[cfg(test)]
mod tests {
    use postledger_events::Record;
    use postledger_events::fact::call::{CallAbout, CallsQueued};
    use postledger_events::fact::call::{CallTexts, EndpointCalls, QueuedCall};
    use postledger_events::fact::endpoint::{Direction, EndpointConfigured, EndpointSettings, OutgoingEvent};
    use postledger_events::id::{DeliveryId, MessageUuid, Seq, Sha256};
    use postledger_projections::{Memory, fold};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn names() -> (AccountName, EndpointName) {
        (AccountName::new("mox").unwrap(), EndpointName::new("shop").unwrap())
    }

    struct Ledger {
        rows: Memory,
        seq: u64,
        now: Timestamp,
    }

    impl Ledger {
        /// With an endpoint that has two calls about one delivery, and one about another.
        fn new(waits_s: &[u32]) -> Ledger {
            let mut ledger = Ledger { rows: Memory::default(), seq: 0, now: NOW };
            let (account, endpoint) = names();
            let mut settings = EndpointSettings::new(Direction::Outgoing, "https://example.org/".to_owned());
            settings.retry = RetrySchedule { waits_s: waits_s.to_vec() };
            let by = Author::program();
            let configured =
                EndpointConfigured { account, endpoint: endpoint.clone(), settings, stays_disabled: false, by };
            ledger.append(configured.into());
            for (fact, delivery) in [(Seq(10), 1), (Seq(11), 1), (Seq(12), 2)] {
                let about = CallAbout::Delivery(DeliveryId(delivery), OutgoingEvent::Delayed);
                let calls = vec![QueuedCall { place: 0, about }];
                let endpoints = vec![EndpointCalls { endpoint: endpoint.clone(), version: 1, keep_s: 60, calls }];
                let message = MessageUuid(Default::default());
                ledger.append(CallsQueued { account: names().0, message, fact, endpoints }.into());
            }
            ledger
        }

        fn append(&mut self, event: Event) {
            self.seq += 1;
            let record = Record { seq: Seq(self.seq), at: self.now, prev: Sha256::ZERO, event };
            fold(&record, &mut self.rows).unwrap();
        }

        fn finish(&mut self, fact: u64, reply: CallReply) -> Result<Vec<Event>, Refusal> {
            let (account, endpoint) = names();
            let finished = FinishedCall {
                call: call_of(fact),
                started: self.now,
                took_us: 1_000_000,
                remote_addr: None,
                reply,
                response: None,
                error: None,
                jitter_permille: 0,
            };
            let command = FinishCalls { account, endpoint, results: vec![finished], texts: CallTexts::default() };
            let moment = Moment { now: self.now, next: Seq(self.seq + 1) };
            let events = finish(&command, &self.rows, &Policy::plain(), moment)?.events;
            events.iter().for_each(|event| self.append(event.clone()));
            Ok(events)
        }

        fn due(&self) -> Vec<(u64, u64)> {
            let (account, endpoint) = names();
            let found = calls::due(&self.rows, &account, &endpoint, calls::Due::FIRST, Timestamp::MAX, 9).unwrap();
            found.iter().map(|due| (due.call.fact.0, due.at.since(NOW).as_secs())).collect()
        }
    }

    fn call_of(fact: u64) -> CallRef {
        CallRef { fact: Seq(fact), place: 0 }
    }

    fn status(status: u16) -> CallReply {
        CallReply::Answered { status, retry_after_s: None }
    }

    fn outcome(events: &[Event]) -> CallOutcome {
        let Some(Event::CallsAttempted(e)) = events.first() else { panic!("{events:?}") };
        e.results[0].outcome
    }

    #[test]
    fn what_an_answer_means() {
        let check = |reply: CallReply, expect: CallOutcome| {
            let events = Ledger::new(&[60]).finish(10, reply).unwrap();
            assert_eq!(outcome(&events), expect, "{reply:?}");
        };
        let later = |s: u64| CallOutcome::Deferred(NOW + Duration::from_secs(s));
        let ask = |s: u32| CallReply::Answered { status: 503, retry_after_s: Some(s) };
        check(status(200), CallOutcome::Delivered);
        check(status(299), CallOutcome::Delivered);
        check(status(302), later(60));
        check(status(404), later(60));
        check(status(410), CallOutcome::Failed(CallFailure::Gone));
        check(CallReply::Unanswered, later(60));
        check(CallReply::Forgotten, CallOutcome::Failed(CallFailure::Forgotten));
        check(ask(10), later(60));
        check(ask(99), later(100));
        check(ask(u32::MAX), later(24 * 3600 + 1));
    }

    #[test]
    fn calls_about_one_delivery_follow_each_other() {
        let mut ledger = Ledger::new(&[60, 120]);
        assert_eq!(ledger.due(), [(10, 0), (12, 0)]);
        ledger.finish(10, status(500)).unwrap();
        assert_eq!(ledger.due(), [(12, 0), (10, 60)], "it holds back only what is about the same");
        ledger.now = NOW + Duration::from_secs(60);
        ledger.finish(10, status(500)).unwrap();
        ledger.now = NOW + Duration::from_secs(180);
        let events = ledger.finish(10, status(500)).unwrap();
        assert_eq!(outcome(&events), CallOutcome::Failed(CallFailure::Exhausted));
        assert_eq!(ledger.due(), [(12, 0), (11, 180)]);
        let again = ledger.finish(10, status(200)).unwrap_err();
        assert_eq!(again.to_string(), "there is no call 10/0 that is open");
    }

    #[test]
    fn what_was_canceled_under_way_is_told_of_and_goes_no_further() {
        let check = |reply: CallReply, outcome_expected: CallOutcome, state: CallState| {
            let mut ledger = Ledger::new(&[60]);
            let (account, endpoint) = names();
            let (calls, why, by) = (vec![call_of(10)], Canceling::Person, Author::program());
            ledger.append(CallsCanceled { account, endpoint, calls, why, job: None, by }.into());
            assert_eq!(outcome(&ledger.finish(10, reply).unwrap()), outcome_expected);
            let (account, endpoint) = names();
            let row = calls::call(&ledger.rows, &account, &endpoint, call_of(10)).unwrap().unwrap();
            assert_eq!((row.state, row.last.is_some(), row.records.len()), (state, true, 1));
            assert_eq!(ledger.due(), [(11, 0), (12, 0)]);
            let again = ledger.finish(10, reply).unwrap_err();
            assert_eq!(again.to_string(), "there is no call 10/0 that is open", "it is told once");
        };
        check(status(200), CallOutcome::Delivered, CallState::Delivered);
        let canceled = CallState::Canceled(Canceling::Person);
        check(status(500), CallOutcome::Failed(CallFailure::Exhausted), canceled);
        check(CallReply::Unanswered, CallOutcome::Failed(CallFailure::Exhausted), canceled);
    }

    #[test]
    fn a_failing_endpoint_is_probed_and_at_last_disabled() {
        let mut ledger = Ledger::new(&[60; 20]);
        let mut disabled = None;
        for minute in 0..=(5 * 24 * 60) {
            ledger.now = NOW + Duration::from_secs(60 * minute);
            let (account, endpoint) = names();
            let state = calls::state(&ledger.rows, &account, &endpoint).unwrap();
            assert_eq!(state.failing.is_some(), minute > 10, "after {minute} minutes");
            let events = ledger.finish(10, CallReply::Unanswered).unwrap();
            if let Some(Event::EndpointDisabled(e)) = events.get(1) {
                disabled = Some((minute, e.why));
                break;
            }
        }
        assert_eq!(disabled, Some((5 * 24 * 60, Disabling::FailingSince(NOW))));
        let (account, endpoint) = names();
        let row = calls::call(&ledger.rows, &account, &endpoint, call_of(10)).unwrap().unwrap();
        assert_eq!((row.attempts, row.state), (11, CallState::Waiting), "probes use up no attempts");
        ledger.finish(10, status(200)).unwrap();
        let state = calls::state(&ledger.rows, &account, &endpoint).unwrap();
        assert_eq!((state.failing, state.failures), (None, 0));
        assert!(state.disabled.is_some(), "a call that was on its way enables nothing");
    }

    #[test]
    fn people_retry_and_cancel() {
        let check = |action: CallAction, calls: &[u64], affected: u64, due: &[(u64, u64)]| {
            let mut ledger = Ledger::new(&[60]);
            ledger.finish(10, status(500)).unwrap();
            ledger.finish(12, status(410)).unwrap();
            let (account, endpoint) = names();
            let filter = CallFilter {
                account: Some(account),
                endpoint: Some(endpoint),
                calls: calls.iter().map(|fact| call_of(*fact)).collect(),
                ..CallFilter::default()
            };
            let command = CallsCommand { filter, action, by: Author::program() };
            let moment = Moment { now: ledger.now, next: Seq(ledger.seq + 1) };
            let decision = change(&command, &ledger.rows, &Policy::plain(), moment).unwrap();
            assert_eq!(decision.answer, Answer::Affected(affected), "{action:?} {calls:?}");
            decision.events.into_iter().for_each(|event| ledger.append(event));
            assert_eq!(ledger.due(), due, "{action:?} {calls:?}");
        };
        check(CallAction::Retry, &[10], 1, &[(10, 0)]);
        check(CallAction::Retry, &[12], 1, &[(12, 0), (10, 60)]);
        // It is due as soon as the one before it is over.
        check(CallAction::Retry, &[11], 0, &[(10, 60)]);
        check(CallAction::Cancel, &[10], 1, &[(11, 0)]);
        check(CallAction::Cancel, &[11, 12, 99], 1, &[(10, 60)]);
        check(CallAction::Cancel, &[10, 11], 2, &[]);
    }
}
