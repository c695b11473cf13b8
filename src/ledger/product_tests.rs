//! The ledger with the product's own folds and decisions: what grew, what a kill leaves and what a rebuild makes are the same.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use postledger_events::address::{Address, Domain};
use postledger_events::command::*;
use postledger_events::fact::account::Destination;
use postledger_events::fact::attempt::Session;
use postledger_events::fact::delivery::HoldCause;
use postledger_events::fact::job::{QueueAction, QueueFilter};
use postledger_events::fact::submission::Via;
use postledger_events::id::*;
use postledger_events::reply::Reply;
use postledger_projections::deliveries::State;
use postledger_projections::rows::{Key, Value};
use postledger_projections::{Order, Table, accounts, deliveries};

use super::tests::run;
use super::*;

fn options(dir: &Path) -> Options {
    Options { create: true, segment_records_max: 7, ..Options::new(dir) }
}

fn account() -> AccountName {
    AccountName::new("mox").unwrap()
}

fn set_up() -> Vec<Command> {
    let (domain, by) = (Domain::new("example.org").unwrap(), Author::program());
    let address = Destination::Address(Address::parse("mox@example.org").unwrap());
    let change = AccountChange { full_name: Some("Mox".to_owned()), ..AccountChange::default() };
    vec![
        Command::ConfigureDomain(ConfigureDomain {
            domain,
            create: true,
            change: DomainChange::default(),
            by: by.clone(),
        }),
        Command::ConfigureAccount(Box::new(ConfigureAccount {
            account: account(),
            create: true,
            change,
            by: by.clone(),
        })),
        Command::AddAddress(AddAddress { address, account: account(), by }),
    ]
}

/// A message to two people, with a content of this size and a copy for the sender.
async fn send(ledger: &Ledger, clock: &Clock, size: usize) -> (Submitted, BodyRef) {
    let copy = ledger.stage(MessageUuid(clock.uuid_v7()), vec![b'b'; size].into()).await.unwrap();
    let stored = copy.body;
    (send_to(ledger, clock, &["one@example.com", "two@example.com"], size, Some(copy)).await, stored)
}

async fn send_to(ledger: &Ledger, clock: &Clock, to: &[&str], size: usize, copy: Option<Staged>) -> Submitted {
    let message = MessageUuid(clock.uuid_v7());
    let body = ledger.stage(message, vec![b'a'; size].into()).await.unwrap();
    let from = Address::parse("mox@example.org").unwrap();
    let submit = Submit {
        message,
        account: account(),
        login: "mox@example.org".to_owned(),
        via: Via::Webapi,
        client: None,
        trace: None,
        code_version: "test",
        idempotency: Some(IdempotencyKey { method: "Send", key: size.to_string(), request: Sha256::ZERO }),
        from: from.clone(),
        reverse_path: Some(from),
        recipients: to.iter().map(|a| (Address::parse(a).unwrap(), (*a).to_owned())).collect(),
        fromids: (0..to.len()).map(|n| FromId::new(&format!("f{n}")).unwrap()).collect(),
        message_id: format!("<{message}@example.org>"),
        subject: "Hello".to_owned(),
        extra: BTreeMap::new(),
        body: body.body,
        eight_bit: false,
        smtputf8: false,
        require_tls: None,
        future_release: None,
        sent_copy: copy.as_ref().map(|copy| copy.body),
        origin: None,
    };
    let command = Command::Submit(Box::new(submit));
    let bodies = std::iter::once(body).chain(copy).collect();
    let intent = Intent { command, bodies, secrets: Vec::new() };
    let Answer::Submitted(submitted) = ledger.submit(intent).await.unwrap().answer else { panic!() };
    submitted
}

