//! What should be true of endpoints and calls, kept beside the ledger from its events alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use postledger_events::fact::call::{CallAbout, CallFailure, CallOutcome, CallRef, CallResult, CallsQueued};
use postledger_events::fact::endpoint::{Direction, Disabling, EndpointSettings, OutgoingEvent, Superseding};
use postledger_events::fact::job::Work;
use postledger_events::fact::replay::ReplayEnd;
use postledger_events::id::*;
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use postledger_projections::calls::{self, CallState, EndpointRow, ReplayState};
use postledger_projections::{Memory, Order, accounts};

pub type Name = (AccountName, EndpointName);

#[derive(Clone, Debug)]
pub struct Call {
    pub state: CallState,
    about: CallAbout,
    attempts: u32,
    due: Timestamp,
    retried: Option<Seq>,
    queued: Timestamp,
    keep_s: u64,
    /// With the end of its keep period.
    ended: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Endpoint {
    settings: EndpointSettings,
    removing: bool,
    disabled: bool,
    failures: u32,
    since: Option<Timestamp>,
    failing: Option<Timestamp>,
}

#[derive(Default)]
pub struct Calls {
    pub calls: BTreeMap<(Name, CallRef), Call>,
    endpoints: BTreeMap<Name, Endpoint>,
    replays: BTreeMap<ReplayId, ReplayState>,
    /// What endpoints want to be told of and is not queued yet.
    wanted: BTreeSet<(Name, CallRef)>,
    branch: Option<Seq>,
    touched: BTreeSet<(Name, CallRef)>,
}

impl Calls {
    /// Takes an event in, if it may follow what is true so far.
    pub fn observe(&mut self, record: &Record) {
        let at = record.at;
        self.want(record);
        match &record.event {
            Event::EndpointConfigured(e) => {
                let name = (e.account.clone(), e.endpoint.clone());
                let removing = self.endpoints.get(&name).is_some_and(|endpoint| endpoint.removing);
                assert!(!removing, "an endpoint that goes is not changed");
                let was_disabled = self.endpoints.get(&name).is_some_and(|endpoint| endpoint.disabled);
                assert!(was_disabled || !e.stays_disabled, "only what is disabled stays so");
                let settings = e.settings.clone();
                let anew = Endpoint { settings, removing, disabled: false, failures: 0, since: None, failing: None };
                let endpoint = self.endpoints.entry(name).or_insert_with(|| anew.clone());
                if e.stays_disabled {
                    endpoint.settings = anew.settings;
                } else {
                    *endpoint = anew;
                }
            }
            Event::EndpointDisabled(e) => {
                let endpoint = self.endpoint(&e.account, &e.endpoint);
                match e.why {
                    Disabling::Gone(_) => {}
                    Disabling::FailingSince(since) => {
                        assert_eq!(endpoint.since, Some(since), "it fails since then");
                        assert!(at.since(since) >= Duration::from_secs(5 * 24 * 3600), "it fails for five days");
                    }
                }
                assert!(!endpoint.disabled, "it is disabled once");
                endpoint.disabled = true;
            }
            Event::EndpointRemoved(e) => {
                let name = (e.account.clone(), e.endpoint.clone());
                assert!(self.endpoints.remove(&name).is_some_and(|endpoint| endpoint.removing));
                let open = self.calls.iter().find(|((of, _), call)| *of == name && call.state.is_open());
                assert!(open.is_none(), "{open:?} is open, but its endpoint goes");
            }
            Event::JobStarted(e) => match &e.work {
                Work::RemoveAccount(account) => {
                    let own = self.endpoints.iter_mut().filter(|((of, _), _)| of == account);
                    own.for_each(|(_, endpoint)| endpoint.removing = true);
                }
                Work::RemoveEndpoint(account, endpoint) => self.endpoint(account, endpoint).removing = true,
                Work::ApplyHoldRule(..) | Work::HoldRestored(_) | Work::Queue(..) | Work::Calls(..) => {}
            },
            Event::AccountRemoved(e) => assert!(!self.endpoints.keys().any(|(of, _)| *of == e.account)),
            Event::CallsQueued(e) => self.queued(e, at),
            Event::CallsAttempted(e) => {
                let name = (e.account.clone(), e.endpoint.clone());
                for result in &e.results {
                    self.attempted(&name, result, at);
                }
            }
            Event::CallsCanceled(e) => {
                for call in &e.calls {
                    let key = ((e.account.clone(), e.endpoint.clone()), *call);
                    assert!(self.calls[&key].state.is_open(), "{call:?} ends once");
                    self.end(&key, CallState::Canceled(e.why), at);
                }
            }
            Event::CallsRetried(e) => {
                for call in &e.calls {
                    let row = self.touch(&((e.account.clone(), e.endpoint.clone()), *call));
                    assert!(row.state != CallState::Delivered, "{call:?} has arrived");
                    (row.state, row.due, row.attempts) = (CallState::Waiting, at, 0);
                    (row.retried, row.ended) = (Some(record.seq), None);
                }
            }
            Event::CallsHeld(e) => {
                for call in &e.calls {
                    let branch = self.branch.expect("only what was restored is held");
                    let row = self.touch(&((e.account.clone(), e.endpoint.clone()), *call));
                    assert_eq!(row.state, CallState::Waiting);
                    assert!(accounts::is_restored(branch, call.fact, row.retried), "{call:?} was not restored");
                    row.state = CallState::Held;
                }
            }
            Event::ReplayStarted(e) => {
                assert_eq!(e.replay.0, record.seq.0, "a replay is named by its record");
                assert!(self.replays.insert(e.replay, ReplayState::Running).is_none());
            }
            Event::ReplayAdvanced(e) => {
                assert_eq!(self.replays[&e.replay], ReplayState::Running);
                for result in e.results.iter().filter(|result| result.outcome == CallOutcome::Delivered) {
                    let key = ((e.account.clone(), e.endpoint.clone()), result.call);
                    match self.calls.get_mut(&key).map(|call| call.state.is_open()) {
                        Some(true) => self.end(&key, CallState::Delivered, at),
                        Some(false) => self.touch(&key).state = CallState::Delivered,
                        None => {}
                    }
                }
            }
            Event::ReplayStopped(e) => {
                let before = self.replays.insert(e.replay, ReplayState::Stopped);
                assert_eq!(before, Some(ReplayState::Running));
            }
            Event::ReplayResumed(e) => _ = self.replays.insert(e.replay, ReplayState::Running),
            Event::ReplayEnded(e) => {
                assert!(!matches!(self.replays[&e.replay], ReplayState::Ended(_)), "a replay ends once");
                assert!(e.end != ReplayEnd::Done || self.replays[&e.replay] == ReplayState::Running);
                self.replays.insert(e.replay, ReplayState::Ended(e.end));
            }
            Event::Expired(e) => {
                for group in &e.calls {
                    for call in &group.calls {
                        let key = ((group.account.clone(), group.endpoint.clone()), *call);
                        let row = self.calls.remove(&key).expect("it is forgotten once");
                        assert_eq!(row.ended, Some(group.keep_until), "{call:?} is forgotten in time");
                        assert!(group.keep_until <= at, "{call:?} is forgotten too early");
                        self.touched.insert(key);
                    }
                }
            }
            Event::LedgerBranched(_) => {
                // What was cut off between a fact and its calls is told again by a replay only.
                self.wanted.clear();
                self.branch = Some(record.seq);
            }
            _ => {}
        }
    }

