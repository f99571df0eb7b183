//! `/v1/documents`: upserts and deletions.

use super::warnings::Warned;
use crate::error::Place;
use crate::indexing::passages;
use crate::server::error::{ApiError, ApiResult};
use crate::server::own::{OwnBody, OwnRequest, UnknownFields};
use crate::server::scheduled::{embed, tokenizing};
use crate::server::state::{AppState, OpenIndex};
use crate::server::writer::{Change, Written};
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Extract};
use axum::http::StatusCode;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use warpseek_bert::embedder::Role;
use warpseek_bert::tokenizer::TokenMeter;
use warpseek_ingest::chunk::{self, Chunk};
use warpseek_ingest::{self, Document, NoteKind, ReadNotes, TITLE_ALONE};

/// Documents to add to an index or to replace in it.
#[derive(Debug, ToSchema)]
pub(super) struct UpsertRequest {
    /// The index [default: that of `--default-index`, or the only one].
    index: Option<String>,
    /// The documents, each in the form of a line of jsonl that `warpseek index` reads: an `id`, a
    /// `text`, an optional `title`; all other fields are metadata. A title alone is enough.
    /// A document with the id of an existing one replaces it.
    #[schema(value_type = Vec<UpsertDocument>)]
    documents: Vec<Map<String, Value>>,
    #[schema(ignore)]
    unknown: UnknownFields,
}

/// Written by hand: the derived one would keep a second copy of all documents to find unknown
/// fields.
impl<'de> Deserialize<'de> for UpsertRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = UpsertRequest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UpsertRequest, A::Error> {
                let (mut index, mut documents, mut unknown) = (None, None, Map::new());
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "index" if index.is_none() => index = Some(map.next_value()?),
                        "documents" if documents.is_none() => documents = Some(map.next_value()?),
                        "index" => return Err(A::Error::duplicate_field("index")),
                        "documents" => return Err(A::Error::duplicate_field("documents")),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            unknown.insert(name, Value::Null);
                        }
                    }
                }
                let documents = documents.ok_or_else(|| A::Error::missing_field("documents"))?;
                let index = index.unwrap_or_default();
                Ok(UpsertRequest { index, documents, unknown: unknown.into() })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl OwnBody for UpsertRequest {
    fn unknown_fields(&self) -> Vec<String> {
        self.unknown.warnings::<Self>()
    }
}

/// A document.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes the input of `warpseek_ingest::from_object`")]
struct UpsertDocument {
    /// Unique within the index.
    #[schema(example = "doc-1", min_length = 1, max_length = 512)]
    id: String,
    /// The text that is searched. Without it, or if it is empty, the title stands alone.
    #[schema(example = "Exact search reads every row.")]
    text: Option<String>,
    /// Embedded in front of the text.
    title: Option<String>,
}

/// The effect of an upsert.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Upserted {
    #[serde(flatten)]
    pub(super) written: Written,
    /// Notes on the documents: how many have a title and no text.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) notes: Vec<String>,
}

/// Add or replace documents, all or none; they are durable and searchable when the reply comes
#[utoipa::path(post, path = "/v1/documents", tag = "documents", request_body = UpsertRequest,
    responses((status = 200, body = Upserted), (status = 507, description = "The disk is full")))]
pub(super) async fn upsert(request: OwnRequest<UpsertRequest>) -> ApiResult<Warned<Upserted>> {
    let OwnRequest { state, body, permit: _permit, warnings } = request;
    Ok(Warned(warnings, upsert_into(&state, body.index.as_deref(), body.documents).await?))
}