/// One recipient gets it; the other refuses the first message and is suppressed after it.
async fn deliver(ledger: &Ledger, clock: &Clock, submitted: &Submitted) {
    let (attempt, message) = (AttemptId(clock.uuid_v7()), submitted.message);
    let ids: Vec<DeliveryId> = submitted.recipients.iter().map(|(_, id, _)| *id).collect();
    let (transport, started) = (TransportName::new("direct").unwrap(), clock.now());
    let start = StartAttempt { attempt, message, deliveries: ids, transport, started };
    let Answer::Attempt(leave) = ledger.submit(Command::StartAttempt(start)).await.unwrap().answer else { panic!() };
    let outcomes = [RecipientOutcome::Accepted { reply: 0 }, RecipientOutcome::Rejected { reply: 1 }];
    let finish = FinishAttempt {
        attempt,
        message,
        results: leave.recipients.iter().map(|r| r.id).zip(outcomes).collect(),
        replies: vec![Reply::new(250, "2.0.0 ok"), Reply::new(550, "5.1.1 no such user")],
        errors: Vec::new(),
        session: Session::default(),
        ended: clock.now(),
        jitter_s: 0,
    };
    ledger.submit(Command::FinishAttempt(Box::new(finish))).await.unwrap();
}

fn rows(snapshot: &Snapshot) -> Vec<(Table, Key, Value)> {
    let of = |t: Table| snapshot.scan(t, &[], &[0xff; 99], Order::Ascending, usize::MAX).unwrap().into_iter();
    Table::ALL.into_iter().flat_map(|t| of(t).map(move |(k, v)| (t, k, v))).collect()
}

fn verified(options: &Options) -> verify::Report {
    let report = verify::verify(options, true, &mut |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report}");
    report
}

#[test]
fn a_life_of_messages_rebuilds_and_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    let (large, small_copy) = run(async {
        for command in set_up() {
            ledger.submit(command).await.unwrap();
        }
        let (large, _) = send(&ledger, &clock, 70_000).await;
        let (small, small_copy) = send(&ledger, &clock, 700).await;
        send(&ledger, &clock, 70_001).await;
        // The same request again brings contents that nobody wants.
        let (again, unwanted) = send(&ledger, &clock, 70_001).await;
        assert!(again.repeated);
        assert!(matches!(ledger.body(&unwanted), Err(BodyError::Missing(_))));
        deliver(&ledger, &clock, &large).await;
        deliver(&ledger, &clock, &small).await;
        let delete = DeleteMessage { account: account(), msg_id: MsgId(2), by: Author::program() };
        ledger.submit(Command::DeleteMessage(delete)).await.unwrap();
        (large, small_copy)
    });
    assert!(matches!(ledger.body(&small_copy), Err(BodyError::Missing(_))));
    let row = deliveries::message(&ledger.snapshot(), large.message).unwrap().unwrap();
    assert!(row.contents);

    let grown = rows(&ledger.snapshot());
    let killed = super::tests::copy(dir.path());
    let after = Ledger::open(options(killed.path()), clock.clone()).unwrap();
    assert_eq!(rows(&after.snapshot()), grown);
    drop((after, ledger));

    let all = Options { rebuild: Rebuild::All, rebuild_chunk_bytes_max: 500, ..options(dir.path()) };
    rebuild(all, clock.clone()).unwrap();
    let report = verified(&options(dir.path()));
    // Three messages, each with a copy, but for the one that was deleted.
    assert_eq!(report.bodies, 5);
    assert_eq!(rows(&Ledger::open(options(dir.path()), clock).unwrap().snapshot()), grown);
}

