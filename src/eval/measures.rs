//! Measures of a ranking against qrels, defined as in trec_eval.

use super::qrels::{DocumentLevels, Qrels};
use super::run::Run;
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

/// One measure of one ranking, from 0 to 1, higher is better.
///
/// A document is relevant if its level is at least [`EvaluateOptions::relevance_level`]. A
/// document without a judgment, or with a negative level, is not relevant. A query without a
/// relevant document scores 0. A ranking shorter than `k` scores like one filled up with
/// irrelevant documents. `k` is at least 1.
///
/// Written as `ndcg@10`, `mrr@10`, `recall@100`, `p@5` and `map`. Parsed in any case, and also by
/// the names of ir_measures: `RR@10`, `R@100`, `AP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Normalised discounted cumulative gain of the first `k` (Järvelin and Kekäläinen, ACM TOIS
    /// 20(4), 2002, in trec_eval's form `ndcg_cut`): the sum of `level / log2(rank + 1)`, divided
    /// by the same sum over the ideal ranking of all judged documents of the query, cut at `k`.
    /// Negative levels count 0; the relevance level has no effect.
    Ndcg(usize),
    /// The inverse rank of the first relevant document, 0 if it is not among the first `k`: equal
    /// to trec_eval's `recip_rank` of a run cut at `k`. ir_measures' `RR@k` orders documents of
    /// equal score in another way, so that the two differ on ties.
    ReciprocalRank(usize),
    /// The share of the query's relevant documents that are among the first `k` (`recall`).
    Recall(usize),
    /// The number of relevant documents among the first `k`, divided by `k` (`P`).
    Precision(usize),
    /// Average precision over the whole ranking: precision at the rank of each relevant document
    /// found, summed, divided by the number of relevant documents of the query (`map`).
    AveragePrecision,
}

/// Definition of relevance, and documents to leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvaluateOptions {
    /// The lowest level that is relevant for the binary measures (all but nDCG); at least 1.
    pub relevance_level: i32,
    /// True to remove a document from the ranking if its id is the query's id, as BEIR does for
    /// collections whose queries are documents themselves. The qrels stay as they are.
    pub drop_self: bool,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { relevance_level: 1, drop_self: false }
    }
}

/// The measures of a run, for each query and on average.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// Every judged query, in the order of the qrels.
    pub per_query: Vec<QueryScores>,
    /// The mean of each measure over all judged queries.
    pub mean: Vec<f64>,
    /// The number of judged queries, over which the means are taken.
    pub judged: usize,
    /// The number of judged queries for which the run has at least one document.
    pub answered: usize,
    /// The number of judged queries without a relevant document; each counts 0 in the means of
    /// the binary measures.
    pub without_relevant: usize,
    /// The number of queries of the run that are not judged; they are left out.
    pub unjudged: usize,
}

/// The measures of one query.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryScores {
    /// The query's id.
    pub query: String,
    /// One value per measure, in the requested order.
    pub values: Vec<f64>,
}

/// Measures a run against qrels.
///
/// As in `trec_eval -c`, the means are over every judged query: a query without an answer in the
/// run counts 0, and so does one without a relevant document. Queries of the run that are not
/// judged are left out and counted. Of a document that occurs twice in a ranking only the first
/// rank counts; the documents below the second one move up.
///
/// # Errors
///
/// [`Error::Usage`] if there are no qrels, no measure is requested, a cut-off is 0, or the
/// relevance level is below 1.
pub fn evaluate(
    run: &Run,
    qrels: &Qrels,
    measures: &[Measure],
    options: &EvaluateOptions,
) -> Result<Evaluation> {
    check(qrels, measures, options)?;
    let mut evaluation = Evaluation {
        per_query: Vec::with_capacity(qrels.len()),
        mean: vec![0.0; measures.len()],
        judged: qrels.len(),
        answered: 0,
        without_relevant: 0,
        unjudged: run.iter().filter(|(query, _)| qrels.get(query).is_none()).count(),
    };
    for (query, judged) in qrels.iter() {
        let ranking = run.get(query).unwrap_or_default();
        let own = options.drop_self.then_some(query);
        let judged = JudgedRanking::new(ranking, judged, own, options.relevance_level);
        let values: Vec<f64> = measures.iter().map(|&measure| judged.measure(measure)).collect();
        for (sum, value) in evaluation.mean.iter_mut().zip(&values) {
            *sum += value;
        }
        evaluation.answered += usize::from(!ranking.is_empty());
        evaluation.without_relevant += usize::from(judged.relevant == 0);
        evaluation.per_query.push(QueryScores { query: query.to_owned(), values });
    }
    for sum in &mut evaluation.mean {
        *sum /= qrels.len() as f64;
    }
    Ok(evaluation)
}

/// The levels of a ranking's documents.
struct JudgedRanking {
    /// The level of each ranked document, 0 if it has none or a negative one.
    levels: Vec<i32>,
    /// The levels above 0 of all judged documents, highest first.
    ideal: Vec<i32>,
    /// The number of judged documents that are relevant.
    relevant: usize,
    relevance_level: i32,
}

