//! Bringing an index up to date with its recorded inputs: only files that have changed are read.

use super::inputs::{RecordedInput, begin_inputs, inputs_of, record_inputs};
use super::report::LastRecords;
use super::run::without_documents;
use super::{IndexOptions, IndexReport, OnError, base_of, index, prune};
use crate::error::{Error, Place, Result};
use crate::store::IndexWriter;
use rayon::ThreadPool;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use warpseek_bert::embedder::Embedder;
use warpseek_ingest::{self as ingest, ExtractOptions, FileStamp, InputRoots, KnownFiles};

/// Options of [`sync`].
#[derive(Debug, Clone, Default)]
pub struct SyncOptions<'a> {
    /// Command and limits of reading PDF, Office and EPUB files; the time is that of each input.
    pub extract: ExtractOptions,
    /// Set to true, it stops the run within a micro-batch of the model.
    pub stop: Option<&'a AtomicBool>,
    /// Threads to chunk and embed on, instead of rayon's global ones.
    pub threads: Option<&'a ThreadPool>,
}

/// The result of [`sync`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SyncReport {
    /// The recorded inputs.
    pub inputs: Vec<String>,
    /// Files that were read: new, changed, with an error the last time, or written just before they
    /// were read then.
    pub files_read: u64,
    /// Files that were not read, because they have not changed.
    pub files_unchanged: u64,
    /// The run over the files that were read.
    #[serde(flatten)]
    pub documents: IndexReport,
}

impl SyncReport {
    /// True if the index was changed.
    pub fn has_changes(&self) -> bool {
        self.documents.added + self.documents.updated + self.documents.pruned > 0
    }

    /// The first error about an input: it is gone, or a file that was named itself cannot be used,
    /// in whole or in part. What it cannot give is kept in the index; all other inputs were taken
    /// in.
    pub fn error(&self) -> Option<Error> {
        let (place, reason) = self.documents.input_error.clone()?;
        Some(Error::input(place, reason))
    }
}

/// Reads what has changed in the recorded inputs of the index in `dir`, stores it, and deletes the
/// documents of what is gone. `embedder` is called if there is something to read. `progress` is
/// called as by [`index`].
///
/// The [`FileStamp`] of a file tells if it has changed. All files of an input are read again if
/// another version of the program read them, and if only the last record of an id is kept.
///
/// # Errors
///
/// [`Error::Usage`] if no input is recorded; the errors of [`index`] but those about an input, of
/// which [`SyncReport::error`] has the first.
pub fn sync(
    dir: &Path,
    writer: &mut IndexWriter,
    embedder: &mut dyn FnMut() -> Result<Arc<Embedder>>,
    options: &SyncOptions<'_>,
    progress: &mut dyn FnMut(&IndexReport) -> bool,
) -> Result<SyncReport> {
    let inputs = inputs_of(writer, dir)?;
    if inputs.is_empty() {
        return Err(Error::usage(format!(
            "{} has no recorded inputs: run `warpseek index FILES --into {0}` once more, which \
             records them (streams and imported vectors are not)",
            dir.display()
        )));
    }
    let base = base_of(dir)?;
    let names = inputs.iter().map(|input| input.name.clone()).collect();
    let mut report = SyncReport { inputs: names, ..SyncReport::default() };
    let mut rest = inputs;
    let all = rest.clone();
    rest.retain(|input| {
        let path = input.path(&base);
        let Err(e) = check_readable(&path) else { return true };
        let place = Place::file(path.display().to_string());
        let reason = format!(
            "a recorded input that cannot be read ({e}): restore it, or leave it out with \
             `warpseek sync {} --forget {}`, which keeps its documents",
            shell_quoted(&dir.display().to_string()),
            shell_quoted(&input.name)
        );
        report.documents.input_error.get_or_insert((place, reason));
        false
    });
    while let Some(first) = rest.first().cloned() {
        // Inputs that are read in the same way are read together, as they were by `index`.
        let (group, others) = rest.into_iter().partition(|input| is_alike(input, &first));
        rest = others;
        let elsewhere = all.iter().filter(|input| !is_alike(input, &first));
        let elsewhere: Vec<String> = elsewhere.map(|input| input.name.clone()).collect();
        let run = GroupRun { base: &base, group, elsewhere: &elsewhere, options };
        match run.sync(writer, embedder, progress, &mut report) {
            Err(Error::Input { place, reason }) => {
                report.documents.input_error.get_or_insert((place, reason));
            }
            done => done?,
        }
        if report.documents.interrupted {
            break;
        }
    }
    Ok(report)
}

