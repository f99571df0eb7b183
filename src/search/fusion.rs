//! Reciprocal rank fusion (RRF) and maximal marginal relevance (MMR).

use crate::store::IndexMetric;
use half::slice::HalfFloatSliceExt;
use std::collections::HashMap;
use warpseek_topk::ShardedMatrix;
use warpseek_topk::oracle::canonical_score;

/// The constant of reciprocal rank fusion: Cormack, Clarke and Buettcher, "Reciprocal rank fusion
/// outperforms Condorcet and individual rank learning methods", SIGIR 2009.
pub const RRF_CONSTANT: f32 = 60.0;

/// Fuses rankings of rows. A row's score is the sum of `1 / (60 + rank)` over the lists that hold
/// it, with ranks from 1. Best first, ties by row number.
pub fn reciprocal_rank_fusion(lists: &[&[u32]]) -> Vec<(u32, f32)> {
    let mut scores: HashMap<u32, f32> = HashMap::new();
    for list in lists {
        for (i, &row) in list.iter().enumerate() {
            *scores.entry(row).or_default() += 1.0 / (RRF_CONSTANT + (i + 1) as f32);
        }
    }
    let mut fused: Vec<(u32, f32)> = scores.into_iter().collect();
    fused.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    fused
}

/// Maximal marginal relevance: picks up to `n` of `ranked` one after another, each time the row
/// with the greatest `lambda * relevance - (1 - lambda) * max cos(row, picked)`. Ties go to the
/// better rank. Rows keep their scores.
///
/// The relevance is the row's score with `query` (padded like a row). With [`IndexMetric::Cosine`]
/// that is the cosine. With [`IndexMetric::InnerProduct`] it is divided by the length of the query
/// and that of the longest of the rows: it lies in -1..1 as the cosine does, and has the order of
/// the scores.
///
/// With `fused` it is the row's score in `ranked` divided by the best one.
///
/// Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and
/// producing summaries", SIGIR 1998.
pub fn mmr(
    matrix: &ShardedMatrix<'_>,
    query: &[f32],
    ranked: &[(u32, f32)],
    (metric, fused): (IndexMetric, bool),
    lambda: f32,
    n: usize,
) -> Vec<(u32, f32)> {
    // Weighted sums may all be 0 or below; they are taken as they are then.
    let best_score = ranked.iter().map(|r| r.1).fold(0.0, f32::max);
    let best_score = if best_score > 0.0 { best_score } else { 1.0 };
    let mut vectors: Vec<Vec<f32>> = ranked
        .iter()
        .map(|&(row, _)| {
            matrix.row(row as usize).map(HalfFloatSliceExt::to_f32_vec).unwrap_or_default()
        })
        .collect();
    // Lengths are not exactly 1 in half precision; for the cosine they are taken to be.
    let mut scale = 1.0;
    if metric == IndexMetric::InnerProduct {
        let longest = vectors.iter_mut().map(|vector| to_unit_length(vector)).fold(0.0, f64::max);
        let lengths = longest * length(query);
        scale = if lengths > 0.0 { 1.0 / lengths } else { 0.0 };
    }
    let relevance: Vec<f32> = ranked
        .iter()
        .map(|&(row, score)| match matrix.row(row as usize) {
            _ if fused => score / best_score,
            Some(row) => (f64::from(canonical_score(query, row)) * scale) as f32,
            None => 0.0,
        })
        .collect();
    // Per row: its greatest cosine with a picked row.
    let mut similarity = vec![f32::NEG_INFINITY; ranked.len()];
    let mut left: Vec<usize> = (0..ranked.len()).collect();
    let mut picked = Vec::with_capacity(n.min(ranked.len()));
    while picked.len() < n && !left.is_empty() {
        let value = |&i: &usize| {
            let penalty = if similarity[i] == f32::NEG_INFINITY { 0.0 } else { similarity[i] };
            lambda * relevance[i] - (1.0 - lambda) * penalty
        };
        let mut best = 0;
        for at in 1..left.len() {
            if value(&left[at]) > value(&left[best]) {
                best = at;
            }
        }
        let chosen = left.remove(best);
        picked.push(ranked[chosen]);
        for &i in &left {
            let dot: f32 = vectors[i].iter().zip(&vectors[chosen]).map(|(a, b)| a * b).sum();
            similarity[i] = similarity[i].max(dot);
        }
    }
    picked
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt()
}

