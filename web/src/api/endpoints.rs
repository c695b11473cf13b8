//! Endpoints: programs that are told what happens to an account's mail. Secrets and the value of Authorization go in and never come
//! out again, but for a secret that is made here, which is shown once.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use postledger_events::Command;
use postledger_events::command::{EndpointChange, RemoveEndpoint};
use postledger_events::fact::account::RetrySchedule;
use postledger_events::fact::endpoint::{CallFormat, Direction, Disabling, OutgoingEvent, Superseding};
use postledger_events::id::{AccountName, EndpointName, Fingerprint};
use postledger_events::time::Timestamp;
use postledger_projections::calls::{self, EndpointRow, EndpointState};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::extract::{Body, Path, Query, read};
use super::jobs::Started;
use super::page::{Page, Paging};
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::port::{NewEndpoint, TestCall};
use crate::{Port, Site};

/// An endpoint, without its secrets, and how it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Endpoint {
    pub account: AccountName,
    pub endpoint: EndpointName,
    pub direction: Direction,
    pub url: String,
    pub format: CallFormat,
    /// Only these; empty: all.
    pub events: Vec<OutgoingEvent>,
    /// Whether calls have an Authorization header.
    pub authorization: bool,
    /// What is known of the secrets that sign.
    pub secrets: Vec<Fingerprint>,
    pub superseding: Superseding,
    pub concurrency_max: u32,
    pub calls_per_second_max: Option<u32>,
    pub retry_waits_s: Vec<u32>,
    pub connect_timeout_s: u32,
    pub timeout_s: u32,
    pub keep_s: u64,
    pub state: Standing,
    /// Calls in a row that failed.
    pub failures: u32,
    /// When the first of them failed.
    pub failing_since: Option<Timestamp>,
    /// When a failing endpoint is tried again.
    pub next_probe: Option<Timestamp>,
    /// Why the program calls it no more.
    pub disabled_why: Option<Disabling>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "lowercase")]
#[describe(name = "EndpointStanding")]
pub enum Standing {
    Working,
    /// Only its oldest call goes out, now and then.
    Failing,
    /// Nothing is called; what happens is queued.
    Disabled,
    Removing,
}

/// What to set; what is not there stays as it is, or gets its default where the endpoint is new. A new one needs `direction` and
/// `url`, and gets a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
#[describe(
    name = "EndpointSettings",
    example = r#"{"direction": "outgoing", "url": "https://shop.example/hooks", "events": ["delivered", "failed"]}"#
)]
pub struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<CallFormat>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Vec<OutgoingEvent>>,
    /// The value of the Authorization header; an empty one takes it away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authorization: Option<String>,
    /// A new secret signs as well from now on, and is in the answer.
    pub new_secret: bool,
    /// These secrets of the form `whsec_…` sign as well from now on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// These sign no more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove_secrets: Vec<Fingerprint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub superseding: Option<Superseding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_max: Option<u32>,
    /// 0: as fast as it goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls_per_second_max: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_waits_s: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_s: Option<u64>,
    /// Call nothing, and queue what happens. `false` also enables an endpoint that was disabled because it answered 410 or failed for
    /// five days; no other change does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "SavedEndpoint")]
pub struct Saved {
    /// A secret that was made; it is not shown again.
    pub secret: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    /// Whose. An account's login has only its own.
    account: Option<AccountName>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Endpoints", "Programs that are told what happens to an account's mail.")
        .get("/endpoints", "List endpoints", list::<P>)
        .get("/endpoints/{account}/{endpoint}", "Show an endpoint", show::<P>)
        .put("/endpoints/{account}/{endpoint}", "Add or change an endpoint", set::<P>)
        .delete("/endpoints/{account}/{endpoint}", "Remove an endpoint", remove::<P>)
        .more("What it has not been told of is canceled first.")
        .post("/endpoints/{account}/{endpoint}/test", "Call an endpoint with an invented event", test::<P>)
}

async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Page<Endpoint>>, Problem> {
    let Asked { account, cursor, limit } = asked;
    let account = caller.scope(account)?;
    let list = read(&site, move |view| {
        let rows = match &account {
            Some(account) => calls::endpoints(view, account)?,
            None => calls::all_endpoints(view)?,
        };
        let all = rows.into_iter().map(|row| endpoint_of(view, row)).collect::<Result<_, Problem>>()?;
        Paging { cursor, limit }.cut(all, |e: &Endpoint| format!("{} {}", e.account, e.endpoint))
    });
    list.await.map(Json)
}

