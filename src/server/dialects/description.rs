//! The OpenAPI description: its frame, and the errors that all routes share.

use crate::server::error::Dialect;
use utoipa::openapi::response::{Response as Described, ResponseBuilder};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, SecurityRequirement};
use utoipa::{OpenApi, ToSchema};

/// The description before the routes are added.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "warpseek",
        description = "Exact semantic search, embeddings and reranking, all local."
    ),
    components(schemas(OpenAiError, CohereError, TeiError, OllamaError)),
    tags(
        (name = "search", description = "Search, comparison, answers"),
        (name = "documents", description = "Changes of an index"),
        (name = "openai", description = "Routes for clients of OpenAI, Jina, Voyage and Infinity"),
        (name = "cohere", description = "Routes for clients of Cohere, Jina, Voyage and llama.cpp"),
        (name = "tei", description = "Routes for clients of text-embeddings-inference"),
        (name = "ollama", description = "Routes for clients of Ollama"),
        (name = "vllm", description = "Routes for clients of vLLM"),
        (name = "status", description = "Models, indexes, health and metrics"),
    )
)]
pub(super) struct Description;

/// An error in the format of warpseek and OpenAI.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `ApiError::to_json`")]
struct OpenAiError {
    error: OpenAiErrorBody,
}

/// The error.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `ApiError::to_json`")]
struct OpenAiErrorBody {
    /// The cause, and the remedy.
    message: String,
    /// The kind of error.
    r#type: String,
    /// The invalid field.
    param: Option<String>,
    /// The error code.
    code: Option<String>,
}

/// An error in the format of Cohere.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `ApiError::render`")]
struct CohereError {
    /// The cause, and the remedy.
    message: String,
}

/// An error in the format of text-embeddings-inference.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `ApiError::to_tei`")]
struct TeiError {
    /// The cause, and the remedy.
    error: String,
    /// The kind of error.
    error_type: String,
}

/// An error in the format of Ollama.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `ApiError::render`")]
struct OllamaError {
    /// The cause, and the remedy.
    error: String,
}

/// Responses that every route may give.
const ALWAYS: [(&str, &str); 9] = [
    ("400", "The request is invalid; the message says why"),
    ("401", "A key is needed"),
    ("403", "The host, the origin or the change is not allowed"),
    ("404", "Not found"),
    ("405", "The route does not take this method"),
    ("429", "Too much work waits, or the server shuts down; try again after `Retry-After`"),
    ("500", "An error of the server or its index"),
    ("503", "Another program writes to the index; try again after `Retry-After`"),
    ("504", "No reply within the time limit; a repeated request would take as long again"),
];

/// Responses of routes that take a body or a path parameter.
const WITH_INPUT: [(&str, &str); 5] = [
    ("408", "The body did not arrive in time"),
    ("413", "The body is too long"),
    ("415", "The body is not JSON"),
    ("422", "The request is invalid"),
    ("424", "The server was started without the model, index or service"),
];

/// A page that lists the routes with their purposes.
pub(super) fn page(api: &utoipa::openapi::OpenApi) -> String {
    let mut rows = String::new();
    for (path, item) in &api.paths.paths {
        let methods = [("GET", &item.get), ("POST", &item.post), ("DELETE", &item.delete)];
        for (method, operation) in methods {
            let Some(operation) = operation else { continue };
            let purpose = operation.summary.as_deref().unwrap_or_default();
            let family = operation.tags.iter().flatten().map(String::as_str);
            let family = family.collect::<Vec<_>>().join(", ");
            rows += &format!(
                "<tr><td>{method}</td><td><code>{path}</code></td><td>{purpose}</td>\
                 <td>{family}</td></tr>\n"
            );
        }
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <title>warpseek: routes</title>\
         <link rel=\"stylesheet\" href=\"/page.css\"></head>\n<body>\n<h1>Routes</h1>\n\
         <p>Fields and replies: <a href=\"/api-docs/openapi.json\">OpenAPI description</a></p>\n\
         <table>\n<tr><th>Method</th><th>Path</th><th>Purpose</th><th>Family</th></tr>\n{rows}\
         </table>\n</body>\n</html>\n"
    )
}

/// Adds the errors that the routes share, and the API key.
pub(super) fn complete(api: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut api.paths.paths {
        let schema = match Dialect::of(path) {
            Dialect::OpenAi => "OpenAiError",
            Dialect::Cohere => "CohereError",
            Dialect::Tei => "TeiError",
            Dialect::Ollama => "OllamaError",
        };
        let response = |text: &str| -> RefOr<Described> {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(schema))).build();
            let response = ResponseBuilder::new().description(text);
            response.content("application/json", content).build().into()
        };
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            let takes_input = operation.request_body.is_some() || path.contains('{');
            let more = if takes_input { &WITH_INPUT[..] } else { &[] };
            for (code, text) in ALWAYS.iter().chain(more) {
                let responses = &mut operation.responses.responses;
                responses.entry((*code).to_owned()).or_insert_with(|| response(text));
            }
        }
    }
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    api.components.get_or_insert_default().add_security_scheme("key", bearer);
    let with_key = SecurityRequirement::new("key", Vec::<String>::new());
    api.security = Some(vec![SecurityRequirement::default(), with_key]);
}
