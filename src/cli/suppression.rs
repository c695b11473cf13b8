//! `suppression`: addresses that an account does not send to.

use axum::http::Method;
use clap::Subcommand;
use postledger_events::address::Address;
use postledger_events::id::AccountName;
use postledger_web::api::suppressions::{self, New, Present};

use super::Session;
use super::error::Error;
use super::out::{or_dash, second};
use super::query::Query;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Suppression {
    /// List the addresses that an account does not send to
    List { account: AccountName },
    /// Send no more to an address
    Add {
        account: AccountName,
        address: Address,
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Send to an address again
    Remove { account: AccountName, address: Address },
    /// Say whether an address is suppressed
    Present { account: AccountName, address: Address },
}

const EXAMPLES: &str = "\
Examples:
  postledger suppression list shop
  postledger suppression add shop someone@example.net --reason \"asked by telephone\"
  postledger suppression remove shop someone@example.net
  postledger suppression present shop someone+news@example.net";

impl Suppression {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Suppression::List { account } => list(session, &account).await,
            Suppression::Add { account, address, reason } => {
                let new = New { account: Some(account), address, reason, manual: true };
                session.client.tell(Method::POST, Query::path(&["suppressions"]), &new).await?;
                session.out.said(format!("{} is suppressed", new.address))
            }
            Suppression::Remove { account, address } => {
                let query = Query::path(&["suppressions"]).with("account", Some(account));
                session.client.delete(query.with("address", Some(&address))).await?;
                session.out.said(format!("{address} is not suppressed any more"))
            }
            Suppression::Present { account, address } => {
                let query = Query::path(&["suppressions", "present"]).with("account", Some(account));
                let present: Present = session.client.get(query.with("address", Some(&address))).await?;
                let what = if present.present { "is" } else { "is not" };
                session.out.done(&present, format!("{address} {what} suppressed"))
            }
        }
    }
}

async fn list(session: &mut Session, account: &AccountName) -> Result<(), Error> {
    let query = Query::path(&["suppressions"]).with("account", Some(account));
    let all: Vec<suppressions::Suppression> = session.client.list(query, usize::MAX).await?;
    session.out.list(&all, ["ADDRESS", "SINCE", "CAUSE", "REASON"], |s| {
        let cause = match (s.failure_seq, &s.by) {
            (Some(seq), _) => format!("failure in record {seq}"),
            (None, by) => or_dash(by.as_ref()),
        };
        [or_dash(s.base_address.as_ref()), second(s.created), cause, or_dash(s.reason.as_ref())]
    })
}