/// Scales a vector to unit length, unless it is zero. Returns its length before.
fn to_unit_length(vector: &mut [f32]) -> f64 {
    let length = length(vector);
    if length > 0.0 {
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / length) as f32);
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;
    use warpseek_topk::MatrixView;

    #[test]
    fn fusion_of_two_lists_adds_reciprocal_ranks() {
        let fused = reciprocal_rank_fusion(&[&[7, 3, 9], &[3, 8]]);
        let rows: Vec<u32> = fused.iter().map(|f| f.0).collect();
        assert_eq!(rows, [3, 7, 8, 9]);
        assert!((fused[0].1 - (1.0 / 62.0 + 1.0 / 61.0)).abs() < 1e-7);
        assert_eq!(
            reciprocal_rank_fusion(&[&[5], &[2]]).iter().map(|f| f.0).collect::<Vec<_>>(),
            [2, 5]
        );
    }

    #[test]
    fn mmr_prefers_a_different_row_to_a_duplicate() {
        // Rows 0 and 1 are equal; row 2 is less relevant but different.
        let mut values = vec![f16::ZERO; 3 * 32];
        for (row, (x, y)) in [(0.8, 0.6), (0.8, 0.6), (0.6, -0.8)].into_iter().enumerate() {
            values[row * 32] = f16::from_f32(x);
            values[row * 32 + 1] = f16::from_f32(y);
        }
        let matrix = MatrixView::new(&values, 2, 1.01).unwrap().into();
        let mut query = [0f32; 32];
        query[0] = 1.0;
        let ranked = [(0, 0.8), (1, 0.8), (2, 0.6)];
        let rows = |lambda: f32, n: usize| -> Vec<u32> {
            mmr(&matrix, &query, &ranked, (IndexMetric::Cosine, false), lambda, n)
                .iter()
                .map(|r| r.0)
                .collect()
        };
        assert_eq!(rows(0.5, 2), [0, 2]);
        assert_eq!(rows(1.0, 3), [0, 1, 2]);
        assert_eq!(rows(0.5, 10), [0, 2, 1]);
        // Fused scores set their own order at lambda 1.
        let fused = [(2, 0.03), (0, 0.02), (1, 0.01)];
        assert_eq!(mmr(&matrix, &query, &fused, (IndexMetric::Cosine, true), 1.0, 3), fused);
    }

    #[test]
    fn mmr_of_vectors_of_any_length_depends_on_directions_alone() {
        // Rows 0 and 1 have one direction, row 2 another. Their lengths are far apart.
        let rows = [(300.0, 30.0), (80.0, 8.0), (20.0, -200.0), (0.0, 0.0)];
        let mut values = vec![f16::ZERO; 4 * 32];
        for (row, (x, y)) in rows.into_iter().enumerate() {
            values[row * 32] = f16::from_f32(x);
            values[row * 32 + 1] = f16::from_f32(y);
        }
        let matrix = MatrixView::new(&values, 2, 400.0).unwrap().into();
        let mut query = [0f32; 32];
        query[0] = 5.0;
        let ranked = [(0, 1500.0), (1, 400.0), (2, 100.0), (3, 0.0)];
        for factor in [1.0, 1000.0] {
            let query = query.map(|v| v * factor);
            let rows = |lambda: f32| -> Vec<u32> {
                let picked =
                    mmr(&matrix, &query, &ranked, (IndexMetric::InnerProduct, false), lambda, 4);
                picked.iter().map(|r| r.0).collect()
            };
            // Relevance is 0.995, 0.265, 0.066, 0 whatever the query's length.
            assert_eq!(rows(1.0), [0, 1, 2, 3]);
            assert_eq!(rows(0.5), [0, 2, 3, 1]);
        }
        let fused = [(1, 0.03), (0, 0.02), (2, 0.01)];
        let picked = mmr(&matrix, &query, &fused, (IndexMetric::InnerProduct, true), 0.5, 3);
        assert_eq!(picked, [(1, 0.03), (2, 0.01), (0, 0.02)]);
    }
}
