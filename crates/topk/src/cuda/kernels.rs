//! The device with the scan's kernels.

use super::chain::MAX_K;
use crate::error::Result;
use warpseek_compute::gpu::{
    Gpu, HOPPER_SHARED_BYTES, MAX_SHARED_BYTES, Outcome, allow_shared, has_warpgroup_products,
};
use crate::layout::MAX_DIM;
use cudarc::driver::CudaFunction;

/// The kernels of `kernels/topk.cu`.
static FATBIN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/topk.fatbin"));

/// What kernels that select may ask for of shared memory, beside what they have of their own: a query of the most
/// dimensions, and as many rows as are sorted.
const SELECT_SHARED_BYTES: u32 = 80 << 10;
const _: () = assert!(MAX_DIM * 4 + MAX_K * 4 <= SELECT_SHARED_BYTES as usize);

/// A device that scans.
#[derive(Debug)]
pub(super) struct ScanGpu {
    gpu: Gpu,
    pub(super) kernels: Kernels,
}

impl std::ops::Deref for ScanGpu {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.gpu
    }
}

impl ScanGpu {
    /// Opens device `ordinal`.
    ///
    /// # Errors
    ///
    /// As [`Gpu::open`] and [`Gpu::load`].
    pub(super) fn open(ordinal: u32) -> Result<Self> {
        let gpu = Gpu::open(ordinal)?;
        let (mut kernels, of_hopper) = gpu.load(FATBIN, |load| {
            let roomy = |name| load(name).and_then(|kernel| allow_shared(kernel, MAX_SHARED_BYTES));
            let select =
                |name| load(name).and_then(|kernel| allow_shared(kernel, SELECT_SHARED_BYTES));
            let kernels = Kernels {
                prepare: load("prepare")?,
                prepare_planes: [load("prepare_planes_1")?, load("prepare_planes_2")?],
                list_rows: load("list_rows")?,
                small: [
                    roomy("scan_small_1")?,
                    roomy("scan_small_2")?,
                    roomy("scan_small_4")?,
                    roomy("scan_small_8")?,
                ],
                bytes: [roomy("scan_bytes_1")?, roomy("scan_bytes_2")?, roomy("scan_bytes_4")?],
                large: [roomy("scan_large")?, roomy("scan_large_bytes")?],
                tighten: select("tighten")?,
                rescore: roomy("rescore")?,
                finish: load("finish")?,
                conclude: select("conclude")?,
                score_all: roomy("score_all")?,
                merge: load("merge")?,
                multiply_only: load("multiply_only")?,
                hopper: None,
            };
            if !gpu.is_hopper() {
                return Ok((kernels, None));
            }
            let of_hopper = |name: &str| allow_shared(load(name)?, HOPPER_SHARED_BYTES);
            let both = |name: &str| -> Outcome<[CudaFunction; 2]> {
                Ok([of_hopper(name)?, of_hopper(&format!("{name}_wide"))?])
            };
            let scans = [both("scan_large_hopper")?, both("scan_large_hopper_bytes")?];
            Ok((kernels, Some((of_hopper("check_products")?, scans))))
        })?;
        if let Some((check, of_hopper)) = of_hopper
            && has_warpgroup_products(&gpu, &check)?
        {
            kernels.hopper = Some(of_hopper);
        }
        Ok(Self { gpu, kernels })
    }
}

#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) prepare: CudaFunction,
    /// Into one plane of bytes, and into two.
    pub(super) prepare_planes: [CudaFunction; 2],
    pub(super) list_rows: CudaFunction,
    /// For 8, 16, 32 and 64 queries a block.
    pub(super) small: [CudaFunction; 4],
    /// The same over rows in 8 bits, for 8, 16 and 32 queries.
    pub(super) bytes: [CudaFunction; 3],
    /// Over rows in half precision, and in 8 bits.
    pub(super) large: [CudaFunction; 2],
    pub(super) tighten: CudaFunction,
    pub(super) rescore: CudaFunction,
    pub(super) finish: CudaFunction,
    pub(super) conclude: CudaFunction,
    pub(super) score_all: CudaFunction,
    pub(super) merge: CudaFunction,
    pub(super) multiply_only: CudaFunction,
    /// What stands for either of `large` on Hopper: where a block's queries fit into shared memory, and where they do not.
    pub(super) hopper: Option<[[CudaFunction; 2]; 2]>,
}
