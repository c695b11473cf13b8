//! Programs that are called, and the reactor that calls them, in a simulated world.

use std::collections::BTreeMap;
use std::time::Duration;

use postledger_events::command::*;
use postledger_events::fact::account::RetrySchedule;
use postledger_events::fact::call::{CallRef, CallTexts};
use postledger_events::fact::endpoint::{Direction, OutgoingEvent, Superseding};
use postledger_events::fact::job::{CallAction, CallFilter, CallPhase};
use postledger_events::id::*;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command};
use postledger_projections::calls::{self, Due, EndpointRow, ReplayState};
use postledger_projections::{Order, Table, accounts};

use super::calls::Name;
use super::dice::Dice;
use super::step::{CallStep, Reception};
use super::world::{START, World, account_name, by, pick, place};

/// Due calls that the reactor looks at.
const WINDOW: usize = 16;
const GONE_410: u16 = 410;

/// A POST whose answer did not come yet.
#[derive(Clone, Debug)]
pub struct Flight {
    name: Name,
    call: CallRef,
    started: Timestamp,
}

/// What calls, and what is called.
#[derive(Default)]
pub struct Callers {
    flying: Vec<Flight>,
    bounds: BTreeMap<Name, Due>,
    receptions: BTreeMap<Name, Reception>,
    /// How often the receiver took a call, and how often that is no wonder.
    taken: BTreeMap<(Name, CallRef), (u32, u32)>,
}

impl Callers {
    /// The process died: what was on its way may have arrived or not.
    pub fn crash(&mut self, dice: &mut Dice) {
        for flight in std::mem::take(&mut self.flying) {
            if dice.percent(50) {
                let (taken, excused) = self.taken.entry((flight.name, flight.call)).or_default();
                (*taken, *excused) = (*taken + 1, *excused + 1);
            }
        }
        self.bounds.clear();
    }

    /// What the other branch sent is known to nobody here.
    pub fn branch(&mut self) {
        self.taken.clear();
    }

    pub fn heal(&mut self) {
        self.receptions.clear();
    }
}

impl World {
    pub fn call_step(&mut self, step: &CallStep) {
        match step {
            CallStep::Configure { account, endpoint, dice } => self.configure_endpoint(*account, *endpoint, *dice),
            CallStep::Remove { endpoint } => {
                if let Some((account, endpoint)) = self.endpoint(*endpoint) {
                    self.apply(Command::RemoveEndpoint(RemoveEndpoint { account, endpoint, by: by() }));
                }
            }
            CallStep::Post { endpoint } => {
                if let Some(name) = self.endpoint(*endpoint) {
                    self.post(&name);
                }
            }
            CallStep::Answer { flight, dice } => self.answer(*flight, *dice),
            CallStep::Receive { endpoint, reception } => {
                if let Some(name) = self.endpoint(*endpoint) {
                    self.callers.receptions.insert(name, *reception);
                }
            }
            CallStep::Ordeal { endpoint, calls, seconds_after } => self.ordeal(*endpoint, *calls, *seconds_after),
            CallStep::Change { endpoint, action, dice } => self.change_calls(*endpoint, *action, *dice),
            CallStep::Replay { endpoint, dice } => self.replay(*endpoint, *dice),
        }
    }

    fn endpoint(&self, n: u32) -> Option<Name> {
        let all = calls::all_endpoints(&self.rows).unwrap();
        pick(&all, n).map(|row| (row.account, row.endpoint))
    }

