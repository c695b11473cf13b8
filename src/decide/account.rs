//! Accounts and the addresses that lead to them.

use postledger_events::Answer;
use postledger_events::Refusal;
use postledger_events::address::Address;
use postledger_events::command::{AddAddress, ConfigureAccount, RemoveAccount, RemoveAddress};
use postledger_events::fact::account::{
    AccountConfigured, AccountPersonal, AccountSettings, AddressAdded, AddressRemoved, Destination, RetrySchedule,
};
use postledger_events::fact::job::{JobStarted, Work};
use postledger_events::id::{AccountName, Author};
use postledger_events::refusal::Thing;
use postledger_projections::accounts::{self, AccountRow, LIST_MAX};
use postledger_projections::{Rows, suppressions};

use super::{Decision, Policy, damaged, queue};

/// Attempts of one delivery.
const ATTEMPTS_MAX: usize = 100;
/// The longest wait between two attempts.
const WAIT_MAX_S: u32 = 7 * 24 * 3600;
/// The longest keep period: ten years.
const KEEP_MAX_S: u64 = 3660 * 24 * 3600;
const FULL_NAME_CHARS_MAX: usize = 200;

pub fn configure(c: &ConfigureAccount, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let before = accounts::account(rows, &c.account).map_err(damaged)?;
    let (mut settings, mut full_name) = match &before {
        Some(_) if c.create => return Err(Refusal::Exists(Thing::Account(c.account.to_string()))),
        None if !c.create => return Err(Refusal::NoSuch(Thing::Account(c.account.to_string()))),
        Some(row) if row.removing.is_some() => return Err(Refusal::AccountGoing(c.account.clone())),
        Some(row) => (row.settings.clone(), row.full_name.clone().unwrap_or_default()),
        None => (AccountSettings::default(), String::new()),
    };
    if c.change.fold.is_some_and(|fold| fold != settings.fold)
        && !suppressions::some(rows, &c.account, 1).map_err(damaged)?.is_empty()
    {
        let why = "suppressed addresses, which are kept as the present way of folding has them; remove them first";
        return Err(Refusal::InUse(why.to_owned()));
    }
    let replaced = settings.password.filter(|_| c.change.password.is_some());
    c.change.clone().apply(&mut full_name, &mut settings);
    check(&settings, &full_name)?;
    for login in c.change.fromid_logins.iter().flatten() {
        check_fromid_login(login, &c.account, rows)?;
    }
    let mut decision = Decision::done(configured(c.account.clone(), settings, full_name, c.by.clone()));
    decision.forget_secrets.extend(replaced.map(|secret| secret.id));
    Ok(decision)
}

pub fn remove(c: &RemoveAccount, rows: &dyn Rows, policy: &Policy) -> Result<Decision, Refusal> {
    live(rows, &c.account)?;
    let job = queue::next_job(rows, policy)?;
    let event = JobStarted { job, work: Work::RemoveAccount(c.account.clone()), by: c.by.clone() };
    Ok(Decision { events: vec![event.into()], ..Decision::new(Answer::Job(job)) })
}

pub fn add_address(c: &AddAddress, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let account = live(rows, &c.account)?;
    let domain = accounts::domain(rows, c.address.domain()).map_err(damaged)?;
    let domain = domain.ok_or_else(|| Refusal::NoSuch(Thing::Domain(c.address.domain().to_string())))?;
    let address = match &c.address {
        Destination::Address(a) => accounts::canonical(a, &domain.settings)
            .map(Destination::Address)
            .ok_or_else(|| Refusal::Invalid(format!("{a} has nothing before the separator")))?,
        catch_all @ Destination::CatchAll(_) => catch_all.clone(),
    };
    if let Some(taken) = accounts::address(rows, &address).map_err(damaged)? {
        return Err(Refusal::Exists(Thing::Address(format!("{address} (of account {})", taken.account))));
    }
    let added = AddressAdded { address: address.clone(), account: c.account.clone(), by: c.by.clone() };
    let mut decision = Decision::done(added);
    // Where every address so far is a fromid login, the new one is as well; so a new account has fromid on.
    let existing = accounts::addresses_of(rows, &c.account, LIST_MAX).map_err(damaged)?;
    let fromids = &account.settings.fromid_logins;
    let all_on = existing.iter().all(|row| match &row.address {
        Destination::Address(a) => fromids.contains(a),
        Destination::CatchAll(_) => true,
    });
    if let Destination::Address(login) = address
        && all_on
        && !domain.settings.separators.is_empty()
    {
        let AccountRow { account: name, mut settings, full_name, .. } = account;
        settings.fromid_logins.push(login);
        decision.events.push(configured(name, settings, full_name.unwrap_or_default(), c.by.clone()).into());
    }
    Ok(decision)
}