async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((account, endpoint)): Path<(AccountName, EndpointName)>,
) -> Result<Json<Endpoint>, Problem> {
    let account = caller.one(Some(account))?;
    let shown = read(&site, move |view| {
        let row = calls::endpoint(view, &account, &endpoint)?.ok_or_else(|| no_endpoint(&account, &endpoint))?;
        endpoint_of(view, row)
    });
    shown.await.map(Json)
}

async fn set<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((account, endpoint)): Path<(AccountName, EndpointName)>,
    Body(settings): Body<Settings>,
) -> Result<Json<Saved>, Problem> {
    let account = caller.one(Some(account))?;
    let named = (account.clone(), endpoint.clone());
    let create = read(&site, move |view| Ok(calls::endpoint(view, &named.0, &named.1)?.is_none())).await?;
    let generate = settings.new_secret || (create && settings.secrets.is_empty());
    let authorization = settings.authorization.map(|value| Some(value).filter(|value| !value.is_empty()));
    let change = EndpointChange {
        direction: settings.direction,
        url: settings.url,
        format: settings.format,
        events: settings.events,
        authorization: None,
        add_secrets: Vec::new(),
        remove_secrets: settings.remove_secrets,
        superseding: settings.superseding,
        concurrency_max: settings.concurrency_max,
        calls_per_second_max: settings.calls_per_second_max.map(|rate| Some(rate).filter(|rate| *rate > 0)),
        retry: settings.retry_waits_s.map(|waits_s| RetrySchedule { waits_s }),
        connect_timeout_s: settings.connect_timeout_s,
        timeout_s: settings.timeout_s,
        keep_s: settings.keep_s,
        disabled: settings.disabled,
    };
    let new = NewEndpoint { account, endpoint, create, change, authorization, secrets: settings.secrets };
    let secret = site.port.set_endpoint(new, generate, caller.author()).await?;
    Ok(Json(Saved { secret }))
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((account, endpoint)): Path<(AccountName, EndpointName)>,
) -> Result<Started, Problem> {
    let account = caller.one(Some(account))?;
    let command = RemoveEndpoint { account, endpoint, by: caller.author() };
    Started::of(site.port.execute(Command::RemoveEndpoint(command)).await?)
}

async fn test<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((account, endpoint)): Path<(AccountName, EndpointName)>,
) -> Result<Json<TestCall>, Problem> {
    let account = caller.one(Some(account))?;
    Ok(Json(site.port.test_call(&account, &endpoint, caller.author()).await?))
}

pub(super) fn no_endpoint(account: &AccountName, endpoint: &EndpointName) -> Problem {
    Problem::not_found(format!("account {account} has no endpoint {endpoint}"))
}

fn endpoint_of(view: &impl postledger_projections::Rows, row: EndpointRow) -> Result<Endpoint, Problem> {
    let state = calls::state(view, &row.account, &row.endpoint)?;
    let standing = standing(&row, &state);
    let s = row.settings;
    Ok(Endpoint {
        account: row.account,
        endpoint: row.endpoint,
        direction: s.direction,
        url: s.url,
        format: s.format,
        events: s.events,
        authorization: s.authorization.is_some(),
        secrets: s.secrets.into_iter().map(|secret| secret.fingerprint).collect(),
        superseding: s.superseding,
        concurrency_max: s.concurrency_max,
        calls_per_second_max: s.calls_per_second_max,
        retry_waits_s: s.retry.waits_s,
        connect_timeout_s: s.connect_timeout_s,
        timeout_s: s.timeout_s,
        keep_s: s.keep_s,
        state: standing,
        failures: state.failures,
        failing_since: state.since,
        next_probe: state.next_probe.filter(|_| standing == Standing::Failing),
        disabled_why: state.disabled.map(|disabled| disabled.why),
    })
}

fn standing(row: &EndpointRow, state: &EndpointState) -> Standing {
    match (row.removing, row.settings.disabled || state.disabled.is_some(), state.failing) {
        (Some(_), _, _) => Standing::Removing,
        (None, true, _) => Standing::Disabled,
        (None, false, Some(_)) => Standing::Failing,
        (None, false, None) => Standing::Working,
    }
}
