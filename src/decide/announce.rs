//! Telling endpoints: which calls follow from facts. They are queued in the same commit, behind all that was decided, so that what
//! names a fact by its place stays right.

use std::collections::{BTreeMap, BTreeSet};

use postledger_events::fact::call::{
    BODY_VERSION, CallAbout, CallRef, CallsCanceled, CallsQueued, Canceling, EndpointCalls, QueuedCall,
};
use postledger_events::fact::endpoint::Superseding;
use postledger_events::id::{AccountName, Author, DeliveryId, EndpointName, Seq};
use postledger_events::{Event, Refusal};
use postledger_projections::calls::{self, EndpointRow};
use postledger_projections::news::{News, is_wanted, told};
use postledger_projections::{Error, Rows};

use super::{Decision, Moment, damaged};

/// Adds the calls that follow from what was decided.
pub fn announce(decision: &mut Decision, rows: &dyn Rows, moment: Moment) -> Result<(), Refusal> {
    let mut teller = Teller::new(rows);
    for (n, event) in decision.events.iter().enumerate() {
        let fact = Seq(moment.next.0 + n as u64);
        for news in told(event) {
            teller.tell(fact, &news).map_err(damaged)?;
        }
    }
    decision.events.extend(teller.events);
    Ok(())
}

struct Teller<'a> {
    rows: &'a dyn Rows,
    /// Of the accounts that there is news for.
    endpoints: BTreeMap<AccountName, Vec<EndpointRow>>,
    /// The last call of this decision about a delivery, where only the latest is made.
    latest: BTreeMap<(EndpointName, DeliveryId), CallRef>,
    superseded: BTreeSet<(EndpointName, CallRef)>,
    events: Vec<Event>,
}

