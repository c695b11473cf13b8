//! Reactor: calls endpoints with what happened to an account's mail, and records what came of it.
//!
//! Every endpoint has a task of its own with its own window, connections and results, so that one that is slow or hangs delays no
//! other, and so has every replay. They hold no truth: a call is made until its outcome is on disk, so after a crash it is made
//! again with the same id.

mod call;
pub mod client;
mod due;
mod endpoint;
pub mod metrics;
mod pace;
pub mod payload;
mod replay;
pub mod sign;
pub mod target;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postledger_events::id::{AccountName, EndpointName, ReplayId, Seq};
use postledger_events::record::kind_of;
use postledger_events::{Event, Record};
use postledger_projections::accounts;
use postledger_projections::calls::{self, EndpointRow, ReplayRow};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::ledger::Snapshot;
pub use call::{Caller, TestError, Tested};
use endpoint::Endpoint;
use pace::Pace;
use replay::Replay;

/// How long to wait after the ledger could not be read before it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two looks at new records, however many are written meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// The same as long as there is no endpoint: so late may the first one be noticed.
const IDLE_PAUSE: Duration = Duration::from_millis(100);
/// Records that are read at once to see whom they concern.
const RECORDS_MAX: usize = 4096;
/// The kinds of records that may concern an endpoint or a replay. Results of calls are left out: who made them wrote them.
const KINDS: [&str; 14] = [
    "CallsQueued",
    "CallsCanceled",
    "CallsRetried",
    "CallsHeld",
    "EndpointConfigured",
    "EndpointDisabled",
    "EndpointRemoved",
    "JobStarted",
    "JobAdvanced",
    "JobFinished",
    "ReplayStarted",
    "ReplayStopped",
    "ReplayResumed",
    "ReplayEnded",
];

/// The account and name of an endpoint.
type Key = (AccountName, EndpointName);

/// Runs until `stop`; returns when the last call that was under way has been recorded, or `stop_wait` is over.
pub async fn run(caller: Arc<Caller>, stop_wait: Duration, stop: CancellationToken) {
    let mut log = caller.ledger.watch();
    let mut reactor = Reactor {
        caller,
        stop_wait,
        stop: stop.clone(),
        seen: Seq(0),
        endpoints: HashMap::new(),
        replays: HashMap::new(),
        running: JoinSet::new(),
        tasks: HashMap::new(),
    };
    loop {
        if let Err(why) = reactor.round().await {
            tracing::error!("endpoints cannot be read: {why}");
        }
        reactor.caller.client.tidy();
        let pause = if reactor.endpoints.is_empty() { IDLE_PAUSE } else { LOOK_PAUSE };
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = log.changed() => if changed.is_err() { break },
            Some(ended) = reactor.running.join_next_with_id(), if !reactor.running.is_empty() => reactor.ended(&ended),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    while reactor.running.join_next().await.is_some() {}
}

struct Reactor {
    caller: Arc<Caller>,
    stop_wait: Duration,
    stop: CancellationToken,
    /// All records to this one were looked at; 0: the endpoints themselves have to be looked at.
    seen: Seq,
    /// Those whose tasks run.
    endpoints: HashMap<Key, Shared>,
    /// The same, with what wakes them.
    replays: HashMap<ReplayId, Arc<Notify>>,
    running: JoinSet<()>,
    tasks: HashMap<tokio::task::Id, Task>,
}

/// What the task of an endpoint shares.
#[derive(Clone)]
struct Shared {
    /// Notified when calls may be due.
    woken: Arc<Notify>,
    /// Notified when its settings may have changed.
    changed: Arc<Notify>,
    pace: Arc<Pace>,
}

enum Task {
    Endpoint(Key),
    Replay(ReplayId),
}

/// Whom some records concern.
#[derive(Default)]
struct Concerned {
    endpoints: Vec<Key>,
    /// These have other settings.
    changed: Vec<Key>,
    replays: bool,
    /// Which endpoints there are, or whether they are called at all, may have changed.
    all: bool,
    /// Not all records were looked at, so any of them may have other settings.
    unread: bool,
}

/// What the rows have that tasks are needed for.
#[derive(Default)]
struct Wanted {
    endpoints: Vec<EndpointRow>,
    replays: Vec<ReplayRow>,
}

impl Reactor {
    /// Wakes those whom the records since the last round concern. One task runs for each endpoint.
    async fn round(&mut self) -> Result<(), String> {
        let rows = self.caller.ledger.snapshot();
        let (after, last) = (self.seen, rows.position());
        if last <= after {
            return Ok(());
        }
        // At the start everything may be due; without endpoints no record concerns one.
        let all = after == Seq(0) || self.endpoints.is_empty();
        let reading = tokio::task::spawn_blocking(move || {
            let concerned = if all {
                Concerned { all, unread: true, ..Concerned::default() }
            } else {
                concerned(&rows, after, last)?
            };
            let wanted = wanted(&rows, &concerned).map_err(|e| e.to_string())?;
            Ok::<_, String>((concerned, wanted))
        });
        let (concerned, wanted) = reading.await.map_err(|e| e.to_string())??;
        self.seen = last;
        for row in wanted.endpoints {
            self.start((row.account, row.endpoint));
        }
        for row in wanted.replays {
            self.start_replay(row.replay, &(row.account, row.endpoint));
        }
        if concerned.all {
            self.endpoints.values().for_each(|shared| shared.woken.notify_one());
        }
        for (key, shared) in &self.endpoints {
            if concerned.unread || concerned.changed.contains(key) {
                shared.changed.notify_one();
            }
        }
        if concerned.all || concerned.replays {
            self.replays.values().for_each(|woken| woken.notify_one());
        }
        for shared in concerned.endpoints.iter().filter_map(|key| self.endpoints.get(key)) {
            shared.woken.notify_one();
        }
        Ok(())
    }

    fn start(&mut self, key: Key) {
        if self.endpoints.contains_key(&key) {
            return;
        }
        let shared = Shared { woken: Arc::default(), changed: Arc::default(), pace: Arc::new(Pace::new()) };
        let endpoint = Endpoint::new(Arc::clone(&self.caller), key.clone(), shared.clone());
        self.endpoints.insert(key.clone(), shared);
        let task = self.running.spawn(endpoint.run(self.stop_wait, self.stop.clone()));
        self.tasks.insert(task.id(), Task::Endpoint(key));
    }

    fn start_replay(&mut self, id: ReplayId, of: &Key) {
        let Some(pace) = self.endpoints.get(of).map(|shared| Arc::clone(&shared.pace)) else { return };
        if self.replays.contains_key(&id) {
            return;
        }
        let woken = Arc::new(Notify::new());
        self.replays.insert(id, Arc::clone(&woken));
        let (caller, stop) = (Arc::clone(&self.caller), self.stop.clone());
        let task = self.running.spawn(Replay::run(caller, id, woken, pace, self.stop_wait, stop));
        self.tasks.insert(task.id(), Task::Replay(id));
    }

    /// What the task was for is gone or rests, or the task died; the next round starts one if there is a need.
    fn ended(&mut self, ended: &Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(e) => {
                tracing::error!("the task of an endpoint or a replay died: {e}");
                e.id()
            }
        };
        match self.tasks.remove(&id) {
            Some(Task::Endpoint(key)) => drop(self.endpoints.remove(&key)),
            Some(Task::Replay(id)) => drop(self.replays.remove(&id)),
            None => {}
        }
        self.seen = Seq(0);
    }
}

