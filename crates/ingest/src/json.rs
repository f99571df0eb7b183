//! Strict JSON: a key that appears twice in one object is an error. Numbers that JSON lacks.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Parses one line, or returns what is wrong with it and in which column.
///
/// Objects keep their order. Nesting deeper than 127 levels is an error. The numbers that JSON
/// lacks become null: `NaN`, `Infinity` and `-Infinity`, as DuckDB and Python's `json` write them.
/// Returns the names of the line's fields that have some, each with their number. An integer of
/// more than 64 bits becomes text, which keeps its digits.
pub(crate) fn parse_line(line: &str) -> Result<(Value, BTreeMap<String, u64>), String> {
    let error = match parse_exactly(line) {
        Ok(value) => return Ok((value, BTreeMap::new())),
        Err(error) => error,
    };
    if !NON_FINITE_WORDS.iter().any(|word| line.contains(word)) {
        return Err(described(&error, line, &[]));
    }
    let (finite, longer, fields) = without_non_finite(line);
    match parse_exactly(&finite) {
        Ok(value) => Ok((value, fields)),
        Err(error) => Err(described(&error, &finite, &longer)),
    }
}

/// True for text that is the start of a JSON value, and not all of it. False if it ends inside a
/// string, which has no line breaks.
pub(crate) fn is_cut(text: &str) -> bool {
    let is_inside = |error: serde_json::Error| {
        error.is_eof() && !error.to_string().starts_with("EOF while parsing a string")
    };
    parse_strictly(text).is_err_and(is_inside)
}

/// A cell of a table as metadata: an empty one is null, and one that is written exactly as JSON
/// writes that number is a number.
pub(crate) fn typed(cell: String) -> Value {
    if cell.is_empty() {
        return Value::Null;
    }
    let number = cell
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'-' | b'.'))
        .then(|| serde_json::from_str::<Number>(&cell).ok())
        .flatten()
        .filter(|number| number.to_string() == cell);
    number.map_or(Value::String(cell), Value::Number)
}

/// Parses with integers of more than 64 bits as text. The error is that of `text` itself.
fn parse_exactly(text: &str) -> serde_json::Result<Value> {
    match with_long_integers_as_text(text).as_deref().map(parse_strictly) {
        Some(Ok(value)) => Ok(value),
        _ => parse_strictly(text),
    }
}

/// The text with quotes around integers of more than 64 bits; `None` if there are none.
fn with_long_integers_as_text(text: &str) -> Option<String> {
    /// Integers of fewer digits have at most 64 bits.
    const MIN_DIGITS: usize = 19;
    let mut digits = 0;
    let is_long = |byte: &u8| {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        digits >= MIN_DIGITS
    };
    if !text.as_bytes().iter().any(is_long) {
        return None;
    }
    let mut exact = String::with_capacity(text.len() + 8);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_number = |b: &u8| b.is_ascii_digit() || b"+-.eE".contains(b);
        let length = match c {
            '"' => string_length(rest),
            '-' | '0'..='9' => rest.bytes().take_while(is_number).count(),
            c => c.len_utf8(),
        };
        let token = &rest[..length];
        let digits = token.strip_prefix('-').unwrap_or(token);
        let is_integer = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        let is_long = is_integer && digits.len() >= MIN_DIGITS;
        match is_long && token.parse::<u64>().is_err() && token.parse::<i64>().is_err() {
            true => exact.push_str(&format!("\"{token}\"")),
            false => exact.push_str(token),
        }
        rest = &rest[length..];
    }
    Some(exact)
}

fn parse_strictly(text: &str) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The message for an error in `text`. Behind each of the columns `longer`, the text has one byte
/// more than the file.
fn described(error: &serde_json::Error, text: &str, longer: &[usize]) -> String {
    let message = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&position).unwrap_or(&message);
    let column = |at: usize| at - longer.iter().filter(|column| **column < at).count();
    if message.contains("hex escape")
        && let Some((escape, at)) = lone_surrogate(text)
    {
        return format!(
            "not valid JSON: {escape} is half of a surrogate pair without the other half (column \
             {}): write the character itself, or \\ufffd for one that is lost",
            column(at)
        );
    }
    let line = match error.line() {
        0 | 1 => String::new(),
        line => format!("line {line} of the record, "),
    };
    format!("not valid JSON: {message} ({line}column {})", column(error.column()))
}

/// The first escape of a surrogate without its other half, and its column, from 1.
fn lone_surrogate(text: &str) -> Option<(&str, usize)> {
    let unit = |at: usize| {
        let escape = text.get(at..at + 6)?;
        u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
    };
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        at += match (bytes[at], unit(at)) {
            (b'\\', Some(0xd800..=0xdbff)) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => 12,
            (b'\\', Some(0xd800..=0xdfff)) => return Some((&text[at..at + 6], at + 1)),
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    None
}

const NON_FINITE_WORDS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];

