//! `/v1/documents`: upserts and deletions.

use crate::chunk::{self, Chunk};
use crate::embed::Role;
use crate::error::Place;
use crate::ingest::{self, Document};
use crate::server::body::Job;
use crate::server::error::ApiError;
use crate::server::pipeline::{self, blocking};
use crate::server::state::{Served, State};
use crate::server::write::{Change, Written};
use crate::store::passage;
use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State as Extract};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::new().routes(routes!(upsert)).routes(routes!(delete))
}

/// Documents to put into an index.
#[derive(Debug, Deserialize, ToSchema)]
struct UpsertRequest {
    /// The index; needed where several are served.
    index: Option<String>,
    /// Each like a line of jsonl that `warpseek index` reads: an `id`, a `text`, perhaps a `title`; what else it
    /// has is its metadata. A document of an id that is there already replaces it.
    #[schema(value_type = Vec<UpsertDocument>)]
    documents: Vec<Map<String, Value>>,
}

/// A document.
#[derive(ToSchema)]
#[allow(dead_code, reason = "it describes what `ingest::from_object` reads")]
struct UpsertDocument {
    /// Unique within the index.
    #[schema(example = "doc-1", min_length = 1, max_length = 512)]
    id: String,
    /// What is searched.
    #[schema(example = "Exact search reads every row.", min_length = 1)]
    text: String,
    /// Embedded in front of the text.
    title: Option<String>,
}

/// Put documents into an index, all or none; they are durable and found when the reply comes
#[utoipa::path(post, path = "/v1/documents", tag = "documents", request_body = UpsertRequest,
    responses((status = 200, body = Written), (status = 507, description = "The disk is full")))]
async fn upsert(
    Extract(state): Extract<Arc<State>>,
    job: Job<UpsertRequest>,
) -> Result<Json<Written>, ApiError> {
    let request = job.body;
    let served = changeable(&state, request.index.as_deref())?;
    state.check_inputs(request.documents.len(), "documents")?;
    let searcher = served.searcher();
    let manifest = searcher.index.manifest();
    let embedder = match (&manifest.model, &searcher.embedder) {
        (Some(_), Some(embedder)) => Arc::clone(embedder),
        _ => {
            return Err(ApiError::bad(
                "the index was imported without a model, so that texts cannot be put into it",
            ));
        }
    };
    let (chunking, model) = (manifest.chunking, Arc::clone(&embedder));
    let work = move || {
        let mut ids = HashSet::new();
        let mut documents = Vec::with_capacity(request.documents.len());
        for (number, object) in request.documents.into_iter().enumerate() {
            let place = Place::record("documents", format!("entry {number}"));
            let document = ingest::from_object(object, place)?;
            if !ids.insert(document.id.clone()) {
                let reason = format!("the id '{}' comes twice in this request", document.id);
                return Err(crate::error::Error::input(document.place, reason));
            }
            let ranges = chunk::split(&document, &chunking, |text| model.tokenizer().count(text))?;
            documents.push((document, ranges));
        }
        Ok(documents)
    };
    let documents: Vec<(Document, Vec<Range<usize>>)> = blocking(work).await?;
    let texts: Vec<String> = documents
        .iter()
        .flat_map(|(d, ranges)| {
            let text = |r: &Range<usize>| d.text.get(r.clone()).unwrap_or_default();
            ranges.iter().map(move |r| passage(&d.title, text(r), d.embed_title))
        })
        .collect();
    let found = pipeline::embed(&state, &embedder, texts, Role::Passage).await?;
    let mut rows = found.vectors.into_iter().zip(found.tokens.into_iter().zip(found.lost));
    let changes = documents.into_iter().map(|(document, ranges)| {
        let mut chunks = Vec::with_capacity(ranges.len());
        let mut vectors = Vec::with_capacity(ranges.len() * embedder.dim());
        for (range, (mut vector, (tokens, lost))) in ranges.into_iter().zip(rows.by_ref()) {
            embedder.finish(&mut vector);
            vectors.extend(vector);
            chunks.push(Chunk { range, tokens: tokens as u32, tokens_lost: lost as u32 });
        }
        Change::Put { document: Box::new(document), chunks, vectors }
    });
    let changes = changes.collect();
    served.writer().write(changes).await.map(Json)
}

/// Where a document is.
#[derive(Debug, Deserialize, IntoParams)]
struct DeleteParams {
    /// The index; needed where several are served.
    index: Option<String>,
}

/// Delete a document by its id, or all documents of a `doc_id`
#[utoipa::path(delete, path = "/v1/documents/{id}", tag = "documents",
    params(("id" = String, Path, description = "The id"), DeleteParams),
    responses((status = 200, body = Written), (status = 507, description = "The disk is full")))]
async fn delete(
    Extract(state): Extract<Arc<State>>,
    id: Result<Path<String>, PathRejection>,
    params: Result<Query<DeleteParams>, QueryRejection>,
) -> Result<Json<Written>, ApiError> {
    let (Path(id), Query(params)) = (id?, params?);
    let served = changeable(&state, params.index.as_deref())?;
    let _permit = state.start_work()?;
    let written = served.writer().write(vec![Change::Delete(id.clone())]).await?;
    if written.deleted == 0 {
        let shown: String = id.chars().take(80).collect();
        return Err(ApiError::not_found(format!("the index has no document '{shown}'")));
    }
    Ok(Json(written))
}

fn changeable<'a>(state: &'a State, index: Option<&str>) -> Result<&'a Arc<Served>, ApiError> {
    if state.access.read_only {
        return Err(ApiError::forbidden("this server only reads: it was started with --read-only"));
    }
    state.index(index)
}
