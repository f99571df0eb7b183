//! Passages to score against a query: texts or objects, and the limits of reading them.

use crate::server::error::{ApiError, ApiResult};
use crate::server::scheduled::{score, tokenizing};
use crate::server::scheduler::Admission;
use crate::server::state::AppState;
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;
use warpseek_bert::reranker::{PassageScore, RerankScores};
use warpseek_bert::tokenizer::{Sequence, TokenMeter};

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

impl Passage {
    /// The text, or that of an object with the one field `text`; else the names of its fields.
    pub(super) fn only_text(self) -> Result<String, String> {
        let mut object = match self {
            Self::Text(text) => return Ok(text),
            Self::Object(object) => object,
        };
        if object.len() == 1
            && let Some(Value::String(text)) = object.get_mut("text")
        {
            return Ok(std::mem::take(text));
        }
        let names: Vec<String> = object.keys().map(|name| format!("`{name}`")).collect();
        Err(names.join(", "))
    }

    /// The text, or the fields of an object, one per line.
    pub(super) fn text(self, number: usize, fields: Option<&[String]>) -> ApiResult<String> {
        let object = match self {
            Self::Text(text) => return Ok(text),
            Self::Object(object) => object,
        };
        let shown = |value: &Value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let refuse = |field: &str| {
            let names: Vec<String> = object.keys().map(|name| format!("'{name}'")).collect();
            let found = match object.contains_key(field) {
                true => format!("no text in its field '{field}'"),
                false if names.is_empty() => format!("no field '{field}': it is empty"),
                false => format!("no field '{field}', but {}", names.join(", ")),
            };
            let message = format!("invalid request: document {number} has {found}");
            Err(ApiError::invalid(message).param("documents"))
        };
        if object.get("image").is_some_and(|image| !image.is_null()) {
            let message = format!(
                "invalid request: document {number} has an image: only texts \
                                   are read"
            );
            return Err(ApiError::invalid(message).param("documents"));
        }
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
    pub(super) tokens: usize,
    pub(super) warnings: Vec<String>,
}

/// Scores texts against a query; each by its best window.
pub(super) async fn score_texts(
    state: &AppState,
    query: String,
    texts: Vec<String>,
    limits: PassageLimits,
) -> ApiResult<ScoredTexts> {
    let admission = state.scheduler.admit(texts.len())?;
    score_admitted(state, query, texts, limits, &admission).await
}

/// As [`score_texts`], in a place among the waiting work.
async fn score_admitted(
    state: &AppState,
    query: String,
    texts: Vec<String>,
    limits: PassageLimits,
    admission: &Admission,
) -> ApiResult<ScoredTexts> {
    let model = &state.reranker(None)?.0.model;
    if query.trim().is_empty() {
        let message = "invalid request: query must not be empty: write what to search for";
        return Err(ApiError::empty(message).param("query"));
    }
    if let Some(at) = texts.iter().position(|text| text.trim().is_empty()) {
        let message = format!("invalid request: document {at} is empty: leave it out");
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
    let bytes = texts.iter().map(String::len).sum();
    let truncate = move |meter: &TokenMeter| {
        let (mut texts, mut cut, mut lost) = (texts, 0, 0);
        let most = reranker.windows_to_tokens(limits.tokens, limits.windows, &query)?;
        for text in &mut texts {
            let Some(most) = most else { break };
            let (kept, more) = reranker.first_tokens(text, most, meter)?;
            text.truncate(kept.len());
            cut += usize::from(more > 0);
            lost += more;
        }
        Ok((query, texts, cut, lost))
    };
    let (query, texts, cut, lost) =
        tokenizing(state, bytes, state.limits.max_request_tokens, truncate).await?;
    let mut warnings = Vec::new();
    if cut > 0 {
        let (documents, were) = if cut == 1 { ("document", "was") } else { ("documents", "were") };
        warnings.push(format!(
            "{cut} {documents} {were} truncated as the request asks: {lost} tokens were left out"
        ));
    }
    let mut tokens = 0;
    let place = (Some(admission), state.limits.max_request_tokens);
    let check = |pairs: &[Sequence]| {
        check_windows(pairs.len())?;
        tokens = pairs.iter().map(|pair| pair.ids.len()).sum();
        state.check_tokens(tokens)
    };
    let scores = score(state, model, query, texts, place, check).await?;
    let lost = scores.query_tokens_lost;
    if lost > 0 {
        warnings.push(format!("the last {lost} tokens of the query were left out"));
    }
    Ok(ScoredTexts { scores, tokens, warnings })
}

/// Scores of pairs, in their order.
pub(super) struct ScoredPairs {
    pub(super) scores: Vec<PassageScore>,
    /// The number of tokens that were read.
    pub(super) tokens: usize,
    pub(super) warnings: Vec<String>,
}

/// Scores pairs of query and text; `field` holds them in the request. Texts of one query that
/// follow each other are scored together.
pub(super) async fn score_pairs(
    state: &AppState,
    field: &str,
    pairs: Vec<(String, String)>,
) -> ApiResult<ScoredPairs> {
    state.check_inputs(pairs.len(), field)?;
    let is_empty = |pair: &(String, String)| pair.0.trim().is_empty() || pair.1.trim().is_empty();
    if let Some(at) = pairs.iter().position(is_empty) {
        let message = format!("`{field}` {at} has an empty text: leave the pair out");
        return Err(ApiError::empty(message).param(field));
    }
    // All groups have one place: none is refused because of the others.
    let admission = state.scheduler.admit(pairs.len())?;
    let groups = pairs.chunk_by(|a, b| a.0 == b.0).map(|group| {
        let texts = group.iter().map(|pair| pair.1.clone()).collect();
        let limits = PassageLimits::default();
        score_admitted(state, group[0].0.clone(), texts, limits, &admission)
    });
    let groups = try_join_all(groups).await?;
    Ok(ScoredPairs {
        tokens: groups.iter().map(|group| group.tokens).sum(),
        warnings: groups.iter().flat_map(|group| group.warnings.clone()).collect(),
        scores: groups.into_iter().flat_map(|group| group.scores.scores).collect(),
    })
}
