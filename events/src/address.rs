//! Email addresses, parsed once: a value of these types is valid.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

/// Octets of a localpart. RFC 5321 §4.5.3.1.1 has 64; longer ones are in use (VERP, fromid), so 128 as the contract has.
pub const LOCALPART_BYTES_MAX: usize = 128;
/// RFC 5321 §4.5.3.1.2.
pub const DOMAIN_BYTES_MAX: usize = 255;
/// RFC 1035 §2.3.4: a label, and what is left of 255 octets for a name as text.
const LABEL_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 253;

/// The part before the `@`, decoded (without quotes) and in NFC. Holds no control character (RFC 5321 §4.1.2 qtextSMTP,
/// RFC 6531 §3.3), so it can be written into a command line or header in its quoted form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Localpart(String);

impl Localpart {
    /// A decoded localpart (no quotes), as a part of a program has it.
    pub fn new(decoded: &str) -> Result<Localpart, Error> {
        // ASCII is in its normal form already, and most of what records and rows hold is ASCII.
        let nfc: String = if decoded.is_ascii() { decoded.to_owned() } else { decoded.nfc().collect() };
        if nfc.is_empty() {
            return Err(Error::new("invalid localpart: need at least one char for atom"));
        }
        if nfc.len() > LOCALPART_BYTES_MAX {
            return Err(Error::new(format!("invalid localpart: longer than {LOCALPART_BYTES_MAX} octets")));
        }
        if nfc.chars().any(char::is_control) {
            return Err(Error::new("invalid localpart: control characters not allowed"));
        }
        Ok(Localpart(nfc))
    }

    /// Decoded, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_ascii(&self) -> bool {
        self.0.is_ascii()
    }

    /// Before the first of `separators` that occurs, or the whole.
    pub fn base(&self, separators: &[char]) -> &str {
        self.0.split(|c| separators.contains(&c)).next().unwrap_or("")
    }
}

impl fmt::Display for Localpart {
    /// As it stands in an address: quoted where it is no dot-string (RFC 5321 §4.1.2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext)) {
            return f.write_str(&self.0);
        }
        f.write_str("\"")?;
        for c in self.0.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        f.write_str("\"")
    }
}

/// RFC 5322 §3.2.3 atext, with the UTF8-non-ascii of RFC 6531 §3.3.
fn is_atext(c: char) -> bool {
    match u8::try_from(c) {
        Ok(byte) if byte.is_ascii() => ATEXT[usize::from(byte)],
        Ok(_) | Err(_) => !c.is_control(),
    }
}

const ATEXT: [bool; 128] = {
    let (mut atext, mut c) = ([false; 128], 0);
    while c < 128 {
        atext[c as usize] = matches!(c, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-'
            | b'/' | b'=' | b'?' | b'^'..=b'`' | b'{'..=b'~');
        c += 1;
    }
    atext
};

/// A domain name in its ASCII (A-label) form, lower case; or an address literal in brackets (RFC 5321 §4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Domain(String);

impl Domain {
    /// A domain name, in ASCII or Unicode; no trailing dot, no literal.
    pub fn new(name: &str) -> Result<Domain, Error> {
        if name.is_empty() {
            return Err(Error::new("domain is empty"));
        }
        if name.ends_with('.') {
            return Err(Error::new("domain has a trailing dot"));
        }
        if is_plain(name) {
            return Ok(Domain(name.to_owned()));
        }
        let ascii = idna::domain_to_ascii_strict(name)
            .map_err(|_| Error::new(format!("domain {:?} is not a valid (IDNA) domain name", clip(name))))?;
        if ascii.is_empty() || ascii.len() > DOMAIN_BYTES_MAX {
            return Err(Error::new(format!("domain is empty or longer than {DOMAIN_BYTES_MAX} octets")));
        }
        Ok(Domain(ascii))
    }

    /// A domain name or an address literal, `[192.0.2.1]` or `[IPv6:2001:db8::1]`.
    pub fn parse_or_literal(s: &str) -> Result<Domain, Error> {
        let Some(inner) = s.strip_prefix('[').and_then(|s| s.strip_suffix(']')) else {
            return Domain::new(s);
        };
        let six = inner.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
        let literal = if six {
            inner[5..].parse::<std::net::Ipv6Addr>().map(|ip| format!("[IPv6:{ip}]")).ok()
        } else {
            inner.parse::<std::net::Ipv4Addr>().map(|ip| format!("[{ip}]")).ok()
        };
        literal.map(Domain).ok_or_else(|| Error::new(format!("{:?} is not an address literal", clip(s))))
    }

