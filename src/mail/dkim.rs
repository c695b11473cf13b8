//! DKIM signatures (RFC 6376, RFC 8463), relaxed/relaxed.
//!
//! Written here since the signer must take its time as an argument, and must sign the absence of fields as well.

use std::fmt;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postledger_events::address::Domain;
use postledger_events::time::Timestamp;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use super::header::{Field, Fold};

/// RFC 1035 §2.3.4; a selector is one or more labels.
const SELECTOR_BYTES_MAX: usize = 200;
/// RFC 1035 §3.3: what one character-string of a TXT record holds.
const TXT_STRING_BYTES_MAX: usize = 255;
/// Base64 of a signature is folded into pieces of this many columns.
const SIGNATURE_COLUMNS: usize = 72;
/// Canonical body bytes that are collected before they are hashed.
const HASHED_BYTES: usize = 64 * 1024;
/// RFC 8301 §3.2.
const RSA_MODULUS_BYTES_MIN: usize = 128;

/// Fields that are signed once more than they occur, so that none can be added (RFC 6376 §8.15).
const OVERSIGNED: [&str; 10] = [
    "From",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Content-Type",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];
/// Fields that are signed as often as they occur (RFC 6376 §5.4.1).
const SIGNED: [&str; 12] = [
    "Sender",
    "References",
    "In-Reply-To",
    "MIME-Version",
    "Content-Transfer-Encoding",
    "Content-ID",
    "List-Id",
    "List-Help",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    RsaSha256,
    Ed25519Sha256,
}

impl Algorithm {
    /// The `a=` tag (RFC 6376 §3.3, RFC 8463 §3).
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa-sha256",
            Algorithm::Ed25519Sha256 => "ed25519-sha256",
        }
    }

    /// The `k=` tag of the key record.
    fn key_type(self) -> &'static str {
        match self {
            Algorithm::RsaSha256 => "rsa",
            Algorithm::Ed25519Sha256 => "ed25519",
        }
    }
}

/// Who signs: the domain, the selector under which its key is published, and the key, parsed once.
pub struct Signer {
    domain: Domain,
    selector: String,
    key: SigningKey,
}

impl Signer {
    pub fn new(domain: Domain, selector: &str, key: SigningKey) -> Result<Signer, Error> {
        let is_label = |label: &str| {
            let ends_well = !label.starts_with('-') && !label.ends_with('-');
            !label.is_empty() && ends_well && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let is_selector = selector.len() <= SELECTOR_BYTES_MAX && selector.split('.').all(is_label);
        if !is_selector || domain.is_literal() {
            return Err(Error::Selector);
        }
        Ok(Signer { domain, selector: selector.to_owned(), key })
    }

    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    pub fn selector(&self) -> &str {
        &self.selector
    }

    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The DKIM-Signature field up to and with `b=`, which is what gets signed (RFC 6376 §3.7).
    fn unsigned_field(&self, names: &[&str], body_hash: &str, now: Timestamp, expires: Option<Timestamp>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut field = Field::new(&mut out, "DKIM-Signature", Fold::Tab);
        field.word("v=1;");
        field.word(&format!("a={};", self.key.algorithm().as_str()));
        field.word("c=relaxed/relaxed;");
        field.word(&format!("d={};", self.domain));
        field.word(&format!("s={};", self.selector));
        field.word(&format!("t={};", now.as_secs()));
        if let Some(expires) = expires {
            field.word(&format!("x={};", expires.as_secs()));
        }
        let (first, rest) = names.split_first().expect("From is always signed");
        field.word(&format!("h={first}"));
        for name in rest {
            field.glue_or_fold(&format!(":{name}"));
        }
        field.glue(";");
        field.word(&format!("bh={body_hash};"));
        field.new_line();
        field.glue("b=");
        out
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({} {} {:?})", self.domain, self.selector, self.key.algorithm())
    }
}

/// The DKIM-Signature fields for the message, one for each signer; they go before everything that they sign.
pub fn sign(signers: &[Signer], message: &[u8], now: Timestamp, expires: Option<Timestamp>) -> Result<Vec<u8>, Error> {
    if signers.is_empty() {
        return Ok(Vec::new());
    }
    let (fields, body) = split(message);
    let names = signed_names(&fields);
    if !fields.iter().any(|field| field.is_named("From")) {
        return Err(Error::NoFrom);
    }
    let body_hash = STANDARD.encode(body_hash(body));
    let header = header_context(&fields, OVERSIGNED.into_iter().chain(SIGNED));
    let mut out = Vec::new();
    for signer in signers {
        let field = signer.unsigned_field(&names, &body_hash, now, expires);
        let signature = signer.key.sign(finish(header.clone(), &field))?;
        out.extend_from_slice(&field);
        write_signature(&mut out, &signature);
    }
    Ok(out)
}

fn write_signature(out: &mut Vec<u8>, signature: &[u8]) {
    let text = STANDARD.encode(signature);
    for (at, piece) in text.as_bytes().chunks(SIGNATURE_COLUMNS).enumerate() {
        if at > 0 {
            out.extend_from_slice(b"\r\n\t");
        }
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"\r\n");
}

/// The `h=` tag. A name that stands there more often than in the message says that there is no further such field.
fn signed_names(fields: &[Raw]) -> Vec<&'static str> {
    let count = |name: &str| fields.iter().filter(|field| field.is_named(name)).count();
    let over = OVERSIGNED.iter().flat_map(|name| std::iter::repeat_n(*name, count(name) + 1));
    let plain = SIGNED.iter().flat_map(|name| std::iter::repeat_n(*name, count(name)));
    over.chain(plain).collect()
}

