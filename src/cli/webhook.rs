//! `webhook`: programs that are told what happens to an account's mail, and the calls that tell them.

use std::path::PathBuf;

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use postledger_events::fact::call::CallRef;
use postledger_events::fact::endpoint::{CallFormat, Direction, OutgoingEvent, Superseding};
use postledger_events::fact::job::{CallAction, CallFilter, CallPhase};
use postledger_events::id::{AccountName, EndpointName, Fingerprint, Seq};
use postledger_events::time::Timestamp;
use postledger_web::api::calls::{Act, Call};
use postledger_web::api::endpoints::{Endpoint, Saved, Settings};
use postledger_web::api::jobs::Started;
use postledger_web::port::TestCall;
use serde_json::json;

use super::error::Error;
use super::out::{or_dash, second, yes_no};
use super::query::Query;
use super::when::{Span, When};
use super::{Session, job};

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Webhook {
    /// List endpoints and how they do
    List { account: Option<AccountName> },
    /// Add an endpoint, or change what is given; a new one gets a secret, which is shown this once
    Set(Box<Set>),
    /// Cancel what an endpoint has not been told of, and forget it
    Remove { account: AccountName, endpoint: EndpointName },
    /// Call an endpoint with an invented event, and show what it answers
    Test { account: AccountName, endpoint: EndpointName },
    /// List the calls of an endpoint, newest first
    Calls {
        account: AccountName,
        endpoint: EndpointName,
        #[arg(long)]
        phase: Option<Phase>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Make calls due at once, with all attempts before them: also those that failed, were canceled or are on hold
    Retry(Target),
    /// Do not make calls that wait
    Cancel(Target),
}

const EXAMPLES: &str = "\
Examples:
  postledger webhook list shop
  postledger webhook set shop crm --direction outgoing --url https://crm.example.org/mail --event failed,suppressed
  postledger webhook set shop crm --new-secret             a second secret signs as well; replace the old one, then
  postledger webhook set shop crm --remove-secret 1f2e3d4c5b6a7988
  postledger webhook test shop crm
  postledger webhook calls shop crm --phase failed
  postledger webhook retry shop crm 4711/0
  postledger webhook retry shop crm --phase failed --queued-after -1d
  postledger webhook cancel shop crm --phase waiting
  postledger webhook remove shop crm";

#[derive(Debug, Args)]
pub struct Set {
    account: AccountName,
    endpoint: EndpointName,
    /// What it is told of; cannot be changed
    #[arg(long)]
    direction: Option<Way>,
    #[arg(long)]
    url: Option<String>,
    #[arg(long)]
    format: Option<Format>,
    /// Only these, separated by commas
    #[arg(long = "event", value_delimiter = ',', value_name = "EVENT")]
    events: Option<Vec<Happening>>,
    /// Read the value of the Authorization header from the first line of FILE; an empty file takes it away
    #[arg(long, value_name = "FILE")]
    authorization_file: Option<PathBuf>,
    /// Sign with a new secret as well
    #[arg(long)]
    new_secret: bool,
    /// Sign with the secret in the first line of FILE as well
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Sign no more with the secret of this fingerprint
    #[arg(long, value_name = "FINGERPRINT")]
    remove_secret: Vec<Fingerprint>,
    /// `latest`: a later call takes the place of one that waits about the same delivery
    #[arg(long)]
    superseding: Option<Which>,
    /// Calls at once
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// Calls in a second; 0: as fast as it goes
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Waits after each failed attempt, such as 1m,2m,1h
    #[arg(long, value_delimiter = ',', value_name = "DURATION")]
    retry: Option<Vec<Span>>,
    /// For name lookup, connection and TLS
    #[arg(long, value_name = "DURATION")]
    connect_timeout: Option<Span>,
    /// For all of a call
    #[arg(long, value_name = "DURATION")]
    timeout: Option<Span>,
    /// How long calls are listed after their end
    #[arg(long, value_name = "DURATION")]
    keep: Option<Span>,
    /// Call nothing until it is set to false; what happens meanwhile is queued. False also enables one that was disabled because it
    /// answered 410 or failed for five days
    #[arg(long, value_name = "true|false")]
    disabled: Option<bool>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Way {
    /// What becomes of messages that the account sends
    Outgoing,
    /// Messages that it receives
    Incoming,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    Mox,
    Cloudevents,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Happening {
    Delivered,
    Delayed,
    Failed,
    Suppressed,
    Canceled,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Which {
    All,
    Latest,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Phase {
    Waiting,
    Held,
    Delivered,
    Failed,
    Canceled,
}

impl From<Phase> for CallPhase {
    fn from(phase: Phase) -> CallPhase {
        match phase {
            Phase::Waiting => CallPhase::Waiting,
            Phase::Held => CallPhase::Held,
            Phase::Delivered => CallPhase::Delivered,
            Phase::Failed => CallPhase::Failed,
            Phase::Canceled => CallPhase::Canceled,
        }
    }
}

impl From<Happening> for OutgoingEvent {
    fn from(event: Happening) -> OutgoingEvent {
        match event {
            Happening::Delivered => OutgoingEvent::Delivered,
            Happening::Delayed => OutgoingEvent::Delayed,
            Happening::Failed => OutgoingEvent::Failed,
            Happening::Suppressed => OutgoingEvent::Suppressed,
            Happening::Canceled => OutgoingEvent::Canceled,
        }
    }
}

/// Which calls are changed.
#[derive(Debug, Args)]
pub struct Target {
    account: AccountName,
    endpoint: EndpointName,
    /// Calls by fact and place, such as 4711/0
    #[arg(value_parser = parse_call)]
    calls: Vec<CallRef>,
    #[arg(long, value_delimiter = ',')]
    phase: Vec<Phase>,
    /// About this fact or a later one
    #[arg(long, value_name = "SEQ")]
    from: Option<Seq>,
    /// About this fact or an earlier one
    #[arg(long, value_name = "SEQ")]
    to: Option<Seq>,
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    queued_before: Option<When>,
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    queued_after: Option<When>,
    /// All calls of the endpoint, if there is no condition
    #[arg(long)]
    all: bool,
}

fn parse_call(text: &str) -> Result<CallRef, String> {
    let (fact, place) = text.split_once('/').unwrap_or((text, "0"));
    let parsed = fact.parse().ok().zip(place.parse().ok());
    let (fact, place) = parsed.ok_or_else(|| format!("{text:?} is not a call such as 4711/0"))?;
    Ok(CallRef { fact: Seq(fact), place })
}

impl Webhook {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Webhook::List { account } => list(session, account).await,
            Webhook::Set(set) => set.run(session).await,
            Webhook::Remove { account, endpoint } => {
                let started = session.client.send(Method::DELETE, path(&account, &endpoint, &[]), &json!({})).await?;
                job::started(session, started)
            }
            Webhook::Test { account, endpoint } => test(session, &account, &endpoint).await,
            Webhook::Calls { account, endpoint, phase, limit } => {
                let phase = phase.and_then(|phase| phase.to_possible_value()).map(|value| value.get_name().to_owned());
                calls(session, path(&account, &endpoint, &["calls"]).with("phase", phase), limit).await
            }
            Webhook::Retry(target) => target.act(session, CallAction::Retry).await,
            Webhook::Cancel(target) => target.act(session, CallAction::Cancel).await,
        }
    }
}

fn path(account: &AccountName, endpoint: &EndpointName, rest: &[&str]) -> Query {
    Query::path(&[&["endpoints", account.as_str(), endpoint.as_str()], rest].concat())
}

fn seconds(span: Option<Span>) -> Option<u32> {
    span.map(|span| u32::try_from(span.0.as_secs()).unwrap_or(u32::MAX))
}

impl Set {
    async fn run(self, session: &mut Session) -> Result<(), Error> {
        let first_line = |path: PathBuf| {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::File(path, e))?;
            Ok::<_, Error>(text.lines().next().unwrap_or_default().to_owned())
        };
        let settings = Settings {
            direction: self.direction.map(|way| match way {
                Way::Outgoing => Direction::Outgoing,
                Way::Incoming => Direction::Incoming,
            }),
            url: self.url,
            format: self.format.map(|format| match format {
                Format::Mox => CallFormat::Mox,
                Format::Cloudevents => CallFormat::CloudEvents,
            }),
            events: self.events.map(|events| events.into_iter().map(Into::into).collect()),
            authorization: self.authorization_file.map(first_line).transpose()?,
            new_secret: self.new_secret,
            secrets: self.secret_file.map(first_line).transpose()?.into_iter().collect(),
            remove_secrets: self.remove_secret,
            superseding: self.superseding.map(|which| match which {
                Which::All => Superseding::All,
                Which::Latest => Superseding::Latest,
            }),
            concurrency_max: self.concurrency,
            calls_per_second_max: self.rate,
            retry_waits_s: self.retry.map(|waits| waits.into_iter().filter_map(|wait| seconds(Some(wait))).collect()),
            connect_timeout_s: seconds(self.connect_timeout),
            timeout_s: seconds(self.timeout),
            keep_s: self.keep.map(|span| span.0.as_secs()),
            disabled: self.disabled,
        };
        let saved: Saved =
            session.client.send(Method::PUT, path(&self.account, &self.endpoint, &[]), &settings).await?;
        let said = match &saved.secret {
            None => format!("set {}", self.endpoint),
            Some(secret) => {
                format!("set {}; it signs with this secret, which is not shown again: {secret}", self.endpoint)
            }
        };
        session.out.done(&saved, said)
    }
}

async fn list(session: &mut Session, account: Option<AccountName>) -> Result<(), Error> {
    let query = Query::path(&["endpoints"]).with("account", account);
    let all: Vec<Endpoint> = session.client.list(query, usize::MAX).await?;
    let header = ["ACCOUNT", "ENDPOINT", "DIRECTION", "URL", "STATE", "FAILURES", "AUTHORIZATION", "SECRETS"];
    session.out.list(&all, header, |e| {
        let secrets: Vec<String> = e.secrets.iter().map(ToString::to_string).collect();
        [
            e.account.to_string(),
            e.endpoint.to_string(),
            word(&e.direction),
            e.url.clone(),
            word(&e.state),
            e.failures.to_string(),
            yes_no(e.authorization),
            or_dash(Some(secrets.join(",")).filter(|s| !s.is_empty())),
        ]
    })
}

/// As the API writes it.
pub fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

async fn test(session: &mut Session, account: &AccountName, endpoint: &EndpointName) -> Result<(), Error> {
    let tested: TestCall = session.client.send(Method::POST, path(account, endpoint, &["test"]), &json!({})).await?;
    let fields = [
        ("status", if tested.status == 0 { "no answer".to_owned() } else { tested.status.to_string() }),
        ("took", format!("{:.1} ms", tested.took_us as f64 / 1000.0)),
        ("answer", or_dash(tested.response.clone())),
        ("error", or_dash(tested.error.clone())),
    ];
    session.out.one(&tested, fields)
}

async fn calls(session: &mut Session, query: Query, limit: usize) -> Result<(), Error> {
    let all: Vec<Call> = session.client.list(query, limit).await?;
    let header = ["CALL", "EVENT", "ABOUT", "QUEUED", "PHASE", "DUE", "ATTEMPTS", "STATUS", "LAST"];
    session.out.list(&all, header, |c| {
        let last = c.last.as_ref();
        [
            format!("{}/{}", c.fact, c.place),
            c.event.as_ref().map_or("incoming".to_owned(), word),
            c.delivery.map(|id| id.to_string()).or(c.msg_id.map(|id| id.to_string())).unwrap_or_default(),
            second(c.queued),
            word(&c.phase),
            or_dash(c.due.map(second)),
            c.attempts.to_string(),
            or_dash(last.map(|last| last.status)),
            or_dash(last.and_then(|last: &postledger_projections::calls::LastAttempt| {
                last.error.clone().or(last.response.clone())
            })),
        ]
    })
}

impl Target {
    async fn act(self, session: &mut Session, action: CallAction) -> Result<(), Error> {
        let has_condition = !self.calls.is_empty()
            || !self.phase.is_empty()
            || self.from.is_some()
            || self.to.is_some()
            || self.queued_before.is_some()
            || self.queued_after.is_some();
        if !has_condition && !self.all {
            return Err(Error::Usage("say which calls, by conditions or with --all".to_owned()));
        }
        let now: Timestamp = session.now;
        let filter = CallFilter {
            account: Some(self.account),
            endpoint: Some(self.endpoint),
            calls: self.calls,
            phases: self.phase.into_iter().map(Into::into).collect(),
            from: self.from,
            to: self.to,
            queued_before: self.queued_before.map(|when| when.resolve(now)),
            queued_after: self.queued_after.map(|when| when.resolve(now)),
        };
        let act = Act { action, filter, all: self.all };
        let started: Started = session.client.send(Method::POST, Query::path(&["calls"]), &act).await?;
        job::started(session, started)
    }
}
