//! Settings that may stand in a file, in the environment, or on the command line: the later of these
//! wins. Resolved once.

use crate::error::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What a user may set for all commands. A field that nothing sets is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The embedding model of new indexes: a name, a hub id or a folder.
    pub model: Option<String>,
    /// The reranker: a name, a hub id, a folder, or `none`.
    pub reranker: Option<String>,
    /// `auto`, `cpu` or `cuda:N`.
    pub device: Option<String>,
    /// Threads for computing; all cores where nothing says otherwise.
    pub threads: Option<usize>,
    /// Whether only loopback addresses may be connected to.
    pub offline: Option<bool>,
    /// The folder of downloaded models.
    pub models_dir: Option<PathBuf>,
}

impl Settings {
    /// The settings file: `WARPSEEK_CONFIG`, else `warpseek/config.toml` in the user's configuration
    /// folder.
    pub fn file() -> Option<PathBuf> {
        match std::env::var_os("WARPSEEK_CONFIG") {
            Some(path) if !path.is_empty() => Some(path.into()),
            _ => dirs::config_dir().map(|dir| dir.join("warpseek/config.toml")),
        }
    }

    /// Reads a settings file; one that does not exist sets nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] naming the file where it cannot be understood, [`Error::Io`] where it cannot
    /// be read.
    pub fn read(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|e| Error::usage(format!("{}: {}", path.display(), e.to_string().trim()))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Error::io("read", path)(e)),
        }
    }

    /// These settings, and for what they leave open those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            model: self.model.or(other.model),
            reranker: self.reranker.or(other.reranker),
            device: self.device.or(other.device),
            threads: self.threads.or(other.threads),
            offline: self.offline.or(other.offline),
            models_dir: self.models_dir.or(other.models_dir),
        }
    }
}
