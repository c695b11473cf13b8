//! Certificates for the peers of a test, from an authority that only this test knows.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Where the program finds the authorities that it trusts, in place of the operating system's.
const TRUSTED: &str = "SSL_CERT_FILE";

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    pub fn new() -> Authority {
        // Each has a name of its own: with a name that is trusted and another key it would be a forger, not a stranger.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut params = CertificateParams::new([]).expect("no names are valid");
        let name = format!("authority {}", NEXT.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, new_key()).expect("a certificate");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), issuer.pem()).expect("it is written");
        Authority { issuer, file }
    }

    /// What a program has in its environment to trust this authority, as long as it lives.
    pub fn environment(&self) -> (&'static str, &str) {
        (TRUSTED, path_text(self.file.path()))
    }

    /// What a peer of this name, or address, serves with.
    pub fn certify(&self, name: &str) -> Arc<ServerConfig> {
        let (params, key) = (CertificateParams::new([name.to_owned()]).expect("a valid name"), new_key());
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        Arc::new(builder.with_single_cert(vec![certificate.der().clone()], key).expect("key and certificate agree"))
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path of this test is text")
}

/// The peer's side of a connection. The handshake happens with the first octets that are read or written.
pub fn accept(config: &Arc<ServerConfig>, stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    StreamOwned::new(ServerConnection::new(Arc::clone(config)).expect("a configuration"), stream)
}
