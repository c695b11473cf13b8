//! The client, without input or output: what to send and what a reply means.
//!
//! [`Handshake`] leads from the connection to a session that takes mail, [`Delivery`] through one transaction. Both are told
//! the replies and say what to do next; neither knows sockets or time.

use postledger_events::address::{Address, Domain};
use postledger_events::reply::EnhancedCode;

pub use capabilities::{Capabilities, Limits};
pub use delivery::{Action, Delivery, RecipientResult, Session};
pub use handshake::{Credentials, Encryption, Error, Fault, Handshake, Plan, Step};

mod capabilities;
mod delivery;
mod handshake;

/// What a client is about; each phase has its time limit (RFC 5321 §4.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Connect,
    Tls,
    Greeting,
    Ehlo,
    StartTls,
    Auth,
    Mail,
    Rcpt,
    DataInit,
    Data,
    /// The end mark may have reached the peer.
    Final,
}

impl Phase {
    pub fn as_str(self) -> &'static str {
        match self {
            Phase::Connect => "connect",
            Phase::Tls => "TLS handshake",
            Phase::Greeting => "greeting",
            Phase::Ehlo => "EHLO",
            Phase::StartTls => "STARTTLS",
            Phase::Auth => "AUTH",
            Phase::Mail => "MAIL FROM",
            Phase::Rcpt => "RCPT TO",
            Phase::DataInit => "DATA",
            Phase::Data => "message content",
            Phase::Final => "reply to the message",
        }
    }
}

/// How far a connection can be trusted to end at the host that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Security {
    Clear,
    Unverified,
    Verified,
}

/// One message for some recipients.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// None is the null reverse-path of RFC 5321 §4.5.5.
    pub reverse_path: Option<Address>,
    pub recipients: Vec<Address>,
    /// Header and body with CRLF line ends, the last line too.
    pub message: bytes::Bytes,
    /// The content has octets above 127 (RFC 6152).
    pub eight_bit: bool,
    /// The header holds UTF-8 (RFC 6531); an address beyond ASCII needs the extension by itself.
    pub smtputf8: bool,
    /// RFC 8689.
    pub require_tls: bool,
}

impl Transaction {
    fn is_eight_bit(&self) -> bool {
        self.eight_bit || !self.message.is_ascii()
    }

    fn needs_smtputf8(&self) -> bool {
        self.smtputf8 || self.reverse_path.iter().chain(&self.recipients).any(Address::needs_smtputf8)
    }
}

/// Why a message was not even offered to this peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalFailure {
    /// Sent as 8-bit, it would arrive damaged; converted to 7-bit it can be tried again.
    EightBitUnsupported,
    Smtputf8Unsupported,
    /// The peer lacks REQUIRETLS, or the connection is not under verified TLS.
    RequireTlsUnsupported,
    TooLarge {
        bytes: u64,
        bytes_max: u64,
    },
    /// The content has bare CR or LF, or no CRLF at its end.
    LineEnds,
}

impl LocalFailure {
    /// All of these stay so at the next try.
    pub fn enhanced(&self) -> EnhancedCode {
        match self {
            // RFC 6152 §3, RFC 3463 §3.7: conversion required but not supported.
            LocalFailure::EightBitUnsupported => EnhancedCode::new(5, 6, 3),
            // RFC 6531 §3.5.
            LocalFailure::Smtputf8Unsupported => EnhancedCode::new(5, 6, 7),
            // RFC 8689 §5.
            LocalFailure::RequireTlsUnsupported => EnhancedCode::new(5, 7, 30),
            LocalFailure::TooLarge { .. } => EnhancedCode::new(5, 3, 4),
            LocalFailure::LineEnds => EnhancedCode::new(5, 6, 0),
        }
    }
}

impl std::fmt::Display for LocalFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LocalFailure::EightBitUnsupported => f.write_str("the remote server does not take 8-bit content"),
            LocalFailure::Smtputf8Unsupported => f.write_str("the remote server does not offer SMTPUTF8"),
            LocalFailure::RequireTlsUnsupported => {
                f.write_str("REQUIRETLS was asked for, and the remote server does not offer it over verified TLS")
            }
            LocalFailure::TooLarge { bytes, bytes_max } => {
                write!(f, "the message has {bytes} bytes, the remote server takes at most {bytes_max}")
            }
            LocalFailure::LineEnds => f.write_str("the message has line ends other than CRLF"),
        }
    }
}

/// A command line. The types that make it up hold no line end; one that did would be a command of the author's choice.
fn line(command: String) -> Vec<u8> {
    assert!(!command.contains(['\r', '\n', '\0']), "a command line must be one line");
    let mut line = command.into_bytes();
    line.extend_from_slice(b"\r\n");
    line
}

fn ehlo(verb: &str, name: &Domain) -> Vec<u8> {
    line(format!("{verb} {name}"))
}
