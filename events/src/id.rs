//! What facts are about, by name. Every number that a client sees stays below 2^53.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Bits of a numbered id that count within one ledger; the ten bits above them are the ledger's number.
pub const COUNTER_BITS: u32 = 43;
/// Ledgers of one installation.
pub const LEDGERS_MAX: u16 = 1 << 10;

/// Position of a record in the log, from 1; the name of the fact everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    pub const FIRST: Seq = Seq(1);

    pub fn next(self) -> Seq {
        Seq(self.0.saturating_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Seq {
    type Err = std::num::ParseIntError;
    fn from_str(s: &str) -> Result<Seq, Self::Err> {
        s.parse().map(Seq)
    }
}

/// The first number that ledger `ledger` gives out.
pub const fn first_number(ledger: u16) -> u64 {
    ((ledger as u64) << COUNTER_BITS) + 1
}

macro_rules! numbered {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// Eight bytes that sort as the number does.
            pub fn to_key(self) -> [u8; 8] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(s: &str) -> Result<$name, Self::Err> {
                s.parse().map($name)
            }
        }
    )*};
}

numbered! {
    /// One recipient of one submitted message: the contract's QueueMsgID.
    DeliveryId;
    /// A message in a mailbox: the contract's MsgID.
    MsgId;
    /// An entry of a suppression list.
    SuppressionId;
    /// A hold rule.
    HoldRuleId;
    /// A recorded intent that touches more rows than one command may.
    JobId;
    /// A part of history that is told to an endpoint again.
    ReplayId;
    /// A key of the API.
    KeyId;
}

macro_rules! unique {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<$name, Self::Err> {
                s.parse().map($name)
            }
        }
    )*};
}

unique! {
    /// A message, submitted or received, and the name of its stored body. Not its Message-ID header field.
    MessageUuid;
    /// One transaction with a next hop.
    AttemptId;
    /// The ledger itself.
    LedgerId;
    /// The place of a secret's value in the vault.
    SecretId;
}

/// The name of an account: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AccountName(String);

/// The name of a transport, under the same rule as [`AccountName`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct TransportName(String);

/// The name of an endpoint of an account, under the same rule as [`AccountName`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct EndpointName(String);

/// The name of a group of consumers, under the same rule as [`AccountName`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CursorName(String);

/// A mailbox of an account: 1 to 128 characters, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MailboxName(String);

/// The part of a reverse-path that tells one delivery from all others of its account: `[A-Za-z0-9_-]`, 1 to 64.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FromId(String);

/// The name of a DKIM selector: one or more DNS labels (RFC 6376 §3.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Selector(String);

