//! One replay: tells an endpoint again of a part of history, or for the first time. Its calls have the names and bytes that they had
//! at first, and are made beside those that are queued, with as many at once again.
//!
//! It holds no truth: what was told is recorded together with how far all is done, and after a crash it goes on from there.

mod course;
mod walk;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use postledger_events::command::{AdvanceReplay, CallReply, DeferredCall, StopReplay};
use postledger_events::fact::call::CallRef;
use postledger_events::id::{Author, LedgerId, ReplayId, Seq};
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command};
use postledger_projections::accounts;
use postledger_projections::calls::{self, ReplayRow};
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::PAUSE;
use super::call::{Caller, Contact, Ended, Prepared, Unprepared, clip};
use super::endpoint::{RESULTS_MAX, UNRECORDED_MAX, WAIT_MIN, texts};
use super::pace::Pace;
use crate::ledger::{self, SubmitError};
use course::{Course, Next, Written};
use walk::{Piece, Wanted};

/// What has ended is recorded at least so often.
const RECORD_EVERY: Duration = Duration::from_secs(1);
const DISABLED: &str = "the endpoint is disabled; enable it, and resume the replay";

pub(super) struct Replay {
    caller: Arc<Caller>,
    id: ReplayId,
    woken: Arc<Notify>,
    /// Of all calls of the endpoint.
    endpoint_pace: Arc<Pace>,
    /// Of this replay's.
    own_pace: Pace,
    order: Arc<Order>,
    course: Course,
    /// The rows may say something new.
    is_stale: bool,
    walking: JoinSet<Result<Piece, walk::Error>>,
    running: JoinSet<Ended>,
    tasks: HashMap<tokio::task::Id, CallRef>,
    ended: Vec<Ended>,
    recording: JoinSet<Recorded>,
    /// When a record was written last, and its cursor.
    recorded: (Timestamp, CallRef),
    /// The record that resumed it last.
    resumed: Option<Seq>,
}

/// What is told to whom, as rows and vault had it at the last look.
struct Order {
    ledger: LedgerId,
    wanted: Wanted,
    /// Or why there can be no call.
    contact: Result<Arc<Contact>, String>,
    /// Whose connections are used.
    pool: String,
    /// Of the replay.
    calls_per_second_max: Option<u32>,
}

/// What the rows say of a replay.
enum Standing {
    Going(Box<(Order, ReplayRow)>),
    /// The endpoint is called no more.
    Disabled,
    /// The endpoint is going; somebody will say that the replay is over.
    Abandoned,
    /// It is stopped or over, or in doubt since a restore.
    Resting,
}

/// What was written down, or could not be.
struct Recorded {
    results: Vec<Ended>,
    cursor: CallRef,
    done: bool,
    /// What of it is tried again.
    said: Result<Vec<DeferredCall>, SubmitError>,
}

impl Replay {
    /// Runs until `stop`, or until the replay rests.
    pub(super) async fn run(
        caller: Arc<Caller>,
        id: ReplayId,
        woken: Arc<Notify>,
        pace: Arc<Pace>,
        stop_wait: Duration,
        stop: CancellationToken,
    ) {
        let Some((order, row)) = look(&caller, id).await else { return };
        let replay = Replay {
            recorded: (caller.clock.now(), row.cursor),
            resumed: row.resumed,
            caller,
            id,
            woken,
            endpoint_pace: pace,
            own_pace: Pace::new(),
            order: Arc::new(order),
            course: Course::new(row.cursor, row.trouble),
            is_stale: false,
            walking: JoinSet::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            ended: Vec::new(),
            recording: JoinSet::new(),
        };
        replay.go(stop_wait, stop).await;
    }

