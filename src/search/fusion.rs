//! Reciprocal rank fusion (RRF) and maximal marginal relevance (MMR).

use half::slice::HalfFloatSliceExt;
use std::collections::HashMap;
use warpseek_topk::MatrixView;
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
/// better rank. The relevance is the row's cosine with `query` (padded like a row); with `fused` it
/// is the row's score divided by the best one. Rows keep their scores.
///
/// Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and
/// producing summaries", SIGIR 1998.
pub fn mmr(
    matrix: &MatrixView<'_>,
    query: &[f32],
    ranked: &[(u32, f32)],
    fused: bool,
    lambda: f32,
    n: usize,
) -> Vec<(u32, f32)> {
    let best_score = ranked.iter().map(|r| r.1).fold(f32::MIN_POSITIVE, f32::max);
    let vectors: Vec<Vec<f32>> = ranked
        .iter()
        .map(|&(row, _)| {
            matrix.row(row as usize).map(HalfFloatSliceExt::to_f32_vec).unwrap_or_default()
        })
        .collect();
    let relevance: Vec<f32> = ranked
        .iter()
        .map(|&(row, score)| match matrix.row(row as usize) {
            _ if fused => score / best_score,
            Some(row) => canonical_score(query, row),
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

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

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
        let matrix = MatrixView::new(&values, 2, 1.01).unwrap();
        let mut query = [0f32; 32];
        query[0] = 1.0;
        let ranked = [(0, 0.8), (1, 0.8), (2, 0.6)];
        let rows = |lambda: f32, n: usize| -> Vec<u32> {
            mmr(&matrix, &query, &ranked, false, lambda, n).iter().map(|r| r.0).collect()
        };
        assert_eq!(rows(0.5, 2), [0, 2]);
        assert_eq!(rows(1.0, 3), [0, 1, 2]);
        assert_eq!(rows(0.5, 10), [0, 2, 1]);
        // Fused scores set their own order at lambda 1.
        let fused = [(2, 0.03), (0, 0.02), (1, 0.01)];
        assert_eq!(mmr(&matrix, &query, &fused, true, 1.0, 3), fused);
    }
}
