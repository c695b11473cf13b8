//! `queue`: deliveries that have not reached their end.

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use postledger_events::address::Domain;
use postledger_events::id::{AccountName, DeliveryId, MessageUuid};
use postledger_events::time::Timestamp;
use postledger_web::api::jobs::Started;
use postledger_web::api::queue::{Delivery, LastFailure};
use postledger_web::api::queue_act::{Act, Action};
use postledger_web::api::queue_redeliver::{self, Part, Wish};
use postledger_web::api::queue_walk;

use super::error::Error;
use super::out::{or_dash, second};
use super::query::Query;
use super::when::{Span, When};
use super::{Session, job};

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Queue {
    /// List what is queued, on hold or being tried; for what is finished see `queue show` and `events`
    List {
        #[command(flatten)]
        filter: Filter,
        #[arg(long)]
        state: Option<Standing>,
        /// At most so many
        #[arg(long, default_value_t = 1000, value_name = "N")]
        limit: usize,
    },
    /// Show one delivery, also a finished one as long as it is kept
    Show { id: DeliveryId },
    /// Keep deliveries from being tried until they are released
    Hold(Target),
    /// Let held deliveries go
    Release(Target),
    /// Set when deliveries are tried next
    Schedule {
        /// Due at this time, such as +1h, +0s or 2026-01-02T03:04:05Z
        #[arg(long, value_name = "WHEN", allow_hyphen_values = true, required_unless_present = "add")]
        at: Option<When>,
        /// Due so much later than before, such as 2h
        #[arg(long, value_name = "DURATION", conflicts_with = "at")]
        add: Option<Span>,
        #[command(flatten)]
        target: Target,
    },
    /// Withdraw deliveries; nothing more is tried
    Cancel(Target),
    /// Give deliveries up as failed
    Fail(Target),
    /// Send again what failed, was canceled or suppressed, as new messages with the same content
    Redeliver {
        #[command(flatten)]
        target: Target,
        /// How they ended, separated by commas [default: failed]; deliveries that are named may have ended in any of these ways
        #[arg(long, value_delimiter = ',')]
        state: Vec<Ended>,
        /// Asked again with the same key within a day, nothing is sent twice
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
}

const EXAMPLES: &str = "\
Examples:
  postledger queue list --account shop --due-before +1h
  postledger queue show 17
  postledger queue hold --domain example.net
  postledger queue release --held true --all
  postledger queue release --restored --account shop  after a restore: send what may have been sent already
  postledger queue schedule 17 18 --at +0s            try again now
  postledger queue cancel --submitted-before -2d --sender-domain example.org
  postledger queue fail 17                            its sender gets a DSN
  postledger queue redeliver 17 18
  postledger queue redeliver --account shop --domain example.net --submitted-after -1d --idempotency-key outage-7

Conditions are joined: a delivery must agree with each of them. Times are RFC 3339, or -1h for an hour ago and +30m
for in half an hour. Numbers are done at once; other conditions become a job, which `postledger job` shows.";

/// Why a delivery is on hold that may have been sent on the other branch.
const RESTORED: &str = "in doubt: the ledger was restored";

/// Which deliveries are meant.
#[derive(Debug, Args)]
pub struct Filter {
    /// Numbers of deliveries
    ids: Vec<DeliveryId>,
    /// All recipients of this message
    #[arg(long, value_name = "UUID")]
    message: Option<MessageUuid>,
    #[arg(long)]
    account: Option<AccountName>,
    /// A part of the sender's address
    #[arg(long, value_name = "TEXT")]
    from: Option<String>,
    /// A part of the recipient's address
    #[arg(long, value_name = "TEXT")]
    to: Option<String>,
    /// Domain of the recipient
    #[arg(long)]
    domain: Option<Domain>,
    /// Domain of the sender
    #[arg(long, value_name = "DOMAIN")]
    sender_domain: Option<Domain>,
    #[arg(long, value_name = "true|false")]
    held: Option<bool>,
    /// On hold since the ledger was restored: nobody knows whether they were sent
    #[arg(long)]
    restored: bool,
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    submitted_before: Option<When>,
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    submitted_after: Option<When>,
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    due_before: Option<When>,
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    due_after: Option<When>,
}

/// Which deliveries are changed.
#[derive(Debug, Args)]
pub struct Target {
    #[command(flatten)]
    filter: Filter,
    /// The whole queue, if there is no condition
    #[arg(long)]
    all: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Standing {
    Queued,
    Held,
    Running,
}

impl Standing {
    fn word(self) -> &'static str {
        match self {
            Standing::Queued => "queued",
            Standing::Held => "held",
            Standing::Running => "running",
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Ended {
    Failed,
    Canceled,
    Suppressed,
}

impl From<Ended> for queue_redeliver::Ended {
    fn from(ended: Ended) -> queue_redeliver::Ended {
        match ended {
            Ended::Failed => queue_redeliver::Ended::Failed,
            Ended::Canceled => queue_redeliver::Ended::Canceled,
            Ended::Suppressed => queue_redeliver::Ended::Suppressed,
        }
    }
}

impl Filter {
    fn resolve(self, now: Timestamp) -> queue_walk::Filter {
        let at = |when: Option<When>| when.map(|when| when.resolve(now));
        queue_walk::Filter {
            ids: self.ids,
            message: self.message,
            account: self.account,
            from: self.from,
            to: self.to,
            domain: self.domain,
            sender_domain: self.sender_domain,
            held: self.held,
            restored: self.restored.then_some(true),
            submitted_before: at(self.submitted_before),
            submitted_after: at(self.submitted_after),
            due_before: at(self.due_before),
            due_after: at(self.due_after),
        }
    }
}

impl Queue {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Queue::List { filter, state, limit } => list(session, filter, state, limit).await,
            Queue::Show { id } => show(session, id).await,
            Queue::Hold(target) => act(session, Action::Hold, target).await,
            Queue::Release(target) => act(session, Action::Release, target).await,
            Queue::Cancel(target) => act(session, Action::Cancel, target).await,
            Queue::Fail(target) => act(session, Action::Fail, target).await,
            Queue::Redeliver { target, state, idempotency_key } => {
                redeliver(session, target, state, idempotency_key.as_deref()).await
            }
            Queue::Schedule { at, add, target } => {
                let action = schedule(session, at, add)?;
                act(session, action, target).await
            }
        }
    }
}

fn schedule(session: &Session, at: Option<When>, add: Option<Span>) -> Result<Action, Error> {
    match (at, add) {
        (Some(at), _) => Ok(Action::ScheduleAt(at.resolve(session.now))),
        (None, Some(Span(add))) => u32::try_from(add.as_secs())
            .map(Action::ScheduleAdd)
            .map_err(|_| Error::Usage("--add is too long".to_owned())),
        (None, None) => Err(Error::Usage("say when: --at WHEN or --add DURATION".to_owned())),
    }
}

async fn act(session: &mut Session, action: Action, target: Target) -> Result<(), Error> {
    let filter = target.filter.resolve(session.now);
    if filter == queue_walk::Filter::default() && !target.all {
        return Err(Error::Usage("this means the whole queue: name deliveries or conditions, or say --all".to_owned()));
    }
    let act = Act { action, filter, all: target.all };
    let started: Started = session.client.send(Method::POST, Query::path(&["queue"]), &act).await?;
    job::started(session, started)
}

/// Sends again part by part, and tells of each delivery.
async fn redeliver(session: &mut Session, target: Target, states: Vec<Ended>, key: Option<&str>) -> Result<(), Error> {
    let filter = target.filter.resolve(session.now);
    if filter == queue_walk::Filter::default() && !target.all {
        let why = "this means all that did not arrive: name deliveries or conditions, or say --all";
        return Err(Error::Usage(why.to_owned()));
    }
    let states = states.into_iter().map(Into::into).collect();
    let mut wish = Wish { filter, states, all: target.all, cursor: None };
    let (mut made, mut refused) = (Vec::new(), Vec::new());
    loop {
        let part: Part =
            session.client.send_keyed(Method::POST, Query::path(&["queue", "redeliver"]), &wish, key).await?;
        made.extend(part.made);
        refused.extend(part.refused);
        wish.cursor = part.next;
        if wish.cursor.is_none() {
            break;
        }
    }
    if let ([], [first, rest @ ..]) = (made.as_slice(), refused.as_slice()) {
        let more = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
        return Err(Error::Failed(format!("nothing was sent again: {}{more}", first.detail)));
    }
    if session.out.json {
        return session.out.document(&Part { made, refused, next: None });
    }
    let sent = made.iter().map(|made| (made.origin, made.delivery.to_string(), made.message.to_string()));
    let not = refused.iter().map(|refused| (refused.origin, "-".to_owned(), refused.detail.clone()));
    let all: Vec<(DeliveryId, String, String)> = sent.chain(not).collect();
    session.out.list(&all, ["DELIVERY", "AGAIN AS", "MESSAGE, OR WHY NOT"], |(origin, again, message)| {
        [origin.to_string(), again.clone(), message.clone()]
    })
}

async fn list(session: &mut Session, filter: Filter, state: Option<Standing>, limit: usize) -> Result<(), Error> {
    let f = filter.resolve(session.now);
    let ids: Vec<String> = f.ids.iter().map(ToString::to_string).collect();
    let query = Query::path(&["queue"])
        .with("ids", (!ids.is_empty()).then(|| ids.join(",")))
        .with("message", f.message)
        .with("account", f.account)
        .with("from", f.from)
        .with("to", f.to)
        .with("domain", f.domain)
        .with("sender_domain", f.sender_domain)
        .with("held", f.held)
        .with("restored", f.restored)
        .with("submitted_before", f.submitted_before)
        .with("submitted_after", f.submitted_after)
        .with("due_before", f.due_before)
        .with("due_after", f.due_after)
        .with("state", state.map(Standing::word));
    let all: Vec<Delivery> = session.client.list(query, limit).await?;
    session.out.list(&all, ["ID", "STATE", "DUE", "TRIED", "ACCOUNT", "TO", "LAST"], |d| {
        let last = match d.restored {
            true => RESTORED.to_owned(),
            false => or_dash(d.last_problem.as_ref().map(problem)),
        };
        let (id, due, tried) = (d.id.to_string(), second(d.due), d.attempts.to_string());
        [id, d.state.clone(), due, tried, d.account.to_string(), or_dash(d.recipient.as_ref()), last]
    })
}

async fn show(session: &mut Session, id: DeliveryId) -> Result<(), Error> {
    let d: Delivery = session.client.get(Query::path(&["queue", &id.to_string()])).await?;
    session.out.one(
        &d,
        [
            ("Delivery", d.id.to_string()),
            ("Message", d.message.to_string()),
            ("Account", d.account.to_string()),
            ("State", state(&d)),
            ("From", or_dash(d.from.as_ref())),
            ("To", or_dash(d.recipient.as_ref())),
            ("Subject", or_dash(d.subject.as_ref())),
            ("Message-ID", or_dash(d.message_id.as_ref())),
            ("Size", d.size.to_string()),
            ("Fromid", or_dash(d.fromid.as_ref())),
            ("Attempts", format!("{}, of these in doubt: {}", d.attempts, d.in_doubt)),
            ("Last problem", or_dash(d.last_problem.as_ref().map(problem))),
            ("Submitted", second(d.submitted)),
            ("Due", second(d.due)),
            ("Last activity", second(d.last_activity)),
            ("Kept until", or_dash(d.keep_until.map(second))),
        ],
    )
}

fn state(d: &Delivery) -> String {
    if d.restored {
        return format!("{}, {RESTORED}", d.state);
    }
    match (d.hold_rule, d.failure) {
        (Some(rule), _) => format!("{} by rule {rule}", d.state),
        (None, Some(why)) => format!("{} ({why:?})", d.state).to_lowercase(),
        (None, None) => d.state.clone(),
    }
}

fn problem(last: &LastFailure) -> String {
    match (&last.text, last.code) {
        (Some(text), _) => text.clone(),
        (None, 0) => "-".to_owned(),
        (None, code) => code.to_string(),
    }
}
