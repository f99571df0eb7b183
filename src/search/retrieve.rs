//! From query vectors to ranked rows: metadata filter, exact scan, fusion, diversification.

use super::fusion::mmr;
use super::options::{QueryInput, SearchOptions};
use super::result::{Candidate, Retrieved, Timings, timed};
use super::searcher::Searcher;
use super::signals::{fuse, is_calibrated};
use crate::error::Result;
use crate::store::filter::Filter;
use crate::store::{Index, PassingRows};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use warpseek_bert::embedder::{Embedder, Embeddings, Role};
use warpseek_topk::oracle::canonical_score;
use warpseek_topk::scanner::QueryBatch;
use warpseek_topk::{RowMask, ShardedMatrix, stride_of};

/// Ranks the rows for a batch of queries that share their options.
struct Ranker<'a> {
    searcher: &'a Searcher,
    matrix: ShardedMatrix<'a>,
    queries: &'a [QueryInput<'a>],
    batch: &'a QueryBatch,
    options: &'a SearchOptions,
    /// Row mask of each query; `None`: all rows.
    masks: Vec<Option<&'a RowMask>>,
    /// The number of rows that each mask lets through.
    available: &'a [usize],
}

impl Searcher {
    /// Retrieves up to `k` rows for each query of a batch, without reranking. Adds the time of the
    /// steps `filter`, `scan` and `fuse` to `timings`.
    ///
    /// # Errors
    ///
    /// As [`Searcher::retrieve`].
    pub(crate) fn rank(
        &self,
        queries: &[QueryInput<'_>],
        batch: &QueryBatch,
        options: &SearchOptions,
        timings: &mut Timings,
    ) -> Result<Vec<Retrieved>> {
        if let Some(shards) = self.index.remote() {
            return self.rank_remote(shards, queries, batch, options, timings);
        }
        let passing = timed(&mut timings.filter, || self.passing(queries, options))?;
        let available: Vec<usize> = passing.iter().map(|(_, available)| *available).collect();
        let masks = passing.iter().map(|(passing, _)| passing.as_deref().map(|rows| &rows.mask));
        let ranker = Ranker {
            searcher: self,
            matrix: self.index.matrix()?,
            queries,
            batch,
            options,
            masks: masks.collect(),
            available: &available,
        };
        let rankings = ranker.rank(timings)?.into_iter().zip(&passing);
        let retrieved =
            |(found, (rows, available)): (Retrieved, &(Option<Arc<PassingRows>>, _))| {
                let warnings = rows.as_ref().map_or_else(Vec::new, |rows| rows.warnings.clone());
                Retrieved { matched_rows: *available, warnings, ..found }
            };
        Ok(rankings.map(retrieved).collect())
    }

    /// Rows of each query that pass its filter (`None`: all rows), and their number. Queries with
    /// the same filter share them.
    fn passing(
        &self,
        queries: &[QueryInput<'_>],
        options: &SearchOptions,
    ) -> Result<Vec<(Option<Arc<PassingRows>>, usize)>> {
        let mut known: HashMap<Option<&str>, (Option<Arc<PassingRows>>, usize)> = HashMap::new();
        let n_rows = self.index.n_rows();
        let mut passing = Vec::with_capacity(queries.len());
        for query in queries {
            let filter = query.filter.or(options.filter.as_ref());
            let rows = match known.entry(filter.map(Filter::source)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let rows = match filter {
                        Some(filter) => Some(self.index.rows_where(filter)?),
                        None if self.index.live().count() == n_rows => None,
                        None => {
                            let (mask, warnings) = (self.index.live().clone(), Vec::new());
                            Some(Arc::new(PassingRows { mask, warnings, notes: Vec::new() }))
                        }
                    };
                    let available = rows.as_ref().map_or(n_rows, |rows| rows.mask.count());
                    new.insert((rows, available))
                }
            };
            passing.push(rows.clone());
        }
        Ok(passing)
    }
}

impl Ranker<'_> {
    /// The retrieval order of every query: `k` rows, or all that are available.
    fn rank(&self, timings: &mut Timings) -> Result<Vec<Retrieved>> {
        let options = self.options;
        let most = self.available.iter().copied().max().unwrap_or(0);
        let depth = options.k.min(most);
        // Fusion and diversification must leave `depth` rows.
        let pool = if options.mmr.is_some() { depth.saturating_mul(4).max(50) } else { depth };
        let mut list =
            if options.hybrid { pool.saturating_mul(2).max(100) } else { pool }.min(most);
        let mut rankings = vec![Retrieved::default(); self.queries.len()];
        let mut left: Vec<usize> = (0..self.queries.len()).collect();
        while !left.is_empty() {
            let ranked = self.rank_within(list, pool, &left, timings)?;
            left.iter().zip(ranked).for_each(|(&i, ranking)| rankings[i] = ranking);
            // The limit per document dropped rows and left too few: retrieve more.
            left.retain(|&i| {
                let available = self.available[i];
                let short = rankings[i].candidates.len() < options.k.min(available);
                options.max_per_doc.is_some() && short && list < available
            });
            list = list.saturating_mul(4).min(most);
        }
        Ok(rankings)
    }

