//! Measured limits of a GPU, which `warpseek bench` compares the scans with.

use super::kernels::ScanGpu;
use super::params::{MEASURE_PRODUCTS, MeasureParams, SELECT_THREADS};
use crate::gpu::GpuLimits;
use warpseek_compute::gpu::{CudaResult, DeviceBuffer, launch};

/// Measures the rates of a copy within the device and of `mma.sync` in half precision.
pub(super) fn limits(gpu: &ScanGpu) -> CudaResult<GpuLimits> {
    let bytes = (gpu.context.mem_get_info()?.0 / 8).min(1 << 30);
    // SAFETY: nobody looks at the copied bytes.
    let from = unsafe { gpu.stream.alloc::<u8>(bytes) }?;
    let mut to = gpu.stream.alloc_zeros::<u8>(bytes)?;
    let copy = best_seconds(gpu, || gpu.stream.memcpy_dtod(&from, &mut to))?;
    let (blocks, repeats) = (gpu.multiprocessors * 4, 512);
    let mut sums = DeviceBuffer::<f32>::default();
    let params = MeasureParams { sums: sums.reserve(gpu, blocks as usize)?, repeats };
    let kernel = &gpu.kernels.measure_mma;
    let multiply =
        best_seconds(gpu, || launch(gpu, kernel, (blocks, 1), SELECT_THREADS, 0, &params))?;
    let warps = f64::from(blocks * SELECT_THREADS / 32);
    let products = warps * f64::from(repeats) * f64::from(MEASURE_PRODUCTS);
    Ok(GpuLimits { copy_bytes: 2.0 * bytes as f64 / copy, half_products: products / multiply })
}

/// Returns the least device time of `work` in five runs, in seconds.
fn best_seconds(gpu: &ScanGpu, mut work: impl FnMut() -> CudaResult<()>) -> CudaResult<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        gpu.marks[0].record(&gpu.stream)?;
        work()?;
        gpu.marks[1].record(&gpu.stream)?;
        best = best.min(gpu.seconds_between_marks()?);
    }
    Ok(best)
}
