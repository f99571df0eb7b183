//! The library's front door: retrieve, fuse, diversify, rerank.

mod fusion;

use crate::embed::{Embedder, Role};
use crate::error::{Error, Result};
use crate::rerank::{PassageScore, RerankJob, Reranker};
use crate::scan::{QueryBatch, Scanner};
use crate::store::filter::Filter;
use crate::store::matrix::RowMask;
use crate::store::{Index, Row};
use serde::Serialize;
use std::time::Instant;

pub use fusion::{RRF_CONSTANT, mmr, reciprocal_rank_fusion};

/// An index with the models to search it. May be shared between threads.
#[derive(Debug)]
pub struct Searcher {
    /// The snapshot that is searched.
    pub index: Index,
    /// Embeds queries; without one only vectors can be searched for.
    pub embedder: Option<Embedder>,
    /// Reranks, and its name.
    pub reranker: Option<(String, Reranker)>,
    /// Scans the vectors.
    pub scanner: Scanner,
}

/// How to search.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchOptions {
    /// How many hits to return.
    pub k: usize,
    /// How many of the retrieved rows the reranker sees; none for the retrieval order.
    pub rerank_depth: Option<usize>,
    /// Which rows may be returned.
    pub filter: Option<Filter>,
    /// Whether to fuse the dense ranking with the lexical one.
    pub hybrid: bool,
    /// Maximal marginal relevance before reranking, with this lambda in 0..=1 (1 is relevance
    /// alone).
    pub mmr: Option<f32>,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { k: 10, rerank_depth: None, filter: None, hybrid: false, mmr: None }
    }
}

/// A query as text, as a vector, or both.
#[derive(Debug, Clone, Copy, Default)]
pub struct QueryInput<'a> {
    /// The text; needed for hybrid search and reranking.
    pub text: &'a str,
    /// The vector; embedded from the text where there is none.
    pub vector: Option<&'a [f32]>,
}

/// A retrieved row, before its text is fetched.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The row's number.
    pub row: u32,
    /// The inner product, or the fused score of a hybrid search.
    pub score: f32,
    /// The place in the retrieval order, from 1.
    pub retrieved_rank: usize,
    /// What the reranker said, where it looked.
    pub rerank: Option<PassageScore>,
}

/// A row that answers a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// The place in the final order, from 1.
    pub rank: usize,
    /// The row's id.
    pub id: String,
    /// The document's id, which judgments name.
    pub doc_id: String,
    /// The title, possibly empty.
    pub title: String,
    /// The chunk's text.
    pub text: String,
    /// The inner product of unit vectors (cosine), or the fused value when hybrid; higher is better.
    pub score: f32,
    /// What the hits are ordered by: the rerank score where there is one, else `score`.
    pub final_score: f32,
    /// The place in the retrieval order, from 1.
    pub retrieved_rank: usize,
    /// The sigmoid of the logit, 0..1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank_score: Option<f32>,
    /// The cross-encoder's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rerank_logit: Option<f32>,
    /// Bytes of `text` that the reranker's best window covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<[usize; 2]>,
    /// Tokens of the chunk that the embedder's limit cut off.
    pub tokens_lost: u32,
    /// Where the chunk stands in its document, in bytes.
    pub document_range: [usize; 2],
    /// The document's metadata.
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// Milliseconds spent in each step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Embedding the query.
    pub embed: f64,
    /// Evaluating the filter.
    pub filter: f64,
    /// Scanning the vectors.
    pub scan: f64,
    /// The lexical search, fusion and diversification.
    pub fuse: f64,
    /// Reranking, fetching the passages included.
    pub rerank: f64,
    /// Fetching texts of the hits.
    pub fetch: f64,
    /// All of it.
    pub total: f64,
}

/// The answer to a search.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchResult {
    /// The hits, best first.
    pub hits: Vec<Hit>,
    /// Rows that passed the filter.
    pub matched_rows: usize,
    /// Live rows of the index.
    pub total_rows: usize,
    /// The reranker, where one was used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reranker: Option<String>,
    /// Milliseconds a step.
    pub took_ms: Timings,
    /// What the user should know: a query that was cut, say.
    pub warnings: Vec<String>,
}

