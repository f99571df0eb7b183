//! `/tokenize` and `/decode`, for clients of text-embeddings-inference.

use super::tei::Inputs;
use super::texts::prompt_called;
use crate::error::Error;
use crate::server::body::JsonRequest;
use crate::server::error::ApiResult;
use crate::server::scheduled::{blocking, tokenizing};
use axum::Json;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;
use warpseek_bert::tokenizer::TokenMeter;

/// Bytes of a token in a reply, about.
const TOKEN_BYTES: usize = 64;

/// Texts to tokenize.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct TokenizeRequest {
    inputs: Inputs,
    /// Add special tokens [default: true].
    add_special_tokens: Option<bool>,
    /// The prompt in front of the texts, by its name [default: none].
    prompt_name: Option<String>,
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
    let texts = request.inputs.into_texts();
    state.check_texts(&texts, "inputs")?;
    let prompt = prompt_called(&model, "prompt_name", request.prompt_name.as_deref())?;
    let texts = prompt.before(texts, &model);
    let special = request.add_special_tokens.unwrap_or(true);
    let bytes = texts.iter().map(String::len).sum();
    let most = state.limits.max_reply_bytes / TOKEN_BYTES;
    let work = move |meter: &TokenMeter| {
        let mut n = 0;
        for text in &texts {
            n += model.tokenizer().count_within(text, meter);
            if n > most {
                return Err(Error::usage(format!(
                    "`inputs` have more than {most} tokens, and the reply would be longer than \
                     the limit of this server: send them in parts"
                )));
            }
        }
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
        if meter.is_stopped() {
            return Err(Error::Interrupted("the client is gone".to_owned()));
        }
        texts.iter().map(tokens).collect()
    };
    tokenizing(&state, bytes, state.limits.max_request_tokens, work).await.map(Json)
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
