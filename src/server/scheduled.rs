//! Models and search steps by way of the scheduler.

use super::error::{ApiError, ApiResult};
use super::scheduler::WorkKind;
use super::state::AppState;
use crate::error::Result;
use crate::search::{
    OrderedBy, QueryInput, Retrieved, SearchOptions, SearchResult, SearchSteps, Searcher, Timings,
    hits,
};
use crate::store::Row;
use std::sync::Arc;
use warpseek_bert::embedder::{Embedder, Embeddings, Role};
use warpseek_bert::reranker::{RerankJob, RerankScores, Reranker};
use warpseek_bert::tokenizer::{Sequence, Tokenized};
use warpseek_topk::scanner::QueryBatch;

/// Steps of a search over one snapshot. While a step waits, it holds no thread. A search whose
/// client has gone is dropped, and with it all of its work that still waits.
pub(super) struct ScheduledSteps<'a> {
    pub(super) state: &'a AppState,
    pub(super) searcher: &'a Arc<Searcher>,
    /// Takes the first hits as they were retrieved, before they are reranked; and their number.
    pub(super) watcher: Option<(&'a Watcher<'a>, usize)>,
}

/// Takes hits that are not reranked yet.
pub(super) type Watcher<'a> = dyn Fn(SearchResult) -> ApiResult<()> + Send + Sync + 'a;

impl SearchSteps for ScheduledSteps<'_> {
    type Error = ApiError;

    fn searcher(&self) -> &Searcher {
        self.searcher
    }

    async fn embed(&self, texts: &[&str]) -> ApiResult<(QueryBatch, Embeddings)> {
        let embedder = self.searcher.embedder.as_ref().ok_or_else(|| {
            ApiError::invalid("the index has no embedding model: search for a `vector`")
                .param("vector")
        })?;
        let texts = texts.iter().map(|&text| text.to_owned()).collect();
        let embedded = embed(self.state, embedder, texts, Role::Query).await?;
        Ok((QueryBatch::new(&embedded.vectors, embedder.dim())?, embedded))
    }

    async fn rank(
        &self,
        queries: &[QueryInput<'_>],
        batch: QueryBatch,
        options: &SearchOptions,
        timings: &mut Timings,
    ) -> ApiResult<Vec<Retrieved>> {
        let stride = batch.padded()?.len() / batch.len().max(1);
        let mut found = Vec::with_capacity(queries.len());
        for (i, query) in queries.iter().enumerate() {
            let vector = batch.padded()?[i * stride..][..batch.dim()].to_vec();
            let ranked = self.state.scheduler.rank(self.searcher, query, vector, options);
            let (retrieved, took) = ranked.await?;
            *timings += took;
            found.push(retrieved);
        }
        Ok(found)
    }

    async fn retrieved(
        &self,
        found: &[Retrieved],
        ordered_by: OrderedBy,
        timings: &Timings,
    ) -> ApiResult<()> {
        let (Some((watch, k)), [found]) = (self.watcher, found) else { return Ok(()) };
        let first = found.candidates.iter().take(k).cloned().collect();
        watch(SearchResult {
            hits: hits(self, first).await?,
            ordered_by,
            below_min_score: None,
            not_reranked: None,
            reranked_rows: None,
            matched_rows: found.matched_rows,
            total_rows: self.searcher.index.live().count(),
            reranker: None,
            took_ms: *timings,
            warnings: found.warnings.clone(),
        })
    }

    async fn rows(&self, numbers: Vec<u32>) -> ApiResult<Vec<Row>> {
        let searcher = Arc::clone(self.searcher);
        blocking(move || searcher.index.rows(&numbers)).await
    }

    async fn score(
        &self,
        queries: &[QueryInput<'_>],
        passages: Vec<Vec<String>>,
    ) -> ApiResult<Vec<RerankScores>> {
        let (_, reranker) = self.searcher.require_reranker()?;
        let mut scores = Vec::with_capacity(queries.len());
        for (query, passages) in queries.iter().zip(passages) {
            let query = query.text.to_owned();
            scores.push(score(self.state, reranker, query, passages, |_| Ok(())).await?);
        }
        Ok(scores)
    }
}

/// Embeds texts, as [`Embedder::embed`] does.
pub(super) async fn embed(
    state: &AppState,
    embedder: &Arc<Embedder>,
    texts: Vec<String>,
    role: Role,
) -> ApiResult<Embeddings> {
    let model = Arc::clone(embedder);
    let tokenized = blocking(move || model.tokenize(&texts, role)).await?;
    embed_tokens(state, embedder, tokenized, role).await
}

/// As [`embed`], for texts that are tokenized already.
pub(super) async fn embed_tokens(
    state: &AppState,
    embedder: &Arc<Embedder>,
    tokenized: Vec<Tokenized>,
    role: Role,
) -> ApiResult<Embeddings> {
    let lost = tokenized.iter().map(|t| t.lost as u32).collect();
    let tokens: Vec<u32> = tokenized.iter().map(|t| t.sequence.ids.len() as u32).collect();
    let sequences: Vec<Sequence> = tokenized.into_iter().map(|t| t.sequence).collect();
    state.check_tokens(tokens.iter().map(|&n| n as usize).sum())?;
    let kind = WorkKind::Embed(Arc::clone(embedder), role);
    let mut vectors = state.scheduler.compute(kind, sequences).await?.concat();
    vectors.chunks_exact_mut(embedder.dim()).for_each(|vector| embedder.finish(vector));
    Ok(Embeddings { vectors, tokens, lost })
}

/// Scores passages against a query, as [`Reranker::score`] does. `check` may refuse the pairs of
/// query and window that the passages take.
pub(super) async fn score(
    state: &AppState,
    reranker: &Arc<Reranker>,
    query: String,
    passages: Vec<String>,
    check: impl FnOnce(&[Sequence]) -> ApiResult<()>,
) -> ApiResult<RerankScores> {
    let model = Arc::clone(reranker);
    let plan = move || {
        let passages = passages.iter().map(String::as_str).collect();
        model.plan(&RerankJob { query: &query, passages })
    };
    let (plan, pairs) = blocking(plan).await?;
    check(&pairs)?;
    let logits = state.scheduler.compute(WorkKind::Rerank(Arc::clone(reranker)), pairs).await?;
    Ok(plan.scores(&mut logits.into_iter().flatten()))
}

/// Runs work that takes long on a thread that serves no clients.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> ApiResult<T> {
    let panicked =
        |_| ApiError::internal("the work was broken off: internal error, please report it");
    Ok(tokio::task::spawn_blocking(work).await.map_err(panicked)??)
}
