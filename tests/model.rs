//! Whatever is asked of the core in whatever order: every recipient is in one state and comes to one outcome, and rows that
//! are folded anew are the rows that grew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use postledger::decide::{Decision, Moment, Policy, classify, decide};
use postledger_events::address::{Address, Domain};
use postledger_events::command::*;
use postledger_events::fact::account::{AccountSettings, Destination, RetrySchedule};
use postledger_events::fact::attempt::{Failure, Session};
use postledger_events::fact::job::{HoldMatch, QueueAction, QueueFilter};
use postledger_events::fact::submission::{BodyRef, Via};
use postledger_events::fact::suppression::Cause;
use postledger_events::id::*;
use postledger_events::reply::Reply;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Event, Record, Refusal};
use postledger_projections::accounts::{self, HoldRuleRow};
use postledger_projections::deliveries::{self, DeliveryRow, Due, State};
use postledger_projections::{Memory, PROJECTIONS, books, fold, is_body_live, mailboxes, suppressions};
use proptest::prelude::*;

const OURS: &str = "here.example";
const ACCOUNTS: u8 = 2;
const RECIPIENTS: u8 = 10;
/// For accounts without a schedule of their own.
const WAITS_S: [u32; 3] = [60, 120, 240];
/// More than any sequence needs to come to its end.
const ROUNDS_MAX: usize = 400;

/// What is asked. Picks are taken modulo what there is to pick from.
#[derive(Clone, Debug)]
enum Op {
    Submit { account: u8, recipients: Vec<u8>, release_s: Option<u32>, key: Option<u8>, copy: bool },
    Start { message: u8, others_too: bool, twice: bool },
    Finish { attempt: u8, outcomes: Vec<u8>, jitter_s: i8 },
    Abandon { attempt: u8, twice: bool, jitter_s: i8 },
    Queue { action: QueueAction, filter: Filter },
    AddHoldRule { account: Option<u8>, from_ours: bool, to: Option<u8> },
    RemoveHoldRule { rule: u8 },
    AdvanceJob { job: u8 },
    Suppress { account: u8, recipient: u8 },
    Lift { account: u8, recipient: u8 },
    Configure { account: u8, keep_s: u64, keep_contents: bool, waits_s: Option<Vec<u32>> },
    Create { account: u8 },
    Remove { account: u8 },
    Receive { accounts: Vec<u8> },
    Delete { account: u8, message: u8 },
    Expire,
    Pass { seconds: u32 },
}

#[derive(Clone, Debug)]
struct Filter {
    ids: Vec<u8>,
    account: Option<u8>,
    to: Option<u8>,
    held: Option<bool>,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    prop::collection::vec(op(), 1..70)
}

fn op() -> impl Strategy<Value = Op> {
    let account = || 0..ACCOUNTS;
    let recipient = || 0..RECIPIENTS;
    let maybe = |range: std::ops::Range<u8>| prop::option::of(range);
    let jitter = || -5i8..5;
    let submit = (
        account(),
        prop::collection::vec(recipient(), 1..5),
        prop::option::weighted(0.2, 1u32..2000),
        prop::option::weighted(0.3, 0u8..4),
        any::<bool>(),
    );
    let keep_s = prop::sample::select(vec![0u64, 300, 3600]);
    let waits = prop::option::of(prop::collection::vec(1u32..500, 0..3));
    prop_oneof![
        6 => submit.prop_map(|(account, recipients, release_s, key, copy)| Op::Submit { account, recipients, release_s, key, copy }),
        8 => (any::<u8>(), any::<bool>(), prop::bool::weighted(0.1))
            .prop_map(|(message, others_too, twice)| Op::Start { message, others_too, twice }),
        7 => (any::<u8>(), prop::collection::vec(0u8..OUTCOMES, 1..5), jitter())
            .prop_map(|(attempt, outcomes, jitter_s)| Op::Finish { attempt, outcomes, jitter_s }),
        2 => (any::<u8>(), prop::bool::weighted(0.1), jitter())
            .prop_map(|(attempt, twice, jitter_s)| Op::Abandon { attempt, twice, jitter_s }),
        4 => (action(), filter()).prop_map(|(action, filter)| Op::Queue { action, filter }),
        1 => (maybe(0..ACCOUNTS), any::<bool>(), maybe(0..2))
            .prop_map(|(account, from_ours, to)| Op::AddHoldRule { account, from_ours, to }),
        1 => any::<u8>().prop_map(|rule| Op::RemoveHoldRule { rule }),
        4 => any::<u8>().prop_map(|job| Op::AdvanceJob { job }),
        2 => (account(), recipient()).prop_map(|(account, recipient)| Op::Suppress { account, recipient }),
        1 => (account(), recipient()).prop_map(|(account, recipient)| Op::Lift { account, recipient }),
        2 => (account(), keep_s, any::<bool>(), waits).prop_map(|(account, keep_s, keep_contents, waits_s)| {
            Op::Configure { account, keep_s, keep_contents, waits_s }
        }),
        1 => account().prop_map(|account| Op::Create { account }),
        1 => account().prop_map(|account| Op::Remove { account }),
        1 => prop::collection::vec(account(), 1..3).prop_map(|accounts| Op::Receive { accounts }),
        1 => (account(), any::<u8>()).prop_map(|(account, message)| Op::Delete { account, message }),
        2 => Just(Op::Expire),
        6 => (1u32..400).prop_map(|seconds| Op::Pass { seconds }),
    ]
}

