//! What should be true of the ledger, kept beside it from its events alone: each event is held against what went before it,
//! and rows are held against this.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use postledger_events::address::{Address, Domain};
use postledger_events::fact::attempt::{Failure, Problem};
use postledger_events::fact::delivery::{HoldCause, Wish};
use postledger_events::fact::job::{HoldMatch, QueueAction, QueueFilter, Work};
use postledger_events::fact::submission::{BodyRef, MessageSubmitted};
use postledger_events::fact::suppression::Cause;
use postledger_events::id::*;
use postledger_events::time::Timestamp;
use postledger_events::{Event, Record};
use postledger_projections::deliveries::{DELAY_NOTICE_ATTEMPT, DeliveryRow, MessageRow, State};
use postledger_projections::tally::Tally;

use super::calls::Calls;
use super::world::{BROKEN_OFF, UNTRIED};

/// The first wait of the contract's schedule, which its spread of -5 to 4 seconds belongs to.
const SPREAD_OF_S: f64 = 450.0;
const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug)]
pub struct Delivery {
    pub message: MessageUuid,
    pub account: AccountName,
    pub recipient: RecipientKey,
    pub address: Address,
    pub state: State,
    pub attempts: u32,
    pub in_doubt: u32,
    /// Attempts that ended with an outcome that nobody knows, though they did end.
    pub unknown: u32,
    pub due: Timestamp,
    pub wish: Option<Wish>,
    pub released: Option<Seq>,
    pub keep_until: Option<Timestamp>,
    /// The jobs that treated it, and the last of them.
    treated: BTreeSet<JobId>,
    last_job: Option<JobId>,
    /// Copies that were sent by branches that were cut off.
    pub sent_elsewhere: u32,
    /// The attempt that was given up as its last.
    given_up: Option<AttemptId>,
    pub outcomes: u32,
    /// Its row went with its keep period.
    pub expired: bool,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub submitted: Timestamp,
    pub sender: Option<Domain>,
    pub keep_contents: bool,
    pub contents: bool,
    pub deliveries: Vec<DeliveryId>,
    /// Its MessageSubmitted record.
    seq: Seq,
}

#[derive(Clone, Debug)]
struct Job {
    work: Work,
    started: Timestamp,
    /// The record that started it.
    seq: Seq,
}

#[derive(Clone, Debug, Default)]
struct Account {
    retry_s: Option<Vec<u32>>,
    recipients_per_day_max: Option<u32>,
    quota_bytes: Option<u64>,
    going: bool,
    sent: Vec<(Timestamp, u64)>,
}

/// The last number of each kind that any branch gave out.
#[derive(Clone, Debug, Default)]
struct Last {
    seq: u64,
    delivery: u64,
    suppression: u64,
    rule: u64,
    job: u64,
    msg: u64,
    attempts: BTreeSet<AttemptId>,
}

pub struct Truth {
    pub deliveries: BTreeMap<DeliveryId, Delivery>,
    pub messages: HashMap<MessageUuid, Message>,
    pub suppressed: BTreeMap<(AccountName, RecipientKey), SuppressionId>,
    pub notices: BTreeSet<Seq>,
    pub mail: BTreeMap<(AccountName, MsgId), BodyRef>,
    pub tally: Tally,
    /// What events have named since this was last taken.
    pub touched: BTreeSet<DeliveryId>,
    pub touched_messages: BTreeSet<MessageUuid>,
    pub calls: Calls,
    rules: BTreeMap<HoldRuleId, (Seq, HoldMatch)>,
    jobs: BTreeMap<JobId, Job>,
    accounts: BTreeMap<AccountName, Account>,
    domain_disabled: bool,
    /// The record that branched the ledger last.
    branch: Option<Seq>,
    /// For accounts that have no schedule of their own.
    waits_s: Vec<u32>,
    last: Last,
    /// Suppressions that a failure named, and its record did not come yet or has just come.
    announced: BTreeMap<SuppressionId, Seq>,
}

