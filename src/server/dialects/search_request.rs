//! The request of a search: its fields, their checks, and the reply to it.

use super::search_replies::{HitReply, SearchReply};
use crate::error::Error;
use crate::search::{
    DEFAULT_MMR_LAMBDA, DEFAULT_RERANK_DEPTH, Fusion, Hit, QueryInput, SearchOptions, SearchResult,
    Searcher,
};
use crate::server::body::null_as_default;
use crate::server::error::{ApiError, ApiResult};
use crate::server::own::{OwnBody, UnknownFields};
use crate::server::reply_size::{ReplySize, size_of_json};
use crate::server::scheduled::blocking_until_gone;
use crate::server::state::AppState;
use crate::store::Stop;
use crate::store::filter::Filter;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use utoipa::ToSchema;

/// The default number of hits.
const DEFAULT_HITS: usize = 10;

/// Options that all routes that search share.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(super) struct Retrieval {
    /// The index [default: that of `--default-index`, or the only one].
    pub(super) index: Option<String>,
    /// Metadata filter in the syntax of SQL: `published >= '2024' AND primary_category IN
    /// ('cs.CL')`.
    #[schema(example = "title LIKE '%graph%'")]
    pub(super) filter: Option<String>,
    /// Combine the dense ranking with BM25's.
    #[serde(deserialize_with = "null_as_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) hybrid: bool,
    /// The combination of hybrid search: `weighted`, the weighted sum of the scores, or `rrf`,
    /// reciprocal rank fusion.
    #[schema(value_type = Option<String>, example = "weighted")]
    pub(super) fusion: Option<Fusion>,
    /// Prefer diverse passages: true, or the weight of relevance, 0 to 1.
    pub(super) mmr: Option<Mmr>,
    /// The maximum number of rows of one document.
    #[schema(minimum = 1)]
    pub(super) max_per_doc: Option<usize>,
    /// The number of rows that the reranker reads; 0 for none [default: 50, or `k` if that is
    /// more].
    pub(super) rerank_depth: Option<usize>,
    /// Weight of the retrieval score beside the reranker's, 0 to 1 [default: the
    /// reranker's calibration, or its own weight].
    #[schema(minimum = 0, maximum = 1)]
    pub(super) retriever_weight: Option<f32>,
}

/// Maximal marginal relevance.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "`mmr` must be true, false or a number from 0 to 1")]
pub(super) enum Mmr {
    /// True for a weight of relevance of 0.5.
    Flag(bool),
    /// The weight of relevance.
    Lambda(f32),
}

