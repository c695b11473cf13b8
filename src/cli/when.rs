//! Times and durations as people type them: `2026-01-02T03:04:05Z`, `-1h`, `+30m`; `90s`, `1d12h`.

use std::str::FromStr;
use std::time::Duration;

use postledger_events::id::Seq;
use postledger_events::time::Timestamp;

/// A time, or how far it is from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    At(Timestamp),
    Ago(Duration),
    Ahead(Duration),
}

impl When {
    pub fn resolve(self, now: Timestamp) -> Timestamp {
        match self {
            When::At(at) => at,
            When::Ago(duration) => now - duration,
            When::Ahead(duration) => now + duration,
        }
    }
}

impl FromStr for When {
    type Err = String;
    fn from_str(s: &str) -> Result<When, String> {
        if let Some(ago) = s.strip_prefix('-') {
            return Ok(When::Ago(ago.parse::<Span>()?.0));
        }
        if let Some(ahead) = s.strip_prefix('+') {
            return Ok(When::Ahead(ahead.parse::<Span>()?.0));
        }
        s.parse().map(When::At).map_err(|_| {
            format!("{s:?} is not a time such as 2026-01-02T03:04:05Z, -1h (an hour ago) or +30m (in half an hour)")
        })
    }
}

/// A record, by its number or by when it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Record(Seq),
    Time(When),
}

impl FromStr for Place {
    type Err = String;
    fn from_str(s: &str) -> Result<Place, String> {
        match s.parse() {
            Ok(seq) => Ok(Place::Record(Seq(seq))),
            Err(_) => s.parse().map(Place::Time).map_err(|e| format!("{e}, and it is no number of a record")),
        }
    }
}

/// A duration: whole numbers with `s`, `m`, `h`, `d` or `w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;
    fn from_str(s: &str) -> Result<Span, String> {
        let invalid = || format!("{s:?} is not a duration such as 90s, 30m, 1d12h or 2w");
        let (mut seconds, mut rest) = (0u64, s);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
            let unit_s: u64 = match rest.as_bytes()[digits] {
                b's' => 1,
                b'm' => 60,
                b'h' => 3600,
                b'd' => 24 * 3600,
                b'w' => 7 * 24 * 3600,
                _ => return Err(invalid()),
            };
            let count: u64 = rest[..digits].parse().map_err(|_| invalid())?;
            let part = count.checked_mul(unit_s).ok_or_else(invalid)?;
            seconds = seconds.checked_add(part).ok_or_else(invalid)?;
            rest = &rest[digits + 1..];
        }
        if s.is_empty() { Err(invalid()) } else { Ok(Span(Duration::from_secs(seconds))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |s: &str, expect: Option<i64>| {
            let got = s.parse::<When>().ok().map(|when| when.resolve(Timestamp::from_secs(1_000_000)).as_secs());
            assert_eq!(got, expect, "{s:?}");
        };
        check("1970-01-01T00:00:07Z", Some(7));
        check("1970-01-01T02:00:07+02:00", Some(7));
        check("-1h", Some(1_000_000 - 3600));
        check("+30m", Some(1_000_000 + 1800));
        check("+1d12h", Some(1_000_000 + 36 * 3600));
        check("-0s", Some(1_000_000));
        check("-", None);
        check("1h", None);
        check("-1", None);
        check("-1x", None);
        check("-h", None);
        check("-1é", None);
        check("+99999999999999999999s", None);
        check("+9999999999999999999w", None);
        check("yesterday", None);
    }

    #[test]
    fn durations() {
        let check = |s: &str, expect: Option<u64>| {
            assert_eq!(s.parse::<Span>().ok().map(|span| span.0.as_secs()), expect, "{s:?}");
        };
        check("90s", Some(90));
        check("2w", Some(14 * 24 * 3600));
        check("", None);
        check("-1h", None);
        check("1.5h", None);
    }
}
