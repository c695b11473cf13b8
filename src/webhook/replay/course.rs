//! The order of a replay: which call may go, which is tried again and when, and how far all is done. Pure.
//!
//! Calls about one delivery follow each other; those about different ones do not wait for each other. One that fails holds the
//! cursor, and what was found behind it goes on as far as the window reaches. Every call that fails is tried again at a time of its
//! own; after a start only the first of them has one, and the others begin anew.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use postledger_events::command::DeferredCall;
use postledger_events::fact::call::CallRef;
use postledger_events::id::DeliveryId;
use postledger_events::time::Timestamp;
use postledger_projections::calls::{FAILURES_MAX, Trouble};

use super::super::payload::Body;

/// Calls that may be ahead of the cursor, apart from the last piece of the log.
const WINDOW_MAX: usize = 10_000;
/// Of bodies that are ready, apart from the last piece of the log.
const BODIES_BYTES_MAX: usize = 16 * 1024 * 1024;
/// When fewer calls are ready than this, more are looked for.
const READY_MIN: usize = 512;

/// A call that was found.
pub struct Found {
    pub call: CallRef,
    /// Calls about the same one follow each other.
    pub delivery: Option<DeliveryId>,
    pub body: Written,
}

/// What is to be sent, or why it cannot be.
pub enum Written {
    Body(Body),
    Forgotten,
    Failed(String),
}

impl Written {
    pub fn bytes(&self) -> usize {
        match self {
            Written::Body(body) => body.bytes.len(),
            Written::Forgotten | Written::Failed(_) => 0,
        }
    }
}

/// A call that may go now.
pub struct Next {
    pub call: CallRef,
    /// From 1.
    pub attempt: u32,
    /// `None`: to be written anew.
    pub body: Option<Written>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Waiting,
    Running,
    /// It has succeeded, or there is nothing to tell any more; no record says so yet.
    Ended,
    /// It has failed; no record says so yet.
    Failing,
    /// It has failed, and is tried again.
    Failed,
    /// A record that says so is written, or being written.
    Done,
}

struct Entry {
    at: At,
    delivery: Option<DeliveryId>,
    body: Option<Written>,
    /// Attempts that failed.
    failed: u32,
}

pub struct Course {
    /// Where the log is read on.
    read_to: CallRef,
    /// There is nothing behind that.
    is_read: bool,
    /// All that was found from the cursor on.
    window: BTreeMap<CallRef, Entry>,
    /// What has not ended, by delivery; only the first may go.
    lanes: HashMap<DeliveryId, VecDeque<CallRef>>,
    ready: BTreeSet<CallRef>,
    /// With the times at which it is tried again.
    failed: BTreeSet<(Timestamp, CallRef)>,
    /// In a row.
    failures: u32,
    /// While all fails, the only call that may go.
    probe: Option<CallRef>,
    /// What held it up before this program started, until that call is the first of its lane.
    trouble: Option<Trouble>,
    /// Of all bodies that are ready.
    bytes: usize,
}

impl Course {
    pub fn new(cursor: CallRef, trouble: Option<Trouble>) -> Course {
        Course {
            read_to: cursor,
            is_read: false,
            window: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            failed: BTreeSet::new(),
            failures: 0,
            probe: None,
            trouble,
            bytes: 0,
        }
    }

    /// Where the log is to be read on, if more is wanted now.
    pub fn wants(&self) -> Option<CallRef> {
        let has_room = self.window.len() < WINDOW_MAX && self.bytes < BODIES_BYTES_MAX && self.ready.len() < READY_MIN;
        (has_room && !self.is_read && !self.is_failing()).then_some(self.read_to)
    }

    /// Takes in what a piece of the log has, and where the next one begins.
    pub fn found(&mut self, found: Vec<Found>, next: CallRef, is_last: bool) {
        (self.read_to, self.is_read) = (next, is_last);
        for Found { call, delivery, body } in found {
            let is_first = delivery.is_none_or(|delivery| {
                let lane = self.lanes.entry(delivery).or_default();
                lane.push_back(call);
                lane.len() == 1
            });
            self.bytes += body.bytes();
            self.window.insert(call, Entry { at: At::Waiting, delivery, body: Some(body), failed: 0 });
            if is_first {
                self.comes_first(call);
            }
        }
    }

