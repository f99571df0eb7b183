//! Statistics of an index.

use super::reader::Shard;
use super::unlocked::log_of;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Statistics of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexStats {
    /// Live documents.
    pub documents: u64,
    /// Live rows.
    pub rows: u64,
    /// Rows of deleted and replaced documents, which `compact` removes.
    #[serde(rename = "dead_rows")]
    pub deleted_rows: u64,
    /// Embedded tokens of live rows.
    pub tokens: u64,
    /// Truncated tokens of live rows.
    pub tokens_lost: u64,
    /// Live rows with truncated tokens.
    pub rows_truncated: u64,
    /// The generation, raised by every `compact`.
    pub generation: u64,
    /// Bytes of the half-precision vectors.
    pub vector_bytes: u64,
    /// Bytes of the int8 copy; 0 if there is none, and `compact` would make it.
    #[serde(rename = "prefilter_bytes")]
    pub int8_bytes: u64,
    /// Bytes of the document database and its write-ahead log.
    pub document_bytes: u64,
}

impl IndexStats {
    /// Adds the statistics of another shard.
    pub(super) fn add(&mut self, other: &Self) {
        self.documents += other.documents;
        self.rows += other.rows;
        self.deleted_rows += other.deleted_rows;
        self.tokens += other.tokens;
        self.tokens_lost += other.tokens_lost;
        self.rows_truncated += other.rows_truncated;
        self.generation = self.generation.max(other.generation);
        self.vector_bytes += other.vector_bytes;
        self.int8_bytes += other.int8_bytes;
        self.document_bytes += other.document_bytes;
    }
}

impl Shard {
    /// Statistics of the index.
    ///
    /// # Errors
    ///
    /// [`Error::Database`] or [`Error::Corrupt`].
    pub(super) fn stats(&self) -> Result<IndexStats> {
        let database = self.database();
        let sql = "SELECT coalesce(sum(c.tokens), 0), coalesce(sum(c.tokens_lost), 0),
                          count(CASE WHEN c.tokens_lost > 0 THEN 1 END)
                   FROM chunk c CROSS JOIN document d ON d.seq = c.document WHERE d.dead = 0";
        let (tokens, tokens_lost, rows_truncated) =
            database.run(|conn| conn.query_row(sql, [], |r| r.try_into()))?;
        let live = self.live.count() as u64;
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |m| m.len());
        Ok(IndexStats {
            documents: database.number("SELECT count(*) FROM document WHERE dead = 0")?,
            rows: live,
            deleted_rows: self.state.n_rows - live,
            tokens,
            tokens_lost,
            rows_truncated,
            generation: self.state.generation,
            vector_bytes: self.rows.len() as u64,
            int8_bytes: self.int8.iter().flatten().map(|file| file.len() as u64).sum(),
            document_bytes: size(&database.path) + size(&log_of(&self.dir)),
        })
    }
}
