//! Reactor: calls endpoints with what happened to an account's mail, and records what came of it.
//!
//! Every endpoint has a task of its own with its own window, connections and results, so that one that is slow or hangs delays no
//! other. It holds no truth: a call is made until its outcome is on disk, so after a crash it is made again with the same id.

mod call;
pub mod client;
mod due;
mod endpoint;
pub mod metrics;
pub mod payload;
pub mod sign;
pub mod target;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postledger_events::id::{AccountName, EndpointName, Seq};
use postledger_events::{Event, Record};
use postledger_projections::calls;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use call::{Caller, TestError, Tested};
use endpoint::Endpoint;

/// How long to wait after the ledger could not be read before it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two looks at new records, however many are written meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(2);
/// The same as long as there is no endpoint: so late may the first one be noticed.
const IDLE_PAUSE: Duration = Duration::from_millis(100);
/// Records that are read at once to see whom they concern.
const RECORDS_MAX: usize = 4096;
/// Of records that may concern an endpoint: all begin so.
const KINDS: [&[u8]; 3] = [br#""kind":"Calls"#, br#""kind":"Endpoint"#, br#""kind":"Job"#];
/// Where a record's line has its kind: behind its number and time.
const KIND_WITHIN: usize = 128;

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
        woken: HashMap::new(),
        running: JoinSet::new(),
        tasks: HashMap::new(),
    };
    loop {
        if let Err(why) = reactor.round().await {
            tracing::error!("endpoints cannot be read: {why}");
        }
        reactor.caller.client.tidy();
        let pause = if reactor.woken.is_empty() { IDLE_PAUSE } else { LOOK_PAUSE };
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
    /// The endpoints whose tasks run, and what wakes them.
    woken: HashMap<Key, Arc<Notify>>,
    running: JoinSet<()>,
    tasks: HashMap<tokio::task::Id, Key>,
}

/// Whom some records concern.
#[derive(Default)]
struct Concerned {
    endpoints: Vec<Key>,
    /// Which endpoints there are, or whether they are called at all, may have changed.
    all: bool,
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
        let all = after == Seq(0) || self.woken.is_empty();
        let reading = tokio::task::spawn_blocking(move || {
            let concerned =
                if all { Concerned { all, ..Concerned::default() } } else { concerned(&rows, after, last)? };
            let endpoints =
                if concerned.all { calls::all_endpoints(&rows).map_err(|e| e.to_string())? } else { Vec::new() };
            Ok::<_, String>((concerned, endpoints))
        });
        let (concerned, endpoints) = reading.await.map_err(|e| e.to_string())??;
        self.seen = last;
        for key in endpoints.into_iter().map(|row| (row.account, row.endpoint)) {
            if !self.woken.contains_key(&key) {
                self.start(key);
            }
        }
        if concerned.all {
            self.woken.values().for_each(|woken| woken.notify_one());
        }
        for woken in concerned.endpoints.iter().filter_map(|key| self.woken.get(key)) {
            woken.notify_one();
        }
        Ok(())
    }

    fn start(&mut self, key: Key) {
        let woken = Arc::new(Notify::new());
        self.woken.insert(key.clone(), Arc::clone(&woken));
        let endpoint = Endpoint::new(Arc::clone(&self.caller), key.clone(), woken);
        let task = self.running.spawn(endpoint.run(self.stop_wait, self.stop.clone()));
        self.tasks.insert(task.id(), key);
    }

    /// The endpoint of the task is gone, or the task died; the next round starts one if there is an endpoint.
    fn ended(&mut self, ended: &Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match ended {
            Ok((id, ())) => *id,
            Err(e) => {
                tracing::error!("the task of an endpoint died: {e}");
                e.id()
            }
        };
        if let Some(key) = self.tasks.remove(&id) {
            self.woken.remove(&key);
        }
        self.seen = Seq(0);
    }
}

/// Whom the records behind `after` concern, up to `last`.
fn concerned(rows: &crate::ledger::Snapshot, after: Seq, last: Seq) -> Result<Concerned, String> {
    let mut found = Concerned::default();
    for (n, line) in rows.records(after.next()..=last).enumerate() {
        if n == RECORDS_MAX {
            return Ok(Concerned { all: true, ..found });
        }
        let (_, line) = line.map_err(|e| e.to_string())?;
        let head = &line[..line.len().min(KIND_WITHIN)];
        if !KINDS.iter().any(|kind| head.windows(kind.len()).any(|part| part == *kind)) {
            continue;
        }
        let record = Record::decode(&line).map_err(|e| e.to_string())?;
        match record.event {
            Event::CallsQueued(e) => {
                found.endpoints.extend(e.endpoints.into_iter().map(|of| (e.account.clone(), of.endpoint)));
            }
            Event::CallsCanceled(e) => found.endpoints.push((e.account, e.endpoint)),
            Event::CallsRetried(e) => found.endpoints.push((e.account, e.endpoint)),
            // Its own task wrote it.
            Event::CallsAttempted(_) => {}
            // Endpoints came, changed or went, or calls were put on hold by a job.
            _ => found.all = true,
        }
    }
    Ok(found)
}
