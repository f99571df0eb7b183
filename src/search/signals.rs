//! The signals of a row - dense score, BM25, logit of the reranker - and their combinations.
//!
//! Weights and calibrations were fitted on questions of many kinds for all-MiniLM-L6-v2 and the
//! reranker that is compiled in; `docs/scores.md` has the formulas. Other models have cosines and
//! logits of other spreads. Their signals are scaled over the candidates of the query: to 0..1 for
//! hybrid search, to standard scores for reranking.

use super::fusion::reciprocal_rank_fusion;
use crate::error::Result;
use crate::store::{IndexManifest, IndexMetric, LexicalHits};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::OnceLock;
use warpseek_bert::reranker::Calibration;
use warpseek_hub::ModelManifest;

/// The combination of the dense ranking with the lexical one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Fusion {
    /// The weighted sum of the scores
    #[default]
    Weighted,
    /// Reciprocal rank fusion (RRF)
    Rrf,
}

/// The weight of `BM25 / sqrt(terms of the query)` beside a cosine of all-MiniLM-L6-v2.
pub(super) const LEXICAL_WEIGHT: f64 = 0.03;

/// The weight of the dense score beside BM25, both scaled to 0..1 over the candidates: for models
/// whose cosines have another spread.
pub(super) const DENSE_SHARE: f64 = 0.7;

/// Combines the dense ranking, rows with their scores, with the lexical one, which comes with BM25
/// of all rows that it knows ([`LexicalHits::by_row`]). `dense_score` gives the score of a row that
/// only the lexical one holds. Best first, ties by row.
pub(super) fn fuse(
    fusion: Fusion,
    dense: &[(u32, f32)],
    (lexical, known): (&LexicalHits, &HashMap<u32, f64>),
    calibrated: bool,
    dense_score: impl Fn(u32) -> f32,
) -> Vec<(u32, f32)> {
    let dense_rows: Vec<u32> = dense.iter().map(|(row, _)| *row).collect();
    let lexical_rows: Vec<u32> = lexical.hits.iter().map(|hit| hit.row).collect();
    if fusion == Fusion::Rrf {
        return reciprocal_rank_fusion(&[&dense_rows, &lexical_rows]);
    }
    let mut scores: HashMap<u32, f32> = dense.iter().copied().collect();
    for row in lexical_rows {
        scores.entry(row).or_insert_with(|| dense_score(row));
    }
    let bm25 = |row: u32| known.get(&row).copied().unwrap_or(0.0);
    let mut fused: Vec<(u32, f32)> = if calibrated {
        let weight = LEXICAL_WEIGHT / (lexical.n_terms.max(1) as f64).sqrt();
        let fused =
            |(row, dense): (u32, f32)| (row, (f64::from(dense) + weight * bm25(row)) as f32);
        scores.into_iter().map(fused).collect()
    } else {
        let all: Vec<(u32, f64, f64)> =
            scores.into_iter().map(|(row, dense)| (row, f64::from(dense), bm25(row))).collect();
        let dense = unit_scale(all.iter().map(|(_, dense, _)| *dense));
        let words = unit_scale(all.iter().map(|(.., bm25)| *bm25));
        let fused = |&(row, d, b): &(u32, f64, f64)| {
            (row, (DENSE_SHARE * dense(d) + (1.0 - DENSE_SHARE) * words(b)) as f32)
        };
        all.iter().map(fused).collect()
    };
    fused.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    fused
}

/// Returns the map of values to 0..1; all to 0 if they are equal.
fn unit_scale<I: Iterator<Item = f64> + Clone>(values: I) -> impl Fn(f64) -> f64 + use<I> {
    let least = values.clone().fold(f64::INFINITY, f64::min);
    let span = values.fold(f64::NEG_INFINITY, f64::max) - least;
    move |value| if span > 0.0 { (value - least) / span } else { 0.0 }
}

/// True if the index ranks by cosines of all-MiniLM-L6-v2, for which the weights were fitted.
pub(super) fn is_calibrated(manifest: &IndexManifest) -> bool {
    let model = manifest.model.as_ref();
    model.is_some_and(|model| model.sha256 == minilm_sha256())
        && manifest.metric == IndexMetric::Cosine
}

/// Returns the calibration of a reranker, if it was fitted for the index's embedder.
pub(super) fn calibration_for(
    manifest: &IndexManifest,
    calibration: Option<Calibration>,
) -> Option<Calibration> {
    calibration.filter(|_| is_calibrated(manifest))
}

/// Returns the sha256 of the weights of all-MiniLM-L6-v2, lower-case hex.
fn minilm_sha256() -> &'static str {
    static SHA256: OnceLock<String> = OnceLock::new();
    SHA256.get_or_init(|| {
        let find = |manifest: &ModelManifest| -> Option<String> {
            manifest.get("all-MiniLM-L6-v2")?.weights_sha256().map(str::to_owned)
        };
        let manifest: Result<ModelManifest> = ModelManifest::builtin();
        manifest.ok().as_ref().and_then(find).unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LexicalHit;

    fn lexical(best: &[(u32, f64)], others: &[(u32, f64)], n_terms: usize) -> LexicalHits {
        let hits = |hits: &[(u32, f64)]| {
            hits.iter().map(|&(row, score)| LexicalHit { row, score }).collect()
        };
        LexicalHits { hits: hits(best), asked: hits(others), n_terms }
    }

    #[test]
    fn weighted_sum_adds_bm25_to_the_cosine() {
        let dense = [(1, 0.8), (2, 0.7), (3, 0.6)];
        let lexical = lexical(&[(9, 12.0), (3, 10.0)], &[(2, 2.0)], 4);
        let bm25 = lexical.by_row();
        let fused = fuse(Fusion::Weighted, &dense, (&lexical, &bm25), true, |row| {
            assert_eq!(row, 9);
            0.5
        });
        // Half of 0.03 for four terms.
        let expected = [(1, 0.8), (3, 0.75), (2, 0.73), (9, 0.68)];
        for ((row, score), (other, value)) in fused.iter().zip(expected) {
            assert_eq!(*row, other);
            assert!((score - value as f32).abs() < 1e-6, "{row}: {score}");
        }
        // Without a word of the query the cosines stay.
        let none = (&LexicalHits::default(), &HashMap::new());
        assert_eq!(fuse(Fusion::Weighted, &dense, none, true, |_| 0.0), dense);
    }

    #[test]
    fn weighted_sum_of_other_models_scales_both_sides() {
        let dense = [(1, 300.0), (2, 250.0), (3, 200.0)];
        let lexical = lexical(&[(3, 10.0), (2, 5.0)], &[], 2);
        let lexical = (&lexical, &lexical.by_row());
        let fused = fuse(Fusion::Weighted, &dense, lexical, false, |_| 0.0);
        let expected = [(1, 0.7), (2, 0.5), (3, 0.3)];
        for ((row, score), (other, value)) in fused.iter().zip(expected) {
            assert_eq!(*row, other);
            assert!((score - value).abs() < 1e-6, "{row}: {score}");
        }
    }

    #[test]
    fn reciprocal_ranks_ignore_scores() {
        let lexical = lexical(&[(3, 10.0)], &[], 1);
        let lexical = (&lexical, &lexical.by_row());
        let fused = fuse(Fusion::Rrf, &[(1, 0.9), (3, 0.1)], lexical, true, |_| 0.0);
        assert_eq!(fused.iter().map(|f| f.0).collect::<Vec<_>>(), [3, 1]);
    }

    #[test]
    fn the_listed_model_is_the_one_that_the_weights_were_fitted_for() {
        assert_eq!(minilm_sha256().len(), 64);
    }
}