impl Truth {
    pub fn new(waits_s: &[u32]) -> Truth {
        Truth {
            deliveries: BTreeMap::new(),
            messages: HashMap::new(),
            suppressed: BTreeMap::new(),
            notices: BTreeSet::new(),
            mail: BTreeMap::new(),
            tally: Tally::default(),
            touched: BTreeSet::new(),
            touched_messages: BTreeSet::new(),
            calls: Calls::default(),
            rules: BTreeMap::new(),
            jobs: BTreeMap::new(),
            accounts: BTreeMap::new(),
            domain_disabled: false,
            branch: None,
            waits_s: waits_s.to_vec(),
            last: Last::default(),
            announced: BTreeMap::new(),
        }
    }

    /// What is true where the log ends after `kept`. What other branches gave out stays given out, and what they sent, sent.
    pub fn cut_off(&mut self, kept: &[Record], taken: impl Fn(DeliveryId) -> u32) {
        let mut truth = Truth::new(&self.waits_s);
        kept.iter().for_each(|record| truth.observe(record));
        for (id, row) in &mut truth.deliveries {
            let open = !row.state.is_terminal();
            row.sent_elsewhere = if open { taken(*id) } else { self.deliveries[id].sent_elsewhere };
        }
        truth.last = std::mem::take(&mut self.last);
        *self = truth;
    }

    pub fn last_seq(&self) -> Seq {
        Seq(self.last.seq)
    }

    pub fn rules(&self) -> Vec<HoldRuleId> {
        self.rules.keys().copied().collect()
    }

    pub fn jobs(&self) -> Vec<JobId> {
        self.jobs.keys().copied().collect()
    }

    pub fn is_domain_disabled(&self) -> bool {
        self.domain_disabled
    }

    /// Some copy of a message, or the message it was submitted with, still needs these bytes.
    pub fn needs_body(&self, body: MessageUuid) -> bool {
        self.messages.get(&body).is_some_and(|m| m.contents) || self.mail.values().any(|b| b.body == body)
    }

