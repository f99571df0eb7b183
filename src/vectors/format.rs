//! Formats of vector files.

use crate::error::{Error, Result};
use clap::ValueEnum;
use std::path::Path;

/// A format of vector files. Its name is the usual file extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VectorFormat {
    /// NumPy's format: a two-dimensional array of float16, float32 or float64
    Npy,
    /// TEXMEX's format: for each vector an int32 dimension and float32 components
    Fvecs,
    /// The format of big-ann-benchmarks: uint32 count, uint32 dimension, then float32 rows
    Fbin,
    /// A FAISS index of type IndexFlat, also inside an IndexIDMap
    #[value(aliases = ["index", "faissindex"])]
    Faiss,
}

impl VectorFormat {
    /// The format of a file's extension (`.index` and `.faissindex` are FAISS).
    pub fn of_path(path: &Path) -> Option<Self> {
        Self::from_str(path.extension()?.to_str()?, true).ok()
    }

    /// `format`, else that of the file's extension.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an unknown extension.
    pub fn choose(format: Option<Self>, path: &Path) -> Result<Self> {
        format.or_else(|| Self::of_path(path)).ok_or_else(|| {
            Error::usage(format!(
                "{}: unknown vector format: end the name in .npy, .fvecs, .fbin or .faiss",
                path.display()
            ))
        })
    }
}
