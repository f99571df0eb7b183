//! Literals of a filter: texts, numbers, booleans and times.

use super::shorten;
use crate::store::value::number::Number;
use crate::store::value::time::Time;
use rusqlite::types::Value as Bound;
use sqlparser::ast::{DataType, Expr, TypedString, UnaryOperator, Value, ValueWithSpan};

/// A value that a field is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Text(String),
    /// A number as [`Number`] reads it, with all of its digits.
    Number(String),
    Boolean(bool),
    /// `DATE '...'` or `TIMESTAMP '...'`.
    Time(String),
}

impl Literal {
    /// Reads a literal, or gives the reason why an expression is none.
    pub(super) fn of(expr: &Expr) -> Result<Self, String> {
        match expr {
            Expr::Nested(inner) => Self::of(inner),
            Expr::Value(value) => match &value.value {
                Value::SingleQuotedString(text) => Ok(Self::Text(text.clone())),
                Value::Boolean(b) => Ok(Self::Boolean(*b)),
                Value::Number(text, _) => {
                    let number = canonical(text);
                    let fail = || format!("`{text}` is not a number that can be compared");
                    Number::parse(&number).ok_or_else(fail)?;
                    Ok(Self::Number(number))
                }
                Value::Null => Err("compare with NULL through IS NULL or IS NOT NULL".to_owned()),
                other => Err(format!("`{other}` is not a value that a filter takes")),
            },
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match Self::of(expr)? {
                Self::Number(text) => Ok(Self::Number(match text.strip_prefix('-') {
                    Some(positive) => positive.to_owned(),
                    None => format!("-{text}"),
                })),
                _ => Err(format!("`-{expr}` is not a number")),
            },
            Expr::TypedString(TypedString { data_type, value, .. }) => typed(data_type, value),
            Expr::Identifier(name) => Err(format!(
                "'{}' stands where a value is expected; texts go in single quotes",
                name.value
            )),
            other => Err(format!("`{}` is not a plain value", shorten(&other.to_string(), 120))),
        }
    }

    /// The type, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Text(_) => "text",
            Self::Number(_) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::Time(_) => "a time",
        }
    }

    /// The parameter for SQLite. A number that SQLite cannot hold exactly is none.
    pub(super) fn bound(&self) -> Option<Bound> {
        match self {
            Self::Text(text) | Self::Time(text) => Some(Bound::Text(text.clone())),
            Self::Boolean(b) => Some(Bound::Integer(i64::from(*b))),
            Self::Number(text) => match text.parse() {
                Ok(integer) => Some(Bound::Integer(integer)),
                Err(_) if Number::parse(text)?.fits_float() => text.parse().ok().map(Bound::Real),
                Err(_) => None,
            },
        }
    }

    /// The literal as it is read in a field of numbers: a text may be one in quotes.
    pub(super) fn as_number(&self) -> Option<&str> {
        let (Self::Number(text) | Self::Text(text)) = self else { return None };
        Number::parse(text).map(|_| text.as_str())
    }

    /// The literal as it is read in a field of times.
    pub(super) fn as_time(&self) -> Option<(&str, Time)> {
        let (Self::Time(text) | Self::Text(text)) = self else { return None };
        Time::parse(text).map(|time| (text.as_str(), time))
    }
}

/// `DATE '...'` and `TIMESTAMP '...'`.
fn typed(data_type: &DataType, value: &ValueWithSpan) -> Result<Literal, String> {
    let Value::SingleQuotedString(text) = &value.value else {
        return Err(format!("`{data_type} {value}` needs a text in single quotes"));
    };
    let time = Time::parse(text);
    let is_right = match data_type {
        DataType::Date => time.is_some_and(|time| time.is_date),
        DataType::Timestamp(..) | DataType::Datetime(_) => time.is_some(),
        _ => {
            return Err(format!(
                "`{data_type} {value}` is not a value that a filter takes: DATE and TIMESTAMP are"
            ));
        }
    };
    match is_right {
        true => Ok(Literal::Time(text.clone())),
        false => Err(format!(
            "`{data_type} {value}` is none: write DATE '2024-01-31' or TIMESTAMP '2024-01-31 \
             12:00:00'"
        )),
    }
}

/// A number of SQL in JSON's notation: SQL allows `.5`, `5.` and `007`.
fn canonical(text: &str) -> String {
    let trimmed = text.trim_start_matches('0');
    let mut number = match trimmed.starts_with(|c: char| c.is_ascii_digit()) {
        true => trimmed.to_owned(),
        false => format!("0{trimmed}"),
    };
    if let Some(point) = number.find('.')
        && !number[point + 1..].starts_with(|c: char| c.is_ascii_digit())
    {
        number.insert(point + 1, '0');
    }
    number
}
