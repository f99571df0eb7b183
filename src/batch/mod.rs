//! Many queries from a file into a file, resumable.
//!
//! Answers go line by line into `OUT.partial`; the finished file appears under its own name, whole. A
//! run that was cut short goes on behind the last complete line, if the index, the queries and the
//! options are still the same.

mod journal;
mod output;

pub use output::OutputFormat;

use crate::error::{Error, Result};
use crate::queries::{Query, QueryReader};
use crate::scan::QueryBatch;
use crate::search::{Candidate, QueryInput, Retrieved, SearchOptions, Searcher, Timings};
use crate::store::RowNames;
use crate::store::filter::Filter;
use journal::Journal;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Queries that are answered together at most.
const WINDOW: usize = 256;

/// The same where a GPU searches.
const GPU_WINDOW: usize = 4096;

/// Passages that are reranked together at most, so that a run can be stopped every few seconds.
const WINDOW_PASSAGES: usize = 400;

/// The same where a GPU reranks.
const GPU_WINDOW_PASSAGES: usize = 16 << 10;

/// Bytes of the sets of rows that different filters let pass, at a time.
const MASK_BYTES: usize = 128 << 20;

/// Hits that are held at a time at most.
const WINDOW_HITS: usize = 1 << 20;

/// How to answer a batch.
#[derive(Debug, Clone)]
pub struct BatchOptions {
    /// How to search; a query's own filter is joined to this one's by AND.
    pub search: SearchOptions,
    /// The format of the finished file.
    pub format: OutputFormat,
    /// Whether hits carry title and text (jsonl only).
    pub with_text: bool,
    /// Whether an unfinished earlier run is thrown away instead of continued.
    pub restart: bool,
}

/// How far a batch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct BatchReport {
    /// Queries answered, those of an earlier run included.
    pub queries: u64,
    /// Of them, answered by the earlier run.
    pub resumed: u64,
    /// Hits written.
    pub hits: u64,
    /// Queries without a hit.
    pub without_hits: u64,
    /// Whether the run was told to stop before the end.
    pub interrupted: bool,
    /// Milliseconds a step, summed.
    pub took_ms: Timings,
}

/// A line of the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The query's id.
    pub query_id: String,
    /// The hits, best first.
    pub hits: Vec<AnswerHit>,
    /// Rows that passed the filter.
    pub matched_rows: usize,
    /// What the user should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A hit of an [`Answer`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswerHit {
    /// The place, from 1.
    pub rank: usize,
    /// The row's id.
    pub id: String,
    /// The document's id.
    pub doc_id: String,
    /// The inner product, or the fused value when hybrid.
    pub score: f32,
    /// What the hits are ordered by: the rerank score, or `score` where nothing was reranked; none for
    /// hits that lie deeper than the reranker looked.
    pub final_score: Option<f32>,
    /// The place in the retrieval order, from 1.
    pub retrieved_rank: usize,
    /// The sigmoid of the logit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank_score: Option<f32>,
    /// The cross-encoder's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerank_logit: Option<f32>,
    /// The title, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The text, where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Answers the queries of a file into `out`.
///
/// `progress` is told how far the run is after every window; where it answers no, the run stops and
/// can be continued.
///
/// # Errors
///
/// [`Error::Input`] for a bad query, naming its line, after the ones before it were answered;
/// [`Error::Usage`] where an earlier unfinished run does not fit; [`Error::Io`]; and the errors of
/// [`Searcher::retrieve`].
pub fn run(
    searcher: &Searcher,
    queries: &Path,
    out: &Path,
    options: &BatchOptions,
    progress: &mut dyn FnMut(&BatchReport) -> bool,
) -> Result<BatchReport> {
    let names = searcher.index.row_names()?;
    let mut reader = QueryReader::open(queries)?;
    let mut journal = Journal::open(out, &fingerprint(searcher, options), options.restart)?;
    let mut report = BatchReport::default();
    for entry in journal.earlier()? {
        let entry = entry?;
        let query = reader.next().transpose()?;
        if query.map(|q| hash_query(&q)) != Some(entry.query) {
            return Err(journal.does_not_fit());
        }
        report.resumed += 1;
        count(&mut report, &entry.answer);
    }
    let size = window_size(searcher, &options.search);
    let mut window: Vec<Query> = Vec::with_capacity(size);
    loop {
        // A query that cannot be answered ends the run behind those before it.
        let next = reader.next().transpose().and_then(|query| {
            query.as_ref().map_or(Ok(()), |q| check_query(searcher, q, &options.search))?;
            Ok(query)
        });
        let ended = !matches!(next, Ok(Some(_)));
        let failed = match next {
            Ok(query) => {
                window.extend(query);
                None
            }
            Err(e) => Some(e),
        };
        if window.len() >= size || (ended && !window.is_empty()) {
            let answers = answer_window(searcher, &window, options, &names, &mut report.took_ms)?;
            for (query, answer) in window.iter().zip(answers) {
                count(&mut report, &answer);
                journal.append(hash_query(query), &answer)?;
            }
            journal.flush()?;
            window.clear();
            if !progress(&report) {
                report.interrupted = true;
                return Ok(report);
            }
        }
        if let Some(e) = failed {
            return Err(e);
        }
        if ended {
            break;
        }
    }
    if report.queries == 0 {
        return Err(Error::input(
            crate::error::Place::file(queries.display().to_string()),
            "the file holds no queries",
        ));
    }
    journal.finish(options.format)?;
    Ok(report)
}

