//! Indexing: reads, chunks, embeds and stores documents, in batches that are committed on the way.
//! Import and export of vectors. Shards. Keeping an index up to date with its inputs.

mod export;
mod import;
mod inputs;
mod part;
mod report;
mod run;
mod shard;
mod sync;
mod watch;

pub use export::{export_documents, export_vectors};
pub use import::{Import, ImportReport, ImportedDocuments, Vectors, bare_documents};
pub use inputs::{
    Forgotten, InputSettings, RecordedInput, begin_inputs, forget_input, record_inputs,
    recorded_inputs,
};
pub use part::{InputPart, RecordIds, duplicate_ids, id_hash, index_part, record_ids};
pub use report::{IndexReport, LastRecords};
pub use shard::shard;
pub use sync::{SyncOptions, SyncReport, sync};
pub use watch::{WatchEvents, watch};

use crate::error::{Error, Result};
use crate::store::{IndexWriter, passage};
use clap::ValueEnum;
use rayon::ThreadPool;
use run::IndexRun;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use warpseek_bert::embedder::Embedder;
use warpseek_ingest::{Document, FoundFiles, InputRoots};

/// The default number of rows per commit.
pub const DEFAULT_COMMIT_ROWS: usize = 4096;

/// Action for a record that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Stop; the records before it are committed
    Stop,
    /// Skip the record, count it and keep its message
    Skip,
}

/// Options of an indexing run.
#[derive(Debug, Clone, Copy)]
pub struct IndexOptions<'a> {
    /// Action for a record that cannot be used.
    pub on_error: OnError,
    /// Files that were found in folders: their bad records are skipped even with [`OnError::Stop`].
    /// With `None` they stop indexing too.
    pub found: Option<&'a FoundFiles>,
    /// The inputs that are read. Documents of the index that came from them and are no longer in
    /// them are looked up at the end.
    pub inputs: Option<&'a InputRoots>,
    /// True if these are listed for [`prune`].
    pub prune: bool,
    /// Sources of files that are not read because they have not changed. Their documents stay, and
    /// no other file may replace them. With this, errors about inputs end in
    /// [`IndexReport::input_errors`], and the run succeeds.
    pub unchanged: Option<&'a HashSet<Arc<str>>>,
    /// Rows per commit; a commit is made at least every five seconds.
    pub commit_rows: usize,
    /// The last record of each id. Without it, an id that occurs twice is an error.
    pub last: Option<&'a LastRecords>,
    /// Set to true, it stops the run as `progress` does, but within a micro-batch of the model.
    pub stop: Option<&'a AtomicBool>,
    /// Threads to chunk and embed on, instead of rayon's global ones.
    pub threads: Option<&'a ThreadPool>,
}

impl Default for IndexOptions<'_> {
    fn default() -> Self {
        let commit_rows = DEFAULT_COMMIT_ROWS;
        Self {
            on_error: OnError::Stop,
            found: None,
            inputs: None,
            prune: false,
            unchanged: None,
            commit_rows,
            last: None,
            stop: None,
            threads: None,
        }
    }
}

/// Writes documents into an index. Documents that the index already has with the same content are
/// skipped, so that an interrupted run continues where it stopped. `progress` is called before and
/// after every step of a batch; it returns false to stop.
///
/// # Errors
///
/// The errors of the input with [`OnError::Stop`], after the documents before were committed; the
/// first that was skipped, if nothing in the folders could be used; [`Error::Input`] for a
/// duplicate id; the errors of the store and of the encoder.
pub fn index(
    writer: &mut IndexWriter,
    embedder: &Embedder,
    documents: &mut dyn Iterator<Item = Result<Document>>,
    options: IndexOptions<'_>,
    progress: &mut dyn FnMut(&IndexReport) -> bool,
) -> Result<IndexReport> {
    IndexRun::new(writer, embedder, options, progress).run(documents)
}

/// Deletes the [outdated](IndexReport::outdated) documents of a run.
///
/// # Errors
///
/// The errors of the store.
pub fn prune(writer: &mut IndexWriter, report: &mut IndexReport) -> Result<()> {
    if report.outdated.is_empty() {
        return Ok(());
    }
    report.outdated.iter().for_each(|&seq| writer.delete(seq));
    writer.commit()?;
    report.outdated_sources.clear();
    report.pruned = std::mem::take(&mut report.outdated).len() as u64;
    Ok(())
}

/// The folder that holds an index, existing or not: the [base](warpseek_ingest::ReadOptions::base)
/// of the paths in its ids. So these stay the same wherever a command is run, and if index and
/// documents move together.
///
/// # Errors
///
/// [`Error::Io`] if the path cannot be resolved.
pub fn base_of(dir: &Path) -> Result<PathBuf> {
    let dir = std::path::absolute(dir).map_err(Error::io("read", dir))?;
    let existing = dir.ancestors().find(|folder| folder.exists()).unwrap_or(&dir);
    let real = std::fs::canonicalize(existing).map_err(Error::io("read", existing))?;
    let real = match dir.strip_prefix(existing) {
        Ok(missing) if missing != Path::new("") => real.join(missing),
        _ => real,
    };
    Ok(real.parent().unwrap_or(&real).to_path_buf())
}

/// The chunks of a document as models read them.
pub(crate) fn passages(
    document: &Document,
    ranges: &[Range<usize>],
) -> impl Iterator<Item = String> {
    let Document { title, text, embed_title, .. } = document;
    let part = |range: &Range<usize>| text.get(range.clone()).unwrap_or_default();
    ranges.iter().map(move |range| passage(title, part(range), *embed_title))
}
