//! Sending again what was given up: deliveries that failed, were canceled or suppressed, as new submissions that name their origin.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use postledger_events::Refusal;
use postledger_events::command::{IdempotencyKey, Submitted};
use postledger_events::id::{AccountName, Author, DeliveryId, MessageUuid, Sha256};
use postledger_events::refusal::Thing;
use postledger_projections::deliveries::{self, DeliveryRow, State as At};
use postledger_projections::{Error, Rows};
use serde::{Deserialize, Serialize};

use super::answer::Accepted;
use super::caller::Caller;
use super::extract::{Body, OnceKey, Path, read};
use super::page::bad_cursor;
use super::problem::{Code, Problem};
use super::queue;
use super::queue_walk::Filter;
use crate::openapi::{Describe, Table};
use crate::port::Redelivery;
use crate::{Port, Site};

/// Deliveries that one request sends again, and besides only the rest of the last message; the answer says where the next goes on.
const REQUEST_DELIVERIES_MAX: usize = 200;
/// Deliveries that one request looks at, and besides the rest of the last message.
const EXAMINED_MAX: usize = 10_000;
/// Rows that are read at once.
const CHUNK: usize = 500;
/// What the keys of such requests are for.
const METHOD: &str = "Redeliver";

/// Which deliveries are sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
#[describe(name = "RedeliveryWish", example = r#"{"filter": {"domain": "example.net"}, "states": ["failed"]}"#)]
pub struct Wish {
    /// With numbers exactly those; else all that agree and are in one of the states.
    pub filter: Filter,
    /// Empty: only what failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<Ended>,
    /// A filter without any condition means everything that is kept and must be confirmed.
    pub all: bool,
    /// Where the part before this one ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// How a delivery can have ended without arriving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "snake_case")]
#[describe(name = "EndedDelivery")]
pub enum Ended {
    Failed,
    Canceled,
    Suppressed,
}

impl Ended {
    fn is(self, state: At) -> bool {
        match self {
            Ended::Failed => matches!(state, At::Failed(_)),
            Ended::Canceled => state == At::Canceled,
            Ended::Suppressed => state == At::Suppressed,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "RedeliveredPart")]
pub struct Part {
    pub made: Vec<Made>,
    pub refused: Vec<Refused>,
    /// What to ask `cursor` for what follows; `null`: nothing follows.
    pub next: Option<String>,
}

/// A delivery that was sent again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "RedeliveredDelivery")]
pub struct Made {
    pub origin: DeliveryId,
    pub delivery: DeliveryId,
    /// The new message.
    pub message: MessageUuid,
    /// It had been, with the same Idempotency-Key.
    pub repeated: bool,
}

/// A delivery that was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[describe(name = "RefusedDelivery")]
pub struct Refused {
    pub origin: DeliveryId,
    pub code: Code,
    pub detail: String,
}

pub fn routes<P: Port>() -> Table<P> {
    Table::of(queue::TAG, queue::ABOUT)
        .post("/queue/redeliver", "Send deliveries again that did not arrive", redeliver::<P>)
        .more(
            "Recipients of one message stay together: a part ends behind the last of a message, however many there are. Ask again \
             with the answer's `next` as `cursor` until it is `null`.",
        )
        .post("/queue/{id}/redeliver", "Send a delivery again that did not arrive", redeliver_one::<P>)
}

async fn redeliver_one<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    OnceKey(key): OnceKey,
    Path(id): Path<DeliveryId>,
) -> Result<Accepted<Made>, Problem> {
    let author = caller.author();
    let found = read(&site, move |view| {
        let row = deliveries::delivery(view, id)?.filter(|row| caller.may_see(&row.account));
        let row = row.ok_or_else(|| Refusal::NoSuch(Thing::Delivery(id.to_string())))?;
        Ok(Group { account: row.account, message: row.message, deliveries: vec![id] })
    });
    let submitted = found.await?.send(&site, key.as_deref(), &author).await?;
    let made = made(&[id], &submitted).pop().ok_or_else(|| Problem::internal("nothing was sent"))?;
    Ok(Accepted(made))
}

async fn redeliver<P: Port>(
    State(site): State<Arc<Site<P>>>,
    caller: Caller,
    OnceKey(key): OnceKey,
    Body(wish): Body<Wish>,
) -> Result<Json<Part>, Problem> {
    let Wish { mut filter, states, all, cursor } = wish;
    if filter == Filter::default() && !all {
        return Err(Problem::invalid("a filter without any condition means all that did not arrive; say so with all"));
    }
    if filter.ids.len() > REQUEST_DELIVERIES_MAX {
        return Err(Problem::invalid(format!("more than {REQUEST_DELIVERIES_MAX} ids; name fewer")));
    }
    filter.account = caller.scope(filter.account.take())?;
    let author = caller.author();
    let from = cursor.as_deref().map(Place::parse).transpose()?;
    let states = if states.is_empty() { vec![Ended::Failed] } else { states };
    let Selected { groups, mut refused, next } = read(&site, move |view| select(view, &filter, &states, from)).await?;
    let (mut all_made, mut broken) = (Vec::new(), None);
    for group in groups {
        let sent = match &broken {
            None => group.send(&site, key.as_deref(), &author).await,
            Some(problem) => Err(Problem::clone(problem)),
        };
        match sent {
            Ok(submitted) => all_made.extend(made(&group.deliveries, &submitted)),
            Err(problem) => {
                refused.extend(group.deliveries.iter().map(|origin| Refused::new(*origin, &problem)));
                broken = Some(problem).filter(Problem::is_ours);
            }
        }
    }
    // What was sent is told in any case.
    if let Some(problem) = broken.filter(|_| all_made.is_empty()) {
        return Err(problem);
    }
    Ok(Json(Part { made: all_made, refused, next: next.map(|place| place.to_string()) }))
}

impl Refused {
    fn new(origin: DeliveryId, problem: &Problem) -> Refused {
        let (code, detail) = problem.told();
        Refused { origin, code, detail: detail.to_owned() }
    }
}

/// Recipients are in the order of the deliveries that they repeat.
fn made(origins: &[DeliveryId], submitted: &Submitted) -> Vec<Made> {
    let Submitted { message, repeated, .. } = *submitted;
    let pairs = origins.iter().zip(&submitted.recipients);
    pairs.map(|(origin, (_, delivery, _))| Made { origin: *origin, delivery: *delivery, message, repeated }).collect()
}

/// Deliveries of one message; they become one new submission.
struct Group {
    account: AccountName,
    message: MessageUuid,
    deliveries: Vec<DeliveryId>,
}

impl Group {
    async fn send<P: Port>(&self, site: &Site<P>, key: Option<&str>, by: &Author) -> Result<Submitted, Problem> {
        // Each message has an answer of its own.
        let idempotency = key.map(|key| IdempotencyKey {
            method: METHOD,
            key: format!("{key}/{}", self.message),
            request: Sha256::of(format!("{:?}", self.deliveries).as_bytes()),
        });
        let (account, message, deliveries) = (self.account.clone(), self.message, self.deliveries.clone());
        let wish = Redelivery { account, message, deliveries, by: by.clone(), idempotency };
        Ok(site.port.redeliver(wish).await?)
    }
}

/// What one request is about.
#[derive(Default)]
struct Selected {
    groups: Vec<Group>,
    refused: Vec<Refused>,
    next: Option<Place>,
}

impl Selected {
    fn add(&mut self, row: &DeliveryRow) {
        match self.groups.iter_mut().find(|group| group.message == row.message) {
            Some(group) => group.deliveries.push(row.id),
            None => {
                self.groups.push(Group { account: row.account.clone(), message: row.message, deliveries: vec![row.id] })
            }
        }
    }
}

/// How far a selection has come, and the last delivery that there was when it began: what is sent again is not selected anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    from: DeliveryId,
    until: DeliveryId,
}