macro_rules! named {
    ($($name:ident $what:literal $rule:expr;)*) => {$(
        impl $name {
            pub fn new(s: &str) -> Result<$name, Invalid> {
                let rule: fn(&str) -> bool = $rule;
                if rule(s) { Ok($name(s.to_owned())) } else { Err(Invalid { what: $what, text: s.chars().take(80).collect() }) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(s: &str) -> Result<$name, Invalid> {
                $name::new(s)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<$name, D::Error> {
                crate::text::parsed(d)
            }
        }
    )*};
}

named! {
    AccountName "an account name (1 to 64 of a-z 0-9 . _ -)" is_plain_name;
    TransportName "a transport name (1 to 64 of a-z 0-9 . _ -)" is_plain_name;
    EndpointName "an endpoint name (1 to 64 of a-z 0-9 . _ -)" is_plain_name;
    CursorName "a cursor name (1 to 64 of a-z 0-9 . _ -)" is_plain_name;
    MailboxName "a mailbox name (1 to 128 characters)"
        |s| (1..=128).contains(&s.chars().count()) && !s.chars().any(char::is_control);
    FromId "a fromid (1 to 64 of A-Z a-z 0-9 _ -)"
        |s| (1..=64).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    Selector "a DKIM selector (labels of a-z 0-9 - with dots between)"
        |s| s.len() <= 63 && s.split('.').all(|l| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
}

impl MailboxName {
    /// Where mail goes that comes in.
    pub fn inbox() -> MailboxName {
        MailboxName("Inbox".to_owned())
    }

    /// Where copies of submitted messages go.
    pub fn sent() -> MailboxName {
        MailboxName("Sent".to_owned())
    }

    /// The mailboxes that every account starts with.
    pub fn initial() -> [MailboxName; 3] {
        [MailboxName::inbox(), MailboxName::sent(), MailboxName("Archive".to_owned())]
    }
}

fn is_plain_name(s: &str) -> bool {
    let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    (1..=64).contains(&s.len()) && s.bytes().all(ok) && s.as_bytes()[0].is_ascii_alphanumeric()
}

/// The text does not name such a thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    what: &'static str,
    text: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not {}", self.text, self.what)
    }
}

impl std::error::Error for Invalid {}

macro_rules! hexadecimal {
    ($($(#[$doc:meta])* $name:ident $bytes:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            fn with_text<T>(&self, work: impl FnOnce(&str) -> T) -> T {
                let mut text = [0u8; $bytes * 2];
                for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
                    pair[0] = DIGITS[usize::from(byte >> 4)];
                    pair[1] = DIGITS[usize::from(byte & 15)];
                }
                work(std::str::from_utf8(&text).expect("hexadecimal digits are ASCII"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.with_text(|text| f.write_str(text))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(s: &str) -> Result<$name, Invalid> {
                let invalid = || Invalid {
                    what: concat!(stringify!($bytes), " bytes in lower-case hexadecimal"),
                    text: s.chars().take(80).collect(),
                };
                let digits: &[u8; $bytes * 2] = s.as_bytes().try_into().map_err(|_| invalid())?;
                let (mut out, mut seen) = ([0u8; $bytes], 0);
                for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
                    let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
                    seen |= high | low;
                    *byte = high << 4 | low;
                }
                if seen > 15 { Err(invalid()) } else { Ok($name(out)) }
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() { self.with_text(|text| s.serialize_str(text)) } else { self.0.serialize(s) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<$name, D::Error> {
                if d.is_human_readable() { crate::text::parsed(d) } else { Deserialize::deserialize(d).map($name) }
            }
        }
    )*};
}

const DIGITS: [u8; 16] = *b"0123456789abcdef";

/// What a lower-case hexadecimal digit stands for; more than 15 for every other byte.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [0xff; 256];
    let mut n = 0;
    while n < 16 {
        nibbles[DIGITS[n] as usize] = n as u8;
        n += 1;
    }
    nibbles
};

hexadecimal! {
    /// A SHA-256.
    Sha256 32;
    /// A pseudonym of one recipient of one account: a keyed hash of the account and the recipient's base address. It lets
    /// suppression and counting go on when the address itself has been forgotten; the key is in the vault.
    RecipientKey 16;
    /// Tells one secret from another without telling anything about it: a keyed hash of the value.
    Fingerprint 8;
}

impl Sha256 {
    pub const ZERO: Sha256 = Sha256([0; 32]);

    pub fn of(bytes: &[u8]) -> Sha256 {
        use sha2::Digest;
        Sha256(sha2::Sha256::digest(bytes).into())
    }
}

/// A secret, as facts and rows name it: where its value is, and which value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRef {
    pub id: SecretId,
    pub fingerprint: Fingerprint,
}

/// Who changed something: the user of the control socket (`unix:root`), the administrator (`admin`), an account's login
/// (`account:mox`), a key (`key:7`), or the program itself (`postledger`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Author(pub String);

impl Author {
    pub fn program() -> Author {
        Author("postledger".to_owned())
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |s: &str, ok: bool| assert_eq!(AccountName::new(s).is_ok(), ok, "{s:?}");
        check("mox", true);
        check("a.b-c_9", true);
        check("", false);
        check(".a", false);
        check("A", false);
        check("a/b", false);
        check(&"a".repeat(65), false);
        assert!(Selector::new("2026a.k1").is_ok());
        assert!(Selector::new("a..b").is_err());
    }

    #[test]
    fn hexadecimal_round_trip() {
        let h = Sha256::of(b"abc");
        assert_eq!(h.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(h.to_string().parse(), Ok(h));
        assert!("BA".parse::<Fingerprint>().is_err());
        assert!("é".repeat(8).parse::<Fingerprint>().is_err());
    }

    #[test]
    fn numbers_stay_below_2_53() {
        assert_eq!(first_number(0), 1);
        assert!(first_number(LEDGERS_MAX - 1) + (1 << COUNTER_BITS) - 2 < 1 << 53);
    }
}
