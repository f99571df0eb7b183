//! Text output that several commands share: hits, comparisons and evaluations.

use super::hits::{excerpt, title};
use super::term::{self, bold, decimal, dim, plain, say, signed};
use crate::compare::Comparison;
use crate::error::Result;
use crate::eval::measures::Measure;
use crate::eval::{EvalReport, SystemEval};
use crate::search::{Hit, Timings};

/// Prints the title and scores of a passage that an answer may cite by `number`.
pub(super) fn print_passage(number: usize, hit: &Hit) -> Result<()> {
    let title: Vec<&str> = title(hit).split_whitespace().collect();
    say!("[{number}] {}", plain(&title.join(" ")))?;
    let (id, score) = (plain(&hit.id), decimal(hit.final_score.unwrap_or(hit.score), 4));
    say!("    {}", dim(&format!("score {score}  {id}")))
}

/// The time of a search, and of its steps.
pub(super) fn milliseconds(t: &Timings) -> String {
    let mut steps = vec![format!("embed {:.1}", t.embed)];
    let others = [(t.filter, "filter"), (t.scan, "scan"), (t.fuse, "fuse"), (t.rerank, "rerank")];
    for (ms, name) in others.into_iter().filter(|(ms, _)| *ms >= 0.05) {
        steps.push(format!("{name} {ms:.1}"));
    }
    format!("{:.1} ms ({})", t.total, steps.join(", "))
}

/// Prints two rankings of a query and how they differ.
pub(super) fn print_comparison(comparison: &Comparison) -> Result<()> {
    let word = comparison.second.word();
    say!("{}\n", bold(&format!("Query: {}", plain(&comparison.query))))?;
    say!("{}", bold(&format!("Top {} as retrieved", comparison.before.len())))?;
    for hit in &comparison.before {
        print_ranked(hit, comparison, "")?;
    }
    let by = comparison.reranker.as_ref().map_or(String::new(), |n| format!(" by {}", plain(n)));
    let score = comparison.ordered_by.word();
    say!("\n{}", bold(&format!("Top {} {word}{by}: {score}", comparison.after.len())))?;
    for (hit, moved) in comparison.after.iter().zip(&comparison.rank_map) {
        let before = match moved.retrieved_rank {
            Some(rank) => format!("was retrieved #{rank}"),
            None => "was not among the retrieved".to_owned(),
        };
        print_ranked(hit, comparison, &format!("  {word} #{} {before}", hit.rank))?;
    }
    let churn = &comparison.churn;
    say!(
        "\n{} of the top {} stay; {}; rows move {:.1} ranks on average, Kendall's tau {}",
        churn.kept,
        comparison.after.len(),
        if churn.first_changed { "another row is first" } else { "the first row stays first" },
        churn.mean_move,
        decimal(churn.kendall_tau, 2)
    )?;
    say!("{}", milliseconds(&comparison.took_ms))
}

/// Prints a hit of a comparison with the score that orders its ranking; `change` is empty in the
/// ranking before.
fn print_ranked(hit: &Hit, comparison: &Comparison, change: &str) -> Result<()> {
    let score = hit.final_score.map_or_else(|| "-".to_owned(), |score| decimal(score, 4));
    say!("{:>3}  {score:>6}  {}", hit.rank, bold(plain(title(hit)).trim()))?;
    say!("     {}", dim(&format!("{}{change}", plain(&hit.id))))?;
    say!("{}", term::wrap(&excerpt(&hit.text, hit.window, &comparison.query), "     "))
}

/// Prints the measures of all systems, their latencies, the tests against the first system, and
/// with `per_query` the scores of every query.
pub(super) fn print_evaluation(
    report: &EvalReport,
    measures: &[Measure],
    per_query: bool,
    sha256: &dyn Fn(&str) -> Option<String>,
) -> Result<()> {
    let columns =
        |values: &[f64]| -> String { values.iter().map(|v| format!("{v:>11.4}")).collect() };
    let width = report.systems.iter().map(|s| s.name.len()).max().unwrap_or(0).max(10);
    let head: String = measures.iter().map(|m| format!("{:>11}", m.to_string())).collect();
    say!("{}", bold(&format!("{:width$} {head}     p50 ms   p95 ms", "")))?;
    for system in &report.systems {
        let SystemEval { name, latency, evaluation, .. } = system;
        let estimated = if system.latency_estimated { "  (estimated)" } else { "" };
        say!(
            "{name:width$} {}  {:>9.1}{:>9.1}{estimated}",
            columns(&evaluation.mean),
            latency.p50,
            latency.p95
        )?;
    }
    if let Some(first) = report.systems.first() {
        say!(
            "{} judged queries, {} answered, {} without a relevant document",
            first.evaluation.judged,
            first.evaluation.answered,
            first.evaluation.without_relevant
        )?;
    }
    let coverage = &report.coverage;
    if coverage.unjudged_queries > 0 {
        say!("{} queries without judgments left out", coverage.unjudged_queries)?;
    }
    say!(
        "{} of {} judged documents are in the index",
        coverage.judged_documents_in_index,
        coverage.judged_documents
    )?;
    for name in report.rerankers() {
        let sha256 = sha256(name).map_or_else(String::new, |sha256| format!(" (sha256 {sha256})"));
        say!("reranker: {}{sha256}", plain(name))?;
    }
    for system in &report.systems {
        if let Some((test, measure)) = system.against_first.as_ref().zip(measures.first()) {
            say!(
                "{}: {measure} {} [95% interval {} .. {}], better on {}, worse on {}, \
                 equal on {}; paired randomisation p = {:.4}",
                system.name,
                signed(test.difference, 4),
                signed(test.interval.0, 4),
                signed(test.interval.1, 4),
                test.wins,
                test.losses,
                test.ties,
                test.randomisation.p_value
            )?;
        }
    }
    for system in report.systems.iter().filter(|_| per_query) {
        say!("\n{}", bold(&format!("{}, query by query", system.name)))?;
        for query in &system.evaluation.per_query {
            say!("{}  {}", columns(&query.values), plain(&query.query))?;
        }
    }
    Ok(())
}
