//! Errors of the library as exceptions of `warpseek.errors`.

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use warpseek::error::{Error, Result};

/// Options of the command line in messages, and the arguments that stand for them here.
const ARGUMENTS: [(&str, &str); 29] = [
    (", or keep the last record with --on-duplicate last", ""),
    (", or search for vectors with `warpseek batch`", ", or search for vectors"),
    ("--chunk splits records", "Index.create(..., split_records=True) splits records"),
    ("`warpseek index INPUT --into DIR`", "Index.create and add"),
    ("give the index a name, as in NAME=DIR", "give the index a name with names="),
    ("give them names, as in NAME=DIR", "give them names with names="),
    ("--device cpu", "device=\"cpu\""),
    ("--on-error skip", "on_error=\"skip\""),
    (", or read a file instead", ""),
    ("set the format with --format", "rename the file"),
    ("--no-header", "no_header=True"),
    ("--normalize", "normalize=True"),
    ("--id-field", "id="),
    ("--text-field", "text="),
    ("--title-field", "title="),
    ("--metadata-fields", "metadata="),
    ("--metadata", "metadata="),
    ("--metric", "metric="),
    ("--index-name", "index_name="),
    ("--api-key-file", "api_key"),
    ("--base-url", "base_url"),
    ("--reranker", "reranker="),
    ("--embedder", "model="),
    ("--models-dir", "models_dir="),
    ("--model", "model="),
    ("--offline", "offline="),
    ("--device", "device="),
    ("--precision", "precision="),
    ("--documents", "documents="),
];

/// The exception for an error.
pub(crate) fn raised(error: Error) -> PyErr {
    Python::attach(|py| exception(py, &error).unwrap_or_else(|e| e))
}

fn exception(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let mut message = error.to_string();
    for (option, argument) in ARGUMENTS {
        message = message.replace(option, argument);
    }
    let (name, file) = match error {
        Error::Usage(_) => ("UsageError", None),
        Error::ModelUnavailable { .. } => ("ModelUnavailableError", None),
        Error::DeviceUnavailable { .. } | Error::DeviceFailed { .. } => ("DeviceError", None),
        Error::Compute { .. } => ("DeviceError", None),
        Error::Corrupt { path, .. } => ("CorruptIndexError", Some(path)),
        Error::Remote { .. } => ("RemoteError", None),
        Error::Input { .. } => ("InputError", None),
        Error::NoIndex { path, .. } => ("IndexNotFoundError", Some(path)),
        Error::Locked { path, .. } => ("IndexLockedError", Some(path)),
        Error::Io { path, .. } | Error::Database { path, .. } => ("IndexIOError", Some(path)),
        Error::Interrupted(_) => return Ok(PyKeyboardInterrupt::new_err(message)),
    };
    let details = PyDict::new(py);
    details.set_item("exit_code", error.exit_code())?;
    details.set_item("file", file.map(|path| path.display().to_string()))?;
    if let Error::Input { place, .. } = error {
        details.set_item("file", &place.file)?;
        details.set_item("record", &place.record)?;
        details.set_item("field", &place.field)?;
    }
    if let Error::Io { source, .. } = error {
        details.set_item("errno", source.raw_os_error())?;
    }
    let class = py.import("warpseek.errors")?.getattr(name)?;
    Ok(PyErr::from_value(class.call((message,), Some(&details))?))
}

/// Turns errors of the library into exceptions.
pub(crate) trait OrRaise<T> {
    /// The value, or the exception.
    fn or_raise(self) -> PyResult<T>;
}

impl<T> OrRaise<T> for Result<T> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(raised)
    }
}

/// A [`Error::Usage`] as an exception.
pub(crate) fn usage(message: impl Into<String>) -> PyErr {
    raised(Error::usage(message))
}
