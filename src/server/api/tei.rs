//! `/embed`, `/embed_all`, `/rerank`, `/similarity`, `/tokenize`, `/decode`, as the clients of
//! text-embeddings-inference speak.

use super::cohere::{self, Limits, RerankReply, RerankRequest};
use super::{Warned, cut_warning};
use crate::embed::{Embedder, Role, normalize};
use crate::model::tokenize::{Sequence, Tokenized};
use crate::server::body::Job;
use crate::server::error::ApiError;
use crate::server::pipeline::blocking;
use crate::server::state::State;
use axum::Json;
use axum::extract::State as Extract;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new()
        .routes(routes!(embed))
        .routes(routes!(embed_all))
        .routes(routes!(rerank))
        .routes(routes!(similarity))
        .routes(routes!(tokenize))
        .routes(routes!(decode))
}

/// A text or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`inputs` must be a text or a list of texts")]
enum Inputs {
    /// A text.
    One(String),
    /// Several texts.
    Many(Vec<String>),
}

impl Inputs {
    fn into_texts(self, state: &State) -> Result<Vec<String>, ApiError> {
        let texts = match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        };
        state.check_inputs(texts.len(), "inputs")?;
        if let Some(at) = texts.iter().position(|text| text.trim().is_empty()) {
            return Err(ApiError::empty(format!("`inputs` {at} is empty")));
        }
        Ok(texts)
    }
}

/// Which end of a long text is cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Direction {
    /// The beginning.
    #[serde(alias = "Left")]
    Left,
    /// The end.
    #[default]
    #[serde(alias = "Right")]
    Right,
}

/// How texts are read.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
struct Reading {
    /// Whether texts that are too long are cut [default: true]; else they are refused.
    truncate: Option<bool>,
    /// Which end is cut off.
    truncation_direction: Direction,
    /// `query` for search queries.
    prompt_name: Option<String>,
}

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
struct EmbedRequest {
    inputs: Inputs,
    #[serde(flatten)]
    reading: Reading,
    /// Whether vectors are scaled to unit length [default: true].
    normalize: Option<bool>,
    /// The model's own number only.
    dimensions: Option<usize>,
}

/// Embed texts
#[utoipa::path(post, path = "/embed", tag = "tei", request_body = EmbedRequest,
    responses((status = 200, body = Vec<Vec<f32>>)))]
async fn embed(
    Extract(state): Extract<Arc<State>>,
    job: Job<EmbedRequest>,
) -> Result<Warned<Json<Vec<Vec<f32>>>>, ApiError> {
    let request = job.body;
    let embedder = &state.embedder(None)?.0.model;
    check_dimensions(request.dimensions, embedder)?;
    let texts = request.inputs.into_texts(&state)?;
    let (mut vectors, warning) = vectors(&state, embedder, texts, &request.reading).await?;
    if request.normalize.unwrap_or(true) {
        vectors.iter_mut().for_each(|vector| normalize(vector));
    }
    Ok(Warned(warning.into_iter().collect(), Json(vectors)))
}

/// Embed every token of texts
#[utoipa::path(post, path = "/embed_all", tag = "tei", request_body = EmbedRequest,
    responses((status = 200, body = Vec<Vec<Vec<f32>>>)))]
async fn embed_all(
    Extract(state): Extract<Arc<State>>,
    job: Job<EmbedRequest>,
) -> Result<Warned<Json<Vec<Vec<Vec<f32>>>>>, ApiError> {
    let request = job.body;
    let embedder = &state.embedder(None)?.0.model;
    check_dimensions(request.dimensions, embedder)?;
    let texts = request.inputs.into_texts(&state)?;
    let (sequences, warning) = sequences(&state, embedder, texts, &request.reading).await?;
    let states = state.scheduler.states(embedder, sequences).await?;
    let dim = embedder.dim();
    let rows = |all: Vec<f32>| all.chunks_exact(dim).map(<[f32]>::to_vec).collect();
    let states = states.into_iter().map(rows).collect();
    Ok(Warned(warning.into_iter().collect(), Json(states)))
}

fn check_dimensions(asked: Option<usize>, embedder: &Embedder) -> Result<(), ApiError> {
    match asked {
        Some(n) if n != embedder.dim() => {
            Err(ApiError::bad(format!("`dimensions` can only be {}", embedder.dim())))
        }
        _ => Ok(()),
    }
}

