//! `/embed`, `/embed_all`, `/similarity` and `/rerank`, for clients of text-embeddings-inference.

use super::cohere::{self, Clients, RerankReply, RerankRequest};
use super::openai::check_dimensions;
use super::passages::{PassageLimits, score_texts};
use super::texts::{TextOptions, Truncation, prompt_called, tokenize_texts, written_prompt};
use super::warnings::{Warned, truncation_warning};
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use crate::server::reply_size::ReplySize;
use crate::server::scheduler::WorkKind;
use crate::server::state::AppState;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;
use warpseek_bert::embedder::{Embedder, Role, normalize};
use warpseek_bert::tokenizer::Sequence;

/// A text or several.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "`inputs` must be a text or a list of texts; token ids go to /v1/embeddings"
)]
pub(super) enum Inputs {
    /// A text.
    One(String),
    /// Several texts.
    Many(Vec<String>),
}

/// The end at which a long text is truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Direction {
    /// The beginning.
    #[serde(alias = "Left")]
    Left,
    /// The end.
    #[serde(alias = "Right")]
    Right,
}

/// Prompt and truncation of texts.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
#[schema(as = Reading)]
struct ReadingOptions {
    /// Truncate texts that are too long [default: true]; otherwise they are refused.
    truncate: Option<bool>,
    /// The end at which they are truncated [default: right].
    truncation_direction: Option<Direction>,
    /// The prompt: `query`, `document`, or the name of another one of the model [default: none].
    prompt_name: Option<String>,
    /// The prompt itself.
    prompt: Option<String>,
}

/// Texts to embed.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct EmbedRequest {
    inputs: Inputs,
    #[serde(flatten)]
    options: TeiEmbedOptions,
    /// The same options; those beside `inputs` take precedence.
    parameters: Option<TeiEmbedOptions>,
}

/// Options of embedding.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct TeiEmbedOptions {
    #[serde(flatten)]
    reading: ReadingOptions,
    /// Scale vectors to unit length [default: true, but false for those of tokens].
    normalize: Option<bool>,
    /// Only the model's own dimension is supported.
    dimensions: Option<usize>,
}

impl EmbedRequest {
    fn into_parts(self) -> (Inputs, TeiEmbedOptions) {
        let (first, second) = (self.options, self.parameters.unwrap_or_default());
        let reading = ReadingOptions {
            truncate: first.reading.truncate.or(second.reading.truncate),
            truncation_direction: first
                .reading
                .truncation_direction
                .or(second.reading.truncation_direction),
            prompt_name: first.reading.prompt_name.or(second.reading.prompt_name),
            prompt: first.reading.prompt.or(second.reading.prompt),
        };
        let options = TeiEmbedOptions {
            reading,
            normalize: first.normalize.or(second.normalize),
            dimensions: first.dimensions.or(second.dimensions),
        };
        (self.inputs, options)
    }
}

impl ReadingOptions {
    fn into_text_options(self, embedder: &Embedder) -> ApiResult<TextOptions> {
        let prompt = match (&self.prompt, &self.prompt_name) {
            (Some(_), Some(_)) => {
                let message = "`prompt` and `prompt_name` both choose a prompt: give one";
                return Err(ApiError::invalid(message).param("prompt_name"));
            }
            (Some(prompt), None) => written_prompt(embedder, "prompt", prompt)?,
            (None, name) => prompt_called(embedder, "prompt_name", name.as_deref())?,
        };
        let truncation = match self.truncation_direction {
            _ if self.truncate == Some(false) => Truncation::Refused("set `truncate` to true"),
            Some(Direction::Left) => Truncation::Start,
            Some(Direction::Right) | None => Truncation::End,
        };
        Ok(TextOptions { prompt, truncation, limit: None })
    }
}

/// Embed texts
#[utoipa::path(post, path = "/embed", tag = "tei", request_body = EmbedRequest,
    responses((status = 200, body = Vec<Vec<f32>>)))]
pub(super) async fn embed(request: JsonRequest<EmbedRequest>) -> ApiResult<Warned<Vec<Vec<f32>>>> {
    let JsonRequest { state, body, permit: _permit } = request;
    vectors(&state, body).await
}

