//! Files of queries, or of other texts that are not stored: records with id and text, or lines.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use warpseek_error::{Error, Place, Result};

use crate::csv::CsvReader;
use crate::document::Document;
use crate::format::FileFormat;
use crate::header::{HEAD, cells, has_known_name};
use crate::inputs::{Content, InputFile, Location};
use crate::jsonl::JsonlReader;
use crate::lines::Lines;
use crate::message::escaped;
use crate::notes::ReadNotes;
use crate::options::{HeaderRule, ReadOptions};
use crate::parquet::ParquetReader;
use crate::paths::{STREAM_SOURCE, text};
use crate::query_fields::is_known;
use crate::stream::InputStream;

/// The first bytes of a parquet file.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// The records of a file of queries, as documents.
///
/// The format is that of the file's name (`.jsonl`, `.csv`, `.tsv`, `.parquet`, each also with
/// `.gz`), unless the first line shows another: `{` begins jsonl, tabs separate the columns of tsv.
/// With other names and on standard input the first line decides alone: one with a single tab, or
/// with tabs and a known column name, is tsv; one whose cells between commas are known column names
/// only is csv; else every line is a text, and its number is the id.
///
/// The id is the field `_id`, `id`, `query_id`, `qid` or another known name, the text `text`,
/// `query`, `question` or another known name, in any case, with `-`, `_` or blanks; or as
/// [`FieldMap`](crate::FieldMap) names them. In a table a single column besides the id is the text,
/// whatever its name. The first line of csv and tsv is a header if it holds a known name and no
/// integer, or if fields are named; else it is a query, in columns as [`HeaderRule::Absent`] says.
/// Records without an id get numbers: of the line (jsonl), or of the record, from 1.
///
/// `title` becomes the title; `vector` and `filter` become metadata. Other fields are dropped. The
/// text is empty only in a record with a vector.
pub struct QueryFile {
    name: String,
    records: QueryRecords,
    note: Option<String>,
}

enum QueryRecords {
    Jsonl(Box<JsonlReader>),
    Table(Box<CsvReader>),
    Parquet(Box<ParquetReader>),
    Lines(Box<Lines<'static>>),
}

/// A format of query files that are text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextFormat {
    Jsonl,
    Csv,
    Tsv,
    Lines,
}

impl QueryFile {
    /// Opens a file, or `-` for standard input, and reads its first line.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for a file that is missing or cannot be read, [`Error::Input`] for a damaged
    /// one and for columns without a text, [`Error::Usage`] for named fields in a file of lines.
    pub fn open(path: &Path, options: &ReadOptions) -> Result<Self> {
        options.check()?;
        let counter = Arc::default();
        if path.as_os_str() == "-" {
            let input = query_input("<stdin>", "stdin".into(), None, Location::Stdin);
            let stream = InputStream::open(&input, Arc::clone(&counter))?;
            return Self::from_stream(stream, input, counter, options);
        }
        let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
        let location = match metadata.is_file() {
            true => Location::Regular { path: path.to_path_buf(), length: metadata.len() },
            false => Location::Pipe(path.to_path_buf()),
        };
        let (name, format) = (escaped(&text(path)), FileFormat::of_path(path));
        let input = query_input(&name, text(path), format, location);
        let stream = InputStream::open(&input, Arc::clone(&counter))?;
        Self::from_stream(stream, input, counter, options)
    }

    /// Reads from a stream of bytes as [`QueryFile::open`] reads standard input. Messages call it
    /// `name`.
    ///
    /// # Errors
    ///
    /// As [`QueryFile::open`].
    pub fn from_reader(
        bytes: impl Read + Send + 'static,
        name: &str,
        options: &ReadOptions,
    ) -> Result<Self> {
        options.check()?;
        let input = query_input(name, name.to_owned(), None, Location::Stdin);
        let counter = Arc::default();
        let stream = InputStream::from_reader(Box::new(bytes), &input, Arc::clone(&counter))?;
        Self::from_stream(stream, input, counter, options)
    }

    /// The file's name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The decision about format, header and fields, for the user to know; `None` for jsonl.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The number of blank lines passed over so far.
    pub fn blank_lines(&self) -> u64 {
        match &self.records {
            QueryRecords::Jsonl(records) => records.blank,
            QueryRecords::Table(records) => records.blank_lines(),
            QueryRecords::Parquet(_) => 0,
            QueryRecords::Lines(lines) => lines.blank(),
        }
    }

