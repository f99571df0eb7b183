//! The one writer of an index.

use super::create::{self, Found};
use super::documents::{Documents, State};
use super::hash::content_hash;
use super::lock::WriteLock;
use super::manifest::IndexManifest;
use super::matrix::{MAX_ROWS, stride_of};
use super::pending::{Pending, PendingDocument};
use super::vector_file::VectorFiles;
use super::{compact, read_manifest};
use crate::chunk::Chunk;
use crate::error::{Error, Result};
use crate::ingest::Document;
use half::f16;
use rusqlite::OptionalExtension;
use std::path::{Path, PathBuf};

/// An open index that can be changed. What was put in becomes visible, and durable, with
/// [`IndexWriter::commit`]; dropping the writer loses only what was not committed.
#[derive(Debug)]
pub struct IndexWriter {
    pub(super) dir: PathBuf,
    pub(super) manifest: IndexManifest,
    pub(super) documents: Documents,
    pub(super) state: State,
    pub(super) vectors: VectorFiles,
    next_seq: i64,
    pending: Pending,
    /// Whether a commit failed: whether it took place is not known then.
    failed: bool,
    _lock: WriteLock,
}

/// A live document of the index, or one that waits for the next commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Existing {
    /// Its number, rising in the order of insertion.
    pub seq: i64,
    /// See [`content_hash`].
    pub hash: [u8; 32],
}

impl IndexWriter {
    /// Opens the index in `dir`, or makes it as `manifest` says where there is none yet. A manifest
    /// that was lost is restored from the database.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] while another process writes; [`Error::Usage`] where the index was made with
    /// another model, dimension or chunking, or the folder holds other files; [`Error::Corrupt`]
    /// where it is damaged.
    pub fn open_or_create(dir: &Path, manifest: &IndexManifest) -> Result<Self> {
        // A look before the lock file is made, and one that counts while it is held.
        if create::look(dir)? != Found::Index {
            let lock = create::lock_new(dir)?;
            match create::look(dir)? {
                Found::Nothing => return Self::create(dir, manifest, lock),
                Found::LostManifest => create::restore_manifest(dir)?,
                Found::Index => {}
            }
        }
        let this = Self::open(dir)?;
        match this.check_compatible(manifest) {
            Ok(()) => Ok(this),
            // Nothing was ever put in: a first try that failed must not bind the second.
            Err(_) if this.is_unused() => this.remake(manifest),
            Err(e) => Err(e),
        }
    }

    /// Whether no row was ever committed.
    fn is_unused(&self) -> bool {
        self.state.n_rows == 0 && self.state.generation == 0
    }

    /// Makes an unused index anew with other settings.
    fn remake(self, manifest: &IndexManifest) -> Result<Self> {
        let Self { dir, documents, vectors, _lock: lock, .. } = self;
        drop((documents, vectors));
        Self::create(&dir, manifest, lock)
    }