    /// Nothing is before it in its lane: it may go, unless the ledger has given it a time before this program started.
    fn comes_first(&mut self, call: CallRef) {
        match self.trouble.take_if(|trouble| trouble.call == call) {
            Some(trouble) => self.defer(DeferredCall { call, attempt: trouble.last.attempt, next: trouble.next }),
            None => _ = self.ready.insert(call),
        }
    }

    fn defer(&mut self, DeferredCall { call, attempt, next }: DeferredCall) {
        if let Some(entry) = self.window.get_mut(&call) {
            (entry.at, entry.failed) = (At::Failed, attempt);
            self.failed.insert((next, call));
        }
    }

    /// Whether there is a call to make.
    pub fn has_next(&mut self, now: Timestamp) -> bool {
        self.try_again(now);
        self.is_ready()
    }

    /// The next call to make.
    pub fn next(&mut self) -> Option<Next> {
        let call = if self.is_failing() { self.probe.take()? } else { self.ready.pop_first()? };
        let entry = self.window.get_mut(&call)?;
        entry.at = At::Running;
        let body = entry.body.take();
        self.bytes -= body.as_ref().map_or(0, Written::bytes);
        Some(Next { call, attempt: entry.failed + 1, body })
    }

    /// Attempts of a call that failed before the one that is under way, or has ended and is not recorded.
    pub fn failed_before(&self, call: CallRef) -> u32 {
        self.window.get(&call).map_or(0, |entry| entry.failed)
    }

    /// What failed is tried again when its own time has come. While all fails, only the first.
    fn try_again(&mut self, now: Timestamp) {
        if !self.is_failing() {
            while let Some((_, call)) = self.failed.first().copied().filter(|(next, _)| *next <= now) {
                self.failed.pop_first();
                self.set(call, At::Waiting);
                self.ready.insert(call);
            }
        } else if self.probe.is_none()
            && !self.is_running()
            && let Some(first) = self.first_failed().filter(|(next, _)| *next <= now)
        {
            self.failed.remove(&first);
            self.probe = Some(first.1);
        }
    }

    /// In the order of the ledger.
    fn first_failed(&self) -> Option<(Timestamp, CallRef)> {
        self.failed.iter().min_by_key(|(_, call)| *call).copied()
    }

    /// A call has ended; `ok`: it need not be made again.
    pub fn ended(&mut self, call: CallRef, ok: bool) {
        if !ok {
            self.set(call, At::Failing);
            self.failures = self.failures.saturating_add(1);
            if self.is_failing() {
                self.forget_bodies();
            }
            return;
        }
        self.failures = 0;
        self.set(call, At::Ended);
        let Some(delivery) = self.window.get(&call).and_then(|entry| entry.delivery) else { return };
        let Some(lane) = self.lanes.get_mut(&delivery) else { return };
        lane.pop_front();
        match lane.front().copied() {
            Some(next) => self.comes_first(next),
            None => _ = self.lanes.remove(&delivery),
        }
    }

    /// These results are being written down: the cursor may pass what has succeeded.
    pub fn recording(&mut self, calls: impl Iterator<Item = CallRef>) {
        for call in calls {
            if self.is_at(call, At::Ended) {
                self.set(call, At::Done);
            }
        }
        while self.window.first_key_value().is_some_and(|(_, entry)| entry.at == At::Done) {
            self.window.pop_first();
        }
    }

    /// They are written down: what has failed has its time from now on.
    pub fn recorded(&mut self, calls: impl Iterator<Item = CallRef>, deferred: &[DeferredCall]) {
        for deferred in deferred {
            if self.is_at(deferred.call, At::Failing) {
                self.defer(*deferred);
            }
        }
        for call in calls {
            if self.is_at(call, At::Failing) {
                // It stops the replay. Should somebody resume that at once, the call begins anew.
                self.defer(DeferredCall { call, attempt: 0, next: Timestamp::EPOCH });
            }
        }
    }