    /// Takes an event in, if it may follow what is true so far.
    pub fn observe(&mut self, record: &Record) {
        let at = record.at;
        grow(&mut self.last.seq, record.seq.0);
        self.calls.observe(record);
        match &record.event {
            Event::MessageSubmitted(e) => self.submitted(e, record),
            Event::AttemptStarted(e) => {
                assert!(self.last.attempts.insert(e.attempt), "attempt {} started before", e.attempt);
                for d in &e.deliveries {
                    self.check_start(d.id, d.number, at);
                    let row = self.touch(d.id);
                    row.state = State::Running(e.attempt, e.started);
                    row.attempts = d.number;
                }
            }
            Event::Delivered(e) => {
                for d in &e.deliveries {
                    self.check_runs(d.id, e.attempt, d.number);
                    self.end(d.id, State::Delivered, e.keep_until);
                }
                self.tally.delivered += e.deliveries.len() as u64;
            }
            Event::AttemptDeferred(e) => {
                for d in &e.deliveries {
                    self.check_runs(d.id, e.attempt, d.number);
                    let untried = d.problem.error == Some(UNTRIED);
                    assert!(!untried || d.next == at, "a stop that was planned is no reason to wait");
                    if !untried {
                        self.check_next(d.id, d.next, at);
                    }
                    let row = self.touch(d.id);
                    (row.state, row.due) = (State::Queued, d.next);
                    row.unknown += is_unknown(&d.problem);
                }
                if e.deliveries.iter().any(|d| d.number == DELAY_NOTICE_ATTEMPT) {
                    self.notify(e.message, record.seq);
                }
            }
            Event::AttemptInDoubt(e) => {
                for d in &e.deliveries {
                    self.check_runs(d.id, e.attempt, d.number);
                    match d.next {
                        Some(next) => self.check_next(d.id, next, at),
                        None if self.is_restored(d.id) => {}
                        None => self.check_was_last(d.id),
                    }
                    let given_up = d.next.is_none() && !self.is_restored(d.id);
                    let row = self.touch(d.id);
                    row.state = State::Queued;
                    row.in_doubt += 1;
                    row.due = d.next.unwrap_or(row.due);
                    row.given_up = given_up.then_some(e.attempt);
                }
                self.tally.in_doubt += e.deliveries.len() as u64;
            }
            Event::DeliveryFailed(e) => {
                for d in &e.deliveries {
                    self.check_failure(d.id, e.attempt, d.number, d.why);
                    let row = self.touch(d.id);
                    assert_eq!(d.held, matches!(row.state, State::Held(_)), "delivery {}", d.id);
                    row.unknown += is_unknown(&d.problem);
                    self.end(d.id, State::Failed(d.why), e.keep_until);
                    self.announced.extend(d.suppressing.map(|id| (id, record.seq)));
                    self.tally.held -= u64::from(d.held);
                }
                self.tally.failed += e.deliveries.len() as u64;
                if e.deliveries.iter().any(|d| !matches!(d.why, Failure::AccountRemoved | Failure::Forgotten)) {
                    self.notify(e.message, record.seq);
                }
            }
            Event::DeliverySuppressed(e) => {
                for d in &e.deliveries {
                    assert_eq!(self.row(d.id).state, State::Queued, "delivery {} is suppressed", d.id);
                    let entry = self.suppressed.get(&(e.account.clone(), d.recipient));
                    assert_eq!(entry, Some(&d.suppression), "delivery {} is suppressed", d.id);
                    self.end(d.id, State::Suppressed, e.keep_until);
                }
                self.tally.suppressed += e.deliveries.len() as u64;
                self.notify(e.message, record.seq);
            }
            Event::DeliveryCanceled(e) => {
                for d in &e.deliveries {
                    let state = self.row(d.id).state;
                    assert_eq!(d.held, matches!(state, State::Held(_)), "delivery {} is canceled", d.id);
                    assert!(d.held || state == State::Queued, "delivery {} is canceled while {state:?}", d.id);
                    self.treat(d.id, e.job);
                    self.end(d.id, State::Canceled, e.keep_until);
                    self.tally.held -= u64::from(d.held);
                }
                self.tally.canceled += e.deliveries.len() as u64;
            }
            Event::DeliveryHeld(e) => {
                for id in &e.deliveries {
                    assert_eq!(self.row(*id).state, State::Queued, "delivery {id} is held");
                    match e.cause {
                        HoldCause::Rule(rule) => self.check_hold(*id, rule),
                        HoldCause::Restored => assert!(self.is_restored(*id), "{id} was not restored"),
                        HoldCause::Person => {}
                    }
                    self.treat(*id, e.job);
                    let row = self.touch(*id);
                    (row.state, row.wish, row.given_up) = (State::Held(e.cause), None, None);
                }
                self.tally.held += e.deliveries.len() as u64;
            }
            Event::DeliveryReleased(e) => {
                for id in &e.deliveries {
                    assert!(matches!(self.row(*id).state, State::Held(_)), "delivery {id} is released");
                    self.treat(*id, e.job);
                    let row = self.touch(*id);
                    (row.state, row.due, row.released) = (State::Queued, row.due.max(at), Some(record.seq));
                }
                self.tally.held -= e.deliveries.len() as u64;
            }
            Event::DeliveryRescheduled(e) => {
                for d in &e.deliveries {
                    let state = self.row(d.id).state;
                    assert!(matches!(state, State::Queued | State::Held(_)), "{} is rescheduled: {state:?}", d.id);
                    assert!(d.next >= at, "delivery {} is put off to the past", d.id);
                    self.treat(d.id, e.job);
                    let row = self.touch(d.id);
                    (row.due, row.wish) = (d.next, None);
                }
            }
            Event::WishNoted(e) => {
                let state = self.row(e.delivery).state;
                assert!(matches!(state, State::Running(..)), "a wish is noted for {}: {state:?}", e.delivery);
                self.treat(e.delivery, e.job);
                self.touch(e.delivery).wish = Some(e.wish);
            }
            Event::AddressSuppressed(e) => {
                grow(&mut self.last.suppression, e.id.0);
                if let Cause::Failure(seq) = e.cause {
                    assert_eq!(self.announced.remove(&e.id), Some(seq), "{} names no failure that names it", e.id);
                }
                let before = self.suppressed.insert((e.account.clone(), e.recipient), e.id);
                assert_eq!(before, None, "an address is on the list once");
            }
            Event::SuppressionLifted(e) => {
                let was = self.suppressed.remove(&(e.account.clone(), e.recipient));
                assert_eq!(was, Some(e.id), "what is lifted was on the list");
            }
            Event::MessageReceived(e) => {
                for copy in &e.copies {
                    self.file(&copy.account, copy.msg_id, e.body);
                }
                if let Some(of) = e.notice_of {
                    assert!(self.notices.remove(&of), "the sender was told of {of} before");
                }
                self.tally.received += e.copies.len() as u64;
            }
            Event::MessageDeleted(e) => {
                let was = self.mail.remove(&(e.account.clone(), e.msg_id));
                assert_eq!(was, Some(e.body), "what is deleted was there");
                assert_eq!(e.last, !self.mail.values().any(|b| b.body == e.body.body), "{}", e.msg_id);
            }
            Event::HoldRuleAdded(e) => {
                grow(&mut self.last.rule, e.rule.0);
                self.rules.insert(e.rule, (record.seq, e.matching.clone()));
                self.start_job(e.job, Work::ApplyHoldRule(e.rule, e.matching.clone()), record);
            }
            Event::HoldRuleRemoved(e) => assert!(self.rules.remove(&e.rule).is_some()),
            Event::JobStarted(e) => {
                if let Work::RemoveAccount(account) = &e.work {
                    self.account(account).going = true;
                }
                self.start_job(e.job, e.work.clone(), record);
            }
            Event::JobAdvanced(e) => assert!(self.jobs.contains_key(&e.job)),
            Event::JobFinished(e) => {
                let job = self.jobs.remove(&e.job).expect("a job finishes once");
                self.check_finished(e.job, &job);
            }
            Event::AccountConfigured(e) => {
                let account = self.account(&e.account);
                account.retry_s = e.settings.retry.as_ref().map(|r| r.waits_s.clone());
                account.recipients_per_day_max = e.settings.messages_per_day_max;
                account.quota_bytes = e.settings.quota_bytes;
            }
            Event::AccountRemoved(e) => {
                assert!(self.accounts.remove(&e.account).is_some_and(|a| a.going));
                let open = |d: &&Delivery| d.account == e.account && !d.state.is_terminal();
                assert!(!self.deliveries.values().any(|d| open(&d)), "nothing of a removed account is open");
                assert!(!self.mail.keys().any(|(a, _)| *a == e.account), "its mailboxes are empty");
            }
            Event::DomainConfigured(e) => self.domain_disabled = e.settings.disabled,
            Event::Expired(e) => {
                for d in &e.deliveries {
                    let row = self.touch(d.id);
                    assert!(row.state.is_terminal() && !row.expired, "delivery {} expires as {:?}", d.id, row.state);
                    assert_eq!(row.keep_until, Some(d.keep_until));
                    assert!(d.keep_until <= at, "delivery {} expires too early", d.id);
                    row.expired = true;
                }
                for b in &e.bodies {
                    self.forget(b.message, b.row);
                }
                for of in &e.notices {
                    assert!(self.notices.remove(of), "the sender was told of {of} before");
                }
                assert!(e.idempotency_keys.iter().all(|k| k.until <= at), "an answer expires too early");
                self.tally.expired += e.deliveries.len() as u64;
            }
            Event::LedgerBranched(e) => {
                grow(&mut self.last.delivery, e.numbers.delivery.0);
                grow(&mut self.last.suppression, e.numbers.suppression.0);
                grow(&mut self.last.rule, e.numbers.hold_rule.0);
                grow(&mut self.last.msg, e.numbers.msg_id.0);
                self.branch = Some(record.seq);
                self.start_job(e.job, Work::HoldRestored(record.seq), record);
            }
            Event::EndpointDisabled(_) => {
                self.notices.insert(record.seq);
            }
            Event::LedgerCreated(_)
            | Event::ClockStepped(_)
            | Event::DomainRemoved(_)
            | Event::EndpointConfigured(_)
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
            | Event::AddressAdded(_)
            | Event::AddressRemoved(_)
            | Event::TransportConfigured(_)
            | Event::TransportRemoved(_) => {}
        }
    }

