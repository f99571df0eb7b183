//! `/v1/search`, `/v1/search/batch`, `/v1/compare`.

use crate::compare::{Churn, Comparison, RankMove, Searches, Second};
use crate::search::{
    DEFAULT_MMR_LAMBDA, DEFAULT_RERANK_DEPTH, Hit, SearchOptions, SearchResult, Searcher, Timings,
};
use crate::server::body::Job;
use crate::server::error::ApiError;
use crate::server::pipeline::{self, Query};
use crate::server::state::State;
use crate::store::filter::Filter;
use axum::Json;
use axum::extract::State as Extract;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(search)).routes(routes!(batch)).routes(routes!(compare))
}

/// What all ways of searching share.
#[derive(Debug, Clone, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub(super) struct Retrieval {
    /// The index; needed where several are served.
    pub(super) index: Option<String>,
    /// Only rows that pass, as in SQL: `published >= '2024' AND primary_category IN ('cs.CL')`.
    #[schema(example = "title LIKE '%graph%'")]
    pub(super) filter: Option<String>,
    /// Fuse the dense ranking with BM25's.
    pub(super) hybrid: bool,
    /// Prefer different passages: true, or the weight of relevance, 0 to 1.
    pub(super) mmr: Option<Mmr>,
    /// No more than this many rows of one document.
    #[schema(minimum = 1)]
    pub(super) max_per_doc: Option<usize>,
    /// How many rows the reranker sees; 0 for none [default: 50, or `k` if that is more].
    pub(super) rerank_depth: Option<usize>,
    /// How much the retrieval score counts beside the reranker's, 0 to 1 [default: what suits the reranker].
    #[schema(minimum = 0, maximum = 1)]
    pub(super) retriever_weight: Option<f32>,
}

/// Maximal marginal relevance.
#[derive(Debug, Clone, Copy, Deserialize, Serialize, ToSchema)]
#[serde(untagged, expecting = "`mmr` must be true, false or a number from 0 to 1")]
pub(super) enum Mmr {
    /// Whether, with the weight of relevance at 0.5.
    Flag(bool),
    /// The weight of relevance.
    Lambda(f32),
}

impl Retrieval {
    /// The options of a search for `k` hits, with reranking where `searcher` has a reranker and nothing
    /// else is asked for.
    pub(super) async fn options(
        &self,
        state: &State,
        searcher: &Arc<Searcher>,
        k: usize,
    ) -> Result<SearchOptions, ApiError> {
        let most = state.limits.max_hits;
        if k == 0 || k > most {
            return Err(ApiError::bad(format!("`k` is {k}: use 1 to {most}")).param("k"));
        }
        if self.rerank_depth.is_some_and(|depth| depth > most) {
            let message = format!("`rerank_depth` must be at most {most}");
            return Err(ApiError::bad(message).param("rerank_depth"));
        }
        let rerank_depth = match self.rerank_depth {
            Some(0) => None,
            Some(depth) => {
                searcher.require_reranker()?;
                Some(depth)
            }
            None => searcher.reranker.as_ref().map(|_| DEFAULT_RERANK_DEPTH.max(k)),
        };
        let filter = match self.filter.as_deref().filter(|text| !text.trim().is_empty()) {
            Some(text) => {
                // Whether it fits the index is known by trying it; the mask is kept for the search.
                let (text, searcher) = (text.to_owned(), Arc::clone(searcher));
                let work = move || {
                    let filter = Filter::parse(&text)?;
                    searcher.index.rows_where(&filter).map(|_| filter)
                };
                Some(pipeline::blocking(work).await.map_err(|e| e.param("filter"))?)
            }
            None => None,
        };
        let within = |value: Option<f32>, name: &str| match value {
            Some(value) if !(0.0..=1.0).contains(&value) => {
                Err(ApiError::bad(format!("`{name}` must lie in 0 to 1")).param(name))
            }
            value => Ok(value),
        };
        let mmr = match self.mmr {
            Some(Mmr::Flag(true)) => Some(DEFAULT_MMR_LAMBDA),
            Some(Mmr::Flag(false)) | None => None,
            Some(Mmr::Lambda(lambda)) => Some(lambda),
        };
        if self.max_per_doc == Some(0) {
            return Err(ApiError::bad("`max_per_doc` must be at least 1").param("max_per_doc"));
        }
        Ok(SearchOptions {
            k,
            rerank_depth,
            retriever_weight: within(self.retriever_weight, "retriever_weight")?,
            filter,
            hybrid: self.hybrid,
            mmr: within(mmr, "mmr")?,
            max_per_doc: self.max_per_doc,
        })
    }
}

/// A search.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(default)]
struct SearchRequest {
    /// What is looked for; needed for hybrid search and reranking.
    #[schema(example = "how are long documents summarised?")]
    query: Option<String>,
    /// A query vector of the index's dimension, instead of one made of `query`.
    vector: Option<Vec<f32>>,
    /// How many hits.
    #[schema(minimum = 1)]
    k: usize,
    #[serde(flatten)]
    retrieval: Retrieval,
    /// Whether hits carry their text.
    with_text: bool,
    /// Whether hits carry their vector.
    with_vector: bool,
}