/// Pooled states, not scaled.
async fn vectors(
    state: &State,
    embedder: &Arc<Embedder>,
    texts: Vec<String>,
    reading: &Reading,
) -> Result<(Vec<Vec<f32>>, Option<String>), ApiError> {
    let (sequences, warning) = sequences(state, embedder, texts, reading).await?;
    let vectors = state.scheduler.embed(embedder, reading.role()?, sequences).await?;
    Ok((vectors, warning))
}

async fn sequences(
    state: &State,
    embedder: &Arc<Embedder>,
    texts: Vec<String>,
    reading: &Reading,
) -> Result<(Vec<Sequence>, Option<String>), ApiError> {
    let (role, direction) = (reading.role()?, reading.truncation_direction);
    let model = Arc::clone(embedder);
    let work = move || match direction {
        Direction::Right => model.tokenize(&texts, role),
        Direction::Left => {
            texts.iter().map(|t| model.tokenizer().single_end(t, model.max_tokens())).collect()
        }
    };
    let tokenized: Vec<Tokenized> = blocking(work).await?;
    let lost: Vec<usize> = tokenized.iter().map(|t| t.lost).collect();
    if reading.truncate == Some(false)
        && let Some(at) = lost.iter().position(|&n| n > 0)
    {
        let given = tokenized[at].sequence.ids.len() + lost[at];
        let message = format!(
            "`inputs` {at} has {given} tokens, and the model takes {}: set `truncate` to true",
            embedder.max_tokens()
        );
        return Err(ApiError::bad(message));
    }
    let sequences: Vec<Sequence> = tokenized.into_iter().map(|t| t.sequence).collect();
    state.check_tokens(sequences.iter().map(|s| s.ids.len()).sum())?;
    Ok((sequences, cut_warning(&lost, embedder.max_tokens())))
}

impl Reading {
    fn role(&self) -> Result<Role, ApiError> {
        match self.prompt_name.as_deref() {
            None | Some("" | "passage" | "document") => Ok(Role::Passage),
            Some("query") => Ok(Role::Query),
            Some(_) => Err(ApiError::bad("`prompt_name` can be query, passage or document")),
        }
    }
}

/// Passages to put in order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`query` with a list of `texts` (or `documents`) is expected")]
enum RerankBody {
    /// As text-embeddings-inference has it.
    Texts(TextsRequest),
    /// As Cohere has it.
    Documents(RerankRequest),
}

/// Texts to put in order.
#[derive(Debug, Deserialize, ToSchema)]
struct TextsRequest {
    query: String,
    texts: Vec<String>,
    /// Whether scores are logits instead of their sigmoids.
    #[serde(default)]
    raw_scores: bool,
    /// Whether results carry the texts.
    #[serde(default)]
    return_text: bool,
}

/// Passages in order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum RankedReply {
    /// As text-embeddings-inference has it.
    Texts(Vec<RankedText>),
    /// As Cohere has it.
    Documents(RerankReply),
}

/// A text with its score.
#[derive(Debug, Serialize, ToSchema)]
struct RankedText {
    /// Its place in the request, from 0.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    score: f32,
}

/// Put texts in order of relevance
#[utoipa::path(post, path = "/rerank", tag = "tei", request_body = RerankBody,
    responses((status = 200, body = RankedReply)))]
async fn rerank(
    Extract(state): Extract<Arc<State>>,
    job: Job<RerankBody>,
) -> Result<Warned<Json<RankedReply>>, ApiError> {
    let request = match job.body {
        RerankBody::Documents(request) => {
            let Warned(warnings, Json(reply)) = cohere::rerank(&state, request, "1").await?;
            return Ok(Warned(warnings, Json(RankedReply::Documents(reply))));
        }
        RerankBody::Texts(request) => request,
    };
    if request.texts.is_empty() {
        return Err(ApiError::empty("`texts` is empty"));
    }
    let texts = request.return_text.then(|| request.texts.clone());
    let found = cohere::scores(&state, request.query, request.texts, Limits::default()).await?;
    let ranked = found.scores.scores.iter().enumerate().map(|(index, score)| RankedText {
        index,
        text: texts.as_ref().map(|texts| texts[index].clone()),
        score: if request.raw_scores { score.logit } else { score.score },
    });
    let mut ranked: Vec<RankedText> = ranked.collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    Ok(Warned(found.warnings, Json(RankedReply::Texts(ranked))))
}

/// A sentence and others to compare it with.
#[derive(Debug, Deserialize, ToSchema)]
struct SimilarityRequest {
    inputs: SimilarityInputs,
    #[serde(default)]
    parameters: Reading,
}

