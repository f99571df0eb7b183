//! `/info`, `/health`, `/metrics`.

use crate::server::error::{ApiError, ApiResult};
use crate::server::open::without_folder;
use crate::server::scheduled::blocking;
use crate::server::settings::ServerLimits;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State as Extract;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// Services and servers whose clients find their routes here.
const DIALECTS: [&str; 10] = [
    "openai",
    "cohere",
    "jina",
    "voyage",
    "text-embeddings-inference",
    "infinity",
    "vllm",
    "llama.cpp",
    "ollama",
    "mcp",
];

/// The server, its models and its indexes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Info {
    /// warpseek's version.
    version: &'static str,
    /// The default embedding model; without one, the reranker.
    model_id: Option<String>,
    /// The sha256 of its weights.
    model_sha: Option<String>,
    /// Precision that models compute in.
    model_dtype: String,
    /// The use of the model.
    #[schema(value_type = Object)]
    model_type: Value,
    max_concurrent_requests: usize,
    /// The longest text in tokens.
    max_input_length: Option<usize>,
    max_batch_tokens: usize,
    max_client_batch_size: usize,
    /// Texts that are too long are truncated, with a warning.
    auto_truncate: bool,
    /// The compute device.
    device: String,
    /// All embedding models.
    embedders: Vec<String>,
    /// The reranker.
    reranker: Option<String>,
    /// Services and servers whose clients find their routes here.
    #[schema(example = json!(["openai", "cohere"]))]
    dialects: [&'static str; 10],
    /// True if a chat service is set up for `/v1/answer`.
    answers: bool,
    /// True if documents cannot be changed.
    read_only: bool,
    /// The index of requests that name none.
    default_index: Option<String>,
    indexes: Vec<IndexInfo>,
    limits: ServerLimits,
}

/// An index.
#[derive(Debug, Serialize, ToSchema)]
struct IndexInfo {
    name: String,
    documents: u64,
    rows: u64,
    /// Replaced and deleted rows that `warpseek compact` would remove.
    dead_rows: u64,
    dim: usize,
    /// The metric by which it ranks: `cosine` or `inner_product`.
    #[schema(example = "cosine")]
    metric: &'static str,
    /// The model that made its vectors.
    model: Option<String>,
    /// Language of the lexical index that hybrid searches read: an ISO 639-1 code, or none.
    language: &'static str,
    /// Metadata fields, with the number of values of each type.
    #[schema(value_type = Object)]
    fields: Map<String, Value>,
}

/// Describe the server, its models, indexes and limits
#[utoipa::path(get, path = "/info", tag = "status", responses((status = 200, body = Info)))]
pub(super) async fn info(Extract(state): Extract<Arc<AppState>>) -> ApiResult<Json<Info>> {
    let mut indexes = Vec::new();
    for index in &state.indexes {
        let (name, searcher) = (index.served.name.clone(), index.served.searcher());
        let look = move || {
            let (stats, manifest) = (searcher.index.stats()?, searcher.index.manifest());
            let fields = searcher.index.fields().iter().map(|(n, t)| (n.to_owned(), json!(t)));
            Ok(IndexInfo {
                name,
                documents: stats.documents,
                rows: stats.rows,
                dead_rows: stats.deleted_rows,
                dim: manifest.dim,
                metric: manifest.metric.name(),
                model: manifest.model.as_ref().map(|m| without_folder(&m.name).to_owned()),
                language: manifest.language().code(),
                fields: fields.collect(),
            })
        };
        indexes.push(blocking(look).await?);
    }
    let reranker = state.reranker.as_ref();
    let reranks = reranker.map(|r| (&r.name, &r.sha256, r.model.max_tokens()));
    let embedder = state.embedders.first();
    let model = embedder.map(|e| (&e.name, &e.sha256, e.model.max_tokens())).or(reranks);
    let model_type = match embedder {
        Some(e) => json!({ "embedding": { "pooling": e.model.pooling() } }),
        None => {
            json!({ "reranker": { "id2label": { "0": "LABEL_0" }, "label2id": { "LABEL_0": 0 } } })
        }
    };
    Ok(Json(Info {
        version: env!("CARGO_PKG_VERSION"),
        model_id: model.map(|(name, ..)| name.clone()),
        model_sha: model.map(|(_, sha256, _)| sha256.clone()),
        model_dtype: state.precision.clone(),
        model_type,
        max_concurrent_requests: state.limits.max_concurrent_requests,
        max_input_length: model.map(|(.., max_tokens)| max_tokens),
        max_batch_tokens: state.limits.max_request_tokens,
        max_client_batch_size: state.limits.max_inputs,
        auto_truncate: true,
        device: state.device.clone(),
        embedders: state.embedders.iter().map(|e| e.name.clone()).collect(),
        reranker: reranker.map(|r| r.name.clone()),
        dialects: DIALECTS,
        answers: state.answers.is_some(),
        read_only: state.access.read_only,
        default_index: state.index(None).ok().map(|index| index.served.name.clone()),
        indexes,
        limits: state.limits.clone(),
    }))
}

/// The state of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
    /// Tokens that wait for a model.
    waiting_tokens: usize,
}

/// Check that the server takes requests
#[utoipa::path(get, path = "/health", tag = "status",
    responses((status = 200, body = Health), (status = 503, description = "It is shutting down")))]
pub(super) async fn health(Extract(state): Extract<Arc<AppState>>) -> ApiResult<Json<Health>> {
    state.check_health()?;
    Ok(Json(Health { status: "ok", waiting_tokens: state.scheduler.waiting_tokens() }))
}

/// Check that the server takes requests
#[utoipa::path(get, path = "/ping", tag = "status",
    responses((status = 200, body = Health), (status = 503, description = "It is shutting down")))]
pub(super) async fn ping(state: Extract<Arc<AppState>>) -> ApiResult<Json<Health>> {
    health(state).await
}

/// Metrics in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "status",
    responses((status = 200, content((String = "application/openmetrics-text")))))]
pub(super) async fn metrics(Extract(state): Extract<Arc<AppState>>) -> ApiResult<Response> {
    let text =
        state.metrics.text().map_err(|_| ApiError::internal("the metrics cannot be written"))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}
