//! One endpoint: takes what is due, has it called within the endpoint's limits, and records what ended together in one record.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use postledger_events::Command;
use postledger_events::command::{FinishCalls, FinishedCall};
use postledger_events::fact::call::{CallRef, CallTexts};
use postledger_events::time::Timestamp;
use postledger_projections::calls::{self, Due, EndpointRow};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::call::{Caller, Ended};
use super::due::{Found, Ready, look, startable};
use super::pace::Pace;
use super::{Key, PAUSE, Shared};
use crate::ledger::SubmitError;

/// Results of one record.
pub(super) const RESULTS_MAX: usize = 1000;
/// With so many results that are not on disk, nothing more is called.
pub(super) const UNRECORDED_MAX: usize = 2000;
/// When fewer calls wait than this, the next round looks for more.
const READY_MIN: usize = 64;
/// The shortest wait for what is due next.
pub(super) const WAIT_MIN: Duration = Duration::from_millis(1);

pub(super) struct Endpoint {
    caller: Arc<Caller>,
    key: Key,
    woken: Arc<Notify>,
    /// Its settings may have changed.
    changed: Arc<Notify>,
    running: JoinSet<Option<Ended>>,
    tasks: HashMap<tokio::task::Id, Ready>,
    /// Due, and waiting for room.
    ready: VecDeque<Ready>,
    /// What is ready or running, or has ended and is not recorded.
    known: HashSet<CallRef>,
    /// What has ended and waits for its record.
    ended: Vec<Ended>,
    recording: JoinSet<Recorded>,
    /// Nothing in the index of due calls is before this.
    bound: Due,
    /// When the first call that is not due yet will be.
    next_due: Option<Timestamp>,
    /// The last look has seen all that is due.
    exhausted: bool,
    pace: Arc<Pace>,
    concurrency_max: usize,
    calls_per_second_max: Option<u32>,
}

/// What was written down, or could not be.
struct Recorded {
    results: Vec<Ended>,
    error: Option<SubmitError>,
}

impl Endpoint {
    pub(super) fn new(caller: Arc<Caller>, key: Key, shared: Shared) -> Endpoint {
        let Shared { woken, changed, pace } = shared;
        Endpoint {
            caller,
            key,
            woken,
            changed,
            running: JoinSet::new(),
            tasks: HashMap::new(),
            ready: VecDeque::new(),
            known: HashSet::new(),
            ended: Vec::new(),
            recording: JoinSet::new(),
            bound: Due::FIRST,
            next_due: None,
            exhausted: false,
            pace,
            concurrency_max: 0,
            calls_per_second_max: None,
        }
    }

