//! `account`: who sends and receives, and within which limits.

use std::str::FromStr;

use axum::http::Method;
use clap::{Args, Subcommand, ValueEnum};
use postledger_events::address;
use postledger_events::fact::account::{Destination, Fold};
use postledger_events::id::AccountName;
use postledger_web::api::accounts::{self, Change, New};
use postledger_web::api::addresses::Given;
use postledger_web::api::jobs::Started;

use super::client::parse;
use super::error::Error;
use super::out::{or_dash, second, yes_no};
use super::query::Query;
use super::when::Span;
use super::{Session, job};

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Account {
    /// List all accounts
    List,
    /// Show one account
    Show { account: AccountName },
    /// Create an account
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        account: AccountName,
        /// An address of the account, or @DOMAIN for all others of a domain; may be given several times
        #[arg(long, value_name = "ADDRESS")]
        address: Vec<Destination>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change settings of an account; what is not named stays as it is
    #[command(after_help = SET_EXAMPLES)]
    Set {
        account: AccountName,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove an account: its queue fails, and its lists and mailboxes are forgotten
    Remove { account: AccountName },
}

const EXAMPLES: &str = "\
Examples:
  postledger account list
  postledger account show shop
  postledger account remove shop    its queue and history go with it";

const ADD_EXAMPLES: &str = "\
Examples:
  postledger account add shop --full-name \"The Shop\" --address shop@example.org
  postledger login password shop        then let it log in";

const SET_EXAMPLES: &str = "\
Examples:
  postledger account set shop --messages-per-day unlimited --keep 90d
  postledger account set shop --retry 5m,30m,2h,1d
  postledger account set shop --retry default --quota 1000000000";

#[derive(Debug, Args)]
pub struct Settings {
    /// The name in the From of messages that give none
    #[arg(long, value_name = "NAME")]
    full_name: Option<String>,
    /// How long finished deliveries are kept, such as 30d; 0s: not at all
    #[arg(long, value_name = "DURATION")]
    keep: Option<Span>,
    /// Whether contents are kept as long
    #[arg(long, value_name = "true|false")]
    keep_contents: Option<bool>,
    /// Recipients in 24 hours
    #[arg(long, value_name = "N|unlimited")]
    messages_per_day: Option<Limit<u32>>,
    /// Recipients in 24 hours that it never sent to before
    #[arg(long, value_name = "N|unlimited")]
    first_time_recipients_per_day: Option<Limit<u32>>,
    /// Bytes in all mailboxes
    #[arg(long, value_name = "BYTES|unlimited")]
    quota: Option<Limit<u64>>,
    /// Which addresses count as one for suppression
    #[arg(long)]
    fold: Option<Folding>,
    /// Waits between attempts, such as 5m,30m,2h; `default` is the server's own
    #[arg(long, value_name = "WAITS|default")]
    retry: Option<Retry>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Folding {
    /// What differs only behind a `+` is one
    Plus,
    /// Also what differs only behind a `-` or by dots
    Mox,
}

/// A limit or none.
#[derive(Clone, Copy, Debug)]
struct Limit<T>(Option<T>);

impl<T: FromStr> FromStr for Limit<T> {
    type Err = String;
    fn from_str(s: &str) -> Result<Limit<T>, String> {
        match s {
            "unlimited" => Ok(Limit(None)),
            _ => s.parse().map(|n| Limit(Some(n))).map_err(|_| format!("{s:?} is neither a number nor `unlimited`")),
        }
    }
}

/// A schedule of its own or the server's.
#[derive(Clone, Debug)]
struct Retry(Option<Vec<u32>>);

impl FromStr for Retry {
    type Err = String;
    fn from_str(s: &str) -> Result<Retry, String> {
        if s == "default" {
            return Ok(Retry(None));
        }
        let seconds = |wait: &str| -> Result<u32, String> {
            u32::try_from(wait.parse::<Span>()?.0.as_secs()).map_err(|_| format!("{wait:?} is too long"))
        };
        s.split(',').map(seconds).collect::<Result<_, _>>().map(|waits| Retry(Some(waits)))
    }
}

impl From<Settings> for Change {
    fn from(s: Settings) -> Change {
        Change {
            full_name: s.full_name,
            keep_s: s.keep.map(|Span(keep)| keep.as_secs()),
            keep_contents: s.keep_contents,
            messages_per_day_max: s.messages_per_day.map(|limit| limit.0),
            first_time_recipients_per_day_max: s.first_time_recipients_per_day.map(|limit| limit.0),
            quota_bytes: s.quota.map(|limit| limit.0),
            fold: s.fold.map(|fold| match fold {
                Folding::Plus => Fold::Plus,
                Folding::Mox => Fold::Mox,
            }),
            retry_waits_s: s.retry.map(|retry| retry.0),
            ..Change::default()
        }
    }
}

impl Account {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Account::List => list(session).await,
            Account::Show { account } => {
                let found = find(session, &account).await?;
                show(session, &found)
            }
            Account::Add { account, address, settings } => add(session, account, address, settings.into()).await,
            Account::Set { account, settings } => {
                let changed = change(session, &account, settings.into()).await?;
                show(session, &changed)
            }
            Account::Remove { account } => {
                let removed = session.client.delete(path(&account)).await?;
                let started: Started = parse(removed).await?;
                job::started(session, started)
            }
        }
    }
}