impl Default for SearchRequest {
    fn default() -> Self {
        Self {
            query: None,
            vector: None,
            k: 10,
            retrieval: Retrieval::default(),
            with_text: true,
            with_vector: false,
        }
    }
}

/// A row that answers a query.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct HitReply {
    /// The place in the final order, from 1.
    rank: usize,
    /// The row's number; it stays until the index is compacted.
    row: u32,
    /// The row's id.
    id: String,
    /// The document's id.
    doc_id: String,
    /// The title, possibly empty.
    title: String,
    /// The passage.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The inner product of unit vectors, or the fused value of a hybrid search.
    score: f32,
    /// What hits are ordered by; null for those deeper than the reranker looked.
    final_score: Option<f32>,
    /// The place in the retrieval order, from 1.
    retrieved_rank: Option<usize>,
    /// The sigmoid of the reranker's logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    rerank_score: Option<f32>,
    /// The reranker's logit.
    #[serde(skip_serializing_if = "Option::is_none")]
    rerank_logit: Option<f32>,
    /// Bytes of the passage that the reranker's best window covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<usize>>)]
    window: Option<[usize; 2]>,
    /// Tokens that the embedder's limit cut off.
    tokens_lost: u32,
    /// Where the passage stands in its document, in bytes.
    #[schema(value_type = Vec<usize>)]
    document_range: [usize; 2],
    /// The row's vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<Vec<f32>>,
    /// The document's metadata.
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

impl From<Hit> for HitReply {
    fn from(hit: Hit) -> Self {
        Self {
            rank: hit.rank,
            row: hit.row,
            id: hit.id,
            doc_id: hit.doc_id,
            title: hit.title,
            text: Some(hit.text),
            score: hit.score,
            final_score: hit.final_score,
            retrieved_rank: hit.retrieved_rank,
            rerank_score: hit.rerank_score,
            rerank_logit: hit.rerank_logit,
            window: hit.window,
            tokens_lost: hit.tokens_lost,
            document_range: hit.document_range,
            vector: None,
            metadata: hit.metadata,
        }
    }
}

/// The answer to a search.
#[derive(Debug, Serialize, ToSchema)]
struct SearchReply {
    /// Best first.
    hits: Vec<HitReply>,
    /// Rows that passed the filter.
    matched_rows: usize,
    /// Live rows of the index.
    total_rows: usize,
    /// The reranker, where one was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    reranker: Option<String>,
    /// Milliseconds of each step, waiting included.
    took_ms: Timings,
    /// What the user should know.
    warnings: Vec<String>,
}

/// Several searches, each by itself.
#[derive(Debug, Deserialize, ToSchema)]
struct BatchRequest(Vec<SearchRequest>);

/// Two rankings of a query.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(default)]
struct CompareRequest {
    /// What is looked for.
    #[schema(example = "how are long documents summarised?")]
    query: String,
    /// How many rows are retrieved and ordered again.
    #[schema(minimum = 1)]
    k: usize,
    /// How many of each ranking are shown.
    #[schema(minimum = 1)]
    show: usize,
    #[serde(flatten)]
    retrieval: Retrieval,
}

impl Default for CompareRequest {
    fn default() -> Self {
        Self { query: String::new(), k: 25, show: 3, retrieval: Retrieval::default() }
    }
}

/// A comparison of two rankings.
#[derive(Debug, Serialize, ToSchema)]
struct CompareReply {
    /// The query.
    query: String,
    /// What the second ranking is.
    second: Second,
    /// The reranker, where one was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    reranker: Option<String>,
    /// The first rows as retrieved.
    before: Vec<HitReply>,
    /// The first rows of the second ranking.
    after: Vec<HitReply>,
    /// Every row of the second ranking with its place in the first.
    rank_map: Vec<RankMove>,
    /// How much changed.
    churn: Churn,
    /// Rows that passed the filter.
    matched_rows: usize,
    /// Live rows of the index.
    total_rows: usize,
    /// Milliseconds of each step, waiting included.
    took_ms: Timings,
    /// What the user should know.
    warnings: Vec<String>,
}

/// Search an index
#[utoipa::path(post, path = "/v1/search", tag = "search", request_body = SearchRequest,
    responses((status = 200, body = SearchReply)))]
async fn search(
    Extract(state): Extract<Arc<State>>,
    job: Job<SearchRequest>,
) -> Result<Json<SearchReply>, ApiError> {
    let searcher = state.index(job.body.retrieval.index.as_deref())?.searcher();
    one(&state, searcher, &job.body).await.map(Json)
}

/// Run several searches
#[utoipa::path(post, path = "/v1/search/batch", tag = "search", request_body = BatchRequest,
    responses((status = 200, body = Vec<SearchReply>)))]
