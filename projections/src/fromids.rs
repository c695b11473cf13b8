//! Which delivery a fromid belongs to, as long as the delivery is kept.

use postledger_events::id::{AccountName, DeliveryId, FromId, MessageUuid};
use postledger_events::{Event, Record};
use serde::{Deserialize, Serialize};

use crate::rows::{Error, Key, Rows, RowsMut, Table, key, read, write};

const TABLE: Table = Table::Fromids;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromidRow {
    pub delivery: DeliveryId,
    pub message: MessageUuid,
}

/// The delivery that went out with this fromid.
pub fn find(rows: &(impl Rows + ?Sized), account: &AccountName, fromid: &FromId) -> Result<Option<FromidRow>, Error> {
    read(rows, TABLE, &fromid_key(account, fromid))
}

pub(crate) fn fold(record: &Record, rows: &mut dyn RowsMut) -> Result<(), Error> {
    match &record.event {
        Event::MessageSubmitted(e) => {
            for d in &e.deliveries {
                if let Some(fromid) = &d.fromid {
                    let row = FromidRow { delivery: d.id, message: e.message };
                    write(rows, TABLE, fromid_key(&e.account, fromid), &row);
                }
            }
        }
        Event::Expired(e) => {
            for d in &e.deliveries {
                if let Some(fromid) = &d.fromid {
                    rows.remove(TABLE, fromid_key(&d.account, fromid));
                }
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
        | Event::AttemptStarted(_)
        | Event::Delivered(_)
        | Event::AttemptDeferred(_)
        | Event::DeliveryFailed(_)
        | Event::AttemptInDoubt(_)
        | Event::DeliverySuppressed(_)
        | Event::DeliveryCanceled(_)
        | Event::DeliveryHeld(_)
        | Event::DeliveryReleased(_)
        | Event::DeliveryRescheduled(_)
        | Event::WishNoted(_)
        | Event::AddressSuppressed(_)
        | Event::SuppressionLifted(_)
        | Event::MessageReceived(_)
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
    Ok(())
}

fn fromid_key(account: &AccountName, fromid: &FromId) -> Key {
    key(&[account.as_str().as_bytes(), &[0], fromid.as_str().as_bytes()])
}