    fn submitted(&mut self, e: &MessageSubmitted, record: &Record) {
        let personal = e.personal.as_ref().expect("nothing was forgotten yet");
        let sender = personal.reverse_path.as_ref().map(|a| a.domain.clone());
        assert!(e.due >= record.at);
        for (d, to) in e.deliveries.iter().zip(&personal.recipients) {
            grow(&mut self.last.delivery, d.id.0);
            let rule = self.rules.values().zip(self.rules.keys()).find_map(|((_, matching), id)| {
                matches(matching, &e.account, sender.as_ref(), &to.address.domain).then_some(*id)
            });
            assert_eq!(d.hold, rule, "delivery {} is held by the first rule that matches", d.id);
            let row = Delivery {
                message: e.message,
                account: e.account.clone(),
                recipient: d.recipient,
                address: to.address.clone(),
                state: d.hold.map_or(State::Queued, |rule| State::Held(HoldCause::Rule(rule))),
                attempts: 0,
                in_doubt: 0,
                unknown: 0,
                due: e.due,
                wish: None,
                released: None,
                keep_until: None,
                treated: BTreeSet::new(),
                last_job: None,
                sent_elsewhere: 0,
                given_up: None,
                outcomes: 0,
                expired: false,
            };
            self.deliveries.insert(d.id, row);
            self.touch(d.id);
            self.tally.held += u64::from(d.hold.is_some());
        }
        let message = Message {
            submitted: record.at,
            sender,
            keep_contents: e.keep_contents,
            contents: true,
            deliveries: e.deliveries.iter().map(|d| d.id).collect(),
            seq: record.seq,
        };
        assert!(self.messages.insert(e.message, message).is_none());
        self.tally.messages += 1;
        self.tally.accepted += e.deliveries.len() as u64;
        if let Some(copy) = &e.sent_copy {
            self.file(&e.account, copy.msg_id, copy.body);
        }
        self.count_usage(&e.account, record.at, e.deliveries.len() as u64);
    }

