//! Replays: telling an endpoint of a part of history again. One at a time for each endpoint.

use std::collections::BTreeSet;

use postledger_events::command::{AdvanceReplay, CancelReplay, DeferredCall, ResumeReplay, StartReplay, StopReplay};
use postledger_events::fact::call::{CallFailure, CallOutcome};
use postledger_events::fact::endpoint::{Direction, Disabling};
use postledger_events::fact::replay::{
    ReplayAdvanced, ReplayEnd, ReplayEnded, ReplayResumed, ReplayScope, ReplayStarted, ReplayStopped,
};
use postledger_events::id::{Author, ReplayId, Seq};
use postledger_events::refusal::Thing;
use postledger_events::{Answer, Event, Refusal};
use postledger_projections::calls::{self, EndpointRow, EndpointState, ReplayRow, ReplayState};
use postledger_projections::{Rows, accounts};

use super::call::{Verdict, check_count, disabled};
use super::{Decision, Moment, Policy, damaged, endpoint};

/// It is named by its first record, whose place no other branch of the ledger gives out.
pub fn start(c: &StartReplay, rows: &dyn Rows, moment: Moment) -> Result<Decision, Refusal> {
    let row = callable(rows, &c.account, &c.endpoint)?;
    let last = Seq(moment.next.0.saturating_sub(1));
    let scope = ReplayScope {
        from: c.from.max(Seq::FIRST),
        to: c.to.map_or(last, |to| to.min(last)),
        only_failed: c.only_failed,
        kinds: c.kinds.clone(),
    };
    let open = calls::open_replays(rows).map_err(damaged)?;
    let open = open.iter().find(|replay| replay.account == c.account && replay.endpoint == c.endpoint);
    let why = if scope.from > scope.to {
        format!("there is nothing from record {} to {}; the last is {last}", scope.from, c.to.unwrap_or(last))
    } else if row.settings.direction == Direction::Incoming && !c.kinds.is_empty() {
        "an incoming endpoint is told of messages; kinds of events can only be chosen for an outgoing one".to_owned()
    } else if let Some(unwanted) = c.kinds.iter().find(|kind| !row.settings.wants(**kind)) {
        format!("endpoint {} is not told of {unwanted:?}; kinds narrow what it is told of", c.endpoint).to_lowercase()
    } else if !(1..=endpoint::CALLS_PER_SECOND_MAX).contains(&c.calls_per_second_max.unwrap_or(1)) {
        format!("a rate in calls per second is 1 to {}", endpoint::CALLS_PER_SECOND_MAX)
    } else if let Some(open) = open {
        return Err(Refusal::Conflict(format!("replay {} of this endpoint is not over; cancel it first", open.replay)));
    } else {
        let replay = ReplayId(moment.next.0);
        let event = ReplayStarted {
            replay,
            account: c.account.clone(),
            endpoint: c.endpoint.clone(),
            scope,
            calls_per_second_max: c.calls_per_second_max,
            by: c.by.clone(),
        };
        return Ok(Decision { events: vec![event.into()], ..Decision::new(Answer::Replay(replay)) });
    };
    Err(Refusal::Invalid(why))
}

