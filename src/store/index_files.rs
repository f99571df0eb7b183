//! The files of one index, opened together: for reading, for writing, or newly created.

use super::database::{CommitState, Database};
use super::folder::{DATABASE_FILE, MANIFEST_FILE, check_place, is_index_file, write_denied};
use super::format::REBUILD;
use super::lexical;
use super::manifest::IndexManifest;
use super::vector_files::VectorFiles;
use crate::error::{Error, Result};
use crate::output::OutputFile;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_64;

/// The files of one generation, as one commit left them.
#[derive(Debug)]
pub(super) struct IndexFiles {
    pub(super) dir: PathBuf,
    pub(super) manifest: IndexManifest,
    pub(super) database: Database,
    pub(super) state: CommitState,
    pub(super) vectors: VectorFiles,
}

impl IndexFiles {
    /// Opens the newest commit for reading. If a compaction removes the files in the middle of
    /// this, opens the generation after it.
    pub(super) fn open_reader(dir: &Path) -> Result<Self> {
        let mut tried = None;
        loop {
            let (manifest, hash) = IndexManifest::read(dir)?;
            let database = Database::open_reader(dir)?;
            let state = checked_state(&database, dir, hash)?;
            let dir = dir.to_path_buf();
            match VectorFiles::open(&dir, manifest.dim, state, false) {
                Ok(vectors) => return Ok(Self { dir, manifest, database, state, vectors }),
                // Try once more while there is another generation to try.
                Err(Error::Corrupt { .. }) if tried != Some(state.generation) => {
                    tried = Some(state.generation);
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Opens the index for writing. The caller holds its lock.
    pub(super) fn open_writer(dir: &Path) -> Result<Self> {
        let (manifest, hash) = IndexManifest::read(dir)?;
        let database = Database::open_writer(dir)?;
        let mut state = checked_state(&database, dir, hash)?;
        if database.content()?.is_some() {
            return Err(Error::usage(format!(
                "{} is a shard, which does not change: change the index that it was made from, and \
                 make the shards again, with `warpseek shard` or on the cluster",
                dir.display()
            )));
        }
        let vectors = VectorFiles::open(dir, manifest.dim, state, true)?;
        // An int8 copy that cannot be opened is given up: the next rows would be missing in it.
        state.has_int8 = vectors.int8.is_some();
        // The last commit may be one whose process died before the system wrote it to the disk.
        // Only when a commit of our own is durable may the files that it replaced be removed.
        database.commit(state, |_| Ok(()))?;
        VectorFiles::remove_other_generations(dir, state.generation);
        Ok(Self { dir: dir.to_path_buf(), manifest, database, state, vectors })
    }

    /// Creates an empty index in `dir`, which holds at most the remains of an interrupted creation.
    /// The manifest comes last: a folder without one is not an index yet. The caller holds the
    /// lock.
    pub(super) fn create(dir: &Path, manifest: &IndexManifest) -> Result<Self> {
        let bytes = manifest.encode();
        let manifest_hash = xxh3_64(&bytes);
        let state = CommitState { generation: 0, n_rows: 0, manifest_hash, has_int8: true };
        let schema = lexical::schema(manifest.language());
        let database = Database::create(dir, &schema, state, &bytes)?;
        let vectors = VectorFiles::create(dir, manifest.dim, state.generation)?;
        write_manifest(dir, &bytes)?;
        let (dir, manifest) = (dir.to_path_buf(), manifest.clone());
        Ok(Self { dir, manifest, database, state, vectors })
    }
}

/// Content of a folder, as a writer finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FolderState {
    /// An index with its manifest.
    Index,
    /// Nothing, or the remains of an interrupted creation: no row was ever committed.
    Empty,
    /// An index with rows, whose manifest is missing.
    LostManifest,
}

impl FolderState {
    /// Inspects a folder. The result is certain only while the caller holds the folder's lock.
    pub(super) fn of(dir: &Path) -> Result<Self> {
        check_place(dir)?;
        let manifest = dir.join(MANIFEST_FILE);
        let found = manifest.try_exists().map_err(|e| match e.kind() {
            ErrorKind::PermissionDenied => write_denied(dir, &e),
            _ => Error::io("read", &manifest)(e),
        });
        if found? {
            return Ok(Self::Index);
        }
        let entries = match std::fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::Empty),
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
        let database = dir.join(DATABASE_FILE);
        if !database.try_exists().map_err(Error::io("read", &database))? {
            return Ok(Self::Empty);
        }
        match Database::ever_had_rows(dir)? {
            Some(true) => Ok(Self::LostManifest),
            Some(false) => Ok(Self::Empty),
            None => Err(foreign(DATABASE_FILE)),
        }
    }
}

/// Writes a lost manifest again, from the database's copy.
pub(super) fn restore_manifest(dir: &Path) -> Result<()> {
    write_manifest(dir, &Database::open_writer(dir)?.manifest()?)
}

fn write_manifest(dir: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OutputFile::create(&dir.join(MANIFEST_FILE))?;
    file.put(bytes)?;
    file.finish()
}

/// The committed state, after checking that it belongs to the manifest of this hash.
fn checked_state(database: &Database, dir: &Path, manifest_hash: u64) -> Result<CommitState> {
    let state = database.state()?;
    if state.manifest_hash != manifest_hash {
        return Err(Error::corrupt(
            dir.join(MANIFEST_FILE),
            format!("the manifest was changed after the index was created; {REBUILD}"),
        ));
    }
    Ok(state)
}
