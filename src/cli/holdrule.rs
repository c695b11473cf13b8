//! `holdrule`: what is queued and does not leave.

use axum::http::Method;
use clap::Subcommand;
use postledger_events::address::Domain;
use postledger_events::id::{AccountName, HoldRuleId};
use postledger_web::api::holdrules::{self, Added, New};

use super::Session;
use super::error::Error;
use super::out::{or_dash, second};
use super::query::Query;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum HoldRule {
    /// List all rules
    List,
    /// Add a rule: nothing that agrees with all its conditions leaves from now on
    Add {
        #[arg(long)]
        account: Option<AccountName>,
        #[arg(long, value_name = "DOMAIN")]
        sender_domain: Option<Domain>,
        #[arg(long, value_name = "DOMAIN")]
        recipient_domain: Option<Domain>,
        /// Hold everything, if there is no condition
        #[arg(long)]
        all: bool,
    },
    /// Remove a rule; what it held stays on hold until it is released
    Remove { rule: HoldRuleId },
}

const EXAMPLES: &str = "\
Examples:
  postledger holdrule add --recipient-domain example.net
  postledger holdrule list
  postledger holdrule remove 3
  postledger queue release --held true --domain example.net";

impl HoldRule {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            HoldRule::List => list(session).await,
            HoldRule::Add { account, sender_domain, recipient_domain, all } => {
                let no_condition = account.is_none() && sender_domain.is_none() && recipient_domain.is_none();
                if no_condition && !all {
                    let why = "this rule holds everything: name conditions, or say --all";
                    return Err(Error::Usage(why.to_owned()));
                }
                let new = New { account, sender_domain, recipient_domain, all };
                let Added { rule, job } = session.client.send(Method::POST, Query::path(&["holdrules"]), &new).await?;
                let said = format!("rule {rule} holds; job {job} puts on hold what is queued already");
                session.out.done(&Added { rule, job }, said)
            }
            HoldRule::Remove { rule } => {
                session.client.delete(Query::path(&["holdrules", &rule.to_string()])).await?;
                session.out.said(format!("removed rule {rule}; what it held waits for `postledger queue release`"))
            }
        }
    }
}

async fn list(session: &mut Session) -> Result<(), Error> {
    let all: Vec<holdrules::HoldRule> = session.client.list(Query::path(&["holdrules"]), usize::MAX).await?;
    session.out.list(&all, ["RULE", "ACCOUNT", "SENDER DOMAIN", "RECIPIENT DOMAIN", "ADDED", "BY"], |r| {
        let (from, to) = (or_dash(r.sender_domain.as_ref()), or_dash(r.recipient_domain.as_ref()));
        [r.rule.to_string(), or_dash(r.account.as_ref()), from, to, second(r.added), r.by.clone()]
    })
}
