//! What several tests need.

pub(crate) mod chat;
pub(crate) mod cli;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;
pub(crate) mod server;

use std::sync::OnceLock;
use warpseek::hub::{ModelFolder, Models, no_progress};

/// all-MiniLM-L6-v2, fetched once where it is not there yet.
pub(crate) fn minilm() -> &'static ModelFolder {
    static FOLDER: OnceLock<ModelFolder> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let models = Models::from_env().unwrap();
        models.get_or_download("all-MiniLM-L6-v2", &no_progress).unwrap_or_else(|e| panic!("{e}"))
    })
}
