//! The ledger's promises, with projections of two lines and decisions of three.

use std::path::Path;

use postledger_events::Record;
use postledger_events::address::Address;
use postledger_events::command::{AccountChange, ConfigureAccount, DeleteMessage, Receive};
use postledger_events::event::Event;
use postledger_events::fact::account::{AccountConfigured, AccountPersonal, AccountSettings};
use postledger_events::fact::ledger::ClockStepped;
use postledger_events::fact::mailbox::{MailboxCopy, MessageDeleted, MessageReceived};
use postledger_events::id::{AccountName, MailboxName, MsgId, SecretRef, Sha256};
use postledger_events::refusal::Thing;
use postledger_projections::rows::{Key, Value};
use postledger_projections::{Order, RowsMut, Table, secrets};

use super::store::{Head, Note, Store};
use super::*;

// Accounts are rows that say how often they were configured; mailboxes has a row for every body; the tally is a count.
const PROJECTIONS: &[Projection] = &[
    Projection { name: "accounts", version: 1, table: Table::Accounts, decides: true, fold: fold_accounts },
    Projection { name: "mailboxes", version: 1, table: Table::Mailboxes, decides: true, fold: fold_mailboxes },
    Projection { name: "tally", version: 1, table: Table::Tally, decides: false, fold: fold_tally },
];

/// The same, as a later program has them.
const LATER: &[Projection] = &[
    Projection { version: 2, ..PROJECTIONS[0] },
    Projection { version: 2, ..PROJECTIONS[1] },
    Projection { version: 2, ..PROJECTIONS[2] },
];

fn count(rows: &mut dyn RowsMut, table: Table, key: &[u8]) -> Result<(), projections::Error> {
    let before = rows.get(table, key)?.map_or(0, |v| u64::from_be_bytes(v.try_into().unwrap()));
    rows.put(table, key.to_vec(), (before + 1).to_be_bytes().to_vec());
    Ok(())
}

fn fold_accounts(record: &Record, rows: &mut dyn RowsMut) -> Result<(), projections::Error> {
    if let Event::AccountConfigured(fact) = &record.event {
        count(rows, Table::Accounts, fact.account.as_str().as_bytes())?;
        if let Some(personal) = &fact.personal {
            rows.put(
                Table::Accounts,
                format!("~{}", fact.account).into_bytes(),
                personal.full_name.clone().into_bytes(),
            );
        }
    }
    Ok(())
}

fn fold_mailboxes(record: &Record, rows: &mut dyn RowsMut) -> Result<(), projections::Error> {
    if let Event::MessageReceived(fact) = &record.event {
        rows.put(Table::Mailboxes, fact.body.body.0.as_bytes().to_vec(), serde_json::to_vec(&fact.body).unwrap());
    }
    if let Event::MessageDeleted(fact) = &record.event {
        rows.remove(Table::Mailboxes, fact.body.body.0.as_bytes().to_vec());
    }
    Ok(())
}

fn fold_tally(record: &Record, rows: &mut dyn RowsMut) -> Result<(), projections::Error> {
    count(rows, Table::Tally, record.event.kind().as_bytes())
}

fn is_body_live(rows: &dyn Rows, body: MessageUuid) -> Result<bool, projections::Error> {
    Ok(rows.get(Table::Mailboxes, body.0.as_bytes())?.is_some())
}

fn decide(command: &Command, rows: &dyn Rows, _: &Policy, moment: Moment) -> Result<Decision, Refusal> {
    let mut decision =
        Decision { events: Vec::new(), answer: Answer::Done, forget_secrets: Vec::new(), forget_bodies: Vec::new() };
    match command {
        Command::ConfigureAccount(c) => {
            let exists = rows.get(Table::Accounts, c.account.as_str().as_bytes()).unwrap().is_some();
            if exists && c.create {
                return Err(Refusal::Exists(Thing::Account(c.account.to_string())));
            }
            decision.events.push(configured(&c.account, &c.change).into());
        }
        Command::AcceptClock(c) => {
            let (from, to, by) = (c.from, moment.now, c.by.clone());
            decision.events.push(ClockStepped { from, to, by }.into());
        }
        Command::Receive(c) => decision.events.push(received(c.body).into()),
        Command::DeleteMessage(c) => {
            let found = rows.scan(Table::Mailboxes, &[], &[0xff; 17], Order::Ascending, 1).unwrap();
            let body: BodyRef = serde_json::from_slice(&found[0].1).unwrap();
            let (account, mailbox, msg_id, by) = (c.account.clone(), MailboxName::inbox(), c.msg_id, c.by.clone());
            decision.events.push(MessageDeleted { account, mailbox, msg_id, body, last: true, by }.into());
            decision.forget_bodies.push(body);
        }
        other => panic!("{other:?} is not for this program"),
    }
    Ok(decision)
}

