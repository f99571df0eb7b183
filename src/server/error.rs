//! What goes wrong with a request, and the words that each family of clients expects for it.

use crate::error::Error;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;

/// A refusal or a failure.
#[derive(Debug, Clone)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The field at fault, where it is one.
    pub(super) param: Option<String>,
    /// What kind of failure it is, where clients are told.
    kind: Kind,
    /// When to try again.
    retry_after: Option<Duration>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Empty,
    Validation,
    Unauthorized,
    Forbidden,
    NotFound,
    Backend,
    Overloaded,
    Unhealthy,
}

/// Whose words an error is told in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// warpseek's own, which are those of OpenAI.
    OpenAi,
    /// Cohere and Jina.
    Cohere,
    /// text-embeddings-inference.
    Tei,
}

impl ApiError {
    fn new(status: StatusCode, kind: Kind, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, kind, retry_after: None }
    }

    /// The request makes no sense.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Kind::Validation, message)
    }

    /// There is nothing to work on.
    pub(super) fn empty(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Kind::Empty, message)
    }

    /// There is no such thing.
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Kind::NotFound, message)
    }

    /// The body is of another kind.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Kind::Validation, message)
    }

    /// The body is too long.
    pub(super) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Kind::Validation, message)
    }

    /// The body did not come in time.
    pub(super) fn too_slow(message: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, Kind::Validation, message)
    }

    /// There is no such way to ask.
    pub(super) fn method(message: impl Into<String>) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Kind::Validation, message)
    }

    /// The key is missing or wrong.
    pub(super) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, Kind::Unauthorized, message)
    }

    /// Not from there, or not here.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, Kind::Forbidden, message)
    }

    /// This server was started without what is asked for.
    pub(super) fn missing(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FAILED_DEPENDENCY, Kind::Backend, message)
    }

    /// Too much waits already.
    pub(super) fn overloaded(message: impl Into<String>, wait: Duration) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, Kind::Overloaded, message);
        Self { retry_after: Some(wait), ..error }
    }

    /// Not now.
    pub(super) fn unavailable(message: impl Into<String>, wait: Duration) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Unhealthy, message);
        Self { retry_after: Some(wait), ..error }
    }

    /// A fault of this program.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Backend, message)
    }

    /// The same, about a field.
    pub(super) fn param(mut self, name: impl Into<String>) -> Self {
        self.param = Some(name.into());
        self
    }

    /// The same, about one of several requests.
    pub(super) fn of_request(mut self, number: usize) -> Self {
        self.message = format!("request {number}: {}", self.message);
        self
    }

    /// The body in the words of warpseek itself.
    pub(super) fn to_json(&self) -> Value {
        let (kind, code) = match self.kind {
            Kind::Empty | Kind::Validation => ("invalid_request_error", "invalid_request"),
            Kind::Unauthorized => ("authentication_error", "invalid_api_key"),
            Kind::Forbidden => ("permission_error", "forbidden"),
            Kind::NotFound => ("invalid_request_error", "not_found"),
            Kind::Backend => ("server_error", "failed"),
            Kind::Overloaded => ("rate_limit_error", "overloaded"),
            Kind::Unhealthy => ("server_error", "unavailable"),
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": code } })
    }

    /// The reply in the words of a family.
    fn render(&self, family: Family) -> Response {
        let mut status = self.status;
        let body = match family {
            Family::OpenAi => self.to_json(),
            Family::Cohere => json!({ "message": self.message }),
            Family::Tei => {
                let kind = match self.kind {
                    Kind::Empty => "empty",
                    Kind::Validation => "validation",
                    Kind::Unauthorized | Kind::Forbidden | Kind::NotFound => "validation",
                    Kind::Backend => "backend",
                    Kind::Overloaded => "overloaded",
                    Kind::Unhealthy => "unhealthy",
                };
                if self.kind == Kind::Validation && status == StatusCode::BAD_REQUEST {
                    status = StatusCode::UNPROCESSABLE_ENTITY;
                }
                if self.kind == Kind::Backend {
                    status = StatusCode::FAILED_DEPENDENCY;
                }
                json!({ "error": self.message, "error_type": kind })
            }
        };
        let mut response = (status, Json(body)).into_response();
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs_f64().ceil().clamp(1.0, 600.0) as u64;
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Carries itself in the reply; [`render`] writes it.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the errors among the replies in the words of `family`.
pub(super) fn render(family: Family, mut response: Response) -> Response {
    match response.extensions_mut().remove::<ApiError>() {
        Some(error) => error.render(family),
        None => response,
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::bad(rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::bad(rejection.body_text())
    }
}

/// Which status each error of the library has.
impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let soon = Duration::from_secs(1);
        match &error {
            Error::Usage(_) | Error::Input { .. } => Self::bad(message),
            Error::ModelUnavailable { .. } | Error::DeviceUnavailable { .. } => {
                Self::missing(message)
            }
            Error::Locked { .. } | Error::Interrupted(_) => Self::unavailable(message, soon),
            Error::Remote { .. } => Self::new(StatusCode::BAD_GATEWAY, Kind::Backend, message),
            error if error.is_storage_full() => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, Kind::Backend, message)
            }
            Error::Corrupt { .. }
            | Error::Io { .. }
            | Error::NoIndex { .. }
            | Error::Database { .. }
            | Error::DeviceFailed { .. }
            | Error::Compute { .. } => {
                tracing::error!("{message}");
                Self::internal(message)
            }
        }
    }
}
