//! Reader of the tables that qrels and runs come in: TREC's, with white space between columns, and
//! tab-separated ones, such as BEIR's.

use crate::error::Result;
use warpseek_ingest::lines::Lines;

/// The longest line of a table, in bytes without its end. Two ids, a number and a tag are far
/// shorter; a longer line means that the file is something else.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// A layout of the columns of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TableLayout {
    /// True if tabs separate the columns, false if white space does.
    pub(super) by_tab: bool,
    pub(super) columns: &'static [&'static str],
    /// The columns of the query, the document and the value.
    pub(super) fields: [usize; 3],
    /// Names of the last column by which a first line is recognised as a header.
    pub(super) headers: &'static [&'static str],
    /// True if the table must have a header.
    pub(super) needs_header: bool,
}

/// The fields of a row.
pub(super) struct TableRow<'a> {
    pub(super) layout: &'static TableLayout,
    pub(super) query: &'a str,
    pub(super) document: &'a str,
    pub(super) value: &'a str,
}

/// A defect of a row, and the index of its field in [`TableLayout::fields`] if it is of one field.
pub(super) type RowError = (Option<usize>, String);

/// The index of the value in [`TableLayout::fields`].
pub(super) const VALUE: Option<usize> = Some(2);

/// Passes all rows of a table to `take`, and returns its layout. The first line decides which of
/// `layouts` it has. `what` names the content in messages.
///
/// # Errors
///
/// [`Input`](crate::error::Error::Input) with file and line for none of the layouts, a wrong
/// number of columns, an empty id, an error of `take`, or a table without a row;
/// [`Io`](crate::error::Error::Io).
pub(super) fn read_rows(
    mut lines: Lines<'_>,
    layouts: &'static [TableLayout],
    what: &str,
    mut take: impl FnMut(TableRow<'_>) -> Result<(), RowError>,
) -> Result<&'static TableLayout> {
    let mut known: Option<&TableLayout> = None;
    let mut n_rows = 0;
    while let Some(line) = lines.next()? {
        let is_first = known.is_none();
        let found = known.or_else(|| layouts.iter().find(|layout| layout.fits(line)));
        let Some(layout) = found else {
            let reason = unknown_layout(line, layouts, what);
            return Err(lines.error(reason));
        };
        known = found;
        if is_first && layout.is_header(line) {
            continue;
        }
        n_rows += 1;
        // The fields borrow the line, and an error needs the reader: outcome first, error then.
        match layout.row(line).and_then(&mut take) {
            Ok(()) => {}
            Err((None, reason)) => return Err(lines.error(reason)),
            Err((Some(field), reason)) => {
                return Err(lines.field_error(layout.columns[layout.fields[field]], reason));
            }
        }
    }
    match known {
        Some(layout) if n_rows > 0 => Ok(layout),
        _ => Err(lines.file_error(format!("the file holds no {what}"))),
    }
}

impl TableLayout {
    /// The columns of a line, without white space around them.
    fn split<'a>(&self, line: &'a str) -> Vec<&'a str> {
        match self.by_tab {
            true => line.split('\t').map(str::trim).collect(),
            false => line.split_ascii_whitespace().collect(),
        }
    }

    /// True if a first line has this layout.
    fn fits(&self, line: &str) -> bool {
        let is_right = self.split(line).len() == self.columns.len();
        is_right && (!self.needs_header || self.is_header(line))
    }

    fn is_header(&self, line: &str) -> bool {
        let columns = self.split(line);
        let last = columns.last().copied().unwrap_or_default();
        self.headers.iter().any(|name| last.eq_ignore_ascii_case(name))
    }

    fn row<'a>(&'static self, line: &'a str) -> Result<TableRow<'a>, RowError> {
        let columns = self.split(line);
        if columns.len() != self.columns.len() {
            let (expected, found) = (self.describe(), columns.len());
            return Err((None, format!("expected {expected} as on the first line, found {found}")));
        }
        let [query, document, value] = self.fields.map(|field| columns[field]);
        if let Some(field) = [query, document].iter().position(|id| id.is_empty()) {
            return Err((Some(field), "the id is empty".to_owned()));
        }
        Ok(TableRow { layout: self, query, document, value })
    }

    fn describe(&self) -> String {
        let by = if self.by_tab { " tab-separated" } else { "" };
        format!("{}{by} columns ({})", self.columns.len(), self.columns.join(", "))
    }
}

fn unknown_layout(line: &str, layouts: &[TableLayout], what: &str) -> String {
    let expected: Vec<String> = layouts.iter().map(TableLayout::describe).collect();
    format!(
        "not a file of {what}s: expected {}, found {} by tab and {} by white space",
        expected.join(" or "),
        line.split('\t').count(),
        line.split_ascii_whitespace().count()
    )
}
