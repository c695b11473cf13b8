//! What an SMTP server said, kept verbatim: the evidence for every outcome.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Most lines and bytes of one reply that are kept (a peer may send without end).
pub const REPLY_LINES_MAX: usize = 100;
pub const REPLY_BYTES_MAX: usize = 16 * 1024;

/// An SMTP reply (RFC 5321 §4.2). `lines` are the texts behind the code and separator of each line, without line ends and
/// otherwise as received (invalid UTF-8 replaced).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    pub code: u16,
    pub lines: Vec<String>,
}

impl Reply {
    pub fn new(code: u16, text: impl Into<String>) -> Reply {
        Reply { code, lines: vec![text.into()] }
    }

    /// 2yz: positive completion (RFC 5321 §4.2.1).
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 5yz: permanent negative completion.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The enhanced status code at the start of the first line (RFC 2034 §4), if its class agrees with the reply's.
    pub fn enhanced(&self) -> Option<EnhancedCode> {
        let first = self.lines.first()?;
        let code: EnhancedCode = first.split(' ').next()?.parse().ok()?;
        (u16::from(code.class) == self.code / 100).then_some(code)
    }

    /// The texts of all lines with one space between them.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.text())
    }
}

/// An enhanced mail system status code, class.subject.detail (RFC 3463 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EnhancedCode {
    pub class: u8,
    pub subject: u16,
    pub detail: u16,
}

impl EnhancedCode {
    pub const fn new(class: u8, subject: u16, detail: u16) -> EnhancedCode {
        EnhancedCode { class, subject, detail }
    }

    /// Subject and detail without the class, as the contract writes it: `1.1`.
    pub fn without_class(self) -> String {
        format!("{}.{}", self.subject, self.detail)
    }
}

impl fmt::Display for EnhancedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl std::str::FromStr for EnhancedCode {
    type Err = Error;
    fn from_str(s: &str) -> Result<EnhancedCode, Error> {
        fn number(s: Option<&str>) -> Option<u16> {
            let s = s?;
            let digits = (1..=3).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
            if digits { s.parse().ok() } else { None }
        }
        let mut parts = s.split('.');
        let class = match parts.next() {
            Some("2") => 2,
            Some("4") => 4,
            Some("5") => 5,
            _ => return Err(Error),
        };
        let (subject, detail) = (number(parts.next()).ok_or(Error)?, number(parts.next()).ok_or(Error)?);
        if parts.next().is_some() { Err(Error) } else { Ok(EnhancedCode { class, subject, detail }) }
    }
}

impl Serialize for EnhancedCode {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnhancedCode {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<EnhancedCode, D::Error> {
        crate::text::parsed(d)
    }
}

/// The text is not an enhanced status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an enhanced status code such as 5.1.1")
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enhanced_codes() {
        let check = |code: u16, text: &str, expect: Option<&str>| {
            let got = Reply::new(code, text).enhanced().map(|e| e.to_string());
            assert_eq!(got.as_deref(), expect, "{code} {text}");
        };
        check(550, "5.1.1 no such user", Some("5.1.1"));
        check(550, "5.1.1", Some("5.1.1"));
        check(450, "5.1.1 class differs", None);
        check(550, "5.1 short", None);
        check(550, "5.1.1.1 long", None);
        check(550, "5.1234.1 digits", None);
        check(550, "no code", None);
    }
}
