//! Values of a pickle as JSON.

use super::{Pickle, PickleObject, PickleValue, PythonClass, scalar};
use serde_json::{Map, Number, Value};

/// Maximum nesting, as in JSON that is read.
const MAX_DEPTH: usize = 127;

/// Spells values out as JSON. Objects that several values share are repeated, so that the result
/// may be far larger than the pickle: `left` is the limit.
#[derive(Debug)]
pub(in crate::vectors) struct JsonWriter<'a> {
    pub(in crate::vectors) pickle: &'a Pickle,
    /// Bytes that may still be written, about.
    pub(in crate::vectors) left: u64,
    /// Numbers that became null: NaN and infinity.
    pub(in crate::vectors) nulls: u64,
}

impl<'a> JsonWriter<'a> {
    /// The JSON value of a Python value: tuples and sets are arrays, dates ISO 8601, and decimals,
    /// paths and integers of more than 64 bits text.
    ///
    /// # Errors
    ///
    /// The reason, for values that JSON lacks, and beyond the limits of size and depth.
    pub(in crate::vectors) fn value(&mut self, value: PickleValue) -> Result<Value, String> {
        self.nested(value, 0)
    }

    /// The JSON object of a dict.
    ///
    /// # Errors
    ///
    /// As [`JsonWriter::value`].
    fn object(
        &mut self,
        entries: &[(PickleValue, PickleValue)],
        depth: usize,
    ) -> Result<Value, String> {
        let mut object = Map::new();
        for &(key, value) in entries {
            let key = self.key(key)?;
            let value = self.nested(value, depth + 1)?;
            insert(&mut object, key, value)?;
        }
        Ok(Value::Object(object))
    }

    /// A key as text. An integer becomes its digits, as in Python's json.
    ///
    /// # Errors
    ///
    /// The reason, if the key is of another type.
    pub(in crate::vectors) fn key(&mut self, key: PickleValue) -> Result<String, String> {
        match key {
            PickleValue::Text(_) => self.text(key).map(str::to_owned),
            PickleValue::Int(number) => Ok(number.to_string()),
            other => Err(format!(
                "{} is a key, and keys must be text: rename it before the store is saved",
                self.pickle.kind(other)
            )),
        }
    }

    /// A text.
    ///
    /// # Errors
    ///
    /// The reason, if it is another type, too large, or not UTF-8.
    pub(in crate::vectors) fn text(&mut self, value: PickleValue) -> Result<&'a str, String> {
        let PickleValue::Text(span) = value else {
            return Err(format!("must be a str, found {}", self.pickle.kind(value)));
        };
        let bytes = self.pickle.span(span);
        self.pay(bytes.len() as u64)?;
        std::str::from_utf8(bytes).map_err(|error| {
            let is_half = matches!(bytes.get(error.valid_up_to()..), Some([0xed, 0xa0..=0xbf, ..]));
            let fault = if is_half { "half of a surrogate pair" } else { "not UTF-8" };
            format!(
                "the text has {fault} at byte {}: replace it before the store is saved, say by \
                 `text.encode('utf-8', 'replace').decode()`",
                error.valid_up_to() + 1
            )
        })
    }

    fn nested(&mut self, value: PickleValue, depth: usize) -> Result<Value, String> {
        if depth > MAX_DEPTH {
            return Err(format!(
                "it is nested deeper than {MAX_DEPTH} levels, or contains itself: make it flat"
            ));
        }
        self.pay(8)?;
        let pickle = self.pickle;
        Ok(match value {
            PickleValue::None => Value::Null,
            PickleValue::Bool(truth) => truth.into(),
            PickleValue::Int(number) => number.into(),
            PickleValue::Float(number) => self.number(number),
            PickleValue::Text(_) => self.text(value)?.into(),
            PickleValue::Long(_) | PickleValue::Digits(_) => {
                let digits = scalar::digits(pickle, value)?;
                // The conversion takes time in proportion to the square.
                self.pay((digits.len() + digits.len().pow(2) / 256) as u64)?;
                digits.parse::<u64>().map_or_else(|_| digits.into(), Value::from)
            }
            PickleValue::Bytes(_) => return Err(BYTES.to_owned()),
            PickleValue::Class(_) => return Err(self.without_json(value)),
            PickleValue::Object(_) => match pickle.object(value) {
                Some(
                    PickleObject::Tuple(items)
                    | PickleObject::List(items)
                    | PickleObject::Set(items),
                ) => self.array(items, depth)?,
                Some(PickleObject::Dict(entries)) => self.object(entries, depth)?,
                _ => self.instance(value, depth)?,
            },
        })
    }

    fn array(&mut self, items: &[PickleValue], depth: usize) -> Result<Value, String> {
        items.iter().map(|item| self.nested(*item, depth + 1)).collect()
    }

    fn instance(&mut self, value: PickleValue, depth: usize) -> Result<Value, String> {
        let Some(instance) = self.pickle.instance(value) else {
            return Err(self.without_json(value));
        };
        match (instance.class, instance.args) {
            (PythonClass::Set | PythonClass::FrozenSet, []) => return Ok(Value::Array(Vec::new())),
            // Protocols below 4 write a set as the set of a list.
            (PythonClass::Set | PythonClass::FrozenSet, [items]) => {
                if let Some(PickleObject::List(items)) = self.pickle.object(*items) {
                    return self.array(items, depth);
                }
            }
            (PythonClass::Bytes | PythonClass::Encode, _) => return Err(BYTES.to_owned()),
            _ => {}
        }
        match scalar::scalar(self.pickle, instance)? {
            Some(scalar::Scalar::Float(number)) => Ok(self.number(number)),
            Some(scalar::Scalar::Json(value)) => {
                self.pay(value.as_str().map_or(0, str::len) as u64)?;
                Ok(value)
            }
            None => Err(self.without_json(value)),
        }
    }

    fn number(&mut self, number: f64) -> Value {
        Number::from_f64(number).map_or_else(
            || {
                self.nulls += 1;
                Value::Null
            },
            Value::Number,
        )
    }

    fn pay(&mut self, bytes: u64) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| TOO_LARGE.to_owned())?;
        Ok(())
    }

    fn without_json(&self, value: PickleValue) -> String {
        let kind = self.pickle.kind(value);
        format!("{kind} has no JSON form: make it text or a number before the store is saved")
    }
}

const TOO_LARGE: &str = "the document is larger than 16 MiB with this, or the documents repeat \
                         shared values too often: shorten it before the store is saved";

const BYTES: &str = "bytes have no JSON form: decode them to text, or leave them out, before the \
                     store is saved";

/// Adds a field.
///
/// # Errors
///
/// The reason, if the key is empty or there already.
pub(in crate::vectors) fn insert(
    object: &mut Map<String, Value>,
    key: String,
    value: Value,
) -> Result<(), String> {
    let key = match object.contains_key(&key) {
        false => key,
        true => return Err(format!("the key '{}' appears twice", warpseek_ingest::shown(&key))),
    };
    object.insert(key, value);
    Ok(())
}
