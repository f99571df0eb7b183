//! `/v1/chat/completions`, for clients of OpenAI: the indexes as models that answer.
//!
//! The last turn is the question. The prompt holds its passages as in `/v1/answer`, and the earlier
//! turns before them. The server's chat service writes the answer, whose quotes are checked.

use super::answer::{
    DEFAULT_PASSAGES, FoundPassages, MAX_WAITING_EVENTS, NO_CHAT_SERVICE, Question, ask,
    passages_for,
};
use super::chat_request::{Chat, ChatCompletionRequest};
use super::warnings::Warned;
use crate::answer::{Answer, AnswerEvent, AnswerOptions, Piece, Prompt, REFUSAL, TokenUsage};
use crate::search::{Hit, Timings};
use crate::server::body::JsonRequest;
use crate::server::error::{ApiError, ApiResult};
use crate::server::guard::unique_numbers;
use crate::server::scheduled::blocking;
use crate::server::state::AppState;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::iter;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::sync::mpsc::channel;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

/// The part of a model's name before the name of an index.
pub(super) const MODEL_PREFIX: &str = "warpseek/";

/// The error message if the chat service offers several models and none is named.
const SEVERAL_MODELS: &str =
    "the chat service offers several models: start the server with --chat-model";

/// Answer the last turn of a conversation from retrieved passages
///
/// The model `warpseek/INDEX` answers from that index. The reply also has `passages`, `citations`
/// and `sentences`, as that of `/v1/answer`; a stream has them in the event with `finish_reason`.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai",
    request_body = ChatCompletionRequest,
    responses(
        (status = 200, content((Object = "application/json"), (String = "text/event-stream"))),
        (status = 502, description = "The chat service failed")))]
