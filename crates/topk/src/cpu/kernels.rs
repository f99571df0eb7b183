//! Kernels of the scan, by CPU tier: products of half-precision rows, canonical scores, and the
//! comparison of integer scores with gates.

use super::generic;
use super::int8::{RowColumns, RowTerms};
#[cfg(target_arch = "x86_64")]
use super::x86::{avx2, avx512};
use crate::matrix::STRIDE_MULTIPLE;
use half::f16;
use warpseek_compute::by_tier;
use warpseek_compute::cpu::{Kernels, PANEL, Tier};

/// Covers a block of rows and queries with register tiles of `$rt` rows x `$qt` queries, then `$ra`
/// rows at a time for each remaining query. An incomplete last tile repeats its last row and drops
/// the surplus.
#[cfg(target_arch = "x86_64")]
macro_rules! for_each_tile {
    ($rows:ident, $queries:ident, $scores:ident, $rt:literal, $qt:literal, $ra:literal, $tile:ident) => {{
        let stride = $rows[0].len();
        let n_rows = $rows.len();
        let n_queries = $queries.len() / stride;
        let grouped = n_queries / $qt * $qt;
        let row_at = |r: usize| $rows[r.min(n_rows - 1)].as_ptr();
        let query_at = |q: usize| $queries[q * stride..(q + 1) * stride].as_ptr();
        for q in (0..grouped).step_by($qt) {
            let query = std::array::from_fn::<_, $qt, _>(|i| query_at(q + i));
            for r in (0..n_rows).step_by($rt) {
                let row = std::array::from_fn::<_, $rt, _>(|i| row_at(r + i));
                // SAFETY: the caller guarantees the CPU features; `stride` values follow every
                // pointer.
                let tile = unsafe { $tile(row, query, stride) };
                let n = $rt.min(n_rows - r);
                for (i, values) in tile.iter().enumerate() {
                    let start = (q + i) * n_rows + r;
                    $scores[start..start + n].copy_from_slice(&values[..n]);
                }
            }
        }
        for q in grouped..n_queries {
            for r in (0..n_rows).step_by($ra) {
                let row = std::array::from_fn::<_, $ra, _>(|i| row_at(r + i));
                // SAFETY: as above.
                let [values] = unsafe { $tile(row, [query_at(q)], stride) };
                let n = $ra.min(n_rows - r);
                let start = q * n_rows + r;
                $scores[start..start + n].copy_from_slice(&values[..n]);
            }
        }
    }};
}
#[cfg(target_arch = "x86_64")]
pub(super) use for_each_tile;

/// The kernels of a tier for the scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanKernels {
    /// The int8 products.
    pub(super) products: Kernels,
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
        by_tier!(self,
            Tier::Avx2 | Tier::AvxVnni => avx2, Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512;
            scores(rows, queries, scores))
    }

    /// Returns the canonical score of a padded query and row.
    pub(super) fn canonical(self, query: &[f32], row: &[f16]) -> f32 {
        assert!(query.len() == row.len() && row.len().is_multiple_of(16));
        by_tier!(self,
            Tier::Avx2 | Tier::AvxVnni => avx2, Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512;
            canonical(query, row))
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
        by_tier!(self,
            Tier::Avx2 | Tier::AvxVnni => avx2, Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512;
            passing_lanes(scores, row, factors, gates))
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
        by_tier!(self,
            Tier::Avx2 | Tier::AvxVnni => avx2, Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512;
            passing_rows(scores, rows, factor, gate))
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
