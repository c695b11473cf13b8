//! Certificates of our listeners: read from files, again when they change, or made for trials.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {why}", path = .0.display(), why = .1)]
    File(PathBuf, String),
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A certificate chain and its key, in two PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    fn load(&self) -> Result<CertifiedKey, Error> {
        let failed = |path: &Path, e: &dyn std::fmt::Display| Error::File(path.to_owned(), e.to_string());
        let chain = CertificateDer::pem_file_iter(&self.certificate).map_err(|e| failed(&self.certificate, &e))?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|e| failed(&self.certificate, &e))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|e| failed(&self.key, &e))?;
        CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|e| failed(&self.certificate, &e))
    }

    fn changed(&self) -> Option<(SystemTime, SystemTime)> {
        let time = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
        Some((time(&self.certificate)?, time(&self.key)?))
    }

    /// The certificates, for a client of ours that shall trust them.
    pub fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in self.load()?.cert {
            roots.add(certificate)?;
        }
        Ok(roots)
    }
}

/// Certificates that can be replaced while listeners use them.
#[derive(Debug)]
pub struct Certificate {
    files: Files,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    pub fn open(files: Files) -> Result<Arc<Certificate>, Error> {
        let current = ArcSwap::from_pointee(files.load()?);
        Ok(Arc::new(Certificate { files, current }))
    }

    /// What a listener needs; `protocols` as ALPN names them (RFC 7301).
    pub fn server_config(self: &Arc<Self>, protocols: &[&[u8]]) -> Result<Arc<rustls::ServerConfig>, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// Reads the files again whenever they change, until `stop`. Files that cannot be read leave the old ones in use.
    pub async fn reload(self: Arc<Self>, stop: CancellationToken) {
        let mut seen = self.files.changed();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let now = self.files.changed();
            if now.is_none() || now == seen {
                continue;
            }
            match self.files.load() {
                Ok(loaded) => {
                    self.current.store(Arc::new(loaded));
                    tracing::info!("the TLS certificate was read again");
                    seen = now;
                }
                Err(e) => tracing::error!("the changed TLS certificate cannot be used, the old one stays: {e}"),
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// Makes a self-signed certificate for these names and addresses, unless the files exist.
pub fn make_self_signed(files: &Files, names: Vec<String>) -> Result<(), Error> {
    if files.certificate.exists() && files.key.exists() {
        return Ok(());
    }
    let made = rcgen::generate_simple_self_signed(names)?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |e: std::io::Error| Error::File(path, e.to_string())
    };
    crate::files::write_private(&files.key, made.signing_key.serialize_pem().as_bytes()).map_err(failed(&files.key))?;
    crate::files::write_public(&files.certificate, made.cert.pem().as_bytes()).map_err(failed(&files.certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_certificates_load_and_stay() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { certificate: dir.path().join("c.pem"), key: dir.path().join("k.pem") };
        make_self_signed(&files, vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let first = std::fs::read(&files.certificate).unwrap();
        make_self_signed(&files, vec!["localhost".to_owned()]).unwrap();
        assert_eq!(std::fs::read(&files.certificate).unwrap(), first);
        assert_eq!(files.roots().unwrap().len(), 1);
        Certificate::open(files.clone()).unwrap().server_config(&[b"h2"]).unwrap();
        std::fs::write(&files.certificate, "no certificate").unwrap();
        assert!(Certificate::open(files).is_err());
    }
}
