//! The keys that messages of a domain are signed with, and what to publish of them in the DNS (RFC 6376 §3.6.2).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use postledger_events::address::Domain;
use postledger_events::command::{ConfigureDomain, DomainChange};
use postledger_events::fact::account::DkimAlgorithm;
use postledger_events::id::Selector;
use postledger_events::refusal::Thing;
use postledger_events::{Command, Refusal};
use postledger_projections::accounts::DomainRow;
use serde::{Deserialize, Serialize};

use super::answer::Created;
use super::caller::Caller;
use super::domains::existing;
use super::extract::{Body, Path, read};
use super::page::Page;
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// A key, without its private part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "DkimKey")]
pub struct Key {
    pub selector: String,
    pub algorithm: DkimAlgorithm,
    pub signing: bool,
    /// Where to publish the record.
    pub name: String,
    /// The text of the TXT record.
    pub record: String,
}

/// A key to make.
#[derive(Clone, Debug, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(name = "NewDkimKey")]
pub struct New {
    pub selector: Selector,
    pub algorithm: DkimAlgorithm,
}

#[derive(Clone, Debug, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub struct Signing {
    pub signing: bool,
}

pub fn operator_routes<P: Port>() -> Table<P> {
    Table::of("DKIM", "The keys that messages of a domain are signed with, and what to publish of them in the DNS.")
        .get("/domains/{domain}/dkim", "List a domain's keys", list::<P>)
        .post("/domains/{domain}/dkim", "Make a key and sign with it", generate::<P>)
        .patch("/domains/{domain}/dkim/{selector}", "Sign with a key, or no more", sign::<P>)
        .delete("/domains/{domain}/dkim/{selector}", "Remove a key", remove::<P>)
}

/// A domain has few keys, so the list is one page.
async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    Path(domain): Path<Domain>,
) -> Result<Json<Page<Key>>, Problem> {
    let items = keys(&site, domain).await?;
    Ok(Json(Page { items, next: None }))
}

async fn generate<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(domain): Path<Domain>,
    Body(new): Body<New>,
) -> Result<Created<Key>, Problem> {
    site.port.generate_dkim(&domain, &new.selector, new.algorithm, caller.author()).await?;
    Ok(Created(find(&site, domain, &new.selector).await?))
}

async fn sign<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((domain, selector)): Path<(Domain, Selector)>,
    Body(Signing { signing }): Body<Signing>,
) -> Result<Json<Key>, Problem> {
    let change = DomainChange { dkim_signing: vec![(selector.clone(), signing)], ..DomainChange::default() };
    site.port.execute(configure(&caller, domain.clone(), change)).await?;
    find(&site, domain, &selector).await.map(Json)
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path((domain, selector)): Path<(Domain, Selector)>,
) -> Result<NoContent, Problem> {
    let change = DomainChange { dkim: vec![(selector, None)], ..DomainChange::default() };
    site.port.execute(configure(&caller, domain, change)).await?;
    Ok(NoContent)
}

fn configure(caller: &Caller, domain: Domain, change: DomainChange) -> Command {
    Command::ConfigureDomain(ConfigureDomain { domain, create: false, change, by: caller.author() })
}

async fn keys<P: Port>(site: &Arc<Site<P>>, domain: Domain) -> Result<Vec<Key>, Problem> {
    read(site, move |view| existing(view, &domain).map(|row| keys_of(&row))).await
}

async fn find<P: Port>(site: &Arc<Site<P>>, domain: Domain, selector: &Selector) -> Result<Key, Problem> {
    let found = keys(site, domain).await?.into_iter().find(|key| key.selector == selector.as_str());
    found.ok_or_else(|| Refusal::NoSuch(Thing::Selector(selector.to_string())).into())
}

pub fn keys_of(row: &DomainRow) -> Vec<Key> {
    let keys = row.settings.dkim.iter();
    keys.map(|(selector, key)| Key {
        name: format!("{selector}._domainkey.{}", row.domain),
        selector: selector.clone(),
        algorithm: key.algorithm,
        signing: key.signing,
        record: key.record.clone(),
    })
    .collect()
}
