//! Compaction: writing a new generation without the deleted rows.

use super::commit_record::{CommitRecord, RowHasher, hash_chunks};
use super::database::CommitState;
use super::fields::FieldCatalog;
use super::format::{REBUILD, VectorFileKind};
use super::language::Language;
use super::lexical::add_all_words;
use super::sources;
use super::vector_files::{BLOCK_ROWS, VectorFiles};
use super::writer::IndexWriter;
use crate::error::{Error, Result};
use half::f16;
use rusqlite::Connection;
use std::io::{self, ErrorKind};
use std::path::Path;
use warpseek_topk::stride_of;

/// Rows per commit record of a new generation; a multiple of [`BLOCK_ROWS`].
const RECORD_ROWS: u64 = 65_536;

/// Outcome of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Compaction {
    /// Rows before, deleted ones included.
    pub rows_before: u64,
    /// Rows after.
    pub rows_after: u64,
    /// The generation that holds them.
    pub generation: u64,
    /// True if the database file shrank. Otherwise readers are open or the disk is full, and a
    /// later compaction shrinks it.
    pub space_returned: bool,
}

impl IndexWriter {
    /// Writes a new generation with an int8 copy, with checksums and without deleted rows, and
    /// switches to it in one commit. If there are no deleted rows, it reads all rows, and writes
    /// nothing if int8 copy and checksums are theirs. Open readers keep the old generation. An
    /// interruption leaves the old or the new generation whole.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if rows to be copied or their chunks do not match their checksums,
    /// [`Error::Io`] or [`Error::Database`].
    pub fn compact(self) -> Result<Compaction> {
        let (dim, n_rows) = (self.files.manifest.dim, self.files.state.n_rows);
        let row_len: usize = VectorFileKind::ALL.iter().map(|kind| kind.row_len(dim)).sum();
        let database = std::fs::metadata(&self.files.database.path).map_or(0, |file| file.len());
        // A second copy of the rows, and the pages of the database in its log.
        let needed = (n_rows * row_len as u64 + database) >> 20;
        self.compact_rows().map_err(|error| match error {
            Error::Io { action, path, source } if source.kind() == ErrorKind::StorageFull => {
                let reason = format!(
                    "the disk is full: a compaction needs up to {} MiB until it is done; the index \
                     is as it was",
                    needed + 1
                );
                Error::io(action, path)(io::Error::new(ErrorKind::StorageFull, reason))
            }
            error => error,
        })
    }

    fn compact_rows(mut self) -> Result<Compaction> {
        self.commit()?;
        let old = self.files.state;
        let sql = "SELECT c.row FROM chunk c JOIN document d ON d.seq = c.document
                   WHERE d.dead = 0 ORDER BY c.row";
        let live: Vec<u64> = self.files.database.collect(sql, [], |r| r.get(0))?;
        let (n_live, generation) = (live.len() as u64, old.generation + 1);
        let report = |generation, space_returned| {
            let (rows_before, rows_after) = (old.n_rows, n_live);
            Compaction { rows_before, rows_after, generation, space_returned }
        };
        let database = &self.files.database;
        if n_live == old.n_rows && self.has_derived_files()? {
            if !FieldCatalog::is_current(database)? {
                database.commit(old, FieldCatalog::rebuild)?;
            }
            let is_done = database.has_page_checksums()? || self.return_space(old)?;
            return Ok(report(old.generation, is_done));
        }
        // No commit names the new files yet.
        let records = self.copy_rows(&live, generation).inspect_err(|_| {
            VectorFiles::remove_other_generations(&self.files.dir, old.generation);
        })?;
        let language = self.files.manifest.language();
        let new = CommitState { generation, n_rows: n_live, has_int8: true, ..old };
        // If this fails it is unknown whether the switch took place. The files of both generations
        // stay, and the next writer removes those that no commit names.
        self.files.database.commit(new, |conn| rewrite_tables(conn, language, &live, records))?;
        // The new generation is the index now. The rest only returns space.
        VectorFiles::remove_other_generations(&self.files.dir, generation);
        Ok(report(generation, self.return_space(new)?))
    }

    /// Shrinks the database; false if that was not possible now.
    fn return_space(&self, state: CommitState) -> Result<bool> {
        let database = &self.files.database;
        let had_checksums = database.has_page_checksums()?;
        let is_done = database.return_space();
        if is_done && !had_checksums {
            // Stores the version of databases with checksums.
            database.commit(state, |_| Ok(()))?;
        }
        Ok(is_done)
    }

