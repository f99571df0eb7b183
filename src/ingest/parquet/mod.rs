//! Parquet: a row is a record.
//!
//! Rows are put together from the columns one at a time, so that memory holds a page of each
//! column and one row. Only the columns that are needed are read.

mod column;
mod footer;
mod levels;
mod pages;
mod tree;
mod value;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::SerializedPageReader;
use serde_json::{Map, Value};

use self::column::Column;
use self::pages::{CheckedPages, ColumnFile};
use self::tree::Node;
use self::value::Meaning;
use super::fields::Fields;
use super::source::{Bytes, Input};
use super::stream::Stream;
use super::{Document, ReadOptions, shortened, shown, size};
use crate::error::{Error, Place, Result};

/// A compressed file, or one from standard input, is unpacked to a temporary file. It is given up
/// where it grows beyond this, and beyond a hundred times its packed size.
const SPOOL_BYTES: u64 = 1 << 30;
const SPOOL_RATIO: u64 = 100;

/// What a value in a list takes at least, for the bound on a row.
const BYTES_PER_VALUE: u64 = 8;

/// The rows of one file.
pub(super) struct Rows {
    file: Arc<File>,
    length: u64,
    name: String,
    label: String,
    metadata: ParquetMetaData,
    /// The top-level fields that are read.
    nodes: Vec<Node>,
    meanings: Vec<Option<Meaning>>,
    fields: Fields,
    longest: u64,
    /// The open row group's columns, in the order of the file, `None` for those not read.
    columns: Vec<Option<Column>>,
    open_bytes: Arc<AtomicU64>,
    next_group: usize,
    /// Rows of the open row group that are still to come.
    rows_left: u64,
    /// Rows behind us.
    row: u64,
    rows_total: u64,
    progress: Arc<AtomicU64>,
}

impl Rows {
    pub(super) fn open(
        stream: Stream,
        input: &Input,
        progress: Arc<AtomicU64>,
        options: &ReadOptions,
    ) -> Result<Self> {
        let mut file = match &input.bytes {
            Bytes::File(path, _) if !stream.origin.compressed => {
                File::open(path).map_err(Error::io("read", path))?
            }
            _ => spool(stream, &input.name, &progress)?,
        };
        let fail = |fault: Fault| fault.at(Place::file(&input.name));
        let length = file.metadata().map_err(Error::io("read", &input.name))?.len();
        if length == 0 {
            return Err(Error::input(Place::file(&input.name), "no records in this file"));
        }
        let metadata = footer::read(&mut file, length).map_err(fail)?;
        let rows_total = check_groups(&metadata, length).map_err(fail)?;
        let schema = metadata.file_metadata().schema_descr();
        let mut nodes = Node::roots(schema.root_schema()).map_err(Fault::from).map_err(fail)?;
        let mut sample = Map::new();
        for node in &nodes {
            if sample.insert(node.name.clone(), node.sample()).is_some() {
                let place = Place::file(&input.name).field(shown(&node.name));
                return Err(Error::input(place, "the schema has this field twice"));
            }
        }
        let fields = Fields::resolve(&sample, &options.fields, &input.name)?;
        if let Some(needed) = fields.needed(&sample) {
            nodes.retain(|node| needed.contains(&node.name));
        }
        let mut meanings = vec![None; schema.num_columns()];
        for node in &nodes {
            for number in node.columns() {
                let column = schema.column(number);
                let meaning = Meaning::of(&column).map_err(|reason| {
                    let place = Place::file(&input.name).field(shown(&column.path().string()));
                    Error::input(place, format!("the column {reason}"))
                })?;
                meanings[number] = Some(meaning);
            }
        }
        Ok(Self {
            file: Arc::new(file),
            length,
            name: input.name.clone(),
            label: input.label.clone(),
            metadata,
            nodes,
            meanings,
            fields,
            longest: options.max_record_bytes,
            columns: Vec::new(),
            open_bytes: Arc::new(AtomicU64::new(0)),
            next_group: 0,
            rows_left: 0,
            row: 0,
            rows_total,
            progress,
        })
    }