    async fn go(mut self, stop_wait: Duration, stop: CancellationToken) {
        loop {
            if self.caller.ledger.status().stopped.is_some() {
                // Nothing can be recorded any more, so nothing may leave.
                stop.cancelled().await;
                return;
            }
            if self.is_stale && !self.refresh().await {
                return;
            }
            self.walk();
            self.start();
            self.record();
            let wait = self.wait();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = self.running.join_next_with_id(), if !self.running.is_empty() => self.take(ended),
                Some(piece) = self.walking.join_next(), if !self.walking.is_empty() => self.walked(piece).await,
                Some(recorded) = self.recording.join_next(), if !self.recording.is_empty() => {
                    if !self.recorded(recorded).await {
                        return;
                    }
                }
                () = self.woken.notified() => self.is_stale = true,
                () = sleep(wait) => {}
            }
        }
        self.stop(stop_wait).await;
    }

    /// What is under way may end; what does not is called again after the next start.
    async fn stop(mut self, stop_wait: Duration) {
        let deadline = sleep(stop_wait);
        tokio::pin!(deadline);
        loop {
            if self.running.is_empty() && self.recording.is_empty() && !self.write_down() {
                return;
            }
            tokio::select! {
                () = &mut deadline, if !self.running.is_empty() => self.running.abort_all(),
                Some(ended) = self.running.join_next_with_id(), if !self.running.is_empty() => self.take(ended),
                Some(recorded) = self.recording.join_next(), if !self.recording.is_empty() => {
                    let is_stopped = self.caller.ledger.status().stopped.is_some();
                    if !self.recorded(recorded).await || is_stopped {
                        return;
                    }
                }
            }
        }
    }

    /// `false`: it does not go on.
    async fn refresh(&mut self) -> bool {
        let Some((order, row)) = look(&self.caller, self.id).await else { return false };
        self.order = Arc::new(order);
        if row.resumed != self.resumed {
            self.resumed = row.resumed;
            self.course.begin_anew();
        }
        self.is_stale = false;
        true
    }

    fn wait(&self) -> Duration {
        let now = self.caller.clock.now();
        // Without room the end of a call comes first.
        let has_room = self.running.len() < self.concurrency_max();
        let pace = self.course.is_ready().then(|| self.endpoint_pace.next().max(self.own_pace.next()));
        let until = [pace, self.course.next_try()].into_iter().flatten().min().filter(|_| has_room);
        until.map_or(PAUSE, |at| at.since(now)).clamp(WAIT_MIN, PAUSE)
    }

    fn concurrency_max(&self) -> usize {
        usize::try_from(self.order.wanted.settings.concurrency_max).unwrap_or(1)
    }

    /// Has the log read on, if more is wanted.
    fn walk(&mut self) {
        if !self.walking.is_empty() {
            return;
        }
        if let Some(from) = self.course.wants() {
            let (caller, order) = (Arc::clone(&self.caller), Arc::clone(&self.order));
            self.walking.spawn_blocking(move || order.wanted.piece(&caller, &caller.ledger.snapshot(), from));
        }
    }

    async fn walked(&mut self, piece: Result<Result<Piece, walk::Error>, JoinError>) {
        let why = match piece {
            Ok(Ok(Piece { found, next, is_last })) => return self.course.found(found, next, is_last),
            Ok(Err(e)) => e.to_string(),
            Err(e) => e.to_string(),
        };
        tracing::error!(replay = %self.id, "the log cannot be read for a replay: {why}");
        sleep(PAUSE).await;
    }

    /// Starts what may go, as far as there is room.
    fn start(&mut self) {
        let now = self.caller.clock.now();
        while !self.is_stale
            && self.running.len() < self.concurrency_max()
            && self.ended.len() < UNRECORDED_MAX
            && self.course.has_next(now)
            && self.has_place(now)
            && let Some(next) = self.course.next()
        {
            let (call, caller, order) = (next.call, Arc::clone(&self.caller), Arc::clone(&self.order));
            let task = self.running.spawn(tell(caller, order, next));
            self.tasks.insert(task.id(), call);
        }
    }

    /// Takes a place at both rates, or at none.
    fn has_place(&self, now: Timestamp) -> bool {
        let (endpoint, own) = (self.order.wanted.settings.calls_per_second_max, self.order.calls_per_second_max);
        (own.is_none() || self.own_pace.next() <= now)
            && self.endpoint_pace.take(endpoint, now)
            && self.own_pace.take(own, now)
    }

    fn take(&mut self, ended: Result<(tokio::task::Id, Ended), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(e) => e.id(),
        };
        let Some(call) = self.tasks.remove(&id) else { return };
        let ended = match ended {
            Ok((_, ended)) => ended,
            Err(e) if e.is_cancelled() => return,
            Err(e) => self.caller.not_made(call, CallReply::Unanswered, Some(format!("the call's task died: {e}"))),
        };
        self.course.ended(call, is_over(&ended));
        self.ended.push(ended);
    }

    /// Has what ended meanwhile written down, when it is time.
    fn record(&mut self) {
        let is_idle = self.running.is_empty() && self.walking.is_empty() && !self.course.is_ready();
        let is_time = self.caller.clock.now().since(self.recorded.0) >= RECORD_EVERY;
        let has_failed = self.ended.iter().any(|ended| !is_over(ended));
        if is_idle || is_time || has_failed || self.ended.len() >= RESULTS_MAX {
            self.write_down();
        }
    }

    /// Writes one record, with how far all is done. `false`: there is nothing to write.
    fn write_down(&mut self) -> bool {
        if !self.recording.is_empty() {
            return true;
        }
        let results: Vec<Ended> = self.ended.drain(..self.ended.len().min(RESULTS_MAX)).collect();
        let before = |ended: &Ended| (ended.finished.call, self.course.failed_before(ended.finished.call));
        let failed_before: BTreeMap<CallRef, u32> = results.iter().map(before).filter(|(_, n)| *n > 0).collect();
        self.course.recording(results.iter().map(|ended| ended.finished.call));
        let (cursor, done) = (self.course.cursor(), self.course.is_done());
        if results.is_empty() && cursor == self.recorded.1 && !done {
            return false;
        }
        let (ledger, replay) = (self.caller.ledger.clone(), self.id);
        self.recording.spawn(async move {
            let (finished, texts) = texts(&results);
            let command = AdvanceReplay { replay, cursor, results: finished, failed_before, texts, done };
            let said = ledger.submit(Command::AdvanceReplay(command)).await.map(|accepted| match accepted.answer {
                Answer::Deferred(deferred) => deferred,
                other => unreachable!("a replay that advances answers what is tried again, not {other:?}"),
            });
            Recorded { results, cursor, done, said }
        });
        true
    }

    /// `false`: it does not go on.
    async fn recorded(&mut self, recorded: Result<Recorded, JoinError>) -> bool {
        let Ok(Recorded { results, cursor, done, said }) = recorded else { return false };
        self.recorded.0 = self.caller.clock.now();
        let deferred = match said {
            Ok(deferred) => deferred,
            Err(SubmitError::Refused(why)) => {
                tracing::info!(replay = %self.id, "a replay rests: {why}");
                // Whatever the reason, it is not asked again and again.
                sleep(PAUSE).await;
                return false;
            }
            Err(e) => {
                tracing::error!(replay = %self.id, "calls of a replay cannot be recorded: {e}");
                self.ended.splice(0..0, results);
                sleep(PAUSE).await;
                return true;
            }
        };
        self.recorded.1 = cursor;
        self.course.recorded(results.iter().map(|ended| ended.finished.call), &deferred);
        // A failure may have stopped the replay.
        self.is_stale = self.is_stale || results.iter().any(|ended| !is_over(ended));
        !done
    }
}