/// The vectors of a request's texts.
pub(super) async fn vectors(
    state: &AppState,
    request: EmbedRequest,
) -> ApiResult<Warned<Vec<Vec<f32>>>> {
    let (inputs, options) = request.into_parts();
    let tokenized = TokenizedInputs::new(state, inputs, options.reading).await?;
    check_dimensions(options.dimensions, &tokenized.embedder)?;
    let (mut vectors, warnings) = tokenized.embed(state).await?;
    if options.normalize.unwrap_or(true) {
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
    let (inputs, options) = body.into_parts();
    let tokenized = TokenizedInputs::new(&state, inputs, options.reading).await?;
    let TokenizedInputs { embedder, sequences, warnings, .. } = tokenized;
    check_dimensions(options.dimensions, &embedder)?;
    let tokens = sequences.iter().map(|sequence| sequence.ids.len()).sum();
    let advice = "send fewer or shorter texts at a time: each of their tokens has a vector";
    ReplySize::new(&state.limits).add_vectors(tokens, embedder.dim(), advice)?;
    let kind = WorkKind::TokenStates(Arc::clone(&embedder));
    let mut states = state.scheduler.compute(kind, sequences, None).await?;
    if options.normalize == Some(true) {
        let tokens = states.iter_mut().flat_map(|all| all.chunks_exact_mut(embedder.dim()));
        tokens.for_each(normalize);
    }
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
    async fn new(state: &AppState, inputs: Inputs, reading: ReadingOptions) -> ApiResult<Self> {
        let embedder = Arc::clone(&state.embedder(None)?.0.model);
        let options = reading.into_text_options(&embedder)?;
        let role = options.prompt.role();
        let texts = ("inputs", inputs.into_texts());
        let tokenized = tokenize_texts(state, &embedder, texts, options).await?;
        let lost: Vec<u32> = tokenized.iter().map(|text| text.lost as u32).collect();
        let sequences: Vec<Sequence> = tokenized.into_iter().map(|text| text.sequence).collect();
        state.check_tokens(sequences.iter().map(|s| s.ids.len()).sum())?;
        let warnings = truncation_warning(&lost, embedder.max_tokens()).into_iter().collect();
        Ok(Self { embedder, role, sequences, warnings })
    }

    /// Pooled states of the texts, not scaled to unit length, and warnings.
    async fn embed(self, state: &AppState) -> ApiResult<(Vec<Vec<f32>>, Vec<String>)> {
        let advice = "send fewer texts at a time";
        let (n, dim) = (self.sequences.len(), self.embedder.dim());
        ReplySize::new(&state.limits).add_vectors(n, dim, advice)?;
        let kind = WorkKind::Embed(self.embedder, self.role);
        Ok((state.scheduler.compute(kind, self.sequences, None).await?, self.warnings))
    }
}

impl Inputs {
    pub(super) fn into_texts(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// Texts to order by relevance to a query, in either format.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, try_from = "Value")]
pub(super) enum RerankBody {
    /// The format of text-embeddings-inference.
    Texts(Box<TextsRequest>),
    /// The format of Infinity and Cohere.
    Documents(Box<RerankRequest>),
}

impl TryFrom<Value> for RerankBody {
    type Error = serde_json::Error;

    fn try_from(body: Value) -> serde_json::Result<Self> {
        if !body.is_object() {
            let message = "an object with `query`, and `texts` or `documents`, is expected";
            Err(serde::de::Error::custom(message))
        } else if body.get("documents").is_some() {
            serde_json::from_value(body).map(Self::Documents)
        } else {
            serde_json::from_value(body).map(Self::Texts)
        }
    }
}

/// Fields of other requests, which have no effect beside `texts`.
const FOREIGN_FIELDS: [&str; 9] = [
    "inputs",
    "documents",
    "top_k",
    "return_documents",
    "rank_fields",
    "max_tokens_per_doc",
    "max_chunks_per_doc",
    "relevant_spans",
    "return_embeddings",
];

/// Texts to order by relevance to a query.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct TextsRequest {
    query: String,
    texts: Vec<String>,
    /// Return logits as scores instead of their sigmoids.
    raw_scores: Option<bool>,
    /// Return the texts with the results.
    return_text: Option<bool>,
    /// Ignored: long texts are read in windows, and nothing is truncated.
    #[allow(dead_code, reason = "clients send it")]
    #[schema(value_type = Option<bool>)]
    truncate: Option<Value>,
    /// Ignored.
    #[allow(dead_code, reason = "clients send it")]
    #[schema(value_type = Option<Direction>)]
    truncation_direction: Option<Value>,
    /// `top_n`, the number of results, which some clients send; other fields of `documents` are
    /// refused.
    #[serde(flatten)]
    #[schema(ignore)]
    others: Map<String, Value>,
}

/// Texts in order of relevance.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum RankedReply {
    /// The format of text-embeddings-inference.
    Texts(Vec<RankedText>),
    /// The format of Infinity and Cohere.
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
            let Warned(warnings, reply) =
                cohere::rerank(&state, *request, Clients::Infinity).await?;
            return Ok(Warned(warnings, RankedReply::Documents(reply)));
        }
        RerankBody::Texts(request) => request,
    };
    let Warned(warnings, ranked) = rank(&state, *request).await?;
    Ok(Warned(warnings, RankedReply::Texts(ranked)))
}

