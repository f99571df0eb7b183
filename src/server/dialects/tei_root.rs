//! `POST /`, for clients of text-embeddings-inference that know only the URL of the server, and its
//! routes `/predict` and `/embed_sparse`.

use super::passages::score_pairs;
use super::tei::{self, Direction, EmbedRequest, RankedText, SimilarityRequest, TextsRequest};
use super::warnings::Warned;
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// The name of a reranker's one class, where its configuration is not known.
const LABEL: &str = "LABEL_0";

/// A request to embed, to compare or to rerank, as its fields say.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, try_from = "Value")]
pub(super) enum RootRequest {
    /// Texts to embed, in `inputs`.
    Embed(EmbedRequest),
    /// A sentence to compare with others, in `inputs`.
    Similarity(SimilarityRequest),
    /// `texts` to order by relevance to a `query`.
    Rerank(TextsRequest),
}

impl TryFrom<Value> for RootRequest {
    type Error = serde_json::Error;

    fn try_from(body: Value) -> serde_json::Result<Self> {
        if !body.is_object() {
            let message = "an object with `inputs`, or with `query` and `texts`, is expected";
            Err(serde::de::Error::custom(message))
        } else if body.get("query").is_some() || body.get("texts").is_some() {
            serde_json::from_value(body).map(Self::Rerank)
        } else if body.get("inputs").is_some_and(Value::is_object) {
            serde_json::from_value(body).map(Self::Similarity)
        } else {
            serde_json::from_value(body).map(Self::Embed)
        }
    }
}

/// The reply to one of these requests.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum RootReply {
    /// A vector for each text.
    Vectors(Vec<Vec<f32>>),
    /// A cosine for each sentence.
    Cosines(Vec<f32>),
    /// Texts in order of relevance.
    Ranked(Vec<RankedText>),
}

/// Embed, compare or rerank texts, as the fields of the request say
#[utoipa::path(post, path = "/", tag = "tei", request_body = RootRequest,
    responses((status = 200, body = RootReply)))]
pub(super) async fn root(request: JsonRequest<RootRequest>) -> ApiResult<Warned<RootReply>> {
    let JsonRequest { state, body, permit: _permit } = request;
    Ok(match body {
        RootRequest::Embed(body) => tei::vectors(&state, body).await?.map(RootReply::Vectors),
        RootRequest::Similarity(body) => tei::cosines(&state, body).await?.map(RootReply::Cosines),
        RootRequest::Rerank(body) => tei::rank(&state, body).await?.map(RootReply::Ranked),
    })
}

/// Pairs to score.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct PredictRequest {
    inputs: Pairs,
    /// Return logits as scores instead of their sigmoids.
    raw_scores: Option<bool>,
    /// Ignored: long texts are read in windows, and nothing is truncated.
    #[allow(dead_code, reason = "clients send it")]
    truncate: Option<bool>,
    /// Ignored.
    #[allow(dead_code, reason = "clients send it")]
    truncation_direction: Option<Direction>,
}

/// A pair of query and text, or several.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "`inputs` must be a pair, [query, text], or a list of pairs: the model that is \
                 served is a reranker, which scores no single texts"
)]
enum Pairs {
    /// A pair of query and text.
    One(String, String),
    /// Several pairs.
    Many(Vec<(String, String)>),
}

/// The scores of a pair, or of several pairs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum Predictions {
    /// The one class of a pair.
    One([Prediction; 1]),
    /// The one class of each pair.
    Many(Vec<[Prediction; 1]>),
}

/// A class with its score.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Prediction {
    score: f32,
    label: &'static str,
}

/// Score pairs of query and text
#[utoipa::path(post, path = "/predict", tag = "tei", request_body = PredictRequest,
    responses((status = 200, body = Predictions)))]
pub(super) async fn predict(
    request: JsonRequest<PredictRequest>,
) -> ApiResult<Warned<Predictions>> {
    let JsonRequest { state, body, permit: _permit } = request;
    let (pairs, is_one) = match body.inputs {
        Pairs::One(query, text) => (vec![(query, text)], true),
        Pairs::Many(pairs) => (pairs, false),
    };
    let scored = score_pairs(&state, "inputs", pairs).await?;
    let scores = scored.scores.iter().map(|score| {
        let score = if body.raw_scores == Some(true) { score.logit } else { score.score };
        [Prediction { score, label: LABEL }]
    });
    let mut scores: Vec<[Prediction; 1]> = scores.collect();
    Ok(Warned(
        scored.warnings,
        match scores.pop() {
            Some(only) if is_one => Predictions::One(only),
            last => Predictions::Many(scores.into_iter().chain(last).collect()),
        },
    ))
}

/// Refuse to make sparse vectors, which no model that is served here makes
#[utoipa::path(post, path = "/embed_sparse", tag = "tei",
    responses((status = 424, description = "No model makes sparse vectors")))]
pub(super) async fn embed_sparse() -> ApiError {
    ApiError::not_served(
        "/embed_sparse: no sparse model (SPLADE) is served; /embed makes dense vectors",
    )
}
