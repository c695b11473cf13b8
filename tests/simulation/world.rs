//! One simulated world: the core with its log, rows and time, a reactor that delivers, destinations, and people.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use postledger::decide::{Decision, Moment, Policy, classify, decide, hold_open};
use postledger::deliver::due::{Group, look};
use postledger_events::address::{Address, Domain};
use postledger_events::command::*;
use postledger_events::fact::account::{Destination, RetrySchedule};
use postledger_events::fact::attempt::Session;
use postledger_events::fact::job::{HoldMatch, QueueAction, QueueFilter};
use postledger_events::fact::submission::{BodyRef, Via};
use postledger_events::id::*;
use postledger_events::reply::Reply;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Event, Record, Refusal};
use postledger_projections::deliveries::{self, Due, State};
use postledger_projections::{
    Memory, PROJECTIONS, accounts, books, fold, is_body_live, mailboxes, suppressions, tally,
};

use super::dice::Dice;
use super::receiver::Callers;
use super::step::{ACCOUNTS, DOMAINS, Filter, Mood, Settings, Step, Submission};
use super::truth::Truth;

pub const START: Timestamp = Timestamp::from_secs(1_800_000_000);
/// Places of the texts in `FinishAttempt::errors`.
pub const UNREACHABLE: u16 = 0;
pub const UNTRIED: u16 = 1;
pub const BROKEN_OFF: u16 = 2;
const OURS: &str = "here.example";
/// For accounts without a schedule of their own.
const WAITS_S: [u32; 3] = [60, 120, 240];
/// Steps between two replays of the log.
const REPLAY_STEPS: u64 = 1_000;
/// More than any world needs to come to its end.
const ROUNDS_MAX: usize = 3_000;
/// Ended attempts that are told of again.
const PAST_MAX: usize = 16;
const BODY_BYTES: u64 = 100;
/// Deliveries that people pick from.
const RECENT: usize = 100;
/// The records that a world begins with; nothing that is lost reaches so far.
const RECORDS_MIN: usize = 20;

/// An attempt that got leave, as the one who runs it sees it.
#[derive(Clone, Debug)]
struct Attempt {
    id: AttemptId,
    message: MessageUuid,
    /// Recipients whose outcome was not told yet.
    left: Vec<(DeliveryId, Address)>,
    /// What the reactor took on with it.
    group: Vec<DeliveryId>,
}

/// What the delivery reactor has in its head: gone with a crash.
struct Reactor {
    bound: Due,
    known: HashSet<DeliveryId>,
    ready: VecDeque<Group>,
    next_due: Option<Timestamp>,
}

impl Reactor {
    fn new() -> Reactor {
        Reactor { bound: Due::FIRST, known: HashSet::new(), ready: VecDeque::new(), next_due: None }
    }
}

pub struct World {
    pub(super) rows: Memory,
    pub(super) records: Vec<Record>,
    lines: Vec<Vec<u8>>,
    pub(super) now: Timestamp,
    policy: Policy,
    pub(super) truth: Truth,
    pub(super) callers: Callers,
    names: u128,
    reactor: Reactor,
    running: Vec<Attempt>,
    past: VecDeque<Attempt>,
    moods: Vec<Mood>,
    /// How many copies the hosts of the recipient have taken.
    taken: BTreeMap<DeliveryId, u32>,
    messages: Vec<MessageUuid>,
    answers: BTreeMap<(u32, u32), (Sha256, Timestamp, Submitted)>,
    bodies: BTreeSet<MessageUuid>,
    forgotten: BTreeSet<MessageUuid>,
    /// Steps taken, and rounds of the draining.
    pub steps: u64,
}

