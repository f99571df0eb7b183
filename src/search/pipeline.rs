//! The steps of a search, in order.
//!
//! The pipeline is asynchronous because the server waits for its scheduler between steps: a search
//! that waits holds no thread, and one whose client has gone is dropped with all that it waits for.
//! Commands compute each step at once, so that their searches are finished at the first poll.

use super::budget::rows_that_fit;
use super::options::{QueryInput, SearchOptions};
use super::rerank::{RerankOrder, keep_best, ordered_by, record_scores};
use super::result::{
    Candidate, Hit, OrderedBy, Retrieved, SearchResult, Timings, milliseconds, timed,
};
use super::retrieve::embed_queries;
use super::searcher::{Searcher, no_reranker};
use crate::error::{Error, Result};
use crate::store::Row;
use crate::store::filter::Filter;
use futures_util::FutureExt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warpseek_bert::embedder::Embeddings;
use warpseek_bert::reranker::{RerankJob, RerankScores, Reranker};
use warpseek_topk::oracle::canonical_score;
use warpseek_topk::scanner::QueryBatch;
use warpseek_topk::{RowMask, stride_of};

/// The steps of a search that read or compute much. By default they are computed at once.
pub(crate) trait SearchSteps {
    /// The error of a step.
    type Error: From<Error>;

    /// The index with its models.
    fn searcher(&self) -> &Searcher;

    /// The reranker that scores passages.
    fn reranker(&self) -> Result<&Reranker> {
        self.searcher().require_reranker().map(|(_, model)| &**model)
    }

    /// Embeds query texts; the token counts stand beside the vectors.
    async fn embed(&self, texts: &[&str]) -> Result<(QueryBatch, Embeddings), Self::Error> {
        let embedder = self.searcher().embedder.as_ref().ok_or_else(|| {
            Error::usage(
                "the index was imported without a model, so that texts cannot be searched for: \
                 name the model with --model, or search for vectors with `warpseek batch`",
            )
        })?;
        Ok(embed_queries(embedder, texts)?)
    }

    /// Retrieves the rows of query vectors, as [`Searcher::rank`] does.
    async fn rank(
        &self,
        queries: &[QueryInput<'_>],
        batch: QueryBatch,
        options: &SearchOptions,
        timings: &mut Timings,
    ) -> Result<Vec<Retrieved>, Self::Error> {
        Ok(self.searcher().rank(queries, &batch, options, timings)?)
    }

    /// Takes the rows of each query as they were retrieved, before they are reranked.
    async fn retrieved(
        &self,
        _found: &[Retrieved],
        _ordered_by: OrderedBy,
        _timings: &Timings,
    ) -> Result<(), Self::Error> {
        Ok(())
    }

    /// Reads rows from the database, in the order of their numbers.
    async fn rows(&self, numbers: Vec<u32>) -> Result<Vec<Row>, Self::Error> {
        Ok(self.searcher().index.rows(&numbers)?)
    }

    /// Scores the passages of each query with the reranker.
    async fn score(
        &self,
        queries: &[QueryInput<'_>],
        passages: Vec<Vec<String>>,
    ) -> Result<Vec<RerankScores>, Self::Error> {
        let passages = passages.iter().map(|texts| texts.iter().map(String::as_str).collect());
        let pairs = queries.iter().zip(passages);
        let jobs: Vec<RerankJob<'_>> =
            pairs.map(|(query, passages)| RerankJob { query: query.text, passages }).collect();
        let stop = self.searcher().stop.as_deref();
        Ok(self.reranker()?.score_batch_until(&jobs, stop)?)
    }
}

/// Computes every step at once, on the calling thread.
pub(crate) struct DirectSteps<'a> {
    searcher: &'a Searcher,
    reranker: Option<&'a Reranker>,
}

impl<'a> DirectSteps<'a> {
    pub(crate) fn new(searcher: &'a Searcher) -> Self {
        Self { searcher, reranker: searcher.reranker.as_ref().map(|(_, model)| &**model) }
    }
}

impl SearchSteps for DirectSteps<'_> {
    type Error = Error;

    fn searcher(&self) -> &Searcher {
        self.searcher
    }

    fn reranker(&self) -> Result<&Reranker> {
        self.reranker.ok_or_else(no_reranker)
    }
}

/// The result of a search over [`DirectSteps`], which never wait.
pub(crate) fn run_direct<T>(search: impl Future<Output = Result<T>>) -> Result<T> {
    search.now_or_never().unwrap_or_else(|| {
        let reason = "a step was not finished: internal error, please report it".to_owned();
        Err(Error::Compute { what: "searching", reason })
    })
}

