//! Endpoints, the calls they get, and replays. A call has one row from its queueing until its keep period is over.
//!
//! Open calls of an endpoint about one delivery are a *lane*: linked in the order of the ledger, and only the first is due.
//!
//! Keys: `e` endpoints of an account, `s` how an endpoint does, `c` call, `n` first waiting calls of the lanes by due time, `h` on
//! hold, `l` last call of a lane, `x` ended calls by end of keep period, `p` open replay, `q` replay that is over.

use std::collections::BTreeMap;
use std::time::Duration;

use postledger_events::fact::call::{
    CallAbout, CallFailure, CallOutcome, CallRef, CallResult, CallTexts, CallsAttempted, CallsQueued, Canceling,
};
use postledger_events::fact::endpoint::{Disabling, EndpointConfigured, EndpointSettings};
use postledger_events::fact::job::{CallPhase, Work};
use postledger_events::fact::replay::{ReplayAdvanced, ReplayEnd, ReplayScope, ReplayStarted};
use postledger_events::id::{AccountName, Author, DeliveryId, EndpointName, JobId, MessageUuid, ReplayId, Seq};
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use serde::{Deserialize, Serialize};

use crate::accounts::is_restored;
use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, end_of, key, parse, read, read_all, write};

const TABLE: Table = Table::Calls;
/// Failures in a row after which an endpoint is failing, if they are spread over as much time as below.
pub const FAILURES_MAX: u32 = 10;
pub const FAILURES_SPREAD: Duration = Duration::from_secs(600);
/// Records of attempts that a call remembers: more than the longest schedule of the contract has.
const RECORDS_MAX: usize = 32;
/// Accounts whose endpoints are read at once, and open replays.
const PART: usize = 1_000;

/// An endpoint as the last edit left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRow {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub settings: EndpointSettings,
    pub created: Timestamp,
    /// It is being removed by this job: it is told of nothing any more.
    pub removing: Option<JobId>,
}

/// How an endpoint does since its last edit; where the program has disabled it, since the last one that let it be called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointState {
    /// Of its last edit.
    pub configured: Timestamp,
    /// Calls in a row that failed.
    pub failures: u32,
    /// When the first of these failed.
    pub since: Option<Timestamp>,
    /// When it was found failing: from then on only probes are made.
    pub failing: Option<Timestamp>,
    /// Probes that failed since.
    pub probes: u32,
    /// When the next probe is due; `None`: at once.
    pub next_probe: Option<Timestamp>,
    /// By the program.
    pub disabled: Option<Disabled>,
}

/// Why the program calls an endpoint no more, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    pub why: Disabling,
    pub at: Timestamp,
}

impl EndpointState {
    /// Takes in a result that a record of this time tells.
    pub fn take(&mut self, result: &CallResult, at: Timestamp) {
        match result.outcome {
            // Nothing was sent.
            CallOutcome::Failed(CallFailure::Forgotten) => {}
            // A call that was on its way when the endpoint was disabled does not enable it.
            CallOutcome::Delivered => {
                let EndpointState { configured, disabled, .. } = *self;
                *self = EndpointState { configured, disabled, ..EndpointState::default() };
            }
            CallOutcome::Deferred(next) => {
                self.fail(at);
                if result.probe {
                    self.probes = self.probes.saturating_add(1);
                    self.next_probe = Some(next);
                }
            }
            CallOutcome::Failed(CallFailure::Exhausted | CallFailure::Gone) => self.fail(at),
        }
    }

    fn fail(&mut self, at: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        let since = *self.since.get_or_insert(at);
        if self.failures >= FAILURES_MAX && at.since(since) >= FAILURES_SPREAD {
            self.failing.get_or_insert(at);
        }
    }
}

/// Whether an endpoint is called at all.
pub fn is_enabled(row: &EndpointRow, state: &EndpointState) -> bool {
    !row.settings.disabled && state.disabled.is_none() && row.removing.is_none()
}

/// Where a call is. Exactly one of these at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallState {
    Waiting,
    /// Since the ledger was restored.
    Held,
    Delivered,
    Failed(CallFailure),
    Canceled(Canceling),
}

impl CallState {
    pub fn phase(self) -> CallPhase {
        match self {
            CallState::Waiting => CallPhase::Waiting,
            CallState::Held => CallPhase::Held,
            CallState::Delivered => CallPhase::Delivered,
            CallState::Failed(_) => CallPhase::Failed,
            CallState::Canceled(_) => CallPhase::Canceled,
        }
    }

    /// It may still be made.
    pub fn is_open(self) -> bool {
        match self {
            CallState::Waiting | CallState::Held => true,
            CallState::Delivered | CallState::Failed(_) | CallState::Canceled(_) => false,
        }
    }
}