impl World {
    pub fn new() -> World {
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
            lines: Vec::new(),
            now: START,
            policy,
            truth: Truth::new(&WAITS_S),
            callers: Callers::default(),
            names: 0,
            reactor: Reactor::new(),
            running: Vec::new(),
            past: VecDeque::new(),
            moods: vec![Mood::Accepts; DOMAINS as usize],
            taken: BTreeMap::new(),
            messages: Vec::new(),
            answers: BTreeMap::new(),
            bodies: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            steps: 0,
        };
        let change = DomainChange { separators: Some(vec!['+']), ..DomainChange::default() };
        world.must(Command::ConfigureDomain(ConfigureDomain { domain: ours(), create: true, change, by: by() }));
        (0..ACCOUNTS).for_each(|account| world.create(account));
        world
    }

    pub fn run(&mut self, step: &Step) {
        match step {
            Step::Submit(submission) => self.submit(submission),
            Step::Look { jitter_s } => self.look(*jitter_s),
            Step::Launch => self.launch(),
            Step::Finish { attempt, dice, jitter_s } => self.finish(*attempt, *dice, *jitter_s),
            Step::FinishAgain { attempt, dice } => self.finish_again(*attempt, *dice),
            Step::TaskDies { attempt, dice } => {
                if let Some(n) = place(self.running.len(), *attempt) {
                    let attempt = self.running.swap_remove(n);
                    self.cut_off(&attempt, &mut Dice::new(*dice));
                    self.leave(&attempt);
                }
            }
            Step::Crash { dice } => self.crash(*dice),
            Step::Branch { lost, dice } => self.branch(*lost, *dice),
            Step::Mood { domain, mood } => self.moods[*domain as usize] = *mood,
            Step::StrayStart { message, others_too, twice } => self.stray_start(*message, *others_too, *twice),
            Step::StrayAbandon { attempt, twice, jitter_s } => self.stray_abandon(*attempt, *twice, *jitter_s),
            Step::Queue { action, filter } => {
                let filter = self.filter(filter);
                self.apply(Command::Queue(QueueCommand { filter, action: *action, by: by() }));
            }
            Step::AddHoldRule { account, from_ours, to } => {
                let sender_domain = from_ours.then(ours);
                let matching =
                    HoldMatch { account: account.map(account_name), sender_domain, recipient_domain: to.map(domain) };
                self.apply(Command::AddHoldRule(AddHoldRule { matching, by: by() }));
            }
            Step::RemoveHoldRule { rule } => {
                if let Some(rule) = pick(&self.truth.rules(), *rule) {
                    self.must(Command::RemoveHoldRule(RemoveHoldRule { rule, by: by() }));
                }
            }
            Step::AdvanceJobs => self.advance_jobs(),
            Step::Suppress { account, recipient } => {
                let (account, address) = (account_name(*account), address(*recipient));
                let reason = "asked for".to_owned();
                let suppress = Suppress { account, address, manual: true, reason, by: by(), idempotency: None };
                self.apply(Command::Suppress(suppress));
            }
            Step::Lift { account, recipient } => {
                let (account, address) = (account_name(*account), address(*recipient));
                self.apply(Command::LiftSuppression(LiftSuppression { account, address, by: by(), idempotency: None }));
            }
            Step::Configure { account, settings } => self.configure(*account, false, change(settings)),
            Step::Create { account } => self.create(*account),
            Step::Remove { account } => {
                self.apply(Command::RemoveAccount(RemoveAccount { account: account_name(*account), by: by() }));
            }
            Step::DisableDomain { disabled } => self.disable_domain(*disabled),
            Step::Receive { accounts } => self.receive(accounts),
            Step::Delete { account, message } => self.delete(*account, *message),
            Step::Notify { notice, drop } => self.notify(*notice, *drop),
            Step::Call(step) => self.call_step(step),
            Step::Expire => {
                self.must(Command::Expire(Expire { from: Timestamp::EPOCH }));
            }
            Step::Pass { seconds } => self.now = self.now + Duration::from_secs(u64::from(*seconds)),
        }
        self.count();
    }

    /// Counts a step.
    fn count(&mut self) {
        self.steps += 1;
        if self.steps.is_multiple_of(REPLAY_STEPS) {
            self.check_all();
        }
    }

    fn name(&mut self) -> uuid::Uuid {
        self.names += 1;
        uuid::Uuid::from_u128(self.names)
    }

    fn body(&mut self) -> BodyRef {
        BodyRef { body: MessageUuid(self.name()), size: BODY_BYTES, sha256: Sha256::ZERO }
    }
}

