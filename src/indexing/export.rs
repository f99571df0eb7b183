//! Export of an index to files: vectors, and documents in the same order.

use crate::error::{Error, Result};
use crate::output::OutputFile;
use crate::store::Index;
use crate::vectors::{VectorFormat, VectorWriter};
use serde_json::json;
use std::path::Path;

/// Rows that are fetched together.
const WINDOW: usize = 1024;

/// Writes the vectors of all live rows. Returns their number. `go_on` returns false to stop.
///
/// # Errors
///
/// [`Error::Io`] and [`Error::Corrupt`]; [`Error::Interrupted`] if `go_on` stops the export.
pub fn export_vectors(
    index: &Index,
    path: &Path,
    format: VectorFormat,
    go_on: &dyn Fn() -> bool,
) -> Result<usize> {
    let matrix = index.matrix()?;
    let mut writer = VectorWriter::create(path, format, matrix.dim())?;
    for row in live_rows(index) {
        let row = matrix.checked_row(row as usize)?;
        let vector: Vec<f32> = row.iter().take(matrix.dim()).map(|v| v.to_f32()).collect();
        writer.push(&vector)?;
        check(go_on)?;
    }
    writer.finish()
}

/// Writes all live rows as jsonl: `id`, `doc_id`, `title`, `text`, `metadata`. Returns their
/// number. `go_on` returns false to stop.
///
/// # Errors
///
/// As [`export_vectors`].
pub fn export_documents(index: &Index, path: &Path, go_on: &dyn Fn() -> bool) -> Result<usize> {
    let mut out = OutputFile::create(path)?;
    let rows = live_rows(index);
    for window in rows.chunks(WINDOW) {
        for row in index.rows(window)? {
            let line = json!({
                "id": row.id,
                "doc_id": row.doc_id,
                "title": row.title,
                "text": row.text,
                "metadata": row.metadata,
            });
            out.put(format!("{line}\n").as_bytes())?;
        }
        check(go_on)?;
    }
    out.finish()?;
    Ok(rows.len())
}

fn live_rows(index: &Index) -> Vec<u32> {
    let mut rows = Vec::new();
    index.live().collect_range(0..index.n_rows(), &mut rows);
    rows
}

fn check(go_on: &dyn Fn() -> bool) -> Result<()> {
    if go_on() {
        return Ok(());
    }
    Err(Error::Interrupted("the file was not written".to_owned()))
}
