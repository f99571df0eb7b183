//! Recorded inputs: what an index was told to read, and how.

use super::{IndexReport, OnError};
use crate::error::{Error, Result};
use crate::store::{Index, IndexWriter};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use warpseek_ingest::{
    DocumentReader, ExtractLimits, ExtractOptions, FieldMap, FileFormat, FileStamp, FinishedFile,
    HeaderRule, InputRoots, ReadOptions, WalkOptions, input_path, resolve_folder,
};

/// The version of this program: another one may read a file otherwise.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Settings of reading an input, from which its documents follow. As JSON, only those that are not
/// the default. A setting of a later version is refused by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InputSettings {
    /// Name of the format of all files; by their names without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// See [`FieldMap::id`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id_field: Option<String>,
    /// See [`FieldMap::text`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_field: Option<String>,
    /// See [`FieldMap::title`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title_field: Option<String>,
    /// See [`FieldMap::metadata`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_fields: Option<Vec<String>>,
    /// True if the first line of csv and tsv files is a record.
    #[serde(skip_serializing_if = "is_false")]
    pub no_header: bool,
    /// See [`ReadOptions::delimiter`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<u8>,
    /// See [`ReadOptions::max_record_bytes`].
    #[serde(skip_serializing_if = "is_default_limit")]
    pub max_record_bytes: u64,
    /// See [`WalkOptions::globs`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub globs: Vec<String>,
    /// See [`WalkOptions::no_ignore`].
    #[serde(skip_serializing_if = "is_false")]
    pub no_ignore: bool,
    /// Seconds for reading one PDF, Office or EPUB file.
    #[serde(skip_serializing_if = "is_default_time")]
    pub extract_seconds: u64,
    /// Action for a bad file or record, if it was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
    /// True if a bad file of a folder is an error too, unless `on_error` is chosen.
    #[serde(skip_serializing_if = "is_false")]
    pub strict: bool,
    /// True if the last record of an id is kept.
    #[serde(skip_serializing_if = "is_false")]
    pub keep_last: bool,
}