/// Mail that is submitted and received.
impl World {
    fn submit(&mut self, s: &Submission) {
        let (body, account) = (self.body(), account_name(s.account));
        let sent_copy = s.sent_copy.then(|| self.body());
        let recipients: BTreeSet<u32> = s.recipients.iter().copied().collect();
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
            idempotency: s.key.map(|key| IdempotencyKey { method: "Send", key: key.to_string(), request }),
            reverse_path: (!s.null_sender).then(|| from.clone()),
            from,
            recipients: recipients.iter().map(|n| (address(*n), address(*n).to_string())).collect(),
            fromids,
            message_id: format!("<{}@{OURS}>", body.body),
            subject: "s".to_owned(),
            extra: BTreeMap::new(),
            body,
            eight_bit: false,
            smtputf8: false,
            require_tls: None,
            future_release: s.release_s.map(|s| self.now + Duration::from_secs(s.into())),
            sent_copy,
            origin: None,
        };
        let before = self.records.len();
        let answer = self.apply(Command::Submit(Box::new(command)));
        self.check_answer(s, request, before == self.records.len(), answer);
    }

    /// A request with a key that was used before gets the answer of that time and changes nothing.
    fn check_answer(&mut self, s: &Submission, request: Sha256, unchanged: bool, answer: Option<Answer>) {
        let key = s.key.map(|key| (s.account, key));
        let earlier = key.and_then(|key| self.answers.get(&key)).filter(|(_, until, _)| *until > self.now);
        match (earlier, answer) {
            (Some((with, _, submitted)), Some(Answer::Submitted(again))) => {
                assert!(unchanged && *with == request && again.repeated, "{again:?} repeats {submitted:?}");
                assert_eq!(again, Submitted { repeated: true, ..submitted.clone() });
            }
            (Some((with, ..)), None) => assert!(unchanged && *with != request, "the same request is refused"),
            (None, Some(Answer::Submitted(submitted))) => {
                assert!(!unchanged && !submitted.repeated, "{submitted:?} repeats nothing");
                self.messages.push(submitted.message);
                if let Some(key) = key {
                    self.answers.insert(key, (request, self.now + Duration::from_secs(24 * 3600), submitted));
                }
            }
            (None, None) => assert!(unchanged),
            (_, Some(other)) => panic!("a submission is answered {other:?}"),
        }
    }

    fn receive(&mut self, accounts: &[u32]) {
        let recipients = accounts.iter().map(|n| (Address::parse(&format!("x{n}@{OURS}")).unwrap(), account_name(*n)));
        let recipients = recipients.collect();
        let receive = self.received(recipients, None);
        self.apply(Command::Receive(Box::new(receive)));
    }

    fn received(&mut self, recipients: Vec<(Address, AccountName)>, notice_of: Option<Seq>) -> Receive {
        Receive {
            body: self.body(),
            peer: None,
            helo: "there.example".to_owned(),
            tls: None,
            smtputf8: false,
            mail_from: None,
            recipients,
            message_id: None,
            from: None,
            subject: None,
            notice_of,
        }
    }

    fn delete(&mut self, account: u32, message: u32) {
        let account = account_name(account);
        if let Some(row) = pick(&mailboxes::some(&self.rows, &account, 100).unwrap(), message) {
            self.must(Command::DeleteMessage(DeleteMessage { account, msg_id: row.msg_id, by: by() }));
        }
    }

    fn notify(&mut self, notice: u32, drop: bool) {
        let due: Vec<Seq> = deliveries::notices(&self.rows, Seq(0), 8).unwrap();
        let Some(of) = pick(&due, notice) else { return };
        let place = self.records.binary_search_by_key(&of, |record| record.seq).expect("there is no such record");
        let account = match &self.records[place].event {
            Event::DeliveryFailed(e) => e.account.clone(),
            Event::DeliverySuppressed(e) => e.account.clone(),
            Event::AttemptDeferred(e) => e.account.clone(),
            Event::EndpointDisabled(e) => e.account.clone(),
            other => panic!("nobody is told of {other:?}"),
        };
        let to = Address::parse(&format!("{account}@{OURS}")).unwrap();
        let receive = self.received(vec![(to, account)], Some(of));
        self.must(if drop {
            Command::DropNotice(DropNotice { notice_of: of })
        } else {
            Command::Receive(Box::new(receive))
        });
    }
}

