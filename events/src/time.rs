//! Points in time, as the ledger writes them.
//!
//! A [`Timestamp`] only ever comes in as an argument: this crate has no clock.

mod written;

use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Nanoseconds since 1970-01-01T00:00:00Z. Written as RFC 3339 in UTC with nine digits, so that text sorts as time does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    pub const EPOCH: Timestamp = Timestamp(0);
    pub const MAX: Timestamp = Timestamp(i64::MAX);

    pub const fn from_nanos(nanos: i64) -> Timestamp {
        Timestamp(nanos)
    }

    pub const fn from_secs(secs: i64) -> Timestamp {
        Timestamp(secs.saturating_mul(NANOS_PER_SECOND))
    }

    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(NANOS_PER_SECOND)
    }

    /// How long `self` is after `earlier`; zero if it is not.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Eight bytes that sort as time does, for keys. Times before 1970 sort as 1970.
    pub fn to_key(self) -> [u8; 8] {
        u64::try_from(self.0).unwrap_or(0).to_be_bytes()
    }

    pub fn from_key(key: [u8; 8]) -> Timestamp {
        Timestamp(i64::try_from(u64::from_be_bytes(key)).unwrap_or(i64::MAX))
    }

    fn to_jiff(self) -> jiff::Timestamp {
        // Every i64 of nanoseconds (the years 1677 to 2262) is within jiff's range.
        jiff::Timestamp::from_nanosecond(i128::from(self.0)).expect("within jiff's range")
    }

    /// The date-time of RFC 5322 §3.3 in UTC, without the optional day of week: `2 Jan 2026 03:04:05 +0000`.
    pub fn to_rfc5322(self) -> String {
        self.to_jiff().strftime("%-d %b %Y %H:%M:%S +0000").to_string()
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;
    fn add(self, d: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Timestamp;
    fn sub(self, d: Duration) -> Timestamp {
        Timestamp(self.0.saturating_sub(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(written::text(&mut written::buffer(), self.0))
    }
}

impl FromStr for Timestamp {
    type Err = Error;
    /// Any RFC 3339 date-time with an offset.
    fn from_str(s: &str) -> Result<Timestamp, Error> {
        if let Some(nanos) = written::parse(s) {
            return Ok(Timestamp(nanos));
        }
        let t: jiff::Timestamp = s.parse().map_err(|_| Error(s.chars().take(64).collect()))?;
        i64::try_from(t.as_nanosecond()).map(Timestamp).map_err(|_| Error(s.to_owned()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            s.serialize_str(written::text(&mut written::buffer(), self.0))
        } else {
            self.0.serialize(s)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Timestamp, D::Error> {
        if d.is_human_readable() { crate::text::parsed(d) } else { i64::deserialize(d).map(Timestamp) }
    }
}

/// The text is not an RFC 3339 date-time with an offset, or lies outside the years 1678 to 2262.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a time such as 2026-01-02T03:04:05Z", self.0)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_digits_always() {
        let check = |nanos: i64, text: &str| {
            let t = Timestamp::from_nanos(nanos);
            assert_eq!(t.to_string(), text);
            assert_eq!(text.parse(), Ok(t));
        };
        check(0, "1970-01-01T00:00:00.000000000Z");
        check(1_767_323_045_678_901_234, "2026-01-02T03:04:05.678901234Z");
        check(1_767_323_045_000_000_000, "2026-01-02T03:04:05.000000000Z");
    }

    #[test]
    fn offsets_are_read() {
        let t: Timestamp = "2026-01-02T05:04:05+02:00".parse().unwrap();
        assert_eq!(t.to_string(), "2026-01-02T03:04:05.000000000Z");
        assert_eq!(t.to_rfc5322(), "2 Jan 2026 03:04:05 +0000");
        assert!("yesterday".parse::<Timestamp>().is_err());
    }
}