/// A message of 4 KB to this many people that the account never wrote to, from acceptance to forgetting: the operations until
/// all have it, and those of forgetting.
fn operations(recipients: usize, fromids: bool) -> [u64; 2] {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    let counted = run(async {
        for command in set_up() {
            ledger.submit(command).await.unwrap();
        }
        if !fromids {
            let change = AccountChange { fromid_logins: Some(Vec::new()), ..AccountChange::default() };
            let change = ConfigureAccount { account: account(), create: false, change, by: Author::program() };
            ledger.submit(Command::ConfigureAccount(Box::new(change))).await.unwrap();
        }
        let before = ledger.status().operations;
        let addresses: Vec<String> = (0..recipients).map(|n| format!("user{n}@example.com")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let submitted = send_to(&ledger, &clock, &addresses, 4_000, None).await;
        assert_eq!(submitted.recipients.iter().all(|(_, _, fromid)| fromid.is_some()), fromids);
        let (attempt, ids) = start(&ledger, &clock, &submitted).await;
        assert_eq!(ids.len(), recipients);
        let finish = FinishAttempt {
            attempt,
            message: submitted.message,
            results: ids.iter().map(|id| (*id, RecipientOutcome::Accepted { reply: 0 })).collect(),
            replies: vec![Reply::new(250, "2.0.0 ok")],
            errors: Vec::new(),
            session: Session::default(),
            ended: clock.now(),
            jitter_s: 0,
        };
        ledger.submit(Command::FinishAttempt(Box::new(finish))).await.unwrap();
        assert!(ids.iter().all(|id| state(&ledger, *id) == State::Delivered));
        let delivered = ledger.status().operations;
        clock.advance(Duration::from_secs(31 * 24 * 3600));
        ledger.submit(Command::Expire(Expire { from: Timestamp::EPOCH })).await.unwrap();
        let forgotten = deliveries::message(&ledger.snapshot(), submitted.message).unwrap();
        assert_eq!(forgotten, None);
        [delivered - before, ledger.status().operations - delivered]
    });
    run(ledger.close()).unwrap();
    counted
}

#[test]
fn a_recipient_costs_few_operations() {
    let many = 100;
    let [delivered, forgotten] = operations(many, false);
    assert!(delivered <= 8 * many as u64, "{delivered} until all of {many} have it");
    assert!(forgotten <= 3 * many as u64, "{forgotten} to forget {many}");
    // Alone in its batches, and with an idempotency key; with others it has only a part of what all of a batch share.
    let one: u64 = operations(1, true).iter().sum();
    assert!(one <= 38, "{one} over the life of a message to one recipient");
}

#[test]
fn what_expires_is_forgotten_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    run(async {
        for command in set_up() {
            ledger.submit(command).await.unwrap();
        }
        for size in [70_000, 700] {
            let (submitted, _) = send(&ledger, &clock, size).await;
            deliver(&ledger, &clock, &submitted).await;
        }
        clock.advance(Duration::from_secs(31 * 24 * 3600));
        let expire = || Command::Expire(Expire { from: Timestamp::EPOCH });
        while ledger.submit(expire()).await.unwrap().answer == Answer::More(true) {}
    });
    run(ledger.close()).unwrap();
    drop(ledger);
    let report = verified(&options(dir.path()));
    assert_eq!((report.bodies, report.notes), (2, vec![]), "the copies in Sent are kept");
}

fn state(ledger: &Ledger, id: DeliveryId) -> State {
    deliveries::delivery(&ledger.snapshot(), id).unwrap().unwrap().state
}

async fn start(ledger: &Ledger, clock: &Clock, submitted: &Submitted) -> (AttemptId, Vec<DeliveryId>) {
    let (attempt, message) = (AttemptId(clock.uuid_v7()), submitted.message);
    let deliveries = submitted.recipients.iter().map(|(_, id, _)| *id).collect();
    let transport = TransportName::new("direct").unwrap();
    let start = StartAttempt { attempt, message, deliveries, transport, started: clock.now() };
    let Answer::Attempt(leave) = ledger.submit(Command::StartAttempt(start)).await.unwrap().answer else { panic!() };
    (attempt, leave.recipients.iter().map(|r| r.id).collect())
}

async fn work(ledger: &Ledger, job: JobId) {
    let advance = || ledger.submit(Command::AdvanceJob(AdvanceJob { job }));
    while advance().await.unwrap().answer == Answer::More(true) {}
}