/// The reactor and its attempts.
impl World {
    fn look(&mut self, jitter_s: i8) {
        let written = self.records.last().map_or(START, |record| record.at);
        let found =
            look(&self.rows, written, self.reactor.bound, self.now, Timestamp::MAX, &self.reactor.known).unwrap();
        self.reactor.bound = found.bound;
        self.reactor.next_due = found.next_due;
        for group in found.groups {
            self.reactor.known.extend(&group.deliveries);
            self.reactor.ready.push_back(group);
        }
        for (message, attempt, deliveries) in found.abandoned {
            self.must(Command::AbandonAttempt(AbandonAttempt { attempt, message, deliveries, jitter_s }));
        }
    }

    fn launch(&mut self) {
        let Some(group) = self.reactor.ready.pop_front() else { return };
        let message = group.message.message;
        if let Some(attempt) = self.start(message, group.deliveries.clone(), group.transport) {
            self.running.push(Attempt { group: group.deliveries, ..attempt });
        } else {
            group.deliveries.iter().for_each(|id| _ = self.reactor.known.remove(id));
        }
    }

    fn start(
        &mut self,
        message: MessageUuid,
        deliveries: Vec<DeliveryId>,
        transport: TransportName,
    ) -> Option<Attempt> {
        let id = AttemptId(self.name());
        let start = StartAttempt { attempt: id, message, deliveries, transport, started: self.now };
        let Some(Answer::Attempt(AttemptLeave { recipients })) = self.apply(Command::StartAttempt(start)) else {
            return None;
        };
        let held_back = self.truth.is_domain_disabled() && self.truth.messages[&message].sender.is_some();
        assert!(!held_back || recipients.is_empty(), "leave is given though the sender's domain is disabled");
        for recipient in &recipients {
            let row = &self.truth.deliveries[&recipient.id];
            assert_eq!(recipient.address, row.address);
            assert!(matches!(row.state, State::Running(running, _) if running == id), "leave without a start");
        }
        let left: Vec<_> = recipients.into_iter().map(|r| (r.id, r.address)).collect();
        (!left.is_empty()).then_some(Attempt { id, message, left, group: Vec::new() })
    }

    fn stray_start(&mut self, message: u32, others_too: bool, twice: bool) {
        let Some(message) = pick(&self.messages, message) else { return };
        let mut ids = self.truth.messages[&message].deliveries.clone();
        if others_too {
            ids.extend(self.truth.deliveries.keys().rev().take(10));
        }
        if twice {
            ids.extend(ids.clone());
        }
        let transport = TransportName::new("default").unwrap();
        if let Some(attempt) = self.start(message, ids, transport) {
            self.running.push(attempt);
        }
    }

    /// Some recipients may be left out, and some be told of twice.
    fn finish(&mut self, attempt: u32, dice: u64, jitter_s: i8) {
        let Some(n) = place(self.running.len(), attempt) else { return };
        let mut dice = Dice::new(dice);
        let mut attempt = self.running[n].clone();
        let mut results = Vec::new();
        for (id, to) in std::mem::take(&mut attempt.left) {
            if dice.percent(3) {
                attempt.left.push((id, to));
                continue;
            }
            let outcome = self.outcome(id, &to, &mut dice);
            results.push((id, outcome));
            if dice.percent(3) {
                results.push((id, RecipientOutcome::Rejected { reply: 2 }));
            }
        }
        self.report(&attempt, results, jitter_s);
        // Whoever runs it is done with it, whether it told all or not.
        self.running.swap_remove(n);
        self.leave(&attempt);
        self.past.push_back(attempt);
        if self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
    }

    fn finish_again(&mut self, attempt: u32, dice: u64) {
        let past: Vec<Attempt> = self.past.iter().cloned().collect();
        let Some(attempt) = pick(&past, attempt) else { return };
        let mut dice = Dice::new(dice);
        let told: Vec<DeliveryId> = self.truth.messages[&attempt.message].deliveries.clone();
        let told = told.into_iter().filter(|id| attempt.left.iter().all(|(left, _)| left != id));
        let outcomes = [RecipientOutcome::Accepted { reply: 0 }, RecipientOutcome::Rejected { reply: 2 }];
        let results = told.map(|id| (id, dice.one_of(&outcomes))).collect();
        let before = self.records.len();
        self.report(&attempt, results, 0);
        assert_eq!(self.records.len(), before, "an outcome that was told before changes nothing");
    }

