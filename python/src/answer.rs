//! Answers from retrieved passages, with checked quotes.

use crate::call::{Stop, run_waiting};
use crate::engine::EngineSettings;
use crate::error::usage;
use crate::opened::SharedIndex;
use crate::reading::SearchArguments;
use crate::values::to_python;
use pyo3::prelude::*;
use rayon::ThreadPool;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use warpseek::answer::{
    self, Answer, AnswerEvent, AnswerOptions, Answerer, DEFAULT_TEMPLATE, PromptTemplate,
};
use warpseek::error::{Error, Result};
use warpseek::hub::http::Secret;
use warpseek::search::SearchResult;

/// The prompt of a question: a conversation, and the passages in it.
#[pyclass(name = "Prompt", module = "warpseek._warpseek", frozen)]
pub(crate) struct PyPrompt(answer::Prompt);

impl PyPrompt {
    pub(crate) fn new(prompt: answer::Prompt) -> Self {
        Self(prompt)
    }
}

#[pymethods]
impl PyPrompt {
    /// The conversation: dicts with `role` and `content`.
    #[getter]
    fn messages<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &self.0.messages)
    }

    /// Checks the quotes of a text that a chat model wrote for this prompt.
    fn check<'py>(&self, py: Python<'py>, text: &str, model: &str) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &checked(&Answer::check(&self.0, text, model), &self.0))
    }

    /// Sends the prompt to a chat service and checks the answer.
    #[allow(clippy::too_many_arguments)]
    fn send<'py>(
        &self,
        py: Python<'py>,
        base_url: Option<String>,
        api_key: Option<String>,
        model: Option<String>,
        temperature: f32,
        max_tokens: u32,
        settings: EngineSettings,
    ) -> PyResult<Bound<'py, PyAny>> {
        if !(0.0..=2.0).contains(&temperature) {
            return Err(usage(format!("temperature is {temperature}; use 0 to 2")));
        }
        let engine = settings.engine()?;
        let work = |stop: &Stop, _: &ThreadPool| -> Result<Value> {
            let key = api_key.as_ref().map(Secret::new);
            let client = engine.chat_client(base_url.as_deref(), key)?.ok_or_else(|| {
                Error::usage(
                    "there is no key for Groq: set GROQ_API_KEY, pass api_key, or name another \
                     service with base_url (for Ollama http://localhost:11434/v1)",
                )
            })?;
            let model = model.clone().or_else(|| engine.settings.chat_model.clone());
            let model = model.map_or_else(|| client.only_model(), Ok)?;
            let options = AnswerOptions { temperature, max_tokens, ..AnswerOptions::new(model) };
            let template = PromptTemplate::new("the default template", DEFAULT_TEMPLATE)?;
            let answerer = Answerer { client, template };
            let answer = answerer.answer(&self.0, &options, &mut |event: AnswerEvent<'_>| {
                if let AnswerEvent::Retry(why) = event {
                    engine.note(&format!("{}: {why}", answerer.client.name()));
                }
                match stop.load(std::sync::atomic::Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            })?;
            Ok(checked(&answer, &self.0))
        };
        let answer = run_waiting(py, work, |_| true, |_, _| Ok(()))?;
        to_python(py, &answer)
    }
}

fn checked(answer: &Answer, prompt: &answer::Prompt) -> Value {
    let mut value = json!(answer);
    value["citations"] = answer.citations(prompt).into();
    value
}

/// Searches for a question, and fills the prompt.
pub(crate) fn prompt(
    index: &SharedIndex,
    question: &str,
    passage_tokens: usize,
    template: Option<String>,
    arguments: &SearchArguments,
    stop: &Stop,
) -> Result<(SearchResult, answer::Prompt)> {
    let template = match &template {
        Some(text) => PromptTemplate::new("template", text)?,
        None => PromptTemplate::new("the default template", DEFAULT_TEMPLATE)?,
    };
    let (searcher, options) = arguments.open(index, (true, true), stop)?;
    let found = searcher.search(question, &options)?;
    let count = |text: &str| searcher.count_tokens(text);
    let prompt = template.fill(question, &found.hits, passage_tokens, &count)?;
    Ok((found, prompt))
}
