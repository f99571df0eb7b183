//! `/v1/search`, `/v1/search/batch`, `/v1/compare`.

use super::search_events::stream_hits;
use super::search_replies::{CompareReply, SearchReply};
use super::search_request::{Retrieval, SearchRequest, empty_query};
use super::warnings::{Warned, headers};
use crate::compare::{Comparison, compare_with};
use crate::search::{self, Searcher};
use crate::server::error::{ApiError, ApiResult};
use crate::server::mistakes::read_object;
use crate::server::own::{OwnBody, OwnRequest, UnknownFields, check_unknown, read_strict};
use crate::server::reply_size::ReplySize;
use crate::server::scheduled::{ScheduledSteps, admit};
use crate::server::scheduler::Admission;
use crate::server::state::{AppState, WorkPermit};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as Extract};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// Searches of a batch that run at a time, at most.
const SEARCHES_TOGETHER: usize = 64;

/// Hits of the searches of a batch that run at a time.
const HITS_TOGETHER: usize = 20_000;

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
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct CompareRequest {
    /// The query.
    #[schema(example = "how are long documents summarised?")]
    query: Option<String>,
    /// The number of rows that are retrieved and ordered again [default: 25].
    #[schema(minimum = 1)]
    k: Option<usize>,
    /// The number of rows of each ranking that are shown [default: 3].
    #[schema(minimum = 1)]
    show: Option<usize>,
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
    permit: WorkPermit,
    warnings: Vec<String>,
) -> ApiResult<Response> {
    let searcher = state.index(body.retrieval.index.as_deref())?.served.searcher();
    if !body.stream {
        let size = ReplySize::new(&state.limits);
        let reply = search_one(&state, searcher, body, &size, None).await?;
        return Ok(Warned(warnings, reply).into_response());
    }
    let options = body.options(&state, &searcher).await?;
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
            description = "The minimum of the score that orders the hits."),
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
    if requests.is_empty() {
        return Err(ApiError::empty("the list of searches is empty: send at least one"));
    }
    state.check_inputs(requests.len(), "searches")?;
    // The searches of a batch have one place together: none is refused because of the others.
    let mut n_pairs = 0;
    // All searches of an index see the same snapshot.
    let mut snapshots: HashMap<&str, Arc<Searcher>> = HashMap::new();
    let size = ReplySize::new(&state.limits);
    let most_hits = requests.iter().filter_map(|request| request.k).max().unwrap_or(1);
    let mut searches = Vec::with_capacity(requests.len());
    for (number, request) in requests.into_iter().enumerate() {
        let message = "`stream` is not possible in a batch of searches: leave it out";
        ApiError::check(!request.stream, "stream", message).map_err(|e| e.of_request(number))?;
        let index = state.index(request.retrieval.index.as_deref());
        let served = &index.map_err(|e| e.of_request(number))?.served;
        let snapshot = snapshots.entry(&served.name).or_insert_with(|| served.searcher());
        n_pairs += request.n_pairs(snapshot);
        searches.push((number, Arc::clone(snapshot), request));
    }
    let admission = (n_pairs > 0).then(|| state.scheduler.admit(n_pairs)).transpose()?;
    let (state, size, admission) = (&state, &size, admission.as_ref());
    let searches = searches.into_iter().map(|(number, searcher, request)| async move {
        let reply = search_one(state, searcher, request, size, admission);
        reply.await.map_err(|e| e.of_request(number))
    });
    // So many that they share scans, and so few that their hits fit into the memory.
    let together = (HITS_TOGETHER / most_hits.max(1)).clamp(4, SEARCHES_TOGETHER);
    let replies = stream::iter(searches).buffered(together).try_collect().await?;
    Ok(Warned(warnings, replies))
}

/// Runs one search over a snapshot.
pub(super) async fn search_one(
    state: &AppState,
    searcher: Arc<Searcher>,
    request: SearchRequest,
    size: &ReplySize,
    admission: Option<&Admission>,
) -> ApiResult<SearchReply> {
    let options = request.options(state, &searcher).await?;
    let own = match admission {
        None => admit(state, &searcher, &options)?,
        Some(_) => None,
    };
    let steps = ScheduledSteps::new(state, &searcher, admission.or(own.as_ref()));
    let result = search::search(&steps, request.input(), &options).await?;
    request.reply(&searcher, result, size)
}

/// Compare two rankings: as retrieved, and as the reranker orders them
///
/// Without a reranker: the dense ranking and the hybrid one.
#[utoipa::path(post, path = "/v1/compare", tag = "search", request_body = CompareRequest,
    responses((status = 200, body = CompareReply)))]
pub(super) async fn compare(request: OwnRequest<CompareRequest>) -> ApiResult<Warned<Comparison>> {
    let OwnRequest { state, body, permit: _permit, warnings } = request;
    let CompareRequest { query, k, show, retrieval, .. } = body;
    let (k, show) = (k.unwrap_or(25), show.unwrap_or(3));
    let searcher = state.index(retrieval.index.as_deref())?.served.searcher();
    let options = retrieval.options(&state, &searcher, k).await?;
    ApiError::check(show > 0, "show", "`show` must be at least 1")?;
    let query = query.as_deref().unwrap_or_default().trim();
    if query.is_empty() {
        return Err(empty_query());
    }
    let admission = admit(&state, &searcher, &options)?;
    let steps = ScheduledSteps::new(&state, &searcher, admission.as_ref());
    Ok(Warned(warnings, compare_with(&steps, query, (k, show), &options).await?))
}