pub async fn find(session: &Session, account: &AccountName) -> Result<accounts::Account, Error> {
    session.client.get(path(account)).await
}

pub async fn change(session: &Session, account: &AccountName, change: Change) -> Result<accounts::Account, Error> {
    session.client.send(Method::PATCH, path(account), &change).await
}

fn path(account: &AccountName) -> Query {
    Query::path(&["accounts", account.as_str()])
}

async fn list(session: &mut Session) -> Result<(), Error> {
    let all: Vec<accounts::Account> = session.client.list(Query::path(&["accounts"]), usize::MAX).await?;
    session.out.list(&all, ["ACCOUNT", "NAME", "ADDRESSES", "LOGIN", "CREATED"], |a| {
        [a.account.to_string(), name(a), join(&a.addresses), login(a).to_owned(), second(a.created)]
    })
}

async fn add(
    session: &mut Session,
    account: AccountName,
    addresses: Vec<Destination>,
    settings: Change,
) -> Result<(), Error> {
    let new = New { account: account.clone(), settings };
    let _: accounts::Account = session.client.send(Method::POST, Query::path(&["accounts"]), &new).await?;
    for address in addresses {
        let given = Given { address, account: account.clone() };
        session.client.tell(Method::POST, Query::path(&["addresses"]), &given).await?;
    }
    let made = find(session, &account).await?;
    show(session, &made)
}

fn show(session: &mut Session, a: &accounts::Account) -> Result<(), Error> {
    let limit = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let retry = a.retry_waits_s.as_ref();
    let mut state = login(a).to_owned();
    if let Some(job) = a.removing {
        state = format!("{state}; being removed by job {job}");
    }
    session.out.one(
        a,
        [
            ("Account", a.account.to_string()),
            ("Full name", name(a)),
            ("Addresses", join(&a.addresses)),
            ("Login", state),
            ("Fromid logins", join::<address::Address>(&a.fromid_logins)),
            ("Keeps finished deliveries", format!("{} s, contents {}", a.keep_s, yes_no(a.keep_contents))),
            ("Messages per day", limit(a.messages_per_day_max.map(u64::from))),
            ("First-time recipients per day", limit(a.first_time_recipients_per_day_max.map(u64::from))),
            ("Quota", limit(a.quota_bytes)),
            ("Stored", format!("{} messages, {} bytes", a.stored_messages, a.stored_bytes)),
            ("Waits between attempts", retry.map_or("default".to_owned(), |waits| format!("{waits:?} s"))),
            ("Created", second(a.created)),
        ],
    )
}

fn name(a: &accounts::Account) -> String {
    or_dash(a.full_name.as_ref().filter(|name| !name.is_empty()))
}

fn login(a: &accounts::Account) -> &'static str {
    match (a.login_disabled, a.has_password) {
        (true, _) => "disabled",
        (false, false) => "no password",
        (false, true) => "enabled",
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
