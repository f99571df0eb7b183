//! Errors of requests, and their wire format in each dialect.

use crate::error::Error;
use crate::store::is_write_denied;
use axum::Json;
use axum::extract::Request;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{MAIN_SEPARATOR, Path};
use std::time::Duration;

/// The wire format of a family of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// OpenAI; also the format of warpseek's own routes.
    OpenAi,
    /// Cohere.
    Cohere,
    /// text-embeddings-inference.
    Tei,
    /// Ollama.
    Ollama,
}

impl Dialect {
    /// The dialect of a path, also of one that is not served.
    pub(super) fn of(path: &str) -> Self {
        let path = if path == "/" { path } else { path.trim_end_matches('/') };
        match path {
            "/v1/rerank" | "/v1/embed" | "/v1/embed-jobs" | "/v1/chat" | "/v1/generate"
            | "/v1/classify" | "/v1/summarize" | "/v1/tokenize" | "/v1/detokenize"
            | "/v1/datasets" | "/v1/connectors" | "/v1/check-api-key" => Self::Cohere,
            "/" | "/embed" | "/embed_all" | "/embed_sparse" | "/predict" | "/rerank"
            | "/similarity" | "/tokenize" | "/decode" | "/health" | "/ping" => Self::Tei,
            _ if COHERE_FOLDERS.iter().any(|folder| path.starts_with(folder)) => Self::Cohere,
            _ if path.starts_with("/api/") => Self::Ollama,
            _ => Self::OpenAi,
        }
    }
}

/// The beginnings of further paths of Cohere.
const COHERE_FOLDERS: [&str; 4] = ["/v2/", "/v1/embed-jobs/", "/v1/datasets/", "/v1/connectors/"];

/// Routes that clients of Jina and Voyage call too, which read the message in a field `detail`.
const WITH_DETAIL: [&str; 2] = ["/v1/embeddings", "/v1/rerank"];

/// The longest time to wait that a reply asks for, in seconds: clients ignore longer ones and come
/// back at once.
const MAX_RETRY_AFTER: f64 = 60.0;

/// The header by which official clients are told not to repeat a request.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Shorthand for results of requests.
pub(super) type ApiResult<T> = Result<T, ApiError>;

/// An error with its HTTP status.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    /// The invalid field, if the error is about one.
    param: Option<String>,
    /// True if the request holds nothing to work on, for which some dialects have a code.
    is_empty: bool,
    retry_after: Option<Duration>,
    /// True if a client that repeats the request at once gets the same error.
    is_lasting: bool,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, param: None, is_empty: false, retry_after: None, is_lasting: false }
    }

    /// Refuses a request with an invalid field, unless `is_valid`.
    pub(super) fn check(is_valid: bool, field: &str, message: impl Into<String>) -> ApiResult<()> {
        if is_valid { Ok(()) } else { Err(Self::invalid(message).param(field)) }
    }

    /// An invalid request.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// A request without input.
    pub(super) fn empty(message: impl Into<String>) -> Self {
        Self { is_empty: true, ..Self::invalid(message) }
    }

    /// A request for a model, an index or a service that this server was started without.
    pub(super) fn not_served(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FAILED_DEPENDENCY, message)
    }

    /// Back-pressure: too much work waits already.
    pub(super) fn overloaded(message: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// A request that exceeded the time limit. A client should not repeat it at once: it would take
    /// as long again.
    pub(super) fn late(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, message).lasting()
    }

    /// A temporary condition.
    pub(super) fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// An internal error.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// The same error, about a field.
    pub(super) fn param(self, name: impl Into<String>) -> Self {
        Self { param: Some(name.into()), ..self }
    }

    /// The same error, with the advice not to repeat the request, which clients do by themselves.
    pub(super) fn lasting(self) -> Self {
        Self { is_lasting: true, ..self }
    }

    /// The same error, about one of several requests.
    pub(super) fn of_request(self, number: usize) -> Self {
        self.about(&format!("request {number}"))
    }

    /// The same error, with a subject in front.
    pub(super) fn about(self, subject: &str) -> Self {
        Self { message: format!("{subject}: {}", self.message), ..self }
    }

    /// The cause, and the remedy.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// True if something that the request names is not there.
    pub(super) fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// True if the server failed, rather than the request.
    fn is_backend(&self) -> bool {
        self.status == StatusCode::FAILED_DEPENDENCY
            || self.status.is_server_error() && self.status != StatusCode::SERVICE_UNAVAILABLE
    }

    /// The body in OpenAI's format.
    pub(super) fn to_json(&self) -> Value {
        let (kind, code) = match self.status {
            StatusCode::UNAUTHORIZED => ("authentication_error", "invalid_api_key"),
            StatusCode::FORBIDDEN => ("permission_error", "forbidden"),
            StatusCode::NOT_FOUND => ("invalid_request_error", "not_found"),
            StatusCode::TOO_MANY_REQUESTS => ("rate_limit_error", "overloaded"),
            StatusCode::SERVICE_UNAVAILABLE => ("server_error", "unavailable"),
            StatusCode::GATEWAY_TIMEOUT => ("server_error", "timeout"),
            _ if self.is_backend() => ("server_error", "failed"),
            _ => ("invalid_request_error", "invalid_request"),
        };
        let error =
            json!({ "message": self.message, "type": kind, "param": self.param, "code": code });
        json!({ "error": error })
    }

    /// Status and body in the format of text-embeddings-inference.
    fn to_tei(&self) -> (StatusCode, Value) {
        let (status, kind) = match self.status {
            StatusCode::TOO_MANY_REQUESTS => (self.status, "overloaded"),
            StatusCode::SERVICE_UNAVAILABLE => (self.status, "unhealthy"),
            StatusCode::GATEWAY_TIMEOUT => (self.status, "backend"),
            _ if self.is_backend() => (StatusCode::FAILED_DEPENDENCY, "backend"),
            _ if self.is_empty => (self.status, "empty"),
            StatusCode::BAD_REQUEST => (StatusCode::UNPROCESSABLE_ENTITY, "validation"),
            status => (status, "validation"),
        };
        (status, json!({ "error": self.message, "error_type": kind }))
    }

    fn render(&self, path: &str) -> Response {
        let (status, mut body) = match Dialect::of(path) {
            Dialect::OpenAi => (self.status, self.to_json()),
            Dialect::Cohere => (self.status, json!({ "message": self.message })),
            Dialect::Tei => self.to_tei(),
            Dialect::Ollama => (self.status, json!({ "error": self.message })),
        };
        if WITH_DETAIL.contains(&path) {
            body["detail"] = json!(self.message);
        }
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs_f64().ceil().clamp(1.0, MAX_RETRY_AFTER) as u64;
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.is_lasting {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The error travels in the response; [`render_errors`] writes its body.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Middleware that writes errors in the dialect of the requested path.
pub(super) async fn render_errors(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error.render(&path),
        None => response,
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid(rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        let text = rejection.body_text();
        let cause = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, cause)| cause);
        Self::invalid(format!("the parameters do not fit: {cause}"))
    }
}