    /// The A-label form or the literal, as it goes over the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The U-label form, for people.
    pub fn to_unicode(&self) -> String {
        if self.is_literal() {
            return self.0.clone();
        }
        match idna::domain_to_unicode(&self.0) {
            (unicode, Ok(())) => unicode,
            (_, Err(_)) => self.0.clone(),
        }
    }

    pub fn is_literal(&self) -> bool {
        self.0.starts_with('[')
    }
}

/// A name that is its own A-label form: labels of lower-case letters and digits, with hyphens inside, though not where those
/// of A-labels stand. Nearly all names are, and records and rows are full of them.
fn is_plain(name: &str) -> bool {
    let is_label = |label: &[u8]| {
        let inner = label.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        let ends = !label.starts_with(b"-") && !label.ends_with(b"-") && label.get(2..4) != Some(b"--");
        (1..=LABEL_BYTES_MAX).contains(&label.len()) && inner && ends
    };
    name.len() <= NAME_BYTES_MAX && name.as_bytes().split(|b| *b == b'.').all(is_label)
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Domain {
    type Err = Error;
    fn from_str(s: &str) -> Result<Domain, Error> {
        Domain::parse_or_literal(s)
    }
}

impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Domain, D::Error> {
        crate::text::parsed(d)
    }
}

/// A mailbox: localpart and domain (RFC 5321 §4.1.2 Mailbox, RFC 6531 §3.3).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    pub localpart: Localpart,
    pub domain: Domain,
}

impl Address {
    pub fn new(localpart: Localpart, domain: Domain) -> Address {
        Address { localpart, domain }
    }

    /// `local@domain` with a domain name: what a person or program gives as an address. No display name, no brackets.
    pub fn parse(s: &str) -> Result<Address, Error> {
        let (localpart, rest) = split(s)?;
        Ok(Address { localpart, domain: Domain::new(rest)? })
    }

    /// Like [`Address::parse`], but an address literal may stand for the domain: what an SMTP envelope may hold.
    pub fn parse_path(s: &str) -> Result<Address, Error> {
        let (localpart, rest) = split(s)?;
        Ok(Address { localpart, domain: Domain::parse_or_literal(rest)? })
    }

    /// Whether sending to it needs SMTPUTF8 (RFC 6531): only a localpart beyond ASCII does; domains have A-labels.
    pub fn needs_smtputf8(&self) -> bool {
        !self.localpart.is_ascii()
    }

    /// As it is displayed, into a text that does not have to grow: rows and records are full of them.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.localpart.0.len() + self.domain.0.len() + 3);
        write!(text, "{self}").expect("a String takes all");
        text
    }

    /// With the domain in Unicode, for people.
    pub fn to_unicode(&self) -> String {
        format!("{}@{}", self.localpart, self.domain.to_unicode())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.localpart.fmt(f)?;
        f.write_str("@")?;
        f.write_str(&self.domain.0)
    }
}

impl FromStr for Address {
    type Err = Error;
    fn from_str(s: &str) -> Result<Address, Error> {
        Address::parse_path(s)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        // Written once; `collect_str` writes it twice where a length comes first.
        s.serialize_str(&self.to_text())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Address, D::Error> {
        crate::text::parsed(d)
    }
}

/// The localpart, and what follows the `@`.
fn split(s: &str) -> Result<(Localpart, &str), Error> {
    let (decoded, rest) = if s.starts_with('"') { quoted_string(s)? } else { dot_string(s)? };
    let rest = rest.strip_prefix('@').ok_or_else(|| Error::new("expected @"))?;
    Ok((Localpart::new(&decoded)?, rest))
}

fn dot_string(s: &str) -> Result<(Cow<'_, str>, &str), Error> {
    let end = s.find('@').unwrap_or(s.len());
    let local = &s[..end];
    if local.is_empty() {
        return Err(Error::new("invalid localpart: need at least one char for atom"));
    }
    for atom in local.split('.') {
        if atom.is_empty() {
            return Err(Error::new("invalid localpart: empty atom between dots"));
        }
        if let Some(c) = atom.chars().find(|&c| !is_atext(c)) {
            let what = if c == ' ' { "expected @".to_owned() } else { format!("invalid localpart: unexpected {c:?}") };
            return Err(Error::new(what));
        }
    }
    Ok((Cow::Borrowed(local), &s[end..]))
}

fn quoted_string(s: &str) -> Result<(Cow<'_, str>, &str), Error> {
    let mut decoded = String::new();
    let mut chars = s.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((Cow::Owned(decoded), &s[at + 1..])),
            // RFC 5321 §4.1.2 quoted-pairSMTP: a backslash and one printable ASCII character or space.
            '\\' => match chars.next() {
                Some((_, q @ ' '..='~')) => decoded.push(q),
                _ => return Err(Error::new("invalid localpart: backslash without a printable character")),
            },
            c if c.is_control() => return Err(Error::new("invalid localpart: control characters not allowed")),
            c => decoded.push(c),
        }
    }
    Err(Error::new("invalid localpart: quoted string without end"))
}

