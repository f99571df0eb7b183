//! `/v1/rerank` and `/v2/rerank`, as the clients of Cohere and Jina speak.

use super::Warned;
use crate::rerank::{RerankJob, RerankScores};
use crate::server::body::Job;
use crate::server::error::ApiError;
use crate::server::pipeline::blocking;
use crate::server::state::State;
use axum::Json;
use axum::extract::State as Extract;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Tokens of a document where a request of the second version says nothing.
const DEFAULT_DOCUMENT_TOKENS: usize = 4096;

/// Documents that count as one unit.
const DOCUMENTS_PER_UNIT: usize = 100;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(rerank_v1)).routes(routes!(rerank_v2))
}

/// Passages to put in order.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub(super) struct RerankRequest {
    /// What the documents should answer.
    pub(super) query: String,
    /// Texts, or objects with a field `text` or those of `rank_fields`.
    pub(super) documents: Vec<Passage>,
    /// Any name is taken; a `warning` says so where another model answers.
    pub(super) model: Option<String>,
    /// How many results [default: all].
    #[schema(minimum = 1)]
    pub(super) top_n: Option<usize>,
    /// The fields of objects that are read.
    pub(super) rank_fields: Option<Vec<String>>,
    /// Whether results carry the documents.
    #[serde(default)]
    pub(super) return_documents: Option<bool>,
    /// Windows of a document that are read at most.
    #[schema(minimum = 1)]
    pub(super) max_chunks_per_doc: Option<usize>,
    /// Tokens of a document that are read at most.
    #[schema(minimum = 1)]
    pub(super) max_tokens_per_doc: Option<usize>,
}

/// A text, or an object that holds one.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "a document must be a text or an object")]
pub(super) enum Passage {
    /// The text itself.
    Text(String),
    /// An object with a field `text`, or with those of `rank_fields`.
    #[schema(value_type = Object)]
    Object(Map<String, Value>),
}

/// Passages in order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RerankReply {
    id: String,
    model: String,
    /// Best first.
    results: Vec<Ranked>,
    meta: Meta,
    usage: Usage,
}

/// One of them.
#[derive(Debug, Serialize, ToSchema)]
struct Ranked {
    /// The document's place in the request, from 0.
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

/// What the reply is.
#[derive(Debug, Serialize, ToSchema)]
struct Meta {
    api_version: ApiVersion,
    billed_units: Units,
    tokens: Tokens,
    /// What the user should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// The version of the API.
#[derive(Debug, Serialize, ToSchema)]
struct ApiVersion {
    version: &'static str,
}

/// What would be billed; nothing is.
#[derive(Debug, Serialize, ToSchema)]
struct Units {
    search_units: usize,
}

/// Tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
struct Tokens {
    input_tokens: usize,
}

/// Tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
struct Usage {
    total_tokens: usize,
}

/// Put documents in order of relevance
#[utoipa::path(post, path = "/v1/rerank", tag = "cohere", request_body = RerankRequest,
    responses((status = 200, body = RerankReply)))]
async fn rerank_v1(
    Extract(state): Extract<Arc<State>>,
    job: Job<RerankRequest>,
) -> Result<Warned<Json<RerankReply>>, ApiError> {
    rerank(&state, job.body, "1").await
}

/// Put documents in order of relevance
#[utoipa::path(post, path = "/v2/rerank", tag = "cohere", request_body = RerankRequest,
    responses((status = 200, body = RerankReply)))]
async fn rerank_v2(
    Extract(state): Extract<Arc<State>>,
    job: Job<RerankRequest>,
) -> Result<Warned<Json<RerankReply>>, ApiError> {
    let mut request = job.body;
    request.max_tokens_per_doc.get_or_insert(DEFAULT_DOCUMENT_TOKENS);
    rerank(&state, request, "2").await
}

