//! Readings of metadata texts: numbers, booleans, dates and times that are written as text.
//!
//! Csv has no types, and writers of other formats store decimals and times as text. The field
//! catalogue counts the reading of every text, so that a field whose texts all read as numbers, or
//! all as times, is compared as such. The text itself stays as it was.

pub(super) mod number;
pub(super) mod time;

use number::Number;
use time::Time;

/// The way in which a text can be compared other than as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// A number of any length: see [`Number`].
    Number,
    /// `true` or `false` in any case.
    Boolean,
    /// A calendar date without a time.
    Date,
    /// A date and a time without an offset from UTC.
    NaiveTime,
    /// A date and a time with an offset from UTC.
    ZonedTime,
}

impl Reading {
    /// Reads a text; `None` if it is only text.
    pub(super) fn of(text: &str) -> Option<Self> {
        // The longest readings are numbers of many digits.
        if text.is_empty() || text.len() > number::MAX_LEN {
            return None;
        }
        if let Some(time) = Time::parse(text) {
            return Some(match (time.zoned, time.is_date) {
                (true, _) => Self::ZonedTime,
                (false, true) => Self::Date,
                (false, false) => Self::NaiveTime,
            });
        }
        if boolean(text).is_some() {
            return Some(Self::Boolean);
        }
        (Number::parse(text).is_some() || number::is_special(text)).then_some(Self::Number)
    }
}

/// The boolean that a text spells, in any case.
pub(super) fn boolean(text: &str) -> Option<bool> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if is("true") { Some(true) } else { is("false").then_some(false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_takes_canonical_numbers_truth_values_and_times_and_leaves_the_rest() {
        use Reading::{Boolean, Date, NaiveTime, Number, ZonedTime};
        for (text, expected) in [
            ("19.90", Some(Number)),
            ("-0", Some(Number)),
            ("1e-05", Some(Number)),
            ("1E+300", Some(Number)),
            ("12345678901234567890123456789012345678", Some(Number)),
            ("inf", Some(Number)),
            ("-Infinity", Some(Number)),
            ("nan", Some(Number)),
            ("02139", None),
            ("1.", None),
            (".5", None),
            ("+5", None),
            ("1,000", None),
            ("0x10", None),
            ("1.2.3", None),
            ("1e", None),
            ("", None),
            (" 1", None),
            ("True", Some(Boolean)),
            ("FALSE", Some(Boolean)),
            ("yes", None),
            ("2024-02-29", Some(Date)),
            ("2023-02-29", None),
            ("2024-13-01", None),
            ("2024-1-2", None),
            ("20240102", Some(Number)),
            ("2024-01-02T03:04:05", Some(NaiveTime)),
            ("2024-01-02 03:04", Some(NaiveTime)),
            ("2024-01-02 03:04:05.123456789", Some(NaiveTime)),
            ("2024-01-02 24:00:00", Some(NaiveTime)),
            ("2024-01-02 24:00:01", None),
            ("2024-01-02 25:00", None),
            ("2024-01-02T03:04:05Z", Some(ZonedTime)),
            ("2024-01-02 03:04:05+00", Some(ZonedTime)),
            ("2024-01-02 03:04:05 UTC", Some(ZonedTime)),
            ("2024-01-02T03:04:05.5-0530", Some(ZonedTime)),
            ("2024-01-02T03:04:05+05:30", Some(ZonedTime)),
            ("2024-01-02T03:04:05+25:00", None),
            ("2024-01-02Z", None),
        ] {
            assert_eq!(Reading::of(text), expected, "{text}");
        }
    }
}
