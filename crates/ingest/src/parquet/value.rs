//! Values of parquet columns as JSON.
//!
//! - Dates, times and timestamps become ISO 8601 strings with as many digits as the column's unit
//!   has, so that strings compare as times do: `2024-05-01T09:30:00.000000Z`. `Z` stands only where
//!   the column is in UTC.
//! - A decimal of at most 15 digits becomes a number, which gives these digits back. One of at most
//!   18 digits without a fraction becomes an integer, a wider one a string.
//! - A float becomes the shortest number that reads back as the float. NaN, which Pandas writes for
//!   a missing number, becomes null. Infinity is an error.
//! - Bytes become a string if they are UTF-8. Other binary data is an error.

use chrono::{DateTime, Datelike, Utc};
use half::f16;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::data_type::{ByteArray, Int96};
use parquet::schema::types::ColumnDescriptor;
use serde_json::{Number, Value};

/// A value as the file stores it.
#[derive(Debug)]
pub(super) enum RawValue {
    Bool(bool),
    Int(i64),
    Int96(Int96),
    Float(f32),
    Double(f64),
    Bytes(ByteArray),
}

/// The meaning of a column's values.
#[derive(Debug, Clone, Copy)]
pub(super) enum ColumnType {
    /// As stored.
    Plain,
    Unsigned(i8),
    /// Precision and scale.
    Decimal(usize, usize),
    Date,
    Time(TimeUnit),
    /// Unit, and true for UTC, false for local time.
    Timestamp(TimeUnit, bool),
    Half,
    Uuid,
}

impl ColumnType {
    /// The type of a column by its annotations, or the reason that it cannot be read.
    pub(super) fn of(column: &ColumnDescriptor) -> Result<Self, String> {
        use ConvertedType as C;
        use LogicalType as L;
        if column.physical_type() == Type::FIXED_LEN_BYTE_ARRAY && column.type_length() <= 0 {
            return Err("has values of no length".into());
        }
        Ok(match (column.logical_type_ref(), column.converted_type()) {
            (Some(L::Decimal(_)), _) | (None, C::DECIMAL) => {
                let (precision, scale) = (column.type_precision(), column.type_scale());
                let number = |n: i32| usize::try_from(n).ok().filter(|n| *n <= 38);
                match (number(precision), number(scale)) {
                    (Some(p), Some(s)) if s <= p => Self::Decimal(p, s),
                    _ => Err(format!("is a decimal of precision {precision} and scale {scale}"))?,
                }
            }
            (Some(L::Date), _) | (None, C::DATE) => Self::Date,
            (Some(L::Time(time)), _) => Self::Time(time.unit),
            (Some(L::Timestamp(t)), _) => Self::Timestamp(t.unit, t.is_adjusted_to_u_t_c),
            (Some(L::Integer(int)), _) if !int.is_signed => Self::Unsigned(int.bit_width),
            (Some(L::Float16), _) => Self::Half,
            (Some(L::Uuid), _) => Self::Uuid,
            (Some(_), _) => Self::Plain,
            (None, C::TIME_MILLIS) => Self::Time(TimeUnit::MILLIS),
            (None, C::TIME_MICROS) => Self::Time(TimeUnit::MICROS),
            (None, C::TIMESTAMP_MILLIS) => Self::Timestamp(TimeUnit::MILLIS, true),
            (None, C::TIMESTAMP_MICROS) => Self::Timestamp(TimeUnit::MICROS, true),
            (None, C::UINT_8) => Self::Unsigned(8),
            (None, C::UINT_16) => Self::Unsigned(16),
            (None, C::UINT_32) => Self::Unsigned(32),
            (None, C::UINT_64) => Self::Unsigned(64),
            (None, _) => Self::Plain,
        })
    }

    /// The value as JSON, or the reason that it has no JSON form.
    pub(super) fn to_json(self, raw: &RawValue) -> Result<Value, String> {
        match raw {
            RawValue::Bool(b) => Ok(Value::Bool(*b)),
            RawValue::Int(n) => self.integer(*n),
            RawValue::Int96(stamp) => int96(stamp),
            RawValue::Float(n) => shortest(*n),
            RawValue::Double(n) => float(*n),
            RawValue::Bytes(bytes) => self.bytes(bytes.data()),
        }
    }

