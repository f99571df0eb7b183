//! Answers to the queries of a window.

use super::BatchOptions;
use super::format::{BatchAnswer, BatchHit};
use crate::error::Result;
use crate::queries::Query;
use crate::search::{Candidate, QueryInput, Retrieved, Searcher, Timings, timed};
use crate::store::filter::Filter;
use crate::store::{Row, RowNames};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Maximum size of the row masks in use at a time, in bytes.
const MASK_BYTES: usize = 128 << 20;

/// A checked query with its own filter, joined to that of the options. Queries with the same filter
/// share it.
pub(super) struct FilteredQuery {
    pub(super) query: Query,
    pub(super) filter: Option<Arc<Filter>>,
}

impl FilteredQuery {
    fn input(&self) -> QueryInput<'_> {
        let (text, vector) = (&self.query.text, self.query.vector.as_deref());
        QueryInput { text, vector, filter: self.filter.as_deref() }
    }
}

/// An index with the options of a batch. Threads share it.
pub(super) struct BatchSearcher<'a> {
    searcher: &'a Searcher,
    options: &'a BatchOptions,
    /// The ids of all rows; `None` if other processes hold them.
    names: Option<RowNames>,
}

impl<'a> BatchSearcher<'a> {
    /// Reads the ids of all rows, if this process holds them.
    pub(super) fn new(searcher: &'a Searcher, options: &'a BatchOptions) -> Result<Self> {
        let names = match searcher.index.remote() {
            Some(_) => None,
            None => Some(searcher.index.row_names()?),
        };
        Ok(Self { searcher, options, names })
    }

    /// True if other processes hold the rows.
    pub(super) fn is_remote(&self) -> bool {
        self.searcher.index.remote().is_some()
    }

    /// The flag that ends the searches.
    pub(super) fn stop(&self) -> Option<&Arc<AtomicBool>> {
        self.searcher.stop.as_ref()
    }

    /// Answers a window of queries, in their order. The time of the steps stands beside them.
    pub(super) fn answer(
        &self,
        mut window: &[FilteredQuery],
    ) -> Result<(Vec<BatchAnswer>, Timings)> {
        let (mut answers, mut timings) = (Vec::with_capacity(window.len()), Timings::default());
        let search = &self.options.search;
        while !window.is_empty() {
            let filters = window.iter().map(|query| query.filter.as_deref().map(Filter::source));
            let n = few_filters(filters, self.searcher.index.n_rows());
            let (now, later) = window.split_at(n);
            let inputs: Vec<QueryInput<'_>> = now.iter().map(FilteredQuery::input).collect();
            let found = self.searcher.retrieve(&inputs, search, &mut timings)?;
            let read = timed(&mut timings.fetch, || self.read_rows(&found))?;
            for (query, found) in now.iter().zip(found) {
                answers.push(BatchAnswer {
                    query_id: query.query.id.clone(),
                    hits: self.hits(&found.candidates, &read),
                    below_min_score: search.min_score.map(|_| found.below_min_score),
                    not_reranked: Some(found.not_reranked).filter(|n| *n > 0),
                    matched_rows: found.matched_rows,
                    warnings: found.warnings,
                });
            }
            window = later;
        }
        Ok((answers, timings))
    }

    /// Reads what the answers need of rows, beside the ids that are in memory.
    fn read_rows(&self, found: &[Retrieved]) -> Result<HashMap<u32, ReadRow>> {
        let index = &self.searcher.index;
        if self.names.is_some() && !self.options.with_text {
            return Ok(HashMap::new());
        }
        let rows = found.iter().flat_map(|found| found.candidates.iter().map(|c| c.row));
        let numbers: Vec<u32> = rows.collect::<BTreeSet<u32>>().into_iter().collect();
        let read: Vec<ReadRow> = if self.options.with_text {
            let of = |row: Row| ReadRow {
                names: (row.id, row.doc_id),
                text: Some((row.title, row.text)),
            };
            index.rows(&numbers)?.into_iter().map(of).collect()
        } else {
            index.names(&numbers)?.into_iter().map(|names| ReadRow { names, text: None }).collect()
        };
        Ok(numbers.into_iter().zip(read).collect())
    }

    fn hits(&self, candidates: &[Candidate], read: &HashMap<u32, ReadRow>) -> Vec<BatchHit> {
        let hit = |(i, candidate): (usize, &Candidate)| {
            let read = read.get(&candidate.row);
            let (id, doc_id) = match (&self.names, read) {
                (Some(names), _) => names.get(candidate.row),
                (None, Some(ReadRow { names: (id, doc_id), .. })) => (&**id, &**doc_id),
                (None, None) => ("", ""),
            };
            let (title, text) = read.and_then(|read| read.text.clone()).unzip();
            let rerank = candidate.rerank.as_ref();
            BatchHit {
                rank: i + 1,
                id: id.to_owned(),
                doc_id: doc_id.to_owned(),
                score: candidate.score,
                dense_score: candidate.bm25.map(|_| candidate.dense),
                bm25_score: candidate.bm25,
                final_score: candidate.final_score,
                retrieved_rank: candidate.retrieved_rank,
                rerank_score: rerank.map(|r| r.score),
                rerank_logit: rerank.map(|r| r.logit),
                title,
                text,
            }
        };
        candidates.iter().enumerate().map(hit).collect()
    }
}

/// A row as answers show it.
struct ReadRow {
    /// The id and `doc_id`.
    names: (String, String),
    /// Title and text, if they are written.
    text: Option<(String, String)>,
}

/// The number of leading queries whose distinct filters have row masks that fit into memory; at
/// least 1. `filters` are the texts of the queries' filters.
fn few_filters<'a>(filters: impl Iterator<Item = Option<&'a str>>, n_rows: usize) -> usize {
    let most = (MASK_BYTES / (n_rows / 8 + 1)).max(1);
    let mut different = HashSet::new();
    filters
        .take_while(|filter| {
            different.insert(*filter);
            different.len() <= most
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::{MASK_BYTES, few_filters};

    #[test]
    fn masks_of_different_filters_are_limited_by_memory() {
        let window = [Some("a"), Some("a"), None, Some("b"), Some("a"), Some("c")];
        // Room for all, for two, for three, and for less than one row mask.
        for (n_rows, expected) in [
            (1000, 6),
            (8 * MASK_BYTES / 2 - 8, 3),
            (8 * MASK_BYTES / 3 - 8, 5),
            (16 * MASK_BYTES, 2),
        ] {
            assert_eq!(few_filters(window.into_iter(), n_rows), expected, "{n_rows} rows");
        }
    }
}
