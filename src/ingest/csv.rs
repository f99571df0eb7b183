//! Comma- and tab-separated values with a header line.
//!
//! Quotes work as in RFC 4180, across lines too. In tab-separated files they are ordinary
//! characters, as the format's registration has it, unless the header line itself has quotes.
//!
//! A cell is a string. In the metadata an empty cell becomes null, and one that is written exactly
//! as JSON writes that number (`17`, `-2.5`, not `007` or `1e3`) becomes a number, so that a filter
//! can compare it.

use std::collections::HashSet;
use std::io::BufRead;

use csv_core::ReadRecordResult;
use serde_json::{Map, Number, Value};

use super::fields::Fields;
use super::format::Format;
use super::source::Input;
use super::stream::{Stream, utf8_error};
use super::{Document, ReadOptions, shown, size};
use crate::error::{Error, Place, Result};

/// More columns than this are taken for a damaged file.
const MAX_COLUMNS: usize = 10_000;

/// The end of a record is looked for within this many times the longest record.
const SKIPPED_RECORDS: u64 = 64;

/// The records of one file.
pub(super) struct Table {
    rows: Rows,
    label: String,
    columns: Vec<String>,
    fields: Fields,
    record: u64,
    done: bool,
}

impl Table {
    /// Reads the header.
    pub(super) fn open(stream: Stream, input: &Input, options: &ReadOptions) -> Result<Self> {
        let delimiter = if input.format == Format::Tsv { b'\t' } else { b',' };
        let mut rows = Rows::new(stream.utf8()?, delimiter, options.max_record_bytes)?;
        rows.most_fields = MAX_COLUMNS;
        let found = match rows.next()? {
            Some(header) => header,
            None => return Err(Error::input(rows.file(), "no records in this file")),
        };
        if found > MAX_COLUMNS {
            let reason = format!("the header has more than {MAX_COLUMNS} columns");
            return Err(Error::input(rows.place(), reason));
        }
        let mut columns = Vec::with_capacity(found);
        for number in 0..found {
            let name = rows.field(number, &format!("column {}", number + 1))?.trim();
            columns.push(match name.is_empty() {
                true => format!("column_{}", number + 1),
                false => name.to_string(),
            });
        }
        check_header(&columns, delimiter, &rows)?;
        rows.most_fields = columns.len();
        let sample = columns.iter().map(|name| (name.clone(), Value::Null)).collect();
        let fields = Fields::resolve(&sample, &options.fields, &rows.stream.origin.name)?;
        Ok(Self { rows, label: input.label.clone(), columns, fields, record: 0, done: false })
    }

    fn document(&mut self, found: usize) -> Result<Document> {
        let place = self.rows.place();
        let expected = self.columns.len();
        if found != expected {
            let found =
                if found > expected { format!("more than {expected}") } else { found.to_string() };
            return Err(Error::input(
                place,
                format!(
                    "the record has {found} fields, the header has {expected}: is a quote or a \
                     separator missing?"
                ),
            ));
        }
        let mut record = Map::with_capacity(expected);
        for (number, column) in self.columns.iter().enumerate() {
            let value = self.rows.field(number, column)?;
            record.insert(column.clone(), Value::String(value.to_string()));
        }
        let mut document = self.fields.document(record, place, &self.label, self.record)?;
        for (_, value) in &mut document.metadata {
            if let Value::String(cell) = value {
                *value = typed(std::mem::take(cell));
            }
        }
        Ok(document)
    }
}

impl Iterator for Table {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.rows.next() {
            Ok(Some(found)) => {
                self.record += 1;
                Some(self.document(found))
            }
            Ok(None) => {
                self.done = true;
                None
            }
            Err(error) => {
                self.record += 1;
                self.done = self.rows.ended;
                Some(Err(error))
            }
        }
    }
}

/// Splits bytes into records and fields, none longer than the bound.
struct Rows {
    stream: Stream,
    parser: csv_core::Reader,
    longest: u64,
    most_fields: usize,
    /// The fields of the current record, one behind the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Line breaks read so far.
    breaks: u64,
    /// The line on which the current record starts, from 1.
    line: u64,
    in_record: bool,
    ended: bool,
}

impl Rows {
    fn new(mut stream: Stream, delimiter: u8, longest: u64) -> Result<Self> {
        let head = match stream.fill_buf() {
            Ok(head) => head,
            Err(e) => return Err(stream.origin.read_error(e, Some("line 1".into()))),
        };
        let header = head.split(|b| *b == b'\n').next().unwrap_or_default();
        let quoting = delimiter != b'\t' || header.contains(&b'"');
        let parser = csv_core::ReaderBuilder::new().delimiter(delimiter).quoting(quoting).build();
        Ok(Self {
            stream,
            parser,
            longest,
            most_fields: 0,
            bytes: vec![0; 1024],
            ends: vec![0; 16],
            breaks: 0,
            line: 1,
            in_record: false,
            ended: false,
        })
    }

    fn file(&self) -> Place {
        Place::file(&self.stream.origin.name)
    }

    fn place(&self) -> Place {
        Place::record(&self.stream.origin.name, format!("line {}", self.line))
    }