fn configured(account: &AccountName, change: &AccountChange) -> AccountConfigured {
    let settings = AccountSettings { password: change.password, ..AccountSettings::default() };
    let full_name = change.full_name.clone().unwrap_or_default();
    let personal = Some(AccountPersonal { full_name });
    AccountConfigured { account: account.clone(), settings, by: Author::program(), personal }
}

fn received(body: BodyRef) -> MessageReceived {
    let (account, mailbox) = (AccountName::new("mox").unwrap(), MailboxName::inbox());
    let copies = vec![MailboxCopy { account, mailbox, msg_id: MsgId(1), recipient: 0 }];
    MessageReceived { body, copies, tls: None, smtputf8: false, notice_of: None, personal: None }
}

fn check_books(_: &dyn Rows) -> Result<Books, projections::Error> {
    Ok(Books::default())
}

fn secrets(_: &dyn Rows) -> Result<Vec<secrets::Named>, projections::Error> {
    Ok(Vec::new())
}

fn hold_open(_: &dyn Rows) -> Result<Vec<Command>, projections::Error> {
    Ok(Vec::new())
}

pub(super) const PROGRAM: Program =
    Program { projections: PROJECTIONS, decide, is_body_live, check_books, secrets, hold_open };

fn options(dir: &Path) -> Options {
    Options { create: true, program: PROGRAM, segment_records_max: 50, ..Options::new(dir) }
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_secs(1_800_000_000))
}

pub(super) fn open(dir: &Path) -> Ledger {
    Ledger::open(options(dir), clock()).unwrap()
}

fn refusal(options: Options, clock: Clock) -> String {
    match Ledger::open(options, clock) {
        Ok(_) => panic!("it opened"),
        Err(e) => e.to_string(),
    }
}

pub(super) fn account(name: &str, create: bool) -> Command {
    let change = AccountChange { full_name: Some(format!("The owner of {name}")), ..AccountChange::default() };
    let account = AccountName::new(name).unwrap();
    Command::ConfigureAccount(Box::new(ConfigureAccount { account, create, change, by: Author::program() }))
}

fn receive(body: BodyRef) -> Command {
    Command::Receive(Box::new(Receive {
        body,
        peer: None,
        helo: String::new(),
        tls: None,
        smtputf8: false,
        mail_from: None::<Address>,
        recipients: Vec::new(),
        message_id: None,
        from: None,
        subject: None,
        notice_of: None,
    }))
}

fn delete() -> Command {
    let account = AccountName::new("mox").unwrap();
    Command::DeleteMessage(DeleteMessage { account, msg_id: MsgId(1), by: Author::program() })
}

pub(super) fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// What a kill at this moment would leave.
pub(super) fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    copy_dir(from, to.path());
    to
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn rows(snapshot: &Snapshot) -> Vec<(Table, Key, Value)> {
    let tables = [Table::Accounts, Table::Mailboxes, Table::Tally];
    let of = |t: Table| snapshot.scan(t, &[], &[0xff; 99], Order::Ascending, usize::MAX).unwrap().into_iter();
    tables.into_iter().flat_map(|t| of(t).map(move |(k, v)| (t, k, v))).collect()
}

fn lines(snapshot: &Snapshot) -> Vec<Vec<u8>> {
    snapshot.records(Seq::FIRST..=Seq(u64::MAX)).map(|line| line.unwrap().1).collect()
}

