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
    /// The memory of the GPU that the rows of indexes may take, in MiB.
    pub gpu_memory: Option<usize>,
    /// `auto`, `f32`, `bf16` or `int8`.
    pub precision: Option<String>,
    /// The chat service's address.
    pub base_url: Option<String>,
    /// The chat model that answers.
    pub chat_model: Option<String>,
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

    /// The settings of the settings file, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] naming the file where it cannot be understood, [`Error::Io`] where it cannot
    /// be read, or `WARPSEEK_CONFIG` names one that does not exist.
    pub fn from_file() -> Result<Self> {
        let named = std::env::var_os("WARPSEEK_CONFIG").is_some_and(|path| !path.is_empty());
        match Self::file() {
            Some(path) if named || path.exists() => Self::read(&path),
            _ => Ok(Self::default()),
        }
    }

    /// Reads a settings file.
    ///
    /// # Errors
    ///
    /// As [`Settings::from_file`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(Error::io("read", path))?;
        let text = String::from_utf8(text)
            .map_err(|_| Error::usage(format!("{}: not valid UTF-8", path.display())))?;
        toml::from_str(&text)
            .map_err(|e| Error::usage(format!("{}: {}", path.display(), e.to_string().trim())))
    }

    /// The settings of the environment: `WARPSEEK_MODEL`, `WARPSEEK_RERANKER`, `WARPSEEK_DEVICE`,
    /// `WARPSEEK_PRECISION`, `GROQ_BASE_URL`, `WARPSEEK_CHAT_MODEL`, `WARPSEEK_THREADS`, `WARPSEEK_OFFLINE`, `WARPSEEK_GPU_MEMORY`. An empty variable sets nothing. (`WARPSEEK_MODELS_DIR`
    /// is read by [`crate::hub::Sources`].)
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] naming the variable whose value makes no sense.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let number = |name: &str| match var(name).map(|text| (text.parse(), text)) {
            Some((Ok(number), _)) => Ok(Some(number)),
            Some((Err(_), text)) => {
                Err(Error::usage(format!("{name} is '{text}': a number is expected")))
            }
            None => Ok(None),
        };
        let offline = match var("WARPSEEK_OFFLINE").map(|text| text.to_ascii_lowercase()) {
            None => None,
            Some(text) => match text.as_str() {
                "1" | "true" | "yes" | "on" => Some(true),
                "0" | "false" | "no" | "off" => Some(false),
                _ => {
                    return Err(Error::usage(format!(
                        "WARPSEEK_OFFLINE is '{text}': 1 or 0 is expected"
                    )));
                }
            },
        };
        Ok(Self {
            model: var("WARPSEEK_MODEL"),
            reranker: var("WARPSEEK_RERANKER"),
            device: var("WARPSEEK_DEVICE"),
            precision: var("WARPSEEK_PRECISION"),
            base_url: var("GROQ_BASE_URL"),
            chat_model: var("WARPSEEK_CHAT_MODEL"),
            gpu_memory: number("WARPSEEK_GPU_MEMORY")?,
            threads: number("WARPSEEK_THREADS")?,
            offline,
            models_dir: None,
        })
    }

    /// These settings, and for what they leave open those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            model: self.model.or(other.model),
            reranker: self.reranker.or(other.reranker),
            device: self.device.or(other.device),
            gpu_memory: self.gpu_memory.or(other.gpu_memory),
            precision: self.precision.or(other.precision),
            base_url: self.base_url.or(other.base_url),
            chat_model: self.chat_model.or(other.chat_model),
            threads: self.threads.or(other.threads),
            offline: self.offline.or(other.offline),
            models_dir: self.models_dir.or(other.models_dir),
        }
    }
}
