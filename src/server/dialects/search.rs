//! `/v1/search`, `/v1/search/batch`, `/v1/compare`.

use super::search_events::stream_hits;
use super::search_replies::{CompareReply, HitReply, SearchReply};
use super::warnings::{Warned, headers};
use crate::compare::{Comparison, compare_with};
use crate::search::{
    self, DEFAULT_MMR_LAMBDA, DEFAULT_RERANK_DEPTH, Fusion, Hit, QueryInput, SearchOptions,
    SearchResult, Searcher,
};
use crate::server::error::{ApiError, ApiResult};
use crate::server::mistakes::read_object;
use crate::server::own::{OwnBody, OwnRequest, UnknownFields, check_unknown, read_strict};
use crate::server::scheduled::{ScheduledSteps, blocking};
use crate::server::state::AppState;
use crate::store::filter::Filter;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

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
                // Evaluated here so that errors name the field; the search finds the mask cached.
                let work = move || {
                    let filter = Filter::parse(&text)?;
                    searcher.index.rows_where(&filter).map(|_| filter)
                };
                Some(blocking(work).await.map_err(|e| e.param("filter"))?)
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
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct SearchRequest {
    /// The query; required for hybrid search and reranking.
    #[schema(example = "how are long documents summarised?")]
    pub(super) query: Option<String>,
    /// A query vector of the index's dimension, instead of one made of `query`.
    pub(super) vector: Option<Vec<f32>>,
    /// The number of hits.
    #[schema(minimum = 1)]
    pub(super) k: usize,
    #[serde(flatten)]
    pub(super) retrieval: Retrieval,
    /// The least value of the score that orders the hits, `final_score`. Hits below it are left
    /// out, and `below_min_score` is their number.
    pub(super) min_score: Option<f32>,
    /// Milliseconds for reranking: the first rows are reranked, as many of `rerank_depth` as fit
    /// into them, and at least 4. `reranked_rows` is their number.
    pub(super) rerank_budget_ms: Option<f64>,
    /// Return the text of each hit.
    pub(super) with_text: bool,
    /// Return the vector of each hit.
    pub(super) with_vector: bool,
    /// Send the hits as they were retrieved before they are reranked, as server-sent events:
    /// `retrieved` if the hits are reranked, then `done` or `error`.
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

impl Default for SearchRequest {
    fn default() -> Self {
        Self {
            query: None,
            vector: None,
            k: 10,
            retrieval: Retrieval::default(),
            min_score: None,
            rerank_budget_ms: None,
            with_text: true,
            with_vector: false,
            stream: false,
            unknown: UnknownFields::default(),
        }
    }
}

/// Several searches, independent of each other.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct BatchRequest(Vec<SearchRequest>);

impl OwnBody for BatchRequest {
    fn unknown_fields(&self) -> Vec<String> {
        let of_request = |(number, request): (usize, &SearchRequest)| {
            let warnings = request.unknown_fields().into_iter();
            warnings.map(move |warning| format!("request {number}: {warning}"))
        };
        self.0.iter().enumerate().flat_map(of_request).collect()
    }
}

/// A comparison of two rankings of a query.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct CompareRequest {
    /// The query.
    #[schema(example = "how are long documents summarised?")]
    query: String,
    /// The number of rows that are retrieved and ordered again.
    #[schema(minimum = 1)]
    k: usize,
    /// The number of rows of each ranking that are shown.
    #[schema(minimum = 1)]
    show: usize,
    #[serde(flatten)]
    retrieval: Retrieval,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: UnknownFields,
}

impl OwnBody for CompareRequest {
    fn unknown_fields(&self) -> Vec<String> {
        self.unknown.warnings::<Self>()
    }
}

impl Default for CompareRequest {
    fn default() -> Self {
        Self {
            query: String::new(),
            k: 25,
            show: 3,
            retrieval: Retrieval::default(),
            unknown: UnknownFields::default(),
        }
    }
}

/// Search an index
///
/// `?strict=true` refuses unknown fields, which otherwise are warnings.
#[utoipa::path(post, path = "/v1/search", tag = "search", request_body = SearchRequest,
    params(("strict" = Option<bool>, Query, description = "Refuse unknown fields.")),
    responses((status = 200,
        content((SearchReply = "application/json"), (String = "text/event-stream")))))]
pub(super) async fn search(request: OwnRequest<SearchRequest>) -> ApiResult<Response> {
    let OwnRequest { state, body, permit, warnings } = request;
    reply_to(state, body, permit, warnings).await
}

