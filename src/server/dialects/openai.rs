//! `/v1/embeddings` and `/v1/models`, for clients of OpenAI.

use super::warnings::{Warned, cut_warning};
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use crate::server::scheduled::{embed, embed_tokens};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use warpseek_bert::embedder::{Embedder, Embeddings, Role};
use warpseek_bert::tokenizer::{Sequence, Tokenized};

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct EmbeddingRequest {
    input: EmbeddingInput,
    /// The model. If it is not served, another one answers, with a `warning` header.
    model: Option<String>,
    /// Encoding of the vectors.
    encoding_format: Option<EncodingFormat>,
    /// Only the model's own dimension is supported.
    dimensions: Option<usize>,
    /// The role of the texts, whose prompt the model puts in front: `query` or `search_query`;
    /// `document`, `passage` or `search_document` [default: document].
    #[schema(example = "query")]
    input_type: Option<String>,
    /// Ignored.
    #[allow(dead_code, reason = "clients send it")]
    user: Option<String>,
}

/// Texts, or token ids of this model as `/tokenize` returns them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "`input` must be a text, a list of texts, a list of token ids or a list of such \
                 lists"
)]
#[schema(as = Input)]
enum EmbeddingInput {
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Token ids of a text.
    Ids(Vec<u32>),
    /// Token ids of several texts.
    IdLists(Vec<Vec<u32>>),
}

/// Encoding of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    /// Numbers.
    Float,
    /// Little-endian float32 in base64.
    Base64,
}

/// Vectors of texts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EmbeddingReply {
    #[schema(example = "list")]
    object: &'static str,
    /// In the order of the input.
    data: Vec<Embedding>,
    /// The model that was used.
    model: String,
    usage: EmbeddingUsage,
    /// Notes for the user.
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

/// An encoded vector.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum WrittenVector {
    /// Numbers.
    Float(Vec<f32>),
    /// Little-endian float32 in base64.
    Base64(String),
}

/// The number of tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingUsage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// A model that is served.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelReply {
    id: String,
    #[schema(example = "model")]
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

/// All models that are served.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelsReply {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<ModelReply>,
}

/// Embed texts
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", request_body = EmbeddingRequest,
    responses((status = 200, body = EmbeddingReply)))]
pub(super) async fn embeddings(
    request: JsonRequest<EmbeddingRequest>,
) -> ApiResult<Warned<EmbeddingReply>> {
    let JsonRequest { state, body: request, permit } = request;
    let (named, other) = state.embedder(request.model.as_deref())?;
    let embedder = &named.model;
    check_dimensions(request.dimensions, embedder)?;
    let role = role_of(request.input_type.as_deref())?;
    let embedded = match request.input {
        EmbeddingInput::Text(text) => embed_texts(&state, embedder, vec![text], role).await?,
        EmbeddingInput::Texts(texts) => embed_texts(&state, embedder, texts, role).await?,
        EmbeddingInput::Ids(ids) => embed_ids(&state, embedder, vec![ids], role).await?,
        EmbeddingInput::IdLists(lists) => embed_ids(&state, embedder, lists, role).await?,
    };
    let format = request.encoding_format.unwrap_or(EncodingFormat::Float);
    let data = embedded.vectors.chunks_exact(embedder.dim()).enumerate().map(|(index, vector)| {
        let embedding = match format {
            EncodingFormat::Float => WrittenVector::Float(vector.to_vec()),
            EncodingFormat::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
                WrittenVector::Base64(STANDARD.encode(bytes))
            }
        };
        Embedding { object: "embedding", index, embedding }
    });
    let data = data.collect();
    let tokens = embedded.tokens.iter().map(|&n| n as usize).sum();
    let warnings: Vec<String> =
        other.into_iter().chain(cut_warning(&embedded.lost, embedder.max_tokens())).collect();
    let reply = EmbeddingReply {
        object: "list",
        data,
        model: named.name.clone(),
        usage: EmbeddingUsage { prompt_tokens: tokens, total_tokens: tokens },
        warnings: warnings.clone(),
    };
    drop(permit);
    Ok(Warned(warnings, reply))
}