impl Default for InputSettings {
    fn default() -> Self {
        Self {
            format: None,
            id_field: None,
            text_field: None,
            title_field: None,
            metadata_fields: None,
            no_header: false,
            delimiter: None,
            max_record_bytes: warpseek_ingest::DEFAULT_MAX_RECORD_BYTES,
            globs: Vec::new(),
            no_ignore: false,
            extract_seconds: ExtractLimits::default().time.as_secs(),
            on_error: None,
            strict: false,
            keep_last: false,
        }
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_default_limit(bytes: &u64) -> bool {
    *bytes == InputSettings::default().max_record_bytes
}

fn is_default_time(seconds: &u64) -> bool {
    *seconds == InputSettings::default().extract_seconds
}

impl InputSettings {
    /// True if the first error in a file of a folder stops the run.
    pub fn is_strict(&self) -> bool {
        self.on_error.map_or(self.strict, |on_error| on_error == OnError::Stop)
    }

    /// The options of reading, with paths in ids and sources from `base`. `extract` has the command
    /// and the stop of the program; its time limit is that of the settings.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an unknown format.
    pub fn read_options(&self, base: &Path, extract: ExtractOptions) -> Result<ReadOptions> {
        let limits =
            ExtractLimits { time: Duration::from_secs(self.extract_seconds), ..extract.limits };
        Ok(ReadOptions {
            format: self.format.as_deref().map(str::parse::<FileFormat>).transpose()?,
            fields: FieldMap {
                id: self.id_field.clone(),
                text: self.text_field.clone(),
                title: self.title_field.clone(),
                metadata: self.metadata_fields.clone(),
            },
            header: if self.no_header { HeaderRule::Absent } else { HeaderRule::Auto },
            delimiter: self.delimiter,
            max_record_bytes: self.max_record_bytes,
            base: Some(base.to_path_buf()),
            walk: WalkOptions { no_ignore: self.no_ignore, globs: self.globs.clone() },
            strict: self.is_strict(),
            extract: ExtractOptions { limits, ..extract },
            ..ReadOptions::default()
        })
    }
}

/// An input of an index, and how it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedInput {
    /// File or folder: its path from the folder that holds the index, which itself is `.`, or
    /// absolute if it is not below that folder. Folders above it are resolved; a link that was
    /// named itself is not.
    pub name: String,
    /// The settings of reading it.
    pub settings: InputSettings,
    /// See [`DocumentReader::text_columns`].
    pub(super) text_columns: Arc<BTreeSet<String>>,
    /// True if this version of the program read it.
    pub(super) is_current: bool,
}

impl RecordedInput {
    /// Its path; `base` is the folder that holds the index.
    pub fn path(&self, base: &Path) -> PathBuf {
        input_path(base, &self.name)
    }
}

/// The stored part of a [`RecordedInput`].
#[derive(Serialize, Deserialize)]
struct StoredInput {
    version: String,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    text_columns: BTreeSet<String>,
    settings: InputSettings,
}

impl RecordedInput {
    fn read((name, stored): (String, String), index: &Path) -> Result<Self> {
        let StoredInput { version, text_columns, settings } = serde_json::from_str(&stored)
            .map_err(|e| {
                Error::corrupt(
                    index,
                    format!(
                        "the settings of the input '{name}' are damaged or of a later version \
                         ({e}): run `warpseek index` on it again"
                    ),
                )
            })?;
        let is_current = version == VERSION;
        Ok(Self { name, settings, text_columns: Arc::new(text_columns), is_current })
    }
}

/// The recorded inputs of an index, in the order of their names.
///
/// # Errors
///
/// [`Error::Corrupt`] naming an input whose settings cannot be read; the errors of the store.
pub fn recorded_inputs(index: &Index) -> Result<Vec<RecordedInput>> {
    let read = |stored| RecordedInput::read(stored, index.dir());
    index.inputs()?.into_iter().map(read).collect()
}

/// The same by the writer of the index in `dir`.
pub(super) fn inputs_of(writer: &IndexWriter, dir: &Path) -> Result<Vec<RecordedInput>> {
    writer.inputs()?.into_iter().map(|stored| RecordedInput::read(stored, dir)).collect()
}

/// Prepares a run: its first commit records new inputs, and forgets the stamps of files that were
/// read with other settings or by another version. If the run ends early, [`sync`](super::sync)
/// goes on with new inputs, and reads files of the others again, with the settings that are
/// recorded.
///
/// # Errors
///
/// The errors of the store.
pub fn begin_inputs(
    writer: &mut IndexWriter,
    documents: &DocumentReader,
    settings: &InputSettings,
) -> Result<()> {
    let roots = documents.roots();
    let stored = stored_input(documents, settings)?;
    let known = writer.inputs()?;
    if known.iter().any(|(name, known)| roots.covers(name) && *known != stored) {
        for source in writer.stamps()?.into_keys().filter(|source| roots.covers(source)) {
            writer.set_stamp(source, None);
        }
    }
    for name in roots.nameless() {
        tracing::warn!("{name}: not recorded for `warpseek sync`, since its name is not UTF-8");
    }
    let known: Vec<String> = known.into_iter().map(|(name, _)| name).collect();
    let recorded = roots.others(&known);
    for name in roots.names() {
        let below = roots.others(std::slice::from_ref(&name));
        if !recorded.covers(&name) && !known.iter().any(|other| below.covers(other)) {
            writer.set_input(name, Some(stored.clone()));
        }
    }
    Ok(())
}

/// The stored form of inputs that were read with these settings.
fn stored_input(documents: &DocumentReader, settings: &InputSettings) -> Result<String> {
    let stored = StoredInput {
        version: VERSION.to_owned(),
        text_columns: BTreeSet::clone(documents.text_columns()),
        settings: settings.clone(),
    };
    serde_json::to_string(&stored)
        .map_err(|e| Error::usage(format!("the settings of reading cannot be stored: {e}")))
}

/// Records the inputs that a run has read, with the stamps of their files, and commits. Inputs
/// below a folder that was read are no longer recorded by themselves. A stream is not recorded.
///
/// A file gets a stamp, so that [`sync`](super::sync) passes over it while it does not change, if
/// it was read to its end without an error, and if the index holds nothing else of it. An
/// interrupted run gives no stamps.
///
/// # Errors
///
/// The errors of the store.
pub fn record_inputs(
    writer: &mut IndexWriter,
    documents: &DocumentReader,
    report: &IndexReport,
    settings: &InputSettings,
) -> Result<()> {
    let roots = documents.roots();
    let stored = stored_input(documents, settings)?;
    let mut names = roots.names();
    for (old, known) in writer.inputs()? {
        match names.iter().position(|name| *name == old) {
            Some(at) if known == stored => drop(names.remove(at)),
            Some(_) => {}
            None if roots.covers(&old) => writer.set_input(old, None),
            None => {}
        }
    }
    names.into_iter().for_each(|name| writer.set_input(name, Some(stored.clone())));
    if !report.interrupted && !report.stopped {
        let whole = documents.finished_files().iter().filter(|file| {
            !settings.keep_last
                && !report.files_with_errors.contains(&file.name)
                && !report.outdated_sources.contains(&file.source)
        });
        let stamped = |file: &FinishedFile| Some((file.source.to_string(), file.stamp?));
        let mut new: HashMap<String, FileStamp> = whole.filter_map(stamped).collect();
        for (source, old) in writer.stamps()? {
            let is_read = roots.covers(&source) && !documents.unchanged_files().contains(&*source);
            match new.get(&source) {
                Some(stamp) if *stamp == old => drop(new.remove(&source)),
                None if is_read => writer.set_stamp(source, None),
                _ => {}
            }
        }
        new.into_iter().for_each(|(source, stamp)| writer.set_stamp(source, Some(stamp)));
    }
    writer.commit()
}

/// Forgets a recorded input and commits; its documents stay. `input` is its recorded name, or a
/// path to it, which need not exist; `base` is the folder that holds the index.
///
/// # Errors
///
/// [`Error::Usage`] naming the recorded inputs if it is none of them; the errors of the store.
pub fn forget_input(writer: &mut IndexWriter, input: &Path, base: &Path) -> Result<Forgotten> {
    let names: Vec<String> = writer.inputs()?.into_iter().map(|(name, _)| name).collect();
    let here = std::path::absolute(input).map_err(Error::io("read", input))?;
    let (linked, resolved) = (resolve_folder(input).ok(), std::fs::canonicalize(input).ok());
    let by_path = |name: &&String| {
        let path = Some(input_path(base, name));
        path.as_ref() == Some(&here) || path == linked || path == resolved
    };
    // The message about an input that is gone gives its name, wherever the command is run.
    let by_name = |name: &&String| Path::new(name) == input;
    let Some(name) = names.iter().find(by_path).or_else(|| names.iter().find(by_name)) else {
        return Err(Error::usage(format!(
            "{} is not a recorded input; recorded are: {}",
            input.display(),
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        )));
    };
    let roots = InputRoots::named(std::slice::from_ref(name), base)?;
    for source in writer.stamps()?.into_keys().filter(|source| roots.covers(source)) {
        writer.set_stamp(source, None);
    }
    writer.set_input(name.clone(), None);
    writer.commit()?;
    let mut above: Vec<&String> = Vec::new();
    for other in names.iter().filter(|other| *other != name) {
        if InputRoots::named(std::slice::from_ref(other), base)?.covers(name) {
            above.push(other);
        }
    }
    let closest =
        above.into_iter().max_by_key(|other| input_path(base, other).components().count());
    Ok(Forgotten { forgotten: name.clone(), above: closest.cloned() })
}

/// The result of [`forget_input`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// The name of the input that is no longer recorded.
    pub forgotten: String,
    /// The closest recorded input that it is below, if any, which decides about its documents from
    /// now on.
    pub above: Option<String>,
}
