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

/// Decides what the end of calls means. Calls that have ended meanwhile keep the outcome they have.
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
        let Some(call) = call.filter(|call| call.state.is_open()) else { continue };
        let result = Verdict { row: &row, state: &state, policy, now: moment.now }.of(finished, call.attempts + 1);
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
            CallReply::Answered { status, .. } if (200..300).contains(&status) => (status, CallOutcome::Delivered),
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
