//! NumPy arrays in and out.

use crate::error::usage;
use numpy::{
    IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray2, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

/// An array `[n, dim]`.
pub(crate) type Matrix<'py, T> = Bound<'py, PyArray2<T>>;

/// An array `[n]`.
pub(crate) type Vector<'py, T> = Bound<'py, PyArray1<T>>;

/// Results, and the vectors of all of their rows if they were asked for.
pub(crate) type WithVectors<'py> = (Bound<'py, PyAny>, Option<Matrix<'py, f32>>);

/// Reads rows of `dim` values. Python's part has checked the array and its argument's name.
pub(crate) fn rows(array: &PyReadonlyArray2<'_, f32>, dim: usize) -> PyResult<Rows> {
    let (n, found) = (array.shape()[0], array.shape()[1]);
    if found != dim {
        return Err(usage(format!("the vectors have {found} dimensions, and the index has {dim}")));
    }
    let values = array.as_slice().map_err(|_| usage("the array must be C-contiguous"))?;
    Ok(Rows { values: values.to_vec(), n, dim })
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