    /// Reads a record and gives its number of fields, at most one more than `most_fields`.
    fn next(&mut self) -> Result<Option<usize>> {
        if self.in_record {
            self.skip_record()?;
        }
        self.start_record()?;
        let (mut length, mut count, mut read, mut quotes) = (0, 0, 0, 0);
        loop {
            let step = self.step(&mut length, &mut count)?;
            read += step.read as u64;
            quotes += step.quotes;
            if read > self.longest {
                self.in_record = step.result != ReadRecordResult::Record;
                let limit = size(self.longest);
                return Err(Error::input(
                    self.place(),
                    format!(
                        "the record is longer than {limit}: is a closing quote missing? \
                         else raise --max-record-bytes"
                    ),
                ));
            }
            match step.result {
                ReadRecordResult::End => return Ok(None),
                ReadRecordResult::Record => {
                    self.in_record = false;
                    // At the end of the file an odd number of quotes means that one stayed open.
                    if step.read == 0 && quotes % 2 == 1 && self.breaks + 1 > self.line {
                        return Err(Error::input(
                            self.place(),
                            "the file ends inside a quoted field: is a closing quote missing?",
                        ));
                    }
                    return Ok(Some(count));
                }
                ReadRecordResult::OutputFull => {
                    self.bytes.resize(self.bytes.len() * 2, 0);
                }
                ReadRecordResult::OutputEndsFull if count > self.most_fields => {
                    // Too many fields anyhow: the count need not go on.
                    count = self.most_fields;
                    length = 0;
                }
                ReadRecordResult::OutputEndsFull => {
                    self.ends.resize((self.ends.len() * 2).min(self.most_fields + 1), 0);
                }
                ReadRecordResult::InputEmpty => {}
            }
        }
    }

    /// Field `number` of the current record.
    fn field(&self, number: usize, column: &str) -> Result<&str> {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        let bytes = &self.bytes[start..self.ends[number]];
        let place = || self.place().field(shown(column));
        if bytes.contains(&0) {
            return Err(Error::input(place(), "holds a NUL byte: is this a text file?"));
        }
        std::str::from_utf8(bytes).map_err(|e| Error::input(place(), utf8_error(e, "field")))
    }

    /// Passes blank lines, and notes where the record starts.
    fn start_record(&mut self) -> Result<()> {
        loop {
            let bytes = match self.stream.fill_buf() {
                Ok(bytes) => bytes,
                Err(e) => return Err(self.read_error(e)),
            };
            let blank = bytes.iter().take_while(|b| matches!(b, b'\n' | b'\r')).count();
            self.breaks += count(&bytes[..blank], b'\n') as u64;
            let more = blank == bytes.len() && blank > 0;
            self.stream.consume(blank);
            if !more {
                self.line = self.breaks + 1;
                self.in_record = true;
                return Ok(());
            }
        }
    }

    /// Reads up to the end of a record that was too long, but not without end.
    fn skip_record(&mut self) -> Result<()> {
        let most = self.longest.saturating_mul(SKIPPED_RECORDS);
        let mut skipped = 0;
        while skipped < most {
            let step = self.step(&mut 0, &mut 0)?;
            skipped += step.read as u64;
            if let ReadRecordResult::Record | ReadRecordResult::End = step.result {
                return Ok(());
            }
        }
        self.ended = true;
        let limit = size(most);
        Err(Error::input(
            self.place(),
            format!("no end of the record within {limit}: the rest of the file is not read"),
        ))
    }

    /// Feeds the parser once.
    fn step(&mut self, length: &mut usize, count: &mut usize) -> Result<Step> {
        let input = match self.stream.fill_buf() {
            Ok(input) => input,
            Err(e) => return Err(self.read_error(e)),
        };
        let (result, read, written, ended) =
            self.parser.read_record(input, &mut self.bytes[*length..], &mut self.ends[*count..]);
        self.breaks += self::count(&input[..read], b'\n') as u64;
        let quotes = self::count(&input[..read], b'"');
        self.stream.consume(read);
        *length += written;
        *count += ended;
        Ok(Step { result, read, quotes })
    }

    fn read_error(&mut self, error: std::io::Error) -> Error {
        self.ended = true;
        self.stream.origin.read_error(error, Some(format!("line {}", self.line)))
    }
}

struct Step {
    result: ReadRecordResult,
    read: usize,
    quotes: usize,
}

fn count(bytes: &[u8], byte: u8) -> usize {
    bytes.iter().filter(|b| **b == byte).count()
}

fn check_header(columns: &[String], delimiter: u8, rows: &Rows) -> Result<()> {
    let mut seen = HashSet::new();
    for name in columns {
        if !seen.insert(name) {
            return Err(Error::input(
                rows.place().field(shown(name)),
                "the header has this column twice: rename one",
            ));
        }
    }
    let other = |c: char| columns.len() == 1 && columns[0].contains(c) && c as u8 != delimiter;
    let reason = if other('\t') {
        "the header has one column with tabs in it: read the file with --format tsv"
    } else if other(';') {
        "the header has one column with ';' in it: separate the columns with commas \
         (Excel: save as 'CSV UTF-8 (comma delimited)')"
    } else if other(',') {
        "the header has one column with commas in it: read the file with --format csv"
    } else {
        return Ok(());
    };
    Err(Error::input(rows.place(), reason))
}

/// A cell as metadata.
fn typed(cell: String) -> Value {
    if cell.is_empty() {
        return Value::Null;
    }
    let number = cell
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'-' | b'.'))
        .then(|| serde_json::from_str::<Number>(&cell).ok())
        .flatten()
        .filter(|number| number.to_string() == cell);
    number.map_or(Value::String(cell), Value::Number)
}
