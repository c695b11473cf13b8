//! One call: its body from facts and content, its headers, the POST, and what came of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use postledger_events::command::{CallReply, FinishedCall, RecordTestCall};
use postledger_events::fact::call::{BODY_VERSION, CallRef, CallTexts};
use postledger_events::fact::endpoint::{CallFormat, EndpointSettings};
use postledger_events::id::{AccountName, Author, EndpointName, LedgerId, MessageUuid, SecretId, Seq};
use postledger_events::time::Timestamp;
use postledger_events::{Command, Record};
use postledger_projections::news::{self, News, Source};
use postledger_projections::{Table, accounts, calls, timeline};
use zeroize::Zeroizing;

use super::client::{Client, Failure, Post, Reply, Settings};
use super::metrics::Metrics;
use super::payload::{self, Body, Name, Told};
use super::sign::{Secret, signatures};
use super::target::Target;
use crate::clock::Clock;
use crate::ledger::{BODY_LARGE_BYTES, BodyError, Ledger, Snapshot, SubmitError};
use crate::mail::contents::contents;

const USER_AGENT: &str = concat!("postledger/", env!("CARGO_PKG_VERSION"), " (webhook)");
/// Of a text about what went wrong.
const ERROR_CHARS_MAX: usize = 512;
/// Records of submissions that are remembered.
const SUBMISSIONS_MAX: usize = 256;

/// Calls endpoints.
pub struct Caller {
    pub ledger: Ledger,
    pub clock: Clock,
    pub client: Client,
    pub metrics: Metrics,
    /// Every id of a call names the ledger; it is read once.
    ledger_id: OnceLock<LedgerId>,
    /// Whoever reads a large content holds it, so that only one is in memory at any time.
    large: Mutex<()>,
}

/// A call that came to an end, and its texts.
#[derive(Clone, Debug)]
pub struct Ended {
    pub finished: FinishedCall,
    pub response: Option<String>,
    pub error: Option<String>,
}

/// A POST that was made, or failed.
pub(super) struct Made {
    started: Timestamp,
    took: Duration,
    result: Result<Reply, Failure>,
}

/// How an endpoint is reached, and what its calls are signed with.
pub(super) struct Contact {
    target: Target,
    connect_timeout: Duration,
    timeout: Duration,
    authorization: Option<Zeroizing<String>>,
    secrets: Vec<Secret>,
}

/// What a call needs before it can be made.
pub(super) struct Prepared {
    contact: Arc<Contact>,
    body: Body,
    webhook_id: String,
    number: u64,
    attempt: u32,
}

impl Prepared {
    pub(super) fn new(contact: Arc<Contact>, name: &Name<'_>, body: Body, attempt: u32) -> Prepared {
        Prepared { contact, body, webhook_id: name.webhook_id(), number: name.number(), attempt }
    }
}

/// Why a call is not made now.
pub(super) enum Unprepared {
    /// It has ended meanwhile, or its endpoint takes no calls; there is nothing to tell.
    Nothing,
    Forgotten,
    /// Told as a failure of the attempt.
    Failed(String),
}

impl From<postledger_projections::Error> for Unprepared {
    fn from(e: postledger_projections::Error) -> Unprepared {
        Unprepared::Failed(e.to_string())
    }
}

impl From<crate::ledger::Error> for Unprepared {
    fn from(e: crate::ledger::Error) -> Unprepared {
        Unprepared::Failed(e.to_string())
    }
}

/// What a test call came to.
#[derive(Clone, Debug)]
pub struct Tested {
    /// 0: there was no answer.
    pub status: u16,
    pub response: Option<String>,
    pub error: Option<String>,
    pub took: Duration,
}

/// Why there was no test call, or it could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum TestError {
    #[error("there is no endpoint {1} of account {0}")]
    NoEndpoint(AccountName, EndpointName),
    #[error("{0}")]
    Unprepared(String),
    #[error("{0}")]
    Submit(#[from] SubmitError),
}

