//! The scanner: exact top-k of query batches on the CPU or a GPU.

#[cfg(feature = "cuda")]
use crate::cuda::CudaScanner;
use crate::error::{Error, Result};
pub use crate::gpu::{GpuBatch, GpuInfo, GpuLimits, GpuOptions};
use crate::mask::RowMask;
use crate::matrix::MatrixView;
use crate::oracle::ScoredRow;
#[cfg(feature = "cuda")]
use crate::queries::BatchMasks;
use crate::queries::NO_MASK;
pub use crate::queries::{MAX_COMPONENT, QueryBatch};
#[cfg(feature = "cuda")]
use std::sync::Arc;
use warpseek_compute::cpu::Tier;

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
    /// another number of rows, or `k` is 0; [`Error::Corrupt`] if a row that decides on the answer
    /// differs from its checksum; [`Error::DeviceFailed`].
    pub fn top_k(
        &self,
        matrix: &MatrixView<'_>,
        queries: &QueryBatch,
        k: usize,
        mask: Option<&RowMask>,
    ) -> Result<Vec<Vec<ScoredRow>>> {
        self.top_k_above(matrix, queries, k, mask, None)
    }

    /// As [`Scanner::top_k`], with a floor per query that `k` rows of other matrices reach: rows
    /// below it may be missing.
    fn top_k_above(
        &self,
        matrix: &MatrixView<'_>,
        queries: &QueryBatch,
        k: usize,
        mask: Option<&RowMask>,
        floors: Option<&[f32]>,
    ) -> Result<Vec<Vec<ScoredRow>>> {
        check(matrix, queries, k, mask.as_slice())?;
        match self {
            Self::Cpu(tier) => {
                let matrix = matrix.with_right_sq8(mask);
                if matrix.sq8().is_none() {
                    matrix.check_rows(mask)?;
                }
                crate::cpu::top_k(*tier, &matrix, queries.padded()?, k, mask, floors)
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(scanner) => {
                let matrix = on_device(matrix)?;
                scanner.top_k(&matrix, queries, k, &BatchMasks { masks: mask.as_slice(), of: &[] })
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
        self.top_k_masked_above(matrix, queries, k, masks, None)
    }

    /// As [`Scanner::top_k_masked`], with a floor per query that `k` rows of other matrices reach:
    /// rows below it may be missing.
    pub(crate) fn top_k_masked_above(
        &self,
        matrix: &MatrixView<'_>,
        queries: &QueryBatch,
        k: usize,
        masks: &[Option<&RowMask>],
        floors: Option<&[f32]>,
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
            return self.top_k_above(matrix, queries, k, distinct.first().copied(), floors);
        }
        check(matrix, queries, k, &distinct)?;
        #[cfg(feature = "cuda")]
        if let Self::Cuda(scanner) = self {
            let matrix = on_device(matrix)?;
            return scanner.top_k(&matrix, queries, k, &BatchMasks { masks: &distinct, of: &of });
        }
        let mut results = vec![Vec::new(); queries.len()];
        for wanted in (0..distinct.len() as u32).chain([NO_MASK]) {
            let group: Vec<usize> = (0..of.len()).filter(|&i| of[i] == wanted).collect();
            if group.is_empty() {
                continue;
            }
            let mask = distinct.get(wanted as usize).copied();
            let some: Option<Vec<f32>> =
                floors.map(|floors| group.iter().map(|&i| floors[i]).collect());
            let queries = queries.select(&group)?;
            let found = self.top_k_above(matrix, &queries, k, mask, some.as_deref())?;
            group.into_iter().zip(found).for_each(|(i, rows)| results[i] = rows);
        }
        Ok(results)
    }
}

/// Compares all rows with their checksums: they are copied to the device, and stay there.
#[cfg(feature = "cuda")]
fn on_device<'a>(matrix: &MatrixView<'a>) -> Result<MatrixView<'a>> {
    matrix.check_rows(None)?;
    Ok(matrix.with_right_sq8(None))
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