fn clip(s: &str) -> String {
    s.chars().take(80).collect()
}

/// Why a text is not an address; for the person who wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    fn new(why: impl Into<String>) -> Error {
        Error(why.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid email address: {}", self.0)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(input: &str, expect: Result<&str, &str>) {
        let got = Address::parse(input).map(|a| a.to_string()).map_err(|e| e.to_string());
        let expect = expect.map(str::to_owned).map_err(|e| format!("invalid email address: {e}"));
        assert_eq!(got, expect, "{input:?}");
    }

    #[test]
    fn addresses() {
        check("mox@localhost", Ok("mox@localhost"));
        check("Mox+X@LocalHost", Ok("Mox+X@localhost"));
        check("\"a b\"@localhost", Ok("\"a b\"@localhost"));
        check("\"plain\"@localhost", Ok("plain@localhost"));
        check("\"a\\\"b\"@localhost", Ok("\"a\\\"b\"@localhost"));
        check("u\u{308}@bücher.example", Ok("ü@xn--bcher-kva.example"));
        check("mox", Err("expected @"));
        check("bad address", Err("expected @"));
        check("", Err("invalid localpart: need at least one char for atom"));
        check("@x", Err("invalid localpart: need at least one char for atom"));
        check("a..b@x", Err("invalid localpart: empty atom between dots"));
        check("<x@y>", Err("invalid localpart: unexpected '<'"));
        check("a@", Err("domain is empty"));
        check("a@x.", Err("domain has a trailing dot"));
        check("a@b@c", Err("domain \"b@c\" is not a valid (IDNA) domain name"));
        check("mox@[127.0.0.1]", Err("domain \"[127.0.0.1]\" is not a valid (IDNA) domain name"));
        check("a@x\r\nRCPT", Err("domain \"x\\r\\nRCPT\" is not a valid (IDNA) domain name"));
        check("a\r\n@x", Err("invalid localpart: unexpected '\\r'"));
        check("\"a\r\n\"@x", Err("invalid localpart: control characters not allowed"));
    }

    #[test]
    fn atext_is_what_the_rfc_lists() {
        for c in (0..=0x2ff).filter_map(char::from_u32) {
            let listed = c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c);
            assert_eq!(is_atext(c), listed || (c > '\x7f' && !c.is_control()), "{c:?}");
        }
    }

    #[test]
    fn literals_only_in_paths() {
        let literal = |s| Address::parse_path(s).map(|a| a.to_string());
        assert_eq!(literal("a@[127.0.0.1]"), Ok("a@[127.0.0.1]".to_owned()));
        assert_eq!(literal("a@[ipv6:2001:DB8::1]"), Ok("a@[IPv6:2001:db8::1]".to_owned()));
        assert!(literal("a@[x]").is_err());
        assert!(literal("a@[127.0.0.1").is_err());
    }

    proptest! {
        /// A plain name is one that the rules of IDNA would leave as it is.
        #[test]
        fn plain_names_need_no_idna(name in "[a-z0-9.-]{1,12}|[a-z0-9-]{62,64}|([a-z0-9-]{60}\\.){3,5}") {
            if is_plain(&name) {
                prop_assert_eq!(idna::domain_to_ascii_strict(&name).ok(), Some(name));
            }
        }

        #[test]
        fn what_is_printed_parses_back(local in "\\PC{1,30}", domain in "[a-z][a-z0-9]{0,10}(\\.[a-z]{2,5})?") {
            let Ok(localpart) = Localpart::new(&local) else { return Ok(()) };
            let address = Address::new(localpart, Domain::new(&domain).unwrap());
            prop_assert_eq!(Address::parse(&address.to_string()), Ok(address));
        }

        #[test]
        fn nothing_panics_and_no_line_end_survives(s in "\\PC*|[\\x00-\\x7f]{0,40}") {
            if let Ok(a) = Address::parse_path(&s) {
                prop_assert!(!a.to_string().contains(['\r', '\n', '\0']));
            }
        }
    }
}
