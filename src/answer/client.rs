//! Chat completions over HTTP: Groq, or anything that speaks the same protocol.

use super::service::{News, Service};
use crate::error::{Error, Result};
use crate::net::{self, Secret, is_loopback, show};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use ureq::http::{HeaderValue, Uri};

/// Groq's address.
pub const DEFAULT_BASE_URL: &str = "https://api.groq.com/openai/v1";

/// How often the caller is asked whether to go on while nothing arrives.
const TICK: Duration = Duration::from_millis(50);

/// A chat service. May be shared between threads; nothing of it is global.
#[derive(Debug, Clone)]
pub struct ChatClient(Arc<Service>);

/// How long to wait for the service, and how often to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a name to resolve, as long again for the connection.
    pub connect: Duration,
    /// For the first byte of an answer, and for each further one.
    pub stall: Duration,
    /// How often a request is sent again that failed before any text arrived: after 408, 409, 429, 498, 5xx, and
    /// where there was no connection.
    pub retries: u32,
    /// The pause before the first retry where the service names none; each further one is twice as long, up to
    /// 8 s.
    pub backoff: Duration,
    /// The longest pause that the service may ask for.
    pub longest: Duration,
}

impl Default for Patience {
    /// 10 s to connect, 60 s for an answer, 2 retries after 0.5 and 1 s; pauses of up to 60 s are honoured.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(60),
            retries: 2,
            backoff: Duration::from_millis(500),
            longest: Duration::from_secs(60),
        }
    }
}

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
    pub fn new(
        base_url: &str,
        key: Option<Secret>,
        offline: bool,
        patience: Patience,
    ) -> Result<Self> {
        let base = base_url.trim().trim_end_matches('/').to_owned();
        let uri: Uri = base
            .parse()
            .ok()
            .filter(|uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")))
            .filter(|uri| uri.host().is_some_and(|host| !host.is_empty()))
            .ok_or_else(|| {
                Error::usage(
                    "the chat service's address is no http or https address: check --base-url",
                )
            })?;
        let name = show(&uri);
        if offline && !is_loopback(&uri) {
            return Err(Error::usage(format!(
                "{name}: not asked, since offline permits loopback addresses only; name a local model server \
                 with --base-url"
            )));
        }
        if key.is_some() && uri.scheme_str() == Some("http") && !is_loopback(&uri) {
            return Err(Error::usage(format!(
                "{name}: the key would travel unencrypted; use an https address"
            )));
        }
        let bearer = match &key {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", key.reveal()))
                    .map_err(|_| {
                        Error::usage("the chat service's key holds characters that no key has")
                    })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let agent = net::agent(patience.connect, patience.stall, !offline && !is_loopback(&uri));
        Ok(Self(Arc::new(Service { base, name, key, bearer, agent, patience })))
    }

    /// The service's address as messages show it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether a key is sent along.
    pub fn has_key(&self) -> bool {
        self.0.key.is_some()
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
