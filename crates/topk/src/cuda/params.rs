//! What is handed to kernels, by value: `kernels/params.cuh`, field for field.

use cudarc::driver::DeviceRepr;
use cudarc::driver::sys::CUdeviceptr;

/// Positions that a block scans at a time.
pub(super) const TILE: u32 = 128;
/// Buffers of queries are padded to a multiple of this.
pub(super) const QUERY_TILE: usize = 128;
/// Threads of a block of every kernel but the scans.
pub(super) const SELECT_THREADS: u32 = 256;
pub(super) const SMALL_THREADS: u32 = 128;
/// Up to so many keys are sorted at once.
pub(super) const FEW_KEYS: u32 = 512;

/// What a scan reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reads {
    /// Rows and queries in half precision.
    Halves,
    /// Rows in 8 bits, queries as a plane of bytes.
    OnePlane,
    /// Rows in 8 bits, queries as two planes.
    TwoPlanes,
}

impl Reads {
    pub(super) fn planes(self) -> usize {
        match self {
            Self::Halves => 0,
            Self::OnePlane => 1,
            Self::TwoPlanes => 2,
        }
    }

    /// How many candidates stay for every hit, of random rows.
    pub(super) fn candidates_a_hit(self) -> usize {
        match self {
            Self::Halves => 1,
            // After its second look.
            Self::OnePlane => 5,
            Self::TwoPlanes => 6,
        }
    }
}

/// The rows at hand.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rows {
    pub(super) values: CUdeviceptr,
    pub(super) bytes: CUdeviceptr,
    pub(super) scales: CUdeviceptr,
    pub(super) list: CUdeviceptr,
    pub(super) masks: CUdeviceptr,
    pub(super) mask_of: CUdeviceptr,
    pub(super) n_positions: u32,
    pub(super) mask_words: u32,
    pub(super) stride: u32,
    pub(super) first_row: u32,
    pub(super) byte_stride: u32,
    pub(super) max_residual: f32,
}

/// The queries of a chain, and what is known of each.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Queries {
    pub(super) values: CUdeviceptr,
    pub(super) halves: CUdeviceptr,
    pub(super) planes: CUdeviceptr,
    pub(super) steps: CUdeviceptr,
    pub(super) powers: CUdeviceptr,
    pub(super) errors: CUdeviceptr,
    pub(super) thresholds: CUdeviceptr,
    pub(super) counts: CUdeviceptr,
    pub(super) candidates: CUdeviceptr,
    pub(super) best: CUdeviceptr,
    pub(super) n_best: CUdeviceptr,
    pub(super) flags: CUdeviceptr,
    pub(super) n: u32,
    pub(super) k: u32,
    pub(super) capacity: u32,
    pub(super) max_norm: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct PrepareParams {
    pub(super) rows: Rows,
    pub(super) queries: Queries,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanParams {
    pub(super) rows: Rows,
    pub(super) queries: Queries,
    pub(super) n_tiles: u32,
    pub(super) step: u32,
    pub(super) begin: u32,
    pub(super) end: u32,
    pub(super) first_round: u32,
    pub(super) outbox: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct SelectParams {
    pub(super) rows: Rows,
    pub(super) queries: Queries,
    pub(super) n_direct: u32,
    pub(super) second_look: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct ScoreAllParams {
    pub(super) rows: Rows,
    pub(super) queries: Queries,
    pub(super) keys: CUdeviceptr,
    pub(super) query: u32,
    pub(super) begin: u32,
    pub(super) end: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct MergeParams {
    pub(super) queries: Queries,
    pub(super) keys: CUdeviceptr,
    pub(super) n_keys: u32,
    pub(super) query: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct ListParams {
    pub(super) mask: CUdeviceptr,
    pub(super) list: CUdeviceptr,
    pub(super) n_listed: CUdeviceptr,
    pub(super) n_rows: u32,
}

/// Products of registers, over and over.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct MeasureParams {
    pub(super) sums: CUdeviceptr,
    pub(super) repeats: u32,
}

/// Products of a warp and repeat.
pub(super) const MEASURED_PRODUCTS: usize = 8 * 16 * 8 * 16;

// What kernels/params.cuh asserts of the kernels' side.
const _: () = assert!(size_of::<Rows>() == 72 && size_of::<Queries>() == 112);
const _: () = assert!(size_of::<PrepareParams>() == 184 && size_of::<ScanParams>() == 208);
const _: () = assert!(size_of::<SelectParams>() == 192 && size_of::<ScoreAllParams>() == 208);
const _: () = assert!(size_of::<MergeParams>() == 128 && size_of::<ListParams>() == 32);
const _: () = assert!(size_of::<MeasureParams>() == 16);

// SAFETY: they are plain numbers in the order and with the sizes that the kernels were compiled for.
unsafe impl DeviceRepr for PrepareParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for ScanParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for SelectParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for ScoreAllParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for MergeParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for ListParams {}
// SAFETY: as above.
unsafe impl DeviceRepr for MeasureParams {}
