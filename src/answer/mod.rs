//! An answer from retrieved passages, by a chat service, with its citations checked.
//!
//! Optional: nothing else in this crate talks to a language model. Any service that speaks the protocol of OpenAI's
//! chat completions will do, one on this machine too.

mod client;
mod evidence;
mod prompt;
mod service;
mod stream;

pub use client::{
    ChatClient, ChatEvent, ChatRequest, Completion, DEFAULT_BASE_URL, Message, Usage,
};
pub use evidence::{Citation, Evidence, Piece, QuoteStatus, Sentence, Source};
pub use prompt::{DEFAULT_TEMPLATE, NumberedPassage, Prompt, REFUSAL, Template};
pub use service::ChatOptions;

use crate::error::Result;
use crate::search::Hit;
use serde::Serialize;
use std::ops::ControlFlow;
use std::time::Instant;

/// Answers questions. May be shared between threads; holds no state between questions.
#[derive(Debug)]
pub struct Answerer {
    /// Who writes.
    pub client: ChatClient,
    /// How passages and question are put together.
    pub template: Template,
}

/// How to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerOptions {
    /// The model's name at the service.
    pub model: String,
    /// 0 for the likeliest words.
    pub temperature: f32,
    /// The longest answer in tokens.
    pub max_tokens: u32,
    /// Tokens that the passages may take, as the caller counts them.
    pub passage_tokens: usize,
    /// Whether the text is wanted while it is written.
    pub stream: bool,
}

impl AnswerOptions {
    /// The defaults for a model: temperature 0, 1,024 tokens, passages of 3,000, streamed.
    pub fn new(model: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            temperature: 0.0,
            max_tokens: 1024,
            passage_tokens: 3000,
            stream: true,
        }
    }
}

/// What happens while an answer is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerEvent<'a> {
    /// Text, or the mark behind a sentence without support.
    Piece(Piece),
    /// The service is asked again; why.
    Retry(&'a str),
    /// Nothing happened for a moment.
    Waiting,
}

/// A checked answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The text as the model wrote it.
    pub text: String,
    /// Whether it says that the passages do not hold the answer.
    pub refused: bool,
    /// Sentence by sentence, with the quotes.
    pub sentences: Vec<Sentence>,
    /// The model that the service says it used.
    pub model: String,
    /// Why it ended: `stop`, or `length` where the answer is cut.
    pub finish_reason: Option<String>,
    /// Tokens, where the service counts them.
    pub usage: Option<Usage>,
    /// Milliseconds to the first text, and to the end.
    pub took_ms: AnswerTimings,
}

impl Answer {
    /// All quotes, each with the id of the passage it stands in.
    pub fn citations(&self, prompt: &Prompt) -> Vec<serde_json::Value> {
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

/// Milliseconds from the request on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct AnswerTimings {
    /// Until text arrived.
    pub first_text: f64,
    /// Until the end.
    pub total: f64,
}

impl Answerer {
    /// The prompt for a question and the passages that were found; `count` counts tokens.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Usage`] where the template fails.
    pub fn prompt(
        &self,
        question: &str,
        hits: &[Hit],
        options: &AnswerOptions,
        count: &dyn Fn(&str) -> usize,
    ) -> Result<Prompt> {
        self.template.fill(question, hits, options.passage_tokens, count)
    }

    /// Sends a prompt and checks the answer as it arrives. `event` may end it at any time with
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
        let sources = prompt.passages.iter().map(|p| Source::new(&p.text)).collect();
        let mut evidence = Evidence::new(sources, REFUSAL);
        let request = ChatRequest {
            model: options.model.clone(),
            messages: prompt.messages.clone(),
            temperature: options.temperature,
            max_completion_tokens: options.max_tokens,
            stream: options.stream,
        };
        let started = Instant::now();
        let elapsed = || started.elapsed().as_secs_f64() * 1e3;
        let mut took_ms = AnswerTimings::default();
        let completion = self.client.complete(&request, &mut |news| match news {
            ChatEvent::Waiting => event(AnswerEvent::Waiting),
            ChatEvent::Retry(why) => event(AnswerEvent::Retry(why)),
            ChatEvent::Text(text) => {
                if took_ms.first_text == 0.0 {
                    took_ms.first_text = elapsed();
                }
                let mut flow = ControlFlow::Continue(());
                evidence.push(text, &mut |piece| {
                    if flow.is_continue() {
                        flow = event(AnswerEvent::Piece(piece));
                    }
                });
                flow
            }
        })?;
        evidence.finish(&mut |piece| {
            // Whoever stops now has the whole answer.
            let _ = event(AnswerEvent::Piece(piece));
        });
        took_ms.total = elapsed();
        Ok(Answer {
            refused: evidence.is_refusal(),
            sentences: evidence.sentences().to_vec(),
            model: completion.model.unwrap_or_else(|| options.model.clone()),
            finish_reason: completion.finish_reason,
            usage: completion.usage,
            text: completion.text,
            took_ms,
        })
    }
}