/// Notes how far it has come. A call that failed for now holds the cursor back, and stops the replay when it was its last attempt.
pub fn advance(c: &AdvanceReplay, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    check_count(c.results.len())?;
    let replay = running(rows, c.replay)?;
    let row = endpoint::find(rows, &replay.account, &replay.endpoint)?;
    // The attempts of a replay say nothing of the calls that wait.
    let verdict = Verdict { row: &row, state: &EndpointState::default(), policy, now: moment.now };
    let mut seen = BTreeSet::new();
    let (mut results, mut cursor) = (Vec::new(), c.cursor);
    let (mut deferred, mut gone, mut given_up) = (Vec::new(), None, None);
    for finished in c.results.iter().filter(|finished| seen.insert(finished.call)) {
        // The row knows the attempts of the first call that failed; who makes the calls, those of all since its start.
        let trouble = replay.trouble.as_ref().filter(|trouble| trouble.call == finished.call);
        let before = c.failed_before.get(&finished.call).copied().max(trouble.map(|trouble| trouble.last.attempt));
        let result = verdict.of(finished, before.unwrap_or(0).saturating_add(1));
        match result.outcome {
            CallOutcome::Delivered | CallOutcome::Failed(CallFailure::Forgotten) => {}
            CallOutcome::Deferred(next) => {
                cursor = cursor.min(result.call);
                deferred.push(DeferredCall { call: result.call, attempt: result.attempt, next });
            }
            CallOutcome::Failed(CallFailure::Gone) => gone = gone.or(Some(result.call)),
            CallOutcome::Failed(CallFailure::Exhausted) => given_up = given_up.or(Some(result.call)),
        }
        results.push(result);
    }
    let stopped = gone.or(given_up);
    let cursor = stopped.map_or(cursor, |call| cursor.min(call));
    if cursor < replay.cursor {
        let why = format!("replay {} has come further, to record {}", c.replay, replay.cursor.fact);
        return Err(Refusal::Invalid(why));
    }
    let done = c.done && cursor == c.cursor;
    let (account, endpoint) = (replay.account.clone(), replay.endpoint.clone());
    let advanced =
        ReplayAdvanced { replay: c.replay, account, endpoint, cursor, results, personal: Some(c.texts.clone()) };
    let mut decision = Decision { answer: Answer::Deferred(deferred), ..Decision::done(advanced) };
    decision.events.extend(gone.map(|call| disabled(&replay.account, &replay.endpoint, Disabling::Gone(call.fact))));
    if let Some(call) = stopped {
        let why = if gone.is_some() { "the endpoint is gone" } else { "the last attempt failed" };
        let error = format!("the call about record {} failed: {why}", call.fact);
        decision.events.push(stop_event(&replay, Some(error), Author::program()));
    } else if done {
        decision.events.push(ended(&replay, ReplayEnd::Done, Author::program()));
    }
    Ok(decision)
}

pub fn stop(c: &StopReplay, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let replay = open(rows, c.replay)?;
    if replay.state == ReplayState::Stopped {
        return Err(Refusal::Conflict(format!("replay {} is stopped already", c.replay)));
    }
    Ok(Decision { events: vec![stop_event(&replay, c.error.clone(), c.by.clone())], ..Decision::new(Answer::Done) })
}

pub fn resume(c: &ResumeReplay, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let replay = open(rows, c.replay)?;
    callable(rows, &replay.account, &replay.endpoint)?;
    let branch = accounts::counters(rows).map_err(damaged)?.branch;
    if replay.may_go(branch) {
        return Err(Refusal::Conflict(format!("replay {} is running", c.replay)));
    }
    let ReplayRow { replay, account, endpoint, .. } = replay;
    Ok(Decision::done(ReplayResumed { replay, account, endpoint, by: c.by.clone() }))
}

pub fn cancel(c: &CancelReplay, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let replay = open(rows, c.replay)?;
    Ok(Decision { events: vec![ended(&replay, ReplayEnd::Canceled, c.by.clone())], ..Decision::new(Answer::Done) })
}

pub fn ended(row: &ReplayRow, end: ReplayEnd, by: Author) -> Event {
    let (account, endpoint) = (row.account.clone(), row.endpoint.clone());
    ReplayEnded { replay: row.replay, account, endpoint, end, by }.into()
}

pub fn stop_event(row: &ReplayRow, error: Option<String>, by: Author) -> Event {
    let (account, endpoint) = (row.account.clone(), row.endpoint.clone());
    ReplayStopped { replay: row.replay, account, endpoint, error, by }.into()
}

fn open(rows: &dyn Rows, id: ReplayId) -> Result<ReplayRow, Refusal> {
    let row = calls::replay(rows, id).map_err(damaged)?;
    match row.ok_or_else(|| Refusal::NoSuch(Thing::Replay(id.to_string())))? {
        row @ ReplayRow { state: ReplayState::Running | ReplayState::Stopped, .. } => Ok(row),
        ReplayRow { state: ReplayState::Ended(_), .. } => Err(Refusal::Conflict(format!("replay {id} is over"))),
    }
}

fn running(rows: &dyn Rows, id: ReplayId) -> Result<ReplayRow, Refusal> {
    let row = open(rows, id)?;
    let branch = accounts::counters(rows).map_err(damaged)?.branch;
    if row.may_go(branch) {
        return Ok(row);
    }
    Err(Refusal::Conflict(format!("replay {id} is stopped; resume it first")))
}

