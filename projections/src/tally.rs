//! Counts that must add up: every accepted recipient is in one state and reaches one outcome.

use postledger_events::{Event, Record};
use serde::{Deserialize, Serialize};

use crate::rows::{Error, Rows, RowsMut, Table, read, write};

const TABLE: Table = Table::Tally;
const KEY: &[u8] = b"t";

/// Since the ledger began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    pub messages: u64,
    /// Recipients of all accepted submissions.
    pub accepted: u64,
    pub delivered: u64,
    pub failed: u64,
    pub suppressed: u64,
    pub canceled: u64,
    /// On hold now.
    pub held: u64,
    /// Attempts of a recipient whose outcome nobody knows.
    pub in_doubt: u64,
    /// Finished deliveries that are no longer listed.
    pub expired: u64,
    /// Copies of received messages.
    pub received: u64,
}

impl Tally {
    /// Recipients that have their outcome.
    pub fn ended(&self) -> u64 {
        self.delivered + self.failed + self.suppressed + self.canceled
    }

    /// Recipients that have none yet.
    pub fn open(&self) -> u64 {
        self.accepted.saturating_sub(self.ended())
    }
}

pub fn tally(rows: &(impl Rows + ?Sized)) -> Result<Tally, Error> {
    Ok(read(rows, TABLE, KEY)?.unwrap_or_default())
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    let mut t = tally(rows)?;
    let before = t;
    count(&record.event, &mut t);
    if t != before {
        write(rows, TABLE, KEY.to_vec(), &t);
    }
    Ok(())
}

fn count(event: &Event, t: &mut Tally) {
    match event {
        Event::MessageSubmitted(e) => {
            t.messages += 1;
            t.accepted += e.deliveries.len() as u64;
            t.held += e.deliveries.iter().filter(|d| d.hold.is_some()).count() as u64;
        }
        Event::Delivered(e) => t.delivered += e.deliveries.len() as u64,
        Event::DeliveryFailed(e) => {
            t.failed += e.deliveries.len() as u64;
            release(t, e.deliveries.iter().filter(|d| d.held).count());
        }
        Event::AttemptInDoubt(e) => t.in_doubt += e.deliveries.len() as u64,
        Event::DeliverySuppressed(e) => t.suppressed += e.deliveries.len() as u64,
        Event::DeliveryCanceled(e) => {
            t.canceled += e.deliveries.len() as u64;
            release(t, e.deliveries.iter().filter(|d| d.held).count());
        }
        Event::DeliveryHeld(e) => t.held += e.deliveries.len() as u64,
        Event::DeliveryReleased(e) => release(t, e.deliveries.len()),
        Event::Expired(e) => t.expired += e.deliveries.len() as u64,
        Event::MessageReceived(e) => t.received += e.copies.len() as u64,
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
        | Event::AttemptStarted(_)
        | Event::AttemptDeferred(_)
        | Event::DeliveryRescheduled(_)
        | Event::WishNoted(_)
        | Event::AddressSuppressed(_)
        | Event::SuppressionLifted(_)
        | Event::MessageDeleted(_)
        | Event::HoldRuleAdded(_)
        | Event::HoldRuleRemoved(_)
        | Event::JobStarted(_)
        | Event::JobAdvanced(_)
        | Event::JobFinished(_)
        | Event::EndpointConfigured(_)
        | Event::EndpointDisabled(_)
        | Event::EndpointRemoved(_)
        | Event::CallsQueued(_)
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
}

fn release(t: &mut Tally, n: usize) {
    t.held = t.held.saturating_sub(n as u64);
}