/// An endpoint is told of one fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallRow {
    pub call: CallRef,
    pub about: CallAbout,
    pub message: MessageUuid,
    /// Of the form of its body.
    pub version: u16,
    pub queued: Timestamp,
    pub state: CallState,
    /// When it is due, as soon as it is the first of its lane.
    pub due: Timestamp,
    /// Attempts that were used up since it was queued or retried last.
    pub attempts: u32,
    pub last: Option<LastAttempt>,
    /// The last records that tell of attempts.
    pub records: Vec<Seq>,
    /// The record that made it due at once or released it last.
    pub retried: Option<Seq>,
    pub keep_s: u64,
    /// The record that ended it, and how long it is listed.
    pub ended: Option<Ended>,
    /// The calls before and after it in its lane.
    pub earlier: Option<CallRef>,
    pub later: Option<CallRef>,
}

impl CallRow {
    /// Whether it may be made if it is due, where `branch` is the last record that branched the ledger.
    pub fn may_go(&self, branch: Seq) -> bool {
        self.state == CallState::Waiting && self.earlier.is_none() && !self.is_in_doubt(branch)
    }

    /// Another branch of the ledger may have made it, and nobody released it since.
    pub fn is_in_doubt(&self, branch: Seq) -> bool {
        is_restored(branch, self.call.fact, self.retried)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    pub seq: Seq,
    pub keep_until: Timestamp,
}

/// How the last attempt of a call went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastAttempt {
    pub attempt: u32,
    pub started: Timestamp,
    pub took_us: u64,
    /// Of the response; 0 if there was none.
    pub status: u16,
    /// `None` if there was none, or it was forgotten.
    pub response: Option<String>,
    pub error: Option<String>,
}

/// Ended calls of one endpoint whose keep period is over together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    pub keep_until: Timestamp,
    /// The record that ended them.
    pub ended: Seq,
    pub account: AccountName,
    pub endpoint: EndpointName,
    /// Some may have been retried since.
    pub calls: Vec<CallRef>,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplayState {
    Running,
    Stopped,
    Ended(ReplayEnd),
}

/// A part of history that is told again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayRow {
    pub replay: ReplayId,
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub scope: ReplayScope,
    pub calls_per_second_max: Option<u32>,
    pub by: Author,
    pub started: Timestamp,
    pub last_activity: Timestamp,
    pub state: ReplayState,
    /// All before this is done.
    pub cursor: CallRef,
    pub delivered: u64,
    /// Calls that could not be made, since what they would tell was forgotten.
    pub forgotten: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// What it is held up by.
    pub trouble: Option<Trouble>,
    /// Why the program stopped it.
    pub error: Option<String>,
    /// The record that resumed it last.
    pub resumed: Option<Seq>,
}

impl ReplayRow {
    /// Whether it goes on, where `branch` is the last record that branched the ledger.
    pub fn may_go(&self, branch: Seq) -> bool {
        self.state == ReplayState::Running && !is_restored(branch, Seq(self.replay.0), self.resumed)
    }
}

/// The first call of a replay that failed and is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub call: CallRef,
    pub last: LastAttempt,
    pub next: Timestamp,
}

/// The endpoints of an account.
pub fn endpoints(rows: &(impl Rows + ?Sized), account: &AccountName) -> Result<Vec<EndpointRow>, Error> {
    Ok(read(rows, TABLE, &endpoints_key(account))?.unwrap_or_default())
}

/// The endpoints of all accounts.
pub fn all_endpoints(rows: &(impl Rows + ?Sized)) -> Result<Vec<EndpointRow>, Error> {
    let of_accounts: Vec<Vec<EndpointRow>> = read_all(rows, TABLE, b"e", PART)?;
    Ok(of_accounts.into_iter().flatten().collect())
}

pub fn endpoint(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    endpoint: &EndpointName,
) -> Result<Option<EndpointRow>, Error> {
    Ok(endpoints(rows, account)?.into_iter().find(|row| row.endpoint == *endpoint))
}

pub fn state(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    endpoint: &EndpointName,
) -> Result<EndpointState, Error> {
    Ok(read(rows, TABLE, &Of { account, endpoint }.key(b's', &[]))?.unwrap_or_default())
}

pub fn call(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    endpoint: &EndpointName,
    call: CallRef,
) -> Result<Option<CallRow>, Error> {
    Of { account, endpoint }.call(rows, call)
}

/// The first and the last name that a call can have.
pub const FIRST: CallRef = CallRef { fact: Seq(0), place: 0 };
pub const LAST: CallRef = CallRef { fact: Seq(u64::MAX), place: u16::MAX };

/// The name after this one.
pub fn after(call: CallRef) -> CallRef {
    match call.place.checked_add(1) {
        Some(place) => CallRef { place, ..call },
        None => CallRef { fact: call.fact.next(), place: 0 },
    }
}

