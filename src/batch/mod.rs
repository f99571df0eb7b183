//! Search for many queries from a file into a file, resumable.
//!
//! Answers go line by line into a journal, `OUT.partial`. The finished file appears under its own
//! name when it is complete. A run that was interrupted continues after the last complete line, if
//! the index, the queries and the options are the same. After a kill it ends with the same bytes.

mod format;
mod journal;

pub use format::{BatchAnswer, BatchFormat, BatchHit};

use crate::error::{Error, Place, Result};
use crate::queries::{Query, QueryReader};
use crate::search::{Candidate, QueryInput, Retrieved, SearchOptions, Searcher, Timings, timed};
use crate::store::filter::Filter;
use crate::store::{Row, RowNames};
use journal::Journal;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use warpseek_topk::scanner::QueryBatch;

/// Maximum number of queries that are answered together.
const WINDOW: usize = 256;

/// The same if a GPU searches, or other processes.
const GPU_WINDOW: usize = 4096;

/// Maximum number of passages that are reranked together, so that a run can be stopped every few
/// seconds.
const WINDOW_PASSAGES: usize = 400;

/// The same if a GPU reranks.
const GPU_WINDOW_PASSAGES: usize = 16 << 10;

/// Maximum size of the row masks in use at a time, in bytes.
const MASK_BYTES: usize = 128 << 20;

/// Maximum number of hits in memory.
const WINDOW_HITS: usize = 1 << 20;

/// Maximum number of parsed filters in memory.
const MAX_FILTERS: usize = 4096;

/// Options of a batch.
#[derive(Debug, Clone)]
pub struct BatchOptions {
    /// Options of the searches. A query's own filter is joined to this filter by AND.
    pub search: SearchOptions,
    /// The format of the finished file.
    pub format: BatchFormat,
    /// True to write title and text of the hits (jsonl only).
    pub with_text: bool,
    /// True to discard an unfinished earlier run instead of continuing it.
    pub restart: bool,
}

/// Progress of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct BatchReport {
    /// Queries answered, those of an earlier run included.
    pub queries: u64,
    /// Queries answered by the earlier run.
    pub resumed: u64,
    /// Hits written.
    pub hits: u64,
    /// Queries without a hit.
    pub without_hits: u64,
    /// Hits below the minimum score, which were left out.
    pub below_min_score: u64,
    /// Hits that were left out because they were not reranked and have no score to compare with the
    /// minimum.
    pub not_reranked: u64,
    /// True if the run was stopped before the end.
    pub interrupted: bool,
    /// Milliseconds per step, summed over all queries.
    pub took_ms: Timings,
}

/// Answers the queries of a file into the file `out`.
///
/// `progress` is called after every window of queries; it returns false to stop the run, which can
/// be continued later.
///
/// # Errors
///
/// [`Error::Input`] for an invalid query, with its line, after the queries before it were answered;
/// [`Error::Usage`] if an earlier unfinished run does not match; [`Error::Io`]; and the errors of
/// [`Searcher::retrieve`].
pub fn run(
    searcher: &Searcher,
    mut queries: QueryReader,
    out: &Path,
    options: &BatchOptions,
    progress: &mut dyn FnMut(&BatchReport) -> bool,
) -> Result<BatchReport> {
    let mut batch = BatchRun {
        searcher,
        options,
        names: match searcher.index.remote() {
            Some(_) => None,
            None => Some(searcher.index.row_names()?),
        },
        filters: HashMap::new(),
        report: BatchReport::default(),
    };
    let mut journal = Journal::open(out, &fingerprint(searcher, options), options.restart)?;
    let size = window_size(searcher, &options.search);
    let mut window: Vec<FilteredQuery> = Vec::with_capacity(size);
    let mut partial: Vec<Query> = Vec::new();
    for entry in journal.earlier()? {
        let entry = entry?;
        let query = match queries.next().transpose()? {
            Some(query) if hash_query(&query) == entry.query => query,
            _ => return Err(journal::mismatch(&journal.path)),
        };
        batch.report.resumed += 1;
        batch.count(&entry.answer);
        if partial.len() == size {
            partial.clear();
        }
        partial.push(query);
    }
    // The queries of a window that an earlier run wrote in part are answered again beside the
    // others: in another batch, an embedding can differ in the last bits.
    let mut answered = partial.len() % size;
    for query in partial.into_iter().take(answered) {
        window.push(batch.prepare(query)?);
    }
    loop {
        // The queries before an invalid one are answered first.
        let next = queries.next().map(|query| batch.prepare(query?)).transpose();
        let (query, ended) = match next {
            Ok(Some(query)) => (Some(query), Ok(false)),
            Ok(None) => (None, Ok(true)),
            Err(e) => (None, Err(e)),
        };
        let is_last = query.is_none();
        window.extend(query);
        if window.len() >= size || (is_last && window.len() > answered) {
            let answers = batch.answer(&window)?;
            for (query, answer) in window.drain(..).zip(answers).skip(answered) {
                batch.count(&answer);
                journal.append(hash_query(&query.query), &answer)?;
            }
            answered = 0;
            journal.flush()?;
            if !progress(&batch.report) {
                batch.report.interrupted = true;
                return Ok(batch.report);
            }
        }
        if ended? {
            break;
        }
    }
    if batch.report.queries == 0 {
        return Err(Error::input(Place::file(queries.name()), "the file holds no queries"));
    }
    journal.finish(options.format)?;
    Ok(batch.report)
}