/// The hash so far, over the signed fields. Equal names take the fields from the bottom up (RFC 6376 §5.4.2).
fn header_context<'a>(fields: &[Raw], names: impl Iterator<Item = &'a str>) -> Context {
    let mut context = Context::new(&SHA256);
    for name in names {
        for field in fields.iter().rev().filter(|field| field.is_named(name)) {
            context.update(&relaxed_field(field));
            context.update(b"\r\n");
        }
    }
    context
}

/// The signature field itself comes last and without CRLF (RFC 6376 §3.7).
fn finish(mut context: Context, signature_field: &[u8]) -> Digest {
    let (name, value) = split_field(signature_field);
    context.update(&relaxed_field(&Raw { name, value }));
    context.finish()
}

/// A field as it stands in the message, with its folding.
struct Raw<'a> {
    name: &'a [u8],
    value: &'a [u8],
}

impl Raw<'_> {
    fn is_named(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The header fields, and the body after the empty line.
fn split(message: &[u8]) -> (Vec<Raw<'_>>, &[u8]) {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        if let Some(body) = rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
            return (fields, body);
        }
        let (field, after) = rest.split_at(field_end(rest));
        let (name, value) = split_field(field);
        fields.push(Raw { name, value });
        rest = after;
    }
    (fields, rest)
}