    fn place(&self) -> Place {
        Place::record(&self.name, format!("row {}", self.row))
    }

    /// Opens the next row group that has rows; `false` behind the last.
    fn open_group(&mut self) -> Result<bool, Fault> {
        loop {
            self.columns.clear();
            if self.next_group == self.metadata.num_row_groups() {
                return Ok(false);
            }
            let group = self.metadata.row_group(self.next_group);
            self.next_group += 1;
            self.rows_left = u64::try_from(group.num_rows()).unwrap_or(0);
            if self.rows_left > 0 {
                self.columns = guarded(|| self.open_columns(group))?;
                return Ok(true);
            }
        }
    }

    fn open_columns(&self, group: &RowGroupMetaData) -> Result<Vec<Option<Column>>, Fault> {
        let properties =
            Arc::new(ReaderProperties::builder().set_backward_compatible_lz4(false).build());
        let rows = usize::try_from(group.num_rows()).unwrap_or(usize::MAX);
        let open = |(number, meaning): (usize, &Option<Meaning>)| {
            let Some(meaning) = *meaning else { return Ok(None) };
            let chunk = group.column(number);
            let file = ColumnFile::new(
                Arc::clone(&self.file),
                self.length,
                chunk.compression(),
                Arc::clone(&self.open_bytes),
            );
            let properties = Arc::clone(&properties);
            let pages = SerializedPageReader::new_with_properties(
                Arc::new(file),
                chunk,
                rows,
                None,
                properties,
            )?;
            let column = chunk.column_descr_ptr();
            let most = (self.longest / BYTES_PER_VALUE).max(1);
            let pages = CheckedPages::new(pages, Arc::clone(&column), most);
            Ok(Some(Column::new(column, Box::new(pages), meaning)))
        };
        self.meanings.iter().enumerate().map(open).collect()
    }

    /// Brings all columns to the next row, and gives the size of its strings.
    fn next_row(&mut self) -> Result<u64, Fault> {
        let mut bytes = 0;
        for column in self.columns.iter_mut().flatten() {
            match column.next_row()? {
                Some(more) => bytes += more,
                None => return Err(Fault::from("a column ends before the others")),
            }
        }
        Ok(bytes)
    }

    /// Puts the row together.
    fn record(&mut self) -> Result<Map<String, Value>, tree::Fault> {
        let mut record = Map::with_capacity(self.nodes.len());
        for node in &self.nodes {
            record.insert(node.name.clone(), node.assemble(&mut self.columns)?);
        }
        Ok(record)
    }

    fn document(&mut self, bytes: u64) -> Result<Document> {
        let place = self.place();
        if bytes > self.longest {
            let limit = size(self.longest);
            return Err(Error::input(
                place,
                format!("the row is longer than {limit}: raise --max-record-bytes"),
            ));
        }
        let record = guarded(|| Ok(self.record())).map_err(|fault| fault.at(place.clone()))?;
        let record = record.map_err(|fault| {
            Error::input(place.clone().field(shown(&fault.field)), fault.reason)
        })?;
        self.fields.document(record, place, &self.label, self.row)
    }

    /// The error for the row that comes next, and goes on with the next row group.
    fn give_up_group(&mut self, fault: Fault) -> Error {
        let (first, last) = (self.row + 1, self.row + self.rows_left);
        let fault = match fault {
            Fault::Data(reason) if last > first => {
                Fault::Data(format!("{reason}; rows {first} to {last} are passed over"))
            }
            fault => fault,
        };
        self.advance(self.rows_left);
        fault.at(Place::record(&self.name, format!("row {first}")))
    }

