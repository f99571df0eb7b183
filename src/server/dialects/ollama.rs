//! `/api/embed`, `/api/embeddings`, `/api/tags`, `/api/show` and `/api/version`, for clients of
//! Ollama.

use super::openai::check_dimensions;
use super::texts::{ChosenPrompt, TextOptions, TokenLimit, Truncation, embed_texts};
use super::warnings::Warned;
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use crate::server::settings::Named;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State as Extract;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;
use warpseek_bert::embedder::{Embedder, normalize};

/// The tag of models that have no other one.
const TAG: &str = ":latest";

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct OllamaEmbedRequest {
    /// The model. If it is not served, another one answers, with a `warning` header.
    model: Option<String>,
    /// A text or several; without any, the reply has no vectors.
    input: Option<Input>,
    /// Truncate texts that are too long [default: true]; otherwise they are refused.
    truncate: Option<bool>,
    /// Only the model's own dimension is supported.
    dimensions: Option<usize>,
    options: Option<ModelOptions>,
    /// Ignored: models stay loaded.
    #[allow(dead_code, reason = "clients send it")]
    keep_alive: Option<Value>,
}

/// A text or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`input` must be a text or a list of texts")]
#[schema(as = OllamaInput)]
enum Input {
    /// A text.
    One(String),
    /// Several texts.
    Many(Vec<String>),
}

/// Options of a model; others than these have no effect on vectors.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct ModelOptions {
    /// The maximum number of tokens that are read of a text.
    #[schema(minimum = 1)]
    num_ctx: Option<usize>,
}

/// Vectors of unit length.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OllamaEmbedReply {
    model: String,
    embeddings: Vec<Vec<f32>>,
    /// Nanoseconds.
    total_duration: u64,
    /// Nanoseconds; 0, since models are loaded when the server starts.
    load_duration: u64,
    /// The number of tokens that were read.
    prompt_eval_count: usize,
}

/// A text to embed, at the older route.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct OllamaEmbeddingRequest {
    /// The model. If it is not served, another one answers, with a `warning` header.
    model: Option<String>,
    /// The text; without one, the reply has no vector.
    prompt: Option<String>,
    options: Option<ModelOptions>,
    /// Ignored: models stay loaded.
    #[allow(dead_code, reason = "clients send it")]
    keep_alive: Option<Value>,
}

/// The vector of a text, as the model makes it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OllamaEmbeddingReply {
    embedding: Vec<f32>,
}

/// Embed texts
#[utoipa::path(post, path = "/api/embed", tag = "ollama", request_body = OllamaEmbedRequest,
    responses((status = 200, body = OllamaEmbedReply)))]
pub(super) async fn embed(
    request: JsonRequest<OllamaEmbedRequest>,
) -> ApiResult<Warned<OllamaEmbedReply>> {
    let started = Instant::now();
    let JsonRequest { state, body, permit: _permit } = request;
    let (named, other) = embedder(&state, body.model.as_deref())?;
    check_dimensions(body.dimensions, &named.model)?;
    let texts = match body.input {
        Some(Input::Many(texts)) => texts,
        Some(Input::One(text)) if !text.is_empty() => vec![text],
        Some(Input::One(_)) | None => Vec::new(),
    };
    let truncation = match body.truncate {
        Some(false) => Truncation::Refused("set `truncate` to true"),
        _ => Truncation::End,
    };
    let options = text_options(truncation, body.options);
    let made = vectors(&state, &named.model, ("input", texts), options).await?;
    let (mut embeddings, tokens, warning) = made;
    if !named.model.is_normalized() {
        embeddings.iter_mut().for_each(|vector| normalize(vector));
    }
    let total_duration = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let reply = OllamaEmbedReply {
        model: body.model.unwrap_or_else(|| tagged(&named.name)),
        embeddings,
        total_duration,
        load_duration: 0,
        prompt_eval_count: tokens,
    };
    Ok(Warned(other.into_iter().chain(warning).collect(), reply))
}

/// Embed a text
#[utoipa::path(post, path = "/api/embeddings", tag = "ollama",
    request_body = OllamaEmbeddingRequest,
    responses((status = 200, body = OllamaEmbeddingReply)))]
pub(super) async fn embeddings(
    request: JsonRequest<OllamaEmbeddingRequest>,
) -> ApiResult<Warned<OllamaEmbeddingReply>> {
    let JsonRequest { state, body, permit: _permit } = request;
    let (named, other) = embedder(&state, body.model.as_deref())?;
    let texts: Vec<String> = body.prompt.into_iter().filter(|text| !text.is_empty()).collect();
    let options = text_options(Truncation::End, body.options);
    let (vectors, _, warning) = vectors(&state, &named.model, ("prompt", texts), options).await?;
    let embedding = vectors.into_iter().next().unwrap_or_default();
    Ok(Warned(other.into_iter().chain(warning).collect(), OllamaEmbeddingReply { embedding }))
}