    fn count_usage(&mut self, account: &AccountName, at: Timestamp, recipients: u64) {
        let account = self.account(account);
        assert!(!account.going, "an account that goes sends nothing");
        account.sent.retain(|(sent, _)| *sent > at - DAY);
        account.sent.push((at, recipients));
        let all: u64 = account.sent.iter().map(|(_, n)| n).sum();
        if let Some(max) = account.recipients_per_day_max {
            assert!(all <= u64::from(max), "{all} recipients in a day, of {max} that are allowed");
        }
    }

    fn file(&mut self, account: &AccountName, msg_id: MsgId, body: BodyRef) {
        grow(&mut self.last.msg, msg_id.0);
        self.mail.insert((account.clone(), msg_id), body);
        if let Some(quota_bytes) = self.account(account).quota_bytes {
            let own = self.mail.iter().filter(|((a, _), _)| a == account);
            let stored: u64 = own.map(|(_, b)| b.size).sum();
            assert!(stored <= quota_bytes, "{stored} bytes in mailboxes of {account}, of {quota_bytes}");
        }
    }

    fn start_job(&mut self, job: JobId, work: Work, record: &Record) {
        grow(&mut self.last.job, job.0);
        self.jobs.insert(job, Job { work, started: record.at, seq: record.seq });
    }

    fn account(&mut self, name: &AccountName) -> &mut Account {
        self.accounts.entry(name.clone()).or_default()
    }

    fn notify(&mut self, message: MessageUuid, of: Seq) {
        if self.messages[&message].sender.is_some() {
            self.notices.insert(of);
        }
    }

