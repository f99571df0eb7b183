//! Evaluation: how well an index answers judged queries, with and without reranking.

pub mod judgments;
pub mod measures;
pub mod run;
pub mod significance;
pub mod trec;

use crate::error::{Error, Result};
use crate::queries::Query;
use crate::rerank::Reranker;
use crate::search::{Candidate, QueryInput, SearchOptions, Searcher, Timings, order_reranked};
use crate::store::RowNames;
use judgments::Judgments;
use measures::{EvaluateOptions, Evaluation, Measure};
use run::{Run, rank_documents};
use serde::Serialize;
use significance::{PairedComparison, SignificanceOptions, compare_paired};
use std::collections::{HashMap, HashSet};
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
    /// A ranking made elsewhere, in whose place of the retrieval's the systems start from; by `doc_id`.
    pub candidates: Option<Run>,
}

/// A way of reranking to evaluate beside the bare retrieval.
#[derive(Debug, Clone)]
pub struct RerankedSystem<'a> {
    /// What it is called in the report.
    pub name: String,
    /// The cross-encoder.
    pub reranker: &'a Reranker,
    /// How many candidates it sees; deeper ones keep their place behind.
    pub depth: usize,
    /// See [`SearchOptions::retriever_weight`].
    pub retriever_weight: f32,
}

/// One system's answers and scores.
#[derive(Debug, Clone)]
pub struct SystemEval {
    /// `retrieval`, `given ranking`, or what [`RerankedSystem::name`] says.
    pub name: String,
    /// Scores a query and their means.
    pub evaluation: Evaluation,
    /// The ranked documents.
    pub run: Run,
    /// How long a query took. A reranker is run once, at its deepest; a shallower depth's share of that
    /// time is estimated by the number of passages.
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
    /// The bare retrieval first, then the reranked systems.
    pub systems: Vec<SystemEval>,
    /// Queries of the file that have no judgments and were left out.
    pub unjudged_queries: usize,
    /// Judged queries that the file lacks; they count 0.
    pub missing_queries: usize,
    /// Different documents judged relevant to any query.
    pub relevant_documents: usize,
    /// Of them, documents that the index does not hold.
    pub absent_documents: usize,
    /// Documents of the given ranking that the index does not hold; they were left out.
    pub absent_candidates: usize,
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
    reranked: &[RerankedSystem<'_>],
    (queries, judgments): (&[Query], &Judgments),
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
    if let Some(system) = reranked.iter().find(|s| !(0.0..=1.0).contains(&s.retriever_weight)) {
        return Err(Error::usage(format!(
            "the weight of the retrieval score is {}; it must lie in 0..1",
            system.retriever_weight
        )));
    }
    let names = searcher.index.row_names()?;
    let mut start = Start::new(searcher, options, &names, reranked)?;
    let mut runs = vec![Run::new(); 1 + reranked.len()];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); runs.len()];
    if let Some(query) = judged.first() {
        // The first query pays for reading the index into memory; its time is not the others'.
        start.candidates(query)?;
        start.absent = 0;
    }
    for (done, query) in judged.iter().enumerate() {
        if !progress(done, judged.len()) {
            return Err(Error::Interrupted("the evaluation was stopped".to_owned()));
        }
        let (retrieved, retrieve_ms) = start.candidates(query)?;
        let own = options.judging.drop_self.then_some(query.id.as_str());
        runs[0].insert(&query.id, ranking(&names, &retrieved, options.depth, own))?;
        times[0].push(retrieve_ms);
        let mut scored: Vec<Scored<'_>> = Vec::new();
        for (i, system) in reranked.iter().enumerate() {
            let known = scored.iter().position(|s| std::ptr::eq(s.reranker, system.reranker));
            let at = match known {
                Some(at) => at,
                None => {
                    let deepest = deepest(reranked, system.reranker);
                    scored.push(Scored::new(
                        searcher,
                        system.reranker,
                        query,
                        &retrieved,
                        deepest,
                    )?);
                    scored.len() - 1
                }
            };
            let mut candidates = scored[at].candidates.clone();
            // Deeper candidates are as if the reranker had not seen them.
            candidates.iter_mut().skip(system.depth).for_each(|c| c.rerank = None);
            order_reranked(&mut candidates, system.retriever_weight);
            runs[i + 1].insert(&query.id, ranking(&names, &candidates, options.depth, own))?;
            let seen = |depth: usize| depth.min(retrieved.len()).max(1) as f64;
            let share = seen(system.depth) / seen(deepest(reranked, system.reranker));
            times[i + 1].push(retrieve_ms + scored[at].ms * share);
        }
    }
    let first = if options.candidates.is_some() { "given ranking" } else { "retrieval" };
    let labels = std::iter::once(first).chain(reranked.iter().map(|s| s.name.as_str()));
    let mut systems = Vec::new();
    for (i, ((name, run), times)) in labels.zip(runs).zip(times).enumerate() {
        let evaluation = measures::evaluate(&run, judgments, &options.measures, &options.judging)?;
        let system = i.checked_sub(1).map(|i| &reranked[i]);
        systems.push(SystemEval {
            name: name.to_owned(),
            evaluation,
            run,
            latency: latency(times),
            latency_estimated: system.is_some_and(|s| s.depth != deepest(reranked, s.reranker)),
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
        absent_candidates: start.absent,
    })
}