/// How many queries are answered together: as many as keep the work and the memory of a window small.
fn window_size(searcher: &Searcher, search: &SearchOptions) -> usize {
    let by_hits = WINDOW_HITS / search.k.max(1);
    let on_gpu = searcher.scanner.is_gpu();
    let reranked_on_gpu = searcher.reranker.as_ref().is_some_and(|(_, r)| r.is_on_device());
    let most = if on_gpu { GPU_WINDOW } else { WINDOW };
    let passages = if reranked_on_gpu { GPU_WINDOW_PASSAGES } else { WINDOW_PASSAGES };
    let by_passages = search.rerank_depth.map_or(most, |depth| passages / depth.max(1));
    most.min(by_hits).min(by_passages).max(1)
}

fn count(report: &mut BatchReport, answer: &Answer) {
    report.queries += 1;
    report.hits += answer.hits.len() as u64;
    report.without_hits += u64::from(answer.hits.is_empty());
}

/// Answers a window of queries, in the order of the file.
fn answer_window(
    searcher: &Searcher,
    mut window: &[Query],
    options: &BatchOptions,
    names: &RowNames,
    timings: &mut Timings,
) -> Result<Vec<Answer>> {
    let mut answers = Vec::with_capacity(window.len());
    while !window.is_empty() {
        let (now, later) = window.split_at(few_filters(window, searcher.index.n_rows()));
        answers.extend(answer_together(searcher, now, options, names, timings)?);
        window = later;
    }
    Ok(answers)
}

/// The first queries of a window: as many as bring so few different filters that their rows can be held.
fn few_filters(window: &[Query], n_rows: usize) -> usize {
    let most = MASK_BYTES / (n_rows / 8 + 1);
    let mut filters = HashSet::new();
    let fits = |query: &Query| {
        filters.insert(query.filter.clone());
        filters.len() <= most.max(1)
    };
    window.iter().map(fits).take_while(|fits| *fits).count()
}

/// Answers queries, each with its own filter, in the order of the file.
fn answer_together(
    searcher: &Searcher,
    window: &[Query],
    options: &BatchOptions,
    names: &RowNames,
    timings: &mut Timings,
) -> Result<Vec<Answer>> {
    let mut filters: HashMap<&str, Option<Filter>> = HashMap::new();
    for own in window.iter().filter_map(|query| query.filter.as_deref()) {
        if !filters.contains_key(own) {
            filters.insert(own, join_filters(options.search.filter.as_ref(), Some(own))?);
        }
    }
    let mut inputs: Vec<QueryInput<'_>> = Vec::with_capacity(window.len());
    for query in window {
        inputs.push(QueryInput {
            text: &query.text,
            vector: query.vector.as_deref(),
            filter: query.filter.as_deref().and_then(|own| filters.get(own)?.as_ref()),
        });
    }
    let found = searcher.retrieve(&inputs, &options.search, timings)?;
    let answer = |(query, found): (&Query, Retrieved)| -> Result<Answer> {
        Ok(Answer {
            query_id: query.id.clone(),
            hits: answer_hits(searcher, &found.candidates, options.with_text, names)?,
            matched_rows: found.matched_rows,
            warnings: found.warnings,
        })
    };
    window.iter().zip(found).map(answer).collect()
}

