//! The device with the kernels of `kernels/topk.cu`.

use super::format::MAX_K;
use crate::error::Result;
use crate::layout::MAX_DIM;
use cudarc::driver::CudaFunction;
use warpseek_compute::device::GpuKernels;
use warpseek_compute::gpu::{
    CudaResult, Gpu, HOPPER_SHARED_BYTES, MAX_SHARED_BYTES, use_warpgroup_products,
};

static FATBIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/topk.fatbin"));

/// Dynamic shared memory of kernels that select: a query of the most dimensions and `MAX_K` rows.
const SELECT_SHARED_BYTES: u32 = 80 << 10;
const _: () = assert!(MAX_DIM * 4 + MAX_K * 4 <= SELECT_SHARED_BYTES as usize);

/// A GPU with the kernels of the scan.
#[derive(Debug)]
pub(super) struct ScanGpu {
    gpu: Gpu,
    pub(super) kernels: GpuScanKernels,
    /// True if large scans multiply by wgmma.
    pub(super) uses_wgmma: bool,
}

impl std::ops::Deref for ScanGpu {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

/// Kernels by their names in `kernels/topk.cu`.
#[derive(Debug)]
pub(super) struct GpuScanKernels {
    pub(super) prepare_f16: CudaFunction,
    pub(super) prepare_int8_1: CudaFunction,
    pub(super) prepare_int8_2: CudaFunction,
    pub(super) list_rows: CudaFunction,
    /// `scan_small_f16_*`, for 8, 16, 32 and 64 queries per block.
    pub(super) small_f16: Vec<CudaFunction>,
    /// `scan_small_int8_*`, for 8, 16 and 32 queries per block.
    pub(super) small_int8: Vec<CudaFunction>,
    pub(super) large_f16: LargeScans,
    pub(super) large_int8: LargeScans,
    pub(super) prune: CudaFunction,
    pub(super) rescore: CudaFunction,
    pub(super) select_top_k: CudaFunction,
    pub(super) prune_rescore_select: CudaFunction,
    pub(super) score_all: CudaFunction,
    pub(super) merge_keys: CudaFunction,
    pub(super) measure_mma: CudaFunction,
}

/// The kernels `scan_large_TYPE*` of one element type.
#[derive(Debug)]
pub(super) struct LargeScans {
    pub(super) portable: CudaFunction,
    /// By wgmma, on Hopper: with the queries in shared memory, and with streamed queries.
    pub(super) hopper: Option<[CudaFunction; 2]>,
}

impl ScanGpu {
    /// Opens device `ordinal`. Fails as [`Gpu::open`], [`Gpu::load`] and
    /// [`use_warpgroup_products`].
    pub(super) fn open(ordinal: u32, allowed: GpuKernels) -> Result<Self> {
        let gpu = Gpu::open(ordinal)?;
        let (kernels, check) = gpu.load(FATBIN, |load| {
            let roomy = |name: &str| load(name, MAX_SHARED_BYTES);
            let hopper = |name: &str| load(name, HOPPER_SHARED_BYTES);
            let small = |name: &str, queries: &[u32]| -> CudaResult<Vec<CudaFunction>> {
                queries.iter().map(|n| roomy(&format!("scan_small_{name}_{n}"))).collect()
            };
            let large = |name: &str| -> CudaResult<LargeScans> {
                let name = format!("scan_large_{name}");
                let hopper = |suffix: &str| hopper(&format!("{name}_hopper{suffix}"));
                let both = || Ok([hopper("")?, hopper("_streamed")?]);
                let hopper = gpu.is_hopper().then(both).transpose()?;
                Ok(LargeScans { portable: roomy(&name)?, hopper })
            };
            let kernels = GpuScanKernels {
                prepare_f16: load("prepare_f16", 0)?,
                prepare_int8_1: load("prepare_int8_1", 0)?,
                prepare_int8_2: load("prepare_int8_2", 0)?,
                list_rows: load("list_rows", 0)?,
                small_f16: small("f16", &[8, 16, 32, 64])?,
                small_int8: small("int8", &[8, 16, 32])?,
                large_f16: large("f16")?,
                large_int8: large("int8")?,
                prune: load("prune", SELECT_SHARED_BYTES)?,
                rescore: roomy("rescore")?,
                select_top_k: load("select_top_k", 0)?,
                prune_rescore_select: load("prune_rescore_select", SELECT_SHARED_BYTES)?,
                score_all: roomy("score_all")?,
                merge_keys: load("merge_keys", 0)?,
                measure_mma: load("measure_mma", 0)?,
            };
            let check = gpu.is_hopper().then(|| hopper("check_wgmma")).transpose()?;
            Ok((kernels, check))
        })?;
        let uses_wgmma = match check {
            Some(check) => use_warpgroup_products(&gpu, &check, allowed)?,
            None => false,
        };
        Ok(Self { gpu, kernels, uses_wgmma })
    }
}