/// The greatest depth at which any system uses `reranker`.
fn deepest(systems: &[RerankedSystem<'_>], reranker: &Reranker) -> usize {
    let same = systems.iter().filter(|s| std::ptr::eq(s.reranker, reranker));
    same.map(|s| s.depth).max().unwrap_or(0)
}

/// One query's candidates with what one reranker said of them.
struct Scored<'a> {
    reranker: &'a Reranker,
    candidates: Vec<Candidate>,
    ms: f64,
}

impl<'a> Scored<'a> {
    fn new(
        searcher: &Searcher,
        reranker: &'a Reranker,
        query: &Query,
        retrieved: &[Candidate],
        depth: usize,
    ) -> Result<Self> {
        let mut candidates = retrieved.to_vec();
        let mut ms = 0.0;
        searcher.score_candidates(reranker, input(query), &mut candidates, depth, &mut ms)?;
        Ok(Self { reranker, candidates, ms })
    }
}

/// Where the candidates of a query come from.
struct Start<'a> {
    searcher: &'a Searcher,
    options: &'a EvalOptions,
    names: &'a RowNames,
    /// Candidates that the deepest system needs.
    depth: usize,
    /// The rows of each document, where a ranking is given.
    rows: HashMap<&'a str, Vec<u32>>,
    /// Documents of the given ranking that the index does not hold.
    absent: usize,
}

impl<'a> Start<'a> {
    fn new(
        searcher: &'a Searcher,
        options: &'a EvalOptions,
        names: &'a RowNames,
        reranked: &[RerankedSystem<'_>],
    ) -> Result<Self> {
        let mut rows: HashMap<&str, Vec<u32>> = HashMap::new();
        if options.candidates.is_some() {
            for row in (0..searcher.index.n_rows() as u32)
                .filter(|&r| searcher.index.live().contains(r as usize))
            {
                rows.entry(names.get(row).1).or_default().push(row);
            }
        }
        let depth = reranked.iter().map(|s| s.depth).max().unwrap_or(0);
        Ok(Self { searcher, options, names, depth, rows, absent: 0 })
    }

    /// Enough rows for the documents that are asked for, and the milliseconds they took.
    fn candidates(&mut self, query: &Query) -> Result<(Vec<Candidate>, f64)> {
        // One more than needed where the query's own document is taken out.
        let own = usize::from(self.options.judging.drop_self);
        let wanted = self.options.depth.saturating_add(own);
        if let Some(given) = &self.options.candidates {
            let started = Instant::now();
            let documents = given.get(&query.id).unwrap_or_default();
            let mut rows = Vec::new();
            for (document, _) in documents.iter().take(wanted.max(self.depth)) {
                match self.rows.get(document.as_str()) {
                    Some(found) => rows.extend(found),
                    None => self.absent += 1,
                }
            }
            let candidates = self.searcher.candidates(input(query), &rows)?;
            return Ok((candidates, started.elapsed().as_secs_f64() * 1e3));
        }
        let mut k = wanted.max(self.depth);
        loop {
            let search = SearchOptions { k, rerank_depth: None, ..self.options.search.clone() };
            let mut timings = Timings::default();
            let found = self
                .searcher
                .retrieve(&[input(query)], &search, &mut timings)?
                .pop()
                .unwrap_or_default();
            let documents: HashSet<&str> =
                found.candidates.iter().map(|c| self.names.get(c.row).1).collect();
            if documents.len() >= wanted || found.candidates.len() < k {
                return Ok((found.candidates, timings.total));
            }
            // Several rows of one document took the places: look deeper.
            k = k.saturating_mul(2);
        }
    }
}

fn input(query: &Query) -> QueryInput<'_> {
    QueryInput { text: &query.text, vector: query.vector.as_deref(), filter: None }
}

/// Documents by their first row, without `own`, the query's own document.
fn ranking(
    names: &RowNames,
    candidates: &[Candidate],
    depth: usize,
    own: Option<&str>,
) -> run::Ranking {
    let scores: Vec<Option<f32>> = candidates.iter().map(|c| c.final_score).collect();
    let rows = candidates.iter().zip(run_scores(&scores)).filter_map(|(c, score)| {
        let document = names.get(c.row).1;
        (Some(document) != own).then_some((document, score))
    });
    let mut ranking = rank_documents(rows);
    ranking.truncate(depth);
    ranking
}

/// The scores of hits in a TREC run: their final scores. Where some have none (only the first are
/// reranked), or the order is none of scores (MMR, a given ranking), the places stand in, from the
/// number of hits down to 1.
pub fn run_scores(final_scores: &[Option<f32>]) -> Vec<f64> {
    let scores: Vec<f64> = final_scores.iter().flatten().map(|&s| f64::from(s)).collect();
    let n = final_scores.len();
    if scores.len() == n && scores.is_sorted_by(|a, b| a >= b) {
        return scores;
    }
    (0..n).map(|i| (n - i) as f64).collect()
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
