//! What a reader opens: manifest, database and vector file of one generation.

use super::documents::{Documents, State};
use super::manifest::IndexManifest;
use super::vector_file::VectorFiles;
use super::{check_manifest, read_manifest};
use crate::error::{Error, Result};
use std::path::Path;

/// The files of one generation, as one transaction left them.
pub(super) struct Snapshot {
    pub(super) manifest: IndexManifest,
    pub(super) documents: Documents,
    pub(super) state: State,
    pub(super) vectors: VectorFiles,
}

impl Snapshot {
    /// Opens the newest generation. Where a compaction takes the files away between two steps, the
    /// generation after it is opened instead.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let mut tried = None;
        loop {
            let (manifest, manifest_hash) = read_manifest(dir)?;
            let documents = Documents::open_reader(dir)?;
            let state = documents.state()?;
            check_manifest(dir, manifest_hash, state)?;
            match VectorFiles::open(dir, manifest.dim, state, false) {
                Ok(vectors) => return Ok(Self { manifest, documents, state, vectors }),
                // Once more, as long as there is another generation to try.
                Err(Error::Corrupt { .. }) if tried != Some(state.generation) => {
                    tried = Some(state.generation);
                }
                Err(e) => return Err(e),
            }
        }
    }
}