    /// What endpoints want of a fact, found out here in another way than the decision does it.
    fn want(&mut self, record: &Record) {
        use OutgoingEvent::*;
        let (account, kind, places): (_, _, Vec<usize>) = match &record.event {
            Event::Delivered(e) => (&e.account, Delivered, (0..e.deliveries.len()).collect()),
            Event::AttemptDeferred(e) => (&e.account, Delayed, (0..e.deliveries.len()).collect()),
            Event::DeliveryFailed(e) => (&e.account, Failed, (0..e.deliveries.len()).collect()),
            Event::DeliverySuppressed(e) => (&e.account, Suppressed, (0..e.deliveries.len()).collect()),
            Event::DeliveryCanceled(e) => (&e.account, Canceled, (0..e.deliveries.len()).collect()),
            Event::AttemptInDoubt(e) => {
                let delayed = |n: &usize| e.deliveries[*n].next.is_some();
                (&e.account, Delayed, (0..e.deliveries.len()).filter(delayed).collect())
            }
            Event::MessageReceived(e) if e.notice_of.is_none() => {
                for (place, copy) in e.copies.iter().enumerate() {
                    let incoming = |settings: &EndpointSettings| settings.direction == Direction::Incoming;
                    self.add_wanted(&copy.account, record.seq, place, incoming);
                }
                return;
            }
            _ => return,
        };
        for place in places {
            self.add_wanted(account, record.seq, place, |settings| {
                let named = settings.events.is_empty() || settings.events.contains(&kind);
                settings.direction == Direction::Outgoing && named
            });
        }
    }

    fn add_wanted(
        &mut self,
        account: &AccountName,
        fact: Seq,
        place: usize,
        wants: impl Fn(&EndpointSettings) -> bool,
    ) {
        let call = CallRef { fact, place: place.try_into().unwrap() };
        for (name, endpoint) in &self.endpoints {
            if name.0 == *account && !endpoint.removing && wants(&endpoint.settings) {
                self.wanted.insert((name.clone(), call));
            }
        }
    }

