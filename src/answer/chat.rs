//! Types of the chat completions protocol.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`.
    pub role: &'static str,
    /// The text.
    pub content: String,
}

/// A request for a completion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The model's name at the service.
    pub model: String,
    /// The conversation.
    pub messages: Vec<ChatMessage>,
    /// Sampling temperature; 0 for the most likely words.
    pub temperature: f32,
    /// The longest answer, in tokens.
    pub max_completion_tokens: u32,
    /// True to stream the text.
    pub stream: bool,
    /// Further options of the service, such as `top_p`, as they are.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Token counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct TokenUsage {
    /// Tokens of the conversation.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
    /// The sum of both.
    pub total_tokens: u64,
}

/// The service's reply to a [`ChatRequest`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completion {
    /// The text.
    pub text: String,
    /// The model that the service names.
    pub model: Option<String>,
    /// The reason why the text ended: `stop`, `length`, ...
    pub finish_reason: Option<String>,
    /// Token counts, if the service sends them.
    pub usage: Option<TokenUsage>,
}
