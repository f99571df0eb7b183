//! The routes, one file a family of clients.

mod answer;
mod cohere;
mod documents;
mod openai;
mod search;
mod status;
mod tei;

use super::error::{ApiError, Family, render};
use super::guard;
use super::state::State;
use crate::error::{Error, Result};
use axum::Router;
use axum::extract::Request;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::sync::Arc;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::OpenApi;
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr};
use utoipa_axum::router::OpenApiRouter;

/// The description of this server.
#[derive(OpenApi)]
#[openapi(
    info(title = "warpseek", description = "Exact semantic search, embeddings and reranking, all local."),
    components(schemas(OpenAiError, CohereError, TeiError)),
    tags(
        (name = "search", description = "Searching, comparing, answering"),
        (name = "documents", description = "Changing an index"),
        (name = "openai", description = "As OpenAI's clients speak"),
        (name = "cohere", description = "As the clients of Cohere and Jina speak"),
        (name = "tei", description = "As the clients of text-embeddings-inference speak"),
        (name = "status", description = "What is here, and how it does"),
    )
)]
struct Description;

/// An error in the words of warpseek and OpenAI.
#[derive(Serialize, utoipa::ToSchema)]
#[allow(dead_code, reason = "it describes what `ApiError::to_json` writes")]
struct OpenAiError {
    error: OpenAiErrorBody,
}

/// What an error says.
#[derive(Serialize, utoipa::ToSchema)]
#[allow(dead_code, reason = "as above")]
struct OpenAiErrorBody {
    /// What is wrong, and what to do.
    message: String,
    /// The kind of error.
    r#type: String,
    /// The field at fault.
    param: Option<String>,
    /// A word for programs.
    code: Option<String>,
}

/// An error in the words of Cohere.
#[derive(Serialize, utoipa::ToSchema)]
#[allow(dead_code, reason = "as above")]
struct CohereError {
    /// What is wrong, and what to do.
    message: String,
}

/// An error in the words of text-embeddings-inference.
#[derive(Serialize, utoipa::ToSchema)]
#[allow(dead_code, reason = "as above")]
struct TeiError {
    /// What is wrong, and what to do.
    error: String,
    /// The kind of error.
    error_type: String,
}

/// All routes behind everything that guards them.
pub(super) fn router(state: &Arc<State>) -> Result<Router> {
    let (routes, mut description) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(search::routes())
        .merge(answer::routes())
        .merge(documents::routes())
        .merge(openai::routes())
        .merge(cohere::routes())
        .merge(tei::routes())
        .merge(status::routes())
        .split_for_parts();
    describe_errors(&mut description);
    let text = description.to_json().map_err(|e| Error::usage(format!("the description: {e}")))?;
    let json = HeaderValue::from_static("application/json");
    let text: Arc<str> = text.into();
    let routes = routes
        .route(
            "/api-docs/openapi.json",
            axum::routing::get(async move || ([(CONTENT_TYPE, json)], text.to_string())),
        )
        .merge(status::page())
        .fallback(async || {
            ApiError::not_found("there is no such route; /api-docs/openapi.json lists them")
        })
        .method_not_allowed_fallback(async |method: Method| {
            ApiError::method(format!(
                "{method} is not for this route; /api-docs/openapi.json says what is"
            ))
        })
        .layer(from_fn(async |request: Request, next: axum::middleware::Next| {
            let family = guard::family_of(request.uri().path());
            render(family, next.run(request).await)
        }))
        .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| {
            let error =
                ApiError::internal("the request was broken off: this is a fault of warpseek's");
            render(Family::OpenAi, error.into_response())
        }))
        .layer(from_fn_with_state(Arc::clone(state), guard::admit));
    let routes = match cross_origin(&state.access.origins)? {
        Some(layer) => routes.layer(layer),
        None => routes,
    };
    Ok(routes
        .layer(from_fn_with_state(Arc::clone(state), guard::note))
        .with_state(Arc::clone(state)))
}

