//! Answers from retrieved passages, written by a chat service, with checked quotes.
//!
//! Nothing else in this crate talks to a language model. Any service with the protocol of OpenAI's
//! chat completions can be used, including a local one.

mod chat;
mod client;
mod evidence;
mod prompt;
mod service;
mod stream;

pub use chat::{ChatMessage, ChatRequest, Completion, TokenUsage};
pub use client::{ChatClient, ChatEvent, DEFAULT_BASE_URL};
pub use evidence::{Citation, Piece, QuoteChecker, QuoteSource, QuoteStatus, Sentence};
pub use prompt::{DEFAULT_TEMPLATE, NumberedPassage, Prompt, PromptTemplate, REFUSAL};
pub use service::ChatOptions;

use crate::error::Result;
use serde::Serialize;
use serde_json::{Map, Value};
use std::ops::ControlFlow;
use std::time::Instant;

/// Answers questions. May be shared between threads; holds no state between questions.
#[derive(Debug)]
pub struct Answerer {
    /// The chat service.
    pub client: ChatClient,
    /// The prompt template.
    pub template: PromptTemplate,
}

/// Options of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerOptions {
    /// The model's name at the service.
    pub model: String,
    /// Sampling temperature; 0 for the most likely words.
    pub temperature: f32,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
    /// The token budget of the passages, as the caller counts tokens.
    pub passage_tokens: usize,
    /// True to stream the text.
    pub stream: bool,
    /// Further options of the service, such as `top_p`, as they are.
    pub more: Map<String, Value>,
}

impl AnswerOptions {
    /// The defaults for a model: temperature 0, 1,024 tokens, 3,000 tokens of passages, streamed.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            temperature: 0.0,
            max_tokens: 1024,
            passage_tokens: 3000,
            stream: true,
            more: Map::new(),
        }
    }
}

/// An event while an answer arrives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerEvent<'a> {
    /// Text, or the mark after a sentence without support.
    Piece(Piece),
    /// The request is sent again, for this reason.
    Retry(&'a str),
    /// Nothing happened for a moment.
    Waiting,
}

/// A checked answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The text as the model wrote it.
    pub text: String,
    /// True if it states that the passages do not hold the answer.
    pub refused: bool,
    /// The sentences with their quotes.
    pub sentences: Vec<Sentence>,
    /// The model that the service names.
    pub model: String,
    /// The reason why it ended: `stop`, or `length` if the answer is cut.
    pub finish_reason: Option<String>,
    /// Token counts, if the service sends them.
    pub usage: Option<TokenUsage>,
    /// Milliseconds until the first text, and until the end.
    pub took_ms: AnswerTimings,
}

impl Answer {
    /// All quotes, each with the id of the passage that holds it.
    pub fn citations(&self, prompt: &Prompt) -> Vec<Value> {
        let id = |number: usize| prompt.passages.get(number - 1).map(|p| p.id.as_str());
        let all = self.sentences.iter().flat_map(|sentence| &sentence.citations);
        all.map(|citation| {
            let mut value = serde_json::json!(citation);
            value["passage_id"] = serde_json::json!(citation.passage.and_then(id));
            value
        })
        .collect()
    }
}

/// Milliseconds since the request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct AnswerTimings {
    /// Time until the first text.
    pub first_text: f64,
    /// Time until the end.
    pub total: f64,
}

impl Answer {
    /// Checks a text that a chat model wrote for a prompt, complete as it is.
    pub fn check(prompt: &Prompt, text: &str, model: &str) -> Self {
        let mut checker = checker(prompt);
        checker.push(text, &mut |_| {});
        checker.finish(&mut |_| {});
        Self {
            text: text.to_owned(),
            refused: checker.is_refusal(),
            sentences: checker.sentences().to_vec(),
            model: model.to_owned(),
            finish_reason: None,
            usage: None,
            took_ms: AnswerTimings::default(),
        }
    }
}

/// A checker of quotes from the passages of a prompt.
fn checker(prompt: &Prompt) -> QuoteChecker {
    let sources = prompt.passages.iter().map(|p| QuoteSource::new(&p.text)).collect();
    QuoteChecker::new(sources, REFUSAL)
}

impl Answerer {
    /// Sends a prompt and checks the answer as it arrives. `event` stops it with
    /// [`ControlFlow::Break`].
    ///
    /// # Errors
    ///
    /// As [`ChatClient::complete`].
    pub fn answer(
        &self,
        prompt: &Prompt,
        options: &AnswerOptions,
        event: &mut dyn FnMut(AnswerEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Answer> {
        let mut checker = checker(prompt);
        let request = ChatRequest {
            model: options.model.clone(),
            messages: prompt.messages.clone(),
            temperature: options.temperature,
            max_completion_tokens: options.max_tokens,
            stream: options.stream,
            more: options.more.clone(),
        };
        let started = Instant::now();
        let elapsed = || started.elapsed().as_secs_f64() * 1e3;
        let mut took_ms = AnswerTimings::default();
        let completion = self.client.complete(&request, &mut |chat_event| match chat_event {
            ChatEvent::Waiting => event(AnswerEvent::Waiting),
            ChatEvent::Retry(why) => event(AnswerEvent::Retry(why)),
            ChatEvent::Text(text) => {
                if took_ms.first_text == 0.0 {
                    took_ms.first_text = elapsed();
                }
                let mut flow = ControlFlow::Continue(());
                checker.push(text, &mut |piece| {
                    if flow.is_continue() {
                        flow = event(AnswerEvent::Piece(piece));
                    }
                });
                flow
            }
        })?;
        checker.finish(&mut |piece| {
            // The answer is complete, so there is nothing to stop.
            let _ = event(AnswerEvent::Piece(piece));
        });
        took_ms.total = elapsed();
        Ok(Answer {
            refused: checker.is_refusal(),
            sentences: checker.sentences().to_vec(),
            model: completion.model.unwrap_or_else(|| options.model.clone()),
            finish_reason: completion.finish_reason,
            usage: completion.usage,
            text: completion.text,
            took_ms,
        })
    }
}