    /// True if there are an int8 copy and checksums, and they are those of the rows.
    fn has_derived_files(&self) -> Result<bool> {
        let files = &self.files.vectors;
        if files.int8.is_none() || files.checksums.is_none() {
            return Ok(false);
        }
        let mut damaged = false;
        for record in CommitRecord::read_all(&self.files.database)? {
            files.read_rows(&record, |first, rows| {
                let damage = files.derived_damage(first, rows)?;
                damaged |= damage.int8 || damage.checksums;
                Ok(())
            })?;
        }
        Ok(!damaged)
    }

    /// Copies live rows to the files of a new generation, and checks the checksums of the old ones.
    fn copy_rows(&self, live: &[u64], generation: u64) -> Result<Vec<CommitRecord>> {
        let (dim, old) = (self.files.manifest.dim, &self.files.vectors);
        let stride = stride_of(dim);
        let files = VectorFiles::create(&self.files.dir, dim, generation)?;
        let mut out = RowWriter {
            files,
            stride,
            records: Vec::new(),
            hasher: RowHasher::default(),
            buffer: Vec::new(),
            n_rows: 0,
        };
        let mut live = live.iter().copied().peekable();
        for record in CommitRecord::read_all(&self.files.database)? {
            let hasher = old.read_rows(&record, |first, rows| {
                let end = first + (rows.len() / stride) as u64;
                while let Some(row) = live.next_if(|&row| row < end) {
                    let at = (row - first) as usize * stride;
                    out.push(&rows[at..at + stride])?;
                }
                Ok(())
            })?;
            let damaged = |path: &Path, what: &str| {
                let (first, last) = (record.first_row, record.end() - 1);
                let reason = format!(
                    "{what} {first} to {last} are damaged (their checksum differs), and nothing \
                     was changed; {REBUILD}"
                );
                Err(Error::corrupt(path, reason))
            };
            if hasher.finish().0 != record.checksum {
                return damaged(&old.f16.path, "rows");
            }
            // The new records are made of the chunks as they are: damage would pass for content.
            let database = &self.files.database;
            let chunks = database.run(|conn| hash_chunks(conn, record.first_row, record.n_rows))?;
            if chunks != record.chunk_checksum {
                return damaged(&database.path, "the chunks of rows");
            }
        }
        out.finish()
    }
}

/// Removes deleted documents, renumbers the rows of the others, and rebuilds the tables that are
/// made from them: commit records, lexical index, field catalogue.
fn rewrite_tables(
    conn: &Connection,
    language: Language,
    live: &[u64],
    records: Vec<CommitRecord>,
) -> rusqlite::Result<()> {
    conn.execute_batch(
        "DELETE FROM chunk WHERE document IN (SELECT seq FROM document WHERE dead = 1);
         DELETE FROM document WHERE dead = 1;
         DELETE FROM extent;
         INSERT INTO lexical (lexical) VALUES ('delete-all');",
    )?;
    // Ascending, and never upward: the new number is always free.
    let mut renumber = conn.prepare("UPDATE chunk SET row = ?1 WHERE row = ?2")?;
    for (new, &old) in (0u64..).zip(live).filter(|(new, old)| new != *old) {
        renumber.execute([new, old])?;
    }
    for record in records {
        record.store(conn)?;
    }
    add_all_words(conn, language)?;
    sources::trim(conn)?;
    FieldCatalog::rebuild(conn)
}

/// Appends rows to new vector files, and collects their commit records.
struct RowWriter {
    files: VectorFiles,
    stride: usize,
    records: Vec<CommitRecord>,
    hasher: RowHasher,
    /// Rows that are neither hashed nor written yet.
    buffer: Vec<f16>,
    n_rows: u64,
}

impl RowWriter {
    fn push(&mut self, row: &[f16]) -> Result<()> {
        self.buffer.extend_from_slice(row);
        self.n_rows += 1;
        if self.buffer.len() >= BLOCK_ROWS * self.stride {
            self.flush()?;
        }
        if self.n_rows.is_multiple_of(RECORD_ROWS) { self.close_record() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let first = self.n_rows - (self.buffer.len() / self.stride) as u64;
        self.hasher.add(&self.buffer, self.stride);
        self.files.write(first, &self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    fn close_record(&mut self) -> Result<()> {
        self.flush()?;
        let first_row = self.records.last().map_or(0, CommitRecord::end);
        let n_rows = self.n_rows - first_row;
        if n_rows > 0 {
            let hasher = std::mem::take(&mut self.hasher);
            self.records.push(CommitRecord::new(first_row, n_rows, &hasher));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<CommitRecord>> {
        self.close_record()?;
        self.files.sync()?;
        Ok(self.records)
    }
}
