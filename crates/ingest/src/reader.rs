//! The iterator over the documents of all inputs.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use warpseek_error::{Error, Place, Result};

use crate::csv::CsvReader;
use crate::document::Document;
use crate::format::FileFormat;
use crate::inputs::{InputFile, InputList, Location, unreadable};
use crate::jsonl::JsonlReader;
use crate::notes::ReadNotes;
use crate::office::OfficeReader;
use crate::options::ReadOptions;
use crate::parquet::ParquetReader;
use crate::paths::InputRoots;
use crate::skips::{FoundFiles, SkippedFile};
use crate::stamps::{FileStamp, FinishedFile};
use crate::stream::InputStream;
use crate::text;
use crate::walk::SkipCounts;

/// Opens files, folders (all files below them, in the order of their names) and `-`, which is
/// standard input.
///
/// Everything that can be known beforehand is checked here, for all inputs: that a file exists,
/// can be opened and has a known format, and that a folder has a file that can be read. Hidden
/// files and folders below a folder are left out, and so is what
/// [`WalkOptions`](crate::WalkOptions) says; links are followed. A file that is reached twice is
/// read once. [`DocumentReader::skipped_files`] lists a folder's files of unknown type, those that
/// cannot be opened, and files reached twice.
///
/// # Errors
///
/// [`Error::Usage`] for a file of unknown type, for no input at all, and for invalid options.
/// [`Error::Io`] for a file that is missing or cannot be read. [`Error::Input`] for a folder
/// without a readable file.
pub fn open(inputs: &[PathBuf], options: &ReadOptions) -> Result<DocumentReader> {
    options.check()?;
    Ok(DocumentReader::new(InputList::find(inputs, options)?, None, options))
}

/// Reads documents from a stream of bytes as [`open`] reads standard input: plain or gzip, JSON
/// lines unless the options name a format. Messages call it `name`. Made-up ids begin with `name`
/// without angle brackets around it.
///
/// # Errors
///
/// [`Error::Usage`] for invalid options. All else comes with the first document.
pub fn read_stream(
    bytes: impl Read + Send + 'static,
    name: &str,
    options: &ReadOptions,
) -> Result<DocumentReader> {
    options.check()?;
    let list = InputList::stream(name, options);
    Ok(DocumentReader::new(list, Some(Box::new(bytes)), options))
}

/// An iterator over the documents of all inputs.
///
/// An error about a record (see [`Error::Input`]) does not end the iteration: the next call goes
/// on behind that record, or, where the rest of the file cannot be read, with the next file.
pub struct DocumentReader {
    pub(crate) inputs: VecDeque<InputFile>,
    skipped: Vec<SkippedFile>,
    skip_counts: SkipCounts,
    found: FoundFiles,
    roots: InputRoots,
    /// Sources of the files that are not read because they have not changed.
    unchanged: HashSet<Arc<str>>,
    text_columns: Arc<BTreeSet<String>>,
    finished: Vec<FinishedFile>,
    options: ReadOptions,
    notes: ReadNotes,
    /// Decisions about the inputs that the caller has not taken yet.
    decisions: Vec<String>,
    /// The reader in place of standard input.
    stdin: Option<Box<dyn Read + Send>>,
    current: Option<OpenInput>,
    /// The progress without the current input.
    done: ReadProgress,
}

/// Progress of a [`DocumentReader`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadProgress {
    /// Bytes read, as stored (compressed, where they are).
    pub bytes_read: u64,
    /// The sum of all file lengths; `None` if standard input or a pipe is among them.
    pub bytes_total: Option<u64>,
    /// Inputs that are done.
    pub files_done: usize,
    /// All inputs.
    pub files_total: usize,
    /// The input being read, as the user named it.
    pub file: Option<String>,
}

struct OpenInput {
    name: String,
    source: Arc<str>,
    is_found: bool,
    /// The stamp of before it was opened.
    stamp: Option<FileStamp>,
    /// True once an error has come out of it.
    has_error: bool,
    length: Option<u64>,
    bytes_read: Arc<AtomicU64>,
    records: Box<dyn Iterator<Item = Result<Document>> + Send>,
    /// True until a document or an error has come out of it.
    is_empty: bool,
}

impl DocumentReader {
    pub(crate) fn new(
        list: InputList,
        stdin: Option<Box<dyn Read + Send>>,
        options: &ReadOptions,
    ) -> Self {
        let found = list.found_files();
        let InputList { inputs, skipped, roots, skip_counts, text_columns, .. } = list;
        let unchanged = list.unchanged.into_iter().map(|input| input.source);
        let unchanged = unchanged.chain(list.unchanged_links).collect();
        let bytes_total = inputs.iter().map(InputFile::length).sum();
        let files_total = inputs.len();
        let done = ReadProgress { bytes_total, files_total, ..ReadProgress::default() };
        let (inputs, options) = (inputs.into(), options.clone());
        let (notes, decisions) = (ReadNotes::default(), Vec::new());
        Self {
            inputs,
            skipped,
            skip_counts,
            found,
            roots,
            unchanged,
            text_columns,
            finished: Vec::new(),
            options,
            notes,
            decisions,
            stdin,
            current: None,
            done,
        }
    }

    /// Decisions about the inputs opened since the last call, for the user to know: a tsv file
    /// without a header, say.
    pub fn take_decisions(&mut self) -> Vec<String> {
        let mut decisions = std::mem::take(&mut self.decisions);
        decisions.extend(self.notes.take_decisions());
        decisions
    }

