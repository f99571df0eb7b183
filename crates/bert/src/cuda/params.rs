//! What is handed to kernels, by value: `kernels/encoder_params.cuh`, field for field.

use cudarc::driver::DeviceRepr;
use cudarc::driver::sys::CUdeviceptr;

/// Threads of a block of every kernel but `linear` and attention, and the rows that a block of most takes.
pub(super) const ROW_THREADS: u32 = 256;
pub(super) const ROWS_AT_ONCE: u32 = ROW_THREADS / 32;
/// The widest row whose norm is taken.
pub(super) const MOST_WIDTH: usize = 1024;

pub(super) const ATTENTION_THREADS: u32 = 128;
pub(super) const ATTENTION_QUERIES: usize = 64;

/// Bytes of shared memory for heads of `chunks * 32` values.
pub(super) fn attention_shared_bytes(chunks: usize) -> u32 {
    (2 * 2 * chunks * 64 * 64) as u32
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct NormWeights {
    pub(super) weight: CUdeviceptr,
    pub(super) bias: CUdeviceptr,
    pub(super) width: u32,
    pub(super) stride: u32,
    pub(super) epsilon: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct EmbedParams {
    pub(super) norm: NormWeights,
    pub(super) ids: CUdeviceptr,
    pub(super) places: CUdeviceptr,
    pub(super) words: CUdeviceptr,
    pub(super) positions: CUdeviceptr,
    pub(super) types: CUdeviceptr,
    pub(super) x: CUdeviceptr,
    pub(super) n_rows: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct NormParams {
    pub(super) norm: NormWeights,
    pub(super) x: CUdeviceptr,
    pub(super) n_rows: u32,
}

/// The activations of `linear`.
pub(super) const NO_ACTIVATION: u32 = 0;
pub(super) const GELU: u32 = 1;
pub(super) const GELU_TANH: u32 = 2;
pub(super) const RELU: u32 = 3;
pub(super) const TANH: u32 = 4;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct LinearParams {
    pub(super) x: CUdeviceptr,
    pub(super) weight: CUdeviceptr,
    pub(super) bias: CUdeviceptr,
    pub(super) residual: CUdeviceptr,
    pub(super) y: CUdeviceptr,
    pub(super) n_rows: u32,
    pub(super) n_in: u32,
    pub(super) n_out: u32,
    pub(super) activation: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) first_key: u32,
    pub(super) n_keys: u32,
    pub(super) first_query: u32,
    pub(super) n_queries: u32,
    pub(super) to: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionParams {
    pub(super) qkv: CUdeviceptr,
    pub(super) context: CUdeviceptr,
    pub(super) spans: CUdeviceptr,
    pub(super) n_heads: u32,
    pub(super) scale: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct GatherParams {
    pub(super) x: CUdeviceptr,
    pub(super) rows: CUdeviceptr,
    pub(super) y: CUdeviceptr,
    pub(super) n_rows: u32,
    pub(super) stride: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct OutParams {
    pub(super) x: CUdeviceptr,
    pub(super) starts: CUdeviceptr,
    pub(super) weight: CUdeviceptr,
    pub(super) out: CUdeviceptr,
    pub(super) n: u32,
    pub(super) width: u32,
    pub(super) stride: u32,
    pub(super) bias: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct HandOverParams {
    pub(super) from: CUdeviceptr,
    pub(super) order: CUdeviceptr,
    pub(super) to: CUdeviceptr,
    pub(super) n: u32,
    pub(super) width: u32,
    pub(super) stride: u32,
    pub(super) unit: u32,
}

// What kernels/encoder_params.cuh asserts of the kernels' side.
const _: () = assert!(size_of::<NormWeights>() == 32 && size_of::<EmbedParams>() == 88);
const _: () = assert!(size_of::<NormParams>() == 48 && size_of::<LinearParams>() == 56);
const _: () = assert!(size_of::<Span>() == 20 && size_of::<AttentionParams>() == 32);
const _: () = assert!(size_of::<GatherParams>() == 32 && size_of::<OutParams>() == 48);
const _: () = assert!(size_of::<HandOverParams>() == 40);

// SAFETY: they are plain numbers in the order and with the sizes that the kernels were compiled for.
unsafe impl DeviceRepr for EmbedParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for NormParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for LinearParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for Span {}
// SAFETY: as above.
unsafe impl DeviceRepr for AttentionParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for GatherParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for OutParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for HandOverParams {}
