//! The portable tier: rows are decoded to float32 once per block, then multiplied with 16 partial
//! sums, which the compiler vectorises.

use super::gate::{RowColumns, RowTerms};
use crate::oracle::{self, LANES};
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
pub(super) fn canonical(query: &[f32], row: &[f16]) -> f32 {
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

/// See [`crate::cpu::kernels::ScanKernels::passing_lanes`].
pub(super) fn passing_lanes(scores: &[i32], row: RowTerms, factors: &[f32], gates: &[f32]) -> u64 {
    let passes = |((&score, &factor), &gate): ((&i32, &f32), &f32)| {
        (score - row.base) as f32 * row.scale + factor * row.residual >= gate
    };
    bits_of(scores.iter().zip(factors).zip(gates), passes)
}

/// See [`crate::cpu::kernels::ScanKernels::passing_rows`].
pub(super) fn passing_rows(scores: &[i32], rows: RowColumns<'_>, factor: f32, gate: f32) -> u64 {
    let passes = |(((&score, &base), &scale), &residual): (((&i32, &i32), &f32), &f32)| {
        (score - base) as f32 * scale + factor * residual >= gate
    };
    bits_of(scores.iter().zip(rows.bases).zip(rows.scales).zip(rows.residuals), passes)
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
