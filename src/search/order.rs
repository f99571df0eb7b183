//! The reranker's part of a search: scoring the first candidates and ordering them.

use super::{Candidate, QueryInput, Searcher, timed};
use crate::error::Result;
use crate::rerank::{PassageScore, RerankJob, RerankScores, Reranker};
use crate::store::Row;
use std::ops::Range;

/// Orders candidates by what the reranker said of them, best first: the logit, or with a
/// `retriever_weight` above 0 its blend with the retrieval score; see
/// [`super::SearchOptions::retriever_weight`]. Equal ones keep their retrieval order, and so do those
/// that the reranker has not seen, behind all others. Sets their final scores.
pub fn order_reranked(candidates: &mut [Candidate], retriever_weight: f32) {
    candidates.sort_by_key(|c| (c.rerank.is_none(), c.retrieved_rank));
    let seen = candidates.iter().take_while(|c| c.rerank.is_some()).count();
    let (reranked, deeper) = candidates.split_at_mut(seen);
    deeper.iter_mut().for_each(|c| c.final_score = None);
    let logits: Vec<f32> =
        reranked.iter().filter_map(|c| c.rerank.as_ref().map(|s| s.logit)).collect();
    let weight = f64::from(retriever_weight);
    let keys: Vec<f64> = if weight > 0.0 {
        let scores: Vec<f32> = reranked.iter().map(|c| c.score).collect();
        let blended = standardised(&scores).into_iter().zip(standardised(&logits));
        blended.map(|(score, logit)| weight * score + (1.0 - weight) * logit).collect()
    } else {
        logits.iter().map(|&l| f64::from(l)).collect()
    };
    for (candidate, &key) in reranked.iter_mut().zip(&keys) {
        let alone = candidate.rerank.as_ref().map(|s| s.score);
        candidate.final_score = if weight > 0.0 { Some(key as f32) } else { alone };
    }
    let mut order: Vec<usize> = (0..seen).collect();
    order.sort_by(|&a, &b| keys[b].total_cmp(&keys[a]));
    let ordered: Vec<Candidate> = order.into_iter().map(|i| reranked[i].clone()).collect();
    reranked.clone_from_slice(&ordered);
}

/// Values less their mean, divided by their standard deviation; all 0 where that is 0.
fn standardised(values: &[f32]) -> Vec<f64> {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
    let deviations = values.iter().map(|&v| f64::from(v) - mean);
    let deviation = (deviations.clone().map(|d| d * d).sum::<f64>() / n).sqrt();
    deviations.map(|d| if deviation > 0.0 { d / deviation } else { 0.0 }).collect()
}

impl Searcher {
    /// Scores the first `depth` candidates of one query by `reranker`, without ordering them, and adds
    /// the milliseconds it took to `took`.
    ///
    /// # Errors
    ///
    /// The encoder's errors.
    pub fn score_candidates(
        &self,
        reranker: &Reranker,
        query: QueryInput<'_>,
        candidates: &mut Vec<Candidate>,
        depth: usize,
        took: &mut f64,
    ) -> Result<()> {
        let mut rankings = [std::mem::take(candidates)];
        let outcome = timed(took, || {
            self.score_rankings(reranker, &[query], &mut rankings, depth, &mut [Vec::new()])
        });
        let [ranking] = rankings;
        *candidates = ranking;
        outcome
    }

    /// Scores the first `depth` candidates of every query.
    pub(super) fn score_rankings(
        &self,
        reranker: &Reranker,
        queries: &[QueryInput<'_>],
        rankings: &mut [Vec<Candidate>],
        depth: usize,
        warnings: &mut [Vec<String>],
    ) -> Result<()> {
        let passages: Vec<Vec<Row>> =
            rankings.iter().map(|ranking| self.passages(ranking, depth)).collect::<Result<_>>()?;
        let texts: Vec<Vec<String>> =
            passages.iter().map(|rows| rows.iter().map(Row::passage).collect()).collect();
        let jobs: Vec<RerankJob<'_>> = queries
            .iter()
            .zip(&texts)
            .map(|(query, texts)| RerankJob {
                query: query.text,
                passages: texts.iter().map(String::as_str).collect(),
            })
            .collect();
        for (q, outcome) in reranker.score_batch(&jobs)?.into_iter().enumerate() {
            warnings[q].extend(note_scores(&mut rankings[q], &passages[q], outcome));
        }
        Ok(())
    }

    /// The rows of the first `depth` candidates, whose passages a reranker reads.
    ///
    /// # Errors
    ///
    /// As [`Searcher::hits`].
    pub fn passages(&self, candidates: &[Candidate], depth: usize) -> Result<Vec<Row>> {
        let numbers: Vec<u32> = candidates.iter().take(depth).map(|c| c.row).collect();
        self.index.rows(&numbers)
    }
}

/// Notes in the first candidates what a reranker said of their `rows` ([`Searcher::passages`]); returns
/// what the user should know.
pub fn note_scores(
    candidates: &mut [Candidate],
    rows: &[Row],
    outcome: RerankScores,
) -> Option<String> {
    for ((candidate, mut score), row) in candidates.iter_mut().zip(outcome.scores).zip(rows) {
        score.window = window_in_text(row, &score);
        candidate.rerank = Some(score);
    }
    (outcome.query_tokens_lost > 0).then(|| {
        format!(
            "the last {} tokens of the query were left out for the reranker",
            outcome.query_tokens_lost
        )
    })
}

/// Orders candidates of which the first `depth` were scored ([`order_reranked`]) and keeps the best `k`;
/// returns what the user should know.
pub fn keep_best(
    candidates: &mut Vec<Candidate>,
    retriever_weight: f32,
    depth: usize,
    k: usize,
) -> Option<String> {
    order_reranked(candidates, retriever_weight);
    candidates.truncate(k);
    (candidates.len() > depth).then(|| {
        format!("only the first {depth} hits were reranked; the others follow in retrieval order")
    })
}

/// The window as bytes of the chunk's text: the reranker saw the title in front of it.
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
            retrieved_rank: i + 1,
            rerank: logit.map(scored),
            final_score: Some(score),
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
        order_reranked(&mut list, 0.0);
        assert_eq!(rows(&list), [1, 2, 0, 3]);
        let scores: Vec<Option<f32>> = list.iter().map(|c| c.final_score).collect();
        assert_eq!(scores, [Some(0.3), Some(0.3), Some(0.1), None]);
    }

    #[test]
    fn order_of_a_blend_weighs_standard_scores() {
        // z(score) = 1.2247, 0, -1.2247; z(logit) = -0.7071, 1.4142, -0.7071.
        let values = [(0.9, Some(1.0)), (0.8, Some(4.0)), (0.7, Some(1.0)), (0.6, None)];
        let mut list = candidates(&values);
        order_reranked(&mut list, 0.5);
        assert_eq!(rows(&list), [1, 0, 2, 3]);
        let expected = [std::f32::consts::FRAC_1_SQRT_2, 0.2588, -0.9659];
        for (candidate, expected) in list.iter().zip(expected) {
            assert!((candidate.final_score.unwrap() - expected).abs() < 1e-4);
        }
        assert_eq!(list[3].final_score, None);
        order_reranked(&mut list, 1.0);
        assert_eq!(rows(&list), [0, 1, 2, 3]);
        // Logits that are all equal leave the retrieval order.
        let mut list = candidates(&[(0.9, Some(2.0)), (0.8, Some(2.0))]);
        order_reranked(&mut list, 0.5);
        assert_eq!(rows(&list), [0, 1]);
    }
}