    /// Runs until `stop`, or until the endpoint is no more.
    pub(super) async fn run(mut self, stop_wait: Duration, stop: CancellationToken) {
        loop {
            if self.caller.ledger.status().stopped.is_some() {
                // Nothing can be recorded any more, so nothing may leave.
                stop.cancelled().await;
                return;
            }
            if !self.exhausted && self.ready.len() < READY_MIN {
                match self.refill().await {
                    Ok(true) => {}
                    Ok(false) if self.known.is_empty() => return,
                    Ok(false) => {}
                    Err(why) => {
                        tracing::error!(account = %self.key.0, endpoint = %self.key.1, "due calls cannot be read: {why}");
                        self.next_due = None;
                        self.exhausted = true;
                    }
                }
            }
            self.start();
            self.record();
            let wait = self.wait();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.running.join_next_with_id(), if !self.running.is_empty() => self.take(ended),
                Some(recorded) = self.recording.join_next(), if !self.recording.is_empty() => self.recorded(recorded).await,
                () = self.woken.notified() => self.exhausted = false,
                () = self.changed.notified() => {
                    // The next look reads the settings, and finds again what was ready.
                    self.forget_ready();
                    self.exhausted = false;
                }
                () = sleep(wait) => self.exhausted = self.exhausted && self.next_due.is_some_and(|due| due > self.now()),
            }
        }
        self.stop(stop_wait).await;
    }

    /// What is under way may end; what does not is called again after the next start.
    async fn stop(mut self, stop_wait: Duration) {
        let deadline = sleep(stop_wait);
        tokio::pin!(deadline);
        loop {
            self.record();
            if self.running.is_empty() && self.recording.is_empty() {
                return;
            }
            tokio::select! {
                () = &mut deadline, if !self.running.is_empty() => self.running.abort_all(),
                Some(ended) = self.running.join_next_with_id(), if !self.running.is_empty() => self.take(ended),
                Some(recorded) = self.recording.join_next(), if !self.recording.is_empty() => {
                    let is_stopped = self.caller.ledger.status().stopped.is_some();
                    self.recorded(recorded).await;
                    if is_stopped {
                        return;
                    }
                }
            }
        }
    }

    fn now(&self) -> Timestamp {
        // IMPORTANT: a clock that is behind the log's time must not hide what is due at that time: the bound passes it by.
        self.caller.clock.now().max(self.caller.ledger.snapshot().at())
    }

    fn wait(&self) -> Duration {
        let now = self.now();
        let until = match self.startable() {
            None => self.next_due,
            Some(_) => Some(self.pace.next()),
        };
        until.map_or(PAUSE, |at| at.since(now)).clamp(WAIT_MIN, PAUSE)
    }

    /// Looks for what is due. `false`: there is no such endpoint.
    async fn refill(&mut self) -> Result<bool, String> {
        let (rows, now) = (self.caller.ledger.snapshot(), self.now());
        let (key, from, known) = (self.key.clone(), self.bound, self.known.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let Some(row) = calls::endpoint(&rows, &key.0, &key.1)? else { return Ok(None) };
            let found = look(&rows, &row, rows.at(), from, now, now + PAUSE, &known)?;
            Ok::<_, postledger_projections::Error>(Some((row, found)))
        });
        match looking.await.map_err(|e| e.to_string())?.map_err(|e| e.to_string())? {
            None => {
                self.forget_ready();
                self.exhausted = true;
                Ok(false)
            }
            Some((row, found)) => {
                self.found(&row, found);
                Ok(true)
            }
        }
    }

    fn found(&mut self, row: &EndpointRow, found: Found) {
        self.concurrency_max = usize::try_from(row.settings.concurrency_max).unwrap_or(1);
        self.calls_per_second_max = row.settings.calls_per_second_max;
        self.bound = found.bound;
        self.next_due = found.next_due;
        self.exhausted = !found.more || found.calls.is_empty();
        self.known.extend(found.calls.iter().map(|ready| ready.call));
        self.ready.extend(found.calls);
    }

    /// Which of what is ready may be started, but for rates.
    fn startable(&self) -> Option<usize> {
        let has_room = self.running.len() < self.concurrency_max;
        if has_room { startable(&self.ready, self.tasks.values()) } else { None }
    }

    /// Starts what is ready, as far as there is room.
    fn start(&mut self) {
        let now = self.now();
        while self.ended.len() < UNRECORDED_MAX
            && let Some(n) = self.startable()
            && self.pace.take(self.calls_per_second_max, now)
            && let Some(ready) = self.ready.remove(n)
        {
            let (caller, (account, endpoint)) = (Arc::clone(&self.caller), self.key.clone());
            let task = self.running.spawn(caller.call(account, endpoint, ready.call));
            self.tasks.insert(task.id(), ready);
        }
    }

    fn take(&mut self, ended: Result<(tokio::task::Id, Option<Ended>), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(e) => e.id(),
        };
        let task = self.tasks.remove(&id);
        match ended {
            Ok((_, Some(ended))) => return self.ended.push(ended),
            Ok((_, None)) => {}
            Err(e) if e.is_cancelled() => {}
            Err(e) => tracing::error!(account = %self.key.0, endpoint = %self.key.1, "a call's task died: {e}"),
        }
        // If it is still due, a later look finds it.
        if let Some(task) = task {
            self.known.remove(&task.call);
        }
    }

    /// Has all that ended meanwhile written down, in one record.
    fn record(&mut self) {
        if !self.recording.is_empty() || self.ended.is_empty() {
            return;
        }
        let results: Vec<Ended> = self.ended.drain(..self.ended.len().min(RESULTS_MAX)).collect();
        let (ledger, (account, endpoint)) = (self.caller.ledger.clone(), self.key.clone());
        self.recording.spawn(async move {
            let (finished, texts) = texts(&results);
            let command = FinishCalls { account, endpoint, results: finished, texts };
            let error = ledger.submit(Command::FinishCalls(command)).await.err();
            Recorded { results, error }
        });
    }

    async fn recorded(&mut self, recorded: Result<Recorded, JoinError>) {
        let Ok(Recorded { results, error }) = recorded else { return };
        match error {
            // Refused: none of them is open any more.
            None | Some(SubmitError::Refused(_)) => {}
            Some(e) => {
                tracing::error!(account = %self.key.0, endpoint = %self.key.1, "calls cannot be recorded: {e}");
                self.ended.splice(0..0, results);
                sleep(PAUSE).await;
                return;
            }
        }
        for ended in &results {
            self.known.remove(&ended.finished.call);
        }
        // The endpoint may be failing or disabled from now on; then what is ready has to wait.
        if results.iter().any(|ended| !ended.finished.reply.is_success()) {
            self.forget_ready();
        }
        self.exhausted = false;
    }

    fn forget_ready(&mut self) {
        for ready in self.ready.drain(..) {
            self.known.remove(&ready.call);
        }
    }
}

/// The results with their texts, each once.
pub(super) fn texts(results: &[Ended]) -> (Vec<FinishedCall>, CallTexts) {
    let mut texts = CallTexts::default();
    let finished = results.iter().map(|ended| {
        let mut finished = ended.finished;
        finished.response = ended.response.as_ref().map(|text| place(&mut texts.responses, text));
        finished.error = ended.error.as_ref().map(|text| place(&mut texts.errors, text));
        finished
    });
    (finished.collect(), texts)
}

fn place(texts: &mut Vec<String>, text: &str) -> u16 {
    let place = texts.iter().position(|known| known == text).unwrap_or_else(|| {
        texts.push(text.to_owned());
        texts.len() - 1
    });
    u16::try_from(place).expect("a record has at most a thousand results")
}