fn fill(ledger: &Ledger, accounts: usize) {
    run(async {
        for n in 0..accounts {
            ledger.submit(account(&format!("a{n:04}"), true)).await.unwrap();
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 120);
    let (before, log) = (rows(&ledger.snapshot()), lines(&ledger.snapshot()));
    let killed = copy(dir.path());
    let after = open(killed.path());
    assert_eq!(after.snapshot().position(), Seq(121));
    assert_eq!(lines(&after.snapshot()), log);
    assert_eq!(rows(&after.snapshot()), before);
    assert!(killed.path().join("journals-aside/1").exists());
    assert_eq!(after.snapshot().0.view.segments.len(), 3);
    let part: Vec<Seq> = after.snapshot().records(Seq(49)..=Seq(53)).map(|l| l.unwrap().0).collect();
    assert_eq!(part, [49, 50, 51, 52, 53].map(Seq));
}

#[test]
fn commands_of_one_batch_see_each_other_and_share_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let before = ledger.status().commits;
    let (done, refused) = run(async {
        let submit = |n: usize| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.submit(account(&format!("a{:03}", n / 2), true)).await })
        };
        let tasks: Vec<_> = (0..400).map(submit).collect();
        let (mut done, mut refused) = (0, 0);
        for task in tasks {
            match task.await.unwrap() {
                Ok(committed) => done += usize::from(committed.first == committed.last),
                Err(SubmitError::Refused(Refusal::Exists(_))) => refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        (done, refused)
    });
    assert_eq!((done, refused), (200, 200));
    assert_eq!(ledger.snapshot().position(), Seq(201));
    let commits = ledger.status().commits - before;
    assert!(commits < 200, "{commits} syncs for 200 facts");
}

#[test]
fn a_second_start_says_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let _ledger = open(dir.path());
    let expected = format!("{}: process {} holds this ledger", dir.path().display(), std::process::id());
    assert_eq!(refusal(options(dir.path()), clock()), expected);
    let nothing = tempfile::tempdir().unwrap();
    let none = Options { create: false, ..options(nothing.path()) };
    assert!(refusal(none, clock()).ends_with("there is no ledger here"));
}

#[test]
fn bodies_and_secrets_come_and_go_with_their_facts() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    for size in [BODY_INLINE_BYTES_MAX, BODY_INLINE_BYTES_MAX + 1] {
        let content = Bytes::from(vec![b'x'; size]);
        let body = run(async {
            let staged = ledger.stage(MessageUuid(clock.uuid_v7()), content.clone()).await.unwrap();
            let body = staged.body;
            let intent = Intent { command: receive(body), bodies: vec![staged], secrets: Vec::new() };
            ledger.submit(intent).await.unwrap();
            body
        });
        assert_eq!(body.sha256, Sha256::of(&content));
        assert_eq!(ledger.body(&body).unwrap(), content);
        run(async { ledger.submit(delete()).await.unwrap() });
        assert!(matches!(ledger.body(&body), Err(BodyError::Missing(b)) if b == body));
    }
    let (id, value) = (SecretId(clock.uuid_v7()), Zeroizing::new(b"hunter2".to_vec()));
    let fingerprint = ledger.fingerprint(&value);
    let Command::ConfigureAccount(mut c) = account("mox", true) else { unreachable!() };
    c.change.password = Some(SecretRef { id, fingerprint });
    let command = Command::ConfigureAccount(c);
    run(async {
        let secrets = vec![(id, value.clone())];
        ledger.submit(Intent { command: command.clone(), bodies: Vec::new(), secrets }).await.unwrap();
    });
    assert_eq!(ledger.secret(id).unwrap(), Some(value.clone()));
    assert!(lines(&ledger.snapshot()).iter().all(|line| !line.windows(7).any(|w| w == b"hunter2")));
}

#[test]
fn a_refused_command_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    fill(&ledger, 1);
    let before = (rows(&ledger.snapshot()), ledger.snapshot().position());
    let id = SecretId(clock.uuid_v7());
    run(async {
        let staged = ledger.stage(MessageUuid(clock.uuid_v7()), Bytes::from(vec![0; 100_000])).await.unwrap();
        let secrets = vec![(id, Zeroizing::new(vec![1]))];
        let intent = Intent { command: account("a0000", true), bodies: vec![staged], secrets };
        assert!(matches!(ledger.submit(intent).await, Err(SubmitError::Refused(Refusal::Exists(_)))));
    });
    assert_eq!((rows(&ledger.snapshot()), ledger.snapshot().position()), before);
    assert_eq!(ledger.secret(id).unwrap(), None);
    assert_eq!(ledger.inner.shared.bodies.files().unwrap(), []);
}

fn close(ledger: Ledger) {
    run(ledger.close()).unwrap();
}

/// A closed ledger with records 1 to 41.
pub(super) fn closed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 40);
    close(ledger);
    dir
}

/// Changes what the engine has behind the ledger's back.
fn tamper(dir: &Path, change: impl FnOnce(&Store, &fjall::Keyspace)) {
    let store = Store::open(&dir.join("ledger"), CACHE_BYTES).unwrap();
    let log = store.segment(&store::SegmentNote { number: 1, first: Seq(1) }).unwrap();
    change(&store, &log);
    store.db.persist(fjall::PersistMode::SyncAll).unwrap();
}

