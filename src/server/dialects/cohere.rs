//! `/v1/rerank` and `/v2/rerank`, for clients of Cohere and Jina.

use super::warnings::Warned;
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use crate::server::guard::unique_numbers;
use crate::server::scheduled::{blocking, score};
use crate::server::state::AppState;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;
use warpseek_bert::reranker::RerankScores;
use warpseek_bert::tokenizer::Sequence;

/// The default number of tokens of a document that are read in version 2 of the API.
const DEFAULT_DOCUMENT_TOKENS: usize = 4096;

/// The number of documents in a billed unit.
const DOCUMENTS_PER_UNIT: usize = 100;

/// Documents to order by relevance to a query.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(super) struct RerankRequest {
    /// The query.
    pub(super) query: String,
    /// Texts, or objects with a field `text` or those of `rank_fields`.
    pub(super) documents: Vec<Passage>,
    /// The model. If it is not served, another one answers, with a `warning` header.
    pub(super) model: Option<String>,
    /// The number of results [default: all].
    #[schema(minimum = 1)]
    pub(super) top_n: Option<usize>,
    /// The fields that are read of objects.
    pub(super) rank_fields: Option<Vec<String>>,
    /// Return the documents with the results.
    #[serde(default)]
    pub(super) return_documents: Option<bool>,
    /// The maximum number of windows that are read of a document.
    #[schema(minimum = 1)]
    pub(super) max_chunks_per_doc: Option<usize>,
    /// The maximum number of tokens that are read of a document.
    #[schema(minimum = 1)]
    pub(super) max_tokens_per_doc: Option<usize>,
}

/// A document: a text, or an object with text fields.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a document must be a text or an object")]
pub(super) enum Passage {
    /// The text.
    Text(String),
    /// An object with a field `text`, or with those of `rank_fields`.
    #[schema(value_type = Object)]
    Object(Map<String, Value>),
}

/// Documents in order of relevance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RerankReply {
    id: String,
    model: String,
    /// Best first.
    results: Vec<Ranked>,
    meta: Meta,
    usage: RerankUsage,
}

/// A document's rank is its place in the list of results.
#[derive(Debug, Serialize, ToSchema)]
struct Ranked {
    /// Index of the document in the request, from 0.
    index: usize,
    /// The sigmoid of the logit, 0 to 1.
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<TextOf>,
}

/// A document in a reply.
#[derive(Debug, Serialize, ToSchema)]
struct TextOf {
    text: String,
}

/// Facts about the reply.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Meta {
    api_version: ApiVersion,
    billed_units: Units,
    tokens: Tokens,
    /// Notes for the user.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// The version of the API.
#[derive(Debug, Serialize, ToSchema)]
struct ApiVersion {
    version: &'static str,
}

/// Units that Cohere would bill; warpseek bills nothing.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Units {
    /// Tokens of texts that were embedded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input_tokens: Option<usize>,
    /// Searches, of 100 documents each, that were reranked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) search_units: Option<usize>,
}

impl Meta {
    pub(super) fn new(
        version: &'static str,
        billed_units: Units,
        input_tokens: usize,
        warnings: &[String],
    ) -> Self {
        let (api_version, tokens) = (ApiVersion { version }, Tokens { input_tokens });
        Self { api_version, billed_units, tokens, warnings: warnings.to_vec() }
    }
}

/// A new id of a reply.
pub(super) fn reply_id() -> String {
    let (time, number) = unique_numbers();
    format!("{time:016x}-{number:08x}")
}

/// The number of tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
struct Tokens {
    input_tokens: usize,
}

/// The number of tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
struct RerankUsage {
    total_tokens: usize,
}

/// Order documents by relevance
#[utoipa::path(post, path = "/v1/rerank", tag = "cohere", request_body = RerankRequest,
    responses((status = 200, body = RerankReply)))]
pub(super) async fn rerank_v1(
    request: JsonRequest<RerankRequest>,
) -> ApiResult<Warned<RerankReply>> {
    rerank(&request.state, request.body, "1").await
}

/// Order documents by relevance
#[utoipa::path(post, path = "/v2/rerank", tag = "cohere", request_body = RerankRequest,
    responses((status = 200, body = RerankReply)))]
pub(super) async fn rerank_v2(
    mut request: JsonRequest<RerankRequest>,
) -> ApiResult<Warned<RerankReply>> {
    request.body.max_tokens_per_doc.get_or_insert(DEFAULT_DOCUMENT_TOKENS);
    rerank(&request.state, request.body, "2").await
}

