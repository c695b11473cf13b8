//! `dkim`: keys that messages are signed with, and what to publish of them.

use axum::http::Method;
use clap::{Subcommand, ValueEnum};
use postledger_events::address::Domain;
use postledger_events::fact::account::DkimAlgorithm;
use postledger_events::id::Selector;
use postledger_web::api::dkim::{Key, New, Signing};

use super::Session;
use super::error::Error;
use super::out::yes_no;
use super::query::Query;
use crate::mail::dkim::zone_line;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Dkim {
    /// Make a key, sign with it, and print the DNS record to publish
    Generate {
        domain: Domain,
        selector: Selector,
        #[arg(long, default_value = "ed25519")]
        algorithm: Algorithm,
    },
    /// List the keys of a domain with their DNS records
    List { domain: Domain },
    /// Sign with a key, or no more
    Sign { domain: Domain, selector: Selector, on: Switch },
    /// Remove a key; messages on their way can no longer be verified once its record is gone
    Remove { domain: Domain, selector: Selector },
}

const EXAMPLES: &str = "\
Examples:
  postledger dkim generate example.org 2026a
  postledger dkim generate example.org 2026r --algorithm rsa
  postledger dkim sign example.org 2025a off     before its record is taken out of the DNS
  postledger dkim remove example.org 2025a
  postledger dkim list example.org";

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Algorithm {
    /// Small and fast (RFC 8463); not every receiver knows it
    Ed25519,
    /// RSA with SHA-256 (RFC 6376), known to all
    Rsa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

impl Dkim {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Dkim::Generate { domain, selector, algorithm } => {
                let algorithm = match algorithm {
                    Algorithm::Ed25519 => DkimAlgorithm::Ed25519Sha256,
                    Algorithm::Rsa => DkimAlgorithm::RsaSha256,
                };
                let path = Query::path(&["domains", domain.as_str(), "dkim"]);
                let key: Key = session.client.send(Method::POST, path, &New { selector, algorithm }).await?;
                session.out.done(&key, zone(&key))
            }
            Dkim::List { domain } => {
                let keys: Vec<Key> =
                    session.client.list(Query::path(&["domains", domain.as_str(), "dkim"]), usize::MAX).await?;
                session.out.list(&keys, ["SELECTOR", "SIGNING", "DNS RECORD"], |key| {
                    [key.selector.clone(), yes_no(key.signing), zone(key)]
                })
            }
            Dkim::Sign { domain, selector, on } => {
                let signing = on == Switch::On;
                let key: Key =
                    session.client.send(Method::PATCH, path(&domain, &selector), &Signing { signing }).await?;
                let what = if signing { "signs" } else { "does not sign" };
                session.out.done(&key, format!("{selector} {what}"))
            }
            Dkim::Remove { domain, selector } => {
                session.client.delete(path(&domain, &selector)).await?;
                session.out.said(format!("removed {selector}"))
            }
        }
    }
}

fn path(domain: &Domain, selector: &Selector) -> Query {
    Query::path(&["domains", domain.as_str(), "dkim", selector.as_str()])
}

fn zone(key: &Key) -> String {
    zone_line(&format!("{}.", key.name), &key.record)
}
