//! Paths, folders and `-` to the list of inputs that will be read.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use warpseek_error::{Error, Place, Result};

use crate::format::{FileFormat, format_names, known_endings};
use crate::message::{escaped, shown};
use crate::notes::ReadNotes;
use crate::options::ReadOptions;
use crate::partition::{Partitions, text_columns};
use crate::paths::{Base, InputRoots, STREAM_SOURCE, resolve_folder, text};
use crate::skips::{FoundFiles, SkippedFile};
use crate::tables;
use crate::walk::{self, FoundEntry, SkipCounts};

/// One input to read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InputFile {
    /// The name that the user gave, for messages; `<stdin>` for standard input.
    pub(crate) name: String,
    /// The name for ids and metadata: the resolved path from the base, or `stdin`.
    pub(crate) label: String,
    /// The source of its documents: as the label, but a link below a named folder is not resolved.
    pub(crate) source: Arc<str>,
    pub(crate) format: FileFormat,
    pub(crate) location: Location,
    pub(crate) content: Content,
    /// True if the file was found in a folder, and was not named itself.
    pub(crate) is_found: bool,
    /// The absolute path, in which folders may be columns; empty for a stream.
    pub(crate) path: String,
    /// Columns in folder names that some input has with a value that is no number.
    pub(crate) text_partitions: Arc<BTreeSet<String>>,
}

/// The meaning of a file's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Documents,
    /// Queries, or other texts that are not stored.
    Queries,
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

    /// The columns in the names of the file's folders.
    pub(crate) fn partitions(&self, notes: &ReadNotes) -> Partitions {
        match self.location {
            Location::Stdin => Partitions::default(),
            _ => Partitions::of_path(&self.name, &self.path, &self.text_partitions, notes),
        }
    }
}