/// The message of an error without the folders of the file that it is about: clients see its name
/// alone.
fn without_folders(error: &Error, message: &str) -> String {
    let folder = error.path().and_then(Path::parent).map(|folder| folder.display().to_string());
    match folder.filter(|folder| !folder.is_empty()) {
        Some(folder) => {
            let inner = message.replace(&format!("{folder}{MAIN_SEPARATOR}"), "");
            if folder.len() > 1 { inner.replace(&folder, "the folder") } else { inner }
        }
        None => message.to_owned(),
    }
}

/// Maps errors of the library to a status.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let whole = error.to_string();
        let message = without_folders(&error, &whole);
        match &error {
            Error::Usage(_) | Error::Input { .. } => Self::invalid(message),
            Error::ModelUnavailable { .. } | Error::DeviceUnavailable { .. } => {
                Self::not_served(message)
            }
            Error::Locked { .. } | Error::Interrupted(_) => {
                Self::unavailable(message, Duration::from_secs(1))
            }
            Error::Remote { .. } => Self::new(StatusCode::BAD_GATEWAY, message),
            // A shard that no process holds now.
            Error::Io { source, .. } if source.kind() == ErrorKind::NotConnected => {
                Self::unavailable(message, Duration::from_secs(5))
            }
            error if error.is_storage_full() => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, message)
            }
            // An index that this process may read only.
            error if is_write_denied(error) => Self::new(StatusCode::FORBIDDEN, message),
            Error::Corrupt { .. }
            | Error::Io { .. }
            | Error::NoIndex { .. }
            | Error::Database { .. }
            | Error::DeviceFailed { .. }
            | Error::Compute { .. } => {
                tracing::error!("{whole}");
                Self::internal(message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_show_no_folder() {
        let damaged = Error::corrupt("/srv/data/idx/vectors-0.f16", "row 7 is damaged");
        let error = ApiError::from(damaged);
        assert_eq!(error.message(), "vectors-0.f16: row 7 is damaged");
        let unreadable = Error::Database {
            path: "/srv/data/idx/documents.db".into(),
            reason: "allow it with `chmod -R a+rX /srv/data/idx`".to_owned(),
        };
        let message = "documents.db: allow it with `chmod -R a+rX the folder`";
        assert_eq!(ApiError::from(unreadable).message(), message);
        let locked = Error::Locked { path: "/srv/data/idx".into(), holder: None };
        assert!(ApiError::from(locked).message().starts_with("idx is being written"));
        assert!(ApiError::from(Error::usage("a / b")).message().contains("a / b"));
    }
}