/// Answers a request of either version.
pub(super) async fn rerank(
    state: &AppState,
    request: RerankRequest,
    version: &'static str,
) -> ApiResult<Warned<RerankReply>> {
    let (named, other) = state.reranker(request.model.as_deref())?;
    if request.documents.is_empty() {
        return Err(ApiError::empty("invalid request: list of documents must not be empty")
            .param("documents"));
    }
    let message = "invalid request: top_n must be at least 1";
    ApiError::check(request.top_n != Some(0), "top_n", message)?;
    let fields = request.rank_fields.as_deref();
    let texts = request.documents.into_iter().enumerate().map(|(i, d)| d.text(i, fields));
    let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    let kept = request.return_documents.unwrap_or(false).then(|| texts.clone());
    let limits =
        PassageLimits { tokens: request.max_tokens_per_doc, windows: request.max_chunks_per_doc };
    let scored = score_texts(state, request.query, texts, limits).await?;
    let scores = &scored.scores.scores;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].logit.total_cmp(&scores[a].logit).then(a.cmp(&b)));
    order.truncate(request.top_n.unwrap_or(usize::MAX));
    let document = |i: usize| kept.as_ref().map(|texts| TextOf { text: texts[i].clone() });
    let results = order
        .iter()
        .map(|&i| Ranked { index: i, relevance_score: scores[i].score, document: document(i) })
        .collect();
    let warnings: Vec<String> = other.into_iter().chain(scored.warnings).collect();
    let searches = scores.len().div_ceil(DOCUMENTS_PER_UNIT);
    let units = Units { search_units: Some(searches), input_tokens: None };
    let reply = RerankReply {
        id: reply_id(),
        model: named.name.clone(),
        results,
        meta: Meta::new(version, units, scored.tokens, &warnings),
        usage: RerankUsage { total_tokens: scored.tokens },
    };
    Ok(Warned(warnings, reply))
}

impl Passage {
    /// The text, or the fields of an object, one per line.
    fn text(self, number: usize, fields: Option<&[String]>) -> ApiResult<String> {
        let object = match self {
            Self::Text(text) => return Ok(text),
            Self::Object(object) => object,
        };
        let shown = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let refuse = |field: &str| {
            let message = format!("invalid request: document {number} has no field '{field}'");
            Err(ApiError::invalid(message).param("documents"))
        };
        let Some(fields) = fields.filter(|fields| !fields.is_empty()) else {
            return match object.get("text") {
                Some(Value::String(text)) => Ok(text.clone()),
                _ => refuse("text"),
            };
        };
        let mut lines = Vec::with_capacity(fields.len());
        for field in fields {
            match object.get(field) {
                Some(value) => lines.push(format!("{field}: {}", shown(value))),
                None => return refuse(field),
            }
        }
        Ok(lines.join("\n"))
    }
}

/// Limits of each passage; the rest of it is not read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PassageLimits {
    pub(super) tokens: Option<usize>,
    pub(super) windows: Option<usize>,
}

/// Scores of texts, in their order.
pub(super) struct ScoredTexts {
    pub(super) scores: RerankScores,
    /// The number of tokens that were read.
    tokens: usize,
    pub(super) warnings: Vec<String>,
}

/// Scores texts against a query; each by its best window.
pub(super) async fn score_texts(
    state: &AppState,
    query: String,
    texts: Vec<String>,
    limits: PassageLimits,
) -> ApiResult<ScoredTexts> {
    let model = &state.reranker(None)?.0.model;
    if query.trim().is_empty() {
        return Err(ApiError::empty("invalid request: query must not be empty").param("query"));
    }
    if let Some(at) = texts.iter().position(|text| text.trim().is_empty()) {
        let message = format!("invalid request: document {at} is empty");
        return Err(ApiError::empty(message).param("documents"));
    }
    let check_windows = |n: usize| {
        let most = state.limits.max_windows;
        if n <= most {
            return Ok(());
        }
        Err(ApiError::invalid(format!(
            "invalid request: the documents take {n} windows, and {most} are allowed: send them \
             in parts"
        )))
    };
    check_windows(texts.len())?;
    let reranker = Arc::clone(model);
    let truncate = move || {
        let (mut texts, mut cut, mut lost) = (texts, 0, 0);
        let most = reranker.windows_to_tokens(limits.tokens, limits.windows, &query)?;
        for text in &mut texts {
            let Some(most) = most else { break };
            let (kept, more) = reranker.first_tokens(text, most)?;
            text.truncate(kept.len());
            cut += usize::from(more > 0);
            lost += more;
        }
        Ok((query, texts, cut, lost))
    };
    let (query, texts, cut, lost) = blocking(truncate).await?;
    let mut warnings = Vec::new();
    if cut > 0 {
        warnings.push(format!(
            "{cut} documents were cut to what was asked for: {lost} tokens were left out"
        ));
    }
    let mut tokens = 0;
    let check = |pairs: &[Sequence]| {
        check_windows(pairs.len())?;
        tokens = pairs.iter().map(|pair| pair.ids.len()).sum();
        state.check_tokens(tokens)
    };
    let scores = score(state, model, query, texts, check).await?;
    let lost = scores.query_tokens_lost;
    if lost > 0 {
        warnings.push(format!("the last {lost} tokens of the query were left out"));
    }
    Ok(ScoredTexts { scores, tokens, warnings })
}
