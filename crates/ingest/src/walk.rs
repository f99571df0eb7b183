//! The files of a folder, by the crate `ignore`, which ripgrep uses.
//!
//! Ignore files are `.gitignore` (also without a `.git` folder), `.git/info/exclude`, `.ignore` and
//! `.warpseekignore`, each in the named folder and below. Those above it and the user's own git
//! settings do not count: what is read depends on the folder alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ignore::overrides::{Override, OverrideBuilder};
use ignore::{DirEntry, WalkBuilder};
use warpseek_error::{Error, Result};

use crate::skips::SkippedFile;
use crate::tables;

/// The name of warpseek's own ignore files.
const IGNORE_FILE: &str = ".warpseekignore";

/// The reason for folders of [`is_tool_folder`].
const TOOL_FOLDER: &str = "a folder of a tool (node_modules, target, venv, __pycache__)";

/// Options of the walk through a folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalkOptions {
    /// True if ignore files do not count, and folders of tools are read too.
    pub no_ignore: bool,
    /// Patterns for paths, in the syntax of `.gitignore`. Files that match a pattern with `!` in
    /// front are left out. If there are patterns without `!`, only files that match one are read.
    /// The last pattern that matches a path decides, before any ignore file.
    pub globs: Vec<String>,
}

impl WalkOptions {
    /// Checks what needs no folder.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an empty pattern.
    pub(crate) fn check(&self) -> Result<()> {
        let is_empty = |glob: &&String| glob.trim_start_matches('!').trim().is_empty();
        match self.globs.iter().find(is_empty) {
            None => Ok(()),
            Some(glob) => Err(Error::usage(format!(
                "--glob '{glob}' names no file: give a pattern like '*.md', or leave the option out"
            ))),
        }
    }
}

/// Numbers of entries that were left out and are not listed by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SkipCounts {
    /// Files and folders whose names begin with a dot.
    pub hidden: u64,
    /// Files and folders that an ignore file, or a pattern of [`WalkOptions::globs`], leaves out.
    pub ignored: u64,
    /// Those of `ignored` that the patterns of [`WalkOptions::globs`] leave out.
    pub unmatched: u64,
}

/// A file or folder that the walk found.
pub(crate) enum FoundEntry {
    File(PathBuf),
    Skipped(SkippedFile),
    /// A file or folder that cannot be read.
    Unreadable(PathBuf, io::Error),
}

/// All files below `folder`, by the order of their names. Links are followed.
///
/// # Errors
///
/// [`Error::Usage`] for an invalid pattern; the errors of [`tables::check_folder`]; those of
/// `take`.
pub(crate) fn walk(
    folder: &Path,
    options: &WalkOptions,
    take: &mut dyn FnMut(FoundEntry) -> Result<()>,
) -> Result<SkipCounts> {
    if is_index(folder) {
        take(FoundEntry::Skipped(skipped(folder, INDEX_FOLDER)))?;
        return Ok(SkipCounts::default());
    }
    let globs = overrides(folder, &options.globs)?;
    let rejected: Arc<Mutex<Vec<SkippedFile>>> = Arc::default();
    let mut builder = WalkBuilder::new(folder);
    builder
        .standard_filters(false)
        .hidden(true)
        .follow_links(true)
        .sort_by_file_name(std::ffi::OsStr::cmp)
        .overrides(globs.clone())
        .filter_entry({
            let (rejected, no_ignore) = (Arc::clone(&rejected), options.no_ignore);
            move |entry| match reason_against(entry, no_ignore) {
                // A pattern of `globs` does not include hidden files.
                None => entry.depth() == 0 || !is_hidden(entry.path()),
                Some(reason) => {
                    let file = skipped(entry.path(), reason);
                    rejected.lock().unwrap_or_else(PoisonError::into_inner).push(file);
                    false
                }
            }
        });
    if !options.no_ignore {
        builder.ignore(true).git_ignore(true).git_exclude(true).require_git(false);
        builder.add_custom_ignore_filename(IGNORE_FILE);
    }
    let take_rejected =
        || std::mem::take(&mut *rejected.lock().unwrap_or_else(PoisonError::into_inner));
    let (mut there, mut seen) = (SkipCounts::default(), SkipCounts::default());
    let mut count_seen = |path: &Path| match is_hidden(path) {
        true => seen.hidden += 1,
        false => seen.ignored += 1,
    };
    for entry in builder.build() {
        for file in take_rejected() {
            count_seen(&file.path);
            take(FoundEntry::Skipped(file))?;
        }
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let (found, is_link) = of_error(error, folder);
                if let (
                    FoundEntry::Skipped(SkippedFile { path, .. }) | FoundEntry::Unreadable(path, _),
                    true,
                ) = (&found, is_link)
                {
                    count_seen(path);
                }
                take(found)?;
                continue;
            }
        };
        if let Some(error) = entry.error() {
            let reason = "an ignore file with an invalid pattern";
            take(FoundEntry::Skipped(skipped(&folder_of(error, entry.path()), reason)))?;
        }
        if entry.depth() > 0 {
            count_seen(entry.path());
        }
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            tables::check_folder(entry.path())?;
            for child in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
                if is_hidden(Path::new(&child.file_name())) {
                    there.hidden += 1;
                    continue;
                }
                there.ignored += 1;
                let is_dir = || child.file_type().is_ok_and(|kind| kind.is_dir());
                let is_unmatched =
                    !globs.is_empty() && globs.matched(child.path(), is_dir()).is_ignore();
                there.unmatched += u64::from(is_unmatched);
            }
        } else {
            take(FoundEntry::File(entry.into_path()))?;
        }
    }
    for file in take_rejected() {
        count_seen(&file.path);
        take(FoundEntry::Skipped(file))?;
    }
    Ok(SkipCounts {
        hidden: there.hidden.saturating_sub(seen.hidden),
        ignored: there.ignored.saturating_sub(seen.ignored),
        unmatched: there.unmatched,
    })
}

