//! Requests of `/v1/chat/completions`: the options of OpenAI that are obeyed, passed on or refused.

use super::search_request::Retrieval;
use crate::answer::{AnswerOptions, ChatMessage};
use crate::server::error::{ApiError, ApiResult};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// A conversation, whose last turn is answered.
#[derive(Debug, Deserialize, ToSchema)]
pub(super) struct ChatCompletionRequest {
    /// The turns, the last one of the user.
    messages: Vec<Turn>,
    /// `warpseek/INDEX` answers from that index; other names, from the default one.
    #[schema(example = "warpseek/my-index")]
    model: Option<String>,
    /// Sampling temperature: 0 for the likeliest words, up to 2 [default: 0].
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f32>,
    /// The maximum length of the answer in tokens.
    #[schema(minimum = 1)]
    max_tokens: Option<u32>,
    /// The same as `max_tokens`; if both are given, this one counts.
    #[schema(minimum = 1)]
    max_completion_tokens: Option<u32>,
    /// Send the text as it is written, as server-sent events.
    stream: Option<bool>,
    /// Options of a stream.
    stream_options: Option<StreamOptions>,
    /// The number of passages [default: 5].
    #[schema(minimum = 1)]
    k: Option<usize>,
    /// The maximum number of tokens of all passages.
    passage_tokens: Option<usize>,
    #[serde(flatten)]
    retrieval: Retrieval,
    /// Options for the chat service, and those that are refused.
    #[serde(flatten)]
    #[schema(ignore)]
    others: Map<String, Value>,
}

/// Options of a stream.
#[derive(Debug, Default, Deserialize, ToSchema)]
struct StreamOptions {
    /// Send the number of tokens before the end.
    #[serde(default)]
    include_usage: Option<bool>,
}

/// A turn of a conversation.
#[derive(Debug, Deserialize, ToSchema)]
struct Turn {
    /// `system`, `developer`, `user` or `assistant`.
    #[schema(example = "user")]
    role: String,
    content: Option<TurnContent>,
    /// Fields without effect, and those that are refused.
    #[serde(flatten)]
    #[schema(ignore)]
    others: Map<String, Value>,
}

/// The text of a turn, whole or in parts.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged, expecting = "`content` must be a text or a list of parts with a `type`")]
enum TurnContent {
    /// The text.
    Text(String),
    /// Its parts.
    Parts(Vec<TurnPart>),
}

/// A part of a text.
#[derive(Debug, Deserialize, ToSchema)]
struct TurnPart {
    /// Only `text`.
    #[schema(example = "text")]
    r#type: String,
    text: Option<String>,
}

/// Options that are passed on to the chat service as they are.
const PASSED_ON: [&str; 7] = [
    "top_p",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "reasoning_effort",
    "verbosity",
];

/// Options that are accepted and have no effect.
const NO_EFFECT: [&str; 9] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "parallel_tool_calls",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
];

