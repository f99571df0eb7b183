//! A snapshot of an index for reading.

use super::documents::{DOCUMENTS_FILE, Documents, State};
use super::extent::Extent;
use super::fields::{FieldCatalog, FieldTypes};
use super::filter::Filter;
use super::format::{HEADER_LEN, VectorFile};
use super::manifest::IndexManifest;
use super::matrix::{MatrixView, RowMask, RowsDigest};
use super::prefilter::PrefilterView;
use super::snapshot::Snapshot;
use super::vector_file::as_values;
use crate::error::{Error, Result};
use memmap2::Mmap;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Masks of filters that are kept.
const MAX_KEPT_MASKS: usize = 64;

/// An open index, frozen at the moment of opening: what a writer commits later stays invisible until
/// the index is opened again. May be shared between threads.
#[derive(Debug)]
pub struct Index {
    dir: PathBuf,
    manifest: IndexManifest,
    documents: Mutex<Documents>,
    state: State,
    vectors: Mmap,
    /// Lives as long as the map does.
    owner: Arc<()>,
    /// What the rows are up to the end of each commit.
    history: Vec<RowsDigest>,
    /// The prefilter's integers and scales.
    prefilter: Option<[Mmap; 2]>,
    max_norm: f32,
    live: RowMask,
    fields: FieldCatalog,
    /// The masks of the last filters, by their text.
    masks: Mutex<HashMap<String, Arc<RowMask>>>,
}

/// A row of the index with its text.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The row's number in the matrix.
    pub row: u32,
    /// The row's id: the document's, with `#n` behind it where the document has several chunks.
    pub id: String,
    /// What relevance judgments name.
    pub doc_id: String,
    /// The document's title.
    pub title: String,
    /// The chunk's text.
    pub text: String,
    /// Where the chunk stands in the document's text, in bytes.
    pub range: Range<usize>,
    /// Whether the title goes in front of the text for the models.
    pub embed_title: bool,
    /// The document's metadata.
    pub metadata: Map<String, Value>,
    /// Tokens that were embedded.
    pub tokens: u32,
    /// Tokens that the embedder's limit cut off.
    pub tokens_lost: u32,
}

impl Row {
    /// The text as the models see it: `title + " " + text`, or the text alone.
    pub fn passage(&self) -> String {
        passage(&self.title, &self.text, self.embed_title)
    }

    /// How many bytes stand in front of the text in [`Row::passage`]; negative where the passage
    /// leaves out blanks at the text's start.
    pub fn text_offset(&self) -> isize {
        if !self.embed_title {
            return 0;
        }
        let full = format!("{} {}", self.title, self.text);
        let trimmed = full.len() - full.trim_start().len();
        self.title.len() as isize + 1 - trimmed as isize
    }
}

/// The text of a chunk as the models see it.
pub fn passage(title: &str, text: &str, embed_title: bool) -> String {
    if embed_title { format!("{title} {text}").trim().to_owned() } else { text.to_owned() }
}

/// The ids of all rows, for callers that go through very many hits.
#[derive(Debug, Clone)]
pub struct RowNames {
    text: String,
    /// Per row the ends of its id and its doc_id in `text`.
    ends: Vec<(usize, usize)>,
}

impl RowNames {
    /// The id and doc_id of a row; empty past the end.
    pub fn get(&self, row: u32) -> (&str, &str) {
        let row = row as usize;
        let start = row.checked_sub(1).and_then(|r| self.ends.get(r)).map_or(0, |e| e.1);
        match self.ends.get(row) {
            Some(&(id, doc_id)) => (&self.text[start..id], &self.text[id..doc_id]),
            None => ("", ""),
        }
    }
}

/// Numbers about an index.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct IndexStats {
    /// Live documents.
    pub documents: u64,
    /// Live rows.
    pub rows: u64,
    /// Deleted or replaced rows that `compact` would remove.
    pub dead_rows: u64,
    /// Tokens that were embedded, over live rows.
    pub tokens: u64,
    /// Tokens that the embedder's limit cut off, over live rows.
    pub tokens_lost: u64,
    /// Live rows that lost tokens.
    pub rows_truncated: u64,
    /// The generation, raised by every `compact`.
    pub generation: u64,
    /// Bytes of the file of half-precision vectors.
    pub vector_bytes: u64,
    /// Bytes of the prefilter; 0 where there is none, and `compact` would make it.
    pub prefilter_bytes: u64,
    /// Bytes of the document database and its write-ahead log.
    pub document_bytes: u64,
}

