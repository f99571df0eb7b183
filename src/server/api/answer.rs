//! `/v1/answer`: an answer from the passages that are found, by a chat service, with its quotes checked.

use super::search::{HitReply, Retrieval};
use crate::answer::{Answer, AnswerEvent, AnswerOptions, Piece, Prompt};
use crate::error::{Error, Result};
use crate::server::Answers;
use crate::server::body::Job;
use crate::server::error::ApiError;
use crate::server::pipeline::{self, Query, blocking};
use crate::server::state::State;
use axum::Json;
use axum::extract::State as Extract;
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
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Events that may wait for a slow reader.
const MAX_WAITING_EVENTS: usize = 256;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(answer))
}

/// A question.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(default)]
struct AnswerRequest {
    /// The question.
    #[serde(alias = "question")]
    #[schema(example = "why does it help?")]
    query: String,
    /// How many passages.
    #[schema(minimum = 1)]
    k: usize,
    #[serde(flatten)]
    retrieval: Retrieval,
    /// The chat model [default: the server's].
    model: Option<String>,
    /// The longest answer in tokens.
    #[schema(minimum = 1)]
    max_tokens: u32,
    /// Tokens of passages at most.
    passage_tokens: usize,
    /// 0 for the likeliest words, up to 2.
    #[schema(minimum = 0, maximum = 2)]
    temperature: f32,
    /// Whether the text is sent as it is written, as server-sent events: `hits`, then `text`, `unsupported` and `retry`, then
    /// `done` or `error`.
    stream: bool,
}

impl Default for AnswerRequest {
    fn default() -> Self {
        let options = AnswerOptions::new("");
        Self {
            query: String::new(),
            k: 5,
            retrieval: Retrieval::default(),
            model: None,
            max_tokens: options.max_tokens,
            passage_tokens: options.passage_tokens,
            temperature: options.temperature,
            stream: false,
        }
    }
}

/// Answer a question from the passages that are found
#[utoipa::path(post, path = "/v1/answer", tag = "search", request_body = AnswerRequest,
    responses(
        (status = 200, content((Object = "application/json"), (String = "text/event-stream"))),
        (status = 502, description = "The chat service failed")))]
async fn answer(
    Extract(state): Extract<Arc<State>>,
    job: Job<AnswerRequest>,
) -> Result<Response, ApiError> {
    let Job { body: request, permit } = job;
    let answers = state.answers.as_ref().map(Arc::clone).ok_or_else(|| {
        ApiError::missing(
            "no chat service is set up: start the server with GROQ_API_KEY, or with --base-url for another service",
        )
    })?;
    let text = request.query.trim().to_owned();
    if text.is_empty() {
        return Err(ApiError::empty("`query` is empty: ask something").param("query"));
    }
    if !(0.0..=2.0).contains(&request.temperature) {
        return Err(ApiError::bad("`temperature` must lie in 0 to 2").param("temperature"));
    }
    if request.max_tokens == 0 {
        return Err(ApiError::bad("`max_tokens` must be at least 1").param("max_tokens"));
    }
    let searcher = state.index(request.retrieval.index.as_deref())?.searcher();
    let options = request.retrieval.options(&state, &searcher, request.k).await?;
    let query = Query { text: text.clone(), vector: None };
    let found = pipeline::search(&state, &searcher, query, options).await?;
    let (hits, took) = (found.hits, found.took_ms);
    if hits.is_empty() {
        let nothing = json!({
            "query": text, "answer": "", "refused": true, "sentences": [], "citations": [], "passages": [],
            "hits": [], "took_ms": { "search": took },
        });
        let done = Event::default().event("done").json_data(&nothing).unwrap_or_default();
        return Ok(match request.stream {
            true => Sse::new(tokio_stream::once(Ok::<_, Infallible>(done))).into_response(),
            false => Json(nothing).into_response(),
        });
    }
    let options = AnswerOptions {
        model: request.model.or_else(|| answers.model.clone()).unwrap_or_default(),
        temperature: request.temperature,
        max_tokens: request.max_tokens,
        passage_tokens: request.passage_tokens,
        stream: request.stream,
    };
    let (filler, passages) = (Arc::clone(&answers), hits.clone());
    let (question, wanted) = (text.clone(), options.clone());
    let prompt = blocking(move || {
        let count = |text: &str| searcher.count_tokens(text);
        filler.answerer.prompt(&question, &passages, &wanted, &count)
    })
    .await?;
    let shown: Vec<HitReply> = hits.into_iter().map(HitReply::from).collect();
    let head = json!({ "query": text, "passages": prompt.passages, "hits": shown });
    let first = head.clone();
    let whole = move |answer: Answer, prompt: &Prompt| {
        let mut whole = head;
        let rest = json!({
            "answer": answer.text,
            "refused": answer.refused,
            "sentences": answer.sentences,
            "citations": answer.citations(prompt),
            "model": answer.model,
            "finish_reason": answer.finish_reason,
            "usage": answer.usage,
            "took_ms": { "search": took, "answer": answer.took_ms },
        });
        if let (Value::Object(whole), Value::Object(rest)) = (&mut whole, rest) {
            whole.extend(rest);
        }
        whole
    };
    if !request.stream {
        let whole = blocking(move || {
            let answer = ask(&answers, &prompt, options, &mut |_| ControlFlow::Continue(()))?;
            Ok(whole(answer, &prompt))
        })
        .await?;
        return Ok(Json(whole).into_response());
    }
    let (sender, receiver) = channel(MAX_WAITING_EVENTS);
    tokio::task::spawn_blocking(move || {
        send(&sender, "hits", &first);
        let outcome = ask(&answers, &prompt, options, &mut |event| {
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
            Ok(answer) => send(&sender, "done", &whole(answer, &prompt)),
            Err(error) => send(&sender, "error", &ApiError::from(error).to_json()),
        };
        drop(permit);
    });
    let events = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Sends an event; whether anyone still listens.
fn send(sender: &Sender<Event>, name: &str, data: &Value) -> bool {
    let event = Event::default().event(name).json_data(data).unwrap_or_default();
    sender.blocking_send(event).is_ok()
}

fn ask(
    answers: &Answers,
    prompt: &Prompt,
    mut options: AnswerOptions,
    event: &mut dyn FnMut(AnswerEvent<'_>) -> ControlFlow<()>,
) -> Result<Answer> {
    if options.model.is_empty() {
        options.model = answers.answerer.client.only_model().map_err(|e| match e {
            Error::Usage(_) => {
                Error::usage("the chat service offers several models: name one in `model`")
            }
            other => other,
        })?;
    }
    answers.answerer.answer(prompt, &options, event)
}