    /// The progress of reading.
    pub fn progress(&self) -> ReadProgress {
        let current = self.current.as_ref();
        let read = current.map_or(0, |current| {
            let read = current.bytes_read.load(Ordering::Relaxed);
            current.length.map_or(read, |length| read.min(length))
        });
        ReadProgress {
            bytes_read: self.done.bytes_read + read,
            file: current.map(|current| current.name.clone()),
            ..self.done
        }
    }

    /// Files in the given folders that are not read, with the reasons; known from the start.
    pub fn skipped_files(&self) -> &[SkippedFile] {
        &self.skipped
    }

    /// Numbers of hidden and ignored entries of the given folders; known from the start.
    pub fn skip_counts(&self) -> SkipCounts {
        self.skip_counts
    }

    /// The files that were found in the given folders. An error about one of them is one that a
    /// caller may pass over.
    pub fn found_files(&self) -> &FoundFiles {
        &self.found
    }

    /// The files and folders that are read.
    pub fn roots(&self) -> &InputRoots {
        &self.roots
    }

    /// The sources of the files that are not read, because they have not changed since they had the
    /// stamps in [`ReadOptions::known`].
    pub fn unchanged_files(&self) -> &HashSet<Arc<str>> {
        &self.unchanged
    }

    /// The files that have been read to their end without an error.
    pub fn finished_files(&self) -> &[FinishedFile] {
        &self.finished
    }

    /// Columns in the names of folders (`year=2023`) of which some value is no number, so that all
    /// are texts; known from the start.
    pub fn text_columns(&self) -> &Arc<BTreeSet<String>> {
        &self.text_columns
    }

    /// Notes on the records read so far. A clone goes on with the reader.
    pub fn notes(&self) -> &ReadNotes {
        &self.notes
    }

    fn open_next(&mut self, input: &InputFile) -> Result<OpenInput> {
        let (options, notes) = (&self.options, &self.notes);
        let stamp = stamp_of(input);
        let bytes_read = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes_read);
        let stream = match self.stdin.take() {
            Some(reader) => InputStream::from_reader(reader, input, counter)?,
            None => InputStream::open(input, counter)?,
        };
        let records: Box<dyn Iterator<Item = Result<Document>> + Send> = match input.format {
            FileFormat::Jsonl => Box::new(JsonlReader::open(stream, input, options, notes)?),
            FileFormat::Csv | FileFormat::Tsv => {
                let reader = CsvReader::open(stream, input, options, notes)?;
                let note = reader.note().map(|note| format!("{}: {note}", input.name));
                self.decisions.extend(note);
                Box::new(reader)
            }
            FileFormat::Parquet => {
                let counter = Arc::clone(&bytes_read);
                Box::new(ParquetReader::open(stream, input, counter, options, notes)?)
            }
            FileFormat::Pdf
            | FileFormat::Docx
            | FileFormat::Pptx
            | FileFormat::Xlsx
            | FileFormat::Odt
            | FileFormat::Epub => {
                Box::new(OfficeReader::open(stream, input, &bytes_read, options, notes)?)
            }
            _ => Box::new(std::iter::once(text::read(stream, input, options, notes))),
        };
        let (name, length) = (input.name.clone(), input.length());
        let (source, is_found) = (Arc::clone(&input.source), input.is_found);
        let (has_error, is_empty) = (false, true);
        Ok(OpenInput {
            name,
            source,
            is_found,
            stamp,
            has_error,
            length,
            bytes_read,
            records,
            is_empty,
        })
    }

    /// An error that the system reports about a file of a folder is a defect of that file, unless
    /// reading is strict.
    fn as_defect(&self, error: Error, name: &str, is_found: bool) -> Error {
        match error {
            Error::Io { source, .. } if is_found && !self.options.strict => {
                Error::input(Place::file(name), unreadable(&source))
            }
            error => error,
        }
    }

    fn close(&mut self, bytes: u64) {
        self.done.files_done += 1;
        self.done.bytes_read += bytes;
    }
}

impl Iterator for DocumentReader {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(current) = &mut self.current
                && let Some(next) = current.records.next()
            {
                current.is_empty = false;
                let source = Some(Arc::clone(&current.source));
                return Some(match next {
                    Ok(document) => Ok(Document { source, ..document }),
                    Err(error) => {
                        current.has_error = true;
                        let (name, is_found) = (current.name.clone(), current.is_found);
                        Err(self.as_defect(error, &name, is_found))
                    }
                });
            }
            if let Some(current) = self.current.take() {
                let read = current.bytes_read.load(Ordering::Relaxed);
                self.close(current.length.unwrap_or(read));
                if current.is_empty {
                    let place = Place::file(current.name);
                    return Some(Err(Error::input(place, "no records in this file")));
                }
                if !current.has_error {
                    let OpenInput { name, source, stamp, .. } = current;
                    self.finished.push(FinishedFile { name, source, stamp });
                }
            }
            let input = self.inputs.pop_front()?;
            match self.open_next(&input) {
                Ok(current) => self.current = Some(current),
                Err(error) => {
                    self.close(input.length().unwrap_or(0));
                    return Some(Err(self.as_defect(error, &input.name, input.is_found)));
                }
            }
        }
    }
}

/// The stamp of a regular file now, if a later write changes it in any case.
fn stamp_of(input: &InputFile) -> Option<FileStamp> {
    let Location::Regular { path, .. } = &input.location else { return None };
    let now = SystemTime::now();
    let stamp = FileStamp::of(&std::fs::metadata(path).ok()?)?;
    stamp.is_settled(now).then_some(stamp)
}