impl Index {
    /// Opens the index in `dir` and checks what is cheap to check: manifest, header, lengths.
    ///
    /// # Errors
    ///
    /// [`Error::NoIndex`] where there is none, [`Error::Corrupt`] naming the damaged file and the
    /// cure.
    pub fn open(dir: &Path) -> Result<Self> {
        let Snapshot { manifest, documents, state, vectors: files } = Snapshot::open(dir)?;
        let map = |file: &std::fs::File, kind: VectorFile| {
            let len = HEADER_LEN + state.n_rows as usize * kind.row_len(manifest.dim);
            // SAFETY: the file is at least `len` bytes long, as `VectorFiles::open` checked; warpseek
            // never shrinks a vector file and never rewrites committed rows.
            unsafe { memmap2::MmapOptions::new().len(len).map(file) }
                .map_err(Error::io("map", dir.join(kind.name(state.generation))))
        };
        let vectors = map(&files.half, VectorFile::Half)?;
        let prefilter = match &files.prefilter {
            Some([values, scales]) => {
                Some([map(values, VectorFile::Prefilter)?, map(scales, VectorFile::Scales)?])
            }
            None => None,
        };
        let extents = Extent::read_all(&documents)?;
        let max_norm = extents.iter().map(|e| e.max_norm).fold(0.0, f32::max);
        let live = read_live(&documents, state)?;
        let fields = read_fields(&documents)?;
        Ok(Self {
            dir: dir.to_path_buf(),
            manifest,
            documents: Mutex::new(documents),
            state,
            vectors,
            owner: Arc::default(),
            history: Extent::history(&extents),
            prefilter,
            max_norm,
            live,
            fields,
            masks: Mutex::default(),
        })
    }

    /// The index folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the index is made of.
    pub fn manifest(&self) -> &IndexManifest {
        &self.manifest
    }

    /// Rows of the snapshot, dead ones included.
    pub fn n_rows(&self) -> usize {
        self.state.n_rows as usize
    }

    /// Identifies the snapshot: a later commit or compaction changes it.
    pub fn snapshot_id(&self) -> String {
        format!(
            "{:016x}-{}-{}-{}",
            self.state.manifest_hash,
            self.state.generation,
            self.state.n_rows,
            self.n_rows() - self.live.count()
        )
    }