    fn forget(&mut self, message: MessageUuid, with_row: bool) {
        self.touched_messages.insert(message);
        let ids = self.messages[&message].deliveries.clone();
        if with_row {
            assert!(ids.iter().all(|id| self.row(*id).expired), "message {message} goes before its deliveries");
        } else {
            assert!(!self.messages[&message].keep_contents, "contents of message {message} are kept");
            assert!(ids.iter().all(|id| self.row(*id).state.is_terminal()), "contents of {message} are needed");
        }
        self.messages.get_mut(&message).expect("it was there").contents = false;
    }

    fn row(&self, id: DeliveryId) -> &Delivery {
        self.deliveries.get(&id).unwrap_or_else(|| panic!("delivery {id} was never accepted"))
    }

    fn touch(&mut self, id: DeliveryId) -> &mut Delivery {
        self.touched.insert(id);
        let row = self.deliveries.get_mut(&id).unwrap_or_else(|| panic!("delivery {id} was never accepted"));
        self.touched_messages.insert(row.message);
        row
    }

    fn end(&mut self, id: DeliveryId, state: State, keep_until: Timestamp) {
        let row = self.touch(id);
        (row.state, row.keep_until, row.wish) = (state, Some(keep_until), None);
        row.outcomes += 1;
        assert_eq!(row.outcomes, 1, "delivery {id} comes to one outcome");
    }

    /// A job treats a delivery once; only ending it can be asked for again.
    fn treat(&mut self, id: DeliveryId, job: Option<JobId>) {
        let Some(job) = job else { return };
        let row = self.touch(id);
        row.last_job = Some(job);
        let again = !row.treated.insert(job);
        let message = row.message;
        let Some(Job { work: Work::Queue(_, action), started, .. }) = self.jobs.get(&job) else { return };
        let adds = matches!(action, QueueAction::ScheduleAdd(_));
        assert!(!(again && adds), "job {job} puts delivery {id} off a second time");
        assert!(self.messages[&message].submitted <= *started, "job {job} treats {id}, which came later");
    }

    fn check_runs(&self, id: DeliveryId, attempt: AttemptId, number: u32) {
        let row = self.row(id);
        assert!(matches!(row.state, State::Running(a, _) if a == attempt), "{id} of attempt {attempt}: {row:?}");
        assert_eq!(number, row.attempts, "attempt {attempt} of delivery {id}");
    }

    /// Nothing starts that is held, suppressed, not due, wished otherwise, or of an account that goes.
    fn check_start(&self, id: DeliveryId, number: u32, now: Timestamp) {
        let row = self.row(id);
        let message = &self.messages[&row.message];
        assert_eq!((row.state, number), (State::Queued, row.attempts + 1), "attempts of {id} are numbered one by one");
        assert!(row.due <= now, "{id} starts before it is due: {row:?}");
        // The attempt that a disabled domain puts off fails before it leaves.
        if self.domain_disabled && message.sender.is_some() {
            return;
        }
        assert!(message.contents, "there is nothing to send for {id}");
        assert!(!self.is_restored(id), "{id} leaves though another branch may have sent it: {row:?}");
        let rule = self.rules.iter().find(|(_, (seq, matching))| {
            row.released.is_none_or(|released| *seq > released)
                && matches(matching, &row.account, message.sender.as_ref(), &row.address.domain)
        });
        assert_eq!(rule, None, "{id} leaves though a rule holds it: {row:?}");
        let entry = self.suppressed.get(&(row.account.clone(), row.recipient));
        assert_eq!(entry, None, "{id} leaves though its address is suppressed: {row:?}");
        let account = self.accounts.get(&row.account);
        assert!(account.is_some_and(|account| !account.going), "{id} leaves though its account goes: {row:?}");
        for (job, Job { work, started, .. }) in &self.jobs {
            if let Work::Queue(filter, action) = work {
                let obeyed = row.treated.contains(job)
                    || *action == QueueAction::Release
                    || message.submitted > *started
                    || !is_meant(filter, row, message, id);
                assert!(obeyed, "{id} leaves though job {job} ({action:?}) is to come to it: {row:?}");
            }
        }
    }

