//! Models compiled into the program.

use std::path::{Path, PathBuf};

/// A model compiled into the program.
#[derive(Clone, Copy)]
pub struct EmbeddedModel {
    /// The manifest's short name.
    pub name: &'static str,
    /// Name and content of each file.
    pub files: &'static [(&'static str, &'static [u8])],
}

#[cfg(feature = "builtin-reranker")]
macro_rules! embed {
    ($name:literal, $($file:literal),+) => {
        EmbeddedModel { name: $name, files: &[
            $(($file, include_bytes!(concat!("../../../models/", $name, "/", $file)))),+
        ]}
    };
}

/// The models of this build.
const MODELS: &[EmbeddedModel] = &[
    #[cfg(feature = "builtin-reranker")]
    embed!("warpseek-rerank-mini", "config.json", "tokenizer.json", "model.safetensors"),
];

impl EmbeddedModel {
    /// Returns the compiled-in model of this name, if this build has one.
    pub(crate) fn named(name: &str) -> Option<Self> {
        MODELS.iter().find(|model| model.name == name).copied()
    }

    /// Returns the compiled-in model whose [`EmbeddedModel::path`] is `path`.
    pub(crate) fn at(path: &Path) -> Option<Self> {
        MODELS.iter().find(|model| model.path() == path).copied()
    }

    /// The path that users see, `builtin:NAME`. No file system has it.
    pub(crate) fn path(&self) -> PathBuf {
        format!("builtin:{}", self.name).into()
    }

    /// Content of a file.
    pub(crate) fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
    }
}