#[test]
fn another_branch_sends_nothing_again_before_somebody_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    let ids = |submitted: &Submitted| submitted.recipients.iter().map(|(_, id, _)| *id).collect::<Vec<_>>();
    let (done, running, queued) = run(async {
        for command in set_up() {
            ledger.submit(command).await.unwrap();
        }
        let (done, _) = send(&ledger, &clock, 700).await;
        deliver(&ledger, &clock, &done).await;
        let (running, _) = send(&ledger, &clock, 701).await;
        let started = start(&ledger, &clock, &running).await;
        let (queued, _) = send(&ledger, &clock, 702).await;
        (done, (running, started), queued)
    });
    let (running, (attempt, tried)) = running;
    assert_eq!(tried.len(), 1, "the other recipient is suppressed");
    let end = ledger.snapshot().position();
    drop(ledger);

    // Two weeks later, and another branch is known to have come 100 records further.
    clock.advance(Duration::from_secs(14 * 24 * 3600));
    let (known, by) = (Seq(end.0 + 100), Author("unix:root".to_owned()));
    let wish = BranchWish { known, reason: "restored from a backup".to_owned(), by };
    let ledger = Ledger::open(Options { branch: Some(wish), ..options(dir.path()) }, clock.clone()).unwrap();
    let gap = accounts::branches(&ledger.snapshot()).unwrap();
    let next = ledger.snapshot().position();
    assert_eq!(gap, [accounts::BranchRow { from: end, next }]);
    assert!(next > known && ledger.snapshot().record(end.next()).unwrap().is_none());
    run(async {
        // Before the job has come to any of it.
        assert_eq!(start(&ledger, &clock, &queued).await.1, []);
        let abandon = AbandonAttempt { attempt, message: running.message, deliveries: tried.clone(), jitter_s: 0 };
        ledger.submit(Command::AbandonAttempt(abandon)).await.unwrap();
        let jobs = accounts::jobs(&ledger.snapshot()).unwrap();
        work(&ledger, jobs[0].job).await;
        assert_eq!(state(&ledger, ids(&queued)[0]), State::Held(HoldCause::Restored));
        assert_eq!(state(&ledger, tried[0]), State::Held(HoldCause::Restored));
        assert_eq!(state(&ledger, ids(&done)[0]), State::Delivered);
        // What is new leaves at once, and has numbers that no other branch gave out.
        let (new, _) = send(&ledger, &clock, 703).await;
        assert!(ids(&new).iter().all(|id| id.0 > 1 << 32));
        assert_eq!(start(&ledger, &clock, &new).await.1.len(), 1);
        // And so does what is released.
        let filter = QueueFilter { message: Some(queued.message), restored: Some(true), ..QueueFilter::default() };
        let release = QueueCommand { filter, action: QueueAction::Release, by: Author::program() };
        let Answer::Job(job) = ledger.submit(Command::Queue(release)).await.unwrap().answer else { panic!() };
        work(&ledger, job).await;
        assert_eq!(start(&ledger, &clock, &queued).await.1, ids(&queued)[..1]);
        assert_eq!(state(&ledger, tried[0]), State::Held(HoldCause::Restored));
        ledger.close().await.unwrap();
    });
    drop(ledger);
    let report = verified(&options(dir.path()));
    assert_eq!(report.records, report.last.0 - (next.0 - end.0 - 1), "one gap, and the records around it");
    assert!(Ledger::open(options(dir.path()), clock).is_ok());
}