impl Caller {
    pub fn new(ledger: Ledger, clock: Clock, settings: Settings) -> Caller {
        let (client, metrics) = (Client::new(settings), Metrics::default());
        Caller { ledger, clock, client, metrics, ledger_id: OnceLock::new(), large: Mutex::default() }
    }

    /// Makes a call. `None`: there was nothing to call any more.
    pub async fn call(self: Arc<Self>, account: AccountName, endpoint: EndpointName, call: CallRef) -> Option<Ended> {
        let caller = Arc::clone(&self);
        let of = (account.clone(), endpoint.clone());
        let prepared = tokio::task::spawn_blocking(move || caller.prepare(&of.0, &of.1, call)).await;
        let prepared = prepared.unwrap_or_else(|e| Err(Unprepared::Failed(e.to_string())));
        let made = match prepared {
            Ok(prepared) => self.make(prepared, &format!("{account}/{endpoint}")).await,
            Err(Unprepared::Nothing) => return None,
            Err(Unprepared::Forgotten) => return Some(self.not_made(call, CallReply::Forgotten, None)),
            Err(Unprepared::Failed(why)) => return Some(self.not_made(call, CallReply::Unanswered, Some(clip(&why)))),
        };
        Some(self.ended(call, made))
    }

    /// Calls an endpoint with an invented event, and records it.
    pub async fn test(&self, account: &AccountName, endpoint: &EndpointName, by: Author) -> Result<Tested, TestError> {
        let rows = self.ledger.snapshot();
        let unprepared = |why: &dyn std::fmt::Display| TestError::Unprepared(why.to_string());
        let found = calls::endpoint(&rows, account, endpoint).map_err(|e| unprepared(&e))?;
        let row = found.ok_or_else(|| TestError::NoEndpoint(account.clone(), endpoint.clone()))?;
        let ledger = self.ledger_id(&rows).map_err(|e| unprepared(&e))?;
        let call = CallRef { fact: Seq(0), place: 0 };
        let name = Name { ledger, account, endpoint, call };
        let told = Told::Test(row.settings.direction, self.clock.now());
        let body = payload::body(BODY_VERSION, row.settings.format, &name, told).map_err(|e| unprepared(&e))?;
        let contact = self.contact(&row.settings).map_err(|e| match e {
            Unprepared::Failed(why) => TestError::Unprepared(why),
            Unprepared::Nothing | Unprepared::Forgotten => TestError::NoEndpoint(account.clone(), endpoint.clone()),
        })?;
        let prepared = Prepared::new(Arc::new(contact), &name, body, 1);
        let made = self.make(prepared, &format!("{account}/{endpoint}")).await;
        let (started, took) = (made.started, made.took);
        let Ended { finished, response, error } = self.ended(call, made);
        let status = match finished.reply {
            CallReply::Answered { status, .. } => status,
            CallReply::Unanswered | CallReply::Forgotten => 0,
        };
        let texts =
            CallTexts { responses: response.iter().cloned().collect(), errors: error.iter().cloned().collect() };
        let command = RecordTestCall {
            account: account.clone(),
            endpoint: endpoint.clone(),
            started,
            took_us: finished.took_us,
            remote_addr: finished.remote_addr,
            status,
            texts,
            by,
        };
        self.ledger.submit(Command::RecordTestCall(Box::new(command))).await?;
        Ok(Tested { status, response, error, took })
    }

    fn prepare(&self, account: &AccountName, endpoint: &EndpointName, call: CallRef) -> Result<Prepared, Unprepared> {
        let rows = self.ledger.snapshot();
        let row = calls::endpoint(&rows, account, endpoint)?.ok_or(Unprepared::Nothing)?;
        let state = calls::state(&rows, account, endpoint)?;
        let branch = accounts::counters(&rows)?.branch;
        let waiting = calls::call(&rows, account, endpoint, call)?.filter(|call| call.may_go(branch));
        let waiting = waiting.filter(|_| calls::is_enabled(&row, &state)).ok_or(Unprepared::Nothing)?;
        let name = Name { ledger: self.ledger_id(&rows)?, account, endpoint, call };
        let contact = Arc::new(self.contact(&row.settings)?);
        let body = self.body_anew(&rows, row.settings.format, waiting.version, &name)?;
        Ok(Prepared::new(contact, &name, body, waiting.attempts + 1))
    }

