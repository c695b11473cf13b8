//! The ledger's promises, with projections of two lines and decisions of three.

use std::path::Path;

use postledger_events::Record;
use postledger_events::address::Address;
use postledger_events::command::{AccountChange, ConfigureAccount, DeleteMessage, Receive};
use postledger_events::event::Event;
use postledger_events::fact::account::{AccountConfigured, AccountPersonal, AccountSettings};
use postledger_events::fact::mailbox::{MailboxCopy, MessageDeleted, MessageReceived};
use postledger_events::id::{AccountName, MailboxName, MsgId, SecretRef, Sha256};
use postledger_events::refusal::Thing;
use postledger_projections::rows::{Key, Value};
use postledger_projections::{Order, RowsMut, Table};

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

fn decide(command: &Command, rows: &dyn Rows, _: &Policy, _: Moment) -> Result<Decision, Refusal> {
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
    MessageReceived { body, copies, tls: None, smtputf8: false, personal: None }
}

const PROGRAM: Program = Program { projections: PROJECTIONS, decide, is_body_live };

fn options(dir: &Path) -> Options {
    Options { create: true, program: PROGRAM, segment_records_max: 50, ..Options::new(dir) }
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_secs(1_800_000_000))
}

fn open(dir: &Path) -> Ledger {
    Ledger::open(options(dir), clock()).unwrap()
}

fn refusal(options: Options, clock: Clock) -> String {
    match Ledger::open(options, clock) {
        Ok(_) => panic!("it opened"),
        Err(e) => e.to_string(),
    }
}

fn account(name: &str, create: bool) -> Command {
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
    }))
}

fn delete() -> Command {
    let account = AccountName::new("mox").unwrap();
    Command::DeleteMessage(DeleteMessage { account, msg_id: MsgId(1), by: Author::program() })
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// What a kill at this moment would leave.
fn copy(from: &Path) -> tempfile::TempDir {
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
