//! Search for many queries from a file into a file, resumable.
//!
//! Answers go line by line into a journal, `OUT.partial`. The finished file appears under its own
//! name when it is complete. A run that was interrupted continues after the last complete line, if
//! the index, the queries and the options are the same. After a kill it ends with the same bytes.

mod answer;
mod format;
mod journal;
mod windows;

pub use format::{BatchAnswer, BatchFormat, BatchHit};

use crate::error::{Error, Place, Result};
use crate::queries::{Query, QueryReader};
use crate::search::{SearchOptions, Searcher, Timings};
use crate::store::filter::Filter;
use answer::{BatchSearcher, FilteredQuery};
use journal::{Journal, hash_query};
use serde::Serialize;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use warpseek_topk::scanner::QueryBatch;
use windows::{AnsweredWindow, IN_FLIGHT, Windows};

/// Maximum number of queries that are answered together.
const WINDOW: usize = 256;

/// The same if a GPU searches.
const GPU_WINDOW: usize = 4096;

/// The same if other processes search, each for a few windows at a time.
const REMOTE_WINDOW: usize = 1024;

/// Maximum number of passages that are reranked together, so that a run can be stopped every few
/// seconds.
const WINDOW_PASSAGES: usize = 400;

/// The same if a GPU reranks.
const GPU_WINDOW_PASSAGES: usize = 16 << 10;

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
    /// Milliseconds per step, summed over all windows of queries. Those of shards in other
    /// processes overlap, and wait for each other.
    pub took_ms: Timings,
}

impl BatchReport {
    fn count(&mut self, answer: &BatchAnswer) {
        self.queries += 1;
        self.hits += answer.hits.len() as u64;
        self.below_min_score += answer.below_min_score.unwrap_or(0) as u64;
        self.not_reranked += answer.not_reranked.unwrap_or(0) as u64;
        self.without_hits += u64::from(answer.hits.is_empty());
    }

    fn add(&mut self, other: &Self) {
        self.queries += other.queries;
        self.hits += other.hits;
        self.below_min_score += other.below_min_score;
        self.not_reranked += other.not_reranked;
        self.without_hits += other.without_hits;
        self.took_ms += other.took_ms;
    }
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
    let searching = BatchSearcher::new(searcher, options)?;
    let journal = Journal::open(out, &fingerprint(searcher, options), options.restart)?;
    let report = BatchReport::default();
    let mut batch = BatchRun { searcher, options, filters: HashMap::new(), report, journal };
    let size = window_size(searcher, &options.search);
    let mut window: Vec<FilteredQuery> = Vec::with_capacity(size);
    let mut partial: Vec<Query> = Vec::new();
    for entry in batch.journal.earlier()? {
        let entry = entry?;
        let query = match queries.next().transpose()? {
            Some(query) if hash_query(&query) == entry.query => query,
            _ => return Err(journal::mismatch(&batch.journal.path)),
        };
        batch.report.resumed += 1;
        batch.report.count(&entry.answer);
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
    let complete = std::thread::scope(|scope| {
        let mut windows = Windows::new(scope, &searching);
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
                windows.begin(std::mem::take(&mut window), answered)?;
                answered = 0;
            }
            while is_last || !windows.has_room() {
                let Some(done) = windows.next()? else { break };
                batch.write(&done)?;
                if !progress(&batch.report) {
                    return Ok(false);
                }
            }
            if ended? {
                return Ok(true);
            }
        }
    })?;
    if !complete {
        batch.report.interrupted = true;
        return Ok(batch.report);
    }
    if batch.report.queries == 0 {
        return Err(Error::input(Place::file(queries.name()), "the file holds no queries"));
    }
    batch.journal.finish(options.format)?;
    Ok(batch.report)
}

/// The number of queries that are answered together. It keeps the time and the memory of a window
/// small.
fn window_size(searcher: &Searcher, search: &SearchOptions) -> usize {
    let (most, in_flight) = match searcher.index.remote() {
        Some(_) => (REMOTE_WINDOW, IN_FLIGHT),
        None if searcher.scanner.is_gpu() => (GPU_WINDOW, 1),
        None => (WINDOW, 1),
    };
    let by_hits = WINDOW_HITS / in_flight / search.k.max(1);
    let reranked_on_gpu = searcher.reranker.as_ref().is_some_and(|(_, r)| r.is_on_device());
    let passages = if reranked_on_gpu { GPU_WINDOW_PASSAGES } else { WINDOW_PASSAGES };
    let by_passages = search.rerank_depth.map_or(most, |depth| passages / depth.max(1));
    most.min(by_hits).min(by_passages).max(1)
}

/// State of a run.
struct BatchRun<'a> {
    searcher: &'a Searcher,
    options: &'a BatchOptions,
    /// Parsed filters by the query's own text. Each fits the index.
    filters: HashMap<String, Arc<Filter>>,
    report: BatchReport,
    journal: Journal,
}

impl BatchRun<'_> {
    /// Writes the answers of a window into the journal.
    fn write(&mut self, window: &AnsweredWindow) -> Result<()> {
        window.lines.iter().try_for_each(|line| self.journal.append(line))?;
        self.report.add(&window.report);
        self.journal.flush()
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