    /// As [`Ranker::rank`] for the queries of these numbers, from lists of `list` rows of which
    /// `pool` are diversified.
    fn rank_within(
        &self,
        list: usize,
        pool: usize,
        numbers: &[usize],
        timings: &mut Timings,
    ) -> Result<Vec<Retrieved>> {
        if list == 0 {
            return Ok(vec![Retrieved::default(); numbers.len()]);
        }
        let Self { searcher, matrix, options, .. } = self;
        let some;
        let batch = match numbers.len() == self.batch.len() {
            true => self.batch,
            false => {
                some = self.batch.select(numbers)?;
                &some
            }
        };
        let masks: Vec<Option<&RowMask>> = numbers.iter().map(|&i| self.masks[i]).collect();
        let scanner = &searcher.scanner;
        let dense =
            timed(&mut timings.scan, || scanner.top_k_sharded(matrix, batch, list, &masks))?;
        timed(&mut timings.fuse, || {
            let mut rankings = Vec::with_capacity(numbers.len());
            for (at, (&number, dense)) in numbers.iter().zip(dense).enumerate() {
                let query = &self.queries[number];
                let depth = options.k.min(self.available[number]);
                let mut ranked: Vec<(u32, f32)> = dense.iter().map(|h| (h.row, h.score)).collect();
                let mut bm25 = HashMap::new();
                if options.hybrid {
                    let fused = self.fuse(query.text, &ranked, list, (at, batch), number)?;
                    (ranked, bm25) = (fused.ranked, fused.bm25);
                }
                let diversify = |ranked: &[(u32, f32)], lambda| {
                    let vectors = batch.padded()?;
                    let stride = vectors.len() / batch.len();
                    let vector = &vectors[at * stride..(at + 1) * stride];
                    check_rows(matrix, ranked.iter().map(|(row, _)| *row))?;
                    let scores = (searcher.index.manifest().metric, options.hybrid);
                    Ok(mmr(matrix, vector, ranked, scores, lambda, depth))
                };
                let (ranked, below_min_score) =
                    shape(&searcher.index, ranked, options, (pool, depth), diversify)?;
                let mut candidates = Candidate::list(ranked);
                if options.hybrid {
                    let known: HashMap<u32, f32> = dense.iter().map(|h| (h.row, h.score)).collect();
                    for candidate in &mut candidates {
                        candidate.dense = match known.get(&candidate.row) {
                            Some(score) => *score,
                            None => self.dense_score(batch, at, candidate.row)?,
                        };
                        let words = bm25.get(&candidate.row).copied().unwrap_or_default();
                        candidate.bm25 = Some(words as f32);
                    }
                }
                rankings.push(Retrieved { candidates, below_min_score, ..Retrieved::default() });
            }
            Ok(rankings)
        })
    }

    /// The dense ranking of query `number`, which is query `at` of the batch, combined with the
    /// lexical one, both of up to `list` rows; and BM25 of those rows that have words of the query.
    fn fuse(
        &self,
        text: &str,
        dense: &[(u32, f32)],
        list: usize,
        (at, batch): (usize, &QueryBatch),
        number: usize,
    ) -> Result<FusedRanking> {
        let index = &self.searcher.index;
        let rows: Vec<u32> = dense.iter().map(|(row, _)| *row).collect();
        let lexical = index.lexical_with(text, list, self.masks[number], &rows)?;
        check_rows(&self.matrix, lexical.hits.iter().map(|hit| hit.row))?;
        let vectors = batch.padded()?;
        let score = |row| score_of(&self.matrix, vectors, batch.len(), at, row);
        let calibrated = is_calibrated(index.manifest());
        let bm25 = lexical.by_row();
        let ranked = fuse(self.options.fusion, dense, (&lexical, &bm25), calibrated, score);
        Ok(FusedRanking { ranked, bm25 })
    }

