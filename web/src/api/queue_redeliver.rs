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

/// Deliveries that one request sends again; the answer says where the next goes on.
const REQUEST_DELIVERIES_MAX: usize = 200;
/// Deliveries that one request looks at.
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
        .more("Recipients of one message stay together. Ask again with the answer's `next` as `cursor` until it is `null`.")
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

fn by_conditions(
    rows: &impl Rows,
    filter: &Filter,
    states: &[Ended],
    from: Option<Place>,
) -> Result<Selected, Problem> {
    let until = DeliveryId(deliveries::last_number(rows)?);
    let mut place = from.unwrap_or(Place { from: DeliveryId(0), until });
    let (mut selected, mut examined, mut count) = (Selected::default(), 0, 0);
    while examined < EXAMINED_MAX && count < REQUEST_DELIVERIES_MAX {
        let chunk = deliveries::all(rows, place.from, CHUNK)?;
        let is_last = chunk.len() < CHUNK;
        for row in chunk {
            if row.id > place.until {
                return Ok(selected);
            }
            if count == REQUEST_DELIVERIES_MAX {
                break;
            }
            place.from = DeliveryId(row.id.0 + 1);
            examined += 1;
            if states.iter().any(|state| state.is(row.state)) && found(rows, filter, row.id)?.is_some() {
                selected.add(&row);
                count += 1;
            }
        }
        if is_last && count < REQUEST_DELIVERIES_MAX {
            return Ok(selected);
        }
    }
    selected.next = Some(place);
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip() {
        let place = Place { from: DeliveryId(3), until: DeliveryId(17) };
        assert_eq!(Place::parse(&place.to_string()), Ok(place));
        for bad in ["", "3", "3-", "-3", "x-1", "é"] {
            assert!(Place::parse(bad).is_err(), "{bad:?}");
        }
    }
}
