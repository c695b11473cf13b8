//! Accounts: who may send and receive, and within which limits.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::NoContent;
use postledger_events::address::Address;
use postledger_events::command::{AccountChange, ConfigureAccount, RemoveAccount};
use postledger_events::fact::account::{Destination, Fold, RetrySchedule};
use postledger_events::id::{AccountName, JobId};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections::accounts::{self, AccountRow};
use postledger_projections::{Rows, mailboxes};
use serde::{Deserialize, Deserializer, Serialize};

use super::answer::Created;
use super::caller::Caller;
use super::extract::{Body, Path, Query, read};
use super::jobs::Started;
use super::page::{Page, Paging};
use super::problem::Problem;
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

const TAG: &str = "Accounts";
const ABOUT: &str = "Who may send and receive, and within which limits.";
/// Addresses of one account that are shown with it; the list of addresses has them all.
const ADDRESSES_SHOWN_MAX: usize = 1000;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Account {
    pub account: AccountName,
    /// `null` if it was forgotten.
    pub full_name: Option<String>,
    pub login_disabled: bool,
    pub has_password: bool,
    /// Logins with one of these addresses send with a reverse-path of its own for every delivery.
    pub fromid_logins: Vec<Address>,
    /// How long finished deliveries are kept, in seconds.
    pub keep_s: u64,
    pub keep_contents: bool,
    /// Recipients in 24 hours; `null`: unlimited.
    pub messages_per_day_max: Option<u32>,
    pub first_time_recipients_per_day_max: Option<u32>,
    pub quota_bytes: Option<u64>,
    pub fold: Fold,
    /// Waits between attempts; `null`: the program's own.
    pub retry_waits_s: Option<Vec<u32>>,
    pub addresses: Vec<Destination>,
    pub stored_bytes: u64,
    pub stored_messages: u64,
    pub created: Timestamp,
    /// The job that removes it.
    pub removing: Option<JobId>,
}

/// Settings to change. One that is not there stays as it is; `null` stands for "unlimited" or "the program's own".
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
#[describe(name = "AccountChange", example = r#"{"login_disabled": true, "quota_bytes": null}"#)]
pub struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_disabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fromid_logins: Option<Vec<Address>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_contents: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub messages_per_day_max: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub first_time_recipients_per_day_max: Option<Option<u32>>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub quota_bytes: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "nullable")]
    pub retry_waits_s: Option<Option<Vec<u32>>>,
}

/// A new account, with settings that differ from the usual ones.
#[derive(Clone, Debug, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
#[describe(name = "NewAccount")]
pub struct New {
    pub account: AccountName,
    #[serde(default)]
    pub settings: Change,
}

#[derive(Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields)]
pub struct Password {
    pub password: String,
}

/// What any caller may ask; an account's login sees itself.
pub fn routes<P: Port>() -> Table<P> {
    Table::of(TAG, ABOUT).get("/accounts", "List accounts", list::<P>).get(
        "/accounts/{account}",
        "Show an account",
        show::<P>,
    )
}

pub fn operator_routes<P: Port>() -> Table<P> {
    Table::of(TAG, ABOUT)
        .post("/accounts", "Make an account", create::<P>)
        .patch("/accounts/{account}", "Change an account", change::<P>)
        .delete("/accounts/{account}", "Remove an account", remove::<P>)
        .more("What it has queued fails; its endpoints, suppressions and mailboxes are forgotten.")
        .put("/accounts/{account}/password", "Set an account's password", set_password::<P>)
}

async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(paging): Query<Paging>,
) -> Result<Json<Page<Account>>, Problem> {
    let list = read(&site, move |view| {
        let mut all = accounts::accounts(view)?;
        all.retain(|row| caller.may_see(&row.account));
        let page = paging.cut(all, |row| row.account.to_string())?;
        let items = page.items.into_iter().map(|row| account_of(view, row)).collect::<Result<_, _>>()?;
        Ok(Page { items, next: page.next })
    });
    list.await.map(Json)
}

