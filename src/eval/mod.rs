//! Evaluation: how well an index answers judged queries, with and without reranking.

pub mod judgments;
pub mod measures;
pub mod run;
pub mod significance;
pub mod trec;

use crate::error::{Error, Result};
use crate::queries::Query;
use crate::search::{Candidate, QueryInput, SearchOptions, Searcher, Timings};
use crate::store::RowNames;
use judgments::Judgments;
use measures::{EvaluateOptions, Evaluation, Measure};
use run::{Run, rank_documents};
use serde::Serialize;
use significance::{PairedComparison, SignificanceOptions, compare_paired};
use std::time::Instant;

/// What to evaluate, and how.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// The measures, the first of which is tested for significance.
    pub measures: Vec<Measure>,
    /// Relevance level and the treatment of documents that are queries themselves.
    pub judging: EvaluateOptions,
    /// Documents a query in the run.
    pub depth: usize,
    /// Filter, hybrid and MMR of the retrieval; `k` and the rerank depth are set per system.
    pub search: SearchOptions,
    /// Rerank depths to evaluate beside the bare retrieval; deeper candidates keep their place behind.
    pub rerank_depths: Vec<usize>,
}

/// One system's answers and scores.
#[derive(Debug, Clone)]
pub struct SystemEval {
    /// `retrieval`, or `reranked, top 50`.
    pub name: String,
    /// Scores a query and their means.
    pub evaluation: Evaluation,
    /// The ranked documents.
    pub run: Run,
    /// How long a query took.
    pub latency: Latency,
    /// The paired test against the first system, for the first measure.
    pub against_first: Option<PairedComparison>,
}

/// Milliseconds a query, embedding included, queries one after another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// Half of the queries took at most this.
    pub p50: f64,
    /// 95 in 100 took at most this.
    pub p95: f64,
    /// 99 in 100 took at most this.
    pub p99: f64,
}

/// The outcome of an evaluation.
#[derive(Debug, Clone)]
pub struct EvalReport {
    /// The bare retrieval first, then one system a rerank depth.
    pub systems: Vec<SystemEval>,
    /// Queries of the file that have no judgments and were left out.
    pub unjudged_queries: usize,
    /// Judged queries that the file lacks; they count 0.
    pub missing_queries: usize,
}

/// Answers all judged queries and scores the answers.
///
/// # Errors
///
/// [`Error::Usage`] where no query is judged or the options make no sense, and the errors of
/// [`Searcher::retrieve`]. `progress` is told how many queries are done, of how many; where it answers
/// no, the run ends with [`Error::Interrupted`].
pub fn evaluate(
    searcher: &Searcher,
    queries: &[Query],
    judgments: &Judgments,
    options: &EvalOptions,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<EvalReport> {
    let judged: Vec<&Query> = queries.iter().filter(|q| judgments.get(&q.id).is_some()).collect();
    if judged.is_empty() {
        return Err(Error::usage(format!(
            "none of the {} queries has judgments: do the two files belong together?",
            queries.len()
        )));
    }
    let names = searcher.index.row_names()?;
    let deepest = options.rerank_depths.iter().copied().max();
    let mut runs = vec![Run::new(); 1 + options.rerank_depths.len()];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); runs.len()];
    for (done, query) in judged.iter().enumerate() {
        if !progress(done, judged.len()) {
            return Err(Error::Interrupted("the evaluation was stopped".to_owned()));
        }
        let started = Instant::now();
        let (candidates, rerank_ms) = answer(searcher, query, options, deepest, &names)?;
        let total = started.elapsed().as_secs_f64() * 1e3;
        let retrieved = in_retrieval_order(&candidates);
        runs[0].insert(&query.id, ranking(&names, &retrieved, options.depth, false))?;
        times[0].push(total - rerank_ms);
        for (i, &depth) in options.rerank_depths.iter().enumerate() {
            let reranked = reranked_to(&retrieved, depth);
            runs[i + 1].insert(&query.id, ranking(&names, &reranked, options.depth, true))?;
            let share = depth as f64 / deepest.unwrap_or(depth) as f64;
            times[i + 1].push(total - rerank_ms + rerank_ms * share);
        }
    }
    let mut systems = Vec::new();
    let labels = std::iter::once("retrieval".to_owned())
        .chain(options.rerank_depths.iter().map(|d| format!("reranked, top {d}")));
    for ((name, run), times) in labels.zip(runs).zip(times) {
        let evaluation = measures::evaluate(&run, judgments, &options.measures, &options.judging)?;
        systems.push(SystemEval {
            name,
            evaluation,
            run,
            latency: latency(times),
            against_first: None,
        });
    }
    if let Some((first, rest)) = systems.split_first_mut()
        && let Some(&measure) = options.measures.first()
    {
        for system in rest {
            let values =
                first.evaluation.values_of(measure).zip(system.evaluation.values_of(measure));
            if let Some((baseline, values)) = values {
                let options = SignificanceOptions::default();
                system.against_first = Some(compare_paired(&baseline, &values, &options)?);
            }
        }
    }
    Ok(EvalReport {
        systems,
        unjudged_queries: queries.len() - judged.len(),
        missing_queries: judgments.len() - judged.len(),
    })
}

