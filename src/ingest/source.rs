//! What was asked for to what will be read: paths, folders and `-` to a list of inputs.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::ReadOptions;
use super::format::{Format, format_names, known_endings};
use crate::error::{Error, Place, Result};

/// A file that was found in a folder and will not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedFile {
    /// The file.
    pub path: PathBuf,
    /// Why it is not read: `unknown type '.docx'`.
    pub reason: String,
}

/// One thing to read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Input {
    /// As the user named it, for messages; `<stdin>` for standard input.
    pub(super) name: String,
    /// What ids and metadata say: [`Input::name`] with `/` and without a leading `./`.
    pub(super) label: String,
    pub(super) format: Format,
    pub(super) bytes: Bytes,
}

impl Input {
    /// The file's length, `None` for what is not a regular file.
    pub(super) fn length(&self) -> Option<u64> {
        match self.bytes {
            Bytes::File(_, length) => Some(length),
            Bytes::Pipe(_) | Bytes::Stdin => None,
        }
    }
}

/// Where an input's bytes come from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Bytes {
    /// A regular file and its length.
    File(PathBuf, u64),
    /// A named pipe or a device: read once, from front to back.
    Pipe(PathBuf),
    Stdin,
}

/// All inputs in reading order, and what was left out.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) inputs: Vec<Input>,
    pub(super) skipped: Vec<SkippedFile>,
}

impl Plan {
    /// The sum of all file lengths, `None` where one is not known.
    pub(super) fn total_bytes(&self) -> Option<u64> {
        self.inputs.iter().map(Input::length).sum()
    }
}

/// Finds and checks everything that `paths` name: it exists, can be opened, has a known format.
///
/// A file that is reached twice is read once, where it was named first.
pub(super) fn plan(paths: &[PathBuf], options: &ReadOptions) -> Result<Plan> {
    if paths.is_empty() {
        return Err(Error::usage(
            "nothing to read: name files or folders, or - for standard input",
        ));
    }
    let mut planner =
        Planner { format: options.format, plan: Plan::default(), seen: HashSet::new() };
    for path in paths {
        if path.as_os_str() == "-" {
            planner.add_stdin()?;
        } else {
            let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
            if metadata.is_dir() {
                planner.add_folder(path)?;
            } else {
                planner.add_file(path, &metadata)?;
            }
        }
    }
    Ok(planner.plan)
}

struct Planner {
    format: Option<Format>,
    plan: Plan,
    /// Real paths of the files in the plan.
    seen: HashSet<PathBuf>,
}

impl Planner {
    fn add_stdin(&mut self) -> Result<()> {
        if self.plan.inputs.iter().any(|input| input.bytes == Bytes::Stdin) {
            return Err(Error::usage("standard input (-) can be read only once"));
        }
        self.plan.inputs.push(Input {
            name: "<stdin>".into(),
            label: "stdin".into(),
            format: self.format.unwrap_or(Format::Jsonl),
            bytes: Bytes::Stdin,
        });
        Ok(())
    }

    fn add_file(&mut self, path: &Path, metadata: &fs::Metadata) -> Result<()> {
        let format = self.format.or_else(|| Format::of_path(path)).ok_or_else(|| {
            Error::usage(format!(
                "{}: {}: name its format with --format ({}); known are {}, each also with .gz",
                path.display(),
                unknown_type(path),
                format_names(),
                known_endings()
            ))
        })?;
        if self.push(path, format, metadata)? == Pushed::Repeated {
            self.skip(path, "is already among the inputs");
        }
        Ok(())
    }

    /// All files below `folder`: hidden ones are passed over, links are followed, those of
    /// unknown type are noted.
    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        let before = self.plan.inputs.len();
        let mut repeated = 0;
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
                continue;
            }
            let Some(format) = self.format.or_else(|| Format::of_path(path)) else {
                self.skip(path, unknown_type(path));
                continue;
            };
            if self.push(path, format, &metadata)? == Pushed::Repeated {
                self.skip(path, "is already among the inputs");
                repeated += 1;
            }
        }
        if self.plan.inputs.len() == before && repeated == 0 {
            let found = self.plan.skipped.iter().filter(|f| f.path.starts_with(folder)).count();
            return Err(Error::input(
                Place::file(folder.display().to_string()),
                format!(
                    "no readable file in this folder ({found} left out): known are {}, \
                     each also with .gz; read all files as one format with --format",
                    known_endings()
                ),
            ));
        }
        Ok(())
    }

    fn push(&mut self, path: &Path, format: Format, metadata: &fs::Metadata) -> Result<Pushed> {
        let bytes = if metadata.is_file() {
            File::open(path).map_err(Error::io("read", path))?;
            if !self.seen.insert(fs::canonicalize(path).map_err(Error::io("read", path))?) {
                return Ok(Pushed::Repeated);
            }
            Bytes::File(path.to_path_buf(), metadata.len())
        } else {
            Bytes::Pipe(path.to_path_buf())
        };
        let (name, label) = (path.display().to_string(), label(path));
        self.plan.inputs.push(Input { name, label, format, bytes });
        Ok(Pushed::New)
    }

    fn skip(&mut self, path: &Path, reason: impl Into<String>) {
        self.plan.skipped.push(SkippedFile { path: path.to_path_buf(), reason: reason.into() });
    }

    /// A link that leads nowhere, or back to a folder above it, is skipped; all else is an error.
    fn skip_link(&mut self, error: walkdir::Error) -> Result<()> {
        let path = error.path().map(Path::to_path_buf).unwrap_or_default();
        if error.loop_ancestor().is_some() {
            self.skip(&path, "a link back to a folder above it");
            return Ok(());
        }
        let is_link = fs::symlink_metadata(&path).is_ok_and(|m| m.file_type().is_symlink());
        if is_link && fs::canonicalize(&path).is_err() {
            self.skip(&path, "a link that leads nowhere");
            return Ok(());
        }
        let source = error.into_io_error().unwrap_or_else(|| std::io::Error::other("unreadable"));
        Err(Error::io("read", path)(source))
    }
}

#[derive(PartialEq)]
enum Pushed {
    New,
    Repeated,
}

/// Whether a folder holds an index: the one that is being written, say.
fn is_index(folder: &Path) -> bool {
    folder.join("manifest.json").exists() && folder.join("documents.db").exists()
}

fn is_hidden(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(b".")
}

/// `/`-separated, without `./` in front.
fn label(path: &Path) -> String {
    let mut label = String::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::RootDir => label.push('/'),
            Component::Prefix(_) | Component::ParentDir | Component::Normal(_) => {
                if !label.is_empty() && !label.ends_with('/') {
                    label.push('/');
                }
                label.push_str(&component.as_os_str().to_string_lossy());
            }
        }
    }
    label
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
            format!("unknown type '.{}'{hint}", super::shown(extension))
        }
        _ => "no file name ending that tells the type".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_of_a_path_has_slashes_and_no_leading_dot() {
        let cases = [
            ("./docs//a.txt", "docs/a.txt"),
            ("docs/./b.txt", "docs/b.txt"),
            ("../up.txt", "../up.txt"),
            ("/tmp/x.md", "/tmp/x.md"),
            ("x", "x"),
        ];
        for (path, expected) in cases {
            assert_eq!(label(Path::new(path)), expected);
        }
    }
}
