//! Hopper's warpgroup products (`wgmma`, `kernels/tiles_hopper.cuh`), and the test product that
//! decides whether they are used.

use super::buffer::DeviceBuffer;
use super::context::{CudaResult, Gpu, describe, launch};
use super::tiles::{
    CheckParams, HOPPER_STAGES, HOPPER_STAGES_TWO_BLOCKS, SLAB_BYTES, TILE_SIDE, TILE_THREADS,
};
use crate::device::GpuKernels;
use crate::error::Result;
use cudarc::driver::{CudaFunction, DeviceRepr};
use half::f16;
use rayon::prelude::*;

/// Dynamic shared memory that a kernel may request on Hopper, in bytes.
pub const HOPPER_SHARED_BYTES: u32 = 227 << 10;

/// 64-byte chunks of rows and columns in the test product: eight steps, the last one half empty.
const CHECK_CHUNKS: usize = 15;

/// Tiles of rows in the test product; every stage is used more than once.
const CHECK_TILES: usize = 2;

/// Shared memory of a block that streams columns beside the rows, in bytes.
pub fn streamed_bytes(stages: u32) -> u32 {
    2 * stages * SLAB_BYTES
}

/// Shared memory of a block that keeps its columns of `column_bytes`, in bytes; none if that is too
/// much.
pub fn resident_bytes(column_bytes: u32) -> Option<u32> {
    let bytes = (column_bytes.div_ceil(128) + HOPPER_STAGES) * SLAB_BYTES;
    (bytes <= HOPPER_SHARED_BYTES).then_some(bytes)
}

/// True if Hopper's warpgroup kernels are to be used: they give the right test products, and
/// `kernels` permits them. `check` is the kernel `check_wgmma`.
///
/// # Errors
///
/// `Error::DeviceUnavailable` if the test product cannot be computed.
pub fn use_warpgroup_products(
    gpu: &Gpu,
    check: &CudaFunction,
    kernels: GpuKernels,
) -> Result<bool> {
    if kernels == GpuKernels::Portable {
        return Ok(false);
    }
    let right = are_right(gpu, check).map_err(|e| {
        gpu.unavailable(format!(
            "{} in the test of its warpgroup products; WARPSEEK_GPU_KERNELS=portable avoids them",
            describe(e)
        ))
    })?;
    if !right {
        tracing::warn!(
            "wrong warpgroup products on this GPU: using the portable kernels; please report it"
        );
    }
    Ok(right)
}

/// True if products of small integers, which are exact in any order, are right: of half precision
/// and of int8, with resident and with streamed columns.
fn are_right(gpu: &Gpu, check: &CudaFunction) -> CudaResult<bool> {
    let f16_are_right = are_right_of(gpu, check, |v| f16::from_f32(v).to_bits())?;
    Ok(f16_are_right && are_right_of(gpu, check, |v| v as i8)?)
}

fn are_right_of<T: DeviceRepr + Default>(
    gpu: &Gpu,
    check: &CudaFunction,
    convert: impl Fn(f32) -> T,
) -> CudaResult<bool> {
    const SIDE: usize = TILE_SIDE as usize;
    const N_SUMS: usize = CHECK_TILES * SIDE * SIDE;
    let width = CHECK_CHUNKS * 64 / size_of::<T>();
    let number = |i: usize, step: usize| ((i * step + i / width * 5) % 11) as f32 - 5.0;
    let side = |n: usize, step| -> Vec<f32> { (0..n * width).map(|i| number(i, step)).collect() };
    let (rows, columns) = (side(CHECK_TILES * SIDE, 7), side(SIDE, 3));
    let product = |row: &[f32], column: &[f32]| row.iter().zip(column).map(|(a, b)| a * b).sum();
    let products = rows
        .par_chunks(width)
        .flat_map_iter(|row| columns.chunks(width).map(move |column| product(row, column)));
    let expected: Vec<f32> = products.collect();
    let converted = |side: &[f32]| -> Vec<T> { side.iter().map(|&v| convert(v)).collect() };
    let (rows, columns) = (converted(&rows), converted(&columns));
    let (mut row_buffer, mut column_buffer) = (DeviceBuffer::default(), DeviceBuffer::default());
    let mut sums = DeviceBuffer::default();
    let params = CheckParams {
        rows: row_buffer.fill(gpu, &rows)?,
        columns: column_buffer.fill(gpu, &columns)?,
        sums: sums.reserve(gpu, N_SUMS)?,
        chunks: CHECK_CHUNKS as u32,
        n_tiles: CHECK_TILES as u32,
        resident: 0,
        int8: u32::from(size_of::<T>() == 1),
    };
    let kept = resident_bytes(CHECK_CHUNKS as u32 * 64).unwrap_or(HOPPER_SHARED_BYTES);
    for (resident, shared) in [(1, kept), (0, streamed_bytes(HOPPER_STAGES_TWO_BLOCKS))] {
        let params = CheckParams { resident, ..params };
        launch(gpu, check, (1, 1), TILE_THREADS, shared, &params)?;
        let mut got = vec![0f32; N_SUMS];
        sums.read(gpu, &mut got)?;
        gpu.stream.synchronize()?;
        if got != expected {
            return Ok(false);
        }
    }
    Ok(true)
}
