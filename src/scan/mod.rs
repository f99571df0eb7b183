//! Exact top-k over the stored vectors, on the CPU.
//!
//! The contract: [`Scanner::top_k`] returns what [`order::naive_top_k`] returns, bit for bit, at any
//! instruction set, thread count and batch size.

pub mod audit;
mod cpu;
pub mod order;

use crate::cpu::Tier;
use crate::error::{Error, Result};
use crate::store::matrix::{MatrixView, RowMask, stride_of};
use order::ScoredRow;

/// The largest magnitude of a query component: that of a half-precision number, so that no score
/// overflows.
pub const MAX_COMPONENT: f32 = 65504.0;

/// Query vectors, checked and padded like the rows they will meet.
#[derive(Debug, Clone)]
pub struct QueryBatch {
    values: Vec<f32>,
    dim: usize,
    n_queries: usize,
}

impl QueryBatch {
    /// Takes `vectors` as `[n, dim]`, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the length is not a multiple of `dim`, or a component is NaN, infinite
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
            if let Some(at) = vector.iter().position(|v| v.is_nan() || v.abs() > MAX_COMPONENT) {
                return Err(Error::usage(format!(
                    "query vector {i}: component {at} is {}, which is not a finite number within \
                     ±{MAX_COMPONENT}",
                    vector[at]
                )));
            }
            padded[..dim].copy_from_slice(vector);
        }
        Ok(Self { values, dim, n_queries })
    }

    /// The number of queries.
    pub fn len(&self) -> usize {
        self.n_queries
    }

    /// Whether there is no query.
    pub fn is_empty(&self) -> bool {
        self.n_queries == 0
    }

    /// The number of meaningful values in a query.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values with their padding, `[n_queries, stride_of(dim)]`.
    pub(crate) fn padded(&self) -> &[f32] {
        &self.values
    }
}

/// Where a scan runs.
#[derive(Debug, Clone)]
pub enum Scanner {
    /// On the CPU, over the threads of the current rayon pool.
    Cpu(Tier),
}

impl Scanner {
    /// A scanner on the CPU with the best instruction set at hand, or the one that the environment
    /// variable `WARPSEEK_TIER` names.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] where that variable names a tier this CPU lacks, and
    /// [`Error::Usage`] where it names none at all.
    pub fn cpu() -> Result<Self> {
        Tier::chosen().map(Self::Cpu)
    }

    /// The first `k` rows of every query, by score descending, then row ascending, among the rows
    /// that `mask` holds (all rows without one). Fewer than `k` where fewer rows pass.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the dimensions of queries and matrix differ, the mask was made for
    /// another number of rows, or `k` is 0.
    pub fn top_k(
        &self,
        matrix: &MatrixView<'_>,
        queries: &QueryBatch,
        k: usize,
        mask: Option<&RowMask>,
    ) -> Result<Vec<Vec<ScoredRow>>> {
        if k == 0 {
            return Err(Error::usage("k must be at least 1"));
        }
        if queries.dim() != matrix.dim() {
            return Err(Error::usage(format!(
                "the query has {} dimensions, the index {}",
                queries.dim(),
                matrix.dim()
            )));
        }
        if let Some(mask) = mask
            && mask.n_rows() != matrix.n_rows()
        {
            return Err(Error::usage(format!(
                "the row mask speaks of {} rows, the index has {}",
                mask.n_rows(),
                matrix.n_rows()
            )));
        }
        match self {
            Self::Cpu(tier) => Ok(cpu::top_k(*tier, matrix, queries, k, mask)),
        }
    }
}