    /// The replay was stopped and resumed: what has failed may go at once, with all attempts before it again.
    pub fn begin_anew(&mut self) {
        (self.trouble, self.failures) = (None, 0);
        self.window.values_mut().for_each(|entry| entry.failed = 0);
        let failed = std::mem::take(&mut self.failed).into_iter().map(|(_, call)| call).chain(self.probe.take());
        self.failed = failed.map(|call| (Timestamp::EPOCH, call)).collect();
    }

    /// All before this is done.
    pub fn cursor(&self) -> CallRef {
        self.window.first_key_value().map_or(self.read_to, |(call, _)| *call)
    }

    /// There is nothing behind the cursor.
    pub fn is_done(&self) -> bool {
        self.is_read && self.window.is_empty()
    }

    /// When something that has failed is tried again.
    pub fn next_try(&self) -> Option<Timestamp> {
        if !self.is_failing() {
            return self.failed.first().map(|(next, _)| *next);
        }
        // While all fails, the end of the call that is under way comes first.
        let waits = self.probe.is_none() && !self.is_running();
        self.first_failed().filter(|_| waits).map(|(next, _)| next)
    }

    /// Something may go now, but for limits.
    pub fn is_ready(&self) -> bool {
        if self.is_failing() { self.probe.is_some() } else { !self.ready.is_empty() }
    }

    fn is_failing(&self) -> bool {
        self.failures >= FAILURES_MAX
    }

    fn is_running(&self) -> bool {
        self.window.values().any(|entry| matches!(entry.at, At::Running | At::Failing))
    }

    /// What is not sent for long is written anew then: parts of it may have been forgotten.
    fn forget_bodies(&mut self) {
        self.window.values_mut().for_each(|entry| entry.body = None);
        self.bytes = 0;
    }

    fn is_at(&self, call: CallRef, at: At) -> bool {
        self.window.get(&call).is_some_and(|entry| entry.at == at)
    }