/// Texts in order of relevance to the query.
pub(super) async fn rank(
    state: &AppState,
    request: TextsRequest,
) -> ApiResult<Warned<Vec<RankedText>>> {
    if request.texts.is_empty() {
        return Err(ApiError::empty("`texts` is empty: send at least one"));
    }
    let is_given = |name: &&str| request.others.get(*name).is_some_and(|value| !value.is_null());
    if let Some(name) = FOREIGN_FIELDS.into_iter().find(is_given) {
        let message = format!("`{name}` has no effect beside `texts`: leave it out");
        return Err(ApiError::invalid(message).param(name));
    }
    let most = match request.others.get("top_n").filter(|value| !value.is_null()) {
        None => usize::MAX,
        Some(value) => {
            let most = value.as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or_default();
            let message = "`top_n` must be a whole number from 1";
            ApiError::check(most > 0, "top_n", message).map(|()| most)?
        }
    };
    let texts = (request.return_text == Some(true)).then(|| request.texts.clone());
    let limits = PassageLimits::default();
    let scored = score_texts(state, request.query, request.texts, limits).await?;
    let ranked = scored.scores.scores.iter().enumerate().map(|(index, score)| RankedText {
        index,
        text: texts.as_ref().map(|texts| texts[index].clone()),
        score: if request.raw_scores == Some(true) { score.logit } else { score.score },
    });
    let mut ranked: Vec<RankedText> = ranked.collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.index.cmp(&b.index)));
    ranked.truncate(most);
    Ok(Warned(scored.warnings, ranked))
}

/// A sentence and others to compare it with.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct SimilarityRequest {
    inputs: SimilarityInputs,
    parameters: Option<ReadingOptions>,
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
    cosines(&state, body).await
}

/// The cosines of a request's sentences.
pub(super) async fn cosines(
    state: &AppState,
    body: SimilarityRequest,
) -> ApiResult<Warned<Vec<f32>>> {
    let SimilarityInputs { source_sentence, mut sentences } = body.inputs;
    if sentences.is_empty() {
        return Err(ApiError::empty("`sentences` is empty: send at least one"));
    }
    sentences.push(source_sentence);
    let texts = Inputs::Many(sentences);
    let options = body.parameters.unwrap_or_default();
    let tokenized = TokenizedInputs::new(state, texts, options).await?;
    let (mut vectors, warnings) = tokenized.embed(state).await?;
    vectors.iter_mut().for_each(|vector| normalize(vector));
    let source = vectors.pop().unwrap_or_default();
    let cosine = |v: &Vec<f32>| v.iter().zip(&source).map(|(a, b)| a * b).sum();
    Ok(Warned(warnings, vectors.iter().map(cosine).collect()))
}
