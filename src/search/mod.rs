//! The library's front door: retrieve, fuse, diversify, rerank.

mod fusion;
mod order;
mod retrieve;

use crate::embed::Embedder;
use crate::error::{Error, Result};
use crate::rerank::{PassageScore, Reranker};
use crate::scan::Scanner;
use crate::store::filter::Filter;
use crate::store::{Index, Row};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

pub use fusion::{RRF_CONSTANT, mmr, reciprocal_rank_fusion};
pub use order::{keep_best, note_scores, order_reranked};
pub use retrieve::{embed_queries, query_warning};

/// Rows that a reranker sees where nothing else is asked for, or `k` where that is more.
pub const DEFAULT_RERANK_DEPTH: usize = 50;

/// The weight of relevance in maximal marginal relevance where nothing else is asked for.
pub const DEFAULT_MMR_LAMBDA: f32 = 0.5;

/// An index with the models to search it. May be shared between threads.
#[derive(Debug)]
pub struct Searcher {
    /// The snapshot that is searched.
    pub index: Index,
    /// Embeds queries; without one only vectors can be searched for.
    pub embedder: Option<Arc<Embedder>>,
    /// Reranks, and its name.
    pub reranker: Option<(String, Arc<Reranker>)>,
    /// Scans the vectors.
    pub scanner: Scanner,
}

/// How to search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOptions {
    /// How many hits to return.
    pub k: usize,
    /// How many of the retrieved rows the reranker sees; none for the retrieval order.
    pub rerank_depth: Option<usize>,
    /// How much the retrieval score counts beside the reranker's, 0..=1; none for what suits the
    /// reranker ([`Reranker::retriever_weight`]). At 0 the hits are ordered by the reranker alone;
    /// above, by `w * z(score) + (1 - w) * z(rerank_logit)`, where `z` takes the mean of the rows that
    /// were reranked and divides by their standard deviation (0 where all are equal).
    pub retriever_weight: Option<f32>,
    /// Which rows may be returned.
    pub filter: Option<Filter>,
    /// Whether to fuse the dense ranking with the lexical one.
    pub hybrid: bool,
    /// Maximal marginal relevance before reranking, with this lambda in 0..=1 (1 is relevance
    /// alone).
    pub mmr: Option<f32>,
    /// How many rows with the same `doc_id` may be retrieved; none for any number.
    pub max_per_doc: Option<usize>,
}

impl SearchOptions {
    /// Whether they are the same for every query that brings a filter of its own.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let any = |options: &Self| Self { filter: None, ..options.clone() };
        self == other || any(self) == any(other)
    }
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self {
            k: 10,
            rerank_depth: None,
            retriever_weight: None,
            filter: None,
            hybrid: false,
            mmr: None,
            max_per_doc: None,
        }
    }
}

/// A query as text, as a vector, or both.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueryInput<'a> {
    /// The text; needed for hybrid search and reranking.
    pub text: &'a str,
    /// The vector; embedded from the text where there is none.
    pub vector: Option<&'a [f32]>,
    /// Which rows it may find, in place of the filter of the options.
    pub filter: Option<&'a Filter>,
}

/// A retrieved row, before its text is fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The row's number.
    pub row: u32,
    /// The inner product, or the fused score of a hybrid search.
    pub score: f32,
    /// The place in the retrieval order, from 1.
    pub retrieved_rank: usize,
    /// What the reranker said, where it looked.
    pub rerank: Option<PassageScore>,
    /// What the candidate is ordered by; none behind the rows that were reranked.
    pub final_score: Option<f32>,
}

/// A row that answers a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// The place in the final order, from 1.
    pub rank: usize,
    /// The row's number in the index; it stays until the index is compacted.
    pub row: u32,
    /// The row's id.
    pub id: String,
    /// The document's id, which judgments name.
    pub doc_id: String,
    /// The title, possibly empty.
    pub title: String,
    /// The chunk's text.
    pub text: String,
    /// The inner product of unit vectors (cosine), or the fused value when hybrid; higher is better.
    pub score: f32,
    /// What the hits are ordered by: the rerank score, its blend with `score`
    /// ([`SearchOptions::retriever_weight`]), or `score` where nothing was reranked. None for hits that
    /// lie deeper than the reranker looked: they follow in retrieval order. With MMR alone the order is
    /// that of picking.
    pub final_score: Option<f32>,
    /// The place in the retrieval order, from 1; none in a comparison where it was not retrieved.
    pub retrieved_rank: Option<usize>,
    /// The sigmoid of the logit, 0..1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank_score: Option<f32>,
    /// The cross-encoder's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank_logit: Option<f32>,
    /// Bytes of `text` that the reranker's best window covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<[usize; 2]>,
    /// Tokens of the chunk that the embedder's limit cut off.
    pub tokens_lost: u32,
    /// Where the chunk stands in its document, in bytes.
    pub document_range: [usize; 2],
    /// The document's metadata.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// Milliseconds spent in each step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Timings {
    /// Embedding the query. Where its vector stays on a GPU this does not wait for it, and `scan` does.
    pub embed: f64,
    /// Evaluating the filter.
    pub filter: f64,
    /// Scanning the vectors.
    pub scan: f64,
    /// The lexical search, fusion and diversification.
    pub fuse: f64,
    /// Reranking, fetching the passages included.
    pub rerank: f64,
    /// Fetching texts of the hits.
    pub fetch: f64,
    /// All of it.
    pub total: f64,
}