    /// The vectors.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where the mapped file does not hold whole rows.
    pub fn matrix(&self) -> Result<MatrixView<'_>> {
        // Maps are page-aligned, and the header is a page long.
        if let Some(values) = as_values(&self.vectors[HEADER_LEN..])
            && let Some(view) = MatrixView::new(values, self.manifest.dim, self.max_norm)
        {
            return Ok(view.with_sq8(self.prefilter()).with_owner(&self.owner, &self.history));
        }
        let path = self.dir.join(VectorFile::Half.name(self.state.generation));
        Err(Error::corrupt(path, format!("the rows are not whole; {}", super::format::REBUILD)))
    }

    fn prefilter(&self) -> Option<PrefilterView<'_>> {
        let [values, scales] = self.prefilter.as_ref()?;
        let (values, scales) =
            (as_values(&values[HEADER_LEN..])?, as_values(&scales[HEADER_LEN..])?);
        PrefilterView::new(values, scales, self.n_rows(), self.manifest.dim)
    }

    /// The rows that are not deleted.
    pub fn live(&self) -> &RowMask {
        &self.live
    }

    /// The metadata fields and their types.
    pub fn fields(&self) -> &FieldCatalog {
        &self.fields
    }

    /// The live rows whose documents pass a filter. The snapshot never changes, so that the answer for
    /// a filter is kept for the next time.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] naming an unknown field (with near names) or a comparison that cannot hold.
    pub fn rows_where(&self, filter: &Filter) -> Result<Arc<RowMask>> {
        let masks = || self.masks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mask) = masks().get(filter.source()) {
            return Ok(Arc::clone(mask));
        }
        let condition = filter.compile(&self.fields)?;
        let documents = self.documents();
        let sql = format!(
            "SELECT c.row FROM document d NOT INDEXED JOIN chunk c ON c.document = d.seq
             WHERE d.dead = 0 AND ({})",
            condition.sql
        );
        let mut mask = RowMask::empty(self.n_rows());
        let mut run = || -> rusqlite::Result<()> {
            let mut statement = documents.conn.prepare_cached(&sql)?;
            let mut rows = statement.query(rusqlite::params_from_iter(&condition.values))?;
            while let Some(row) = rows.next()? {
                mask.insert(row.get::<_, i64>(0)? as usize);
            }
            Ok(())
        };
        run().map_err(documents.failure())?;
        mask.intersect(&self.live);
        let mask = Arc::new(mask);
        let mut masks = masks();
        if masks.len() >= MAX_KEPT_MASKS {
            masks.clear();
        }
        masks.insert(filter.source().to_owned(), Arc::clone(&mask));
        Ok(mask)
    }

    /// The rows of these numbers with their texts, in the given order.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where a row has no chunk in the database.
    pub fn rows(&self, numbers: &[u32]) -> Result<Vec<Row>> {
        let documents = self.documents();
        let conn = &documents.conn;
        let mut found = Vec::with_capacity(numbers.len());
        // Neighbouring rows are often chunks of one document: its text is fetched once.
        let mut text: Option<(i64, String)> = None;
        let mut fetch = |number: u32| -> rusqlite::Result<Row> {
            let mut row = conn.prepare_cached(
                "SELECT d.id, d.doc_id, d.title, d.n_chunks, d.embed_title, json(d.metadata),
                        c.ordinal, c.start_byte, c.end_byte, c.tokens, c.tokens_lost, d.seq
                 FROM chunk c JOIN document d ON d.seq = c.document WHERE c.row = ?1",
            )?;
            row.query_row([number], |r| {
                let seq: i64 = r.get(11)?;
                if text.as_ref().is_none_or(|t| t.0 != seq) {
                    let mut read =
                        conn.prepare_cached("SELECT text FROM document WHERE seq = ?1")?;
                    text = Some((seq, read.query_row([seq], |r| r.get(0))?));
                }
                let range = r.get::<_, i64>(7)? as usize..r.get::<_, i64>(8)? as usize;
                let piece = text.as_ref().and_then(|t| t.1.get(range.clone()));
                Ok(Row {
                    row: number,
                    id: row_id(r.get(0)?, r.get(3)?, r.get(6)?),
                    doc_id: r.get(1)?,
                    title: r.get(2)?,
                    text: piece.unwrap_or_default().to_owned(),
                    range,
                    embed_title: r.get(4)?,
                    metadata: serde_json::from_str(&r.get::<_, String>(5)?).unwrap_or_default(),
                    tokens: r.get(9)?,
                    tokens_lost: r.get(10)?,
                })
            })
        };
        for &number in numbers {
            match fetch(number) {
                Ok(row) => found.push(row),
                Err(rusqlite::Error::QueryReturnedNoRows) => {
                    return Err(Error::corrupt(
                        documents.path(),
                        format!("row {number} has no text; {}", super::format::REBUILD),
                    ));
                }
                Err(e) => return Err(documents.failure()(e)),
            }
        }
        Ok(found)
    }

    /// The `doc_id`s of rows, in the given order.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn doc_ids(&self, numbers: &[u32]) -> Result<Vec<String>> {
        let documents = self.documents();
        let run = || -> rusqlite::Result<Vec<String>> {
            let mut statement = documents.conn.prepare_cached(
                "SELECT d.doc_id FROM chunk c JOIN document d ON d.seq = c.document
                 WHERE c.row = ?1",
            )?;
            numbers.iter().map(|n| statement.query_row([n], |r| r.get(0))).collect()
        };
        run().map_err(documents.failure())
    }

    /// The ids of all rows, dead ones included.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn row_names(&self) -> Result<RowNames> {
        let documents = self.documents();
        let mut names = RowNames { text: String::new(), ends: Vec::with_capacity(self.n_rows()) };
        let mut run = || -> rusqlite::Result<()> {
            let mut statement = documents.conn.prepare_cached(
                "SELECT d.id, d.doc_id, d.n_chunks, c.ordinal
                 FROM chunk c JOIN document d ON d.seq = c.document ORDER BY c.row",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                names.text.push_str(&row_id(row.get(0)?, row.get(2)?, row.get(3)?));
                let id_end = names.text.len();
                names.text.push_str(row.get_ref(1)?.as_str()?);
                names.ends.push((id_end, names.text.len()));
            }
            Ok(())
        };
        run().map_err(documents.failure())?;
        Ok(names)
    }

    /// Numbers about the index.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub fn stats(&self) -> Result<IndexStats> {
        let documents = self.documents();
        let count = |sql: &str| -> Result<Vec<u64>> {
            documents
                .conn
                .query_row(sql, [], |r| (0..r.as_ref().column_count()).map(|i| r.get(i)).collect())
                .map(|numbers: Vec<i64>| numbers.into_iter().map(i64::cast_unsigned).collect())
                .map_err(documents.failure())
        };
        let live_documents = count("SELECT count(*) FROM document WHERE dead = 0")?;
        let sums = count(
            "SELECT coalesce(sum(c.tokens), 0), coalesce(sum(c.tokens_lost), 0),
                    count(CASE WHEN c.tokens_lost > 0 THEN 1 END)
             FROM chunk c CROSS JOIN document d ON d.seq = c.document WHERE d.dead = 0",
        )?;
        let live = self.live.count() as u64;
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
        Ok(IndexStats {
            documents: live_documents[0],
            rows: live,
            dead_rows: self.state.n_rows - live,
            tokens: sums[0],
            tokens_lost: sums[1],
            rows_truncated: sums[2],
            generation: self.state.generation,
            vector_bytes: self.vectors.len() as u64,
            prefilter_bytes: self
                .prefilter
                .as_ref()
                .map_or(0, |files| files.iter().map(|file| file.len() as u64).sum()),
            document_bytes: size(documents.path())
                + size(&self.dir.join(format!("{DOCUMENTS_FILE}-wal"))),
        })
    }

    /// The database, one thread at a time.
    pub(super) fn documents(&self) -> MutexGuard<'_, Documents> {
        // A panic elsewhere leaves a read-only connection as usable as before.
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A row's id: the document's, with the chunk's number where there are several.
pub(super) fn row_id(id: String, n_chunks: i64, ordinal: i64) -> String {
    if n_chunks > 1 { format!("{id}#{ordinal}") } else { id }
}

