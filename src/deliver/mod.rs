//! Reactor: takes what is due, groups what can share a transaction, has it tried, and records the outcome.
//!
//! It holds no truth. Kill it and start it again: it reads rows and carries on. What it finds running that it did not start
//! itself was left by a process or task that died, and is recorded as in doubt.

mod attempt;
pub mod due;
mod pool;
mod route;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use postledger_events::command::AbandonAttempt;
use postledger_events::id::{AttemptId, DeliveryId, MessageUuid, TransportName};
use postledger_events::time::Timestamp;
use postledger_projections::deliveries::Due;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::smtp::drive::Timeouts;
pub use attempt::Attempts;
use due::{Found, Group, look};
use pool::Pool;
pub use route::{Router, TlsRoots};

/// When fewer groups wait than this, the next round looks for more.
const READY_MIN: usize = 64;
/// Groups tried at once, over all next hops.
const GROUPS_MAX: usize = 200;
/// How long to wait after the ledger could not be read before it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// The shortest time between two looks for what is due, however many records are written meanwhile.
const LOOK_PAUSE: Duration = Duration::from_millis(3);
/// The shortest wait for what is due next.
const WAIT_MIN: Duration = Duration::from_millis(1);
/// How mail is delivered.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name we greet with.
    pub hostname: postledger_events::address::Domain,
    pub timeouts: Timeouts,
    pub roots: TlsRoots,
    /// How long running attempts may take to end after a stop was asked for.
    pub stop_wait: Duration,
}

/// Runs until `stop`; returns when the last attempt has been recorded.
pub async fn run(ledger: Ledger, clock: Clock, settings: Settings, stop: CancellationToken) {
    let pool = Arc::new(Pool::default());
    let attempts = Attempts::new(ledger.clone(), clock.clone(), &settings, Arc::clone(&pool));
    let mut reactor = Reactor {
        attempts: Arc::new(attempts),
        running: JoinSet::new(),
        tasks: HashMap::new(),
        ready: HashMap::new(),
        known: HashSet::new(),
        busy: HashMap::new(),
        bound: Due::FIRST,
        next_due: None,
        exhausted: false,
        ledger,
        clock,
        settings,
    };
    reactor.run(&stop).await;
    pool.close().await;
}

struct Reactor {
    ledger: Ledger,
    clock: Clock,
    settings: Settings,
    attempts: Arc<Attempts>,
    running: JoinSet<()>,
    tasks: HashMap<tokio::task::Id, Group>,
    /// Groups that wait for room, by transport.
    ready: HashMap<TransportName, VecDeque<Group>>,
    /// What is ready or running.
    known: HashSet<DeliveryId>,
    /// Groups running by transport.
    busy: HashMap<TransportName, u32>,
    /// Nothing in the index of due deliveries is before this.
    bound: Due,
    /// When the first delivery that is not due yet will be, if that is before the next look.
    next_due: Option<Timestamp>,
    /// The last round has seen all that is due.
    exhausted: bool,
}

