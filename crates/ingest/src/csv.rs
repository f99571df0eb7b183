//! Comma- and tab-separated values, with a header line or without (header.rs).
//!
//! The delimiter of a csv file may be `;`, a tab or `|` too (delimiter.rs).
//!
//! Quotes work as in RFC 4180, also across lines. In tab-separated files they are ordinary
//! characters, as the format's registration has it, unless the header line itself has quotes.
//!
//! A cell is a string. In the metadata an empty cell becomes null, and one that is written exactly
//! as JSON writes that number (`17`, `-2.5`, not `007` or `1e3`) becomes a number, so that a filter
//! can compare it.
//!
//! The parser is `csv-core`, which the `csv` crate is built on. The `csv` crate's reader keeps a
//! record of any length in memory, and it cannot go on after an error of the reader below it.

use std::collections::HashSet;
use std::io::{self, BufRead};

use csv_core::ReadRecordResult;
use serde_json::{Map, Value};
use warpseek_error::{Error, Place, Result};

use crate::delimiter;
use crate::document::Document;
use crate::format::FileFormat;
use crate::header;
use crate::inputs::{Content, InputFile};
use crate::json::typed;
use crate::message::{shown, size, utf8_error};
use crate::notes::ReadNotes;
use crate::options::{HeaderRule, ReadOptions, SKIPPED_RECORDS};
use crate::roles::{RoleRules, Roles};
use crate::stream::InputStream;

/// Limit on the columns; a file with more is taken for damaged.
const MAX_COLUMNS: usize = 10_000;

/// The records of one file.
pub(crate) struct CsvReader {
    cells: CellReader,
    format: FileFormat,
    label: String,
    columns: Vec<String>,
    fields: Roles,
    record: u64,
    is_headed: bool,
    /// The number of cells of a first record that was read in search of a header.
    first: Option<usize>,
    note: Option<String>,
}

impl CsvReader {
    /// Reads the header, or the first record of a file without one.
    pub(crate) fn open(
        stream: InputStream,
        input: &InputFile,
        options: &ReadOptions,
        notes: &ReadNotes,
    ) -> Result<Self> {
        let is_data = input.content == Content::Documents;
        let stream = if is_data { stream.text(None, notes)? } else { stream.utf8(notes)? };
        let (delimiter, stream) = match (options.delimiter, input.format) {
            (Some(delimiter), _) => (delimiter, stream),
            (None, FileFormat::Tsv) => (b'\t', stream),
            (None, _) if is_data => {
                let (sample, stream) = stream.peek_lines(delimiter::SAMPLE_LINES, header::HEAD)?;
                (delimiter::detect(&sample), stream)
            }
            _ => (b',', stream),
        };
        if options.delimiter.is_none() && input.format == FileFormat::Csv && delimiter != b',' {
            let name = delimiter::name(delimiter);
            notes.decide(format!("{}: its columns are separated by {name}", input.name));
        }
        let (line, stream) = stream.peek_line(header::HEAD)?;
        let head = header::cells(&line, delimiter);
        let is_headed = header::is_header(&head, input, options);
        let quoting = delimiter != b'\t' || (is_headed && line.contains(&b'"'));
        let mut cells = CellReader::new(stream, delimiter, quoting, options.max_record_bytes);
        let place = Place::file(&input.name);
        let count = cells.next()?.ok_or_else(|| Error::input(place, "no records in this file"))?;
        if count > MAX_COLUMNS {
            return Err(cells.error(format!("the header has more than {MAX_COLUMNS} columns")));
        }
        let columns = match is_headed {
            true => read_header(&cells, count, delimiter)?,
            false => header::made_up_names(&head, count, input, options)?,
        };
        let sample = columns.iter().map(|name| (name.clone(), Value::Null)).collect();
        let fields = RoleRules::new(input, options, notes).of_columns(&sample)?;
        let first_line = if is_headed { "a header" } else { "data, not a header" };
        let note = match fields.describe() {
            Some(roles) => {
                Some(format!("{}, its first line is {first_line}: {roles}", input.format))
            }
            None if is_headed || options.header == HeaderRule::Absent => None,
            None => Some(format!(
                "the first line is {first_line}: its columns are {}",
                columns.join(" and ")
            )),
        };
        Ok(Self {
            cells,
            format: input.format,
            label: input.label.clone(),
            columns,
            fields,
            record: 0,
            is_headed,
            first: (!is_headed).then_some(count),
            note,
        })
    }

    /// The decision about the header, and in queries about the columns, for the user to know.
    pub(crate) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The number of blank lines passed over so far.
    pub(crate) fn blank_lines(&self) -> u64 {
        self.cells.blank
    }