/// After the line end that no blank follows.
fn field_end(rest: &[u8]) -> usize {
    let mut end = 0;
    while let Some(line) = rest[end..].iter().position(|&b| b == b'\n') {
        end += line + 1;
        if !matches!(rest.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
    rest.len()
}

fn split_field(field: &[u8]) -> (&[u8], &[u8]) {
    let colon = field.iter().position(|&b| b == b':').unwrap_or(field.len());
    (field[..colon].trim_ascii_end(), field.get(colon + 1..).unwrap_or_default())
}

/// RFC 6376 §3.4.2, without the CRLF.
fn relaxed_field(field: &Raw) -> Vec<u8> {
    let mut out = field.name.to_ascii_lowercase();
    out.push(b':');
    let words = field.value.split(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')).filter(|word| !word.is_empty());
    for (at, word) in words.enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    out
}

/// RFC 6376 §3.4.4, in one pass and in bounded memory.
fn body_hash(body: &[u8]) -> Digest {
    let mut context = Context::new(&SHA256);
    let mut canonical = Vec::with_capacity(HASHED_BYTES + 1024);
    let mut empty_lines = 0;
    for line in body.split_inclusive(|&b| b == b'\n') {
        if line.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r' | b'\n')) {
            empty_lines += 1;
            continue;
        }
        // Empty lines count only if something follows.
        for _ in 0..std::mem::take(&mut empty_lines) {
            canonical.extend_from_slice(b"\r\n");
        }
        relaxed_line(line, &mut canonical);
        if canonical.len() >= HASHED_BYTES {
            context.update(&canonical);
            canonical.clear();
        }
    }
    context.update(&canonical);
    context.finish()
}

/// Runs of blanks become one space, blanks at the end go.
fn relaxed_line(line: &[u8], out: &mut Vec<u8>) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut after_blank = false;
    for &b in line {
        if b == b' ' || b == b'\t' {
            after_blank = true;
            continue;
        }
        if std::mem::take(&mut after_blank) {
            out.push(b' ');
        }
        out.push(b);
    }
    out.extend_from_slice(b"\r\n");
}

/// A private key, ready to sign.
pub struct SigningKey(Inner);

enum Inner {
    Rsa(RsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    /// A new key: the one place of this module that rolls dice. RSA keys have 2048 bits (RFC 8301 §3.2).
    pub fn generate(algorithm: Algorithm) -> Result<SigningKey, Error> {
        let inner = match algorithm {
            Algorithm::RsaSha256 => Inner::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| Error::Generate)?),
            Algorithm::Ed25519Sha256 => Inner::Ed25519(Ed25519KeyPair::generate().map_err(|_| Error::Generate)?),
        };
        Ok(SigningKey(inner))
    }

    /// As the vault keeps it.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<SigningKey, Error> {
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(SigningKey(Inner::Ed25519(key)));
        }
        let key = RsaKeyPair::from_pkcs8(der).map_err(|_| Error::Key)?;
        SigningKey::from_rsa(key)
    }

    /// As other programs keep it: PKCS#8 or, for RSA, PKCS#1.
    pub fn from_pem(pem: &str) -> Result<SigningKey, Error> {
        match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| Error::Key)? {
            PrivateKeyDer::Pkcs8(der) => SigningKey::from_pkcs8_der(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => {
                SigningKey::from_rsa(RsaKeyPair::from_der(der.secret_pkcs1_der()).map_err(|_| Error::Key)?)
            }
            _ => Err(Error::Key),
        }
    }

    fn from_rsa(key: RsaKeyPair) -> Result<SigningKey, Error> {
        if key.public_modulus_len() < RSA_MODULUS_BYTES_MIN {
            return Err(Error::Key);
        }
        Ok(SigningKey(Inner::Rsa(key)))
    }

    /// The private key, for the vault.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let der: Pkcs8V1Der = match &self.0 {
            Inner::Rsa(key) => key.as_der(),
            Inner::Ed25519(key) => key.as_der(),
        }
        .map_err(|_| Error::Key)?;
        Ok(Zeroizing::new(der.as_ref().to_vec()))
    }

    pub fn algorithm(&self) -> Algorithm {
        match &self.0 {
            Inner::Rsa(_) => Algorithm::RsaSha256,
            Inner::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// The content of the TXT record that publishes the key (RFC 6376 §3.6.1, RFC 8463 §4).
    pub fn public_key_record(&self) -> String {
        let public = match &self.0 {
            Inner::Rsa(key) => {
                let der: PublicKeyX509Der = key.public_key().as_der().expect("a parsed key can be encoded");
                STANDARD.encode(der.as_ref())
            }
            Inner::Ed25519(key) => STANDARD.encode(key.public_key().as_ref()),
        };
        format!("v=DKIM1; k={}; p={public}", self.algorithm().key_type())
    }

    fn sign(&self, digest: Digest) -> Result<Vec<u8>, Error> {
        match &self.0 {
            // RFC 8463 §3: the hash is what Ed25519 signs as its message.
            Inner::Ed25519(key) => Ok(key.sign(digest.as_ref()).as_ref().to_vec()),
            Inner::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign_digest(&RSA_PKCS1_SHA256, &digest, &mut signature).map_err(|_| Error::Sign)?;
                Ok(signature)
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({:?})", self.algorithm())
    }
}

/// A line for a zone file. `name` ends in a dot; the content is split as a TXT record must be.
pub fn zone_line(name: &str, content: &str) -> String {
    let strings: Vec<String> = content
        .as_bytes()
        .chunks(TXT_STRING_BYTES_MAX)
        .map(|piece| format!("\"{}\"", String::from_utf8_lossy(piece).replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    match strings.as_slice() {
        [only] => format!("{name} TXT {only}"),
        several => format!("{name} TXT ( {} )", several.join(" ")),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The operator's: not a private key that we can sign with.
    Key,
    /// The operator's: the selector is no DNS name, or the domain is an address.
    Selector,
    /// The message's: there is nothing that a signature could vouch for (RFC 6376 §5.4).
    NoFrom,
    /// The machine's.
    Generate,
    Sign,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::Key => "not a PKCS#8 private key of RSA (1024 bits or more) or Ed25519",
            Error::Selector => "not a selector and domain that a DNS name can be made of",
            Error::NoFrom => "the message has no From field to sign",
            Error::Generate => "the key could not be generated",
            Error::Sign => "the signature could not be made",
        })
    }
}

impl std::error::Error for Error {}