impl Reactor {
    async fn run(&mut self, stop: &CancellationToken) {
        let mut log = self.ledger.watch();
        let mut looks = tokio::time::interval(LOOK_PAUSE);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if self.ledger.status().stopped.is_some() {
                // Nothing can be recorded any more, so nothing may leave.
                stop.cancelled().await;
                break;
            }
            self.start();
            let (wait, hungry) = (self.wait(), self.is_hungry());
            tokio::select! {
                () = stop.cancelled() => break,
                _ = looks.tick(), if hungry => {
                    log.mark_unchanged();
                    self.refill().await;
                }
                Some(ended) = self.running.join_next_with_id(), if !self.running.is_empty() => self.ended(ended).await,
                // What is written before the next look will be seen by it.
                changed = log.changed(), if !hungry => {
                    if changed.is_err() {
                        break;
                    }
                    self.exhausted = false;
                }
                () = tokio::time::sleep(wait) => self.exhausted = false,
            }
        }
        self.stop().await;
    }

    /// Waits for what runs, then cuts it off; either way it is recorded.
    async fn stop(&mut self) {
        self.ready.clear();
        self.attempts.stop_after(self.settings.stop_wait);
        while let Some(ended) = self.running.join_next_with_id().await {
            self.ended(ended).await;
        }
    }

    fn wait(&self) -> Duration {
        // With enough at hand, what else is due can wait.
        if self.ready_count() >= READY_MIN {
            return PAUSE;
        }
        let now = self.clock.now().max(self.ledger.snapshot().at());
        self.next_due.map_or(PAUSE, |at| at.since(now)).clamp(WAIT_MIN, PAUSE)
    }

    /// There may be something due, and there is room for it.
    fn is_hungry(&self) -> bool {
        !self.exhausted && self.ready_count() < READY_MIN
    }

    async fn refill(&mut self) {
        let snapshot = self.ledger.snapshot();
        // IMPORTANT: a clock that is behind the log's time must not hide what is due at that time: the bound passes it by.
        let now = self.clock.now().max(snapshot.at());
        let (from, known) = (self.bound, self.known.clone());
        let found =
            tokio::task::spawn_blocking(move || look(&snapshot, snapshot.at(), from, now, now + PAUSE, &known)).await;
        match found {
            Ok(Ok(found)) => self.take(found).await,
            Ok(Err(e)) => self.pause(&e.to_string()).await,
            Err(e) => self.pause(&e.to_string()).await,
        }
    }

    async fn pause(&mut self, why: &str) {
        tracing::error!("due deliveries cannot be read: {why}");
        self.exhausted = true;
        tokio::time::sleep(PAUSE).await;
    }

    async fn take(&mut self, found: Found) {
        self.bound = found.bound;
        self.ledger.found_first_due(found.bound.at);
        self.next_due = found.next_due;
        self.exhausted = !found.more;
        for group in found.groups {
            self.known.extend(&group.deliveries);
            self.ready.entry(group.transport.clone()).or_default().push_back(group);
        }
        for (message, attempt, deliveries) in found.abandoned {
            if self.ledger.status().stopped.is_some() {
                return;
            }
            self.abandon(message, attempt, deliveries).await;
        }
    }

    /// Starts what is ready, as far as there is room with its next hop. What waits is not touched: it may be much, and this is
    /// asked after every record.
    fn start(&mut self) {
        for (transport, ready) in &mut self.ready {
            let limit = self.attempts.connections_max(transport);
            let busy = self.busy.entry(transport.clone()).or_default();
            while *busy < limit
                && self.running.len() < GROUPS_MAX
                && let Some(group) = ready.pop_front()
            {
                *busy += 1;
                let attempts = Arc::clone(&self.attempts);
                let task = self.running.spawn({
                    let group = group.clone();
                    async move { attempts.run(group).await }
                });
                self.tasks.insert(task.id(), group);
            }
        }
        self.ready.retain(|_, ready| !ready.is_empty());
    }

    fn ready_count(&self) -> usize {
        self.ready.values().map(VecDeque::len).sum()
    }

    async fn ended(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        let id = match &ended {
            Ok((id, ())) => *id,
            Err(e) => e.id(),
        };
        let Some(group) = self.tasks.remove(&id) else { return };
        if let Some(busy) = self.busy.get_mut(&group.transport) {
            *busy = busy.saturating_sub(1);
        }
        for delivery in &group.deliveries {
            self.known.remove(delivery);
        }
        // The next round finds what it left running, and records that nobody knows how far it came.
        if let Err(e) = ended {
            tracing::error!(message = %group.message.message, "an attempt's task died: {e}");
        }
        self.exhausted = false;
    }

    async fn abandon(&mut self, message: MessageUuid, attempt: AttemptId, deliveries: Vec<DeliveryId>) {
        tracing::warn!(%message, %attempt, "the attempt was cut off; its outcome is in doubt");
        let command = AbandonAttempt { attempt, message, deliveries, jitter_s: self.clock.jitter_s() };
        if let Err(e) = self.ledger.submit(postledger_events::Command::AbandonAttempt(command)).await {
            tracing::error!(%message, %attempt, "the doubt cannot be recorded: {e}");
            tokio::time::sleep(PAUSE).await;
        }
    }
}