fn wait_for_round(ledger: &Ledger, after: Option<Arc<Round>>) -> Arc<Round> {
    let patience = std::time::Instant::now() + Duration::from_secs(30);
    loop {
        let round = ledger.status().round;
        if let Some(round) = round.filter(|round| Some(round) != after.as_ref()) {
            return round;
        }
        assert!(std::time::Instant::now() < patience, "no round was made: {:?}", ledger.status());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn verify_beside(ledger: &Ledger) -> verify::Report {
    let never = || false;
    ledger.verify(true, &pace::Pace::unhindered(&never), &mut |_, _| {}).unwrap().unwrap()
}

#[test]
fn a_round_a_day_finds_what_rots_while_the_ledger_runs() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_secs(1_800_000_000));
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    let body = run(async {
        for command in set_up() {
            ledger.submit(command).await.unwrap();
        }
        send(&ledger, &clock, 700).await;
        send(&ledger, &clock, 70_000).await.1
    });
    assert!(verify_beside(&ledger).is_clean());
    clock.advance(Duration::from_secs(61));
    let first = wait_for_round(&ledger, None);
    assert_eq!((first.damage, first.bodies_damaged, first.bodies), (0, 0, 4), "{first:?}");
    assert_eq!(first.records, ledger.snapshot().position().0);

    // Beside the work: what comes in meanwhile, and goes, is no finding.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ledger, clock, stop) = (&ledger, &clock, &stop);
        scope.spawn(move || {
            run(async {
                let mut size = 40_000;
                while !stop.load(Ordering::Acquire) {
                    size += 1;
                    let (submitted, _) = send(ledger, clock, size).await;
                    deliver(ledger, clock, &submitted).await;
                }
            });
        });
        for _ in 0..5 {
            let report = verify_beside(ledger);
            assert!(report.is_clean(), "{report}");
        }
        stop.store(true, Ordering::Release);
    });

    // The next day a content has rotted, and a day later a row.
    let path = ledger.inner.shared.bodies.file_of(body.body);
    let mut rotten = std::fs::read(&path).unwrap();
    rotten[7] ^= 1;
    std::fs::write(&path, rotten).unwrap();
    clock.advance(Duration::from_secs(24 * 3600));
    let second = wait_for_round(&ledger, Some(first));
    assert_eq!((second.damage, second.bodies_damaged), (0, 1), "{second:?}");
    assert!(second.first.as_ref().unwrap().contains(&body.body.to_string()), "{second:?}");
    assert_eq!(ledger.status().stopped, None, "mail goes on");

    let table = ledger.snapshot().0.view.table(Table::Accounts).unwrap().keyspace.clone();
    table.insert("zz", "rot").unwrap();
    // Readers see it with the next batch.
    run(send(&ledger, &clock, 704));
    clock.advance(Duration::from_secs(24 * 3600));
    let third = wait_for_round(&ledger, Some(second));
    assert_eq!((third.damage, third.bodies_damaged), (1, 1), "{third:?}");
    let refused = run(ledger.submit(set_up().remove(0))).unwrap_err().to_string();
    assert!(refused.contains("row zz of accounts is stored, but the log says there is none"), "{refused}");
    drop((table, ledger));
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    assert_eq!(ledger.status().round, Some(third.clone()), "a restart knows it");
    clock.advance(Duration::from_secs(61));
    assert_eq!(wait_for_round(&ledger, Some(third)).damage, 1, "and looks again soon");
}

#[test]
fn what_needs_a_lost_content_comes_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let (options, clock) = (options(dir.path()), Clock::system());
    run(async {
        let ledger = Ledger::open(options.clone(), clock.clone()).unwrap();
        for command in set_up() {
            ledger.submit(command).await.unwrap();
        }
        let (waiting, _) = send(&ledger, &clock, 50_000).await;
        let (trying, _) = send(&ledger, &clock, 50_001).await;
        let attempt = AttemptId(clock.uuid_v7());
        let ids = vec![trying.recipients[0].1];
        let transport = TransportName::new("direct").unwrap();
        let start = StartAttempt { attempt, message: trying.message, deliveries: ids, transport, started: clock.now() };
        ledger.submit(Command::StartAttempt(start)).await.unwrap();
        let contents = [&waiting, &trying].map(|submitted| {
            let message = deliveries::message(&ledger.snapshot(), submitted.message).unwrap().unwrap();
            fs::remove_file(ledger.inner.shared.bodies.path(message.message)).unwrap();
            LostContent { body: message.body, copies: Vec::new() }
        });
        let lose = LoseContents { contents: contents.to_vec(), by: Author::program() };
        ledger.submit(Command::LoseContents(lose)).await.unwrap();
        for (_, id, _) in waiting.recipients.iter().chain(&trying.recipients) {
            let row = deliveries::delivery(&ledger.snapshot(), *id).unwrap().unwrap();
            assert!(matches!(row.state, State::Failed(_)), "{row:?}");
        }
        ledger.close().await.unwrap();
    });
    verified(&options);
}
