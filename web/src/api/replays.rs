//! Replays: an endpoint is told again of a part of history, or for the first time.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use postledger_events::command::{CancelReplay, ResumeReplay, StartReplay, StopReplay};
use postledger_events::fact::endpoint::OutgoingEvent;
use postledger_events::fact::replay::{ReplayEnd, ReplayScope};
use postledger_events::id::{AccountName, EndpointName, ReplayId, Seq};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections::accounts::{self, BranchRow};
use postledger_projections::calls::{self, LastAttempt, ReplayRow, ReplayState};
use postledger_projections::{Error, Rows};
use serde::{Deserialize, Serialize};

use super::answer::Accepted;
use super::caller::Caller;
use super::endpoints::no_endpoint;
use super::extract::{Body, Path, Query, read};
use super::jobs::unexpected;
use super::page::{Looked, Page, bad_cursor, limit, look};
use super::place::Place;
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// A part of history that is told, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Replay {
    pub replay: ReplayId,
    pub account: AccountName,
    pub endpoint: EndpointName,
    /// The first record and the last.
    pub from: Seq,
    pub to: Seq,
    pub only_failed: bool,
    pub kinds: Vec<OutgoingEvent>,
    pub calls_per_second_max: Option<u32>,
    pub state: Standing,
    /// Why the program stopped it.
    pub error: Option<String>,
    /// All records before this one are done.
    pub cursor: Seq,
    /// Records from the first to the last, and of these done.
    pub records: u64,
    pub records_done: u64,
    /// Calls that arrived.
    pub delivered: u64,
    /// Calls that could not be made, since what they would tell was forgotten.
    pub forgotten: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// The call that holds it up.
    pub trouble: Option<Trouble>,
    pub by: String,
    pub started: Timestamp,
    pub last_activity: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "snake_case")]
#[describe(name = "ReplayStanding")]
pub enum Standing {
    Running,
    /// It waits until somebody resumes it.
    Stopped,
    Done,
    Canceled,
    EndpointRemoved,
}

/// A call that failed and is tried again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "ReplayTrouble")]
pub struct Trouble {
    pub fact: Seq,
    pub place: u16,
    pub last: LastAttempt,
    pub next: Timestamp,
}

/// What to tell. A time means the records that were written from it on, or up to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(name = "NewReplay", example = r#"{"from": 1, "kinds": ["delivered", "failed"]}"#)]
pub struct New {
    pub from: Place,
    /// All that there are now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Place>,
    /// Only calls that failed or were canceled.
    #[serde(default)]
    pub only_failed: bool,
    /// Of what the endpoint is told of, only these; empty: all.
    #[serde(default)]
    pub kinds: Vec<OutgoingEvent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls_per_second_max: Option<u32>,
}

/// What was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "BegunReplay")]
pub struct Begun {
    pub replay: ReplayId,
}

#[derive(Clone, Debug, Default, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    /// Whose. An account's login has only its own.
    account: Option<AccountName>,
    /// The `next` of the page before.
    cursor: Option<ReplayId>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
}

#[derive(Clone, Debug, Default, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
struct AskedOfOne {
    /// The `next` of the page before.
    cursor: Option<ReplayId>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Replays", "Parts of history that endpoints are told again, or for the first time.")
        .get("/endpoints/{account}/{endpoint}/replays", "List an endpoint's replays", list_of_one::<P>)
        .more("Newest first. A page may be short, even empty, and have a next.")
        .post("/endpoints/{account}/{endpoint}/replays", "Tell an endpoint a part of history again", start::<P>)
        .more("One at a time for each endpoint.")
        .get("/replays", "List replays", list::<P>)
        .more("Newest first. A page may be short, even empty, and have a next.")
        .get("/replays/{replay}", "Show a replay", show::<P>)
        .post("/replays/{replay}/stop", "Stop a replay", stop::<P>)
        .more("It waits until it is resumed.")
        .post("/replays/{replay}/resume", "Resume a replay", resume::<P>)
        .more("It goes on at its cursor.")
        .post("/replays/{replay}/cancel", "Cancel a replay", cancel::<P>)
}

/// Newest first.
async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Page<Replay>>, Problem> {
    let Asked { account, cursor, limit: asked } = asked;
    let (account, limit) = (caller.scope(account)?, limit(asked)?);
    let page = read(&site, move |view| {
        page(view, cursor, limit, |row| account.as_ref().is_none_or(|account| row.account == *account))
    });
    page.await.map(Json)
}

/// The same of one endpoint.
async fn list_of_one<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((account, endpoint)): Path<(AccountName, EndpointName)>,
    Query(asked): Query<AskedOfOne>,
) -> Result<Json<Page<Replay>>, Problem> {
    let (account, limit) = (caller.one(Some(account))?, limit(asked.limit)?);
    let page = read(&site, move |view| {
        if calls::endpoint(view, &account, &endpoint)?.is_none() {
            return Err(no_endpoint(&account, &endpoint));
        }
        page(view, asked.cursor, limit, |row| row.account == account && row.endpoint == endpoint)
    });
    page.await.map(Json)
}

async fn start<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((account, endpoint)): Path<(AccountName, EndpointName)>,
    Body(new): Body<New>,
) -> Result<Accepted<Begun>, Problem> {
    let account = caller.one(Some(account))?;
    let New { from, to, only_failed, kinds, calls_per_second_max } = new;
    let places = read(&site, move |view| Ok((from.first(view)?, to.map(|to| to.last(view)).transpose()?)));
    let (from, to) = places.await?;
    let by = caller.author();
    let command = StartReplay { account, endpoint, from, to, only_failed, kinds, calls_per_second_max, by };
    match site.port.execute(Command::StartReplay(command)).await? {
        Answer::Replay(replay) => Ok(Accepted(Begun { replay })),
        other => Err(unexpected(&other)),
    }
}