impl Place {
    fn parse(s: &str) -> Result<Place, Problem> {
        let numbers = s.split_once('-').and_then(|(from, until)| from.parse().ok().zip(until.parse().ok()));
        numbers.map(|(from, until)| Place { from, until }).ok_or_else(bad_cursor)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.until)
    }
}

fn select(rows: &impl Rows, filter: &Filter, states: &[Ended], from: Option<Place>) -> Result<Selected, Problem> {
    if filter.ids.is_empty() { by_conditions(rows, filter, states, from) } else { by_numbers(rows, filter) }
}

/// Each that was named is told of.
fn by_numbers(rows: &impl Rows, filter: &Filter) -> Result<Selected, Problem> {
    let mut selected = Selected::default();
    for id in filter.ids.iter().copied().collect::<BTreeSet<_>>() {
        let checked = match found(rows, filter, id)? {
            None => Err(Refusal::NoSuch(Thing::Delivery(id.to_string()))),
            Some(row) => row.check_sent_again().map(|()| row),
        };
        match checked {
            Ok(row) => selected.add(&row),
            Err(refusal) => selected.refused.push(Refused::new(id, &refusal.into())),
        }
    }
    Ok(selected)
}

fn found(rows: &impl Rows, filter: &Filter, id: DeliveryId) -> Result<Option<DeliveryRow>, Error> {
    let Some(row) = deliveries::delivery(rows, id)? else { return Ok(None) };
    let Some(message) = deliveries::message(rows, row.message)? else { return Ok(None) };
    Ok(filter.is_meant(&row, &message).then_some(row))
}