impl Retrieval {
    /// The options of a search for `k` hits. Reranks by default if `searcher` has a reranker.
    pub(super) async fn options(
        &self,
        state: &AppState,
        searcher: &Arc<Searcher>,
        k: usize,
    ) -> ApiResult<SearchOptions> {
        let most = state.limits.max_hits;
        let is_valid = (1..=most).contains(&k);
        ApiError::check(is_valid, "k", format!("`k` is {k}: use 1 to {most}"))?;
        let is_valid = self.rerank_depth.is_none_or(|depth| depth <= most);
        let message = format!("`rerank_depth` must be at most {most}");
        ApiError::check(is_valid, "rerank_depth", message)?;
        let rerank_depth = match self.rerank_depth {
            Some(0) => None,
            Some(depth) => searcher.require_reranker().map(|_| Some(depth))?,
            None => searcher.reranker.as_ref().map(|_| DEFAULT_RERANK_DEPTH.max(k)),
        };
        let filter = match self.filter.as_deref().filter(|text| !text.trim().is_empty()) {
            Some(text) => {
                let (text, searcher) = (text.to_owned(), Arc::clone(searcher));
                let within = state.limits.filter_s;
                // Evaluated here, apart from searches: the filter keeps its rows for the scan.
                let work = move |is_gone: &Arc<AtomicBool>| {
                    let filter = Filter::parse(&text)?;
                    if searcher.index.remote().is_some() {
                        // The processes that hold the shards evaluate it.
                        return searcher.index.check_filter(&filter).map(|()| filter);
                    }
                    let is_gone = Arc::clone(is_gone);
                    let stop: Stop = Arc::new(move || is_gone.load(Ordering::Relaxed));
                    let limit = Duration::from_secs_f64(within);
                    match searcher.index.rows_where_within(&filter, limit, &stop) {
                        Ok(_) => Ok(filter),
                        Err(Error::Interrupted(_)) => Err(Error::usage(format!(
                            "the filter takes more than {within} s: use fewer conditions, or \
                             narrower ones, or let the server allow more (--filter-timeout)"
                        ))),
                        Err(e) => Err(e),
                    }
                };
                Some(blocking_until_gone(work).await.map_err(|e| e.param("filter"))?)
            }
            None => None,
        };
        let mmr = match self.mmr {
            Some(Mmr::Flag(true)) => Some(DEFAULT_MMR_LAMBDA),
            Some(Mmr::Flag(false)) | None => None,
            Some(Mmr::Lambda(lambda)) => Some(lambda),
        };
        for (value, name) in [(self.retriever_weight, "retriever_weight"), (mmr, "mmr")] {
            let is_valid = value.is_none_or(|value| (0.0..=1.0).contains(&value));
            ApiError::check(is_valid, name, format!("`{name}` must lie in 0 to 1"))?;
        }
        let is_valid = self.hybrid || self.fusion.is_none();
        ApiError::check(is_valid, "fusion", "`fusion` needs `hybrid`: true")?;
        let is_valid = self.max_per_doc != Some(0);
        ApiError::check(is_valid, "max_per_doc", "`max_per_doc` must be at least 1")?;
        Ok(SearchOptions {
            k,
            rerank_depth,
            retriever_weight: self.retriever_weight,
            filter,
            hybrid: self.hybrid,
            fusion: self.fusion.unwrap_or_default(),
            mmr,
            max_per_doc: self.max_per_doc,
            min_score: None,
            rerank_budget: None,
        })
    }
}

/// A search.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct SearchRequest {
    /// The query; required for hybrid search and reranking.
    #[schema(example = "how are long documents summarised?")]
    pub(super) query: Option<String>,
    /// A query vector of the index's dimension, instead of one made of `query`.
    pub(super) vector: Option<Vec<f32>>,
    /// The number of hits [default: 10].
    #[schema(minimum = 1)]
    pub(super) k: Option<usize>,
    #[serde(flatten)]
    pub(super) retrieval: Retrieval,
    /// The minimum of the score that orders the hits, `final_score`. Hits below it are left
    /// out, and `below_min_score` is their number; so are those that were not reranked, and
    /// `not_reranked` is theirs.
    pub(super) min_score: Option<f32>,
    /// Milliseconds for reranking: the first rows are reranked, as many of `rerank_depth` as fit
    /// into them, and at least 4. `reranked_rows` is their number.
    pub(super) rerank_budget_ms: Option<f64>,
    /// Return the text of each hit [default: true].
    pub(super) with_text: Option<bool>,
    /// Return the vector of each hit.
    #[serde(deserialize_with = "null_as_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) with_vector: bool,
    /// Send the hits as they were retrieved before they are reranked, as server-sent events:
    /// `retrieved` if the hits are reranked, then `done` or `error`.
    #[serde(deserialize_with = "null_as_default")]
    #[schema(value_type = Option<bool>)]
    pub(super) stream: bool,
    #[serde(flatten)]
    #[schema(ignore)]
    pub(super) unknown: UnknownFields,
}

impl OwnBody for SearchRequest {
    fn unknown_fields(&self) -> Vec<String> {
        self.unknown.warnings::<Self>()
    }
}

