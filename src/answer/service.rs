//! The protocol: requests, retries, and what answers mean.

use super::client::{ChatRequest, Completion, Patience, Usage};
use super::stream::Events;
use crate::error::{Error, Result};
use crate::net::Secret;
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::Read;
use std::sync::mpsc::Sender;
use std::time::Duration;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{HeaderMap, HeaderValue, Request, Response};
use ureq::{Agent, Body};

/// Bytes of an answer that are read at most: far more than any model writes.
const MAX_BYTES: u64 = 16 << 20;

/// A service and how to talk to it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) base: String,
    pub(super) name: String,
    pub(super) key: Option<Secret>,
    pub(super) bearer: Option<HeaderValue>,
    pub(super) agent: Agent,
    pub(super) patience: Patience,
}

/// What a request that is under way tells.
pub(super) enum News {
    Text(String),
    Retry(String),
    End(Result<Completion>),
}

/// Why a request failed.
struct Failure {
    reason: String,
    /// Whether it may go better next time, and after which pause the service thinks so.
    retry: Option<Option<Duration>>,
    /// Whether the model is not there.
    no_model: bool,
}

impl Failure {
    fn lasting(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), retry: None, no_model: false }
    }

    fn passing(reason: impl Into<String>) -> Self {
        Self { retry: Some(None), ..Self::lasting(reason) }
    }
}

impl Service {
    /// Asks, again where that may help, and tells what arrives.
    pub(super) fn complete(
        &self,
        request: &ChatRequest,
        news: &Sender<News>,
    ) -> Result<Completion> {
        let mut attempt = 0;
        loop {
            let mut started = false;
            let failure = match self.ask(request, news, &mut started) {
                Ok(completion) => return Ok(completion),
                Err(failure) => failure,
            };
            // What the caller has heard cannot be taken back.
            let pause = failure.retry.filter(|_| !started && attempt < self.patience.retries);
            let Some(pause) = pause else {
                return Err(self.remote(self.advice(failure)));
            };
            let own = self.patience.backoff.saturating_mul(1 << attempt.min(16));
            let pause = pause.unwrap_or(own.min(Duration::from_secs(8)));
            if pause > self.patience.longest {
                let reason =
                    format!("{}; it asks to wait for {} s", failure.reason, pause.as_secs());
                return Err(self.remote(reason));
            }
            attempt += 1;
            let why = format!("{}; asking again in {:.1} s", failure.reason, pause.as_secs_f32());
            if news.send(News::Retry(self.scrub(&why))).is_err() {
                return Err(Error::Interrupted("nobody waits for the answer".to_owned()));
            }
            std::thread::sleep(pause);
        }
    }

    /// The reason, with the models that are offered where the one asked for is not.
    fn advice(&self, failure: Failure) -> String {
        if !failure.no_model {
            return failure.reason;
        }
        match self.models() {
            Ok(names) if !names.is_empty() => {
                format!("{}; it offers {}: name one with --model", failure.reason, names.join(", "))
            }
            _ => format!("{}; name another with --model", failure.reason),
        }
    }

    fn ask(
        &self,
        request: &ChatRequest,
        news: &Sender<News>,
        started: &mut bool,
    ) -> Result<Completion, Failure> {
        let body =
            serde_json::to_vec(&wire(request)).map_err(|e| Failure::lasting(e.to_string()))?;
        let http = self
            .request("POST", "/chat/completions")
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|e| Failure::lasting(e.to_string()))?;
        let response = self.agent.run(http).map_err(|e| self.unreachable(&e))?;
        let response = refused(response)?;
        // Some services answer in one piece whatever is asked for.
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let in_one = content_type.is_some_and(|kind| kind.starts_with("application/json"));
        let mut reader = response.into_body().into_reader().take(MAX_BYTES);
        if request.stream && !in_one {
            return self.read_stream(&mut reader, news, started);
        }
        let mut bytes = Vec::new();
        reader
            .read_to_end(&mut bytes)
            .map_err(|e| Failure::passing(format!("the answer broke off ({e})")))?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|e| Failure::lasting(format!("its answer is no JSON ({e})")))?;
        let mut completion = Completion::default();
        let text = take_in(&value, &mut completion, "message").map_err(Failure::lasting)?;
        let text = text.ok_or_else(|| {
            Failure::lasting("its answer holds no text (an empty list of choices)")
        })?;
        let _ = news.send(News::Text(text.clone()));
        completion.text = text;
        Ok(completion)
    }

    fn read_stream(
        &self,
        reader: &mut impl Read,
        news: &Sender<News>,
        started: &mut bool,
    ) -> Result<Completion, Failure> {
        let mut completion = Completion::default();
        let mut events = Events::default();
        let mut done = false;
        let mut buffer = vec![0; 16 << 10];
        while !done {
            let n = match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Failure::passing(format!("the answer broke off ({e})"))),
            };
            events.push(&buffer[..n], |data| {
                if done || data == b"[DONE]" {
                    done = true;
                    return Ok(());
                }
                let value: Value = serde_json::from_slice(data).map_err(|e| {
                    Failure::lasting(format!("a piece of its answer is no JSON ({e})"))
                })?;
                if let Some(text) =
                    take_in(&value, &mut completion, "delta").map_err(Failure::lasting)?
                    && !text.is_empty()
                {
                    *started = true;
                    completion.text.push_str(&text);
                    if news.send(News::Text(text)).is_err() {
                        return Err(Failure::lasting("nobody waits for the answer"));
                    }
                }
                Ok(())
            })?;
        }
        if !done && completion.finish_reason.is_none() {
            return Err(Failure::passing("the connection was cut before the answer's end"));
        }
        if completion.text.is_empty() && completion.finish_reason.is_none() {
            return Err(Failure::lasting("its answer holds no text"));
        }
        Ok(completion)
    }

    /// The names of the models on offer.
    pub(super) fn models(&self) -> Result<Vec<String>> {
        let run = || -> Result<Vec<String>, Failure> {
            let http = self
                .request("GET", "/models")
                .body(())
                .map_err(|e| Failure::lasting(e.to_string()))?;
            let response = refused(self.agent.run(http).map_err(|e| self.unreachable(&e))?)?;
            let value: Value =
                serde_json::from_reader(response.into_body().into_reader().take(MAX_BYTES))
                    .map_err(|e| {
                        Failure::lasting(format!("its list of models is no JSON ({e})"))
                    })?;
            let mut names: Vec<String> = value["data"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|model| model["id"].as_str().map(str::to_owned))
                .collect();
            names.sort();
            Ok(names)
        };
        run().map_err(|failure| self.remote(failure.reason))
    }

    fn request(&self, method: &str, path: &str) -> ureq::http::request::Builder {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        match &self.bearer {
            Some(bearer) => request.header(AUTHORIZATION, bearer),
            None => request,
        }
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        match error {
            ureq::Error::Timeout(_) => Failure::passing(format!(
                "no answer within {} s",
                self.patience.stall.as_secs_f32()
            )),
            error => Failure::passing(format!("cannot be reached ({error})")),
        }
    }

    fn remote(&self, reason: String) -> Error {
        Error::Remote { service: self.name.clone(), reason: self.scrub(&reason) }
    }

    /// `text` without the key, should a service have echoed it.
    fn scrub(&self, text: &str) -> String {
        match &self.key {
            Some(key) if !key.reveal().is_empty() => text.replace(key.reveal(), "[key]"),
            _ => text.to_owned(),
        }
    }
}

