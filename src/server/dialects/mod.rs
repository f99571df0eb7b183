//! The routes: one file per family of clients, and one for each group of warpseek's own.

mod answer;
mod chat;
mod chat_request;
mod cohere;
mod cohere_embed;
mod description;
mod documents;
mod embedding_options;
mod mcp;
mod ollama;
mod openai;
mod overview;
mod page;
mod passages;
mod score;
mod search;
mod search_events;
mod search_replies;
mod search_request;
mod status;
mod tei;
mod tei_root;
mod tei_tokens;
mod texts;
mod vector_types;
mod warnings;

pub(super) use mcp::serve_stdio;

use super::error::{ApiError, render_errors};
use super::guard;
use super::state::AppState;
use crate::error::{Error, Result};
use axum::Router;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;
use std::any::Any;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// All routes behind the middleware that guards them.
pub(super) fn router(state: &Arc<AppState>) -> Result<Router> {
    let (routes, mut api) = OpenApiRouter::with_openapi(description::Description::openapi())
        .routes(routes!(search::search, search::search_by_address))
        .routes(routes!(search::batch))
        .routes(routes!(search::compare))
        .routes(routes!(overview::overview))
        .routes(routes!(answer::answer))
        .routes(routes!(chat::completions))
        .routes(routes!(documents::upsert))
        .routes(routes!(documents::delete))
        .routes(routes!(openai::embeddings))
        .routes(routes!(openai::embeddings_at_root))
        .routes(routes!(openai::models))
        .routes(routes!(openai::model))
        .routes(routes!(cohere_embed::embed_v1))
        .routes(routes!(cohere_embed::embed_v2))
        .routes(routes!(cohere::rerank_v1))
        .routes(routes!(cohere::rerank_v2))
        .routes(routes!(cohere::reranking))
        .routes(routes!(cohere::reranking_at_root))
        .routes(routes!(score::score))
        .routes(routes!(score::score_at_root))
        .routes(routes!(tei::embed))
        .routes(routes!(tei::embed_all))
        .routes(routes!(tei::rerank))
        .routes(routes!(tei::similarity))
        .routes(routes!(tei_tokens::tokenize))
        .routes(routes!(tei_tokens::decode))
        .routes(routes!(tei_root::root))
        .routes(routes!(tei_root::predict))
        .routes(routes!(tei_root::embed_sparse))
        .routes(routes!(ollama::embed))
        .routes(routes!(ollama::embeddings))
        .routes(routes!(ollama::tags))
        .routes(routes!(ollama::show))
        .routes(routes!(ollama::version))
        .routes(routes!(status::info))
        .routes(routes!(status::health))
        .routes(routes!(status::ping))
        .routes(routes!(status::metrics))
        .split_for_parts();
    description::complete(&mut api);
    let docs = description::page(&api);
    let api = api.to_json().map_err(|e| Error::usage(format!("the API description: {e}")))?;
    let api: Arc<str> = api.into();
    let json = HeaderValue::from_static("application/json");
    let describe = get(async move || ([(CONTENT_TYPE, json)], api.to_string()));
    let panicked = |_: Box<dyn Any + Send>| {
        ApiError::internal("the request was broken off: internal error, please report it")
            .into_response()
    };
    let routes = routes
        .route("/api-docs/openapi.json", describe)
        .merge(page::routes(docs))
        .route("/mcp", mcp::route(state))
        .fallback(async || {
            let message = "there is no such route; /api-docs/openapi.json lists them";
            ApiError::new(StatusCode::NOT_FOUND, message)
        })
        .method_not_allowed_fallback(async |method: Method| {
            let message =
                format!("{method} is not for this route; /api-docs/openapi.json says what is");
            ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
        })
        // The last layer is the outermost.
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(Arc::clone(state), guard::authorize))
        .layer(from_fn(render_errors));
    let routes = match cross_origin(&state.access.origins)? {
        Some(layer) => routes.layer(layer),
        None => routes,
    };
    let log = from_fn_with_state(Arc::clone(state), guard::log_request);
    Ok(routes.layer(log).with_state(Arc::clone(state)))
}

/// CORS headers for the allowed origins; `None` if there are none.
fn cross_origin(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let value = |origin: &String| {
        HeaderValue::from_str(origin.trim_end_matches('/')).map_err(|_| {
            Error::usage(format!("--cors-origin: invalid origin '{origin}': use https://HOST"))
        })
    };
    let allowed = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().map(value).collect::<Result<Vec<_>>>()?),
    };
    let headers = [AUTHORIZATION, CONTENT_TYPE].into_iter().chain(mcp::HEADERS);
    Ok(Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers(headers.collect::<Vec<_>>()),
    ))
}
