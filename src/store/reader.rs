//! The index in one folder, open for reading: all of an index, or one of its shards.

use super::commit_record::CommitRecord;
use super::database::{CommitState, Database};
use super::fields::FieldCatalog;
use super::format::{HEADER_LEN, REBUILD, VectorFileKind, as_values};
use super::hash::StoredHash;
use super::hash::content_hash;
use super::index_files::IndexFiles;
use super::inputs;
use super::lexical::{self, LexicalHits};
use super::manifest::IndexManifest;
use super::row::{DocumentTraits, Row, RowNames, row_id};
use super::vector_files::RowFile;
use crate::error::{Error, Place, Result};
use memmap2::Mmap;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warpseek_ingest::Document;
use warpseek_ingest::chunk::Chunk;
use warpseek_topk::Sq8View;
use warpseek_topk::checksums::{BlockChecksum, CheckedFile, CheckedRows, Checksums};
use warpseek_topk::matrix::RowsDigest;
use warpseek_topk::sq8::RowScale;
use warpseek_topk::{MatrixView, RowMask};

/// Attempts to open several connections between two commits.
const SHARED_ATTEMPTS: usize = 5;

/// Rows whose documents are looked up together.
const DOCUMENT_ROWS: u64 = 1 << 16;

/// Number of documents that are known to match their hash.
const MAX_CHECKED_DOCUMENTS: usize = 1 << 16;

/// A snapshot of the index in one folder. Later commits stay invisible until it is opened again.
/// May be shared between threads.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) dir: PathBuf,
    pub(super) manifest: IndexManifest,
    database: Mutex<Database>,
    /// Connections for filters: for those that are quick, and for the others.
    pub(super) filters: Option<[Mutex<Database>; 2]>,
    /// True for a snapshot that many threads use.
    is_shared: bool,
    pub(super) state: CommitState,
    pub(super) rows: Mmap,
    /// Lives as long as the map does.
    pub(super) owner: Arc<()>,
    /// Digests of the rows up to the end of each commit record.
    history: Vec<RowsDigest>,
    /// Checksum of all rows, chunks and documents, and of the number of the last commit.
    checksum: u64,
    /// True if it was made to be a shard, and never changes.
    pub(super) is_sealed: bool,
    /// Integers and scales of the int8 copy.
    pub(super) int8: Option<[Mmap; 2]>,
    /// Checksums of the rows.
    checksums: Option<Mmap>,
    blocks: Vec<BlockChecksum>,
    checked: CheckedRows,
    /// Identity of the mapped files.
    identity: Vec<(u64, u64)>,
    /// Numbers of documents that were compared with their hashes.
    checked_documents: Mutex<HashSet<i64>>,
    max_norm: f32,
    pub(super) live: RowMask,
    /// The metadata fields, of all shards if there are several.
    pub(super) fields: Arc<FieldCatalog>,
}

/// A name by which rows are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowName {
    /// The document's id.
    Id,
    /// The document's id in relevance judgments.
    DocId,
}

