//! The order that a reranker gives to candidates.

use super::options::SearchOptions;
use super::result::{Candidate, OrderedBy, Retrieved};
use super::signals::calibration_for;
use crate::store::{IndexManifest, IndexMetric, Row};
use std::ops::Range;
use warpseek_bert::reranker::{Calibration, PassageScore, RerankScores, Reranker};

/// The probability of relevance below which a hit is low ([`super::Hit::low`]). The best hit lies
/// above it for 29 of 30 questions about the demo's corpus, and for none of 14 questions about
/// other subjects (`docs/scores.md`).
pub const LOW_PROBABILITY: f32 = 0.001;

/// The key by which reranked candidates are ordered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RerankOrder {
    /// Standard scores of retrieval and logit, the first with this weight, 0..=1; at 0 the logit.
    Standardized(f32),
    /// The key of a calibration. Final scores are probabilities of relevance.
    Calibrated(Calibration),
}

impl RerankOrder {
    /// Returns the order of a search: by `weight` if it is given, else by the reranker's
    /// calibration if it was fitted for the embedder of the index, else by its default weight.
    pub fn of(weight: Option<f32>, reranker: &Reranker, index: &IndexManifest) -> Self {
        match (weight, calibration_for(index, reranker.calibration())) {
            (Some(weight), _) => Self::Standardized(weight),
            (None, Some(calibration)) => Self::Calibrated(calibration),
            (None, None) => Self::Standardized(reranker.retriever_weight()),
        }
    }

    /// The weight of the retrieval score; none with a calibration.
    pub fn weight(self) -> Option<f32> {
        match self {
            Self::Standardized(weight) => Some(weight),
            Self::Calibrated(_) => None,
        }
    }
}

/// The score that orders the hits of a search in an index of this metric, with the order of the
/// reranker if there is one.
pub(super) fn ordered_by(
    options: &SearchOptions,
    metric: IndexMetric,
    order: Option<RerankOrder>,
) -> OrderedBy {
    match order {
        Some(RerankOrder::Calibrated(_)) => OrderedBy::Probability,
        Some(RerankOrder::Standardized(weight)) if weight > 0.0 => OrderedBy::Blend,
        Some(RerankOrder::Standardized(_)) => OrderedBy::Rerank,
        None if options.mmr.is_some_and(|lambda| lambda < 1.0) => OrderedBy::Diversity,
        None => options.retrieved_by(metric),
    }
}

/// Orders candidates that a reranker scored, best first. Ties keep their retrieval order.
/// Candidates without a logit follow in retrieval order. Sets the final scores.
pub fn order_reranked(candidates: &mut [Candidate], order: RerankOrder) {
    candidates.sort_by_key(|c| (c.rerank.is_none(), c.retrieved_rank));
    let n_reranked = candidates.iter().take_while(|c| c.rerank.is_some()).count();
    let (reranked, deeper) = candidates.split_at_mut(n_reranked);
    deeper.iter_mut().for_each(|c| (c.final_score, c.is_low) = (None, false));
    let logit = |c: &Candidate| c.rerank.as_ref().map_or(0.0, |score| f64::from(score.logit));
    let logits: Vec<f64> = reranked.iter().map(logit).collect();
    let alone = |c: &Candidate| c.rerank.as_ref().map(|r| r.score);
    let keys: Vec<(f64, Option<f32>)> = match order {
        RerankOrder::Standardized(weight) if weight > 0.0 => {
            let weight = f64::from(weight);
            let scores: Vec<f64> = reranked.iter().map(|c| f64::from(c.score)).collect();
            let pairs = standardized(&scores).into_iter().zip(standardized(&logits));
            let keys = pairs.map(|(score, logit)| weight * score + (1.0 - weight) * logit);
            keys.map(|key| (key, Some(key as f32))).collect()
        }
        RerankOrder::Standardized(_) => {
            logits.into_iter().zip(reranked.iter().map(alone)).collect()
        }
        RerankOrder::Calibrated(calibration) => {
            let key = |c: &Candidate| {
                let key = calibration.key(c.dense, c.rerank.as_ref().map_or(0.0, |r| r.logit));
                (key, Some(calibration.probability(key) as f32))
            };
            reranked.iter().map(key).collect()
        }
    };
    let mut ordered: Vec<((f64, Option<f32>), Candidate)> =
        keys.into_iter().zip(reranked.to_vec()).collect();
    ordered.sort_by(|a, b| b.0.0.total_cmp(&a.0.0));
    for (slot, ((_, final_score), mut candidate)) in reranked.iter_mut().zip(ordered) {
        candidate.final_score = final_score;
        let is_probability = matches!(order, RerankOrder::Calibrated(_));
        candidate.is_low = is_probability && final_score.is_some_and(|p| p < LOW_PROBABILITY);
        *slot = candidate;
    }
}

