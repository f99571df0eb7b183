//! Compaction: a new generation without the dead rows.

use super::IndexWriter;
use super::documents::State;
use super::format::{HEADER_LEN, VALUE_LEN, vectors_file};
use super::matrix::{row_norm_upper, stride_of};
use super::vector_file::{as_bytes, create_vectors};
use super::writer::lexical_title;
use crate::error::{Error, Result};
use half::f16;
use rusqlite::params;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Rows that are copied, and share a checksum, at a time.
const EXTENT_ROWS: usize = 65_536;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Compaction {
    /// Rows before, dead ones included.
    pub rows_before: u64,
    /// Rows after.
    pub rows_after: u64,
    /// The new generation.
    pub generation: u64,
}

struct Extent {
    first_row: u64,
    n_rows: u64,
    checksum: u64,
    max_norm: f32,
}

impl IndexWriter {
    /// Writes a new generation without dead rows and switches to it in one commit. Readers that are
    /// open keep the old one. An interruption at any instant leaves the old or the new generation
    /// whole.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Database`]; the index then stays as it was.
    pub fn compact(mut self) -> Result<Compaction> {
        self.commit()?;
        let old = self.state;
        let live: Vec<u64> = self.live_rows()?;
        let generation = old.generation + 1;
        let extents = self.copy_rows(&live, generation)?;
        let new = State { generation, n_rows: live.len() as u64, ..old };

        let failure = self.documents.failure();
        self.documents.conn.execute_batch("BEGIN IMMEDIATE").map_err(&failure)?;
        let switched = self
            .renumber(&live, &extents)
            .and_then(|()| self.documents.set_state(new))
            .and_then(|()| self.documents.conn.execute_batch("COMMIT").map_err(&failure));
        if let Err(e) = switched {
            let _ = self.documents.conn.execute_batch("ROLLBACK");
            let _ = std::fs::remove_file(self.dir.join(vectors_file(generation)));
            return Err(e);
        }
        // From here on the new generation is the index; what follows only gives space back.
        self.documents
            .conn
            .execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE);")
            .map_err(&failure)?;
        remove_other_generations(&self.dir, generation);
        Ok(Compaction { rows_before: old.n_rows, rows_after: new.n_rows, generation })
    }

    fn live_rows(&self) -> Result<Vec<u64>> {
        self.documents
            .conn
            .prepare(
                "SELECT c.row FROM chunk c JOIN document d ON d.seq = c.document
                 WHERE d.dead = 0 ORDER BY c.row",
            )
            .and_then(|mut s| {
                s.query_map([], |r| r.get::<_, i64>(0))?.collect::<Result<Vec<_>, _>>()
            })
            .map(|rows| rows.into_iter().map(i64::cast_unsigned).collect())
            .map_err(self.documents.failure())
    }

    fn copy_rows(&self, live: &[u64], generation: u64) -> Result<Vec<Extent>> {
        let stride = stride_of(self.manifest.dim);
        let old_path = self.dir.join(vectors_file(self.state.generation));
        let new_path = self.dir.join(vectors_file(generation));
        let mut old = std::fs::File::open(&old_path).map_err(Error::io("open", &old_path))?;
        let mut new = create_vectors(&self.dir, self.manifest.dim, generation)?;
        let mut extents = Vec::new();
        for (i, block) in live.chunks(EXTENT_ROWS).enumerate() {
            let mut values: Vec<f16> = Vec::with_capacity(block.len() * stride);
            let mut bytes = Vec::new();
            // Neighbouring rows are read together.
            for run in block.chunk_by(|a, b| a + 1 == *b) {
                bytes.resize(run.len() * stride * VALUE_LEN, 0);
                let at = HEADER_LEN as u64 + run[0] * (stride * VALUE_LEN) as u64;
                old.seek(SeekFrom::Start(at))
                    .and_then(|_| old.read_exact(&mut bytes))
                    .map_err(Error::io("read", &old_path))?;
                let halves = bytes.chunks_exact(VALUE_LEN);
                values.extend(halves.map(|b| f16::from_le_bytes([b[0], b[1]])));
            }
            let max_norm = values.chunks_exact(stride).map(row_norm_upper).fold(0.0, f32::max);
            let written = as_bytes(&values);
            new.write_all(written).map_err(Error::io("write", &new_path))?;
            extents.push(Extent {
                first_row: (i * EXTENT_ROWS) as u64,
                n_rows: block.len() as u64,
                checksum: xxh3_64(written),
                max_norm,
            });
        }
        new.sync_all().map_err(Error::io("write", &new_path))?;
        crate::output::sync_folder_of(&new_path);
        Ok(extents)
    }

    fn renumber(&self, live: &[u64], extents: &[Extent]) -> Result<()> {
        let conn = &self.documents.conn;
        let run = || -> rusqlite::Result<()> {
            conn.execute_batch(
                "DELETE FROM chunk WHERE document IN (SELECT seq FROM document WHERE dead = 1);
                 DELETE FROM document WHERE dead = 1;
                 DELETE FROM extent; DELETE FROM field;
                 INSERT INTO lexical (lexical) VALUES ('delete-all');",
            )?;
            // Ascending, and never upward: no number is taken twice.
            let mut renumber = conn.prepare("UPDATE chunk SET row = ?1 WHERE row = ?2")?;
            for (new, &old) in live.iter().enumerate().filter(|&(new, &old)| new as u64 != old) {
                renumber.execute(params![new as i64, old.cast_signed()])?;
            }
            let mut add = conn.prepare("INSERT INTO extent VALUES (?1, ?2, ?3, ?4)")?;
            for e in extents {
                add.execute(params![
                    e.first_row.cast_signed(),
                    e.n_rows.cast_signed(),
                    e.checksum.cast_signed(),
                    e.max_norm
                ])?;
            }
            let mut chunks = conn.prepare(
                "SELECT c.row, d.title, d.text, c.start_byte, c.end_byte
                 FROM chunk c JOIN document d ON d.seq = c.document ORDER BY c.row",
            )?;
            let mut add =
                conn.prepare("INSERT INTO lexical (rowid, title, body) VALUES (?1, ?2, ?3)")?;
            let mut rows = chunks.query([])?;
            while let Some(row) = rows.next()? {
                let (title, text) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
                let range = row.get::<_, i64>(3)? as usize..row.get::<_, i64>(4)? as usize;
                add.execute(params![
                    row.get::<_, i64>(0)?,
                    lexical_title(title, text),
                    text.get(range).unwrap_or_default()
                ])?;
            }
            self.recount_fields()
        };
        run().map_err(self.documents.failure())
    }

    fn recount_fields(&self) -> rusqlite::Result<()> {
        let mut fields = super::FieldCatalog::default();
        let conn = &self.documents.conn;
        let mut statement = conn.prepare("SELECT json(metadata) FROM document")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            fields.count(&serde_json::from_str(row.get_ref(0)?.as_str()?).unwrap_or_default());
        }
        super::writer::add_fields(conn, &fields)
    }
}

/// Takes away vector files that no commit speaks of: older generations, and what an interrupted
/// compaction left. Where a reader still maps one and the system refuses, a later writer tries again.
pub(super) fn remove_other_generations(dir: &Path, generation: u64) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let keep = vectors_file(generation);
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("vectors-") && name.ends_with(".f16") && *name != *keep {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