    fn document(&mut self, count: usize) -> Result<Document> {
        let expected = self.columns.len();
        if count != expected {
            if self.format == FileFormat::Tsv && !self.is_headed && (count, expected) == (1, 2) {
                return Err(self.cells.error("no tab: lines are `id <tab> text` in this file"));
            }
            let count = match count > expected {
                true => format!("more than {expected}"),
                false => count.to_string(),
            };
            let first = if self.is_headed { "header" } else { "first record" };
            return Err(self.cells.error(format!(
                "the record has {count} fields, the {first} has {expected}: is a quote or a \
                 separator missing?"
            )));
        }
        let mut record = Map::with_capacity(expected);
        for (number, column) in self.columns.iter().enumerate() {
            let cell = self.cells.cell(number, column)?;
            record.insert(column.clone(), Value::String(cell.to_string()));
        }
        let place = self.cells.place();
        let mut document = self.fields.document(record, place, &self.label, self.record)?;
        document.is_untyped = true;
        let has_partitions = self.fields.has_partitions();
        for (name, value) in &mut document.metadata {
            // The values of partition columns have their type already.
            let is_cell = !has_partitions || self.columns.contains(name);
            if let Value::String(cell) = value
                && is_cell
            {
                *value = typed(std::mem::take(cell));
            }
        }
        Ok(document)
    }
}

impl Iterator for CsvReader {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let count = match self.first.take() {
            Some(count) => Ok(count),
            None => self.cells.next().transpose()?,
        };
        self.record += 1;
        Some(count.and_then(|count| self.document(count)))
    }
}

/// Splits bytes into records and cells, with a limit on the length of a record.
struct CellReader {
    stream: InputStream,
    parser: csv_core::Reader,
    max_record_bytes: u64,
    /// The cells of the current record one behind the other, and the end of each.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Line breaks read so far.
    breaks: u64,
    /// The line on which the current record starts, from 1.
    line: u64,
    /// Blank lines between records so far.
    blank: u64,
    /// True if the byte read last is a carriage return, which a line feed may follow.
    after_cr: bool,
    /// True inside a record that was too long.
    in_record: bool,
    done: bool,
}

impl CellReader {
    fn new(stream: InputStream, delimiter: u8, quoting: bool, max_record_bytes: u64) -> Self {
        Self {
            stream,
            parser: csv_core::ReaderBuilder::new().delimiter(delimiter).quoting(quoting).build(),
            max_record_bytes,
            bytes: vec![0; 1024],
            ends: vec![0; MAX_COLUMNS + 1],
            breaks: 0,
            line: 1,
            blank: 0,
            after_cr: false,
            in_record: false,
            done: false,
        }
    }

    fn place(&self) -> Place {
        Place::record(&self.stream.origin.name, format!("line {}", self.line))
    }

    /// An error about the current record.
    fn error(&self, reason: impl Into<String>) -> Error {
        Error::input(self.place(), reason)
    }

    /// Reads a record and returns its number of cells, at most one above [`MAX_COLUMNS`]; `None` at
    /// the end.
    fn next(&mut self) -> Result<Option<usize>> {
        if self.in_record {
            self.skip_record()?;
        }
        if self.done {
            return Ok(None);
        }
        self.skip_blank_lines()?;
        let (mut length, mut count, mut read, mut quotes) = (0, 0, 0, 0);
        loop {
            let step = self.step(length, count)?;
            length += step.written;
            count += step.ended;
            read += step.read as u64;
            quotes += step.quotes;
            if read > self.max_record_bytes {
                self.in_record = step.result != ReadRecordResult::Record;
                let limit = size(self.max_record_bytes);
                return Err(self.error(format!(
                    "the record is longer than {limit}: is a closing quote missing? else raise \
                     --max-record-bytes"
                )));
            }
            match step.result {
                // At the end of the file an odd number of quotes means that one stayed open.
                ReadRecordResult::Record
                    if step.read == 0 && quotes % 2 == 1 && self.breaks >= self.line =>
                {
                    return Err(self.error(
                        "the file ends inside a quoted field: is a closing quote missing?",
                    ));
                }
                ReadRecordResult::Record => return Ok(Some(count)),
                ReadRecordResult::End => {
                    self.done = true;
                    return Ok(None);
                }
                ReadRecordResult::OutputFull => self.bytes.resize(self.bytes.len() * 2, 0),
                // The record has too many cells: stop counting.
                ReadRecordResult::OutputEndsFull => (length, count) = (0, MAX_COLUMNS),
                ReadRecordResult::InputEmpty => {}
            }
        }
    }

