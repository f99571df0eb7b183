//! The scanner: exact top-k of query batches on the CPU or a GPU.

#[cfg(feature = "cuda")]
use crate::cuda::CudaScanner;
use crate::error::{Error, Result};
use crate::layout::stride_of;
use crate::mask::RowMask;
use crate::matrix::MatrixView;
use crate::oracle::ScoredRow;
use std::sync::Arc;
use warpseek_compute::cpu::Tier;
use warpseek_compute::device::GpuKernels;
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

/// True if this build supports GPUs.
pub const HAS_CUDA: bool = cfg!(feature = "cuda");

/// A scanner with its device.
#[derive(Debug, Clone)]
pub enum Scanner {
    /// On the CPU, over the threads of the current rayon pool.
    Cpu(Tier),
    /// On a GPU.
    #[cfg(feature = "cuda")]
    Cuda(Arc<CudaScanner>),
}

/// Options of a scanner on a GPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct GpuOptions {
    /// The most bytes of GPU memory for rows. Default: the free memory less 1 GiB, or half of it if
    /// that is more. Rows that do not fit pass through in shards.
    pub row_bytes: Option<usize>,
    /// The most candidates per query. Default: 16,384; never fewer than 8 k + 1,024. A query with
    /// more is answered from the canonical scores of all rows.
    pub candidates: Option<usize>,
    /// The fewest rows per hit for which batches of more than 64 queries read the int8 copy instead
    /// of the rows. Default: 16,384.
    pub int8_from: Option<usize>,
    /// The kernels that may be used.
    pub kernels: GpuKernels,
}

/// Measured limits of a GPU.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct GpuLimits {
    /// Bytes per second that a copy within its memory reads and writes.
    pub copy_bytes: f64,
    /// Half-precision multiply-adds per second of `mma.sync`.
    pub half_products: f64,
}

/// Description of a GPU.
#[derive(Debug, Clone, serde::Serialize)]
pub struct GpuInfo {
    /// Device name.
    pub name: String,
    /// Ordinal.
    pub ordinal: u32,
    /// Compute capability, such as `9.0`.
    pub capability: String,
    /// Instructions of its matrix products: `mma.sync`, and `wgmma` for large batches on Hopper.
    pub products: &'static str,
    /// CUDA version of the driver.
    pub driver: String,
    /// Memory in bytes.
    pub memory: usize,
    /// The most bytes of memory for rows.
    pub row_bytes: usize,
    /// Bytes of rows copied to it so far.
    pub uploaded_bytes: u64,
    /// Queries so far with more candidates than fit.
    pub overflows: u64,
}

/// Measurements of one batch on a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuBatch {
    /// Seconds from the first kernel to the end of the last one.
    pub seconds: f64,
    /// True if the int8 copy was read.
    pub read_int8: bool,
}

impl Scanner {
    /// Returns a scanner on the CPU with its fastest instruction set. [`Scanner::Cpu`] takes any
    /// other.
    pub fn cpu() -> Self {
        Self::Cpu(Tier::best())
    }

    /// Opens a scanner on GPU `ordinal`.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`] with the reason.
    #[cfg_attr(not(feature = "cuda"), expect(unused_variables))]
    pub fn cuda(ordinal: u32, options: GpuOptions) -> Result<Self> {
        #[cfg(feature = "cuda")]
        return CudaScanner::open(ordinal, options).map(|scanner| Self::Cuda(Arc::new(scanner)));
        #[cfg(not(feature = "cuda"))]
        Err(warpseek_compute::gpu::not_built(ordinal))
    }

    /// Returns the device name, `cpu` or `cuda:N`.
    pub fn device(&self) -> String {
        self.gpu_info().map_or_else(|| "cpu".to_owned(), |gpu| format!("cuda:{}", gpu.ordinal))
    }

    /// True if it runs on a GPU.
    pub fn is_gpu(&self) -> bool {
        !matches!(self, Self::Cpu(_))
    }

    /// Describes the GPU; none on the CPU.
    pub fn gpu_info(&self) -> Option<GpuInfo> {
        match self {
            Self::Cpu(_) => None,
            #[cfg(feature = "cuda")]
            Self::Cuda(scanner) => Some(scanner.info()),
        }
    }

    /// Measures the limits of the GPU; none on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`].
    pub fn gpu_limits(&self) -> Result<Option<GpuLimits>> {
        match self {
            Self::Cpu(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Self::Cuda(scanner) => scanner.limits().map(Some),
        }
    }

    /// Describes the last batch of the GPU; none on the CPU.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceFailed`], also before the first batch.
    pub fn last_gpu_batch(&self) -> Result<Option<GpuBatch>> {
        match self {
            Self::Cpu(_) => Ok(None),
            #[cfg(feature = "cuda")]
            Self::Cuda(scanner) => scanner.last_batch().map(Some),
        }
    }

    /// Returns the first `k` rows of every query, by score descending, then row ascending, among
    /// the rows in `mask` (all rows without one). Fewer than `k` if fewer rows pass.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the dimensions of queries and matrix differ, the mask was made for
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
            Self::Cpu(tier) => Ok(crate::cpu::top_k(*tier, matrix, queries.padded()?, k, mask)),
            #[cfg(feature = "cuda")]
            Self::Cuda(scanner) => {
                scanner.top_k(matrix, queries, k, &BatchMasks { masks: mask.as_slice(), of: &[] })
            }
        }
    }

    /// As [`Scanner::top_k`], with one mask or none per query. Queries with the same mask pass the
    /// same reference.
    ///
    /// # Errors
    ///
    /// As [`Scanner::top_k`], and [`Error::Usage`] if the number of masks is not that of the
    /// queries.
    pub fn top_k_masked(
        &self,
        matrix: &MatrixView<'_>,
        queries: &QueryBatch,
        k: usize,
        masks: &[Option<&RowMask>],
    ) -> Result<Vec<Vec<ScoredRow>>> {
        if masks.len() != queries.len() {
            let (n, n_queries) = (masks.len(), queries.len());
            return Err(Error::usage(format!("{n} masks for {n_queries} queries")));
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
        #[cfg(feature = "cuda")]
        if let Self::Cuda(scanner) = self {
            return scanner.top_k(matrix, queries, k, &BatchMasks { masks: &distinct, of: &of });
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

/// Checks that matrix, queries, k and masks fit together.
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
            "the row mask is for {} rows, the index has {}",
            mask.n_rows(),
            matrix.n_rows()
        )));
    }
    Ok(())
}