impl Shard {
    /// Opens the index in `dir`. Checks manifest, headers and lengths, and that no commit is lost.
    /// Rows and documents are checked before their first use; `verify` checks everything.
    ///
    /// # Errors
    ///
    /// [`Error::NoIndex`] if there is none, [`Error::Corrupt`] naming the damaged file and the
    /// remedy.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let IndexFiles { dir, manifest, database, state, vectors } = IndexFiles::open_reader(dir)?;
        let rows = vectors.f16.map(state.n_rows)?;
        let map_int8 = |[integers, scales]: &[RowFile; 2]| -> Result<[Mmap; 2]> {
            Ok([integers.map(state.n_rows)?, scales.map(state.n_rows)?])
        };
        let int8 = vectors.int8.as_ref().map(map_int8).transpose()?;
        let int8 = int8.filter(|[_, scales]| {
            // Without checksums, values that no row has are all that can be seen.
            vectors.checksums.is_some() || scales_are_possible(scales, manifest.dim, &dir)
        });
        let checksums =
            vectors.checksums.as_ref().map(|file| file.map(state.n_rows)).transpose()?;
        let checked_file = |kind: VectorFileKind| CheckedFile {
            path: dir.join(kind.name(state.generation)),
            remedy: kind.remedy(),
        };
        let kinds = [VectorFileKind::F16, VectorFileKind::Int8, VectorFileKind::Checksums];
        let records = CommitRecord::read_all(&database)?;
        let mut live = RowMask::full(state.n_rows as usize);
        let sql =
            "SELECT c.row FROM document d JOIN chunk c ON c.document = d.seq WHERE d.dead = 1";
        database.for_each(sql, [], |r| {
            live.remove(r.get(0)?);
            Ok(())
        })?;
        let fields = Arc::new(FieldCatalog::read(&database)?);
        let content = database.content()?;
        let own = [content.unwrap_or(0), database.commit_number()?];
        Ok(Self {
            checksums,
            blocks: records.iter().map(CommitRecord::block).collect(),
            checked: CheckedRows::new(state.n_rows as usize, kinds.map(checked_file)),
            identity: vectors.identity()?,
            checked_documents: Mutex::default(),
            filters: None,
            is_shared: false,
            dir,
            manifest,
            database: Mutex::new(database),
            state,
            rows,
            owner: Arc::default(),
            history: CommitRecord::history(&records),
            checksum: CommitRecord::checksum_of_all(&records, own),
            is_sealed: content.is_some(),
            int8,
            max_norm: records.iter().map(|record| record.max_norm).fold(0.0, f32::max),
            live,
            fields,
        })
    }

    /// Opens the index again. Rows that this snapshot has compared with their checksums are not
    /// compared again if the files are the same.
    ///
    /// # Errors
    ///
    /// As [`Shard::open`].
    pub(super) fn reopen(&self) -> Result<Self> {
        if self.is_shared { self.shared() } else { self.reopen_alone() }
    }

    /// Opens the index again, for many threads: filters have connections of their own, so that
    /// searches do not wait for one that takes long.
    ///
    /// # Errors
    ///
    /// As [`Shard::open`].
    pub(super) fn shared(&self) -> Result<Self> {
        for _ in 0..SHARED_ATTEMPTS {
            let mut new = self.reopen_alone()?;
            new.is_shared = true;
            let database = new.database.get_mut().unwrap_or_else(PoisonError::into_inner);
            if database.is_unlocked() {
                return Ok(new);
            }
            let number = database.commit_number()?;
            let filters = [Database::open_reader(&self.dir)?, Database::open_reader(&self.dir)?];
            // A commit in between would give them other rows.
            if filters.iter().all(|filter| filter.commit_number().ok() == Some(number)) {
                new.filters = Some(filters.map(Mutex::new));
                return Ok(new);
            }
        }
        Ok(Self { is_shared: true, ..self.reopen_alone()? })
    }

    fn reopen_alone(&self) -> Result<Self> {
        let new = Self::open(&self.dir)?;
        // The files of this snapshot are mapped, so that no other files have their numbers.
        if new.state.generation == self.state.generation && new.identity == self.identity {
            new.checked.take_over(&self.checked);
        }
        Ok(new)
    }

    /// The index folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Settings of the index.
    pub(super) fn manifest(&self) -> &IndexManifest {
        &self.manifest
    }

    /// The number of rows of the snapshot, deleted ones included.
    pub(super) fn n_rows(&self) -> usize {
        self.state.n_rows as usize
    }

    /// Identifies the snapshot: a later commit or compaction changes it.
    pub(super) fn snapshot_id(&self) -> String {
        let CommitState { manifest_hash, generation, n_rows, .. } = self.state;
        let n_deleted = self.n_rows() - self.live.count();
        format!("{manifest_hash:016x}-{generation}-{n_rows}-{n_deleted}")
    }

    /// The vectors, with their int8 copy if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if the mapped file does not hold whole rows.
    pub(super) fn matrix(&self) -> Result<MatrixView<'_>> {
        // Maps are page-aligned, and the header is a page long.
        let int8 = self.int8.as_ref().and_then(|[integers, scales]| {
            let integers = as_values(&integers[HEADER_LEN..])?;
            let scales = as_values(&scales[HEADER_LEN..])?;
            Sq8View::new(integers, scales, self.n_rows(), self.manifest.dim)
        });
        let checksums = self.checksums.as_ref().and_then(|file| as_values(&file[HEADER_LEN..]));
        let checksums =
            checksums.map(|rows| Checksums { rows, blocks: &self.blocks, checked: &self.checked });
        as_values(&self.rows[HEADER_LEN..])
            .and_then(|values| MatrixView::new(values, self.manifest.dim, self.max_norm))
            .map(|view| view.with_sq8(int8).with_checksums(checksums))
            .map(|view| view.with_owner(&self.owner, &self.history))
            .ok_or_else(|| {
                let path = self.dir.join(VectorFileKind::F16.name(self.state.generation));
                Error::corrupt(path, format!("the file does not hold whole rows; {REBUILD}"))
            })
    }

    /// The first `k` rows of `mask` by BM25, best first, and BM25 of the rows `asked` beside it.
    pub(super) fn lexical(
        &self,
        query: &str,
        k: usize,
        mask: &RowMask,
        asked: &[u32],
    ) -> Result<LexicalHits> {
        lexical::search(&self.database(), self.manifest.language(), query, k, mask, asked)
    }

    /// The recorded inputs, by name, with their settings.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub(super) fn inputs(&self) -> Result<Vec<(String, String)>> {
        inputs::inputs(&self.database())
    }

    /// The rows with these numbers and their texts, in the given order.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a row has no chunk in the database, or a document differs from its
    /// hash.
    pub(super) fn rows(&self, numbers: &[u32]) -> Result<Vec<Row>> {
        let database = self.database();
        let mut rows = Vec::with_capacity(numbers.len());
        // Neighbouring rows are often chunks of one document, whose text is read once.
        let (mut text_seq, mut text) = (0, String::new());
        let sql = "SELECT d.id, d.doc_id, d.title, d.n_chunks, d.embed_title, json(d.metadata),
                          c.ordinal, c.start_byte, c.end_byte, c.tokens, c.tokens_lost, d.seq,
                          d.hash
                   FROM chunk c JOIN document d ON d.seq = c.document WHERE c.row = ?1";
        for &number in numbers {
            let found = database.collect(sql, [number], |r| {
                let traits = DocumentTraits::from_bits(r.get(4)?);
                let json: String = r.get(5)?;
                let mut metadata = serde_json::from_str(&json).unwrap_or_default();
                let stored = StoredHash { id: r.get(0)?, json, traits, hash: r.get(12)? };
                if traits.is_untyped {
                    self.fields.give_types(&mut metadata);
                }
                let row = Row {
                    row: number,
                    id: row_id(r.get(0)?, r.get(3)?, r.get(6)?),
                    doc_id: r.get(1)?,
                    title: r.get(2)?,
                    text: String::new(),
                    range: r.get(7)?..r.get(8)?,
                    embed_title: traits.embed_title,
                    metadata,
                    tokens: r.get(9)?,
                    tokens_lost: r.get(10)?,
                };
                Ok((r.get(11)?, row, stored))
            });
            let damaged = |reason: String| Error::corrupt(&database.path, reason);
            let (seq, mut row, stored) = found?
                .pop()
                .ok_or_else(|| damaged(format!("row {number} has no text; {REBUILD}")))?;
            if seq != text_seq {
                let sql = "SELECT text FROM document WHERE seq = ?1";
                let texts: Vec<String> = database.collect(sql, [seq], |r| r.get(0))?;
                (text_seq, text) = (seq, texts.concat());
                let is_checked = |checked: &mut HashSet<i64>| checked.contains(&seq);
                if !self.checked_documents(is_checked) {
                    if !stored.matches(&row, &text) {
                        let reason = format!(
                            "document '{}' is damaged (its hash differs); {REBUILD}",
                            row.id
                        );
                        return Err(damaged(reason));
                    }
                    self.checked_documents(|checked| {
                        if checked.len() >= MAX_CHECKED_DOCUMENTS {
                            checked.clear();
                        }
                        checked.insert(seq)
                    });
                }
            }
            let passage = text.get(row.range.clone()).ok_or_else(|| {
                damaged(format!("row {number} reaches past the text of its document; {REBUILD}"))
            })?;
            row.text = passage.to_owned();
            rows.push(row);
        }
        Ok(rows)
    }

    /// The live rows of documents with this id, or with this `doc_id`, in order.
    pub(super) fn rows_named(&self, name: RowName, id: &str) -> Result<Vec<u32>> {
        let column = match name {
            RowName::Id => "id",
            RowName::DocId => "doc_id",
        };
        let sql = format!(
            "SELECT c.row FROM document d JOIN chunk c ON c.document = d.seq
             WHERE d.{column} = ?1 AND d.dead = 0 ORDER BY c.row"
        );
        self.database().collect(&sql, [id], |r| r.get(0))
    }

    /// The number of live documents.
    pub(super) fn n_documents(&self) -> Result<u64> {
        self.database().number("SELECT count(*) FROM document WHERE dead = 0")
    }

    /// The ids of the live documents.
    pub(super) fn ids(&self) -> Result<Vec<String>> {
        self.database().collect("SELECT id FROM document WHERE dead = 0", [], |r| r.get(0))
    }

    /// The checksum of all rows, chunks and documents, in hexadecimal digits.
    pub(super) fn checksum(&self) -> String {
        format!("{:016x}", self.checksum)
    }

    /// Calls `visit` with every live document, its chunks and the number of its first row, in the
    /// order of the rows.
    pub(super) fn for_each_document(
        &self,
        visit: &mut dyn FnMut(Document, Vec<Chunk>, u32) -> Result<()>,
    ) -> Result<()> {
        let database = self.database();
        let sql = "SELECT c.document, c.row, c.start_byte, c.end_byte, c.tokens, c.tokens_lost
                   FROM chunk c JOIN document d ON d.seq = c.document
                   WHERE d.dead = 0 AND c.row >= ?1 AND c.row < ?2 ORDER BY c.row";
        let mut rows: Vec<(i64, u32, Chunk)> = Vec::new();
        for first in (0..self.state.n_rows).step_by(DOCUMENT_ROWS as usize) {
            rows.extend(database.collect(sql, [first, first + DOCUMENT_ROWS], |r| {
                let range = r.get(2)?..r.get(3)?;
                let chunk = Chunk { range, tokens: r.get(4)?, tokens_lost: r.get(5)? };
                Ok((r.get(0)?, r.get(1)?, chunk))
            })?);
            // The chunks of the last document may go on behind these rows.
            let last = match rows.last() {
                Some((seq, ..)) if first + DOCUMENT_ROWS < self.state.n_rows => *seq,
                _ => 0,
            };
            let ended = rows.partition_point(|(seq, ..)| *seq != last);
            for rows in rows[..ended].chunk_by(|a, b| a.0 == b.0) {
                self.visit_document(&database, rows, visit)?;
            }
            rows.drain(..ended);
        }
        Ok(())
    }

    /// Reads a document of which `rows` are the chunks, each with its number.
    fn visit_document(
        &self,
        database: &Database,
        rows: &[(i64, u32, Chunk)],
        visit: &mut dyn FnMut(Document, Vec<Chunk>, u32) -> Result<()>,
    ) -> Result<()> {
        let &(seq, first_row, _) = &rows[0];
        let sql = "SELECT id, doc_id, title, text, json(metadata), embed_title, hash
                   FROM document WHERE seq = ?1";
        let found = database.collect(sql, [seq], |r| {
            let traits = DocumentTraits::from_bits(r.get(5)?);
            let json: String = r.get(4)?;
            let document = Document {
                doc_id: r.get(1)?,
                title: r.get(2)?,
                embed_title: traits.embed_title,
                is_untyped: traits.is_untyped,
                metadata: serde_json::from_str(&json).unwrap_or_default(),
                ..Document::new(r.get::<_, String>(0)?, r.get::<_, String>(3)?, Place::default())
            };
            Ok((document, r.get::<_, [u8; 32]>(6)?))
        });
        let damaged = |what: &str| {
            Err(Error::corrupt(&database.path, format!("{what} is damaged; {REBUILD}")))
        };
        let Some((document, hash)) = found?.pop() else {
            return damaged(&format!("row {first_row}"));
        };
        if content_hash(&document) != hash {
            return damaged(&format!("document '{}'", document.id));
        }
        let chunks = rows.iter().map(|(_, _, chunk)| chunk.clone()).collect();
        visit(document, chunks, first_row)
    }

    /// The `doc_id`s of rows, in the given order.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub(super) fn doc_ids(&self, numbers: &[u32]) -> Result<Vec<String>> {
        self.database().run(|conn| {
            let mut find = conn.prepare_cached(
                "SELECT d.doc_id FROM chunk c JOIN document d ON d.seq = c.document
                 WHERE c.row = ?1",
            )?;
            numbers.iter().map(|number| find.query_row([number], |r| r.get(0))).collect()
        })
    }

    /// The id and `doc_id` of rows, in the given order.
    pub(super) fn names(&self, numbers: &[u32]) -> Result<Vec<(String, String)>> {
        self.database().run(|conn| {
            let mut find = conn.prepare_cached(
                "SELECT d.id, d.n_chunks, c.ordinal, d.doc_id
                 FROM chunk c JOIN document d ON d.seq = c.document WHERE c.row = ?1",
            )?;
            let mut name = |number: &u32| {
                find.query_row([number], |r| {
                    Ok((row_id(r.get(0)?, r.get(1)?, r.get(2)?), r.get(3)?))
                })
            };
            numbers.iter().map(&mut name).collect()
        })
    }

    /// Appends the ids of all rows, deleted ones included.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub(super) fn append_row_names(&self, names: &mut RowNames) -> Result<()> {
        let sql = "SELECT d.id, d.doc_id, d.n_chunks, c.ordinal
                   FROM chunk c JOIN document d ON d.seq = c.document ORDER BY c.row";
        self.database().for_each(sql, [], |r| {
            names.push(&row_id(r.get(0)?, r.get(2)?, r.get(3)?), r.get_ref(1)?.as_str()?);
            Ok(())
        })
    }

    fn checked_documents<T>(&self, work: impl FnOnce(&mut HashSet<i64>) -> T) -> T {
        work(&mut self.checked_documents.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The database, for one thread at a time.
    pub(super) fn database(&self) -> MutexGuard<'_, Database> {
        locked(&self.database)
    }
}

/// A connection, for one thread at a time.
pub(super) fn locked(database: &Mutex<Database>) -> MutexGuard<'_, Database> {
    // A panic elsewhere leaves a read-only connection as usable as before.
    database.lock().unwrap_or_else(PoisonError::into_inner)
}

/// True if every scale record of the int8 copy could be that of a row of `dim` values; otherwise
/// warns.
fn scales_are_possible(scales: &Mmap, dim: usize, dir: &Path) -> bool {
    let scales: &[RowScale] = as_values(&scales[HEADER_LEN..]).unwrap_or_default();
    let Some(row) = scales.iter().position(|scale| !scale.is_possible(dim)) else { return true };
    tracing::warn!(
        "{}: the scale of row {row} in the int8 copy is damaged; {}. Searches are slower without \
         this file, and find the same",
        dir.display(),
        VectorFileKind::Scales.remedy()
    );
    false
}
