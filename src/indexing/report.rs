//! The report of an indexing run, and the last records of its input.

use super::OnError;
use crate::error::{Error, Place, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use warpseek_ingest::{Document, DocumentReader, FoundFiles, ReadNotes, SkipTable};
use xxhash_rust::xxh3::xxh3_128;

/// The result of an indexing run.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct IndexReport {
    /// New documents.
    pub added: u64,
    /// Documents that replaced an older version.
    pub updated: u64,
    /// Documents that the index already had with the same content.
    pub unchanged: u64,
    /// Documents that were deleted because the inputs that they came from no longer hold them.
    pub pruned: u64,
    /// Records that were left out because a later one has the same id.
    pub duplicates: u64,
    /// Documents that replaced one of the same id from another input.
    pub replaced_elsewhere: u64,
    /// The first of these: its id, the old and the new input.
    #[serde(skip)]
    pub first_elsewhere: Option<[String; 3]>,
    /// Documents that came from the inputs and are no longer in them, by number. Empty without
    /// [`super::IndexOptions::prune`], and after an interrupted run or one that skipped records.
    #[serde(skip)]
    pub outdated: Vec<i64>,
    /// The sources of such documents that the index still has, even without
    /// [`super::IndexOptions::prune`].
    #[serde(skip)]
    pub outdated_sources: HashSet<Arc<str>>,
    /// Names of the files of which something was skipped.
    #[serde(skip)]
    pub files_with_errors: HashSet<String>,
    /// Errors about inputs: files that were named themselves and were passed over
    /// ([`FoundFiles::is_named`]; at most 100 in a run), what stopped reading strict inputs, and in
    /// [`sync`](super::sync) inputs that cannot be read.
    #[serde(skip)]
    pub input_errors: Vec<(Place, String)>,
    /// True if one of these ended the run. It is not known then which documents the inputs hold.
    #[serde(skip)]
    pub stopped: bool,
    /// Documents that are not in the input and have no known source, counted with `outdated`.
    #[serde(skip)]
    pub sourceless: u64,
    /// Documents that were not in the input and that `prune` kept, because they came from files of
    /// which something was skipped.
    pub kept: u64,
    /// Records that could not be used.
    pub skipped: u64,
    /// Everything that was left out, by reason: bad records, and what
    /// [`IndexReport::take_left_out`] adds.
    pub left_out: SkipTable,
    /// The first messages about skipped records.
    pub messages: Vec<String>,
    /// The first notes: a number format other than that of the index; and about the input, columns
    /// left out, values that became null or text.
    pub notes: Vec<String>,
    /// All notes, those beyond `notes` included.
    pub notes_total: u64,
    /// Rows written.
    pub rows: u64,
    /// Tokens embedded, special tokens included.
    pub tokens: u64,
    /// Truncated tokens, beyond the model's limit.
    pub tokens_lost: u64,
    /// Rows with truncated tokens.
    pub rows_truncated: u64,
    /// True if the run was stopped before the end.
    pub interrupted: bool,
}

impl IndexReport {
    /// Adds the numbers and messages of another run on the same index.
    pub(super) fn add(&mut self, other: Self) {
        self.added += other.added;
        self.updated += other.updated;
        self.unchanged += other.unchanged;
        self.pruned += other.pruned;
        self.duplicates += other.duplicates;
        self.replaced_elsewhere += other.replaced_elsewhere;
        self.first_elsewhere = self.first_elsewhere.take().or(other.first_elsewhere);
        self.input_errors.extend(other.input_errors);
        self.sourceless = self.sourceless.max(other.sourceless);
        self.kept += other.kept;
        self.skipped += other.skipped;
        self.left_out.merge(other.left_out);
        self.messages.extend(other.messages);
        self.notes.extend(other.notes);
        self.notes_total += other.notes_total;
        self.rows += other.rows;
        self.tokens += other.tokens;
        self.tokens_lost += other.tokens_lost;
        self.rows_truncated += other.rows_truncated;
        self.interrupted |= other.interrupted;
    }

    /// Adds the notes of the reader whose documents were indexed, behind those of the run.
    pub fn take_notes(&mut self, notes: &ReadNotes) {
        self.notes.extend(notes.texts());
        self.notes_total += notes.total();
    }

    /// Adds what the reader left out of its folders.
    pub fn take_left_out(&mut self, documents: &DocumentReader) {
        for file in documents.skipped_files() {
            self.left_out.add_file(&file.path.display().to_string(), &file.reason);
        }
        let counts = documents.skip_counts();
        self.left_out.add_count(counts.ignored, "named by an ignore file or --glob");
        self.left_out.add_count(counts.hidden, "hidden");
    }
}

/// The last record of each id, for inputs where a later record replaces an earlier one.
#[derive(Debug, Default)]
pub struct LastRecords(HashMap<u128, u64>);

impl LastRecords {
    /// Reads the input once.
    ///
    /// # Errors
    ///
    /// The errors of the input; with [`OnError::Skip`], and in the files of `found`, only those
    /// that are not about a record.
    pub fn collect(
        documents: impl Iterator<Item = Result<Document>>,
        on_error: OnError,
        found: Option<&FoundFiles>,
    ) -> Result<Self> {
        let is_found = |file: &str| found.is_some_and(|found| found.source(file).is_some());
        let mut last = HashMap::new();
        for (number, document) in documents.enumerate() {
            match document {
                Ok(document) => {
                    last.insert(xxh3_128(document.id.as_bytes()), number as u64);
                }
                Err(Error::Input { place, .. })
                    if on_error == OnError::Skip || is_found(&place.file) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Self(last))
    }

    pub(super) fn holds(&self, document: &Document, number: u64) -> bool {
        self.0.get(&xxh3_128(document.id.as_bytes())) == Some(&number)
    }
}