impl<'a> Teller<'a> {
    fn new(rows: &'a dyn Rows) -> Teller<'a> {
        Teller {
            rows,
            endpoints: BTreeMap::new(),
            latest: BTreeMap::new(),
            superseded: BTreeSet::new(),
            events: Vec::new(),
        }
    }

    fn tell(&mut self, fact: Seq, news: &News<'_>) -> Result<(), Error> {
        // Taken out while it is in use, and put back.
        let (account, endpoints) = match self.endpoints.remove_entry(news.account) {
            Some(known) => known,
            None => (news.account.clone(), calls::endpoints(self.rows, news.account)?),
        };
        let mut queued = Vec::new();
        for row in endpoints.iter().filter(|row| row.removing.is_none()) {
            let wants = |call: &&QueuedCall| is_wanted(&row.settings, call.about);
            let wanted: Vec<QueuedCall> = news.calls.iter().filter(wants).copied().collect();
            if wanted.is_empty() {
                continue;
            }
            if row.settings.superseding == Superseding::Latest {
                self.supersede(row, fact, &wanted)?;
            }
            queued.push(EndpointCalls {
                endpoint: row.endpoint.clone(),
                version: BODY_VERSION,
                keep_s: row.settings.keep_s,
                calls: wanted,
            });
        }
        if !queued.is_empty() {
            let (account, message) = (account.clone(), news.source.message());
            self.events.push(CallsQueued { account, message, fact, endpoints: queued }.into());
        }
        self.endpoints.insert(account, endpoints);
        Ok(())
    }

    /// Calls about the same deliveries that were not made yet are not made any more.
    fn supersede(&mut self, row: &EndpointRow, fact: Seq, wanted: &[QueuedCall]) -> Result<(), Error> {
        let mut canceled = Vec::new();
        for call in wanted {
            let CallAbout::Delivery(delivery, _) = call.about else { continue };
            let open = calls::lane(self.rows, &row.account, &row.endpoint, delivery)?;
            let this = CallRef { fact, place: call.place };
            let queued_now = self.latest.insert((row.endpoint.clone(), delivery), this);
            for earlier in open.iter().map(|open| open.call).chain(queued_now) {
                if self.superseded.insert((row.endpoint.clone(), earlier)) {
                    canceled.push(earlier);
                }
            }
        }
        if !canceled.is_empty() {
            let (account, endpoint) = (row.account.clone(), row.endpoint.clone());
            let (calls, why, by) = (canceled, Canceling::Superseded(fact), Author::program());
            self.events.push(CallsCanceled { account, endpoint, calls, why, job: None, by }.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use postledger_events::Answer;
    use postledger_events::Record;
    use postledger_events::fact::delivery::{CanceledDelivery, DeliveryCanceled};
    use postledger_events::fact::endpoint::{Direction, EndpointConfigured, EndpointSettings, OutgoingEvent};
    use postledger_events::fact::mailbox::{MailboxCopy, MessageReceived};
    use postledger_events::fact::submission::BodyRef;
    use postledger_events::id::{MailboxName, MessageUuid, MsgId, Sha256};
    use postledger_events::time::Timestamp;
    use postledger_projections::{Memory, fold};

    use super::*;

    fn name(s: &str) -> AccountName {
        AccountName::new(s).unwrap()
    }

    fn append(rows: &mut Memory, seq: u64, event: Event) {
        let record = Record { seq: Seq(seq), at: Timestamp::EPOCH, prev: Sha256::ZERO, event };
        fold(&record, rows).unwrap();
    }

    /// `a` has an endpoint for all that becomes of its messages, one for failures, one for the latest, and one for what comes in.
    fn rows() -> Memory {
        let mut rows = Memory::default();
        let endpoints = [
            ("all", Direction::Outgoing, vec![], Superseding::All),
            ("failures", Direction::Outgoing, vec![OutgoingEvent::Failed], Superseding::All),
            ("latest", Direction::Outgoing, vec![], Superseding::Latest),
            ("inbox", Direction::Incoming, vec![], Superseding::All),
        ];
        for (n, (endpoint, direction, events, superseding)) in (1..).zip(endpoints) {
            let url = "https://example.org/".to_owned();
            let settings = EndpointSettings { events, superseding, ..EndpointSettings::new(direction, url) };
            let (endpoint, by) = (EndpointName::new(endpoint).unwrap(), Author::program());
            append(
                &mut rows,
                n,
                EndpointConfigured { account: name("a"), endpoint, settings, stays_disabled: false, by }.into(),
            );
        }
        rows
    }

    fn canceled(account: &str, ids: &[u64]) -> Event {
        let deliveries = ids.iter().map(|id| CanceledDelivery { id: DeliveryId(*id), held: false }).collect();
        let (message, keep_until) = (MessageUuid(Default::default()), Timestamp::EPOCH);
        DeliveryCanceled { message, account: name(account), deliveries, keep_until, job: None, by: Author::program() }
            .into()
    }

    fn received(accounts: &[&str], notice_of: Option<Seq>) -> Event {
        let copies = (1..).zip(accounts).map(|(n, account)| MailboxCopy {
            account: name(account),
            mailbox: MailboxName::inbox(),
            msg_id: MsgId(n),
            recipient: 0,
        });
        let body = BodyRef { body: MessageUuid(Default::default()), size: 1, sha256: Sha256::ZERO };
        let copies = copies.collect();
        MessageReceived { body, copies, tls: None, smtputf8: false, notice_of, personal: None }.into()
    }

    /// What follows, in short: `endpoint fact/place` of what is queued, with a `-` before it of what is canceled.
    fn follows(events: Vec<Event>, rows: &mut Memory, next: u64) -> Vec<String> {
        let count = events.len();
        let mut decision = Decision { events, ..Decision::new(Answer::Done) };
        announce(&mut decision, rows, Moment { now: Timestamp::EPOCH, next: Seq(next) }).unwrap();
        let told = decision.events.split_off(count);
        let mut short = Vec::new();
        for (n, event) in (next + count as u64..).zip(told) {
            match &event {
                Event::CallsQueued(e) => {
                    short.extend(e.endpoints.iter().flat_map(|to| {
                        to.calls.iter().map(|call| format!("{} {}/{}", to.endpoint, e.fact, call.place))
                    }))
                }
                Event::CallsCanceled(e) => {
                    short.extend(e.calls.iter().map(|call| format!("-{} {}/{}", e.endpoint, call.fact, call.place)));
                }
                other => panic!("{other:?}"),
            }
            append(rows, n, event);
        }
        short
    }

    #[test]
    fn endpoints_are_told_what_they_want() {
        let check = |events: Vec<Event>, expect: &[&str]| {
            assert_eq!(follows(events.clone(), &mut rows(), 10), expect, "{events:?}");
        };
        check(vec![canceled("a", &[7])], &["all 10/0", "latest 10/0"]);
        check(vec![canceled("a", &[7, 8])], &["all 10/0", "all 10/1", "latest 10/0", "latest 10/1"]);
        check(vec![canceled("b", &[7])], &[]);
        check(vec![received(&["b", "a", "a"], None)], &["inbox 10/1", "inbox 10/2"]);
        check(vec![received(&["a"], Some(Seq(3)))], &[]);
        check(vec![canceled("b", &[7]), canceled("a", &[8])], &["all 11/0", "latest 11/0"]);
    }

    #[test]
    fn only_the_latest_where_that_is_wanted() {
        let mut rows = rows();
        assert_eq!(follows(vec![canceled("a", &[7])], &mut rows, 10), ["all 10/0", "latest 10/0"]);
        let both = vec![canceled("a", &[7, 8]), canceled("a", &[7])];
        let expect = [
            "-latest 10/0",
            "all 20/0",
            "all 20/1",
            "latest 20/0",
            "latest 20/1",
            "-latest 20/0",
            "all 21/0",
            "latest 21/0",
        ];
        assert_eq!(follows(both, &mut rows, 20), expect);
    }
}