/// All inputs in reading order, and the files that were left out.
#[derive(Debug, Default)]
pub(crate) struct InputList {
    pub(crate) inputs: Vec<InputFile>,
    pub(crate) skipped: Vec<SkippedFile>,
    /// Files that have not changed since they were read.
    pub(crate) unchanged: Vec<InputFile>,
    /// Sources of the same files under other paths, by a link.
    pub(crate) unchanged_links: Vec<Arc<str>>,
    pub(crate) roots: InputRoots,
    /// Columns in folder names that some input has with a value that is no number.
    pub(crate) text_columns: Arc<BTreeSet<String>>,
    /// Numbers of hidden and ignored entries of folders.
    pub(crate) skip_counts: SkipCounts,
    /// Sources of what was found in folders and could not be opened.
    unread: Vec<String>,
    /// Names in messages of the files that were named and are read as those of folders are.
    named: HashSet<String>,
    base: Base,
    /// The format of all inputs, if it was given.
    format: Option<FileFormat>,
    /// The regular files by their real paths: their places in `inputs`, unless they are unchanged.
    seen: HashMap<PathBuf, Option<usize>>,
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
        let base = Base::new(options.base.as_deref())?;
        let roots = InputRoots::new(&base, &options.known.elsewhere);
        let mut list = Self { format: options.format, base, roots, ..Self::default() };
        for path in paths {
            if path.as_os_str() == "-" {
                if list.inputs.iter().any(|input| input.location == Location::Stdin) {
                    return Err(Error::usage("standard input (-) can be read only once"));
                }
                list.add_stdin("<stdin>");
                continue;
            }
            let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
            let real = fs::canonicalize(path).map_err(Error::io("read", path))?;
            if metadata.is_dir() || metadata.is_file() {
                tables::check_input(&real, metadata.is_dir())?;
            }
            if metadata.is_dir() {
                list.add_folder(path, options)?;
                continue;
            }
            let Some(format) = list.format_of(path) else {
                return Err(Error::usage(format!(
                    "{}: {}: name its format with --format ({}); known are {}, each also with .gz",
                    escaped(&text(path)),
                    unknown_type(path),
                    format_names(),
                    known_endings()
                )));
            };
            if metadata.is_file() {
                list.add_named(path, format, &metadata, options)?;
            } else {
                list.add_pipe(path, format)?;
            }
        }
        let files = list.inputs.iter().chain(&list.unchanged);
        let texts = Arc::new(text_columns(files.map(|input| input.path.as_str())));
        if texts != options.known.text_columns {
            // The type of a column in folder names has changed, in all files.
            list.inputs.append(&mut list.unchanged);
            list.unchanged_links.clear();
        }
        list.text_columns = Arc::clone(&texts);
        list.inputs.iter_mut().for_each(|input| input.text_partitions = Arc::clone(&texts));
        Ok(list)
    }

    /// Files that were found and checked before.
    pub(crate) fn from_files(inputs: Vec<InputFile>, text_columns: Arc<BTreeSet<String>>) -> Self {
        Self { inputs, text_columns, ..Self::default() }
    }

    /// A stream in place of standard input, called `name` in messages.
    pub(crate) fn stream(name: &str, options: &ReadOptions) -> Self {
        let mut list = Self { format: options.format, ..Self::default() };
        list.add_stdin(name);
        list
    }

    /// Adds a regular file that was named itself.
    fn add_named(
        &mut self,
        path: &Path,
        format: FileFormat,
        metadata: &Metadata,
        options: &ReadOptions,
    ) -> Result<()> {
        let source = resolve_folder(path)?;
        self.roots.add(&source);
        if !options.named_as_found {
            return self.add_file((path, &source), format, metadata, false, options);
        }
        self.named.insert(name_in_messages(path));
        self.add_file((path, &source), format, metadata, true, options)
    }

    fn add_stdin(&mut self, name: &str) {
        // `<stdin>` in messages, `stdin` in ids.
        let label = name.trim_matches(['<', '>']).to_owned();
        let format = self.format.unwrap_or(FileFormat::Jsonl);
        self.add_stream(name.to_owned(), label, format, Location::Stdin);
    }

    fn add_pipe(&mut self, path: &Path, format: FileFormat) -> Result<()> {
        // Resolving `/dev/fd/63` would give a name that is different in every run.
        let label = self.base.name(&std::path::absolute(path).map_err(Error::io("read", path))?);
        self.add_stream(escaped(&text(path)), label, format, Location::Pipe(path.into()));
        Ok(())
    }

    fn add_stream(&mut self, name: String, label: String, format: FileFormat, location: Location) {
        self.roots.add_stream();
        let (source, content) = (STREAM_SOURCE.into(), Content::Documents);
        let text_partitions = Arc::default();
        let (path, is_found) = (String::new(), false);
        self.inputs.push(InputFile {
            name,
            label,
            source,
            format,
            location,
            content,
            is_found,
            path,
            text_partitions,
        });
    }

    /// The files that were found in folders.
    pub(crate) fn found_files(&self) -> FoundFiles {
        let found = self.inputs.iter().filter(|input| input.is_found);
        let sources: HashMap<_, _> =
            found.map(|input| (input.name.clone(), Arc::clone(&input.source))).collect();
        FoundFiles {
            sources: Arc::new(sources),
            unread: Arc::new(self.unread.clone()),
            named: Arc::new(self.named.clone()),
        }
    }

    /// Adds all files below `folder`, links followed. Files of unknown type are skipped, and unless
    /// reading is strict, files and folders that cannot be opened.
    fn add_folder(&mut self, folder: &Path, options: &ReadOptions) -> Result<()> {
        let n_files = |list: &Self| list.inputs.len() + list.unchanged.len();
        let before = n_files(self);
        let root = resolve_folder(folder)?;
        self.roots.add(&root);
        let counts = walk::walk(folder, &options.walk, &mut |found| {
            let (path, failed) = match found {
                FoundEntry::File(path) => match self.add_found(folder, &root, &path, options) {
                    Err(Error::Io { source, .. }) if !options.strict => (path, source),
                    added => return added,
                },
                FoundEntry::Skipped(file) => {
                    self.skipped.push(file);
                    return Ok(());
                }
                FoundEntry::Unreadable(path, error) if options.strict => {
                    return Err(Error::io("read", path)(error));
                }
                FoundEntry::Unreadable(path, error) => (path, Arc::new(error)),
            };
            let source = root.join(path.strip_prefix(folder).unwrap_or(&path));
            self.unread.push(self.base.name(&source));
            self.skip(&path, unreadable(&failed));
            Ok(())
        })?;
        self.skip_counts.hidden += counts.hidden;
        self.skip_counts.ignored += counts.ignored;
        self.skip_counts.unmatched += counts.unmatched;
        let is_input = |file: &SkippedFile| {
            let is_emptied = options.named_as_found && file.reason == BLANK;
            file.path.starts_with(folder) && (file.reason == TWICE || is_emptied)
        };
        let found = n_files(self) > before || self.skipped.iter().any(is_input);
        if found {
            return Ok(());
        }
        let skipped: Vec<_> = self.skipped.iter().filter(|f| f.path.starts_with(folder)).collect();
        Err(Error::input(Place::file(name_in_messages(folder)), no_file(&skipped, counts, options)))
    }

    /// Adds a file that was found in `folder`, whose path is `root`, with the folders above it
    /// resolved.
    fn add_found(
        &mut self,
        folder: &Path,
        root: &Path,
        path: &Path,
        options: &ReadOptions,
    ) -> Result<()> {
        let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
        if !metadata.is_file() {
            self.skip(path, "not a regular file");
        } else if let Some(format) = self.format_of(path) {
            let source = root.join(path.strip_prefix(folder).unwrap_or(path));
            self.add_file((path, &source), format, &metadata, true, options)?;
        } else {
            self.skip(path, unknown_type(path));
        }
        Ok(())
    }

    /// Adds a regular file with its source, unless it is among the inputs already.
    fn add_file(
        &mut self,
        (path, source): (&Path, &Path),
        format: FileFormat,
        metadata: &Metadata,
        is_found: bool,
        options: &ReadOptions,
    ) -> Result<()> {
        let path_text = text(source);
        let source: Arc<str> = self.base.name(source).into();
        if is_found && !self.roots.covers(&source) {
            return Ok(());
        }
        let is_unchanged = options.known.is_unchanged(&source, metadata);
        if !is_unchanged {
            File::open(path).map_err(Error::io("read", path))?;
            if is_found && !options.strict && is_blank(path, metadata) {
                self.skip(path, BLANK);
                return Ok(());
            }
        }
        let real = fs::canonicalize(path).map_err(Error::io("read", path))?;
        let label = self.base.name(&real);
        if let Some(at) = self.seen.get(&real) {
            // A file that is named itself is strict, also if its folder came first.
            match *at {
                Some(at) => self.inputs[at].is_found &= is_found,
                // Its documents can belong to either path.
                None => self.unchanged_links.push(source),
            }
            self.skip(path, TWICE);
            return Ok(());
        }
        self.seen.insert(real, (!is_unchanged).then_some(self.inputs.len()));
        let location = Location::Regular { path: path.to_path_buf(), length: metadata.len() };
        let name = name_in_messages(path);
        let content = Content::Documents;
        let text_partitions = Arc::default();
        let list = if is_unchanged { &mut self.unchanged } else { &mut self.inputs };
        list.push(InputFile {
            name,
            label,
            source,
            format,
            location,
            content,
            is_found,
            path: path_text,
            text_partitions,
        });
        Ok(())
    }

    fn format_of(&self, path: &Path) -> Option<FileFormat> {
        self.format.or_else(|| FileFormat::of_path(path))
    }

    fn skip(&mut self, path: &Path, reason: impl Into<String>) {
        self.skipped.push(SkippedFile { path: path.to_path_buf(), reason: reason.into() });
    }
}

