//! Client of chat completions over HTTP: Groq, or any service with the same protocol.

use super::chat::{ChatRequest, Completion};
use super::service::{ChatOptions, News, Service};
use crate::error::{Error, Result};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use warpseek_hub::http::Secret;

/// Groq's address.
pub const DEFAULT_BASE_URL: &str = "https://api.groq.com/openai/v1";

/// Interval at which the caller may stop while nothing arrives.
const TICK: Duration = Duration::from_millis(50);

/// A chat service. May be shared between threads; has no global state.
#[derive(Debug, Clone)]
pub struct ChatClient(Arc<Service>);

/// An event during a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatEvent<'a> {
    /// Text arrived.
    Text(&'a str),
    /// The request is sent again after a pause, for this reason.
    Retry(&'a str),
    /// Nothing happened for a moment.
    Waiting,
}

impl ChatClient {
    /// A client of the service at `base_url`, which usually ends in `/v1`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the address is invalid, offline mode forbids it, or the key is malformed
    /// or would travel unencrypted to another machine.
    pub fn new(base_url: &str, key: Option<Secret>, options: ChatOptions) -> Result<Self> {
        Service::new(base_url, key, options).map(|service| Self(Arc::new(service)))
    }

    /// The service's address as messages show it.
    pub fn name(&self) -> &str {
        self.0.http.name()
    }

    /// Sends a request and waits for the end of the reply. `event` is called many times a second
    /// and stops the request with [`ControlFlow::Break`].
    ///
    /// # Errors
    ///
    /// [`Error::Remote`] with the service's message, [`Error::Interrupted`] if `event` stops it.
    pub fn complete(
        &self,
        request: &ChatRequest,
        event: &mut dyn FnMut(ChatEvent<'_>) -> ControlFlow<()>,
    ) -> Result<Completion> {
        let (sender, receiver) = channel();
        let (service, request) = (Arc::clone(&self.0), request.clone());
        // A read blocks while the service is silent. A caller who stops does not wait for it.
        std::thread::spawn(move || {
            let outcome = service.complete(&request, &sender);
            let _ = sender.send(News::End(outcome));
        });
        loop {
            let flow = match receiver.recv_timeout(TICK) {
                Ok(News::Text(text)) => event(ChatEvent::Text(&text)),
                Ok(News::Retry(why)) => event(ChatEvent::Retry(&why)),
                Ok(News::End(outcome)) => return outcome,
                Err(RecvTimeoutError::Timeout) => event(ChatEvent::Waiting),
                Err(RecvTimeoutError::Disconnected) => ControlFlow::Break(()),
            };
            if flow.is_break() {
                return Err(Error::Interrupted("the answer was not waited for".to_owned()));
            }
        }
    }

    /// The model of a service that offers only one.
    ///
    /// # Errors
    ///
    /// [`Error::Remote`]; [`Error::Usage`] with the names if there are several, or none.
    pub fn only_model(&self) -> Result<String> {
        let mut names = self.models()?;
        match names.len() {
            1 => Ok(names.remove(0)),
            0 => {
                Err(Error::usage(format!("{} offers no model: name one with --model", self.name())))
            }
            _ => Err(Error::usage(format!(
                "name a model with --model, WARPSEEK_CHAT_MODEL or `chat_model` in the settings: \
                 {} offers {}",
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