/// Standard scores: values minus their mean, divided by their standard deviation; all 0 if that is
/// 0.
fn standardized(values: &[f64]) -> Vec<f64> {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviations = values.iter().map(|v| v - mean);
    let deviation = (deviations.clone().map(|d| d * d).sum::<f64>() / n).sqrt();
    deviations.map(|d| if deviation > 0.0 { d / deviation } else { 0.0 }).collect()
}

/// Records the scores that a reranker gave to the first candidates; returns a note for the user if
/// the query was truncated.
pub(super) fn record_scores(candidates: &mut [Candidate], outcome: RerankScores) -> Option<String> {
    for (candidate, mut score) in candidates.iter_mut().zip(outcome.scores) {
        if let Some(row) = &candidate.fetched {
            score.window = window_in_text(row, &score);
        }
        candidate.rerank = Some(score);
    }
    let lost = outcome.query_tokens_lost;
    (lost > 0)
        .then(|| format!("the last {lost} tokens of the query were left out for the reranker"))
}

/// Orders candidates of which the first `depth` were scored ([`order_reranked`]), and keeps the
/// best `k` without those below `least` and those that were not scored. Without `least` it notes
/// for the user that some of them were not scored.
pub(super) fn keep_best(
    found: &mut Retrieved,
    order: RerankOrder,
    depth: usize,
    k: usize,
    least: Option<f32>,
) {
    let candidates = &mut found.candidates;
    order_reranked(candidates, order);
    candidates.truncate(k);
    if let Some(least) = least {
        let all = candidates.len();
        candidates.retain(|c| c.final_score.is_some());
        let scored = candidates.len();
        candidates.retain(|c| c.final_score.is_some_and(|score| score >= least));
        (found.not_reranked, found.below_min_score) = (all - scored, scored - candidates.len());
    }
    if candidates.iter().any(|c| c.rerank.is_none()) {
        found.warnings.push(format!(
            "only the first {depth} hits were reranked; the others follow in retrieval order"
        ));
    }
}

