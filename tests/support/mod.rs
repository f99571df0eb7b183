//! Shared helpers of the tests.

pub(crate) mod chat;
pub(crate) mod cli;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod server;

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use warpseek::hub::{ModelFolder, Models, no_progress};

/// all-MiniLM-L6-v2, downloaded once if it is not present.
pub(crate) fn minilm() -> &'static ModelFolder {
    static FOLDER: OnceLock<ModelFolder> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let models = Models::from_env().unwrap();
        models.get_or_download("all-MiniLM-L6-v2", &no_progress).unwrap_or_else(|e| panic!("{e}"))
    })
}

/// The folder of public collections: `data` in the folder that `WARPSEEK_SHARED` names, else in
/// `../shared`. None if it does not exist; tests then use the small data of the repository.
pub(crate) fn shared_data() -> Option<PathBuf> {
    let folder = std::env::var_os("WARPSEEK_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let data = folder.join("data");
    if data.is_dir() {
        return Some(data);
    }
    eprintln!("{} is missing: using the small data of the repository instead", data.display());
    None
}

/// The first `n` chunks of papers in a folder of public collections.
pub(crate) fn paper_chunks(data: &Path, n: usize) -> Vec<String> {
    let file = std::fs::File::open(data.join("arxiv-chunked/train.jsonl.gz")).unwrap();
    let lines = std::io::BufReader::new(flate2::read::MultiGzDecoder::new(file)).lines();
    lines.take(n).map(|line| line.unwrap()).collect()
}

/// The database of an index, to be changed behind warpseek's back: what is written gets the right
/// checksums of pages.
pub(crate) fn database(index: &Path) -> rusqlite::Connection {
    // Opening registers the layer that writes them.
    drop(warpseek::store::Index::open(index).unwrap());
    let (path, flags) = (index.join("documents.db"), rusqlite::OpenFlags::default());
    rusqlite::Connection::open_with_flags_and_vfs(path, flags, c"warpseek").unwrap()
}
