//! What stands for the GPU in builds without the feature `cuda`: nothing that could be opened.

use super::order::ScoredRow;
use super::{Filter, GpuInfo, GpuLimits, GpuOptions, QueryBatch};
use crate::error::{Error, Result};
use crate::store::matrix::MatrixView;

/// A GPU that scans; there is none in this build.
#[derive(Debug)]
pub enum CudaScanner {}

impl CudaScanner {
    /// Fails.
    ///
    /// # Errors
    ///
    /// [`Error::DeviceUnavailable`].
    pub fn open(ordinal: u32, _options: GpuOptions) -> Result<Self> {
        Err(Error::DeviceUnavailable {
            device: format!("cuda:{ordinal}"),
            reason: "this warpseek was built without CUDA; use --device cpu".to_owned(),
        })
    }

    /// What it can do at most.
    ///
    /// # Errors
    ///
    /// None.
    pub fn limits(&self) -> Result<GpuLimits> {
        match *self {}
    }

    /// The seconds that the last batch took.
    ///
    /// # Errors
    ///
    /// None.
    pub fn chain_seconds(&self) -> Result<f64> {
        match *self {}
    }

    /// Whether the last batch read rows in 8 bits.
    pub fn has_read_bytes(&self) -> bool {
        match *self {}
    }

    /// What it is.
    pub fn info(&self) -> GpuInfo {
        match *self {}
    }

    pub(super) fn top_k(
        &self,
        _matrix: &MatrixView<'_>,
        _queries: &QueryBatch,
        _k: usize,
        _filter: &Filter<'_>,
    ) -> Result<Vec<Vec<ScoredRow>>> {
        match *self {}
    }
}