/// Answers a request in either version.
pub(super) async fn rerank(
    state: &State,
    request: RerankRequest,
    version: &'static str,
) -> Result<Warned<Json<RerankReply>>, ApiError> {
    let (named, other) = state.reranker(request.model.as_deref())?;
    if request.documents.is_empty() {
        return Err(ApiError::empty("invalid request: list of documents must not be empty")
            .param("documents"));
    }
    if request.top_n == Some(0) {
        return Err(ApiError::bad("invalid request: top_n must be at least 1").param("top_n"));
    }
    let fields = request.rank_fields.as_deref();
    let texts = request.documents.into_iter().enumerate().map(|(i, d)| d.text(i, fields));
    let texts: Vec<String> = texts.collect::<Result<_, _>>()?;
    let kept = request.return_documents.unwrap_or(false).then(|| texts.clone());
    let limits = Limits { tokens: request.max_tokens_per_doc, windows: request.max_chunks_per_doc };
    let found = scores(state, request.query, texts, limits).await?;
    let mut order: Vec<usize> = (0..found.scores.scores.len()).collect();
    let scores = &found.scores.scores;
    order.sort_by(|&a, &b| scores[b].logit.total_cmp(&scores[a].logit).then(a.cmp(&b)));
    order.truncate(request.top_n.unwrap_or(usize::MAX));
    let document = |i: usize| kept.as_ref().map(|texts| TextOf { text: texts[i].clone() });
    let results = order
        .iter()
        .map(|&i| Ranked { index: i, relevance_score: scores[i].score, document: document(i) })
        .collect();
    let warnings: Vec<String> = other.into_iter().chain(found.warnings).collect();
    let reply = RerankReply {
        id: new_id(),
        model: named.name.clone(),
        results,
        meta: Meta {
            api_version: ApiVersion { version },
            billed_units: Units { search_units: scores.len().div_ceil(DOCUMENTS_PER_UNIT) },
            tokens: Tokens { input_tokens: found.tokens },
            warnings: warnings.clone(),
        },
        usage: Usage { total_tokens: found.tokens },
    };
    Ok(Warned(warnings, Json(reply)))
}

impl Passage {
    /// What the model reads: the text, or the asked-for fields of an object, a line each.
    fn text(self, number: usize, fields: Option<&[String]>) -> Result<String, ApiError> {
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
            Err(ApiError::bad(message).param("documents"))
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

/// How much of each passage is read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Limits {
    pub(super) tokens: Option<usize>,
    pub(super) windows: Option<usize>,
}

/// Scores in the order of the passages.
pub(super) struct Scored {
    pub(super) scores: RerankScores,
    pub(super) tokens: usize,
    pub(super) warnings: Vec<String>,
}

/// Scores passages; each by its best window.
pub(super) async fn scores(
    state: &State,
    query: String,
    texts: Vec<String>,
    limits: Limits,
) -> Result<Scored, ApiError> {
    let (named, _) = state.reranker(None)?;
    if query.trim().is_empty() {
        return Err(ApiError::empty("invalid request: query must not be empty").param("query"));
    }
    if let Some(at) = texts.iter().position(|text| text.trim().is_empty()) {
        return Err(
            ApiError::empty(format!("invalid request: document {at} is empty")).param("documents")
        );
    }
    let most = state.limits.max_windows;
    let too_many = |n: usize| {
        ApiError::bad(format!(
            "invalid request: the documents take {n} windows, and {most} are allowed: send them in parts"
        ))
    };
    if texts.len() > most {
        return Err(too_many(texts.len()));
    }
    let model = Arc::clone(&named.model);
    let work = move || {
        let mut warnings = Vec::new();
        let cut: Vec<(&str, usize)> =
            match model.windows_to_tokens(limits.tokens, limits.windows, &query)? {
                Some(most) => texts
                    .iter()
                    .map(|text| model.first_tokens(text, most))
                    .collect::<crate::error::Result<_>>()?,
                None => texts.iter().map(|text| (text.as_str(), 0)).collect(),
            };
        let shortened = cut.iter().filter(|c| c.1 > 0).count();
        if shortened > 0 {
            let lost: usize = cut.iter().map(|c| c.1).sum();
            warnings.push(format!(
                "{shortened} documents were cut to what was asked for: {lost} tokens were left out"
            ));
        }
        let passages = cut.iter().map(|c| c.0).collect();
        let (plan, pairs) = model.plan(&RerankJob { query: &query, passages })?;
        Ok((plan, pairs, warnings))
    };
    let (plan, pairs, mut warnings) = blocking(work).await?;
    if pairs.len() > most {
        return Err(too_many(pairs.len()));
    }
    let tokens = pairs.iter().map(|p| p.ids.len()).sum();
    state.check_tokens(tokens)?;
    let logits = state.scheduler.logits(pairs).await?;
    let scores = plan.scores(&mut logits.into_iter());
    if scores.query_tokens_lost > 0 {
        warnings.push(format!(
            "the last {} tokens of the query were left out",
            scores.query_tokens_lost
        ));
    }
    Ok(Scored { scores, tokens, warnings })
}

/// An id such as no other reply of this process has.
fn new_id() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("{:016x}-{:08x}", since.as_micros(), NUMBER.fetch_add(1, Ordering::Relaxed))
}
