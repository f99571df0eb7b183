//! Evaluation on judged queries, as `eval` and `compare` run it: progress, warnings and output.

use super::context::{Context, Status};
use super::report::print_evaluation;
use super::{interrupt, term};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use warpseek::bert::reranker::Reranker;
use warpseek::error::Result;
use warpseek::eval::{
    EvalOptions, EvalReport, JudgedQueries, RerankedSystem, SystemEval, evaluate,
};
use warpseek::search::Searcher;

/// Every reranker at every depth. One that is blended with the retrieval score counts twice: with
/// its weight, and alone.
pub(super) fn systems<'a>(
    rerankers: &'a [(String, Arc<Reranker>)],
    depths: &[usize],
    weight: Option<f32>,
) -> Vec<RerankedSystem<'a>> {
    let mut all = Vec::new();
    for (name, reranker) in rerankers {
        // A folder is named by its last part.
        let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
        for &depth in depths {
            let weight = weight.unwrap_or(reranker.retriever_weight());
            let mut add = |name: String, retriever_weight| {
                all.push(RerankedSystem { name, reranker, depth, retriever_weight });
            };
            if weight > 0.0 {
                add(format!("{name} alone, top {depth}"), 0.0);
            }
            add(format!("{name}, top {depth}"), weight);
        }
    }
    all
}

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
    let system = |system| system_json(system, options, per_query);
    let value = json!({
        "systems": report.systems.iter().map(system).collect::<Vec<_>>(),
        "judged_queries": report.systems.first().map(|s| s.evaluation.judged),
        "missing_queries": report.missing_queries,
        "unjudged_queries": report.unjudged_queries,
        "reranker": searcher.reranker.as_ref().map(|r| &r.0),
        "rows": searcher.index.live().count(),
    });
    context.report(&value, || print_evaluation(report, &options.measures, per_query))
}

fn system_json(system: &SystemEval, options: &EvalOptions, per_query: bool) -> Value {
    let scores = |values: &[f64]| -> Value {
        let pairs = options.measures.iter().zip(values);
        pairs.map(|(m, v)| (m.to_string(), json!(v))).collect::<Map<_, _>>().into()
    };
    let evaluation = &system.evaluation;
    let mut value = json!({
        "name": system.name,
        "mean": scores(&evaluation.mean),
        "judged": evaluation.judged,
        "answered": evaluation.answered,
        "without_relevant": evaluation.without_relevant,
        "latency_ms": system.latency,
        "latency_estimated": system.latency_estimated,
    });
    if let Some(test) = &system.against_first {
        value["against_first"] = json!({
            "difference": test.difference,
            "interval_95": [test.interval.0, test.interval.1],
            "wins": test.wins,
            "ties": test.ties,
            "losses": test.losses,
            "p_randomisation": test.randomisation.p_value,
            "p_t_test": test.t_test.as_ref().map(|t| t.p_value),
        });
    }
    if per_query {
        let all = evaluation.per_query.iter();
        value["per_query"] = all.map(|q| (q.query.clone(), scores(&q.values))).collect();
    }
    value
}