    /// A new endpoint, or the next edit of one.
    fn configure_endpoint(&mut self, account: u32, endpoint: u32, dice: u64) {
        let mut dice = Dice::new(dice);
        let (account, endpoint) = (account_name(account), EndpointName::new(&format!("e{endpoint}")).unwrap());
        let create = calls::endpoint(&self.rows, &account, &endpoint).unwrap().is_none();
        let outgoing = dice.percent(80);
        let events = [OutgoingEvent::Delivered, OutgoingEvent::Delayed, OutgoingEvent::Failed, OutgoingEvent::Canceled];
        let events = events.into_iter().filter(|_| dice.percent(70)).collect();
        let change = EndpointChange {
            direction: create.then_some(if outgoing { Direction::Outgoing } else { Direction::Incoming }),
            url: create.then(|| "https://there.example/".to_owned()),
            events: (create && outgoing && dice.percent(30)).then_some(events),
            superseding: dice.some(50, |d| d.one_of(&[Superseding::All, Superseding::All, Superseding::Latest])),
            retry: dice.some(70, |d| RetrySchedule { waits_s: d.list(0, 5, |d| 1 + d.below(600)) }),
            keep_s: dice.some(70, |d| d.one_of(&[0, 300, 3600])),
            concurrency_max: dice.some(50, |d| 1 + d.below(4)),
            disabled: dice.some(70, |d| d.percent(15)),
            ..EndpointChange::default()
        };
        let command = ConfigureEndpoint { account, endpoint, create, change, by: by() };
        self.apply(Command::ConfigureEndpoint(Box::new(command)));
    }

    /// The reactor makes the next call that may go. Whether there was one.
    fn post(&mut self, name: &Name) -> bool {
        let (account, endpoint) = name;
        let row = calls::endpoint(&self.rows, account, endpoint).unwrap().expect("it was found there");
        let state = calls::state(&self.rows, account, endpoint).unwrap();
        let flying = self.callers.flying.iter().filter(|flight| flight.name == *name).count();
        let probes_only = state.failing.is_some();
        let may_probe = flying == 0 && state.next_probe.is_none_or(|next| next <= self.now);
        if !calls::is_enabled(&row, &state)
            || flying >= row.settings.concurrency_max as usize
            || (probes_only && !may_probe)
        {
            return false;
        }
        let bound = self.callers.bounds.get(name).copied().unwrap_or(Due::FIRST);
        let due = calls::due(&self.rows, account, endpoint, bound, self.now, WINDOW).unwrap();
        if let Some(first) = due.first() {
            self.callers.bounds.insert(name.clone(), first.bound());
        }
        let branch = accounts::counters(&self.rows).unwrap().branch;
        for due in due {
            let flies = self.callers.flying.iter().any(|f| f.name == *name && f.call == due.call);
            let row = calls::call(&self.rows, account, endpoint, due.call).unwrap().expect("what is due has a row");
            if !flies && row.may_go(branch) {
                self.truth.calls.check_post(name, due.call, self.now);
                let started = self.now;
                self.callers.flying.push(Flight { name: name.clone(), call: due.call, started });
                return true;
            }
        }
        false
    }

    fn answer(&mut self, flight: u32, dice: u64) {
        let Some(n) = place(self.callers.flying.len(), flight) else { return };
        let flight = self.callers.flying.swap_remove(n);
        let mut dice = Dice::new(dice);
        let (reply, takes, told) = match self.callers.receptions.get(&flight.name).copied().unwrap_or(Reception::Takes)
        {
            Reception::Takes => (answered(204), true, true),
            Reception::Fails => {
                let retry_after_s = dice.some(20, |d| d.below(1000));
                (CallReply::Answered { status: 500, retry_after_s }, false, false)
            }
            Reception::Hangs => (CallReply::Unanswered, dice.percent(50), false),
            Reception::Gone => (answered(GONE_410), false, false),
            Reception::Forgotten => (CallReply::Forgotten, false, false),
        };
        let finish = FinishCalls {
            account: flight.name.0.clone(),
            endpoint: flight.name.1.clone(),
            results: vec![finished(&flight, reply, &mut dice)],
            texts: texts(),
        };
        let heard = self.apply(Command::FinishCalls(finish)).is_some();
        let (taken, excused) = self.callers.taken.entry((flight.name.clone(), flight.call)).or_default();
        *taken += u32::from(takes);
        // Nobody heard of it, or it had been canceled meanwhile.
        *excused += u32::from(takes && !(told && heard));
        assert!(*taken <= *excused + 1, "{flight:?} was taken {taken} times, and {excused} are no wonder");
    }