/// Refuses dimensions other than the model's own.
pub(super) fn check_dimensions(dimensions: Option<usize>, embedder: &Embedder) -> ApiResult<()> {
    let dim = embedder.dim();
    let message = format!("`dimensions` can only be {dim}: the model makes no other");
    ApiError::check(dimensions.is_none_or(|n| n == dim), "dimensions", message)
}

/// The role that an `input_type` names.
fn role_of(input_type: Option<&str>) -> ApiResult<Role> {
    match input_type {
        Some("query" | "search_query") => Ok(Role::Query),
        None | Some("document" | "passage" | "search_document") => Ok(Role::Passage),
        Some(other) => {
            Err(ApiError::invalid(format!("`input_type` can be query or document, not '{other}'"))
                .param("input_type"))
        }
    }
}

async fn embed_texts(
    state: &AppState,
    embedder: &Arc<Embedder>,
    texts: Vec<String>,
    role: Role,
) -> ApiResult<Embeddings> {
    state.check_texts(&texts, "input")?;
    embed(state, embedder, texts, role).await
}

/// Embeds token ids of whole texts, special tokens included. Ids of another vocabulary are refused:
/// their vectors would be meaningless.
async fn embed_ids(
    state: &AppState,
    embedder: &Arc<Embedder>,
    lists: Vec<Vec<u32>>,
    role: Role,
) -> ApiResult<Embeddings> {
    state.check_inputs(lists.len(), "input")?;
    if embedder.skips_prompt() && !embedder.prompt(role).is_empty() {
        let message = "`input` must be texts: this model pools without the tokens of its prompt";
        return Err(ApiError::invalid(message).param("input"));
    }
    let (tokenizer, most) = (embedder.tokenizer(), embedder.max_tokens());
    for (at, ids) in lists.iter().enumerate() {
        let message = if !tokenizer.is_whole(ids) {
            format!(
                "`input` {at} holds token ids that are not this model's: send texts. LangChain's \
                 OpenAIEmbeddings sends ids of OpenAI's vocabulary unless it is made with \
                 check_embedding_ctx_length=False"
            )
        } else if ids.len() > most {
            format!("`input` {at} has {} tokens, the model takes {most}", ids.len())
        } else {
            continue;
        };
        return Err(ApiError::invalid(message).param("input"));
    }
    let whole = |ids: Vec<u32>| Sequence { second_from: ids.len(), ids };
    let tokenized = |ids| Tokenized { sequence: whole(ids), lost: 0 };
    embed_tokens(state, embedder, lists.into_iter().map(tokenized).collect(), role).await
}

/// List the models
#[utoipa::path(get, path = "/v1/models", tag = "openai",
    responses((status = 200, body = ModelsReply)))]
pub(super) async fn models(Extract(state): Extract<Arc<AppState>>) -> Json<ModelsReply> {
    Json(ModelsReply { object: "list", data: names(&state).map(|name| described(name)).collect() })
}

/// Describe a model
#[utoipa::path(get, path = "/v1/models/{model}", tag = "openai",
    params(("model" = String, Path, description = "The model's name")),
    responses((status = 200, body = ModelReply)))]
pub(super) async fn model(
    Extract(state): Extract<Arc<AppState>>,
    name: Result<Path<String>, PathRejection>,
) -> ApiResult<Json<ModelReply>> {
    let Path(name) = name?;
    let missing = "no such model is served; /v1/models lists those that are";
    let found = names(&state).find(|n| **n == name);
    let found = found.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, missing))?;
    Ok(Json(described(found)))
}

fn names(state: &AppState) -> impl Iterator<Item = &String> {
    state.embedders.iter().map(|e| &e.name).chain(state.reranker.iter().map(|r| &r.name))
}

fn described(name: &str) -> ModelReply {
    ModelReply { id: name.to_owned(), object: "model", created: 0, owned_by: "warpseek" }
}
