//! Middleware in front of all routes: access control, the time limit, and the request log.
//!
//! A local server is open to every web page that its user visits, unless it refuses three things:
//!
//! - **Requests of other origins.** A browser sends them with an `Origin` header. They are refused
//!   unless the origin is the server's own or was allowed (CORS). CORS headers alone do not stop a
//!   request: they only hide its reply from the page.
//! - **DNS rebinding.** A page whose own host name resolves to this server is of the same origin
//!   for the browser. The `Host` header still carries that name, so only addresses, localhost and
//!   allowed names pass. With API keys or a Unix socket the check is not needed.
//! - **Requests without a key**, if the server has keys.
//!
//! Requests in excess of the limits are refused with 429 (back-pressure) where their cost is known:
//! by `body` before and after the body is received, and by the scheduler.

use super::error::{ApiError, ApiResult};
use super::state::AppState;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State as Extract};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The header that carries a request's id, in both directions.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Paths that can be read without a key: the health check, the page (which asks for a key) and the
/// API description.
const OPEN: [&str; 7] =
    ["/health", "/ping", "/", "/page.css", "/page.js", "/docs", "/api-docs/openapi.json"];

/// The error message for a page of another origin.
const FOREIGN: &str = "pages of other origins may not call this server; --cors-origin allows one";

/// The status that log and metrics show for a request whose client disconnected.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Gives each request an id, and logs and counts it at the end of its reply.
pub(super) async fn log_request(
    Extract(state): Extract<Arc<AppState>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    // All unknown paths share one label, or a path scanner would fill the memory with labels.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    state.metrics.in_flight.inc();
    // The reply to HEAD ends with its head.
    let is_sent = method == Method::HEAD;
    let mut counted =
        CountedRequest { state, id: id.clone(), method, path, route, started, reply: None };
    let mut response = next.run(request).await;
    counted.reply = Some(SentReply { status: response.status().as_u16(), is_sent });
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(CountedBody { body, counted }))
}

/// Logs and counts a request when it is dropped, which also happens if the client disconnects.
struct CountedRequest {
    state: Arc<AppState>,
    id: HeaderValue,
    method: Method,
    path: String,
    route: String,
    started: Instant,
    /// The reply, once its head is known.
    reply: Option<SentReply>,
}

/// The part of a reply that was sent.
struct SentReply {
    status: u16,
    /// True at the end of the body.
    is_sent: bool,
}

impl Drop for CountedRequest {
    fn drop(&mut self) {
        let whole = self.reply.as_ref().filter(|reply| reply.is_sent);
        let status = whole.map_or(CLIENT_CLOSED_REQUEST, |reply| reply.status);
        let took = self.started.elapsed();
        let (shown, method, path) =
            (self.id.to_str().unwrap_or_default(), &self.method, &self.path);
        let ms = took.as_micros() as f64 / 1e3;
        if status >= 500 {
            tracing::warn!(request_id = shown, %method, path, status, ms, "request");
        } else {
            tracing::info!(request_id = shown, %method, path, status, ms, "request");
        }
        self.state.metrics.in_flight.dec();
        self.state.metrics.request(&self.route, status, took);
    }
}

/// The body of a reply. The request is in progress until it ends: a stream of events is sent over a
/// long time after the head.
struct CountedBody {
    body: Body,
    counted: CountedRequest,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl CountedBody {
    fn end(&mut self) {
        self.counted.reply.iter_mut().for_each(|reply| reply.is_sent = true);
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        // A body of known length is not asked for more after its last frame.
        if self.body.is_end_stream() {
            self.end();
        }
    }
}

/// The client's own id if it is short and safe to log, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_safe = |id: &&HeaderValue| {
        (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(b))
    };
    if let Some(id) = headers.get(REQUEST_ID).filter(is_safe) {
        return id.clone();
    }
    let (time, number) = unique_numbers();
    HeaderValue::from_str(&format!("{time:x}-{number:x}")).unwrap_or(HeaderValue::from_static("0"))
}

/// The time in microseconds, and a number that this process has not given out before.
pub(super) fn unique_numbers() -> (u128, u64) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    (since.as_micros(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Refuses requests that may not use this server, and ends those that exceed the time limit.
pub(super) async fn authorize(
    Extract(state): Extract<Arc<AppState>>,
    request: Request,
    next: Next,
) -> ApiResult<Response> {
    check_host_and_origin(&state, request.headers())?;
    let only_reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !(only_reads && OPEN.contains(&request.uri().path())) {
        check_key(&state, request.headers())?;
    }
    let limit = state.limits.timeout_s;
    let response = tokio::time::timeout(Duration::from_secs_f64(limit), next.run(request)).await;
    response
        .map_err(|_| ApiError::late(format!("no reply within {limit} s: ask for less at a time")))
}

fn check_host_and_origin(state: &AppState, headers: &HeaderMap) -> ApiResult<()> {
    let forbidden = |message| Err(ApiError::new(StatusCode::FORBIDDEN, message));
    let host = headers.get(HOST).and_then(|h| h.to_str().ok()).unwrap_or_default();
    if state.keys.is_empty() && !state.is_unix && !is_known_host(host, &state.access.hosts) {
        return forbidden(
            "this server is not called by that name: use an address or localhost, or start it \
             with --allow-host",
        );
    }
    let Some(origin) = headers.get(ORIGIN) else {
        // As for images of a page: without an origin, because the page cannot read the reply.
        let says = |name: &str, value: &str| headers.get(name).is_some_and(|v| v == value);
        let any = state.access.origins.iter().any(|origin| origin == "*");
        if !any && says("sec-fetch-site", "cross-site") && !says("sec-fetch-mode", "navigate") {
            return forbidden(FOREIGN);
        }
        return Ok(());
    };
    let origin = origin.to_str().unwrap_or_default();
    let own = origin.split_once("://").is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(host));
    if own || state.access.origins.iter().any(|o| o == origin || o == "*") {
        return Ok(());
    }
    forbidden(FOREIGN)
}

fn check_key(state: &AppState, headers: &HeaderMap) -> ApiResult<()> {
    if state.keys.is_empty() {
        return Ok(());
    }
    let given = headers.get(AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    });
    let message = match given {
        Some(key) if state.keys.contains(key) => return Ok(()),
        Some(_) => "this key is not one of the server's",
        None => "a key is needed: send `Authorization: Bearer KEY`",
    };
    Err(ApiError::new(StatusCode::UNAUTHORIZED, message))
}

/// True for a `Host` that DNS rebinding cannot produce: an address, localhost, or an allowed name.
fn is_known_host(host: &str, allowed: &[String]) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let lower = name.trim_end_matches('.').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok()
        || lower == "localhost"
        || lower.ends_with(".localhost")
        || allowed.iter().any(|n| n.eq_ignore_ascii_case(&lower))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_hosts_are_addresses_localhost_and_allowed_names() {
        let known = "127.0.0.1:8080 [::1]:80 localhost a.localhost:1 Search.Lab:80 10.1.2.3";
        let unknown = "evil.example 127.0.0.1.evil.example:80 localhost.evil.example [evil]";
        for host in known.split(' ').chain(unknown.split(' ')).chain([""]) {
            let expected = known.split(' ').any(|h| h == host);
            assert_eq!(is_known_host(host, &["search.lab".to_owned()]), expected, "{host}");
        }
    }
}