/// What there is of those that are concerned.
fn wanted(rows: &Snapshot, concerned: &Concerned) -> Result<Wanted, postledger_projections::Error> {
    let mut wanted = Wanted::default();
    if concerned.all {
        wanted.endpoints = calls::all_endpoints(rows)?;
    }
    if concerned.all || concerned.replays {
        let branch = accounts::counters(rows)?.branch;
        wanted.replays = calls::open_replays(rows)?;
        wanted.replays.retain(|replay| replay.may_go(branch));
    }
    Ok(wanted)
}

/// Whom the records behind `after` concern, up to `last`.
fn concerned(rows: &Snapshot, after: Seq, last: Seq) -> Result<Concerned, String> {
    let mut found = Concerned::default();
    for (n, line) in rows.records(after.next()..=last).enumerate() {
        if n == RECORDS_MAX {
            return Ok(Concerned { all: true, unread: true, ..found });
        }
        let (_, line) = line.map_err(|e| e.to_string())?;
        if !kind_of(&line).is_some_and(|kind| KINDS.contains(&kind)) {
            continue;
        }
        let record = Record::decode(&line).map_err(|e| e.to_string())?;
        found.add(record.event);
    }
    Ok(found)
}

impl Concerned {
    fn add(&mut self, event: Event) {
        match event {
            Event::CallsQueued(e) => {
                self.endpoints.extend(e.endpoints.into_iter().map(|of| (e.account.clone(), of.endpoint)));
            }
            Event::CallsCanceled(e) => self.endpoints.push((e.account, e.endpoint)),
            Event::CallsRetried(e) => self.endpoints.push((e.account, e.endpoint)),
            Event::ReplayStarted(_) | Event::ReplayStopped(_) | Event::ReplayResumed(_) | Event::ReplayEnded(_) => {
                self.replays = true;
            }
            Event::EndpointConfigured(e) => {
                self.changed.push((e.account, e.endpoint));
                self.all = true;
            }
            // Endpoints came or went, or calls were put on hold by a job.
            Event::EndpointDisabled(_)
            | Event::EndpointRemoved(_)
            | Event::CallsHeld(_)
            | Event::JobStarted(_)
            | Event::JobAdvanced(_)
            | Event::JobFinished(_) => self.all = true,
            Event::CallsAttempted(_)
            | Event::TestCallMade(_)
            | Event::ReplayAdvanced(_)
            | Event::LedgerCreated(_)
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
            | Event::Delivered(_)
            | Event::AttemptDeferred(_)
            | Event::DeliveryFailed(_)
            | Event::AttemptInDoubt(_)
            | Event::DeliverySuppressed(_)
            | Event::DeliveryCanceled(_)
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
            | Event::KeyAdded(_)
            | Event::KeyRevoked(_)
            | Event::KeyUsed(_)
            | Event::CursorSet(_)
            | Event::CursorRemoved(_)
            | Event::Expired(_) => {}
        }
    }
}