fn line(log: &fjall::Keyspace, seq: u64) -> Vec<u8> {
    log.get(seq.to_be_bytes()).unwrap().unwrap().to_vec()
}

fn texts(report: &verify::Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.text.as_str()).collect()
}

#[test]
fn damage_is_reported_at_its_place() {
    let check = |change: fn(&fjall::Keyspace), expected: &str| {
        let dir = closed();
        tamper(dir.path(), |_, log| change(log));
        let refusal = refusal(options(dir.path()), clock());
        assert!(refusal.contains(&format!("the log cannot be taken as it is: {expected}")), "{refusal}");
        let report = verify::verify(&options(dir.path()), false, &mut |_, _| {}).unwrap();
        assert!(report.findings[0].text.starts_with(expected), "{report}");
        assert!(!report.is_clean());
    };
    check(|log| log.remove(30u64.to_be_bytes()).unwrap(), "the log has no record 30; the next one is 31");
    check(
        |log| [40u64, 41].iter().for_each(|n| log.remove(n.to_be_bytes()).unwrap()),
        "the log ends at record 39, but record 41 had been written and synced",
    );
    check(
        |log| {
            let changed = String::from_utf8(line(log, 30)).unwrap().replace("The owner", "The other");
            log.insert(30u64.to_be_bytes(), changed).unwrap();
        },
        "the chain breaks at record 31: it names",
    );
    check(
        |log| {
            let changed = String::from_utf8(line(log, 41)).unwrap().replace("The owner", "The other");
            log.insert(41u64.to_be_bytes(), changed).unwrap();
        },
        "record 41 is not what was written",
    );
    check(
        |log| {
            let changed = String::from_utf8(line(log, 30)).unwrap().replace("AccountConfigured", "AccountSquared");
            log.insert(30u64.to_be_bytes(), changed).unwrap();
        },
        "record 30 is of kind AccountSquared version 1, which only a newer program knows",
    );
    check(
        |log| log.insert(30u64.to_be_bytes(), line(log, 31)).unwrap(),
        "record 31 is stored in the place of record 30",
    );
}

#[test]
fn a_rotten_journal_refuses_and_is_kept_as_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 40);
    let killed = copy(dir.path());
    let journal = killed.path().join("ledger/0.jnl");
    let bytes = std::fs::read(&journal).unwrap();
    let used = bytes.iter().rposition(|b| *b != 0).unwrap();
    let cut = [&bytes[..used - used / 4], &vec![0; bytes.len() - (used - used / 4)]].concat();
    std::fs::write(&journal, &cut).unwrap();
    for _ in 0..5 {
        let refusal = refusal(options(killed.path()), clock());
        assert!(refusal.contains("but record 41 had been written and synced"), "{refusal}");
    }
    let kept = std::fs::read(killed.path().join("journals-aside/1/0.jnl")).unwrap();
    assert!(kept == cut, "the copy is from before the engine truncated it");
    assert!(!killed.path().join("journals-aside/2").exists());
}

#[test]
fn a_forgotten_personal_part_leaves_the_chain_whole() {
    let dir = closed();
    let before = rows(&open(dir.path()).snapshot());
    forget(dir.path(), 9, 41);
    let all = Options { rebuild: Rebuild::All, ..options(dir.path()) };
    rebuild(all, clock()).unwrap();
    let report = verify::verify(&options(dir.path()), true, &mut |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report}");
    let after = rows(&open(dir.path()).snapshot());
    let gone = (Table::Accounts, b"~a0007".to_vec(), b"The owner of a0007".to_vec());
    let rest: Vec<_> = before.into_iter().filter(|row| *row != gone).collect();
    assert_eq!(after.len(), 81);
    assert_eq!(after, rest);
}

/// Writes the log from `from` on anew, with that record's personal part gone.
fn forget(dir: &Path, from: u64, to: u64) {
    let mut prev = None;
    tamper(dir, |store, log| {
        for seq in from..=to {
            let mut record = Record::decode(&line(log, seq)).unwrap();
            record.prev = prev.unwrap_or(record.prev);
            if let Event::AccountConfigured(fact) = &mut record.event
                && seq == from
            {
                fact.personal = None;
            }
            let line = record.to_line();
            prev = Some(Sha256::of(&line));
            log.insert(seq.to_be_bytes(), line).unwrap();
        }
        let head = store.note::<Head>(Note::Head).unwrap().unwrap();
        let mut batch = store.batch();
        store.put_note(&mut batch, Note::Head, &Head { hash: prev.unwrap(), ..head });
        batch.commit().unwrap();
    });
    let mut watermark = watermark::Watermark::open(dir).unwrap().unwrap();
    watermark.update(|mark| mark.hash = prev.unwrap()).unwrap();
    watermark.sync().unwrap();
}

