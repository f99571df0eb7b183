//! Parquet: a row is a record.
//!
//! The `parquet` crate decodes the footer, the pages and the columns. Rows are assembled here, one
//! at a time, so that memory holds a page of each column and one row. Only the columns that are
//! needed are read.
//!
//! ```text
//! footer.rs    check the footer (thrift.rs), then decode it
//! schema.rs    plan the columns
//! for each row group
//!     pages.rs     check the pages of each column (thrift.rs, encodings.rs), then decode them
//!     for each row
//!         columns.rs   read the row's values of each column
//!         rows.rs      assemble them; value.rs renders a value as JSON
//! ```
//!
//! The schema decides beforehand which columns are read, and as what (schema.rs, value.rs). Only
//! the text and the id have to be readable. Another column that cannot be read is left out, or null
//! for the rest of the row group, and a value that JSON cannot hold becomes text or null
//! (substitute.rs). Both are told as notes.
//!
//! The crate's row reader (`parquet::record`) is not used. It cuts INT96 timestamps to
//! milliseconds, stops at the first text that is not valid UTF-8, panics on intervals, and reads
//! one row ahead, so that an error costs the row before it. The crate's Arrow reader checks a batch
//! at a time, so that one bad value costs the batch.
//!
//! An abort on a huge allocation and a stack overflow cannot be caught. Every claim of a file that
//! could cause one is checked before the crate acts on it. Panics are caught (guard.rs).

mod columns;
mod decimal;
mod encodings;
mod footer;
mod guard;
mod pages;
mod rows;
mod schema;
mod substitute;
mod thrift;
mod time;
mod value;

use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::file::metadata::ParquetMetaData;
use serde_json::{Map, Value};
use warpseek_error::{Error, Place, Result};

use self::columns::LeafColumn;
use self::guard::guarded;
use self::pages::{CheckedPages, PageSource};
use self::rows::FieldAssembler;
use self::schema::{Planner, TopField};
use self::value::{ColumnType, ColumnUse};
use crate::document::Document;
use crate::inputs::{InputFile, Location};
use crate::message::{shown, size};
use crate::notes::{NoteKind, ReadNotes};
use crate::options::ReadOptions;
use crate::roles::{RoleRules, Roles};
use crate::stream::InputStream;

/// Limit on the temporary file that a compressed file, or one from a pipe, is unpacked to. It may
/// have [`SPOOL_RATIO`] times the packed size if that is more.
const SPOOL_BYTES: u64 = 1 << 30;
const SPOOL_RATIO: u64 = 100;

/// The rows of one file.
pub(crate) struct ParquetReader {
    source: PageSource,
    name: String,
    label: String,
    metadata: ParquetMetaData,
    /// The top-level fields that are read.
    selected: Vec<TopField>,
    fields: Roles,
    notes: ReadNotes,
    /// The columns of the open row group, by top-level field; `None` for one that cannot be read.
    columns: Vec<Option<Vec<LeafColumn>>>,
    next_group: usize,
    /// Rows of the open row group that are still to come.
    rows_left: u64,
    rows_read: u64,
    rows_total: u64,
    progress: Arc<AtomicU64>,
}