/// The number of queries that are answered together. It keeps the time and the memory of a window
/// small.
fn window_size(searcher: &Searcher, search: &SearchOptions) -> usize {
    let by_hits = WINDOW_HITS / search.k.max(1);
    let on_gpu = searcher.scanner.is_gpu() || searcher.index.remote().is_some();
    let reranked_on_gpu = searcher.reranker.as_ref().is_some_and(|(_, r)| r.is_on_device());
    let most = if on_gpu { GPU_WINDOW } else { WINDOW };
    let passages = if reranked_on_gpu { GPU_WINDOW_PASSAGES } else { WINDOW_PASSAGES };
    let by_passages = search.rerank_depth.map_or(most, |depth| passages / depth.max(1));
    most.min(by_hits).min(by_passages).max(1)
}

/// A checked query with its own filter, joined to that of the options. Queries with the same filter
/// share it.
struct FilteredQuery {
    query: Query,
    filter: Option<Arc<Filter>>,
}

impl FilteredQuery {
    fn input(&self) -> QueryInput<'_> {
        let (text, vector) = (&self.query.text, self.query.vector.as_deref());
        QueryInput { text, vector, filter: self.filter.as_deref() }
    }
}

/// State of a run.
struct BatchRun<'a> {
    searcher: &'a Searcher,
    options: &'a BatchOptions,
    /// The ids of all rows; `None` if other processes hold them.
    names: Option<RowNames>,
    /// Parsed filters by the query's own text. Each fits the index.
    filters: HashMap<String, Arc<Filter>>,
    report: BatchReport,
}

impl BatchRun<'_> {
    fn count(&mut self, answer: &BatchAnswer) {
        self.report.queries += 1;
        self.report.hits += answer.hits.len() as u64;
        self.report.below_min_score += answer.below_min_score.unwrap_or(0) as u64;
        self.report.not_reranked += answer.not_reranked.unwrap_or(0) as u64;
        self.report.without_hits += u64::from(answer.hits.is_empty());
    }

    /// Checks the filter and the vector of a query, so that an error names its line.
    fn prepare(&mut self, query: Query) -> Result<FilteredQuery> {
        let at = |field: &'static str| {
            let place = query.place.clone().field(field);
            move |error| match error {
                Error::Usage(reason) => Error::input(place, reason),
                other => other,
            }
        };
        let filter = query.filter.as_deref().map(|own| self.filter(own)).transpose();
        let filter = filter.map_err(at("filter"))?;
        if let Some(vector) = &query.vector {
            let dim = self.searcher.index.manifest().dim;
            if vector.len() != dim {
                let reason = format!("it has {} dimensions, the index {dim}", vector.len());
                return Err(Error::input(query.place.field("vector"), reason));
            }
            QueryBatch::new(vector, dim).map_err(at("vector"))?;
        }
        Ok(FilteredQuery { query, filter })
    }

    /// The filter of a query, joined to that of the options. Each text is parsed and checked
    /// against the index once.
    fn filter(&mut self, own: &str) -> Result<Arc<Filter>> {
        if let Some(known) = self.filters.get(own) {
            return Ok(Arc::clone(known));
        }
        let mut filter = Filter::parse(own)?;
        if let Some(all) = &self.options.search.filter {
            filter = Filter::parse(&format!("({}) AND ({own})", all.source()))?;
        }
        match self.searcher.index.remote() {
            Some(_) => self.searcher.index.check_filter(&filter)?,
            None => drop(self.searcher.index.rows_where(&filter)?),
        }
        if self.filters.len() >= MAX_FILTERS {
            self.filters.clear();
        }
        let filter = Arc::new(filter);
        self.filters.insert(own.to_owned(), Arc::clone(&filter));
        Ok(filter)
    }

    /// Answers a window of queries, in the order of the file.
    fn answer(&mut self, mut window: &[FilteredQuery]) -> Result<Vec<BatchAnswer>> {
        let mut answers = Vec::with_capacity(window.len());
        while !window.is_empty() {
            let filters = window.iter().map(|query| query.filter.as_deref().map(Filter::source));
            let n = few_filters(filters, self.searcher.index.n_rows());
            let (now, later) = window.split_at(n);
            let inputs: Vec<QueryInput<'_>> = now.iter().map(FilteredQuery::input).collect();
            let (timings, search) = (&mut self.report.took_ms, &self.options.search);
            let found = self.searcher.retrieve(&inputs, search, timings)?;
            let mut fetch = 0.0;
            let read = timed(&mut fetch, || self.read_rows(&found))?;
            self.report.took_ms.fetch += fetch;
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
        Ok(answers)
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

/// Hash of a query's content.
fn hash_query(query: &Query) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for text in [&query.id, &query.text, query.filter.as_ref().unwrap_or(&String::new())] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    query.vector.iter().flatten().for_each(|v| hasher.update(&v.to_le_bytes()));
    hasher.digest()
}

/// Everything besides the queries that must be the same for a run to be continued.
fn fingerprint(searcher: &Searcher, options: &BatchOptions) -> String {
    let search = &options.search;
    format!(
        "index {} k {} rerank {:?} {:?} {:?} filter {:?} hybrid {} {:?} mmr {:?} per doc {:?} \
         least {:?} text {}",
        searcher.index.snapshot_id(),
        search.k,
        search.rerank_depth,
        search.rerank_depth.and(searcher.reranker.as_ref()).map(|(name, _)| name),
        search.retriever_weight,
        search.filter.as_ref().map(Filter::source),
        search.hybrid,
        search.fusion,
        search.mmr,
        search.max_per_doc,
        search.min_score,
        options.with_text,
    )
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
