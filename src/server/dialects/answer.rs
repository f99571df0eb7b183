//! `/v1/answer`: an answer by a chat service from retrieved passages, with its quotes checked.

use super::search_request::Retrieval;
use super::warnings::headers;
use crate::answer::{Answer, AnswerEvent, AnswerOptions, Piece, Prompt};
use crate::error::{Error, Result};
use crate::search::{Hit, QueryInput, Timings, search};
use crate::server::body::null_as_default;
use crate::server::error::{ApiError, ApiResult};
use crate::server::own::{OwnBody, OwnRequest, UnknownFields};
use crate::server::scheduled::{ScheduledSteps, admit, blocking};
use crate::server::settings::Answers;
use crate::server::state::AppState;
use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

/// The error message of a server without a chat service.
pub(super) const NO_CHAT_SERVICE: &str = "no chat service is set up: start the server with \
                                          GROQ_API_KEY, or with --base-url for another service";

/// The error message if the chat service offers several models and none is named.
const SEVERAL_MODELS: &str = "the chat service offers several models: name one in `model`";

/// The number of passages, unless a request names another.
pub(super) const DEFAULT_PASSAGES: usize = 5;

/// The number of events that may wait for a slow reader.
pub(super) const MAX_WAITING_EVENTS: usize = 256;

/// A question.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(default)]
pub(super) struct AnswerRequest {
    /// The question.
    #[serde(alias = "question")]
    #[schema(example = "why does it help?")]
    query: Option<String>,
    /// The number of passages [default: 5].
    #[schema(minimum = 1)]
    k: Option<usize>,
    #[serde(flatten)]
    retrieval: Retrieval,
    /// The chat model [default: the server's].
    model: Option<String>,
    /// The maximum length of the answer in tokens.
    #[schema(minimum = 1)]
    max_tokens: Option<u32>,
    /// The maximum number of tokens of all passages.
    passage_tokens: Option<usize>,
    /// Sampling temperature: 0 for the likeliest words, up to 2 [default: 0].
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f32>,
    /// Send the text as it is written, as server-sent events: `hits`, then `text`, `unsupported`
    /// and `retry`, then `done` or `error`.
    #[serde(deserialize_with = "null_as_default")]
    #[schema(value_type = Option<bool>)]
    stream: bool,
    #[serde(flatten)]
    #[schema(ignore)]
    unknown: UnknownFields,
}

impl OwnBody for AnswerRequest {
    fn unknown_fields(&self) -> Vec<String> {
        self.unknown.warnings::<Self>()
    }
}

/// Answer a question from retrieved passages
#[utoipa::path(post, path = "/v1/answer", tag = "search", request_body = AnswerRequest,
    responses(
        (status = 200, content((Object = "application/json"), (String = "text/event-stream"))),
        (status = 502, description = "The chat service failed")))]
pub(super) async fn answer(request: OwnRequest<AnswerRequest>) -> ApiResult<Response> {
    let headers = headers(&request.warnings);
    let mut response = reply_to(request).await?;
    response.headers_mut().extend(headers);
    Ok(response)
}