    fn ordeal(&mut self, endpoint: u32, calls: u32, seconds_after: u32) {
        let Some(name) = self.endpoint(endpoint) else { return };
        self.callers.receptions.insert(name.clone(), Reception::Hangs);
        for n in 0..calls {
            self.now = self.now + Duration::from_secs(u64::from(n) * 300);
            if self.post(&name) {
                self.answer(self.callers.flying.len() as u32 - 1, u64::from(n));
            }
        }
        self.now = self.now + Duration::from_secs(seconds_after.into());
    }

    fn change_calls(&mut self, endpoint: u32, action: CallAction, dice: u64) {
        let Some((account, endpoint)) = self.endpoint(endpoint) else { return };
        let mut dice = Dice::new(dice);
        let last = (calls::FIRST, calls::LAST);
        let recent = calls::list(&self.rows, &account, &endpoint, last, Order::Descending, 30).unwrap();
        let recent: Vec<CallRef> = recent.iter().map(|row| row.call).collect();
        let named = dice.percent(70);
        let picked = dice.list(1, 5, |d| d.below(u32::MAX));
        let filter = CallFilter {
            calls: if named { picked.iter().filter_map(|n| pick(&recent, *n)).collect() } else { Vec::new() },
            phases: dice
                .some(50, |d| vec![d.one_of(&[CallPhase::Waiting, CallPhase::Held, CallPhase::Failed])])
                .into_iter()
                .flatten()
                .collect(),
            from: dice.some(20, |d| pick(&recent, d.below(u32::MAX)).map(|call| call.fact)).flatten(),
            account: Some(account),
            endpoint: Some(endpoint),
            ..CallFilter::default()
        };
        self.must(Command::Calls(CallsCommand { filter, action, by: by() }));
    }

    /// Somebody starts, stops, resumes or cancels a replay, or it goes on.
    fn replay(&mut self, endpoint: u32, dice: u64) {
        let Some((account, endpoint)) = self.endpoint(endpoint) else { return };
        let mut dice = Dice::new(dice);
        let open = calls::open_replays(&self.rows).unwrap();
        let branch = accounts::counters(&self.rows).unwrap().branch;
        let Some(row) = open.into_iter().find(|row| row.account == account && row.endpoint == endpoint) else {
            let from = pick(&self.records, dice.below(u32::MAX)).map_or(Seq::FIRST, |record| record.seq);
            let (to, kinds, calls_per_second_max) = (None, Vec::new(), None);
            let only_failed = dice.percent(50);
            let start = StartReplay { account, endpoint, from, to, only_failed, kinds, calls_per_second_max, by: by() };
            self.apply(Command::StartReplay(start));
            return;
        };
        let replay = row.replay;
        match (row.may_go(branch), dice.below(10)) {
            (_, 0) => _ = self.must(Command::CancelReplay(CancelReplay { replay, by: by() })),
            (true, 1) => _ = self.must(Command::StopReplay(StopReplay { replay, error: None, by: by() })),
            (true, _) => self.advance_replay(&row, &mut dice),
            (false, _) => {
                let command = ResumeReplay { replay, by: by() };
                let resumed = self.apply(Command::ResumeReplay(command)).is_some();
                let left = calls::replay(&self.rows, replay).unwrap().map(|row| row.state);
                assert!(!resumed || left == Some(ReplayState::Running));
            }
        }
    }

    fn advance_replay(&mut self, row: &calls::ReplayRow, dice: &mut Dice) {
        let (name, last) = ((row.account.clone(), row.endpoint.clone()), row.scope.to);
        let before = CallRef { fact: last.next(), place: 0 };
        let found = calls::list(&self.rows, &name.0, &name.1, (row.cursor, before), Order::Ascending, 5).unwrap();
        let mut results = Vec::new();
        for call in &found {
            let status = if dice.percent(80) { 200 } else { 500 };
            let flight = Flight { name: name.clone(), call: call.call, started: self.now };
            results.push(finished(&flight, answered(status), dice));
            let (taken, excused) = self.callers.taken.entry((name.clone(), call.call)).or_default();
            // That it is told again is what a replay is for.
            (*taken, *excused) = (*taken + u32::from(status == 200), *excused + u32::from(status == 200));
        }
        let done = found.len() < 5;
        let cursor = if done { before } else { found.last().map_or(before, |call| calls::after(call.call)) };
        let failed_before = BTreeMap::new();
        let command = AdvanceReplay { replay: row.replay, cursor, results, failed_before, texts: texts(), done };
        self.must(Command::AdvanceReplay(command));
    }

