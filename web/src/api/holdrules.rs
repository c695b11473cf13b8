//! Hold rules: what is queued and does not leave.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use postledger_events::address::Domain;
use postledger_events::command::{AddHoldRule, RemoveHoldRule};
use postledger_events::fact::job::HoldMatch;
use postledger_events::id::{AccountName, HoldRuleId, JobId};
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command};
use postledger_projections::accounts::{self, HoldRuleRow};
use serde::{Deserialize, Serialize};

use super::answer::Created;
use super::caller::Caller;
use super::extract::{Body, Path, Query, read};
use super::jobs::unexpected;
use super::page::{Page, Paging};
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// A rule; it holds what agrees with every field that is not `null`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct HoldRule {
    pub rule: HoldRuleId,
    pub account: Option<AccountName>,
    pub sender_domain: Option<Domain>,
    pub recipient_domain: Option<Domain>,
    pub added: Timestamp,
    pub by: String,
}

/// A rule to add. One without any condition holds everything and must say so with `all`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
#[describe(name = "NewHoldRule", example = r#"{"recipient_domain": "example.org"}"#)]
pub struct New {
    pub account: Option<AccountName>,
    pub sender_domain: Option<Domain>,
    pub recipient_domain: Option<Domain>,
    pub all: bool,
}

/// The rule, and the job that puts on hold what is queued already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "AddedHoldRule")]
pub struct Added {
    pub rule: HoldRuleId,
    pub job: JobId,
}

pub fn operator_routes<P: Port>() -> Table<P> {
    Table::of("Hold rules", "What is queued and does not leave.")
        .get("/holdrules", "List hold rules", list::<P>)
        .post("/holdrules", "Add a hold rule", add::<P>)
        .delete("/holdrules/{rule}", "Remove a hold rule", remove::<P>)
        .more("What it held stays on hold until it is released.")
}

async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<HoldRule>>, Problem> {
    let list = read(&site, move |view| {
        let all = accounts::hold_rules(view)?.into_iter().map(rule_of).collect();
        // With leading zeros the text sorts as the number does.
        paging.cut(all, |rule: &HoldRule| format!("{:020}", rule.rule.0))
    });
    list.await.map(Json)
}

async fn add<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Result<Created<Added>, Problem> {
    let New { account, sender_domain, recipient_domain, all } = new;
    let matching = HoldMatch { account, sender_domain, recipient_domain };
    if matching == HoldMatch::default() && !all {
        return Err(Problem::invalid("a rule without any condition holds everything; say so with all"));
    }
    match site.port.execute(Command::AddHoldRule(AddHoldRule { matching, by: caller.author() })).await? {
        Answer::HoldRule(rule, job) => Ok(Created(Added { rule, job })),
        other => Err(unexpected(&other)),
    }
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(rule): Path<HoldRuleId>,
) -> Result<NoContent, Problem> {
    site.port.execute(Command::RemoveHoldRule(RemoveHoldRule { rule, by: caller.author() })).await?;
    Ok(NoContent)
}

fn rule_of(row: HoldRuleRow) -> HoldRule {
    let HoldMatch { account, sender_domain, recipient_domain } = row.matching;
    HoldRule { rule: row.rule, account, sender_domain, recipient_domain, added: row.added, by: row.by.0 }
}