/// Calls of an endpoint in every state, from `from` to before `before`, in the order of the ledger or against it.
pub fn list(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    endpoint: &EndpointName,
    (from, before): (CallRef, CallRef),
    order: Order,
    limit: usize,
) -> Result<Vec<CallRow>, Error> {
    let of = Of { account, endpoint };
    let (start, end) = (of.call_key(b'c', from), of.call_key(b'c', before));
    let found = rows.scan(TABLE, &start, &end, order, limit)?;
    found.iter().map(|(_, value)| parse(TABLE, value)).collect()
}

/// A place in the order of due times of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub at: Timestamp,
    pub call: CallRef,
}

impl Due {
    pub const FIRST: Due = Due { at: Timestamp::EPOCH, call: FIRST };

    /// Where a reader goes on for whom this is the first entry. Others come in at the time of their record or later, but of that
    /// time they may stand anywhere: a call that was held back by another has a lower name than one that is new.
    pub fn bound(self) -> Due {
        Due { at: self.at, call: FIRST }
    }

    /// The place right behind this one, for a walk in parts.
    pub fn after(self) -> Due {
        Due { at: self.at, call: after(self.call) }
    }
}

/// The first waiting calls of the lanes of an endpoint in the order of their due times: from `from` on, due at `until` or before.
pub fn due(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    endpoint: &EndpointName,
    from: Due,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Due>, Error> {
    let of = Of { account, endpoint };
    let (start, end) = (of.due_key(from), end_of(&of.key(b'n', &until.to_key())));
    let found = rows.scan(TABLE, &start, &end, Order::Ascending, limit)?;
    let parsed = found.iter().filter_map(|(k, _)| {
        let (at, call) = k.split_at_checked(k.len().checked_sub(18)?)?.1.split_at(8);
        Some(Due { at: Timestamp::from_key(at.try_into().ok()?), call: parse_call(call)? })
    });
    Ok(parsed.collect())
}

/// Calls of an endpoint that are on hold, from `from` on.
pub fn held(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    endpoint: &EndpointName,
    from: CallRef,
    limit: usize,
) -> Result<Vec<CallRef>, Error> {
    let of = Of { account, endpoint };
    let found = rows.scan(TABLE, &of.call_key(b'h', from), &end_of(&of.key(b'h', &[])), Order::Ascending, limit)?;
    Ok(found.iter().filter_map(|(k, _)| parse_call(k.split_at_checked(k.len().checked_sub(10)?)?.1)).collect())
}

/// The open calls of an endpoint about a delivery, in the order of the ledger.
pub fn lane(
    rows: &(impl Rows + ?Sized),
    account: &AccountName,
    endpoint: &EndpointName,
    delivery: DeliveryId,
) -> Result<Vec<CallRow>, Error> {
    let of = Of { account, endpoint };
    let mut next: Option<CallRef> = read(rows, TABLE, &of.lane_key(delivery))?;
    let mut lane = Vec::new();
    while let Some(call) = next {
        let Some(row) = of.call(rows, call)? else { break };
        next = row.earlier;
        lane.push(row);
    }
    lane.reverse();
    Ok(lane)
}

/// Ended calls whose keep period ends from `from` to `until`, soonest first.
pub fn expiring(
    rows: &(impl Rows + ?Sized),
    from: Timestamp,
    until: Timestamp,
    limit: usize,
) -> Result<Vec<Expiring>, Error> {
    let (start, end) = (key(&[b"x", &from.to_key()]), end_of(&key(&[b"x", &until.to_key()])));
    let found = rows.scan(TABLE, &start, &end, Order::Ascending, limit)?;
    let parsed = found.iter().map(|(k, value)| {
        let (account, endpoint, calls) = parse(TABLE, value)?;
        let at = |from: usize| k.get(from..from + 8).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default();
        let (keep_until, ended) = (Timestamp::from_key(at(1)), Seq(u64::from_be_bytes(at(9))));
        Ok(Expiring { keep_until, ended, account, endpoint, calls })
    });
    parsed.collect()
}

/// A replay, open or over.
pub fn replay(rows: &(impl Rows + ?Sized), replay: ReplayId) -> Result<Option<ReplayRow>, Error> {
    match read(rows, TABLE, &replay_key(b"p", replay))? {
        Some(row) => Ok(Some(row)),
        None => read(rows, TABLE, &replay_key(b"q", replay)),
    }
}

/// The replays that are not over, oldest first.
pub fn open_replays(rows: &(impl Rows + ?Sized)) -> Result<Vec<ReplayRow>, Error> {
    read_all(rows, TABLE, b"p", PART)
}

/// Replays that are over, with numbers below `before`, newest first.
pub fn ended_replays(rows: &(impl Rows + ?Sized), before: ReplayId, limit: usize) -> Result<Vec<ReplayRow>, Error> {
    let found = rows.scan(TABLE, b"q", &replay_key(b"q", before), Order::Descending, limit)?;
    found.iter().map(|(_, value)| parse(TABLE, value)).collect()
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    match &record.event {
        Event::EndpointConfigured(e) => configured(record, e, rows)?,
        Event::EndpointDisabled(e) => {
            let of = Of { account: &e.account, endpoint: &e.endpoint };
            let mut state = state(rows, of.account, of.endpoint)?;
            state.disabled = Some(Disabled { why: e.why, at: record.at });
            write(rows, TABLE, of.key(b's', &[]), &state);
        }
        Event::EndpointRemoved(e) => {
            let mut left = endpoints(rows, &e.account)?;
            left.retain(|row| row.endpoint != e.endpoint);
            put_endpoints(rows, &e.account, &left);
            rows.remove(TABLE, Of { account: &e.account, endpoint: &e.endpoint }.key(b's', &[]));
        }
        Event::JobStarted(e) => match &e.work {
            Work::RemoveAccount(account) => remove(rows, account, |_| true, e.job)?,
            Work::RemoveEndpoint(account, endpoint) => remove(rows, account, |row| row.endpoint == *endpoint, e.job)?,
            Work::ApplyHoldRule(..) | Work::HoldRestored(_) | Work::Queue(..) | Work::Calls(..) => {}
        },
        Event::CallsQueued(e) => queued(record, e, rows)?,
        Event::CallsAttempted(e) => attempted(record, e, rows)?,
        Event::CallsCanceled(e) => {
            let of = Of { account: &e.account, endpoint: &e.endpoint };
            let mut ending = Ending::new(of, record);
            for call in &e.calls {
                ending.end(rows, *call, CallState::Canceled(e.why))?;
            }
            ending.file(rows);
        }
        Event::CallsRetried(e) => {
            let of = Of { account: &e.account, endpoint: &e.endpoint };
            for call in &e.calls {
                retry(rows, of, *call, record)?;
            }
        }
        Event::CallsHeld(e) => {
            let of = Of { account: &e.account, endpoint: &e.endpoint };
            for call in &e.calls {
                of.change(rows, *call, |row| row.state = CallState::Held)?;
            }
        }
        Event::ReplayStarted(e) => {
            write(rows, TABLE, replay_key(b"p", e.replay), &new_replay(record, e));
        }
        Event::ReplayAdvanced(e) => advanced(record, e, rows)?,
        Event::ReplayStopped(e) => change_replay(rows, record, e.replay, |row| {
            row.state = ReplayState::Stopped;
            row.error = e.error.clone();
        })?,
        Event::ReplayResumed(e) => change_replay(rows, record, e.replay, |row| {
            row.state = ReplayState::Running;
            row.resumed = Some(record.seq);
            (row.error, row.trouble) = (None, None);
        })?,
        Event::ReplayEnded(e) => {
            if let Some(mut row) = read::<ReplayRow>(rows, TABLE, &replay_key(b"p", e.replay))? {
                (row.state, row.last_activity) = (ReplayState::Ended(e.end), record.at);
                rows.remove(TABLE, replay_key(b"p", e.replay));
                write(rows, TABLE, replay_key(b"q", e.replay), &row);
            }
        }
        Event::Expired(e) => {
            for group in &e.calls {
                let of = Of { account: &group.account, endpoint: &group.endpoint };
                for call in &group.calls {
                    rows.remove(TABLE, of.call_key(b'c', *call));
                }
                rows.remove(TABLE, expiry_key(group.keep_until, group.ended));
            }
        }
        Event::LedgerCreated(_)
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
        | Event::JobAdvanced(_)
        | Event::JobFinished(_)
        | Event::TestCallMade(_)
        | Event::KeyAdded(_)
        | Event::KeyRevoked(_)
        | Event::KeyUsed(_)
        | Event::CursorSet(_)
        | Event::CursorRemoved(_) => {}
    }
    Ok(())
}

fn configured(record: &Record, e: &EndpointConfigured, rows: &mut dyn RowsMut) -> Result<(), Error> {
    let mut all = endpoints(rows, &e.account)?;
    match all.iter_mut().find(|row| row.endpoint == e.endpoint) {
        Some(row) => row.settings = e.settings.clone(),
        None => all.push(EndpointRow {
            account: e.account.clone(),
            endpoint: e.endpoint.clone(),
            settings: e.settings.clone(),
            created: record.at,
            removing: None,
        }),
    }
    put_endpoints(rows, &e.account, &all);
    let before = if e.stays_disabled { state(rows, &e.account, &e.endpoint)? } else { EndpointState::default() };
    let after = EndpointState { configured: record.at, ..before };
    write(rows, TABLE, Of { account: &e.account, endpoint: &e.endpoint }.key(b's', &[]), &after);
    Ok(())
}

fn put_endpoints(rows: &mut dyn RowsMut, account: &AccountName, list: &[EndpointRow]) {
    if list.is_empty() {
        rows.remove(TABLE, endpoints_key(account));
    } else {
        write(rows, TABLE, endpoints_key(account), &list);
    }
}

fn remove(
    rows: &mut dyn RowsMut,
    account: &AccountName,
    which: impl Fn(&EndpointRow) -> bool,
    job: JobId,
) -> Result<(), Error> {
    let mut all = endpoints(rows, account)?;
    if all.is_empty() {
        return Ok(());
    }
    all.iter_mut().filter(|row| which(row)).for_each(|row| row.removing = Some(job));
    put_endpoints(rows, account, &all);
    Ok(())
}

fn queued(record: &Record, e: &CallsQueued, rows: &mut dyn RowsMut) -> Result<(), Error> {
    for to in &e.endpoints {
        let of = Of { account: &e.account, endpoint: &to.endpoint };
        for queued in &to.calls {
            let row = CallRow {
                call: CallRef { fact: e.fact, place: queued.place },
                about: queued.about,
                message: e.message,
                version: to.version,
                queued: record.at,
                state: CallState::Waiting,
                due: record.at,
                attempts: 0,
                last: None,
                records: Vec::new(),
                retried: None,
                keep_s: to.keep_s,
                ended: None,
                earlier: None,
                later: None,
            };
            of.enter(rows, row)?;
        }
    }
    Ok(())
}

fn attempted(record: &Record, e: &CallsAttempted, rows: &mut dyn RowsMut) -> Result<(), Error> {
    let of = Of { account: &e.account, endpoint: &e.endpoint };
    let before = state(rows, of.account, of.endpoint)?;
    let mut after = before.clone();
    let mut ending = Ending::new(of, record);
    for result in &e.results {
        after.take(result, record.at);
        of.change(rows, result.call, |row| note(row, result, e.personal.as_ref(), record.seq))?;
        match result.outcome {
            CallOutcome::Deferred(next) if !result.probe => of.change(rows, result.call, |row| {
                (row.due, row.attempts) = (next, result.attempt);
            })?,
            CallOutcome::Deferred(_) => {}
            CallOutcome::Delivered => ending.deliver(rows, result.call)?,
            CallOutcome::Failed(why) => ending.end(rows, result.call, CallState::Failed(why))?,
        }
    }
    ending.file(rows);
    if after != before {
        write(rows, TABLE, of.key(b's', &[]), &after);
    }
    Ok(())
}

fn note(row: &mut CallRow, result: &CallResult, texts: Option<&CallTexts>, seq: Seq) {
    row.last = Some(last_attempt(result, texts));
    if row.records.len() == RECORDS_MAX {
        row.records.remove(0);
    }
    row.records.push(seq);
}

fn last_attempt(result: &CallResult, texts: Option<&CallTexts>) -> LastAttempt {
    let text = |list: fn(&CallTexts) -> &Vec<String>, n: Option<u16>| {
        texts.and_then(|texts| list(texts).get(usize::from(n?))).cloned()
    };
    LastAttempt {
        attempt: result.attempt,
        started: result.started,
        took_us: result.took_us,
        status: result.status,
        response: text(|t| &t.responses, result.response),
        error: text(|t| &t.errors, result.error),
    }
}

fn retry(rows: &mut dyn RowsMut, of: Of<'_>, call: CallRef, record: &Record) -> Result<(), Error> {
    let Some(mut row) = of.call(rows, call)? else { return Ok(()) };
    let again = |row: &mut CallRow| {
        (row.state, row.due, row.attempts) = (CallState::Waiting, record.at, 0);
        (row.retried, row.ended) = (Some(record.seq), None);
    };
    if row.state.is_open() {
        return of.change(rows, call, again);
    }
    again(&mut row);
    of.enter(rows, row)
}

fn new_replay(record: &Record, e: &ReplayStarted) -> ReplayRow {
    ReplayRow {
        replay: e.replay,
        account: e.account.clone(),
        endpoint: e.endpoint.clone(),
        scope: e.scope.clone(),
        calls_per_second_max: e.calls_per_second_max,
        by: e.by.clone(),
        started: record.at,
        last_activity: record.at,
        state: ReplayState::Running,
        cursor: CallRef { fact: e.scope.from, place: 0 },
        delivered: 0,
        forgotten: 0,
        failed: 0,
        trouble: None,
        error: None,
        resumed: None,
    }
}

/// What a replay delivers need not be delivered again.
fn advanced(record: &Record, e: &ReplayAdvanced, rows: &mut dyn RowsMut) -> Result<(), Error> {
    let mut ending = Ending::new(Of { account: &e.account, endpoint: &e.endpoint }, record);
    for result in e.results.iter().filter(|result| result.outcome == CallOutcome::Delivered) {
        ending.of.change(rows, result.call, |row| note(row, result, e.personal.as_ref(), record.seq))?;
        ending.deliver(rows, result.call)?;
    }
    ending.file(rows);
    change_replay(rows, record, e.replay, |row| {
        row.cursor = e.cursor;
        row.trouble.take_if(|trouble| trouble.call < e.cursor);
        for result in &e.results {
            match result.outcome {
                CallOutcome::Delivered => row.delivered += 1,
                CallOutcome::Failed(CallFailure::Forgotten) => row.forgotten += 1,
                // It stops there, and begins with this call when it is resumed.
                CallOutcome::Failed(CallFailure::Exhausted | CallFailure::Gone) => row.failed += 1,
                CallOutcome::Deferred(next) => {
                    row.failed += 1;
                    if row.trouble.as_ref().is_none_or(|trouble| trouble.call >= result.call) {
                        let last = last_attempt(result, e.personal.as_ref());
                        row.trouble = Some(Trouble { call: result.call, last, next });
                    }
                }
            }
        }
    })
}

fn change_replay(
    rows: &mut dyn RowsMut,
    record: &Record,
    replay: ReplayId,
    with: impl FnOnce(&mut ReplayRow),
) -> Result<(), Error> {
    let Some(mut row) = read::<ReplayRow>(rows, TABLE, &replay_key(b"p", replay))? else { return Ok(()) };
    row.last_activity = record.at;
    with(&mut row);
    write(rows, TABLE, replay_key(b"p", replay), &row);
    Ok(())
}

/// The calls that one record ends. They are filed together, so that their expiry costs little.
struct Ending<'a> {
    of: Of<'a>,
    seq: Seq,
    at: Timestamp,
    kept: BTreeMap<Timestamp, Vec<CallRef>>,
}