fn action() -> impl Strategy<Value = QueueAction> {
    prop_oneof![
        Just(QueueAction::Hold),
        Just(QueueAction::Release),
        Just(QueueAction::Cancel),
        Just(QueueAction::Fail),
        (0i64..1000).prop_map(|s| QueueAction::ScheduleAt(START + Duration::from_secs(s.unsigned_abs()))),
        (0u32..600).prop_map(QueueAction::ScheduleAdd),
    ]
}

fn filter() -> impl Strategy<Value = Filter> {
    let ids = prop::collection::vec(any::<u8>(), 0..4);
    let (account, to) = (prop::option::weighted(0.3, 0..ACCOUNTS), prop::option::weighted(0.3, 0u8..2));
    (ids, account, to, prop::option::weighted(0.2, any::<bool>())).prop_map(|(ids, account, to, held)| Filter {
        ids,
        account,
        to,
        held,
    })
}

const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// Kinds of what can become of a recipient; see [`World::outcome`].
const OUTCOMES: u8 = 10;
const UNTRIED: &str = "untried";

/// The core with its log, rows and time, and what should be true of them.
struct World {
    rows: Memory,
    records: Vec<Record>,
    prev: Sha256,
    now: Timestamp,
    policy: Policy,
    names: u128,
    messages: Vec<MessageUuid>,
    attempts: Vec<(AttemptId, MessageUuid, Vec<DeliveryId>)>,
    /// How often each accepted recipient came to an outcome.
    outcomes: BTreeMap<DeliveryId, u32>,
    expired: BTreeSet<DeliveryId>,
    bodies: BTreeSet<MessageUuid>,
    forgotten: BTreeSet<MessageUuid>,
}