    pub(super) fn ledger_id(&self, rows: &Snapshot) -> Result<LedgerId, crate::ledger::Error> {
        if let Some(id) = self.ledger_id.get() {
            return Ok(*id);
        }
        // No ledger is without its first record; a reader of ids would notice.
        let Some(created) = rows.created()? else { return Ok(LedgerId(uuid::Uuid::nil())) };
        Ok(*self.ledger_id.get_or_init(|| created.ledger))
    }

    /// The body of a call, from nothing but its name.
    pub(super) fn body_anew(
        &self,
        rows: &Snapshot,
        format: CallFormat,
        version: u16,
        name: &Name<'_>,
    ) -> Result<Body, Unprepared> {
        let fact = rows.record(name.call.fact)?.ok_or(Unprepared::Forgotten)?;
        let told = news::told(&fact.event);
        let of_place = |news: &&News<'_>| news.calls.iter().any(|call| call.place == name.call.place);
        let place = || Unprepared::Failed(payload::Error::Place.to_string());
        let source = told.iter().find(of_place).ok_or_else(place)?.source;
        self.body(rows, format, version, name, (&fact, source), &mut Submissions::default())
    }

    /// The body of the call about this fact, whose news come from there.
    pub(super) fn body(
        &self,
        rows: &Snapshot,
        format: CallFormat,
        version: u16,
        name: &Name<'_>,
        (fact, source): (&Record, Source),
        submissions: &mut Submissions,
    ) -> Result<Body, Unprepared> {
        let written = match source {
            Source::Received(received) => {
                let is_large = received.size > BODY_LARGE_BYTES;
                let _alone = is_large.then(|| self.large.lock().unwrap_or_else(PoisonError::into_inner));
                let raw = self.ledger.body(&received).map_err(|e| match e {
                    BodyError::Missing(_) => Unprepared::Forgotten,
                    BodyError::Size { .. } | BodyError::Store(_) => Unprepared::Failed(e.to_string()),
                })?;
                let contents = contents(&raw);
                payload::body(version, format, name, Told::Incoming { fact, contents: &contents })
            }
            Source::Submitted(message) => {
                let submitted = submissions.of(rows, message)?;
                payload::body(version, format, name, Told::Outgoing { fact, submitted })
            }
        };
        written.map_err(|e| Unprepared::Failed(e.to_string()))
    }

    pub(super) fn contact(&self, settings: &EndpointSettings) -> Result<Contact, Unprepared> {
        let target = Target::parse(&settings.url).map_err(|e| Unprepared::Failed(e.to_string()))?;
        let authorization = settings.authorization.as_ref().map(|secret| self.secret(secret.id)).transpose()?;
        let mut secrets = Vec::new();
        for secret in &settings.secrets {
            let text = self.secret(secret.id)?;
            secrets.push(Secret::parse(&text).map_err(|e| Unprepared::Failed(e.to_string()))?);
        }
        let (connect_timeout, timeout) = (settings.connect_timeout_s, settings.timeout_s);
        let [connect_timeout, timeout] = [connect_timeout, timeout].map(|s| Duration::from_secs(s.into()));
        Ok(Contact { target, connect_timeout, timeout, authorization, secrets })
    }

    fn secret(&self, id: SecretId) -> Result<Zeroizing<String>, Unprepared> {
        let missing = || Unprepared::Failed("a secret of the endpoint is not in the vault: set it again".to_owned());
        let bytes = self.ledger.secret(id)?.ok_or_else(missing)?;
        Ok(Zeroizing::new(std::str::from_utf8(&bytes).map_err(|_| missing())?.to_owned()))
    }