/// Tries to open a file or folder.
fn check_readable(path: &Path) -> std::io::Result<()> {
    match std::fs::metadata(path)?.is_dir() {
        true => std::fs::read_dir(path).map(drop),
        false => std::fs::File::open(path).map(drop),
    }
}

/// Quotes an argument for a shell where it needs that.
pub fn shell_quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "_-./+:@%,".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

fn is_alike(one: &RecordedInput, other: &RecordedInput) -> bool {
    one.settings == other.settings
        && one.text_columns == other.text_columns
        && one.is_current == other.is_current
}

/// Inputs with the same settings.
struct GroupRun<'a> {
    base: &'a Path,
    group: Vec<RecordedInput>,
    /// Names of the inputs with other settings.
    elsewhere: &'a [String],
    options: &'a SyncOptions<'a>,
}

impl GroupRun<'_> {
    fn sync(
        &self,
        writer: &mut IndexWriter,
        embedder: &mut dyn FnMut() -> Result<Arc<Embedder>>,
        progress: &mut dyn FnMut(&IndexReport) -> bool,
        report: &mut SyncReport,
    ) -> Result<()> {
        let Some(RecordedInput { settings, text_columns, is_current, .. }) = self.group.first()
        else {
            return Ok(());
        };
        let mut paths: Vec<PathBuf> =
            self.group.iter().map(|input| input.path(self.base)).collect();
        let stamps = match *is_current && !settings.keep_last {
            true => self.stamps(writer)?,
            false => Vec::new(),
        };
        let mut read = settings.read_options(self.base, self.options.extract.clone())?;
        read.known = KnownFiles {
            stamps: Arc::new(stamps.into_iter().collect()),
            elsewhere: InputRoots::named(self.elsewhere, self.base)?,
            text_columns: Arc::clone(text_columns),
        };
        read.named_as_found = !settings.is_strict();
        let mut documents = loop {
            match ingest::open(&paths, &read) {
                // A folder in which no file is left, as a disk that is not there. Others go on.
                Err(Error::Input { place, reason }) if paths.len() > 1 => {
                    let is_it = |path: &PathBuf| path.display().to_string() == place.file;
                    let Some(at) = paths.iter().position(is_it) else {
                        return Err(Error::Input { place, reason });
                    };
                    paths.remove(at);
                    report.documents.input_error.get_or_insert((place, reason));
                }
                opened => break opened?,
            }
        };
        let (roots, found) = (documents.roots().clone(), documents.found_files().clone());
        let on_error = settings.on_error.unwrap_or(OnError::Stop);
        let found = (!settings.is_strict()).then_some(&found);
        let unchanged = documents.unchanged_files().clone();
        let last = match settings.keep_last {
            true => Some(LastRecords::collect(ingest::open(&paths, &read)?, on_error, found)?),
            false => None,
        };
        let options = IndexOptions {
            on_error,
            found,
            inputs: Some(&roots),
            prune: true,
            unchanged: Some(&unchanged),
            last: last.as_ref(),
            stop: self.options.stop,
            threads: self.options.threads,
            ..IndexOptions::default()
        };
        let n_files = documents.progress().files_total as u64;
        begin_inputs(writer, &documents, settings)?;
        let mut run = match n_files {
            0 => without_documents(writer, options)?,
            _ => {
                // The other groups count too.
                let before = report.documents.clone();
                let mut progress = |run: &IndexReport| {
                    let mut all = before.clone();
                    all.add(run.clone());
                    progress(&all)
                };
                index(writer, &*embedder()?, &mut documents, options, &mut progress)?
            }
        };
        run.take_notes(documents.notes());
        let decisions = documents.take_decisions();
        run.notes_total += decisions.len() as u64;
        run.notes.extend(decisions.into_iter().take(ingest::MAX_NOTES));
        run.take_left_out(&documents);
        if !run.interrupted {
            prune(writer, &mut run)?;
        }
        record_inputs(writer, &documents, &run, settings)?;
        report.files_read += n_files;
        report.files_unchanged += unchanged.len() as u64;
        report.documents.add(run);
        Ok(())
    }

    /// The known stamps of the files of these inputs.
    fn stamps(&self, writer: &IndexWriter) -> Result<Vec<(String, FileStamp)>> {
        let names: Vec<String> = self.group.iter().map(|input| input.name.clone()).collect();
        let roots = InputRoots::named(&names, self.base)?;
        let stamps = writer.stamps()?;
        Ok(stamps.into_iter().filter(|(source, _)| roots.covers(source)).collect())
    }
}
