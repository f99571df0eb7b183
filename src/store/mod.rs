//! The index on disk: a folder with a manifest, a matrix file and a document database.
//!
//! The database is the commit point. A write appends rows to the matrix file, syncs it, then commits
//! the transaction that raises the row count; rows behind that count are ignored and overwritten.
//! Killing the process at any instant loses at most what was not committed.

pub mod compact;
mod create;
mod documents;
mod extent;
mod fields;
pub mod filter;
pub mod format;
mod hash;
mod lexical;
mod lock;
mod manifest;
mod pending;
mod reader;
mod snapshot;
mod vector_file;
mod verify;
mod writer;

// transitional
#[allow(missing_docs)]
pub mod matrix {
    pub use warpseek_topk::layout::*;
    pub use warpseek_topk::mask::*;
    pub use warpseek_topk::matrix::*;
}
// transitional
#[allow(missing_docs)]
pub mod prefilter {
    pub use warpseek_topk::layout::sq8_stride as prefilter_stride;
    pub use warpseek_topk::sq8::{RowScale, Sq8Matrix as Prefilter, Sq8View as PrefilterView};
}

pub use fields::{FieldCatalog, FieldTypes};
pub use hash::content_hash;
pub use lexical::LexicalHit;
pub use manifest::{IndexManifest, MAX_DIM, ModelStamp};
pub use reader::{Index, IndexStats, Row, RowNames, passage};
pub use verify::{Finding, verify};
pub use writer::{Existing, IndexWriter};

use crate::error::{Error, Result};
use documents::{DOCUMENTS_FILE, State};
use manifest::MANIFEST_FILE;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

#[cfg(target_endian = "big")]
compile_error!("the index files are little-endian and mapped as they are");

/// Reads and checks `manifest.json`; returns it with the hash of its bytes.
fn read_manifest(dir: &Path) -> Result<(IndexManifest, u64)> {
    let path = dir.join(MANIFEST_FILE);
    let no_index =
        |reason: &str| Error::NoIndex { path: dir.to_path_buf(), reason: reason.to_owned() };
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(if !dir.exists() {
                no_index(
                    "the folder does not exist; make one with `warpseek index INPUT --into DIR`",
                )
            } else if dir.join(DOCUMENTS_FILE).exists() {
                no_index(
                    "its creation was interrupted, or manifest.json was removed; run `warpseek index` again",
                )
            } else {
                no_index(
                    "manifest.json is missing; make one with `warpseek index INPUT --into DIR`",
                )
            });
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(no_index("this is a file; name the index folder"));
        }
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    Ok((IndexManifest::decode(&bytes, &path)?, xxh3_64(&bytes)))
}

/// Checks that manifest and database belong together.
fn check_manifest(dir: &Path, hash: u64, state: State) -> Result<()> {
    if hash == state.manifest_hash {
        return Ok(());
    }
    Err(Error::corrupt(
        dir.join(MANIFEST_FILE),
        format!("the manifest was changed after the index was made; {}", format::REBUILD),
    ))
}
