//! Evaluation: how well an index answers judged queries, with and without reranking.

pub mod judgments;
pub mod measures;
pub mod run;
pub mod significance;
pub mod trec;

use crate::error::{Error, Result};
use crate::queries::Query;
use crate::search::{Candidate, QueryInput, SearchOptions, Searcher, Timings, order_by_logit};
use crate::store::RowNames;
use judgments::Judgments;
use measures::{EvaluateOptions, Evaluation, Measure};
use run::{Run, rank_documents};
use serde::Serialize;
use significance::{PairedComparison, SignificanceOptions, compare_paired};
use std::collections::HashSet;

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
    /// How long a query took. Rerank depths are measured together, at the deepest; a shallower one's
    /// share of that time is estimated by the number of passages.
    pub latency: Latency,
    /// Whether `latency` is estimated.
    pub latency_estimated: bool,
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
    /// Different documents judged relevant to any query.
    pub relevant_documents: usize,
    /// Of them, documents that the index does not hold.
    pub absent_documents: usize,
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
    measures::check(judgments, &options.measures, &options.judging)?;
    let names = searcher.index.row_names()?;
    let deepest = options.rerank_depths.iter().copied().max();
    let mut runs = vec![Run::new(); 1 + options.rerank_depths.len()];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); runs.len()];
    if let Some(query) = judged.first() {
        // The first query pays for reading the index into memory; its time is not the others'.
        answer(searcher, query, options, None, &names)?;
    }
    for (done, query) in judged.iter().enumerate() {
        if !progress(done, judged.len()) {
            return Err(Error::Interrupted("the evaluation was stopped".to_owned()));
        }
        let answer = answer(searcher, query, options, deepest, &names)?;
        let mut retrieved = answer.candidates;
        retrieved.sort_by_key(|c| c.retrieved_rank);
        let own = options.judging.drop_self.then_some(query.id.as_str());
        runs[0].insert(&query.id, ranking(&names, &retrieved, options.depth, own))?;
        times[0].push(answer.retrieve_ms);
        let scored = retrieved.len().min(deepest.unwrap_or(0)).max(1);
        for (i, &depth) in options.rerank_depths.iter().enumerate() {
            let mut reranked = retrieved.clone();
            // Deeper candidates are as if the reranker had not seen them.
            reranked.iter_mut().skip(depth).for_each(|c| c.rerank = None);
            order_by_logit(&mut reranked[..depth.min(retrieved.len())]);
            runs[i + 1].insert(&query.id, ranking(&names, &reranked, options.depth, own))?;
            let share = depth.min(retrieved.len()) as f64 / scored as f64;
            times[i + 1].push(answer.retrieve_ms + answer.rerank_ms * share);
        }
    }
    let mut systems = Vec::new();
    let labels = std::iter::once("retrieval".to_owned())
        .chain(options.rerank_depths.iter().map(|d| format!("reranked, top {d}")));
    let estimated = |i: usize| i > 0 && options.rerank_depths.get(i - 1) != deepest.as_ref();
    for (i, ((name, run), times)) in labels.zip(runs).zip(times).enumerate() {
        let evaluation = measures::evaluate(&run, judgments, &options.measures, &options.judging)?;
        systems.push(SystemEval {
            name,
            evaluation,
            run,
            latency: latency(times),
            latency_estimated: estimated(i),
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
    let here: HashSet<&str> =
        (0..searcher.index.n_rows() as u32).map(|row| names.get(row).1).collect();
    let relevant: HashSet<&str> = judgments
        .iter()
        .flat_map(|q| q.iter())
        .filter(|&(_, level)| level >= options.judging.relevance_level)
        .map(|(document, _)| document)
        .collect();
    Ok(EvalReport {
        systems,
        relevant_documents: relevant.len(),
        absent_documents: relevant.iter().filter(|d| !here.contains(*d)).count(),
        unjudged_queries: queries.len() - judged.len(),
        missing_queries: judgments.len() - judged.len(),
    })
}

/// The rows of one query in the reranker's order, and how long they took.
struct Answered {
    candidates: Vec<Candidate>,
    retrieve_ms: f64,
    rerank_ms: f64,
}

/// Enough rows for `options.depth` documents, reranked to `deepest`.
fn answer(
    searcher: &Searcher,
    query: &Query,
    options: &EvalOptions,
    deepest: Option<usize>,
    names: &RowNames,
) -> Result<Answered> {
    let input = QueryInput { text: &query.text, vector: query.vector.as_deref() };
    // One more than needed where the query's own document is taken out.
    let wanted = options.depth.saturating_add(usize::from(options.judging.drop_self));
    let mut k = wanted.max(deepest.unwrap_or(0));
    loop {
        let search = SearchOptions { k, rerank_depth: None, ..options.search.clone() };
        let mut timings = Timings::default();
        let found = searcher.retrieve(&[input], &search, &mut timings)?.pop().unwrap_or_default();
        let documents: HashSet<&str> =
            found.candidates.iter().map(|c| names.get(c.row).1).collect();
        if documents.len() < wanted && found.candidates.len() == k {
            // Several rows of one document took the places: look deeper.
            k = k.saturating_mul(2);
            continue;
        }
        let mut candidates = found.candidates;
        let mut rerank_ms = 0.0;
        if let Some(depth) = deepest {
            searcher.rerank_candidates(input, &mut candidates, depth, &mut rerank_ms)?;
        }
        return Ok(Answered { candidates, retrieve_ms: timings.total, rerank_ms });
    }
}

/// Documents by their first row, without `own`, the query's own document.
fn ranking(
    names: &RowNames,
    candidates: &[Candidate],
    depth: usize,
    own: Option<&str>,
) -> run::Ranking {
    let scores: Vec<(f32, Option<f32>)> =
        candidates.iter().map(|c| (c.score, c.rerank.as_ref().map(|r| r.logit))).collect();
    let rows = candidates.iter().zip(run_scores(&scores)).filter_map(|(c, score)| {
        let document = names.get(c.row).1;
        (Some(document) != own).then_some((document, score))
    });
    let mut ranking = rank_documents(rows);
    ranking.truncate(depth);
    ranking
}

/// The scores of hits in a TREC run, from their retrieval scores and the reranker's logits: what the
/// hits are ordered by. Where only the first are reranked, or the order is none of scores (MMR), the
/// places stand in, from the number of hits down to 1.
pub fn run_scores(hits: &[(f32, Option<f32>)]) -> Vec<f64> {
    let reranked = hits.iter().filter(|h| h.1.is_some()).count();
    let scores: Vec<f64> = hits.iter().map(|h| f64::from(h.1.unwrap_or(h.0))).collect();
    let comparable = reranked == 0 || reranked == hits.len();
    if comparable && scores.is_sorted_by(|a, b| a >= b) {
        return scores;
    }
    (0..hits.len()).map(|i| (hits.len() - i) as f64).collect()
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
