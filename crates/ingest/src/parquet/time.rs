//! Dates, times of day, timestamps and intervals as ISO 8601 texts.

use chrono::{DateTime, Datelike, Utc};
use parquet::basic::TimeUnit;
use parquet::data_type::Int96;
use serde_json::Value;

use super::substitute::Substitute;

const SECONDS_PER_DAY: i64 = 86_400;

const INFINITE: &str = "an infinite date or timestamp, which JSON cannot hold";
const OUTSIDE_YEARS: &str = "dates outside the years 0 to 9999";
const OUTSIDE_DAY: &str = "times of day outside 0 to 24 hours";
const MIDNIGHT: &str = "the time of day 24:00, which is the next day's 00:00";

/// The date of a number of days since 1970-01-01. DuckDB's infinities are the largest number and
/// its opposite.
pub(super) fn date(days: i64) -> Result<Value, Substitute> {
    if days.abs() == i64::from(i32::MAX) {
        return Err(Substitute::null(INFINITE));
    }
    instant(days.saturating_mul(SECONDS_PER_DAY), 0, "%Y-%m-%d")
}

/// The time of day of a number of units since midnight.
pub(super) fn time_of_day(n: i64, unit: TimeUnit) -> Result<Value, Substitute> {
    let (per_second, format) = unit_format(unit);
    if n == SECONDS_PER_DAY * per_second {
        let midnight = match instant(0, 0, format)? {
            Value::String(text) => text.replacen("00", "24", 1),
            other => other.to_string(),
        };
        return Err(Substitute::text(midnight, MIDNIGHT));
    }
    check_time_of_day(n.div_euclid(per_second))?;
    in_units(n, per_second, format)
}

/// The timestamp of a number of units since 1970-01-01, with `Z` if it is in UTC.
pub(super) fn timestamp(n: i64, unit: TimeUnit, is_utc: bool) -> Result<Value, Substitute> {
    if n == i64::MAX || n == -i64::MAX {
        return Err(Substitute::null(INFINITE));
    }
    let (per_second, format) = unit_format(unit);
    let zone = if is_utc { "Z" } else { "" };
    in_units(n, per_second, &format!("%Y-%m-%dT{format}{zone}"))
}

/// The old timestamp of twelve bytes: nanoseconds of the day, then the Julian day.
pub(super) fn int96(stamp: &Int96) -> Result<Value, Substitute> {
    const JULIAN_EPOCH: i64 = 2_440_588;
    let &[low, high, day] = stamp.data() else {
        return Err(Substitute::null("timestamps of unknown length"));
    };
    let nanos = (i64::from(high) << 32) | i64::from(low);
    let (per_second, format) = unit_format(TimeUnit::NANOS);
    check_time_of_day(nanos.div_euclid(per_second))?;
    let midnight = (i64::from(day as i32) - JULIAN_EPOCH) * SECONDS_PER_DAY;
    let seconds = midnight + nanos / per_second;
    instant(seconds, nanos % per_second, &format!("%Y-%m-%dT{format}"))
}

/// The interval of three little-endian numbers: months, days and milliseconds.
pub(super) fn interval(bytes: &[u8; 12]) -> Value {
    let number = |at: usize| {
        let bytes = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        u32::from_le_bytes(bytes)
    };
    let (months, days, millis) = (number(0), number(4), number(8));
    let part = |n: u32, unit: &str| if n == 0 { String::new() } else { format!("{n}{unit}") };
    let date = part(months / 12, "Y") + &part(months % 12, "M") + &part(days, "D");
    let (minutes, seconds) = (millis / 60_000, f64::from(millis % 60_000) / 1000.0);
    let seconds = if seconds == 0.0 { String::new() } else { format!("{seconds}S") };
    let time = part(minutes / 60, "H") + &part(minutes % 60, "M") + &seconds;
    Value::String(match (date.is_empty(), time.is_empty()) {
        (true, true) => "PT0S".into(),
        (_, true) => format!("P{date}"),
        (_, false) => format!("P{date}T{time}"),
    })
}

/// Returns the parts of a second, and the format of a time of day.
fn unit_format(unit: TimeUnit) -> (i64, &'static str) {
    match unit {
        TimeUnit::MILLIS => (1_000, "%H:%M:%S%.3f"),
        TimeUnit::MICROS => (1_000_000, "%H:%M:%S%.6f"),
        TimeUnit::NANOS => (1_000_000_000, "%H:%M:%S%.9f"),
    }
}

/// Formats an instant, given in parts of a second since 1970-01-01.
fn in_units(n: i64, per_second: i64, format: &str) -> Result<Value, Substitute> {
    let nanos = n.rem_euclid(per_second) * (1_000_000_000 / per_second);
    instant(n.div_euclid(per_second), nanos, format)
}

/// Formats an instant in the proleptic Gregorian calendar. Years of more or less than four digits
/// have a sign, as ISO 8601 has it.
fn instant(seconds: i64, nanos: i64, format: &str) -> Result<Value, Substitute> {
    let Some(instant) = DateTime::<Utc>::from_timestamp(seconds, nanos as u32) else {
        return Err(Substitute::null(OUTSIDE_YEARS));
    };
    let text = instant.format(format).to_string();
    match instant.year() {
        0..=9999 => Ok(Value::String(text)),
        _ => Err(Substitute::text(text, OUTSIDE_YEARS)),
    }
}

fn check_time_of_day(seconds: i64) -> Result<(), Substitute> {
    match (0..SECONDS_PER_DAY).contains(&seconds) {
        true => Ok(()),
        false => Err(Substitute::null(OUTSIDE_DAY)),
    }
}
