//! The options of a search.

use super::result::OrderedBy;
use super::signals::Fusion;
use crate::error::{Error, Result};
use crate::store::IndexMetric;
use crate::store::filter::Filter;
use std::time::Duration;

/// Default number of rows that a reranker reads, if `k` is not larger.
pub const DEFAULT_RERANK_DEPTH: usize = 50;

/// Default weight of relevance in maximal marginal relevance.
pub const DEFAULT_MMR_LAMBDA: f32 = 0.5;

/// Options of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOptions {
    /// The number of hits to return, at least 1.
    pub k: usize,
    /// The number of retrieved rows that the reranker reads. `None`: hits keep the retrieval order.
    pub rerank_depth: Option<usize>,
    /// Weight of the retrieval score beside the reranker's, 0..=1. At 0 the reranker alone orders
    /// the hits. Above 0 they are ordered by `w * z(score) + (1 - w) * z(rerank_logit)`, where `z`
    /// standardizes over the reranked rows (0 if all are equal). `None`: the reranker's calibration
    /// ([`warpseek_bert::reranker::Calibration`]) if it was fitted for the index's embedder, else
    /// its default weight.
    pub retriever_weight: Option<f32>,
    /// Metadata filter: only rows that pass are returned.
    pub filter: Option<Filter>,
    /// Combine the dense ranking with the lexical one.
    pub hybrid: bool,
    /// The combination of hybrid search.
    pub fusion: Fusion,
    /// Lambda of maximal marginal relevance before reranking, 0..=1; 1 is relevance alone.
    pub mmr: Option<f32>,
    /// The maximum number of retrieved rows that share a `doc_id`. `None`: no limit.
    pub max_per_doc: Option<usize>,
    /// Minimum of the score that orders the hits ([`super::Hit::final_score`]); hits below it,
    /// and those that the reranker did not read, are left out, and both are counted. Not for
    /// reciprocal rank fusion without reranking, whose scores come from ranks alone.
    pub min_score: Option<f32>,
    /// Time for reranking. The first rows are reranked, as many of `rerank_depth` as fit into it,
    /// and a few in any case. `None`: all of them.
    pub rerank_budget: Option<Duration>,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            k: 10,
            rerank_depth: None,
            retriever_weight: None,
            filter: None,
            hybrid: false,
            fusion: Fusion::default(),
            mmr: None,
            max_per_doc: None,
            min_score: None,
            rerank_budget: None,
        }
    }
}

/// A query as text, as a vector, or both.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueryInput<'a> {
    /// The text; required for hybrid search and reranking.
    pub text: &'a str,
    /// The vector; `None`: embedded from the text.
    pub vector: Option<&'a [f32]>,
    /// Metadata filter of this query; replaces the filter of the options.
    pub filter: Option<&'a Filter>,
}

impl SearchOptions {
    /// The score that orders the retrieved rows of an index of this metric, before MMR and
    /// reranking.
    pub fn retrieved_by(&self, metric: IndexMetric) -> OrderedBy {
        match (self.hybrid, self.fusion) {
            (true, Fusion::Rrf) => OrderedBy::ReciprocalRanks,
            (true, Fusion::Weighted) => OrderedBy::Hybrid,
            (false, _) => metric.into(),
        }
    }

    /// The options that retrieval depends on, with `k` as deep as the reranker reads. Searches for
    /// which they are equal can share a scan.
    pub(super) fn retrieval(&self) -> Self {
        let k = self.rerank_depth.unwrap_or(0).max(self.k);
        // The score that orders reranked hits is known only later.
        let min_score = self.min_score.filter(|_| self.rerank_depth.is_none());
        Self {
            k,
            rerank_depth: None,
            retriever_weight: None,
            rerank_budget: None,
            min_score,
            ..self.clone()
        }
    }

    /// Refuses values out of range, and queries that lack the text which a step needs.
    pub(super) fn check(&self, queries: &[QueryInput<'_>]) -> Result<()> {
        let counts = [
            (Some(self.k), "k must be at least 1"),
            (self.rerank_depth, "the rerank depth must be at least 1"),
            (self.max_per_doc, "at least 1 row per document must be allowed"),
        ];
        if let Some((_, message)) = counts.iter().find(|(count, _)| *count == Some(0)) {
            return Err(Error::usage(*message));
        }
        let shares =
            [(self.mmr, "MMR lambda"), (self.retriever_weight, "weight of the retrieval score")];
        for (value, name) in shares {
            if let Some(value) = value.filter(|value| !(0.0..=1.0).contains(value)) {
                return Err(Error::usage(format!("the {name} is {value}; it must lie in 0..1")));
            }
        }
        if self.min_score.is_some_and(f32::is_nan) {
            return Err(Error::usage(
                "the minimum score is not a number: give a probability, a cosine or another value \
                 of the score that orders the hits",
            ));
        }
        let is_by_rank = self.hybrid && self.fusion == Fusion::Rrf && self.rerank_depth.is_none();
        if self.min_score.is_some() && is_by_rank {
            return Err(Error::usage(
                "reciprocal rank fusion has no minimum score, since its scores come from ranks \
                 alone: leave one of the two out, or use the weighted fusion",
            ));
        }
        let needs_text = self.hybrid || self.rerank_depth.is_some();
        for query in queries.iter().filter(|query| query.text.trim().is_empty()) {
            if query.vector.is_none() {
                return Err(Error::usage("the query is empty: write what to search for"));
            }
            if needs_text {
                return Err(Error::usage(
                    "hybrid search and reranking need the query's text beside its vector",
                ));
            }
        }
        Ok(())
    }
}