/// Ends between two messages: a message's deliveries are numbered one after the other, and become one submission, whose key names
/// the message.
fn by_conditions(
    rows: &impl Rows,
    filter: &Filter,
    states: &[Ended],
    from: Option<Place>,
) -> Result<Selected, Problem> {
    let until = DeliveryId(deliveries::last_number(rows)?);
    let mut place = from.unwrap_or(Place { from: DeliveryId(0), until });
    let (mut selected, mut examined, mut count) = (Selected::default(), 0, 0);
    let mut message: Option<MessageUuid> = None;
    loop {
        let chunk = deliveries::all(rows, place.from, CHUNK)?;
        let is_last = chunk.len() < CHUNK;
        for row in chunk {
            if row.id > place.until {
                return Ok(selected);
            }
            let is_full = examined >= EXAMINED_MAX || count >= REQUEST_DELIVERIES_MAX;
            if is_full && message != Some(row.message) {
                selected.next = Some(place);
                return Ok(selected);
            }
            place.from = DeliveryId(row.id.0 + 1);
            message = Some(row.message);
            examined += 1;
            if states.iter().any(|state| state.is(row.state)) && found(rows, filter, row.id)?.is_some() {
                selected.add(&row);
                count += 1;
            }
        }
        if is_last {
            return Ok(selected);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use postledger_events::fact::delivery::{CanceledDelivery, DeliveryCanceled};
    use postledger_events::fact::submission::SubmittedDelivery;
    use postledger_events::id::Seq;
    use postledger_events::time::Timestamp;
    use postledger_events::{Event, Record};
    use postledger_projections::{Memory, fold};

    use super::super::tests::{name, submitted, uuid};
    use super::*;

    #[derive(Default)]
    struct Ledger {
        rows: Memory,
        seq: u64,
    }

    impl Ledger {
        fn append(&mut self, event: Event) {
            self.seq += 1;
            let at = Timestamp::from_secs(100);
            fold(&Record { seq: Seq(self.seq), at, prev: Sha256::ZERO, event }, &mut self.rows).unwrap();
        }

        /// A message with these deliveries.
        fn submit(&mut self, n: u64, ids: Range<u64>) {
            let Event::MessageSubmitted(mut message) = submitted("a", n) else { unreachable!("it is one") };
            let delivery = message.deliveries.remove(0);
            message.deliveries = ids.map(|id| SubmittedDelivery { id: DeliveryId(id), ..delivery.clone() }).collect();
            let recipients = &mut message.personal.as_mut().unwrap().recipients;
            *recipients = vec![recipients[0].clone(); message.deliveries.len()];
            self.append(message.into());
        }

        /// One of which all are canceled.
        fn cancel(&mut self, n: u64, ids: Range<u64>) {
            self.submit(n, ids.clone());
            let deliveries = ids.map(|id| CanceledDelivery { id: DeliveryId(id), held: false }).collect();
            let (message, account, by) = (uuid(n), name("a"), Author::program());
            let keep_until = Timestamp::from_secs(1000);
            self.append(DeliveryCanceled { message, account, deliveries, keep_until, job: None, by }.into());
        }

        /// How many deliveries of each message one part has, and where the next begins.
        fn part(&self, from: Option<Place>) -> (Vec<usize>, Option<Place>) {
            let part = select(&self.rows, &Filter::default(), &[Ended::Canceled], from).unwrap();
            (part.groups.iter().map(|group| group.deliveries.len()).collect(), part.next)
        }
    }

    #[test]
    fn a_part_ends_between_two_messages() {
        let mut ledger = Ledger::default();
        ledger.cancel(1, 1..151);
        ledger.cancel(2, 151..1151);
        assert_eq!(ledger.part(None), (vec![150, 1000], None), "nothing follows");
        ledger.cancel(3, 1151..1161);
        let next = Place { from: DeliveryId(1151), until: DeliveryId(1160) };
        assert_eq!(ledger.part(None), (vec![150, 1000], Some(next)));
        ledger.cancel(4, 1161..1162);
        assert_eq!(ledger.part(Some(next)), (vec![10], None), "what came since is not selected");
    }

    #[test]
    fn a_part_that_looked_at_many_ends_between_two_messages() {
        let mut ledger = Ledger::default();
        ledger.submit(1, 1..9991);
        ledger.cancel(2, 9991..10021);
        ledger.cancel(3, 10021..10022);
        let next = Place { from: DeliveryId(10021), until: DeliveryId(10021) };
        assert_eq!(ledger.part(None), (vec![30], Some(next)));
        assert_eq!(ledger.part(Some(next)), (vec![1], None));
    }

    #[test]
    fn places_round_trip() {
        let place = Place { from: DeliveryId(3), until: DeliveryId(17) };
        assert_eq!(Place::parse(&place.to_string()), Ok(place));
        for bad in ["", "3", "3-", "-3", "x-1", "é"] {
            assert!(Place::parse(bad).is_err(), "{bad:?}");
        }
    }
}