impl World {
    fn new() -> World {
        let policy = Policy {
            pepper: [7; 32],
            ledger_number: 0,
            retry: RetrySchedule { waits_s: WAITS_S.to_vec() },
            retry_scale: 1,
            reply_rules: Arc::new(classify::Rules::shipped()),
        };
        let mut world = World {
            rows: Memory::default(),
            records: Vec::new(),
            prev: Sha256::ZERO,
            now: START,
            policy,
            names: 0,
            messages: Vec::new(),
            attempts: Vec::new(),
            outcomes: BTreeMap::new(),
            expired: BTreeSet::new(),
            bodies: BTreeSet::new(),
            forgotten: BTreeSet::new(),
        };
        let (domain, change) = (Domain::new(OURS).unwrap(), DomainChange::default());
        world.must(Command::ConfigureDomain(ConfigureDomain { domain, create: true, change, by: by() }));
        for account in 0..ACCOUNTS {
            world.create(account);
        }
        world
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Submit { account, recipients, release_s, key, copy } => {
                self.submit(*account, recipients, *release_s, *key, *copy);
            }
            Op::Start { message, others_too, twice } => self.start(*message, *others_too, *twice),
            Op::Finish { attempt, outcomes, jitter_s } => self.finish(*attempt, outcomes, *jitter_s),
            Op::Abandon { attempt, twice, jitter_s } => self.abandon(*attempt, *twice, *jitter_s),
            Op::Queue { action, filter } => self.queue(*action, filter),
            Op::AddHoldRule { account, from_ours, to } => {
                let matching = HoldMatch {
                    account: account.map(account_name),
                    sender_domain: from_ours.then(|| Domain::new(OURS).unwrap()),
                    recipient_domain: to.map(domain),
                };
                self.apply(Command::AddHoldRule(AddHoldRule { matching, by: by() }));
            }
            Op::RemoveHoldRule { rule } => {
                if let Some(row) = pick(&accounts::hold_rules(&self.rows).unwrap(), *rule) {
                    self.apply(Command::RemoveHoldRule(RemoveHoldRule { rule: row.rule, by: by() }));
                }
            }
            Op::AdvanceJob { job } => {
                if let Some(row) = pick(&accounts::jobs(&self.rows).unwrap(), *job) {
                    self.apply(Command::AdvanceJob(AdvanceJob { job: row.job }));
                }
            }
            Op::Suppress { account, recipient } => {
                let (account, address) = (account_name(*account), address(*recipient));
                let reason = "asked for".to_owned();
                let suppress = Suppress { account, address, manual: true, reason, by: by(), idempotency: None };
                self.apply(Command::Suppress(suppress));
            }
            Op::Lift { account, recipient } => {
                let (account, address) = (account_name(*account), address(*recipient));
                self.apply(Command::LiftSuppression(LiftSuppression { account, address, by: by(), idempotency: None }));
            }
            Op::Configure { account, keep_s, keep_contents, waits_s } => {
                let change = AccountChange {
                    keep_s: Some(*keep_s),
                    keep_contents: Some(*keep_contents),
                    retry: Some(waits_s.clone().map(|waits_s| RetrySchedule { waits_s })),
                    ..AccountChange::default()
                };
                self.configure(*account, false, change);
            }
            Op::Create { account } => self.create(*account),
            Op::Remove { account } => {
                self.apply(Command::RemoveAccount(RemoveAccount { account: account_name(*account), by: by() }));
            }
            Op::Receive { accounts } => self.receive(accounts),
            Op::Delete { account, message } => {
                let account = account_name(*account);
                if let Some(row) = pick(&mailboxes::some(&self.rows, &account, 100).unwrap(), *message) {
                    self.apply(Command::DeleteMessage(DeleteMessage { account, msg_id: row.msg_id, by: by() }));
                }
            }
            Op::Expire => {
                self.apply(Command::Expire(Expire { from: Timestamp::EPOCH }));
            }
            Op::Pass { seconds } => self.now = self.now + Duration::from_secs(u64::from(*seconds)),
        }
    }

    fn name(&mut self) -> uuid::Uuid {
        self.names += 1;
        uuid::Uuid::from_u128(self.names)
    }

    fn body(&mut self) -> BodyRef {
        BodyRef { body: MessageUuid(self.name()), size: 100, sha256: Sha256::of(b"") }
    }

    fn submit(&mut self, account: u8, recipients: &[u8], release_s: Option<u32>, key: Option<u8>, copy: bool) {
        let (body, account) = (self.body(), account_name(account));
        let sent_copy = copy.then(|| self.body());
        let recipients: BTreeSet<_> = recipients.iter().collect();
        let request = Sha256::of(format!("{recipients:?}").as_bytes());
        let from = Address::parse(&format!("{account}@{OURS}")).unwrap();
        let fromids = recipients.iter().map(|n| FromId::new(&format!("f{}-{n}", self.names)).unwrap()).collect();
        let command = Submit {
            message: body.body,
            login: from.to_string(),
            account,
            via: Via::Webapi,
            client: None,
            trace: None,
            code_version: "test",
            idempotency: key.map(|key| IdempotencyKey { method: "Send", key: key.to_string(), request }),
            reverse_path: Some(from.clone()),
            from,
            recipients: recipients.iter().map(|n| (address(**n), address(**n).to_string())).collect(),
            fromids,
            message_id: format!("<{}@{OURS}>", body.body),
            subject: "s".to_owned(),
            extra: BTreeMap::new(),
            body,
            eight_bit: false,
            smtputf8: false,
            require_tls: None,
            future_release: release_s.map(|s| self.now + Duration::from_secs(s.into())),
            sent_copy,
        };
        let before = self.records.len();
        let answer = self.apply(Command::Submit(Box::new(command)));
        let Some(Answer::Submitted(submitted)) = answer else { return };
        assert_eq!(submitted.repeated, self.records.len() == before, "a repeated request changes nothing");
    }

    fn start(&mut self, message: u8, others_too: bool, twice: bool) {
        let Some(message) = pick(&self.messages, message) else { return };
        let ids = self.outcomes.keys().copied();
        let mine = |id: &DeliveryId| {
            others_too || deliveries::delivery(&self.rows, *id).unwrap().is_some_and(|row| row.message == message)
        };
        let mut ids: Vec<_> = ids.filter(mine).collect();
        if twice {
            ids.extend(ids.clone());
        }
        self.start_these(message, ids);
    }

    fn start_these(&mut self, message: MessageUuid, ids: Vec<DeliveryId>) {
        let attempt = AttemptId(self.name());
        let transport = TransportName::new("default").unwrap();
        let start = StartAttempt { attempt, message, deliveries: ids, transport, started: self.now };
        if let Some(Answer::Attempt(leave)) = self.apply(Command::StartAttempt(start))
            && !leave.recipients.is_empty()
        {
            self.attempts.push((attempt, message, leave.recipients.iter().map(|r| r.id).collect()));
        }
    }

    /// Some recipients may be left out, and some be told of twice.
    fn finish(&mut self, attempt: u8, outcomes: &[u8], jitter_s: i8) {
        let Some((attempt, message, ids)) = pick(&self.attempts, attempt) else { return };
        let kinds = outcomes.iter().cycle();
        let results =
            ids.iter().zip(kinds).flat_map(|(id, kind)| outcome(*kind).into_iter().map(|o| (*id, o))).collect();
        self.finish_with(attempt, message, results, jitter_s);
    }

    fn finish_with(
        &mut self,
        attempt: AttemptId,
        message: MessageUuid,
        results: Vec<(DeliveryId, RecipientOutcome)>,
        jitter_s: i8,
    ) {
        let command = FinishAttempt {
            attempt,
            message,
            results,
            replies: replies(),
            errors: vec!["broken".to_owned(), UNTRIED.to_owned()],
            session: Session::default(),
            ended: self.now,
            jitter_s,
        };
        self.apply(Command::FinishAttempt(Box::new(command)));
    }

    fn abandon(&mut self, attempt: u8, twice: bool, jitter_s: i8) {
        let Some((attempt, message, mut ids)) = pick(&self.attempts, attempt) else { return };
        if twice {
            ids.extend(ids.clone());
        }
        self.apply(Command::AbandonAttempt(AbandonAttempt { attempt, message, deliveries: ids, jitter_s }));
    }

    fn queue(&mut self, action: QueueAction, filter: &Filter) {
        let all: Vec<_> = self.outcomes.keys().copied().collect();
        let filter = QueueFilter {
            ids: filter.ids.iter().filter_map(|n| pick(&all, *n)).collect(),
            account: filter.account.map(account_name),
            recipient_domain: filter.to.map(domain),
            held: filter.held,
            ..QueueFilter::default()
        };
        self.apply(Command::Queue(QueueCommand { filter, action, by: by() }));
    }

    fn create(&mut self, account: u8) {
        let change = AccountChange {
            messages_per_day_max: Some(None),
            first_time_recipients_per_day_max: Some(None),
            ..AccountChange::default()
        };
        self.configure(account, true, change);
        let address = Destination::Address(Address::parse(&format!("{}@{OURS}", account_name(account))).unwrap());
        self.apply(Command::AddAddress(AddAddress { address, account: account_name(account), by: by() }));
    }

    fn configure(&mut self, account: u8, create: bool, change: AccountChange) {
        let account = account_name(account);
        self.apply(Command::ConfigureAccount(Box::new(ConfigureAccount { account, create, change, by: by() })));
    }

    fn receive(&mut self, accounts: &[u8]) {
        let recipients = accounts.iter().map(|n| (Address::parse(&format!("x{n}@{OURS}")).unwrap(), account_name(*n)));
        let command = Receive {
            body: self.body(),
            peer: None,
            helo: "there.example".to_owned(),
            tls: None,
            smtputf8: false,
            mail_from: None,
            recipients: recipients.collect(),
            message_id: None,
            from: None,
            subject: None,
            notice_of: None,
        };
        self.apply(Command::Receive(Box::new(command)));
    }

    fn must(&mut self, command: Command) -> Answer {
        let what = format!("{command:?}");
        self.apply(command).unwrap_or_else(|| panic!("refused: {what}"))
    }

    /// `None`: it was refused.
    fn apply(&mut self, command: Command) -> Option<Answer> {
        let moment = Moment { now: self.now, next: Seq(self.records.len() as u64 + 1) };
        let Decision { events, answer, forget_bodies, .. } = match decide(&command, &self.rows, &self.policy, moment) {
            Ok(decision) => decision,
            Err(Refusal::Damaged(why)) => panic!("{why}"),
            Err(_) => return None,
        };
        if !events.is_empty() {
            self.bodies.extend(staged(&command));
        }
        for event in events {
            self.append(event);
        }
        self.forgotten.extend(forget_bodies.iter().map(|body| body.body));
        self.check();
        Some(answer)
    }

    fn append(&mut self, event: Event) {
        self.check_event(&event);
        self.note(&event);
        let record = Record { seq: Seq(self.records.len() as u64 + 1), at: self.now, prev: self.prev, event };
        let line = record.to_line();
        assert_eq!(Record::decode(&line).as_ref(), Ok(&record), "the codec round-trips");
        fold(&record, &mut self.rows).unwrap();
        self.prev = Sha256::of(&line);
        self.records.push(record);
    }

    fn note(&mut self, event: &Event) {
        for id in outcomes_of(event) {
            *self.outcomes.get_mut(&id).expect("an outcome is one of an accepted recipient") += 1;
        }
        if let Event::MessageSubmitted(e) = event {
            self.messages.push(e.message);
            self.outcomes.extend(e.deliveries.iter().map(|d| (d.id, 0)));
        }
        if let Event::Expired(e) = event {
            self.expired.extend(e.deliveries.iter().map(|d| d.id));
        }
    }

    fn row(&self, id: DeliveryId) -> DeliveryRow {
        deliveries::delivery(&self.rows, id).unwrap().unwrap_or_else(|| panic!("delivery {id} has no row"))
    }

    fn settings(&self, account: &AccountName) -> Option<AccountSettings> {
        accounts::account(&self.rows, account).unwrap().map(|row| row.settings)
    }

    fn waits_s(&self, account: &AccountName) -> Vec<u32> {
        let own = self.settings(account).and_then(|settings| settings.retry);
        own.unwrap_or_else(|| self.policy.retry.clone()).waits_s
    }

    fn rule_for(&self, row: &DeliveryRow) -> Option<HoldRuleRow> {
        let ours = Domain::new(OURS).unwrap();
        let rules = accounts::hold_rules(&self.rows).unwrap();
        rules.into_iter().find(|r| {
            let HoldMatch { account, sender_domain, recipient_domain } = &r.matching;
            // A release outlasts the rules that were there before it.
            row.released.is_none_or(|released| r.seq > released)
                && account.as_ref().is_none_or(|a| *a == row.account)
                && sender_domain.as_ref().is_none_or(|d| *d == ours)
                && recipient_domain.as_ref().is_none_or(|d| *d == row.domain)
        })
    }

    /// What an event may say where things stand now.
    fn check_event(&self, event: &Event) {
        let state = |id: DeliveryId| self.row(id).state;
        let runs = |id: DeliveryId, attempt: AttemptId| {
            assert!(matches!(state(id), State::Running(a, _) if a == attempt), "{id}: {event:?}");
        };
        match event {
            Event::AttemptStarted(e) => e.deliveries.iter().for_each(|d| self.check_start(d.id, d.number)),
            Event::Delivered(e) => {
                for d in &e.deliveries {
                    runs(d.id, e.attempt);
                    assert_eq!(d.number, self.row(d.id).attempts);
                }
            }
            Event::AttemptDeferred(e) => {
                for d in &e.deliveries {
                    runs(d.id, e.attempt);
                    let untried = d.problem.error == Some(1);
                    self.check_next(d.id, d.number, d.next, untried);
                }
            }
            Event::AttemptInDoubt(e) => {
                for d in &e.deliveries {
                    runs(d.id, e.attempt);
                    if let Some(next) = d.next {
                        self.check_next(d.id, d.number, next, false);
                    }
                }
            }
            Event::DeliveryFailed(e) => {
                for d in &e.deliveries {
                    let row = self.row(d.id);
                    assert_eq!(d.held, matches!(row.state, State::Held(_)), "{event:?}");
                    assert_eq!(d.number, row.attempts, "{event:?}");
                    assert!(e.attempt.is_some() || !matches!(row.state, State::Running(..)), "{event:?}");
                    if matches!(d.why, Failure::Exhausted | Failure::OutcomeUnknown) {
                        assert!(d.number as usize > self.waits_s(&e.account).len(), "given up too early: {event:?}");
                    }
                }
            }
            Event::DeliverySuppressed(e) => {
                for d in &e.deliveries {
                    assert_eq!(state(d.id), State::Queued, "{event:?}");
                    let entry = suppressions::suppression(&self.rows, &e.account, d.recipient).unwrap();
                    assert_eq!(entry.map(|entry| entry.id), Some(d.suppression));
                }
            }
            Event::DeliveryCanceled(e) => {
                for d in &e.deliveries {
                    assert_eq!(d.held, matches!(state(d.id), State::Held(_)), "{event:?}");
                    assert!(d.held || state(d.id) == State::Queued, "{event:?}");
                }
            }
            Event::DeliveryHeld(e) => e.deliveries.iter().for_each(|id| assert_eq!(state(*id), State::Queued)),
            Event::DeliveryReleased(e) => {
                e.deliveries.iter().for_each(|id| assert!(matches!(state(*id), State::Held(_)), "{event:?}"));
            }
            Event::DeliveryRescheduled(e) => {
                for d in &e.deliveries {
                    assert!(d.next >= self.now, "{event:?}");
                    assert!(matches!(state(d.id), State::Queued | State::Held(_)), "{event:?}");
                }
            }
            Event::WishNoted(e) => assert!(matches!(state(e.delivery), State::Running(..)), "{event:?}"),
            Event::AddressSuppressed(e) => self.check_cause(e.id, &e.cause),
            Event::Expired(e) => {
                for d in &e.deliveries {
                    let row = self.row(d.id);
                    assert!(row.state.is_terminal() && row.keep_until.is_some_and(|t| t <= self.now), "{event:?}");
                }
            }
            _ => {}
        }
    }

    /// Nothing starts that is held, suppressed, not due, or of an account that goes.
    fn check_start(&self, id: DeliveryId, number: u32) {
        let row = self.row(id);
        assert_eq!((row.state, number), (State::Queued, row.attempts + 1), "attempts are numbered one by one");
        assert!(row.due <= self.now, "{row:?} is not due");
        assert_eq!(self.rule_for(&row), None, "{row:?} is held by a rule");
        assert_eq!(suppressions::suppression(&self.rows, &row.account, row.recipient).unwrap(), None, "{row:?}");
        let account = accounts::account(&self.rows, &row.account).unwrap();
        assert!(account.is_some_and(|account| account.removing.is_none()), "{row:?} is of an account that goes");
    }

    fn check_next(&self, id: DeliveryId, number: u32, next: Timestamp, untried: bool) {
        let row = self.row(id);
        assert_eq!(number, row.attempts);
        assert!(next >= self.now, "{row:?} is due in the past");
        if next == self.now {
            return;
        }
        assert!(!untried, "a stop that was planned is no reason to wait");
        let State::Running(_, started) = row.state else { panic!("{row:?}") };
        let waits = self.waits_s(&row.account);
        let wait = f64::from(waits[number as usize - 1]);
        let waited = next.since(started).as_secs_f64();
        let spread = (wait * (1.0 - 5.01 / 450.0))..(wait * (1.0 + 4.01 / 450.0));
        assert!(spread.contains(&waited), "waited {waited} instead of {wait}");
    }

    /// A suppression names the failure that caused it, and that failure names the suppression.
    fn check_cause(&self, id: SuppressionId, cause: &Cause) {
        let Cause::Failure(seq) = cause else { return };
        let Event::DeliveryFailed(failed) = &self.records[seq.0 as usize - 1].event else {
            panic!("{seq} is no failure")
        };
        assert!(failed.deliveries.iter().any(|d| d.suppressing == Some(id)), "{failed:?} does not name {id}");
    }

    /// What is true after every command.
    fn check(&self) {
        let books = books::check(&self.rows).unwrap();
        assert_eq!(books.findings, Vec::<String>::new());
        for (id, outcomes) in &self.outcomes {
            match deliveries::delivery(&self.rows, *id).unwrap() {
                Some(row) => assert_eq!(*outcomes, u32::from(row.state.is_terminal()), "{row:?}"),
                None => assert!(*outcomes == 1 && self.expired.contains(id), "delivery {id} has no row"),
            }
        }
        for message in &self.messages {
            self.check_contents(*message);
        }
        for body in &self.bodies {
            let live = is_body_live(&self.rows, *body).unwrap();
            assert_ne!(
                live,
                self.forgotten.contains(body),
                "body {body} is needed: {live}, but the store has it otherwise"
            );
        }
    }

    fn check_contents(&self, message: MessageUuid) {
        let Some(row) = deliveries::message(&self.rows, message).unwrap() else { return };
        let ended = deliveries::of_message(&self.rows, &row).unwrap().iter().all(|d| d.state.is_terminal());
        assert!(
            row.keep_contents || row.contents != ended,
            "contents are kept as long as a delivery needs them: {row:?}"
        );
    }

    /// Lets everything come to its end: first the jobs, then the queue, then the keep periods.
    fn drain(&mut self) {
        self.until("all jobs are finished", |world| {
            for n in 0..world.attempts.len() {
                let (attempt, message, deliveries) = world.attempts[n].clone();
                world.apply(Command::AbandonAttempt(AbandonAttempt { attempt, message, deliveries, jitter_s: 0 }));
            }
            let jobs = accounts::jobs(&world.rows).unwrap();
            for job in &jobs {
                world.must(Command::AdvanceJob(AdvanceJob { job: job.job }));
            }
            jobs.is_empty()
        });
        for row in accounts::hold_rules(&self.rows).unwrap() {
            self.must(Command::RemoveHoldRule(RemoveHoldRule { rule: row.rule, by: by() }));
        }
        self.until("all is delivered", World::deliver_all);
        self.now = self.now + Duration::from_secs(100 * 24 * 3600);
        self.until("all is forgotten", |world| {
            world.must(Command::Expire(Expire { from: Timestamp::EPOCH })) == Answer::More(false)
        });
        assert_eq!(deliveries::all(&self.rows, DeliveryId(0), 1).unwrap(), []);
        assert!(self.outcomes.values().all(|n| *n == 1), "{:?}", self.outcomes);
    }

    fn until(&mut self, what: &str, mut step: impl FnMut(&mut World) -> bool) {
        assert!((0..ROUNDS_MAX).any(|_| step(self)), "not even after {ROUNDS_MAX} rounds {what}");
    }

    fn deliver_all(&mut self) -> bool {
        let ids = deliveries::held(&self.rows, DeliveryId(0), 1000).unwrap();
        if !ids.is_empty() {
            let filter = QueueFilter { ids, ..QueueFilter::default() };
            self.must(Command::Queue(QueueCommand { filter, action: QueueAction::Release, by: by() }));
        }
        let due = deliveries::due(&self.rows, Due::FIRST, Timestamp::MAX, 1000).unwrap();
        let Some(first) = due.first() else { return true };
        self.now = self.now.max(first.at);
        let message = self.row(first.id).message;
        self.start_these(message, due.iter().map(|due| due.id).collect());
        if let Some((attempt, message, ids)) = self.attempts.last().cloned() {
            let taken = RecipientOutcome::Accepted { reply: 0 };
            self.finish_with(attempt, message, ids.into_iter().map(|id| (id, taken)).collect(), 0);
        }
        false
    }

    /// Rows come back the same: all at once, each table alone, and with the log read from its lines from anywhere on.
    fn check_rebuilt(&self, split: prop::sample::Index) {
        let mut rebuilt = Memory::default();
        let split = split.index(self.records.len());
        for (n, record) in self.records.iter().enumerate() {
            let read = if n < split { record.clone() } else { Record::decode(&record.to_line()).unwrap() };
            fold(&read, &mut rebuilt).unwrap();
        }
        assert!(rebuilt == self.rows, "rows that were rebuilt differ from those that grew");
        for projection in PROJECTIONS {
            let mut alone = Memory::default();
            for record in &self.records {
                (projection.fold)(record, &mut alone).unwrap();
            }
            let table = |rows: &Memory| -> Vec<_> {
                rows.table(projection.table).map(|(k, v)| (k.clone(), v.clone())).collect()
            };
            assert_eq!(alone.len(), table(&alone).len(), "{} writes into its own table only", projection.name);
            assert_eq!(table(&alone), table(&self.rows), "{} needs no other table", projection.name);
        }
    }
}