impl<'a> Ending<'a> {
    fn new(of: Of<'a>, record: &Record) -> Ending<'a> {
        Ending { of, seq: record.seq, at: record.at, kept: BTreeMap::new() }
    }

    /// What has ended before stays as it is.
    fn end(&mut self, rows: &mut dyn RowsMut, call: CallRef, state: CallState) -> Result<(), Error> {
        let Some(mut row) = self.of.call(rows, call)?.filter(|row| row.state.is_open()) else { return Ok(()) };
        self.of.leave(rows, &row, self.at)?;
        row.state = state;
        (row.earlier, row.later) = (None, None);
        if row.keep_s == 0 {
            rows.remove(TABLE, self.of.call_key(b'c', call));
            return Ok(());
        }
        let keep_until = self.at + Duration::from_secs(row.keep_s);
        row.ended = Some(Ended { seq: self.seq, keep_until });
        self.kept.entry(keep_until).or_default().push(call);
        write(rows, TABLE, self.of.call_key(b'c', call), &row);
        Ok(())
    }

    /// It arrived, whatever became of it before: it may have been canceled under way, or have failed and been told by a replay.
    fn deliver(&mut self, rows: &mut dyn RowsMut, call: CallRef) -> Result<(), Error> {
        let Some(mut row) = self.of.call(rows, call)? else { return Ok(()) };
        if row.state.is_open() {
            return self.end(rows, call, CallState::Delivered);
        }
        row.state = CallState::Delivered;
        write(rows, TABLE, self.of.call_key(b'c', call), &row);
        Ok(())
    }

    fn file(self, rows: &mut dyn RowsMut) {
        for (keep_until, calls) in self.kept {
            let value = (self.of.account, self.of.endpoint, calls);
            write(rows, TABLE, expiry_key(keep_until, self.seq), &value);
        }
    }
}

/// One endpoint, for the keys of what it has.
#[derive(Clone, Copy)]
struct Of<'a> {
    account: &'a AccountName,
    endpoint: &'a EndpointName,
}

