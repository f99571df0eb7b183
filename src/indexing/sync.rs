//! Bringing an index up to date with its recorded inputs: only files that have changed are read.

use super::inputs::{RecordedInput, begin_inputs, inputs_of, record_inputs};
use super::report::LastRecords;
use super::run::without_documents;
use super::{IndexOptions, IndexReport, OnError, base_of, index, prune};
use crate::error::{Error, Place, Result, shell_quoted};
use crate::store::IndexWriter;
use rayon::ThreadPool;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use warpseek_bert::embedder::Embedder;
use warpseek_ingest::{
    self as ingest, DocumentReader, ExtractOptions, FileStamp, InputRoots, KnownFiles,
};

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

    /// The errors about inputs: inputs that are gone, folders without a readable file, named files
    /// with errors, strict inputs that stopped. Their documents are kept. Unless interrupted, the
    /// other inputs are synced.
    pub fn errors(&self) -> Vec<Error> {
        let errors = self.documents.input_errors.iter().cloned();
        errors.map(|(place, reason)| Error::input(place, reason)).collect()
    }

    /// The messages about skipped records and files that are not among [`SyncReport::errors`].
    pub fn skipped_messages(&self) -> Vec<String> {
        let errors: Vec<String> = self.errors().iter().map(Error::to_string).collect();
        let messages = self.documents.messages.iter();
        messages.filter(|message| !errors.contains(message)).cloned().collect()
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
/// [`Error::Usage`] if no input is recorded; the errors of [`index`] but those about an input,
/// which [`SyncReport::errors`] has.
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
        let place = Place::file(ingest::name_in_messages(&path));
        let reason = format!(
            "a recorded input that cannot be read ({e}): restore it, or leave it out with \
             `warpseek sync {} --forget {}`, which keeps its documents",
            shell_quoted(&dir.display().to_string()),
            shell_quoted(&input.name)
        );
        report.documents.input_errors.push((place, reason));
        false
    });
    while let Some(first) = rest.first().cloned() {
        // Inputs that are read in the same way are read together, as they were by `index`.
        let (group, others) = rest.into_iter().partition(|input| is_alike(input, &first));
        rest = others;
        let elsewhere = all.iter().filter(|input| !group.contains(input));
        let elsewhere = elsewhere.map(|input| input.name.clone()).collect();
        let mut run = GroupRun { base: &base, group, elsewhere, options };
        match run.sync(writer, embedder, progress, &mut report) {
            Err(Error::Input { place, reason }) => {
                report.documents.input_errors.push((place, reason));
            }
            done => done?,
        }
        if report.documents.interrupted {
            break;
        }
    }
    Ok(report)
}

/// Tries to open a file or folder. Opening anything else could wait for ever.
fn check_readable(path: &Path) -> std::io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    match metadata.is_dir() {
        true => std::fs::read_dir(path).map(drop),
        false if metadata.is_file() => std::fs::File::open(path).map(drop),
        false => Err(std::io::Error::other("not a regular file or folder any more")),
    }
}

/// True if two inputs are read together: with the same settings, unless an error in one would keep
/// the other from being read. The last record of an id can be in any of them.
fn is_alike(one: &RecordedInput, other: &RecordedInput) -> bool {
    if one.settings.is_strict() && !one.settings.keep_last {
        return one == other;
    }
    one.settings == other.settings
        && one.text_columns == other.text_columns
        && one.is_current == other.is_current
}

/// Inputs with the same settings, at least one.
struct GroupRun<'a> {
    base: &'a Path,
    group: Vec<RecordedInput>,
    /// Names of the inputs that are not read with these.
    elsewhere: Vec<String>,
    options: &'a SyncOptions<'a>,
}

impl GroupRun<'_> {
    fn sync(
        &mut self,
        writer: &mut IndexWriter,
        embedder: &mut dyn FnMut() -> Result<Arc<Embedder>>,
        progress: &mut dyn FnMut(&IndexReport) -> bool,
        report: &mut SyncReport,
    ) -> Result<()> {
        let mut documents = loop {
            match self.open(writer) {
                // A folder in which no file is left, as a disk that is not there. Others go on.
                Err(Error::Input { place, reason }) if self.group.len() > 1 => {
                    let name =
                        |input: &RecordedInput| ingest::name_in_messages(&input.path(self.base));
                    let Some(at) = self.group.iter().position(|input| name(input) == place.file)
                    else {
                        return Err(Error::Input { place, reason });
                    };
                    self.elsewhere.push(self.group.remove(at).name);
                    report.documents.input_errors.push((place, reason));
                }
                Err(Error::Io { path, source, .. }) => {
                    let place = Place::file(ingest::name_in_messages(&path));
                    return Err(Error::input(place, format!("cannot be read: {source}")));
                }
                opened => break opened?,
            }
        };
        let settings = &self.group[0].settings;
        let (roots, found) = (documents.roots().clone(), documents.found_files().clone());
        let on_error = settings.on_error.unwrap_or(OnError::Stop);
        let found = (!settings.is_strict()).then_some(&found);
        let mut unchanged = documents.unchanged_files().clone();
        report.files_unchanged += unchanged.len() as u64;
        let n_files = documents.progress().files_total as u64;
        if n_files > 0 {
            unchanged.extend(self.unchanged_elsewhere(writer, &roots)?);
        }
        let last = match settings.keep_last {
            true => Some(LastRecords::collect(self.open(writer)?, on_error, found)?),
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
        begin_inputs(writer, &documents, settings)?;
        report.files_read += n_files;
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
        if !run.interrupted && !run.stopped {
            prune(writer, &mut run)?;
        }
        record_inputs(writer, &documents, &run, settings)?;
        report.documents.add(run);
        Ok(())
    }

    /// Opens the files of these inputs that have changed.
    fn open(&self, writer: &IndexWriter) -> Result<DocumentReader> {
        let RecordedInput { settings, text_columns, is_current, .. } = &self.group[0];
        let stamps = match *is_current && !settings.keep_last {
            true => self.stamps(writer)?,
            false => Vec::new(),
        };
        let mut read = settings.read_options(self.base, self.options.extract.clone())?;
        read.known = KnownFiles {
            stamps: Arc::new(stamps.into_iter().collect()),
            elsewhere: InputRoots::named(&self.elsewhere, self.base)?,
            text_columns: Arc::clone(text_columns),
        };
        read.named_as_found = !settings.is_strict();
        let paths: Vec<PathBuf> = self.group.iter().map(|input| input.path(self.base)).collect();
        ingest::open(&paths, &read)
    }

    /// Sources of the files of other inputs that have not changed.
    fn unchanged_elsewhere(
        &self,
        writer: &IndexWriter,
        roots: &InputRoots,
    ) -> Result<Vec<Arc<str>>> {
        let others = writer.stamps()?.into_iter().filter(|(source, _)| !roots.covers(source));
        let is_unchanged = |(source, stamp): &(String, FileStamp)| {
            let metadata = std::fs::metadata(ingest::input_path(self.base, source));
            metadata.is_ok_and(|metadata| FileStamp::of(&metadata).as_ref() == Some(stamp))
        };
        Ok(others.filter(is_unchanged).map(|(source, _)| source.into()).collect())
    }

    /// The known stamps of the files of these inputs.
    fn stamps(&self, writer: &IndexWriter) -> Result<Vec<(String, FileStamp)>> {
        let names: Vec<String> = self.group.iter().map(|input| input.name.clone()).collect();
        let roots = InputRoots::named(&names, self.base)?;
        let stamps = writer.stamps()?;
        Ok(stamps.into_iter().filter(|(source, _)| roots.covers(source)).collect())
    }
}