/// The reason for passing over a folder that is an index.
const INDEX_FOLDER: &str = "an index of warpseek, not a folder of documents";

fn overrides(folder: &Path, globs: &[String]) -> Result<Override> {
    let mut builder = OverrideBuilder::new(folder);
    for glob in globs {
        let fail =
            |error| Error::usage(format!("invalid --glob '{glob}': {error}; correct the pattern"));
        builder.add(glob).map_err(fail)?;
    }
    builder.build().map_err(|error| Error::usage(format!("--glob: {error}")))
}

/// The reason for passing over an entry, if there is one.
fn reason_against(entry: &DirEntry, no_ignore: bool) -> Option<&'static str> {
    if !entry.file_type().is_some_and(|kind| kind.is_dir()) {
        return None;
    }
    if is_index(entry.path()) {
        return Some(INDEX_FOLDER);
    }
    (!no_ignore && is_tool_folder(entry.path())).then_some(TOOL_FOLDER)
}

/// True if a folder is an index: the one that is being written, say.
fn is_index(folder: &Path) -> bool {
    folder.join("manifest.json").exists() && folder.join("documents.db").exists()
}

/// True for folders that a tool fills and can fill again: packages of Node and Python, and build
/// output of Cargo and Maven. Other folders called `target` or `venv` do not count.
fn is_tool_folder(folder: &Path) -> bool {
    let beside = |name: &str| folder.with_file_name(name).exists();
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("node_modules" | "__pycache__") => true,
        Some("target") => {
            folder.join("CACHEDIR.TAG").exists() || beside("Cargo.toml") || beside("pom.xml")
        }
        Some("venv" | ".venv") => folder.join("pyvenv.cfg").exists(),
        _ => false,
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn skipped(path: &Path, reason: &str) -> SkippedFile {
    SkippedFile { path: path.to_path_buf(), reason: reason.to_owned() }
}

/// The entry that an error of the walk is about, and true if it is a link.
fn of_error(error: ignore::Error, folder: &Path) -> (FoundEntry, bool) {
    let mut path = folder.to_path_buf();
    let mut error = error;
    loop {
        error = match error {
            ignore::Error::WithPath { path: of, err } => {
                path = of;
                *err
            }
            ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
                *err
            }
            ignore::Error::Loop { child, .. } => {
                return (
                    FoundEntry::Skipped(skipped(&child, "a link back to a folder above it")),
                    true,
                );
            }
            ignore::Error::Io(source) => {
                let is_link = fs::symlink_metadata(&path).is_ok_and(|m| m.is_symlink());
                return match is_link && fs::canonicalize(&path).is_err() {
                    true => {
                        (FoundEntry::Skipped(skipped(&path, "a link that leads nowhere")), true)
                    }
                    false => (FoundEntry::Unreadable(path, source), is_link),
                };
            }
            other => {
                return (FoundEntry::Unreadable(path, io::Error::other(other.to_string())), false);
            }
        };
    }
}

/// The file that an error about a pattern names.
fn folder_of(error: &ignore::Error, folder: &Path) -> PathBuf {
    match error {
        ignore::Error::Partial(errors) => match errors.first() {
            Some(first) => folder_of(first, folder),
            None => folder.to_path_buf(),
        },
        ignore::Error::WithPath { path, .. } => path.clone(),
        ignore::Error::WithDepth { err, .. } | ignore::Error::WithLineNumber { err, .. } => {
            folder_of(err, folder)
        }
        _ => folder.to_path_buf(),
    }
}