#[test]
fn rebuilt_rows_equal_grown_rows() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, ledger) = (clock(), open(dir.path()));
    fill(&ledger, 130);
    run(async {
        for _ in 0..20 {
            let staged = ledger.stage(MessageUuid(clock.uuid_v7()), Bytes::from_static(b"hello")).await.unwrap();
            let intent = Intent { command: receive(staged.body), bodies: vec![staged], secrets: Vec::new() };
            ledger.submit(intent).await.unwrap();
            ledger.submit(account("a0007", false)).await.unwrap();
        }
        for _ in 0..15 {
            ledger.submit(delete()).await.unwrap();
        }
    });
    let grown = rows(&ledger.snapshot());
    close(ledger);
    // Chunks of a few rows, so that rows and removals of one overlap those of others.
    let later = Options {
        program: Program { projections: LATER, ..PROGRAM },
        rebuild_chunk_bytes_max: 700,
        ..options(dir.path())
    };
    let ledger = Ledger::open(later.clone(), clock.clone()).unwrap();
    run(async {
        let mut position = ledger.watch();
        while !ledger.status().lagging.is_empty() {
            tokio::time::timeout(Duration::from_secs(10), position.changed()).await.unwrap().unwrap();
        }
    });
    assert_eq!(rows(&ledger.snapshot()), grown);
    assert_eq!(ledger.status().stopped, None);
    close(ledger);
    let report = verify::verify(&later, true, &mut |_, _| {}).unwrap();
    assert!(report.is_clean() && report.tables.len() == 3 && report.bodies == 5, "{report}");
    tamper(dir.path(), |store, _| store.table("tally.2").unwrap().insert("AccountConfigured", "x").unwrap());
    let report = verify::verify(&later, true, &mut |_, _| {}).unwrap();
    assert_eq!(texts(&report), ["row AccountConfigured of tally is not what the log says"]);
}

#[test]
fn a_clock_that_moved_must_be_accepted() {
    let last = clock().now();
    let check = |seconds: i64, refused: bool| {
        let dir = closed();
        let now = Timestamp::from_secs(last.as_secs() + seconds);
        if !refused {
            let ledger = Ledger::open(options(dir.path()), Clock::manual(now)).unwrap();
            assert_eq!(ledger.snapshot().position(), Seq(41));
            fill(&ledger, 0);
            return;
        }
        let refusal = refusal(options(dir.path()), Clock::manual(now));
        assert!(
            refusal.starts_with(&format!("the clock says {now}")) && refusal.contains("--accept-clock"),
            "{refusal}"
        );
        let accept = Options { accept_clock: Some(Author("unix:root".to_owned())), ..options(dir.path()) };
        let ledger = Ledger::open(accept, Clock::manual(now)).unwrap();
        let record = ledger.snapshot().record(Seq(42)).unwrap().unwrap();
        assert_eq!((record.at, record.event.kind()), (now, "ClockStepped"));
        close(ledger);
        assert_eq!(Ledger::open(options(dir.path()), Clock::manual(now)).unwrap().snapshot().position(), Seq(42));
    };
    check(0, false);
    check(-299, false);
    check(-301, true);
    check(7 * 24 * 3600 - 1, false);
    check(7 * 24 * 3600 + 1, true);
}

#[test]
fn time_never_goes_back_while_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let clock = clock();
    let ledger = Ledger::open(options(dir.path()), clock.clone()).unwrap();
    let start = clock.now();
    let at = |name: &str| run(ledger.submit(account(name, true))).unwrap().at;
    clock.set(Timestamp::from_secs(5));
    assert_eq!(at("a"), start);
    clock.set(start + Duration::from_secs(9));
    assert_eq!(at("b"), start + Duration::from_secs(9));
}