/// Rows and warnings of one query of a batch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retrieved {
    /// In final order.
    pub candidates: Vec<Candidate>,
    /// Rows that passed the filter.
    pub matched_rows: usize,
    /// What the user should know.
    pub warnings: Vec<String>,
}

impl Searcher {
    /// Searches for a text.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an empty query, `k = 0`, a filter that does not fit the index, or
    /// reranking without a reranker; [`Error::Corrupt`] where the index is damaged.
    pub fn search(&self, query: &str, options: &SearchOptions) -> Result<SearchResult> {
        let mut timings = Timings::default();
        let started = Instant::now();
        let input = QueryInput { text: query, vector: None };
        let found = self.retrieve(&[input], options, &mut timings)?.pop().unwrap_or_default();
        let hits = timed(&mut timings.fetch, || self.hits(&found.candidates))?;
        timings.total = milliseconds(started);
        Ok(SearchResult {
            hits,
            matched_rows: found.matched_rows,
            total_rows: self.index.live().count(),
            reranker: options
                .rerank_depth
                .and(self.reranker.as_ref())
                .map(|(name, _)| name.clone()),
            took_ms: timings,
            warnings: found.warnings,
        })
    }

    /// Finds and orders the rows of many queries that share their options; up to `k` rows a query,
    /// without texts.
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
        self.check(queries, options)?;
        let mut warnings = vec![Vec::new(); queries.len()];
        let vectors = timed(&mut timings.embed, || self.query_vectors(queries, &mut warnings))?;
        let batch = QueryBatch::new(&vectors, self.index.manifest().dim)?;
        let mask = timed(&mut timings.filter, || self.mask(options.filter.as_ref()))?;
        let matched_rows = mask.as_ref().map_or(self.index.n_rows(), RowMask::count);
        let depth = options.rerank_depth.unwrap_or(0).max(options.k);
        let mut rankings = self.ranked(queries, &batch, mask.as_ref(), depth, options, timings)?;
        if let Some(depth) = options.rerank_depth {
            timed(&mut timings.rerank, || {
                self.rerank(queries, &mut rankings, depth, &mut warnings)
            })?;
        }
        Ok(rankings
            .into_iter()
            .zip(warnings)
            .map(|(mut candidates, warnings)| {
                candidates.truncate(options.k);
                Retrieved { candidates, matched_rows, warnings }
            })
            .collect())
    }

    /// Reorders the first `depth` candidates of one query by the reranker, and adds the milliseconds
    /// it took to `took`.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] without a reranker, and the encoder's errors.
    pub fn rerank_candidates(
        &self,
        query: QueryInput<'_>,
        candidates: &mut Vec<Candidate>,
        depth: usize,
        took: &mut f64,
    ) -> Result<()> {
        let mut rankings = [std::mem::take(candidates)];
        let outcome =
            timed(took, || self.rerank(&[query], &mut rankings, depth, &mut [Vec::new()]));
        let [ranking] = rankings;
        *candidates = ranking;
        outcome
    }

    /// Fetches the texts of candidates.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where a row has no text.
    pub fn hits(&self, candidates: &[Candidate]) -> Result<Vec<Hit>> {
        let numbers: Vec<u32> = candidates.iter().map(|c| c.row).collect();
        let rows = self.index.rows(&numbers)?;
        Ok(candidates
            .iter()
            .zip(rows)
            .enumerate()
            .map(|(i, (candidate, row))| hit(i + 1, candidate, row))
            .collect())
    }

    /// The reranker's name and the reranker, or why there is none.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] where the searcher has none.
    pub fn require_reranker(&self) -> Result<&(String, Reranker)> {
        self.reranker.as_ref().ok_or_else(|| Error::ModelUnavailable {
            model: "reranker".to_owned(),
            reason: "none is present locally; `warpseek models pull ms-marco-MiniLM-L6-v2` fetches one, \
                     or name a folder with --reranker"
                .to_owned(),
        })
    }

    fn check(&self, queries: &[QueryInput<'_>], options: &SearchOptions) -> Result<()> {
        if options.k == 0 {
            return Err(Error::usage("k must be at least 1"));
        }
        if options.rerank_depth == Some(0) {
            return Err(Error::usage("the rerank depth must be at least 1"));
        }
        if let Some(lambda) = options.mmr
            && !(0.0..=1.0).contains(&lambda)
        {
            return Err(Error::usage(format!("the MMR lambda is {lambda}; it must lie in 0..1")));
        }
        let needs_text = options.hybrid || options.rerank_depth.is_some();
        for query in queries {
            if query.text.trim().is_empty() && (needs_text || query.vector.is_none()) {
                return Err(Error::usage("the query is empty"));
            }
        }
        Ok(())
    }

    /// `[queries.len(), dim]`.
    fn query_vectors(
        &self,
        queries: &[QueryInput<'_>],
        warnings: &mut [Vec<String>],
    ) -> Result<Vec<f32>> {
        let dim = self.index.manifest().dim;
        let texts: Vec<(usize, &str)> = queries
            .iter()
            .enumerate()
            .filter(|(_, q)| q.vector.is_none())
            .map(|(i, q)| (i, q.text))
            .collect();
        let mut vectors = vec![0f32; queries.len() * dim];
        if !texts.is_empty() {
            let embedder = self.embedder.as_ref().ok_or_else(|| {
                Error::usage(
                    "the index was imported without a model, so that texts cannot be searched for; \
                     give query vectors, or import it again with --model",
                )
            })?;
            let plain: Vec<&str> = texts.iter().map(|t| t.1).collect();
            let embedded = embedder.embed(&plain, Role::Query)?;
            for (n, (i, _)) in texts.iter().enumerate() {
                vectors[i * dim..(i + 1) * dim]
                    .copy_from_slice(&embedded.vectors[n * dim..(n + 1) * dim]);
                if embedded.lost[n] > 0 {
                    warnings[*i].push(format!(
                        "the query has {} tokens and the embedder takes {}: the last {} were left out",
                        embedded.tokens[n] + embedded.lost[n],
                        embedder.max_tokens(),
                        embedded.lost[n]
                    ));
                }
            }
        }
        for (i, query) in queries.iter().enumerate() {
            if let Some(vector) = query.vector {
                if vector.len() != dim {
                    return Err(Error::usage(format!(
                        "query vector {i} has {} dimensions, the index {dim}",
                        vector.len()
                    )));
                }
                vectors[i * dim..(i + 1) * dim].copy_from_slice(vector);
            }
        }
        Ok(vectors)
    }

    /// The rows that may be returned; none where all may.
    fn mask(&self, filter: Option<&Filter>) -> Result<Option<RowMask>> {
        match filter {
            Some(filter) => self.index.rows_where(filter).map(Some),
            None if self.index.live().count() == self.index.n_rows() => Ok(None),
            None => Ok(Some(self.index.live().clone())),
        }
    }

    /// The retrieval order of every query, `depth` rows deep.
    fn ranked(
        &self,
        queries: &[QueryInput<'_>],
        batch: &QueryBatch,
        mask: Option<&RowMask>,
        depth: usize,
        options: &SearchOptions,
        timings: &mut Timings,
    ) -> Result<Vec<Vec<Candidate>>> {
        let matrix = self.index.matrix()?;
        // What is left over after fusion and diversification must still be `depth` rows.
        let pool = if options.mmr.is_some() { (4 * depth).max(50) } else { depth };
        let list = if options.hybrid { (2 * pool).max(100) } else { pool };
        let dense = timed(&mut timings.scan, || self.scanner.top_k(&matrix, batch, list, mask))?;
        timed(&mut timings.fuse, || {
            let stride = batch.padded().len() / batch.len().max(1);
            let mut rankings = Vec::with_capacity(queries.len());
            for ((query, dense), vector) in
                queries.iter().zip(dense).zip(batch.padded().chunks_exact(stride.max(1)))
            {
                let mut ranked: Vec<(u32, f32)> = dense.iter().map(|h| (h.row, h.score)).collect();
                if options.hybrid {
                    let lexical = self.index.lexical(query.text, list, mask)?;
                    let lexical: Vec<u32> = lexical.iter().map(|h| h.row).collect();
                    let dense: Vec<u32> = dense.iter().map(|h| h.row).collect();
                    ranked = reciprocal_rank_fusion(&[&dense, &lexical]);
                }
                ranked.truncate(pool);
                if let Some(lambda) = options.mmr {
                    ranked = mmr(&matrix, vector, &ranked, lambda, depth);
                }
                ranked.truncate(depth);
                rankings.push(
                    ranked
                        .into_iter()
                        .enumerate()
                        .map(|(i, (row, score))| Candidate {
                            row,
                            score,
                            retrieved_rank: i + 1,
                            rerank: None,
                        })
                        .collect(),
                );
            }
            Ok(rankings)
        })
    }

    /// Reorders the first `depth` candidates of every query by the reranker's logit; what lies deeper
    /// stays behind them.
    fn rerank(
        &self,
        queries: &[QueryInput<'_>],
        rankings: &mut [Vec<Candidate>],
        depth: usize,
        warnings: &mut [Vec<String>],
    ) -> Result<()> {
        let (_, reranker) = self.require_reranker()?;
        let mut passages: Vec<Vec<Row>> = Vec::with_capacity(rankings.len());
        for ranking in rankings.iter() {
            let numbers: Vec<u32> = ranking.iter().take(depth).map(|c| c.row).collect();
            passages.push(self.index.rows(&numbers)?);
        }
        let texts: Vec<Vec<String>> =
            passages.iter().map(|rows| rows.iter().map(Row::passage).collect()).collect();
        let jobs: Vec<RerankJob<'_>> = queries
            .iter()
            .zip(&texts)
            .map(|(query, texts)| RerankJob {
                query: query.text,
                passages: texts.iter().map(String::as_str).collect(),
            })
            .collect();
        let outcomes = reranker.score_batch(&jobs)?;
        for (q, outcome) in outcomes.into_iter().enumerate() {
            if outcome.query_tokens_lost > 0 {
                warnings[q].push(format!(
                    "the last {} tokens of the query were left out for the reranker",
                    outcome.query_tokens_lost
                ));
            }
            let n = outcome.scores.len();
            for ((candidate, mut score), row) in
                rankings[q].iter_mut().zip(outcome.scores).zip(&passages[q])
            {
                score.window = window_in_text(row, &score);
                candidate.rerank = Some(score);
            }
            let logit = |c: &Candidate| c.rerank.as_ref().map_or(f32::NEG_INFINITY, |s| s.logit);
            rankings[q][..n].sort_by(|a, b| {
                logit(b).total_cmp(&logit(a)).then(a.retrieved_rank.cmp(&b.retrieved_rank))
            });
        }
        Ok(())
    }
}

/// The window as bytes of the chunk's text: the reranker saw the title in front of it.
fn window_in_text(row: &Row, score: &PassageScore) -> std::ops::Range<usize> {
    let shift = row.text_offset();
    let clip = |at: usize| at.saturating_add_signed(-shift).min(row.text.len());
    let (mut start, mut end) = (clip(score.window.start), clip(score.window.end));
    while !row.text.is_char_boundary(start) {
        start -= 1;
    }
    while !row.text.is_char_boundary(end) {
        end += 1;
    }
    start..end
}

fn hit(rank: usize, candidate: &Candidate, row: Row) -> Hit {
    let rerank = candidate.rerank.as_ref();
    Hit {
        rank,
        id: row.id,
        doc_id: row.doc_id,
        title: row.title,
        text: row.text,
        score: candidate.score,
        final_score: rerank.map_or(candidate.score, |r| r.score),
        retrieved_rank: candidate.retrieved_rank,
        rerank_score: rerank.map(|r| r.score),
        rerank_logit: rerank.map(|r| r.logit),
        window: rerank.map(|r| [r.window.start, r.window.end]),
        tokens_lost: row.tokens_lost,
        document_range: [row.range.start, row.range.end],
        metadata: row.metadata,
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Runs `work` and adds its milliseconds.
fn timed<T>(to: &mut f64, work: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = work();
    *to += milliseconds(started);
    result
}
