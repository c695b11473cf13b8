//! Which records tell the story of a message, in order.

use postledger_events::id::{MessageUuid, Seq};
use postledger_events::{Event, Record};

use crate::rows::{Error, Key, Order, Rows, RowsMut, Table, end_of, key};

const TABLE: Table = Table::Timeline;

/// Records about a message, oldest first, after `after`.
pub fn of(rows: &(impl Rows + ?Sized), message: MessageUuid, after: Seq, limit: usize) -> Result<Vec<Seq>, Error> {
    let start = entry_key(message, after.next());
    let found = rows.scan(TABLE, &start, &end_of(message.0.as_bytes()), Order::Ascending, limit)?;
    Ok(found.iter().filter_map(|(k, _)| k.get(16..24)?.try_into().ok()).map(u64::from_be_bytes).map(Seq).collect())
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    match &record.event {
        Event::MessageSubmitted(e) => {
            add(rows, e.message, record);
            // That it was sent again is a part of the story.
            if let Some(origin) = &e.origin {
                add(rows, origin.message, record);
            }
        }
        Event::AttemptStarted(e) => add(rows, e.message, record),
        Event::Delivered(e) => add(rows, e.message, record),
        Event::AttemptDeferred(e) => add(rows, e.message, record),
        Event::DeliveryFailed(e) => add(rows, e.message, record),
        Event::AttemptInDoubt(e) => add(rows, e.message, record),
        Event::DeliverySuppressed(e) => add(rows, e.message, record),
        Event::DeliveryCanceled(e) => add(rows, e.message, record),
        Event::DeliveryHeld(e) => add(rows, e.message, record),
        Event::DeliveryReleased(e) => add(rows, e.message, record),
        Event::DeliveryRescheduled(e) => add(rows, e.message, record),
        Event::WishNoted(e) => add(rows, e.message, record),
        Event::MessageReceived(e) => add(rows, e.body.body, record),
        Event::MessageDeleted(e) => add(rows, e.body.body, record),
        Event::CallsQueued(e) => add(rows, e.message, record),
        Event::Expired(e) => {
            let deliveries = e.deliveries.iter().map(|d| d.message);
            for message in deliveries.chain(e.bodies.iter().map(|b| b.message)) {
                add(rows, message, record);
            }
        }
        Event::LedgerCreated(_)
        | Event::ClockStepped(_)
        | Event::LedgerBranched(_)
        | Event::AccountConfigured(_)
        | Event::AccountRemoved(_)
        | Event::DomainConfigured(_)
        | Event::DomainRemoved(_)
        | Event::AddressAdded(_)
        | Event::AddressRemoved(_)
        | Event::TransportConfigured(_)
        | Event::TransportRemoved(_)
        | Event::AddressSuppressed(_)
        | Event::SuppressionLifted(_)
        | Event::HoldRuleAdded(_)
        | Event::HoldRuleRemoved(_)
        | Event::JobStarted(_)
        | Event::JobAdvanced(_)
        | Event::JobFinished(_)
        | Event::EndpointConfigured(_)
        | Event::EndpointDisabled(_)
        | Event::EndpointRemoved(_)
        | Event::CallsAttempted(_)
        | Event::CallsCanceled(_)
        | Event::CallsRetried(_)
        | Event::CallsHeld(_)
        | Event::TestCallMade(_)
        | Event::ReplayStarted(_)
        | Event::ReplayAdvanced(_)
        | Event::ReplayStopped(_)
        | Event::ReplayResumed(_)
        | Event::ReplayEnded(_)
        | Event::KeyAdded(_)
        | Event::KeyRevoked(_)
        | Event::KeyUsed(_)
        | Event::CursorSet(_)
        | Event::CursorRemoved(_) => {}
    }
    Ok(())
}

fn add(rows: &mut dyn RowsMut, message: MessageUuid, record: &Record) {
    rows.put(TABLE, entry_key(message, record.seq), Vec::new());
}

fn entry_key(message: MessageUuid, seq: Seq) -> Key {
    key(&[message.0.as_bytes(), &seq.0.to_be_bytes()])
}
