//! Kernels of the scan, by CPU tier: products of half-precision rows, canonical scores, and the
//! comparison of integer scores with gates.

use super::gate::{RowColumns, RowTerms};
use super::generic;
#[cfg(target_arch = "x86_64")]
use super::x86::{avx2, avx512};
use crate::layout::STRIDE_MULTIPLE;
use half::f16;
use warpseek_compute::by_tier;
use warpseek_compute::cpu::{Kernels, PANEL, Tier};

/// The kernels of a tier for the scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanKernels {
    /// The int8 products.
    pub(super) products: Kernels,
}

/// Calls the kernel of the tier.
macro_rules! dispatch {
    ($self:ident, $kernel:ident $arguments:tt) => {
        by_tier!($self,
            Tier::Avx2 | Tier::AvxVnni => avx2,
            Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512;
            $kernel $arguments)
    };
}

impl ScanKernels {
    /// Returns the kernels of `tier`, or the generic ones if this CPU lacks it.
    pub(super) fn of(tier: Tier) -> Self {
        Self { products: tier.kernels() }
    }

    fn tier(self) -> Tier {
        self.products.tier()
    }

    /// Computes approximate float32 scores of `rows`, `[stride]` each, and `queries`, `[n_queries,
    /// stride]`, into `scores`, `[n_queries, rows.len()]`, each within the error bound of
    /// [`super::f16`].
    pub(super) fn scores(self, rows: &[&[f16]], queries: &[f32], scores: &mut [f32]) {
        let Some(stride) = rows.first().map(|row| row.len()) else { return };
        assert!(
            rows.iter().all(|row| row.len() == stride)
                && stride.is_multiple_of(STRIDE_MULTIPLE)
                && queries.len() / stride * rows.len() == scores.len()
                && queries.len().is_multiple_of(stride),
            "block of rows, queries and scores must fit together"
        );
        dispatch!(self, scores(rows, queries, scores))
    }

    /// Returns the canonical score of a padded query and row.
    pub(super) fn canonical(self, query: &[f32], row: &[f16]) -> f32 {
        assert!(query.len() == row.len() && row.len().is_multiple_of(16));
        dispatch!(self, canonical(query, row))
    }

    /// Compares one row's integer scores with the gates of up to 64 queries. Returns one bit per
    /// query: 1 if it passes.
    pub(super) fn passing_lanes(
        self,
        scores: &[i32],
        row: RowTerms,
        factors: &[f32],
        gates: &[f32],
    ) -> u64 {
        let n = scores.len();
        assert!(n <= 64 && n.is_multiple_of(PANEL) && factors.len() == n && gates.len() == n);
        dispatch!(self, passing_lanes(scores, row, factors, gates))
    }

    /// Compares one query's integer scores of up to 64 rows with its gate. Returns one bit per row:
    /// 1 if it passes.
    pub(super) fn passing_rows(
        self,
        scores: &[i32],
        rows: RowColumns<'_>,
        factor: f32,
        gate: f32,
    ) -> u64 {
        let n = scores.len();
        assert!(
            n <= 64 && [rows.bases.len(), rows.scales.len(), rows.residuals.len()] == [n; 3],
            "scores and rows must fit together"
        );
        dispatch!(self, passing_rows(scores, rows, factor, gate))
    }

    /// Prefetches a row that will be needed soon.
    pub(super) fn prefetch(self, row: &[f16]) {
        #[cfg(target_arch = "x86_64")]
        for line in row.chunks(32) {
            // SAFETY: part of every x86-64 CPU; a hint that reads nothing.
            unsafe {
                use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = row;
    }
}
