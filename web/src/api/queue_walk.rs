//! Walks the queue for what is meant, so far at a time that nobody waits long.

use std::collections::BTreeSet;
use std::fmt;

use postledger_events::address::{Address, Domain};
use postledger_events::fact::delivery::HoldCause;
use postledger_events::fact::job::QueueFilter;
use postledger_events::id::{AccountName, DeliveryId, MessageUuid};
use postledger_events::time::Timestamp;
use postledger_projections::Error;
use postledger_projections::deliveries::{self, DeliveryRow, Due, MessageRow, State};
use serde::{Deserialize, Serialize};

use super::page::bad_cursor;
use super::problem::Problem;
use crate::openapi::Describe;
use crate::port::View;

/// Deliveries that one walk looks at; one that is not through says where the next begins.
const EXAMINED_MAX: usize = 10_000;
/// Index entries that are read at once.
const CHUNK: usize = 500;

/// Which deliveries are meant: those that agree with every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(deny_unknown_fields, default)]
#[describe(name = "QueueFilter")]
pub struct Filter {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<DeliveryId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<MessageUuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountName>,
    /// A part of the reverse-path or of the address in From.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A part of the recipient's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The recipient's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// The reverse-path's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_domain: Option<Domain>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<bool>,
    /// On hold since the ledger was restored, in doubt whether they were sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitted_before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submitted_after: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_before: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_after: Option<Timestamp>,
}

impl Filter {
    /// Whether it looks for parts of addresses, which the ledger's own filters do not.
    pub fn has_parts(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// The conditions that the ledger knows, for these deliveries.
    pub fn to_command(&self, ids: Vec<DeliveryId>) -> QueueFilter {
        QueueFilter {
            ids,
            message: self.message,
            account: self.account.clone(),
            sender_domain: self.sender_domain.clone(),
            recipient_domain: self.domain.clone(),
            held: self.held,
            restored: self.restored,
            submitted_before: self.submitted_before,
            submitted_after: self.submitted_after,
            due_before: self.due_before,
            due_after: self.due_after,
        }
    }

    pub(super) fn is_meant(&self, row: &DeliveryRow, message: &MessageRow) -> bool {
        let personal = message.personal.as_ref();
        let sender = personal.and_then(|p| p.reverse_path.as_ref());
        let from = [sender, personal.map(|p| &p.from)];
        self.message.is_none_or(|message| message == row.message)
            && self.account.as_ref().is_none_or(|a| *a == row.account)
            && self.domain.as_ref().is_none_or(|d| *d == row.domain)
            && self.sender_domain.as_ref().is_none_or(|d| sender.is_some_and(|s| s.domain == *d))
            && self.from.as_ref().is_none_or(|part| from.into_iter().flatten().any(|a| has_part(a, part)))
            && self.to.as_ref().is_none_or(|part| row.address.as_ref().is_some_and(|a| has_part(a, part)))
            && self.held.is_none_or(|held| held == matches!(row.state, State::Held(_)))
            && self.restored.is_none_or(|restored| restored == (row.state == State::Held(HoldCause::Restored)))
            && self.submitted_before.is_none_or(|t| message.submitted < t)
            && self.submitted_after.is_none_or(|t| message.submitted > t)
            && self.due_before.is_none_or(|t| row.due < t)
            && self.due_after.is_none_or(|t| row.due > t)
    }
}

fn has_part(address: &Address, part: &str) -> bool {
    let part = part.to_lowercase();
    address.to_string().to_lowercase().contains(&part) || address.to_unicode().to_lowercase().contains(&part)
}

/// States of deliveries that have not reached their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Describe)]
#[serde(rename_all = "snake_case")]
#[describe(name = "QueueStanding")]
pub enum Standing {
    Queued,
    Held,
    Running,
}

impl Standing {
    fn is(self, state: State) -> bool {
        match self {
            Standing::Queued => state == State::Queued,
            Standing::Held => matches!(state, State::Held(_)),
            Standing::Running => matches!(state, State::Running(..)),
        }
    }
}

/// How far a walk has come: through what is held, then through what is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Held(DeliveryId),
    Due(Due),
}

impl Place {
    pub const START: Place = Place::Held(DeliveryId(0));