async fn batch(
    Extract(state): Extract<Arc<State>>,
    job: Job<BatchRequest>,
) -> Result<Json<Vec<SearchReply>>, ApiError> {
    let requests = &job.body.0;
    state.check_inputs(requests.len(), "searches")?;
    // All of them see the same snapshot of an index.
    let mut searchers = Vec::with_capacity(requests.len());
    let mut taken: Vec<(&str, Arc<Searcher>)> = Vec::new();
    for (number, request) in requests.iter().enumerate() {
        let index =
            state.index(request.retrieval.index.as_deref()).map_err(|e| e.of_request(number))?;
        let searcher = match taken.iter().find(|t| t.0 == index.name) {
            Some((_, searcher)) => Arc::clone(searcher),
            None => {
                let searcher = index.searcher();
                taken.push((&index.name, Arc::clone(&searcher)));
                searcher
            }
        };
        searchers.push(searcher);
    }
    let all = requests.iter().zip(searchers).enumerate().map(|(number, (request, searcher))| {
        let state = &state;
        async move { one(state, searcher, request).await.map_err(|e| e.of_request(number)) }
    });
    try_join_all(all).await.map(Json)
}

async fn one(
    state: &State,
    searcher: Arc<Searcher>,
    request: &SearchRequest,
) -> Result<SearchReply, ApiError> {
    let mut options = request.retrieval.options(state, &searcher, request.k).await?;
    let text = request.query.as_deref().unwrap_or_default().trim().to_owned();
    if text.is_empty() {
        if request.vector.is_none() {
            return Err(ApiError::empty("`query` is empty: write what you look for").param("query"));
        }
        if request.retrieval.rerank_depth.is_none() {
            options.rerank_depth = None;
        }
        if options.rerank_depth.is_some() || options.hybrid {
            let message = "hybrid search and reranking need `query` beside `vector`";
            return Err(ApiError::bad(message).param("query"));
        }
    }
    let dim = searcher.index.manifest().dim;
    if let Some(vector) = request.vector.as_ref().filter(|v| v.len() != dim) {
        let message = format!("`vector` has {} values, the index {dim}", vector.len());
        return Err(ApiError::bad(message).param("vector"));
    }
    let query = Query { text, vector: request.vector.clone() };
    let result = pipeline::search(state, &searcher, query, options).await?;
    reply(result, &searcher, request)
}

fn reply(
    result: SearchResult,
    searcher: &Searcher,
    request: &SearchRequest,
) -> Result<SearchReply, ApiError> {
    let mut hits: Vec<HitReply> = result.hits.into_iter().map(HitReply::from).collect();
    let matrix = searcher.index.matrix()?;
    for hit in &mut hits {
        if !request.with_text {
            hit.text = None;
        }
        if request.with_vector {
            let row = matrix.row(hit.row as usize).unwrap_or_default();
            let dim = searcher.index.manifest().dim.min(row.len());
            hit.vector = Some(row[..dim].iter().map(|v| v.to_f32()).collect());
        }
    }
    Ok(SearchReply {
        hits,
        matched_rows: result.matched_rows,
        total_rows: result.total_rows,
        reranker: result.reranker,
        took_ms: result.took_ms,
        warnings: result.warnings,
    })
}

/// Set two rankings side by side: as retrieved, and as the reranker orders them
///
/// Without a reranker: the dense ranking and the hybrid one.
#[utoipa::path(post, path = "/v1/compare", tag = "search", request_body = CompareRequest,
    responses((status = 200, body = CompareReply)))]
async fn compare(
    Extract(state): Extract<Arc<State>>,
    job: Job<CompareRequest>,
) -> Result<Json<CompareReply>, ApiError> {
    let request = &job.body;
    let searcher = state.index(request.retrieval.index.as_deref())?.searcher();
    let options = request.retrieval.options(&state, &searcher, request.k).await?;
    if request.show == 0 {
        return Err(ApiError::bad("`show` must be at least 1").param("show"));
    }
    let text = request.query.trim().to_owned();
    if text.is_empty() {
        return Err(ApiError::empty("`query` is empty: write what you look for").param("query"));
    }
    let searches = Searches::new(searcher.reranker.is_some(), request.k, &options);
    let query = Query { text: text.clone(), vector: None };
    let before = match searches.before {
        Some(before) => Some(pipeline::search(&state, &searcher, query.clone(), before).await?),
        None => None,
    };
    let after = pipeline::search(&state, &searcher, query, searches.after).await?;
    let found = Comparison::new(&text, before, after, request.show);
    let hits = |hits: Vec<Hit>| hits.into_iter().map(HitReply::from).collect();
    Ok(Json(CompareReply {
        query: found.query,
        second: found.second,
        reranker: found.reranker,
        before: hits(found.before),
        after: hits(found.after),
        rank_map: found.rank_map,
        churn: found.churn,
        matched_rows: found.matched_rows,
        total_rows: found.total_rows,
        took_ms: found.took_ms,
        warnings: found.warnings,
    }))
}