#[test]
fn files_without_a_message_go_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, ledger) = (clock(), open(dir.path()));
    let large = Bytes::from(vec![7; 50_000]);
    let kept = run(async {
        let staged = ledger.stage(MessageUuid(clock.uuid_v7()), large.clone()).await.unwrap();
        let body = staged.body;
        let intent = Intent { command: receive(body), bodies: vec![staged], secrets: Vec::new() };
        ledger.submit(intent).await.unwrap();
        body
    });
    let staged = run(ledger.stage(MessageUuid(clock.uuid_v7()), large.clone())).unwrap();
    let killed = copy(dir.path());
    let shelf = killed.path().join("bodies/00");
    std::fs::create_dir_all(&shelf).unwrap();
    std::fs::write(shelf.join("half.tmp"), "").unwrap();
    drop(staged);
    assert_eq!(ledger.inner.shared.bodies.files().unwrap().len(), 1);
    let after = open(killed.path());
    assert_eq!(after.inner.shared.bodies.files().unwrap().len(), 1);
    assert_eq!(after.body(&kept).unwrap(), large);
}

#[test]
fn another_pepper_is_refused() {
    let dir = closed();
    tamper(dir.path(), |store, _| store.vault.insert("pepper", [1; 32]).unwrap());
    assert!(refusal(options(dir.path()), clock()).starts_with("the vault's key is missing or is not the one"));
    let report = verify::verify(&options(dir.path()), false, &mut |_, _| {}).unwrap();
    assert_eq!(texts(&report), ["the vault's pepper is not the one that record 1 tells of"]);
}

#[test]
fn a_rebuild_that_was_cut_off_begins_anew() {
    let dir = closed();
    let later = Options { program: Program { projections: LATER, ..PROGRAM }, ..options(dir.path()) };
    let grown = rows(&open(dir.path()).snapshot());
    tamper(dir.path(), |store, _| {
        store.table("tally.2").unwrap().insert("leftover", "x").unwrap();
        store.table("accounts.2").unwrap().insert("leftover", "x").unwrap();
    });
    drop(Ledger::open(later.clone(), clock()).unwrap());
    rebuild(Options { rebuild: Rebuild::Named(vec!["tally".to_owned()]), ..later.clone() }, clock()).unwrap();
    assert_eq!(rows(&Ledger::open(later, clock()).unwrap().snapshot()), grown);
}

#[test]
fn rows_apart_from_the_log_are_refused_and_can_be_rebuilt() {
    let dir = closed();
    let grown = rows(&open(dir.path()).snapshot());
    tamper(dir.path(), |store, _| {
        let head = store.note::<Head>(Note::Head).unwrap().unwrap();
        let mut batch = store.batch();
        store.put_note(&mut batch, Note::Head, &Head { seq: Seq(40), ..head });
        batch.commit().unwrap();
    });
    let refusal = refusal(options(dir.path()), clock());
    assert!(
        refusal.contains("rows are at record 40, the log at record 41. Run `postledger rebuild --all`"),
        "{refusal}"
    );
    rebuild(Options { rebuild: Rebuild::All, ..options(dir.path()) }, clock()).unwrap();
    assert_eq!(rows(&open(dir.path()).snapshot()), grown);
}

const LIMITED_DIR: &str = "POSTLEDGER_TEST_LIMITED_DIR";

/// Run by the test below, in a process that may write no file beyond a size: submits until that fails, and says how far it came.
#[test]
fn until_writing_fails() {
    let Some(dir) = std::env::var_os(LIMITED_DIR) else { return };
    let ledger = open(Path::new(&dir));
    let (mut acknowledged, mut failed) = (Vec::new(), None);
    run(async {
        for n in 0.. {
            match ledger.submit(account(&format!("b{n}"), true)).await {
                Ok(committed) => acknowledged.push(committed.last),
                Err(e) => {
                    failed = Some(e);
                    break;
                }
            }
        }
    });
    let Some(SubmitError::Stopped(why)) = failed else { panic!("{failed:?}") };
    assert_eq!(run(ledger.submit(account("late", true))), Err(SubmitError::Stopped(why.clone())));
    assert_eq!(ledger.status().stopped, Some(why.clone()));
    assert!(!acknowledged.is_empty());
    std::fs::write(Path::new(&dir).join("acknowledged"), format!("{}\n{why}", acknowledged.last().unwrap())).unwrap();
}

#[test]
fn a_failed_write_stops_it_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    fill(&ledger, 400);
    close(ledger);
    // The engine cut its journal to what it holds when it opens it, so a limit a little above that makes a write fail soon.
    drop(open(dir.path()));
    let used = std::fs::metadata(dir.path().join("ledger/0.jnl")).unwrap().len();
    let blocks = used / 512 + 64;
    let program = std::env::current_exe().unwrap();
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" --exact ledger::tests::until_writing_fails");
    let output = std::process::Command::new("sh")
        .args(["-c", &script])
        .arg(program)
        .env(LIMITED_DIR, dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let said = std::fs::read_to_string(dir.path().join("acknowledged")).unwrap();
    let (last, why) = said.split_once('\n').unwrap();
    assert!(why.starts_with("writing failed: "), "{why}");
    let last: Seq = last.parse().unwrap();
    let ledger = open(dir.path());
    assert!(ledger.snapshot().position() >= last && last > Seq(401));
    run(ledger.submit(account("more", true))).unwrap();
}

