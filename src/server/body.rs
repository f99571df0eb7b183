//! Request bodies: JSON, received in time and within the limits.

use super::error::{ApiError, ApiResult};
use super::state::AppState;
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// A request with a JSON body, and permission to work on it, which ends when this is dropped.
pub(super) struct JsonRequest<T> {
    pub(super) state: Arc<AppState>,
    pub(super) body: T,
    pub(super) permit: OwnedSemaphorePermit,
}

impl<T: DeserializeOwned> FromRequest<Arc<AppState>> for JsonRequest<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> ApiResult<Self> {
        let (parts, body) = request.into_parts();
        require_json(&parts.headers)?;
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
        check_length(length.unwrap_or(0), state)?;
        let timeout = Duration::from_secs_f64(state.limits.timeout_s);
        let late =
            |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
        let received = tokio::time::timeout(timeout, receive(body, state)).await;
        let (bytes, receiving) = received.map_err(late)??;
        let permit = state.start_work()?;
        let body = parse(&bytes)?;
        drop(receiving);
        Ok(Self { state: Arc::clone(state), body, permit })
    }
}

/// Requires the JSON content type, which a page of another origin cannot send without a CORS
/// preflight.
fn require_json(headers: &HeaderMap) -> ApiResult<()> {
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
    {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "the body must be JSON: send `Content-Type: application/json`",
    ))
}

fn check_length(length: u64, state: &AppState) -> ApiResult<()> {
    let most = state.limits.max_body_bytes;
    if length <= most as u64 {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("the body is longer than {most} bytes: send less at a time"),
    ))
}

/// Receives all bytes. Returns with them their share of the bytes that may be received at a time.
async fn receive(
    mut body: Body,
    state: &AppState,
) -> ApiResult<(Vec<u8>, Option<OwnedSemaphorePermit>)> {
    let mut bytes = Vec::new();
    let mut share = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| ApiError::invalid(format!("the body broke off: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        check_length((bytes.len() + data.len()) as u64, state)?;
        bytes.extend_from_slice(&data);
        state.receive(bytes.len(), &mut share)?;
    }
    Ok((bytes, share))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::invalid("the body is empty: send a JSON document"));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        ApiError::invalid(format!("the body is not valid UTF-8 (byte {})", e.valid_up_to()))
    })?;
    serde_json::from_str(text).map_err(|e| ApiError::invalid(format!("the body does not fit: {e}")))
}
