//! `/embed`, `/embed_all`, `/rerank`, `/similarity`, `/tokenize`, `/decode`, for clients of
//! text-embeddings-inference.

use super::cohere::{self, PassageLimits, RerankReply, RerankRequest};
use super::openai::check_dimensions;
use super::warnings::{Warned, cut_warning};
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use crate::server::scheduled::blocking;
use crate::server::scheduler::WorkKind;
use crate::server::state::AppState;
use axum::Json;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use warpseek_bert::embedder::{Embedder, Role, normalize};
use warpseek_bert::tokenizer::{Sequence, Tokenized};

/// A text or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`inputs` must be a text or a list of texts")]
enum Inputs {
    /// A text.
    One(String),
    /// Several texts.
    Many(Vec<String>),
}

/// The end of a long text that is cut off.
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

/// Options of reading texts.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = Reading)]
struct ReadingOptions {
    /// Truncate texts that are too long [default: true]; otherwise they are refused.
    truncate: Option<bool>,
    /// The end that is cut off.
    truncation_direction: Direction,
    /// `query` for search queries.
    prompt_name: Option<String>,
}

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct EmbedRequest {
    inputs: Inputs,
    #[serde(flatten)]
    reading: ReadingOptions,
    /// Scale vectors to unit length [default: true].
    normalize: Option<bool>,
    /// Only the model's own dimension is supported.
    dimensions: Option<usize>,
}

/// Embed texts
#[utoipa::path(post, path = "/embed", tag = "tei", request_body = EmbedRequest,
    responses((status = 200, body = Vec<Vec<f32>>)))]
pub(super) async fn embed(request: JsonRequest<EmbedRequest>) -> ApiResult<Warned<Vec<Vec<f32>>>> {
    let JsonRequest { state, body, permit: _permit } = request;
    let tokenized = TokenizedInputs::new(&state, body.inputs, &body.reading).await?;
    check_dimensions(body.dimensions, &tokenized.embedder)?;
    let (mut vectors, warnings) = tokenized.embed(&state).await?;
    if body.normalize.unwrap_or(true) {
        vectors.iter_mut().for_each(|vector| normalize(vector));
    }
    Ok(Warned(warnings, vectors))
}

/// Embed every token of texts
#[utoipa::path(post, path = "/embed_all", tag = "tei", request_body = EmbedRequest,
    responses((status = 200, body = Vec<Vec<Vec<f32>>>)))]
pub(super) async fn embed_all(
    request: JsonRequest<EmbedRequest>,
) -> ApiResult<Warned<Vec<Vec<Vec<f32>>>>> {
    let JsonRequest { state, body, permit: _permit } = request;
    let tokenized = TokenizedInputs::new(&state, body.inputs, &body.reading).await?;
    let TokenizedInputs { embedder, sequences, warnings, .. } = tokenized;
    check_dimensions(body.dimensions, &embedder)?;
    let kind = WorkKind::TokenStates(Arc::clone(&embedder));
    let states = state.scheduler.compute(kind, sequences).await?;
    let rows = |all: Vec<f32>| all.chunks_exact(embedder.dim()).map(<[f32]>::to_vec).collect();
    Ok(Warned(warnings, states.into_iter().map(rows).collect()))
}

/// Texts of a request, tokenized for the default embedder.
struct TokenizedInputs {
    embedder: Arc<Embedder>,
    role: Role,
    sequences: Vec<Sequence>,
    warnings: Vec<String>,
}

impl TokenizedInputs {
    async fn new(state: &AppState, inputs: Inputs, reading: &ReadingOptions) -> ApiResult<Self> {
        let embedder = Arc::clone(&state.embedder(None)?.0.model);
        let texts = inputs.into_texts(state)?;
        let role = match reading.prompt_name.as_deref() {
            None | Some("" | "passage" | "document" | "corpus") => Role::Passage,
            Some("query") => Role::Query,
            Some(_) => {
                let message = "`prompt_name` can be query, passage or document";
                return Err(ApiError::invalid(message));
            }
        };
        let (model, direction) = (Arc::clone(&embedder), reading.truncation_direction);
        let most = model.max_tokens();
        let tokenize = move || match direction {
            Direction::Right => model.tokenize(&texts, role),
            Direction::Left => {
                let prompt = model.prompt(role);
                let texts = texts.iter().map(|text| format!("{prompt}{text}"));
                texts.map(|text| model.tokenizer().single_end(&text, most)).collect()
            }
        };
        let tokenized: Vec<Tokenized> = blocking(tokenize).await?;
        if reading.truncate == Some(false)
            && let Some(at) = tokenized.iter().position(|text| text.lost > 0)
        {
            let given = tokenized[at].sequence.ids.len() + tokenized[at].lost;
            return Err(ApiError::invalid(format!(
                "`inputs` {at} has {given} tokens, and the model takes {most}: set `truncate` to \
                 true"
            )));
        }
        let lost: Vec<u32> = tokenized.iter().map(|text| text.lost as u32).collect();
        let sequences: Vec<Sequence> = tokenized.into_iter().map(|text| text.sequence).collect();
        state.check_tokens(sequences.iter().map(|s| s.ids.len()).sum())?;
        let warnings = cut_warning(&lost, most).into_iter().collect();
        Ok(Self { embedder, role, sequences, warnings })
    }

