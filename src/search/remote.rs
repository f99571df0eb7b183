//! Retrieval from shards: the part of a process that holds one, and that of the process which asks.

use super::fusion::mmr;
use super::options::{QueryInput, SearchOptions};
use super::result::{Candidate, Retrieved, Timings, timed};
use super::retrieve::shape;
use super::searcher::Searcher;
use crate::error::{Error, Result};
use crate::store::filter::Filter;
use crate::store::{Index, RemoteShards, ShardAnswer, ShardEntry, ShardRequest};
use std::collections::HashMap;
use std::sync::Arc;
use warpseek_topk::scanner::{QueryBatch, Scanner};
use warpseek_topk::shards::merge;
use warpseek_topk::{MatrixView, RowMask, ScoredRow, row_norm_upper, stride_of};

/// Scans a shard that this process holds.
///
/// # Errors
///
/// As [`Scanner::top_k`] and [`Index::rows_where`].
pub fn scan_shard(
    index: &Index,
    scanner: &Scanner,
    request: &ShardRequest<'_>,
) -> Result<ShardAnswer> {
    let mut answer = ShardAnswer::default();
    let mut passing = Vec::new();
    for filter in request.filters {
        let rows = index.rows_where(&Filter::parse(filter)?)?;
        answer.matched.push(rows.mask.count() as u64);
        answer.notes.push(rows.notes.clone());
        passing.push(rows);
    }
    let masks: Vec<Option<&RowMask>> = request
        .filter_of
        .iter()
        .map(|filter| filter.and_then(|i| passing.get(i).map(|rows| &rows.mask)))
        .collect();
    if request.filter_of.iter().flatten().any(|filter| *filter >= passing.len()) {
        return Err(Error::usage("a query has a filter that was not sent"));
    }
    let batch = QueryBatch::new(request.queries, index.manifest().dim)?;
    if batch.len() != masks.len() {
        let (queries, filters) = (batch.len(), masks.len());
        return Err(Error::usage(format!("{queries} queries with {filters} filters")));
    }
    answer.hits = scanner.top_k_sharded(&index.matrix()?, &batch, request.k, &masks)?;
    Ok(answer)
}

