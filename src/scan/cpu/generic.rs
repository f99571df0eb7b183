//! The portable tier: rows are decoded to float32 once a block, then dotted with 16 partial sums
//! that the compiler turns into vectors.

use crate::scan::order::{self, LANES};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// See [`super::tier::Kernels::scores`].
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

/// See [`order::canonical_score`].
pub(super) fn canonical(query: &[f32], row: &[f16]) -> f32 {
    let mut lanes = [0f64; LANES];
    let mut decoded = [0f32; LANES];
    for (q, r) in query.chunks_exact(LANES).zip(row.chunks_exact(LANES)) {
        r.convert_to_f32_slice(&mut decoded);
        for j in 0..LANES {
            lanes[j] += f64::from(q[j]) * f64::from(decoded[j]);
        }
    }
    order::finish(&mut lanes)
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