    fn queued(&mut self, e: &CallsQueued, at: Timestamp) {
        for to in &e.endpoints {
            let name = (e.account.clone(), to.endpoint.clone());
            for queued in &to.calls {
                let key = (name.clone(), CallRef { fact: e.fact, place: queued.place });
                assert!(self.wanted.remove(&key), "{key:?} is wanted, and queued once");
                if self.endpoints[&name].settings.superseding == Superseding::Latest {
                    let open = self.lane(&name, queued.about);
                    assert!(open.is_empty(), "{open:?} are superseded by {key:?}");
                }
                let call = Call {
                    state: CallState::Waiting,
                    about: queued.about,
                    attempts: 0,
                    due: at,
                    retried: None,
                    queued: at,
                    keep_s: to.keep_s,
                    ended: None,
                };
                assert!(self.calls.insert(key.clone(), call).is_none());
                self.touched.insert(key);
            }
        }
    }

    fn attempted(&mut self, name: &Name, result: &CallResult, at: Timestamp) {
        let key = (name.clone(), result.call);
        let (call, endpoint) = (self.calls[&key].clone(), self.endpoints[name].clone());
        // It may have ended otherwise while it was under way.
        let is_open = call.state.is_open();
        assert!(!matches!(call.state, CallState::Failed(_)), "{key:?} was not to be made: {call:?}");
        assert_eq!(result.attempt, call.attempts + 1, "attempts of {key:?} are numbered one by one");
        let failing = endpoint.failing.is_some_and(|failing| result.started >= failing);
        assert_eq!(result.probe, failing, "{key:?} probes a failing endpoint: {endpoint:?}");
        let waits = &endpoint.settings.retry.waits_s;
        let failed = match result.outcome {
            CallOutcome::Delivered => {
                if is_open {
                    self.end(&key, CallState::Delivered, at);
                } else {
                    self.touch(&key).state = CallState::Delivered;
                }
                false
            }
            CallOutcome::Failed(CallFailure::Exhausted | CallFailure::Gone) if !is_open => true,
            CallOutcome::Deferred(next) => {
                assert!(is_open, "there is no attempt of {key:?} after its end");
                assert!(next >= at, "{key:?} is due in the past");
                if !result.probe {
                    let wait = waits.get(result.attempt as usize - 1).expect("there was another attempt");
                    let least = Duration::from_millis(u64::from(*wait) * 990);
                    assert!(next == at || next.since(result.started) >= least, "{key:?} waits as the schedule has it");
                    let row = self.touch(&key);
                    (row.due, row.attempts) = (next, result.attempt);
                }
                true
            }
            CallOutcome::Failed(why) => {
                let last = why != CallFailure::Exhausted || result.attempt as usize > waits.len() && !result.probe;
                assert!(last, "{key:?} is given up before its last attempt");
                self.end(&key, CallState::Failed(why), at);
                why != CallFailure::Forgotten
            }
        };
        let endpoint = self.endpoints.get_mut(name).unwrap();
        match result.outcome {
            CallOutcome::Delivered => (endpoint.failures, endpoint.since, endpoint.failing) = (0, None, None),
            _ if failed => {
                endpoint.failures += 1;
                let since = *endpoint.since.get_or_insert(at);
                if endpoint.failures >= 10 && at.since(since) >= Duration::from_secs(600) {
                    endpoint.failing.get_or_insert(at);
                }
            }
            _ => {}
        }
    }

    /// What comes first behind it is due now at the earliest.
    fn end(&mut self, key: &(Name, CallRef), state: CallState, at: Timestamp) {
        let lane = self.lane(&key.0, self.calls[key].about);
        let row = self.touch(key);
        row.state = state;
        row.ended = Some(at + Duration::from_secs(row.keep_s));
        if row.keep_s == 0 {
            self.calls.remove(key);
        }
        if let [first, second, ..] = lane.as_slice()
            && *first == key.1
        {
            let next = self.touch(&(key.0.clone(), *second));
            next.due = next.due.max(at);
        }
    }

    /// Open calls of one endpoint about the same.
    pub fn lane(&self, name: &Name, about: CallAbout) -> Vec<CallRef> {
        let CallAbout::Delivery(delivery, _) = about else { return Vec::new() };
        let same = |call: &Call| matches!(call.about, CallAbout::Delivery(other, _) if other == delivery);
        let all = self.calls.range((name.clone(), calls::FIRST)..=(name.clone(), calls::LAST));
        all.filter(|(_, call)| call.state.is_open() && same(call)).map(|((_, call), _)| *call).collect()
    }

