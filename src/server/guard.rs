//! What is looked at before a route: who asks, from where, by which name; and what is noted of each request.

use super::error::{ApiError, Family, render};
use super::state::State;
use axum::extract::{MatchedPath, Request, State as Extract};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// The header that carries a request's id, both ways.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Paths that need no key: whether the server lives, the page, which asks for one, and what there is.
const OPEN: [&str; 5] = ["/health", "/", "/page.css", "/page.js", "/api-docs/openapi.json"];

/// Gives each request an id, times it, and notes it.
pub(super) async fn note(
    Extract(state): Extract<Arc<State>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // Paths that are no route go by one name, or a scan for them would fill the memory.
    let route = request.extensions().get::<MatchedPath>().map(|p| p.as_str().to_owned());
    let route = route.unwrap_or_else(|| "none".to_owned());
    let counted = state.metrics.in_flight();
    let mut noted = Noted { state: Arc::clone(&state), route, started, status: None };
    let mut response = next.run(request).await;
    noted.status = Some(response.status().as_u16());
    drop(counted);
    let took = started.elapsed();
    let ms = took.as_micros() as f64 / 1e3;
    let status = response.status().as_u16();
    let shown = id.to_str().unwrap_or_default();
    if status >= 500 {
        tracing::warn!(request_id = shown, %method, path, status, ms, "request");
    } else {
        tracing::info!(request_id = shown, %method, path, status, ms, "request");
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Counts a request, also one whose client went away.
struct Noted {
    state: Arc<State>,
    route: String,
    started: Instant,
    status: Option<u16>,
}

impl Drop for Noted {
    fn drop(&mut self) {
        // 499 is what others call a client that went away.
        let status = self.status.unwrap_or(499);
        self.state.metrics.request(&self.route, status, self.started.elapsed());
    }
}

/// The client's own id if it is harmless, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    if let Some(id) = headers.get(REQUEST_ID)
        && id.len() <= 128
        && !id.is_empty()
        && id.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
    {
        return id.clone();
    }
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let id = format!("{:x}-{:x}", since.as_micros(), number);
    HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("0"))
}

/// Refuses requests that another origin's page makes a browser send, and those without a key where one is
/// needed; ends those that take too long.
pub(super) async fn admit(
    Extract(state): Extract<Arc<State>>,
    request: Request,
    next: Next,
) -> Response {
    if let Err(error) = check(&state, &request) {
        let is_unauthorized = error.status == axum::http::StatusCode::UNAUTHORIZED;
        let mut response = render(family_of(request.uri().path()), error.into_response());
        if is_unauthorized {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        return response;
    }
    let family = family_of(request.uri().path());
    let limit = Duration::from_secs_f64(state.limits.timeout_s);
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let message = format!("no reply within {} s", state.limits.timeout_s);
            let error = ApiError::unavailable(message, Duration::from_secs(1));
            render(family, error.into_response())
        }
    }
}

/// In whose words a path's errors are told.
pub(super) fn family_of(path: &str) -> Family {
    match path {
        "/v1/rerank" | "/v2/rerank" => Family::Cohere,
        "/embed" | "/embed_all" | "/rerank" | "/similarity" | "/tokenize" | "/decode" => {
            Family::Tei
        }
        _ => Family::OpenAi,
    }
}

fn check(state: &State, request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    let host = headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    // A key is what a page that reaches this server under a name of its own does not have.
    if state.keys.is_empty() && !state.is_unix && !is_known_host(host, &state.access.hosts) {
        return Err(ApiError::forbidden(
            "this server is not called by that name: use an address or localhost, or start it with --allow-host",
        ));
    }
    if let Some(origin) = headers.get(ORIGIN) {
        let origin = origin.to_str().unwrap_or_default();
        let own = origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
        if !own && !state.access.origins.iter().any(|o| o == origin || o == "*") {
            return Err(ApiError::forbidden(
                "pages of other origins may not ask; --cors-origin allows one",
            ));
        }
    }
    if state.keys.is_empty() || OPEN.contains(&request.uri().path()) {
        return Ok(());
    }
    let given = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    match given {
        None => Err(ApiError::unauthorized("a key is needed: send `Authorization: Bearer KEY`")),
        Some(key) if is_key(key, &state.keys) => Ok(()),
        Some(_) => Err(ApiError::unauthorized("this key is not one of the server's")),
    }
}

/// The form in which keys are kept.
pub(super) fn key_digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Whether it is one of the keys; takes as long for a near miss as for a far one.
fn is_key(given: &str, keys: &[[u8; 32]]) -> bool {
    let digest = key_digest(given);
    let mut found = subtle::Choice::from(0);
    for key in keys {
        found |= digest.ct_eq(key);
    }
    found.into()
}

/// Whether a browser that was sent here by another name's owner could not send this `Host`: it is an address, or a
/// name that is this machine's.
fn is_known_host(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || lower == "localhost"
        || lower.ends_with(".localhost")
        || names.iter().any(|n| n.eq_ignore_ascii_case(&lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_are_known_are_addresses_localhost_and_those_named() {
        let names = ["search.lab".to_owned()];
        for host in [
            "127.0.0.1:8080",
            "[::1]:80",
            "localhost",
            "a.localhost:1",
            "Search.Lab:80",
            "10.1.2.3",
        ] {
            assert!(is_known_host(host, &names), "{host}");
        }
        for host in
            ["", "evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", "[evil]"]
        {
            assert!(!is_known_host(host, &names), "{host}");
        }
    }

    #[test]
    fn keys_are_found_whole_only() {
        let keys = [key_digest("one"), key_digest("two")];
        assert!(is_key("one", &keys) && is_key("two", &keys));
        assert!(!is_key("on", &keys) && !is_key("", &keys) && !is_key("one ", &keys));
    }
}
