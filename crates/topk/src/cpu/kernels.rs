//! Kernels of the scan, by CPU tier: products of half-precision rows, canonical scores, and the
//! comparison of integer scores with gates.

use super::gate::{MAX_LANES, PassingPairs, PendingRow, QueryLanes, RowColumns};
use super::generic;
use super::quantize::QueryFormat;
#[cfg(target_arch = "x86_64")]
use super::x86::{amx, avx2, avx512};
use crate::layout::STRIDE_MULTIPLE;
use crate::sq8::RowScale;
use half::f16;
use warpseek_compute::by_tier;
use warpseek_compute::cpu::{Kernels, MAX_PANELS, PANEL, Tier};

/// The kernels of a tier for the scan.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanKernels {
    /// The int8 products.
    pub(super) products: Kernels,
}

/// Rows whose integer scores are stored before they are compared: a whole number of the kernels'
/// register tiles of 4 to 12 rows.
const TILE_ROWS: usize = 96;

/// Rows of a group, of which [`ScanKernels::lower_maxima`] takes the maximum.
pub(super) const GROUP_ROWS: usize = 32;

/// Buffers of one thread for [`ScanKernels::passing_pairs`].
#[derive(Debug)]
pub(super) struct ScoreBuffers {
    stride: usize,
    /// `[TILE_ROWS, lanes]`.
    scores: Vec<i32>,
    #[cfg(target_arch = "x86_64")]
    tiles: Option<amx::TileBuffers>,
}

/// Calls the kernel of the tier.
macro_rules! dispatch {
    ($self:ident, $kernel:ident $arguments:tt) => {
        by_tier!($self, $kernel $arguments;
            x86: Tier::Avx2 | Tier::AvxVnni => avx2,
                Tier::Avx512 | Tier::Avx512Vnni | Tier::Amx => avx512)
    };
}

impl ScanKernels {
    /// Returns the kernels of `tier`, or the generic ones if this CPU lacks it.
    pub(super) fn of(tier: Tier) -> Self {
        Self { products: tier.kernels() }
    }

