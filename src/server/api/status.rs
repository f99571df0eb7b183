//! `/info`, `/health`, `/metrics`, and the page.

use crate::server::Limits;
use crate::server::error::ApiError;
use crate::server::pipeline::blocking;
use crate::server::state::State;
use axum::extract::State as Extract;
use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(info)).routes(routes!(health)).routes(routes!(metrics))
}

/// What is here.
#[derive(Debug, Serialize, ToSchema)]
struct Info {
    /// warpseek's version.
    version: &'static str,
    /// The default embedding model, or the reranker where nothing embeds.
    model_id: Option<String>,
    /// The sha256 of its weights.
    model_sha: Option<String>,
    /// How models compute.
    model_dtype: String,
    /// What the model is for.
    #[schema(value_type = Object)]
    model_type: Value,
    max_concurrent_requests: usize,
    /// The longest text in tokens.
    max_input_length: Option<usize>,
    max_batch_tokens: usize,
    max_client_batch_size: usize,
    /// Texts that are too long are cut, and a warning says so.
    auto_truncate: bool,
    /// What computes.
    device: String,
    /// All embedding models.
    embedders: Vec<String>,
    /// The reranker.
    reranker: Option<String>,
    /// Whether a chat service is set up for `/v1/answer`.
    answers: bool,
    /// Whether documents can be changed.
    read_only: bool,
    indexes: Vec<IndexInfo>,
    limits: Limits,
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
    /// The model its vectors were made with.
    model: Option<String>,
    /// Metadata fields, with how often each type is met.
    #[schema(value_type = Object)]
    fields: Map<String, Value>,
}

/// What is here, and what may be asked of it
#[utoipa::path(get, path = "/info", tag = "status", responses((status = 200, body = Info)))]
async fn info(Extract(state): Extract<Arc<State>>) -> Result<Json<Info>, ApiError> {
    let mut indexes = Vec::new();
    for served in &state.indexes {
        let (name, searcher) = (served.name.clone(), served.searcher());
        let look = move || {
            let (stats, manifest) = (searcher.index.stats()?, searcher.index.manifest());
            let fields = searcher.index.fields().iter().map(|(n, t)| (n.to_owned(), json!(t)));
            Ok(IndexInfo {
                name,
                documents: stats.documents,
                rows: stats.rows,
                dead_rows: stats.deleted_rows,
                dim: manifest.dim,
                model: manifest.model.as_ref().map(|m| m.name.clone()),
                fields: fields.collect(),
            })
        };
        indexes.push(blocking(look).await?);
    }
    let embedder = state.embedders.first();
    let reranker = state.reranker.as_ref();
    let model_type = match embedder {
        Some(e) => json!({ "embedding": { "pooling": e.model.pooling() } }),
        None => {
            json!({ "reranker": { "id2label": { "0": "LABEL_0" }, "label2id": { "LABEL_0": 0 } } })
        }
    };
    Ok(Json(Info {
        version: env!("CARGO_PKG_VERSION"),
        model_id: embedder.map(|e| e.name.clone()).or(reranker.map(|r| r.name.clone())),
        model_sha: embedder.map(|e| e.sha256.clone()).or(reranker.map(|r| r.sha256.clone())),
        model_dtype: state.precision.clone(),
        model_type,
        max_concurrent_requests: state.limits.max_concurrent_requests,
        max_input_length: embedder
            .map(|e| e.model.max_tokens())
            .or(reranker.map(|r| r.model.max_tokens())),
        max_batch_tokens: state.limits.max_request_tokens,
        max_client_batch_size: state.limits.max_inputs,
        auto_truncate: true,
        device: state.device.clone(),
        embedders: state.embedders.iter().map(|e| e.name.clone()).collect(),
        reranker: reranker.map(|r| r.name.clone()),
        answers: state.answers.is_some(),
        read_only: state.access.read_only,
        indexes,
        limits: state.limits.clone(),
    }))
}

/// How it does.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    #[schema(example = "ok")]
    status: &'static str,
    /// Tokens that wait for a model.
    waiting_tokens: usize,
}

/// Whether the server takes requests
#[utoipa::path(get, path = "/health", tag = "status",
    responses((status = 200, body = Health), (status = 503, description = "It is shutting down")))]
async fn health(Extract(state): Extract<Arc<State>>) -> Result<Json<Health>, ApiError> {
    if state.is_draining() {
        return Err(ApiError::unavailable(
            "the server is shutting down",
            std::time::Duration::from_secs(5),
        ));
    }
    Ok(Json(Health { status: "ok", waiting_tokens: state.scheduler.waiting_tokens() }))
}

/// Counters in Prometheus' text format
#[utoipa::path(get, path = "/metrics", tag = "status",
    responses((status = 200, content((String = "application/openmetrics-text")))))]
async fn metrics(Extract(state): Extract<Arc<State>>) -> Result<Response, ApiError> {
    let text =
        state.metrics.text().map_err(|_| ApiError::internal("the counters cannot be written"))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// What the page may load: its own two files, and this server's routes.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page and what belongs to it.
pub(super) fn page() -> Router<Arc<State>> {
    let file = |kind: &'static str, text: &'static str| {
        get(async move || {
            let headers: [(HeaderName, &str); 5] = [
                (CONTENT_TYPE, kind),
                (CONTENT_SECURITY_POLICY, POLICY),
                (X_CONTENT_TYPE_OPTIONS, "nosniff"),
                (REFERRER_POLICY, "no-referrer"),
                (CACHE_CONTROL, "no-cache"),
            ];
            (headers, text)
        })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("../page/index.html")))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("../page/page.css")))
        .route("/page.js", file("text/javascript; charset=utf-8", include_str!("../page/page.js")))
}