/// Replies to a search, with all hits at once or with events.
async fn reply_to(
    state: Arc<AppState>,
    body: SearchRequest,
    permit: OwnedSemaphorePermit,
    warnings: Vec<String>,
) -> ApiResult<Response> {
    let searcher = state.index(body.retrieval.index.as_deref())?.served.searcher();
    if !body.stream {
        let reply = search_one(&state, searcher, body).await?;
        return Ok(Warned(warnings, reply).into_response());
    }
    let options = check(&state, &searcher, &body).await?;
    let mut response = stream_hits(state, searcher, body, options, permit);
    response.headers_mut().extend(headers(&warnings));
    Ok(response)
}

/// Search an index by the parameters of a URL
///
/// The other fields of the POST request, except `vector`, are parameters too.
#[utoipa::path(get, path = "/v1/search", tag = "search",
    params(
        ("q" = String, Query, description = "The query."),
        ("k" = Option<usize>, Query, description = "The number of hits.", minimum = 1),
        ("index" = Option<String>, Query,
            description = "The index [default: that of `--default-index`, or the only one]."),
        ("filter" = Option<String>, Query, description = "Metadata filter."),
        ("min_score" = Option<f32>, Query,
            description = "The least value of the score that orders the hits."),
        ("rerank_budget_ms" = Option<f64>, Query, description = "Milliseconds for reranking."),
        ("strict" = Option<bool>, Query, description = "Refuse unknown parameters.")),
    responses((status = 200,
        content((SearchReply = "application/json"), (String = "text/event-stream")))))]
pub(super) async fn search_by_address(
    Extract(state): Extract<Arc<AppState>>,
    parameters: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> ApiResult<Response> {
    let Query(parameters) = parameters?;
    let permit = state.start_work()?;
    let (body, is_strict) = read_parameters(parameters)?;
    let warnings = check_unknown(&body, is_strict)?;
    reply_to(state, body, permit, warnings).await
}

/// Reads a search from the parameters of a URL, and `strict`: true to refuse unknown ones.
fn read_parameters(parameters: Vec<(String, String)>) -> ApiResult<(SearchRequest, bool)> {
    let (mut fields, mut is_strict) = (Map::new(), false);
    for (name, text) in parameters {
        let name = if name == "q" { "query".to_owned() } else { name };
        let value = match name.as_str() {
            "strict" => {
                is_strict = read_strict(&text)?;
                continue;
            }
            "vector" => {
                let message = "`vector` does not fit into a URL: send it by POST";
                return Err(ApiError::invalid(message).param(name));
            }
            "query" | "index" | "filter" | "fusion" => Value::String(text),
            _ => match serde_json::from_str(&text) {
                Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
                _ => Value::String(text),
            },
        };
        if fields.insert(name.clone(), value).is_some() {
            let shown: String = name.chars().take(60).collect();
            return Err(ApiError::invalid(format!("`{shown}` is given twice")).param(shown));
        }
    }
    Ok((read_object(fields)?, is_strict))
}

/// Run several searches
#[utoipa::path(post, path = "/v1/search/batch", tag = "search", request_body = BatchRequest,
    responses((status = 200, body = Vec<SearchReply>)))]
pub(super) async fn batch(
    request: OwnRequest<BatchRequest>,
) -> ApiResult<Warned<Vec<SearchReply>>> {
    let OwnRequest { state, body: BatchRequest(requests), permit: _permit, warnings } = request;
    state.check_inputs(requests.len(), "searches")?;
    // All searches of an index see the same snapshot.
    let mut snapshots: HashMap<&str, Arc<Searcher>> = HashMap::new();
    let mut searches = Vec::with_capacity(requests.len());
    for (number, request) in requests.into_iter().enumerate() {
        let message = "`stream` is for a search alone: leave it out";
        ApiError::check(!request.stream, "stream", message).map_err(|e| e.of_request(number))?;
        let index = state.index(request.retrieval.index.as_deref());
        let served = &index.map_err(|e| e.of_request(number))?.served;
        let snapshot = snapshots.entry(&served.name).or_insert_with(|| served.searcher());
        let (state, searcher) = (&state, Arc::clone(snapshot));
        searches.push(async move {
            search_one(state, searcher, request).await.map_err(|e| e.of_request(number))
        });
    }
    Ok(Warned(warnings, try_join_all(searches).await?))
}

/// Runs one search over a snapshot.
pub(super) async fn search_one(
    state: &AppState,
    searcher: Arc<Searcher>,
    request: SearchRequest,
) -> ApiResult<SearchReply> {
    let options = check(state, &searcher, &request).await?;
    let steps = ScheduledSteps { state, searcher: &searcher, watcher: None };
    let result = search::search(&steps, request.input(), &options).await?;
    request.reply(&searcher, result)
}

