//! From queries to ranked rows: embedding, filter, scan, fusion, diversification.

use super::{
    Candidate, QueryInput, Retrieved, SearchOptions, Searcher, Timings, keep_best, milliseconds,
    mmr, reciprocal_rank_fusion, timed,
};
use crate::embed::{Embedder, Embeddings, Role};
use crate::error::{Error, Result};
use crate::scan::QueryBatch;
use crate::scan::order::canonical_score;
use crate::store::filter::Filter;
use crate::store::matrix::{MatrixView, RowMask, stride_of};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// What one batch of queries is ranked by.
struct Ranker<'a> {
    searcher: &'a Searcher,
    matrix: MatrixView<'a>,
    queries: &'a [QueryInput<'a>],
    batch: &'a QueryBatch,
    /// Which rows each query may find; those that share a mask share it by reference.
    masks: Vec<Option<&'a RowMask>>,
    /// How many these are.
    available: &'a [usize],
    options: &'a SearchOptions,
    /// Rows that each ranking should have, where there are so many.
    depth: usize,
}

impl Searcher {
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
        let started = Instant::now();
        check(queries, options)?;
        let mut warnings = vec![Vec::new(); queries.len()];
        let batch = timed(&mut timings.embed, || self.query_batch(queries, &mut warnings))?;
        let masks = timed(&mut timings.filter, || self.masks(queries, options))?;
        let (masks, matched_rows): (Vec<_>, Vec<_>) = masks.into_iter().unzip();
        let ranker = Ranker {
            searcher: self,
            matrix: self.index.matrix()?,
            queries,
            batch: &batch,
            masks: masks.iter().map(Option::as_deref).collect(),
            available: &matched_rows,
            options,
            depth: options.rerank_depth.unwrap_or(0).max(options.k),
        };
        let mut rankings = ranker.rank(timings)?;
        if let Some(depth) = options.rerank_depth {
            timed(&mut timings.rerank, || {
                let (_, reranker) = self.require_reranker()?;
                let weight = options.retriever_weight.unwrap_or(reranker.retriever_weight());
                self.score_rankings(reranker, queries, &mut rankings, depth, &mut warnings)?;
                for (ranking, warnings) in rankings.iter_mut().zip(&mut warnings) {
                    warnings.extend(keep_best(ranking, weight, depth, options.k));
                }
                Ok(())
            })?;
        }
        timings.total += milliseconds(started);
        Ok(rankings
            .into_iter()
            .zip(warnings)
            .zip(matched_rows)
            .map(|((candidates, warnings), matched_rows)| Retrieved {
                candidates,
                matched_rows,
                warnings,
            })
            .collect())
    }

    /// Candidates of a ranking that was made elsewhere: `rows` in their order, each with its inner
    /// product with the query.
    ///
    /// # Errors
    ///
    /// As [`Searcher::retrieve`].
    pub fn candidates(&self, query: QueryInput<'_>, rows: &[u32]) -> Result<Vec<Candidate>> {
        let batch = self.query_batch(&[query], &mut [Vec::new()])?;
        let (matrix, vector) = (self.index.matrix()?, batch.padded()?);
        let score = |&row: &u32| {
            let values = matrix.row(row as usize);
            (row, values.map_or(0.0, |values| canonical_score(vector, values)))
        };
        Ok(candidates(rows.iter().map(score).collect()))
    }

    /// The vectors of queries. They stay on a GPU where all of them are made on one.
    fn query_batch(
        &self,
        queries: &[QueryInput<'_>],
        warnings: &mut [Vec<String>],
    ) -> Result<QueryBatch> {
        let dim = self.index.manifest().dim;
        let is_text = |query: &QueryInput<'_>| query.vector.is_none();
        let numbers: Vec<usize> = (0..queries.len()).filter(|&i| is_text(&queries[i])).collect();
        let mut vectors = Vec::new();
        if !numbers.is_empty() {
            let embedder = self.embedder.as_ref().ok_or_else(|| {
                Error::usage(
                    "the index was imported without a model, so that texts cannot be searched for: name \
                     the model with --model, or search for vectors with `warpseek batch`",
                )
            })?;
            let texts: Vec<&str> = numbers.iter().map(|&i| queries[i].text).collect();
            let (batch, embedded) = embed_queries(embedder, &texts)?;
            if batch.dim() != dim {
                return Err(Error::usage(format!(
                    "the model makes vectors of {} dimensions, the index has {dim}",
                    batch.dim()
                )));
            }
            for (n, &i) in numbers.iter().enumerate() {
                let (tokens, lost) = (embedded.tokens[n] as usize, embedded.lost[n] as usize);
                warnings[i].extend(query_warning(embedder, tokens, lost));
            }
            if numbers.len() == queries.len() {
                return Ok(batch);
            }
            vectors = batch.padded()?.to_vec();
        }
        let mut of_texts = vectors.chunks_exact(stride_of(dim));
        let mut all = Vec::with_capacity(queries.len() * dim);
        for (i, query) in queries.iter().enumerate() {
            let vector = query.vector.or_else(|| of_texts.next().map(|vector| &vector[..dim]));
            let vector = vector.unwrap_or_default();
            if vector.len() != dim {
                return Err(Error::usage(format!(
                    "query vector {i} has {} dimensions, the index {dim}",
                    vector.len()
                )));
            }
            all.extend(vector);
        }
        QueryBatch::new(&all, dim)
    }

    /// The rows that each query may find (none where it may find all) and how many these are. One mask for each
    /// filter.
    fn masks(
        &self,
        queries: &[QueryInput<'_>],
        options: &SearchOptions,
    ) -> Result<Vec<(Option<Arc<RowMask>>, usize)>> {
        let mut known: HashMap<Option<&str>, (Option<Arc<RowMask>>, usize)> = HashMap::new();
        let mut masks = Vec::with_capacity(queries.len());
        for query in queries {
            let filter = query.filter.or(options.filter.as_ref());
            let source = filter.map(Filter::source);
            if let Some(mask) = known.get(&source) {
                masks.push(mask.clone());
                continue;
            }
            let mask = match filter {
                Some(filter) => Some(self.index.rows_where(filter)?),
                None if self.index.live().count() == self.index.n_rows() => None,
                None => Some(Arc::new(self.index.live().clone())),
            };
            let n_rows = mask.as_deref().map_or(self.index.n_rows(), RowMask::count);
            known.insert(source, (mask.clone(), n_rows));
            masks.push((mask, n_rows));
        }
        Ok(masks)
    }
}

impl Ranker<'_> {
    /// The retrieval order of every query, `depth` rows deep where there are so many.
    fn rank(&self, timings: &mut Timings) -> Result<Vec<Vec<Candidate>>> {
        let options = self.options;
        let most = self.available.iter().copied().max().unwrap_or(0);
        let depth = self.depth.min(most);
        // What is left after fusion and diversification must still be `depth` rows.
        let pool = if options.mmr.is_some() { depth.saturating_mul(4).max(50) } else { depth };
        let mut list =
            if options.hybrid { pool.saturating_mul(2).max(100) } else { pool }.min(most);
        let mut rankings = vec![Vec::new(); self.queries.len()];
        let mut left: Vec<usize> = (0..self.queries.len()).collect();
        while !left.is_empty() {
            let ranked = self.rank_within(list, pool, &left, timings)?;
            left.iter().zip(ranked).for_each(|(&i, ranking)| rankings[i] = ranking);
            // Rows of documents that have enough already took the places: look deeper.
            left.retain(|&i| {
                let available = self.available[i];
                let short = rankings[i].len() < self.depth.min(available);
                options.max_per_doc.is_some() && short && list < available
            });
            list = list.saturating_mul(4).min(most);
        }
        Ok(rankings)
    }

    /// As [`Ranker::rank`] for some of the queries, from lists of `list` rows of which `pool` are diversified.
    fn rank_within(
        &self,
        list: usize,
        pool: usize,
        numbers: &[usize],
        timings: &mut Timings,
    ) -> Result<Vec<Vec<Candidate>>> {
        if list == 0 {
            return Ok(vec![Vec::new(); numbers.len()]);
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
        let dense = timed(&mut timings.scan, || scanner.top_k_masked(matrix, batch, list, &masks))?;
        timed(&mut timings.fuse, || {
            let mut rankings = Vec::with_capacity(numbers.len());
            for (at, (&number, dense)) in numbers.iter().zip(dense).enumerate() {
                let query = &self.queries[number];
                let depth = self.depth.min(self.available[number]);
                let mut ranked: Vec<(u32, f32)> = dense.iter().map(|h| (h.row, h.score)).collect();
                if options.hybrid {
                    let lexical = searcher.index.lexical(query.text, list, self.masks[number])?;
                    let lexical: Vec<u32> = lexical.iter().map(|h| h.row).collect();
                    let dense: Vec<u32> = dense.iter().map(|h| h.row).collect();
                    ranked = reciprocal_rank_fusion(&[&dense, &lexical]);
                }
                if let Some(limit) = options.max_per_doc {
                    ranked = self.limit_per_document(ranked, limit, pool)?;
                }
                ranked.truncate(pool);
                if let Some(lambda) = options.mmr {
                    let vectors = batch.padded()?;
                    let stride = vectors.len() / batch.len();
                    let vector = &vectors[at * stride..(at + 1) * stride];
                    ranked = mmr(matrix, vector, &ranked, options.hybrid, lambda, depth);
                }
                ranked.truncate(depth);
                rankings.push(candidates(ranked));
            }
            Ok(rankings)
        })
    }

    /// The first `pool` rows of which no more than `limit` share a `doc_id`.
    fn limit_per_document(
        &self,
        ranked: Vec<(u32, f32)>,
        limit: usize,
        pool: usize,
    ) -> Result<Vec<(u32, f32)>> {
        let numbers: Vec<u32> = ranked.iter().map(|r| r.0).collect();
        let documents = self.searcher.index.doc_ids(&numbers)?;
        let mut taken: HashMap<String, usize> = HashMap::new();
        let kept = ranked.into_iter().zip(documents).filter(|(_, document)| {
            let n = taken.entry(document.clone()).or_default();
            *n += 1;
            *n <= limit
        });
        Ok(kept.map(|(row, _)| row).take(pool).collect())
    }
}

/// Embeds queries for a scan. Their vectors stay on a GPU where they are made on one; what is returned beside them has none.
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

fn candidates(ranked: Vec<(u32, f32)>) -> Vec<Candidate> {
    ranked
        .into_iter()
        .enumerate()
        .map(|(i, (row, score))| Candidate {
            row,
            score,
            retrieved_rank: i + 1,
            rerank: None,
            final_score: Some(score),
        })
        .collect()
}

/// What the user should know of a query that the embedder did not see whole.
pub fn query_warning(embedder: &Embedder, tokens: usize, lost: usize) -> Option<String> {
    (lost > 0).then(|| {
        format!(
            "the query has {} tokens and the embedder takes {}: the last {lost} were left out",
            tokens + lost,
            embedder.max_tokens(),
        )
    })
}

fn check(queries: &[QueryInput<'_>], options: &SearchOptions) -> Result<()> {
    if options.k == 0 {
        return Err(Error::usage("k must be at least 1"));
    }
    if options.rerank_depth == Some(0) {
        return Err(Error::usage("the rerank depth must be at least 1"));
    }
    if options.max_per_doc == Some(0) {
        return Err(Error::usage("at least 1 row a document must be allowed"));
    }
    if let Some(lambda) = options.mmr
        && !(0.0..=1.0).contains(&lambda)
    {
        return Err(Error::usage(format!("the MMR lambda is {lambda}; it must lie in 0..1")));
    }
    if let Some(weight) = options.retriever_weight
        && !(0.0..=1.0).contains(&weight)
    {
        return Err(Error::usage(format!(
            "the weight of the retrieval score is {weight}; it must lie in 0..1"
        )));
    }
    let needs_text = options.hybrid || options.rerank_depth.is_some();
    for query in queries {
        if query.text.trim().is_empty() && (needs_text || query.vector.is_none()) {
            return Err(Error::usage(match query.vector {
                Some(_) => "hybrid search and reranking need the query's text beside its vector",
                None => "the query is empty",
            }));
        }
    }
    Ok(())
}
