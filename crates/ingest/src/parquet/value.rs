//! Values of parquet columns as JSON.
//!
//! The type of a column decides what its values become, before the first row is read. Columns
//! whose bytes have no known meaning, or none that JSON can hold, are left out.
//!
//! - Dates, times and timestamps become ISO 8601 strings with as many digits as the column's unit
//!   has, so that strings compare as times do: `2024-05-01T09:30:00.000000Z`. `Z` stands only where
//!   the column is in UTC. Intervals become `P1M3D`.
//! - A decimal becomes a number if the number gives its digits back, else a string (decimal.rs).
//! - A float becomes the shortest number that reads back as the float.
//! - JSON becomes the value that it describes.
//! - A value that JSON cannot hold becomes null or text; [`Substitute`] has the reason.

use half::f16;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::data_type::{ByteArray, Int96};
use parquet::schema::types::ColumnDescriptor;
use serde_json::{Number, Value};

use super::substitute::Substitute;
use super::{decimal, time};
use crate::json;
use crate::notes::NON_FINITE;

const NOT_UTF8: &str = "text that is not valid UTF-8";

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
    /// Numbers, truth values and INT96 timestamps as stored.
    Plain,
    Text,
    Json,
    /// JSON that stays text, unless it is a string.
    JsonText,
    Unsigned(i8),
    /// Precision and scale.
    Decimal(usize, usize),
    Date,
    Time(TimeUnit),
    /// Unit, and true for UTC, false for local time.
    Timestamp(TimeUnit, bool),
    Interval,
    Half,
    Uuid,
}

/// The purpose that a column is read for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ColumnUse {
    /// Id, text or title.
    Role,
    /// Metadata that the user named.
    Chosen,
    Metadata,
}

impl ColumnType {
    /// The type of a column by its annotations, or the reason that it cannot be read.
    ///
    /// Old writers leave out the annotation of text. Bytes without one are taken for text where
    /// the user or the column's role says so.
    pub(super) fn of(column: &ColumnDescriptor, purpose: ColumnUse) -> Result<Self, String> {
        use ConvertedType as C;
        use LogicalType as L;
        let physical = column.physical_type();
        let is_bytes = matches!(physical, Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY);
        if physical == Type::FIXED_LEN_BYTE_ARRAY && column.type_length() <= 0 {
            return Err("its values have no length".into());
        }
        Ok(match (column.logical_type_ref(), column.converted_type()) {
            (Some(L::Decimal(_)), _) | (None, C::DECIMAL) => {
                let (precision, scale) = (column.type_precision(), column.type_scale());
                match (usize::try_from(precision), usize::try_from(scale)) {
                    (Ok(p), Ok(s)) if s <= p && p <= MAX_DIGITS => Self::Decimal(p, s),
                    _ => Err(format!(
                        "it is a decimal of precision {precision} and scale {scale}; cast it to \
                         DECIMAL(38, s) or text"
                    ))?,
                }
            }
            (Some(L::Date), _) | (None, C::DATE) => Self::Date,
            (Some(L::Time(time)), _) => Self::Time(time.unit),
            (Some(L::Timestamp(t)), _) => Self::Timestamp(t.unit, t.is_adjusted_to_u_t_c),
            (Some(L::Integer(int)), _) if !int.is_signed => Self::Unsigned(int.bit_width),
            (Some(L::Integer(_)), _) => Self::Plain,
            (Some(L::Float16), _) => Self::Half,
            (Some(L::Uuid), _) => Self::Uuid,
            (Some(L::String | L::Enum), _) | (None, C::UTF8 | C::ENUM) => Self::Text,
            (Some(L::Json), _) | (None, C::JSON) if purpose == ColumnUse::Role => Self::JsonText,
            (Some(L::Json), _) | (None, C::JSON) => Self::Json,
            (None, C::INTERVAL) if column.type_length() == 12 => Self::Interval,
            (None, C::TIME_MILLIS) => Self::Time(TimeUnit::MILLIS),
            (None, C::TIME_MICROS) => Self::Time(TimeUnit::MICROS),
            (None, C::TIMESTAMP_MILLIS) => Self::Timestamp(TimeUnit::MILLIS, true),
            (None, C::TIMESTAMP_MICROS) => Self::Timestamp(TimeUnit::MICROS, true),
            (None, C::UINT_8) => Self::Unsigned(8),
            (None, C::UINT_16) => Self::Unsigned(16),
            (None, C::UINT_32) => Self::Unsigned(32),
            (None, C::UINT_64) => Self::Unsigned(64),
            // A column of nulls.
            (Some(L::Unknown), _) => Self::Text,
            (Some(L::Bson), _) | (None, C::BSON) => Err(cast("BSON", "JSON"))?,
            (Some(L::Geometry(_)), _) => Err(cast("GEOMETRY (WKB)", "text (WKT, GeoJSON)"))?,
            (Some(L::Geography(_)), _) => Err(cast("GEOGRAPHY (WKB)", "text (WKT, GeoJSON)"))?,
            (Some(_), _) => Err(unknown_type())?,
            (None, _) if physical == Type::BYTE_ARRAY && purpose != ColumnUse::Metadata => {
                Self::Text
            }
            (None, _) if physical == Type::BYTE_ARRAY => {
                Err("it is binary, BYTE_ARRAY without an annotation (if it holds text, choose it \
                 with --metadata-fields, or write it as a string)")?
            }
            (None, _) if is_bytes => Err(format!(
                "it is binary, FIXED_LEN_BYTE_ARRAY({}) without an annotation, such as a 128-bit \
                 or 256-bit integer or an address (cast it to DECIMAL or text)",
                column.type_length()
            ))?,
            (None, _) => Self::Plain,
        })
    }