fn text_options(truncation: Truncation, options: Option<ModelOptions>) -> TextOptions {
    let tokens = options.unwrap_or_default().num_ctx;
    let limit = tokens.map(|tokens| TokenLimit { field: "num_ctx", tokens });
    TextOptions { prompt: ChosenPrompt::default(), truncation, limit }
}

/// Vectors of texts, the number of tokens that were read, and the warning about those that were
/// truncated. Without texts, as clients send it to load a model, there are no vectors.
async fn vectors(
    state: &AppState,
    embedder: &Arc<Embedder>,
    texts: (&'static str, Vec<String>),
    options: TextOptions,
) -> ApiResult<(Vec<Vec<f32>>, usize, Option<String>)> {
    if texts.1.is_empty() {
        return Ok((Vec::new(), 0, None));
    }
    let (embedded, warning) = embed_texts(state, embedder, texts, options).await?;
    let vectors = embedded.vectors.chunks_exact(embedder.dim()).map(<[f32]>::to_vec).collect();
    let tokens = embedded.tokens.iter().map(|&n| n as usize).sum();
    Ok((vectors, tokens, warning))
}

/// The embedder of this name, with or without the tag.
fn embedder<'a>(
    state: &'a AppState,
    name: Option<&str>,
) -> ApiResult<(&'a Named<Embedder>, Option<String>)> {
    state.embedder(name.map(untagged))
}

fn untagged(name: &str) -> &str {
    name.strip_suffix(TAG).unwrap_or(name)
}

fn tagged(name: &str) -> String {
    format!("{name}{TAG}")
}

/// The embedding models that are served.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TagsReply {
    models: Vec<TaggedModel>,
}

/// An embedding model.
#[derive(Debug, Serialize, ToSchema)]
struct TaggedModel {
    #[schema(example = "all-MiniLM-L6-v2:latest")]
    name: String,
    /// The same as `name`.
    model: String,
    /// The sha256 of its weights.
    digest: String,
    details: Details,
}

/// Facts about a model.
#[derive(Debug, Serialize, ToSchema)]
struct Details {
    #[schema(example = "safetensors")]
    format: &'static str,
    #[schema(example = "bert")]
    family: &'static str,
    families: [&'static str; 1],
}

/// List the embedding models
#[utoipa::path(get, path = "/api/tags", tag = "ollama",
    responses((status = 200, body = TagsReply)))]
pub(super) async fn tags(Extract(state): Extract<Arc<AppState>>) -> Json<TagsReply> {
    let model = |named: &Named<Embedder>| TaggedModel {
        name: tagged(&named.name),
        model: tagged(&named.name),
        digest: named.sha256.clone(),
        details: details(&named.model),
    };
    Json(TagsReply { models: state.embedders.iter().map(model).collect() })
}

fn details(embedder: &Embedder) -> Details {
    let family = embedder.family();
    Details { format: "safetensors", family, families: [family] }
}

/// The name of a model.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ShowRequest {
    #[serde(alias = "name")]
    #[schema(example = "all-MiniLM-L6-v2")]
    model: String,
    /// Ignored.
    #[allow(dead_code, reason = "clients send it")]
    verbose: Option<bool>,
}

/// An embedding model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ShowReply {
    details: Details,
    /// Its architecture, dimension and longest text.
    #[schema(value_type = Object)]
    model_info: Map<String, Value>,
    #[schema(example = json!(["embedding"]))]
    capabilities: [&'static str; 1],
}

/// Describe an embedding model
#[utoipa::path(post, path = "/api/show", tag = "ollama", request_body = ShowRequest,
    responses((status = 200, body = ShowReply)))]
pub(super) async fn show(request: JsonRequest<ShowRequest>) -> ApiResult<Json<ShowReply>> {
    let JsonRequest { state, body, permit: _permit } = request;
    let (named, other) = embedder(&state, Some(&body.model))?;
    if other.is_some() || body.model.is_empty() {
        let message =
            format!("model '{}' is not served; /api/tags lists those that are", body.model);
        return Err(ApiError::new(StatusCode::NOT_FOUND, message).param("model"));
    }
    let (details, model) = (details(&named.model), &named.model);
    let mut model_info = Map::new();
    let family = details.family;
    for (key, value) in [
        ("general.architecture".to_owned(), json!(family)),
        ("general.basename".to_owned(), json!(named.name)),
        (format!("{family}.embedding_length"), json!(model.dim())),
        (format!("{family}.context_length"), json!(model.max_tokens())),
    ] {
        model_info.insert(key, value);
    }
    Ok(Json(ShowReply { details, model_info, capabilities: ["embedding"] }))
}

/// The version of the server.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct VersionReply {
    version: &'static str,
}

/// The version of warpseek
#[utoipa::path(get, path = "/api/version", tag = "ollama",
    responses((status = 200, body = VersionReply)))]
pub(super) async fn version() -> Json<VersionReply> {
    Json(VersionReply { version: env!("CARGO_PKG_VERSION") })
}