pub(super) async fn completions(
    request: JsonRequest<ChatCompletionRequest>,
) -> ApiResult<Response> {
    let JsonRequest { state, body, permit } = request;
    let mut chat = Chat::new(body)?;
    let missing = || ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_CHAT_SERVICE).lasting();
    let answers = state.answers.clone().ok_or_else(missing)?;
    let warning = choose_index(&state, &mut chat)?;
    let retrieval = &chat.retrieval;
    let question = Question {
        text: &chat.question,
        k: chat.k.unwrap_or(DEFAULT_PASSAGES),
        passage_tokens: chat.passage_tokens,
    };
    let FoundPassages { hits, took, prompt } =
        passages_for(&state, &answers, retrieval, question).await?;
    let reply = Reply::new(retrieval.index.as_deref().unwrap_or_default(), hits, took);
    let mut warnings = std::mem::take(&mut chat.warnings);
    warnings.extend(warning);
    let Some(mut prompt) = prompt else {
        let answer = Answer { finish_reason: Some("stop".to_owned()), ..nothing_found() };
        let prompt = Prompt { messages: vec![], passages: vec![], left_out: 0 };
        if !chat.options.stream {
            return Ok(Warned(warnings, reply.whole(&answer, &prompt)).into_response());
        }
        let text = reply.piece(json!({ "role": "assistant", "content": REFUSAL }));
        let ends = reply.ends(&answer, &prompt, chat.with_usage);
        let (sender, receiver) = channel(MAX_WAITING_EVENTS);
        for event in iter::once(data(&text)).chain(ends) {
            // The channel has room for them.
            let _ = sender.try_send(event);
        }
        return Ok(stream(receiver, warnings));
    };
    chat.surround(&mut prompt.messages);
    let options = AnswerOptions {
        model: answers.model.clone().unwrap_or_default(),
        passage_tokens: chat.passage_tokens,
        ..chat.options
    };
    if !options.stream {
        // Held by this request: if the client disconnects, the chat service is asked no further.
        let waiting = Arc::new(());
        let is_waited_for = Arc::downgrade(&waiting);
        let mut event = move |_: AnswerEvent<'_>| match is_waited_for.strong_count() {
            0 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let work = move || {
            let answer = ask(&answers, &prompt, options, SEVERAL_MODELS, &mut event)?;
            Ok(reply.whole(&answer, &prompt))
        };
        // Retries were made already where they could help.
        let reply = blocking(work).await.map_err(ApiError::lasting)?;
        drop(waiting);
        return Ok(Warned(warnings, reply).into_response());
    }
    let with_usage = chat.with_usage;
    let (sender, receiver) = channel(MAX_WAITING_EVENTS);
    tokio::task::spawn_blocking(move || {
        let send = |value: &Value| sender.blocking_send(data(value)).is_ok();
        send(&reply.piece(json!({ "role": "assistant", "content": "" })));
        let outcome = ask(&answers, &prompt, options, SEVERAL_MODELS, &mut |event| {
            let goes_on = match event {
                AnswerEvent::Piece(Piece::Text(text)) => {
                    send(&reply.piece(json!({ "content": text })))
                }
                AnswerEvent::Piece(Piece::Unsupported) | AnswerEvent::Retry(_) => true,
                AnswerEvent::Waiting => !sender.is_closed(),
            };
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        let ends = match outcome {
            Ok(answer) => reply.ends(&answer, &prompt, with_usage),
            Err(error) => vec![data(&ApiError::from(error).to_json()), done()],
        };
        for event in ends {
            // It fails only if the client is gone.
            let _ = sender.blocking_send(event);
        }
        drop(permit);
    });
    Ok(stream(receiver, warnings))
}

/// Sets the index that the model's name names. A name of another model gets the default index, with
/// a warning.
fn choose_index(state: &AppState, chat: &mut Chat) -> ApiResult<Option<String>> {
    let model = chat.model.as_deref().unwrap_or_default();
    let named = model.strip_prefix(MODEL_PREFIX);
    if let (Some(named), Some(index)) = (named, &chat.retrieval.index) {
        let message =
            format!("`model` names the index '{named}', and `index` names '{index}': give one");
        ApiError::check(named == index, "index", message)?;
    }
    let wanted = chat.retrieval.index.as_deref().or(named);
    let found = state.index(wanted).map_err(|e| match (wanted, named) {
        (None, _) => {
            let names: Vec<String> = state
                .indexes
                .iter()
                .map(|index| format!("{MODEL_PREFIX}{}", index.served.name))
                .collect();
            match names.is_empty() {
                true => e,
                false => {
                    let message =
                        format!("`model` must name an index: use one of {}", names.join(", "));
                    ApiError::invalid(message).param("model")
                }
            }
        }
        (_, Some(_)) => e.param("model"),
        _ => e,
    })?;
    let name = &found.served.name;
    let is_own = model.is_empty() || named.is_some() || model == MODEL_PREFIX.trim_end_matches('/');
    let warning = (!is_own).then(|| {
        let shown: String = model.chars().take(80).collect();
        format!("model '{shown}' is not served here; '{MODEL_PREFIX}{name}' was used")
    });
    chat.retrieval.index = Some(name.clone());
    Ok(warning)
}

/// Everything in a reply but the answer.
struct Reply {
    id: String,
    created: u64,
    index: String,
    hits: Vec<Hit>,
    took: Timings,
}

impl Reply {
    fn new(index: &str, hits: Vec<Hit>, took: Timings) -> Self {
        let (time, number) = unique_numbers();
        let created = u64::try_from(time / 1_000_000).unwrap_or_default();
        Self {
            id: format!("chatcmpl-{time:x}-{number:x}"),
            created,
            index: index.to_owned(),
            hits,
            took,
        }
    }

    fn frame(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created,
            "model": format!("{MODEL_PREFIX}{}", self.index), "choices": choices,
        })
    }

    /// The reply as one object.
    fn whole(&self, answer: &Answer, prompt: &Prompt) -> Value {
        let message = json!({
            "role": "assistant", "content": answer.text, "refusal": null,
            "annotations": self.annotations(answer, prompt),
        });
        let choice = json!({
            "index": 0, "message": message, "logprobs": null, "finish_reason": reason(answer),
        });
        let mut reply = self.frame("chat.completion", json!([choice]));
        if let Some(usage) = answer.usage {
            reply["usage"] = json!(usage);
        }
        self.add_facts(&mut reply, answer, prompt);
        reply
    }

    /// An event of a stream with a part of the message.
    fn piece(&self, delta: Value) -> Value {
        let choice = json!({
            "index": 0, "delta": delta, "logprobs": null, "finish_reason": null,
        });
        self.frame("chat.completion.chunk", json!([choice]))
    }

    /// The last events of a stream: what is known about the answer, and, if it was asked for, the
    /// number of tokens.
    fn ends(&self, answer: &Answer, prompt: &Prompt, with_usage: bool) -> Vec<Event> {
        let mut last = self.piece(json!({ "annotations": self.annotations(answer, prompt) }));
        last["choices"][0]["finish_reason"] = json!(reason(answer));
        self.add_facts(&mut last, answer, prompt);
        let mut events = vec![data(&last)];
        if with_usage {
            let mut usage = self.frame("chat.completion.chunk", json!([]));
            usage["usage"] = json!(answer.usage.unwrap_or_default());
            events.push(data(&usage));
        }
        events.push(done());
        events
    }

    /// Adds the fields that `/v1/answer` has beside the text of an answer.
    fn add_facts(&self, reply: &mut Value, answer: &Answer, prompt: &Prompt) {
        reply["chat_model"] = json!(answer.model);
        reply["refused"] = json!(answer.refused);
        reply["citations"] = json!(answer.citations(prompt));
        reply["sentences"] = json!(answer.sentences);
        reply["passages"] = json!(prompt.passages);
        reply["took_ms"] = json!({ "search": self.took, "answer": answer.took_ms });
    }

    /// The quotes that were found in passages, in the form of OpenAI's web citations.
    fn annotations(&self, answer: &Answer, prompt: &Prompt) -> Vec<Value> {
        let mut from = 0;
        let mut all = Vec::new();
        for citation in answer.sentences.iter().flat_map(|sentence| &sentence.citations) {
            let found = answer.text[from..].find(&citation.quote).map(|at| from + at);
            from = found.map_or(from, |at| at + citation.quote.len());
            let passage = citation.passage.and_then(|number| prompt.passages.get(number - 1));
            let (Some(at), Some(passage)) = (found, passage) else { continue };
            let start = answer.text[..at].chars().count();
            let hit = self.hits.iter().find(|hit| hit.id == passage.id);
            let title = if passage.title.is_empty() { &passage.id } else { &passage.title };
            let url = hit.and_then(web_address);
            let url = url.unwrap_or_else(|| format!("{MODEL_PREFIX}{}/{}", self.index, passage.id));
            all.push(json!({
                "type": "url_citation",
                "url_citation": {
                    "start_index": start,
                    "end_index": start + citation.quote.chars().count(),
                    "title": title,
                    "url": url,
                    "passage_id": passage.id,
                    "range": citation.range,
                },
            }));
        }
        all
    }
}

