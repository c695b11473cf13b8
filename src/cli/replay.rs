//! `replay`: telling an endpoint of a part of history again, or for the first time.

use std::io::IsTerminal;
use std::time::Duration;

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use postledger_events::id::{AccountName, EndpointName, ReplayId};
use postledger_events::time::Timestamp;
use postledger_web::api::place::Place as At;
use postledger_web::api::replays::{self, Begun, New, Standing, Trouble};
use serde_json::json;

use super::Session;
use super::client::Client;
use super::error::Error;
use super::out::{or_dash, second};
use super::query::Query;
use super::webhook::{Happening, word};
use super::when::Place;

/// Between two looks at how far it has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tell an endpoint of a part of history: the same calls, ids and order as at first
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(arg_required_else_help = true)]
pub struct Replay {
    #[command(flatten)]
    start: Option<Start>,
    #[command(subcommand)]
    act: Option<Act>,
}

#[derive(Debug, Args)]
pub struct Start {
    #[arg(long)]
    account: AccountName,
    #[arg(long)]
    endpoint: EndpointName,
    /// The first record to tell of, or when it was written
    #[arg(long, value_name = "SEQ|WHEN", allow_hyphen_values = true)]
    from: Place,
    /// The last record, or when it was written [default: the last there is]
    #[arg(long, value_name = "SEQ|WHEN", allow_hyphen_values = true)]
    to: Option<Place>,
    /// Only calls that failed, or were canceled
    #[arg(long)]
    only: Option<Only>,
    /// Of what the endpoint is told of, only these, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "EVENTS")]
    kinds: Vec<Happening>,
    /// Calls in a second [default: as fast as it goes]
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Only {
    Failed,
}

#[derive(Debug, Subcommand)]
pub enum Act {
    /// List replays, newest first
    List {
        account: Option<AccountName>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Show how far a replay has come
    Show { replay: ReplayId },
    /// Let a replay wait where it is
    Stop { replay: ReplayId },
    /// Let a replay go on where it was stopped
    Resume { replay: ReplayId },
    /// End a replay
    Cancel { replay: ReplayId },
}

const EXAMPLES: &str = "\
Examples:
  postledger replay --account shop --endpoint crm --from 1              a new endpoint hears all that ever was
  postledger replay --account shop --endpoint crm --from -2d --only failed
  postledger replay --account shop --endpoint crm --from 120000 --to 130000 --kinds delivered,failed --rate 50
  postledger replay list shop
  postledger replay show 120311
  postledger replay stop 120311
  postledger replay resume 120311
  postledger replay cancel 120311

The server does it; this command shows how far it is, and can be left with Ctrl-C.";

impl Replay {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match (self.act, self.start) {
            (Some(Act::List { account, limit }), _) => list(session, account, limit).await,
            (Some(Act::Show { replay }), _) => {
                let shown = session.client.get(path(replay, None)).await?;
                show(session, &shown)
            }
            (Some(Act::Stop { replay }), _) => change(session, replay, "stop", "stopped").await,
            (Some(Act::Resume { replay }), _) => change(session, replay, "resume", "resumed").await,
            (Some(Act::Cancel { replay }), _) => change(session, replay, "cancel", "canceled").await,
            (None, Some(start)) => start.run(session).await,
            (None, None) => {
                Err(Error::Usage("say what to tell, and to whom; see `postledger replay --help`".to_owned()))
            }
        }
    }
}

fn path(replay: ReplayId, action: Option<&str>) -> Query {
    let replay = replay.to_string();
    let parts: Vec<&str> = ["replays", &replay].into_iter().chain(action).collect();
    Query::path(&parts)
}

async fn change(session: &mut Session, replay: ReplayId, action: &str, said: &str) -> Result<(), Error> {
    session.client.tell(Method::POST, path(replay, Some(action)), &json!({})).await?;
    session.out.said(format!("{said} replay {replay}"))
}

impl Start {
    async fn run(self, session: &mut Session) -> Result<(), Error> {
        let now = session.now;
        let new = New {
            from: at(self.from, now),
            to: self.to.map(|to| at(to, now)),
            only_failed: self.only.is_some(),
            kinds: self.kinds.into_iter().map(Into::into).collect(),
            calls_per_second_max: self.rate,
        };
        let path = Query::path(&["endpoints", self.account.as_str(), self.endpoint.as_str(), "replays"]);
        let begun: Begun = session.client.send(Method::POST, path, &new).await?;
        if matches!(session.client, Client::Embedded(..)) {
            return session.out.done(&begun, format!("replay {} begins when the server runs", begun.replay));
        }
        tokio::select! {
            ended = follow(session, begun.replay) => ended,
            _ = tokio::signal::ctrl_c() => {
                let id = begun.replay;
                session.out.done(&begun, format!("replay {id} goes on; `postledger replay stop {id}` stops it"))
            }
        }
    }
}

fn at(place: Place, now: Timestamp) -> At {
    match place {
        Place::Record(seq) => At::Record(seq),
        Place::Time(when) => At::Time(when.resolve(now)),
    }
}

/// Shows how far it is, until it goes on no more.
async fn follow(session: &mut Session, replay: ReplayId) -> Result<(), Error> {
    let mut told = String::new();
    loop {
        let r: replays::Replay = session.client.get(path(replay, None)).await?;
        match r.state {
            Standing::Running => {}
            Standing::Done => return show(session, &r),
            Standing::Stopped | Standing::Canceled | Standing::EndpointRemoved => {
                return Err(Error::Failed(not_done(&r)));
            }
        }
        let line = progress(&r);
        // Only for a person who waits.
        if line != told && std::io::stderr().is_terminal() {
            eprintln!("{line}");
        }
        told = line;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn not_done(r: &replays::Replay) -> String {
    let id = r.replay;
    match (r.state, &r.error) {
        (Standing::Stopped, None) => format!("replay {id} was stopped; `postledger replay resume {id}` goes on"),
        (Standing::Stopped, Some(why)) => {
            format!("replay {id} was stopped: {why}. Then `postledger replay resume {id}` goes on")
        }
        (Standing::EndpointRemoved, _) => format!("replay {id} is over, since its endpoint was removed"),
        (Standing::Running | Standing::Done | Standing::Canceled, _) => format!("replay {id} was canceled"),
    }
}

fn progress(r: &replays::Replay) -> String {
    let mut line = format!("replay {}: record {} of {} to {}", r.replay, r.cursor, r.from, r.to);
    line += &format!(" ({}), {} calls arrived", share(r), r.delivered);
    if let Some(trouble) = &r.trouble {
        line += &format!("; {}", held_up(trouble));
    }
    line
}

fn share(r: &replays::Replay) -> String {
    format!("{} %", r.records_done.saturating_mul(100) / r.records.max(1))
}

fn held_up(trouble: &Trouble) -> String {
    let last = &trouble.last;
    let why = match (&last.error, last.status) {
        (Some(error), _) => error.clone(),
        (None, 0) => "no answer".to_owned(),
        (None, status) => format!("status {status}"),
    };
    let Trouble { fact, place, next, .. } = trouble;
    format!("held up by call {fact}/{place}, attempt {}: {why}; next at {}", last.attempt, second(*next))
}

fn show(session: &mut Session, r: &replays::Replay) -> Result<(), Error> {
    let kinds: Vec<String> = r.kinds.iter().map(word).collect();
    session.out.one(
        r,
        [
            ("Replay", r.replay.to_string()),
            ("Endpoint", format!("{} of account {}", r.endpoint, r.account)),
            ("Records", format!("{} to {}", r.from, r.to)),
            ("Only", if r.only_failed { "calls that failed or were canceled" } else { "-" }.to_owned()),
            ("Kinds", or_dash(Some(kinds.join(",")).filter(|kinds| !kinds.is_empty()))),
            ("Rate", or_dash(r.calls_per_second_max)),
            ("State", r.error.as_ref().map_or(word(&r.state), |why| format!("{}: {why}", word(&r.state)))),
            ("Done", format!("{}, up to record {}", share(r), r.cursor)),
            ("Calls", format!("{} arrived, {} were about what is forgotten", r.delivered, r.forgotten)),
            ("Failures", r.failed.to_string()),
            ("Trouble", or_dash(r.trouble.as_ref().map(held_up))),
            ("Started", format!("{} by {}", second(r.started), r.by)),
            ("Last activity", second(r.last_activity)),
        ],
    )
}

async fn list(session: &mut Session, account: Option<AccountName>, limit: usize) -> Result<(), Error> {
    let all: Vec<replays::Replay> =
        session.client.list(Query::path(&["replays"]).with("account", account), limit).await?;
    let header = ["REPLAY", "ACCOUNT", "ENDPOINT", "RECORDS", "STATE", "DONE", "ARRIVED", "FAILURES", "STARTED"];
    session.out.list(&all, header, |r| {
        [
            r.replay.to_string(),
            r.account.to_string(),
            r.endpoint.to_string(),
            format!("{} to {}", r.from, r.to),
            word(&r.state),
            share(r),
            r.delivered.to_string(),
            r.failed.to_string(),
            second(r.started),
        ]
    })
}