    fn report(&mut self, attempt: &Attempt, results: Vec<(DeliveryId, RecipientOutcome)>, jitter_s: i8) {
        let command = FinishAttempt {
            attempt: attempt.id,
            message: attempt.message,
            results,
            replies: replies(),
            errors: ["unreachable", "untried", "broken off"].map(str::to_owned).to_vec(),
            session: Session::default(),
            ended: self.now,
            jitter_s,
        };
        self.apply(Command::FinishAttempt(Box::new(command)));
    }

    /// The reactor forgets an attempt that ended one way or the other.
    fn leave(&mut self, attempt: &Attempt) {
        for id in &attempt.group {
            self.reactor.known.remove(id);
        }
    }

    /// How far an attempt came that nobody will tell of.
    fn cut_off(&mut self, attempt: &Attempt, dice: &mut Dice) {
        for (id, to) in &attempt.left {
            if dice.percent(50) {
                self.outcome(*id, to, dice);
            }
        }
    }

    fn crash(&mut self, dice: u64) {
        let mut dice = Dice::new(dice);
        for attempt in std::mem::take(&mut self.running) {
            self.cut_off(&attempt, &mut dice);
        }
        self.callers.crash(&mut dice);
        self.past.clear();
        self.reactor = Reactor::new();
    }

    /// The process dies, and what it wrote last is lost with it; people restore the ledger from before.
    fn branch(&mut self, lost: u32, dice: u64) {
        self.crash(dice);
        self.callers.branch();
        let kept = self.records.len().saturating_sub(lost as usize).max(RECORDS_MIN.min(self.records.len()));
        let known = self.truth.last_seq();
        self.records.truncate(kept);
        self.lines.truncate(kept);
        let taken = &self.taken;
        self.truth.cut_off(&self.records, |id| taken.get(&id).copied().unwrap_or(0));
        self.rows = Memory::default();
        for record in &self.records {
            fold(record, &mut self.rows).unwrap();
        }
        self.messages.retain(|message| self.truth.messages.contains_key(message));
        self.answers.retain(|_, (_, _, submitted)| self.truth.messages.contains_key(&submitted.message));
        self.forgotten = self.bodies.iter().copied().filter(|body| !self.truth.needs_body(*body)).collect();
        let (from_seq, from_hash) = (self.last_seq(), self.last_hash());
        let created = self.records.first().map_or(Timestamp::EPOCH, |record| record.at);
        let reason = "restored from a backup".to_owned();
        self.must(Command::Branch(Branch { from_seq, from_hash, created, known, reason, by: by() }));
        // A crash may come before this, and then the reactors do it.
        if dice.is_multiple_of(2) {
            self.hold_open();
        }
    }

    /// As `restore` does it before the ledger is in its place.
    fn hold_open(&mut self) {
        for command in hold_open(&self.rows).unwrap() {
            while self.must(command.clone()) == Answer::More(true) {}
        }
        self.truth.check_all_held();
    }

    fn stray_abandon(&mut self, attempt: u32, twice: bool, jitter_s: i8) {
        let Some(Attempt { id, message, left, .. }) = pick(&self.running, attempt) else { return };
        let mut ids: Vec<_> = left.iter().map(|(id, _)| *id).collect();
        if twice {
            ids.extend(ids.clone());
        }
        self.apply(Command::AbandonAttempt(AbandonAttempt { attempt: id, message, deliveries: ids, jitter_s }));
    }

    /// What the hosts of the recipient do now.
    fn outcome(&mut self, id: DeliveryId, to: &Address, dice: &mut Dice) -> RecipientOutcome {
        let mood = match self.moods[domain_number(to)] {
            Mood::Picky => dice.one_of(&[Mood::Accepts, Mood::Defers, Mood::Rejects, Mood::HangsUp, Mood::Unreachable]),
            mood => mood,
        };
        let takes = match mood {
            Mood::Accepts => true,
            Mood::HangsUp => dice.percent(50),
            Mood::Defers | Mood::Rejects | Mood::Unreachable | Mood::Picky => false,
        };
        *self.taken.entry(id).or_default() += u32::from(takes);
        match mood {
            Mood::Accepts => RecipientOutcome::Accepted { reply: 0 },
            Mood::Defers => RecipientOutcome::Rejected { reply: 1 },
            Mood::Rejects => RecipientOutcome::Rejected { reply: 2 + u16::from(dice.percent(50)) },
            Mood::HangsUp => RecipientOutcome::Unknown { error: BROKEN_OFF },
            Mood::Unreachable if dice.percent(20) => RecipientOutcome::Untried { error: UNTRIED },
            Mood::Unreachable | Mood::Picky => {
                RecipientOutcome::Local { permanent: dice.percent(5), enhanced: None, error: UNREACHABLE }
            }
        }
    }
}