/// Makes one call.
async fn tell(caller: Arc<Caller>, order: Arc<Order>, next: Next) -> Ended {
    let Next { call, attempt, body } = next;
    let unanswered = |why: &str| caller.not_made(call, CallReply::Unanswered, Some(clip(why)));
    let body = match body {
        Some(written) => written,
        None => {
            let (caller, order) = (Arc::clone(&caller), Arc::clone(&order));
            let written = tokio::task::spawn_blocking(move || order.wanted.written(&caller, call)).await;
            written.unwrap_or_else(|e| Written::Failed(e.to_string()))
        }
    };
    match (body, &order.contact) {
        (Written::Body(body), Ok(contact)) => {
            let name = order.wanted.name(order.ledger, call);
            let prepared = Prepared::new(Arc::clone(contact), &name, body, attempt);
            let made = caller.make(prepared, &order.pool).await;
            caller.ended(call, made)
        }
        (Written::Body(_), Err(why)) => unanswered(why),
        (Written::Failed(why), _) => unanswered(&why),
        (Written::Forgotten, _) => caller.not_made(call, CallReply::Forgotten, None),
    }
}

/// Whether the call need not be made again.
fn is_over(ended: &Ended) -> bool {
    ended.finished.reply.is_success() || ended.finished.reply == CallReply::Forgotten
}

