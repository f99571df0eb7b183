//! Documents and queries that an index, its judged queries and an external ranking share.
//!
//! A measure is a mean over queries and documents that belong together. If none of them do, the
//! evaluation is refused; if some do not, the report tells their number.

use super::qrels::Qrels;
use super::run::Run;
use super::{EvalOptions, JudgedQueries};
use crate::error::{Error, Place, Result};
use crate::queries::Query;
use crate::store::{Index, RowNames};
use serde::Serialize;
use std::collections::HashSet;

/// Numbers of documents and queries that an evaluation could use, and could not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Distinct documents with a judgment.
    pub judged_documents: usize,
    /// The number of them that the index holds.
    pub judged_documents_in_index: usize,
    /// Distinct documents judged relevant to any query.
    pub relevant_documents: usize,
    /// The number of them that the index does not hold.
    pub absent_documents: usize,
    /// Judged queries that the file of queries lacks; they count 0.
    pub missing_queries: usize,
    /// Queries of the file without judgments, which were left out.
    pub unjudged_queries: usize,
    /// Counts of an external ranking, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidates: Option<CandidateCoverage>,
    /// Judged queries of the file whose id is also that of a document of the index.
    #[serde(skip)]
    pub queries_in_index: usize,
}

/// Numbers of documents and queries of an external ranking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct CandidateCoverage {
    /// Distinct documents that it ranks for judged queries.
    pub documents: usize,
    /// The number of them that the index holds; the others were left out.
    pub documents_in_index: usize,
    /// Judged queries that it does not rank; they count 0.
    pub missing_queries: usize,
    /// Queries that it ranks and that were left out, because they have no text or no judgments.
    pub unused_queries: usize,
}

impl Coverage {
    /// Counts. `queries` are the judged ones of the file.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] naming the file if the index holds none of the judged documents, or the
    /// external ranking has none of the queries, or the index none of its documents.
    pub(super) fn check(
        index: &Index,
        names: &RowNames,
        judged: &JudgedQueries,
        queries: &[&Query],
        options: &EvalOptions,
    ) -> Result<Self> {
        let JudgedQueries { queries: all, qrels, qrels_file } = judged;
        let rows = (0..index.n_rows() as u32).filter(|&row| index.live().contains(row as usize));
        let present: HashSet<&str> = rows.map(|row| names.get(row).1).collect();
        let documents = judged_documents(qrels, i32::MIN);
        let in_index = documents.intersection(&present).count();
        if in_index == 0 {
            return Err(Error::input(
                Place::file(qrels_file),
                format!(
                    "0 of {} judged documents are in the index {} (the first judged one is '{}'): \
                     index their collection, with the ids that the judgments name",
                    documents.len(),
                    index.dir().display(),
                    first_document(qrels)
                ),
            ));
        }
        let relevant = judged_documents(qrels, options.judging.relevance_level);
        let candidates = options.candidates.as_ref();
        Ok(Self {
            judged_documents: documents.len(),
            judged_documents_in_index: in_index,
            relevant_documents: relevant.len(),
            absent_documents: relevant.difference(&present).count(),
            missing_queries: qrels.len() - queries.len(),
            unjudged_queries: all.len() - queries.len(),
            candidates: candidates.map(|run| of_candidates(run, queries, &present)).transpose()?,
            queries_in_index: queries.iter().filter(|q| present.contains(q.id.as_str())).count(),
        })
    }

    /// Messages about all that was left out or counts 0. `qrels_file` is the name of the qrels.
    pub fn warnings(&self, qrels_file: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.missing_queries > 0 {
            let n = self.missing_queries;
            warnings.push(format!("{n} judged queries are not in the query file and count 0"));
        }
        if self.judged_documents_in_index < self.judged_documents {
            warnings.push(format!(
                "{qrels_file}: {} of {} judged documents are in the index",
                self.judged_documents_in_index, self.judged_documents
            ));
        }
        if self.absent_documents > 0 {
            warnings.push(format!(
                "{qrels_file}: {} of {} documents judged relevant are not in the index: check that \
                 the two belong together",
                self.absent_documents, self.relevant_documents
            ));
        }
        let Some(candidates) = self.candidates else { return warnings };
        if candidates.missing_queries > 0 {
            let n = candidates.missing_queries;
            warnings.push(format!("{n} judged queries are not in the given ranking and count 0"));
        }
        if candidates.unused_queries > 0 {
            let n = candidates.unused_queries;
            warnings.push(format!(
                "{n} queries of the given ranking are not among the judged queries and were left \
                 out"
            ));
        }
        if candidates.documents_in_index < candidates.documents {
            let (present, all) = (candidates.documents_in_index, candidates.documents);
            warnings.push(format!(
                "{} documents of the given ranking are not in the index and were left out: \
                 {present} of {all} are in the index",
                all - present
            ));
        }
        warnings
    }
}

/// Distinct documents of at least this level.
fn judged_documents(qrels: &Qrels, least: i32) -> HashSet<&str> {
    let judgments = qrels.iter().flat_map(|(_, levels)| levels);
    let found = judgments.filter(|&(_, &level)| level >= least);
    found.map(|(document, _)| document.as_str()).collect()
}

fn first_document(qrels: &Qrels) -> &str {
    let mut all = qrels.iter().flat_map(|(_, levels)| levels.keys());
    all.next().map_or("", String::as_str)
}

/// Counts of an external ranking; refuses one that has nothing in common with the queries, or with
/// the documents `present` in the index.
fn of_candidates(
    run: &Run,
    queries: &[&Query],
    present: &HashSet<&str>,
) -> Result<CandidateCoverage> {
    let rankings: Vec<_> = queries.iter().filter_map(|query| run.get(&query.id)).collect();
    let fail = |reason| Err(Error::input(Place::file(run.name()), reason));
    if rankings.is_empty() {
        return fail(format!(
            "none of its {} queries is one of the {} judged queries: check that the two belong \
             together",
            run.len(),
            queries.len()
        ));
    }
    let ranked = rankings.iter().flat_map(|ranking| ranking.iter());
    let documents: HashSet<&str> = ranked.map(|(document, _)| document.as_str()).collect();
    let documents_in_index = documents.intersection(present).count();
    if documents_in_index == 0 {
        return fail(format!(
            "0 of {} ranked documents are in the index: index their collection, with the ids that \
             the ranking names",
            documents.len()
        ));
    }
    Ok(CandidateCoverage {
        documents: documents.len(),
        documents_in_index,
        missing_queries: queries.len() - rankings.len(),
        unused_queries: run.len() - rankings.len(),
    })
}
