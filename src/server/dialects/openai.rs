//! `/v1/embeddings` and `/v1/models`, for clients of OpenAI.

use super::chat::MODEL_PREFIX;
use super::embedding_options::{EmbeddingOptions, EncodedVector, EncodingFormat};
use super::passages::Passage;
use super::texts::{ChosenPrompt, TextOptions, embed_texts, prompt_called, written_prompt};
use super::warnings::Warned;
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use crate::server::scheduled::embed_tokens;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State as Extract};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use warpseek_bert::embedder::{Embedder, Embeddings};
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
    #[serde(flatten)]
    prompt: PromptFields,
    #[serde(flatten)]
    options: EmbeddingOptions,
    /// Ignored.
    #[allow(dead_code, reason = "clients send it")]
    user: Option<String>,
}

/// The prompt in front of texts: one of these fields. Without any, texts are embedded as they are.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct PromptFields {
    /// The role of the texts: `query` or `search_query`; `document`, `passage` or
    /// `search_document`; or a task for which the model has a prompt.
    #[schema(example = "query")]
    input_type: Option<String>,
    /// The same, as Jina names it: `retrieval.query`, `retrieval.passage`, `text-matching`.
    task: Option<String>,
    /// The same, as sentence-transformers names it: the name of one of the model's prompts.
    prompt_name: Option<String>,
    /// The prompt itself.
    prompt: Option<String>,
}

impl PromptFields {
    /// The prompt of this model.
    pub(super) fn of(&self, embedder: &Embedder) -> ApiResult<ChosenPrompt> {
        let named = [
            ("input_type", &self.input_type),
            ("task", &self.task),
            ("prompt_name", &self.prompt_name),
        ];
        let given = named.into_iter().chain([("prompt", &self.prompt)]);
        let given: Vec<(&str, &str)> =
            given.filter_map(|(field, value)| Some((field, value.as_deref()?))).collect();
        match given[..] {
            [] => Ok(ChosenPrompt::default()),
            [("prompt", text)] => written_prompt(embedder, "prompt", text),
            [(field, name)] => prompt_called(embedder, field, Some(name)),
            [(first, _), (second, _), ..] => {
                let message = format!("`{first}` and `{second}` both choose a prompt: give one");
                Err(ApiError::invalid(message).param(second))
            }
        }
    }
}

/// Texts, or token ids of this model as `/tokenize` returns them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "`input` must be a text, a list of texts, a list of objects with a field `text`, a \
                 list of token ids or a list of such lists"
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
    /// Several texts, some of them as Jina writes them: in objects with a field `text`.
    Objects(Vec<Passage>),
}

impl EmbeddingInput {
    /// The texts, or else the token ids.
    fn into_texts(self) -> ApiResult<Result<Vec<String>, Vec<Vec<u32>>>> {
        let text = |(at, object): (usize, Passage)| {
            object.only_text().map_err(|fields| {
                let message = format!(
                    "`input` {at} must be a text or an object with the one field `text`: the \
                     model reads texts only, not {fields}"
                );
                ApiError::invalid(message).param("input")
            })
        };
        Ok(match self {
            Self::Text(text) => Ok(vec![text]),
            Self::Texts(texts) => Ok(texts),
            Self::Ids(ids) => Err(vec![ids]),
            Self::IdLists(lists) => Err(lists),
            Self::Objects(objects) => {
                Ok(objects.into_iter().enumerate().map(text).collect::<ApiResult<_>>()?)
            }
        })
    }
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
    embedding: EncodedVector,
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
    embed(request).await
}

/// Embed texts, at the route of text-embeddings-inference and Infinity
#[utoipa::path(post, path = "/embeddings", tag = "openai", request_body = EmbeddingRequest,
    responses((status = 200, body = EmbeddingReply)))]
pub(super) async fn embeddings_at_root(
    request: JsonRequest<EmbeddingRequest>,
) -> ApiResult<Warned<EmbeddingReply>> {
    embed(request).await
}

async fn embed(request: JsonRequest<EmbeddingRequest>) -> ApiResult<Warned<EmbeddingReply>> {
    let JsonRequest { state, body: request, permit } = request;
    let (named, other) = state.embedder(request.model.as_deref())?;
    let embedder = &named.model;
    check_dimensions(request.dimensions, embedder)?;
    check_output_dimension(request.options.output_dimension, embedder)?;
    request.options.check(embedder)?;
    let encoding = request.options.encoding(request.encoding_format, embedder)?;
    let prompt = request.prompt.of(embedder)?;
    let (embedded, truncated) = match request.input.into_texts()? {
        Ok(texts) => {
            let options =
                TextOptions { prompt, truncation: request.options.truncation(), limit: None };
            embed_texts(&state, embedder, ("input", texts), options).await?
        }
        Err(lists) => (embed_ids(&state, embedder, lists, prompt).await?, None),
    };
    let vectors = embedded.vectors.chunks_exact(embedder.dim()).enumerate();
    let data = vectors.map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: encoding.encode(vector),
    });
    let data = data.collect();
    let tokens = embedded.tokens.iter().map(|&n| n as usize).sum();
    let warnings: Vec<String> = other.into_iter().chain(truncated).collect();
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

/// Refuses dimensions other than the model's own, which zero stands for too.
pub(super) fn check_dimensions(dimensions: Option<usize>, embedder: &Embedder) -> ApiResult<()> {
    let dim = embedder.dim();
    let message = format!("`dimensions` can only be {dim}: the model makes no other");
    ApiError::check(dimensions.is_none_or(|n| n == dim || n == 0), "dimensions", message)
}

/// The same for the field `output_dimension`.
pub(super) fn check_output_dimension(asked: Option<usize>, embedder: &Embedder) -> ApiResult<()> {
    let dim = embedder.dim();
    let message = format!("`output_dimension` can only be {dim}: the model makes no other");
    ApiError::check(asked.is_none_or(|n| n == dim), "output_dimension", message)
}

/// Embeds token ids of whole texts, special tokens included. Ids of another vocabulary are refused:
/// their vectors would be meaningless.
async fn embed_ids(
    state: &AppState,
    embedder: &Arc<Embedder>,
    lists: Vec<Vec<u32>>,
    prompt: ChosenPrompt,
) -> ApiResult<Embeddings> {
    let is_prompted = !prompt.text(embedder).is_empty();
    let message = "`input` must be texts: the chosen prompt goes in front of texts, not of ids";
    ApiError::check(!is_prompted, "input", message)?;
    let role = prompt.role();
    state.check_inputs(lists.len(), "input")?;
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
    Json(ModelsReply { object: "list", data: names(&state).map(|name| described(&name)).collect() })
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
    let found = names(&state).find(|n| *n == name);
    let found = found.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, missing))?;
    Ok(Json(described(&found)))
}

/// The names of the models; with a chat service also those that answer from an index.
fn names(state: &AppState) -> impl Iterator<Item = String> {
    let models =
        state.embedders.iter().map(|e| &e.name).chain(state.reranker.iter().map(|r| &r.name));
    let indexes = state.indexes.iter().filter(|_| state.answers.is_some());
    models.cloned().chain(indexes.map(|index| format!("{MODEL_PREFIX}{}", index.served.name)))
}

fn described(name: &str) -> ModelReply {
    ModelReply { id: name.to_owned(), object: "model", created: 0, owned_by: "warpseek" }
}
