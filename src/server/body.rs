//! Request bodies: JSON, received in time and within the limits.

use super::error::{ApiError, ApiResult};
use super::mistakes::type_error;
use super::state::{AppState, WorkPermit};
use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// The part of a request's time in which its body must arrive: the reply says so before the time is
/// over.
const RECEIVING_TIME: f64 = 0.9;

/// Bytes of a body that are decompressed at a time.
const DECOMPRESSED_PART: usize = 64 << 10;

/// The beginning of serde's message about an object in place of a list.
const OBJECT_FOR_LIST: &str = "invalid type: map, expected a sequence";

/// Bytes of the longest body in which the field that does not fit is looked for.
const MAX_EXPLAINED: usize = 1 << 20;

/// A request with a JSON body, and permission to work on it, which ends when this is dropped.
pub(super) struct JsonRequest<T> {
    pub(super) state: Arc<AppState>,
    pub(super) body: T,
    pub(super) permit: WorkPermit,
}

impl<T: DeserializeOwned> FromRequest<Arc<AppState>> for JsonRequest<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> ApiResult<Self> {
        let (parts, body) = request.into_parts();
        let (bytes, received) = read(&parts.headers, body, state).await?;
        let permit = state.start_work_on(received)?;
        let body = parse(&bytes)?;
        Ok(Self { state: Arc::clone(state), body, permit })
    }
}

/// Reads an optional field, for which null means that it is absent.
pub(super) fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A request with the bytes of a JSON body.
pub(super) struct JsonBytes {
    pub(super) parts: Parts,
    pub(super) bytes: Bytes,
}

impl FromRequest<Arc<AppState>> for JsonBytes {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &Arc<AppState>) -> ApiResult<Self> {
        let (mut parts, body) = request.into_parts();
        let (bytes, _receiving) = read(&parts.headers, body, state).await?;
        // These headers describe the body as it was sent.
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.remove(CONTENT_ENCODING);
        Ok(Self { parts, bytes: bytes.into() })
    }
}

/// The bytes of a body of JSON, decompressed, with their share of the bytes that may be received at
/// a time.
async fn read(
    headers: &HeaderMap,
    body: Body,
    state: &Arc<AppState>,
) -> ApiResult<(Vec<u8>, Option<OwnedSemaphorePermit>)> {
    require_json(headers)?;
    let is_gzip = is_gzip(headers)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    check_length(length.unwrap_or(0), state)?;
    let timeout = Duration::from_secs_f64(state.limits.timeout_s * RECEIVING_TIME);
    let late = |_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
    let received = tokio::time::timeout(timeout, receive(body, state)).await;
    let (bytes, share) = received.map_err(late)??;
    if !is_gzip {
        return Ok((bytes, share));
    }
    let state = Arc::clone(state);
    let panicked = |_| ApiError::internal("the body could not be decompressed");
    tokio::task::spawn_blocking(move || decompress(&bytes, share, &state))
        .await
        .map_err(panicked)?
}

/// True for a body in gzip. Other encodings than that are refused by name.
fn is_gzip(headers: &HeaderMap) -> ApiResult<bool> {
    let encoding = headers.get(CONTENT_ENCODING).map_or("", |v| v.to_str().unwrap_or("?"));
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(false),
        "gzip" | "x-gzip" => Ok(true),
        other => {
            let shown: String = other.chars().take(40).collect();
            let message = format!("the body is encoded as '{shown}': send it plain, or as gzip");
            Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))
        }
    }
}

/// Decompresses a body within the limits that hold for a plain one.
fn decompress(
    bytes: &[u8],
    mut share: Option<OwnedSemaphorePermit>,
    state: &AppState,
) -> ApiResult<(Vec<u8>, Option<OwnedSemaphorePermit>)> {
    let mut decoder = MultiGzDecoder::new(bytes);
    let mut plain = Vec::new();
    let mut part = vec![0; DECOMPRESSED_PART];
    loop {
        let n = decoder
            .read(&mut part)
            .map_err(|e| ApiError::invalid(format!("the body is no valid gzip: {e}")))?;
        if n == 0 {
            return Ok((plain, share));
        }
        check_length((plain.len() + n) as u64, state)?;
        plain.extend_from_slice(&part[..n]);
        state.receive(plain.len(), &mut share)?;
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
    let is_list = text.trim_ascii_start().starts_with('[');
    // Serde reads the fields of a struct from a list too, by their position.
    if is_list && serde_json::from_str::<T>("[]").is_err_and(|e| is_struct(&e)) {
        return Err(ApiError::invalid("the body does not fit: it must be an object, not a list"));
    }
    serde_json::from_str(text).map_err(|e| parse_error::<T>(text, &e))
}

/// True for the error of a type that is a struct.
fn is_struct(error: &serde_json::Error) -> bool {
    error.to_string().contains("expected struct")
}

/// The error about a body that is no JSON, which names the place, or about a value of a wrong type,
/// which names the field.
fn parse_error<T: DeserializeOwned>(text: &str, error: &serde_json::Error) -> ApiError {
    let message = error.to_string();
    // Whatever fields an object has, it is no list.
    let empty = serde_json::from_str::<T>("{}").map_or_else(|e| e.to_string(), |_| String::new());
    if text.trim_ascii_start().starts_with('{') && empty.starts_with(OBJECT_FOR_LIST) {
        return ApiError::invalid(
            "the body does not fit: it must be a list, not an object: put the requests in brackets",
        );
    }
    let value = match serde_json::from_str::<Value>(text) {
        Ok(value) if error.is_data() && text.len() <= MAX_EXPLAINED => value,
        _ => return ApiError::invalid(format!("the body does not fit: {message}")),
    };
    type_error::<T>(&value, &message).about("the body does not fit")
}
