//! Reading a request's body: JSON, in time, and within what may be received at once.

use super::error::ApiError;
use super::state::State;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Bytes that one permit to receive stands for.
pub(super) const RECEIVE_UNIT: usize = 1024;

/// A request's body, and the leave to work on it, which ends when this is dropped.
pub(super) struct Job<T> {
    pub(super) body: T,
    pub(super) permit: OwnedSemaphorePermit,
}

impl<T: DeserializeOwned> FromRequest<Arc<State>> for Job<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<State>) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        let limits = &state.limits;
        let too_large = || {
            ApiError::too_large(format!(
                "the body is longer than {} bytes: send less at a time",
                limits.max_body_bytes
            ))
        };
        let declared =
            parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        if declared.is_some_and(|n: u64| n > limits.max_body_bytes as u64) {
            return Err(too_large());
        }
        let received = receive(body, state, too_large);
        let timeout = Duration::from_secs_f64(limits.timeout_s);
        let (bytes, receiving) = tokio::time::timeout(timeout, received)
            .await
            .map_err(|_| ApiError::too_slow("the body did not arrive in time"))??;
        let permit = state.start_work()?;
        let body = parse(&bytes)?;
        drop(receiving);
        Ok(Self { body, permit })
    }
}

/// The JSON content type, which a page of another origin cannot send without asking first.
fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Ok(());
    }
    Err(ApiError::unsupported("the body must be JSON: send `Content-Type: application/json`"))
}

/// All bytes, with a share in what may be received at once.
async fn receive(
    mut body: Body,
    state: &State,
    too_large: impl Fn() -> ApiError,
) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ApiError> {
    let mut bytes = Vec::new();
    let mut share: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::bad(format!("the body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > state.limits.max_body_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
        let held = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.len().div_ceil(RECEIVE_UNIT).saturating_sub(held);
        if more > 0 {
            let permit = state.receive(more)?;
            match &mut share {
                Some(share) => share.merge(permit),
                None => share = Some(permit),
            }
        }
    }
    Ok((bytes, share))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad("the body is empty: send a JSON document"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        ApiError::bad(format!("the body is not valid UTF-8 (byte {})", e.valid_up_to()))
    })?;
    serde_json::from_str(text).map_err(|e| ApiError::bad(format!("the body does not fit: {e}")))
}