/// Options that are refused, with the values that are accepted because they change nothing.
const REFUSED: [(&str, &[&str]); 14] = [
    ("n", &["1"]),
    ("tools", &["[]"]),
    ("tool_choice", &["\"none\"", "\"auto\""]),
    ("functions", &["[]"]),
    ("function_call", &["\"none\"", "\"auto\""]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("logprobs", &["false"]),
    ("top_logprobs", &["0"]),
    ("logit_bias", &["{}"]),
    ("modalities", &["[\"text\"]"]),
    ("audio", &[]),
    ("moderation", &[]),
    ("prediction", &[]),
    ("web_search_options", &[]),
];

/// Fields of a turn that are refused: what it says stands in them, not in its text.
const REFUSED_OF_TURNS: [&str; 3] = ["audio", "tool_calls", "function_call"];

/// The longest answer by default, in tokens.
const DEFAULT_MAX_TOKENS: u32 = 1024;

/// A checked conversation.
pub(super) struct Chat {
    /// The last turn.
    pub(super) question: String,
    /// The turns of the system, joined.
    system: String,
    /// The turns of the user and the assistant before the last.
    earlier: Vec<ChatMessage>,
    pub(super) model: Option<String>,
    pub(super) k: Option<usize>,
    pub(super) passage_tokens: usize,
    pub(super) retrieval: Retrieval,
    pub(super) options: AnswerOptions,
    /// True if a stream ends with the number of tokens.
    pub(super) with_usage: bool,
    pub(super) warnings: Vec<String>,
}

impl Chat {
    /// Checks a request.
    pub(super) fn new(request: ChatCompletionRequest) -> ApiResult<Self> {
        let temperature = request.temperature.unwrap_or(0.0);
        let is_valid = (0.0..=2.0).contains(&temperature);
        ApiError::check(is_valid, "temperature", "`temperature` must lie in 0 to 2")?;
        let lengths = [
            ("max_tokens", request.max_tokens),
            ("max_completion_tokens", request.max_completion_tokens),
        ];
        for (name, n) in lengths {
            ApiError::check(n != Some(0), name, format!("`{name}` must be at least 1"))?;
        }
        let max_tokens = request.max_completion_tokens.or(request.max_tokens);
        let mut warnings = Vec::new();
        let more = options_of(request.others, &mut warnings)?;
        let mut chat = Self {
            question: String::new(),
            system: String::new(),
            earlier: Vec::new(),
            model: request.model,
            k: request.k,
            passage_tokens: 0,
            retrieval: request.retrieval,
            options: AnswerOptions {
                temperature,
                max_tokens: max_tokens.unwrap_or(DEFAULT_MAX_TOKENS),
                stream: request.stream.unwrap_or(false),
                more,
                ..AnswerOptions::new("")
            },
            with_usage: request.stream_options.and_then(|o| o.include_usage).unwrap_or(false),
            warnings,
        };
        chat.passage_tokens = request.passage_tokens.unwrap_or(chat.options.passage_tokens);
        chat.take_turns(request.messages)?;
        Ok(chat)
    }

    fn take_turns(&mut self, turns: Vec<Turn>) -> ApiResult<()> {
        let refuse = |message: String| Err(ApiError::invalid(message).param("messages"));
        let last = turns.len().checked_sub(1);
        for (number, turn) in turns.into_iter().enumerate() {
            let text = turn.text(number)?;
            match turn.role.as_str() {
                "system" | "developer" => {
                    self.system += if self.system.is_empty() { "" } else { "\n\n" };
                    self.system += &text;
                }
                "user" if Some(number) == last => self.question = text.trim().to_owned(),
                "user" => self.earlier.push(ChatMessage { role: "user", content: text }),
                "assistant" => self.earlier.push(ChatMessage { role: "assistant", content: text }),
                role => {
                    let role: String = role.chars().take(40).collect();
                    let known = "system, developer, user or assistant";
                    return refuse(format!(
                        "`messages` {number} has the role '{role}': use {known}"
                    ));
                }
            }
        }
        if self.question.is_empty() {
            let message = "the last of `messages` must be a question of the user";
            return Err(ApiError::empty(message).param("messages"));
        }
        Ok(())
    }

    /// Adds the turns of the conversation to the messages of a prompt: those of the system after
    /// its rules, earlier turns before the passages and the question.
    pub(super) fn surround(&mut self, prompt: &mut Vec<ChatMessage>) {
        let system = std::mem::take(&mut self.system);
        let has_rules = prompt.first().is_some_and(|first| first.role == "system");
        match prompt.first_mut() {
            Some(first) if has_rules && !system.trim().is_empty() => {
                first.content += &format!("\n\n{}", system.trim());
            }
            _ if !system.trim().is_empty() => {
                prompt.insert(0, ChatMessage { role: "system", content: system.trim().to_owned() });
            }
            _ => {}
        }
        let at = prompt.len().saturating_sub(1);
        prompt.splice(at..at, std::mem::take(&mut self.earlier));
    }
}

impl Turn {
    /// The text. Parts that are no text are refused by name.
    fn text(&self, number: usize) -> ApiResult<String> {
        let has = |name: &&&str| self.others.get(**name).is_some_and(|value| !is_empty(value));
        if let Some(name) = REFUSED_OF_TURNS.iter().find(has) {
            let message = format!("`messages` {number} has `{name}`: only text is read");
            return Err(ApiError::invalid(message).param("messages"));
        }
        let parts = match &self.content {
            None => return Ok(String::new()),
            Some(TurnContent::Text(text)) => return Ok(text.clone()),
            Some(TurnContent::Parts(parts)) => parts,
        };
        let texts = parts.iter().map(|part| match (part.r#type.as_str(), &part.text) {
            ("text", Some(text)) => Ok(text.as_str()),
            (kind, _) => {
                let kind: String = kind.chars().take(40).collect();
                let message = format!("`messages` {number} has a part '{kind}': only text is read");
                Err(ApiError::invalid(message).param("messages"))
            }
        });
        texts.collect::<ApiResult<Vec<&str>>>().map(|texts| texts.join("\n"))
    }
}

/// True for null and an empty list.
fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

/// The options that are passed on. Refuses those that would change the answer and cannot be obeyed.
fn options_of(
    others: Map<String, Value>,
    warnings: &mut Vec<String>,
) -> ApiResult<Map<String, Value>> {
    let mut more = Map::new();
    for (name, value) in others {
        if value.is_null() || NO_EFFECT.contains(&&*name) {
            continue;
        }
        if PASSED_ON.contains(&&*name) {
            check_passed_on(&name, &value)?;
            more.insert(name, value);
            continue;
        }
        let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
        match refused {
            Some((_, neutral)) if neutral.contains(&value.to_string().as_str()) => {}
            Some((name, neutral)) => {
                let cure = neutral.first().map_or("leave it out".to_owned(), |neutral| {
                    format!("it can only be {neutral}")
                });
                return Err(
                    ApiError::invalid(format!("`{name}` is not supported: {cure}")).param(*name)
                );
            }
            None => {
                let shown: String = name.chars().take(60).collect();
                warnings.push(format!("`{shown}` is unknown and was not read"));
            }
        }
    }
    Ok(more)
}

fn check_passed_on(name: &str, value: &Value) -> ApiResult<()> {
    let number = value.as_f64();
    let (is_valid, rule) = match name {
        "top_p" => (number.is_some_and(|p| (0.0..=1.0).contains(&p)), "a number from 0 to 1"),
        "seed" => (value.is_i64(), "a whole number"),
        "presence_penalty" | "frequency_penalty" => {
            (number.is_some_and(|p| (-2.0..=2.0).contains(&p)), "a number from -2 to 2")
        }
        "stop" => {
            let texts = value.as_array().is_some_and(|all| all.iter().all(Value::is_string));
            (texts || value.is_string(), "a text or a list of texts")
        }
        _ => (value.is_string(), "a text"),
    };
    ApiError::check(is_valid, name, format!("`{name}` must be {rule}, not {}", json!(value)))
}
