//! `/v1/score` and `/score`, for clients of vLLM.

use super::cohere::reply_id;
use super::passages::score_pairs;
use super::warnings::Warned;
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use utoipa::ToSchema;

/// Texts to score: one with each of several others, or two lists pair by pair.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ScoreRequest {
    /// The model. If it is not served, another one answers, with a `warning` header.
    model: Option<String>,
    /// The query or the queries; also called `queries` and `data_1`.
    #[serde(alias = "queries", alias = "data_1")]
    text_1: Texts,
    /// The texts; also called `documents` and `data_2`.
    #[serde(alias = "documents", alias = "data_2")]
    text_2: Texts,
    /// Return logits as scores instead of their sigmoids.
    raw_scores: Option<bool>,
    /// The opposite of `raw_scores`, as vLLM names it: `false` returns logits.
    #[serde(alias = "activation")]
    use_activation: Option<bool>,
    /// Refused unless -1: long texts are read in windows.
    truncate_prompt_tokens: Option<i64>,
}

/// A text or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`text_1` and `text_2` must be texts or lists of texts")]
#[schema(as = ScoreTexts)]
enum Texts {
    /// A text.
    One(String),
    /// Several texts.
    Many(Vec<String>),
}

/// Scores of pairs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ScoreReply {
    id: String,
    #[schema(example = "list")]
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: String,
    /// In the order of the pairs.
    data: Vec<Score>,
    usage: ScoreUsage,
}

/// The score of a pair.
#[derive(Debug, Serialize, ToSchema)]
struct Score {
    index: usize,
    #[schema(example = "score")]
    object: &'static str,
    /// The sigmoid of the logit, 0 to 1.
    score: f32,
}

/// The number of tokens that were read.
#[derive(Debug, Serialize, ToSchema)]
struct ScoreUsage {
    prompt_tokens: usize,
    total_tokens: usize,
    completion_tokens: usize,
}

/// Score pairs of texts
#[utoipa::path(post, path = "/v1/score", tag = "vllm", request_body = ScoreRequest,
    responses((status = 200, body = ScoreReply)))]
pub(super) async fn score(request: JsonRequest<ScoreRequest>) -> ApiResult<Warned<ScoreReply>> {
    let JsonRequest { state, body, permit: _permit } = request;
    let (named, other) = state.reranker(body.model.as_deref())?;
    let message = "`truncate_prompt_tokens` is not supported: long texts are read in windows";
    let reads_all = body.truncate_prompt_tokens.is_none_or(|tokens| tokens == -1);
    ApiError::check(reads_all, "truncate_prompt_tokens", message)?;
    let is_raw = match (body.raw_scores, body.use_activation) {
        (Some(raw), Some(activation)) if raw == activation => {
            let message = "`raw_scores` and `use_activation` contradict each other: give one";
            return Err(ApiError::invalid(message).param("use_activation"));
        }
        (raw, activation) => raw.unwrap_or(false) || activation == Some(false),
    };
    let pairs = pairs_of(body.text_1.into_list(), body.text_2.into_list())?;
    let scored = score_pairs(&state, "text_2", pairs).await?;
    let score = |(index, scores): (usize, &warpseek_bert::reranker::PassageScore)| Score {
        index,
        object: "score",
        score: if is_raw { scores.logit } else { scores.score },
    };
    let data = scored.scores.iter().enumerate().map(score).collect();
    let tokens = scored.tokens;
    let reply = ScoreReply {
        id: reply_id(),
        object: "list",
        created: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs(),
        model: named.name.clone(),
        data,
        usage: ScoreUsage { prompt_tokens: tokens, total_tokens: tokens, completion_tokens: 0 },
    };
    Ok(Warned(other.into_iter().chain(scored.warnings).collect(), reply))
}

/// Score pairs of texts, at the other route of vLLM
#[utoipa::path(post, path = "/score", tag = "vllm", request_body = ScoreRequest,
    responses((status = 200, body = ScoreReply)))]
pub(super) async fn score_at_root(
    request: JsonRequest<ScoreRequest>,
) -> ApiResult<Warned<ScoreReply>> {
    score(request).await
}

impl Texts {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// Pairs of a single first text with every second one, or of the two lists.
fn pairs_of(first: Vec<String>, second: Vec<String>) -> ApiResult<Vec<(String, String)>> {
    match &first[..] {
        [] => Err(ApiError::empty("`text_1` is empty: send at least one text").param("text_1")),
        [only] => Ok(second.into_iter().map(|text| (only.clone(), text)).collect()),
        _ if first.len() == second.len() => Ok(first.into_iter().zip(second).collect()),
        _ => {
            let message = format!(
                "`text_1` has {} texts and `text_2` {}: give one first text, or as many as \
                 second ones",
                first.len(),
                second.len()
            );
            Err(ApiError::invalid(message).param("text_1"))
        }
    }
}