    fn from_stream(
        stream: InputStream,
        mut input: InputFile,
        counter: Arc<AtomicU64>,
        options: &ReadOptions,
    ) -> Result<Self> {
        // Every field that is read must be as it should: there is nothing to note.
        let notes = ReadNotes::default();
        let (is_parquet, stream) = stream.starts_with(PARQUET_MAGIC)?;
        if is_parquet || input.format == FileFormat::Parquet {
            let records = ParquetReader::open(stream, &input, counter, options, &notes)?;
            let note = records.note();
            let records = QueryRecords::Parquet(Box::new(records));
            return Ok(Self { name: input.name, records, note });
        }
        let (line, stream) = stream.utf8(&notes)?.peek_line(HEAD)?;
        let format = TextFormat::of(&line, input.format, options);
        let (records, note) = match format {
            TextFormat::Jsonl => {
                input.format = FileFormat::Jsonl;
                (
                    QueryRecords::Jsonl(Box::new(JsonlReader::open(
                        stream, &input, options, &notes,
                    )?)),
                    None,
                )
            }
            TextFormat::Csv | TextFormat::Tsv => {
                let is_csv = format == TextFormat::Csv;
                input.format = if is_csv { FileFormat::Csv } else { FileFormat::Tsv };
                let records = CsvReader::open(stream, &input, options, &notes)?;
                let note = records.note().map(str::to_owned);
                (QueryRecords::Table(Box::new(records)), note)
            }
            TextFormat::Lines if options.fields.has_names() && !line.trim_ascii().is_empty() => {
                return Err(Error::usage(format!(
                    "{}: lines of text have no fields to name: the fields of jsonl, csv, tsv and \
                     parquet have names",
                    input.name
                )));
            }
            TextFormat::Lines => {
                let max_line = usize::try_from(options.max_record_bytes).unwrap_or(usize::MAX);
                let max_line = max_line.min(usize::MAX / 2);
                let lines = Lines::new(stream, &input.name, max_line)?;
                (QueryRecords::Lines(Box::new(lines)), Some(lines_note(&line)))
            }
        };
        Ok(Self { name: input.name, records, note })
    }
}

impl Iterator for QueryFile {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.records {
            QueryRecords::Jsonl(records) => records.next(),
            QueryRecords::Table(records) => records.next(),
            QueryRecords::Parquet(records) => records.next(),
            QueryRecords::Lines(lines) => {
                // The line borrows the reader, which also has the number: copy the line first.
                let text = match lines.next() {
                    Ok(line) => line?.to_owned(),
                    Err(error) => return Some(Err(error)),
                };
                Some(Ok(line_document(text, &self.name, lines.number())))
            }
        }
    }
}

impl TextFormat {
    /// The format of a file by its first line, and by its name if that says `named`.
    fn of(line: &[u8], named: FileFormat, options: &ReadOptions) -> Self {
        if named == FileFormat::Jsonl || is_json(line) {
            return Self::Jsonl;
        }
        let tabs = line.iter().filter(|byte| **byte == b'\t').count();
        let (by_tab, by_comma) = (cells(line, b'\t'), cells(line, b','));
        let fields = &options.fields;
        let is_named = |cells: &[String]| {
            let given = [&fields.id, &fields.text];
            given.into_iter().flatten().any(|name| cells.contains(name))
        };
        let is_header = |cells: &[String]| has_known_name(cells) || is_named(cells);
        let is_csv_header = by_comma.len() > 1
            && (by_comma.iter().all(|cell| is_known(cell)) || is_named(&by_comma));
        match named {
            _ if line.trim_ascii().is_empty() => Self::Lines,
            FileFormat::Csv if tabs > 0 && !is_header(&by_comma) => Self::Tsv,
            FileFormat::Csv => Self::Csv,
            _ if tabs == 0 && is_csv_header => Self::Csv,
            FileFormat::Tsv => Self::Tsv,
            _ if tabs == 1 || (tabs > 1 && is_header(&by_tab)) => Self::Tsv,
            _ if tabs > 1 && options.header == HeaderRule::Absent => Self::Tsv,
            _ if tabs == 0 && is_named(&by_comma) => Self::Csv,
            _ => Self::Lines,
        }
    }
}

/// True for the first line of jsonl, and of a JSON array, about which its reader has advice.
fn is_json(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    line.starts_with(b"{") || line.starts_with(b"[{") || line == b"["
}

/// An input of queries; files of other formats, and those without one, are looked into.
fn query_input(
    name: &str,
    label: String,
    format: Option<FileFormat>,
    location: Location,
) -> InputFile {
    let format = format.unwrap_or(FileFormat::Text);
    // Queries are not stored, so that their source does not count.
    let (name, source, content) = (name.to_owned(), STREAM_SOURCE.into(), Content::Queries);
    let (path, text_partitions, is_found) = (String::new(), Arc::default(), false);
    InputFile { name, label, source, format, location, content, is_found, path, text_partitions }
}

fn lines_note(first: &[u8]) -> String {
    let first = String::from_utf8_lossy(first);
    let first = first.trim();
    match is_known(first) {
        true => format!(
            "lines of text, the first, '{first}', too; with a header the file's name ends in .csv \
             or .tsv"
        ),
        false => "lines of text, their numbers are the ids".to_owned(),
    }
}

fn line_document(text: String, file: &str, number: u64) -> Document {
    Document::new(number.to_string(), text, Place::record(file, format!("line {number}")))
}