/// The sentences.
#[derive(Debug, Deserialize, ToSchema)]
struct SimilarityInputs {
    source_sentence: String,
    sentences: Vec<String>,
}

/// Compare a sentence with others, by the cosine of their vectors
#[utoipa::path(post, path = "/similarity", tag = "tei", request_body = SimilarityRequest,
    responses((status = 200, body = Vec<f32>)))]
async fn similarity(
    Extract(state): Extract<Arc<State>>,
    job: Job<SimilarityRequest>,
) -> Result<Warned<Json<Vec<f32>>>, ApiError> {
    let SimilarityRequest { inputs, parameters } = job.body;
    let embedder = &state.embedder(None)?.0.model;
    if inputs.sentences.is_empty() {
        return Err(ApiError::empty("`sentences` is empty"));
    }
    let mut texts = inputs.sentences;
    texts.push(inputs.source_sentence);
    let texts = Inputs::Many(texts).into_texts(&state)?;
    let (mut vectors, warning) = vectors(&state, embedder, texts, &parameters).await?;
    vectors.iter_mut().for_each(|vector| normalize(vector));
    let source = vectors.pop().unwrap_or_default();
    let cosine = |v: &Vec<f32>| v.iter().zip(&source).map(|(a, b)| a * b).sum();
    Ok(Warned(warning.into_iter().collect(), Json(vectors.iter().map(cosine).collect())))
}

/// Texts to cut into tokens.
#[derive(Debug, Deserialize, ToSchema)]
struct TokenizeRequest {
    inputs: Inputs,
    /// Whether special tokens stand around them [default: true].
    add_special_tokens: Option<bool>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
struct Token {
    id: u32,
    text: String,
    special: bool,
    /// The first character it stands for; null for a special token.
    start: Option<usize>,
    /// The character behind the last.
    stop: Option<usize>,
}

/// Cut texts into tokens
#[utoipa::path(post, path = "/tokenize", tag = "tei", request_body = TokenizeRequest,
    responses((status = 200, body = Vec<Vec<Token>>)))]
async fn tokenize(
    Extract(state): Extract<Arc<State>>,
    job: Job<TokenizeRequest>,
) -> Result<Json<Vec<Vec<Token>>>, ApiError> {
    let request = job.body;
    let model = Arc::clone(&state.embedder(None)?.0.model);
    let texts = request.inputs.into_texts(&state)?;
    let special = request.add_special_tokens.unwrap_or(true);
    let work = move || {
        let tokens = |text: &String| {
            let chars: Vec<char> = text.chars().collect();
            let pieces = model.tokenizer().pieces(text, special)?;
            let token = pieces.into_iter().map(|piece| {
                let shown = piece.chars.as_ref().and_then(|range| chars.get(range.clone()));
                Token {
                    id: piece.id,
                    text: shown.map_or(piece.token, |shown| shown.iter().collect()),
                    special: piece.chars.is_none(),
                    start: piece.chars.as_ref().map(|range| range.start),
                    stop: piece.chars.map(|range| range.end),
                }
            });
            Ok(token.collect())
        };
        texts.iter().map(tokens).collect()
    };
    blocking(work).await.map(Json)
}

/// Token ids to turn into text.
#[derive(Debug, Deserialize, ToSchema)]
struct DecodeRequest {
    ids: IdsInput,
    /// Whether special tokens are left out [default: true].
    skip_special_tokens: Option<bool>,
}

/// The ids of a text or of several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`ids` must be a list of token ids or a list of such lists")]
enum IdsInput {
    /// Of one.
    One(Vec<u32>),
    /// Of several.
    Many(Vec<Vec<u32>>),
}

/// Turn token ids into text
#[utoipa::path(post, path = "/decode", tag = "tei", request_body = DecodeRequest,
    responses((status = 200, body = Vec<String>)))]
async fn decode(
    Extract(state): Extract<Arc<State>>,
    job: Job<DecodeRequest>,
) -> Result<Json<Vec<String>>, ApiError> {
    let request = job.body;
    let model = Arc::clone(&state.embedder(None)?.0.model);
    let lists = match request.ids {
        IdsInput::One(ids) => vec![ids],
        IdsInput::Many(lists) => lists,
    };
    state.check_inputs(lists.len(), "ids")?;
    let skip = request.skip_special_tokens.unwrap_or(true);
    let work = move || lists.iter().map(|ids| model.tokenizer().decode(ids, skip)).collect();
    blocking(work).await.map(Json)
}
