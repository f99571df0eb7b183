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
    report.warnings.iter().for_each(|warning| term::warn(warning));
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
    let sha256 = |name: &str| context.engine.reranker_sha256(name);
    let mut value = report.to_json(options, per_query, &sha256);
    value["rows"] = json!(searcher.index.live().count());
    context.report(&value, || print_evaluation(report, &options.measures, per_query, &sha256))
}
