//! The running program as HTTP sees it: what `postledger_web` asks for, done.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use postledger_events::address::{Address, Domain};
use postledger_events::command::{
    AccountChange, AddKey, ConfigureAccount, ConfigureDomain, ConfigureEndpoint, ConfigureTransport, DomainChange,
    IdempotencyKey, Submitted,
};
use postledger_events::fact::account::{
    DkimAlgorithm, DkimKey, Fold, RetrySchedule, TransportCredentials, TransportSettings,
};
use postledger_events::fact::submission::BodyRef;
use postledger_events::id::{
    AccountName, Author, EndpointName, KeyId, RecipientKey, SecretId, SecretRef, Selector, Seq, Sha256,
};
use postledger_events::refusal::Thing;
use postledger_events::time::Timestamp;
use postledger_events::{Answer, Command, Refusal};
use postledger_projections::rows::{Key, Value};
use postledger_projections::{Error, Order, Rows, Table, accounts};
use postledger_web::api::tail::Tail;
use postledger_web::api::verify::{Line, Wish};
use postledger_web::port::{
    ExecuteError, ExportError, Holder, Login, LoginError, NewEndpoint, NewKey, NewTransport, Pieces, Port, Redelivery,
    SendError, SendRequest, Status, TestCall, Unavailable, Verified, View, part_of,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::credentials::password::{Hashed, PASSWORD_CHARS_MIN, Prepared};
use crate::credentials::{Credentials, token};
use crate::decide::{self, pseudonym};
use crate::ledger::pace::Pace;
use crate::ledger::{self, Intent, Ledger, Snapshot};
use crate::mail::dkim::{Algorithm, SigningKey};
use crate::submit::{Submitter, execute_error};
use crate::webhook::target::Target;
use crate::webhook::{Caller, TestError, sign};

/// Of one processor, for a verification that is not in haste.
const VERIFY_SHARE_PERCENT: u32 = 15;
/// Lines that wait for whoever asked.
const VERIFY_LINES_MAX: usize = 16;

/// All that the doors share.
pub struct Program {
    pub ledger: Ledger,
    pub clock: Clock,
    pub credentials: Credentials,
    pub submitter: Submitter,
    /// For accounts that have no schedule of their own.
    pub retry: RetrySchedule,
    /// All waits are divided by this.
    pub retry_scale: u32,
    /// The end of the log, for those who follow it.
    pub tail: Tail,
    /// Asks everything to come to an end.
    pub stop: CancellationToken,
    pub caller: Arc<Caller>,
}

impl Port for Program {
    type View = SnapshotView;

    async fn login(&self, user: &str, password: &str, client: IpAddr) -> Result<Login, LoginError> {
        self.credentials.login(&self.ledger, user, password, client).await
    }

    async fn login_admin(&self, password: &str, client: IpAddr) -> Result<(), LoginError> {
        self.credentials.login_admin(password, client).await
    }

    async fn login_key(&self, token: &str, client: IpAddr) -> Result<Holder, LoginError> {
        self.credentials.login_key(&self.ledger, token, client)
    }

    async fn send(&self, request: SendRequest) -> Result<Submitted, SendError> {
        self.submitter.send(request).await
    }

    async fn redeliver(&self, wish: Redelivery) -> Result<Submitted, ExecuteError> {
        self.submitter.redeliver(wish).await
    }

    fn preflight(&self, account: &AccountName, from: &Address, recipients: &[Address]) -> Result<(), Refusal> {
        decide::preflight(account, from, recipients, &self.ledger.snapshot(), self.clock.now())
    }

    fn recipient_key(&self, account: &AccountName, address: &Address) -> RecipientKey {
        let row = accounts::account(&self.ledger.snapshot(), account);
        let fold = row.ok().flatten().map_or(Fold::Plus, |row| row.settings.fold);
        pseudonym::recipient_key(self.ledger.pepper(), account, address, fold)
    }

    async fn execute(&self, command: Command) -> Result<Answer, ExecuteError> {
        let _working = match key_of(&command) {
            Some((account, key)) => Some(self.submitter.begin(account, key).ok_or(ExecuteError::InFlight)?),
            None => None,
        };
        self.submit(command.into()).await
    }

    async fn set_password(&self, account: &AccountName, password: &str, by: Author) -> Result<(), ExecuteError> {
        let prepared = Prepared::new(password).filter(Prepared::is_long_enough).ok_or_else(|| {
            let why =
                format!("a password needs at least {PASSWORD_CHARS_MIN} characters, none of them control characters");
            ExecuteError::Refused(Refusal::Invalid(why))
        })?;
        let clock = self.clock.clone();
        let hashed = tokio::task::spawn_blocking(move || Hashed::of(&prepared, &clock)).await;
        let bytes = hashed.map_err(|e| unavailable(e.to_string()))?.to_bytes();
        let (reference, secret) = self.secret(bytes);
        let change = AccountChange { password: Some(reference), ..AccountChange::default() };
        let command = ConfigureAccount { account: account.clone(), create: false, change, by };
        self.submit_with(Command::ConfigureAccount(Box::new(command)), vec![secret]).await.map(drop)
    }

    async fn set_transport(&self, transport: NewTransport, by: Author) -> Result<(), ExecuteError> {
        let mut secrets = Vec::new();
        let credentials = transport.credentials.map(|(username, password)| {
            let (password, secret) = self.secret(Zeroizing::new(password.into_bytes()));
            secrets.push(secret);
            TransportCredentials { username, password }
        });
        let settings = TransportSettings {
            host: transport.host,
            port: transport.port,
            tls: transport.tls,
            credentials,
            connections_max: transport.connections_max,
        };
        let command = ConfigureTransport { transport: transport.name, settings, by };
        self.submit_with(Command::ConfigureTransport(command), secrets).await.map(drop)
    }

    async fn set_endpoint(
        &self,
        endpoint: NewEndpoint,
        generate: bool,
        by: Author,
    ) -> Result<Option<String>, ExecuteError> {
        let invalid = |why: String| ExecuteError::Refused(Refusal::Invalid(why));
        let NewEndpoint { account, endpoint, create, mut change, authorization, secrets: given } = endpoint;
        if let Some(url) = &change.url {
            Target::parse(url).map_err(|e| invalid(e.to_string()))?;
        }
        let mut secrets = Vec::new();
        change.authorization = match authorization {
            Some(Some(value)) if !is_field_value(&value) => {
                return Err(invalid("the value of Authorization has only printable ASCII characters".to_owned()));
            }
            authorization => authorization.map(|value| {
                value.map(|value| {
                    let (reference, secret) = self.secret(Zeroizing::new(value.into_bytes()));
                    secrets.push(secret);
                    reference
                })
            }),
        };
        let made = generate.then(|| sign::secret_text(&self.clock.random()));
        for text in given.into_iter().map(Zeroizing::new).chain(made.clone()) {
            sign::Secret::parse(&text).map_err(|e| invalid(e.to_string()))?;
            let (reference, secret) = self.secret(Zeroizing::new(text.trim().as_bytes().to_vec()));
            secrets.push(secret);
            change.add_secrets.push(reference);
        }
        let command = ConfigureEndpoint { account, endpoint, create, change, by };
        self.submit_with(Command::ConfigureEndpoint(Box::new(command)), secrets).await?;
        Ok(made.map(|text| text.to_string()))
    }

    async fn test_call(
        &self,
        account: &AccountName,
        endpoint: &EndpointName,
        by: Author,
    ) -> Result<TestCall, ExecuteError> {
        let tested = self.caller.test(account, endpoint, by).await.map_err(|e| match e {
            TestError::NoEndpoint(..) => ExecuteError::Refused(Refusal::NoSuch(Thing::Endpoint(endpoint.to_string()))),
            TestError::Unprepared(why) => ExecuteError::Refused(Refusal::Invalid(why)),
            TestError::Submit(e) => execute_error(e),
        })?;
        let took_us = u64::try_from(tested.took.as_micros()).unwrap_or(u64::MAX);
        Ok(TestCall { status: tested.status, response: tested.response, error: tested.error, took_us })
    }

    async fn generate_dkim(
        &self,
        domain: &Domain,
        selector: &Selector,
        algorithm: DkimAlgorithm,
        by: Author,
    ) -> Result<String, ExecuteError> {
        let kind = match algorithm {
            DkimAlgorithm::RsaSha256 => Algorithm::RsaSha256,
            DkimAlgorithm::Ed25519Sha256 => Algorithm::Ed25519Sha256,
        };
        let made = tokio::task::spawn_blocking(move || {
            let key = SigningKey::generate(kind)?;
            Ok::<_, crate::mail::dkim::Error>((key.public_key_record(), key.to_pkcs8_der()?))
        });
        let made = made.await.map_err(|e| unavailable(e.to_string()))?;
        let (record, der) = made.map_err(|e| unavailable(e.to_string()))?;
        let (private_key, secret) = self.secret(der);
        let key = DkimKey { algorithm, record: record.clone(), signing: true, private_key };
        let change = DomainChange { dkim: vec![(selector.clone(), Some(key))], ..DomainChange::default() };
        let command = ConfigureDomain { domain: domain.clone(), create: false, change, by };
        self.submit_with(Command::ConfigureDomain(command), vec![secret]).await?;
        Ok(record)
    }

    async fn add_key(&self, key: NewKey, by: Author) -> Result<(KeyId, String), ExecuteError> {
        let token = token::Secret::new(self.clock.random());
        let (hash, secret) = self.secret(Zeroizing::new(token.hash().0.to_vec()));
        let NewKey { account, label, scopes, expires, networks } = key;
        let command = AddKey { account, label, scopes, hash, expires, networks, by };
        match self.submit_with(Command::AddKey(command), vec![secret]).await? {
            Answer::Key(key) => Ok((key, token.token(key))),
            other => Err(unavailable(format!("a key was answered with {other:?}"))),
        }
    }

    async fn wait_past(&self, seq: Seq) {
        // The writer that this waits for lives as long as the ledger; if it goes, there is nothing left to wait for.
        let _ = self.ledger.watch().wait_for(|position| *position > seq).await;
    }

    fn view(&self) -> SnapshotView {
        // In this order: it holds for snapshots that are taken later.
        let first_due = self.ledger.first_due();
        SnapshotView { snapshot: self.ledger.snapshot(), ledger: self.ledger.clone(), first_due }
    }

    fn status(&self) -> Status {
        let status = self.ledger.status();
        let warnings = warnings(&status);
        let verified = status.round.as_deref().map(|round| Verified {
            ended: round.ended,
            took_s: round.took_s,
            records: round.records,
            bodies: round.bodies,
            findings: round.damage + round.bodies_damaged,
        });
        let short = self.ledger.has_room().map_err(|short| short.to_string());
        Status {
            accepting: status.stopped.map_or(short, Err),
            position: status.position,
            lagging: status.lagging.into_iter().map(|(name, seq)| (name.to_owned(), seq)).collect(),
            warnings,
            verified,
            free_bytes: status.space.free_bytes,
        }
    }

    fn verify(&self, wish: Wish) -> Option<mpsc::Receiver<Line>> {
        if self.ledger.is_being_verified() {
            return None;
        }
        let (lines, receiver) = mpsc::channel(VERIFY_LINES_MAX);
        let (ledger, clock) = (self.ledger.clone(), self.clock.clone());
        // A thread of its own: it takes long, and mostly rests.
        std::thread::spawn(move || verify(&ledger, clock, wish, &lines));
        Some(receiver)
    }

    fn tail(&self) -> &Tail {
        &self.tail
    }

    async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

impl Program {
    fn secret(&self, value: Zeroizing<Vec<u8>>) -> (SecretRef, (SecretId, Zeroizing<Vec<u8>>)) {
        let id = SecretId(self.clock.uuid_v7());
        (SecretRef { id, fingerprint: self.ledger.fingerprint(&value) }, (id, value))
    }

    async fn submit_with(
        &self,
        command: Command,
        secrets: Vec<(SecretId, Zeroizing<Vec<u8>>)>,
    ) -> Result<Answer, ExecuteError> {
        self.submit(Intent { command, bodies: Vec::new(), secrets }).await
    }

    async fn submit(&self, intent: Intent) -> Result<Answer, ExecuteError> {
        self.ledger.submit(intent).await.map(|committed| committed.answer).map_err(execute_error)
    }
}

/// Whether it can stand in a header (RFC 9110 §5.5).
fn is_field_value(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
}

/// What somebody should look at although everything goes on.
fn warnings(status: &ledger::Status) -> Vec<String> {
    let round = status.round.as_deref();
    let example =
        |round: &ledger::Round| round.first.as_ref().map_or_else(String::new, |first| format!(", such as: {first}"));
    let faults = round.filter(|round| round.damage > 0).map(|round| {
        format!(
            "the last round over the ledger found {} faults in log, rows or secrets{}; stop the server and run \
             `postledger verify --full`, then `postledger repair`",
            round.damage,
            example(round)
        )
    });
    let damaged = round.filter(|round| round.bodies_damaged > 0).map(|round| {
        // If there is worse, the example is of that.
        let example = if round.damage > 0 { String::new() } else { example(round) };
        format!("{} contents of messages or secrets are damaged{example}", round.bodies_damaged)
    });
    let low = (status.space.low && !status.space.short).then(|| {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let (free, reserve) = (mib(status.space.free_bytes), mib(status.space.reserve_bytes));
        format!("the disk has {free} MiB free; at {reserve} MiB no more mail is accepted")
    });
    faults.into_iter().chain(damaged).chain(low).collect()
}

fn verify(ledger: &Ledger, clock: Clock, wish: Wish, lines: &mpsc::Sender<Line>) {
    let gone = || lines.is_closed() || ledger.status().stopped.is_some();
    let pace = if wish.fast { Pace::unhindered(&gone) } else { Pace::share(clock, VERIFY_SHARE_PERCENT, &gone) };
    // Progress is only for those who watch; it is left out when they are slow.
    let verified = ledger.verify(wish.full, &pace, &mut |done, end| drop(lines.try_send(Line::Progress { done, end })));
    let line = match verified {
        Ok(Some(report)) => Line::Report(serde_json::to_value(report).expect("a report has string keys only")),
        Ok(None) => Line::Failed("the server stops, or takes nothing any more".to_owned()),
        Err(e) => Line::Failed(e.to_string()),
    };
    // Who asked may have gone away.
    let _ = lines.blocking_send(line);
}

fn unavailable(why: String) -> ExecuteError {
    ExecuteError::Unavailable(Unavailable::Stopped(why))
}

fn key_of(command: &Command) -> Option<(&AccountName, &IdempotencyKey)> {
    match command {
        Command::Suppress(c) => c.idempotency.as_ref().map(|key| (&c.account, key)),
        Command::LiftSuppression(c) => c.idempotency.as_ref().map(|key| (&c.account, key)),
        Command::Submit(c) => c.idempotency.as_ref().map(|key| (&c.account, key)),
        Command::StartAttempt(_)
        | Command::FinishAttempt(_)
        | Command::AbandonAttempt(_)
        | Command::Receive(_)
        | Command::DropNotice(_)
        | Command::DeleteMessage(_)
        | Command::Queue(_)
        | Command::AddHoldRule(_)
        | Command::RemoveHoldRule(_)
        | Command::AdvanceJob(_)
        | Command::ConfigureAccount(_)
        | Command::RemoveAccount(_)
        | Command::ConfigureDomain(_)
        | Command::RemoveDomain(_)
        | Command::AddAddress(_)
        | Command::RemoveAddress(_)
        | Command::ConfigureTransport(_)
        | Command::RemoveTransport(_)
        | Command::ConfigureEndpoint(_)
        | Command::RemoveEndpoint(_)
        | Command::FinishCalls(_)
        | Command::Calls(_)
        | Command::RecordTestCall(_)
        | Command::StartReplay(_)
        | Command::AdvanceReplay(_)
        | Command::StopReplay(_)
        | Command::ResumeReplay(_)
        | Command::CancelReplay(_)
        | Command::Expire(_)
        | Command::LoseContents(_)
        | Command::AddKey(_)
        | Command::RevokeKey(_)
        | Command::UseKey(_)
        | Command::SetCursor(_)
        | Command::RemoveCursor(_)
        | Command::AcceptClock(_)
        | Command::Branch(_) => None,
    }
}

/// A moment of the ledger, with the contents that its rows name.
pub struct SnapshotView {
    snapshot: Snapshot,
    ledger: Ledger,
    first_due: Timestamp,
}

impl Rows for SnapshotView {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Value>, Error> {
        self.snapshot.get(table, key)
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Key, Value)>, Error> {
        self.snapshot.scan(table, start, end, order, limit)
    }
}

impl View for SnapshotView {
    fn position(&self) -> Seq {
        self.snapshot.position()
    }

    fn first_due(&self) -> Timestamp {
        self.first_due
    }

    fn record_line(&self, seq: Seq) -> Result<Option<Vec<u8>>, Error> {
        self.snapshot.record_line(seq).map(|line| line.map(|l| l.to_vec())).map_err(damaged)
    }

    fn lines_after(&self, after: Seq, limit: usize) -> Result<Vec<(Seq, Vec<u8>)>, Error> {
        let lines = self.snapshot.records(after.next()..=self.snapshot.position());
        part_of(lines, limit).map_err(damaged)
    }

    fn body(&self, body: &BodyRef) -> Result<Bytes, std::io::Error> {
        self.ledger.body(body).map_err(std::io::Error::other)
    }

    fn export(&self, after: Seq, hash: Option<Sha256>) -> Result<Pieces, ExportError> {
        match self.ledger.export(after, hash) {
            Ok(export) => Ok(Box::new(export)),
            Err(ledger::ExportError::CutOff { after, last_common }) => Err(ExportError::CutOff { after, last_common }),
            Err(e @ (ledger::ExportError::NoFirstRecord | ledger::ExportError::Store(_))) => {
                Err(ExportError::Failed(e.to_string()))
            }
        }
    }

    fn vault(&self) -> Result<Bytes, String> {
        let secrets = self.ledger.secrets().map_err(|e| e.to_string())?;
        Ok(Bytes::from_owner(secrets.to_json()))
    }
}

/// The log is no table of rows, but those who read both need no second kind of error.
fn damaged(e: crate::ledger::Error) -> Error {
    Error::new(Table::Timeline, format!("the log: {e}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn known_damage_is_told_until_a_round_finds_none() {
        let check = |damage: u64, bodies_damaged: u64, first: Option<&str>, expect: &[&str]| {
            let ended = Timestamp::from_secs(1_800_000_000);
            let first = first.map(str::to_owned);
            let round = ledger::Round { ended, took_s: 1, records: 9, bodies: 5, bodies_damaged, damage, first };
            let space = ledger::Room { free_bytes: u64::MAX, reserve_bytes: 0, low: false, short: false };
            let status = ledger::Status {
                stopped: None,
                position: Seq(9),
                commits: 0,
                operations: 0,
                commit_max: Duration::ZERO,
                lagging: Vec::new(),
                round: Some(Arc::new(round)),
                round_at: None,
                space,
            };
            assert_eq!(warnings(&status), expect);
        };
        let faults = "the last round over the ledger found 2 faults in log, rows or secrets, such as: row zz; stop the \
                      server and run `postledger verify --full`, then `postledger repair`";
        check(0, 0, None, &[]);
        check(0, 3, Some("body b"), &["3 contents of messages or secrets are damaged, such as: body b"]);
        check(2, 0, Some("row zz"), &[faults]);
        check(2, 3, Some("row zz"), &[faults, "3 contents of messages or secrets are damaged"]);
    }
}