/// The window as a byte range of the chunk's text. The reranker read the title in front of the
/// text.
fn window_in_text(row: &Row, score: &PassageScore) -> Range<usize> {
    let shift = row.text_offset();
    let clip = |at: usize| at.saturating_add_signed(-shift).min(row.text.len());
    let (mut start, mut end) = (clip(score.window.start), clip(score.window.end));
    while !row.text.is_char_boundary(start) {
        start -= 1;
    }
    while !row.text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(values: &[(f32, Option<f32>)]) -> Vec<Candidate> {
        let scored =
            |logit| PassageScore { logit, score: logit / 10.0, window: 0..1, n_windows: 1 };
        let candidate = |(i, &(score, logit)): (usize, &(f32, Option<f32>))| Candidate {
            row: i as u32,
            score,
            dense: score,
            bm25: None,
            retrieved_rank: i + 1,
            rerank: logit.map(scored),
            final_score: Some(score),
            is_low: false,
            fetched: None,
        };
        values.iter().enumerate().map(candidate).collect()
    }

    fn rows(candidates: &[Candidate]) -> Vec<u32> {
        candidates.iter().map(|c| c.row).collect()
    }

    #[test]
    fn order_by_the_reranker_alone_follows_its_logits() {
        let mut list =
            candidates(&[(0.9, Some(1.0)), (0.8, Some(3.0)), (0.7, Some(3.0)), (0.6, None)]);
        order_reranked(&mut list, RerankOrder::Standardized(0.0));
        assert_eq!(rows(&list), [1, 2, 0, 3]);
        let scores: Vec<Option<f32>> = list.iter().map(|c| c.final_score).collect();
        assert_eq!(scores, [Some(0.3), Some(0.3), Some(0.1), None]);
    }

    #[test]
    fn order_of_a_blend_weighs_standard_scores() {
        // z(score) = 1.2247, 0, -1.2247; z(logit) = -0.7071, 1.4142, -0.7071.
        let values = [(0.9, Some(1.0)), (0.8, Some(4.0)), (0.7, Some(1.0)), (0.6, None)];
        let mut list = candidates(&values);
        order_reranked(&mut list, RerankOrder::Standardized(0.5));
        assert_eq!(rows(&list), [1, 0, 2, 3]);
        let expected = [std::f32::consts::FRAC_1_SQRT_2, 0.2588, -0.9659];
        for (candidate, expected) in list.iter().zip(expected) {
            assert!((candidate.final_score.unwrap() - expected).abs() < 1e-4);
        }
        assert_eq!(list[3].final_score, None);
        order_reranked(&mut list, RerankOrder::Standardized(1.0));
        assert_eq!(rows(&list), [0, 1, 2, 3]);
        // Logits that are all equal leave the retrieval order.
        let mut list = candidates(&[(0.9, Some(2.0)), (0.8, Some(2.0))]);
        order_reranked(&mut list, RerankOrder::Standardized(0.5));
        assert_eq!(rows(&list), [0, 1]);
    }
    #[test]
    fn order_by_a_calibration_adds_the_cosine_to_the_logit() {
        let calibration = Calibration { cosine: 20.0, scale: 0.5, offset: -8.0 };
        let mut list =
            candidates(&[(0.9, Some(1.0)), (0.5, Some(10.0)), (0.8, Some(2.5)), (0.6, None)]);
        order_reranked(&mut list, RerankOrder::Calibrated(calibration));
        // Keys: 19, 20, 18.5.
        assert_eq!(rows(&list), [1, 0, 2, 3]);
        for (candidate, key) in list.iter().zip([20.0f32, 19.0, 18.5]) {
            let probability = 1.0 / (1.0 + (8.0 - 0.5 * key).exp());
            assert!((candidate.final_score.unwrap() - probability).abs() < 1e-6);
        }
        assert_eq!(list[3].final_score, None);
    }

    #[test]
    fn probability_of_a_row_is_the_same_at_any_depth() {
        let calibration = Calibration { cosine: 24.0, scale: 0.449, offset: -8.27 };
        let values = [(0.6, Some(1.5)), (0.5, Some(-4.0)), (0.4, Some(3.0)), (0.02, Some(-9.0))];
        let at_depth = |depth: usize| {
            let scored = |(i, &(score, logit)): (usize, &(f32, Option<f32>))| {
                (score, logit.filter(|_| i < depth))
            };
            let values: Vec<_> = values.iter().enumerate().map(scored).collect();
            let mut list = candidates(&values);
            order_reranked(&mut list, RerankOrder::Calibrated(calibration));
            list
        };
        let all = at_depth(4);
        assert_eq!(all.iter().map(|c| c.is_low).collect::<Vec<_>>(), [false, false, false, true]);
        for depth in 1..4 {
            let list = at_depth(depth);
            for candidate in &list[..depth] {
                let same = all.iter().find(|c| c.row == candidate.row).unwrap();
                assert_eq!(candidate.final_score, same.final_score, "depth {depth}");
                assert_eq!(candidate.is_low, same.is_low, "depth {depth}");
            }
            assert!(list[depth..].iter().all(|c| c.final_score.is_none() && !c.is_low));
        }
    }

    #[test]
    fn minimum_score_leaves_out_rows_below_it_and_those_that_were_not_reranked() {
        let values = [(0.9, Some(1.0)), (0.8, Some(3.0)), (0.7, Some(2.0)), (0.6, None)];
        let mut found = Retrieved { candidates: candidates(&values), ..Retrieved::default() };
        keep_best(&mut found, RerankOrder::Standardized(0.0), 3, 4, Some(0.2));
        assert_eq!(rows(&found.candidates), [1, 2]);
        assert_eq!((found.below_min_score, found.not_reranked), (1, 1));
        assert!(found.warnings.is_empty());
        let mut found = Retrieved { candidates: candidates(&values), ..Retrieved::default() };
        keep_best(&mut found, RerankOrder::Standardized(0.0), 3, 4, None);
        assert_eq!((found.below_min_score, found.not_reranked), (0, 0));
        assert_eq!(found.warnings.len(), 1);
    }
}