impl Searcher {
    /// Searches for a text.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an empty query, options out of range or a filter that does not fit the
    /// index; [`Error::ModelUnavailable`] for reranking without a reranker; [`Error::Corrupt`] if
    /// the index is damaged.
    pub fn search(&self, query: &str, options: &SearchOptions) -> Result<SearchResult> {
        let query = QueryInput { text: query, ..QueryInput::default() };
        run_direct(search(&DirectSteps::new(self), query, options))
    }

    /// Searches for many queries that share their options, which is faster than one after another.
    /// The times of a result are those of all.
    ///
    /// # Errors
    ///
    /// As [`Searcher::search`]; [`Error::Usage`] also for vectors of another dimension.
    pub fn search_many(
        &self,
        queries: &[QueryInput<'_>],
        options: &SearchOptions,
    ) -> Result<Vec<SearchResult>> {
        run_direct(search_many(&DirectSteps::new(self), queries, options))
    }

    /// Searches for words alone: the first `k` rows by BM25, which is their score. A hit has at
    /// least one of the words.
    ///
    /// # Errors
    ///
    /// As [`Index::lexical`](crate::store::Index::lexical) and
    /// [`Index::rows_where`](crate::store::Index::rows_where); [`Error::Usage`] if `k` is 0.
    pub fn search_lexical(
        &self,
        query: &str,
        k: usize,
        filter: Option<&Filter>,
    ) -> Result<SearchResult> {
        if k == 0 {
            return Err(Error::usage("k must be at least 1"));
        }
        let started = Instant::now();
        let mut took_ms = Timings::default();
        let passing = timed(&mut took_ms.filter, || {
            filter.map(|filter| self.index.rows_where(filter)).transpose()
        })?;
        let mask = passing.as_ref().map(|passing| &passing.mask);
        let found = timed(&mut took_ms.fuse, || self.index.lexical(query, k, mask))?;
        let ranked = found.iter().map(|hit| (hit.row, hit.score as f32)).collect();
        let hits = timed(&mut took_ms.fetch, || self.hits(&Candidate::list(ranked)))?;
        took_ms.total = milliseconds(started);
        let total_rows = self.index.live().count();
        Ok(SearchResult {
            hits,
            ordered_by: OrderedBy::Bm25,
            below_min_score: None,
            not_reranked: None,
            reranked_rows: None,
            matched_rows: mask.map_or(total_rows, RowMask::count),
            total_rows,
            reranker: None,
            took_ms,
            warnings: passing.map_or_else(Vec::new, |passing| passing.warnings.clone()),
        })
    }

    /// Retrieves and orders the rows of many queries that share their options; up to `k` candidates
    /// per query.
    ///
    /// # Errors
    ///
    /// As [`Searcher::search`]; [`Error::Usage`] also for vectors of another dimension.
    pub fn retrieve(
        &self,
        queries: &[QueryInput<'_>],
        options: &SearchOptions,
        timings: &mut Timings,
    ) -> Result<Vec<Retrieved>> {
        run_direct(retrieve(&DirectSteps::new(self), queries, options, timings))
    }

    /// Candidates of a ranking that was made elsewhere: `rows` in their order, each with its inner
    /// product with the query.
    ///
    /// # Errors
    ///
    /// As [`Searcher::retrieve`].
    pub fn candidates(&self, query: QueryInput<'_>, rows: &[u32]) -> Result<Vec<Candidate>> {
        let (batch, _) = run_direct(query_vectors(&DirectSteps::new(self), &[query]))?;
        let (matrix, vector) = (self.index.matrix()?, batch.padded()?);
        let score = |&row: &u32| -> Result<(u32, f32)> {
            Ok((row, canonical_score(vector, matrix.checked_row(row as usize)?)))
        };
        Ok(Candidate::list(rows.iter().map(score).collect::<Result<_>>()?))
    }

    /// Scores the first `depth` candidates of one query with `reranker`, without ordering them.
    /// Returns all of them and the milliseconds it took.
    ///
    /// # Errors
    ///
    /// Errors of the encoder and of the database.
    pub fn score_candidates(
        &self,
        reranker: &Reranker,
        query: QueryInput<'_>,
        candidates: Vec<Candidate>,
        depth: usize,
    ) -> Result<(Vec<Candidate>, f64)> {
        let mut found = [Retrieved { candidates, ..Retrieved::default() }];
        let steps = DirectSteps { searcher: self, reranker: Some(reranker) };
        let started = Instant::now();
        run_direct(score(&steps, &[query], &mut found, 0..depth))?;
        let [Retrieved { candidates, .. }] = found;
        Ok((candidates, milliseconds(started)))
    }

    /// Hits of candidates. Reads the texts of those that hold none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a row has no text.
    pub fn hits(&self, candidates: &[Candidate]) -> Result<Vec<Hit>> {
        run_direct(hits(&DirectSteps::new(self), candidates.to_vec()))
    }
}

/// Searches by the given steps; see [`Searcher::search`].
pub(crate) async fn search<S: SearchSteps>(
    steps: &S,
    query: QueryInput<'_>,
    options: &SearchOptions,
) -> Result<SearchResult, S::Error> {
    let mut found = search_many(steps, &[query], options).await?;
    let none = || {
        let reason = "one query has no result: internal error, please report it".to_owned();
        Error::Compute { what: "searching", reason }
    };
    Ok(found.pop().ok_or_else(none)?)
}

/// Searches for several queries together; see [`Searcher::search_many`].
async fn search_many<S: SearchSteps>(
    steps: &S,
    queries: &[QueryInput<'_>],
    options: &SearchOptions,
) -> Result<Vec<SearchResult>, S::Error> {
    let started = Instant::now();
    let mut timings = Timings::default();
    let found = retrieve(steps, queries, options, &mut timings).await?;
    let fetching = Instant::now();
    let searcher = steps.searcher();
    let reranker = options.rerank_depth.and(searcher.reranker.as_ref());
    let manifest = searcher.index.manifest();
    let order =
        reranker.map(|(_, reranker)| RerankOrder::of(options.retriever_weight, reranker, manifest));
    let ordered_by = ordered_by(options, manifest.metric, order);
    let mut results = Vec::with_capacity(found.len());
    for found in found {
        results.push(SearchResult {
            hits: hits(steps, found.candidates).await?,
            ordered_by,
            below_min_score: options.min_score.map(|_| found.below_min_score),
            not_reranked: Some(found.not_reranked).filter(|n| *n > 0),
            reranked_rows: found.reranked_rows,
            matched_rows: found.matched_rows,
            total_rows: searcher.index.live().count(),
            reranker: reranker.map(|(name, _)| name.clone()),
            took_ms: timings,
            warnings: found.warnings,
        });
    }
    timings.fetch = milliseconds(fetching);
    timings.total = milliseconds(started);
    results.iter_mut().for_each(|result| result.took_ms = timings);
    Ok(results)
}

/// Retrieves and orders rows; see [`Searcher::retrieve`].
async fn retrieve<S: SearchSteps>(
    steps: &S,
    queries: &[QueryInput<'_>],
    options: &SearchOptions,
    timings: &mut Timings,
) -> Result<Vec<Retrieved>, S::Error> {
    let started = Instant::now();
    options.check(queries)?;
    if options.hybrid {
        steps.searcher().index.check_lexical()?;
    }
    let (batch, warnings) = query_vectors(steps, queries).await?;
    timings.embed += milliseconds(started);
    let mut found = steps.rank(queries, batch, &options.retrieval(), timings).await?;
    for (found, warning) in found.iter_mut().zip(warnings) {
        found.warnings.extend(warning);
    }
    if let Some(depth) = options.rerank_depth {
        let reranking = Instant::now();
        let manifest = steps.searcher().index.manifest();
        let order = RerankOrder::of(options.retriever_weight, steps.reranker()?, manifest);
        let so_far = Timings { total: timings.total + milliseconds(started), ..*timings };
        let by = ordered_by(options, manifest.metric, None);
        steps.retrieved(&found, by, &so_far).await?;
        let depth = score_within(steps, queries, &mut found, depth, options.rerank_budget).await?;
        for found in &mut found {
            let read = found.candidates.len().min(depth);
            found.reranked_rows = options.rerank_budget.map(|_| read);
            keep_best(found, order, depth, options.k, options.min_score);
        }
        timings.rerank += milliseconds(reranking);
    }
    timings.total += milliseconds(started);
    Ok(found)
}

/// The vectors of queries, and per query a warning if its text was truncated. The vectors stay on a
/// GPU if all of them are made on one.
async fn query_vectors<S: SearchSteps>(
    steps: &S,
    queries: &[QueryInput<'_>],
) -> Result<(QueryBatch, Vec<Option<String>>), S::Error> {
    let dim = steps.searcher().index.manifest().dim;
    let texts = queries.iter().filter(|query| query.vector.is_none());
    let texts: Vec<&str> = texts.map(|query| query.text).collect();
    let (embedded, counts) = match texts.is_empty() {
        true => (QueryBatch::new(&[], dim)?, Embeddings::default()),
        false => steps.embed(&texts).await?,
    };
    if embedded.dim() != dim {
        let made = embedded.dim();
        let message = format!("the model makes vectors of {made} dimensions, the index has {dim}");
        return Err(Error::usage(message).into());
    }
    let mut counts = counts.tokens.into_iter().zip(counts.lost);
    let warning = |query: &QueryInput<'_>| {
        let (tokens, lost) = query.vector.is_none().then(|| counts.next()).flatten()?;
        (lost > 0).then(|| {
            let given = tokens + lost;
            format!(
                "the query has {given} tokens and the embedder takes {tokens}: the last {lost} \
                 were left out"
            )
        })
    };
    let warnings = queries.iter().map(warning).collect();
    if texts.len() == queries.len() {
        return Ok((embedded, warnings));
    }
    let mut made = embedded.padded()?.chunks_exact(stride_of(dim)).map(|row| &row[..dim]);
    let mut all = Vec::with_capacity(queries.len() * dim);
    for (i, query) in queries.iter().enumerate() {
        let vector = query.vector.or_else(|| made.next()).unwrap_or_default();
        if vector.len() != dim {
            let given = vector.len();
            let message = format!("query vector {i} has {given} dimensions, the index has {dim}");
            return Err(Error::usage(message).into());
        }
        all.extend(vector);
    }
    Ok((QueryBatch::new(&all, dim)?, warnings))
}

/// Scores the first candidates of every query with the reranker: `depth` of them, or as many as fit
/// into `budget`. Returns their number.
async fn score_within<S: SearchSteps>(
    steps: &S,
    queries: &[QueryInput<'_>],
    found: &mut [Retrieved],
    depth: usize,
    budget: Option<Duration>,
) -> Result<usize, S::Error> {
    let Some(budget) = budget else {
        score(steps, queries, found, 0..depth).await?;
        return Ok(depth);
    };
    let started = Instant::now();
    let most = found.iter().map(|found| found.candidates.len()).max().unwrap_or(0).min(depth);
    let mut done = 0;
    while done < most {
        let next = rows_that_fit(budget, started.elapsed(), done).min(most - done);
        if next == 0 {
            break;
        }
        score(steps, queries, found, done..done + next).await?;
        done += next;
    }
    Ok(done)
}

/// Scores the candidates of every query at these places with the reranker.
async fn score<S: SearchSteps>(
    steps: &S,
    queries: &[QueryInput<'_>],
    found: &mut [Retrieved],
    places: Range<usize>,
) -> Result<(), S::Error> {
    let part = |found: &Retrieved| {
        let all = found.candidates.len();
        places.start.min(all)..places.end.min(all)
    };
    let parts: Vec<Range<usize>> = found.iter().map(part).collect();
    let candidates = found.iter_mut().zip(&parts);
    let candidates = candidates.flat_map(|(found, part)| &mut found.candidates[part.clone()]);
    fetch(steps, candidates).await?;
    let passages = |(found, part): (&Retrieved, &Range<usize>)| {
        let rows = found.candidates[part.clone()].iter().filter_map(|c| c.fetched.as_ref());
        rows.map(|row| row.passage()).collect()
    };
    let passages: Vec<Vec<String>> = found.iter().zip(&parts).map(passages).collect();
    let scores = steps.score(queries, passages).await?;
    for ((found, part), scores) in found.iter_mut().zip(parts).zip(scores) {
        let note = record_scores(&mut found.candidates[part], scores);
        found.warnings.extend(note.filter(|note| !found.warnings.contains(note)));
    }
    Ok(())
}

/// Hits of candidates, in their order.
pub(crate) async fn hits<S: SearchSteps>(
    steps: &S,
    mut candidates: Vec<Candidate>,
) -> Result<Vec<Hit>, S::Error> {
    fetch(steps, candidates.iter_mut()).await?;
    let hit = |(mut candidate, rank): (Candidate, usize)| {
        let row = candidate.fetched.take()?;
        Some(Hit::new(rank, &candidate, Arc::unwrap_or_clone(row)))
    };
    Ok(candidates.into_iter().zip(1..).filter_map(hit).collect())
}

/// Reads the rows of those candidates that hold none yet.
async fn fetch<'a, S: SearchSteps>(
    steps: &S,
    candidates: impl Iterator<Item = &'a mut Candidate>,
) -> Result<(), S::Error> {
    let missing: Vec<&mut Candidate> = candidates.filter(|c| c.fetched.is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let rows = steps.rows(missing.iter().map(|c| c.row).collect()).await?;
    missing.into_iter().zip(rows).for_each(|(c, row)| c.fetched = Some(Arc::new(row)));
    Ok(())
}