pub fn remove_address(c: &RemoveAddress, rows: &dyn Rows) -> Result<Decision, Refusal> {
    let row = accounts::address(rows, &c.address).map_err(damaged)?;
    let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Address(c.address.to_string())))?;
    let account = live(rows, &row.account)?;
    let removed = AddressRemoved { address: row.address.clone(), account: row.account, by: c.by.clone() };
    let mut decision = Decision::done(removed);
    if let Destination::Address(login) = row.address
        && account.settings.fromid_logins.contains(&login)
    {
        let AccountRow { account: name, mut settings, full_name, .. } = account;
        settings.fromid_logins.retain(|a| *a != login);
        decision.events.push(configured(name, settings, full_name.unwrap_or_default(), c.by.clone()).into());
    }
    Ok(decision)
}

fn configured(account: AccountName, settings: AccountSettings, full_name: String, by: Author) -> AccountConfigured {
    AccountConfigured { account, settings, by, personal: Some(AccountPersonal { full_name }) }
}

/// The account, unless it is going.
pub fn live(rows: &dyn Rows, name: &AccountName) -> Result<AccountRow, Refusal> {
    let account = accounts::account(rows, name).map_err(damaged)?;
    let account = account.ok_or_else(|| Refusal::NoSuch(Thing::Account(name.to_string())))?;
    if account.removing.is_some() { Err(Refusal::AccountGoing(name.clone())) } else { Ok(account) }
}

fn check(settings: &AccountSettings, full_name: &str) -> Result<(), Refusal> {
    let invalid = |why: String| Err(Refusal::Invalid(why));
    if full_name.chars().count() > FULL_NAME_CHARS_MAX || full_name.chars().any(char::is_control) {
        return invalid(format!("a full name has at most {FULL_NAME_CHARS_MAX} characters and no control characters"));
    }
    if settings.keep_s > KEEP_MAX_S {
        return invalid(format!("a keep period is at most {KEEP_MAX_S} seconds"));
    }
    match &settings.retry {
        Some(RetrySchedule { waits_s }) if waits_s.len() >= ATTEMPTS_MAX => {
            invalid(format!("a retry schedule has at most {} waits", ATTEMPTS_MAX - 1))
        }
        Some(RetrySchedule { waits_s }) if waits_s.iter().any(|w| *w == 0 || *w > WAIT_MAX_S) => {
            invalid(format!("waits between attempts are 1 to {WAIT_MAX_S} seconds"))
        }
        Some(_) | None => Ok(()),
    }
}

/// A fromid login must be an address of the account, in a domain that has a separator to put the fromid behind.
fn check_fromid_login(login: &Address, account: &AccountName, rows: &dyn Rows) -> Result<(), Refusal> {
    match accounts::resolve(rows, login).map_err(damaged)? {
        Some((owner, _)) if owner != *account => {
            Err(Refusal::Invalid(format!("fromid login {login} is not an address of account {account}")))
        }
        None => Err(Refusal::Invalid(format!("fromid login {login} is not an address of account {account}"))),
        Some((_, domain)) if domain.settings.separators.is_empty() => Err(Refusal::Invalid(format!(
            "domain {} has no separator, which fromid needs; set one with `postledger domain set {} --separator +`",
            login.domain, login.domain
        ))),
        Some(_) => Ok(()),
    }
}
