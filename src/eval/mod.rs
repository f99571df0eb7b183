//! Evaluation of an index on judged queries, with and without reranking.

mod coverage;
pub mod measures;
pub mod qrels;
mod report;
pub mod run;
pub mod significance;
mod table;
pub mod trec;

pub use coverage::{CandidateCoverage, Coverage};

use crate::error::{Error, Place, Result};
use crate::queries::{Query, QueryReader};
use crate::search::{Candidate, QueryInput, SearchOptions, Searcher, Timings, order_reranked};
use crate::store::RowNames;
use measures::{EvaluateOptions, Evaluation, Measure};
use qrels::Qrels;
use run::{Ranking, Run, rank_documents};
use serde::Serialize;
use significance::{PairedComparison, SignificanceOptions, compare_paired};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Instant;
use warpseek_bert::reranker::Reranker;

/// Queries with their relevance judgments.
#[derive(Debug, Clone)]
pub struct JudgedQueries {
    /// All queries of the file, judged or not.
    pub queries: Vec<Query>,
    /// Their judgments.
    pub qrels: Qrels,
    /// The name of the qrels file, for messages.
    pub qrels_file: String,
}

impl JudgedQueries {
    /// Reads the queries of an opened file, and a qrels file.
    ///
    /// # Errors
    ///
    /// As [`QueryReader`] and [`Qrels::read`]; [`Error::Input`] if there is no query, or none has
    /// judgments.
    pub fn read(mut queries: QueryReader, qrels: &Path) -> Result<Self> {
        let (judged, qrels_file) = (Qrels::read(qrels)?, qrels.display().to_string());
        let all = queries.by_ref().collect::<Result<Vec<_>>>()?;
        let reason = if all.is_empty() {
            "the file holds no queries".to_owned()
        } else if all.iter().all(|q| judged.get(&q.id).is_none()) {
            format!(
                "none of its {} queries has judgments in {qrels_file}: do the two files belong \
                 together?",
                all.len()
            )
        } else {
            return Ok(Self { queries: all, qrels: judged, qrels_file });
        };
        Err(Error::input(Place::file(queries.name()), reason))
    }
}

/// Options of an evaluation.
#[derive(Debug, Clone)]
pub struct EvalOptions {
    /// The measures; the first one is tested for significance.
    pub measures: Vec<Measure>,
    /// Definition of relevance, and documents to leave out.
    pub judging: EvaluateOptions,
    /// Documents per query in the run.
    pub depth: usize,
    /// Filter, hybrid search and MMR of the retrieval. `k` and the rerank depth are set per system.
    pub search: SearchOptions,
    /// An external ranking by `doc_id` that replaces the retrieval.
    pub candidates: Option<Run>,
}

impl Default for EvalOptions {
    /// nDCG, MRR and recall at 10 over the retrieval's first 100 documents.
    fn default() -> Self {
        Self {
            measures: vec![Measure::Ndcg(10), Measure::ReciprocalRank(10), Measure::Recall(10)],
            judging: EvaluateOptions::default(),
            depth: 100,
            search: SearchOptions::default(),
            candidates: None,
        }
    }
}

/// A reranked system to evaluate besides the retrieval.
#[derive(Debug, Clone)]
pub struct RerankedSystem<'a> {
    /// Its name in the report.
    pub name: String,
    /// The name of the cross-encoder.
    pub model: String,
    /// The cross-encoder.
    pub reranker: &'a Reranker,
    /// The number of candidates that it reranks; the others keep their order below them.
    pub depth: usize,
    /// See [`SearchOptions::retriever_weight`].
    pub retriever_weight: Option<f32>,
}

/// Rankings and scores of one system.
#[derive(Debug, Clone)]
pub struct SystemEval {
    /// `retrieval`, `given ranking`, or [`RerankedSystem::name`].
    pub name: String,
    /// Scores per query and their means.
    pub evaluation: Evaluation,
    /// The ranked documents.
    pub run: Run,
    /// The time per query. A reranker runs once, at its greatest depth; the share of a smaller
    /// depth in that time is estimated from the number of passages.
    pub latency: Latency,
    /// True if `latency` is an estimate.
    pub latency_estimated: bool,
    /// The reranker, none for the first system.
    pub reranker: Option<SystemReranker>,
    /// The paired test against the first system, for the first measure.
    pub against_first: Option<PairedComparison>,
}

/// The reranker of a system.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SystemReranker {
    /// The name of the cross-encoder.
    pub name: String,
    /// The number of candidates that it reranked.
    pub depth: usize,
    /// The weight of the retrieval score; none with the reranker's calibration.
    pub retriever_weight: Option<f32>,
}

/// Milliseconds per query, embedding included, for queries one after another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
}

