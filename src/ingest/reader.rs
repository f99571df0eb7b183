//! The stream of documents over all inputs.

use std::collections::VecDeque;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::csv::Table;
use super::format::Format;
use super::jsonl::Lines;
use super::parquet::Rows;
use super::source::{self, Bytes, Input, Plan, SkippedFile};
use super::stream::Stream;
use super::{Document, ReadOptions, text};
use crate::error::{Error, Place, Result};

/// Opens files, folders (all files below them, in the order of their names) and `-`, which is
/// standard input.
///
/// Everything that can be known beforehand is checked here, for all inputs: that a file exists,
/// can be opened and has a known format, and that a folder holds a file that can be read. Hidden
/// files and folders below a folder are passed over; links are followed. A file that is reached
/// twice is read once. Folders' files of unknown type, and files reached twice, are listed in
/// [`Reader::skipped_files`].
///
/// # Errors
///
/// [`Error::Usage`] for a file of unknown type, no input at all, or options that make no sense,
/// [`Error::Io`] for a file that is missing or cannot be read, [`Error::Input`] for a folder
/// without any readable file.
pub fn open(inputs: &[PathBuf], options: &ReadOptions) -> Result<Reader> {
    check(options)?;
    Ok(Reader::new(source::plan(inputs, options)?, None, options))
}

/// Reads documents from a stream of bytes as [`open`] reads standard input: plain or gzip, JSON
/// lines unless the options name a format. Messages call it `name`, and so do ids that are made
/// up, without angle brackets around it.
///
/// # Errors
///
/// [`Error::Usage`] for options that make no sense. All else comes with the first document.
pub fn read_stream(
    bytes: impl Read + Send + 'static,
    name: &str,
    options: &ReadOptions,
) -> Result<Reader> {
    check(options)?;
    let input = Input {
        name: name.to_string(),
        // `<stdin>` in messages, `stdin` in ids, as `open` has it.
        label: name.trim_matches(['<', '>']).to_string(),
        format: options.format.unwrap_or(Format::Jsonl),
        bytes: Bytes::Stdin,
    };
    let plan = Plan { inputs: vec![input], skipped: Vec::new() };
    Ok(Reader::new(plan, Some(Box::new(bytes)), options))
}

/// An iterator over the documents of all inputs.
///
/// An error about a record (see [`Error::Input`]) does not end the iteration: the next call goes
/// on behind that record, or, where the rest of the file cannot be read, with the next file.
pub struct Reader {
    inputs: VecDeque<Input>,
    skipped: Vec<SkippedFile>,
    options: ReadOptions,
    /// Given in place of standard input.
    given: Option<Box<dyn Read + Send>>,
    current: Option<Current>,
    bytes_total: Option<u64>,
    files_total: usize,
    files_done: usize,
    /// Compressed bytes of the files that are done with.
    bytes_done: u64,
}

/// How far a [`Reader`] has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read, as they lie on disk (compressed, where they are).
    pub bytes_read: u64,
    /// The sum of all file lengths; `None` where standard input or a pipe is among them.
    pub bytes_total: Option<u64>,
    /// Inputs that are done with.
    pub files_done: usize,
    /// All inputs.
    pub files_total: usize,
    /// The input being read, as the user named it.
    pub file: Option<String>,
}

struct Current {
    name: String,
    length: Option<u64>,
    bytes_read: Arc<AtomicU64>,
    records: Records,
    /// Whether anything, a document or an error, has come out of it.
    gave: bool,
}

enum Records {
    Lines(Box<Lines>),
    Table(Box<Table>),
    Rows(Box<Rows>),
    /// A file that is one document, until it is taken.
    Whole(Option<Box<Document>>),
}

impl Reader {
    fn new(plan: Plan, given: Option<Box<dyn Read + Send>>, options: &ReadOptions) -> Self {
        Self {
            bytes_total: plan.total_bytes(),
            files_total: plan.inputs.len(),
            inputs: plan.inputs.into(),
            skipped: plan.skipped,
            options: options.clone(),
            given,
            current: None,
            files_done: 0,
            bytes_done: 0,
        }
    }

    /// How far reading has come.
    pub fn progress(&self) -> Progress {
        let current = self.current.as_ref();
        let read = current.map_or(0, |current| {
            let read = current.bytes_read.load(Ordering::Relaxed);
            current.length.map_or(read, |length| read.min(length))
        });
        Progress {
            bytes_read: self.bytes_done + read,
            bytes_total: self.bytes_total,
            files_done: self.files_done,
            files_total: self.files_total,
            file: current.map(|current| current.name.clone()),
        }
    }

    /// Files in the given folders that are not read, and why; known from the start.
    pub fn skipped_files(&self) -> &[SkippedFile] {
        &self.skipped
    }

    fn open_next(&mut self, input: &Input) -> Result<Current> {
        let options = &self.options;
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes_read);
        let stream = match self.given.take() {
            Some(given) => Stream::from_raw(given, input, counter)?,
            None => Stream::open(input, counter)?,
        };
        let records = match input.format {
            Format::Jsonl => Records::Lines(Box::new(Lines::open(stream, input, options)?)),
            Format::Csv | Format::Tsv => {
                Records::Table(Box::new(Table::open(stream, input, options)?))
            }
            Format::Parquet => {
                let counter = Arc::clone(&bytes_read);
                Records::Rows(Box::new(Rows::open(stream, input, counter, options)?))
            }
            Format::Text | Format::Markdown | Format::Html => {
                Records::Whole(Some(Box::new(text::read(stream, input, options)?)))
            }
        };
        let name = input.name.clone();
        Ok(Current { name, length: input.length(), bytes_read, records, gave: false })
    }

    fn close(&mut self, bytes: u64) {
        self.files_done += 1;
        self.bytes_done += bytes;
    }
}

impl Iterator for Reader {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(current) = &mut self.current {
                let next = match &mut current.records {
                    Records::Lines(records) => records.next(),
                    Records::Table(records) => records.next(),
                    Records::Rows(records) => records.next(),
                    Records::Whole(document) => document.take().map(|document| Ok(*document)),
                };
                if next.is_some() {
                    current.gave = true;
                    return next;
                }
            }
            if let Some(current) = self.current.take() {
                let read = current.bytes_read.load(Ordering::Relaxed);
                self.close(current.length.unwrap_or(read));
                if !current.gave {
                    let place = Place::file(current.name);
                    return Some(Err(Error::input(place, "no records in this file")));
                }
            }
            let input = self.inputs.pop_front()?;
            match self.open_next(&input) {
                Ok(current) => self.current = Some(current),
                Err(error) => {
                    self.close(input.length().unwrap_or(0));
                    return Some(Err(error));
                }
            }
        }
    }
}

fn check(options: &ReadOptions) -> Result<()> {
    if options.max_record_bytes == 0 {
        return Err(Error::usage("--max-record-bytes must be at least 1"));
    }
    Ok(())
}
