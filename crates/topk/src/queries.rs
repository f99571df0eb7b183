//! Batches of query vectors, and the masks of their queries.

use crate::error::{Error, Result};
use crate::layout::stride_of;
#[cfg(feature = "cuda")]
use crate::mask::RowMask;
use std::sync::Arc;
use warpseek_compute::gpu::DeviceVectors;

/// The largest magnitude of a query component: that of half precision, so that no score overflows.
pub const MAX_COMPONENT: f32 = 65504.0;

/// A batch of query vectors, checked, and padded like the rows of the matrix.
#[derive(Debug, Clone)]
pub struct QueryBatch {
    pub(crate) values: QueryValues,
    dim: usize,
    n_queries: usize,
}

/// The padded vectors of a batch, `[n_queries, stride]`.
#[derive(Debug, Clone)]
pub(crate) enum QueryValues {
    Host(Vec<f32>),
    Device(Arc<DeviceVectors>),
}

impl QueryBatch {
    /// Checks and pads `vectors`, `[n, dim]`, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the length is not a multiple of `dim`, or a component is NaN, infinite
    /// or beyond ±65504.
    pub fn new(vectors: &[f32], dim: usize) -> Result<Self> {
        if dim == 0 || !vectors.len().is_multiple_of(dim) {
            return Err(Error::usage(format!(
                "{} values are not a whole number of query vectors of {dim} dimensions",
                vectors.len()
            )));
        }
        let stride = stride_of(dim);
        let n_queries = vectors.len() / dim;
        let mut values = vec![0f32; n_queries * stride];
        for (i, (padded, vector)) in
            values.chunks_exact_mut(stride).zip(vectors.chunks_exact(dim)).enumerate()
        {
            let is_fine = |v: &f32| v.abs() <= MAX_COMPONENT;
            // All components at once first: this loop is vectorised.
            if !vector.iter().fold(true, |fine, v| fine & is_fine(v))
                && let Some(at) = vector.iter().position(|v| !is_fine(v))
            {
                return Err(Error::usage(format!(
                    "query vector {i}: component {at} is {}, which is not a finite number within \
                     ±{MAX_COMPONENT}",
                    vector[at]
                )));
            }
            padded[..dim].copy_from_slice(vector);
        }
        Ok(Self { values: QueryValues::Host(values), dim, n_queries })
    }

    /// Wraps `n_queries` finite vectors that an encoder left on a GPU.
    pub fn on_device(vectors: DeviceVectors, n_queries: usize, dim: usize) -> Self {
        Self { values: QueryValues::Device(Arc::new(vectors)), dim, n_queries }
    }

    /// Returns the queries with these numbers, which must exist, in that order.
    ///
    /// # Errors
    ///
    /// As [`QueryBatch::padded`].
    pub fn select(&self, numbers: &[usize]) -> Result<Self> {
        let (stride, values) = (stride_of(self.dim), self.padded()?);
        let rows = numbers.iter().flat_map(|&i| &values[i * stride..(i + 1) * stride]);
        let values = QueryValues::Host(rows.copied().collect());
        Ok(Self { values, dim: self.dim, n_queries: numbers.len() })
    }

    /// Returns the number of queries.
    pub fn len(&self) -> usize {
        self.n_queries
    }

    /// True if there is no query.
    pub fn is_empty(&self) -> bool {
        self.n_queries == 0
    }

    /// Returns the number of values of a query without padding.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the padded vectors, `[n_queries, stride_of(dim)]`, copied from the GPU if they are
    /// there.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`] if the copy fails.
    pub fn padded(&self) -> Result<&[f32]> {
        match &self.values {
            QueryValues::Host(values) => Ok(values),
            #[cfg(feature = "cuda")]
            QueryValues::Device(vectors) => vectors.to_host(),
            #[cfg(not(feature = "cuda"))]
            QueryValues::Device(vectors) => match **vectors {},
        }
    }
}

/// Mask index of a query without a mask.
pub(crate) const NO_MASK: u32 = u32::MAX;

/// The masks of a batch for a GPU scan.
#[cfg(feature = "cuda")]
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchMasks<'a> {
    pub(crate) masks: &'a [&'a RowMask],
    /// Per query the index of its mask, or [`NO_MASK`]. Empty if all queries share the first mask,
    /// or there is none.
    pub(crate) of: &'a [u32],
}