    fn integer(self, n: i64) -> Result<Value, String> {
        match self {
            Self::Decimal(precision, scale) => decimal(i128::from(n), precision, scale),
            Self::Date => format_instant(n.saturating_mul(SECONDS_PER_DAY), 0, "%Y-%m-%d"),
            Self::Time(unit) => {
                let (per_second, format) = unit_format(unit);
                check_time_of_day(n.div_euclid(per_second))?;
                format_number(n, per_second, format)
            }
            Self::Timestamp(unit, is_utc) => {
                let (per_second, format) = unit_format(unit);
                let zone = if is_utc { "Z" } else { "" };
                format_number(n, per_second, &format!("%Y-%m-%dT{format}{zone}"))
            }
            Self::Unsigned(8) => Ok(Value::from(n as u8)),
            Self::Unsigned(16) => Ok(Value::from(n as u16)),
            Self::Unsigned(32) => Ok(Value::from(n as u32)),
            Self::Unsigned(_) => Ok(Value::from(n as u64)),
            _ => Ok(Value::from(n)),
        }
    }

    fn bytes(self, bytes: &[u8]) -> Result<Value, String> {
        match (self, bytes) {
            (Self::Decimal(precision, scale), _) => decimal(big_endian(bytes)?, precision, scale),
            (Self::Half, &[a, b]) => shortest(f16::from_le_bytes([a, b]).to_f32()),
            (Self::Uuid, _) if bytes.len() == 16 => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
                Ok(Value::String(parts.join("-")))
            }
            _ => std::str::from_utf8(bytes).map(Value::from).map_err(|e| {
                format!(
                    "binary data, or text that is not valid UTF-8 (byte {}): leave the field out \
                     with --metadata-fields, or convert it",
                    e.valid_up_to() + 1
                )
            }),
        }
    }
}

const SECONDS_PER_DAY: i64 = 86_400;

fn float(n: f64) -> Result<Value, String> {
    if n.is_nan() {
        return Ok(Value::Null);
    }
    Number::from_f64(n).map(Value::Number).ok_or_else(|| "is infinite".into())
}

/// The number with the fewest digits that is this `f32`: 0.1, not 0.10000000149011612.
fn shortest(n: f32) -> Result<Value, String> {
    float(n.to_string().parse().unwrap_or(f64::from(n)))
}

/// An integer in two's complement of any length.
fn big_endian(bytes: &[u8]) -> Result<i128, String> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let (excess, bytes) = bytes.split_at(bytes.len().saturating_sub(16));
    let sign_fits = bytes.first().is_none_or(|byte| (byte & 0x80 != 0) == negative);
    if excess.iter().any(|byte| *byte != fill) || !sign_fits {
        return Err("a decimal with more than 38 digits".into());
    }
    let mut wide = [fill; 16];
    wide[16 - bytes.len()..].copy_from_slice(bytes);
    Ok(i128::from_be_bytes(wide))
}

fn decimal(unscaled: i128, precision: usize, scale: usize) -> Result<Value, String> {
    if scale == 0
        && precision <= 18
        && let Ok(integer) = i64::try_from(unscaled)
    {
        return Ok(Value::from(integer));
    }
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    let text = format!("{sign}{whole}{point}{fraction}");
    match text.parse() {
        Ok(number) if precision <= 15 => float(number),
        _ => Ok(Value::String(text)),
    }
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
fn format_number(n: i64, per_second: i64, format: &str) -> Result<Value, String> {
    let nanos = n.rem_euclid(per_second) * (1_000_000_000 / per_second);
    format_instant(n.div_euclid(per_second), nanos, format)
}

/// Formats an instant in the proleptic Gregorian calendar.
fn format_instant(seconds: i64, nanos: i64, format: &str) -> Result<Value, String> {
    DateTime::<Utc>::from_timestamp(seconds, nanos as u32)
        .filter(|instant| (0..=9999).contains(&instant.year()))
        .map(|instant| Value::String(instant.format(format).to_string()))
        .ok_or_else(|| "a date outside the years 0 to 9999".into())
}

fn check_time_of_day(seconds: i64) -> Result<(), String> {
    match (0..SECONDS_PER_DAY).contains(&seconds) {
        true => Ok(()),
        false => Err("a time of day outside 0 to 24 hours".into()),
    }
}

/// Formats the old timestamp of twelve bytes: nanoseconds of the day, then the Julian day.
fn int96(stamp: &Int96) -> Result<Value, String> {
    const JULIAN_EPOCH: i64 = 2_440_588;
    let &[low, high, day] = stamp.data() else {
        return Err("a timestamp of unknown length".into());
    };
    let nanos = (i64::from(high) << 32) | i64::from(low);
    let (per_second, format) = unit_format(TimeUnit::NANOS);
    check_time_of_day(nanos.div_euclid(per_second))?;
    let midnight = (i64::from(day as i32) - JULIAN_EPOCH) * SECONDS_PER_DAY;
    let seconds = midnight + nanos / per_second;
    format_instant(seconds, nanos % per_second, &format!("%Y-%m-%dT{format}"))
}
