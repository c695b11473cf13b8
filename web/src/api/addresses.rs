//! Addresses: which account an address, or all of a domain, leads to.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use postledger_events::Command;
use postledger_events::command::{AddAddress, RemoveAddress};
use postledger_events::fact::account::Destination;
use postledger_events::id::AccountName;
use postledger_projections::accounts::{self, LIST_MAX};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::extract::{Body, Path, Query, read};
use super::page::{Page, Paging};
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

const TAG: &str = "Addresses";
const ABOUT: &str = "Which account an address, or all of a domain, leads to.";

/// An address and its account. `@domain` stands for all addresses of the domain that are not given out by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(name = "GivenAddress")]
pub struct Given {
    pub address: Destination,
    pub account: AccountName,
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
    Table::of(TAG, ABOUT).get("/addresses", "List addresses", list::<P>)
}

pub fn operator_routes<P: Port>() -> Table<P> {
    Table::of(TAG, ABOUT).post("/addresses", "Give an address to an account", add::<P>).delete(
        "/addresses/{address}",
        "Take an address from its account",
        remove::<P>,
    )
}

async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(listing): Query<Listing>,
) -> Result<Json<Page<Given>>, Problem> {
    let scope = caller.scope(listing.account)?;
    let paging = Paging { cursor: listing.cursor, limit: listing.limit };
    let list = read(&site, move |view| {
        let all = match &scope {
            Some(account) => accounts::addresses_of(view, account, LIST_MAX)?,
            None => accounts::addresses(view)?,
        };
        let given = all.into_iter().map(|row| Given { address: row.address, account: row.account });
        paging.cut(given.collect(), |given| given.address.to_string())
    });
    list.await.map(Json)
}

async fn add<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Body(given): Body<Given>,
) -> Result<NoContent, Problem> {
    let command = AddAddress { address: given.address, account: given.account, by: caller.author() };
    site.port.execute(Command::AddAddress(command)).await?;
    Ok(NoContent)
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(address): Path<Destination>,
) -> Result<NoContent, Problem> {
    site.port.execute(Command::RemoveAddress(RemoveAddress { address, by: caller.author() })).await?;
    Ok(NoContent)
}