/// The result of an evaluation.
#[derive(Debug, Clone)]
pub struct EvalReport {
    /// The retrieval first, then the reranked systems.
    pub systems: Vec<SystemEval>,
    /// Numbers of documents and queries that could be used, and could not.
    pub coverage: Coverage,
    /// Messages about those that could not.
    pub warnings: Vec<String>,
}

/// Searches for all judged queries and scores the rankings. `progress` gets the number of finished
/// queries and the number of all; it returns false to stop.
///
/// # Errors
///
/// [`Error::Usage`] if no query is judged or an option is invalid; [`Error::Input`] if the index
/// holds none of the judged documents, or the external ranking has no document of the index or no
/// judged query; [`Error::Interrupted`] if `progress` stops the evaluation; and the errors of
/// [`Searcher::retrieve`].
pub fn evaluate(
    searcher: &Searcher,
    reranked: &[RerankedSystem<'_>],
    judged: &JudgedQueries,
    options: &EvalOptions,
    progress: &mut dyn FnMut(usize, usize) -> bool,
) -> Result<EvalReport> {
    let JudgedQueries { queries: all, qrels, qrels_file } = judged;
    let queries: Vec<&Query> = all.iter().filter(|q| qrels.get(&q.id).is_some()).collect();
    let Some(first) = queries.first() else {
        return Err(Error::usage(format!(
            "none of the {} queries has judgments: check that the two files belong together",
            all.len()
        )));
    };
    measures::check(qrels, &options.measures, &options.judging)?;
    let mut weights = reranked.iter().filter_map(|system| system.retriever_weight);
    if let Some(weight) = weights.find(|weight| !(0.0..=1.0).contains(weight)) {
        return Err(Error::usage(format!(
            "the weight of the retrieval score is {weight}; it must lie in 0..1"
        )));
    }
    let names = searcher.index.row_names()?;
    let coverage = Coverage::check(&searcher.index, &names, judged, &queries, options)?;
    let source = CandidateSource::new(searcher, options, &names, reranked);
    let mut runs = vec![Run::new(); 1 + reranked.len()];
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); runs.len()];
    // The first query reads the index into memory. It is run twice, so that its time is typical.
    source.candidates(first)?;
    for (done, query) in queries.iter().enumerate() {
        if !progress(done, queries.len()) {
            return Err(Error::Interrupted("the evaluation was stopped".to_owned()));
        }
        let (retrieved, retrieve_ms) = source.candidates(query)?;
        runs[0].insert(&query.id, source.ranking(&retrieved, query))?;
        times[0].push(retrieve_ms);
        let mut scored: Vec<ScoredCandidates<'_>> = Vec::new();
        for (i, system) in reranked.iter().enumerate() {
            let deepest = deepest(reranked, system.reranker);
            let known = scored.iter().position(|s| std::ptr::eq(s.reranker, system.reranker));
            let at = known.unwrap_or(scored.len());
            if known.is_none() {
                let (reranker, unscored) = (system.reranker, retrieved.clone());
                let (candidates, ms) =
                    searcher.score_candidates(reranker, input(query), unscored, deepest)?;
                scored.push(ScoredCandidates { reranker, candidates, ms });
            }
            let mut candidates = scored[at].candidates.clone();
            // The reranker's scores of deeper candidates do not count.
            candidates.iter_mut().skip(system.depth).for_each(|c| c.rerank = None);
            order_reranked(&mut candidates, system.order(searcher));
            runs[i + 1].insert(&query.id, source.ranking(&candidates, query))?;
            let passages = |depth: usize| depth.min(retrieved.len()).max(1) as f64;
            let share = passages(system.depth) / passages(deepest);
            times[i + 1].push(retrieve_ms + scored[at].ms * share);
        }
    }
    let first = if options.candidates.is_some() { "given ranking" } else { "retrieval" };
    let labels = std::iter::once(first).chain(reranked.iter().map(|s| s.name.as_str()));
    let mut systems: Vec<SystemEval> = Vec::new();
    for (i, ((name, run), times)) in labels.zip(runs).zip(times).enumerate() {
        let evaluation = measures::evaluate(&run, qrels, &options.measures, &options.judging)?;
        let system = i.checked_sub(1).map(|i| &reranked[i]);
        let first_measure = |evaluation: &Evaluation| -> Vec<f64> {
            evaluation.per_query.iter().map(|scores| scores.values[0]).collect()
        };
        let against_first = systems.first().map(|first| {
            let (baseline, own) = (first_measure(&first.evaluation), first_measure(&evaluation));
            compare_paired(&baseline, &own, &SignificanceOptions::default())
        });
        systems.push(SystemEval {
            name: name.to_owned(),
            evaluation,
            run,
            latency: latency(times),
            latency_estimated: system.is_some_and(|s| s.depth != deepest(reranked, s.reranker)),
            reranker: system.map(|system| SystemReranker {
                name: system.model.clone(),
                depth: system.depth,
                retriever_weight: system.order(searcher).weight(),
            }),
            against_first: against_first.transpose()?,
        });
    }
    Ok(EvalReport { systems, coverage, warnings: coverage.warnings(qrels_file) })
}

