//! Commit records: the rows that each commit appended, with their checksums.

use super::database::Database;
use crate::error::Result;
use half::f16;
use rusqlite::Connection;
use warpseek_topk::checksums::BlockChecksum;
use warpseek_topk::layout::as_bytes;
use warpseek_topk::matrix::RowsDigest;
use warpseek_topk::row_norm_upper;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Rows that one commit appended. Stored in the table `extent`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CommitRecord {
    pub(super) first_row: u64,
    pub(super) n_rows: u64,
    /// XXH3-64 of the rows' bytes.
    pub(super) checksum: u64,
    /// Checksum of the rows' chunks; see [`hash_chunks`]. 0 before the record is stored.
    pub(super) chunk_checksum: u64,
    /// Largest norm of a row, rounded up.
    pub(super) max_norm: f32,
}

impl CommitRecord {
    /// Record of `n_rows` rows from `first_row` on, all of which `hasher` has seen.
    pub(super) fn new(first_row: u64, n_rows: u64, hasher: &RowHasher) -> Self {
        let (checksum, max_norm) = hasher.finish();
        Self { first_row, n_rows, checksum, chunk_checksum: 0, max_norm }
    }

    /// Stores the record, with the checksum of its chunks, which the database has already.
    pub(super) fn store(&self, conn: &Connection) -> rusqlite::Result<()> {
        let chunks = hash_chunks(conn, self.first_row, self.n_rows)?.cast_signed();
        let mut insert = conn.prepare_cached("INSERT INTO extent VALUES (?1, ?2, ?3, ?4, ?5)")?;
        let checksum = self.checksum.cast_signed();
        insert.execute((self.first_row, self.n_rows, checksum, chunks, self.max_norm)).map(drop)
    }

    /// All commit records, in the order of their rows.
    pub(super) fn read_all(database: &Database) -> Result<Vec<Self>> {
        let sql = "SELECT first_row, n_rows, checksum, chunk_checksum, max_norm FROM extent
                   ORDER BY first_row";
        database.collect(sql, [], |r| {
            let number = |i| r.get::<_, i64>(i).map(i64::cast_unsigned);
            Ok(Self {
                first_row: number(0)?,
                n_rows: number(1)?,
                checksum: number(2)?,
                chunk_checksum: number(3)?,
                max_norm: r.get(4)?,
            })
        })
    }

    /// Digests of all rows up to the end of each record: the chained checksums.
    pub(super) fn history(records: &[Self]) -> Vec<RowsDigest> {
        let mut digest = 0;
        let link = |record: &Self| {
            let link = [digest, record.n_rows, record.checksum].map(u64::to_le_bytes);
            digest = xxh3_64(link.as_flattened());
            RowsDigest { n_rows: record.end() as usize, digest }
        };
        records.iter().map(link).collect()
    }

    /// Checksum of the rows and chunks of all records, and of `more`.
    pub(super) fn checksum_of_all(records: &[Self], more: [u64; 2]) -> u64 {
        let mut hasher = Xxh3::default();
        more.iter().for_each(|value| hasher.update(&value.to_le_bytes()));
        for record in records {
            let values = [record.n_rows, record.checksum, record.chunk_checksum];
            values.iter().for_each(|value| hasher.update(&value.to_le_bytes()));
        }
        hasher.digest()
    }

    /// The checksum of the rows, as the scan takes it.
    pub(super) fn block(&self) -> BlockChecksum {
        let (first_row, n_rows) = (self.first_row as usize, self.n_rows as usize);
        BlockChecksum { first_row, n_rows, checksum: self.checksum }
    }

    /// The first row after the record.
    pub(super) fn end(&self) -> u64 {
        self.first_row.saturating_add(self.n_rows)
    }
}

/// Checksum and largest norm of rows, block by block.
#[derive(Default)]
pub(super) struct RowHasher {
    hasher: Xxh3,
    max_norm: f32,
}

impl RowHasher {
    /// Adds whole rows of `stride` values.
    pub(super) fn add(&mut self, rows: &[f16], stride: usize) {
        self.hasher.update(as_bytes(rows));
        let norms = rows.chunks_exact(stride).map(row_norm_upper);
        self.max_norm = norms.fold(self.max_norm, f32::max);
    }

    /// XXH3-64 of the rows' bytes, and the largest norm of a row, rounded up.
    pub(super) fn finish(&self) -> (u64, f32) {
        (self.hasher.digest(), self.max_norm)
    }
}

/// XXH3-64 of the stored chunks of `n_rows` rows from `first_row` on, in the order of the rows.
/// Each chunk counts with seven numbers of eight bytes: row, document, ordinal, start, end, tokens
/// and truncated tokens.
pub(super) fn hash_chunks(conn: &Connection, first_row: u64, n_rows: u64) -> rusqlite::Result<u64> {
    let mut hasher = Xxh3::default();
    let mut statement = conn.prepare_cached(
        "SELECT row, document, ordinal, start_byte, end_byte, tokens, tokens_lost FROM chunk
         WHERE row >= ?1 AND row < ?2 ORDER BY row",
    )?;
    let mut rows = statement.query([first_row, first_row.saturating_add(n_rows)])?;
    while let Some(row) = rows.next()? {
        for column in 0..7 {
            hasher.update(&row.get::<_, i64>(column)?.to_le_bytes());
        }
    }
    Ok(hasher.digest())
}