#[test]
fn what_never_comes_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let never = ledger.expect();
    run(async { ledger.expect().submit(account("a", true)).await.unwrap() });
    assert_eq!(ledger.inner.shared.expected.load(Ordering::Acquire), 1);
    drop(never);
    assert_eq!(ledger.inner.shared.expected.load(Ordering::Acquire), 0);
    assert_eq!(ledger.snapshot().position(), Seq(2));
}

#[test]
fn a_table_that_no_decision_reads_is_rebuilt_while_it_runs() {
    let dir = closed();
    let later = Options {
        program: Program { projections: LATER, ..PROGRAM },
        rebuild_chunk_bytes_max: 1,
        ..options(dir.path())
    };
    let ledger = Ledger::open(later.clone(), clock()).unwrap();
    run(async {
        let mut position = ledger.watch();
        for n in 0..100 {
            ledger.submit(account(&format!("more{n}"), true)).await.unwrap();
        }
        while !ledger.status().lagging.is_empty() {
            tokio::time::timeout(Duration::from_secs(10), position.changed()).await.unwrap().unwrap();
        }
        ledger.submit(account("last", true)).await.unwrap();
    });
    let count = ledger.snapshot().get(Table::Tally, b"AccountConfigured").unwrap();
    assert_eq!(count, Some(141u64.to_be_bytes().to_vec()));
    close(ledger);
    let report = verify::verify(&later, true, &mut |_, _| {}).unwrap();
    assert!(report.is_clean(), "{report}");
}

#[test]
fn the_product_opens_closes_and_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let product = Options { create: true, ..Options::new(dir.path().join("new")) };
    let ledger = Ledger::open(product.clone(), clock()).unwrap();
    assert_eq!(ledger.snapshot().record(Seq(1)).unwrap().unwrap().event.kind(), "LedgerCreated");
    close(ledger);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&product.dir).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
    let report = verify::verify(&product, true, &mut |_, _| {}).unwrap();
    assert!(report.is_clean() && report.tables.len() == projections::PROJECTIONS.len(), "{report}");
    let unknown = Options { rebuild: Rebuild::Named(vec!["ghosts".to_owned()]), ..product };
    assert_eq!(refusal(unknown, clock()), "there is no projection \"ghosts\"");
}

const KILLED_DIR: &str = "POSTLEDGER_TEST_KILLED_DIR";

/// Run by the test below, in a process that is killed: submits from eight sides, and says what was acknowledged.
#[test]
fn until_killed() {
    let Some(dir) = std::env::var_os(KILLED_DIR) else { return };
    let ledger = open(Path::new(&dir));
    let start = ledger.snapshot().position();
    run(async {
        let submit = |side: usize| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                for n in 0.. {
                    let name = format!("k{start}-{side}-{n}");
                    let committed = ledger.submit(account(&name, true)).await.unwrap();
                    println!("acknowledged {} {name}", committed.last);
                }
            })
        };
        let sides: Vec<_> = (0..8).map(submit).collect();
        for side in sides {
            side.await.unwrap();
        }
    });
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    for lines_before_kill in [1, 40, 300] {
        let acknowledged = run_and_kill(dir.path(), lines_before_kill);
        assert!(acknowledged.len() >= lines_before_kill);
        let ledger = open(dir.path());
        for said in acknowledged {
            let (seq, name) = said.split_once(' ').unwrap();
            let record = ledger.snapshot().record(seq.parse().unwrap()).unwrap().unwrap();
            let Event::AccountConfigured(fact) = record.event else { panic!("{said}") };
            assert_eq!(fact.account.as_str(), name);
            let row = ledger.snapshot().get(Table::Accounts, name.as_bytes()).unwrap();
            assert_eq!(row, Some(1u64.to_be_bytes().to_vec()));
        }
        drop(ledger);
        let report = verify::verify(&options(dir.path()), true, &mut |_, _| {}).unwrap();
        assert!(report.is_clean(), "{report}");
    }
}

