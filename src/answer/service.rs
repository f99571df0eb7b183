//! Transport of the chat protocol: requests, retries, answers whole or streamed.

use super::chat::{ChatRequest, Completion, TokenUsage};
use super::stream::EventReader;
use crate::error::{Error, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::Sender;
use std::time::Duration;
use warpseek_hub::http::{
    HttpClient, HttpError, HttpErrorKind, HttpOptions, HttpResponse, RetryPolicy, Secret, Timeouts,
};

/// Limit for the bytes of an answer, far above what any model writes.
const MAX_BYTES: u64 = 16 << 20;

/// Connection settings of a chat client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatOptions {
    /// Permits loopback addresses only.
    pub offline: bool,
    /// Time-outs of the connection.
    pub timeouts: Timeouts,
    /// Retries. A request is not repeated once text of its answer has arrived.
    pub retry: RetryPolicy,
}

impl Default for ChatOptions {
    /// 10 s to connect, 60 s without a byte; 2 retries after 0.5 and 1 s, pauses of up to 60 s.
    fn default() -> Self {
        Self {
            offline: false,
            timeouts: Timeouts { connect: Duration::from_secs(10), ..Timeouts::default() },
            retry: RetryPolicy { retries: 2, ..RetryPolicy::default() },
        }
    }
}

/// A chat service.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) http: HttpClient,
    retry: RetryPolicy,
}

/// Progress of a request.
pub(super) enum News {
    Text(String),
    Retry(String),
    End(Result<Completion>),
}

impl Service {
    /// See [`super::ChatClient::new`].
    pub(super) fn new(base_url: &str, key: Option<Secret>, options: ChatOptions) -> Result<Self> {
        let ChatOptions { offline, timeouts, retry } = options;
        let settings = ["--base-url", "GROQ_API_KEY or --api-key-file"];
        let http = HttpOptions { secret: key, offline, proxy: true, timeouts, settings };
        let http = HttpClient::new(base_url, http)
            .map_err(|reason| Error::usage(format!("the chat service: {reason}")))?;
        if http.has_secret() && http.is_exposed() {
            let name = http.name();
            let reason = format!("{name}: the key would be sent unencrypted; use an https address");
            return Err(Error::usage(reason));
        }
        Ok(Self { http, retry })
    }

    /// Sends a request, with retries, and reports progress to `news`.
    pub(super) fn complete(
        &self,
        request: &ChatRequest,
        news: &Sender<News>,
    ) -> Result<Completion> {
        let mut failures = 0;
        loop {
            let mut has_text = false;
            let error = match self.ask(request, news, &mut has_text) {
                Ok(completion) => return Ok(completion),
                Err(error) => error,
            };
            // Text that the caller has received cannot be taken back.
            let pause = self.retry.pause(failures, &error).filter(|_| !has_text);
            let Some(pause) = pause else {
                return Err(self.remote(&self.advise(&error)));
            };
            failures += 1;
            let why = format!("{error}; asking again in {:.1} s", pause.as_secs_f32());
            if news.send(News::Retry(self.http.scrub(&why))).is_err() {
                return Err(Error::Interrupted("nobody waits for the answer".to_owned()));
            }
            std::thread::sleep(pause);
        }
    }

    /// Names of the models that the service offers, sorted.
    pub(super) fn models(&self) -> Result<Vec<String>> {
        let list = || read_json(check_status(self.http.ask("/models", None)?)?);
        let list: Value = list().map_err(|error| self.remote(&error.to_string()))?;
        let models = list["data"].as_array().into_iter().flatten();
        let mut names: Vec<String> =
            models.filter_map(|model| model["id"].as_str().map(str::to_owned)).collect();
        names.sort();
        Ok(names)
    }

    /// The reason of an error; if the model does not exist, with the models that do.
    fn advise(&self, error: &HttpError) -> String {
        match &error.kind {
            HttpErrorKind::Status { status, code }
                if *status == 404 || code.starts_with("model_") =>
            {
                let names = self.models().unwrap_or_default().join(", ");
                if names.is_empty() {
                    return format!("{error}; name another with --model");
                }
                format!("{error}; it offers {names}: name one with --model")
            }
            _ => error.to_string(),
        }
    }

    fn ask(
        &self,
        request: &ChatRequest,
        news: &Sender<News>,
        has_text: &mut bool,
    ) -> Result<Completion, HttpError> {
        let response = self.http.ask("/chat/completions", Some(wire(request)))?;
        let response = check_status(response)?;
        // Some services answer with one JSON object even if a stream was requested.
        let is_json =
            response.header("content-type").is_some_and(|it| it.starts_with("application/json"));
        if request.stream && !is_json {
            return read_stream(BufReader::new(response.take(MAX_BYTES)), news, has_text);
        }
        let mut completion = Completion::default();
        let text = take_in(&read_json(response)?, &mut completion, "message")?;
        completion.text = text.ok_or_else(|| {
            HttpError::permanent("its answer contains no text (an empty list of choices)")
        })?;
        let _ = news.send(News::Text(completion.text.clone()));
        Ok(completion)
    }