    /// Cell `number` of the current record.
    fn cell(&self, number: usize, column: &str) -> Result<&str> {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        let bytes = &self.bytes[start..self.ends[number]];
        let fail = |reason: String| Err(Error::input(self.place().field(shown(column)), reason));
        if bytes.contains(&0) {
            return fail("holds a NUL byte: is this a text file?".into());
        }
        std::str::from_utf8(bytes).or_else(|e| fail(utf8_error(e, "field")))
    }

    /// Goes to the start of a record.
    fn skip_blank_lines(&mut self) -> Result<()> {
        loop {
            let bytes = match self.stream.fill_buf() {
                Ok(bytes) => bytes,
                Err(e) => return Err(self.read_error(e)),
            };
            let blank = bytes.iter().take_while(|b| matches!(b, b'\n' | b'\r')).count();
            let is_last = blank < bytes.len() || blank == 0;
            let breaks = count(&bytes[..blank], b'\n');
            // A line feed may belong to the carriage return that ended the record.
            let ends_record = self.after_cr && bytes.first() == Some(&b'\n');
            self.blank += breaks - u64::from(ends_record);
            self.breaks += breaks;
            self.after_cr = false;
            self.stream.consume(blank);
            if is_last {
                self.line = self.breaks + 1;
                return Ok(());
            }
        }
    }

    /// Reads up to the end of a record that was too long, within a limit.
    fn skip_record(&mut self) -> Result<()> {
        let limit = self.max_record_bytes.saturating_mul(SKIPPED_RECORDS);
        let mut skipped = 0;
        while skipped < limit {
            let step = self.step(0, 0)?;
            skipped += step.read as u64;
            if let ReadRecordResult::Record | ReadRecordResult::End = step.result {
                self.in_record = false;
                return Ok(());
            }
        }
        (self.in_record, self.done) = (false, true);
        let limit = size(limit);
        Err(self.error(format!(
            "no end of the record within {limit}: the rest of the file is not read"
        )))
    }

    /// Feeds the parser once; cells go behind the first `length` bytes and `count` ends.
    fn step(&mut self, length: usize, count: usize) -> Result<ParserStep> {
        let input = match self.stream.fill_buf() {
            Ok(input) => input,
            Err(e) => return Err(self.read_error(e)),
        };
        let (result, read, written, ended) =
            self.parser.read_record(input, &mut self.bytes[length..], &mut self.ends[count..]);
        self.breaks += self::count(&input[..read], b'\n');
        let quotes = self::count(&input[..read], b'"');
        self.after_cr = read > 0 && input[read - 1] == b'\r';
        self.stream.consume(read);
        Ok(ParserStep { result, read, written, ended, quotes })
    }

    fn read_error(&mut self, error: io::Error) -> Error {
        (self.in_record, self.done) = (false, true);
        self.stream.origin.read_error(error, Some(format!("line {}", self.line)))
    }
}

struct ParserStep {
    result: ReadRecordResult,
    read: usize,
    written: usize,
    ended: usize,
    quotes: u64,
}

fn count(bytes: &[u8], byte: u8) -> u64 {
    bytes.iter().filter(|b| **b == byte).count() as u64
}

/// The names of the columns; the header is the current record.
fn read_header(cells: &CellReader, count: usize, delimiter: u8) -> Result<Vec<String>> {
    let mut columns = Vec::with_capacity(count);
    for number in 0..count {
        let name = cells.cell(number, &format!("column {}", number + 1))?.trim();
        columns.push(match name.is_empty() {
            true => format!("column_{}", number + 1),
            false => name.to_string(),
        });
    }
    check_header(&columns, delimiter, cells.place())?;
    Ok(columns)
}

fn check_header(columns: &[String], delimiter: u8, place: Place) -> Result<()> {
    let mut seen = HashSet::new();
    for name in columns {
        if !seen.insert(name) {
            let reason = "the header has this column twice: rename one";
            return Err(Error::input(place.field(shown(name)), reason));
        }
    }
    let other = |c: char| columns.len() == 1 && columns[0].contains(c) && c as u8 != delimiter;
    let reason = if other('\t') {
        "the header has one column with tabs in it: read the file with --format tsv"
    } else if other(';') {
        "the header has one column with ';' in it, and not every line as many: name the delimiter \
         with --delimiter ';'"
    } else if other(',') {
        "the header has one column with commas in it: read the file with --format csv"
    } else {
        return Ok(());
    };
    Err(Error::input(place, reason))
}
