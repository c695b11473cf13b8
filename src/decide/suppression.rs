//! Putting addresses on an account's suppression list and taking them off; repeated requests.

use std::time::Duration;

use postledger_events::command::{IdempotencyKey, LiftSuppression, Suppress};
use postledger_events::fact::submission::Idempotency;
use postledger_events::fact::suppression::{AddressSuppressed, Cause, SuppressionLifted, SuppressionPersonal};
use postledger_events::id::{AccountName, Sha256, SuppressionId};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Refusal};
use postledger_projections::accounts::AccountRow;
use postledger_projections::usage::{self, AnswerRow};
use postledger_projections::{Rows, accounts, suppressions};

use super::{Decision, Moment, Policy, damaged, next_number, pseudonym};

/// How long a request with an Idempotency-Key can be repeated.
const IDEMPOTENCY_S: u64 = 24 * 3600;
/// Why an address is on the list, in somebody's words.
const REASON_CHARS_MAX: usize = 1000;

pub fn suppress(c: &Suppress, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    if earlier_answer(rows, &c.account, c.idempotency.as_ref(), moment.now)?.is_some() {
        return Ok(Decision::new(Answer::Done));
    }
    if c.reason.chars().count() > REASON_CHARS_MAX {
        return Err(Refusal::Invalid(format!("a reason has at most {REASON_CHARS_MAX} characters")));
    }
    let account = live_account(rows, &c.account)?;
    let recipient = pseudonym::recipient_key(&policy.pepper, &c.account, &c.address, account.settings.fold);
    let base_address = pseudonym::base_address(&c.address, account.settings.fold);
    if suppressions::suppression(rows, &c.account, recipient).map_err(damaged)?.is_some() {
        return Err(Refusal::Exists(Thing::Suppression(base_address)));
    }
    let id = SuppressionId(next_number(suppressions::last_number(rows).map_err(damaged)?, policy.ledger_number));
    let event = AddressSuppressed {
        id,
        account: c.account.clone(),
        recipient,
        cause: Cause::Person(c.by.clone()),
        manual: c.manual,
        idempotency: c.idempotency.as_ref().map(|i| idempotency(&c.account, i, moment.now)),
        personal: Some(SuppressionPersonal {
            base_address,
            original_address: c.address.clone(),
            reason: c.reason.clone(),
        }),
    };
    Ok(Decision { events: vec![event.into()], ..Decision::new(Answer::Suppressed(id)) })
}

pub fn lift(c: &LiftSuppression, rows: &dyn Rows, policy: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    if earlier_answer(rows, &c.account, c.idempotency.as_ref(), moment.now)?.is_some() {
        return Ok(Decision::new(Answer::Done));
    }
    let account = live_account(rows, &c.account)?;
    let recipient = pseudonym::recipient_key(&policy.pepper, &c.account, &c.address, account.settings.fold);
    let row = suppressions::suppression(rows, &c.account, recipient).map_err(damaged)?;
    let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Suppression(c.address.to_unicode())))?;
    Ok(Decision::done(SuppressionLifted {
        id: row.id,
        account: c.account.clone(),
        recipient,
        by: c.by.clone(),
        idempotency: c.idempotency.as_ref().map(|i| idempotency(&c.account, i, moment.now)),
    }))
}

/// What this request was answered before, if it was and that is still kept.
pub fn earlier_answer(
    rows: &dyn Rows,
    account: &AccountName,
    key: Option<&IdempotencyKey>,
    now: Timestamp,
) -> Result<Option<AnswerRow>, Refusal> {
    let Some(key) = key else { return Ok(None) };
    match usage::answer(rows, key_hash(account, key)).map_err(damaged)? {
        Some(row) if row.until <= now => Ok(None),
        Some(row) if row.request != key.request => Err(Refusal::IdempotencyMismatch),
        row => Ok(row),
    }
}

/// How a key is kept.
pub fn idempotency(account: &AccountName, key: &IdempotencyKey, now: Timestamp) -> Idempotency {
    Idempotency { key: key_hash(account, key), request: key.request, until: now + Duration::from_secs(IDEMPOTENCY_S) }
}

fn key_hash(account: &AccountName, key: &IdempotencyKey) -> Sha256 {
    // No part can hold a NUL, so the parts cannot run into each other.
    Sha256::of(format!("{account}\0{}\0{}", key.method, key.key).as_bytes())
}

fn live_account(rows: &dyn Rows, name: &AccountName) -> Result<AccountRow, Refusal> {
    let account = accounts::account(rows, name).map_err(damaged)?;
    let account = account.ok_or_else(|| Refusal::NoSuch(Thing::Account(name.to_string())))?;
    if account.removing.is_some() { Err(Refusal::AccountGoing(name.clone())) } else { Ok(account) }
}
