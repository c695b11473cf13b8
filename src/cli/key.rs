//! `key`: what programs use the API with.

use axum::http::Method;
use clap::Subcommand;
use postledger_events::fact::access::{Network, Scope};
use postledger_events::id::{AccountName, KeyId};
use postledger_web::api::keys::{self, Given, New};

use super::Session;
use super::error::Error;
use super::out::{or_dash, second};
use super::query::Query;
use super::when::When;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Key {
    /// Give out a key; its token is printed once
    Add {
        /// What people call it
        label: String,
        /// The account that it is confined to
        #[arg(long, required_unless_present = "operators")]
        account: Option<AccountName>,
        /// A key for operators, to which all accounts are open
        #[arg(long, conflicts_with = "account")]
        operators: bool,
        /// What it is good for: send, read, suppressions, queue, webhooks, mailboxes, admin (all of it)
        #[arg(long = "scope", value_name = "SCOPES", value_delimiter = ',', required = true)]
        scopes: Vec<Scope>,
        /// When it is over; never if not said
        #[arg(long, value_name = "WHEN")]
        expires: Option<When>,
        /// From where it can be used; from everywhere if not said
        #[arg(long = "network", value_name = "NETWORKS", value_delimiter = ',')]
        networks: Vec<Network>,
    },
    /// List keys
    List {
        #[arg(long)]
        account: Option<AccountName>,
    },
    /// Make a key worthless at once
    Revoke { key: KeyId },
}

const EXAMPLES: &str = "\
Examples:
  postledger key add \"the shop's sender\" --account shop --scope send
  postledger key add billing --account shop --scope read --expires +90d --network 192.0.2.0/24
  postledger key add dashboard --operators --scope read
  postledger key list --account shop
  postledger key revoke 7

A program sends it as `Authorization: Bearer pl_…`, or as the password of one of the account's addresses.";

impl Key {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Key::Add { label, account, operators: _, scopes, expires, networks } => {
                let expires = expires.map(|when| when.resolve(session.now));
                let networks = networks.iter().map(Network::to_string).collect();
                let new = New { account, label, scopes, expires, networks };
                let given: Given = session.client.send(Method::POST, Query::path(&["keys"]), &new).await?;
                session.out.done(&given, &given.token)
            }
            Key::List { account } => list(session, account.as_ref()).await,
            Key::Revoke { key } => {
                session.client.delete(Query::path(&["keys", &key.to_string()])).await?;
                session.out.said(format!("key {key} is worth nothing any more"))
            }
        }
    }
}

async fn list(session: &mut Session, account: Option<&AccountName>) -> Result<(), Error> {
    let query = Query::path(&["keys"]).with("account", account);
    let all: Vec<keys::Key> = session.client.list(query, usize::MAX).await?;
    session.out.list(&all, ["KEY", "ACCOUNT", "LABEL", "SCOPES", "NETWORKS", "EXPIRES", "LAST USED", "FROM"], |k| {
        let scopes = k.scopes.iter().map(|scope| scope.name()).collect::<Vec<_>>().join(",");
        let networks = if k.networks.is_empty() { "-".to_owned() } else { k.networks.join(",") };
        let expires = if k.expired { "is over".to_owned() } else { or_dash(k.expires.map(second)) };
        let (used, from) = (or_dash(k.last_used.map(second)), or_dash(k.last_client.as_ref()));
        [k.key.to_string(), or_dash(k.account.as_ref()), k.label.clone(), scopes, networks, expires, used, from]
    })
}
