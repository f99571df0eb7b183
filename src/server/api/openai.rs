//! `/v1/embeddings` and `/v1/models`, as OpenAI's clients speak.

use super::{Warned, cut_warning};
use crate::embed::{Embedder, Role};
use crate::model::tokenize::Sequence;
use crate::server::body::Job;
use crate::server::error::ApiError;
use crate::server::pipeline::{self, Vectors};
use crate::server::state::State;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(embeddings)).routes(routes!(models)).routes(routes!(model))
}

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
struct EmbeddingRequest {
    input: Input,
    /// Any name is taken; a `warning` header says so where another model answers.
    model: Option<String>,
    /// How vectors are written.
    encoding_format: Option<EncodingFormat>,
    /// The model's own number only.
    dimensions: Option<usize>,
    /// Not looked at.
    #[allow(dead_code, reason = "clients send it")]
    user: Option<String>,
}

/// A text or several, or token ids of this very model as `/tokenize` gives them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "`input` must be a text, a list of texts, a list of token ids or a list of such lists"
)]
enum Input {
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Token ids of a text.
    Ids(Vec<u32>),
    /// Token ids of several texts.
    IdLists(Vec<Vec<u32>>),
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    /// As numbers.
    Float,
    /// As little-endian float32 in base64.
    Base64,
}

/// Vectors of texts.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingReply {
    #[schema(example = "list")]
    object: &'static str,
    /// In the order of the input.
    data: Vec<Embedding>,
    /// The model that embedded.
    model: String,
    usage: EmbeddingUsage,
    /// What the user should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// The vector of one text.
#[derive(Debug, Serialize, ToSchema)]
struct Embedding {
    #[schema(example = "embedding")]
    object: &'static str,
    index: usize,
    embedding: WrittenVector,
}

/// A vector as it is written.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum WrittenVector {
    /// As numbers.
    Float(Vec<f32>),
    /// As little-endian float32 in base64.
    Base64(String),
}

/// Tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// A model that is served.
#[derive(Debug, Serialize, ToSchema)]
struct ModelReply {
    id: String,
    #[schema(example = "model")]
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

/// All models that are served.
#[derive(Debug, Serialize, ToSchema)]
struct ModelsReply {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<ModelReply>,
}

/// Embed texts
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", request_body = EmbeddingRequest,
    responses((status = 200, body = EmbeddingReply)))]
async fn embeddings(
    Extract(state): Extract<Arc<State>>,
    job: Job<EmbeddingRequest>,
) -> Result<Warned<Json<EmbeddingReply>>, ApiError> {
    let Job { body: request, permit } = job;
    let (named, other) = state.embedder(request.model.as_deref())?;
    let embedder = &named.model;
    if request.dimensions.is_some_and(|n| n != embedder.dim()) {
        let message =
            format!("`dimensions` can only be {}: the model makes no other", embedder.dim());
        return Err(ApiError::bad(message).param("dimensions"));
    }
    let found = match request.input {
        Input::Text(text) => texts(&state, embedder, vec![text]).await?,
        Input::Texts(all) => texts(&state, embedder, all).await?,
        Input::Ids(ids) => token_ids(&state, embedder, vec![ids]).await?,
        Input::IdLists(all) => token_ids(&state, embedder, all).await?,
    };
    let format = request.encoding_format.unwrap_or(EncodingFormat::Float);
    let data = found.vectors.into_iter().enumerate().map(|(index, mut vector)| {
        embedder.finish(&mut vector);
        let embedding = match format {
            EncodingFormat::Float => WrittenVector::Float(vector),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
                WrittenVector::Base64(STANDARD.encode(bytes))
            }
        };
        Embedding { object: "embedding", index, embedding }
    });
    let data = data.collect();
    let tokens = found.tokens.iter().sum();
    let warnings: Vec<String> =
        other.into_iter().chain(cut_warning(&found.lost, embedder.max_tokens())).collect();
    let reply = EmbeddingReply {
        object: "list",
        data,
        model: named.name.clone(),
        usage: EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens },
        warnings: warnings.clone(),
    };
    drop(permit);
    Ok(Warned(warnings, Json(reply)))
}

async fn texts(
    state: &State,
    embedder: &Arc<Embedder>,
    texts: Vec<String>,
) -> Result<Vectors, ApiError> {
    state.check_inputs(texts.len(), "input")?;
    if let Some(at) = texts.iter().position(|text| text.trim().is_empty()) {
        return Err(ApiError::empty(format!("`input` {at} is empty")).param("input"));
    }
    pipeline::embed(state, embedder, texts, Role::Passage).await
}

/// Embeds token ids that are this model's own: those of a whole text, special tokens included. Others, of another
/// model's vocabulary, would give vectors that mean nothing.
async fn token_ids(
    state: &State,
    embedder: &Arc<Embedder>,
    lists: Vec<Vec<u32>>,
) -> Result<Vectors, ApiError> {
    state.check_inputs(lists.len(), "input")?;
    let tokenizer = embedder.tokenizer();
    for (at, ids) in lists.iter().enumerate() {
        if !tokenizer.is_whole(ids) {
            return Err(ApiError::bad(format!(
                "`input` {at} holds token ids that are not this model's: send texts. LangChain's OpenAIEmbeddings sends ids \
                 of OpenAI's vocabulary unless it is made with check_embedding_ctx_length=False"
            ))
            .param("input"));
        }
        if ids.len() > embedder.max_tokens() {
            let message = format!(
                "`input` {at} has {} tokens, the model takes {}",
                ids.len(),
                embedder.max_tokens()
            );
            return Err(ApiError::bad(message).param("input"));
        }
    }
    let tokens: Vec<usize> = lists.iter().map(Vec::len).collect();
    state.check_tokens(tokens.iter().sum())?;
    let whole = |ids: Vec<u32>| Sequence { second_from: ids.len(), ids };
    let sequences = lists.into_iter().map(whole).collect();
    let vectors = state.scheduler.embed(embedder, Role::Passage, sequences).await?;
    Ok(Vectors { vectors, lost: vec![0; tokens.len()], tokens })
}

/// List the models
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses((status = 200, body = ModelsReply)))]
async fn models(Extract(state): Extract<Arc<State>>) -> Json<ModelsReply> {
    Json(ModelsReply { object: "list", data: names(&state).map(|name| described(name)).collect() })
}

/// Describe a model
#[utoipa::path(get, path = "/v1/models/{model}", tag = "openai",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, body = ModelReply)))]
async fn model(
    Extract(state): Extract<Arc<State>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<ModelReply>, ApiError> {
    let Path(name) = name?;
    let found = names(&state).find(|n| **n == name);
    let found = found.ok_or_else(|| {
        ApiError::not_found("no such model is served; /v1/models lists those that are")
    })?;
    Ok(Json(described(found)))
}

fn names(state: &State) -> impl Iterator<Item = &String> {
    state.embedders.iter().map(|e| &e.name).chain(state.reranker.iter().map(|r| &r.name))
}

fn described(name: &str) -> ModelReply {
    ModelReply { id: name.to_owned(), object: "model", created: 0, owned_by: "warpseek" }
}
