//! Chat completions over HTTP: Groq, or anything that speaks the same protocol.

use super::service::{ChatOptions, News, Service};
use crate::error::{Error, Result};
use crate::hub::http::Secret;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Groq's address.
pub const DEFAULT_BASE_URL: &str = "https://api.groq.com/openai/v1";

/// How often the caller is asked whether to go on while nothing arrives.
const TICK: Duration = Duration::from_millis(50);

/// A chat service. May be shared between threads; nothing of it is global.
#[derive(Debug, Clone)]
pub struct ChatClient(Arc<Service>);

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// `system` or `user`.
    pub role: &'static str,
    /// The text.
    pub content: String,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The model's name at the service.
    pub model: String,
    /// The conversation.
    pub messages: Vec<Message>,
    /// 0 for the likeliest words.
    pub temperature: f32,
    /// The longest answer in tokens.
    pub max_completion_tokens: u32,
    /// Whether the text arrives as it is written.
    pub stream: bool,
}

/// Tokens that were counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Usage {
    /// Of the conversation.
    pub prompt_tokens: u64,
    /// Of the answer.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
}

/// What came back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// The model that the service says it used.
    pub model: Option<String>,
    /// `stop`, `length`, ...
    pub finish_reason: Option<String>,
    /// Tokens, where the service counts them.
    pub usage: Option<Usage>,
}

/// What happens during a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatEvent<'a> {
    /// Text arrived.
    Text(&'a str),
    /// The service is asked again after a pause; why.
    Retry(&'a str),
    /// Nothing happened for a moment.
    Waiting,
}

impl ChatClient {
    /// A client of the service at `base_url`, `.../v1` mostly.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the address is none, offline forbids it, the key is malformed or would travel
    /// unencrypted to another machine.
    pub fn new(base_url: &str, key: Option<Secret>, options: ChatOptions) -> Result<Self> {
        Service::new(base_url, key, options).map(|service| Self(Arc::new(service)))
    }

    /// The service's address as messages show it.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// Whether a key is sent along.
    pub fn has_key(&self) -> bool {
        self.0.has_key()
    }

    /// Asks and waits for the end of the answer. `event` hears what happens, many times a second, and may end
    /// it with [`ControlFlow::Break`] at any time.
    ///
    /// # Errors
    ///
    /// [`Error::Remote`] with what the service said, [`Error::Interrupted`] where `event` ended it.
    pub fn complete(
        &self,
        request: &ChatRequest,
        event: &mut dyn FnMut(ChatEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let (sender, receiver) = channel();
        let (service, request) = (Arc::clone(&self.0), request.clone());
        // A read may block for as long as the service is silent; a caller who stops does not wait for it.
        std::thread::spawn(move || {
            let outcome = service.complete(&request, &sender);
            let _ = sender.send(News::End(outcome));
        });
        let stopped = || Error::Interrupted("the answer was not waited for".to_owned());
        loop {
            let news = receiver.recv_timeout(TICK);
            let flow = match &news {
                Ok(News::Text(text)) => event(ChatEvent::Text(text)),
                Ok(News::Retry(why)) => event(ChatEvent::Retry(why)),
                Ok(News::End(_)) => ControlFlow::Continue(()),
                Err(RecvTimeoutError::Timeout) => event(ChatEvent::Waiting),
                Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
            };
            match (news, flow) {
                (Ok(News::End(outcome)), _) => return outcome,
                (_, ControlFlow::Break(())) => return Err(stopped()),
                _ => {}
            }
        }
    }

    /// The model of a service that offers just one.
    ///
    /// # Errors
    ///
    /// [`Error::Remote`]; [`Error::Usage`] with the names where there are several, or none.
    pub fn only_model(&self) -> Result<String> {
        let mut names = self.models()?;
        match names.len() {
            1 => Ok(names.remove(0)),
            0 => {
                Err(Error::usage(format!("{} offers no model: name one with --model", self.name())))
            }
            _ => Err(Error::usage(format!(
                "name a model with --model, WARPSEEK_CHAT_MODEL or `chat_model` in the settings: {} offers {}",
                self.name(),
                names.join(", ")
            ))),
        }
    }

    /// The names of the models that the service offers.
    ///
    /// # Errors
    ///
    /// [`Error::Remote`].
    pub fn models(&self) -> Result<Vec<String>> {
        self.0.models()
    }
}
