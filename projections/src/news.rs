//! What a fact tells the endpoints of accounts, and at which place. Whoever queues calls and whoever repeats them ask here.

use postledger_events::Event;
use postledger_events::fact::call::{CallAbout, QueuedCall};
use postledger_events::fact::endpoint::{Direction, EndpointSettings, OutgoingEvent};
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{AccountName, DeliveryId, MessageUuid};

/// The kinds of facts that tell endpoints something, so that a reader of the log can pass all others over undecoded.
pub const KINDS: [&str; 7] = [
    "Delivered",
    "AttemptDeferred",
    "AttemptInDoubt",
    "DeliveryFailed",
    "DeliverySuppressed",
    "DeliveryCanceled",
    "MessageReceived",
];

/// What a fact tells an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News<'a> {
    pub account: &'a AccountName,
    pub source: Source,
    pub calls: Vec<QueuedCall>,
}

/// What is needed beside the fact to tell of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The submission of this message.
    Submitted(MessageUuid),
    /// This received content.
    Received(BodyRef),
}

impl Source {
    pub fn message(self) -> MessageUuid {
        match self {
            Source::Submitted(message) => message,
            Source::Received(body) => body.body,
        }
    }
}

/// Whether an endpoint with these settings is to be told of this.
pub fn is_wanted(settings: &EndpointSettings, about: CallAbout) -> bool {
    match about {
        CallAbout::Delivery(_, event) => settings.wants(event),
        CallAbout::Message(_) => settings.direction == Direction::Incoming,
    }
}

/// What a fact tells, each account once.
pub fn told(event: &Event) -> Vec<News<'_>> {
    match event {
        Event::Delivered(e) => {
            outgoing(&e.account, e.message, OutgoingEvent::Delivered, e.deliveries.iter().map(|d| Some(d.id)))
        }
        Event::AttemptDeferred(e) => {
            outgoing(&e.account, e.message, OutgoingEvent::Delayed, e.deliveries.iter().map(|d| Some(d.id)))
        }
        Event::AttemptInDoubt(e) => {
            // Where no attempt follows, what becomes of the delivery is another fact.
            let delayed = e.deliveries.iter().map(|d| d.next.map(|_| d.id));
            outgoing(&e.account, e.message, OutgoingEvent::Delayed, delayed)
        }
        Event::DeliveryFailed(e) => {
            outgoing(&e.account, e.message, OutgoingEvent::Failed, e.deliveries.iter().map(|d| Some(d.id)))
        }
        Event::DeliverySuppressed(e) => {
            outgoing(&e.account, e.message, OutgoingEvent::Suppressed, e.deliveries.iter().map(|d| Some(d.id)))
        }
        Event::DeliveryCanceled(e) => {
            outgoing(&e.account, e.message, OutgoingEvent::Canceled, e.deliveries.iter().map(|d| Some(d.id)))
        }
        // Our own notices are told of by the facts that they are about.
        Event::MessageReceived(e) if e.notice_of.is_some() => Vec::new(),
        Event::MessageReceived(e) => {
            let mut news: Vec<News<'_>> = Vec::new();
            for (place, copy) in (0..).zip(&e.copies) {
                let call = QueuedCall { place, about: CallAbout::Message(copy.msg_id) };
                match news.iter_mut().find(|news| *news.account == copy.account) {
                    Some(news) => news.calls.push(call),
                    None => {
                        news.push(News { account: &copy.account, source: Source::Received(e.body), calls: vec![call] })
                    }
                }
            }
            news
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
        | Event::MessageSubmitted(_)
        | Event::AttemptStarted(_)
        | Event::DeliveryHeld(_)
        | Event::DeliveryReleased(_)
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
        | Event::CursorRemoved(_)
        | Event::Expired(_) => Vec::new(),
    }
}

/// Of a fact's deliveries those that are given are news; each keeps its place.
fn outgoing(
    account: &AccountName,
    message: MessageUuid,
    event: OutgoingEvent,
    deliveries: impl Iterator<Item = Option<DeliveryId>>,
) -> Vec<News<'_>> {
    let calls: Vec<QueuedCall> = (0..)
        .zip(deliveries)
        .filter_map(|(place, id)| Some(QueuedCall { place, about: CallAbout::Delivery(id?, event) }))
        .collect();
    if calls.is_empty() {
        return Vec::new();
    }
    vec![News { account, source: Source::Submitted(message), calls }]
}

#[cfg(test)]
mod tests {
    use postledger_events::Record;
    use postledger_events::event;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the crate has no files; the golden records are")]
    fn no_kind_that_tells_something_is_passed_over() {
        let mut telling = Vec::new();
        for (kind, version) in event::KINDS {
            let path = format!("{}/../events/testdata/{kind}.{version}.json", env!("CARGO_MANIFEST_DIR"));
            let line = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
            let record = Record::decode(line.trim_end().as_bytes()).unwrap();
            if !told(&record.event).is_empty() {
                telling.push(record.event.kind());
            }
        }
        let mut expect = KINDS.to_vec();
        telling.sort_unstable();
        expect.sort_unstable();
        assert_eq!(telling, expect);
    }
}