    /// It was there when the ledger was branched, and nobody released it since.
    fn is_restored(&self, id: DeliveryId) -> bool {
        let row = self.row(id);
        self.branch.is_some_and(|branch| {
            self.messages[&row.message].seq < branch && row.released.is_none_or(|released| released < branch)
        })
    }

    fn waits_s(&self, account: &AccountName) -> &[u32] {
        self.accounts.get(account).and_then(|a| a.retry_s.as_deref()).unwrap_or(&self.waits_s)
    }

    /// The next attempt comes when the schedule has it, counted from the start of this one, and not in the past.
    fn check_next(&self, id: DeliveryId, next: Timestamp, now: Timestamp) {
        let row = self.row(id);
        let State::Running(_, started) = row.state else { panic!("{id} runs: {row:?}") };
        let Some(wait) = self.waits_s(&row.account).get(row.attempts as usize - 1).copied().map(f64::from) else {
            panic!("attempt {} of {id} was its last: {row:?}", row.attempts)
        };
        let waited = next.since(started).as_secs_f64();
        let (least, most) = (wait * (1.0 - 5.01 / SPREAD_OF_S), wait * (1.0 + 4.01 / SPREAD_OF_S) + 0.001);
        assert!(next >= now, "{id} is due in the past");
        assert!(waited >= least - 0.001, "{id} waits {waited} s instead of {wait} s");
        assert!(next == now || waited <= most, "{id} waits {waited} s instead of {wait} s");
    }

    fn check_was_last(&self, id: DeliveryId) {
        let row = self.row(id);
        let waits = self.waits_s(&row.account).len();
        assert!(row.attempts as usize > waits, "{id} is given up after attempt {} of {}", row.attempts, waits + 1);
    }

    fn check_failure(&self, id: DeliveryId, attempt: Option<AttemptId>, number: u32, why: Failure) {
        let row = self.row(id);
        assert_eq!(number, row.attempts, "{id} fails with its last attempt");
        let running = match row.state {
            State::Running(running, _) => Some(running),
            State::Queued | State::Held(_) => row.given_up,
            State::Delivered | State::Failed(_) | State::Suppressed | State::Canceled => None,
        };
        assert_eq!(attempt, running, "{id} fails in the attempt that runs: {row:?}");
        if matches!(why, Failure::Exhausted | Failure::OutcomeUnknown) {
            self.check_was_last(id);
        }
    }

    fn check_hold(&self, id: DeliveryId, rule: HoldRuleId) {
        let row = self.row(id);
        let Some((seq, matching)) = self.rules.get(&rule) else { panic!("{id} is held by {rule}, which is no rule") };
        let sender = self.messages[&row.message].sender.as_ref();
        assert!(matches(matching, &row.account, sender, &row.address.domain), "{id} is none of rule {rule}'s");
        assert!(row.released.is_none_or(|released| *seq > released), "{id} was released after rule {rule} was there");
    }

    /// What a job was to come to, it came to.
    fn check_finished(&self, id: JobId, job: &Job) {
        if matches!(job.work, Work::HoldRestored(branch) if Some(branch) == self.branch) {
            self.check_all_held();
        }
        let Work::Queue(filter, action) = &job.work else { return };
        let ends = matches!(action, QueueAction::Cancel | QueueAction::Fail);
        // What these ask for changes while the job is at work.
        if !(ends || *action == QueueAction::Hold) || filter.due_before.is_some() || filter.held.is_some() {
            return;
        }
        let open = |row: &Delivery| match row.state {
            State::Queued => ends || row.released.is_none_or(|released| released < job.seq),
            State::Held(_) => ends,
            // It is noted as a wish.
            State::Running(..) | State::Delivered | State::Failed(_) | State::Suppressed | State::Canceled => false,
        };
        for (d, row) in self.deliveries.iter().filter(|(_, row)| open(row)) {
            let message = &self.messages[&row.message];
            let passed = row.treated.contains(&id) || message.seq > job.seq;
            let going = self.accounts.get(&row.account).is_none_or(|a| a.going);
            assert!(passed || going || !is_meant(filter, row, message, *d), "job {id} has passed over {d}: {row:?}");
        }
    }

