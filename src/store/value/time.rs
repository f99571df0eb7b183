//! Dates and times in ISO 8601's notation, as databases and data frames write them.

use std::cmp::Ordering;

/// A point in time. With an offset it is brought to UTC; without one it stays as it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::store) struct Time {
    /// Seconds since 1970-01-01 00:00:00.
    seconds: i64,
    nanoseconds: u32,
    /// True if it was written with an offset from UTC.
    pub(in crate::store) zoned: bool,
    /// True if it was written without a time of day, which is midnight then.
    pub(in crate::store) is_date: bool,
}

impl Time {
    /// Reads `YYYY-MM-DD`, or that with a time: `T` or a blank, `HH:MM`, perhaps `:SS` and a
    /// fraction of up to nine digits, perhaps an offset (`Z`, ` UTC`, `+HH`, `+HHMM`, `+HH:MM`).
    pub(in crate::store) fn parse(text: &str) -> Option<Self> {
        let mut rest = text.as_bytes();
        // Most texts are not times, and end here.
        if rest.len() < 10 || rest[4] != b'-' || rest[7] != b'-' {
            return None;
        }
        let year = number(&mut rest, 4)?;
        sign(&mut rest, b"-")?;
        let month = number(&mut rest, 2)?;
        sign(&mut rest, b"-")?;
        let day = number(&mut rest, 2)?;
        if !(1..=12).contains(&month) || !(1..=days_of_month(year, month)).contains(&day) {
            return None;
        }
        let midnight = days_since_1970(year, month, day) * 86_400;
        if rest.is_empty() {
            return Some(Self { seconds: midnight, nanoseconds: 0, zoned: false, is_date: true });
        }
        sign(&mut rest, b"Tt ")?;
        let hour = number(&mut rest, 2)?;
        sign(&mut rest, b":")?;
        let minute = number(&mut rest, 2)?;
        let (mut second, mut nanoseconds) = (0, 0);
        if sign(&mut rest, b":").is_some() {
            second = number(&mut rest, 2)?;
            if sign(&mut rest, b".").is_some() {
                let n = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                if n == 0 || n > 9 {
                    return None;
                }
                nanoseconds = number(&mut rest, n)? as u32 * 10u32.pow(9 - n as u32);
            }
        }
        let of_day = hour * 3600 + minute * 60 + second;
        // 24:00 is the end of the day.
        if minute > 59 || second > 59 || of_day > 86_400 || (of_day == 86_400 && nanoseconds > 0) {
            return None;
        }
        let offset = offset(rest)?;
        let seconds = midnight + of_day - offset.unwrap_or(0);
        Some(Self { seconds, nanoseconds, zoned: offset.is_some(), is_date: false })
    }

    /// Compares points in time. One without an offset counts as UTC beside one with an offset.
    pub(in crate::store) fn compare(self, other: Self) -> Ordering {
        (self.seconds, self.nanoseconds).cmp(&(other.seconds, other.nanoseconds))
    }
}

/// Reads the offset from UTC in seconds, all that is left: `Some(None)` if there is none.
#[expect(clippy::option_option, reason = "a missing offset is not a wrong one")]
fn offset(mut rest: &[u8]) -> Option<Option<i64>> {
    if rest.is_empty() {
        return Some(None);
    }
    if matches!(rest, b"Z" | b"z" | b" UTC" | b"UTC") {
        return Some(Some(0));
    }
    let is_west = rest[0] == b'-';
    sign(&mut rest, b"+-")?;
    let hours = number(&mut rest, 2)?;
    let mut minutes = 0;
    if !rest.is_empty() {
        let _ = sign(&mut rest, b":");
        minutes = number(&mut rest, 2)?;
    }
    let seconds = hours * 3600 + minutes * 60;
    (rest.is_empty() && hours <= 18 && minutes < 60).then_some(Some(if is_west {
        -seconds
    } else {
        seconds
    }))
}

/// Takes `n` digits.
fn number(rest: &mut &[u8], n: usize) -> Option<i64> {
    let digits = rest.get(..n)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    *rest = &rest[n..];
    Some(digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
}

/// Takes one of these characters.
fn sign(rest: &mut &[u8], any: &[u8]) -> Option<()> {
    let (first, behind) = rest.split_first()?;
    any.contains(first).then(|| *rest = behind)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date in the Gregorian calendar. Years begin in March here, so that
/// the leap day is the last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Time {
        Time::parse(text).unwrap_or_else(|| panic!("{text} is a time"))
    }

    #[test]
    fn times_count_seconds_of_the_unix_epoch() {
        for (text, seconds) in [
            ("1970-01-01", 0),
            ("1969-12-31T23:59:59Z", -1),
            ("2000-02-29 12:00", 951_825_600),
            ("2024-05-01T11:30:00+02:00", 1_714_555_800),
            ("2038-01-19 03:14:08", 2_147_483_648),
            ("0001-01-01", -62_135_596_800),
            ("9999-12-31T24:00:00", 253_402_300_800),
        ] {
            assert_eq!(time(text).seconds, seconds, "{text}");
        }
    }

    #[test]
    fn times_of_one_instant_are_equal_in_any_notation() {
        let instant = [
            "2024-01-02T12:00:00Z",
            "2024-01-02 12:00:00.000000+00:00",
            "2024-01-02T12:00 UTC",
            "2024-01-02T07:00:00-05",
            "2024-01-02T17:30:00+0530",
        ];
        for other in instant {
            assert_eq!(time(instant[0]).compare(time(other)), Ordering::Equal, "{other}");
        }
        let (a, b) = (time("2024-01-02T12:00:00.1"), time("2024-01-02 12:00:00.100000001"));
        assert_eq!(a.compare(b), Ordering::Less);
    }
}
