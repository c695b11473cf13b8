//! Domains of ours.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use postledger_events::address::Domain;
use postledger_events::command::{ConfigureDomain, DomainChange, RemoveDomain};
use postledger_events::refusal::Thing;
use postledger_events::{Command, Refusal};
use postledger_projections::Rows;
use postledger_projections::accounts::{self, DomainRow};
use serde::{Deserialize, Serialize};

use super::answer::Created;
use super::caller::Caller;
use super::dkim::{Key, keys_of};
use super::extract::{Body, Path, Query, read};
use super::page::{Page, Paging};
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// A domain, with the keys that its messages are signed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct OwnDomain {
    pub domain: Domain,
    /// The same for people.
    pub unicode: String,
    pub disabled: bool,
    pub separators: Vec<char>,
    pub localpart_case_sensitive: bool,
    pub dkim: Vec<Key>,
}

/// Settings to change; one that is not there stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
#[describe(name = "DomainChange", example = r#"{"disabled": true}"#)]
pub struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub separators: Option<Vec<char>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub localpart_case_sensitive: Option<bool>,
}

/// A new domain, with settings that differ from the usual ones.
#[derive(Clone, Debug, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(name = "NewDomain")]
pub struct New {
    pub domain: Domain,
    #[serde(default)]
    pub settings: Change,
}

pub fn operator_routes<P: Port>() -> Table<P> {
    Table::of("Domains", "Domains of ours.")
        .get("/domains", "List domains", list::<P>)
        .post("/domains", "Add a domain", create::<P>)
        .get("/domains/{domain}", "Show a domain", show::<P>)
        .patch("/domains/{domain}", "Change a domain", change::<P>)
        .delete("/domains/{domain}", "Remove a domain", remove::<P>)
}

async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<OwnDomain>>, Problem> {
    let list = read(&site, move |view| {
        let all = accounts::domains(view)?.into_iter().map(domain_of).collect();
        paging.cut(all, |domain: &OwnDomain| domain.domain.to_string())
    });
    list.await.map(Json)
}

async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    Path(domain): Path<Domain>,
) -> Result<Json<OwnDomain>, Problem> {
    find(&site, domain).await.map(Json)
}

async fn create<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Result<Created<OwnDomain>, Problem> {
    let command = configure(&caller, new.domain.clone(), true, new.settings);
    site.port.execute(command).await?;
    Ok(Created(find(&site, new.domain).await?))
}

async fn change<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(domain): Path<Domain>,
    Body(change): Body<Change>,
) -> Result<Json<OwnDomain>, Problem> {
    site.port.execute(configure(&caller, domain.clone(), false, change)).await?;
    find(&site, domain).await.map(Json)
}

fn configure(caller: &Caller, domain: Domain, create: bool, change: Change) -> Command {
    let Change { disabled, separators, localpart_case_sensitive } = change;
    let change = DomainChange { disabled, separators, localpart_case_sensitive, ..DomainChange::default() };
    Command::ConfigureDomain(ConfigureDomain { domain, create, change, by: caller.author() })
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(domain): Path<Domain>,
) -> Result<NoContent, Problem> {
    site.port.execute(Command::RemoveDomain(RemoveDomain { domain, by: caller.author() })).await?;
    Ok(NoContent)
}

async fn find<P: Port>(site: &Arc<Site<P>>, domain: Domain) -> Result<OwnDomain, Problem> {
    read(site, move |view| existing(view, &domain).map(domain_of)).await
}

/// The domain, or the problem that there is none.
pub fn existing(rows: &impl Rows, domain: &Domain) -> Result<DomainRow, Problem> {
    let row = accounts::domain(rows, domain)?;
    row.ok_or_else(|| Refusal::NoSuch(Thing::Domain(domain.to_string())).into())
}

fn domain_of(row: DomainRow) -> OwnDomain {
    OwnDomain {
        unicode: row.domain.to_unicode(),
        disabled: row.settings.disabled,
        dkim: keys_of(&row),
        separators: row.settings.separators,
        localpart_case_sensitive: row.settings.localpart_case_sensitive,
        domain: row.domain,
    }
}
