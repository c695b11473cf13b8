//! JSON as Go's encoding/json writes it: mox's receivers compare and sign its bytes.

use std::io;

use postledger_events::draft::Date;
use postledger_events::time::Timestamp;
use serde::{Serialize, Serializer};
use serde_json::ser::{Formatter, Serializer as Writer};

pub fn write(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1024);
    let mut writer = Writer::with_formatter(&mut bytes, Go);
    value.serialize(&mut writer).expect("bodies have string keys only, and memory takes all bytes");
    bytes
}

/// Escapes also what has a meaning in HTML and JavaScript.
struct Go;

impl Formatter for Go {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, to: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            let (plain, special) = rest.split_at(at);
            let mut chars = special.chars();
            let special = chars.next().map_or(0, u32::from);
            to.write_all(plain.as_bytes())?;
            write!(to, "\\u{special:04x}")?;
            rest = chars.as_str();
        }
        to.write_all(rest.as_bytes())
    }
}

/// RFC 3339 with only the digits of a second that are not 0 at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time(String);

impl Time {
    pub fn utc(at: Timestamp) -> Time {
        let text = at.to_string();
        Time(format!("{}Z", short(&text)))
    }

    pub fn of(date: Date) -> Time {
        let (offset, minutes) = (date.offset_minutes, date.offset_minutes.unsigned_abs());
        if offset == 0 {
            return Time::utc(date.at);
        }
        let shift = std::time::Duration::from_secs(u64::from(minutes) * 60);
        let local = if offset > 0 { date.at + shift } else { date.at - shift }.to_string();
        let sign = if offset > 0 { '+' } else { '-' };
        Time(format!("{}{sign}{:02}:{:02}", short(&local), minutes / 60, minutes % 60))
    }
}

fn short(utc: &str) -> &str {
    utc.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.')
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |text: &str, expect: &str| assert_eq!(String::from_utf8(write(&text)).unwrap(), expect, "{text:?}");
        check("<a@b>&", r#""\u003ca@b\u003e\u0026""#);
        check("\u{2028}x\u{2029}", r#""\u2028x\u2029""#);
        check("é☺\"\\/", r#""é☺\"\\/""#);
        check("\u{0}\u{1}\u{8}\u{c}\n\r\t\u{1f}\u{7f}", "\"\\u0000\\u0001\\b\\f\\n\\r\\t\\u001f\u{7f}\"");
    }

    #[test]
    fn times() {
        let check = |nanos: i64, offset_minutes: i16, expect: &str| {
            let at = Timestamp::from_nanos(1_767_323_045_000_000_000 + nanos);
            assert_eq!(Time::of(Date { at, offset_minutes }), Time(expect.to_owned()));
        };
        check(0, 0, "2026-01-02T03:04:05Z");
        check(120_000_000, 0, "2026-01-02T03:04:05.12Z");
        check(1, 0, "2026-01-02T03:04:05.000000001Z");
        check(0, 120, "2026-01-02T05:04:05+02:00");
        check(0, -210, "2026-01-01T23:34:05-03:30");
        let midnight = Timestamp::from_secs(1_767_312_000);
        assert_eq!(Time::utc(midnight), Time("2026-01-02T00:00:00Z".to_owned()));
    }
}
