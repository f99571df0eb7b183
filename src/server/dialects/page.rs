//! The web page, and the page that lists the routes.

use crate::server::state::AppState;
use axum::Router;
use axum::http::HeaderName;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::routing::{MethodRouter, get};
use std::sync::Arc;

/// The content security policy: the page loads its own two files and calls this server, nothing
/// else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// The routes of the page, and `/docs` with the given text.
pub(super) fn routes(docs: String) -> Router<Arc<AppState>> {
    let file = |kind: &'static str, text: &'static str| respond(kind, text.into());
    let html = "text/html; charset=utf-8";
    Router::new()
        .route("/", file(html, include_str!("../page/index.html")))
        .route("/page.css", file("text/css; charset=utf-8", include_str!("../page/page.css")))
        .route("/page.js", file("text/javascript; charset=utf-8", include_str!("../page/page.js")))
        .route("/docs", respond(html, docs.into()))
}

fn respond(kind: &'static str, text: Arc<str>) -> MethodRouter<Arc<AppState>> {
    let headers: [(HeaderName, &str); 5] = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-cache"),
    ];
    get(async move || (headers, text.to_string()))
}
