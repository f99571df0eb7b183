//! NumPy arrays in and out, checked with the name of their argument.

use crate::error::usage;
use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::prelude::*;

/// An array `[n, dim]`.
pub(crate) type Matrix<'py, T> = Bound<'py, PyArray2<T>>;

/// An array `[n]`.
pub(crate) type Vector<'py, T> = Bound<'py, PyArray1<T>>;

/// Results, and the vectors of all of their rows if they were asked for.
pub(crate) type WithVectors<'py> = (Bound<'py, PyAny>, Option<Matrix<'py, f32>>);

/// Reads a float array `[n, dim]` as float32. The core converts nothing by itself: Python's part
/// passes a C-contiguous float32 array.
pub(crate) fn rows(array: &Bound<'_, PyAny>, name: &str, dim: Option<usize>) -> PyResult<Rows> {
    let untyped = array.cast::<PyUntypedArray>().map_err(|_| {
        let found = crate::values::type_name(array);
        usage(format!("{name} must be a NumPy array of float32, found {found}"))
    })?;
    let shape = untyped.shape();
    if shape.len() != 2 {
        let hint = if shape.len() == 1 { ": use array[None] for one row" } else { "" };
        return Err(usage(format!(
            "{name} must have two dimensions [n, dim], found the shape {shape:?}{hint}"
        )));
    }
    if let Some(dim) = dim
        && shape[1] != dim
    {
        let hint = if shape[0] == dim { ": transpose it with .T" } else { "" };
        return Err(usage(format!(
            "{name} has the shape {shape:?}, and {dim} columns are needed{hint}"
        )));
    }
    let typed: PyReadonlyArray2<'_, f32> = array.extract().map_err(|_| {
        let found = untyped.dtype();
        usage(format!("{name} must hold float32, found {found}: use array.astype(\"float32\")"))
    })?;
    let values = typed
        .as_slice()
        .map_err(|_| usage(format!("{name} must be C-contiguous: use numpy.ascontiguousarray")))?;
    Ok(Rows { values: values.to_vec(), n: shape[0], dim: shape[1] })
}

/// Rows of float32.
pub(crate) struct Rows {
    /// `[n, dim]`, row-major.
    pub(crate) values: Vec<f32>,
    pub(crate) n: usize,
    pub(crate) dim: usize,
}

/// Values as an array `[n, dim]`, without a copy.
pub(crate) fn matrix<T: numpy::Element>(
    py: Python<'_>,
    values: Vec<T>,
    dim: usize,
) -> PyResult<Matrix<'_, T>> {
    let n = values.len() / dim.max(1);
    values.into_pyarray(py).reshape([n, dim])
}

/// Values as an array `[n]`, without a copy.
pub(crate) fn vector<T: numpy::Element>(py: Python<'_>, values: Vec<T>) -> Vector<'_, T> {
    values.into_pyarray(py)
}
