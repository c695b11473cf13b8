//! What a record is about: whose it is to see, and what it is found by.

use postledger_events::Event;
use postledger_events::address::Address;
use postledger_events::fact::account::Destination;
use postledger_events::fact::job::Work;
use postledger_events::id::{AccountName, DeliveryId, MessageUuid};

/// Everything that a record names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct About<'a> {
    pub accounts: Vec<&'a AccountName>,
    pub messages: Vec<MessageUuid>,
    pub deliveries: Vec<DeliveryId>,
    pub addresses: Vec<&'a Address>,
    /// It also tells of things whose account it does not name.
    pub others: bool,
}

impl<'a> About<'a> {
    pub fn of(event: &'a Event) -> About<'a> {
        let about = About::default();
        match event {
            Event::LedgerCreated(_)
            | Event::ClockStepped(_)
            | Event::LedgerBranched(_)
            | Event::DomainConfigured(_)
            | Event::DomainRemoved(_)
            | Event::TransportConfigured(_)
            | Event::TransportRemoved(_)
            | Event::HoldRuleRemoved(_)
            | Event::JobAdvanced(_)
            | Event::JobFinished(_) => about,
            Event::AccountConfigured(e) => about.account(&e.account),
            Event::AccountRemoved(e) => about.account(&e.account),
            Event::AddressAdded(e) => about.account(&e.account).destination(&e.address),
            Event::AddressRemoved(e) => about.account(&e.account).destination(&e.address),
            Event::MessageSubmitted(e) => {
                let addresses = e.personal.iter().flat_map(|p| &p.recipients).map(|r| &r.address).collect();
                let mut about = about.message(&e.account, e.message, e.deliveries.iter().map(|d| d.id));
                about.messages.extend(e.origin.as_ref().map(|origin| origin.message));
                About { addresses, ..about }
            }
            Event::AttemptStarted(e) => about.message(&e.account, e.message, e.deliveries.iter().map(|d| d.id)),
            Event::Delivered(e) => about.message(&e.account, e.message, e.deliveries.iter().map(|d| d.id)),
            Event::AttemptDeferred(e) => about.message(&e.account, e.message, e.deliveries.iter().map(|d| d.id)),
            Event::DeliveryFailed(e) => about.message(&e.account, e.message, e.deliveries.iter().map(|d| d.id)),
            Event::AttemptInDoubt(e) => about.message(&e.account, e.message, e.deliveries.iter().map(|d| d.id)),
            Event::DeliverySuppressed(e) => about.message(&e.account, e.message, e.deliveries.iter().map(|d| d.id)),
            Event::DeliveryCanceled(e) => about.message(&e.account, e.message, e.deliveries.iter().map(|d| d.id)),
            Event::DeliveryHeld(e) => about.message(&e.account, e.message, e.deliveries.iter().copied()),
            Event::DeliveryReleased(e) => about.message(&e.account, e.message, e.deliveries.iter().copied()),
            Event::DeliveryRescheduled(e) => about.message(&e.account, e.message, e.deliveries.iter().map(|d| d.id)),
            Event::WishNoted(e) => about.message(&e.account, e.message, [e.delivery]),
            Event::AddressSuppressed(e) => {
                let addresses = e.personal.iter().map(|p| &p.original_address).collect();
                About { addresses, ..about.account(&e.account) }
            }
            Event::SuppressionLifted(e) => about.account(&e.account),
            Event::MessageReceived(e) => About {
                accounts: e.copies.iter().map(|copy| &copy.account).collect(),
                messages: vec![e.body.body],
                addresses: e.personal.iter().flat_map(|p| &p.recipients).collect(),
                ..about
            },
            Event::MessageDeleted(e) => about.message(&e.account, e.body.body, []),
            Event::HoldRuleAdded(e) => About { accounts: e.matching.account.iter().collect(), ..about },
            Event::JobStarted(e) => match &e.work {
                Work::RemoveAccount(account) | Work::RemoveEndpoint(account, _) => about.account(account),
                Work::Calls(filter, _) => About { accounts: filter.account.iter().collect(), ..about },
                Work::HoldRestored(_) => about,
                Work::ApplyHoldRule(_, matching) => About { accounts: matching.account.iter().collect(), ..about },
                Work::Queue(filter, _) => {
                    About { accounts: filter.account.iter().collect(), deliveries: filter.ids.clone(), ..about }
                }
            },
            Event::EndpointConfigured(e) => about.account(&e.account),
            Event::EndpointDisabled(e) => about.account(&e.account),
            Event::EndpointRemoved(e) => about.account(&e.account),
            Event::CallsAttempted(e) => about.account(&e.account),
            Event::CallsCanceled(e) => about.account(&e.account),
            Event::CallsRetried(e) => about.account(&e.account),
            Event::CallsHeld(e) => about.account(&e.account),
            Event::TestCallMade(e) => about.account(&e.account),
            Event::ReplayStarted(e) => about.account(&e.account),
            Event::ReplayAdvanced(e) => about.account(&e.account),
            Event::ReplayStopped(e) => about.account(&e.account),
            Event::ReplayResumed(e) => about.account(&e.account),
            Event::ReplayEnded(e) => about.account(&e.account),
            Event::CallsQueued(e) => about.message(&e.account, e.message, e.deliveries()),
            Event::KeyAdded(e) => About { accounts: e.account.iter().collect(), ..about },
            Event::KeyRevoked(e) => About { accounts: e.account.iter().collect(), ..about },
            Event::KeyUsed(e) => About { accounts: e.account.iter().collect(), ..about },
            Event::CursorSet(e) => About { accounts: e.account.iter().collect(), ..about },
            Event::CursorRemoved(e) => About { accounts: e.account.iter().collect(), ..about },
            Event::Expired(e) => {
                let own: Vec<MessageUuid> = e.deliveries.iter().map(|d| d.message).collect();
                let bodies: Vec<MessageUuid> = e.bodies.iter().map(|b| b.message).collect();
                About {
                    accounts: e
                        .deliveries
                        .iter()
                        .map(|d| &d.account)
                        .chain(e.calls.iter().map(|c| &c.account))
                        .collect(),
                    deliveries: e.deliveries.iter().map(|d| d.id).collect(),
                    others: !e.idempotency_keys.is_empty()
                        || !e.notices.is_empty()
                        || bodies.iter().any(|b| !own.contains(b)),
                    messages: own.into_iter().chain(bodies).collect(),
                    ..about
                }
            }
        }
    }

    /// Whether everything in the record is this account's own. What is about several accounts or about none is shown to no
    /// account's login: records are shown whole or not at all.
    pub fn is_only(&self, account: &AccountName) -> bool {
        !self.others && !self.accounts.is_empty() && self.accounts.iter().all(|named| *named == account)
    }

    fn account(mut self, account: &'a AccountName) -> About<'a> {
        self.accounts.push(account);
        self
    }

    fn message(
        mut self,
        account: &'a AccountName,
        message: MessageUuid,
        deliveries: impl IntoIterator<Item = DeliveryId>,
    ) -> About<'a> {
        self.messages.push(message);
        self.deliveries.extend(deliveries);
        self.account(account)
    }

    fn destination(mut self, destination: &'a Destination) -> About<'a> {
        match destination {
            Destination::Address(address) => self.addresses.push(address),
            Destination::CatchAll(_) => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use postledger_events::fact::account::AccountRemoved;
    use postledger_events::fact::expiry::{Expired, ExpiredBody, ExpiredDelivery};
    use postledger_events::fact::job::{JobFinished, JobStarted, QueueAction, QueueFilter};
    use postledger_events::id::{Author, JobId};
    use postledger_events::time::Timestamp;

    use super::*;

    fn name(s: &str) -> AccountName {
        AccountName::new(s).unwrap()
    }

    fn uuid(n: u8) -> MessageUuid {
        format!("00000000-0000-7000-8000-0000000000{n:02}").parse().unwrap()
    }

    fn expired(of: &[(&str, u8)], bodies: &[u8]) -> Event {
        let deliveries = of.iter().map(|(account, n)| ExpiredDelivery {
            id: DeliveryId(u64::from(*n)),
            account: name(account),
            fromid: None,
            keep_until: Timestamp::EPOCH,
            message: uuid(*n),
        });
        let bodies = bodies.iter().map(|n| ExpiredBody { message: uuid(*n), size: 1, row: true });
        Expired { deliveries: deliveries.collect(), bodies: bodies.collect(), ..Expired::default() }.into()
    }

    #[test]
    fn an_account_sees_only_what_is_wholly_its_own() {
        let check = |event: Event, expect: bool| {
            assert_eq!(About::of(&event).is_only(&name("a")), expect, "{event:?}");
        };
        let by = Author::program();
        check(AccountRemoved { account: name("a"), by: by.clone() }.into(), true);
        check(AccountRemoved { account: name("b"), by: by.clone() }.into(), false);
        check(JobFinished { job: JobId(1), affected: 0 }.into(), false);
        check(expired(&[("a", 1), ("a", 2)], &[1]), true);
        check(expired(&[("a", 1), ("b", 2)], &[]), false);
        check(expired(&[("a", 1)], &[2]), false);
        check(expired(&[], &[2]), false);
        let job = |account: Option<&str>| {
            let filter = QueueFilter { account: account.map(name), ..QueueFilter::default() };
            JobStarted { job: JobId(1), work: Work::Queue(filter, QueueAction::Hold), by: by.clone() }.into()
        };
        check(job(Some("a")), true);
        check(job(Some("b")), false);
        check(job(None), false);
    }
}
