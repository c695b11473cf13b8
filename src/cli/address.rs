//! `address`: which account an address leads to.

use axum::http::Method;
use clap::Subcommand;
use postledger_events::fact::account::Destination;
use postledger_events::id::AccountName;
use postledger_web::api::addresses::Given;

use super::Session;
use super::error::Error;
use super::query::Query;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Address {
    /// List addresses
    List {
        #[arg(long)]
        account: Option<AccountName>,
    },
    /// Give an address to an account: it receives there, sends from there and logs in as it
    Add {
        /// An address, or @DOMAIN for all addresses of a domain that are not given out by themselves
        address: Destination,
        account: AccountName,
    },
    /// Take an address from its account
    Remove { address: Destination },
}

const EXAMPLES: &str = "\
Examples:
  postledger address add info@example.org shop
  postledger address add @example.org shop        everything else of the domain
  postledger address list --account shop
  postledger address remove info@example.org";

impl Address {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Address::List { account } => {
                let query = Query::path(&["addresses"]).with("account", account);
                let all: Vec<Given> = session.client.list(query, usize::MAX).await?;
                session.out.list(&all, ["ADDRESS", "ACCOUNT"], |a| [a.address.to_string(), a.account.to_string()])
            }
            Address::Add { address, account } => {
                let given = Given { address, account };
                session.client.tell(Method::POST, Query::path(&["addresses"]), &given).await?;
                session.out.said(format!("{} leads to {}", given.address, given.account))
            }
            Address::Remove { address } => {
                session.client.delete(Query::path(&["addresses", &address.to_string()])).await?;
                session.out.said(format!("removed {address}"))
            }
        }
    }
}