    pub fn parse(s: &str) -> Result<Place, Problem> {
        let place = match s.split_at_checked(1) {
            Some(("h", id)) => id.parse().ok().map(|id| Place::Held(DeliveryId(id))),
            Some(("d", due)) => due.split_once('-').and_then(|(at, id)| {
                let at = Timestamp::from_nanos(at.parse().ok().filter(|nanos| *nanos >= 0)?);
                Some(Place::Due(Due { at, id: DeliveryId(id.parse().ok()?) }))
            }),
            Some(_) | None => None,
        };
        place.ok_or_else(bad_cursor)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Held(id) => write!(f, "h{id}"),
            Place::Due(due) => write!(f, "d{}-{}", due.at.as_nanos().max(0), due.id),
        }
    }
}

/// Deliveries with their messages, and where to go on; `None`: all were seen.
pub type Found = (Vec<(DeliveryRow, MessageRow)>, Option<Place>);

/// Up to `limit` deliveries that are meant, from `from` on. With numbers in the filter, exactly those, finished or not.
pub fn walk(
    rows: &impl View,
    filter: &Filter,
    standing: Option<Standing>,
    from: Place,
    limit: usize,
) -> Result<Found, Error> {
    let mut walker = Walker { rows, filter, standing, limit, found: Vec::new() };
    if !filter.ids.is_empty() {
        let ids: BTreeSet<DeliveryId> = filter.ids.iter().copied().collect();
        walker.look_at_all(ids.into_iter())?;
        return Ok((walker.found, None));
    }
    let (mut place, mut examined) = (Some(from), 0);
    while let Some(at) = place
        && examined < EXAMINED_MAX
        && walker.found.len() < limit
    {
        let (steps, next) = walker.step(at)?;
        examined += steps;
        place = next;
    }
    Ok((walker.found, place))
}

struct Walker<'a, R> {
    rows: &'a R,
    filter: &'a Filter,
    standing: Option<Standing>,
    limit: usize,
    found: Vec<(DeliveryRow, MessageRow)>,
}

impl<R: View> Walker<'_, R> {
    /// Looks at the next entries; answers how many, and where to go on.
    fn step(&mut self, at: Place) -> Result<(usize, Option<Place>), Error> {
        match at {
            Place::Held(from) => {
                let ids = deliveries::held(self.rows, from, CHUNK)?;
                let seen = self.look_at_all(ids.iter().copied())?;
                let next = match ids.get(seen) {
                    Some(id) => Place::Held(*id),
                    None if ids.len() < CHUNK => Place::Due(Due { at: self.rows.first_due(), ..Due::FIRST }),
                    None => Place::Held(DeliveryId(ids[seen - 1].0 + 1)),
                };
                Ok((seen, Some(next)))
            }
            Place::Due(from) => {
                let due = deliveries::due(self.rows, from, Timestamp::MAX, CHUNK)?;
                let seen = self.look_at_all(due.iter().map(|due| due.id))?;
                let next = match due.get(seen) {
                    Some(due) => Some(Place::Due(*due)),
                    None if due.len() < CHUNK => None,
                    None => Some(Place::Due(due[seen - 1].after())),
                };
                Ok((seen, next))
            }
        }
    }

    /// Stops as soon as enough are found; answers how many it looked at.
    fn look_at_all(&mut self, ids: impl Iterator<Item = DeliveryId>) -> Result<usize, Error> {
        let mut seen = 0;
        for id in ids {
            if self.found.len() == self.limit {
                break;
            }
            self.look_at(id)?;
            seen += 1;
        }
        Ok(seen)
    }

    fn look_at(&mut self, id: DeliveryId) -> Result<(), Error> {
        let Some(row) = deliveries::delivery(self.rows, id)? else { return Ok(()) };
        if !self.standing.is_none_or(|standing| standing.is(row.state)) {
            return Ok(());
        }
        let Some(message) = deliveries::message(self.rows, row.message)? else { return Ok(()) };
        if self.filter.is_meant(&row, &message) {
            self.found.push((row, message));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip() {
        let due = Due { at: Timestamp::from_nanos(17), id: DeliveryId(3) };
        for place in [Place::START, Place::Held(DeliveryId(9)), Place::Due(due)] {
            assert_eq!(Place::parse(&place.to_string()), Ok(place));
        }
        for bad in ["", "x1", "h", "d1", "d-1", "d1-", "é"] {
            assert!(Place::parse(bad).is_err(), "{bad:?}");
        }
    }
}
