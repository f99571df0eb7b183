//! The GPU that scan and encoder share: context, buffers, launches, CUDA graphs, errors.
//!
//! Each user has streams of its own and a binary of kernels of its own; the driver gives all of
//! them one context. Without the feature `cuda` nothing can be opened, and [`DeviceVectors`] has no
//! values.
//!
//! Two optimizations live behind one type each, and nothing else knows of them: query vectors that
//! stay on the device between encoder and scan ([`DeviceVectors`]), and CUDA graphs of launch-bound
//! batches (`GraphCache`).
//!
//! Functions that return a `CudaResult` fail with the driver's error.
#![allow(clippy::missing_errors_doc)]

#[cfg(feature = "cuda")]
mod buffer;
#[cfg(feature = "cuda")]
mod context;
#[cfg(feature = "cuda")]
mod device_vectors;
#[cfg(feature = "cuda")]
mod graph;
// The generator gives all items one visibility.
#[cfg(feature = "cuda")]
#[allow(unreachable_pub)]
mod tiles;
#[cfg(feature = "cuda")]
mod wgmma;

use crate::error::Error;
#[cfg(feature = "cuda")]
pub use buffer::{DeviceBuffer, Pod, StagedBuffer, address, allocate, copy_values};
#[cfg(feature = "cuda")]
pub use context::{
    CudaResult, Gpu, MAX_SHARED_BYTES, device_failed, is_out_of_memory, launch, version_text,
};
#[cfg(feature = "cuda")]
pub use device_vectors::{BufferPool, DeviceVectors};
#[cfg(feature = "cuda")]
pub use graph::GraphCache;
#[cfg(feature = "cuda")]
pub use tiles::{
    HOPPER_STAGES, HOPPER_STAGES_TWO_BLOCKS, TILE_SHARED_BYTES, TILE_SIDE, TILE_THREADS,
};
#[cfg(feature = "cuda")]
pub use wgmma::{HOPPER_SHARED_BYTES, resident_bytes, streamed_bytes, use_warpgroup_products};

/// Vectors on a GPU; this build has none.
#[cfg(not(feature = "cuda"))]
#[derive(Debug)]
pub enum DeviceVectors {}

/// Returns the error for a GPU that was requested from a build without the feature `cuda`.
pub fn not_built(ordinal: u32) -> Error {
    let reason = "this warpseek was built without CUDA; use --device cpu";
    Error::unavailable(format!("cuda:{ordinal}"), reason)
}