/// Adds or replaces documents in the index of this name.
pub(super) async fn upsert_into(
    state: &AppState,
    index: Option<&str>,
    documents: Vec<Map<String, Value>>,
) -> ApiResult<Upserted> {
    let index = writable_index(state, index)?;
    state.check_inputs(documents.len(), "documents")?;
    // The snapshot is not kept: the writer may wait for the end of its use.
    let (embedder, chunking) = {
        let searcher = index.served.searcher();
        let manifest = searcher.index.manifest();
        (manifest.model.as_ref().and(searcher.embedder.clone()), manifest.chunking)
    };
    let missing = "the index was imported without a model, so that texts cannot be added to it";
    let embedder = embedder.ok_or_else(|| ApiError::invalid(missing))?;
    let model = Arc::clone(&embedder);
    let size = |value: &Value| value.as_str().map_or(0, str::len);
    let bytes = documents.iter().flat_map(Map::values).map(size).sum();
    let work = move |meter: &TokenMeter| {
        let mut ids = HashSet::new();
        let mut split = Vec::with_capacity(documents.len());
        for (number, object) in documents.into_iter().enumerate() {
            let place = Place::record("documents", format!("entry {number}"));
            let document = warpseek_ingest::from_object(object, place)?;
            if !ids.insert(document.id.clone()) {
                let reason = format!("the id '{}' comes twice in this request", document.id);
                return Err(crate::error::Error::input(document.place, reason));
            }
            let count = |text: &str| model.tokenizer().count_within(text, meter);
            let go_on = || !meter.is_stopped();
            let ranges = chunk::split_while(&document, &chunking, count, go_on)?;
            split.push((document, ranges));
        }
        Ok(split)
    };
    let documents: Vec<(Document, Vec<Range<usize>>)> =
        tokenizing(state, bytes, state.limits.max_request_tokens, work).await?;
    let notes = ReadNotes::default();
    for (document, _) in documents.iter().filter(|(document, _)| document.text.is_empty()) {
        notes.add(&document.place.file, "text", NoteKind::NoText, TITLE_ALONE, 1);
    }
    let texts = documents.iter().flat_map(|(document, ranges)| passages(document, ranges));
    let texts: Vec<String> = texts.collect();
    let embedded = embed(state, &embedder, texts, Role::Passage).await?;
    let counts = embedded.tokens.iter().zip(&embedded.lost);
    let mut rows = embedded.vectors.chunks_exact(embedder.dim()).zip(counts);
    let changes = documents.into_iter().map(|(document, ranges)| {
        let mut chunks = Vec::with_capacity(ranges.len());
        let mut vectors = Vec::with_capacity(ranges.len() * embedder.dim());
        for (range, (vector, (&tokens, &tokens_lost))) in ranges.into_iter().zip(rows.by_ref()) {
            vectors.extend(vector);
            chunks.push(Chunk { range, tokens, tokens_lost });
        }
        Change::Put { document: Box::new(document), chunks, vectors }
    });
    let changes = changes.collect();
    let written = index.writer.write(changes).await?;
    Ok(Upserted { written, notes: notes.texts() })
}

/// Query parameters of a deletion.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct DeleteParams {
    /// The index [default: that of `--default-index`, or the only one].
    index: Option<String>,
}

/// Delete a document by its id, or all documents of a `doc_id`
#[utoipa::path(delete, path = "/v1/documents/{id}", tag = "documents",
    params(("id" = String, Path, description = "The id"), DeleteParams),
    responses((status = 200, body = Written), (status = 507, description = "The disk is full")))]
pub(super) async fn delete(
    Extract(state): Extract<Arc<AppState>>,
    id: Result<Path<String>, PathRejection>,
    params: Result<Query<DeleteParams>, QueryRejection>,
) -> ApiResult<Json<Written>> {
    let (Path(id), Query(params)) = (id?, params?);
    let _permit = state.start_work()?;
    delete_from(&state, params.index.as_deref(), id).await.map(Json)
}

/// Deletes a document, or all of a `doc_id`, from the index of this name.
pub(super) async fn delete_from(
    state: &AppState,
    index: Option<&str>,
    id: String,
) -> ApiResult<Written> {
    let index = writable_index(state, index)?;
    let written = index.writer.write(vec![Change::Delete(id.clone())]).await?;
    if written.deleted == 0 {
        let shown: String = id.chars().take(80).collect();
        let message = format!("the index has no document '{shown}'");
        return Err(ApiError::new(StatusCode::NOT_FOUND, message));
    }
    Ok(written)
}

fn writable_index<'a>(state: &'a AppState, name: Option<&str>) -> ApiResult<&'a OpenIndex> {
    if state.access.read_only {
        let message = "this server only reads: it was started with --read-only";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    let index = state.index(name)?;
    if index.served.searcher().index.shard_list().is_some() {
        let message = "this index is in shards, which do not change";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message));
    }
    Ok(index)
}