/// People, and what is done for them.
impl World {
    fn filter(&self, filter: &Filter) -> QueueFilter {
        let last: Vec<DeliveryId> = self.truth.deliveries.keys().rev().take(RECENT).copied().collect();
        QueueFilter {
            ids: filter.ids.iter().filter_map(|n| pick(&last, *n)).collect(),
            account: filter.account.map(account_name),
            recipient_domain: filter.to.map(domain),
            held: filter.held,
            due_before: filter.due_before_s.map(|s| START + Duration::from_secs(u64::from(s))),
            ..QueueFilter::default()
        }
    }

    /// The next part of the oldest job that has not to wait for attempts that run.
    fn advance_jobs(&mut self) {
        for job in self.truth.jobs() {
            let before = self.records.len();
            self.must(Command::AdvanceJob(AdvanceJob { job }));
            if self.records.len() > before {
                return;
            }
        }
    }

    fn create(&mut self, account: u32) {
        let change = AccountChange {
            messages_per_day_max: Some(None),
            first_time_recipients_per_day_max: Some(None),
            ..AccountChange::default()
        };
        self.configure(account, true, change);
        let address = Destination::Address(Address::parse(&format!("{}@{OURS}", account_name(account))).unwrap());
        self.apply(Command::AddAddress(AddAddress { address, account: account_name(account), by: by() }));
    }

    fn configure(&mut self, account: u32, create: bool, change: AccountChange) {
        let account = account_name(account);
        self.apply(Command::ConfigureAccount(Box::new(ConfigureAccount { account, create, change, by: by() })));
    }

    fn disable_domain(&mut self, disabled: bool) {
        let change = DomainChange { disabled: Some(disabled), ..DomainChange::default() };
        self.must(Command::ConfigureDomain(ConfigureDomain { domain: ours(), create: false, change, by: by() }));
    }
}

/// The core.
impl World {
    pub(super) fn must(&mut self, command: Command) -> Answer {
        let what = format!("{command:?}");
        self.apply(command).unwrap_or_else(|| panic!("refused: {what}"))
    }

    /// `None`: it was refused.
    pub(super) fn apply(&mut self, command: Command) -> Option<Answer> {
        let moment = Moment { now: self.now, next: self.last_seq().next() };
        let Decision { events, answer, forget_bodies, .. } = match decide(&command, &self.rows, &self.policy, moment) {
            Ok(decision) => decision,
            Err(Refusal::Damaged(why)) => panic!("{why}"),
            Err(_) => return None,
        };
        if !events.is_empty() {
            self.bodies.extend(staged(&command));
        }
        events.into_iter().for_each(|event| self.append(event));
        for body in &forget_bodies {
            assert!(self.forgotten.insert(body.body) || !self.truth.needs_body(body.body), "{body:?} goes twice");
        }
        self.check_touched();
        Some(answer)
    }

    fn last_seq(&self) -> Seq {
        self.records.last().map_or(Seq(0), |record| record.seq)
    }

    fn last_hash(&self) -> Sha256 {
        self.lines.last().map_or(Sha256::ZERO, |line| Sha256::of(line))
    }

    fn append(&mut self, event: Event) {
        let seq = match &event {
            Event::LedgerBranched(branched) => branched.next_seq,
            _ => self.last_seq().next(),
        };
        let record = Record { seq, at: self.now, prev: self.last_hash(), event };
        self.truth.observe(&record);
        fold(&record, &mut self.rows).unwrap();
        self.lines.push(record.to_line());
        self.records.push(record);
    }
}