/// What browsers are told of other origins' pages; nothing where none is allowed.
fn cross_origin(origins: &[String]) -> Result<Option<CorsLayer>> {
    if origins.is_empty() {
        return Ok(None);
    }
    let allowed = if origins.iter().any(|o| o == "*") {
        AllowOrigin::any()
    } else {
        let values = origins.iter().map(|origin| {
            let value = HeaderValue::from_str(origin.trim_end_matches('/'));
            value.map_err(|_| Error::usage(format!("--cors-origin: '{origin}' is no origin")))
        });
        AllowOrigin::list(values.collect::<Result<Vec<_>>>()?)
    };
    Ok(Some(
        CorsLayer::new()
            .allow_origin(allowed)
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([AUTHORIZATION, CONTENT_TYPE]),
    ))
}

/// The errors that every route shares.
fn describe_errors(description: &mut utoipa::openapi::OpenApi) {
    const ALWAYS: [(&str, &str); 8] = [
        ("400", "The request makes no sense; the message says why"),
        ("401", "A key is needed"),
        ("403", "Not from this origin, or not changeable"),
        ("404", "There is no such thing"),
        ("405", "Not this way"),
        ("429", "Too much waits; try again after `Retry-After`"),
        ("500", "A fault of the server or its index"),
        ("503", "Not in time, or not now; try again after `Retry-After`"),
    ];
    const WITH_BODY: [(&str, &str); 5] = [
        ("408", "The body did not arrive in time"),
        ("413", "The body is too long"),
        ("415", "The body is not JSON"),
        ("422", "The request does not fit"),
        ("424", "The server was started without what is asked for"),
    ];
    for (path, item) in &mut description.paths.paths {
        let schema = match guard::family_of(path) {
            Family::OpenAi => "OpenAiError",
            Family::Cohere => "CohereError",
            Family::Tei => "TeiError",
        };
        let response = |text: &str| -> RefOr<Described> {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
            ResponseBuilder::new()
                .description(text)
                .content("application/json", content)
                .build()
                .into()
        };
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            let with_body: &[(&str, &str)] =
                if operation.request_body.is_some() || path.contains('{') {
                    &WITH_BODY
                } else {
                    &[]
                };
            for (code, text) in ALWAYS.iter().chain(with_body) {
                operation
                    .responses
                    .responses
                    .entry((*code).to_owned())
                    .or_insert_with(|| response(text));
            }
        }
    }
    let components = description.components.get_or_insert_default();
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    components.add_security_scheme("key", bearer);
    let optional = [
        utoipa::openapi::SecurityRequirement::default(),
        utoipa::openapi::SecurityRequirement::new("key", Vec::<String>::new()),
    ];
    description.security = Some(optional.to_vec());
}

/// A reply with what the user should know in `warning` headers.
struct Warned<T>(Vec<String>, T);

impl<T: IntoResponse> IntoResponse for Warned<T> {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        for warning in self.0.iter().take(20) {
            let plain: String = warning
                .chars()
                .map(|c| if c.is_ascii_graphic() && c != '"' || c == ' ' { c } else { '\'' })
                .collect();
            if let Ok(value) = HeaderValue::from_str(&format!("299 warpseek \"{plain}\"")) {
                headers.append(HeaderName::from_static("warning"), value);
            }
        }
        (headers, self.1).into_response()
    }
}

/// What to say of texts that the model's limit cut.
fn cut_warning(lost: &[usize], limit: usize) -> Option<String> {
    let cut = lost.iter().filter(|&&n| n > 0).count();
    let tokens: usize = lost.iter().sum();
    (cut > 0).then(|| {
        let texts = if cut == 1 { "1 text was".to_owned() } else { format!("{cut} texts were") };
        format!("{texts} longer than {limit} tokens: {tokens} tokens were left out")
    })
}
