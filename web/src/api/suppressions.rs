//! Suppressed addresses: whom an account does not send to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use postledger_events::Command;
use postledger_events::address::Address;
use postledger_events::command::{LiftSuppression, Suppress};
use postledger_events::fact::suppression::Cause;
use postledger_events::id::{AccountName, Seq, SuppressionId};
use postledger_events::time::Timestamp;
use postledger_projections::suppressions::{self, SuppressionRow};
use serde::{Deserialize, Serialize};

use super::accounts::existing;
use super::caller::Caller;
use super::extract::{Body, Query, read};
use super::page::{Page, bad_cursor, limit};
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// An entry of an account's list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Suppression {
    pub id: SuppressionId,
    pub account: AccountName,
    /// What all variants of the address have in common; `null` if it was forgotten. The suppression stays.
    pub base_address: Option<String>,
    pub original_address: Option<Address>,
    pub reason: Option<String>,
    pub manual: bool,
    /// The record of the failure that caused it.
    pub failure_seq: Option<Seq>,
    /// Who asked for it.
    pub by: Option<String>,
    pub created: Timestamp,
}

/// An address to suppress.
#[derive(Clone, Debug, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(
    name = "NewSuppression",
    example = r#"{"account": "mox", "address": "you@example.org", "reason": "asked to get no more mail"}"#
)]
pub struct New {
    /// May be left out by an account's login.
    pub account: Option<AccountName>,
    pub address: Address,
    #[serde(default)]
    pub reason: String,
    /// Means nothing to us; shown again.
    #[serde(default)]
    pub manual: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Present {
    pub present: bool,
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

#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
struct Asked {
    /// Whose. An account's login has only its own.
    account: Option<AccountName>,
    address: Address,
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of("Suppressions", "Whom an account does not send to.")
        .get("/suppressions", "List suppressed addresses", list::<P>)
        .more("In the order of the base addresses.")
        .post("/suppressions", "Suppress an address", add::<P>)
        .delete("/suppressions", "Lift a suppression", remove::<P>)
        .more("Any variant of the address will do.")
        .get("/suppressions/present", "Ask whether an address is suppressed", present::<P>)
}

/// In the order of the base addresses.
async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(listing): Query<Listing>,
) -> Result<Json<Page<Suppression>>, Problem> {
    let account = caller.one(listing.account)?;
    let limit = limit(listing.limit)?;
    let list = read(&site, move |view| {
        existing(view, &account)?;
        let place = listing.cursor.map(|cursor| BASE64_URL_SAFE_NO_PAD.decode(cursor));
        let place = place.transpose().map_err(|_| bad_cursor())?;
        let (rows, next) = suppressions::page(view, &account, place.as_deref(), limit)?;
        Ok(Page {
            items: rows.into_iter().map(suppression_of).collect(),
            next: next.map(|place| BASE64_URL_SAFE_NO_PAD.encode(place)),
        })
    });
    list.await.map(Json)
}

async fn add<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Result<NoContent, Problem> {
    let command = Suppress {
        account: caller.one(new.account)?,
        address: new.address,
        manual: new.manual,
        reason: new.reason,
        by: caller.author(),
        idempotency: None,
    };
    site.port.execute(Command::Suppress(command)).await?;
    Ok(NoContent)
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<NoContent, Problem> {
    let account = caller.one(asked.account)?;
    let command = LiftSuppression { account, address: asked.address, by: caller.author(), idempotency: None };
    site.port.execute(Command::LiftSuppression(command)).await?;
    Ok(NoContent)
}

async fn present<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Present>, Problem> {
    let account = caller.one(asked.account)?;
    let key = site.port.recipient_key(&account, &asked.address);
    let present = read(&site, move |view| {
        existing(view, &account)?;
        Ok(suppressions::suppression(view, &account, key)?.is_some())
    });
    present.await.map(|present| Json(Present { present }))
}

fn suppression_of(row: SuppressionRow) -> Suppression {
    let (failure_seq, by) = match row.cause {
        Cause::Failure(seq) => (Some(seq), None),
        Cause::Person(by) => (None, Some(by.0)),
    };
    let (base_address, original_address, reason) = match row.personal {
        Some(p) => (Some(p.base_address), Some(p.original_address), Some(p.reason)),
        None => (None, None, None),
    };
    let SuppressionRow { id, account, manual, created, .. } = row;
    Suppression { id, account, base_address, original_address, reason, manual, failure_seq, by, created }
}
