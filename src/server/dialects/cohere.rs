//! `/v1/rerank` and `/v2/rerank`, for clients of Cohere, Jina and Voyage; `/v1/reranking` for those
//! of llama.cpp.

use super::passages::{Passage, PassageLimits, score_texts};
use super::warnings::Warned;
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use crate::server::guard::unique_numbers;
use crate::server::state::AppState;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

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
    #[serde(alias = "texts")]
    documents: Vec<Passage>,
    /// The model. If it is not served, another one answers, with a `warning` header.
    model: Option<String>,
    /// The number of results [default: all].
    #[schema(minimum = 1)]
    top_n: Option<usize>,
    /// The same as `top_n`, as Voyage names it; the reply has Voyage's form.
    #[schema(minimum = 1)]
    top_k: Option<usize>,
    /// No effect on scores: long documents are read in windows. With another model than Jina's, the
    /// reply has Voyage's form.
    truncation: Option<bool>,
    /// The fields that are read of objects.
    rank_fields: Option<Vec<String>>,
    /// Return the documents with the results [default: true if `model` is one of Jina's, else
    /// false].
    return_documents: Option<bool>,
    /// Return logits as scores instead of their sigmoids.
    raw_scores: Option<bool>,
    /// The maximum number of windows that are read of a document.
    #[schema(minimum = 1)]
    max_chunks_per_doc: Option<usize>,
    /// The maximum number of tokens that are read of a document.
    #[serde(alias = "max_doc_length")]
    #[schema(minimum = 1)]
    max_tokens_per_doc: Option<usize>,
    /// Refused, unless its mode is `disabled`.
    #[schema(value_type = Option<Object>)]
    relevant_spans: Option<Value>,
    /// Refused: a reranker makes no vectors.
    return_embeddings: Option<bool>,
    /// Ignored.
    #[allow(dead_code, reason = "clients send it")]
    priority: Option<Value>,
}

/// The clients that a route is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clients {
    /// Those of version 1 of Cohere's API, and of Jina.
    Cohere1,
    /// Those of version 2 of Cohere's API.
    Cohere2,
    /// Those of Infinity, which read documents as plain texts.
    Infinity,
}

/// Documents in order of relevance.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RerankReply {
    id: String,
    #[schema(example = "list")]
    object: &'static str,
    model: String,
    /// Best first.
    #[serde(skip_serializing_if = "Option::is_none")]
    results: Option<Vec<Ranked>>,
    /// The results in Voyage's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<Ranked>>,
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
    document: Option<RankedDocument>,
}

/// A document in a reply.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum RankedDocument {
    /// The form of Cohere and Jina.
    Object {
        /// The text.
        text: String,
    },
    /// The form of Infinity and Voyage.
    Text(String),
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
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Order documents by relevance
#[utoipa::path(post, path = "/v1/rerank", tag = "cohere", request_body = RerankRequest,
    responses((status = 200, body = RerankReply)))]
pub(super) async fn rerank_v1(
    request: JsonRequest<RerankRequest>,
) -> ApiResult<Warned<RerankReply>> {
    let JsonRequest { state, body, permit: _permit } = request;
    rerank(&state, body, Clients::Cohere1).await
}

/// Order documents by relevance
#[utoipa::path(post, path = "/v2/rerank", tag = "cohere", request_body = RerankRequest,
    responses((status = 200, body = RerankReply)))]
pub(super) async fn rerank_v2(
    request: JsonRequest<RerankRequest>,
) -> ApiResult<Warned<RerankReply>> {
    let JsonRequest { state, body, permit: _permit } = request;
    rerank(&state, body, Clients::Cohere2).await
}

/// Order documents by relevance, at the route of llama.cpp
#[utoipa::path(post, path = "/v1/reranking", tag = "cohere", request_body = RerankRequest,
    responses((status = 200, body = RerankReply)))]
pub(super) async fn reranking(
    request: JsonRequest<RerankRequest>,
) -> ApiResult<Warned<RerankReply>> {
    rerank_v1(request).await
}

/// Order documents by relevance, at the other route of llama.cpp
#[utoipa::path(post, path = "/reranking", tag = "cohere", request_body = RerankRequest,
    responses((status = 200, body = RerankReply)))]
pub(super) async fn reranking_at_root(
    request: JsonRequest<RerankRequest>,
) -> ApiResult<Warned<RerankReply>> {
    rerank_v1(request).await
}

