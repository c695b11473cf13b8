//! Where a message goes next: the transport, its addresses, and how TLS is used on the way.

use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use hickory_resolver::TokioResolver;
use postledger_events::fact::account::TransportTls;
use postledger_events::id::{SecretId, TransportName};
use postledger_projections::accounts;
use rustls::RootCertStore;
use tokio::sync::OnceCell;
use zeroize::Zeroizing;

use crate::ledger::Ledger;
use crate::smtp::client::Credentials;
use crate::smtp::drive::{ClientTls, Target, TlsMode};

/// Addresses of a next hop that are tried.
const ADDRESSES_MAX: usize = 8;

/// Which authorities a next hop's certificate is checked against.
#[derive(Clone, Debug)]
pub enum TlsRoots {
    /// Those that the operating system trusts.
    Platform,
    /// These.
    Given(RootCertStore),
}

/// A next hop, ready to connect to.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Tells connections apart that may stand in for each other: the transport and the value of its settings.
    pub key: String,
    pub targets: Vec<Target>,
    pub tls: TlsMode,
    pub credentials: Option<Credentials>,
}

/// Why there is no way to the next hop. All of these are worth another try, once the operator has done their part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "there is no transport `{0}`: set the next hop with `postledger transport set {0} --host HOST --port PORT`"
    )]
    NoTransport(TransportName),
    #[error("the next hop's password is not in the vault: set it again with `postledger transport set {0}`")]
    NoPassword(TransportName),
    #[error("the address of {0} cannot be found: {1}")]
    Resolve(String, String),
    #[error("{0} has no address")]
    NoAddress(String),
    #[error("TLS cannot be used: {0}")]
    Tls(String),
    #[error("{0}")]
    Rows(#[from] postledger_projections::Error),
    #[error("the vault cannot be read: {0}")]
    Vault(#[from] crate::ledger::Error),
}

/// Finds next hops.
pub struct Router {
    ledger: Ledger,
    roots: TlsRoots,
    resolver: OnceCell<TokioResolver>,
    /// TLS configurations remember sessions, so they are made once.
    verified: Mutex<Option<ClientTls>>,
    unverified: ClientTls,
}

impl Router {
    pub fn new(ledger: Ledger, roots: TlsRoots) -> Router {
        Router {
            ledger,
            roots,
            resolver: OnceCell::new(),
            verified: Mutex::new(None),
            unverified: ClientTls::unverified(),
        }
    }

    /// Connections at once to the transport; 1 if it is not known (so that its absence is recorded).
    pub fn connections_max(&self, transport: &TransportName) -> u32 {
        match accounts::transport(&self.ledger.snapshot(), transport) {
            Ok(Some(row)) => row.settings.connections_max,
            Ok(None) | Err(_) => 1,
        }
    }

    pub async fn hop(&self, transport: &TransportName) -> Result<Hop, Error> {
        let row = accounts::transport(&self.ledger.snapshot(), transport)?;
        let row = row.ok_or_else(|| Error::NoTransport(transport.clone()))?;
        let credentials = match &row.settings.credentials {
            Some(c) => {
                Some(Credentials { username: c.username.clone(), password: self.password(transport, c.password.id)? })
            }
            None => None,
        };
        let key = format!("{transport} {}", serde_json::to_string(&row.settings).unwrap_or_default());
        let addresses = self.resolve(&row.settings.host).await?;
        let (host, port) = (row.settings.host, row.settings.port);
        let target = |ip| Target { host: host.clone(), addr: SocketAddr::new(ip, port) };
        let targets = addresses.into_iter().map(target).collect();
        Ok(Hop { key, targets, tls: self.tls(row.settings.tls)?, credentials })
    }

    fn password(&self, transport: &TransportName, id: SecretId) -> Result<Zeroizing<String>, Error> {
        let missing = || Error::NoPassword(transport.clone());
        let bytes = self.ledger.secret(id)?.ok_or_else(missing)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| missing())?;
        Ok(Zeroizing::new(text.to_owned()))
    }

    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Error> {
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Ok(vec![ip]);
        }
        let failed = |e: &dyn std::fmt::Display| Error::Resolve(host.to_owned(), e.to_string());
        let make = || async { TokioResolver::builder_tokio()?.build() };
        let resolver = self.resolver.get_or_try_init(make).await.map_err(|e| failed(&e))?;
        let found = resolver.lookup_ip(host).await.map_err(|e| failed(&e))?;
        let found: Vec<IpAddr> = found.iter().take(ADDRESSES_MAX).collect();
        if found.is_empty() { Err(Error::NoAddress(host.to_owned())) } else { Ok(found) }
    }

    fn tls(&self, tls: TransportTls) -> Result<TlsMode, Error> {
        Ok(match tls {
            TransportTls::None => TlsMode::None,
            TransportTls::Opportunistic => TlsMode::Opportunistic(self.unverified.clone()),
            TransportTls::StarttlsUnverified => TlsMode::StartTls(self.unverified.clone()),
            TransportTls::Starttls => TlsMode::StartTls(self.verified()?),
            TransportTls::Implicit => TlsMode::Implicit(self.verified()?),
        })
    }

    fn verified(&self) -> Result<ClientTls, Error> {
        let mut verified = self.verified.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(tls) = &*verified {
            return Ok(tls.clone());
        }
        let tls = match &self.roots {
            TlsRoots::Platform => ClientTls::platform().map_err(|e| Error::Tls(e.to_string()))?,
            TlsRoots::Given(roots) => ClientTls::roots(roots.clone()),
        };
        *verified = Some(tls.clone());
        Ok(tls)
    }
}