    /// Pooled states of the texts, not scaled to unit length, and warnings.
    async fn embed(self, state: &AppState) -> ApiResult<(Vec<Vec<f32>>, Vec<String>)> {
        let kind = WorkKind::Embed(self.embedder, self.role);
        Ok((state.scheduler.compute(kind, self.sequences).await?, self.warnings))
    }
}

impl Inputs {
    fn into_texts(self, state: &AppState) -> ApiResult<Vec<String>> {
        let texts = match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        };
        state.check_texts(&texts, "inputs").map(|()| texts)
    }
}

/// Texts to order by relevance to a query, in either format.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`query` with a list of `texts` (or `documents`) is expected")]
pub(super) enum RerankBody {
    /// The format of text-embeddings-inference.
    Texts(TextsRequest),
    /// The format of Cohere.
    Documents(RerankRequest),
}

/// Texts to order by relevance to a query.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct TextsRequest {
    query: String,
    texts: Vec<String>,
    /// Return logits as scores instead of their sigmoids.
    #[serde(default)]
    raw_scores: bool,
    /// Return the texts with the results.
    #[serde(default)]
    return_text: bool,
}

/// Texts in order of relevance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum RankedReply {
    /// The format of text-embeddings-inference.
    Texts(Vec<RankedText>),
    /// The format of Cohere.
    Documents(RerankReply),
}

/// A text with its score.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RankedText {
    /// Index of the text in the request, from 0.
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    score: f32,
}

/// Order texts by relevance
#[utoipa::path(post, path = "/rerank", tag = "tei", request_body = RerankBody,
    responses((status = 200, body = RankedReply)))]
pub(super) async fn rerank(request: JsonRequest<RerankBody>) -> ApiResult<Warned<RankedReply>> {
    let JsonRequest { state, body, permit: _permit } = request;
    let request = match body {
        RerankBody::Documents(request) => {
            let Warned(warnings, reply) = cohere::rerank(&state, request, "1").await?;
            return Ok(Warned(warnings, RankedReply::Documents(reply)));
        }
        RerankBody::Texts(request) => request,
    };
    if request.texts.is_empty() {
        return Err(ApiError::empty("`texts` is empty"));
    }
    let texts = request.return_text.then(|| request.texts.clone());
    let limits = PassageLimits::default();
    let scored = cohere::score_texts(&state, request.query, request.texts, limits).await?;
    let ranked = scored.scores.scores.iter().enumerate().map(|(index, score)| RankedText {
        index,
        text: texts.as_ref().map(|texts| texts[index].clone()),
        score: if request.raw_scores { score.logit } else { score.score },
    });
    let mut ranked: Vec<RankedText> = ranked.collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    Ok(Warned(scored.warnings, RankedReply::Texts(ranked)))
}

/// A sentence and others to compare it with.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct SimilarityRequest {
    inputs: SimilarityInputs,
    #[serde(default)]
    parameters: ReadingOptions,
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
pub(super) async fn similarity(
    request: JsonRequest<SimilarityRequest>,
) -> ApiResult<Warned<Vec<f32>>> {
    let JsonRequest { state, body, permit: _permit } = request;
    let SimilarityInputs { source_sentence, mut sentences } = body.inputs;
    if sentences.is_empty() {
        return Err(ApiError::empty("`sentences` is empty"));
    }
    sentences.push(source_sentence);
    let texts = Inputs::Many(sentences);
    let tokenized = TokenizedInputs::new(&state, texts, &body.parameters).await?;
    let (mut vectors, warnings) = tokenized.embed(&state).await?;
    vectors.iter_mut().for_each(|vector| normalize(vector));
    let source = vectors.pop().unwrap_or_default();
    let cosine = |v: &Vec<f32>| v.iter().zip(&source).map(|(a, b)| a * b).sum();
    Ok(Warned(warnings, vectors.iter().map(cosine).collect()))
}

/// Texts to tokenize.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct TokenizeRequest {
    inputs: Inputs,
    /// Add special tokens [default: true].
    add_special_tokens: Option<bool>,
}

/// A token.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Token {
    id: u32,
    text: String,
    special: bool,
    /// Start of its characters in the text; null for a special token.
    start: Option<usize>,
    /// End of its characters in the text, exclusive.
    stop: Option<usize>,
}

/// Tokenize texts
#[utoipa::path(post, path = "/tokenize", tag = "tei", request_body = TokenizeRequest,
    responses((status = 200, body = Vec<Vec<Token>>)))]
pub(super) async fn tokenize(
    request: JsonRequest<TokenizeRequest>,
) -> ApiResult<Json<Vec<Vec<Token>>>> {
    let JsonRequest { state, body: request, permit: _permit } = request;
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
pub(super) struct DecodeRequest {
    ids: IdsInput,
    /// Leave out special tokens [default: true].
    skip_special_tokens: Option<bool>,
}

/// The ids of a text or of several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`ids` must be a list of token ids or a list of such lists")]
enum IdsInput {
    /// The ids of a text.
    One(Vec<u32>),
    /// The ids of several texts.
    Many(Vec<Vec<u32>>),
}

/// Turn token ids into text
#[utoipa::path(post, path = "/decode", tag = "tei", request_body = DecodeRequest,
    responses((status = 200, body = Vec<String>)))]
pub(super) async fn decode(request: JsonRequest<DecodeRequest>) -> ApiResult<Json<Vec<String>>> {
    let JsonRequest { state, body: request, permit: _permit } = request;
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
