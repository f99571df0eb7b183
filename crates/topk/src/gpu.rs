//! Options, description and measurements of a scanner on a GPU.

use warpseek_compute::device::GpuKernels;

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