    /// The value as JSON, or what stands in its place.
    pub(super) fn to_json(self, raw: &RawValue) -> Result<Value, Substitute> {
        match raw {
            RawValue::Bool(b) => Ok(Value::Bool(*b)),
            RawValue::Int(n) => self.integer(*n),
            RawValue::Int96(stamp) => time::int96(stamp),
            RawValue::Float(n) => shortest(*n),
            RawValue::Double(n) => float(*n),
            RawValue::Bytes(bytes) => self.bytes(bytes.data()),
        }
    }

    fn integer(self, n: i64) -> Result<Value, Substitute> {
        match self {
            Self::Decimal(precision, scale) => decimal::of_integer(n, precision, scale),
            Self::Date => time::date(n),
            Self::Time(unit) => time::time_of_day(n, unit),
            Self::Timestamp(unit, is_utc) => time::timestamp(n, unit, is_utc),
            Self::Unsigned(8) => Ok(Value::from(n as u8)),
            Self::Unsigned(16) => Ok(Value::from(n as u16)),
            Self::Unsigned(32) => Ok(Value::from(n as u32)),
            Self::Unsigned(_) => Ok(Value::from(n as u64)),
            _ => Ok(Value::from(n)),
        }
    }

    fn bytes(self, bytes: &[u8]) -> Result<Value, Substitute> {
        match (self, bytes) {
            (Self::Decimal(precision, scale), _) => decimal::of_bytes(bytes, precision, scale),
            (Self::Half, &[a, b]) => shortest(f16::from_le_bytes([a, b]).to_f32()),
            (Self::Uuid, _) if bytes.len() == 16 => {
                let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
                Ok(Value::String(parts.join("-")))
            }
            (Self::Interval, _) => match bytes.try_into() {
                Ok(bytes) => Ok(time::interval(bytes)),
                Err(_) => Err(Substitute::null("intervals of a wrong length")),
            },
            (Self::Json, _) => parsed(text(bytes)?),
            (Self::JsonText, _) => match parsed(text(bytes)?) {
                Ok(Value::String(text)) => Ok(Value::String(text)),
                _ => text(bytes).map(Value::from),
            },
            _ => text(bytes).map(Value::from),
        }
    }
}

/// Digits of the largest integer of 256 bits.
const MAX_DIGITS: usize = 77;

/// The reason that a type is left out, and the remedy.
pub(super) fn cast(from: &str, to: &str) -> String {
    format!("it is of the type {from}, which has no JSON form: cast it to {to} to keep it")
}

/// The reason that a column of a newer type is left out.
pub(super) fn unknown_type() -> String {
    "it is of a type that is not known here: cast it to a number or text to keep it".into()
}

fn float(n: f64) -> Result<Value, Substitute> {
    Number::from_f64(n).map(Value::Number).ok_or_else(|| Substitute::null(NON_FINITE))
}

/// The number with the fewest digits that is this `f32`: 0.1, not 0.10000000149011612.
fn shortest(n: f32) -> Result<Value, Substitute> {
    float(n.to_string().parse().unwrap_or(f64::from(n)))
}

fn text(bytes: &[u8]) -> Result<&str, Substitute> {
    std::str::from_utf8(bytes).map_err(|error| Substitute {
        detail: format!(" (byte {})", error.valid_up_to() + 1),
        ..Substitute::null(NOT_UTF8)
    })
}

/// The value that a JSON text describes.
fn parsed(text: &str) -> Result<Value, Substitute> {
    match json::parse_line(text) {
        Ok((value, non_finite)) if non_finite.is_empty() => Ok(value),
        Ok((value, _)) => Err(Substitute { value, ..Substitute::null(NON_FINITE) }),
        Err(_) => Err(Substitute::text(
            text.to_owned(),
            "text that is not valid JSON, or has a key twice in one object",
        )),
    }
}