/// The greatest depth at which any system uses `reranker`.
fn deepest(systems: &[RerankedSystem<'_>], reranker: &Reranker) -> usize {
    let same = systems.iter().filter(|s| std::ptr::eq(s.reranker, reranker));
    same.map(|s| s.depth).max().unwrap_or(0)
}

/// One query's candidates with the scores of one reranker.
struct ScoredCandidates<'a> {
    reranker: &'a Reranker,
    candidates: Vec<Candidate>,
    ms: f64,
}

/// Source of the candidates of a query: the retrieval or an external ranking.
struct CandidateSource<'a> {
    searcher: &'a Searcher,
    options: &'a EvalOptions,
    names: &'a RowNames,
    /// The number of candidates that the deepest system needs.
    depth: usize,
    /// The rows of each document, if there is an external ranking.
    rows: HashMap<&'a str, Vec<u32>>,
}

impl<'a> CandidateSource<'a> {
    fn new(
        searcher: &'a Searcher,
        options: &'a EvalOptions,
        names: &'a RowNames,
        reranked: &[RerankedSystem<'_>],
    ) -> Self {
        let mut rows: HashMap<&str, Vec<u32>> = HashMap::new();
        if options.candidates.is_some() {
            let live = searcher.index.live();
            let all = 0..searcher.index.n_rows() as u32;
            for row in all.filter(|&row| live.contains(row as usize)) {
                rows.entry(names.get(row).1).or_default().push(row);
            }
        }
        let depth = reranked.iter().map(|s| s.depth).max().unwrap_or(0);
        Self { searcher, options, names, depth, rows }
    }

    /// Enough rows for the requested number of documents, and the milliseconds they took.
    fn candidates(&self, query: &Query) -> Result<(Vec<Candidate>, f64)> {
        // One more document, because the query's own document may be left out.
        let own = usize::from(self.options.judging.drop_self);
        let wanted = self.options.depth.saturating_add(own);
        let mut k = wanted.max(self.depth);
        if let Some(given) = &self.options.candidates {
            let started = Instant::now();
            let documents = given.get(&query.id).unwrap_or_default();
            let documents = documents.iter().take(k);
            let found = documents.filter_map(|(document, _)| self.rows.get(document.as_str()));
            let rows: Vec<u32> = found.flatten().copied().collect();
            let candidates = self.searcher.candidates(input(query), &rows)?;
            return Ok((candidates, started.elapsed().as_secs_f64() * 1e3));
        }
        loop {
            let search = SearchOptions { k, rerank_depth: None, ..self.options.search.clone() };
            let mut timings = Timings::default();
            let found = self.searcher.retrieve(&[input(query)], &search, &mut timings)?;
            let candidates = found.into_iter().next().unwrap_or_default().candidates;
            let documents: HashSet<&str> =
                candidates.iter().map(|c| self.names.get(c.row).1).collect();
            if documents.len() >= wanted || candidates.len() < k {
                return Ok((candidates, timings.total));
            }
            // Several rows belong to one document: retrieve more.
            k = k.saturating_mul(2);
        }
    }

    /// Documents by their first row, without the query's own document if it is to be left out.
    fn ranking(&self, candidates: &[Candidate], query: &Query) -> Ranking {
        let own = self.options.judging.drop_self.then_some(query.id.as_str());
        let scores: Vec<Option<f32>> = candidates.iter().map(|c| c.final_score).collect();
        let rows = candidates.iter().zip(run_scores(&scores)).filter_map(|(c, score)| {
            let document = self.names.get(c.row).1;
            (Some(document) != own).then_some((document, score))
        });
        let mut ranking = rank_documents(rows);
        ranking.truncate(self.options.depth);
        ranking
    }
}

fn input(query: &Query) -> QueryInput<'_> {
    QueryInput { text: &query.text, vector: query.vector.as_deref(), filter: None }
}

/// The scores of hits in a TREC run: their final scores. If some hits have none (only the first
/// are reranked), or the order is not by score (MMR, an external ranking), ranks replace them: from
/// the number of hits down to 1.
pub fn run_scores(final_scores: &[Option<f32>]) -> Vec<f64> {
    let scores: Vec<f64> = final_scores.iter().flatten().map(|&s| f64::from(s)).collect();
    let n = final_scores.len();
    if scores.len() == n && scores.is_sorted_by(|a, b| a >= b) {
        return scores;
    }
    (1..=n).rev().map(|rank| rank as f64).collect()
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
