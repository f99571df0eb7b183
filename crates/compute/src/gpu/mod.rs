//! The GPU that scan and encoder share: context, buffers, launches, CUDA graphs, errors.
//!
//! Each user has streams of its own and a binary of kernels of its own; the driver gives all of
//! them one context. Without the feature `cuda` nothing can be opened, and [`DeviceVectors`] has no
//! values.

#[cfg(feature = "cuda")]
mod buffer;
#[cfg(feature = "cuda")]
mod context;
#[cfg(feature = "cuda")]
mod device_vectors;
#[cfg(feature = "cuda")]
mod graph;
#[cfg(feature = "cuda")]
mod wgmma;

use crate::error::Error;
#[cfg(feature = "cuda")]
pub use buffer::{CudaResult, DeviceBuffer, PinnedBuffer, Pod, address, allocate, copy_values};
#[cfg(feature = "cuda")]
pub use context::{
    Gpu, MAX_SHARED_BYTES, allow_shared, device_failed, is_out_of_memory, launch, version_text,
};
#[cfg(feature = "cuda")]
pub use device_vectors::{BufferPool, DeviceVectors};
#[cfg(feature = "cuda")]
pub use graph::GraphCache;
#[cfg(feature = "cuda")]
pub use wgmma::{
    HOPPER_SHARED_BYTES, HOPPER_STAGES, HOPPER_STAGES_OF_TWO, resident_bytes, streamed_bytes,
    use_warpgroup_products,
};

/// Rows and columns of a tile that a block of `kernels/tiles.cuh` multiplies.
pub const TILE_SIDE: usize = 128;
/// Threads of such a block.
pub const TILE_THREADS: u32 = 256;
/// Shared memory of such a block, in bytes.
pub const TILE_SHARED_BYTES: u32 = 3 * 2 * 2 * 128 * 4 * 16;

/// Vectors on a GPU; this build has none.
#[cfg(not(feature = "cuda"))]
#[derive(Debug)]
pub enum DeviceVectors {}

/// Returns the error for a GPU that was requested from a build without the feature `cuda`.
pub fn not_built(ordinal: u32) -> Error {
    Error::DeviceUnavailable {
        device: format!("cuda:{ordinal}"),
        reason: "this warpseek was built without CUDA; use --device cpu".to_owned(),
    }
}