/// Puts null in the place of the numbers that JSON lacks. Returns the text, the columns behind
/// which it is one byte longer, and the fields of the outermost object with their numbers of nulls.
fn without_non_finite(line: &str) -> (String, Vec<usize>, BTreeMap<String, u64>) {
    let (mut text, mut longer) = (String::with_capacity(line.len() + 16), Vec::new());
    let mut fields: BTreeMap<String, u64> = BTreeMap::new();
    let (mut depth, mut name, mut last_string) = (0usize, "", "");
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        let is_inside_word = text.ends_with(|c: char| c.is_alphanumeric() || "+-._".contains(c));
        let word = NON_FINITE_WORDS.iter().find(|word| {
            let behind = rest.strip_prefix(**word);
            !is_inside_word && behind.is_some_and(|b| !b.starts_with(|c: char| c.is_alphanumeric()))
        });
        if let Some(word) = word {
            text.push_str(&format!("{:width$}", "null", width = word.len()));
            if word.len() < "null".len() {
                longer.push(text.len());
            }
            let name = serde_json::from_str(name).unwrap_or_else(|_| name.to_owned());
            *fields.entry(name).or_default() += 1;
            rest = &rest[word.len()..];
            continue;
        }
        let length = if c == '"' { string_length(rest) } else { c.len_utf8() };
        match c {
            '"' => last_string = &rest[..length],
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ':' if depth == 1 => name = last_string,
            _ => {}
        }
        text.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    (text, longer, fields)
}

/// The length of the string at the start of `text`, with its quotes, in bytes.
fn string_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The type of a value for messages: `a number`.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($visit:ident: $scalar:ty),+) => {$(
        fn $visit<E: de::Error>(self, value: $scalar) -> Result<Value, E> {
            Ok(Value::from(value))
        }
    )+};
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    scalars!(visit_bool: bool, visit_u64: u64, visit_i64: i64, visit_f64: f64, visit_str: &str);

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(Strict)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                let key = crate::message::shown(&key);
                return Err(de::Error::custom(format!("the key '{key}' appears twice")));
            }
            let value = entries.next_value_seed(Strict)?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_that_json_lacks_become_null() {
        let line = r#"{"id":"NaN","a":NaN,"b\n":[-Infinity,{"c": Infinity }],"d":1}"#;
        let (value, fields) = parse_line(line).expect("JSON");
        assert_eq!(value, json!({"id": "NaN", "a": null, "b\n": [null, {"c": null}], "d": 1}));
        assert_eq!(fields, BTreeMap::from([("a".to_owned(), 1), ("b\n".to_owned(), 2)]));
        let (_, fields) = parse_line(r#"{"a":"\"NaN","b":1}"#).expect("JSON");
        assert_eq!(fields, BTreeMap::new());
        for wrong in ["{\"a\":-NaN}", "{\"a\":NaNs}", "{\"a\":xNaN}", "{\"a\":nan}", "{NaN:1}"] {
            assert!(parse_line(wrong).is_err(), "{wrong}");
        }
        // The column is that of the file.
        let error = parse_line(r#"{"a":NaN,"b":Infinity,"c":x}"#).expect_err("an error");
        assert_eq!(error, "not valid JSON: expected value (column 27)");
    }

    #[test]
    fn integers_keep_their_digits() {
        let line = r#"{"a":18446744073709551615,"b":18446744073709551616,"c":[-9223372036854775809],
            "d":"18446744073709551616","e":1844674407370955161600.5}"#;
        let (value, _) = parse_line(line).expect("JSON");
        let expected = json!({
            "a": u64::MAX, "b": "18446744073709551616", "c": ["-9223372036854775809"],
            "d": "18446744073709551616", "e": 1.8446744073709552e21,
        });
        assert_eq!(value, expected);
        let (value, fields) = parse_line(r#"{"a":NaN,"b":99999999999999999999}"#).expect("JSON");
        assert_eq!((value, fields.len()), (json!({"a": null, "b": "99999999999999999999"}), 1));
        let error = parse_line(r#"{"b":099999999999999999999}"#).expect_err("an error");
        assert_eq!(error, "not valid JSON: invalid number (column 7)");
    }

    #[test]
    fn half_a_surrogate_pair_is_named() {
        for (text, escape, column) in [
            (r#"{"a":"cut \ud83d at"}"#, r"\ud83d", 11),
            (r#"{"a":"\\ \uD83D\uDE00 \udc00"}"#, r"\udc00", 23),
            (r#"["\ud83d\ud83d"]"#, r"\ud83d", 3),
        ] {
            let error = parse_line(text).expect_err("an error");
            let start = format!("not valid JSON: {escape} is half of a surrogate pair");
            assert!(error.starts_with(&start), "{error}");
            assert!(error.contains(&format!("(column {column})")), "{error}");
        }
        assert_eq!(parse_line(r#""\ud83d\ude00""#).expect("JSON").0, json!("😀"));
    }
}