async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(name): Path<AccountName>,
) -> Result<Json<Account>, Problem> {
    let name = caller.one(Some(name))?;
    find(&site, name).await.map(Json)
}

async fn create<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Body(new): Body<New>,
) -> Result<Created<Account>, Problem> {
    configure(&site, &caller, new.account.clone(), true, new.settings).await?;
    Ok(Created(find(&site, new.account).await?))
}

async fn change<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(name): Path<AccountName>,
    Body(change): Body<Change>,
) -> Result<Json<Account>, Problem> {
    configure(&site, &caller, name.clone(), false, change).await?;
    find(&site, name).await.map(Json)
}

async fn configure<P: Port>(
    site: &Site<P>,
    caller: &Caller,
    account: AccountName,
    create: bool,
    change: Change,
) -> Result<Answer, Problem> {
    let command = ConfigureAccount { account, create, change: change.into(), by: caller.author() };
    Ok(site.port.execute(Command::ConfigureAccount(Box::new(command))).await?)
}

async fn remove<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(account): Path<AccountName>,
) -> Result<Started, Problem> {
    let command = RemoveAccount { account, by: caller.author() };
    Started::of(site.port.execute(Command::RemoveAccount(command)).await?)
}

async fn set_password<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(account): Path<AccountName>,
    Body(Password { password }): Body<Password>,
) -> Result<NoContent, Problem> {
    site.port.set_password(&account, &password, caller.author()).await?;
    Ok(NoContent)
}

async fn find<P: Port>(site: &Arc<Site<P>>, name: AccountName) -> Result<Account, Problem> {
    read(site, move |view| {
        let row = existing(view, &name)?;
        account_of(view, row)
    })
    .await
}

/// The account, or the problem that there is none.
pub fn existing(rows: &impl Rows, name: &AccountName) -> Result<AccountRow, Problem> {
    let row = accounts::account(rows, name)?;
    row.ok_or_else(|| Refusal::NoSuch(Thing::Account(name.to_string())).into())
}

fn account_of(rows: &impl Rows, row: AccountRow) -> Result<Account, Problem> {
    let addresses = accounts::addresses_of(rows, &row.account, ADDRESSES_SHOWN_MAX)?;
    let storage = mailboxes::storage(rows, &row.account)?;
    let s = row.settings;
    Ok(Account {
        account: row.account,
        full_name: row.full_name,
        login_disabled: s.login_disabled,
        has_password: s.password.is_some(),
        fromid_logins: s.fromid_logins,
        keep_s: s.keep_s,
        keep_contents: s.keep_contents,
        messages_per_day_max: s.messages_per_day_max,
        first_time_recipients_per_day_max: s.first_time_recipients_per_day_max,
        quota_bytes: s.quota_bytes,
        fold: s.fold,
        retry_waits_s: s.retry.map(|retry| retry.waits_s),
        addresses: addresses.into_iter().map(|row| row.address).collect(),
        stored_bytes: storage.octets,
        stored_messages: storage.messages,
        created: row.created,
        removing: row.removing,
    })
}

impl From<Change> for AccountChange {
    fn from(change: Change) -> AccountChange {
        AccountChange {
            full_name: change.full_name,
            login_disabled: change.login_disabled,
            password: None,
            fromid_logins: change.fromid_logins,
            keep_s: change.keep_s,
            keep_contents: change.keep_contents,
            messages_per_day_max: change.messages_per_day_max,
            first_time_recipients_per_day_max: change.first_time_recipients_per_day_max,
            quota_bytes: change.quota_bytes,
            fold: change.fold,
            retry: change.retry_waits_s.map(|waits| waits.map(|waits_s| RetrySchedule { waits_s })),
        }
    }
}

/// Tells `null` from a field that is not there.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(d).map(Some)
}
