//! Making a new index, and telling a folder that holds none from one that lost its manifest.

use super::documents::{DOCUMENTS_FILE, Documents, State};
use super::format::VectorFile;
use super::lock::{LOCK_FILE, WriteLock};
use super::manifest::{IndexManifest, MANIFEST_FILE};
use super::vector_file::VectorFiles;
use crate::error::{Error, Result};
use crate::output::OutputFile;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// What stands in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// An index with its manifest.
    Index,
    /// Nothing, or what an interrupted creation left: no row was ever committed.
    Nothing,
    /// An index with rows whose manifest is gone.
    LostManifest,
}

/// Looks at a folder; the caller holds its lock or will look again.
///
/// # Errors
///
/// [`Error::Usage`] where the folder holds files that are not an index's, [`Error::Io`] where it cannot
/// be read, [`Error::Corrupt`] where a database without manifest is damaged.
pub(super) fn look(dir: &Path) -> Result<Found> {
    let manifest = dir.join(MANIFEST_FILE);
    if manifest.try_exists().map_err(Error::io("read", &manifest))? {
        return Ok(Found::Index);
    }
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(Error::io("read", dir)(e)),
    };
    let foreign = |what: &str| {
        Error::usage(format!(
            "{} holds other files ('{what}'): choose an empty or a new folder for the index",
            dir.display()
        ))
    };
    for entry in entries {
        let name = entry.map_err(Error::io("read", dir))?.file_name();
        let name = name.to_string_lossy();
        if !is_index_file(&name) {
            return Err(foreign(&name));
        }
    }
    let database = dir.join(DOCUMENTS_FILE);
    match std::fs::metadata(&database) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(e) => return Err(Error::io("read", &database)(e)),
        Ok(file) if file.len() == 0 => return Ok(Found::Nothing),
        Ok(_) => {}
    }
    match Documents::is_unfinished(dir)? {
        Some(true) => Ok(Found::Nothing),
        Some(false) => Ok(Found::LostManifest),
        None => Err(foreign(DOCUMENTS_FILE)),
    }
}

/// Makes an empty index in `dir`, which holds nothing but what an interrupted creation left. The
/// manifest comes last: a folder without one is no index yet.
pub(super) fn create(
    dir: &Path,
    manifest: &IndexManifest,
) -> Result<(Documents, State, VectorFiles)> {
    let bytes = manifest.encode();
    let state =
        State { generation: 0, n_rows: 0, manifest_hash: xxh3_64(&bytes), has_prefilter: true };
    let documents = Documents::create(dir, state, &bytes)?;
    let vectors = VectorFiles::create(dir, manifest.dim, state.generation)?;
    write_manifest(dir, &bytes)?;
    Ok((documents, state, vectors))
}

/// Writes a lost manifest again, from the database's copy.
pub(super) fn restore_manifest(dir: &Path) -> Result<()> {
    let bytes = Documents::open_writer(dir)?.manifest()?;
    write_manifest(dir, &bytes)
}

/// Makes the folder, with those above it, and takes its lock.
pub(super) fn lock_new(dir: &Path) -> Result<WriteLock> {
    // Folders that are made here must outlast a power cut, as what is committed into them does.
    let missing: Vec<&Path> =
        dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    std::fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
    missing.iter().for_each(|folder| crate::output::sync_folder_of(folder));
    WriteLock::take(dir)
}

fn write_manifest(dir: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OutputFile::create(&dir.join(MANIFEST_FILE))?;
    file.put(bytes)?;
    file.finish()
}

/// Whether a file of this name may stand in an index folder.
fn is_index_file(name: &str) -> bool {
    name == MANIFEST_FILE
        || name == LOCK_FILE
        || name == DOCUMENTS_FILE
        || name
            .strip_prefix(DOCUMENTS_FILE)
            .is_some_and(|s| matches!(s, "-wal" | "-shm" | "-journal"))
        || VectorFile::is_name(name)
        || (name.starts_with('.') && name.ends_with(".partial"))
}