fn answer_hits(
    searcher: &Searcher,
    candidates: &[Candidate],
    with_text: bool,
    names: &RowNames,
) -> Result<Vec<AnswerHit>> {
    let texts = if with_text { searcher.hits(candidates)? } else { Vec::new() };
    let mut texts = texts.into_iter();
    Ok(candidates
        .iter()
        .enumerate()
        .map(|(i, candidate)| {
            let (id, doc_id) = names.get(candidate.row);
            let text = texts.next();
            let rerank = candidate.rerank.as_ref();
            AnswerHit {
                rank: i + 1,
                id: id.to_owned(),
                doc_id: doc_id.to_owned(),
                score: candidate.score,
                final_score: candidate.final_score,
                retrieved_rank: candidate.retrieved_rank,
                rerank_score: rerank.map(|r| r.score),
                rerank_logit: rerank.map(|r| r.logit),
                title: text.as_ref().map(|t| t.title.clone()),
                text: text.map(|t| t.text),
            }
        })
        .collect())
}

/// Both conditions, where there are two.
fn join_filters(all: Option<&Filter>, own: Option<&str>) -> Result<Option<Filter>> {
    match (all, own) {
        (all, None) => Ok(all.cloned()),
        (None, Some(own)) => Filter::parse(own).map(Some),
        (Some(all), Some(own)) => {
            Filter::parse(own)?;
            Filter::parse(&format!("({}) AND ({own})", all.source())).map(Some)
        }
    }
}

/// Checks what a query brings along, so that an error names its line.
fn check_query(searcher: &Searcher, query: &Query, search: &SearchOptions) -> Result<()> {
    let at = |field: &'static str| {
        move |error| match error {
            Error::Usage(reason) => Error::input(query.place.clone().field(field), reason),
            other => other,
        }
    };
    if let Some(own) = &query.filter {
        let joined = join_filters(search.filter.as_ref(), Some(own)).map_err(at("filter"))?;
        if let Some(filter) = joined {
            searcher.index.rows_where(&filter).map_err(at("filter"))?;
        }
    }
    if let Some(vector) = &query.vector {
        let dim = searcher.index.manifest().dim;
        if vector.len() != dim {
            let reason = format!("it has {} dimensions, the index {dim}", vector.len());
            return Err(Error::input(query.place.clone().field("vector"), reason));
        }
        QueryBatch::new(vector, dim).map_err(at("vector"))?;
    }
    Ok(())
}

/// What tells one query from another.
fn hash_query(query: &Query) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    for text in [&query.id, &query.text, query.filter.as_ref().unwrap_or(&String::new())] {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    query.vector.iter().flatten().for_each(|v| hasher.update(&v.to_le_bytes()));
    hasher.digest()
}

/// What must be the same for a run to be continued, beside the queries.
fn fingerprint(searcher: &Searcher, options: &BatchOptions) -> String {
    let search = &options.search;
    format!(
        "index {} k {} rerank {:?} {:?} {:?} filter {:?} hybrid {} mmr {:?} per doc {:?} text {}",
        searcher.index.snapshot_id(),
        search.k,
        search.rerank_depth,
        search.rerank_depth.and(searcher.reranker.as_ref()).map(|(name, _)| name),
        search.retriever_weight,
        search.filter.as_ref().map(Filter::source),
        search.hybrid,
        search.mmr,
        search.max_per_doc,
        options.with_text,
    )
}

#[cfg(test)]
mod tests {
    use super::{MASK_BYTES, few_filters};
    use crate::error::Place;
    use crate::queries::Query;

    #[test]
    fn different_filters_are_held_as_far_as_there_is_room() {
        let query = |filter: Option<&str>| Query {
            id: String::new(),
            title: String::new(),
            text: String::new(),
            filter: filter.map(str::to_owned),
            vector: None,
            place: Place::file("queries"),
        };
        let window = [Some("a"), Some("a"), None, Some("b"), Some("a"), Some("c")].map(query);
        assert_eq!(few_filters(&window, 1000), 6);
        // Room for two sets of rows, for three, and for less than one.
        assert_eq!(few_filters(&window, 8 * MASK_BYTES / 2 - 8), 3);
        assert_eq!(few_filters(&window, 8 * MASK_BYTES / 3 - 8), 5);
        assert_eq!(few_filters(&window, 16 * MASK_BYTES), 2);
    }
}
