//! Files that one process lists and others read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use warpseek_error::{Error, Place, Result};

use crate::format::FileFormat;
use crate::inputs::{Content, InputFile, InputList, Location, unknown_type};
use crate::message::escaped;
use crate::options::ReadOptions;
use crate::reader::DocumentReader;

/// A regular file among the inputs: all that another process needs in order to read the same
/// documents from it, at the same path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedFile {
    /// The path to read.
    pub path: PathBuf,
    /// The name in messages.
    pub name: String,
    /// The name in ids and metadata.
    pub label: String,
    /// See [`Document::source`](crate::Document::source).
    source: String,
    /// Name of the format.
    format: String,
    /// In bytes.
    pub length: u64,
    /// Time of the last write in nanoseconds since 1970-01-01 UTC; none if it is not compared.
    written: Option<i64>,
    /// True if it was found in a folder, and was not named itself.
    is_found: bool,
    /// The absolute path, in which folders may be columns.
    columns_path: String,
}

impl ListedFile {
    /// An object of a store, such as `s3://bucket/key`, which has its address in ids. Its `path` is
    /// to be set to a local copy before it is read. `is_found` is true if it was found below an
    /// address.
    ///
    /// # Errors
    ///
    /// The reason if the address does not tell a known format.
    pub fn of_object(address: &str, length: u64, is_found: bool) -> Result<Self, String> {
        let path = Path::new(address);
        let format = FileFormat::of_path(path).ok_or_else(|| unknown_type(path))?;
        Ok(Self {
            path: PathBuf::new(),
            name: escaped(address),
            label: address.to_owned(),
            source: address.to_owned(),
            format: format.name().to_owned(),
            length,
            written: None,
            is_found,
            columns_path: address.to_owned(),
        })
    }

    /// True if the file may hold many documents with ids of their own.
    pub fn has_records(&self) -> bool {
        self.format.parse().is_ok_and(|format: FileFormat| format.has_records())
    }

    /// True if its documents are pages, slides, sheets or sections.
    pub fn has_parts(&self) -> bool {
        self.format.parse().is_ok_and(|format: FileFormat| format.has_parts())
    }

    /// True if it was found in a folder, so that an error about it need not end a run.
    pub fn is_found(&self) -> bool {
        self.is_found
    }

    fn of(input: &InputFile) -> Result<Self> {
        let Location::Regular { path, length } = &input.location else {
            return Err(Error::usage(format!(
                "{}: a stream cannot be read on several machines: write it to a file first",
                input.name
            )));
        };
        if path.to_str().is_none() {
            let reason = "its name is not UTF-8, and cannot be told to other machines: rename it";
            return Err(Error::input(Place::file(&input.name), reason));
        }
        Ok(Self {
            path: std::path::absolute(path).map_err(Error::io("read", path))?,
            name: input.name.clone(),
            label: input.label.clone(),
            source: input.source.to_string(),
            format: input.format.name().to_owned(),
            length: *length,
            written: Some(written(path)?),
            is_found: input.is_found,
            columns_path: input.path.clone(),
        })
    }

    /// Checks that this is the file that was listed, and returns it as an input.
    fn input(&self, text_partitions: &Arc<BTreeSet<String>>) -> Result<InputFile> {
        let length = std::fs::metadata(&self.path).map_err(Error::io("read", &self.path))?.len();
        if length != self.length
            || self.written.is_some_and(|w| written(&self.path).ok() != Some(w))
        {
            return Err(Error::input(
                Place::file(&self.name),
                "it is another file than the one that was listed (size or time of the last write \
                 differ): if it has changed, begin again; else give all machines the same file at \
                 this path",
            ));
        }
        let location = Location::Regular { path: self.path.clone(), length };
        Ok(InputFile {
            name: self.name.clone(),
            label: self.label.clone(),
            source: self.source.as_str().into(),
            format: self.format.parse()?,
            location,
            content: Content::Documents,
            is_found: self.is_found,
            path: self.columns_path.clone(),
            text_partitions: Arc::clone(text_partitions),
        })
    }
}

/// Time of the last write of a file in nanoseconds since 1970-01-01 UTC; 0 if it is before that or
/// the system does not tell it.
fn written(path: &Path) -> Result<i64> {
    let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Ok(since.map_or(0, |since| since.as_nanos().try_into().unwrap_or(i64::MAX)))
}

impl DocumentReader {
    /// The files that it is about to read, in their order.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a stream, [`Error::Input`] for a file whose name is not UTF-8,
    /// [`Error::Io`] for one that is gone.
    pub fn listed_files(&self) -> Result<Vec<ListedFile>> {
        self.inputs.iter().map(ListedFile::of).collect()
    }
}

/// Opens files that [`DocumentReader::listed_files`] of another process, or
/// [`ListedFile::of_object`], has listed. `text_columns` are
/// [those](DocumentReader::text_columns) of all listed files, of which these may be a part.
///
/// # Errors
///
/// [`Error::Usage`] for invalid options; [`Error::Io`] for a file that is missing;
/// [`Error::Input`] for one that is not the one that was listed.
pub fn open_listed(
    files: &[ListedFile],
    text_columns: &BTreeSet<String>,
    options: &ReadOptions,
) -> Result<DocumentReader> {
    options.check()?;
    let text_columns = Arc::new(text_columns.clone());
    let inputs: Result<_> = files.iter().map(|file| file.input(&text_columns)).collect();
    Ok(DocumentReader::new(InputList::from_files(inputs?, text_columns), None, options))
}

/// The columns in the names of folders of which some value is no number, as
/// [`DocumentReader::text_columns`], of files that were listed.
pub fn text_columns_of(files: &[ListedFile]) -> BTreeSet<String> {
    crate::partition::text_columns(files.iter().map(|file| file.columns_path.as_str()))
}
