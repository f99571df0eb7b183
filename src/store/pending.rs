//! The changes that wait for the next commit, and how they are written to the database.

use super::commit_record::{CommitRecord, RowHasher};
use super::fields::FieldCatalog;
use super::hash::metadata_json;
use super::inputs::PendingInputs;
use super::language::Language;
use super::lexical::add_words;
use super::row::DocumentTraits;
use super::sources::{self, SourceRun};
use half::f16;
use half::slice::HalfFloatSliceExt;
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use warpseek_ingest::Document;
use warpseek_ingest::chunk::Chunk;
use warpseek_topk::stride_of;

/// Changes that wait for the next commit.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Vectors of the documents' chunks, `[n, stride]`.
    pub(super) rows: Vec<f16>,
    pub(super) documents: Vec<PendingDocument>,
    pub(super) by_id: HashMap<String, usize>,
    /// Numbers of the documents to be deleted, committed and pending ones.
    pub(super) deleted: HashSet<i64>,
    pub(super) text_bytes: usize,
    /// Sources of documents, committed and pending ones.
    pub(super) sources: Vec<SourceRun>,
    /// Recorded inputs, and stamps of their files.
    pub(super) inputs: PendingInputs,
    fields: FieldCatalog,
}

#[derive(Debug)]
pub(super) struct PendingDocument {
    pub(super) seq: i64,
    pub(super) document: Document,
    pub(super) hash: [u8; 32],
    pub(super) chunks: Vec<Chunk>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        let is_unchanged = self.documents.is_empty() && self.deleted.is_empty();
        is_unchanged && self.sources.is_empty() && self.inputs.is_empty()
    }

    /// Adds a document with the vectors of its chunks, `[chunks.len(), dim]`.
    pub(super) fn push(&mut self, pending: PendingDocument, vectors: &[f32], dim: usize) {
        for vector in vectors.chunks_exact(dim) {
            let start = self.rows.len();
            self.rows.resize(start + stride_of(dim), f16::ZERO);
            self.rows[start..start + dim].convert_from_f32_slice(vector);
        }
        let document = &pending.document;
        self.text_bytes += document.text.len() + document.title.len();
        self.fields.count(&document.metadata, document.is_untyped);
        self.by_id.insert(document.id.clone(), self.documents.len());
        sources::push(&mut self.sources, pending.seq, document.source.clone());
        self.documents.push(pending);
    }

    /// Writes everything but the vectors to the database. The first new row has number `first_row`.
    pub(super) fn write(
        &self,
        conn: &Connection,
        language: Language,
        first_row: u64,
        stride: usize,
    ) -> rusqlite::Result<()> {
        // The old version of a document is deleted before the new one is inserted: ids of live
        // documents are unique.
        let mut deleted = FieldCatalog::default();
        self.deleted.iter().try_for_each(|seq| mark_deleted(conn, *seq, &mut deleted))?;
        let mut row = first_row;
        let mut insert_document = conn.prepare_cached(
            "INSERT INTO document
             (seq, id, doc_id, n_chunks, embed_title, hash, metadata, title, text)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, jsonb(?7), ?8, ?9)",
        )?;
        let mut insert_chunk = conn.prepare_cached(
            "INSERT INTO chunk (row, document, ordinal, start_byte, end_byte, tokens, tokens_lost)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for PendingDocument { seq, document, hash, chunks } in &self.documents {
            let Document { id, doc_id, title, text, .. } = document;
            let (n_chunks, metadata) = (chunks.len(), metadata_json(document));
            let traits = DocumentTraits::of(document).bits();
            let values = (seq, id, doc_id, n_chunks, traits, hash, metadata, title, text);
            insert_document.execute(values)?;
            for (ordinal, Chunk { range, tokens, tokens_lost }) in chunks.iter().enumerate() {
                let values = (row, seq, ordinal, range.start, range.end, tokens, tokens_lost);
                insert_chunk.execute(values)?;
                add_words(conn, language, row, title, text, range.clone())?;
                row += 1;
            }
        }
        // Documents that were added and deleted within this commit.
        let added = self.documents.iter().map(|d| d.seq);
        added
            .filter(|seq| self.deleted.contains(seq))
            .try_for_each(|seq| mark_deleted(conn, seq, &mut deleted))?;
        if row > first_row {
            let mut hasher = RowHasher::default();
            hasher.add(&self.rows, stride);
            CommitRecord::new(first_row, row - first_row, &hasher).store(conn)?;
        }
        sources::store(conn, &self.sources)?;
        self.inputs.write(conn)?;
        FieldCatalog::update(conn, &self.fields, &deleted)
    }
}

/// Marks a document as deleted, if it is there and live, and counts its fields.
fn mark_deleted(conn: &Connection, seq: i64, fields: &mut FieldCatalog) -> rusqlite::Result<()> {
    let sql = "UPDATE document SET dead = 1 WHERE seq = ?1 AND dead = 0
               RETURNING json(metadata), embed_title";
    let mut mark = conn.prepare_cached(sql)?;
    let mut marked = mark.query([seq])?;
    while let Some(document) = marked.next()? {
        let metadata = serde_json::from_str(document.get_ref(0)?.as_str()?).unwrap_or_default();
        fields.count(&metadata, DocumentTraits::from_bits(document.get(1)?).is_untyped);
    }
    conn.prepare_cached(
        "DELETE FROM lexical WHERE rowid IN (SELECT row FROM chunk WHERE document = ?1)",
    )?
    .execute([seq])
    .map(drop)
}