    /// A new index in a folder that holds none.
    fn create(dir: &Path, manifest: &IndexManifest, lock: WriteLock) -> Result<Self> {
        let (documents, state, vectors) = create::create(dir, manifest)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest: manifest.clone(),
            documents,
            state,
            vectors,
            next_seq: 1,
            pending: Pending::default(),
            failed: false,
            _lock: lock,
        })
    }

    /// Opens an existing index.
    ///
    /// # Errors
    ///
    /// [`Error::NoIndex`], [`Error::Locked`] or [`Error::Corrupt`].
    pub fn open(dir: &Path) -> Result<Self> {
        read_manifest(dir)?;
        let lock = WriteLock::take(dir)?;
        let (manifest, manifest_hash) = read_manifest(dir)?;
        let documents = Documents::open_writer(dir)?;
        let mut state = documents.state()?;
        super::check_manifest(dir, manifest_hash, state)?;
        let vectors = VectorFiles::open(dir, manifest.dim, state, true)?;
        // One that cannot be extended is given up: the next rows would be missing in it.
        state.has_prefilter = vectors.prefilter.is_some();
        // What was read may be a commit whose process died before the system wrote it to the disk.
        // Only after a commit of our own is durable may what it replaced be overwritten or removed.
        documents.transaction(|| documents.set_state(state))?;
        compact::remove_other_generations(dir, state.generation);
        let next_seq = documents
            .conn
            .query_row("SELECT coalesce(max(seq), 0) + 1 FROM document", [], |r| r.get(0))
            .map_err(documents.failure())?;
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest,
            documents,
            state,
            vectors,
            next_seq,
            pending: Pending::default(),
            failed: false,
            _lock: lock,
        })
    }

    fn check_compatible(&self, wanted: &IndexManifest) -> Result<()> {
        let here = &self.manifest;
        let refuse = |what: String| {
            Err(Error::usage(format!(
                "{}: the index {what}; use the same setting, or build a new index in another folder",
                self.dir.display()
            )))
        };
        if here.dim != wanted.dim {
            return refuse(format!("has {} dimensions, not {}", here.dim, wanted.dim));
        }
        let sha = |m: &IndexManifest| m.model.as_ref().map(|m| m.sha256.clone());
        if sha(here) != sha(wanted) {
            let name = |m: &IndexManifest| {
                m.model.as_ref().map_or("no model".to_owned(), |m| format!("'{}'", m.name))
            };
            return refuse(format!(
                "was made with {} and cannot take vectors of {}",
                name(here),
                name(wanted)
            ));
        }
        if here.chunking != wanted.chunking {
            let describe = |m: &IndexManifest| {
                format!(
                    "chunks of {} tokens with {} overlap, records {}",
                    m.chunking.max_tokens,
                    m.chunking.overlap,
                    if m.chunking.split_records { "split" } else { "whole" }
                )
            };
            return refuse(format!("was made with {}, not {}", describe(here), describe(wanted)));
        }
        Ok(())
    }

    /// What the index is made of.
    pub fn manifest(&self) -> &IndexManifest {
        &self.manifest
    }

    /// Rows that wait for the next commit.
    pub fn n_pending_rows(&self) -> usize {
        self.pending.rows.len() / stride_of(self.manifest.dim)
    }

    /// Bytes of text that wait for the next commit.
    pub fn n_pending_bytes(&self) -> usize {
        self.pending.text_bytes
    }

    /// Rows committed so far, dead ones included.
    pub fn n_rows(&self) -> u64 {
        self.state.n_rows
    }

    /// The live (or pending) document of this id.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn find(&self, id: &str) -> Result<Option<Existing>> {
        if let Some(&at) = self.pending.by_id.get(id) {
            let pending = &self.pending.documents[at];
            let existing = Existing { seq: pending.seq, hash: pending.hash };
            return Ok(Some(existing).filter(|e| !self.pending.dead.contains(&e.seq)));
        }
        let found = self
            .documents
            .conn
            .prepare_cached("SELECT seq, hash FROM document WHERE id = ?1 AND dead = 0")
            .and_then(|mut s| {
                s.query_row([id], |r| Ok(Existing { seq: r.get(0)?, hash: r.get(1)? })).optional()
            })
            .map_err(self.documents.failure())?;
        Ok(found.filter(|e| !self.pending.dead.contains(&e.seq)))
    }

    /// Adds a document with its chunks and their vectors (`[chunks.len(), dim]`); a live document of
    /// the same id dies with the same commit. Returns the document's number.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] naming the record where a vector holds NaN, infinity or a component beyond
    /// ±65504 or there is no row left, [`Error::Usage`] where the lengths do not fit, or the document
    /// already waits for this commit.
    pub fn put(&mut self, document: Document, chunks: Vec<Chunk>, vectors: &[f32]) -> Result<i64> {
        let dim = self.manifest.dim;
        if vectors.len() != chunks.len() * dim || chunks.is_empty() {
            return Err(Error::usage(format!(
                "document '{}': {} chunks need {} values, got {}",
                document.id,
                chunks.len(),
                chunks.len() * dim,
                vectors.len()
            )));
        }
        let n_rows = self.state.n_rows + (self.n_pending_rows() + chunks.len()) as u64;
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
                    "component {} of the vector is {}, which half precision cannot hold: components \
                     must be finite and within ±65504",
                    at % dim,
                    vectors[at]
                ),
            ));
        }
        if self.pending.by_id.contains_key(&document.id) {
            return Err(Error::usage(format!("document '{}' was put in twice", document.id)));
        }
        if let Some(old) = self.find(&document.id)? {
            self.pending.dead.insert(old.seq);
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let hash = content_hash(&document);
        self.pending.push(PendingDocument { seq, document, hash, chunks }, vectors, dim);
        Ok(seq)
    }

    /// Marks a live or pending document dead with the next commit.
    pub fn delete(&mut self, seq: i64) {
        self.pending.dead.insert(seq);
    }

    /// Makes everything put in and deleted so far durable and visible to new readers, all or
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Database`], disk full among them. What was pending is dropped then, and
    /// every later call fails too: open the index again to see what it holds, and go on there.
    pub fn commit(&mut self) -> Result<()> {
        if self.failed {
            return Err(Error::usage("an earlier commit failed: open the index again"));
        }
        let pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            return Ok(());
        }
        self.failed = true;
        let stride = stride_of(self.manifest.dim);
        let n_new = (pending.rows.len() / stride) as u64;
        if n_new > 0 {
            self.vectors.write(self.state.n_rows, &pending.rows)?;
            self.vectors.sync()?;
        }
        let state = State { n_rows: self.state.n_rows + n_new, ..self.state };
        self.documents.transaction(|| {
            pending
                .write(&self.documents.conn, self.state.n_rows, stride)
                .map_err(self.documents.failure())?;
            self.documents.set_state(state)
        })?;
        self.state = state;
        self.failed = false;
        Ok(())
    }

    /// The live documents whose number is not in `keep`, for pruning.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn live_except(&self, keep: impl Fn(i64) -> bool) -> Result<Vec<i64>> {
        self.live_seqs("SELECT seq FROM document WHERE dead = 0 ORDER BY seq", [])
            .map(|seqs| seqs.into_iter().filter(|&seq| !keep(seq)).collect())
    }

    /// The live documents of this id; where there is none, those of this `doc_id`.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn find_all(&self, name: &str) -> Result<Vec<i64>> {
        let by_id =
            self.live_seqs("SELECT seq FROM document WHERE id = ?1 AND dead = 0", [name])?;
        if !by_id.is_empty() {
            return Ok(by_id);
        }
        self.live_seqs(
            "SELECT seq FROM document WHERE doc_id = ?1 AND dead = 0 ORDER BY seq",
            [name],
        )
    }

    /// The live documents that pass a filter.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the filter does not fit the index's fields.
    pub fn find_where(&self, filter: &super::filter::Filter) -> Result<Vec<i64>> {
        let fields = super::reader::read_fields(&self.documents)?;
        let condition = filter.compile(&fields)?;
        let sql = format!(
            "SELECT seq FROM document d WHERE dead = 0 AND ({}) ORDER BY seq",
            condition.sql
        );
        self.live_seqs(&sql, rusqlite::params_from_iter(condition.values))
    }

    fn live_seqs(&self, sql: &str, values: impl rusqlite::Params) -> Result<Vec<i64>> {
        self.documents
            .conn
            .prepare(sql)
            .and_then(|mut s| s.query_map(values, |r| r.get(0))?.collect())
            .map_err(self.documents.failure())
    }
}