    /// The first entry that is due is never before the place that the reactor looks from.
    pub fn check_bounds(&self) {
        for ((account, endpoint), bound) in &self.callers.bounds {
            let first = calls::due(&self.rows, account, endpoint, Due::FIRST, Timestamp::MAX, 1).unwrap();
            assert!(first.iter().all(|due| due >= bound), "{endpoint} is looked at from {bound:?}, never at {first:?}");
        }
    }

    /// All heals, and every call is made: the endpoints are enabled, what is on hold is released.
    pub fn call_all(&mut self) -> bool {
        let mut next: Option<Timestamp> = None;
        let mut idle = true;
        for row in calls::all_endpoints(&self.rows).unwrap() {
            let name = (row.account.clone(), row.endpoint.clone());
            let state = calls::state(&self.rows, &name.0, &name.1).unwrap();
            if !calls::is_enabled(&row, &state) {
                self.enable(row);
                return false;
            }
            while self.post(&name) {
                idle = false;
            }
            let due = calls::due(&self.rows, &name.0, &name.1, Due::FIRST, Timestamp::MAX, 1).unwrap();
            let at = due.first().map(|due| due.at.max(state.next_probe.unwrap_or(START)));
            next = [next, at].into_iter().flatten().min();
        }
        while !self.callers.flying.is_empty() {
            self.answer(0, 0);
        }
        match next {
            Some(next) if idle => self.now = self.now.max(next),
            Some(_) => {}
            None if idle => return self.release_calls(),
            None => {}
        }
        false
    }

    fn enable(&mut self, row: EndpointRow) {
        let EndpointRow { account, endpoint, .. } = row;
        let change = EndpointChange { disabled: Some(false), ..EndpointChange::default() };
        let command = ConfigureEndpoint { account, endpoint, create: false, change, by: by() };
        self.must(Command::ConfigureEndpoint(Box::new(command)));
    }

    /// Whether nothing was on hold.
    fn release_calls(&mut self) -> bool {
        for EndpointRow { account, endpoint, .. } in calls::all_endpoints(&self.rows).unwrap() {
            let calls = calls::held(&self.rows, &account, &endpoint, calls::FIRST, 1000).unwrap();
            if !calls.is_empty() {
                let (account, endpoint) = (Some(account), Some(endpoint));
                let filter = CallFilter { account, endpoint, calls, ..CallFilter::default() };
                let action = CallAction::Retry;
                let answer = self.must(Command::Calls(CallsCommand { filter, action, by: by() }));
                assert!(answer != Answer::Affected(0));
                return false;
            }
        }
        true
    }

    /// Nothing is left of calls but their endpoints, and replays.
    pub fn check_forgotten(&self) {
        let left =
            self.rows.table(Table::Calls).find(|(key, _)| !matches!(key.first(), Some(b'e' | b's' | b'p' | b'q')));
        assert_eq!(left, None);
    }
}

fn answered(status: u16) -> CallReply {
    CallReply::Answered { status, retry_after_s: None }
}

fn finished(flight: &Flight, reply: CallReply, dice: &mut Dice) -> FinishedCall {
    FinishedCall {
        call: flight.call,
        started: flight.started,
        took_us: Duration::from_millis(3).as_micros() as u64,
        remote_addr: None,
        reply,
        response: Some(0),
        error: None,
        jitter_permille: i8::try_from(dice.below(20)).unwrap() - 10,
    }
}

fn texts() -> CallTexts {
    CallTexts { responses: vec!["said".to_owned()], errors: Vec::new() }
}