async fn reply_to(request: OwnRequest<AnswerRequest>) -> ApiResult<Response> {
    let OwnRequest { state, body: request, permit, .. } = request;
    let answers = state.answers.clone().ok_or_else(|| ApiError::not_served(NO_CHAT_SERVICE))?;
    let text = request.query.as_deref().unwrap_or_default().trim().to_owned();
    if text.is_empty() {
        return Err(ApiError::empty("`query` is empty: ask something").param("query"));
    }
    let model = request.model.or_else(|| answers.model.clone()).unwrap_or_default();
    let defaults = AnswerOptions::new(model);
    let options = AnswerOptions {
        temperature: request.temperature.unwrap_or(defaults.temperature),
        max_tokens: request.max_tokens.unwrap_or(defaults.max_tokens),
        passage_tokens: request.passage_tokens.unwrap_or(defaults.passage_tokens),
        stream: request.stream,
        ..defaults
    };
    let is_valid = (0.0..=2.0).contains(&options.temperature);
    ApiError::check(is_valid, "temperature", "`temperature` must lie in 0 to 2")?;
    ApiError::check(options.max_tokens > 0, "max_tokens", "`max_tokens` must be at least 1")?;
    let k = request.k.unwrap_or(DEFAULT_PASSAGES);
    let question = Question { text: &text, k, passage_tokens: options.passage_tokens };
    let found = passages_for(&state, &answers, &request.retrieval, question).await?;
    let FoundPassages { hits, took, prompt } = found;
    let Some(prompt) = prompt else {
        let nothing = json!({
            "query": text, "answer": "", "refused": true, "sentences": [], "citations": [],
            "passages": [], "hits": [], "took_ms": { "search": took },
        });
        let done = Event::default().event("done").json_data(&nothing).unwrap_or_default();
        return Ok(match request.stream {
            true => Sse::new(tokio_stream::once(Ok::<_, Infallible>(done))).into_response(),
            false => Json(nothing).into_response(),
        });
    };
    let head = json!({ "query": text, "passages": prompt.passages, "hits": hits });
    let reply = move |mut reply: Value, answer: Answer, prompt: &Prompt| {
        let written = json!({
            "answer": answer.text,
            "refused": answer.refused,
            "sentences": answer.sentences,
            "citations": answer.citations(prompt),
            "model": answer.model,
            "finish_reason": answer.finish_reason,
            "usage": answer.usage,
            "took_ms": { "search": took, "answer": answer.took_ms },
        });
        if let (Value::Object(reply), Value::Object(written)) = (&mut reply, written) {
            reply.extend(written);
        }
        reply
    };
    if !request.stream {
        let work = move || {
            let answer = ask(&answers, &prompt, options, SEVERAL_MODELS, &mut |_| go_on())?;
            Ok(reply(head, answer, &prompt))
        };
        return Ok(Json(blocking(work).await?).into_response());
    }
    let (sender, receiver) = channel(MAX_WAITING_EVENTS);
    tokio::task::spawn_blocking(move || {
        send(&sender, "hits", &head);
        let outcome = ask(&answers, &prompt, options, SEVERAL_MODELS, &mut |event| {
            let sent = match event {
                AnswerEvent::Piece(Piece::Text(text)) => {
                    send(&sender, "text", &json!({ "text": text }))
                }
                AnswerEvent::Piece(Piece::Unsupported) => send(&sender, "unsupported", &json!({})),
                AnswerEvent::Retry(why) => send(&sender, "retry", &json!({ "reason": why })),
                AnswerEvent::Waiting => !sender.is_closed(),
            };
            if sent { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        match outcome {
            Ok(answer) => send(&sender, "done", &reply(head, answer, &prompt)),
            Err(error) => send(&sender, "error", &ApiError::from(error).to_json()),
        };
        drop(permit);
    });
    let events = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// A question, and the limits of the passages that are read for it.
pub(super) struct Question<'a> {
    pub(super) text: &'a str,
    /// The number of passages.
    pub(super) k: usize,
    /// The maximum number of tokens of all passages.
    pub(super) passage_tokens: usize,
}

/// Passages that may answer a question.
pub(super) struct FoundPassages {
    pub(super) hits: Vec<Hit>,
    pub(super) took: Timings,
    /// The prompt, unless nothing was found.
    pub(super) prompt: Option<Prompt>,
}

/// Searches for the passages of a question, and puts them into a prompt.
pub(super) async fn passages_for(
    state: &AppState,
    answers: &Arc<Answers>,
    retrieval: &Retrieval,
    question: Question<'_>,
) -> ApiResult<FoundPassages> {
    let searcher = state.index(retrieval.index.as_deref())?.served.searcher();
    let options = retrieval.options(state, &searcher, question.k).await?;
    let query = QueryInput { text: question.text, ..QueryInput::default() };
    let admission = admit(state, &searcher, &options)?;
    let steps = ScheduledSteps::new(state, &searcher, admission.as_ref());
    let found = search(&steps, query, &options).await?;
    let (hits, took) = (found.hits, found.took_ms);
    if hits.is_empty() {
        return Ok(FoundPassages { hits, took, prompt: None });
    }
    let (service, passages) = (Arc::clone(answers), hits.clone());
    let (text, budget) = (question.text.to_owned(), question.passage_tokens);
    let prompt = blocking(move || {
        let count = |text: &str| searcher.count_tokens(text);
        service.answerer.template.fill(&text, &passages, budget, &count)
    })
    .await?;
    Ok(FoundPassages { hits, took, prompt: Some(prompt) })
}

/// Sends an event. Returns false if the client is gone.
fn send(sender: &Sender<Event>, name: &str, data: &Value) -> bool {
    let event = Event::default().event(name).json_data(data).unwrap_or_default();
    sender.blocking_send(event).is_ok()
}

fn go_on() -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Asks the chat service. `several` is the error message if it offers several models and none is
/// named.
pub(super) fn ask(
    answers: &Answers,
    prompt: &Prompt,
    mut options: AnswerOptions,
    several: &str,
    event: &mut dyn FnMut(AnswerEvent<'_>) -> ControlFlow<()>,
) -> Result<Answer> {
    if options.model.is_empty() {
        options.model = answers.answerer.client.only_model().map_err(|e| match e {
            Error::Usage(_) => Error::usage(several),
            other => other,
        })?;
    }
    answers.answerer.answer(prompt, &options, event)
}
