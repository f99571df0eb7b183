//! Hopper's products of whole warpgroups (`kernels/tiles_hopper.cuh`), and whether they can be relied on.

use super::driver::{Gpu, describe, launch};
use super::memory::{Buffer, Outcome};
use super::{TILE_SIDE, TILE_THREADS};
use crate::error::{Error, Result};
use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaFunction, DeviceRepr};
use half::f16;
use rayon::prelude::*;

/// What kernels may ask for of shared memory there.
pub(crate) const HOPPER_SHARED_BYTES: u32 = 227 << 10;

/// 128 bytes of 128 rows.
const SLAB_BYTES: u32 = 128 * 128;

/// Stages where one block has a multiprocessor, and where two have.
pub(crate) const HOPPER_STAGES: u32 = 6;
pub(crate) const HOPPER_STAGES_OF_TWO: u32 = 3;

/// 64-byte chunks of rows and columns in the check: eight steps, of which the last is half empty.
const CHECK_CHUNKS: usize = 15;

/// Tiles of rows in the check; with as many steps every stage is used more than once.
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

// SAFETY: they are plain numbers in the order and with the sizes that the kernel was compiled for.
unsafe impl DeviceRepr for CheckParams {}
const _: () = assert!(size_of::<CheckParams>() == 40);

/// Shared memory of a block whose columns pass by beside the rows.
pub(crate) fn streamed_bytes(stages: u32) -> u32 {
    2 * stages * SLAB_BYTES
}

/// Shared memory of a block that keeps its columns of `column_bytes`, where there is so much.
pub(crate) fn resident_bytes(column_bytes: u32) -> Option<u32> {
    let bytes = (column_bytes.div_ceil(128) + HOPPER_STAGES) * SLAB_BYTES;
    (bytes <= HOPPER_SHARED_BYTES).then_some(bytes)
}

/// Whether a Hopper's kernels that multiply by warpgroups are to be used: where they give the right numbers, unless the
/// environment variable `WARPSEEK_GPU_KERNELS` is `portable`.
///
/// # Errors
///
/// [`Error::Usage`] for another value of that variable, [`Error::DeviceUnavailable`] where the check cannot be done.
pub(crate) fn has_warpgroup_products(gpu: &Gpu, check: &CudaFunction) -> Result<bool> {
    match std::env::var("WARPSEEK_GPU_KERNELS").as_deref() {
        Err(_) | Ok("" | "auto") => {}
        Ok("portable") => return Ok(false),
        Ok(other) => {
            return Err(Error::usage(format!(
                "WARPSEEK_GPU_KERNELS is '{other}': use auto or portable"
            )));
        }
    }
    let right = are_right(gpu, check).map_err(|e| Error::DeviceUnavailable {
        device: format!("cuda:{}", gpu.context.ordinal()),
        reason: format!(
            "{} while its products of warpgroups were checked; WARPSEEK_GPU_KERNELS=portable does without these",
            describe(e)
        ),
    })?;
    if !right {
        tracing::warn!(
            "this GPU's products of warpgroups are not what they should be: using the portable kernels; please report it"
        );
    }
    Ok(right)
}

/// Whether products of small integers, which are exact in any order, are right: of halves and of bytes, with columns
/// that stay and without.
fn are_right(gpu: &Gpu, check: &CudaFunction) -> Outcome<bool> {
    let halves = |v: f32| f16::from_f32(v).to_bits();
    let bytes = |v: f32| v as i8;
    Ok(are_right_of(gpu, check, 0, halves)? && are_right_of(gpu, check, 1, bytes)?)
}

fn are_right_of<T: DeviceRepr>(
    gpu: &Gpu,
    check: &CudaFunction,
    bytes: u32,
    convert: impl Fn(f32) -> T,
) -> Outcome<bool> {
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
    let (mut there, mut sums) = ([Buffer::default(), Buffer::default()], Buffer::default());
    let mut params = CheckParams {
        rows: there[0].fill(gpu, &rows)?,
        columns: there[1].fill(gpu, &columns)?,
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