fn read_live(documents: &Documents, state: State) -> Result<RowMask> {
    let mut live = RowMask::full(state.n_rows as usize);
    let mut run = || -> rusqlite::Result<()> {
        let mut statement = documents.conn.prepare(
            "SELECT c.row FROM document d JOIN chunk c ON c.document = d.seq WHERE d.dead = 1",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            live.remove(row.get::<_, i64>(0)? as usize);
        }
        Ok(())
    };
    run().map_err(documents.failure())?;
    Ok(live)
}

pub(super) fn read_fields(documents: &Documents) -> Result<FieldCatalog> {
    let mut fields = FieldCatalog::default();
    let mut run = || -> rusqlite::Result<()> {
        let mut statement = documents
            .conn
            .prepare("SELECT name, texts, numbers, booleans, arrays, objects, nulls FROM field")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let count = |i: usize| row.get::<_, i64>(i).map(i64::cast_unsigned);
            let types = FieldTypes {
                texts: count(1)?,
                numbers: count(2)?,
                booleans: count(3)?,
                arrays: count(4)?,
                objects: count(5)?,
                nulls: count(6)?,
            };
            fields.0.insert(row.get(0)?, types);
        }
        Ok(())
    };
    run().map_err(documents.failure())?;
    Ok(fields)
}
