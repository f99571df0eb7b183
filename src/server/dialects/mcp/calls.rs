//! Calls of the tools: arguments, checks, results.

use super::replies::{Passages, TextParts, fields_of};
use super::to_json;
use super::tools::{
    self, DEFAULT_EXCERPT, DEFAULT_HITS, DEFAULT_TEXT, MAX_EXCERPT, MAX_IDS, MAX_TEXT,
};
use crate::server::dialects::documents::{delete_from, upsert_into};
use crate::server::dialects::search::search_one;
use crate::server::dialects::search_request::{Retrieval, SearchRequest};
use crate::server::error::{ApiError, ApiResult};
use crate::server::mistakes::{read_object, unknown_field};
use crate::server::open::without_folder;
use crate::server::reply_size::ReplySize;
use crate::server::scheduled::blocking;
use crate::server::state::AppState;
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Calls a tool. The result is JSON.
pub(super) async fn call(
    state: &AppState,
    name: &str,
    arguments: Map<String, Value>,
) -> ApiResult<String> {
    let _permit = state.start_work()?;
    let all = tools::all(state);
    let known = all.iter().find(|tool| tool.name == name).map(tools::arguments).unwrap_or_default();
    // An only index may be named too, though the tool lists no argument for it.
    let is_known = |given: &str| known.contains(&given) || given == "index";
    if let Some(unknown) = arguments.keys().find(|given| !is_known(given)) {
        return Err(ApiError::invalid(unknown_field(unknown, &known)));
    }
    match name {
        "search" => search(state, read(arguments)?).await,
        "get" => get(state, read(arguments)?).await,
        "list_indexes" => list_indexes(state).await,
        "upsert" => upsert(state, read(arguments)?).await,
        _ => delete(state, read(arguments)?).await,
    }
}

/// Reads the arguments of a tool.
fn read<T: DeserializeOwned>(arguments: Map<String, Value>) -> ApiResult<T> {
    // Models write null for what they leave out.
    let given: Map<String, Value> = arguments.into_iter().filter(|(_, v)| !v.is_null()).collect();
    read_object(given)
}

#[derive(Deserialize)]
struct SearchCall {
    query: String,
    k: Option<usize>,
    filter: Option<String>,
    rerank: Option<bool>,
    hybrid: Option<bool>,
    index: Option<String>,
    excerpt_chars: Option<usize>,
}

async fn search(state: &AppState, arguments: SearchCall) -> ApiResult<String> {
    let excerpt_chars = arguments.excerpt_chars.unwrap_or(DEFAULT_EXCERPT);
    let message = format!("`excerpt_chars` is {excerpt_chars}: use 0 to {MAX_EXCERPT}");
    ApiError::check(excerpt_chars <= MAX_EXCERPT, "excerpt_chars", message)?;
    let served = &state.index(arguments.index.as_deref())?.served;
    let searcher = served.searcher();
    let rerank_depth = match arguments.rerank {
        Some(true) => searcher.require_reranker().map(|_| None)?,
        Some(false) => Some(0),
        None => None,
    };
    let request = SearchRequest {
        query: Some(arguments.query.clone()),
        k: Some(arguments.k.unwrap_or(DEFAULT_HITS)),
        retrieval: Retrieval {
            filter: arguments.filter,
            hybrid: arguments.hybrid.unwrap_or(false),
            rerank_depth,
            ..Retrieval::default()
        },
        ..SearchRequest::default()
    };
    let found = search_one(state, searcher, request, &ReplySize::new(&state.limits), None).await?;
    let mut passages = Passages::new(&arguments.query, excerpt_chars);
    let all = found.hits.len();
    let shown = found.hits.iter().take_while(|hit| passages.add(hit)).count();
    let mut notes = found.warnings;
    if shown < all {
        let n = all - shown;
        notes.push(format!(
            "{n} more hits do not fit into the reply: ask for a smaller `k` or `excerpt_chars`"
        ));
    }
    if all == 0 {
        let cure = match found.matched_rows {
            0 => "no document passes the filter: `list_indexes` names fields and types",
            _ => "nothing was found",
        };
        notes.push(cure.to_owned());
    }
    let mut reply = json!({
        "index": served.name, "hits": passages.hits, "matched_passages": found.matched_rows,
    });
    if !notes.is_empty() {
        reply["notes"] = json!(notes);
    }
    to_json(&reply)
}

