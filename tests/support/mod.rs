//! What several tests need.

pub(crate) mod cli;
pub(crate) mod hub;

use std::path::PathBuf;
use std::sync::OnceLock;
use warpseek::model::{Models, quietly};

/// The folder of all-MiniLM-L6-v2, fetched once where it is not there yet.
pub(crate) fn minilm() -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let fetch = || {
        let models = Models::from_env().unwrap();
        models.obtain("all-MiniLM-L6-v2", &quietly).unwrap_or_else(|e| panic!("{e}")).path
    };
    FOLDER.get_or_init(fetch).clone()
}