/// The request as it is sent.
fn wire(request: &ChatRequest) -> Value {
    let mut value = json!(request);
    if request.stream {
        // Groq counts tokens by itself, other services where they are asked to.
        value["stream_options"] = json!({ "include_usage": true });
    }
    value
}

/// Takes in an answer, or a piece of one; returns its text, if there is a choice.
fn take_in(
    value: &Value,
    completion: &mut Completion,
    part: &str,
) -> std::result::Result<Option<String>, String> {
    if !value["error"].is_null() {
        return Err(said(&value["error"]));
    }
    if let Some(model) = value["model"].as_str() {
        completion.model = Some(model.to_owned());
    }
    for usage in [&value["usage"], &value["x_groq"]["usage"]] {
        if let Ok(usage) = Usage::deserialize(usage) {
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

/// What an error object says.
fn said(error: &Value) -> String {
    let text = |key: &str| error[key].as_str().filter(|text| !text.is_empty());
    let message = text("message").or(error.as_str()).unwrap_or("it failed and did not say why");
    match text("code").or(text("type")) {
        Some(code) => format!("{message} ({code})"),
        None => message.to_owned(),
    }
}

/// The response, or the failure that its status stands for.
fn refused(response: Response<Body>) -> Result<Response<Body>, Failure> {
    let status = response.status().as_u16();
    if (200..300).contains(&status) {
        return Ok(response);
    }
    let pause = pause(response.headers());
    let limits = limits(response.headers());
    let mut bytes = Vec::new();
    // Whatever can be read of the reason.
    let _ = response.into_body().into_reader().take(64 << 10).read_to_end(&mut bytes);
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let code = value["error"]["code"].as_str().unwrap_or_default();
    let reason = match value["error"].is_null() {
        false => said(&value["error"]),
        true => match String::from_utf8_lossy(&bytes).trim() {
            "" => "no reason given".to_owned(),
            text => text.chars().take(200).collect(),
        },
    };
    let hint = match status {
        401 | 403 => "; check GROQ_API_KEY or --api-key-file",
        300..=399 => "; it redirects, and the key goes nowhere else: check --base-url",
        _ => "",
    };
    let reason = format!("status {status}: {reason}{limits}{hint}");
    let passing = matches!(status, 408 | 409 | 429 | 498) || status >= 500;
    Err(Failure {
        reason,
        retry: passing.then_some(pause),
        no_model: status == 404 || code.starts_with("model_"),
    })
}

/// The pause that the service asks for.
fn pause(headers: &HeaderMap) -> Option<Duration> {
    let number = |name: &str| -> Option<f64> {
        let value: f64 = headers.get(name)?.to_str().ok()?.trim().parse().ok()?;
        (value.is_finite() && value >= 0.0).then_some(value)
    };
    let seconds = number("retry-after-ms").map(|ms| ms / 1e3).or_else(|| number("retry-after"))?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// What is left of the service's limits, for messages.
fn limits(headers: &HeaderMap) -> String {
    let mut all = String::new();
    for what in ["requests", "tokens"] {
        let get = |kind: &str| headers.get(format!("x-ratelimit-{kind}-{what}"))?.to_str().ok();
        if let (Some(left), Some(limit)) = (get("remaining"), get("limit")) {
            all.push_str(&format!("; {left} of {limit} {what} left"));
            if let Some(reset) = get("reset") {
                all.push_str(&format!(", anew in {reset}"));
            }
        }
    }
    all
}