/// Answers a request, in the form that these clients read.
pub(super) async fn rerank(
    state: &AppState,
    request: RerankRequest,
    clients: Clients,
) -> ApiResult<Warned<RerankReply>> {
    let (named, other) = state.reranker(request.model.as_deref())?;
    if request.documents.is_empty() {
        return Err(ApiError::empty("invalid request: list of documents must not be empty")
            .param("documents"));
    }
    request.check()?;
    let (most, is_jina) = (request.most()?, request.is_jina());
    // Jina returns documents by default, the others on request.
    let returned = request.return_documents.unwrap_or(is_jina);
    let is_voyage = request.top_k.is_some() || request.truncation.is_some() && !is_jina;
    let fields = request.rank_fields.as_deref();
    let texts = request.documents.into_iter().enumerate().map(|(i, d)| d.text(i, fields));
    let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    let kept = returned.then(|| texts.clone());
    let default = (clients == Clients::Cohere2).then_some(DEFAULT_DOCUMENT_TOKENS);
    let tokens = request.max_tokens_per_doc.or(default);
    let limits = PassageLimits { tokens, windows: request.max_chunks_per_doc };
    let scored = score_texts(state, request.query, texts, limits).await?;
    let scores = &scored.scores.scores;
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].logit.total_cmp(&scores[a].logit).then(a.cmp(&b)));
    order.truncate(most);
    let document = |i: usize| {
        let text = kept.as_ref()?[i].clone();
        let is_plain = is_voyage || clients == Clients::Infinity;
        Some(if is_plain { RankedDocument::Text(text) } else { RankedDocument::Object { text } })
    };
    let is_raw = request.raw_scores.unwrap_or(false);
    let ranked = |&i: &usize| {
        let relevance_score = if is_raw { scores[i].logit } else { scores[i].score };
        Ranked { index: i, relevance_score, document: document(i) }
    };
    let ranked: Vec<Ranked> = order.iter().map(ranked).collect();
    let warnings: Vec<String> = other.into_iter().chain(scored.warnings).collect();
    let searches = scores.len().div_ceil(DOCUMENTS_PER_UNIT);
    let units = Units { search_units: Some(searches), input_tokens: None };
    let version = if clients == Clients::Cohere2 { "2" } else { "1" };
    let (results, data) = if is_voyage { (None, Some(ranked)) } else { (Some(ranked), None) };
    let reply = RerankReply {
        id: reply_id(),
        object: if clients == Clients::Infinity { "rerank" } else { "list" },
        model: named.name.clone(),
        results,
        data,
        meta: Meta::new(version, units, scored.tokens, &warnings),
        usage: RerankUsage { prompt_tokens: scored.tokens, total_tokens: scored.tokens },
    };
    Ok(Warned(warnings, reply))
}

impl RerankRequest {
    /// The maximum number of results.
    fn most(&self) -> ApiResult<usize> {
        let (field, most) = match (self.top_n, self.top_k) {
            (Some(_), Some(_)) => {
                let message = "invalid request: top_n and top_k were both given: give one";
                return Err(ApiError::invalid(message).param("top_k"));
            }
            (None, Some(most)) => ("top_k", most),
            (most, None) => ("top_n", most.unwrap_or(usize::MAX)),
        };
        let message = format!("invalid request: {field} must be at least 1");
        ApiError::check(most > 0, field, message)?;
        Ok(most)
    }

    /// True if the model has one of Jina's names.
    fn is_jina(&self) -> bool {
        let name = self.model.as_deref().unwrap_or_default().rsplit('/').next();
        name.is_some_and(|name| name.to_ascii_lowercase().starts_with("jina-"))
    }

    /// Refuses what a reranker does not do.
    fn check(&self) -> ApiResult<()> {
        let limits = [
            ("max_tokens_per_doc", self.max_tokens_per_doc),
            ("max_chunks_per_doc", self.max_chunks_per_doc),
        ];
        for (field, limit) in limits {
            let message = format!("invalid request: {field} must be at least 1");
            ApiError::check(limit != Some(0), field, message)?;
        }
        let mode = self.relevant_spans.as_ref().map(|spans| spans.get("mode"));
        let is_off = mode.is_none_or(|mode| mode.is_some_and(|mode| mode == "disabled"));
        let message =
            "invalid request: relevant_spans is not supported; /v1/answer quotes passages";
        ApiError::check(is_off, "relevant_spans", message)?;
        let message = "invalid request: return_embeddings is not supported; /v1/embeddings makes \
                       vectors";
        ApiError::check(self.return_embeddings != Some(true), "return_embeddings", message)
    }
}
