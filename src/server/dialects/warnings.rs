//! Warnings in the headers of replies.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// The maximum number of warnings in the headers of a reply.
const MAX_WARNINGS: usize = 20;

/// A JSON reply with warnings, which go into `warning` headers.
pub(super) struct Warned<T>(pub(super) Vec<String>, pub(super) T);

impl<T> Warned<T> {
    /// The same warnings with another reply, made of this one.
    pub(super) fn map<U>(self, make: impl FnOnce(T) -> U) -> Warned<U> {
        Warned(self.0, make(self.1))
    }
}

impl<T: Serialize> IntoResponse for Warned<T> {
    fn into_response(self) -> Response {
        (headers(&self.0), Json(self.1)).into_response()
    }
}

/// The headers of warnings.
pub(super) fn headers(warnings: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for warning in warnings.iter().take(MAX_WARNINGS) {
        let is_plain = |c: char| c.is_ascii_graphic() && c != '"' || c == ' ';
        let plain = warning.replace(|c: char| !is_plain(c), "'");
        if let Ok(value) = HeaderValue::from_str(&format!("299 warpseek \"{plain}\"")) {
            headers.append(HeaderName::from_static("warning"), value);
        }
    }
    headers
}

/// The warning about truncated texts, if any were; `lost` holds the truncated tokens of each text.
pub(super) fn truncation_warning(lost: &[u32], limit: usize) -> Option<String> {
    let cut = lost.iter().filter(|&&n| n > 0).count();
    let tokens: usize = lost.iter().map(|&n| n as usize).sum();
    (cut > 0).then(|| {
        let texts = if cut == 1 { "1 text was".to_owned() } else { format!("{cut} texts were") };
        format!("{texts} longer than {limit} tokens: {tokens} tokens were left out")
    })
}
