//! The element types that a scan reads, and the choice among them.

use super::ScanRequest;
use super::resident::DeviceSq8;
use warpseek_compute::gpu::MAX_SHARED_BYTES;

/// The largest k that is selected on the device.
pub(super) const MAX_K: usize = 2048;

/// The most candidates per query; fewer if there are many queries.
pub(super) const MAX_CANDIDATES: usize = 16384;

/// Batches of up to this many queries are bound by reading the rows.
pub(super) const SMALL_BATCH: usize = 64;

/// Batches of up to this many queries read the int8 copy, if there is one.
const SMALL_INT8_BATCH: usize = 32;

/// The largest residual of a row, relative to the largest norm, with which int8 pays off: with a
/// larger one too many rows become candidates.
const MAX_RESIDUAL: f32 = 0.03;

/// The fewest rows per hit for which large batches read int8. Its products take half the time, but
/// the wider error bound lets about five times as many rows become candidates, each of which is
/// then read in half precision. Measured on an H200 with random vectors.
pub(super) const INT8_FROM: usize = 16384;

/// The element types of rows and queries in a scan. The discriminant is the number of int8 parts
/// of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanFormat {
    /// Half precision.
    F16 = 0,
    /// Int8 rows, and the high part of the queries.
    Int8High = 1,
    /// Int8 rows, high and low part of the queries.
    Int8HighLow = 2,
}

impl ScanFormat {
    /// Chooses the format for a scan of `n_rows` rows that pass the masks.
    pub(super) fn choose(
        request: &ScanRequest<'_>,
        n_rows: usize,
        sq8: Option<&DeviceSq8>,
    ) -> Self {
        let (n, k) = (request.queries.len(), request.k);
        let pays = |sq8: &&DeviceSq8| sq8.max_residual <= MAX_RESIDUAL * request.matrix.max_norm();
        let Some(sq8) = sq8.filter(pays) else { return Self::F16 };
        // Eight queries of two parts.
        let fits = 2 * 8 * sq8.stride <= MAX_SHARED_BYTES as usize;
        // The candidates that survive a pass, and as many again.
        let has_room = 2 * Self::Int8HighLow.candidates_per_hit() * k <= MAX_CANDIDATES;
        match n {
            _ if k > MAX_K => Self::F16,
            ..=SMALL_INT8_BATCH if fits && has_room => Self::Int8HighLow,
            ..=SMALL_BATCH => Self::F16,
            _ if sq8.is_too_coarse || n_rows / k < request.int8_from => Self::F16,
            _ => Self::Int8High,
        }
    }

    /// Returns the candidates per hit that survive a pass, on random rows; with
    /// [`ScanFormat::Int8High`] after refinement.
    pub(super) fn candidates_per_hit(self) -> usize {
        match self {
            Self::F16 => 1,
            Self::Int8High => 5,
            Self::Int8HighLow => 6,
        }
    }
}
