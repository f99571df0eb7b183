//! Evaluation on judged queries, as `eval` and `compare` run it: progress, warnings and output.

use super::context::{Context, Status};
use super::report::print_evaluation;
use super::{interrupt, term};
use crate::error::Result;
use crate::eval::{EvalOptions, EvalReport, JudgedQueries, RerankedSystem, evaluate};
use crate::search::Searcher;
use serde_json::json;

/// Evaluates the systems with a progress bar, and warns about missing queries and documents.
pub(super) fn measure(
    searcher: &Searcher,
    reranked: &[RerankedSystem<'_>],
    judged: &JudgedQueries,
    options: &EvalOptions,
    context: &Context,
) -> Result<EvalReport> {
    interrupt::install();
    let bar = context.bar(Some(0), "[{bar:40}] {pos}/{len} queries  ETA {eta}");
    let report = evaluate(searcher, reranked, judged, options, &mut |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
        !interrupt::requested()
    });
    bar.finish_and_clear();
    let report = report?;
    if report.missing_queries > 0 {
        let n = report.missing_queries;
        term::warn(&format!("{n} judged queries are not in the query file and count 0"));
    }
    if report.absent_documents > 0 {
        term::warn(&format!(
            "{}: {} of {} documents judged relevant are not in the index: do the two belong \
             together?",
            judged.qrels_file, report.absent_documents, report.relevant_documents
        ));
    }
    if report.unjudged_queries > 0 {
        context.note(&format!("{} queries without judgments left out", report.unjudged_queries));
    }
    if report.absent_candidates > 0 {
        term::warn(&format!(
            "{} documents of the given ranking are not in the index and were left out",
            report.absent_candidates
        ));
    }
    Ok(report)
}

/// Prints an evaluation as text, or with `--json` as one document.
pub(super) fn print(
    report: &EvalReport,
    options: &EvalOptions,
    per_query: bool,
    searcher: &Searcher,
    context: &Context,
) -> Result<Status> {
    let mut value = report.to_json(options, per_query);
    value["reranker"] = json!(searcher.reranker.as_ref().map(|r| &r.0));
    value["rows"] = json!(searcher.index.live().count());
    context.report(&value, || print_evaluation(report, &options.measures, per_query))
}