    fn set(&mut self, call: CallRef, at: At) {
        if let Some(entry) = self.window.get_mut(&call) {
            entry.at = at;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postledger_events::id::Seq;
    use postledger_projections::calls::LastAttempt;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const NOTHING: [u64; 0] = [];

    fn call(fact: u64) -> CallRef {
        CallRef { fact: Seq(fact), place: 0 }
    }

    /// A course from record 10 on, which has found these facts about these deliveries, and ends with record 99.
    fn course(found: &[(u64, u64)]) -> Course {
        let mut course = Course::new(call(10), None);
        let found = found.iter().map(|(fact, delivery)| Found {
            call: call(*fact),
            delivery: Some(DeliveryId(*delivery)),
            body: Written::Body(Body { content_type: "", bytes: vec![0; 10] }),
        });
        course.found(found.collect(), call(100), true);
        course
    }

    /// All that may go at this time, by fact.
    fn go(course: &mut Course, now: Timestamp) -> Vec<u64> {
        std::iter::from_fn(|| course.has_next(now).then(|| course.next().unwrap().call.fact.0)).collect()
    }

    fn end(course: &mut Course, facts: &[u64], ok: bool) {
        facts.iter().for_each(|fact| course.ended(call(*fact), ok));
    }

    /// Writes down what has ended, and what of it is tried again: fact, attempt, and in how many seconds. Answers the cursor that the
    /// record has.
    fn record(course: &mut Course, facts: &[u64], deferred: &[(u64, u32, u64)]) -> u64 {
        course.recording(facts.iter().copied().map(call));
        let cursor = course.cursor().fact.0;
        let deferred = deferred.iter().map(|(fact, attempt, in_s)| DeferredCall {
            call: call(*fact),
            attempt: *attempt,
            next: later(*in_s),
        });
        course.recorded(facts.iter().copied().map(call), &deferred.collect::<Vec<DeferredCall>>());
        cursor
    }

    fn later(in_s: u64) -> Timestamp {
        NOW + Duration::from_secs(in_s)
    }

    fn held_up(fact: u64, attempt: u32, in_s: u64) -> Trouble {
        let last = LastAttempt { attempt, started: NOW, took_us: 1, status: 500, response: None, error: None };
        Trouble { call: call(fact), last, next: later(in_s) }
    }

    #[test]
    fn calls_about_one_delivery_follow_each_other() {
        let mut course = course(&[(10, 1), (11, 2), (12, 1), (13, 1), (14, 3)]);
        assert_eq!(go(&mut course, NOW), [10, 11, 14]);
        end(&mut course, &[14, 10], true);
        assert_eq!(go(&mut course, NOW), [12]);
        assert_eq!(record(&mut course, &[10, 14], &[]), 11);
        end(&mut course, &[12, 11], true);
        assert_eq!(go(&mut course, NOW), [13]);
        assert_eq!(record(&mut course, &[12, 11], &[]), 13, "what was recorded before need not be waited for");
        end(&mut course, &[13], true);
        assert_eq!((record(&mut course, &[13], &[]), course.is_done()), (100, true));
    }

    #[test]
    fn a_failure_holds_the_cursor_and_its_delivery_alone() {
        let mut course = course(&[(10, 1), (11, 2), (12, 1), (13, 2)]);
        assert_eq!(go(&mut course, NOW), [10, 11]);
        end(&mut course, &[10], false);
        end(&mut course, &[11], true);
        assert_eq!(go(&mut course, NOW), [13], "the failure waits for its record");
        assert_eq!(record(&mut course, &[10, 11], &[(10, 3, 60)]), 10);
        end(&mut course, &[13], true);
        assert_eq!(go(&mut course, NOW), NOTHING);
        assert_eq!(course.next_try(), Some(later(60)));
        assert!(course.has_next(later(60)));
        let again = course.next().unwrap();
        assert_eq!((again.call, again.attempt, again.body.is_none()), (call(10), 4, true));
        end(&mut course, &[10], true);
        assert_eq!(go(&mut course, NOW), [12]);
        assert_eq!((record(&mut course, &[13, 10], &[]), course.is_done()), (12, false));
    }

    #[test]
    fn while_all_fails_only_the_first_call_goes() {
        let all: Vec<(u64, u64)> = (10..40).map(|n| (n, n)).collect();
        let mut course = course(&all);
        let first: Vec<u64> = std::iter::from_fn(|| course.next()).take(12).map(|next| next.call.fact.0).collect();
        end(&mut course, &first, false);
        assert_eq!(go(&mut course, NOW), NOTHING);
        assert_eq!((course.wants(), course.bytes), (None, 0));
        let deferred: Vec<(u64, u32, u64)> = first.iter().map(|fact| (*fact, 1, 60)).collect();
        assert_eq!(record(&mut course, &first, &deferred), 10);
        assert_eq!(course.next_try(), Some(later(60)));
        assert_eq!(go(&mut course, later(60)), [10]);
        assert_eq!(course.next_try(), None, "nobody looks again and again while it is under way");
        end(&mut course, &[10], false);
        assert_eq!(record(&mut course, &[10], &[(10, 2, 180)]), 10);
        assert_eq!(go(&mut course, later(60)), NOTHING, "the others wait with the first");
        assert_eq!(course.next_try(), Some(later(180)));
        assert_eq!(go(&mut course, later(180)), [10]);
        end(&mut course, &[10], true);
        assert_eq!(record(&mut course, &[10], &[]), 11);
        assert_eq!(go(&mut course, later(180)), (11..40).collect::<Vec<u64>>());
    }

    #[test]
    fn a_failed_call_is_not_made_again_before_its_own_time() {
        let mut course = course(&[(10, 1), (11, 2), (12, 3), (13, 4)]);
        assert_eq!(go(&mut course, NOW), [10, 11, 12, 13]);
        end(&mut course, &[11, 12], false);
        end(&mut course, &[13], true);
        assert_eq!(record(&mut course, &[11, 12, 13], &[(11, 1, 60), (12, 1, 3600)]), 10);
        assert_eq!((go(&mut course, later(59)).len(), course.next_try()), (0, Some(later(60))));
        assert_eq!(go(&mut course, later(60)), [11], "the other one has asked for more time");
        assert_eq!(course.next_try(), Some(later(3600)));
        end(&mut course, &[11], false);
        assert_eq!(record(&mut course, &[11], &[(11, 2, 180)]), 10);
        assert_eq!(go(&mut course, later(179)), NOTHING, "also while the first call of all still runs");
        assert_eq!(go(&mut course, later(180)), [11]);
        end(&mut course, &[10, 11], true);
        assert_eq!(record(&mut course, &[10, 11], &[]), 12);
        assert_eq!(go(&mut course, later(3599)), NOTHING);
        assert_eq!(go(&mut course, later(3600)), [12]);
    }

    #[test]
    fn attempts_are_counted_for_each_failed_call() {
        let mut course = course(&[(10, 1), (11, 2), (12, 3)]);
        assert_eq!(go(&mut course, NOW), [10, 11, 12]);
        end(&mut course, &[10, 11], false);
        assert_eq!(record(&mut course, &[10, 11], &[(10, 1, 600), (11, 1, 60)]), 10);
        for attempt in 2..5 {
            let now = later(60 * u64::from(attempt - 1));
            assert!(course.has_next(now));
            let again = course.next().unwrap();
            assert_eq!((again.call, again.attempt), (call(11), attempt));
            end(&mut course, &[11], false);
            assert_eq!(course.failed_before(call(11)), attempt - 1);
            record(&mut course, &[11], &[(11, attempt, 60 * u64::from(attempt))]);
        }
        assert_eq!([10, 11, 12].map(|fact| course.failed_before(call(fact))), [1, 4, 0]);
    }

    #[test]
    fn what_was_resumed_begins_anew() {
        let mut course = course(&[(10, 1), (11, 2), (12, 3)]);
        assert_eq!(go(&mut course, NOW), [10, 11, 12]);
        end(&mut course, &[10, 11], false);
        // The first has used up its attempts.
        assert_eq!(record(&mut course, &[10, 11], &[(11, 1, 60)]), 10);
        course.begin_anew();
        let again: Vec<(u64, u32)> = std::iter::from_fn(|| course.has_next(NOW).then(|| course.next().unwrap()))
            .map(|next| (next.call.fact.0, next.attempt))
            .collect();
        assert_eq!(again, [(10, 1), (11, 1)]);
    }

    #[test]
    fn what_held_a_replay_up_still_does_after_a_start() {
        let mut course = Course::new(call(11), Some(held_up(11, 2, 60)));
        let found = |fact| Found { call: call(fact), delivery: None, body: Written::Forgotten };
        course.found(vec![found(11), found(12)], call(13), true);
        assert_eq!(go(&mut course, NOW), [12]);
        assert_eq!(course.next_try(), Some(later(60)));
        assert!(course.has_next(later(60)));
        let again = course.next().unwrap();
        assert_eq!((again.call, again.attempt), (call(11), 3));
    }

    #[test]
    fn what_held_a_replay_up_waits_also_behind_others_of_its_delivery() {
        let mut course = Course::new(call(10), Some(held_up(11, 2, 60)));
        let found = |fact| Found { call: call(fact), delivery: Some(DeliveryId(1)), body: Written::Forgotten };
        course.found(vec![found(10), found(11)], call(12), true);
        assert_eq!(go(&mut course, NOW), [10]);
        end(&mut course, &[10], true);
        assert_eq!(go(&mut course, later(59)), NOTHING);
        assert_eq!(go(&mut course, later(60)), [11]);
    }

    #[test]
    fn no_more_is_read_than_the_window_holds() {
        let mut course = Course::new(call(10), None);
        let mut from = 10;
        while let Some(at) = course.wants() {
            assert_eq!(at, call(from));
            let found = (from..from + 500).map(|n| Found {
                call: call(n),
                delivery: Some(DeliveryId(7)),
                body: Written::Forgotten,
            });
            from += 500;
            course.found(found.collect(), call(from), false);
        }
        assert_eq!(course.window.len(), WINDOW_MAX);
    }
}