/// The answer to a search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchResult {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// Rows that passed the filter.
    pub matched_rows: usize,
    /// Live rows of the index.
    pub total_rows: usize,
    /// The reranker, where one was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reranker: Option<String>,
    /// Milliseconds a step.
    pub took_ms: Timings,
    /// What the user should know: a query that was cut, say.
    pub warnings: Vec<String>,
}

/// Rows and warnings of one query of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retrieved {
    /// In final order.
    pub candidates: Vec<Candidate>,
    /// Rows that passed the filter.
    pub matched_rows: usize,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Searcher {
    /// Searches for a text.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an empty query, `k = 0`, a filter that does not fit the index, or
    /// reranking without a reranker; [`Error::Corrupt`] where the index is damaged.
    pub fn search(&self, query: &str, options: &SearchOptions) -> Result<SearchResult> {
        let mut timings = Timings::default();
        let input = QueryInput { text: query, ..QueryInput::default() };
        let found = self.retrieve(&[input], options, &mut timings)?.pop().unwrap_or_default();
        let hits = timed(&mut timings.fetch, || self.hits(&found.candidates))?;
        timings.total += timings.fetch;
        Ok(SearchResult {
            hits,
            matched_rows: found.matched_rows,
            total_rows: self.index.live().count(),
            reranker: options
                .rerank_depth
                .and(self.reranker.as_ref())
                .map(|(name, _)| name.clone()),
            took_ms: timings,
            warnings: found.warnings,
        })
    }

    /// Fetches the texts of candidates.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where a row has no text.
    pub fn hits(&self, candidates: &[Candidate]) -> Result<Vec<Hit>> {
        let numbers: Vec<u32> = candidates.iter().map(|c| c.row).collect();
        let rows = self.index.rows(&numbers)?;
        Ok(candidates
            .iter()
            .zip(rows)
            .enumerate()
            .map(|(i, (candidate, row))| hit(i + 1, candidate, row))
            .collect())
    }

    /// The tokens of a text as the embedder counts them; without one, at four characters a token, as English
    /// has them.
    pub fn count_tokens(&self, text: &str) -> usize {
        match &self.embedder {
            Some(embedder) => embedder.tokenizer().count(text),
            None => text.chars().count().div_ceil(4),
        }
    }

    /// The reranker's name and the reranker, or why there is none.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] where the searcher has none.
    pub fn require_reranker(&self) -> Result<&(String, Arc<Reranker>)> {
        self.reranker.as_ref().ok_or_else(no_reranker)
    }
}

/// The error for reranking without a reranker.
pub fn no_reranker() -> Error {
    Error::ModelUnavailable {
        model: "reranker".to_owned(),
        reason:
            "none is present locally; `warpseek models pull ms-marco-MiniLM-L6-v2` fetches one, or \
                 name a folder with --reranker"
                .to_owned(),
    }
}

fn hit(rank: usize, candidate: &Candidate, row: Row) -> Hit {
    let rerank = candidate.rerank.as_ref();
    Hit {
        rank,
        row: row.row,
        id: row.id,
        doc_id: row.doc_id,
        title: row.title,
        text: row.text,
        score: candidate.score,
        final_score: candidate.final_score,
        retrieved_rank: Some(candidate.retrieved_rank),
        rerank_score: rerank.map(|r| r.score),
        rerank_logit: rerank.map(|r| r.logit),
        window: rerank.map(|r| [r.window.start, r.window.end]),
        tokens_lost: row.tokens_lost,
        document_range: [row.range.start, row.range.end],
        metadata: row.metadata,
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Runs `work` and adds its milliseconds.
fn timed<T>(to: &mut f64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *to += milliseconds(started);
    result
}
