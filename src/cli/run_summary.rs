//! Summary of a run that reads documents: of `index` and `sync`.

use super::term::{self, HumanCount};
use crate::indexing::IndexReport;
use crate::ingest::{SkipGroup, SkipTable};

/// The numbers of documents: `3 added, 1 updated`.
pub(super) fn counts(report: &IndexReport) -> String {
    let mut parts = vec![format!("{} added", HumanCount(report.added))];
    let others = [
        (report.updated, "updated"),
        (report.unchanged, "unchanged"),
        (report.pruned, "pruned"),
        (report.skipped, "skipped"),
        (report.duplicates, "left out for a later record of the same id"),
    ];
    let others = others.into_iter().filter(|(n, _)| *n > 0);
    parts.extend(others.map(|(n, what)| format!("{} {what}", HumanCount(n))));
    parts.join(", ")
}

/// Warns of rows that the model did not read to their ends.
pub(super) fn warn_of_truncation(report: &IndexReport) {
    if report.tokens_lost > 0 {
        term::warn(&format!(
            "{} rows are longer than the model's limit and lost {} tokens; --chunk splits records",
            HumanCount(report.rows_truncated),
            HumanCount(report.tokens_lost)
        ));
    }
}

/// Prints the table of what was left out: a line per reason, with the number and the first names.
pub(super) fn print_left_out(left_out: &SkipTable) {
    if left_out.is_empty() {
        return;
    }
    term::note("left out:");
    for SkipGroup { reason, count, first, detail } in left_out.groups() {
        let reason = if *count == 1 { detail } else { reason };
        let more = if *count > first.len() as u64 { ", ..." } else { "" };
        let names = match first.is_empty() {
            true => String::new(),
            false => format!(" ({}{more})", first.join(", ")),
        };
        let count = HumanCount(*count).to_string();
        term::note(&format!("{count:>7}  {reason}{names}"));
    }
}
