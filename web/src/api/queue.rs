//! The queue: deliveries that have not reached their end, and by number also those that have.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use postledger_events::Refusal;
use postledger_events::address::{Address, Domain};
use postledger_events::fact::attempt::Failure;
use postledger_events::fact::delivery::{HoldCause, Wish};
use postledger_events::id::{AccountName, DeliveryId, FromId, HoldRuleId, JobId, MessageUuid};
use postledger_events::refusal::Thing;
use postledger_events::reply::EnhancedCode;
use postledger_events::time::Timestamp;
use postledger_projections::deliveries::{self, DeliveryRow, LastProblem, MessageRow, State as At};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::extract::{Path, Query, read};
use super::page::{Page, limit};
use super::problem::Problem;
use super::queue_walk::{Filter, Place, Standing, walk};
use crate::openapi::{Describe, Table};
use crate::{Port, Site};

/// One recipient of one message. What names or quotes people is `null` if it was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct Delivery {
    pub id: DeliveryId,
    /// What its timeline is found by.
    pub message: MessageUuid,
    pub account: AccountName,
    /// `queued`, `held`, `running`, `delivered`, `failed`, `suppressed` or `canceled`.
    pub state: String,
    /// The rule that holds it; a held delivery without one is held by a person.
    pub hold_rule: Option<HoldRuleId>,
    /// It is on hold because the ledger was restored: it is in doubt whether it was sent.
    pub restored: bool,
    pub failure: Option<Failure>,
    pub recipient: Option<Address>,
    pub domain: Domain,
    pub from: Option<Address>,
    pub fromid: Option<FromId>,
    pub message_id: Option<String>,
    pub subject: Option<String>,
    pub size: u64,
    pub attempts: u32,
    /// Of these, attempts whose outcome nobody knows.
    pub in_doubt: u32,
    pub submitted: Timestamp,
    /// When it is, was, or after a release will be due.
    pub due: Timestamp,
    pub last_activity: Timestamp,
    pub last_problem: Option<LastFailure>,
    /// What is to be done with it when its running attempt has ended.
    pub wish: Option<Wish>,
    /// The last job that treated it.
    pub job: Option<JobId>,
    /// Finished deliveries are listed until then.
    pub keep_until: Option<Timestamp>,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
pub struct LastFailure {
    /// The reply's code; 0 if it was no reply.
    pub code: u16,
    pub enhanced: Option<EnhancedCode>,
    pub text: Option<String>,
}

/// A list of the queue: the conditions of a [`Filter`], a state, and which page.
#[derive(Deserialize, Describe)]
#[serde(deny_unknown_fields)]
struct Listing {
    /// Numbers with commas between.
    ids: Option<String>,
    message: Option<MessageUuid>,
    /// Whose. An account's login has only its own.
    account: Option<AccountName>,
    /// A part of the reverse-path or of the address in From.
    from: Option<String>,
    /// A part of the recipient's address.
    to: Option<String>,
    /// The recipient's.
    domain: Option<Domain>,
    /// The reverse-path's.
    sender_domain: Option<Domain>,
    held: Option<bool>,
    /// On hold since the ledger was restored, in doubt whether they were sent.
    restored: Option<bool>,
    submitted_before: Option<Timestamp>,
    submitted_after: Option<Timestamp>,
    due_before: Option<Timestamp>,
    due_after: Option<Timestamp>,
    state: Option<Standing>,
    /// The `next` of the page before.
    cursor: Option<String>,
    /// At most so many entries: 1 to 1000; 100 if it is missing.
    limit: Option<usize>,
}

impl Listing {
    fn filter(&self, scope: Option<AccountName>) -> Result<Filter, Problem> {
        let ids = self.ids.as_deref().map(|ids| ids.split(',').map(str::parse).collect::<Result<_, _>>());
        Ok(Filter {
            ids: ids
                .transpose()
                .map_err(|_| Problem::invalid("ids are numbers with commas between"))?
                .unwrap_or_default(),
            message: self.message,
            account: scope,
            from: self.from.clone(),
            to: self.to.clone(),
            domain: self.domain.clone(),
            sender_domain: self.sender_domain.clone(),
            held: self.held,
            restored: self.restored,
            submitted_before: self.submitted_before,
            submitted_after: self.submitted_after,
            due_before: self.due_before,
            due_after: self.due_after,
        })
    }
}

pub const TAG: &str = "Queue";
pub const ABOUT: &str = "Deliveries that have not reached their end, and by number also those that have.";

pub fn routes<P: Port>() -> Table<P> {
    Table::of(TAG, ABOUT)
        .get("/queue", "List deliveries that have not reached their end", list::<P>)
        .more("First what is held, by number, then the rest, by due time. A page may be short, even empty, and have a next.")
        .get("/queue/{id}", "Show a delivery", show::<P>)
}

/// First what is held, by number, then the rest, by due time. A page may be short, even empty, and have a next.
async fn list<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Query(listing): Query<Listing>,
) -> Result<Json<Page<Delivery>>, Problem> {
    let filter = listing.filter(caller.scope(listing.account.clone())?)?;
    let from = listing.cursor.as_deref().map_or(Ok(Place::START), Place::parse)?;
    let limit = limit(listing.limit)?;
    let list = read(&site, move |view| {
        let (found, next) = walk(view, &filter, listing.state, from, limit)?;
        let items = found.into_iter().map(|(row, message)| delivery_of(row, Some(message))).collect();
        Ok(Page { items, next: next.map(|place| place.to_string()) })
    });
    list.await.map(Json)
}

async fn show<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    Path(id): Path<DeliveryId>,
) -> Result<Json<Delivery>, Problem> {
    let found = read(&site, move |view| {
        let row = deliveries::delivery(view, id)?.filter(|row| caller.may_see(&row.account));
        let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Delivery(id.to_string())))?;
        let message = deliveries::message(view, row.message)?;
        Ok(delivery_of(row, message))
    });
    found.await.map(Json)
}

fn delivery_of(row: DeliveryRow, message: Option<MessageRow>) -> Delivery {
    let size = message.as_ref().map_or(0, |m| m.body.size);
    let submitted = message.as_ref().map_or(Timestamp::EPOCH, |m| m.submitted);
    let personal = message.and_then(|m| m.personal);
    let (from, message_id, subject) = match personal {
        Some(p) => (Some(p.from), Some(p.message_id), Some(p.subject)),
        None => (None, None, None),
    };
    let restored = row.state == At::Held(HoldCause::Restored);
    let (hold_rule, failure) = match row.state {
        At::Held(HoldCause::Rule(rule)) => (Some(rule), None),
        At::Failed(why) => (None, Some(why)),
        At::Held(HoldCause::Person | HoldCause::Restored)
        | At::Queued
        | At::Running(..)
        | At::Delivered
        | At::Suppressed
        | At::Canceled => (None, None),
    };
    Delivery {
        id: row.id,
        message: row.message,
        account: row.account,
        state: row.state.word().to_owned(),
        hold_rule,
        restored,
        failure,
        recipient: row.address,
        domain: row.domain,
        from,
        fromid: row.fromid,
        message_id,
        subject,
        size,
        attempts: row.attempts,
        in_doubt: row.in_doubt,
        submitted,
        due: row.due,
        last_activity: row.last_activity,
        last_problem: row.last.map(|LastProblem { code, enhanced, text }| LastFailure { code, enhanced, text }),
        wish: row.wish.map(|(wish, _)| wish),
        job: row.jobs.last().copied(),
        keep_until: row.keep_until,
    }
}