/// The reason for a file of a folder that holds nothing.
const BLANK: &str = "empty";

/// Maximum size in bytes of a file that is empty but for white space.
const MAX_BLANK: u64 = 4096;

/// True if the file holds only white space and a byte order mark, in few bytes. False if it cannot
/// be read.
fn is_blank(path: &Path, metadata: &Metadata) -> bool {
    metadata.len() == 0
        || metadata.len() <= MAX_BLANK
            && fs::read(path).is_ok_and(|bytes| {
                bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes).trim_ascii().is_empty()
            })
}

/// The name of a file or folder in messages, as in [`Place::file`].
pub fn name_in_messages(path: &Path) -> String {
    escaped(&path.to_str().map_or_else(|| text(path), str::to_owned))
}

/// The reason for the second time that a file is reached.
const TWICE: &str = "is already among the inputs";

/// The reason for a file or folder that cannot be opened or read.
pub(crate) fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "cannot be read: permission denied".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

/// The reason for a folder in which no file can be read; `skipped` are left out by name.
fn no_file(skipped: &[&SkippedFile], counts: SkipCounts, options: &ReadOptions) -> String {
    let SkipCounts { hidden, ignored, unmatched } = counts;
    let mut details = format!("{} left out", skipped.len());
    if let Some(file) = skipped.first() {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        details.push_str(&format!(", first '{}', {}", shown(&name), file.reason));
    }
    for (count, what) in [(ignored.saturating_sub(unmatched), "ignored"), (hidden, "hidden")] {
        if count > 0 {
            details.push_str(&format!(", {count} {what}"));
        }
    }
    if unmatched > 0 {
        let globs: Vec<_> = options.walk.globs.iter().map(|g| format!("'{}'", shown(g))).collect();
        let globs = globs.join(", ");
        return format!(
            "no readable file in this folder matches --glob {globs}, which left out {unmatched} \
             files and folders ({details}): correct the patterns, or leave --glob out"
        );
    }
    format!(
        "no readable file in this folder ({details}): known are {}, each also with .gz; read all \
         files as one format with --format",
        known_endings()
    )
}

/// The reason for a file whose name does not tell its format.
pub(crate) fn unknown_type(path: &Path) -> String {
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