impl Searcher {
    /// Retrieves rows as [`Searcher::rank`] does, from shards in other processes.
    pub(super) fn rank_remote(
        &self,
        shards: &Arc<dyn RemoteShards>,
        queries: &[QueryInput<'_>],
        batch: &QueryBatch,
        options: &SearchOptions,
        timings: &mut Timings,
    ) -> Result<Vec<Retrieved>> {
        let (index, dim) = (&self.index, self.index.manifest().dim);
        let mut filters: Vec<&Filter> = Vec::new();
        let mut filter_of = Vec::with_capacity(queries.len());
        let mut known: HashMap<&str, usize> = HashMap::new();
        for query in queries {
            let filter = query.filter.or(options.filter.as_ref());
            filter_of.push(filter.map(|filter| {
                *known.entry(filter.source()).or_insert_with(|| {
                    filters.push(filter);
                    filters.len() - 1
                })
            }));
        }
        filters.iter().try_for_each(|filter| index.check_filter(filter))?;
        let sources: Vec<&str> = filters.iter().map(|filter| filter.source()).collect();
        let padded = batch.padded()?;
        let stride = padded.len() / batch.len().max(1);
        let pool = match options.mmr {
            Some(_) => options.k.saturating_mul(4).max(50),
            None => options.k,
        };
        let mut list = pool;
        let mut found = vec![Retrieved::default(); queries.len()];
        let mut left: Vec<usize> = (0..queries.len()).collect();
        while !left.is_empty() {
            let vector = |&i: &usize| &padded[i * stride..i * stride + dim];
            let vectors: Vec<f32> = left.iter().flat_map(vector).copied().collect();
            let filter_of: Vec<Option<usize>> = left.iter().map(|&i| filter_of[i]).collect();
            let request = ShardRequest {
                queries: &vectors,
                n_queries: left.len(),
                k: list,
                filters: &sources,
                filter_of: &filter_of,
            };
            let answers = timed(&mut timings.scan, || shards.scan(&request))?;
            timed(&mut timings.fuse, || {
                let (merged, matched) = merged(index, &answers, &request)?;
                for ((&i, ranked), filter) in left.iter().zip(merged).zip(&filter_of) {
                    let ranked = ranked.iter().map(|hit| (hit.row, hit.score)).collect();
                    let matched = filter.map_or(index.n_rows() as u64, |filter| matched[filter]);
                    let depth = options.k.min(matched as usize);
                    let query = &padded[i * stride..(i + 1) * stride];
                    let diversify = |ranked: &[(u32, f32)], lambda| {
                        self.diversify_remote(shards, query, ranked, lambda, depth)
                    };
                    let (ranked, below_min_score) =
                        shape(index, ranked, options, (pool, depth), diversify)?;
                    found[i] = Retrieved {
                        candidates: Candidate::list(ranked),
                        matched_rows: matched as usize,
                        warnings: filter.map_or_else(Vec::new, |filter| {
                            let notes = answers.iter().map(|answer| &answer.notes[filter]);
                            index.messages(filters[filter], notes.flatten())
                        }),
                        below_min_score,
                        ..Retrieved::default()
                    };
                }
                Ok::<_, Error>(())
            })?;
            left.retain(|&i| {
                let matched = found[i].matched_rows;
                let short = found[i].candidates.len() < options.k.min(matched);
                options.max_per_doc.is_some() && short && list < matched
            });
            list = list.saturating_mul(4).min(index.n_rows());
        }
        Ok(found)
    }

    /// Maximal marginal relevance over rows of other processes.
    fn diversify_remote(
        &self,
        shards: &Arc<dyn RemoteShards>,
        query: &[f32],
        ranked: &[(u32, f32)],
        lambda: f32,
        depth: usize,
    ) -> Result<Vec<(u32, f32)>> {
        let manifest = self.index.manifest();
        let numbers: Vec<u32> = ranked.iter().map(|(row, _)| *row).collect();
        let stride = stride_of(manifest.dim);
        let read = |requests: &[(usize, Vec<u32>)]| -> Result<Vec<Vec<Vec<half::f16>>>> {
            let values = shards.vectors(requests)?;
            Ok(values.iter().map(|v| v.chunks_exact(stride).map(<[_]>::to_vec).collect()).collect())
        };
        let values = self.index.read_by_shard(&numbers, read)?.concat();
        let norm = values.chunks_exact(stride).map(row_norm_upper).fold(0.0, f32::max);
        let rows = MatrixView::new(&values, manifest.dim, norm)
            .filter(|rows| rows.n_rows() == ranked.len())
            .ok_or_else(|| Error::usage("a shard sent other rows than were asked for"))?;
        let local: Vec<(u32, f32)> = (0..).zip(ranked).map(|(i, (_, score))| (i, *score)).collect();
        let picked = mmr(&rows.into(), query, &local, (manifest.metric, false), lambda, depth);
        Ok(picked.into_iter().map(|(i, score)| (numbers[i as usize], score)).collect())
    }
}

/// The merged rows of every query, and per filter the number of rows that pass it in all shards.
fn merged(
    index: &Index,
    answers: &[ShardAnswer],
    request: &ShardRequest<'_>,
) -> Result<(Vec<Vec<ScoredRow>>, Vec<u64>)> {
    let entries = index.shard_list().map_or(&[][..], |list| &list.shards);
    let (n_queries, n_filters, k) = (request.n_queries, request.filters.len(), request.k);
    let is_possible = |hits: &Vec<ScoredRow>, rows: u64| {
        let is_in_order = |a: &ScoredRow, b: &ScoredRow| {
            a.score > b.score || (a.score == b.score && a.row < b.row)
        };
        hits.len() <= k
            && hits.iter().all(|hit| u64::from(hit.row) < rows)
            && hits.is_sorted_by(is_in_order)
    };
    let fits = |(entry, answer): (&ShardEntry, &ShardAnswer)| {
        answer.hits.len() == n_queries
            && answer.matched.len() == n_filters
            && answer.notes.len() == n_filters
            && answer.hits.iter().all(|hits| is_possible(hits, entry.rows))
    };
    if answers.len() != entries.len() || !entries.iter().zip(answers).all(fits) {
        return Err(Error::usage("a shard sent an answer to another question"));
    }
    let mut rows = vec![Vec::new(); n_queries];
    let mut matched = vec![0; n_filters];
    for (entry, answer) in entries.iter().zip(answers) {
        for (rows, hits) in rows.iter_mut().zip(&answer.hits) {
            merge(rows, hits, entry.first_row as u32, k);
        }
        matched.iter_mut().zip(&answer.matched).for_each(|(all, n)| *all += n);
    }
    Ok((rows, matched))
}
