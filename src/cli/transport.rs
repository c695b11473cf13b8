//! `transport`: where mail goes next.

use axum::http::Method;
use clap::{Subcommand, ValueEnum};
use postledger_events::fact::account::TransportTls;
use postledger_events::id::TransportName;
use postledger_web::api::transports::{self, Credentials, Settings};

use super::Session;
use super::error::Error;
use super::out::or_dash;
use super::password::Source;
use super::query::Query;

#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub enum Transport {
    /// List all next hops
    List,
    /// Add or replace a next hop; the one named `default` takes all mail
    Set {
        transport: TransportName,
        /// Host name or address
        #[arg(long)]
        host: String,
        #[arg(long)]
        port: u16,
        #[arg(long)]
        tls: Tls,
        /// Log in with AUTH PLAIN; the password is read, and needs verified TLS
        #[arg(long, value_name = "NAME")]
        username: Option<String>,
        #[command(flatten)]
        source: Source,
        /// Connections at once
        #[arg(long, default_value_t = 10, value_name = "N")]
        connections: u32,
    },
    /// Remove a next hop
    Remove { transport: TransportName },
}

const EXAMPLES: &str = "\
Examples:
  postledger transport set default --host smtp.example.net --port 587 --tls starttls \\
      --username shop --password-file secret.txt
  postledger transport set default --host 127.0.0.1 --port 25 --tls none
  postledger transport list
  postledger transport remove default";

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Tls {
    /// None, ever
    None,
    /// STARTTLS where offered, not verified
    Opportunistic,
    /// STARTTLS required, certificate verified
    Starttls,
    /// STARTTLS required, certificate not verified
    StarttlsUnverified,
    /// TLS from the first byte, certificate verified
    Implicit,
}

impl From<Tls> for TransportTls {
    fn from(tls: Tls) -> TransportTls {
        match tls {
            Tls::None => TransportTls::None,
            Tls::Opportunistic => TransportTls::Opportunistic,
            Tls::Starttls => TransportTls::Starttls,
            Tls::StarttlsUnverified => TransportTls::StarttlsUnverified,
            Tls::Implicit => TransportTls::Implicit,
        }
    }
}

impl From<TransportTls> for Tls {
    fn from(tls: TransportTls) -> Tls {
        match tls {
            TransportTls::None => Tls::None,
            TransportTls::Opportunistic => Tls::Opportunistic,
            TransportTls::Starttls => Tls::Starttls,
            TransportTls::StarttlsUnverified => Tls::StarttlsUnverified,
            TransportTls::Implicit => Tls::Implicit,
        }
    }
}

impl Transport {
    pub async fn run(self, session: &mut Session) -> Result<(), Error> {
        match self {
            Transport::List => list(session).await,
            Transport::Set { transport, host, port, tls, username, source, connections } => {
                let credentials = match username {
                    None => None,
                    Some(username) => {
                        let password = source.read(&format!("Password of {username} at {host}"))?;
                        Some(Credentials { username, password })
                    }
                };
                let settings = Settings { host, port, tls: tls.into(), credentials, connections_max: connections };
                session.client.tell(Method::PUT, path(&transport), &settings).await?;
                session.out.said(format!("{transport} leads to {}:{}", settings.host, settings.port))
            }
            Transport::Remove { transport } => {
                session.client.delete(path(&transport)).await?;
                session.out.said(format!("removed {transport}"))
            }
        }
    }
}

fn path(transport: &TransportName) -> Query {
    Query::path(&["transports", transport.as_str()])
}

async fn list(session: &mut Session) -> Result<(), Error> {
    let all: Vec<transports::Transport> = session.client.list(Query::path(&["transports"]), usize::MAX).await?;
    session.out.list(&all, ["TRANSPORT", "HOST", "PORT", "TLS", "USER", "CONNECTIONS"], |t| {
        let tls = Tls::from(t.tls).to_possible_value().map(|v| v.get_name().to_owned()).unwrap_or_default();
        let name = t.transport.to_string();
        [name, t.host.clone(), t.port.to_string(), tls, or_dash(t.username.as_ref()), t.connections_max.to_string()]
    })
}
