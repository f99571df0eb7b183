//! Exact top-k over the stored vectors, on the CPU or a GPU.
//!
//! The contract: [`Scanner::top_k`] returns what [`order::naive_top_k`] returns, bit for bit, at any
//! instruction set, thread count and batch size, and on any device.

pub mod audit;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(not(feature = "cuda"))]
#[path = "cuda_disabled.rs"]
mod cuda;
pub mod order;

pub use cuda::CudaScanner;

use crate::cpu::Tier;
use crate::error::{Error, Result};
use crate::gpu::DeviceVectors;
use crate::store::matrix::{MatrixView, RowMask, stride_of};
use order::ScoredRow;
use std::sync::Arc;

/// The largest magnitude of a query component: that of a half-precision number, so that no score
/// overflows.
pub const MAX_COMPONENT: f32 = 65504.0;

/// Query vectors, checked and padded like the rows they will meet.
#[derive(Debug, Clone)]
pub struct QueryBatch {
    values: Values,
    dim: usize,
    n_queries: usize,
}

/// Where the vectors of queries are, with their padding.
#[derive(Debug, Clone)]
enum Values {
    Here(Vec<f32>),
    There(Arc<DeviceVectors>),
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
            let is_fine = |v: &f32| v.abs() <= MAX_COMPONENT;
            // All at a time first, which is faster.
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
        Ok(Self { values: Values::Here(values), dim, n_queries })
    }

    /// Takes `n_queries` vectors that an encoder left on the GPU, all of them finite numbers.
    pub(crate) fn on_device(vectors: DeviceVectors, n_queries: usize, dim: usize) -> Self {
        Self { values: Values::There(Arc::new(vectors)), dim, n_queries }
    }

    /// The queries of these numbers, which must exist, in their order.
    ///
    /// # Errors
    ///
    /// As [`QueryBatch::padded`].
    pub(crate) fn select(&self, numbers: &[usize]) -> Result<Self> {
        let (stride, values) = (stride_of(self.dim), self.padded()?);
        let rows = numbers.iter().flat_map(|&i| &values[i * stride..(i + 1) * stride]);
        let values = Values::Here(rows.copied().collect());
        Ok(Self { values, dim: self.dim, n_queries: numbers.len() })
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
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`] where they are on a GPU and cannot be read.
    pub(crate) fn padded(&self) -> Result<&[f32]> {
        match &self.values {
            Values::Here(values) => Ok(values),
            Values::There(vectors) => vectors.here(),
        }
    }
}

/// Whether this build has code for GPUs.
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

/// Batches of up to this many queries read the prefilter on a GPU, where there is one.
#[cfg_attr(not(feature = "cuda"), expect(dead_code))]
const GPU_BYTES_BATCH: usize = 32;

/// Where a scan runs.
#[derive(Debug, Clone)]
pub enum Scanner {
    /// On the CPU, over the threads of the current rayon pool.
    Cpu(Tier),
    /// On a GPU.
    Cuda(Arc<CudaScanner>),
}

/// How a GPU is used.
#[derive(Debug, Clone, Copy, Default)]
pub struct GpuOptions {
    /// Bytes of its memory that rows may take; by default what is free less 1 GiB, or half of it where that is
    /// more. Rows that do not fit pass through it in shards.
    pub row_bytes: Option<usize>,
    /// The most candidates a query is given room for, by default 16,384; never fewer than 8 k + 1,024. A query that
    /// has more is answered from the canonical scores of all rows.
    pub candidates: Option<usize>,
    /// Batches of more than 64 queries read the prefilter where there are so many rows for every hit, by default 16,384; else
    /// the rows.
    pub bytes_from: Option<usize>,
}

/// What a GPU can do at most.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct GpuLimits {
    /// Bytes a second that a copy within its memory reads and writes.
    pub copy_bytes: f64,
    /// Products of half-precision numbers that can be summed up, a second, by `mma.sync`.
    pub half_products: f64,
}

/// A GPU, in words.
#[derive(Debug, Clone, serde::Serialize)]
pub struct GpuInfo {
    /// Its name.
    pub name: String,
    /// Its number.
    pub ordinal: u32,
    /// Its compute capability, `9.0` say.
    pub capability: String,
    /// The instructions of its matrix products: `mma.sync`, and `wgmma` for large batches where it has that.
    pub products: &'static str,
    /// The CUDA version of its driver.
    pub driver: String,
    /// Its memory in bytes.
    pub memory: usize,
    /// Bytes of it that rows may take.
    pub row_bytes: usize,
    /// Bytes of rows that were copied to it so far.
    pub uploaded_bytes: u64,
    /// Queries so far that had more candidates than there was room for.
    pub overflows: u64,
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

    /// A scanner on GPU `ordinal`.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] with the reason.
    pub fn cuda(ordinal: u32, options: GpuOptions) -> Result<Self> {
        CudaScanner::open(ordinal, options).map(|scanner| Self::Cuda(Arc::new(scanner)))
    }

    /// `cpu` or `cuda:N`.
    pub fn device(&self) -> String {
        match self {
            Self::Cpu(_) => "cpu".to_owned(),
            Self::Cuda(scanner) => format!("cuda:{}", scanner.info().ordinal),
        }
    }

    /// The first `k` rows of every query, by score descending, then row ascending, among the rows
    /// that `mask` holds (all rows without one). Fewer than `k` where fewer rows pass.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the dimensions of queries and matrix differ, the mask was made for
    /// another number of rows, or `k` is 0; [`Error::DeviceFailed`].
    pub fn top_k(
        &self,
        matrix: &MatrixView<'_>,
        queries: &QueryBatch,
        k: usize,
        mask: Option<&RowMask>,
    ) -> Result<Vec<Vec<ScoredRow>>> {
        check(matrix, queries, k, mask.as_slice())?;
        match self {
            Self::Cpu(tier) => Ok(cpu::top_k(*tier, matrix, queries.padded()?, k, mask)),
            Self::Cuda(scanner) => {
                scanner.top_k(matrix, queries, k, &Filter { masks: mask.as_slice(), of: &[] })
            }
        }
    }

    /// As [`Scanner::top_k`], with a mask of its own for each query, or none. Queries that share a mask share it by
    /// reference.
    ///
    /// # Errors
    ///
    /// As [`Scanner::top_k`], and [`Error::Usage`] where there are not as many masks as queries.
    pub fn top_k_masked(
        &self,
        matrix: &MatrixView<'_>,
        queries: &QueryBatch,
        k: usize,
        masks: &[Option<&RowMask>],
    ) -> Result<Vec<Vec<ScoredRow>>> {
        if masks.len() != queries.len() {
            return Err(Error::usage(format!(
                "{} masks for {} queries",
                masks.len(),
                queries.len()
            )));
        }
        let mut distinct: Vec<&RowMask> = Vec::new();
        let mut of = Vec::with_capacity(masks.len());
        for mask in masks {
            let Some(mask) = mask else {
                of.push(NO_MASK);
                continue;
            };
            let known = distinct.iter().position(|known| std::ptr::eq(*known, *mask));
            of.push(known.unwrap_or(distinct.len()) as u32);
            if known.is_none() {
                distinct.push(mask);
            }
        }
        if of.iter().all(|mask| *mask == of[0]) {
            return self.top_k(matrix, queries, k, distinct.first().copied());
        }
        check(matrix, queries, k, &distinct)?;
        if let Self::Cuda(scanner) = self {
            return scanner.top_k(matrix, queries, k, &Filter { masks: &distinct, of: &of });
        }
        let mut results = vec![Vec::new(); queries.len()];
        for wanted in (0..distinct.len() as u32).chain([NO_MASK]) {
            let group: Vec<usize> = (0..of.len()).filter(|&i| of[i] == wanted).collect();
            if group.is_empty() {
                continue;
            }
            let mask = distinct.get(wanted as usize).copied();
            let found = self.top_k(matrix, &queries.select(&group)?, k, mask)?;
            group.into_iter().zip(found).for_each(|(i, rows)| results[i] = rows);
        }
        Ok(results)
    }
}

/// The number of the mask of a query that has none.
const NO_MASK: u32 = u32::MAX;

/// Which rows each query of a batch may find, as a GPU takes it.
#[cfg_attr(not(feature = "cuda"), expect(dead_code))]
struct Filter<'a> {
    masks: &'a [&'a RowMask],
    /// The number of each query's mask; empty where all share the first, if there is one.
    of: &'a [u32],
}

/// Refuses what fits not together.
fn check(
    matrix: &MatrixView<'_>,
    queries: &QueryBatch,
    k: usize,
    masks: &[&RowMask],
) -> Result<()> {
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
    if let Some(mask) = masks.iter().find(|mask| mask.n_rows() != matrix.n_rows()) {
        return Err(Error::usage(format!(
            "the row mask speaks of {} rows, the index has {}",
            mask.n_rows(),
            matrix.n_rows()
        )));
    }
    Ok(())
}
