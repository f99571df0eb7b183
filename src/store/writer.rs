//! The one writer of an index.

use super::documents::{Documents, State};
use super::fields::FieldCatalog;
use super::format::{HEADER_LEN, VALUE_LEN, vectors_file};
use super::hash::{content_hash, metadata_json};
use super::lock::WriteLock;
use super::manifest::{IndexManifest, MANIFEST_FILE};
use super::matrix::{MAX_ROWS, row_norm_upper, stride_of};
use super::vector_file::{as_bytes, create_vectors, open_vectors};
use super::{compact, read_manifest};
use crate::chunk::Chunk;
use crate::error::{Error, Result};
use crate::ingest::Document;
use crate::output::OutputFile;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// An open index that can be changed. What was put in becomes visible, and durable, with
/// [`IndexWriter::commit`]; dropping the writer loses only what was not committed.
#[derive(Debug)]
pub struct IndexWriter {
    pub(super) dir: PathBuf,
    pub(super) manifest: IndexManifest,
    pub(super) documents: Documents,
    pub(super) state: State,
    vectors: File,
    next_seq: i64,
    pending: Pending,
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

/// What the next commit will write.
#[derive(Debug, Default)]
struct Pending {
    rows: Vec<f16>,
    max_norm: f32,
    documents: Vec<PendingDocument>,
    by_id: HashMap<String, usize>,
    dead: Vec<i64>,
    fields: FieldCatalog,
}

#[derive(Debug)]
struct PendingDocument {
    seq: i64,
    document: Document,
    hash: [u8; 32],
    chunks: Vec<Chunk>,
}

impl IndexWriter {
    /// Opens the index in `dir`, or makes it as `manifest` says where there is none yet.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] while another process writes; [`Error::Usage`] where the index was made with
    /// another model, dimension or chunking, or the folder holds other files; [`Error::Corrupt`]
    /// where it is damaged.
    pub fn open_or_create(dir: &Path, manifest: &IndexManifest) -> Result<Self> {
        if !dir.join(MANIFEST_FILE).exists() {
            return Self::create(dir, manifest);
        }
        let this = Self::open(dir)?;
        this.check_compatible(manifest)?;
        Ok(this)
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
        let state = documents.state()?;
        super::check_manifest(dir, manifest_hash, state)?;
        let vectors = open_vectors(dir, &manifest, state, true)?;
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
            _lock: lock,
        })
    }

    fn create(dir: &Path, manifest: &IndexManifest) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
            let name = entry.map_err(Error::io("read", dir))?.file_name();
            let name = name.to_string_lossy();
            if !super::is_index_file(&name) {
                return Err(Error::usage(format!(
                    "{} holds other files ('{name}'): choose an empty or a new folder for the index",
                    dir.display()
                )));
            }
        }
        let lock = WriteLock::take(dir)?;
        if dir.join(MANIFEST_FILE).exists() {
            // Another process made it in the meantime.
            drop(lock);
            return Self::open_or_create(dir, manifest);
        }
        let bytes = manifest.encode();
        let state = State { generation: 0, n_rows: 0, manifest_hash: xxh3_64(&bytes) };
        let documents = Documents::create(dir, state)?;
        let vectors = create_vectors(dir, manifest.dim, state.generation)?;
        // The manifest comes last: a folder without one is no index yet.
        let mut file = OutputFile::create(&dir.join(MANIFEST_FILE))?;
        file.put(&bytes)?;
        file.finish()?;
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest: manifest.clone(),
            documents,
            state,
            vectors,
            next_seq: 1,
            pending: Pending::default(),
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
            return Ok(Some(Existing { seq: pending.seq, hash: pending.hash }));
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
            self.pending.dead.push(old.seq);
        }
        let stride = stride_of(dim);
        for vector in vectors.chunks_exact(dim) {
            let start = self.pending.rows.len();
            self.pending.rows.resize(start + stride, f16::ZERO);
            let row = &mut self.pending.rows[start..];
            row[..dim].convert_from_f32_slice(vector);
            self.pending.max_norm = self.pending.max_norm.max(row_norm_upper(row));
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        self.pending.fields.count(&document.metadata);
        self.pending.by_id.insert(document.id.clone(), self.pending.documents.len());
        let hash = content_hash(&document);
        self.pending.documents.push(PendingDocument { seq, document, hash, chunks });
        Ok(seq)
    }

    /// Marks a live document dead with the next commit.
    pub fn delete(&mut self, seq: i64) {
        self.pending.dead.push(seq);
    }

    /// Makes everything put in and deleted so far durable and visible to new readers, all or
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Database`], disk full among them; the index then stays as it was.
    pub fn commit(&mut self) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        if pending.documents.is_empty() && pending.dead.is_empty() {
            return Ok(());
        }
        let stride = stride_of(self.manifest.dim);
        let n_new = (pending.rows.len() / stride) as u64;
        let bytes = as_bytes(&pending.rows);
        if n_new > 0 {
            let path = self.dir.join(vectors_file(self.state.generation));
            let at = HEADER_LEN as u64 + self.state.n_rows * (stride * VALUE_LEN) as u64;
            self.vectors
                .seek(SeekFrom::Start(at))
                .and_then(|_| self.vectors.write_all(bytes))
                .and_then(|()| self.vectors.sync_data())
                .map_err(Error::io("write", path))?;
        }
        let state = State { n_rows: self.state.n_rows + n_new, ..self.state };
        let failure = self.documents.failure();
        self.documents.conn.execute_batch("BEGIN IMMEDIATE").map_err(&failure)?;
        let written = self
            .write_documents(&pending, xxh3_64(bytes))
            .and_then(|()| self.documents.set_state(state))
            .and_then(|()| self.documents.conn.execute_batch("COMMIT").map_err(&failure));
        if written.is_err() {
            // A failed commit may have ended the transaction already.
            let _ = self.documents.conn.execute_batch("ROLLBACK");
        }
        drop(failure);
        written?;
        self.state = state;
        Ok(())
    }

    fn write_documents(&self, pending: &Pending, checksum: u64) -> Result<()> {
        let failure = self.documents.failure();
        let conn = &self.documents.conn;
        let mut row = self.state.n_rows;
        let mut run = || -> rusqlite::Result<()> {
            let mut kill = conn.prepare_cached("UPDATE document SET dead = 1 WHERE seq = ?1")?;
            let mut forget = conn.prepare_cached(
                "DELETE FROM lexical WHERE rowid IN (SELECT row FROM chunk WHERE document = ?1)",
            )?;
            for seq in &pending.dead {
                kill.execute([seq])?;
                forget.execute([seq])?;
            }
            let mut add_document = conn.prepare_cached(
                "INSERT INTO document
                 (seq, id, doc_id, n_chunks, embed_title, hash, metadata, title, text)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, jsonb(?7), ?8, ?9)",
            )?;
            let mut add_chunk = conn.prepare_cached(
                "INSERT INTO chunk (row, document, ordinal, start_byte, end_byte, tokens, tokens_lost)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?;
            let mut add_words = conn
                .prepare_cached("INSERT INTO lexical (rowid, title, body) VALUES (?1, ?2, ?3)")?;
            for PendingDocument { seq, document, hash, chunks } in &pending.documents {
                add_document.execute(params![
                    seq,
                    document.id,
                    document.doc_id,
                    chunks.len() as i64,
                    document.embed_title,
                    hash,
                    metadata_json(document),
                    document.title,
                    document.text,
                ])?;
                for (ordinal, chunk) in chunks.iter().enumerate() {
                    add_chunk.execute(params![
                        row.cast_signed(),
                        seq,
                        ordinal as i64,
                        chunk.range.start as i64,
                        chunk.range.end as i64,
                        chunk.tokens,
                        chunk.tokens_lost,
                    ])?;
                    let body = document.text.get(chunk.range.clone()).unwrap_or_default();
                    add_words.execute(params![
                        row.cast_signed(),
                        lexical_title(&document.title, &document.text),
                        body
                    ])?;
                    row += 1;
                }
            }
            if row > self.state.n_rows {
                conn.prepare_cached(
                    "INSERT INTO extent (first_row, n_rows, checksum, max_norm) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![
                    self.state.n_rows.cast_signed(),
                    (row - self.state.n_rows).cast_signed(),
                    checksum.cast_signed(),
                    pending.max_norm
                ])?;
            }
            add_fields(conn, &pending.fields)
        };
        run().map_err(failure)
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

/// Adds the counts of a catalogue to the stored one.
pub(super) fn add_fields(conn: &Connection, fields: &FieldCatalog) -> rusqlite::Result<()> {
    let mut count = conn.prepare_cached(
        "INSERT INTO field VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (name) DO UPDATE SET
         texts = texts + excluded.texts, numbers = numbers + excluded.numbers,
         booleans = booleans + excluded.booleans, arrays = arrays + excluded.arrays,
         objects = objects + excluded.objects, nulls = nulls + excluded.nulls",
    )?;
    for (name, t) in fields.iter() {
        count.execute(params![
            name,
            t.texts.cast_signed(),
            t.numbers.cast_signed(),
            t.booleans.cast_signed(),
            t.arrays.cast_signed(),
            t.objects.cast_signed(),
            t.nulls.cast_signed()
        ])?;
    }
    Ok(())
}

/// The lexical index's title column: empty where the text starts with the title anyway, so that its
/// words do not count twice.
pub(super) fn lexical_title<'a>(title: &'a str, text: &str) -> &'a str {
    if text.starts_with(title) { "" } else { title }
}
