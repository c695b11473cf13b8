//! Times in requests: RFC 3339, as strictly as Go's encoding/json reads them.

use jiff::civil;
use postledger_events::draft::Date;
use postledger_events::time::Timestamp;
use serde::{Serialize, Serializer};

use super::json::{Decode, Decoder, Error, Kind};
use crate::openapi::{Describe, Schema, Schemas};

/// A time of the years 0 to 9999 with the offset that its writer gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    /// Since 1970-01-01T00:00:00Z.
    nanos: i128,
    offset_minutes: i16,
}

impl Time {
    /// `None` if the ledger cannot write it: before 1678 or after 2261.
    pub fn to_date(self) -> Option<Date> {
        let nanos = i64::try_from(self.nanos).ok()?;
        Some(Date { at: Timestamp::from_nanos(nanos), offset_minutes: self.offset_minutes })
    }

    /// The nearest time that the ledger can write.
    pub fn to_timestamp(self) -> Timestamp {
        let clamped = self.nanos.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        Timestamp::from_nanos(i64::try_from(clamped).unwrap_or(i64::MAX))
    }
}

impl<'a> Decode<'a> for Time {
    fn decode(&mut self, from: &mut Decoder<'a>) -> Result<(), Error> {
        match from.kind()? {
            Kind::Null => from.literal("null"),
            Kind::String => {
                let text = from.string()?;
                *self = parse(&text).ok_or_else(|| Error::NoTime(text.chars().take(80).collect()))?;
                Ok(())
            }
            other => Err(other.is_not("a time")),
        }
    }
}

impl Describe for Time {
    fn schema(_: &mut Schemas) -> Schema {
        Schema::text("2026-01-02T03:04:05Z").with("format", "date-time")
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (self.nanos, self.offset_minutes).serialize(to)
    }
}

/// RFC 3339 §5.6, with upper-case letters and seconds below 60.
fn parse(text: &str) -> Option<Time> {
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || marks.iter().any(|&(at, mark)| bytes[at] != mark) {
        return None;
    }
    let (year, month, day) = (number(&bytes[..4])?, number(&bytes[5..7])?, number(&bytes[8..10])?);
    let (hour, minute, second) = (number(&bytes[11..13])?, number(&bytes[14..16])?, number(&bytes[17..19])?);
    let (nanosecond, zone) = fraction(&bytes[19..])?;
    let narrow = |n: i32| i8::try_from(n).ok();
    let date = civil::Date::new(i16::try_from(year).ok()?, narrow(month)?, narrow(day)?).ok()?;
    let time = civil::Time::new(narrow(hour)?, narrow(minute)?, narrow(second)?, nanosecond).ok()?;
    let offset_minutes = offset(zone)?;
    let local = date.to_datetime(time).duration_since(civil::date(1970, 1, 1).to_datetime(civil::Time::midnight()));
    Some(Time { nanos: local.as_nanos() - i128::from(offset_minutes) * 60_000_000_000, offset_minutes })
}

/// Nanoseconds, and what follows them. Digits beyond the ninth are dropped.
fn fraction(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let [b'.', rest @ ..] = bytes else { return Some((0, bytes)) };
    let run = rest.iter().take_while(|b| b.is_ascii_digit()).count();
    if run == 0 {
        return None;
    }
    let digit = |n: usize| rest[..run].get(n).map_or(0, |b| i32::from(b - b'0'));
    Some(((0..9).fold(0, |nanos, n| nanos * 10 + digit(n)), &rest[run..]))
}

/// `Z` or `+hh:mm`, in minutes.
fn offset(zone: &[u8]) -> Option<i16> {
    match zone {
        b"Z" => Some(0),
        [sign @ (b'+' | b'-'), hour @ .., b':', m1, m2] if hour.len() == 2 => {
            let (hour, minute) = (number(hour)?, number(&[*m1, *m2])?);
            if hour > 23 || minute > 59 {
                return None;
            }
            let minutes = i16::try_from(hour * 60 + minute).ok()?;
            Some(if *sign == b'-' { -minutes } else { minutes })
        }
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<i32> {
    digits.iter().try_fold(0, |n, b| b.is_ascii_digit().then(|| n * 10 + i32::from(b - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, expect: Option<(&str, i16)>| {
            let got =
                parse(text).map(|t| (jiff::Timestamp::from_nanosecond(t.nanos).unwrap().to_string(), t.offset_minutes));
            assert_eq!(got.as_ref().map(|(at, offset)| (at.as_str(), *offset)), expect, "{text:?}");
        };
        check("2026-01-02T03:04:05Z", Some(("2026-01-02T03:04:05Z", 0)));
        check("2026-01-02T03:04:05+02:00", Some(("2026-01-02T01:04:05Z", 120)));
        check("2026-01-02T03:04:05.25-03:30", Some(("2026-01-02T06:34:05.25Z", -210)));
        check("2026-01-02T03:04:05.1234567891Z", Some(("2026-01-02T03:04:05.123456789Z", 0)));
        check("0001-01-01T00:00:00Z", Some(("0001-01-01T00:00:00Z", 0)));
        check("yesterday", None);
        check("2026-01-02", None);
        check("2026-01-02 03:04:05Z", None);
        check("2026-01-02t03:04:05z", None);
        check("2026-01-02T03:04:05", None);
        check("2026-01-02T03:04:05.Z", None);
        check("2026-01-02T03:04:60Z", None);
        check("2026-02-30T03:04:05Z", None);
        check("2026-01-02T24:00:00Z", None);
        check("2026-01-02T03:04:05+2:00", None);
        check("2026-01-02T03:04:05+24:00", None);
        check("2026-01-02T03:04:05Zz", None);
        check("2026-01-0éT03:04:05Z", None);
    }

    #[test]
    fn far_times() {
        for far in ["2263-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59"] {
            let far = parse(far).unwrap();
            assert_eq!((far.to_date(), far.to_timestamp()), (None, Timestamp::MAX));
        }
        assert!(parse("0001-01-01T00:00:00Z").unwrap().to_timestamp() < Timestamp::EPOCH);
    }
}