    pub(super) async fn make(&self, prepared: Prepared, pool: &str) -> Made {
        let contact = &prepared.contact;
        let started = self.clock.now();
        let mut headers = vec![
            ("user-agent", USER_AGENT.to_owned()),
            ("content-type", prepared.body.content_type.to_owned()),
            ("x-mox-webhook-id", prepared.number.to_string()),
            ("x-mox-webhook-attempt", prepared.attempt.to_string()),
            ("webhook-id", prepared.webhook_id.clone()),
            ("webhook-timestamp", started.as_secs().to_string()),
        ];
        if let Some(value) = &contact.authorization {
            headers.push(("authorization", value.to_string()));
        }
        if !contact.secrets.is_empty() {
            let value = signatures(&contact.secrets, &prepared.webhook_id, started, &prepared.body.bytes);
            headers.push(("webhook-signature", value));
        }
        let post = Post {
            pool,
            target: &contact.target,
            headers,
            body: Bytes::from(prepared.body.bytes),
            started,
            connect_timeout: contact.connect_timeout,
            timeout: contact.timeout,
        };
        let result = self.client.post(&post).await;
        let took = self.clock.now().since(started);
        self.metrics.count(result.as_ref().ok().map(|reply| reply.status), took);
        Made { started, took, result }
    }

    pub(super) fn ended(&self, call: CallRef, made: Made) -> Ended {
        let (reply, remote_addr, response, error) = match made.result {
            Ok(Reply { status, retry_after_s, excerpt, remote }) => {
                let response = Some(excerpt).filter(|text| !text.is_empty());
                (CallReply::Answered { status, retry_after_s }, Some(remote), response, None)
            }
            Err(Failure { error, remote }) => (CallReply::Unanswered, remote, None, Some(clip(&error.to_string()))),
        };
        let finished = self.finished(call, made.started, made.took, remote_addr, reply);
        Ended { finished, response, error }
    }

    pub(super) fn not_made(&self, call: CallRef, reply: CallReply, error: Option<String>) -> Ended {
        let finished = self.finished(call, self.clock.now(), Duration::ZERO, None, reply);
        Ended { finished, response: None, error }
    }

    /// Its texts get their places with its record.
    fn finished(
        &self,
        call: CallRef,
        started: Timestamp,
        took: Duration,
        remote_addr: Option<SocketAddr>,
        reply: CallReply,
    ) -> FinishedCall {
        FinishedCall {
            call,
            started,
            took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            remote_addr,
            reply,
            response: None,
            error: None,
            jitter_permille: self.clock.jitter_permille(),
        }
    }
}

/// The records of submissions, those that were asked for last: facts that follow each other are often about one message.
#[derive(Default)]
pub(super) struct Submissions(HashMap<MessageUuid, Record>);

impl Submissions {
    fn of(&mut self, rows: &Snapshot, message: MessageUuid) -> Result<&Record, Unprepared> {
        if self.0.len() >= SUBMISSIONS_MAX && !self.0.contains_key(&message) {
            self.0.clear();
        }
        match self.0.entry(message) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(submission(rows, message)?)),
        }
    }
}

fn submission(rows: &Snapshot, message: MessageUuid) -> Result<Record, Unprepared> {
    let first = timeline::of(rows, message, Seq(0), 1)?;
    let record = first.first().map(|seq| rows.record(*seq)).transpose()?.flatten();
    match (record, rows.as_of(Table::Timeline)) {
        (Some(record), _) => Ok(record),
        // The list is being made anew, and has not come to it yet.
        (None, Some(_)) => Err(Unprepared::Nothing),
        (None, None) => Err(Unprepared::Forgotten),
    }
}

pub(super) fn clip(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(ERROR_CHARS_MAX).collect()
}