impl Of<'_> {
    fn call(self, rows: &(impl Rows + ?Sized), call: CallRef) -> Result<Option<CallRow>, Error> {
        read(rows, TABLE, &self.call_key(b'c', call))
    }

    /// Changes a row and keeps the one index entry it may have in step. A call that is not there is passed over.
    fn change(self, rows: &mut dyn RowsMut, call: CallRef, with: impl FnOnce(&mut CallRow)) -> Result<(), Error> {
        let Some(mut row) = self.call(rows, call)? else { return Ok(()) };
        let before = self.index_key(&row);
        with(&mut row);
        let after = self.index_key(&row);
        if before != after {
            before.into_iter().for_each(|k| rows.remove(TABLE, k));
            after.into_iter().for_each(|k| rows.put(TABLE, k, Vec::new()));
        }
        write(rows, TABLE, self.call_key(b'c', call), &row);
        Ok(())
    }

    /// Puts an open call into its lane, where the order of the ledger has it: mostly at the end. One that is in it already stays
    /// where it is, so that no lane ever leads back to itself.
    fn enter(self, rows: &mut dyn RowsMut, mut row: CallRow) -> Result<(), Error> {
        if let CallAbout::Delivery(delivery, _) = row.about {
            let mut earlier: Option<CallRef> = read(rows, TABLE, &self.lane_key(delivery))?;
            let mut later = None;
            while let Some(call) = earlier.filter(|call| *call > row.call) {
                later = earlier;
                earlier = self.call(rows, call)?.and_then(|row| row.earlier);
            }
            if earlier == Some(row.call) {
                return Ok(());
            }
            (row.earlier, row.later) = (earlier, later);
            self.link(rows, earlier, later, delivery, Some(row.call), None)?;
        }
        self.index_key(&row).into_iter().for_each(|k| rows.put(TABLE, k, Vec::new()));
        write(rows, TABLE, self.call_key(b'c', row.call), &row);
        Ok(())
    }

    /// Takes a call out of its lane and its index. What comes first now is due, but never at a time that was looked at already.
    fn leave(self, rows: &mut dyn RowsMut, row: &CallRow, at: Timestamp) -> Result<(), Error> {
        self.index_key(row).into_iter().for_each(|k| rows.remove(TABLE, k));
        match row.about {
            CallAbout::Delivery(delivery, _) => self.link(rows, row.earlier, row.later, delivery, None, Some(at)),
            CallAbout::Message(_) => Ok(()),
        }
    }

    /// Tells the neighbours in a lane that `between` them is this call or none.
    fn link(
        self,
        rows: &mut dyn RowsMut,
        earlier: Option<CallRef>,
        later: Option<CallRef>,
        delivery: DeliveryId,
        between: Option<CallRef>,
        at: Option<Timestamp>,
    ) -> Result<(), Error> {
        if let Some(call) = earlier {
            self.change(rows, call, |row| row.later = between.or(later))?;
        }
        match (later, between.or(earlier)) {
            (Some(call), before) => self.change(rows, call, |row| {
                row.earlier = before;
                row.due = at.filter(|_| before.is_none()).map_or(row.due, |at| row.due.max(at));
            }),
            (None, Some(last)) => {
                write(rows, TABLE, self.lane_key(delivery), &last);
                Ok(())
            }
            (None, None) => {
                rows.remove(TABLE, self.lane_key(delivery));
                Ok(())
            }
        }
    }

    /// The one entry that lists an open call; those behind the first of a lane have none.
    fn index_key(self, row: &CallRow) -> Option<Key> {
        match row.state {
            CallState::Waiting => row.earlier.is_none().then(|| self.due_key(Due { at: row.due, call: row.call })),
            CallState::Held => Some(self.call_key(b'h', row.call)),
            CallState::Delivered | CallState::Failed(_) | CallState::Canceled(_) => None,
        }
    }

    /// No name holds a NUL, so the parts cannot run into each other.
    fn key(self, sort: u8, rest: &[u8]) -> Key {
        key(&[&[sort], self.account.as_str().as_bytes(), &[0], self.endpoint.as_str().as_bytes(), &[0], rest])
    }

    fn call_key(self, sort: u8, call: CallRef) -> Key {
        self.key(sort, &call_bytes(call))
    }

    fn due_key(self, due: Due) -> Key {
        self.key(b'n', &key(&[&due.at.to_key(), &call_bytes(due.call)]))
    }

    fn lane_key(self, delivery: DeliveryId) -> Key {
        self.key(b'l', &delivery.to_key())
    }
}

