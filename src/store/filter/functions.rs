//! SQL functions of filters: exact comparisons of numbers and times, and patterns.
//!
//! A value comes as the JSON text of `metadata -> path`, so that long numbers keep their digits.
//! A result is NULL if the value is missing, or of another type.

use super::pattern::Pattern;
use crate::store::value::number::{self, Number};
use crate::store::value::time::Time;
use crate::store::value::{self, Reading};
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Error, Result};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Defines the functions on a connection.
pub(in crate::store) fn register(conn: &Connection) -> Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8
        | FunctionFlags::SQLITE_DETERMINISTIC
        | FunctionFlags::SQLITE_DIRECTONLY;
    // The order of a number and a literal: -1, 0 or 1.
    conn.create_scalar_function("compare_number", 2, flags, |c| {
        let literal = Number::parse(argument(c, 1).unwrap_or_default());
        let order = |value| Some(compare_number(value, literal?));
        Ok(scalar(c).and_then(order).flatten().map(sign))
    })?;
    // True if a number is in a list, a JSON array of texts.
    conn.create_scalar_function("number_in", 2, flags, |c| {
        let keys = list(c, |text| Number::parse(text).map(Number::key))?;
        let is_in = |value| match Number::parse(value) {
            Some(number) => Some(keys.contains(&number.key())),
            None => number::infinity(value).map(|_| false),
        };
        Ok(scalar(c).and_then(is_in))
    })?;
    // True for a number, and for a text that reads as one.
    conn.create_scalar_function("is_number", 1, flags, |c| {
        Ok(scalar(c).map(|value| Reading::of(value) == Some(Reading::Number)))
    })?;
    // True for a text that reads as a date or time.
    conn.create_scalar_function("is_time", 1, flags, |c| {
        Ok(scalar(c).map(|value| Time::parse(value).is_some()))
    })?;
    conn.create_scalar_function(
        "boolean_of",
        1,
        flags,
        |c| Ok(scalar(c).and_then(value::boolean)),
    )?;
    // The order of a time and a literal. The third argument is true if a time with an offset and
    // one without have no order.
    conn.create_scalar_function("compare_time", 3, flags, |c| {
        let literal = argument(c, 1).and_then(Time::parse);
        let is_strict: bool = c.get(2)?;
        let times = scalar(c).and_then(Time::parse).zip(literal);
        let times = times.filter(|(time, literal)| !is_strict || time.zoned == literal.zoned);
        Ok(times.map(|(time, literal)| sign(time.compare(literal))))
    })?;
    // True if a time is in a list, NULL if it is not and the list has times of the other kind.
    conn.create_scalar_function("time_in", 2, flags, |c| {
        let times = list(c, Time::parse)?;
        let is_in = |time: Time| {
            let comparable = |other: &&Time| other.zoned == time.zoned;
            let is_equal = |other: &Time| other.compare(time) == Ordering::Equal;
            let is_in = times.iter().filter(comparable).any(is_equal);
            (is_in || times.iter().all(|other| comparable(&other))).then_some(is_in)
        };
        Ok(scalar(c).and_then(Time::parse).and_then(is_in))
    })?;
    // True for a time with an offset, false for one without.
    conn.create_scalar_function("is_zoned", 1, flags, |c| {
        Ok(scalar(c).and_then(Time::parse).map(|time| time.zoned))
    })?;
    // True if a text fits a pattern. The third argument is the escape character or NULL, the fourth
    // true if the case of letters does not count.
    conn.create_scalar_function("fits", 4, flags, |c| {
        let pattern = aux(c, 1, |pattern| {
            Ok(Pattern::new(pattern, argument(c, 2).and_then(|e| e.chars().next()), c.get(3)?))
        })?;
        Ok(argument(c, 0).map(|text| pattern.fits(text)))
    })
}

fn compare_number(value: &str, literal: Number<'_>) -> Option<Ordering> {
    match Number::parse(value) {
        Some(number) => Some(number.compare(literal)),
        None => number::infinity(value).map(|sign| sign.cmp(&0)),
    }
}

fn sign(order: Ordering) -> i64 {
    order as i64
}

/// A text argument; `None` for any other.
fn argument<'a>(context: &'a Context<'_>, at: usize) -> Option<&'a str> {
    context.get_raw(at).as_str().ok()
}

/// The first argument, a value as JSON text, without its quotes.
fn scalar<'a>(context: &'a Context<'_>) -> Option<&'a str> {
    let json = argument(context, 0).filter(|json| *json != "null")?;
    Some(json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or(json))
}

/// The second argument, a JSON array of texts, each as `read` has it. It is read once.
fn list<T: Eq + Hash + Send + Sync + 'static>(
    context: &Context<'_>,
    read: impl Fn(&str) -> Option<T>,
) -> Result<Arc<HashSet<T>>> {
    aux(context, 1, |array| {
        let texts: Vec<String> = serde_json::from_str(array).unwrap_or_default();
        Ok(texts.iter().filter_map(|text| read(text)).collect())
    })
}

/// The result of `make` for a text argument, computed once for all rows.
fn aux<T: Send + Sync + 'static>(
    context: &Context<'_>,
    at: usize,
    make: impl FnOnce(&str) -> Result<T>,
) -> Result<Arc<T>> {
    context.get_or_create_aux(at as i32, |value: ValueRef<'_>| -> Result<T, Error> {
        make(value.as_str().unwrap_or_default())
    })
}
