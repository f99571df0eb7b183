//! What several tests need.

use std::path::PathBuf;
use std::sync::OnceLock;

/// The folder of all-MiniLM-L6-v2, fetched once where it is not there yet.
pub(crate) fn minilm() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| PathBuf::from(std::env::var("MINILM").unwrap())).clone()
}