impl JudgedRanking {
    /// Looks up the levels of a ranking without the document `own`.
    fn new(
        ranking: &[(String, f64)],
        judged: &DocumentLevels,
        own: Option<&str>,
        relevance_level: i32,
    ) -> Self {
        let mut seen = HashSet::with_capacity(ranking.len());
        let levels = ranking
            .iter()
            .map(|(document, _)| document.as_str())
            .filter(|document| Some(*document) != own && seen.insert(*document))
            .map(|document| judged.get(document).map_or(0, |&level| level.max(0)))
            .collect();
        let mut ideal: Vec<i32> = judged.values().copied().filter(|&level| level > 0).collect();
        ideal.sort_unstable_by(|left, right| right.cmp(left));
        let relevant = ideal.iter().filter(|&&level| level >= relevance_level).count();
        Self { levels, ideal, relevant, relevance_level }
    }

    fn measure(&self, measure: Measure) -> f64 {
        match measure {
            Measure::Ndcg(k) => ratio(gain(&self.levels, k), gain(&self.ideal, k)),
            Measure::ReciprocalRank(k) => {
                self.relevant_ranks(k).next().map_or(0.0, |rank| 1.0 / rank as f64)
            }
            Measure::Recall(k) => self.found(k) / self.relevant.max(1) as f64,
            Measure::Precision(k) => ratio(self.found(k), k as f64),
            Measure::AveragePrecision => {
                let precisions = (1usize..).zip(self.relevant_ranks(usize::MAX));
                let sum: f64 = precisions.map(|(found, rank)| found as f64 / rank as f64).sum();
                sum / self.relevant.max(1) as f64
            }
        }
    }

    fn found(&self, k: usize) -> f64 {
        self.relevant_ranks(k).count() as f64
    }

    /// The ranks, from 1, of the relevant documents among the first `k`.
    fn relevant_ranks(&self, k: usize) -> impl Iterator<Item = usize> {
        let ranked = (1usize..).zip(self.levels.iter().take(k));
        ranked.filter(|&(_, &level)| level >= self.relevance_level).map(|(rank, _)| rank)
    }
}

/// Discounted cumulative gain of the first `k` levels.
fn gain(levels: &[i32], k: usize) -> f64 {
    let ranked = (1usize..).zip(levels.iter().take(k));
    ranked.map(|(rank, &level)| f64::from(level) / ((rank + 1) as f64).log2()).sum()
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

pub(super) fn check(qrels: &Qrels, measures: &[Measure], options: &EvaluateOptions) -> Result<()> {
    if qrels.is_empty() {
        return Err(Error::usage("there are no qrels to measure against"));
    }
    if measures.is_empty() {
        return Err(Error::usage(format!("no measure is given: choose from {KNOWN}")));
    }
    if measures.iter().any(|measure| measure.cutoff() == Some(0)) {
        return Err(Error::usage("a measure's cut-off must be at least 1"));
    }
    if options.relevance_level < 1 {
        return Err(Error::usage(format!(
            "relevance level {} must be at least 1: level 0 means not relevant",
            options.relevance_level
        )));
    }
    Ok(())
}

/// The known measures, for messages.
const KNOWN: &str = "ndcg@K, mrr@K, recall@K, p@K (K from 1) and map";

impl Measure {
    /// The number of documents that the measure reads; `None` for the whole ranking.
    pub fn cutoff(self) -> Option<usize> {
        match self {
            Self::Ndcg(k) | Self::ReciprocalRank(k) | Self::Recall(k) | Self::Precision(k) => {
                Some(k)
            }
            Self::AveragePrecision => None,
        }
    }
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ndcg(k) => write!(f, "ndcg@{k}"),
            Self::ReciprocalRank(k) => write!(f, "mrr@{k}"),
            Self::Recall(k) => write!(f, "recall@{k}"),
            Self::Precision(k) => write!(f, "p@{k}"),
            Self::AveragePrecision => f.write_str("map"),
        }
    }
}

impl FromStr for Measure {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::Usage`] with the list of measures, for any other name, a cut-off that is missing, 0
    /// or not a number, or a cut-off after `map`.
    fn from_str(name: &str) -> Result<Self> {
        let lower = name.trim().to_ascii_lowercase();
        let unknown = || Error::usage(format!("unknown measure '{name}': choose from {KNOWN}"));
        let Some((kind, k)) = lower.split_once('@') else {
            return match lower.as_str() {
                "map" | "ap" => Ok(Self::AveragePrecision),
                _ => Err(unknown()),
            };
        };
        let k = k.parse().ok().filter(|&k| k > 0).ok_or_else(unknown)?;
        match kind {
            "ndcg" => Ok(Self::Ndcg(k)),
            "mrr" | "rr" => Ok(Self::ReciprocalRank(k)),
            "recall" | "r" => Ok(Self::Recall(k)),
            "p" => Ok(Self::Precision(k)),
            _ => Err(unknown()),
        }
    }
}
