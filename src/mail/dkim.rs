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
use memchr::{memchr, memchr2};
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
    let (mut rest, mut empty_lines) = (body, 0);
    while !rest.is_empty() {
        let (line, after) = rest.split_at(memchr(b'\n', rest).map_or(rest.len(), |end| end + 1));
        rest = after;
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
    let mut rest = line.strip_suffix(b"\r").unwrap_or(line);
    // What stands between blanks is copied at once: a line of an attachment has none.
    while let Some(blank) = memchr2(b' ', b'\t', rest) {
        out.extend_from_slice(&rest[..blank]);
        let Some(word) = rest[blank..].iter().position(|b| !matches!(b, b' ' | b'\t')) else {
            rest = &[];
            break;
        };
        out.push(b' ');
        rest = &rest[blank + word..];
    }
    out.extend_from_slice(rest);
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

#[cfg(test)]
mod tests {
    use std::borrow::Borrow;
    use std::collections::HashMap;
    use std::hash::Hash;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    use std::sync::Mutex;
    use std::time::Instant;

    use mail_auth::common::parse::TxtRecordParser;
    use mail_auth::common::verify::DomainKey;
    use mail_auth::hickory_resolver::config::{ResolverConfig, ResolverOpts};
    use mail_auth::{
        AuthenticatedMessage, DkimResult, MX, MessageAuthenticator, Parameters, RecordSet, ResolverCache, Txt,
    };

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_795_379_148);
    /// 2100-01-01: the verifier asks the real time.
    const EXPIRES: Timestamp = Timestamp::from_secs(4_102_444_800);

    const MESSAGE: &str = "Received: from a by b; 1 Jan 2026 00:00:00 +0000\r\n\
        From: \"Joe\"  <joe@football.example.com>\r\nTo: a@example.org,\r\n\tb@example.org\r\nSubject:  Is  dinner\r\n ready?\r\n\
        List-Unsubscribe: <https://x.example/u>\r\nX-Other: x\r\nDate: 1 Jan 2026 00:00:00 +0000\r\n\r\n\
        Hi.  \r\n\r\nWe lost\tthe \t game.\r\n\r\n\r\n";

    /// Answers from what was put in, so that the verifier needs no network.
    struct Fixed<K, V>(Mutex<HashMap<K, V>>);

    impl<K: Hash + Eq, V: Clone> ResolverCache<K, V> for Fixed<K, V> {
        fn get<Q>(&self, key: &Q) -> Option<V>
        where
            K: Borrow<Q>,
            Q: Hash + Eq + ?Sized,
        {
            self.0.lock().unwrap().get(key).cloned()
        }

        fn remove<Q>(&self, key: &Q) -> Option<V>
        where
            K: Borrow<Q>,
            Q: Hash + Eq + ?Sized,
        {
            self.0.lock().unwrap().remove(key)
        }

        fn insert(&self, key: K, value: V, _: Instant) {
            self.0.lock().unwrap().insert(key, value);
        }
    }

    /// What mail-auth says about each signature of the message, given the published keys.
    async fn verify(records: &[(String, String)], message: &[u8]) -> Vec<bool> {
        let key = |record: &str| Txt::DomainKey(DomainKey::parse(record.as_bytes()).unwrap().into());
        let records = records.iter().map(|(name, record)| (name.as_str().into(), key(record))).collect();
        let cache = Fixed::<Box<str>, Txt>(Mutex::new(records));
        let resolver = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).unwrap();
        let message = AuthenticatedMessage::parse(message).unwrap();
        let parameters = Parameters {
            params: &message,
            cache_txt: Some(&cache),
            cache_mx: None::<&Fixed<Box<str>, RecordSet<MX>>>,
            cache_ptr: None::<&Fixed<IpAddr, RecordSet<Box<str>>>>,
            cache_ipv4: None::<&Fixed<Box<str>, RecordSet<Ipv4Addr>>>,
            cache_ipv6: None::<&Fixed<Box<str>, RecordSet<Ipv6Addr>>>,
        };
        resolver.verify_dkim(parameters).await.iter().map(|output| output.result() == &DkimResult::Pass).collect()
    }

    /// The key of RFC 8463, appendix A.
    fn ed25519() -> SigningKey {
        const PKCS8_START: &str = "302e020100300506032b657004220420";
        let seed = STANDARD.decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
        SigningKey::from_pkcs8_der(&[hex::decode(PKCS8_START).unwrap(), seed].concat()).unwrap()
    }

    fn signer(selector: &str, key: SigningKey) -> Signer {
        Signer::new(Domain::new("football.example.com").unwrap(), selector, key).unwrap()
    }

    fn records(signers: &[Signer]) -> Vec<(String, String)> {
        let name = |signer: &Signer| format!("{}._domainkey.{}.", signer.selector(), signer.domain());
        signers.iter().map(|signer| (name(signer), signer.key().public_key_record())).collect()
    }

    #[tokio::test]
    async fn signatures_verify_until_something_changes() {
        let signers = [Algorithm::RsaSha256, Algorithm::Ed25519Sha256]
            .map(|algorithm| signer(algorithm.key_type(), SigningKey::generate(algorithm).unwrap()));
        let signatures = String::from_utf8(sign(&signers, MESSAGE.as_bytes(), NOW, Some(EXPIRES)).unwrap()).unwrap();
        assert!(signatures.lines().all(|line| line.len() <= 78), "{signatures}");
        let signed = format!("{signatures}{MESSAGE}");
        let records = records(&signers);
        let check = async |message: String, expect: bool| {
            assert_eq!(verify(&records, message.as_bytes()).await, [expect; 2], "{message}");
        };
        check(signed.clone(), true).await;
        // Relaxed: blanks within lines and at the end of the body do not count, nor fields that are not signed.
        check(format!("X-Before: 1\r\n{signed}\r\n\r\n"), true).await;
        check(signed.replace("the \t game.", "the game. "), true).await;
        check(signed.replace("X-Other: x", "X-Other: y"), true).await;
        check(signed.replace("lost", "won"), false).await;
        check(signed.replace("dinner", "lunch"), false).await;
        // Oversigned: nothing can be added, whether the message had such a field or not.
        for added in ["From", "Subject", "To", "Cc", "Date", "Reply-To", "List-Unsubscribe", "List-Unsubscribe-Post"] {
            check(format!("{signatures}{added}: <x@example.org>\r\n{MESSAGE}"), false).await;
            check(format!("{added}: <x@example.org>\r\n{signed}"), false).await;
        }
    }

    #[tokio::test]
    async fn odd_bodies_verify() {
        let signers = [signer("s", SigningKey::generate(Algorithm::Ed25519Sha256).unwrap())];
        let records = records(&signers);
        for body in ["", "\r\n", "\r\n\r\n", "a", " a\r\n", "\r\n\r\na", &"long line ".repeat(20_000)] {
            let message = format!("From: <a@football.example.com>\r\n\r\n{body}");
            let mut signed = sign(&signers, message.as_bytes(), NOW, None).unwrap();
            signed.extend_from_slice(message.as_bytes());
            assert_eq!(verify(&records, &signed).await, [true], "{:?}", &body[..body.len().min(40)]);
        }
    }

    /// Lines of blanks at the end are empty lines (RFC 6376 §3.4.4, first a, then b), though not to mail-auth.
    #[test]
    fn blanks_at_the_end_of_the_body() {
        let check =
            |body: &[u8], same: &[u8]| assert_eq!(body_hash(body).as_ref(), body_hash(same).as_ref(), "{body:?}");
        check(b"a\r\n \t\r\n", b"a\r\n");
        check(b"a \r\n\r\n \r\nb\t", b"a\r\n\r\n\r\nb\r\n");
        check(b" \r\n", b"");
    }

    /// RFC 8463, appendix A.
    #[test]
    fn the_vector_of_rfc_8463() {
        let key = ed25519();
        assert_eq!(key.public_key_record(), "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=");
        let message = b"From: Joe SixPack <joe@football.example.com>\r\n\
            To: Suzie Q <suzie@shopping.example.net>\r\n\
            Subject: Is dinner ready?\r\n\
            Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
            Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n\r\n\
            Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";
        let signature_field = b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
            d=football.example.com; i=@football.example.com;\r\n \
            q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
            subject : date : message-id : from : subject : date;\r\n \
            bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n b=";
        let (fields, body) = split(message);
        assert_eq!(STANDARD.encode(body_hash(body)), "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=");
        let header = header_context(&fields, ["from", "to", "subject", "date", "message-id"].into_iter());
        assert_eq!(
            STANDARD.encode(key.sign(finish(header, signature_field)).unwrap()),
            "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
        );
    }

    #[test]
    fn keys_are_kept_and_read() {
        for algorithm in [Algorithm::RsaSha256, Algorithm::Ed25519Sha256] {
            let key = SigningKey::generate(algorithm).unwrap();
            let der = key.to_pkcs8_der().unwrap();
            let again = SigningKey::from_pkcs8_der(&der).unwrap();
            assert_eq!((again.algorithm(), again.public_key_record()), (algorithm, key.public_key_record()));
            let text = STANDARD.encode(&*der);
            let pem = format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n");
            assert_eq!(SigningKey::from_pem(&pem).unwrap().public_key_record(), key.public_key_record());
        }
        assert_eq!(SigningKey::from_pkcs8_der(b"no key").err(), Some(Error::Key));
        assert_eq!(SigningKey::from_pem("no key").err(), Some(Error::Key));
    }

    #[test]
    fn refusals() {
        let key = || SigningKey::generate(Algorithm::Ed25519Sha256).unwrap();
        let domain = || Domain::new("example.org").unwrap();
        for selector in ["", ".", "a..b", "-a", "a;b", "a b", "\u{e9}", "a\r\n"] {
            assert_eq!(Signer::new(domain(), selector, key()).err(), Some(Error::Selector), "{selector:?}");
        }
        let signers = [Signer::new(domain(), "2026.key_1", key()).unwrap()];
        assert_eq!(sign(&signers, b"To: a@b\r\n\r\nx", NOW, None), Err(Error::NoFrom));
        assert_eq!(sign(&signers, b"", NOW, None), Err(Error::NoFrom));
        assert_eq!(sign(&[], MESSAGE.as_bytes(), NOW, None), Ok(Vec::new()));
    }

    #[test]
    fn zone_lines() {
        assert_eq!(zone_line("s._domainkey.a.", "v=DKIM1; p=x"), "s._domainkey.a. TXT \"v=DKIM1; p=x\"");
        let long = "x".repeat(300);
        let expect = format!("n. TXT ( \"{}\" \"{}\" )", "x".repeat(255), "x".repeat(45));
        assert_eq!(zone_line("n.", &long), expect);
    }

    proptest! {
        /// The submission listener signs what it gets, which may be anything.
        #[test]
        fn never_panics(message in "(From: a@b\r\n)?([ -~\r\n\t:]|\r\n){0,60}") {
            let signers = [signer("s", ed25519())];
            let fields = sign(&signers, message.as_bytes(), NOW, None);
            prop_assert!(fields.is_ok() || !message.starts_with("From:"), "{fields:?}");
        }
    }
}