/// What is true at any time.
impl World {
    /// What the last command touched.
    fn check_touched(&mut self) {
        for id in std::mem::take(&mut self.truth.touched) {
            self.truth.check_row(id, deliveries::delivery(&self.rows, id).unwrap());
            self.check_taken(id);
        }
        for message in std::mem::take(&mut self.truth.touched_messages) {
            self.truth.check_message(message, deliveries::message(&self.rows, message).unwrap());
            self.check_body(message);
        }
        self.truth.calls.check_touched(&self.rows);
        self.check_bounds();
        assert_eq!(tally::tally(&self.rows).unwrap(), self.truth.tally);
        let first = deliveries::due(&self.rows, Due::FIRST, Timestamp::MAX, 1).unwrap();
        let bound = self.reactor.bound;
        assert!(first.iter().all(|due| *due >= bound), "the reactor looks from {bound:?} on and never sees {first:?}");
    }

    /// Nothing is sent twice unseen, and nothing is delivered that no host took.
    fn check_taken(&self, id: DeliveryId) {
        let row = &self.truth.deliveries[&id];
        let taken = self.taken.get(&id).copied().unwrap_or(0);
        let delivered = row.state == State::Delivered;
        assert!(!delivered || taken > 0, "{id} is delivered, but nobody has it");
        let seen = u32::from(delivered) + row.in_doubt + row.unknown + row.sent_elsewhere;
        let running = matches!(row.state, State::Running(..));
        assert!(running || taken <= seen, "{id} was taken {taken} times: {row:?}");
    }

    fn check_body(&self, body: MessageUuid) {
        let live = is_body_live(&self.rows, body).unwrap();
        assert_eq!(live, self.truth.needs_body(body), "rows need body {body}: {live}");
        assert_ne!(live, self.forgotten.contains(&body), "body {body} is needed: {live}, the store has it otherwise");
    }

    fn check_all(&mut self) {
        for id in self.truth.deliveries.keys() {
            self.truth.check_row(*id, deliveries::delivery(&self.rows, *id).unwrap());
            self.check_taken(*id);
        }
        for message in self.truth.messages.keys() {
            self.truth.check_message(*message, deliveries::message(&self.rows, *message).unwrap());
        }
        self.bodies.iter().for_each(|body| self.check_body(*body));
        self.truth.calls.check_all(&self.rows);
        for ((account, recipient), id) in &self.truth.suppressed {
            let row = suppressions::suppression(&self.rows, account, *recipient).unwrap();
            assert_eq!(row.map(|row| row.id), Some(*id));
        }
        let notices = deliveries::notices(&self.rows, Seq(0), usize::MAX).unwrap();
        assert_eq!(notices.into_iter().collect::<BTreeSet<_>>(), self.truth.notices);
        let rules: Vec<_> = accounts::hold_rules(&self.rows).unwrap().iter().map(|row| row.rule).collect();
        let jobs: Vec<_> = accounts::jobs(&self.rows).unwrap().iter().map(|row| row.job).collect();
        assert_eq!((rules, jobs), (self.truth.rules(), self.truth.jobs()));
        assert_eq!(books::check(&self.rows).unwrap().findings, Vec::<String>::new());
        self.check_replay();
    }

    /// Rows come back the same from the lines of the log, each table alone.
    fn check_replay(&self) {
        let read: Vec<Record> = self.lines.iter().map(|line| Record::decode(line).unwrap()).collect();
        assert!(read == self.records, "the codec does not round-trip");
        for projection in PROJECTIONS {
            let mut alone = Memory::default();
            for record in &read {
                (projection.fold)(record, &mut alone).unwrap();
            }
            let (name, table) = (projection.name, projection.table);
            assert_eq!(alone.len(), alone.table(table).count(), "{name} writes into its own table only");
            assert!(alone.table(table).eq(self.rows.table(table)), "{name}: replayed rows differ from those that grew");
        }
    }
}