/// Enough rows for `options.depth` documents, reranked to `deepest`, and the milliseconds that
/// reranking took.
fn answer(
    searcher: &Searcher,
    query: &Query,
    options: &EvalOptions,
    deepest: Option<usize>,
    names: &RowNames,
) -> Result<(Vec<Candidate>, f64)> {
    let input = QueryInput { text: &query.text, vector: query.vector.as_deref() };
    // One more than needed where the query's own document is taken out.
    let wanted = options.depth + usize::from(options.judging.drop_self);
    let mut k = wanted.max(deepest.unwrap_or(0));
    loop {
        let search = SearchOptions { k, rerank_depth: None, ..options.search.clone() };
        let mut timings = Timings::default();
        let found = searcher.retrieve(&[input], &search, &mut timings)?.pop().unwrap_or_default();
        let n_documents = rank_documents(
            found.candidates.iter().map(|c| (names.get(c.row).1, f64::from(c.score))),
        )
        .len();
        if n_documents < wanted && found.candidates.len() == k {
            k *= 2;
            continue;
        }
        let mut candidates = found.candidates;
        let mut rerank_ms = 0.0;
        if let Some(depth) = deepest {
            searcher.rerank_candidates(input, &mut candidates, depth, &mut rerank_ms)?;
        }
        return Ok((candidates, rerank_ms));
    }
}

fn in_retrieval_order(candidates: &[Candidate]) -> Vec<Candidate> {
    let mut ordered = candidates.to_vec();
    ordered.sort_by_key(|c| c.retrieved_rank);
    ordered
}

/// The order that reranking the first `depth` gives, from one that reranked deeper.
fn reranked_to(retrieved: &[Candidate], depth: usize) -> Vec<Candidate> {
    let mut ordered = retrieved.to_vec();
    let n = depth.min(ordered.len());
    let logit = |c: &Candidate| c.rerank.as_ref().map_or(f32::NEG_INFINITY, |s| s.logit);
    ordered[..n].sort_by(|a, b| {
        logit(b).total_cmp(&logit(a)).then(a.retrieved_rank.cmp(&b.retrieved_rank))
    });
    ordered
}

/// Documents by their first row. Where reranked and not reranked rows stand in one list their scores
/// do not compare, so the place itself is the score.
fn ranking(
    names: &RowNames,
    candidates: &[Candidate],
    depth: usize,
    by_place: bool,
) -> run::Ranking {
    let rows = candidates.iter().enumerate().map(|(i, c)| {
        let score = if by_place { -(i as f64) } else { f64::from(c.score) };
        (names.get(c.row).1, score)
    });
    let mut ranking = rank_documents(rows);
    ranking.truncate(depth);
    ranking
}

fn latency(mut times: Vec<f64>) -> Latency {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let i = (share * times.len() as f64).ceil() as usize;
        times.get(i.saturating_sub(1)).copied().unwrap_or(0.0)
    };
    Latency {
        mean: times.iter().sum::<f64>() / times.len().max(1) as f64,
        p50: at(0.50),
        p95: at(0.95),
        p99: at(0.99),
    }
}