/// One text or several.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`ids` must be a list of texts")]
enum Ids {
    One(String),
    Many(Vec<String>),
}

impl Ids {
    fn into_list(self) -> ApiResult<Vec<String>> {
        let ids = match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        };
        let n = ids.len();
        let message = format!("`ids` has {n} entries: give 1 to {MAX_IDS}");
        ApiError::check((1..=MAX_IDS).contains(&n), "ids", message)?;
        let is_full = ids.iter().all(|id| !id.is_empty());
        ApiError::check(is_full, "ids", "`ids` has an empty text: leave it out").map(|()| ids)
    }
}

#[derive(Deserialize)]
struct GetCall {
    ids: Ids,
    offset: Option<usize>,
    max_chars: Option<usize>,
    index: Option<String>,
}

async fn get(state: &AppState, arguments: GetCall) -> ApiResult<String> {
    let (ids, offset) = (arguments.ids.into_list()?, arguments.offset.unwrap_or(0));
    let most = arguments.max_chars.unwrap_or(DEFAULT_TEXT);
    let message = format!("`max_chars` is {most}: use 1 to {MAX_TEXT}");
    ApiError::check((1..=MAX_TEXT).contains(&most), "max_chars", message)?;
    let message = "`offset` is for a single id: ask for one id, or leave it out";
    ApiError::check(offset == 0 || ids.len() == 1, "offset", message)?;
    let searcher = state.index(arguments.index.as_deref())?.served.searcher();
    let texts = blocking(move || {
        let mut texts = TextParts::new(offset, most);
        for id in ids {
            let numbers = searcher.index.rows_of(&id)?;
            texts.add(id, searcher.index.rows(&numbers)?);
        }
        Ok(texts)
    })
    .await?;
    if texts.texts.is_empty() {
        let message = format!(
            "the index has no {}: use the `id` or `doc_id` of a hit of `search`",
            texts.missing.join(", ")
        );
        return Err(ApiError::new(StatusCode::NOT_FOUND, message));
    }
    let mut reply = json!({ "texts": texts.texts });
    if !texts.missing.is_empty() {
        reply["missing"] = json!(texts.missing);
    }
    to_json(&reply)
}

async fn list_indexes(state: &AppState) -> ApiResult<String> {
    let default = state.index(None).ok().map(|index| &index.served.name);
    let mut indexes = Vec::new();
    for index in &state.indexes {
        let (name, searcher) = (index.served.name.clone(), index.served.searcher());
        let is_default = default == Some(&name);
        let look = move || {
            let (stats, manifest) = (searcher.index.stats()?, searcher.index.manifest());
            Ok(json!({
                "name": name,
                "default": is_default,
                "documents": stats.documents,
                "passages": stats.rows,
                "model": manifest.model.as_ref().map(|model| without_folder(&model.name)),
                "language": manifest.language().code(),
                "fields": fields_of(searcher.index.fields()),
            }))
        };
        indexes.push(blocking(look).await?);
    }
    let writable = state.access.agent_writes && !state.access.read_only;
    to_json(&json!({
        "indexes": indexes,
        "reranker": state.reranker.as_ref().map(|reranker| &reranker.name),
        "writable": writable,
    }))
}

#[derive(Deserialize)]
struct UpsertCall {
    documents: Vec<Map<String, Value>>,
    index: Option<String>,
}

async fn upsert(state: &AppState, arguments: UpsertCall) -> ApiResult<String> {
    let done = upsert_into(state, arguments.index.as_deref(), arguments.documents).await?;
    to_json(&json!(done))
}

#[derive(Deserialize)]
struct DeleteCall {
    ids: Ids,
    index: Option<String>,
}

async fn delete(state: &AppState, arguments: DeleteCall) -> ApiResult<String> {
    state.index(arguments.index.as_deref())?;
    let (mut deleted, mut missing) = (0, Vec::new());
    let ids: BTreeSet<String> = arguments.ids.into_list()?.into_iter().collect();
    for id in ids {
        match delete_from(state, arguments.index.as_deref(), id.clone()).await {
            Ok(done) => deleted += done.deleted,
            Err(e) if e.is_not_found() => missing.push(id),
            Err(e) => return Err(e),
        }
    }
    if deleted == 0 {
        let message = format!("the index has no {}: nothing was deleted", missing.join(", "));
        return Err(ApiError::new(StatusCode::NOT_FOUND, message));
    }
    to_json(&json!({ "deleted": deleted, "missing": missing }))
}
