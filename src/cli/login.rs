//! `login`: how accounts log in.

use axum::http::Method;
use clap::Subcommand;
use postledger_events::address::Address;
use postledger_events::id::AccountName;
use postledger_web::api::accounts::{Change, Password};

use super::error::Error;
use super::password::Source;
use super::query::Query;
use super::{Session, account};

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Login {
    /// Set the password of an account
    Password {
        account: AccountName,
        #[command(flatten)]
        source: Source,
    },
    /// Let an account log in
    Enable { account: AccountName },
    /// Let an account log in no more; it still receives
    Disable { account: AccountName },
    /// Say which addresses send with a reverse-path of its own for every delivery when one logs in with them
    Fromid {
        account: AccountName,
        /// All such addresses; those not named no longer are
        #[arg(required_unless_present = "none")]
        addresses: Vec<Address>,
        /// None at all
        #[arg(long, conflicts_with = "addresses")]
        none: bool,
    },
}

const EXAMPLES: &str = "\
Examples:
  postledger login password shop                            asks for it
  postledger login password shop --password-file secret.txt
  postledger login disable shop
  postledger login enable shop
  postledger login fromid shop shop@example.org";

impl Login {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Login::Password { account, source } => {
                let password = source.read(&format!("New password of {account}"))?;
                let path = Query::path(&["accounts", account.as_str(), "password"]);
                session.client.tell(Method::PUT, path, &Password { password }).await?;
                session.out.said(format!("{account} has a new password"))
            }
            Login::Enable { account } => disable(session, &account, false).await,
            Login::Disable { account } => disable(session, &account, true).await,
            Login::Fromid { account, addresses, none: _ } => {
                let change = Change { fromid_logins: Some(addresses), ..Change::default() };
                let changed = account::change(session, &account, change).await?;
                session.out.done(&changed, format!("{account} has {} fromid logins", changed.fromid_logins.len()))
            }
        }
    }
}

async fn disable(session: &mut Session, account: &AccountName, disabled: bool) -> Result<(), Error> {
    let change = Change { login_disabled: Some(disabled), ..Change::default() };
    let changed = account::change(session, account, change).await?;
    let what = if disabled { "may not log in" } else { "may log in" };
    session.out.done(&changed, format!("{account} {what}"))
}