/// Checks a search against the index. Returns its options.
async fn check(
    state: &AppState,
    searcher: &Arc<Searcher>,
    request: &SearchRequest,
) -> ApiResult<SearchOptions> {
    let mut options = request.retrieval.options(state, searcher, request.k).await?;
    options.min_score = request.min_score;
    options.rerank_budget = request.rerank_budget_ms.map(budget).transpose()?;
    if request.input().text.is_empty() {
        if request.vector.is_none() {
            return Err(empty_query());
        }
        if request.retrieval.rerank_depth.is_none() {
            options.rerank_depth = None;
        }
        let is_valid = options.rerank_depth.is_none() && !options.hybrid;
        let message = "hybrid search and reranking need `query` beside `vector`";
        ApiError::check(is_valid, "query", message)?;
    }
    let dim = searcher.index.manifest().dim;
    let n = request.vector.as_ref().map_or(dim, Vec::len);
    ApiError::check(n == dim, "vector", format!("`vector` has {n} values, the index {dim}"))?;
    Ok(options)
}

impl SearchRequest {
    /// The query, without blanks around it.
    pub(super) fn input(&self) -> QueryInput<'_> {
        let text = self.query.as_deref().unwrap_or_default().trim();
        QueryInput { text, vector: self.vector.as_deref(), filter: None }
    }

    /// The reply with these hits.
    pub(super) fn reply(
        &self,
        searcher: &Searcher,
        result: SearchResult,
    ) -> ApiResult<SearchReply> {
        let dim = searcher.index.manifest().dim;
        let matrix = searcher.index.matrix()?;
        let vector = |row: u32| -> Vec<f32> {
            let row = matrix.row(row as usize).unwrap_or_default();
            row.iter().take(dim).map(|v| v.to_f32()).collect()
        };
        let reply = |hit: Hit| HitReply {
            rank: hit.rank,
            row: hit.row,
            id: hit.id,
            doc_id: hit.doc_id,
            title: hit.title,
            text: self.with_text.then_some(hit.text),
            score: hit.score,
            final_score: hit.final_score,
            retrieved_rank: hit.retrieved_rank,
            low: hit.low,
            rerank_score: hit.rerank_score,
            rerank_logit: hit.rerank_logit,
            window: hit.window,
            tokens_lost: hit.tokens_lost,
            document_range: hit.document_range,
            vector: self.with_vector.then(|| vector(hit.row)),
            metadata: hit.metadata,
        };
        let unknown = self.unknown.warnings::<Self>();
        Ok(SearchReply {
            hits: result.hits.into_iter().map(reply).collect(),
            ordered_by: result.ordered_by,
            below_min_score: result.below_min_score,
            reranked_rows: result.reranked_rows,
            matched_rows: result.matched_rows,
            total_rows: result.total_rows,
            reranker: result.reranker,
            took_ms: result.took_ms,
            warnings: result.warnings.into_iter().chain(unknown).collect(),
        })
    }
}

/// The time of so many milliseconds, at most an hour.
fn budget(ms: f64) -> ApiResult<Duration> {
    let message = "`rerank_budget_ms` must lie in 0 to 3600000";
    ApiError::check((0.0..=3_600_000.0).contains(&ms), "rerank_budget_ms", message)?;
    Ok(Duration::from_secs_f64(ms / 1e3))
}

fn empty_query() -> ApiError {
    ApiError::empty("`query` is empty: write what you look for").param("query")
}

/// Compare two rankings: as retrieved, and as the reranker orders them
///
/// Without a reranker: the dense ranking and the hybrid one.
#[utoipa::path(post, path = "/v1/compare", tag = "search", request_body = CompareRequest,
    responses((status = 200, body = CompareReply)))]
pub(super) async fn compare(request: OwnRequest<CompareRequest>) -> ApiResult<Warned<Comparison>> {
    let OwnRequest { state, body, permit: _permit, warnings } = request;
    let CompareRequest { query, k, show, retrieval, .. } = body;
    let searcher = state.index(retrieval.index.as_deref())?.served.searcher();
    let options = retrieval.options(&state, &searcher, k).await?;
    ApiError::check(show > 0, "show", "`show` must be at least 1")?;
    let query = query.trim();
    if query.is_empty() {
        return Err(empty_query());
    }
    let steps = ScheduledSteps { state: &state, searcher: &searcher, watcher: None };
    Ok(Warned(warnings, compare_with(&steps, query, (k, show), &options).await?))
}