    /// Returns buffers for rows of `stride` values.
    pub(super) fn score_buffers(self, stride: usize) -> ScoreBuffers {
        #[cfg(target_arch = "x86_64")]
        if self.tier() == Tier::Amx {
            let tiles = Some(amx::TileBuffers::new(self.products, stride));
            return ScoreBuffers { stride, scores: Vec::new(), tiles };
        }
        ScoreBuffers {
            stride,
            scores: vec![0; TILE_ROWS * self.lanes()],
            #[cfg(target_arch = "x86_64")]
            tiles: None,
        }
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

    /// Computes the canonical scores of a padded query and rows.
    pub(super) fn canonical_scores(self, query: &[f32], rows: &[&[f16]], scores: &mut [f32]) {
        assert!(
            rows.iter().all(|row| row.len() == query.len())
                && query.len().is_multiple_of(16)
                && rows.len() == scores.len(),
            "query, rows and scores must fit together"
        );
        dispatch!(self, canonical_scores(query, rows, scores))
    }

    /// Returns the canonical score of a padded query and row.
    pub(super) fn canonical(self, query: &[f32], row: &[f16]) -> f32 {
        let mut score = [0.0];
        self.canonical_scores(query, &[row], &mut score);
        score[0]
    }

    /// Returns the integers of quantized queries.
    pub(super) fn query_format(self) -> QueryFormat {
        QueryFormat {
            qmax: self.products.column_qmax(),
            has_signed_panels: self.tier() == Tier::Amx,
            few: match self.tier() {
                Tier::Amx => 2,
                Tier::Avx512Vnni => 4,
                _ => 8,
            },
        }
    }

    /// Returns the rows of a sample per result that pay, if any: more where a product is cheaper
    /// beside the handling of a row that passes the gate.
    pub(super) fn sample_rate(self) -> usize {
        match self.tier() {
            Tier::Amx => 256,
            Tier::Avx512Vnni => 64,
            _ => 0,
        }
    }

    /// Returns the most queries that [`ScanKernels::passing_pairs`] takes at once.
    pub(super) fn lanes(self) -> usize {
        if self.tier() == Tier::Amx { MAX_LANES } else { MAX_PANELS * PANEL }
    }

    /// Multiplies rows with the packed panels of up to [`ScanKernels::lanes`] queries, compares the
    /// integer scores with the queries' gates, and appends the pairs that pass.
    pub(super) fn passing_pairs(
        self,
        rows: &[&[i8]],
        columns: RowColumns<'_>,
        panels: &[u8],
        lanes: QueryLanes<'_>,
        buffers: &mut ScoreBuffers,
        passing: &mut PassingPairs,
    ) {
        self.check(rows, columns, panels, lanes, buffers);
        let (n, width) = (rows.len(), lanes.gates.len());
        #[cfg(target_arch = "x86_64")]
        if let (Tier::Amx, Some(tiles)) = (self.tier(), &mut buffers.tiles) {
            // SAFETY: `Tier::kernels` detected the instructions; the lengths were checked.
            unsafe { amx::passing_pairs(rows, columns, panels, lanes, tiles, passing) };
            return;
        }
        for start in (0..n).step_by(TILE_ROWS) {
            let range = start..(start + TILE_ROWS).min(n);
            let scores = &mut buffers.scores[..range.len() * width];
            self.products.gemm_i8(&rows[range.clone()], panels, scores);
            let columns = columns.range(range);
            dispatch!(self, passing_pairs(scores, start, columns, lanes, passing));
        }
    }

    /// Multiplies rows with the packed panels of up to [`ScanKernels::lanes`] queries and computes
    /// per group of [`GROUP_ROWS`] rows and query the largest lower bound, in the unit of the
    /// query's gate, into `maxima`, `[groups, lanes]`.
    pub(super) fn lower_maxima(
        self,
        rows: &[&[i8]],
        columns: RowColumns<'_>,
        panels: &[u8],
        lanes: QueryLanes<'_>,
        buffers: &mut ScoreBuffers,
        maxima: &mut [f32],
    ) {
        self.check(rows, columns, panels, lanes, buffers);
        let width = lanes.gates.len();
        assert!(maxima.len() == rows.len().div_ceil(GROUP_ROWS) * width);
        maxima.fill(f32::NEG_INFINITY);
        let groups = rows.chunks(GROUP_ROWS).zip(maxima.chunks_exact_mut(width));
        for (g, (rows, maxima)) in groups.enumerate() {
            let columns = columns.range(g * GROUP_ROWS..g * GROUP_ROWS + rows.len());
            #[cfg(target_arch = "x86_64")]
            if let (Tier::Amx, Some(tiles)) = (self.tier(), &mut buffers.tiles) {
                // SAFETY: `Tier::kernels` detected the instructions; the lengths were checked.
                unsafe { amx::lower_maxima(rows, columns, panels, lanes, tiles, maxima) };
                continue;
            }
            let scores = &mut buffers.scores[..rows.len() * width];
            self.products.gemm_i8(rows, panels, scores);
            dispatch!(self, raise_maxima(scores, columns, lanes, maxima));
        }
    }

    /// Checks that the operands of a product fit together.
    fn check(
        self,
        rows: &[&[i8]],
        columns: RowColumns<'_>,
        panels: &[u8],
        lanes: QueryLanes<'_>,
        buffers: &ScoreBuffers,
    ) {
        let (n, width, stride) = (rows.len(), lanes.gates.len(), buffers.stride);
        assert!(
            rows.iter().all(|row| row.len() == stride)
                && [columns.bases.len(), columns.scales.len(), columns.residuals.len()] == [n; 3]
                && (1..=self.lanes()).contains(&width)
                && width.is_multiple_of(PANEL)
                && lanes.factors.len() == width
                && panels.len() == width * stride,
            "rows, panels and queries must fit together"
        );
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

    /// Computes lower and upper bounds of pending rows, in the unit of a query's gate: `integer
    /// score * scale -+ factor * residual`.
    pub(super) fn pending_bounds(
        self,
        rows: &[PendingRow],
        scales: &[RowScale],
        factor: f32,
        [lower, upper]: [&mut [f32]; 2],
    ) {
        assert!(
            [lower.len(), upper.len()] == [rows.len(); 2]
                && rows.iter().all(|pending| (pending.row as usize) < scales.len()),
            "rows, scales and bounds must fit together"
        );
        dispatch!(self, pending_bounds(rows, scales, factor, [lower, upper]))
    }

    /// See [`super::selection::kth_largest`].
    pub(super) fn kth_largest(self, values: &[f32], k: usize) -> Option<f32> {
        dispatch!(self, kth_largest(values, k))
    }

    /// Prefetches a row that will be needed soon.
    pub(super) fn prefetch<T>(self, row: &[T]) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            use warpseek_compute::cpu::CACHE_LINE;
            for line in row.chunks(CACHE_LINE / size_of::<T>()) {
                // SAFETY: part of every x86-64 CPU; a hint that reads nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = row;
    }
}

#[cfg(test)]
mod tests {
    use super::super::gate::PassingPair;
    use super::*;
    use warpseek_compute::cpu::AlignedVec;

    /// Rows, panels and terms of which every comparison is exact: integers below 2^24.
    struct Operands {
        rows: Vec<Vec<i8>>,
        /// `[n_queries][stride]`, signed.
        queries: Vec<Vec<i8>>,
        bases: Vec<i32>,
        scales: Vec<f32>,
        residuals: Vec<f32>,
        factors: Vec<f32>,
        gates: Vec<f32>,
    }

    impl Operands {
        fn new(n: usize, n_queries: usize, stride: usize, zero_point: i32) -> Self {
            let value = |i: usize, qmax: i32| ((i * 89) as i32 % (2 * qmax + 1) - qmax) as i8;
            let vectors = |n: usize, seed: usize| -> Vec<Vec<i8>> {
                let vector =
                    |r| (0..stride).map(move |i| value(seed + 31 * r * r + i * (r + 3), 63));
                (0..n).map(|r| vector(r).collect()).collect()
            };
            let (rows, queries) = (vectors(n, 0), vectors(n_queries, 5));
            let sum = |row: &Vec<i8>| row.iter().map(|v| i32::from(*v)).sum::<i32>();
            Self {
                bases: rows.iter().map(|row| zero_point * sum(row)).collect(),
                scales: (0..n).map(|r| [1.0, 0.5, 2.0][r % 3]).collect(),
                residuals: (0..n).map(|r| (r % 5) as f32).collect(),
                factors: (0..n_queries).map(|q| (q % 7) as f32).collect(),
                gates: (0..n_queries)
                    .map(|q| match q % 9 {
                        7 => f32::NEG_INFINITY,
                        8 => f32::INFINITY,
                        i => 4000.0 * i as f32,
                    })
                    .collect(),
                rows,
                queries,
            }
        }

        fn score(&self, row: usize, query: usize) -> i32 {
            let pairs = self.rows[row].iter().zip(&self.queries[query]);
            pairs.map(|(r, q)| i32::from(*r) * i32::from(*q)).sum()
        }

        fn lower(&self, row: usize, query: usize) -> f32 {
            let score = self.score(row, query) as f32;
            score * self.scales[row] - self.factors[query] * self.residuals[row]
        }

        fn passes(&self, row: usize, query: usize) -> bool {
            let score = self.score(row, query) as f32;
            score * self.scales[row] + self.factors[query] * self.residuals[row]
                >= self.gates[query]
        }
    }

    #[test]
    fn pairs_and_maxima_of_every_tier_are_those_of_plain_sums() {
        let shapes = [(1, 16, 64), (31, 16, 64), (33, 32, 128), (97, 48, 384), (192, 64, 448)];
        // Rows apart, end to end from a cache line on, and end to end across cache lines.
        let places = [None, Some(0), Some(16)];
        let shapes = shapes.into_iter().flat_map(|shape| places.map(|place| (shape, place)));
        for kernels in Tier::ALL.into_iter().filter(|t| t.is_available()).map(ScanKernels::of) {
            let format = kernels.query_format();
            let zero = if format.has_signed_panels { 0 } else { format.qmax + 1 };
            for ((n, width, stride), place) in shapes.clone() {
                let operands = Operands::new(n, width, stride, zero);
                let Operands { rows, queries, bases, scales, residuals, factors, gates } =
                    &operands;
                let mut panels = vec![0; width * stride];
                for (q, query) in queries.iter().enumerate() {
                    let lane = q / PANEL * PANEL * stride + q % PANEL * 4;
                    for (i, v) in query.iter().enumerate() {
                        panels[lane + i / 4 * PANEL * 4 + i % 4] = (i32::from(*v) + zero) as u8;
                    }
                }
                let start = place.unwrap_or_default();
                let mut joined = AlignedVec::zeros(start + n * stride);
                joined[start..].copy_from_slice(&rows.concat());
                let rows: Vec<&[i8]> = match place {
                    None => rows.iter().map(Vec::as_slice).collect(),
                    Some(_) => joined[start..].chunks_exact(stride).collect(),
                };
                let columns = RowColumns { bases, scales, residuals };
                let lanes = QueryLanes { factors, gates };
                let mut buffers = kernels.score_buffers(stride);
                let mut passing = PassingPairs::new(n, width);
                kernels.passing_pairs(&rows, columns, &panels, lanes, &mut buffers, &mut passing);
                let mut got: Vec<PassingPair> = passing.iter().collect();
                got.sort_unstable_by_key(|pair| (pair.row, pair.lane));
                let pairs = (0..n).flat_map(|row| (0..width).map(move |lane| (row, lane)));
                let expected: Vec<PassingPair> = pairs
                    .filter(|&(row, lane)| operands.passes(row, lane))
                    .map(|(row, lane)| PassingPair { row, lane, score: operands.score(row, lane) })
                    .collect();
                let what = format!("{}, {n} x {width} x {stride}", kernels.tier().name());
                assert!(!expected.is_empty() && got == expected, "{what}");

                let n_groups = n.div_ceil(GROUP_ROWS);
                let mut maxima = vec![0.0; n_groups * width];
                kernels.lower_maxima(&rows, columns, &panels, lanes, &mut buffers, &mut maxima);
                for (i, maximum) in maxima.into_iter().enumerate() {
                    let (group, lane) = (i / width, i % width);
                    let rows = group * GROUP_ROWS..n.min((group + 1) * GROUP_ROWS);
                    let expected = rows.map(|row| operands.lower(row, lane));
                    assert_eq!(maximum, expected.fold(f32::NEG_INFINITY, f32::max), "{what}");
                }
            }
        }
    }

    #[test]
    fn bounds_of_pending_rows_and_canonical_scores_of_every_tier_are_equal() {
        let scale = |i: usize| RowScale {
            scale: 1.0 / (i + 1) as f32,
            residual: i as f32 / 8.0,
            sum: i32::MIN,
        };
        let scales: Vec<RowScale> = (0..70).map(scale).collect();
        let query: Vec<f32> = (0..96).map(|i| (i as f32 * 0.7).sin()).collect();
        let row = |r: usize| (0..96).map(move |i| f16::from_f32(((r * 96 + i) as f32).cos()));
        let values: Vec<Vec<f16>> = (0..11).map(|r| row(r).collect()).collect();
        for kernels in Tier::ALL.into_iter().filter(|t| t.is_available()).map(ScanKernels::of) {
            for n in [0, 1, 15, 16, 17, 50] {
                let pending = |i: usize| PendingRow {
                    row: (i * 37 % 70) as u32,
                    score: (i as i32 - 20) * 1000,
                };
                let rows: Vec<PendingRow> = (0..n).map(pending).collect();
                let (mut lower, mut upper) = (vec![0.0; n], vec![0.0; n]);
                kernels.pending_bounds(&rows, &scales, 3.0, [&mut lower, &mut upper]);
                for (i, pending) in rows.iter().enumerate() {
                    let scale = &scales[pending.row as usize];
                    let (score, error) = (pending.score as f32 * scale.scale, 3.0 * scale.residual);
                    assert_eq!([lower[i], upper[i]], [score - error, score + error]);
                }
                let rows: Vec<&[f16]> = values.iter().take(n).map(Vec::as_slice).collect();
                let mut scores = vec![0.0; rows.len()];
                kernels.canonical_scores(&query, &rows, &mut scores);
                let expected = rows.iter().map(|row| crate::oracle::canonical_score(&query, row));
                assert!(scores.iter().map(|s| s.to_bits()).eq(expected.map(f32::to_bits)));
            }
        }
    }
}
