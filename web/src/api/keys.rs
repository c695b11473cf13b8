//! Keys of the API: listed, given out and revoked. What a key is shown once, when it is given out.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, NoContent, Response};
use postledger_events::command::RevokeKey;
use postledger_events::fact::access::{Network, Scope};
use postledger_events::id::{AccountName, KeyId};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Command, Refusal};
use postledger_projections::access::{self, KeyRow};
use serde::{Deserialize, Serialize};

use super::answer::Created;
use super::caller::Caller;
use super::extract::{Body, Path, Query, read};
use super::page::{Page, bad_cursor, limit};
use super::problem::Problem;
use crate::openapi::{Describe, Operation, Output, Schemas, Table};
use crate::port::NewKey;
use crate::{Port, Site};

/// A key, without what makes it one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Key {
    pub key: KeyId,
    /// `null`: it is an operators' key, to which all accounts are open.
    pub account: Option<AccountName>,
    pub label: String,
    pub scopes: Vec<Scope>,
    /// `null`: it lasts until it is revoked.
    pub expires: Option<Timestamp>,
    /// It is over and only listed still.
    pub expired: bool,
    /// Such as `192.0.2.0/24`; empty: it can be used from everywhere.
    pub networks: Vec<String>,
    pub added: Timestamp,
    pub by: String,
    /// To within ten minutes; `null`: never.
    pub last_used: Option<Timestamp>,
    pub last_client: Option<String>,
}

/// A key to give out.
#[derive(Clone, Debug, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(name = "NewKey", example = r#"{"account": "mox", "label": "shop", "scopes": ["send", "read"]}"#)]
pub struct New {
    /// May be left out by an account's login. `null` from an operator: a key for operators.
    #[serde(default)]
    pub account: Option<AccountName>,
    /// What people call it.
    pub label: String,
    pub scopes: Vec<Scope>,
    #[serde(default)]
    pub expires: Option<Timestamp>,
    #[serde(default)]
    pub networks: Vec<String>,
}

/// What was given out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "GivenKey", example = r#"{"key": 7, "token": "pl_7_…"}"#)]
pub struct Given {
    pub key: KeyId,
    /// Shown now and never again.
    pub token: String,
}

#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
struct Listing {
    /// Whose. An account's login has only its own.
    account: Option<AccountName>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Keys", "Keys of the API: listed, given out and revoked.")
        .get("/keys", "List keys", list::<P>)
        .post("/keys", "Give out a key", add::<P>)
        .more("What it is stands in the answer and is never shown again.")
        .delete("/keys/{key}", "Revoke a key", revoke::<P>)
}

/// In the order of their numbers.
async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(listing): Query<Listing>,
) -> Result<Json<Page<Key>>, Problem> {
    let account = caller.scope(listing.account)?;
    let (limit, now) = (limit(listing.limit)?, site.port.now());
    let from = listing.cursor.map(|cursor| cursor.parse().map_err(|_| bad_cursor())).transpose()?;
    let from = from.unwrap_or(KeyId(0));
    let list = read(&site, move |view| {
        let mut rows = match &account {
            Some(account) => access::keys_of(view, Some(account), usize::MAX)?,
            None => access::keys(view, from, limit + 1)?,
        };
        rows.retain(|row| row.key >= from);
        let next = rows.get(limit).map(|row| row.key.to_string());
        let items = rows.into_iter().take(limit).map(|row| key_of(row, now)).collect();
        Ok(Page { items, next })
    });
    list.await.map(Json)
}

async fn add<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Result<Shown, Problem> {
    let account = caller.scope(new.account)?;
    if caller.confined().is_some() && new.scopes.contains(&Scope::Admin) {
        return Err(Problem::forbidden("only an operator gives out keys with the scope admin"));
    }
    let networks = new.networks.iter().map(|network| network.parse().map_err(Problem::invalid));
    let networks = networks.collect::<Result<Vec<Network>, Problem>>()?;
    let (label, scopes, expires) = (new.label, new.scopes, new.expires);
    let key = NewKey { account, label, scopes, expires, networks };
    let (key, token) = site.port.add_key(key, caller.author()).await?;
    Ok(Shown(Given { key, token }))
}

/// A key that nobody on the way may keep.
struct Shown(Given);

impl IntoResponse for Shown {
    fn into_response(self) -> Response {
        ([(header::CACHE_CONTROL, "no-store")], Created(self.0)).into_response()
    }
}

impl Output for Shown {
    fn describe(operation: &mut Operation, schemas: &mut Schemas) {
        Created::<Given>::describe(operation, schemas);
    }
}

async fn revoke<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(key): Path<KeyId>,
) -> Result<NoContent, Problem> {
    let row = read(&site, move |view| Ok(access::key_row(view, key)?)).await?;
    let own = row.is_some_and(|row| match &row.account {
        Some(account) => caller.may_see(account),
        None => caller.confined().is_none(),
    });
    if !own {
        return Err(Refusal::NoSuch(Thing::Key(key.to_string())).into());
    }
    site.port.execute(Command::RevokeKey(RevokeKey { key, by: caller.author() })).await?;
    Ok(NoContent)
}

fn key_of(row: KeyRow, now: Timestamp) -> Key {
    let KeyRow { key, account, label, scopes, expires, networks, added, by, used, .. } = row;
    let last_client = used.as_ref().and_then(|used| used.client).map(|client| client.to_string());
    Key {
        key,
        account,
        label,
        scopes,
        expires,
        expired: expires.is_some_and(|expires| expires <= now),
        networks: networks.iter().map(Network::to_string).collect(),
        added,
        by: by.0,
        last_used: used.map(|used| used.at),
        last_client,
    }
}
