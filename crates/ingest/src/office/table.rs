//! Rows of a table to lines.

/// The lines of a table: `header: value; header: value` for each row below the first, if that
/// names the columns; else the cells of each row, separated by `; `.
pub(super) fn lines(rows: &[Vec<String>]) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| flat(cell)).collect::<Vec<_>>())
        .filter(|row| row.iter().any(|cell| !cell.is_empty()))
        .collect();
    match &rows[..] {
        [header, body @ ..] if is_header(header) && !body.is_empty() => {
            body.iter().map(|row| line(Some(header), row)).collect()
        }
        rows => rows.iter().map(|row| line(None, row)).collect(),
    }
}

/// True for two or more texts that are not numbers: the names of columns.
pub(super) fn is_header(cells: &[String]) -> bool {
    let mut filled = cells.iter().filter(|cell| !cell.is_empty()).peekable();
    filled.peek().is_some()
        && filled.clone().count() >= 2
        && filled.all(|cell| cell.chars().any(char::is_alphabetic) && cell.len() <= 200)
}

/// One row, without its empty cells.
pub(super) fn line(header: Option<&[String]>, row: &[String]) -> String {
    let cells = row.iter().enumerate().filter(|(_, cell)| !cell.is_empty());
    let cells = cells.map(|(column, cell)| {
        let name = header.and_then(|names| names.get(column)).filter(|name| !name.is_empty());
        name.map_or_else(|| cell.clone(), |name| format!("{}: {cell}", name.trim_end_matches(':')))
    });
    cells.collect::<Vec<_>>().join("; ")
}

/// Text on one line.
pub(super) fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
