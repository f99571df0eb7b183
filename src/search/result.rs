//! Results of a search: candidates, hits, times.

use crate::store::{IndexMetric, Row};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;
use warpseek_bert::reranker::PassageScore;

/// A retrieved row.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The row's number.
    pub row: u32,
    /// The inner product, or the fused score of a hybrid search.
    pub score: f32,
    /// The inner product with the query, which `score` is without hybrid search.
    pub dense: f32,
    /// BM25, in a hybrid search; 0 if the row has none of the query's words.
    pub bm25: Option<f32>,
    /// Rank in the retrieval order, from 1.
    pub retrieved_rank: usize,
    /// The reranker's score, if it read this row.
    pub rerank: Option<PassageScore>,
    /// The value that orders the candidates; `None` behind the reranked rows.
    pub final_score: Option<f32>,
    /// True if the calibration says that the row hardly answers the query.
    pub is_low: bool,
    /// Text and metadata, once they have been read from the database.
    pub(crate) fetched: Option<Arc<Row>>,
}

impl Candidate {
    /// Candidates in the order of `ranked`, which holds rows with their scores.
    pub(super) fn list(ranked: Vec<(u32, f32)>) -> Vec<Self> {
        let ranked = ranked.into_iter().enumerate();
        ranked
            .map(|(i, (row, score))| Self {
                row,
                score,
                dense: score,
                bm25: None,
                retrieved_rank: i + 1,
                rerank: None,
                final_score: Some(score),
                is_low: false,
                fetched: None,
            })
            .collect()
    }
}

/// The candidates of one query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retrieved {
    /// The candidates in final order.
    pub candidates: Vec<Candidate>,
    /// The number of rows that pass the filter.
    pub matched_rows: usize,
    /// Notes for the user, such as a truncated query.
    pub warnings: Vec<String>,
    /// The number of the first `k` rows whose final score is below
    /// [`super::SearchOptions::min_score`], which left them out.
    pub below_min_score: usize,
    /// The number of the first `k` rows that [`super::SearchOptions::min_score`] left out because
    /// the reranker did not read them, so that they have no final score.
    pub not_reranked: usize,
    /// The number of rows that the reranker read, if [`super::SearchOptions::rerank_budget`] was
    /// set.
    pub reranked_rows: Option<usize>,
}

/// A row that answers a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Rank in the final order, from 1.
    pub rank: usize,
    /// The row's number in the index; it stays until the index is compacted.
    pub row: u32,
    /// The row's id.
    pub id: String,
    /// The document's id, which relevance judgments name.
    pub doc_id: String,
    /// The title, possibly empty.
    pub title: String,
    /// The chunk's text.
    pub text: String,
    /// The inner product with the query, which is the cosine in an index of unit vectors; or the
    /// fused score of a hybrid search. Higher is better.
    pub score: f32,
    /// The inner product with the query, a part of the score of a hybrid search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_score: Option<f32>,
    /// BM25, a part of the score of a hybrid search; 0 without a word of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bm25_score: Option<f32>,
    /// The value that orders the hits: the rerank score, its combination with the retrieval score
    /// ([`super::SearchOptions::retriever_weight`]), or `score` without reranking. `None` for hits
    /// deeper than the reranker read; they follow in retrieval order. With MMR alone the hits stand
    /// in the order in which they were picked.
    pub final_score: Option<f32>,
    /// Rank in the retrieval order, from 1; `None` in a comparison if the row was not retrieved.
    pub retrieved_rank: Option<usize>,
    /// True for a hit that hardly answers the query: its probability of relevance is below
    /// [`super::LOW_PROBABILITY`]. Never true where no calibration applies.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub low: bool,
    /// The sigmoid of the logit, 0..1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank_score: Option<f32>,
    /// The cross-encoder's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank_logit: Option<f32>,
    /// Byte range of `text` that the reranker's best window covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<[usize; 2]>,
    /// The number of tokens of the chunk that the embedder's limit cut off.
    pub tokens_lost: u32,
    /// Byte range of the chunk in its document.
    pub document_range: [usize; 2],
    /// The document's metadata.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

