//! Options of reading.

use std::path::PathBuf;

use warpseek_error::{Error, Result};

use crate::format::FileFormat;
use crate::office::ExtractOptions;
use crate::stamps::KnownFiles;
use crate::walk::WalkOptions;

/// Default limit on one record: 16 MiB.
pub const DEFAULT_MAX_RECORD_BYTES: u64 = 16 << 20;

/// The end of a record that is too long is looked for within this many times the limit.
pub(crate) const SKIPPED_RECORDS: u64 = 64;

/// Options for [`open`](crate::open) and [`read_stream`](crate::read_stream).
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// The format of every input. `None` goes by the name of a file and reads standard input as
    /// JSON lines. With a format, every file of a folder is read, whatever its name.
    pub format: Option<FileFormat>,
    /// Names of the fields with id, text and title. Text, Markdown and HTML files have no fields.
    pub fields: FieldMap,
    /// The first line of csv and tsv files: column names or a record.
    pub header: HeaderRule,
    /// The delimiter of csv and tsv files. `None` is a tab for tsv; for csv the comma, unless the
    /// first lines are a table with `;`, tabs or `|` as the delimiter.
    pub delimiter: Option<u8>,
    /// Maximum size of a record (a line, a row, a text file) in bytes after decompression, at
    /// least 1. A longer one is an error, and reading continues after it. PDF, Office and EPUB
    /// files have the limits of [`ReadOptions::extract`] instead.
    pub max_record_bytes: u64,
    /// Folder for the paths in ids and sources: a file below it has the path from here, any other
    /// file its absolute path. `None` is the working directory.
    pub base: Option<PathBuf>,
    /// The files of folders that are read.
    pub walk: WalkOptions,
    /// Files that are passed over: those that have not changed, and those that others read.
    pub known: KnownFiles,
    /// True if a file or folder below a named folder that cannot be opened is an error. Otherwise
    /// it is skipped ([`DocumentReader::skipped_files`](crate::DocumentReader::skipped_files)).
    pub strict: bool,
    /// True if the files that are named themselves are read as those below folders are, as by a run
    /// that reads inputs again: an error about one does not keep others from being read, and files
    /// can have become empty.
    pub named_as_found: bool,
    /// Options of reading PDF, Office and EPUB files.
    pub extract: ExtractOptions,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            format: None,
            fields: FieldMap::default(),
            header: HeaderRule::default(),
            delimiter: None,
            max_record_bytes: DEFAULT_MAX_RECORD_BYTES,
            base: None,
            walk: WalkOptions::default(),
            known: KnownFiles::default(),
            strict: false,
            named_as_found: false,
            extract: ExtractOptions::default(),
        }
    }
}

impl ReadOptions {
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(b'"' | b'\n' | b'\r' | 0 | 128..) = self.delimiter {
            return Err(Error::usage(NO_DELIMITER));
        }
        self.walk.check()?;
        match self.max_record_bytes {
            0 => Err(Error::usage("--max-record-bytes must be at least 1")),
            _ => Ok(()),
        }
    }
}

const NO_DELIMITER: &str =
    "--delimiter must be one ASCII character other than a quote or line break, or the word tab";

/// Reads a delimiter: a character, `tab` or `\t`.
///
/// # Errors
///
/// [`Error::Usage`] for anything else.
pub fn parse_delimiter(text: &str) -> Result<u8> {
    match *text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r' | 0) => Ok(byte),
        _ if matches!(text, "tab" | "\\t") => Ok(b'\t'),
        _ => Err(Error::usage(NO_DELIMITER)),
    }
}

/// The meaning of the first line of csv and tsv files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HeaderRule {
    /// Decided by the line itself.
    ///
    /// A document file has a header, except a tsv file without any name in [`FieldMap`] whose first
    /// line is an integer, a tab, and a text of several words (MS MARCO's `collection.tsv`).
    ///
    /// A query file has one if a name in [`FieldMap`] is given, or if a cell is a name that is
    /// known for an id, a text or a title ([`QueryFile`](crate::QueryFile)), and none an integer.
    #[default]
    Auto,
    /// No header: the first line is a record. One column is the text, two are id and text. With
    /// more columns, or with names in [`FieldMap`], they are called `column_1`, `column_2`, ...
    Absent,
}

/// Names of fields, where the user gives them. A field that is not named is found by its name.
///
/// A name with dots reaches into nested objects (`meta.title`), unless a field has just that name.
/// The first record must have every field that is named here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldMap {
    /// The id; else the first of `id`, `_id`, `doc_id`, `docid`, `docno`, `pid`.
    pub id: Option<String>,
    /// The text; else the first of `text`, `contents`, `content`, `body`, `passage`, `chunk`,
    /// `abstract`; else `question` and `answer` (in any case), which become one text.
    pub text: Option<String>,
    /// The title; else the first of `title`, `headline`, `name`.
    pub title: Option<String>,
    /// The fields that are kept as metadata, under the names given here; `None` keeps all that
    /// did not become id, text or title. A record that lacks one lacks it in its metadata.
    pub metadata: Option<Vec<String>>,
}

impl FieldMap {
    /// True if any field is named.
    pub(crate) fn has_names(&self) -> bool {
        let names = [&self.id, &self.text, &self.title];
        names.iter().any(|name| name.is_some()) || self.metadata.is_some()
    }
}
