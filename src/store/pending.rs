//! What waits for the next commit, and how it goes into the database.

use super::extent::{ChunkHasher, Extent, RowSums};
use super::fields::FieldCatalog;
use super::hash::metadata_json;
use super::matrix::stride_of;
use crate::chunk::Chunk;
use crate::ingest::Document;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rusqlite::{Connection, params};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// What the next commit will write.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// `[n, stride]`.
    pub(super) rows: Vec<f16>,
    pub(super) documents: Vec<PendingDocument>,
    pub(super) by_id: HashMap<String, usize>,
    /// Numbers of documents that die, among them ones that wait here too.
    pub(super) dead: HashSet<i64>,
    pub(super) text_bytes: usize,
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
        self.documents.is_empty() && self.dead.is_empty()
    }

    /// Takes a document in, with the vectors of its chunks, `[chunks.len(), dim]`.
    pub(super) fn push(&mut self, pending: PendingDocument, vectors: &[f32], dim: usize) {
        for vector in vectors.chunks_exact(dim) {
            let start = self.rows.len();
            self.rows.resize(start + stride_of(dim), f16::ZERO);
            self.rows[start..start + dim].convert_from_f32_slice(vector);
        }
        let document = &pending.document;
        self.text_bytes += document.text.len() + document.title.len();
        self.fields.count(&document.metadata);
        self.by_id.insert(document.id.clone(), self.documents.len());
        self.documents.push(pending);
    }

    /// Writes everything but the rows themselves; `first_row` is the number of the first one.
    pub(super) fn write(
        &self,
        conn: &Connection,
        first_row: u64,
        stride: usize,
    ) -> rusqlite::Result<()> {
        // The old version of a document dies before the new one comes: ids of live ones are unique.
        self.dead.iter().try_for_each(|seq| kill(conn, *seq))?;
        let mut chunk_hasher = ChunkHasher::default();
        let mut row = first_row;
        let mut add_document = conn.prepare_cached(
            "INSERT INTO document
             (seq, id, doc_id, n_chunks, embed_title, hash, metadata, title, text)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, jsonb(?7), ?8, ?9)",
        )?;
        let mut add_chunk = conn.prepare_cached(
            "INSERT INTO chunk (row, document, ordinal, start_byte, end_byte, tokens, tokens_lost)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        for PendingDocument { seq, document, hash, chunks } in &self.documents {
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
                let numbers = [
                    row.cast_signed(),
                    *seq,
                    ordinal as i64,
                    chunk.range.start as i64,
                    chunk.range.end as i64,
                    i64::from(chunk.tokens),
                    i64::from(chunk.tokens_lost),
                ];
                add_chunk.execute(numbers)?;
                chunk_hasher.add(numbers);
                add_words(conn, row, &document.title, &document.text, chunk.range.clone())?;
                row += 1;
            }
        }
        // A document that came and went within one commit.
        for PendingDocument { seq, .. } in &self.documents {
            if self.dead.contains(seq) {
                kill(conn, *seq)?;
            }
        }
        if row > first_row {
            let mut sums = RowSums::default();
            sums.add(&self.rows, stride);
            let (checksum, max_norm) = sums.finish();
            let chunk_checksum = chunk_hasher.finish();
            Extent { first_row, n_rows: row - first_row, checksum, chunk_checksum, max_norm }
                .insert(conn)?;
        }
        add_fields(conn, &self.fields)
    }
}

fn kill(conn: &Connection, seq: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE document SET dead = 1 WHERE seq = ?1")?.execute([seq])?;
    conn.prepare_cached(
        "DELETE FROM lexical WHERE rowid IN (SELECT row FROM chunk WHERE document = ?1)",
    )?
    .execute([seq])?;
    Ok(())
}

/// Puts a row's words into the lexical index. A chunk that starts with the title anyway does not
/// count its words twice.
pub(super) fn add_words(
    conn: &Connection,
    row: u64,
    title: &str,
    text: &str,
    range: Range<usize>,
) -> rusqlite::Result<()> {
    let body = text.get(range).unwrap_or_default();
    let title = if body.starts_with(title) { "" } else { title };
    conn.prepare_cached("INSERT INTO lexical (rowid, title, body) VALUES (?1, ?2, ?3)")?
        .execute(params![row.cast_signed(), title, body])?;
    Ok(())
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
