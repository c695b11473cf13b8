//! What is due: one look at the index, with what can share a transaction grouped. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use postledger_events::address::Address;
use postledger_events::id::{AttemptId, DeliveryId, MessageUuid, TransportName};
use postledger_events::time::Timestamp;
use postledger_projections::deliveries::{self, Due, MessageRow, State};
use postledger_projections::{Error, Rows};

/// Due deliveries that are looked at in one round.
const WINDOW: usize = 1024;
/// Recipients of one group, and so of one transaction.
const RECIPIENTS_MAX: usize = 1000;
/// The transport that takes all mail.
const DEFAULT_TRANSPORT: &str = "default";

/// Deliveries of one message that can share a transaction.
#[derive(Clone, Debug)]
pub struct Group {
    pub message: Arc<MessageRow>,
    pub transport: TransportName,
    pub deliveries: Vec<DeliveryId>,
}

/// What one look at the index found.
pub struct Found {
    pub groups: Vec<Group>,
    /// Attempts that nobody runs.
    pub abandoned: Vec<(MessageUuid, AttemptId, Vec<DeliveryId>)>,
    /// Where the next look begins.
    pub bound: Due,
    /// When the first delivery that is not due yet will be, if that is soon.
    pub next_due: Option<Timestamp>,
    /// There may be more that is due.
    pub more: bool,
}

/// Looks at what is due from `from` on, apart from what is `known`, and when more will be up to `soon`. Not further: what was due
/// there and is held or gone is crossed by each look until the engine has dropped it. The last record of these rows was written
/// at `written`.
pub fn look(
    rows: &impl Rows,
    written: Timestamp,
    from: Due,
    now: Timestamp,
    soon: Timestamp,
    known: &HashSet<DeliveryId>,
) -> Result<Found, Error> {
    let limit = WINDOW + known.len();
    let due = deliveries::due(rows, from, now, limit)?;
    let more = due.len() == limit;
    let mut groups: BTreeMap<(MessageUuid, Option<Address>), Group> = BTreeMap::new();
    let mut order = Vec::new();
    let mut abandoned: BTreeMap<AttemptId, (MessageUuid, Vec<DeliveryId>)> = BTreeMap::new();
    let mut messages: HashMap<MessageUuid, Option<Arc<MessageRow>>> = HashMap::new();
    let unknown = || due.iter().map(|due| due.id).filter(|id| !known.contains(id));
    let numbered = deliveries::numbered(rows, unknown().collect())?;
    let mut numbered: HashMap<DeliveryId, _> = numbered.into_iter().map(|row| (row.id, row)).collect();
    for id in unknown() {
        let Some(row) = numbered.remove(&id) else { continue };
        if let State::Running(attempt, _) = row.state {
            abandoned.entry(attempt).or_insert((row.message, Vec::new())).1.push(id);
            continue;
        }
        let message = match messages.get(&row.message) {
            Some(message) => message.clone(),
            None => {
                messages.entry(row.message).or_insert(deliveries::message(rows, row.message)?.map(Arc::new)).clone()
            }
        };
        let Some(message) = message else { continue };
        let key = (row.message, row.reverse_path(&message));
        let group = groups.entry(key.clone()).or_insert_with(|| {
            order.push(key);
            let transport = TransportName::new(DEFAULT_TRANSPORT).expect("a constant name is valid");
            Group { message, transport, deliveries: Vec::new() }
        });
        if group.deliveries.len() < RECIPIENTS_MAX {
            group.deliveries.push(id);
        }
    }
    let groups = order.iter().filter_map(|key| groups.remove(key)).collect();
    let abandoned = abandoned.into_iter().map(|(attempt, (message, ids))| (message, attempt, ids)).collect();
    let next_due = deliveries::due(rows, Due { at: now, id: DeliveryId(u64::MAX) }, soon, 1)?;
    let next_due = next_due.first().map(|due| due.at);
    Ok(Found { groups, abandoned, bound: bound(written, from, due.first().copied()), next_due, more })
}

/// Where the next look begins. IMPORTANT: an entry that is written later is due at its record's time or after, so none comes
/// in before the time of the last record of this snapshot.
fn bound(written: Timestamp, from: Due, first: Option<Due>) -> Due {
    let written = Due { at: written, id: DeliveryId(0) };
    first.map_or(written, |first| first.min(written)).max(from)
}
