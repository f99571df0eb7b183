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

/// Bytes of 64 values of 128 rows.
const SLAB_BYTES: u32 = 128 * 64 * 2;

/// Stages where one block has a multiprocessor, and where two have.
pub(crate) const HOPPER_STAGES: u32 = 6;
pub(crate) const HOPPER_STAGES_OF_TWO: u32 = 3;

/// 32-value chunks of rows and columns in the check: eight steps, of which the last is half empty.
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
}

// SAFETY: they are plain numbers in the order and with the sizes that the kernel was compiled for.
unsafe impl DeviceRepr for CheckParams {}
const _: () = assert!(size_of::<CheckParams>() == 40);

/// Shared memory of a block whose columns pass by beside the rows.
pub(crate) fn streamed_bytes(stages: u32) -> u32 {
    2 * stages * SLAB_BYTES
}

/// Shared memory of a block that keeps its columns of `stride` values, where there is so much.
pub(crate) fn resident_bytes(stride: u32) -> Option<u32> {
    let bytes = (stride.div_ceil(64) + HOPPER_STAGES) * SLAB_BYTES;
    (bytes <= HOPPER_SHARED_BYTES).then_some(bytes)
}

/// Whether the kernels that multiply by warpgroups are to be used: on Hopper, where they give the right numbers, unless
/// the environment variable `WARPSEEK_GPU_KERNELS` is `portable`.
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
    if gpu.capability != (9, 0) {
        return Ok(false);
    }
    let right = is_right(gpu, check, true).and_then(|r| Ok(r && is_right(gpu, check, false)?));
    let right = right.map_err(|e| Error::DeviceUnavailable {
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

/// Whether products of small integers, which are exact in any order, are right.
fn is_right(gpu: &Gpu, check: &CudaFunction, resident: bool) -> Outcome<bool> {
    const WIDTH: usize = CHECK_CHUNKS * 32;
    let number = |i: usize, step: usize| ((i * step + i / WIDTH * 5) % 11) as f32 - 5.0;
    let side = |n: usize, step| -> Vec<f32> { (0..n * WIDTH).map(|i| number(i, step)).collect() };
    let (rows, columns) = (side(CHECK_TILES * TILE_SIDE, 7), side(TILE_SIDE, 3));
    let halves =
        |side: &[f32]| -> Vec<u16> { side.iter().map(|&v| f16::from_f32(v).to_bits()).collect() };
    let (rows_here, columns_here) = (halves(&rows), halves(&columns));
    let (mut there, mut sums) = ([Buffer::default(), Buffer::default()], Buffer::default());
    let params = CheckParams {
        rows: there[0].fill(gpu, &rows_here)?,
        columns: there[1].fill(gpu, &columns_here)?,
        sums: sums.reserve(gpu, CHECK_TILES * TILE_SIDE * TILE_SIDE)?,
        chunks: CHECK_CHUNKS as u32,
        n_tiles: CHECK_TILES as u32,
        resident: u32::from(resident),
    };
    let bytes = match resident {
        true => resident_bytes(WIDTH as u32).unwrap_or(HOPPER_SHARED_BYTES),
        false => streamed_bytes(HOPPER_STAGES_OF_TWO),
    };
    launch(gpu, check, (1, 1), TILE_THREADS, bytes, &params)?;
    let mut got = vec![0f32; CHECK_TILES * TILE_SIDE * TILE_SIDE];
    sums.read(gpu, &mut got)?;
    gpu.stream.synchronize()?;
    Ok(rows.par_chunks(WIDTH).zip(got.par_chunks(TILE_SIDE)).all(|(row, got)| {
        let product = |column: &[f32]| row.iter().zip(column).map(|(a, b)| a * b).sum::<f32>();
        columns.chunks(WIDTH).map(product).eq(got.iter().copied())
    }))
}