/// The URL of a document, if its metadata holds one.
fn web_address(hit: &Hit) -> Option<String> {
    let values = ["url", "link", "source"].iter().filter_map(|name| hit.metadata.get(*name));
    let mut texts = values.filter_map(Value::as_str);
    texts
        .find(|text| text.starts_with("https://") || text.starts_with("http://"))
        .map(str::to_owned)
}

/// The answer to a question for which no passage was found.
fn nothing_found() -> Answer {
    let prompt = Prompt { messages: vec![], passages: vec![], left_out: 0 };
    Answer { usage: Some(TokenUsage::default()), ..Answer::check(&prompt, REFUSAL, "") }
}

fn reason(answer: &Answer) -> &str {
    answer.finish_reason.as_deref().unwrap_or("stop")
}

/// The event that ends a stream.
fn done() -> Event {
    Event::default().data("[DONE]")
}

fn data(value: &Value) -> Event {
    Event::default().json_data(value).unwrap_or_default()
}

fn stream(receiver: tokio::sync::mpsc::Receiver<Event>, warnings: Vec<String>) -> Response {
    let events = ReceiverStream::new(receiver).map(Ok::<_, Infallible>);
    let mut response = Sse::new(events).keep_alive(KeepAlive::default()).into_response();
    response.headers_mut().extend(super::warnings::headers(&warnings));
    response
}
