//! A search step by step, with the computing left to the scheduler.

use super::error::ApiError;
use super::state::State;
use crate::embed::{Embedder, Role};
use crate::error::Result;
use crate::model::tokenize::Sequence;
use crate::rerank::RerankJob;
use crate::search::{
    SearchOptions, SearchResult, Searcher, Timings, keep_best, note_scores, query_warning,
};
use std::sync::Arc;
use std::time::Instant;

/// What is searched for.
#[derive(Debug, Clone, Default)]
pub(super) struct Query {
    pub(super) text: String,
    pub(super) vector: Option<Vec<f32>>,
}

/// Vectors of texts, in their order.
#[derive(Debug, Clone, Default)]
pub(super) struct Vectors {
    pub(super) vectors: Vec<Vec<f32>>,
    /// Tokens of each, special ones included.
    pub(super) tokens: Vec<usize>,
    /// Tokens of each that the model's limit cut off.
    pub(super) lost: Vec<usize>,
}

/// Searches one snapshot.
pub(super) async fn search(
    state: &State,
    searcher: &Arc<Searcher>,
    query: Query,
    options: SearchOptions,
) -> Result<SearchResult, ApiError> {
    let started = Instant::now();
    let mut timings = Timings::default();
    let mut warnings = Vec::new();
    let vector = match query.vector {
        Some(vector) => vector,
        None => {
            let embedder = searcher.embedder.as_ref().ok_or_else(|| {
                ApiError::bad("the index has no embedding model: search for a `vector`")
                    .param("vector")
            })?;
            let mut found = embed(state, embedder, vec![query.text.clone()], Role::Query).await?;
            warnings.extend(query_warning(embedder, found.tokens[0], found.lost[0]));
            timings.embed = milliseconds(started);
            let mut vector = found.vectors.swap_remove(0);
            embedder.finish(&mut vector);
            vector
        }
    };
    let retrieval = SearchOptions {
        k: options.k.max(options.rerank_depth.unwrap_or(0)),
        rerank_depth: None,
        ..options.clone()
    };
    let text = query.text.clone();
    let (found, took) =
        state.scheduler.retrieve(Arc::clone(searcher), text, vector, retrieval).await?;
    (timings.filter, timings.scan, timings.fuse) = (took.filter, took.scan, took.fuse);
    warnings.extend(found.warnings);
    let mut candidates = found.candidates;
    if let Some(depth) = options.rerank_depth {
        let reranking = Instant::now();
        let (_, reranker) = searcher.require_reranker()?;
        let (reader, model) = (Arc::clone(searcher), Arc::clone(reranker));
        let work = move || {
            let rows = reader.passages(&candidates, depth)?;
            let texts: Vec<String> = rows.iter().map(|row| row.passage()).collect();
            let passages = texts.iter().map(String::as_str).collect();
            let (plan, pairs) = model.plan(&RerankJob { query: &query.text, passages })?;
            Ok((candidates, rows, plan, pairs))
        };
        let (scored, rows, plan, pairs) = blocking(work).await?;
        candidates = scored;
        let logits = state.scheduler.logits(pairs).await?;
        let outcome = plan.scores(&mut logits.into_iter());
        warnings.extend(note_scores(&mut candidates, &rows, outcome));
        let weight = options.retriever_weight.unwrap_or(reranker.retriever_weight());
        warnings.extend(keep_best(&mut candidates, weight, depth, options.k));
        timings.rerank = milliseconds(reranking);
    }
    candidates.truncate(options.k);
    let fetching = Instant::now();
    let reader = Arc::clone(searcher);
    let hits = blocking(move || reader.hits(&candidates)).await?;
    timings.fetch = milliseconds(fetching);
    timings.total = milliseconds(started);
    Ok(SearchResult {
        hits,
        matched_rows: found.matched_rows,
        total_rows: searcher.index.live().count(),
        reranker: options
            .rerank_depth
            .and(searcher.reranker.as_ref())
            .map(|(name, _)| name.clone()),
        took_ms: timings,
        warnings,
    })
}

/// The pooled states of texts; [`Embedder::finish`] makes vectors of them.
pub(super) async fn embed(
    state: &State,
    embedder: &Arc<Embedder>,
    texts: Vec<String>,
    role: Role,
) -> Result<Vectors, ApiError> {
    let model = Arc::clone(embedder);
    let tokenized = blocking(move || model.tokenize(&texts, role)).await?;
    let lost = tokenized.iter().map(|t| t.lost).collect();
    let sequences: Vec<Sequence> = tokenized.into_iter().map(|t| t.sequence).collect();
    let tokens: Vec<usize> = sequences.iter().map(|s| s.ids.len()).collect();
    state.check_tokens(tokens.iter().sum())?;
    let vectors = state.scheduler.embed(embedder, role, sequences).await?;
    Ok(Vectors { vectors, tokens, lost })
}

/// Work that takes a while, off the threads that talk to clients.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(ApiError::from),
        Err(_) => Err(ApiError::internal("the work was broken off: this is a fault of warpseek's")),
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
