//! Hopper's warpgroup products (`wgmma`, `kernels/tiles_hopper.cuh`), and the test product that
//! decides whether they are used.

use super::buffer::{CudaResult, DeviceBuffer};
use super::context::{Gpu, describe, launch};
use super::{TILE_SIDE, TILE_THREADS};
use crate::device::GpuKernels;
use crate::error::{Error, Result};
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaFunction, DeviceRepr};
use half::f16;
use rayon::prelude::*;

/// Dynamic shared memory that a kernel may request on Hopper, in bytes.
pub const HOPPER_SHARED_BYTES: u32 = 227 << 10;

/// 128 bytes of 128 rows.
const SLAB_BYTES: u32 = 128 * 128;

/// Pipeline stages with one block per multiprocessor.
pub const HOPPER_STAGES: u32 = 6;

/// Pipeline stages with two blocks per multiprocessor.
pub const HOPPER_STAGES_OF_TWO: u32 = 3;

/// 64-byte chunks of rows and columns in the test product: eight steps, the last one half empty.
const CHECK_CHUNKS: usize = 15;

/// Tiles of rows in the test product; every stage is used more than once.
const CHECK_TILES: usize = 2;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct CheckParams {
    rows: CUdeviceptr,
    columns: CUdeviceptr,
    sums: CUdeviceptr,
    chunks: u32,
    n_tiles: u32,
    resident: u32,
    bytes: u32,
}

// SAFETY: plain numbers in the order and with the sizes that the kernel was compiled for.
unsafe impl DeviceRepr for CheckParams {}
const _: () = assert!(size_of::<CheckParams>() == 40);

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
/// `kernels` permits them.
///
/// # Errors
///
/// [`Error::DeviceUnavailable`] if the test product cannot be computed.
pub fn use_warpgroup_products(
    gpu: &Gpu,
    check: &CudaFunction,
    kernels: GpuKernels,
) -> Result<bool> {
    if kernels == GpuKernels::Portable {
        return Ok(false);
    }
    let right = are_right(gpu, check).map_err(|e| Error::DeviceUnavailable {
        device: format!("cuda:{}", gpu.context.ordinal()),
        reason: format!(
            "{} while its warpgroup products were tested; WARPSEEK_GPU_KERNELS=portable avoids them",
            describe(e)
        ),
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
    let to_f16 = |v: f32| f16::from_f32(v).to_bits();
    let to_i8 = |v: f32| v as i8;
    Ok(are_right_of(gpu, check, 0, to_f16)? && are_right_of(gpu, check, 1, to_i8)?)
}

fn are_right_of<T: DeviceRepr>(
    gpu: &Gpu,
    check: &CudaFunction,
    bytes: u32,
    convert: impl Fn(f32) -> T,
) -> CudaResult<bool> {
    const N_SUMS: usize = CHECK_TILES * TILE_SIDE * TILE_SIDE;
    let width = CHECK_CHUNKS * 64 / size_of::<T>();
    let number = |i: usize, step: usize| ((i * step + i / width * 5) % 11) as f32 - 5.0;
    let side = |n: usize, step| -> Vec<f32> { (0..n * width).map(|i| number(i, step)).collect() };
    let (rows, columns) = (side(CHECK_TILES * TILE_SIDE, 7), side(TILE_SIDE, 3));
    let product = |row: &[f32], column: &[f32]| row.iter().zip(column).map(|(a, b)| a * b).sum();
    let products = rows
        .par_chunks(width)
        .flat_map_iter(|row| columns.chunks(width).map(move |column| product(row, column)));
    let expected: Vec<f32> = products.collect();
    let converted = |side: &[f32]| -> Vec<T> { side.iter().map(|&v| convert(v)).collect() };
    let (rows, columns) = (converted(&rows), converted(&columns));
    let (mut sides, mut sums) =
        ([DeviceBuffer::default(), DeviceBuffer::default()], DeviceBuffer::default());
    let mut params = CheckParams {
        rows: sides[0].fill(gpu, &rows)?,
        columns: sides[1].fill(gpu, &columns)?,
        sums: sums.reserve(gpu, N_SUMS)?,
        chunks: CHECK_CHUNKS as u32,
        n_tiles: CHECK_TILES as u32,
        resident: 0,
        bytes,
    };
    let resident = resident_bytes(CHECK_CHUNKS as u32 * 64).unwrap_or(HOPPER_SHARED_BYTES);
    for (keeps, shared) in [(1, resident), (0, streamed_bytes(HOPPER_STAGES_OF_TWO))] {
        params.resident = keeps;
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
