//! The one writer of an index.

use super::database::{CommitState, MAX_LOG};
use super::fields::{FieldCatalog, MAX_FIELDS, n_fields};
use super::filter::Filter;
use super::folder::WriteLock;
use super::hash::content_hash;
use super::index_files::{FolderState, IndexFiles, restore_manifest};
use super::inputs;
use super::manifest::IndexManifest;
use super::passing::notes;
use super::pending::{Pending, PendingDocument};
use super::row::split_row_id;
use super::sources;
use crate::error::{Error, Result};
use half::f16;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use warpseek_ingest::chunk::Chunk;
use warpseek_ingest::{Document, FileStamp};
use warpseek_topk::layout::MAX_ROWS;
use warpseek_topk::stride_of;

/// An index open for writing. Changes become visible and durable with [`IndexWriter::commit`].
/// Dropping the writer loses only what was not committed.
#[derive(Debug)]
pub struct IndexWriter {
    pub(super) files: IndexFiles,
    /// Number of the next document.
    next_seq: i64,
    pending: Pending,
    /// True if a commit failed. It is unknown then whether it took effect.
    failed: bool,
    lock: WriteLock,
}

/// A live document of the index, or one that waits for the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExistingDocument {
    /// Its number, rising in the order of insertion.
    pub seq: i64,
    /// See [`content_hash`].
    pub hash: [u8; 32],
}

impl IndexWriter {
    /// Opens the index in `dir`, or creates it with the settings of `manifest`. A lost manifest is
    /// restored from the database.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] while another process writes; [`Error::Usage`] if the index has another
    /// model, dimension, chunking or language, or the folder holds other files; [`Error::Corrupt`]
    /// if the index is damaged.
    pub fn open_or_create(dir: &Path, manifest: &IndexManifest) -> Result<Self> {
        // The first check avoids a lock file in a foreign folder. The second one, under the lock,
        // is final.
        if FolderState::of(dir)? != FolderState::Index {
            let lock = WriteLock::take_in_new_folder(dir)?;
            match FolderState::of(dir)? {
                FolderState::Empty => return Self::new(IndexFiles::create(dir, manifest)?, lock),
                FolderState::LostManifest => restore_manifest(dir)?,
                FolderState::Index => {}
            }
        }
        let this = Self::open(dir)?;
        match this.files.manifest.check_compatible(manifest, dir) {
            Ok(()) => Ok(this),
            // A failed first try that committed nothing must not bind the second one: the index is
            // created again with the new settings.
            Err(_) if this.files.state.n_rows == 0 && this.files.state.generation == 0 => {
                let Self { files, lock, .. } = this;
                drop(files);
                Self::new(IndexFiles::create(dir, manifest)?, lock)
            }
            Err(e) => Err(e),
        }
    }

    /// Opens an existing index.
    ///
    /// # Errors
    ///
    /// [`Error::NoIndex`], [`Error::Locked`] or [`Error::Corrupt`].
    pub fn open(dir: &Path) -> Result<Self> {
        // No lock file is created in a folder without an index.
        IndexManifest::read(dir)?;
        let lock = WriteLock::take(dir)?;
        Self::new(IndexFiles::open_writer(dir)?, lock)
    }

    fn new(files: IndexFiles, lock: WriteLock) -> Result<Self> {
        let next_seq = files.database.number("SELECT coalesce(max(seq), 0) + 1 FROM document")?;
        Ok(Self { files, next_seq, pending: Pending::default(), failed: false, lock })
    }

    /// The same writer, which removes the index when it is dropped if it created the folder and
    /// committed nothing, unless [`IndexWriter::keep`] was called.
    pub fn removed_unless_used(mut self) -> Self {
        self.lock.discard();
        self
    }

    /// Keeps an index without rows.
    pub fn keep(&mut self) {
        self.lock.keep();
    }

    /// True if rows were ever committed.
    pub fn has_rows(&self) -> bool {
        self.files.state.n_rows > 0
    }

    /// Settings of the index.
    pub fn manifest(&self) -> &IndexManifest {
        &self.files.manifest
    }

    /// Rows that wait for the next commit.
    pub fn n_pending_rows(&self) -> usize {
        self.pending.rows.len() / stride_of(self.files.manifest.dim)
    }

    /// Bytes of text that wait for the next commit.
    pub fn n_pending_bytes(&self) -> usize {
        self.pending.text_bytes
    }

