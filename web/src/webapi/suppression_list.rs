//! SuppressionList: all addresses that this account does not send to.

use axum::response::Response;
use postledger_events::id::{AccountName, SuppressionId};
use postledger_events::time::Timestamp;
use postledger_projections::suppressions::{self, SuppressionRow};
use serde::Serialize;

use super::form::Form;
use super::json::fields;
use super::{Caller, decode, ok, read};
use crate::Port;
use crate::openapi::Describe;
use crate::status::Fault;

#[derive(Default)]
pub(super) struct Request {}

fields!(Request as "SuppressionListRequest" {});

#[derive(Serialize, Describe)]
#[serde(rename_all = "PascalCase")]
#[describe(name = "SuppressionListResult")]
pub(super) struct List {
    suppressions: Vec<Entry>,
}

#[derive(Serialize, Describe)]
#[serde(rename_all = "PascalCase")]
#[describe(name = "SuppressionListEntry")]
struct Entry {
    #[serde(rename = "ID")]
    id: SuppressionId,
    created: Timestamp,
    account: AccountName,
    base_address: String,
    original_address: String,
    manual: bool,
    reason: String,
}

impl From<SuppressionRow> for Entry {
    /// What was forgotten is empty.
    fn from(row: SuppressionRow) -> Entry {
        let (base_address, original_address, reason) = match row.personal {
            Some(person) => (person.base_address, person.original_address.to_unicode(), person.reason),
            None => Default::default(),
        };
        let SuppressionRow { id, created, account, manual, .. } = row;
        Entry { id, created, account, base_address, original_address, manual, reason }
    }
}

pub async fn call<P: Port>(port: &P, caller: Caller<'_>, form: Form) -> Result<Response, Fault> {
    let Request {} = decode(&form.request)?;
    let account = caller.login.account;
    let rows = read(port, move |view| suppressions::list(view, &account)).await?;
    Ok(ok(&List { suppressions: rows.into_iter().map(Entry::from).collect() }))
}
