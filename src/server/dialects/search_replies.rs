//! Replies of the routes that search, and the schemas of types that the library serializes.

use crate::search::{OrderedBy, Timings};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// A row that answers a query.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct HitReply {
    /// Rank in the final order, from 1.
    pub(super) rank: usize,
    /// The row's number; it stays until the index is compacted.
    pub(super) row: u32,
    /// The row's id.
    pub(super) id: String,
    /// The document's id.
    pub(super) doc_id: String,
    /// The title, possibly empty.
    pub(super) title: String,
    /// The passage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    /// The inner product with the query (of unit vectors the cosine), or the fused score of a
    /// hybrid search.
    pub(super) score: f32,
    /// The inner product, a part of the score of a hybrid search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) dense_score: Option<f32>,
    /// BM25, a part of the score of a hybrid search; 0 without a word of the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bm25_score: Option<f32>,
    /// The value that orders the hits; null for hits deeper than the reranker read.
    pub(super) final_score: Option<f32>,
    /// Rank in the retrieval order, from 1.
    pub(super) retrieved_rank: Option<usize>,
    /// True for a hit that hardly answers the query: its probability of relevance is below 0.001.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) low: bool,
    /// The sigmoid of the reranker's logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rerank_score: Option<f32>,
    /// The reranker's logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rerank_logit: Option<f32>,
    /// Byte range of the passage that the reranker's best window covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<usize>>)]
    pub(super) window: Option<[usize; 2]>,
    /// The number of tokens that the embedder's limit cut off.
    pub(super) tokens_lost: u32,
    /// Byte range of the passage in its document.
    #[schema(value_type = Vec<usize>)]
    pub(super) document_range: [usize; 2],
    /// The row's vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) vector: Option<Vec<f32>>,
    /// The document's metadata.
    #[schema(value_type = Object)]
    pub(super) metadata: Map<String, Value>,
}

/// The answer to a search.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SearchReply {
    /// The hits, best first.
    pub(super) hits: Vec<HitReply>,
    /// The score that orders the hits, their `final_score`.
    pub(super) ordered_by: OrderedBy,
    /// The number of the first `k` hits whose `final_score` is below `min_score`, if it was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) below_min_score: Option<usize>,
    /// The number of the first `k` hits that `min_score` left out because the reranker did not read
    /// them, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) not_reranked: Option<usize>,
    /// The number of rows that the reranker read, if `rerank_budget_ms` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reranked_rows: Option<usize>,
    /// The number of rows that pass the filter.
    pub(super) matched_rows: usize,
    /// The number of live rows of the index.
    pub(super) total_rows: usize,
    /// The reranker's name, if one was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reranker: Option<String>,
    /// Milliseconds of each step, waiting included.
    #[schema(value_type = TimingsSchema)]
    pub(super) took_ms: Timings,
    /// Notes for the user.
    pub(super) warnings: Vec<String>,
}

/// Milliseconds of each step.
#[derive(ToSchema)]
#[schema(as = Timings)]
#[expect(dead_code, reason = "describes `search::Timings`")]
struct TimingsSchema {
    /// Embedding the query. If its vector stays on a GPU, `scan` waits for it instead.
    embed: f64,
    /// Evaluating the filter.
    filter: f64,
    /// Scanning the vectors.
    scan: f64,
    /// Lexical search, fusion and diversification.
    fuse: f64,
    /// Reranking, including the reading of passages.
    rerank: f64,
    /// Reading the texts of the hits.
    fetch: f64,
    /// The whole search.
    total: f64,
}

/// A comparison of two rankings.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `compare::Comparison`")]
pub(super) struct CompareReply {
    /// The query.
    query: String,
    /// The kind of the second ranking.
    second: SecondSchema,
    /// The reranker's name, if one was used.
    reranker: Option<String>,
    /// The score that orders the second ranking.
    ordered_by: OrderedBy,
    /// The first rows of the retrieval order.
    before: Vec<HitReply>,
    /// The first rows of the second ranking.
    after: Vec<HitReply>,
    /// Every row of the second ranking with its rank in the first.
    rank_map: Vec<RankMoveSchema>,
    /// The differences between the rankings.
    churn: ChurnSchema,
    /// The number of rows that pass the filter.
    matched_rows: usize,
    /// The number of live rows of the index.
    total_rows: usize,
    /// Milliseconds of each step, waiting included.
    took_ms: TimingsSchema,
    /// Notes for the user.
    warnings: Vec<String>,
}

/// The second ranking of a comparison.
#[derive(ToSchema)]
#[schema(as = Second, rename_all = "lowercase")]
#[expect(dead_code, reason = "describes `compare::Second`")]
enum SecondSchema {
    /// The reranked order.
    Reranked,
    /// The order of a hybrid search; the first is then the dense order.
    Hybrid,
}

/// The ranks of one row in both rankings.
#[derive(ToSchema)]
#[schema(as = RankMove)]
#[expect(dead_code, reason = "describes `compare::RankMove`")]
struct RankMoveSchema {
    /// The row's id.
    id: String,
    /// The row's number.
    row: u32,
    /// Rank in the second ranking, from 1.
    rank: usize,
    /// Rank in the retrieval order, from 1; null if the row was not retrieved.
    retrieved_rank: Option<usize>,
}

/// The differences between two rankings.
#[derive(ToSchema)]
#[schema(as = Churn)]
#[expect(dead_code, reason = "describes `compare::Churn`")]
struct ChurnSchema {
    /// The number of shown rows that both rankings show.
    kept: usize,
    /// True if another row is first.
    first_changed: bool,
    /// Kendall's tau-a over the rows that both rankings hold: 1 for the same order, -1 for the
    /// reversed order, 0 for fewer than two common rows.
    kendall_tau: f64,
    /// The mean of |rank before - rank after| over those rows.
    mean_move: f64,
}