    /// The live or pending document with this id.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn find(&self, id: &str) -> Result<Option<ExistingDocument>> {
        let pending = self.pending.by_id.get(id).map(|&at| &self.pending.documents[at]);
        let found = match pending {
            Some(document) => Some((document.seq, document.hash)),
            None => {
                let sql = "SELECT seq, hash FROM document WHERE id = ?1 AND dead = 0";
                self.files.database.collect(sql, [id], |r| r.try_into())?.pop()
            }
        };
        let found = found.filter(|(seq, _)| !self.pending.deleted.contains(seq));
        Ok(found.map(|(seq, hash)| ExistingDocument { seq, hash }))
    }

    /// Adds a document with its chunks and their vectors, `[chunks.len(), dim]`. The same commit
    /// deletes a live document with the same id. Returns the document's number.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] naming the record if a vector holds NaN, infinity or a component beyond
    /// ±65504, the metadata has too many fields, or the index is full; [`Error::Usage`] if the
    /// lengths do not fit, or a document with this id waits for the commit already.
    pub fn put(&mut self, document: Document, chunks: Vec<Chunk>, vectors: &[f32]) -> Result<i64> {
        let dim = self.files.manifest.dim;
        if vectors.len() != chunks.len() * dim || chunks.is_empty() {
            return Err(Error::usage(format!(
                "document '{}': {} chunks need {} values, got {}",
                document.id,
                chunks.len(),
                chunks.len() * dim,
                vectors.len()
            )));
        }
        let n_rows = self.files.state.n_rows + (self.n_pending_rows() + chunks.len()) as u64;
        if n_rows > MAX_ROWS {
            return Err(Error::input(
                document.place,
                format!("the index is full: it holds at most {MAX_ROWS} rows"),
            ));
        }
        if let Some(at) = vectors.iter().position(|v| !f16::from_f32(*v).is_finite()) {
            return Err(Error::input(
                document.place.field("vector"),
                format!(
                    "component {} of the vector is {}, which half precision cannot hold: \
                     components must be finite and within ±65504",
                    at % dim,
                    vectors[at]
                ),
            ));
        }
        let n_fields = n_fields(&document.metadata);
        if n_fields > MAX_FIELDS {
            return Err(Error::input(
                document.place.field("metadata"),
                format!(
                    "the document has {n_fields} metadata fields, and at most {MAX_FIELDS} are \
                     allowed: leave some out, or put their values into a list"
                ),
            ));
        }
        if self.pending.by_id.contains_key(&document.id) {
            return Err(Error::usage(format!("document '{}' was put in twice", document.id)));
        }
        if let Some(old) = self.find(&document.id)? {
            self.pending.deleted.insert(old.seq);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let hash = content_hash(&document);
        self.pending.push(PendingDocument { seq, document, hash, chunks }, vectors, dim);
        Ok(seq)
    }

    /// Deletes a live or pending document with the next commit.
    pub fn delete(&mut self, seq: i64) {
        self.pending.deleted.insert(seq);
    }

    /// Makes all changes so far durable and visible to new readers, all or nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Database`], a full disk among them. The pending changes are
    /// dropped then, and every later call fails. Open the index again to see its state, and go on
    /// there.
    pub fn commit(&mut self) -> Result<()> {
        if self.failed {
            return Err(Error::usage("an earlier commit failed: open the index again"));
        }
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        // If the commit fails it is unknown whether it took effect.
        self.failed = true;
        self.lock.keep();
        let IndexFiles { manifest, database, state, vectors, .. } = &mut self.files;
        let stride = stride_of(manifest.dim);
        let n_new = (pending.rows.len() / stride) as u64;
        if n_new > 0 {
            vectors.write(state.n_rows, &pending.rows)?;
            vectors.sync()?;
        }
        let new = CommitState { n_rows: state.n_rows + n_new, ..*state };
        let language = manifest.language();
        database.commit(new, |conn| pending.write(conn, language, state.n_rows, stride))?;
        *state = new;
        self.failed = false;
        Ok(())
    }

    /// Commits, and makes the index a shard: stores the checksum of its documents, after which
    /// nothing can be changed.
    ///
    /// # Errors
    ///
    /// As [`IndexWriter::commit`].
    pub(crate) fn seal(mut self) -> Result<()> {
        self.commit()?;
        let IndexFiles { database, state, .. } = &self.files;
        let content = database.hash_documents()?.cast_signed();
        database.commit(*state, |conn| {
            let sql = "INSERT OR REPLACE INTO state VALUES ('content', ?1)";
            conn.execute(sql, [content]).map(drop)
        })
    }

    /// Length of the write-ahead log in bytes, if it is time to move its pages to the database.
    pub fn long_log(&self) -> Option<u64> {
        let len = self.files.database.log_len();
        (len >= MAX_LOG).then_some(len)
    }

    /// Moves pages from the write-ahead log to the database, as far as open snapshots allow. True
    /// if all were moved: snapshots that are opened from then on do not use the log, and when no
    /// snapshot does, the next commit starts it anew.
    pub fn move_log(&self) -> bool {
        self.files.database.move_log()
    }

    /// Live and deleted rows of the last commit.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn live_and_deleted_rows(&self) -> Result<(u64, u64)> {
        let sql = "SELECT coalesce(sum(n_chunks), 0) FROM document WHERE dead = 1";
        let deleted: u64 = self.files.database.number::<i64>(sql)?.cast_unsigned();
        Ok((self.files.state.n_rows.saturating_sub(deleted), deleted))
    }

    /// Calls `visit` with the number of every committed live document, ascending, and its source
    /// ([`Document::source`]) if that is known. Documents of older versions have none.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn for_each_live(&self, visit: impl FnMut(i64, Option<&str>)) -> Result<()> {
        let sql = "SELECT seq FROM document WHERE dead = 0 ORDER BY seq";
        sources::for_each(&self.files.database, sql, visit)
    }

    /// The source of a committed document, if it is known.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn source(&self, seq: i64) -> Result<Option<Arc<str>>> {
        sources::find(&self.files.database, seq)
    }

    /// Changes the source of a live document with the next commit.
    pub fn set_source(&mut self, seq: i64, source: Option<Arc<str>>) {
        sources::push(&mut self.pending.sources, seq, source);
    }

    /// The recorded inputs, by name, with their settings.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn inputs(&self) -> Result<Vec<(String, String)>> {
        inputs::inputs(&self.files.database)
    }

    /// Records the settings of an input with the next commit; with `None`, forgets the input.
    pub fn set_input(&mut self, name: String, settings: Option<String>) {
        self.pending.inputs.inputs.push((name, settings));
    }

    /// The committed stamps of files, by source.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn stamps(&self) -> Result<HashMap<String, FileStamp>> {
        inputs::stamps(&self.files.database)
    }

    /// Stores the stamp of a file with the next commit; with `None`, forgets it.
    pub fn set_stamp(&mut self, source: String, stamp: Option<FileStamp>) {
        self.pending.inputs.stamps.push((source, stamp));
    }

    /// Ids of the live documents with these numbers, in the given order.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn ids(&self, seqs: &[i64]) -> Result<Vec<String>> {
        let sql = "SELECT id FROM document WHERE seq = ?1 AND dead = 0";
        let id = |seq: &i64| self.files.database.collect(sql, [seq], |r| r.get::<_, String>(0));
        let ids: Result<Vec<Vec<String>>> = seqs.iter().map(id).collect();
        Ok(ids?.concat())
    }

    /// Numbers of the live documents with this id; if there is none, of those with this `doc_id`;
    /// else of the one whose only row has this id.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn find_all(&self, name: &str) -> Result<Vec<i64>> {
        for condition in ["id = ?1", "doc_id = ?1"] {
            let found = self.live_where(condition, [name])?;
            if !found.is_empty() {
                return Ok(found);
            }
        }
        match split_row_id(name) {
            Some((id, 0)) if split_row_id(id).is_some() => {
                self.live_where("id = ?1 AND n_chunks = 1", [id])
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The id of the live document that has a row of this id among several.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn document_of_row(&self, row_id: &str) -> Result<Option<String>> {
        let Some((id, ordinal)) = split_row_id(row_id) else { return Ok(None) };
        let found = self.live_where("id = ?1 AND n_chunks > max(?2, 1)", (id, ordinal))?;
        Ok((!found.is_empty()).then(|| id.to_owned()))
    }

    /// Numbers of the live documents that pass a filter, and warnings.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the filter does not fit the index's fields.
    pub fn find_where(&self, filter: &Filter) -> Result<(Vec<i64>, Vec<String>)> {
        let condition = filter.compile(&FieldCatalog::read(&self.files.database)?)?;
        let warnings = notes(&self.files.database, &condition.notes)?;
        let values = rusqlite::params_from_iter(condition.values);
        Ok((self.live_where(&condition.sql, values)?, warnings))
    }

    /// Numbers of the live documents `d` that fulfil an SQL condition, ascending.
    fn live_where(&self, condition: &str, values: impl rusqlite::Params) -> Result<Vec<i64>> {
        let sql =
            format!("SELECT seq FROM document d WHERE dead = 0 AND ({condition}) ORDER BY seq");
        self.files.database.collect(&sql, values, |r| r.get(0))
    }
}
