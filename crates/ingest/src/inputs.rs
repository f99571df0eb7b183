//! Paths, folders and `-` to the list of inputs that will be read.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::path::{Component, MAIN_SEPARATOR, Path, PathBuf};

use walkdir::{DirEntry, WalkDir};
use warpseek_error::{Error, Place, Result};

use crate::format::{FileFormat, format_names, known_endings};
use crate::message::shown;
use crate::options::ReadOptions;

/// A file that was found in a folder and will not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedFile {
    /// The file.
    pub path: PathBuf,
    /// The reason: `unknown type '.docx'`.
    pub reason: String,
}

/// One input to read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InputFile {
    /// The name that the user gave, for messages; `<stdin>` for standard input.
    pub(crate) name: String,
    /// The name for ids and metadata: with `/` and without a leading `./`.
    pub(crate) label: String,
    pub(crate) format: FileFormat,
    pub(crate) location: Location,
}

/// The place of an input's bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Location {
    Regular {
        path: PathBuf,
        length: u64,
    },
    /// A named pipe or a device: read once, from front to back.
    Pipe(PathBuf),
    Stdin,
}

impl InputFile {
    /// The file's length; `None` for what is not a regular file.
    pub(crate) fn length(&self) -> Option<u64> {
        match self.location {
            Location::Regular { length, .. } => Some(length),
            Location::Pipe(_) | Location::Stdin => None,
        }
    }
}

/// All inputs in reading order, and the files that were left out.
#[derive(Debug, Default)]
pub(crate) struct InputList {
    pub(crate) inputs: Vec<InputFile>,
    pub(crate) skipped: Vec<SkippedFile>,
    /// The format of all inputs, if it was given.
    format: Option<FileFormat>,
    /// Real paths of the regular files.
    seen: HashSet<PathBuf>,
}

impl InputList {
    /// Finds and checks everything that `paths` name: it exists, can be opened, has a known format.
    ///
    /// A file that is reached twice is read once, where it was named first.
    pub(crate) fn find(paths: &[PathBuf], options: &ReadOptions) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::usage(
                "nothing to read: name files or folders, or - for standard input",
            ));
        }
        let mut list = Self { format: options.format, ..Self::default() };
        for path in paths {
            if path.as_os_str() == "-" {
                if list.inputs.iter().any(|input| input.location == Location::Stdin) {
                    return Err(Error::usage("standard input (-) can be read only once"));
                }
                list.add_stdin("<stdin>");
                continue;
            }
            let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
            if metadata.is_dir() {
                list.add_folder(path)?;
                continue;
            }
            let Some(format) = list.format_of(path) else {
                return Err(Error::usage(format!(
                    "{}: {}: name its format with --format ({}); known are {}, each also with .gz",
                    path.display(),
                    unknown_type(path),
                    format_names(),
                    known_endings()
                )));
            };
            list.add_file(path, format, &metadata)?;
        }
        Ok(list)
    }

    /// A stream in place of standard input, called `name` in messages.
    pub(crate) fn stream(name: &str, options: &ReadOptions) -> Self {
        let mut list = Self { format: options.format, ..Self::default() };
        list.add_stdin(name);
        list
    }

    fn add_stdin(&mut self, name: &str) {
        self.inputs.push(InputFile {
            name: name.to_owned(),
            // `<stdin>` in messages, `stdin` in ids.
            label: name.trim_matches(['<', '>']).to_owned(),
            format: self.format.unwrap_or(FileFormat::Jsonl),
            location: Location::Stdin,
        });
    }

    /// Adds all files below `folder`. Hidden ones are left out, links are followed, files of
    /// unknown type are skipped.
    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let mut found = false;
        let mut entries = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.skip_link(error)?;
                    continue;
                }
            };
            let path = entry.path();
            if entry.file_type().is_dir() {
                if entry.depth() > 0 && is_hidden(&entry) {
                    entries.skip_current_dir();
                } else if is_index(path) {
                    self.skip(path, "this is an index of warpseek, not a folder of documents");
                    entries.skip_current_dir();
                }
                continue;
            }
            if is_hidden(&entry) {
                continue;
            }
            let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
            if !metadata.is_file() {
                self.skip(path, "not a regular file");
            } else if let Some(format) = self.format_of(path) {
                self.add_file(path, format, &metadata)?;
                found = true;
            } else {
                self.skip(path, unknown_type(path));
            }
        }
        if found {
            return Ok(());
        }
        let left_out = self.skipped.iter().filter(|f| f.path.starts_with(folder)).count();
        Err(Error::input(
            Place::file(folder.display().to_string()),
            format!(
                "no readable file in this folder ({left_out} left out): known are {}, each also \
                 with .gz; read all files as one format with --format",
                known_endings()
            ),
        ))
    }

    fn add_file(&mut self, path: &Path, format: FileFormat, metadata: &Metadata) -> Result<()> {
        let path = path.to_path_buf();
        let (name, label) = (escaped(&path), label(&path));
        let location = if metadata.is_file() {
            File::open(&path).map_err(Error::io("read", &path))?;
            let real = fs::canonicalize(&path).map_err(Error::io("read", &path))?;
            if !self.seen.insert(real) {
                self.skip(&path, "is already among the inputs");
                return Ok(());
            }
            Location::Regular { path, length: metadata.len() }
        } else {
            Location::Pipe(path)
        };
        self.inputs.push(InputFile { name, label, format, location });
        Ok(())
    }

    fn format_of(&self, path: &Path) -> Option<FileFormat> {
        self.format.or_else(|| FileFormat::of_path(path))
    }

    fn skip(&mut self, path: &Path, reason: impl Into<String>) {
        self.skipped.push(SkippedFile { path: path.to_path_buf(), reason: reason.into() });
    }

    /// Skips a link that leads nowhere, or back to a folder above it; all else is an error.
    fn skip_link(&mut self, error: walkdir::Error) -> Result<()> {
        let path = error.path().map(Path::to_path_buf).unwrap_or_default();
        let is_link = fs::symlink_metadata(&path).is_ok_and(|m| m.file_type().is_symlink());
        if error.loop_ancestor().is_some() {
            self.skip(&path, "a link back to a folder above it");
        } else if is_link && fs::canonicalize(&path).is_err() {
            self.skip(&path, "a link that leads nowhere");
        } else {
            let source = error.into_io_error();
            let source = source.unwrap_or_else(|| std::io::Error::other("unreadable"));
            return Err(Error::io("read", path)(source));
        }
        Ok(())
    }
}

/// True if a folder is an index: the one that is being written, say.
fn is_index(folder: &Path) -> bool {
    folder.join("manifest.json").exists() && folder.join("documents.db").exists()
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// The path with `/` between its parts and without `./`.
fn label(path: &Path) -> String {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    escaped(&parts.collect::<PathBuf>()).replace(MAIN_SEPARATOR, "/")
}

/// A path as text. Each byte that is not UTF-8 is written as `\xFF`, so that different files have
/// different names.
fn escaped(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02X}")));
    }
    text
}

fn unknown_type(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => {
            let hint = match extension.to_ascii_lowercase().as_str() {
                "zst" | "bz2" | "xz" | "zip" | "lz4" => " (decompress it first)",
                _ => "",
            };
            format!("unknown type '.{}'{hint}", shown(extension))
        }
        _ => "no file name ending that tells the type".into(),
    }
}