impl ParquetReader {
    /// Reads the footer. `progress` receives the share of the file's bytes that has been read.
    pub(crate) fn open(
        stream: InputStream,
        input: &InputFile,
        progress: Arc<AtomicU64>,
        options: &ReadOptions,
        notes: &ReadNotes,
    ) -> Result<Self> {
        let mut file = match &input.location {
            Location::Regular { path, .. } if !stream.origin.compressed => {
                File::open(path).map_err(Error::io("read", path))?
            }
            _ => spool(stream, &input.name, &progress)?,
        };
        let fail = |reason: String| Error::input(Place::file(&input.name), reason);
        let length = file.metadata().map_err(Error::io("read", &input.name))?.len();
        if length == 0 {
            return Err(fail("no records in this file".into()));
        }
        let metadata = footer::read(&mut file, &input.name, length)?;
        let schema = metadata.file_metadata().schema_descr();
        let mut sample = Map::new();
        for field in schema.root_schema().get_fields() {
            sample.entry(field.name()).or_insert_with(|| schema::sample(field));
        }
        let rules = RoleRules::new(input, options, notes);
        let fields = rules.of_columns(&sample)?;
        let needed = fields.needed(&sample);
        let is_needed = |name: &str| needed.as_ref().is_none_or(|n| n.iter().any(|n| n == name));
        let column_type = |name: &str, number: usize| {
            let purpose = match name {
                _ if fields.is_essential(name) || fields.is_title(name) => ColumnUse::Role,
                _ if fields.is_chosen(name) => ColumnUse::Chosen,
                _ => ColumnUse::Metadata,
            };
            ColumnType::of(&schema.column(number), purpose)
        };
        let (selected, left_out) = Planner::plan(schema, is_needed, &column_type);
        for (name, reason) in &left_out {
            let is_named = options.fields.title.as_deref() == Some(name);
            if is_named || fields.is_essential(name) {
                let place = Place::file(&input.name).field(shown(name));
                return Err(Error::input(place, format!("the column cannot be read: {reason}")));
            }
            if fields.keeps(name) {
                notes.left_out(&input.name, name, reason);
            }
        }
        let rows = metadata.row_groups().iter().map(|group| group.num_rows());
        Ok(Self {
            source: PageSource {
                file: Arc::new(file),
                length,
                max_record_bytes: options.max_record_bytes,
                open_bytes: Arc::default(),
            },
            name: input.name.clone(),
            label: input.label.clone(),
            rows_total: u64::try_from(rows.sum::<i64>()).unwrap_or(0),
            metadata,
            selected,
            fields,
            notes: notes.clone(),
            columns: Vec::new(),
            next_group: 0,
            rows_left: 0,
            rows_read: 0,
            progress,
        })
    }

    /// The columns of id and text in a file of queries, for the user to know.
    pub(crate) fn note(&self) -> Option<String> {
        self.fields.describe().map(|roles| format!("parquet: {roles}"))
    }

    /// Opens the next row group that has rows; false behind the last.
    fn open_group(&mut self) -> Result<bool, String> {
        while self.rows_left == 0 {
            self.columns.clear();
            if self.next_group == self.metadata.num_row_groups() {
                return Ok(false);
            }
            let group = self.metadata.row_group(self.next_group);
            self.next_group += 1;
            self.rows_left = u64::try_from(group.num_rows()).unwrap_or(0);
            if self.rows_left == 0 {
                continue;
            }
            for at in 0..self.selected.len() {
                let columns = self.open_columns(at);
                self.columns.push(None);
                match columns {
                    Ok(columns) => self.columns[at] = Some(columns),
                    Err(reason) => self.lose(at, reason)?,
                }
            }
        }
        Ok(true)
    }

    /// Opens the columns of a top-level field in the row group that comes next.
    fn open_columns(&self, at: usize) -> Result<Vec<LeafColumn>, String> {
        let group = self.metadata.row_group(self.next_group - 1);
        let rows = usize::try_from(self.rows_left).unwrap_or(usize::MAX);
        let open = |&(number, column_type): &(usize, ColumnType)| {
            let chunk = group.column(number);
            footer::check_chunk(chunk, self.source.length)?;
            guarded(|| {
                let pages = Box::new(CheckedPages::open(&self.source, chunk, rows)?);
                Ok(LeafColumn::new(chunk.column_descr_ptr(), pages, column_type))
            })
        };
        self.selected[at].columns.iter().map(open).collect()
    }

    /// Does without a top-level field in the rest of the row group, unless it is needed.
    fn lose(&mut self, at: usize, reason: String) -> Result<(), String> {
        let name = &self.selected[at].field.name;
        if self.is_needed(name) {
            return Err(reason);
        }
        self.columns[at] = None;
        let reason = format!("the column cannot be read ({reason})");
        self.notes.add(&self.name, name, NoteKind::Null, &reason, self.rows_left);
        Ok(())
    }

    /// True if no row can do without this top-level field.
    fn is_needed(&self, name: &str) -> bool {
        self.fields.is_essential_part(name)
    }

    /// Brings all columns to the next row and returns the size of its strings.
    fn next_row(&mut self) -> Result<u64, String> {
        let mut total = 0;
        for at in 0..self.columns.len() {
            let Some(columns) = &mut self.columns[at] else { continue };
            let bytes = columns.iter_mut().map(|column| {
                guarded(|| column.next_row())?.ok_or("a column ends before the others".to_owned())
            });
            match bytes.sum::<Result<u64, String>>() {
                Ok(bytes) => total += bytes,
                Err(reason) => self.lose(at, reason)?,
            }
        }
        Ok(total)
    }

