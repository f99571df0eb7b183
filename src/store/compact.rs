//! Compaction: a new generation without the dead rows.

use super::IndexWriter;
use super::documents::State;
use super::extent::{Extent, RowSums, hash_chunks};
use super::format::{REBUILD, VectorFile};
use super::matrix::stride_of;
use super::pending::{add_fields, add_words};
use super::vector_file::VectorFiles;
use crate::error::{Error, Result};
use half::f16;
use rusqlite::params;
use std::path::Path;

/// Rows that share a checksum.
const EXTENT_ROWS: u64 = 65_536;

/// Rows that are copied at a time.
const PIECE_ROWS: u64 = 8_192;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Compaction {
    /// Rows before, dead ones included.
    pub rows_before: u64,
    /// Rows after.
    pub rows_after: u64,
    /// The generation that holds them.
    pub generation: u64,
    /// Whether the database gave its space back; it does so later where readers are open or the disk
    /// is full.
    pub space_returned: bool,
}

impl IndexWriter {
    /// Writes a new generation without dead rows, with a prefilter, and switches to it in one commit.
    /// Readers that are open keep the old one. An interruption at any instant leaves the old or the new
    /// generation whole. Where nothing is dead and the prefilter is there nothing is done.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where rows to be copied do not match their checksum, [`Error::Io`] or
    /// [`Error::Database`].
    pub fn compact(mut self) -> Result<Compaction> {
        self.commit()?;
        let old = self.state;
        let live = self.live_rows()?;
        if live.len() as u64 == old.n_rows && old.has_prefilter {
            return Ok(Compaction {
                rows_before: old.n_rows,
                rows_after: old.n_rows,
                generation: old.generation,
                space_returned: true,
            });
        }
        let generation = old.generation + 1;
        let extents = match self.copy_rows(&live, generation) {
            Ok(extents) => extents,
            Err(e) => {
                // No commit speaks of the new files yet.
                for file in VectorFile::ALL {
                    let _ = std::fs::remove_file(self.dir.join(file.name(generation)));
                }
                return Err(e);
            }
        };
        let new = State { generation, n_rows: live.len() as u64, has_prefilter: true, ..old };
        // Where this fails it is not known whether the switch took place: both files stay, and the
        // next writer removes the one that no commit speaks of.
        self.documents.transaction(|| {
            self.renumber(&live, extents).map_err(self.documents.failure())?;
            self.documents.set_state(new)
        })?;
        // From here on the new generation is the index; what follows only gives space back.
        remove_other_generations(&self.dir, generation);
        let returned = self.documents.conn.execute_batch("VACUUM").is_ok()
            && self.documents.checkpoint().unwrap_or(false);
        Ok(Compaction {
            rows_before: old.n_rows,
            rows_after: new.n_rows,
            generation,
            space_returned: returned,
        })
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

    /// Copies live rows, checking the old extents on the way. The chunk checksums are still missing.
    fn copy_rows(&self, live: &[u64], generation: u64) -> Result<Vec<Extent>> {
        let stride = stride_of(self.manifest.dim);
        let old_path = self.dir.join(VectorFile::Half.name(self.state.generation));
        let files = VectorFiles::create(&self.dir, self.manifest.dim, generation)?;
        let mut out = ExtentWriter { files, stride, extents: Vec::new(), sums: None, n_rows: 0 };
        let mut live = live.iter().copied().peekable();
        let mut rows: Vec<f16> = Vec::new();
        for extent in Extent::read_all(&self.documents)? {
            let mut sums = RowSums::default();
            let end = extent.first_row + extent.n_rows;
            let mut first = extent.first_row;
            while first < end {
                let n = PIECE_ROWS.min(end - first);
                self.vectors
                    .read_half(first, n as usize, &mut rows)
                    .map_err(Error::io("read", &old_path))?;
                sums.add(&rows, stride);
                while let Some(row) = live.next_if(|&row| row < first + n) {
                    let at = (row - first) as usize * stride;
                    out.push(&rows[at..at + stride])?;
                }
                first += n;
            }
            if sums.finish().0 != extent.checksum {
                return Err(Error::corrupt(
                    &old_path,
                    format!(
                        "rows {} to {} are damaged (their checksum differs), and nothing was changed; \
                         {REBUILD}",
                        extent.first_row,
                        end - 1
                    ),
                ));
            }
        }
        out.finish()
    }

    fn renumber(&self, live: &[u64], extents: Vec<Extent>) -> rusqlite::Result<()> {
        let conn = &self.documents.conn;
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
        for extent in extents {
            let chunk_checksum = hash_chunks(conn, extent.first_row, extent.n_rows)?;
            Extent { chunk_checksum, ..extent }.insert(conn)?;
        }
        let mut fields = super::FieldCatalog::default();
        let mut documents =
            conn.prepare("SELECT seq, title, text, json(metadata) FROM document ORDER BY seq")?;
        let mut chunks = conn.prepare(
            "SELECT row, start_byte, end_byte FROM chunk WHERE document = ?1 ORDER BY row",
        )?;
        let mut rows = documents.query([])?;
        while let Some(document) = rows.next()? {
            let text = |i: usize| document.get_ref(i).and_then(|v| Ok(v.as_str()?));
            fields.count(&serde_json::from_str(text(3)?).unwrap_or_default());
            let mut pieces = chunks.query([document.get::<_, i64>(0)?])?;
            while let Some(piece) = pieces.next()? {
                let number = |i: usize| piece.get::<_, i64>(i);
                let range = number(1)? as usize..number(2)? as usize;
                add_words(conn, number(0)?.cast_unsigned(), text(1)?, text(2)?, range)?;
            }
        }
        add_fields(conn, &fields)
    }
}

/// Writes rows behind each other and sums them up in extents.
struct ExtentWriter {
    files: VectorFiles,
    stride: usize,
    extents: Vec<Extent>,
    /// Of the extent that is not full yet.
    sums: Option<(RowSums, Vec<f16>)>,
    n_rows: u64,
}

impl ExtentWriter {
    fn push(&mut self, row: &[f16]) -> Result<()> {
        let (sums, buffer) = self.sums.get_or_insert_default();
        buffer.extend_from_slice(row);
        self.n_rows += 1;
        if buffer.len() >= PIECE_ROWS as usize * self.stride {
            sums.add(buffer, self.stride);
            let first = self.n_rows - (buffer.len() / self.stride) as u64;
            self.files.write(first, buffer)?;
            buffer.clear();
        }
        if self.n_rows.is_multiple_of(EXTENT_ROWS) {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        let Some((mut sums, buffer)) = self.sums.take() else { return Ok(()) };
        sums.add(&buffer, self.stride);
        self.files.write(self.n_rows - (buffer.len() / self.stride) as u64, &buffer)?;
        let first_row = self.extents.last().map_or(0, |e| e.first_row + e.n_rows);
        let (checksum, max_norm) = sums.finish();
        let n_rows = self.n_rows - first_row;
        self.extents.push(Extent { first_row, n_rows, checksum, chunk_checksum: 0, max_norm });
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Extent>> {
        self.close()?;
        self.files.sync()?;
        Ok(self.extents)
    }
}

/// Takes away vector files that no commit speaks of: older generations, and what an interrupted
/// compaction left. Where a reader still maps one and the system refuses, a later writer tries again.
pub(super) fn remove_other_generations(dir: &Path, generation: u64) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let keep = VectorFile::ALL.map(|file| file.name(generation));
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if VectorFile::is_name(&name) && !keep.contains(&name.as_ref().to_owned()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
