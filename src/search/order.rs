//! The reranker's part of a search: scoring the first candidates and ordering them.

use super::{Candidate, QueryInput, Searcher, timed};
use crate::error::Result;
use crate::rerank::{PassageScore, RerankJob};
use crate::store::Row;
use std::ops::Range;

/// Orders candidates by the reranker's logit, best first; equal ones, and those without a logit behind
/// all others, by their place in the retrieval order.
pub fn order_by_logit(candidates: &mut [Candidate]) {
    let logit = |c: &Candidate| c.rerank.as_ref().map_or(f32::NEG_INFINITY, |s| s.logit);
    candidates.sort_by(|a, b| {
        logit(b).total_cmp(&logit(a)).then(a.retrieved_rank.cmp(&b.retrieved_rank))
    });
}

impl Searcher {
    /// Reorders the first `depth` candidates of one query by the reranker, and adds the milliseconds
    /// it took to `took`.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::ModelUnavailable`] without a reranker, and the encoder's errors.
    pub fn rerank_candidates(
        &self,
        query: QueryInput<'_>,
        candidates: &mut Vec<Candidate>,
        depth: usize,
        took: &mut f64,
    ) -> Result<()> {
        let mut rankings = [std::mem::take(candidates)];
        let outcome =
            timed(took, || self.rerank(&[query], &mut rankings, depth, &mut [Vec::new()]));
        let [ranking] = rankings;
        *candidates = ranking;
        outcome
    }

    /// Reorders the first `depth` candidates of every query by the reranker's logit; what lies deeper
    /// stays behind them.
    pub(super) fn rerank(
        &self,
        queries: &[QueryInput<'_>],
        rankings: &mut [Vec<Candidate>],
        depth: usize,
        warnings: &mut [Vec<String>],
    ) -> Result<()> {
        let (_, reranker) = self.require_reranker()?;
        let mut passages: Vec<Vec<Row>> = Vec::with_capacity(rankings.len());
        for ranking in rankings.iter() {
            let numbers: Vec<u32> = ranking.iter().take(depth).map(|c| c.row).collect();
            passages.push(self.index.rows(&numbers)?);
        }
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
            if outcome.query_tokens_lost > 0 {
                warnings[q].push(format!(
                    "the last {} tokens of the query were left out for the reranker",
                    outcome.query_tokens_lost
                ));
            }
            let n = outcome.scores.len();
            for ((candidate, mut score), row) in
                rankings[q].iter_mut().zip(outcome.scores).zip(&passages[q])
            {
                score.window = window_in_text(row, &score);
                candidate.rerank = Some(score);
            }
            order_by_logit(&mut rankings[q][..n]);
        }
        Ok(())
    }
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
