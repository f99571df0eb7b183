//! The first line of csv and tsv files: the names of the columns, or a record.

use csv_core::ReadRecordResult;
use warpseek_error::{Error, Place, Result};

use crate::format::FileFormat;
use crate::inputs::{Content, InputFile};
use crate::message::shown;
use crate::options::{HeaderRule, ReadOptions};
use crate::query_fields::is_known;

/// Bytes at the front of a file that are searched for its first line.
pub(crate) const HEAD: u64 = 64 << 10;

/// The cells of a line, without white space around them; quotes as in RFC 4180.
pub(crate) fn cells(line: &[u8], delimiter: u8) -> Vec<String> {
    let mut parser = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
    let (mut bytes, mut ends) = (vec![0; line.len() + 1], vec![0; line.len() + 2]);
    let (mut read, mut written, mut count) = (0, 0, 0);
    loop {
        // Empty input tells the parser that the line ends here.
        let (result, r, w, e) =
            parser.read_record(&line[read..], &mut bytes[written..], &mut ends[count..]);
        (read, written, count) = (read + r, written + w, count + e);
        if !matches!(result, ReadRecordResult::InputEmpty) {
            break;
        }
    }
    let mut start = 0;
    let cell = |end: &usize| {
        let cell = String::from_utf8_lossy(&bytes[start..*end]).trim().to_owned();
        start = *end;
        cell
    };
    ends[..count].iter().map(cell).collect()
}

/// True if the first line of a file, with these cells, names the columns ([`HeaderRule::Auto`]).
pub(crate) fn is_header(cells: &[String], input: &InputFile, options: &ReadOptions) -> bool {
    if options.header == HeaderRule::Absent {
        return false;
    }
    if options.fields.has_names() {
        return true;
    }
    match input.content {
        Content::Documents => input.format != FileFormat::Tsv || !is_surely_a_record(cells),
        Content::Queries => has_known_name(cells),
    }
}

/// True for cells with a known name among them, and no integer, which is no name of a column.
pub(crate) fn has_known_name(cells: &[String]) -> bool {
    cells.iter().any(|cell| is_known(cell)) && !cells.iter().any(|cell| is_integer(cell))
}

/// True for an integer and a text of several words: neither is the name of a column.
fn is_surely_a_record(cells: &[String]) -> bool {
    let [id, text] = cells else { return false };
    is_integer(id) && text.contains(char::is_whitespace)
}

fn is_integer(cell: &str) -> bool {
    !cell.is_empty() && cell.bytes().all(|byte| byte.is_ascii_digit())
}

/// Names for the `n` columns of a file without a header, whose first line has these cells.
///
/// # Errors
///
/// [`Error::Input`] for queries in columns whose roles cannot be known.
pub(crate) fn made_up_names(
    cells: &[String],
    n: usize,
    input: &InputFile,
    options: &ReadOptions,
) -> Result<Vec<String>> {
    if !options.fields.has_names() {
        // Two columns of csv may be a sentence with a comma in it, which begins with a word.
        let is_id = |cell: &String| {
            !cell.contains(char::is_whitespace) && cell.contains(|c: char| c.is_ascii_digit())
        };
        let is_id_first = input.content == Content::Documents
            || input.format == FileFormat::Tsv
            || options.header == HeaderRule::Absent
            || cells.first().is_some_and(is_id);
        match n {
            1 => return Ok(vec!["text".into()]),
            2 if is_id_first => return Ok(vec!["id".into(), "text".into()]),
            _ if input.content == Content::Queries => {
                let first: Vec<String> =
                    cells.iter().take(3).map(|cell| format!("'{}'", shown(cell))).collect();
                return Err(Error::input(
                    Place::record(&input.name, "line 1"),
                    format!(
                        "none of its {n} columns ({}{}) has a known name (id, qid, query, text, \
                         ...): name the text's column with --query-field, with --no-header as \
                         column_1 to column_{n}; plain lines belong into a file .txt",
                        first.join(", "),
                        if n > 3 { ", ..." } else { "" },
                    ),
                ));
            }
            _ => {}
        }
    }
    Ok((1..=n).map(|number| format!("column_{number}")).collect())
}

#[cfg(test)]
mod tests {
    use super::cells;

    #[test]
    fn cells_of_a_line_end_with_it() {
        assert_eq!(cells(b" qid \t\"a\tb\"\r\n", b'\t'), ["qid", "a\tb"]);
        assert_eq!(cells(b"a,\"b\"\"c\",,\n", b','), ["a", "b\"c", "", ""]);
        assert_eq!(cells(b"a,\"open\n", b','), ["a", "open"]);
        assert_eq!(cells(b"one\rtwo", b','), ["one"]);
        assert_eq!(cells(b"", b','), Vec::<String>::new());
    }
}