async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(replay): Path<ReplayId>,
) -> Result<Json<Replay>, Problem> {
    let shown = read(&site, move |view| {
        let row = own(view, &caller, replay)?;
        Ok(Shower::new(view)?.replay_of(row))
    });
    shown.await.map(Json)
}

async fn stop<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(replay): Path<ReplayId>,
) -> Result<NoContent, Problem> {
    let command = StopReplay { replay, error: None, by: caller.author() };
    change(&site, caller, replay, Command::StopReplay(command)).await
}

async fn resume<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(replay): Path<ReplayId>,
) -> Result<NoContent, Problem> {
    let command = ResumeReplay { replay, by: caller.author() };
    change(&site, caller, replay, Command::ResumeReplay(command)).await
}

async fn cancel<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(replay): Path<ReplayId>,
) -> Result<NoContent, Problem> {
    let command = CancelReplay { replay, by: caller.author() };
    change(&site, caller, replay, Command::CancelReplay(command)).await
}

async fn change<P: Port>(
    site: &Arc<Site<P>>,
    caller: Caller,
    replay: ReplayId,
    command: Command,
) -> Result<NoContent, Problem> {
    read(site, move |view| own(view, &caller, replay).map(drop)).await?;
    site.port.execute(command).await?;
    Ok(NoContent)
}

/// The same for what is not there and what is not this caller's.
fn own(view: &impl Rows, caller: &Caller, replay: ReplayId) -> Result<ReplayRow, Problem> {
    let row = calls::replay(view, replay)?.filter(|row| caller.may_see(&row.account));
    row.ok_or_else(|| Refusal::NoSuch(Thing::Replay(replay.to_string())).into())
}

fn page(
    view: &impl Rows,
    cursor: Option<ReplayId>,
    limit: usize,
    is_meant: impl Fn(&ReplayRow) -> bool,
) -> Result<Page<Replay>, Problem> {
    if cursor == Some(ReplayId(0)) {
        return Err(bad_cursor());
    }
    let before = cursor.unwrap_or(ReplayId(u64::MAX));
    let older = |before: ReplayId, size: usize| calls::ended_replays(view, before, size);
    let Looked { found: ended, end } = look(limit, before, older, |row| row.replay, &is_meant)?;
    // Behind what was looked at there may be more that is over.
    let is_in_reach = |row: &ReplayRow| row.replay < before && end.is_none_or(|end| row.replay > end);
    let open = calls::open_replays(view)?.into_iter().filter(|row| is_in_reach(row) && is_meant(row));
    let mut rows: Vec<ReplayRow> = open.chain(ended).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.replay));
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = if more { rows.last().map(|row| row.replay) } else { end };
    let shower = Shower::new(view)?;
    let items = rows.into_iter().map(|row| shower.replay_of(row)).collect();
    Ok(Page { items, next: next.map(|replay| replay.to_string()) })
}

/// What is needed to show replays.
struct Shower {
    branch: Seq,
    gaps: Vec<BranchRow>,
}

impl Shower {
    fn new(view: &impl Rows) -> Result<Shower, Error> {
        Ok(Shower { branch: accounts::counters(view)?.branch, gaps: accounts::branches(view)? })
    }

    fn replay_of(&self, row: ReplayRow) -> Replay {
        let state = match row.state {
            ReplayState::Running if row.may_go(self.branch) => Standing::Running,
            ReplayState::Running | ReplayState::Stopped => Standing::Stopped,
            ReplayState::Ended(ReplayEnd::Done) => Standing::Done,
            ReplayState::Ended(ReplayEnd::Canceled) => Standing::Canceled,
            ReplayState::Ended(ReplayEnd::EndpointRemoved) => Standing::EndpointRemoved,
        };
        let ReplayScope { from, to, only_failed, kinds } = row.scope;
        let cursor = row.cursor.fact.min(to.next());
        Replay {
            replay: row.replay,
            account: row.account,
            endpoint: row.endpoint,
            from,
            to,
            only_failed,
            kinds,
            calls_per_second_max: row.calls_per_second_max,
            state,
            error: row.error,
            cursor,
            records: self.records(from, to.next()),
            records_done: self.records(from, cursor),
            delivered: row.delivered,
            forgotten: row.forgotten,
            failed: row.failed,
            trouble: row.trouble.map(|trouble| Trouble {
                fact: trouble.call.fact,
                place: trouble.call.place,
                last: trouble.last,
                next: trouble.next,
            }),
            by: row.by.0,
            started: row.started,
            last_activity: row.last_activity,
        }
    }

    /// How many there are from one place to before another: numbers in gaps of the log are no records.
    fn records(&self, from: Seq, before: Seq) -> u64 {
        let none = self.gaps.iter().map(|gap| {
            let (start, end) = (gap.from.next().max(from), gap.next.min(before));
            end.0.saturating_sub(start.0)
        });
        before.0.saturating_sub(from.0) - none.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_have_no_records() {
        let gap = |from, next| BranchRow { from: Seq(from), next: Seq(next) };
        let shower = Shower { branch: Seq(2000), gaps: vec![gap(100, 1000), gap(1100, 2000)] };
        let check = |from, before, expect| assert_eq!(shower.records(Seq(from), Seq(before)), expect);
        check(1, 101, 100);
        check(1, 1000, 100);
        check(1, 1001, 101);
        check(500, 600, 0);
        check(500, 1010, 10);
        check(1, 2010, 100 + 101 + 10);
        check(7, 7, 0);
    }
}
