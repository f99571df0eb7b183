//! Cuts an index into shards.

use crate::error::{Error, Result};
use crate::store::{Index, ShardList, ShardWriter};
use std::path::Path;

/// Copies the live rows of an index into shards of about `rows` rows in the folder `into`, in their
/// order and bit for bit. All chunks of a document are in one shard, which may have more rows for
/// that. `progress` is called with the number of rows so far; it returns false to stop.
///
/// # Errors
///
/// [`Error::Usage`] for no rows; [`Error::Interrupted`] if it was stopped, which leaves the folder
/// as it was; [`Error::Corrupt`] if a row or a document is damaged; the errors of
/// [`ShardWriter`](crate::store::ShardWriter).
pub fn shard(
    index: &Index,
    into: &Path,
    rows: u64,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<ShardList> {
    if rows == 0 {
        return Err(Error::usage("--rows must be at least 1"));
    }
    if index.live().count() == 0 {
        return Err(Error::usage("the index has no rows, so that there is nothing to shard"));
    }
    let (matrix, dim) = (index.matrix()?, index.manifest().dim);
    let mut writer = ShardWriter::create(into, index.manifest())?;
    let mut done = 0;
    index.for_each_document(&mut |document, chunks, first_row| {
        let in_shard = writer.rows_in_shard();
        if in_shard > 0 && in_shard + chunks.len() as u64 > rows {
            writer.end_shard()?;
        }
        let mut vectors = Vec::with_capacity(chunks.len() * dim);
        for row in (first_row as usize..).take(chunks.len()) {
            vectors.extend(matrix.checked_row(row)?.iter().take(dim).map(|v| v.to_f32()));
        }
        done += chunks.len() as u64;
        writer.put(document, chunks, &vectors)?;
        if progress(done) {
            return Ok(());
        }
        Err(Error::Interrupted("no shards were made".to_owned()))
    })?;
    writer.finish()
}