/// What is to be told, and how far that is. `None`: the replay does not go on.
async fn look(caller: &Arc<Caller>, id: ReplayId) -> Option<(Order, ReplayRow)> {
    let reading = Arc::clone(caller);
    let standing = tokio::task::spawn_blocking(move || standing(&reading, id)).await;
    match standing.map_err(|e| e.to_string()).and_then(|read| read.map_err(|e| e.to_string())) {
        Ok(Standing::Going(going)) => return Some(*going),
        Ok(Standing::Resting) => {}
        Ok(Standing::Abandoned) => sleep(PAUSE).await,
        Ok(Standing::Disabled) => halt(caller, id).await,
        Err(why) => {
            tracing::error!(replay = %id, "a replay cannot be read: {why}");
            sleep(PAUSE).await;
        }
    }
    None
}

fn standing(caller: &Caller, id: ReplayId) -> Result<Standing, ledger::Error> {
    let rows = caller.ledger.snapshot();
    let branch = accounts::counters(&rows)?.branch;
    let Some(row) = calls::replay(&rows, id)?.filter(|row| row.may_go(branch)) else { return Ok(Standing::Resting) };
    let endpoint = calls::endpoint(&rows, &row.account, &row.endpoint)?;
    let Some(endpoint) = endpoint.filter(|endpoint| endpoint.removing.is_none()) else {
        return Ok(Standing::Abandoned);
    };
    if !calls::is_enabled(&endpoint, &calls::state(&rows, &row.account, &row.endpoint)?) {
        return Ok(Standing::Disabled);
    }
    let contact = caller.contact(&endpoint.settings).map(Arc::new).map_err(|e| match e {
        Unprepared::Failed(why) => why,
        Unprepared::Nothing | Unprepared::Forgotten => "a part of the endpoint's settings is gone".to_owned(),
    });
    let wanted = Wanted {
        account: row.account.clone(),
        endpoint: row.endpoint.clone(),
        settings: endpoint.settings,
        scope: row.scope.clone(),
    };
    let (pool, ledger) = (format!("{}/{}", row.account, row.endpoint), caller.ledger_id(&rows)?);
    let order = Order { ledger, wanted, contact, pool, calls_per_second_max: row.calls_per_second_max };
    Ok(Standing::Going(Box::new((order, row))))
}

/// Says that it cannot go on.
async fn halt(caller: &Caller, replay: ReplayId) {
    let command = StopReplay { replay, error: Some(DISABLED.to_owned()), by: Author::program() };
    if let Err(e) = caller.ledger.submit(Command::StopReplay(command)).await {
        tracing::error!(%replay, "a replay cannot be stopped: {e}");
        sleep(PAUSE).await;
    }
}
