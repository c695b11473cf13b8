//! How a client uses TLS, and what came of it.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, CommonState, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::smtp::client::Encryption;
use crate::smtp::tls::{TlsFacts, Verification};

/// When a client uses TLS, and what it asks of the certificate.
#[derive(Clone, Debug)]
pub enum TlsMode {
    None,
    /// STARTTLS if it is offered. If the handshake fails there is no session; whoever wants mail in the clear then connects again.
    Opportunistic(ClientTls),
    /// STARTTLS or no session.
    StartTls(ClientTls),
    /// TLS from the first byte.
    Implicit(ClientTls),
}

impl TlsMode {
    pub(super) fn encryption(&self) -> Encryption {
        match self {
            TlsMode::None => Encryption::Never,
            TlsMode::Opportunistic(_) => Encryption::IfOffered,
            TlsMode::StartTls(_) => Encryption::StartTls,
            TlsMode::Implicit(_) => Encryption::Implicit,
        }
    }

    pub(super) fn tls(&self) -> Option<&ClientTls> {
        match self {
            TlsMode::None => None,
            TlsMode::Opportunistic(tls) | TlsMode::StartTls(tls) | TlsMode::Implicit(tls) => Some(tls),
        }
    }
}

/// A TLS configuration and what it proves. Cheap to copy; make one and keep it, since it remembers sessions.
#[derive(Clone, Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    verification: Verification,
}

impl ClientTls {
    /// Checked against the authorities that the operating system trusts.
    pub fn platform() -> Result<ClientTls, rustls::Error> {
        let verifier = Verifier::new(provider())?;
        Ok(ClientTls::with_verifier(Arc::new(verifier), Verification::Platform))
    }

    /// Checked against these authorities.
    pub fn roots(roots: RootCertStore) -> ClientTls {
        let config = builder().with_root_certificates(roots).with_no_client_auth();
        ClientTls { config: Arc::new(config), verification: Verification::Roots }
    }

    /// Any certificate will do: keeps out who only listens, not who stands in between (RFC 7435).
    pub fn unverified() -> ClientTls {
        let algorithms = provider().signature_verification_algorithms;
        ClientTls::with_verifier(Arc::new(AnyCertificate { algorithms }), Verification::None)
    }

    pub fn is_verified(&self) -> bool {
        self.verification != Verification::None
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    pub(super) fn facts(&self, connection: &CommonState) -> TlsFacts {
        facts(connection, self.verification)
    }

    fn with_verifier(verifier: Arc<dyn ServerCertVerifier>, verification: Verification) -> ClientTls {
        let config = builder().dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        ClientTls { config: Arc::new(config), verification }
    }
}

pub(super) fn facts(connection: &CommonState, verification: Verification) -> TlsFacts {
    let protocol = match connection.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
        Some(ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
        other => format!("{other:?}"),
    };
    let cipher = connection.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite())).unwrap_or_default();
    TlsFacts { protocol, cipher, verification }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for the default versions")
}

/// Takes every certificate, but has the peer prove that it holds its key.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