fn run_and_kill(dir: &Path, lines: usize) -> Vec<String> {
    use std::io::BufRead;
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ledger::tests::until_killed", "--nocapture"])
        .env(KILLED_DIR, dir)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut said = said.filter_map(|line| line.split_once("acknowledged ").map(|(_, rest)| rest.to_owned()));
    let mut acknowledged: Vec<String> = said.by_ref().take(lines).collect();
    child.kill().unwrap();
    // What it had said before it died counts too; its last line may be cut off.
    acknowledged.extend(said);
    child.wait().unwrap();
    if acknowledged.len() > lines {
        acknowledged.pop();
    }
    acknowledged
}

/// Turns a bit of what the engine has in the tables of a keyspace.
fn rot(dir: &Path, keyspace: &str) {
    let mut path = None;
    tamper(dir, |store, _| {
        let keyspace = match keyspace {
            "bodies" => store.bodies.clone(),
            "vault" => store.vault.clone(),
            table => store.table(table).unwrap(),
        };
        keyspace.rotate_memtable_and_wait().unwrap();
        path = Some(keyspace.path().join("tables"));
    });
    for table in std::fs::read_dir(path.unwrap()).unwrap() {
        let table = table.unwrap().path();
        let mut bytes = std::fs::read(&table).unwrap();
        bytes[60] ^= 1;
        std::fs::write(table, bytes).unwrap();
    }
}

#[test]
fn blocks_that_cannot_be_read_are_findings_and_hide_no_others() {
    use verify::About;
    let dir = tempfile::tempdir().unwrap();
    let (clock, ledger) = (clock(), open(dir.path()));
    fill(&ledger, 40);
    run(async {
        for n in 0..20 {
            let staged = ledger.stage(MessageUuid(clock.uuid_v7()), Bytes::from(vec![n; 900])).await.unwrap();
            let intent = Intent { command: receive(staged.body), bodies: vec![staged], secrets: Vec::new() };
            ledger.submit(intent).await.unwrap();
        }
    });
    close(ledger);
    let check = |rotten: &str, about: About, expect: &str, compared: usize| {
        let dir = copy(dir.path());
        tamper(dir.path(), |store, _| store.table("tally.1").unwrap().insert("zz", "rot").unwrap());
        rot(dir.path(), rotten);
        let report = verify::verify(&options(dir.path()), true, &mut |_, _| {}).unwrap();
        let found = |about: About, text: &str| {
            report.findings.iter().any(|finding| finding.about == about && finding.text.starts_with(text))
        };
        assert!(found(about, expect), "{rotten}: {report}");
        assert!(found(About::Rows, "row zz of tally is stored"), "{rotten}: {report}");
        assert_eq!(report.tables.len(), compared, "{rotten}: {report}");
        assert!(!dir.path().join("verify-scratch").exists());
    };
    check("bodies", About::Body, "the small contents cannot all be read: ", 3);
    check("vault", About::Vault, "the vault's pepper cannot be read: ", 3);
    check("accounts.1", About::Rows, "rows of accounts cannot be read: ", 2);
    check("mailboxes.1", About::Rows, "rows of mailboxes cannot be read: ", 2);
}

const FAILING: &[Projection] = &[Projection { fold: fold_nothing, ..PROJECTIONS[2] }];

fn fold_nothing(_: &Record, _: &mut dyn RowsMut) -> Result<(), projections::Error> {
    Err(projections::Error::new(Table::Tally, "no space is left"))
}

#[test]
fn a_replay_that_fails_says_nothing_about_the_ledger() {
    let dir = closed();
    let failing = Options { program: Program { projections: FAILING, ..PROGRAM }, ..options(dir.path()) };
    let check = |expect: &str| {
        let error = verify::verify(&failing, true, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("the ledger could not be verified to the end: "), "{error}");
        assert!(error.ends_with(expect), "{error}");
        assert!(!dir.path().join("verify-scratch").exists());
    };
    check("no space is left");
    tamper(dir.path(), |store, _| store.vault.remove("pepper").unwrap());
    check("; before that there were 1 findings, such as: the vault has no pepper");
    // What is damaged needs no comparison.
    tamper(dir.path(), |_, log| log.remove(30u64.to_be_bytes()).unwrap());
    let report = verify::verify(&failing, true, &mut |_, _| {}).unwrap();
    assert_eq!(report.findings.iter().filter(|f| f.about == verify::About::Log).count(), 1, "{report}");
    assert_eq!(report.notes, ["the log is damaged, so the rows were not compared with it"]);
}
