//! `domain`: domains of ours.

use axum::http::Method;
use clap::{Args, Subcommand};
use postledger_events::address;
use postledger_web::api::domains::{Change, New, OwnDomain};

use super::Session;
use super::error::Error;
use super::out::yes_no;
use super::query::Query;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Domain {
    /// List all domains
    List,
    /// Show one domain
    Show { domain: address::Domain },
    /// Add a domain
    Add {
        domain: address::Domain,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change settings of a domain; what is not named stays as it is
    Set {
        domain: address::Domain,
        #[command(flatten)]
        settings: Settings,
    },
    /// Remove a domain that has no addresses left
    Remove { domain: address::Domain },
}

const EXAMPLES: &str = "\
Examples:
  postledger domain list
  postledger domain show example.org
  postledger domain add example.org
  postledger domain set example.org --separator + --separator -
  postledger domain remove example.org
  postledger dkim generate example.org 2026a     then sign its messages";

#[derive(Debug, Args)]
pub struct Settings {
    /// Nothing is sent from a disabled domain and nothing received for it
    #[arg(long, value_name = "true|false")]
    disabled: Option<bool>,
    /// What parts a localpart from its extension; several in order, the first is used for fromid
    #[arg(long, value_name = "CHARACTER", allow_hyphen_values = true)]
    separator: Vec<char>,
    /// No separator at all
    #[arg(long, conflicts_with = "separator")]
    no_separator: bool,
    /// Whether the case of letters in localparts matters
    #[arg(long, value_name = "true|false")]
    case_sensitive: Option<bool>,
}

impl From<Settings> for Change {
    fn from(s: Settings) -> Change {
        let named = s.no_separator || !s.separator.is_empty();
        Change {
            disabled: s.disabled,
            separators: named.then_some(s.separator),
            localpart_case_sensitive: s.case_sensitive,
        }
    }
}

impl Domain {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Domain::List => list(session).await,
            Domain::Show { domain } => {
                let found: OwnDomain = session.client.get(path(&domain)).await?;
                show(session, &found)
            }
            Domain::Add { domain, settings } => {
                let new = New { domain, settings: settings.into() };
                let made: OwnDomain = session.client.send(Method::POST, Query::path(&["domains"]), &new).await?;
                show(session, &made)
            }
            Domain::Set { domain, settings } => {
                let change = Change::from(settings);
                let changed: OwnDomain = session.client.send(Method::PATCH, path(&domain), &change).await?;
                show(session, &changed)
            }
            Domain::Remove { domain } => {
                session.client.delete(path(&domain)).await?;
                session.out.said(format!("removed {domain}"))
            }
        }
    }
}

fn path(domain: &address::Domain) -> Query {
    Query::path(&["domains", domain.as_str()])
}

async fn list(session: &mut Session) -> Result<(), Error> {
    let all: Vec<OwnDomain> = session.client.list(Query::path(&["domains"]), usize::MAX).await?;
    session.out.list(&all, ["DOMAIN", "DISABLED", "SEPARATORS", "SIGNING WITH"], |d| {
        [d.unicode.clone(), yes_no(d.disabled), d.separators.iter().collect(), signing(d)]
    })
}

fn show(session: &mut Session, d: &OwnDomain) -> Result<(), Error> {
    session.out.one(
        d,
        [
            ("Domain", d.domain.to_string()),
            ("For people", d.unicode.clone()),
            ("Disabled", yes_no(d.disabled)),
            ("Separators", d.separators.iter().collect()),
            ("Case-sensitive localparts", yes_no(d.localpart_case_sensitive)),
            ("Signing with", signing(d)),
        ],
    )
}

fn signing(d: &OwnDomain) -> String {
    let selectors: Vec<&str> = d.dkim.iter().filter(|key| key.signing).map(|key| key.selector.as_str()).collect();
    if selectors.is_empty() { "-".to_owned() } else { selectors.join(" ") }
}
