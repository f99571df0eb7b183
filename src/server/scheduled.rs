//! Models and search steps by way of the scheduler.

use super::error::{ApiError, ApiResult};
use super::scheduler::{Admission, WorkKind};
use super::state::AppState;
use crate::error::Result;
use crate::search::{
    OrderedBy, QueryInput, Retrieved, SearchOptions, SearchResult, SearchSteps, Searcher, Timings,
    hits,
};
use crate::store::Row;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use warpseek_bert::embedder::{Embedder, Embeddings, Role};
use warpseek_bert::reranker::{RerankJob, RerankScores, Reranker};
use warpseek_bert::tokenizer::{Sequence, TokenMeter, Tokenized};
use warpseek_topk::scanner::QueryBatch;

/// Steps of a search over one snapshot. While a step waits, it holds no thread. A search whose
/// client has gone is dropped, and with it all of its work that still waits.
pub(super) struct ScheduledSteps<'a> {
    pub(super) state: &'a AppState,
    pub(super) searcher: &'a Arc<Searcher>,
    /// Takes the first hits as they were retrieved, before they are reranked; and their number.
    pub(super) watcher: Option<(&'a Watcher<'a>, usize)>,
    /// The place of its pairs among the waiting work.
    admission: Option<&'a Admission>,
}

impl<'a> ScheduledSteps<'a> {
    /// Steps of a search whose pairs have the place of `admission`.
    pub(super) fn new(
        state: &'a AppState,
        searcher: &'a Arc<Searcher>,
        admission: Option<&'a Admission>,
    ) -> Self {
        Self { state, searcher, watcher: None, admission }
    }
}

/// Takes a place for the pairs of a search.
///
/// # Errors
///
/// Back-pressure: refused if they could not be scored in time.
pub(super) fn admit(
    state: &AppState,
    searcher: &Searcher,
    options: &SearchOptions,
) -> ApiResult<Option<Admission>> {
    let pairs = options.rerank_depth.map(|depth| depth.min(searcher.index.live().count()));
    pairs.map(|pairs| state.scheduler.admit(pairs)).transpose()
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
            // Passages of an index have no limit.
            let place = (self.admission, usize::MAX);
            scores.push(score(self.state, reranker, query, passages, place, |_| Ok(())).await?);
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
    let bytes = texts.iter().map(String::len).sum();
    let tokenize = move |meter: &TokenMeter| model.tokenize_within(&texts, role, meter);
    let most = state.limits.max_request_tokens;
    let tokenized = tokenizing(state, bytes, most, tokenize).await?;
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
    let mut vectors = state.scheduler.compute(kind, sequences, None).await?.concat();
    vectors.chunks_exact_mut(embedder.dim()).for_each(|vector| embedder.finish(vector));
    Ok(Embeddings { vectors, tokens, lost })
}

/// Scores passages against a query, as [`Reranker::score`] does, in the place of `admission` or
/// else behind all that waits. All texts have at most `most` tokens. `check` may refuse the pairs
/// of query and window that the passages take.
pub(super) async fn score(
    state: &AppState,
    reranker: &Arc<Reranker>,
    query: String,
    passages: Vec<String>,
    (admission, most): (Option<&Admission>, usize),
    check: impl FnOnce(&[Sequence]) -> ApiResult<()>,
) -> ApiResult<RerankScores> {
    let model = Arc::clone(reranker);
    let bytes = query.len() + passages.iter().map(String::len).sum::<usize>();
    let plan = move |meter: &TokenMeter| {
        let passages = passages.iter().map(String::as_str).collect();
        model.plan_within(&RerankJob { query: &query, passages }, meter)
    };
    let (plan, pairs) = tokenizing(state, bytes, most, plan).await?;
    check(&pairs)?;
    let kind = WorkKind::Rerank(Arc::clone(reranker));
    let logits = state.scheduler.compute(kind, pairs, admission).await?;
    Ok(plan.scores(&mut logits.into_iter().flatten()))
}

/// Tokenizes texts of so many bytes on a thread that serves no clients, when it is their turn: of
/// long texts no more are tokenized at a time than there are cores. The limit of `most` tokens is
/// met while they are counted; and if the request is dropped, the work ends within milliseconds.
pub(super) async fn tokenizing<T: Send + 'static>(
    state: &AppState,
    bytes: usize,
    most: usize,
    work: impl FnOnce(&TokenMeter) -> Result<T> + Send + 'static,
) -> ApiResult<T> {
    let turn = state.turn_to_tokenize(bytes).await?;
    let meter = Arc::new(TokenMeter::new(most));
    let counting = Arc::clone(&meter);
    let _stop = OnDrop(move || counting.stop());
    let work = move || {
        let outcome = work(&meter);
        drop(turn);
        outcome
    };
    blocking(work).await
}

/// Does something when a request is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// As [`blocking`], for work that looks at a flag, which is set when the request is dropped.
pub(super) async fn blocking_until_gone<T: Send + 'static>(
    work: impl FnOnce(&Arc<AtomicBool>) -> Result<T> + Send + 'static,
) -> ApiResult<T> {
    let flag = Arc::new(AtomicBool::new(false));
    let gone = Arc::clone(&flag);
    let _set = OnDrop(move || gone.store(true, Ordering::Relaxed));
    blocking(move || work(&flag)).await
}

/// Runs work that takes long on a thread that serves no clients.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> ApiResult<T> {
    let panicked =
        |_| ApiError::internal("the work was broken off: internal error, please report it");
    Ok(tokio::task::spawn_blocking(work).await.map_err(panicked)??)
}