    /// The score of a row for query `at` of the batch.
    fn dense_score(&self, batch: &QueryBatch, at: usize, row: u32) -> Result<f32> {
        check_rows(&self.matrix, [row])?;
        Ok(score_of(&self.matrix, batch.padded()?, batch.len(), at, row))
    }
}

/// The first `depth` rows of a ranking after the minimum score, the limit per document and
/// diversification of the first `pool`; and the number of the first `depth` that are below the
/// minimum score.
pub(super) fn shape(
    index: &Index,
    mut ranked: Vec<(u32, f32)>,
    options: &SearchOptions,
    (pool, depth): (usize, usize),
    diversify: impl FnOnce(&[(u32, f32)], f32) -> Result<Vec<(u32, f32)>>,
) -> Result<(Vec<(u32, f32)>, usize)> {
    let mut below_min_score = 0;
    if let Some(least) = options.min_score {
        let is_below = |(_, score): &&(u32, f32)| *score < least;
        below_min_score = ranked.iter().take(depth).filter(is_below).count();
        ranked.retain(|(_, score)| *score >= least);
    }
    if let Some(limit) = options.max_per_doc {
        ranked = limit_per_document(index, ranked, limit, pool)?;
    }
    ranked.truncate(pool);
    if let Some(lambda) = options.mmr {
        ranked = diversify(&ranked, lambda)?;
    }
    ranked.truncate(depth);
    Ok((ranked, below_min_score))
}

/// The first `pool` rows of which no more than `limit` share a `doc_id`.
fn limit_per_document(
    index: &Index,
    ranked: Vec<(u32, f32)>,
    limit: usize,
    pool: usize,
) -> Result<Vec<(u32, f32)>> {
    let numbers: Vec<u32> = ranked.iter().map(|r| r.0).collect();
    let documents = index.doc_ids(&numbers)?;
    let mut taken: HashMap<String, usize> = HashMap::new();
    let kept = ranked.into_iter().zip(documents).filter(|(_, document)| {
        let n = taken.entry(document.clone()).or_default();
        *n += 1;
        *n <= limit
    });
    Ok(kept.map(|(row, _)| row).take(pool).collect())
}

/// The dense and the lexical ranking of one query, combined.
struct FusedRanking {
    /// Rows with their scores, best first.
    ranked: Vec<(u32, f32)>,
    /// BM25 of the rows that have words of the query.
    bm25: HashMap<u32, f64>,
}

/// Compares rows that the scan did not score with their checksums.
fn check_rows(matrix: &ShardedMatrix<'_>, rows: impl IntoIterator<Item = u32>) -> Result<()> {
    rows.into_iter().try_for_each(|row| matrix.checked_row(row as usize).map(drop))
}

/// The canonical score of a row for query `at` of `n` padded query vectors.
fn score_of(matrix: &ShardedMatrix<'_>, vectors: &[f32], n: usize, at: usize, row: u32) -> f32 {
    let stride = vectors.len() / n;
    let query = &vectors[at * stride..(at + 1) * stride];
    matrix.row(row as usize).map_or(0.0, |values| canonical_score(query, values))
}

/// Embeds queries for a scan. Vectors that are made on a GPU stay there; the embeddings beside the
/// batch hold token counts only.
///
/// # Errors
///
/// As [`Embedder::embed`] and [`QueryBatch::new`].
pub fn embed_queries<T: AsRef<str> + Sync>(
    embedder: &Embedder,
    texts: &[T],
) -> Result<(QueryBatch, Embeddings)> {
    let dim = embedder.dim();
    if let Some((vectors, beside)) = embedder.embed_on_device(texts, Role::Query, stride_of(dim))? {
        return Ok((QueryBatch::on_device(vectors, texts.len(), dim), beside));
    }
    let mut embedded = embedder.embed(texts, Role::Query)?;
    let batch = QueryBatch::new(&std::mem::take(&mut embedded.vectors), dim)?;
    Ok((batch, embedded))
}