    /// What was open where the ledger was cut off.
    pub fn check_all_held(&self) {
        let loose = self.deliveries.iter().find(|(d, row)| !row.state.is_terminal() && self.is_loose(**d));
        assert!(loose.is_none(), "a hold has passed over {loose:?}");
    }

    /// It waits for a release, but is not on hold.
    fn is_loose(&self, id: DeliveryId) -> bool {
        let row = self.row(id);
        let going = self.accounts.get(&row.account).is_none_or(|a| a.going);
        self.is_restored(id) && !going && !matches!(row.state, State::Held(_))
    }

    /// Rows say the same.
    pub fn check_row(&self, id: DeliveryId, row: Option<DeliveryRow>) {
        let truth = self.row(id);
        let Some(row) = row else {
            assert!(truth.expired && truth.outcomes == 1, "delivery {id} has no row");
            return;
        };
        assert!(!truth.expired, "delivery {id} is listed after its keep period");
        assert_eq!(truth.outcomes, u32::from(row.state.is_terminal()), "{row:?}");
        let told =
            (row.state, row.attempts, row.in_doubt, row.due, row.released, row.keep_until, row.jobs.last().copied());
        // An end by a job is no reason to remember it; nothing comes after.
        let job = if row.state.is_terminal() { row.jobs.last().copied() } else { truth.last_job };
        let known = (truth.state, truth.attempts, truth.in_doubt, truth.due, truth.released, truth.keep_until, job);
        assert_eq!(told, known, "delivery {id}");
        assert_eq!(row.wish.map(|(wish, _)| wish), truth.wish, "delivery {id}");
        // Where the log was cut off between an attempt's end and what had been wished for then, a person says what follows.
        let ended = truth.wish.is_none() || matches!(truth.state, State::Running(..)) || self.is_restored(id);
        assert!(ended, "a wish waits for an end: {truth:?}");
    }

    pub fn check_message(&self, id: MessageUuid, row: Option<MessageRow>) {
        let truth = &self.messages[&id];
        let left = truth.deliveries.iter().filter(|d| !self.row(**d).expired).count();
        let Some(row) = row else {
            assert!(left == 0 && !truth.contents, "message {id} has no row");
            return;
        };
        assert_eq!((row.remaining as usize, row.contents), (left, truth.contents), "message {id}");
        assert!(left > 0, "message {id} has a row, but no delivery has");
        let ended = truth.deliveries.iter().all(|d| self.row(*d).state.is_terminal());
        // A log that was cut off between the records of one command may keep them longer.
        let cut = self.branch.is_some_and(|branch| truth.seq < branch) && ended;
        assert!(
            row.keep_contents || row.contents != ended || cut,
            "contents are kept as long as they are needed: {row:?}"
        );
    }
}

fn grow(last: &mut u64, number: u64) {
    assert!(number > *last, "{number} comes after {last}");
    *last = number;
}

fn is_unknown(problem: &Problem) -> u32 {
    u32::from(problem.error == Some(BROKEN_OFF))
}

fn matches(rule: &HoldMatch, account: &AccountName, sender: Option<&Domain>, recipient: &Domain) -> bool {
    rule.account.as_ref().is_none_or(|a| a == account)
        && rule.sender_domain.as_ref().is_none_or(|d| Some(d) == sender)
        && rule.recipient_domain.as_ref().is_none_or(|d| d == recipient)
}

fn is_meant(filter: &QueueFilter, row: &Delivery, message: &Message, id: DeliveryId) -> bool {
    (filter.ids.is_empty() || filter.ids.contains(&id))
        && filter.account.as_ref().is_none_or(|a| *a == row.account)
        && filter.sender_domain.as_ref().is_none_or(|d| Some(d) == message.sender.as_ref())
        && filter.recipient_domain.as_ref().is_none_or(|d| *d == row.address.domain)
        && filter.held.is_none_or(|held| held == matches!(row.state, State::Held(_)))
        && filter.due_before.is_none_or(|t| row.due < t)
}