/// The end of a world.
impl World {
    /// All heals: jobs are finished, holds released, everything comes to its end, senders are told, and all is forgotten.
    pub fn drain(&mut self) {
        self.moods.fill(Mood::Accepts);
        self.callers.heal();
        self.disable_domain(false);
        self.crash(0);
        self.until("all jobs are finished", |world| {
            world.look(0);
            world.advance_jobs();
            world.truth.jobs().is_empty()
        });
        for rule in self.truth.rules() {
            self.must(Command::RemoveHoldRule(RemoveHoldRule { rule, by: by() }));
        }
        self.until("nothing is held", World::release_all);
        self.until("all is delivered", World::deliver_all);
        self.until("all is told", World::call_all);
        self.until("all senders are told", |world| {
            world.notify(0, false);
            world.truth.notices.is_empty()
        });
        self.now = self.now + Duration::from_secs(100 * 24 * 3600);
        self.until("all is forgotten", |world| {
            world.must(Command::Expire(Expire { from: Timestamp::EPOCH })) == Answer::More(false)
        });
        self.check_all();
        self.check_forgotten();
        assert_eq!(deliveries::all(&self.rows, DeliveryId(0), 1).unwrap(), []);
        let open = self.truth.deliveries.iter().find(|(_, row)| row.outcomes != 1);
        assert!(open.is_none(), "{open:?} came to no outcome");
    }

    fn until(&mut self, what: &str, mut round: impl FnMut(&mut World) -> bool) {
        let done = (0..ROUNDS_MAX).any(|_| {
            self.steps += 1;
            round(self)
        });
        assert!(done, "not even after {ROUNDS_MAX} rounds {what}");
    }

    fn release_all(&mut self) -> bool {
        let ids = deliveries::held(&self.rows, DeliveryId(0), 1000).unwrap();
        if ids.is_empty() {
            return true;
        }
        let filter = QueueFilter { ids, ..QueueFilter::default() };
        self.must(Command::Queue(QueueCommand { filter, action: QueueAction::Release, by: by() }));
        false
    }

    /// As the reactor does it: it looks, tries, and waits until it has to look again.
    fn deliver_all(&mut self) -> bool {
        self.look(0);
        while !self.reactor.ready.is_empty() {
            self.launch();
        }
        for dice in 0..self.running.len() as u64 {
            self.finish(0, dice, 0);
        }
        if let Some(next) = self.reactor.next_due {
            self.now = self.now.max(next);
        }
        let looked = self.reactor.known.is_empty() && self.reactor.next_due.is_none();
        looked && deliveries::due(&self.rows, Due::FIRST, Timestamp::MAX, 1).unwrap().is_empty()
    }
}

pub(super) fn by() -> Author {
    Author("unix:tester".to_owned())
}

fn ours() -> Domain {
    Domain::new(OURS).unwrap()
}

pub(super) fn account_name(n: u32) -> AccountName {
    AccountName::new(&format!("a{n}")).unwrap()
}

fn domain(n: u32) -> Domain {
    Domain::new(&format!("d{n}.example")).unwrap()
}

/// Some of them are variants of one address.
fn address(n: u32) -> Address {
    let tag = if n % 5 == 4 { "+tag" } else { "" };
    Address::parse(&format!("u{}{tag}@d{}.example", n % 4, n % DOMAINS)).unwrap()
}

fn domain_number(address: &Address) -> usize {
    (0..DOMAINS).position(|n| domain(n) == address.domain).expect("one of the domains")
}

fn change(settings: &Settings) -> AccountChange {
    AccountChange {
        keep_s: Some(settings.keep_s),
        keep_contents: Some(settings.keep_contents),
        retry: Some(settings.waits_s.clone().map(|waits_s| RetrySchedule { waits_s })),
        messages_per_day_max: Some(settings.messages_per_day_max),
        quota_bytes: Some(settings.quota_bytes),
        ..AccountChange::default()
    }
}

pub(super) fn place(length: usize, n: u32) -> Option<usize> {
    (n as usize).checked_rem(length)
}

pub(super) fn pick<T: Clone>(from: &[T], n: u32) -> Option<T> {
    place(from.len(), n).map(|n| from[n].clone())
}

fn replies() -> Vec<Reply> {
    let texts = [(250, "2.0.0 taken"), (451, "4.3.0 later"), (550, "5.1.1 no such user"), (554, "5.7.1 no")];
    texts.map(|(code, text)| Reply::new(code, text)).to_vec()
}

/// The bodies that come with a command.
fn staged(command: &Command) -> Vec<MessageUuid> {
    match command {
        Command::Submit(c) => std::iter::once(c.body.body).chain(c.sent_copy.map(|copy| copy.body)).collect(),
        Command::Receive(c) => vec![c.body.body],
        _ => Vec::new(),
    }
}