impl Hit {
    /// The hit at `rank` (from 1), made of a candidate and its row.
    pub(super) fn new(rank: usize, candidate: &Candidate, row: Row) -> Self {
        let rerank = candidate.rerank.as_ref();
        Self {
            rank,
            row: row.row,
            id: row.id,
            doc_id: row.doc_id,
            title: row.title,
            text: row.text,
            score: candidate.score,
            dense_score: candidate.bm25.map(|_| candidate.dense),
            bm25_score: candidate.bm25,
            final_score: candidate.final_score,
            retrieved_rank: Some(candidate.retrieved_rank),
            low: candidate.is_low,
            rerank_score: rerank.map(|r| r.score),
            rerank_logit: rerank.map(|r| r.logit),
            window: rerank.map(|r| [r.window.start, r.window.end]),
            tokens_lost: row.tokens_lost,
            document_range: [row.range.start, row.range.end],
            metadata: row.metadata,
        }
    }
}

/// The score that orders hits, which is their `final_score`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderedBy {
    /// The cosine of query and row.
    Cosine,
    /// Their inner product.
    InnerProduct,
    /// BM25.
    Bm25,
    /// The weighted sum of a hybrid search.
    Hybrid,
    /// The sum of reciprocal ranks.
    ReciprocalRanks,
    /// Maximal marginal relevance. The final score is the one of the retrieval, out of order.
    Diversity,
    /// The probability of relevance by a calibration.
    Probability,
    /// The reranker's score.
    Rerank,
    /// Weighted sum of the z-scores of retrieval and reranker; comparable within one list only.
    Blend,
}

impl From<IndexMetric> for OrderedBy {
    fn from(metric: IndexMetric) -> Self {
        match metric {
            IndexMetric::Cosine => Self::Cosine,
            IndexMetric::InnerProduct => Self::InnerProduct,
        }
    }
}

impl OrderedBy {
    /// The name in text output.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::InnerProduct => "inner product",
            Self::Bm25 => "BM25",
            Self::Hybrid => "cosine and BM25",
            Self::ReciprocalRanks => "reciprocal ranks",
            Self::Diversity => "diversity",
            Self::Probability => "probability of relevance",
            Self::Rerank => "rerank score",
            Self::Blend => "retrieval and rerank score",
        }
    }
}

/// The answer to a search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchResult {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// The score that orders the hits.
    pub ordered_by: OrderedBy,
    /// The number of the first `k` rows whose final score is below
    /// [`super::SearchOptions::min_score`], which left them out, if it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below_min_score: Option<usize>,
    /// The number of the first `k` rows that [`super::SearchOptions::min_score`] left out because
    /// the reranker did not read them, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_reranked: Option<usize>,
    /// The number of rows that the reranker read, if [`super::SearchOptions::rerank_budget`] was
    /// set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reranked_rows: Option<usize>,
    /// The number of rows that pass the filter.
    pub matched_rows: usize,
    /// The number of live rows of the index.
    pub total_rows: usize,
    /// The reranker's name, if one was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reranker: Option<String>,
    /// Milliseconds of each step.
    pub took_ms: Timings,
    /// Notes for the user, such as a truncated query.
    pub warnings: Vec<String>,
}

/// Milliseconds of each step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Embedding the query. If its vector stays on a GPU, `scan` waits for it instead.
    pub embed: f64,
    /// Evaluating the filter.
    pub filter: f64,
    /// Scanning the vectors.
    pub scan: f64,
    /// Lexical search, fusion and diversification.
    pub fuse: f64,
    /// Reranking, including the reading of passages.
    pub rerank: f64,
    /// Reading the texts of the hits.
    pub fetch: f64,
    /// The whole search.
    pub total: f64,
}

impl std::ops::AddAssign for Timings {
    fn add_assign(&mut self, other: Self) {
        self.embed += other.embed;
        self.filter += other.filter;
        self.scan += other.scan;
        self.fuse += other.fuse;
        self.rerank += other.rerank;
        self.fetch += other.fetch;
        self.total += other.total;
    }
}

/// Milliseconds since an instant.
pub(super) fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Runs `work` and adds its milliseconds to `total`.
pub(crate) fn timed<T>(total: &mut f64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *total += milliseconds(started);
    result
}