    fn remote(&self, reason: &str) -> Error {
        Error::Remote { service: self.http.name().to_owned(), reason: self.http.scrub(reason) }
    }
}

/// Body of a request.
fn wire(request: &ChatRequest) -> String {
    let mut value = json!(request);
    if request.stream {
        // Groq always counts tokens, other services only on request.
        value["stream_options"] = json!({ "include_usage": true });
    }
    value.to_string()
}

fn read_stream(
    reader: impl BufRead,
    news: &Sender<News>,
    has_text: &mut bool,
) -> Result<Completion, HttpError> {
    let mut completion = Completion::default();
    let mut events = EventReader::new(reader);
    loop {
        let data = match events.next_event().map_err(broken_off)? {
            Some(data) if data != b"[DONE]" => data,
            None if completion.finish_reason.is_none() => {
                return Err(HttpError::broken("the connection was cut before the answer's end"));
            }
            _ => break,
        };
        let value: Value = serde_json::from_slice(&data).map_err(|e| {
            HttpError::permanent(format!("a part of its answer is not valid JSON ({e})"))
        })?;
        let text = take_in(&value, &mut completion, "delta")?.unwrap_or_default();
        if !text.is_empty() {
            *has_text = true;
            completion.text.push_str(&text);
            let sent = news.send(News::Text(text));
            sent.map_err(|_| HttpError::permanent("nobody waits for the answer"))?;
        }
    }
    if completion.text.is_empty() && completion.finish_reason.is_none() {
        return Err(HttpError::permanent("its answer contains no text"));
    }
    Ok(completion)
}

fn read_json(response: HttpResponse) -> Result<Value, HttpError> {
    serde_json::from_reader(BufReader::new(response.take(MAX_BYTES))).map_err(|e| {
        if e.is_io() {
            return broken_off(e.into());
        }
        HttpError::permanent(format!("its answer is not valid JSON ({e})"))
    })
}

fn broken_off(error: io::Error) -> HttpError {
    let error = HttpError::from(error);
    HttpError { reason: format!("the answer broke off ({})", error.reason), ..error }
}

/// Adds an answer, or a part of one, to the completion. Returns its text; None without a choice.
fn take_in(
    value: &Value,
    completion: &mut Completion,
    part: &str,
) -> Result<Option<String>, HttpError> {
    if !value["error"].is_null() {
        return Err(HttpError::permanent(error_text(&value["error"])));
    }
    if let Some(model) = value["model"].as_str() {
        completion.model = Some(model.to_owned());
    }
    for usage in [&value["usage"], &value["x_groq"]["usage"]] {
        if let Ok(usage) = TokenUsage::deserialize(usage) {
            completion.usage = Some(usage);
        }
    }
    let choice = &value["choices"][0];
    if let Some(reason) = choice["finish_reason"].as_str() {
        completion.finish_reason = Some(reason.to_owned());
    }
    if choice.is_null() {
        return Ok(None);
    }
    Ok(Some(choice[part]["content"].as_str().unwrap_or_default().to_owned()))
}

/// Text of an error object.
fn error_text(error: &Value) -> String {
    let text = |key: &str| error[key].as_str().filter(|text| !text.is_empty());
    let message = text("message").or(error.as_str()).unwrap_or("it failed and gave no reason");
    match text("code").or(text("type")) {
        Some(code) => format!("{message} ({code})"),
        None => message.to_owned(),
    }
}

/// Turns any status but success into an error with the service's own words.
fn check_status(mut response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let status = response.status();
    if (200..300).contains(&status) {
        return Ok(response);
    }
    let mut bytes = Vec::new();
    // A part of the reason is better than none.
    let _ = response.by_ref().take(64 << 10).read_to_end(&mut bytes);
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let error = &value["error"];
    let text = match String::from_utf8_lossy(&bytes).trim() {
        _ if !error.is_null() => error_text(error),
        "" => "no reason given".to_owned(),
        text => text.chars().take(200).collect(),
    };
    let hint = match status {
        401 | 403 => "; check GROQ_API_KEY, or the file that was named for the key",
        300..=399 => "; it redirects, and the key is sent nowhere else: check --base-url",
        _ => "",
    };
    let reason = format!("status {status}: {text}{}{hint}", limits(&response));
    let code = error["code"].as_str().unwrap_or_default().to_owned();
    let kind = HttpErrorKind::Status { status, code };
    Err(HttpError { kind, reason, retry_after: response.retry_after() })
}

/// Remaining quota of the service, for messages.
fn limits(response: &HttpResponse) -> String {
    let mut all = String::new();
    for unit in ["requests", "tokens"] {
        let get = |field: &str| response.header(&format!("x-ratelimit-{field}-{unit}"));
        if let (Some(left), Some(limit)) = (get("remaining"), get("limit")) {
            all.push_str(&format!("; {left} of {limit} {unit} left"));
            if let Some(reset) = get("reset") {
                all.push_str(&format!(", reset in {reset}"));
            }
        }
    }
    all
}
