//! The GPU that the scan and the encoder share: opening it, its memory, launches, and what its errors mean.
//!
//! Each user has streams of its own, and kernels in a binary of its own; the driver gives all of them one context.

mod driver;
mod hopper;
mod memory;
mod recording;
mod vectors;

pub(crate) use driver::{
    Gpu, MAX_SHARED_BYTES, allow_shared, failure, is_out_of_memory, launch, version_text,
};
pub(crate) use hopper::{
    HOPPER_SHARED_BYTES, HOPPER_STAGES, HOPPER_STAGES_OF_TWO, has_warpgroup_products,
    resident_bytes, streamed_bytes,
};
pub(crate) use memory::{Buffer, Outcome, Pinned, Pod, address, allocate, copy_values};
pub(crate) use recording::Recordings;
pub(crate) use vectors::{DeviceVectors, Spare};

/// Rows and columns that a block of `kernels/tiles.cuh` multiplies, and what it asks for.
pub(crate) const TILE_SIDE: usize = 128;
pub(crate) const TILE_THREADS: u32 = 256;
pub(crate) const TILE_SHARED_BYTES: u32 = 3 * 2 * 2 * 128 * 4 * 16;
