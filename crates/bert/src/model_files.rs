//! Files of a model: a folder on disk, or bytes compiled into the program.

use crate::error::Error;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt::{self, Display};
use std::io;
use std::path::{Path, PathBuf};

/// The reason if a file that every model has is not there.
pub(crate) const MISSING: &str = "the file is missing; a model folder needs it";

/// Files of a model.
#[derive(Clone)]
pub enum ModelFiles {
    /// A folder on disk.
    Folder(PathBuf),
    /// Bytes compiled into the program.
    Embedded {
        /// The model's name, for messages.
        name: &'static str,
        /// Name and content of each file.
        files: &'static [(&'static str, &'static [u8])],
    },
}

impl ModelFiles {
    /// Reads a file; `file` is its path inside the model folder.
    ///
    /// # Errors
    ///
    /// The system's error; [`io::ErrorKind::NotFound`] if the file does not exist.
    pub fn read(&self, file: &str) -> io::Result<Cow<'static, [u8]>> {
        match self {
            Self::Folder(folder) => std::fs::read(folder.join(file)).map(Cow::Owned),
            Self::Embedded { .. } => {
                let bytes = self.embedded(file).ok_or(io::ErrorKind::NotFound)?;
                Ok(Cow::Borrowed(bytes))
            }
        }
    }

    /// Returns a folder inside a folder. Compiled-in models have none.
    pub fn within(&self, path: &str) -> Self {
        match self {
            Self::Folder(folder) => Self::Folder(folder.join(path)),
            Self::Embedded { .. } => self.clone(),
        }
    }

    /// Returns the content of a compiled-in file. None for files on disk.
    pub fn embedded(&self, file: &str) -> Option<&'static [u8]> {
        let Self::Embedded { files, .. } = self else { return None };
        files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| *bytes)
    }

    /// True if the file exists.
    pub fn exists(&self, file: &str) -> bool {
        match self {
            Self::Folder(folder) => folder.join(file).exists(),
            Self::Embedded { .. } => self.embedded(file).is_some(),
        }
    }

    /// Returns the sha256 of a file, lower-case hex.
    ///
    /// # Errors
    ///
    /// As [`ModelFiles::read`].
    pub fn sha256(&self, file: &str) -> io::Result<String> {
        Ok(hex_of(Sha256::new().chain_update(self.read(file)?)))
    }

    /// The file's path. That of a compiled-in file, `builtin:NAME/FILE`, is for messages only.
    pub fn path(&self, file: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(file),
            Self::Embedded { .. } => Path::new(&self.to_string()).join(file),
        }
    }
}

impl fmt::Display for ModelFiles {
    /// The folder; `builtin:NAME` for a compiled-in model.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Embedded { name, .. } => write!(f, "builtin:{name}"),
        }
    }
}

impl fmt::Debug for ModelFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ModelFiles({self})")
    }
}

impl<P: AsRef<Path> + ?Sized> From<&P> for ModelFiles {
    fn from(folder: &P) -> Self {
        Self::Folder(folder.as_ref().to_path_buf())
    }
}

impl From<&ModelFiles> for ModelFiles {
    fn from(files: &ModelFiles) -> Self {
        files.clone()
    }
}

/// Returns a digest in lower-case hex.
pub(crate) fn hex_of(digest: Sha256) -> String {
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the error for a model, or one of its files, that cannot be used.
pub(crate) fn unusable(model: impl Display, reason: impl Into<String>) -> Error {
    Error::ModelUnavailable { model: model.to_string(), reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_files_are_read_like_those_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        let embedded = ModelFiles::Embedded { name: "tiny", files: &[("config.json", b"{}")] };
        for files in [ModelFiles::from(folder.path()), embedded] {
            assert_eq!(&*files.read("config.json").unwrap(), b"{}");
            assert!(files.exists("config.json") && !files.exists("tokenizer.json"));
            let error = files.read("tokenizer.json").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            assert!(files.path("config.json").starts_with(files.to_string()));
        }
    }
}
