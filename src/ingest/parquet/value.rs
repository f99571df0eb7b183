//! Values of parquet columns as JSON.
//!
//! Dates and times become ISO 8601 strings with as many digits as the column's unit has, so that
//! strings compare as times do: `2024-05-01`, `2024-05-01T09:30:00.000000Z` (with `Z` where the
//! column is in UTC, without for local times). A decimal of at most 15 digits becomes a number
//! (which gives those digits back), an integral one of at most 18 digits an integer, a wider one a
//! string. NaN, which Pandas writes for a missing number, becomes null; infinity is refused.
//! Binary data is refused unless it is UTF-8.

use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::data_type::Int96;
use parquet::schema::types::ColumnDescriptor;
use serde_json::{Number, Value};

/// A value as the file has it.
pub(super) enum Raw<'a> {
    Bool(bool),
    Int32(i32),
    Int64(i64),
    Int96(&'a Int96),
    Float(f32),
    Double(f64),
    Bytes(&'a [u8]),
}

/// What the values of a column mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Meaning {
    Plain,
    Unsigned { bits: i8 },
    Decimal { precision: usize, scale: usize },
    Date,
    Time(Unit),
    Timestamp(Unit, Zone),
    Half,
    Uuid,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Unit {
    Millis,
    Micros,
    Nanos,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Zone {
    Utc,
    Local,
}

impl Meaning {
    pub(super) fn of(column: &ColumnDescriptor) -> Result<Self, String> {
        if column.physical_type() == Type::FIXED_LEN_BYTE_ARRAY && column.type_length() <= 0 {
            return Err("has values of no length".into());
        }
        if let Some(logical) = column.logical_type_ref() {
            let meaning = match logical {
                LogicalType::Decimal(_) => Self::decimal(column)?,
                LogicalType::Date => Self::Date,
                LogicalType::Time(time) => Self::Time(Unit::of(time.unit)),
                LogicalType::Timestamp(stamp) => {
                    let zone = if stamp.is_adjusted_to_u_t_c { Zone::Utc } else { Zone::Local };
                    Self::Timestamp(Unit::of(stamp.unit), zone)
                }
                LogicalType::Integer(int) if !int.is_signed => {
                    Self::Unsigned { bits: int.bit_width }
                }
                LogicalType::Float16 => Self::Half,
                LogicalType::Uuid => Self::Uuid,
                _ => Self::Plain,
            };
            return Ok(meaning);
        }
        Ok(match column.converted_type() {
            ConvertedType::DECIMAL => Self::decimal(column)?,
            ConvertedType::DATE => Self::Date,
            ConvertedType::TIME_MILLIS => Self::Time(Unit::Millis),
            ConvertedType::TIME_MICROS => Self::Time(Unit::Micros),
            ConvertedType::TIMESTAMP_MILLIS => Self::Timestamp(Unit::Millis, Zone::Utc),
            ConvertedType::TIMESTAMP_MICROS => Self::Timestamp(Unit::Micros, Zone::Utc),
            ConvertedType::UINT_8 => Self::Unsigned { bits: 8 },
            ConvertedType::UINT_16 => Self::Unsigned { bits: 16 },
            ConvertedType::UINT_32 => Self::Unsigned { bits: 32 },
            ConvertedType::UINT_64 => Self::Unsigned { bits: 64 },
            _ => Self::Plain,
        })
    }

    fn decimal(column: &ColumnDescriptor) -> Result<Self, String> {
        let (precision, scale) = (column.type_precision(), column.type_scale());
        let number = |n: i32| usize::try_from(n).ok().filter(|n| *n <= 38);
        match (number(precision), number(scale)) {
            (Some(precision), Some(scale)) if scale <= precision => {
                Ok(Self::Decimal { precision, scale })
            }
            _ => Err(format!("is a decimal of {precision} digits, {scale} behind the point")),
        }
    }

    /// The value as JSON, or why it cannot be one.
    pub(super) fn to_json(self, raw: Raw) -> Result<Value, String> {
        use Meaning as M;
        match (self, raw) {
            (M::Decimal { precision, scale }, Raw::Int32(n)) => {
                decimal(i128::from(n), precision, scale)
            }
            (M::Decimal { precision, scale }, Raw::Int64(n)) => {
                decimal(i128::from(n), precision, scale)
            }
            (M::Decimal { precision, scale }, Raw::Bytes(bytes)) => {
                decimal(big_endian(bytes)?, precision, scale)
            }
            (M::Date, Raw::Int32(days)) => date(i64::from(days)).map(Value::String),
            (M::Time(unit), Raw::Int32(n)) => time(i64::from(n), unit).map(Value::String),
            (M::Time(unit), Raw::Int64(n)) => time(n, unit).map(Value::String),
            (M::Timestamp(unit, zone), Raw::Int64(n)) => {
                timestamp(n, unit, zone).map(Value::String)
            }
            (M::Unsigned { bits: 8 }, Raw::Int32(n)) => Ok(Value::from(n as u8)),
            (M::Unsigned { bits: 16 }, Raw::Int32(n)) => Ok(Value::from(n as u16)),
            (M::Unsigned { .. }, Raw::Int32(n)) => Ok(Value::from(n as u32)),
            (M::Unsigned { .. }, Raw::Int64(n)) => Ok(Value::from(n as u64)),
            (M::Half, Raw::Bytes(&[a, b])) => shortest(half(u16::from_le_bytes([a, b]))),
            (M::Uuid, Raw::Bytes(bytes)) if bytes.len() == 16 => Ok(Value::String(uuid(bytes))),
            (_, Raw::Bool(b)) => Ok(Value::Bool(b)),
            (_, Raw::Int32(n)) => Ok(Value::from(n)),
            (_, Raw::Int64(n)) => Ok(Value::from(n)),
            (_, Raw::Int96(stamp)) => int96(stamp).map(Value::String),
            (_, Raw::Float(n)) => shortest(n),
            (_, Raw::Double(n)) => float(n),
            (_, Raw::Bytes(bytes)) => string(bytes),
        }
    }
}

impl Unit {
    fn of(unit: TimeUnit) -> Self {
        match unit {
            TimeUnit::MILLIS => Self::Millis,
            TimeUnit::MICROS => Self::Micros,
            TimeUnit::NANOS => Self::Nanos,
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::Millis => 3,
            Self::Micros => 6,
            Self::Nanos => 9,
        }
    }

    fn per_second(self) -> i64 {
        match self {
            Self::Millis => 1_000,
            Self::Micros => 1_000_000,
            Self::Nanos => 1_000_000_000,
        }
    }
}

const SECONDS_PER_DAY: i64 = 86_400;

fn string(bytes: &[u8]) -> Result<Value, String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Value::from(text)),
        Err(e) => Err(format!(
            "binary data, or text that is not valid UTF-8 (byte {}): leave the field out with \
             --metadata-fields, or convert it",
            e.valid_up_to() + 1
        )),
    }
}

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

/// IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let magnitude = match (bits >> 10) & 0x1f {
        0 => f32::from(bits & 0x3ff) * 2f32.powi(-24),
        0x1f if bits & 0x3ff == 0 => f32::INFINITY,
        0x1f => f32::NAN,
        exponent => (1.0 + f32::from(bits & 0x3ff) / 1024.0) * 2f32.powi(i32::from(exponent) - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

fn big_endian(bytes: &[u8]) -> Result<i128, String> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let excess = bytes.len().saturating_sub(16);
    let sign_fits = bytes.get(excess).is_none_or(|byte| (byte & 0x80 != 0) == negative);
    if bytes[..excess].iter().any(|byte| *byte != fill) || !sign_fits {
        return Err("a decimal with more than 38 digits".into());
    }
    let mut wide = [fill; 16];
    let bytes = &bytes[excess..];
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

fn uuid(bytes: &[u8]) -> String {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
///
/// Years are counted from March, in cycles of 400 years of 146,097 days, so that the leap day is
/// the last of its year.
fn date(days: i64) -> Result<String, String> {
    /// From 0000-03-01 to 1970-01-01.
    const TO_EPOCH: i64 = 719_468;
    const DAYS_PER_CYCLE: i64 = 146_097;
    let days = days.saturating_add(TO_EPOCH);
    let cycle = days.div_euclid(DAYS_PER_CYCLE);
    let day_of_cycle = days.rem_euclid(DAYS_PER_CYCLE);
    // Every 4 years a leap day, not every 100, but every 400.
    let year_of_cycle = (day_of_cycle - day_of_cycle / 1_460 + day_of_cycle / 36_524
        - day_of_cycle / 146_096)
        / 365;
    let day_of_year =
        day_of_cycle - (365 * year_of_cycle + year_of_cycle / 4 - year_of_cycle / 100);
    // Months from March have 31, 30, 31, 30, 31 days, and again: 153 in five.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = cycle * 400 + year_of_cycle + carry;
    if !(0..=9999).contains(&year) {
        return Err("a date outside the years 0 to 9999".into());
    }
    Ok(format!("{year:04}-{month:02}-{day:02}"))
}

fn time(n: i64, unit: Unit) -> Result<String, String> {
    let seconds = n.div_euclid(unit.per_second());
    if !(0..SECONDS_PER_DAY).contains(&seconds) {
        return Err("a time of day outside 0 to 24 hours".into());
    }
    let (fraction, digits) = (n.rem_euclid(unit.per_second()), unit.digits());
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    Ok(format!("{hours:02}:{minutes:02}:{:02}.{fraction:0digits$}", seconds % 60))
}

fn timestamp(n: i64, unit: Unit, zone: Zone) -> Result<String, String> {
    let per_day = SECONDS_PER_DAY * unit.per_second();
    let date = date(n.div_euclid(per_day))?;
    let time = time(n.rem_euclid(per_day), unit)?;
    let zone = if zone == Zone::Utc { "Z" } else { "" };
    Ok(format!("{date}T{time}{zone}"))
}

/// The old timestamp of twelve bytes: nanoseconds of the day, then the Julian day.
fn int96(stamp: &Int96) -> Result<String, String> {
    const JULIAN_EPOCH: i64 = 2_440_588;
    let [low, high, day] = match stamp.data() {
        [low, high, day] => [*low, *high, *day],
        _ => return Err("a timestamp of unknown length".into()),
    };
    let nanos = (u64::from(high) << 32) | u64::from(low);
    let nanos = i64::try_from(nanos).map_err(|_| "a time of day outside 0 to 24 hours")?;
    let date = date(i64::from(day as i32) - JULIAN_EPOCH)?;
    Ok(format!("{date}T{}", time(nanos, Unit::Nanos)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_known_days_are_right() {
        let cases = [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (11_017, "2000-03-01"),
            (19_782, "2024-02-29"),
            (47_540, "2100-02-28"),
            (47_541, "2100-03-01"),
            (-719_528, "0000-01-01"),
            (2_932_896, "9999-12-31"),
        ];
        for (days, expected) in cases {
            assert_eq!(date(days).as_deref(), Ok(expected), "{days}");
        }
        assert!(date(2_932_897).is_err() && date(-719_529).is_err());
        assert!(date(i64::MAX).is_err() && date(i64::MIN).is_err());
    }

    #[test]
    fn date_every_day_of_eight_centuries_follows_the_one_before() {
        let leap = |y: i64| (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
        let (mut year, mut month, mut day) = (1600, 1, 1);
        for days in -135_140..157_054 {
            assert_eq!(date(days), Ok(format!("{year:04}-{month:02}-{day:02}")));
            let length = match month {
                2 => 28 + i64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (day == length, month) {
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
                (false, _) => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn timestamp_before_the_epoch_counts_forward() {
        let stamp = |n, unit| timestamp(n, unit, Zone::Utc);
        assert_eq!(stamp(-1, Unit::Millis).as_deref(), Ok("1969-12-31T23:59:59.999Z"));
        let nanos = 1_714_555_800_000_000_001;
        assert_eq!(stamp(nanos, Unit::Nanos).as_deref(), Ok("2024-05-01T09:30:00.000000001Z"));
        assert!(stamp(i64::MIN, Unit::Millis).is_err());
        assert!(stamp(i64::MAX, Unit::Micros).is_err());
    }

    #[test]
    fn decimal_keeps_every_digit() {
        assert_eq!(decimal(-5, 5, 2), Ok(Value::from(-0.05)));
        assert_eq!(decimal(123_456, 15, 3), Ok(Value::from(123.456)));
        assert_eq!(decimal(42, 18, 0), Ok(Value::from(42)));
        let wide = decimal(-12_345_678_901_234_567_890, 38, 18);
        assert_eq!(wide, Ok(Value::from("-12.345678901234567890")));
        assert_eq!(decimal(i128::MIN, 38, 0).map(|v| v.is_string()), Ok(true));
    }

    #[test]
    fn big_endian_of_any_length_keeps_the_sign() {
        assert_eq!(big_endian(&[]), Ok(0));
        assert_eq!(big_endian(&[0xff]), Ok(-1));
        assert_eq!(big_endian(&[0x00, 0xff]), Ok(255));
        assert_eq!(big_endian(&[0xff; 20]), Ok(-1));
        assert!(big_endian(&[1; 17]).is_err());
        assert!(big_endian(&[&[0][..], &[0xff; 16]].concat()).is_err());
    }

    #[test]
    fn half_known_values_are_right() {
        let cases = [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 5.960_464_5e-8)];
        for (bits, expected) in cases {
            assert_eq!(half(bits), expected);
        }
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f32::NEG_INFINITY);
        assert_eq!(shortest(0.1), Ok(Value::from(0.1)));
    }
}