    /// Converts the row that was read last to a document.
    fn document(&mut self, bytes: u64) -> Result<Document> {
        let place = self.place(self.rows_read);
        if bytes > self.source.max_record_bytes {
            let limit = size(self.source.max_record_bytes);
            let reason = format!("the row is longer than {limit}: raise --max-record-bytes");
            return Err(Error::input(place, reason));
        }
        let mut record = Map::with_capacity(self.selected.len());
        let mut substitutes = Vec::new();
        for (TopField { field, .. }, columns) in self.selected.iter().zip(&mut self.columns) {
            let assembled = match columns {
                Some(columns) => FieldAssembler::assemble(field, columns),
                None => Ok((Value::Null, Vec::new())),
            };
            let value = match assembled {
                Ok((value, more)) => {
                    substitutes.extend(more);
                    value
                }
                Err(reason) if self.fields.is_essential_part(&field.name) => {
                    return Err(Error::input(place.field(shown(&field.name)), reason));
                }
                Err(reason) => {
                    self.notes.add(&self.name, &field.name, NoteKind::Null, &reason, 1);
                    Value::Null
                }
            };
            record.insert(field.name.clone(), value);
        }
        if let Some((name, value)) = substitutes.iter().find(|(n, _)| self.fields.is_essential(n)) {
            let reason = format!("{}{}: no text or id", value.reason, value.detail);
            return Err(Error::input(place.field(shown(name)), reason));
        }
        let document = self.fields.document(record, place, &self.label, self.rows_read)?;
        for (name, substitute) in substitutes.into_iter().filter(|(n, _)| self.fields.keeps(n)) {
            self.notes.add(&self.name, &name, substitute.kind, substitute.reason, 1);
        }
        Ok(document)
    }

    /// Returns the error for the next row, and goes on with the next row group.
    fn give_up_group(&mut self, mut reason: String) -> Error {
        let (first, last) = (self.rows_read + 1, self.rows_read + self.rows_left);
        if last > first {
            reason += &format!("; rows {first} to {last} are passed over");
        }
        self.advance(self.rows_left);
        Error::input(self.place(first), reason)
    }

    fn advance(&mut self, rows: u64) {
        self.rows_left -= rows;
        self.rows_read += rows;
        let length = self.source.length;
        let total = u128::from(self.rows_total.max(1));
        let read = u128::from(length) * u128::from(self.rows_read) / total;
        self.progress.store(u64::try_from(read).unwrap_or(length), Ordering::Relaxed);
    }

    fn place(&self, row: u64) -> Place {
        Place::record(&self.name, format!("row {row}"))
    }
}

impl Iterator for ParquetReader {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = match self.open_group() {
            Ok(false) => return None,
            Ok(true) => self.next_row(),
            Err(reason) => Err(reason),
        };
        Some(match row {
            Ok(bytes) => {
                self.advance(1);
                self.document(bytes)
            }
            // The columns may be at different rows now.
            Err(reason) => Err(self.give_up_group(reason)),
        })
    }
}

/// Unpacks a stream to a temporary file that vanishes when it is closed.
fn spool(mut stream: InputStream, name: &str, packed: &AtomicU64) -> Result<File> {
    let folder = std::env::temp_dir();
    let mut file = tempfile::tempfile().map_err(Error::io("create a file in", &folder))?;
    let mut buffer = vec![0; 1 << 16];
    let mut unpacked = 0;
    loop {
        let n = match stream.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(n) => n,
            Err(e) => return Err(stream.origin.read_error(e, None)),
        };
        unpacked += n as u64;
        let limit = SPOOL_BYTES.max(packed.load(Ordering::Relaxed).saturating_mul(SPOOL_RATIO));
        if unpacked > limit {
            return Err(Error::input(
                Place::file(name),
                format!("unpacks to more than {SPOOL_RATIO} times its size: unpack it yourself"),
            ));
        }
        file.write_all(&buffer[..n]).map_err(Error::io("write a file in", &folder))?;
    }
}