impl SearchRequest {
    /// The query, without blanks around it.
    pub(super) fn input(&self) -> QueryInput<'_> {
        let text = self.query.as_deref().unwrap_or_default().trim();
        QueryInput { text, vector: self.vector.as_deref(), filter: None }
    }

    /// The pairs that are reranked for it, at most.
    pub(super) fn n_pairs(&self, searcher: &Searcher) -> usize {
        let default = DEFAULT_RERANK_DEPTH.max(self.k.unwrap_or(DEFAULT_HITS));
        let default = searcher.reranker.as_ref().map_or(0, |_| default);
        self.retrieval.rerank_depth.unwrap_or(default).min(searcher.index.live().count())
    }

    /// Checks the search against the index. Returns its options.
    pub(super) async fn options(
        &self,
        state: &AppState,
        searcher: &Arc<Searcher>,
    ) -> ApiResult<SearchOptions> {
        let k = self.k.unwrap_or(DEFAULT_HITS);
        let mut options = self.retrieval.options(state, searcher, k).await?;
        options.min_score = self.min_score;
        options.rerank_budget = self.rerank_budget_ms.map(budget).transpose()?;
        if self.input().text.is_empty() {
            if self.vector.is_none() {
                return Err(empty_query());
            }
            if self.retrieval.rerank_depth.is_none() {
                options.rerank_depth = None;
            }
            let is_valid = options.rerank_depth.is_none() && !options.hybrid;
            let message = "hybrid search and reranking need `query` beside `vector`";
            ApiError::check(is_valid, "query", message)?;
        }
        let dim = searcher.index.manifest().dim;
        let n = self.vector.as_ref().map_or(dim, Vec::len);
        ApiError::check(n == dim, "vector", format!("`vector` has {n} values, the index {dim}"))?;
        Ok(options)
    }

    /// The reply with these hits.
    pub(super) fn reply(
        &self,
        searcher: &Searcher,
        result: SearchResult,
        size: &ReplySize,
    ) -> ApiResult<SearchReply> {
        let with_text = self.with_text.unwrap_or(true);
        for hit in &result.hits {
            let text = if with_text { hit.text.len() } else { 0 };
            let metadata = if hit.metadata.is_empty() { 0 } else { size_of_json(&hit.metadata) };
            size.add_hit(text + hit.title.len() + metadata)?;
        }
        let dim = searcher.index.manifest().dim;
        let mut vectors = Vec::new();
        if self.with_vector {
            let advice = "ask for fewer hits, or without their vectors";
            size.add_vectors(result.hits.len(), dim, advice)?;
            let numbers: Vec<u32> = result.hits.iter().map(|hit| hit.row).collect();
            vectors = searcher.index.vectors(&numbers)?;
        }
        let mut vectors = vectors.into_iter();
        let reply = |hit: Hit| HitReply {
            rank: hit.rank,
            row: hit.row,
            id: hit.id,
            doc_id: hit.doc_id,
            title: hit.title,
            text: with_text.then_some(hit.text),
            score: hit.score,
            dense_score: hit.dense_score,
            bm25_score: hit.bm25_score,
            final_score: hit.final_score,
            retrieved_rank: hit.retrieved_rank,
            low: hit.low,
            rerank_score: hit.rerank_score,
            rerank_logit: hit.rerank_logit,
            window: hit.window,
            tokens_lost: hit.tokens_lost,
            document_range: hit.document_range,
            vector: vectors.next(),
            metadata: hit.metadata,
        };
        let unknown = self.unknown.warnings::<Self>();
        Ok(SearchReply {
            hits: result.hits.into_iter().map(reply).collect(),
            ordered_by: result.ordered_by,
            below_min_score: result.below_min_score,
            not_reranked: result.not_reranked,
            reranked_rows: result.reranked_rows,
            matched_rows: result.matched_rows,
            total_rows: result.total_rows,
            reranker: result.reranker,
            took_ms: result.took_ms,
            warnings: result.warnings.into_iter().chain(unknown).collect(),
        })
    }
}

/// Checks the time for reranking: 0 ms to an hour.
fn budget(ms: f64) -> ApiResult<Duration> {
    let message = "`rerank_budget_ms` must lie in 0 to 3600000";
    ApiError::check((0.0..=3_600_000.0).contains(&ms), "rerank_budget_ms", message)?;
    Ok(Duration::from_secs_f64(ms / 1e3))
}

/// The error for a search without a query.
pub(super) fn empty_query() -> ApiError {
    ApiError::empty("`query` is empty: write what you look for").param("query")
}
