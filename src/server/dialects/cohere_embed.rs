//! `/v1/embed` and `/v2/embed`, for clients of Cohere.

use super::cohere::{Meta, Units, reply_id};
use super::openai::check_output_dimension;
use super::texts::{TextOptions, TokenLimit, Truncation, embed_texts, prompt_called};
use super::vector_types::{base64, bits, int8, signed_bits, uint8};
use super::warnings::Warned;
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use warpseek_bert::embedder::{Embedder, Embeddings};

/// Texts to embed: `texts` or `inputs`.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct CohereEmbedRequest {
    /// The texts.
    #[schema(example = json!(["a text", "another"]))]
    texts: Option<Vec<String>>,
    /// The texts, in parts.
    inputs: Option<Vec<Input>>,
    /// Refused: models read texts.
    images: Option<Vec<Value>>,
    /// The model. If it is not served, another one answers, with a `warning` header.
    model: Option<String>,
    /// The role of the texts, whose prompt the model puts in front: `search_query`,
    /// `search_document`; or a task for which it may have a prompt: `classification`,
    /// `clustering` [default: no prompt].
    #[schema(example = "search_document")]
    input_type: Option<String>,
    /// Encodings of the vectors: `float`, `int8`, `uint8`, `binary`, `ubinary`, `base64`
    /// [default: float].
    #[schema(example = json!(["float"]))]
    embedding_types: Option<Vec<String>>,
    /// The end at which texts that are too long are truncated, `START` or `END`; `NONE` refuses
    /// them [default: END].
    #[schema(example = "END")]
    truncate: Option<String>,
    /// The maximum number of tokens that are read of a text.
    #[schema(minimum = 1)]
    max_tokens: Option<usize>,
    /// Only the model's own dimension is supported.
    output_dimension: Option<usize>,
    /// Ignored.
    #[allow(dead_code, reason = "clients send it")]
    priority: Option<Value>,
}

/// A text in parts, which are joined by line ends.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CohereInput)]
struct Input {
    content: Vec<Part>,
}

/// A part of an input.
#[derive(Debug, Deserialize, ToSchema)]
struct Part {
    /// `text`; parts of other kinds are refused.
    #[schema(example = "text")]
    r#type: String,
    text: Option<String>,
}

/// Vectors of texts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CohereEmbedReply {
    id: String,
    /// `embeddings_floats` for lists of numbers, `embeddings_by_type` for an object of such lists.
    response_type: &'static str,
    embeddings: CohereVectors,
    /// The texts of the request.
    texts: Vec<String>,
    meta: Meta,
}

/// A vector for each text.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum CohereVectors {
    /// Numbers.
    Floats(Vec<Vec<f32>>),
    /// In each of the encodings that were asked for.
    ByType(Box<VectorsByType>),
}

/// Vectors in each of the encodings that were asked for.
#[derive(Debug, Default, Serialize, ToSchema)]
struct VectorsByType {
    /// Numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    float: Option<Vec<Vec<f32>>>,
    /// Integers in -127 to 127: `round(127 / 8 * sqrt(dim) * value)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    int8: Option<Vec<Vec<i8>>>,
    /// The same plus 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    uint8: Option<Vec<Vec<u8>>>,
    /// Bytes of eight signs as signed integers.
    #[serde(skip_serializing_if = "Option::is_none")]
    binary: Option<Vec<Vec<i8>>>,
    /// Bytes of eight signs: 1 for positive values, the first in the highest bit.
    #[serde(skip_serializing_if = "Option::is_none")]
    ubinary: Option<Vec<Vec<u8>>>,
    /// Little-endian float32 in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<Vec<String>>,
}

/// Embed texts
#[utoipa::path(post, path = "/v1/embed", tag = "cohere", request_body = CohereEmbedRequest,
    responses((status = 200, body = CohereEmbedReply)))]
pub(super) async fn embed_v1(
    request: JsonRequest<CohereEmbedRequest>,
) -> ApiResult<Warned<CohereEmbedReply>> {
    embed(request, "1").await
}

/// Embed texts
#[utoipa::path(post, path = "/v2/embed", tag = "cohere", request_body = CohereEmbedRequest,
    responses((status = 200, body = CohereEmbedReply)))]
pub(super) async fn embed_v2(
    mut request: JsonRequest<CohereEmbedRequest>,
) -> ApiResult<Warned<CohereEmbedReply>> {
    request.body.embedding_types.get_or_insert_with(|| vec!["float".to_owned()]);
    embed(request, "2").await
}

