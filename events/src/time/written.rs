//! The one form that times have in records and rows, `2026-01-02T03:04:05.678901234Z`, written and read without a detour:
//! every record and row has several.

use super::NANOS_PER_SECOND;

/// Length of the text.
const BYTES: usize = 30;
/// What stands between the digits.
const MARKS: [(usize, u8); 7] = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (29, b'Z')];
const SECONDS_PER_DAY: i64 = 86_400;
/// Of the Gregorian calendar, which repeats itself after 400 years.
const DAYS_PER_ERA: i64 = 146_097;
/// From 1 March of the year 0 to 1 January 1970.
const DAYS_TO_EPOCH: i64 = 719_468;

pub(super) fn buffer() -> [u8; BYTES] {
    [0; BYTES]
}

/// The nanoseconds since 1970 as text, in `buffer`.
pub(super) fn text(buffer: &mut [u8; BYTES], nanos: i64) -> &str {
    let (seconds, fraction) = (nanos.div_euclid(NANOS_PER_SECOND), nanos.rem_euclid(NANOS_PER_SECOND));
    let (days, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    let (year, month, day) = date(days);
    put(&mut buffer[0..4], year);
    put(&mut buffer[5..7], month);
    put(&mut buffer[8..10], day);
    put(&mut buffer[11..13], second / 3600);
    put(&mut buffer[14..16], second / 60 % 60);
    put(&mut buffer[17..19], second % 60);
    put(&mut buffer[20..29], fraction);
    for (at, mark) in MARKS {
        buffer[at] = mark;
    }
    std::str::from_utf8(buffer).expect("digits and marks are ASCII")
}

/// Only what [`text`] writes; `None` for all else, right or wrong.
pub(super) fn parse(text: &str) -> Option<i64> {
    let bytes: &[u8; BYTES] = text.as_bytes().try_into().ok()?;
    if MARKS.iter().any(|(at, mark)| bytes[*at] != *mark) {
        return None;
    }
    let (year, month, day) = (number(&bytes[0..4])?, number(&bytes[5..7])?, number(&bytes[8..10])?);
    let (hour, minute, second) = (number(&bytes[11..13])?, number(&bytes[14..16])?, number(&bytes[17..19])?);
    let days = days(year, month, day);
    // A date that is none, such as 30 February, comes back as another one.
    if hour > 23 || minute > 59 || second > 59 || date(days) != (year, month, day) {
        return None;
    }
    let seconds = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    // The first second of the range begins before it.
    i64::try_from(i128::from(seconds) * i128::from(NANOS_PER_SECOND) + i128::from(number(&bytes[20..29])?)).ok()
}

/// Year, month and day so many days after 1970. Years begin in March here, so that the leap day is their last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + DAYS_TO_EPOCH;
    let (era, day) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// The other way round.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let month = if month > 2 { month - 3 } else { month + 9 };
    let day = (153 * month + 2) / 5 + day - 1;
    era * DAYS_PER_ERA + year * 365 + year / 4 - year / 100 + day - DAYS_TO_EPOCH
}

fn put(place: &mut [u8], mut number: i64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).expect("one digit");
        number /= 10;
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn other(nanos: i64) -> String {
        format!("{:.9}", jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap())
    }

    fn check(nanos: i64) {
        assert_eq!(text(&mut buffer(), nanos), other(nanos));
        assert_eq!(parse(&other(nanos)), Some(nanos));
    }

    #[test]
    fn borders() {
        [0, -1, 1, i64::MIN, i64::MAX, 951_782_400_000_000_000, 951_868_799_999_999_999].into_iter().for_each(check);
    }

    #[test]
    fn what_is_no_date_is_not_read() {
        for text in
            ["2026-02-30T00:00:00.000000000Z", "2025-02-29T00:00:00.000000000Z", "2026-13-01T00:00:00.000000000Z"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        for text in ["2026-01-01T24:00:00.000000000Z", "9999-01-01T00:00:00.000000000Z", "2026-01-01T00:00:00Z", ""] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn as_another_library_has_it(nanos in any::<i64>()) {
            check(nanos);
        }
    }
}