/// An endpoint that nobody and nothing has disabled.
fn callable(
    rows: &dyn Rows,
    account: &postledger_events::id::AccountName,
    name: &postledger_events::id::EndpointName,
) -> Result<EndpointRow, Refusal> {
    let row = endpoint::live(rows, account, name)?;
    let state = calls::state(rows, account, name).map_err(damaged)?;
    if calls::is_enabled(&row, &state) {
        return Ok(row);
    }
    Err(Refusal::Conflict(format!("endpoint {name} of account {account} is disabled; enable it first")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postledger_events::Record;
    use postledger_events::command::{CallReply, FinishedCall};
    use postledger_events::fact::account::RetrySchedule;
    use postledger_events::fact::call::{CallRef, CallTexts};
    use postledger_events::fact::endpoint::{EndpointConfigured, EndpointSettings, OutgoingEvent};
    use postledger_events::id::{AccountName, EndpointName, Sha256};
    use postledger_events::time::Timestamp;
    use postledger_projections::{Memory, fold};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    /// The record that starts the replay.
    const REPLAY: u64 = 50;

    fn append(rows: &mut Memory, seq: u64, event: Event) {
        fold(&Record { seq: Seq(seq), at: NOW, prev: Sha256::ZERO, event }, rows).unwrap();
    }

    fn wish(to: Option<u64>) -> StartReplay {
        StartReplay {
            account: AccountName::new("mox").unwrap(),
            endpoint: EndpointName::new("shop").unwrap(),
            from: Seq(10),
            to: to.map(Seq),
            only_failed: false,
            kinds: Vec::new(),
            calls_per_second_max: None,
            by: Author::program(),
        }
    }

    /// An endpoint that tries a call twice.
    fn rows() -> Memory {
        let StartReplay { account, endpoint, by, .. } = wish(None);
        let mut settings = EndpointSettings::new(Direction::Outgoing, "https://example.org/".to_owned());
        settings.retry = RetrySchedule { waits_s: vec![60] };
        let mut rows = Memory::default();
        append(&mut rows, 1, EndpointConfigured { account, endpoint, settings, stays_disabled: false, by }.into());
        rows
    }

    fn moment() -> Moment {
        Moment { now: NOW, next: Seq(REPLAY) }
    }

    fn started() -> Memory {
        let mut rows = rows();
        let decision = start(&wish(None), &rows, moment()).unwrap();
        assert_eq!(decision.answer, Answer::Replay(ReplayId(REPLAY)));
        append(&mut rows, REPLAY, decision.events.into_iter().next().unwrap());
        rows
    }

    /// Goes on to `cursor` with these calls and statuses; answers what follows, in words.
    fn go_on(rows: &mut Memory, cursor: u64, results: &[(u64, u16)], done: bool) -> Result<String, Refusal> {
        go_on_after(rows, cursor, results, &[], done)
    }

    /// The same, where calls have failed so many times before.
    fn go_on_after(
        rows: &mut Memory,
        cursor: u64,
        results: &[(u64, u16)],
        failed_before: &[(u64, u32)],
        done: bool,
    ) -> Result<String, Refusal> {
        let finished = |(fact, status): &(u64, u16)| FinishedCall {
            call: CallRef { fact: Seq(*fact), place: 0 },
            started: NOW,
            took_us: 1,
            remote_addr: None,
            reply: CallReply::Answered { status: *status, retry_after_s: None },
            response: None,
            error: None,
            jitter_permille: 0,
        };
        let command = AdvanceReplay {
            replay: ReplayId(REPLAY),
            cursor: CallRef { fact: Seq(cursor), place: 0 },
            results: results.iter().map(finished).collect(),
            failed_before: failed_before.iter().map(|(fact, n)| (CallRef { fact: Seq(*fact), place: 0 }, *n)).collect(),
            texts: CallTexts::default(),
            done,
        };
        let events = advance(&command, rows, &Policy::plain(), moment())?.events;
        let kinds: Vec<&str> = events.iter().map(Event::kind).collect();
        for (n, event) in (REPLAY + 1..).zip(&events) {
            append(rows, n, event.clone());
        }
        let row = calls::replay(rows, ReplayId(REPLAY)).unwrap().unwrap();
        Ok(format!("{} at {}", kinds.join(" "), row.cursor.fact))
    }

    #[test]
    fn what_can_be_replayed() {
        let check = |command: StartReplay, rows: &Memory, expect: &str| {
            let why = start(&command, rows, moment()).err().map(|e| e.to_string()).unwrap_or_default();
            assert_eq!(why, expect, "{command:?}");
        };
        check(wish(None), &rows(), "");
        check(wish(Some(9)), &rows(), "there is nothing from record 10 to 9; the last is 49");
        check(
            StartReplay { from: Seq(50), ..wish(None) },
            &rows(),
            "there is nothing from record 50 to 49; the last is 49",
        );
        check(
            StartReplay { calls_per_second_max: Some(0), ..wish(None) },
            &rows(),
            "a rate in calls per second is 1 to 10000",
        );
        let kinds = vec![OutgoingEvent::Failed, OutgoingEvent::Delayed];
        check(StartReplay { kinds: kinds.clone(), ..wish(None) }, &rows(), "");
        let mut narrow = rows();
        let StartReplay { account, endpoint, by, .. } = wish(None);
        let mut settings = EndpointSettings::new(Direction::Outgoing, "https://example.org/".to_owned());
        settings.events = vec![OutgoingEvent::Failed];
        append(&mut narrow, 2, EndpointConfigured { account, endpoint, settings, stays_disabled: false, by }.into());
        let why = "endpoint shop is not told of delayed; kinds narrow what it is told of";
        check(StartReplay { kinds, ..wish(None) }, &narrow, why);
        check(wish(None), &Memory::default(), "there is no endpoint shop of account mox");
        check(wish(None), &started(), "replay 50 of this endpoint is not over; cancel it first");
    }

    #[test]
    fn a_failure_holds_the_cursor_back_and_then_stops_the_replay() {
        let mut rows = started();
        assert_eq!(go_on(&mut rows, 12, &[(10, 200), (11, 200)], false).unwrap(), "ReplayAdvanced at 12");
        assert_eq!(go_on(&mut rows, 15, &[(12, 500), (14, 200)], true).unwrap(), "ReplayAdvanced at 12");
        let trouble = calls::replay(&rows, ReplayId(REPLAY)).unwrap().unwrap().trouble.unwrap();
        assert_eq!((trouble.call.fact, trouble.last.attempt), (Seq(12), 1));
        assert_eq!(trouble.next, NOW + Duration::from_secs(60));
        assert_eq!(go_on(&mut rows, 13, &[(12, 500)], false).unwrap(), "ReplayAdvanced ReplayStopped at 12");
        let refused = go_on(&mut rows, 13, &[], false).unwrap_err();
        assert_eq!(refused.to_string(), "replay 50 is stopped; resume it first");
        let resume_it = ResumeReplay { replay: ReplayId(REPLAY), by: Author::program() };
        let resumed = resume(&resume_it, &rows).unwrap().events.into_iter().next().unwrap();
        append(&mut rows, 60, resumed);
        assert_eq!(go_on(&mut rows, 50, &[(12, 200)], true).unwrap(), "ReplayAdvanced ReplayEnded at 50");
        assert_eq!(go_on(&mut rows, 50, &[], true).unwrap_err().to_string(), "replay 50 is over");
    }

    #[test]
    fn attempts_of_a_later_failed_call_are_used_up_too() {
        let mut rows = started();
        assert_eq!(go_on(&mut rows, 15, &[(12, 500), (14, 500)], false).unwrap(), "ReplayAdvanced at 12");
        let told = go_on_after(&mut rows, 12, &[(14, 500)], &[(14, 1)], false).unwrap();
        assert_eq!(told, "ReplayAdvanced ReplayStopped at 12");
    }

    #[test]
    fn the_next_attempt_of_every_failed_call_is_answered() {
        let asked = |fact, retry_after_s| FinishedCall {
            call: CallRef { fact: Seq(fact), place: 0 },
            started: NOW,
            took_us: 0,
            remote_addr: None,
            reply: CallReply::Answered { status: 503, retry_after_s },
            response: None,
            error: None,
            jitter_permille: 0,
        };
        let command = AdvanceReplay {
            replay: ReplayId(REPLAY),
            cursor: CallRef { fact: Seq(15), place: 0 },
            results: vec![asked(12, None), asked(14, Some(3600))],
            failed_before: Default::default(),
            texts: CallTexts::default(),
            done: false,
        };
        let Answer::Deferred(deferred) = advance(&command, &started(), &Policy::plain(), moment()).unwrap().answer
        else {
            panic!("it answers what is tried again")
        };
        let deferred: Vec<(u64, u32, u64)> =
            deferred.iter().map(|d| (d.call.fact.0, d.attempt, d.next.since(NOW).as_secs())).collect();
        assert_eq!(deferred, [(12, 1, 60), (14, 1, 3600)]);
    }

    #[test]
    fn an_endpoint_that_is_gone_is_told_nothing_more() {
        let mut rows = started();
        let told = go_on(&mut rows, 12, &[(10, 410), (11, 200)], false).unwrap();
        assert_eq!(told, "ReplayAdvanced EndpointDisabled ReplayStopped at 10");
        let resume_it = ResumeReplay { replay: ReplayId(REPLAY), by: Author::program() };
        let refused = resume(&resume_it, &rows).unwrap_err().to_string();
        assert_eq!(refused, "endpoint shop of account mox is disabled; enable it first");
    }
}