fn endpoints_key(account: &AccountName) -> Key {
    key(&[b"e", account.as_str().as_bytes()])
}

fn expiry_key(keep_until: Timestamp, ended: Seq) -> Key {
    key(&[b"x", &keep_until.to_key(), &ended.0.to_be_bytes()])
}

fn replay_key(sort: &[u8], replay: ReplayId) -> Key {
    key(&[sort, &replay.to_key()])
}

fn call_bytes(call: CallRef) -> Key {
    key(&[&call.fact.0.to_be_bytes(), &call.place.to_be_bytes()])
}

fn parse_call(bytes: &[u8]) -> Option<CallRef> {
    let (fact, place) = bytes.split_at_checked(8)?;
    Some(CallRef {
        fact: Seq(u64::from_be_bytes(fact.try_into().ok()?)),
        place: u16::from_be_bytes(place.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use postledger_events::fact::call::{CallsRetried, EndpointCalls, QueuedCall};
    use postledger_events::fact::endpoint::OutgoingEvent;
    use postledger_events::fact::expiry::{Expired, ExpiredCalls};
    use postledger_events::id::Sha256;

    use super::*;
    use crate::Memory;
    use crate::rows::Value;

    /// Counts the keys that each record sets or removes.
    #[derive(Default)]
    struct Counted {
        rows: Memory,
        keys: BTreeSet<Key>,
        operations: usize,
        seq: u64,
    }

    impl Rows for Counted {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error> {
            self.rows.get(table, key)
        }

        fn scan(
            &self,
            table: Table,
            start: &[u8],
            end: &[u8],
            order: Order,
            limit: usize,
        ) -> Result<Vec<(Key, Value)>, Error> {
            self.rows.scan(table, start, end, order, limit)
        }
    }

    impl RowsMut for Counted {
        fn put(&mut self, table: Table, key: Key, value: Value) {
            self.keys.insert(key.clone());
            self.rows.put(table, key, value);
        }

        fn remove(&mut self, table: Table, key: Key) {
            self.keys.insert(key.clone());
            self.rows.remove(table, key);
        }
    }

    impl Counted {
        fn append(&mut self, event: impl Into<Event>) {
            self.seq += 1;
            let (at, event) = (Timestamp::from_secs(self.seq as i64), event.into());
            fold(&Record { seq: Seq(self.seq), at, prev: Sha256::ZERO, event }, self).unwrap();
            self.operations += std::mem::take(&mut self.keys).len();
        }

        /// Calls about these deliveries, and the fact they tell.
        fn queue(&mut self, fact: u64, deliveries: impl Iterator<Item = u64>) {
            let about = |id| CallAbout::Delivery(DeliveryId(id), OutgoingEvent::Delivered);
            let calls = (0..).zip(deliveries).map(|(place, id)| QueuedCall { place, about: about(id) }).collect();
            let endpoints = vec![EndpointCalls { endpoint: names().1, version: 1, keep_s: 60, calls }];
            let message = MessageUuid(Default::default());
            self.append(CallsQueued { account: names().0, message, fact: Seq(fact), endpoints });
        }

        fn finish(&mut self, calls: &[CallRef], outcome: CallOutcome) {
            let results = calls.iter().map(|call| CallResult {
                call: *call,
                attempt: 1,
                probe: false,
                started: Timestamp::EPOCH,
                took_us: 1,
                remote_addr: None,
                status: 0,
                outcome,
                response: None,
                error: None,
            });
            let (account, endpoint) = names();
            self.append(CallsAttempted { account, endpoint, results: results.collect(), personal: None });
        }

        fn lane(&self, delivery: u64) -> Vec<u64> {
            let (account, endpoint) = names();
            let lane = lane(&self.rows, &account, &endpoint, DeliveryId(delivery)).unwrap();
            lane.iter().map(|row| row.call.fact.0).collect()
        }

        fn due(&self) -> Vec<u64> {
            let (account, endpoint) = names();
            let due = due(&self.rows, &account, &endpoint, Due::FIRST, Timestamp::MAX, 99).unwrap();
            due.iter().map(|due| due.call.fact.0).collect()
        }
    }

    fn names() -> (AccountName, EndpointName) {
        (AccountName::new("mox").unwrap(), EndpointName::new("shop").unwrap())
    }

    fn first_of(fact: u64) -> CallRef {
        CallRef { fact: Seq(fact), place: 0 }
    }

    #[test]
    fn a_call_costs_few_operations() {
        let many = 100;
        let mut rows = Counted::default();
        rows.queue(1, 0..many);
        let calls: Vec<CallRef> = (0..many as u16).map(|place| CallRef { fact: Seq(1), place }).collect();
        rows.finish(&calls, CallOutcome::Delivered);
        let over = expiring(&rows.rows, Timestamp::EPOCH, Timestamp::MAX, 99).unwrap();
        assert_eq!(over.len(), 1, "what one record ended is forgotten together");
        assert_eq!(over[0].calls, calls);
        let Expiring { keep_until, ended, account, endpoint, calls } = over.into_iter().next().unwrap();
        let group = ExpiredCalls { account, endpoint, ended, keep_until, calls };
        rows.append(Expired { calls: vec![group], ..Expired::default() });
        assert!(rows.rows.is_empty());
        assert!(rows.operations <= 7 * many as usize + 2, "{} for {many} calls", rows.operations);
    }

    #[test]
    fn a_lane_keeps_the_order_of_the_ledger() {
        let mut rows = Counted::default();
        for fact in [10, 11, 12] {
            rows.queue(fact, [7].into_iter());
        }
        rows.queue(13, [8].into_iter());
        assert_eq!((rows.lane(7), rows.due()), (vec![10, 11, 12], vec![10, 13]));
        rows.finish(&[first_of(11)], CallOutcome::Failed(CallFailure::Exhausted));
        rows.finish(&[first_of(10)], CallOutcome::Failed(CallFailure::Exhausted));
        assert_eq!((rows.lane(7), rows.due()), (vec![12], vec![13, 12]));
        let retried = |fact: u64| {
            let ((account, endpoint), by) = (names(), Author::program());
            CallsRetried { account, endpoint, calls: vec![first_of(fact)], job: None, by }
        };
        rows.append(retried(11));
        assert_eq!((rows.lane(7), rows.due()), (vec![11, 12], vec![13, 11]), "it goes before what came later");
        rows.append(retried(10));
        assert_eq!((rows.lane(7), rows.due()), (vec![10, 11, 12], vec![13, 10]));
        rows.finish(&[first_of(11)], CallOutcome::Delivered);
        assert_eq!((rows.lane(7), rows.due()), (vec![10, 12], vec![13, 10]));
        rows.finish(&[first_of(10), first_of(12), first_of(13)], CallOutcome::Delivered);
        assert_eq!((rows.lane(7), rows.due()), (vec![], vec![]));
    }
}