    /// A call may leave now: it is the first of its lane, due, and of an endpoint that is called.
    pub fn check_post(&self, name: &Name, call: CallRef, now: Timestamp) {
        let (row, endpoint) = (&self.calls[&(name.clone(), call)], &self.endpoints[name]);
        assert_eq!(row.state, CallState::Waiting, "{name:?} {call:?}");
        assert!(row.due <= now, "{name:?} {call:?} leaves before it is due: {row:?}");
        let first = self.lane(name, row.about).first().is_none_or(|first| *first == call);
        assert!(first, "{name:?} {call:?} overtakes another about the same");
        assert!(!endpoint.removing && !endpoint.disabled && !endpoint.settings.disabled, "{name:?}: {endpoint:?}");
        let restored = self.branch.is_some_and(|branch| accounts::is_restored(branch, call.fact, row.retried));
        assert!(!restored, "{name:?} {call:?} leaves though another branch may have made it");
    }

    fn endpoint(&mut self, account: &AccountName, endpoint: &EndpointName) -> &mut Endpoint {
        self.endpoints.get_mut(&(account.clone(), endpoint.clone())).expect("there is such an endpoint")
    }

    fn touch(&mut self, key: &(Name, CallRef)) -> &mut Call {
        self.touched.insert(key.clone());
        self.calls.get_mut(key).unwrap_or_else(|| panic!("{key:?} was never queued"))
    }

    /// What the last command touched, and whether it told endpoints all that they want.
    pub fn check_touched(&mut self, rows: &Memory) {
        assert_eq!(self.wanted, BTreeSet::new(), "endpoints are not told of this");
        for key in std::mem::take(&mut self.touched) {
            self.check_row(&key, rows);
        }
    }

    fn check_row(&self, key: &(Name, CallRef), rows: &Memory) {
        let ((account, endpoint), call) = key;
        let row = calls::call(rows, account, endpoint, *call).unwrap();
        let Some(truth) = self.calls.get(key) else { return assert_eq!(row, None, "{key:?} was forgotten") };
        let row = row.unwrap_or_else(|| panic!("{key:?} has no row: {truth:?}"));
        let told = (row.state, row.about, row.attempts, row.due, row.retried, row.queued);
        let known = (truth.state, truth.about, truth.attempts, truth.due, truth.retried, truth.queued);
        assert_eq!(told, known, "{key:?}");
        assert_eq!(row.ended.map(|ended| ended.keep_until), truth.ended, "{key:?}");
        if let CallAbout::Delivery(delivery, _) = truth.about {
            let lane: Vec<_> =
                calls::lane(rows, account, endpoint, delivery).unwrap().iter().map(|row| row.call).collect();
            assert_eq!(lane, self.lane(&key.0, truth.about), "the lane of {key:?}");
        }
    }

    pub fn check_all(&self, rows: &Memory) {
        self.calls.keys().for_each(|key| self.check_row(key, rows));
        let mut all: Vec<EndpointRow> = calls::all_endpoints(rows).unwrap();
        all.sort_by(|a, b| (&a.account, &a.endpoint).cmp(&(&b.account, &b.endpoint)));
        let names: Vec<Name> = all.into_iter().map(|row| (row.account, row.endpoint)).collect();
        assert_eq!(names, self.endpoints.keys().cloned().collect::<Vec<_>>());
        for name in &names {
            let (account, endpoint) = name;
            let listed =
                calls::list(rows, account, endpoint, (calls::FIRST, calls::LAST), Order::Ascending, usize::MAX)
                    .unwrap();
            let own = self.calls.range((name.clone(), calls::FIRST)..=(name.clone(), calls::LAST)).count();
            assert_eq!(listed.len(), own, "{name:?}");
            let due = calls::due(rows, account, endpoint, calls::Due::FIRST, Timestamp::MAX, usize::MAX).unwrap();
            let first = |(_, call): &(_, CallRef), row: &Call| {
                let lane = self.lane(name, row.about);
                row.state == CallState::Waiting && lane.first().is_none_or(|first| first == call)
            };
            let own = self.calls.iter().filter(|(key, row)| key.0 == *name && first(key, row));
            let own: BTreeSet<_> = own.map(|((_, call), row)| calls::Due { at: row.due, call: *call }).collect();
            assert_eq!(due.into_iter().collect::<BTreeSet<_>>(), own, "what is due of {name:?}");
            let held = calls::held(rows, account, endpoint, calls::FIRST, usize::MAX).unwrap();
            let on_hold = |(key, row): &(&(Name, CallRef), &Call)| key.0 == *name && row.state == CallState::Held;
            let own: Vec<_> = self.calls.iter().filter(on_hold).map(|((_, call), _)| *call).collect();
            assert_eq!(held, own, "what is on hold of {name:?}");
        }
        for (id, state) in &self.replays {
            assert_eq!(calls::replay(rows, *id).unwrap().map(|row| row.state), Some(*state), "replay {id}");
        }
    }
}