fn by() -> Author {
    Author("unix:tester".to_owned())
}

fn account_name(n: u8) -> AccountName {
    AccountName::new(&format!("a{n}")).unwrap()
}

fn domain(n: u8) -> Domain {
    Domain::new(&format!("d{n}.example")).unwrap()
}

/// Some of them are variants of one address.
fn address(n: u8) -> Address {
    let tag = if n % 5 == 4 { "+tag" } else { "" };
    Address::parse(&format!("u{}{tag}@d{}.example", n % 4, n % 2)).unwrap()
}

fn pick<T: Clone>(from: &[T], n: u8) -> Option<T> {
    from.get(usize::from(n) % from.len().max(1)).cloned()
}

fn replies() -> Vec<Reply> {
    let texts =
        [(250, "2.0.0 taken"), (451, "4.3.0 later"), (550, "5.1.1 no such user"), (554, "5.7.1 no"), (421, "bye")];
    texts.map(|(code, text)| Reply::new(code, text)).to_vec()
}

fn outcome(kind: u8) -> Vec<RecipientOutcome> {
    vec![match kind {
        0 => return Vec::new(),
        1 => return vec![RecipientOutcome::Accepted { reply: 0 }, RecipientOutcome::Rejected { reply: 1 }],
        2 | 3 => RecipientOutcome::Accepted { reply: 0 },
        4 => RecipientOutcome::Rejected { reply: 1 },
        5 => RecipientOutcome::Rejected { reply: 2 },
        6 => RecipientOutcome::Rejected { reply: 3 },
        7 => RecipientOutcome::Local { permanent: false, enhanced: None, error: 0 },
        8 => RecipientOutcome::Unknown { error: 0 },
        _ => RecipientOutcome::Untried { error: 1 },
    }]
}

/// The bodies that come with a command.
fn staged(command: &Command) -> Vec<MessageUuid> {
    match command {
        Command::Submit(c) => std::iter::once(c.body.body).chain(c.sent_copy.map(|copy| copy.body)).collect(),
        Command::Receive(c) => vec![c.body.body],
        _ => Vec::new(),
    }
}

fn outcomes_of(event: &Event) -> Vec<DeliveryId> {
    match event {
        Event::Delivered(e) => e.deliveries.iter().map(|d| d.id).collect(),
        Event::DeliveryFailed(e) => e.deliveries.iter().map(|d| d.id).collect(),
        Event::DeliverySuppressed(e) => e.deliveries.iter().map(|d| d.id).collect(),
        Event::DeliveryCanceled(e) => e.deliveries.iter().map(|d| d.id).collect(),
        _ => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_recipient_has_one_state_and_comes_to_one_outcome(ops in ops(), split in any::<prop::sample::Index>()) {
        let mut world = World::new();
        for op in &ops {
            world.run(op);
        }
        world.check_rebuilt(split);
        world.drain();
        world.check_rebuilt(split);
    }
}
