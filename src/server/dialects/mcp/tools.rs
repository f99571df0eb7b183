//! The tools, as `tools/list` describes them.

use crate::server::state::AppState;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};
use std::sync::Arc;

/// The default number of hits.
pub(super) const DEFAULT_HITS: usize = 5;

/// The default length of an excerpt, in characters.
pub(super) const DEFAULT_EXCERPT: usize = 700;

/// The maximum length of an excerpt, in characters.
pub(super) const MAX_EXCERPT: usize = 4000;

/// The default length of all texts that `get` returns, in characters.
pub(super) const DEFAULT_TEXT: usize = 8000;

/// The maximum length of all texts that `get` returns, in characters.
pub(super) const MAX_TEXT: usize = 30_000;

/// The maximum number of ids of a call.
pub(super) const MAX_IDS: usize = 100;

/// The tools that a server offers.
pub(super) fn all(state: &AppState) -> Vec<Tool> {
    let mut tools = vec![search(state), get(state), list_indexes()];
    if state.access.agent_writes && !state.access.read_only {
        tools.extend([upsert(state), delete(state)]);
    }
    tools
}

/// The names of a tool's arguments.
pub(super) fn arguments(tool: &Tool) -> Vec<&str> {
    let properties = tool.input_schema.get("properties").and_then(Value::as_object);
    properties.into_iter().flat_map(|all| all.keys()).map(String::as_str).collect()
}

fn search(state: &AppState) -> Tool {
    let most = state.limits.max_hits;
    let properties = json!({
        "query": {
            "type": "string",
            "description": "The question, or words that the passages are about. A whole sentence \
                works best."
        },
        "k": {
            "type": "integer", "minimum": 1, "maximum": most, "default": DEFAULT_HITS,
            "description": "The number of hits."
        },
        "filter": {
            "type": "string",
            "description": "A condition on metadata, in the syntax of SQL: \
                year >= 2020 AND author = 'Ann' AND title LIKE '%graph%'. `list_indexes` names the \
                fields."
        },
        "rerank": {
            "type": "boolean",
            "description": "Order the hits again by a cross-encoder: slower, and better [default: \
                true if the server has one]."
        },
        "hybrid": {
            "type": "boolean", "default": false,
            "description": "Rank by words (BM25) too: for names, codes and rare words."
        },
        "excerpt_chars": {
            "type": "integer", "minimum": 0, "maximum": MAX_EXCERPT, "default": DEFAULT_EXCERPT,
            "description": "Characters of each excerpt."
        },
    });
    let description = "Finds the passages that answer a query, best first. Each hit has the `id` \
                       of the passage, the `doc_id` of its document, an `excerpt` around the best \
                       match, its byte `span` in the document, scores and metadata.";
    let properties = with_index(state, properties);
    read_only(tool("search", description, properties, &["query"]), "Search")
}

fn get(state: &AppState) -> Tool {
    let properties = json!({
        "ids": {
            "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": MAX_IDS,
            "description": "Ids of hits (the passage), or their doc_ids (the whole document)."
        },
        "offset": {
            "type": "integer", "minimum": 0, "default": 0,
            "description": "The byte of the text to begin at: `next_offset` of the reply before. \
                Only for a single id."
        },
        "max_chars": {
            "type": "integer", "minimum": 1, "maximum": MAX_TEXT, "default": DEFAULT_TEXT,
            "description": "Characters of all texts together."
        },
    });
    let description = "Returns the texts of passages or documents by id. A text that does not \
                       fit is cut, with a `next_offset` to go on from.";
    read_only(tool("get", description, with_index(state, properties), &["ids"]), "Read")
}

fn list_indexes() -> Tool {
    let description = "Lists the indexes: name, number of documents, embedding model, and the \
                       metadata fields with their types.";
    read_only(tool("list_indexes", description, json!({}), &[]), "List indexes")
}

fn upsert(state: &AppState) -> Tool {
    let properties = json!({
        "documents": {
            "type": "array", "minItems": 1, "maxItems": state.limits.max_inputs,
            "items": {
                "type": "object", "required": ["id"], "additionalProperties": true,
                "properties": {
                    "id": {
                        "type": "string",
                        "description": "Unique. A document with the same id is replaced."
                    },
                    "text": {
                        "type": "string",
                        "description": "May be missing if there is a title, which is then embedded."
                    },
                    "title": { "type": "string" }
                }
            },
            "description": "The documents. Fields other than id, title and text are metadata."
        },
    });
    let description = "Adds documents or replaces those of the same id, all or none. They are \
                       found by searches as soon as the result is there.";
    let tool = tool("upsert", description, with_index(state, properties), &["documents"]);
    destructive(tool, "Add or replace documents")
}

fn delete(state: &AppState) -> Tool {
    let properties = json!({
        "ids": {
            "type": "array", "items": { "type": "string" }, "minItems": 1, "maxItems": MAX_IDS,
            "description": "Ids of documents, or a doc_id for all documents that share it."
        },
    });
    let description = "Deletes documents by id. It cannot be undone.";
    destructive(tool("delete", description, with_index(state, properties), &["ids"]), "Delete")
}

fn tool(
    name: &'static str,
    description: &'static str,
    properties: Value,
    required: &[&str],
) -> Tool {
    let schema = json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": false,
    });
    let schema: JsonObject = match schema {
        Value::Object(schema) => schema,
        _ => JsonObject::new(),
    };
    Tool::new(name, description, Arc::new(schema))
}

/// Properties with that of the index, which must be named if none is the default.
fn with_index(state: &AppState, mut properties: Value) -> Value {
    let names: Vec<&str> = state.indexes.iter().map(|index| &*index.served.name).collect();
    if names.len() > 1 {
        let description = match state.index(None) {
            Ok(default) => format!("The index [default: {}].", default.served.name),
            Err(_) => "The index.".to_owned(),
        };
        properties["index"] =
            json!({ "type": "string", "enum": names, "description": description });
    }
    properties
}

/// A tool that changes nothing.
fn read_only(tool: Tool, title: &str) -> Tool {
    let hints = ToolAnnotations::with_title(title).read_only(true).open_world(false);
    tool.with_title(title).with_annotations(hints)
}

/// A tool that changes documents.
fn destructive(tool: Tool, title: &str) -> Tool {
    let hints = ToolAnnotations::with_title(title)
        .read_only(false)
        .destructive(true)
        .idempotent(true)
        .open_world(false);
    tool.with_title(title).with_annotations(hints)
}
