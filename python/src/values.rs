//! Python values as JSON values, and results as Python values.

use crate::error::raised;
use pyo3::PyTypeInfo;
use pyo3::exceptions::{PyAttributeError, PyException};
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyFrozenSet, PyInt, PyList, PySet, PyString,
    PyTuple,
};
use pyo3::{intern, sync::PyOnceLock};
use serde_json::{Map, Number, Value};
use warpseek::error::{Error, Place, Result};

/// Maximum nesting of a value, as in jsonl.
const MAX_DEPTH: usize = 127;

/// Values that became null because they are no finite numbers: the field, once per value.
pub(crate) type Replaced = Vec<String>;

/// Converts the values of one record.
pub(crate) struct Converter<'a, 'py> {
    pub(crate) py: Python<'py>,
    /// The record, for messages.
    pub(crate) place: &'a Place,
    /// The fields of values that became null.
    pub(crate) replaced: &'a mut Replaced,
    /// The exception of a value's own code that is no error about a record.
    pub(crate) exception: &'a mut Option<PyErr>,
}

impl<'py> Converter<'_, 'py> {
    /// A mapping as a JSON object. Its names must be strings.
    pub(crate) fn object(&mut self, mapping: &Bound<'py, PyAny>) -> Result<Map<String, Value>> {
        let mut object = Map::new();
        let items = match mapping.cast::<PyDict>() {
            Ok(dict) => dict.items(),
            Err(_) => self.items(mapping)?,
        };
        for item in items.iter() {
            let (name, value) = self.pair(&item)?;
            let value = self.value(&value, &name, 1)?;
            object.insert(name, value);
        }
        Ok(object)
    }

    fn items(&mut self, mapping: &Bound<'py, PyAny>) -> Result<Bound<'py, PyList>> {
        let items = match mapping.call_method0(intern!(self.py, "items")) {
            Err(e) if e.is_instance_of::<PyAttributeError>(self.py) => {
                let found = type_name(mapping);
                let reason = format!("a record must be a dict or another mapping, found {found}");
                return Err(self.fail("", reason));
            }
            items => items,
        };
        let list = items.and_then(|items| PyList::type_object(self.py).call1((items,)));
        let list = list.and_then(|list| Ok(list.cast_into::<PyList>()?));
        list.map_err(|e| self.caught(e, ""))
    }

    /// The error about a field whose own code raised an exception. One that is no `Exception`
    /// (Ctrl+C, exit) is kept, to be raised again.
    fn caught(&mut self, e: PyErr, field: &str) -> Error {
        let message = format!("its value raised {e}");
        if !e.is_instance_of::<PyException>(self.py) {
            *self.exception = Some(e);
        }
        self.fail(field, message)
    }

    fn pair(&self, item: &Bound<'py, PyAny>) -> Result<(String, Bound<'py, PyAny>)> {
        let pair = item.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>();
        let (name, value) = pair.map_err(|e| self.fail("", e.to_string()))?;
        let text = name.extract::<String>().map_err(|_| {
            let found = type_name(&name);
            self.fail("", format!("names of fields must be strings, found {found}: {name}"))
        })?;
        Ok((text, value))
    }

    /// A value of `field` as JSON. Dates and times become ISO 8601 text, decimals and integers of
    /// more than 64 bits text with all digits; NaN and infinity become null.
    pub(crate) fn value(
        &mut self,
        value: &Bound<'py, PyAny>,
        field: &str,
        depth: usize,
    ) -> Result<Value> {
        if depth > MAX_DEPTH {
            return Err(self.fail(field, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        if value.is_none() {
            return Ok(Value::Null);
        }
        if let Ok(text) = value.cast::<PyString>() {
            return self.text(text, field);
        }
        if let Ok(flag) = value.cast::<PyBool>() {
            return Ok(Value::Bool(flag.is_true()));
        }
        if value.is_instance_of::<PyInt>() {
            return self.integer(value, field);
        }
        if let Ok(number) = value.cast::<PyFloat>() {
            return Ok(self.number(number.value(), field));
        }
        if value.is_instance_of::<PyDict>() {
            return self.members(value, field, depth);
        }
        if value.is_instance_of::<PyList>()
            || value.is_instance_of::<PyTuple>()
            || value.is_instance_of::<PySet>()
            || value.is_instance_of::<PyFrozenSet>()
        {
            return self.array(value, field, depth);
        }
        self.other(value, field, depth)
    }

    fn members(&mut self, value: &Bound<'py, PyAny>, field: &str, depth: usize) -> Result<Value> {
        let mut object = Map::new();
        for item in self.items(value)?.iter() {
            let (name, value) = self.pair(&item)?;
            let value = self.value(&value, field, depth + 1)?;
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }

    fn array(&mut self, value: &Bound<'py, PyAny>, field: &str, depth: usize) -> Result<Value> {
        let items = value.try_iter().map_err(|e| self.fail(field, e.to_string()))?;
        let mut array = Vec::new();
        for item in items {
            let item = item.map_err(|e| self.fail(field, e.to_string()))?;
            array.push(self.value(&item, field, depth + 1)?);
        }
        Ok(Value::Array(array))
    }

    fn text(&self, text: &Bound<'py, PyString>, field: &str) -> Result<Value> {
        let text = text.to_str().map(str::to_owned).map_err(|_| {
            let reason = "the text holds half of a surrogate pair, which UTF-8 lacks: write \
                          text.encode(errors=\"replace\").decode()";
            self.fail(field, reason)
        })?;
        Ok(Value::String(text))
    }

    fn integer(&self, value: &Bound<'py, PyAny>, field: &str) -> Result<Value> {
        if let Ok(number) = value.extract::<i64>() {
            return Ok(number.into());
        }
        if let Ok(number) = value.extract::<u64>() {
            return Ok(number.into());
        }
        let digits = value.call_method0(intern!(self.py, "__str__"));
        let digits = digits.and_then(|digits| digits.extract::<String>());
        digits.map(Value::String).map_err(|e| self.fail(field, e.to_string()))
    }

    fn number(&mut self, number: f64, field: &str) -> Value {
        Number::from_f64(number).map_or_else(
            || {
                self.replaced.push(field.to_owned());
                Value::Null
            },
            Value::Number,
        )
    }

    /// Values of other libraries: dates, decimals, NumPy's and pandas' scalars, arrays, paths.
    fn other(&mut self, value: &Bound<'py, PyAny>, field: &str, depth: usize) -> Result<Value> {
        let py = self.py;
        macro_rules! caught {
            ($outcome:expr) => {
                match $outcome {
                    Ok(value) => value,
                    Err(e) => return Err(self.caught(e, field)),
                }
            };
        }
        if caught!(is_missing(value)) {
            return Ok(Value::Null);
        }
        if value.is_instance_of::<PyBytes>() || value.is_instance_of::<PyByteArray>() {
            let reason = "bytes have no place in JSON: decode them, or leave the field out";
            return Err(self.fail(field, reason));
        }
        // datetime, date, time, pandas.Timestamp; pandas.Timedelta has it too.
        if type_name(value) != "Timedelta"
            && let Ok(text) = value.call_method0(intern!(py, "isoformat"))
        {
            return Ok(Value::String(caught!(text.extract::<String>())));
        }
        if caught!(value.is_instance(caught!(types(py)).0.bind(py))) {
            if !caught!(value.call_method0("is_finite").and_then(|f| f.is_truthy())) {
                self.replaced.push(field.to_owned());
                return Ok(Value::Null);
            }
            let text = value.call_method1("__format__", ("f",)).and_then(|text| text.extract());
            return Ok(Value::String(caught!(text)));
        }
        if caught!(value.is_instance(caught!(types(py)).1.bind(py))) {
            let text = value.str().and_then(|text| text.extract());
            return Ok(Value::String(caught!(text)));
        }
        match numpy_kind(value).as_deref() {
            // Its tolist gives integers for nanoseconds.
            Some("M") => {
                let texts = py
                    .import(intern!(py, "numpy"))
                    .and_then(|numpy| numpy.call_method1("datetime_as_string", (value,)))
                    .and_then(|texts| texts.call_method0("tolist"));
                let texts = self.value(&caught!(texts), field, depth + 1)?;
                return Ok(without_nat(texts));
            }
            Some("m") => {
                let reason = "a duration has no place in JSON: use a number or a text";
                return Err(self.fail(field, reason));
            }
            _ => {}
        }
        // NumPy scalars and arrays, torch tensors, Arrow scalars and arrays.
        for method in [intern!(py, "tolist"), intern!(py, "as_py")] {
            match value.call_method0(method) {
                Ok(plain) if !plain.get_type().is(value.get_type()) => {
                    return self.value(&plain, field, depth + 1);
                }
                Ok(_) => {}
                Err(e) if e.is_instance_of::<PyAttributeError>(py) => {}
                Err(e) => return Err(self.caught(e, field)),
            }
        }
        if caught!(value.hasattr(intern!(py, "items"))) {
            return self.members(value, field, depth);
        }
        let found = type_name(value);
        let reason = format!(
            "a value of type {found} has no place in JSON: use text, numbers, booleans, dates, \
             None, or lists and dicts of them"
        );
        Err(self.fail(field, reason))
    }

    /// The error about a field of the record; about the record without one.
    pub(crate) fn fail(&self, field: &str, reason: impl Into<String>) -> Error {
        let place = self.place.clone();
        Error::input(if field.is_empty() { place } else { place.field(field) }, reason)
    }
}

/// `decimal.Decimal`, and the types that are written as text: `uuid.UUID` and `pathlib.PurePath`.
fn types(py: Python<'_>) -> PyResult<&(Py<PyAny>, Py<PyTuple>)> {
    static TYPES: PyOnceLock<(Py<PyAny>, Py<PyTuple>)> = PyOnceLock::new();
    TYPES.get_or_try_init(py, || {
        let decimal = py.import("decimal")?.getattr("Decimal")?;
        let uuid = py.import("uuid")?.getattr("UUID")?;
        let path = py.import("pathlib")?.getattr("PurePath")?;
        Ok((decimal.unbind(), PyTuple::new(py, [uuid, path])?.unbind()))
    })
}

/// True for `pandas.NA` and `pandas.NaT`.
fn is_missing(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let class = value.get_type();
    let name = class.name()?;
    Ok(name == "NAType" || name == "NaTType")
}

/// The kind of a NumPy value's type: `M` for times, `m` for durations.
fn numpy_kind(value: &Bound<'_, PyAny>) -> Option<String> {
    let dtype = value.getattr(intern!(value.py(), "dtype")).ok()?;
    dtype.getattr(intern!(value.py(), "kind")).ok()?.extract().ok()
}

/// Null in place of `NaT`, in arrays too.
fn without_nat(value: Value) -> Value {
    match value {
        Value::String(text) if text == "NaT" => Value::Null,
        Value::Array(items) => items.into_iter().map(without_nat).collect(),
        other => other,
    }
}

/// The name of a value's type, for messages.
pub(crate) fn type_name(value: &Bound<'_, PyAny>) -> String {
    value.get_type().name().map_or_else(|_| "another type".to_owned(), |name| name.to_string())
}

/// A result as plain Python values.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    value: &impl serde::Serialize,
) -> PyResult<Bound<'py, PyAny>> {
    pythonize::pythonize(py, value).map_err(|e| raised(Error::usage(e.to_string())))
}