    fn advance(&mut self, rows: u64) {
        self.row += rows;
        self.rows_left -= rows;
        let read = u128::from(self.length) * u128::from(self.row) / u128::from(self.rows_total);
        self.progress.store(u64::try_from(read).unwrap_or(self.length), Ordering::Relaxed);
    }
}

impl Iterator for Rows {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        let opened = if self.rows_left == 0 { self.open_group() } else { Ok(true) };
        match opened {
            Ok(true) => {}
            Ok(false) => return None,
            Err(fault) => return Some(Err(self.give_up_group(fault))),
        }
        Some(match guarded(|| self.next_row()) {
            Ok(bytes) => {
                self.advance(1);
                self.document(bytes)
            }
            // The columns may stand at different rows now.
            Err(fault) => Err(self.give_up_group(fault)),
        })
    }
}

/// Why a parquet file cannot be read on.
enum Fault {
    Data(String),
    Io(io::Error),
}

impl Fault {
    fn at(self, place: Place) -> Error {
        match self {
            Self::Data(reason) => Error::input(place, reason),
            Self::Io(source) => Error::io("read", &place.file)(source),
        }
    }
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Self {
        Self::Data(reason.into())
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Data(reason)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ParquetError> for Fault {
    fn from(error: ParquetError) -> Self {
        let reason = error.to_string();
        let prefixes = ["Parquet error: ", "External: ", "EOF: "];
        let reason = prefixes.iter().find_map(|p| reason.strip_prefix(p)).unwrap_or(&reason);
        let reason = shortened(reason, 300);
        Self::Data(format!("the parquet data is damaged or not supported: {reason}"))
    }
}

/// Checks what the footer says of its row groups, and gives the number of all rows.
fn check_groups(metadata: &ParquetMetaData, length: u64) -> Result<u64, Fault> {
    let columns = metadata.file_metadata().schema_descr().num_columns();
    let mut total = 0u64;
    for group in metadata.row_groups() {
        let rows = u64::try_from(group.num_rows()).ok();
        total = rows
            .and_then(|rows| total.checked_add(rows))
            .filter(|total| *total <= i64::MAX as u64)
            .ok_or("the footer is damaged: an impossible number of rows")?;
        if group.num_columns() != columns {
            return Err("the footer is damaged: a row group without all columns".into());
        }
        for chunk in group.columns() {
            let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
            let end = u64::try_from(start)
                .ok()
                .zip(u64::try_from(chunk.compressed_size()).ok())
                .and_then(|(start, size)| start.checked_add(size));
            if end.is_none_or(|end| end > length) {
                return Err("the footer is damaged: a column lies outside of the file".into());
            }
            if chunk.file_path().is_some() {
                return Err("has columns in other files, which is not supported".into());
            }
            if chunk.compression() == Compression::LZO {
                return Err("is compressed with LZO: write it with zstd".into());
            }
        }
    }
    Ok(total)
}

/// Unpacks a stream to a temporary file that vanishes when it is closed.
fn spool(mut stream: Stream, name: &str, packed: &AtomicU64) -> Result<File> {
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
        let most = SPOOL_BYTES.max(packed.load(Ordering::Relaxed).saturating_mul(SPOOL_RATIO));
        if unpacked > most {
            return Err(Error::input(
                Place::file(name),
                format!("unpacks to more than {SPOOL_RATIO} times its size: unpack it yourself"),
            ));
        }
        file.write_all(&buffer[..n]).map_err(Error::io("write a file in", &folder))?;
    }
}

thread_local! {
    /// Whether a panic on this thread is caught here and told as an error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs the parquet decoder, which panics on some damaged files, and makes such a panic an error.
///
/// The first call puts a panic hook in front of the one that is there: it keeps quiet about
/// panics that are caught here, and leaves all others to the hook behind it.
fn guarded<T>(decode: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                next(info);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(outer);
    result.unwrap_or_else(|_| Err("the parquet data is damaged: it cannot be decoded".into()))
}
