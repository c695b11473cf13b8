//! What is written down about the TLS of a connection.

/// How TLS protects a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// As RFC 8446 §4.2.1 and its forebears write it: `TLSv1.3`.
    pub protocol: String,
    /// As the registry of cipher suites has it: `TLS13_AES_256_GCM_SHA384`.
    pub cipher: String,
    /// How the peer proved its name.
    pub verification: Verification,
}

/// What a peer's certificate was checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Nothing: any certificate was taken, or (from a client) none was asked for.
    None,
    /// The authorities that the operating system trusts.
    Platform,
    /// Authorities given by the operator.
    Roots,
}

impl Verification {
    pub fn as_str(self) -> &'static str {
        match self {
            Verification::None => "none",
            Verification::Platform => "platform",
            Verification::Roots => "roots",
        }
    }
}