async fn embed(
    request: JsonRequest<CohereEmbedRequest>,
    version: &'static str,
) -> ApiResult<Warned<CohereEmbedReply>> {
    let JsonRequest { state, body, permit: _permit } = request;
    let (named, other) = state.embedder(body.model.as_deref())?;
    let texts = texts_of(body.texts, body.inputs, body.images)?;
    let embedder = &named.model;
    let dim = embedder.dim();
    check_output_dimension(body.output_dimension, embedder)?;
    let types = body.embedding_types.as_deref();
    types.unwrap_or_default().iter().try_for_each(|kind| check_type(kind, embedder))?;
    let prompt = prompt_called(embedder, "input_type", body.input_type.as_deref())?;
    let truncation = truncation_of(body.truncate.as_deref())?;
    let limit = body.max_tokens.map(|tokens| TokenLimit { field: "max_tokens", tokens });
    let options = TextOptions { prompt, truncation, limit };
    let (embedded, truncated) = embed_texts(&state, embedder, texts.clone(), options).await?;
    let warnings: Vec<String> = other.into_iter().chain(truncated).collect();
    let tokens = embedded.tokens.iter().map(|&n| n as usize).sum();
    let units = Units { input_tokens: Some(tokens), search_units: None };
    let (response_type, embeddings) = match types {
        None | Some([]) => {
            ("embeddings_floats", CohereVectors::Floats(rows(&embedded, dim, float)))
        }
        Some(types) => {
            let encoded = encode(&embedded, dim, types);
            ("embeddings_by_type", CohereVectors::ByType(Box::new(encoded)))
        }
    };
    let reply = CohereEmbedReply {
        id: reply_id(),
        response_type,
        embeddings,
        texts: texts.1,
        meta: Meta::new(version, units, tokens, &warnings),
    };
    Ok(Warned(warnings, reply))
}

/// The texts of a request, with the field that they stand in.
fn texts_of(
    texts: Option<Vec<String>>,
    inputs: Option<Vec<Input>>,
    images: Option<Vec<Value>>,
) -> ApiResult<(&'static str, Vec<String>)> {
    let is_empty = images.is_none_or(|images| images.is_empty());
    ApiError::check(is_empty, "images", "`images` cannot be embedded: the model reads texts")?;
    match (texts.filter(|texts| !texts.is_empty()), inputs.filter(|inputs| !inputs.is_empty())) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("`texts` and `inputs` were both given: give one").param("inputs"))
        }
        (Some(texts), None) => Ok(("texts", texts)),
        (None, None) => Ok(("texts", Vec::new())),
        (None, Some(inputs)) => {
            let text = |(at, input): (usize, Input)| {
                let parts = input.content.into_iter().map(|part| match part {
                    Part { r#type, text: Some(text) } if r#type == "text" => Ok(text),
                    Part { r#type, .. } => Err(ApiError::invalid(format!(
                        "`inputs` {at} holds a part of type '{type}': each needs \
                         `\"type\": \"text\"` and `text`; the model reads texts only",
                        type = r#type,
                    ))
                    .param("inputs")),
                });
                Ok(parts.collect::<ApiResult<Vec<String>>>()?.join("\n"))
            };
            let texts = inputs.into_iter().enumerate().map(text).collect::<ApiResult<_>>()?;
            Ok(("inputs", texts))
        }
    }
}

fn truncation_of(truncate: Option<&str>) -> ApiResult<Truncation> {
    match truncate {
        None | Some("END") => Ok(Truncation::End),
        Some("START") => Ok(Truncation::Start),
        Some("NONE") => Ok(Truncation::Refused("set `truncate` to START or END")),
        Some(other) => {
            let message = format!("`truncate` can be NONE, START or END, not '{other}'");
            Err(ApiError::invalid(message).param("truncate"))
        }
    }
}

/// Refuses unknown encodings, and those that the model's vectors do not allow.
fn check_type(kind: &str, embedder: &Embedder) -> ApiResult<()> {
    let dim = embedder.dim();
    let message = match kind {
        "float" | "base64" => return Ok(()),
        "int8" | "uint8" if embedder.is_normalized() => return Ok(()),
        "int8" | "uint8" => format!(
            "`embedding_types` can be float, base64, binary or ubinary, not {kind}: the model's \
             vectors are not of unit length, so that their values have no range"
        ),
        "binary" | "ubinary" if dim.is_multiple_of(8) => return Ok(()),
        "binary" | "ubinary" => format!(
            "`embedding_types` can be float, base64, int8 or uint8, not {kind}: {dim} dimensions \
             are not a multiple of 8"
        ),
        other => format!(
            "`embedding_types` can be float, int8, uint8, binary, ubinary or base64, not '{other}'"
        ),
    };
    Err(ApiError::invalid(message).param("embedding_types"))
}

fn encode(embedded: &Embeddings, dim: usize, types: &[String]) -> VectorsByType {
    let asked = |kind: &str| types.iter().any(|given| given == kind);
    VectorsByType {
        float: asked("float").then(|| rows(embedded, dim, float)),
        int8: asked("int8").then(|| rows(embedded, dim, int8)),
        uint8: asked("uint8").then(|| rows(embedded, dim, uint8)),
        binary: asked("binary").then(|| rows(embedded, dim, signed_bits)),
        ubinary: asked("ubinary").then(|| rows(embedded, dim, bits)),
        base64: asked("base64").then(|| rows(embedded, dim, base64)),
    }
}

fn rows<T>(embedded: &Embeddings, dim: usize, encode: impl Fn(&[f32]) -> T) -> Vec<T> {
    embedded.vectors.chunks_exact(dim).map(encode).collect()
}

fn float(vector: &[f32]) -> Vec<f32> {
    vector.to_vec()
}
