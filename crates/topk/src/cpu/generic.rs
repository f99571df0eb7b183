//! The portable tier: rows are decoded to float32 once per block, then multiplied with 16 partial
//! sums, which the compiler vectorises.

use super::gate::{PassingPair, PassingPairs, PendingRow, QueryLanes, RowColumns};
pub(super) use super::selection::kth_largest;
use crate::oracle::{self, LANES};
use crate::sq8::RowScale;
use half::f16;
use half::slice::HalfFloatSliceExt;

/// See [`crate::cpu::kernels::ScanKernels::scores`].
pub(super) fn scores(rows: &[&[f16]], queries: &[f32], scores: &mut [f32]) {
    let Some(stride) = rows.first().map(|row| row.len()) else { return };
    let mut decoded = vec![0f32; stride];
    for (r, row) in rows.iter().enumerate() {
        row.convert_to_f32_slice(&mut decoded);
        for (query, scores) in queries.chunks_exact(stride).zip(scores.chunks_exact_mut(rows.len()))
        {
            scores[r] = dot(query, &decoded);
        }
    }
}

/// See [`oracle::canonical_score`].
pub(super) fn canonical_scores(query: &[f32], rows: &[&[f16]], scores: &mut [f32]) {
    rows.iter().zip(scores).for_each(|(row, score)| *score = canonical(query, row));
}

fn canonical(query: &[f32], row: &[f16]) -> f32 {
    let mut lanes = [0f64; LANES];
    let mut decoded = [0f32; LANES];
    for (q, r) in query.chunks_exact(LANES).zip(row.chunks_exact(LANES)) {
        r.convert_to_f32_slice(&mut decoded);
        for j in 0..LANES {
            lanes[j] += f64::from(q[j]) * f64::from(decoded[j]);
        }
    }
    oracle::finish(&mut lanes)
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        for j in 0..LANES {
            sums[j] += a[j] * b[j];
        }
    }
    sums.iter().sum()
}

/// See [`crate::cpu::kernels::ScanKernels::passing_pairs`].
pub(super) fn passing_pairs(
    scores: &[i32],
    first_row: usize,
    rows: RowColumns<'_>,
    lanes: QueryLanes<'_>,
    passing: &mut PassingPairs,
) {
    let terms = rows.bases.iter().zip(rows.scales).zip(rows.residuals);
    let lines = scores.chunks_exact(lanes.gates.len());
    for (r, (scores, ((&base, &scale), &residual))) in lines.zip(terms).enumerate() {
        let passes = |((&score, &factor), &gate): ((&i32, &f32), &f32)| {
            (score - base) as f32 * scale + factor * residual >= gate
        };
        let mut bits = bits_of(scores.iter().zip(lanes.factors).zip(lanes.gates), passes);
        while bits != 0 {
            let lane = bits.trailing_zeros() as usize;
            bits &= bits - 1;
            passing.push(PassingPair { row: first_row + r, lane, score: scores[lane] - base });
        }
    }
}

/// Raises the maxima of lower bounds of each query, in the unit of its gate: `integer score * scale
/// - factor * residual`. `scores` is `[n, lanes]` of `n` rows.
#[inline(always)]
pub(super) fn raise_maxima(
    scores: &[i32],
    rows: RowColumns<'_>,
    lanes: QueryLanes<'_>,
    maxima: &mut [f32],
) {
    let terms = rows.bases.iter().zip(rows.scales).zip(rows.residuals);
    for (scores, ((&base, &scale), &residual)) in scores.chunks_exact(maxima.len()).zip(terms) {
        for ((maximum, &score), &factor) in maxima.iter_mut().zip(scores).zip(lanes.factors) {
            let lower = (score - base) as f32 * scale - factor * residual;
            *maximum = if lower > *maximum { lower } else { *maximum };
        }
    }
}

/// See [`crate::cpu::kernels::ScanKernels::passing_rows`].
pub(super) fn passing_rows(scores: &[i32], rows: RowColumns<'_>, factor: f32, gate: f32) -> u64 {
    let passes = |(((&score, &base), &scale), &residual): (((&i32, &i32), &f32), &f32)| {
        (score - base) as f32 * scale + factor * residual >= gate
    };
    bits_of(scores.iter().zip(rows.bases).zip(rows.scales).zip(rows.residuals), passes)
}

/// See [`crate::cpu::kernels::ScanKernels::pending_bounds`].
pub(super) fn pending_bounds(
    rows: &[PendingRow],
    scales: &[RowScale],
    factor: f32,
    [lower, upper]: [&mut [f32]; 2],
) {
    for ((pending, lower), upper) in rows.iter().zip(lower).zip(upper) {
        let scale = &scales[pending.row as usize];
        let score = pending.score as f32 * scale.scale;
        *lower = score - factor * scale.residual;
        *upper = score + factor * scale.residual;
    }
}

/// Returns one bit per item: 1 if it passes.
#[inline(always)]
fn bits_of<T>(items: impl Iterator<Item = T> + Clone, passes: impl Fn(T) -> bool) -> u64 {
    // Counting is vectorised; the loop over bits is entered rarely.
    if items.clone().map(|item| u32::from(passes(item))).sum::<u32>() == 0 {
        return 0;
    }
    items.enumerate().fold(0, |bits, (i, item)| bits | u64::from(passes(item)) << i)
}
