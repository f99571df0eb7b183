//! Extents: the rows that one commit appended, with what checks them.

use super::documents::Documents;
use super::matrix::{RowsDigest, row_norm_upper};
use super::vector_file::as_bytes;
use crate::error::Result;
use half::f16;
use rusqlite::{Connection, params};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// A block of rows and the sums over it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Extent {
    pub(super) first_row: u64,
    pub(super) n_rows: u64,
    /// XXH3-64 of the rows' bytes.
    pub(super) checksum: u64,
    /// XXH3-64 of the rows' entries in the table `chunk`; see [`ChunkHasher`].
    pub(super) chunk_checksum: u64,
    /// The largest norm of a row, rounded up.
    pub(super) max_norm: f32,
}

impl Extent {
    /// All extents, by their first row.
    pub(super) fn read_all(documents: &Documents) -> Result<Vec<Self>> {
        documents
            .conn
            .prepare(
                "SELECT first_row, n_rows, checksum, chunk_checksum, max_norm FROM extent
                 ORDER BY first_row",
            )
            .and_then(|mut statement| {
                let row = |r: &rusqlite::Row<'_>| {
                    Ok(Self {
                        first_row: r.get::<_, i64>(0)?.cast_unsigned(),
                        n_rows: r.get::<_, i64>(1)?.cast_unsigned(),
                        checksum: r.get::<_, i64>(2)?.cast_unsigned(),
                        chunk_checksum: r.get::<_, i64>(3)?.cast_unsigned(),
                        max_norm: r.get::<_, f64>(4)? as f32,
                    })
                };
                statement.query_map([], row)?.collect()
            })
            .map_err(documents.failure())
    }

    /// What the rows are up to the end of each extent: the checksums so far, each hashed with what came before it.
    pub(super) fn history(extents: &[Self]) -> Vec<RowsDigest> {
        let mut digest = 0;
        let link = |extent: &Self| {
            let link = [digest, extent.n_rows, extent.checksum].map(u64::to_le_bytes);
            digest = xxh3_64(link.as_flattened());
            RowsDigest { n_rows: (extent.first_row + extent.n_rows) as usize, digest }
        };
        extents.iter().map(link).collect()
    }

    pub(super) fn insert(&self, conn: &Connection) -> rusqlite::Result<()> {
        conn.prepare_cached("INSERT INTO extent VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            self.first_row.cast_signed(),
            self.n_rows.cast_signed(),
            self.checksum.cast_signed(),
            self.chunk_checksum.cast_signed(),
            self.max_norm
        ])?;
        Ok(())
    }
}

/// Sums over rows as they pass by.
#[derive(Default)]
pub(super) struct RowSums {
    hasher: Xxh3,
    max_norm: f32,
}

impl RowSums {
    /// Takes in whole rows of `stride` values.
    pub(super) fn add(&mut self, rows: &[f16], stride: usize) {
        self.hasher.update(as_bytes(rows));
        let norms = rows.chunks_exact(stride).map(row_norm_upper);
        self.max_norm = norms.fold(self.max_norm, f32::max);
    }

    /// The checksum and the largest norm.
    pub(super) fn finish(&self) -> (u64, f32) {
        (self.hasher.digest(), self.max_norm)
    }
}

/// The hash over chunks in the order of their rows: per chunk the numbers row, document, ordinal, start,
/// end, tokens and tokens lost, each as eight bytes.
#[derive(Default)]
pub(super) struct ChunkHasher(Xxh3);

impl ChunkHasher {
    pub(super) fn add(&mut self, chunk: [i64; 7]) {
        chunk.iter().for_each(|n| self.0.update(&n.to_le_bytes()));
    }

    pub(super) fn finish(&self) -> u64 {
        self.0.digest()
    }
}

/// Hashes the chunks of rows as the database has them.
pub(super) fn hash_chunks(conn: &Connection, first_row: u64, n_rows: u64) -> rusqlite::Result<u64> {
    let mut hasher = ChunkHasher::default();
    let mut statement = conn.prepare_cached(
        "SELECT row, document, ordinal, start_byte, end_byte, tokens, tokens_lost FROM chunk
         WHERE row >= ?1 AND row < ?2 ORDER BY row",
    )?;
    let end = first_row.saturating_add(n_rows);
    let mut rows = statement.query([first_row.cast_signed(), end.cast_signed()])?;
    while let Some(row) = rows.next()? {
        let mut chunk = [0; 7];
        for (i, number) in chunk.iter_mut().enumerate() {
            *number = row.get(i)?;
        }
        hasher.add(chunk);
    }
    Ok(hasher.finish())
}
