//! Writer of vector files.

use super::format::VectorFormat;
use super::{faiss, npy};
use crate::error::{Error, Result};
use crate::output::OutputFile;
use std::path::Path;

/// Writes float32 vectors to a file, which appears with [`VectorWriter::finish`].
#[derive(Debug)]
pub struct VectorWriter {
    out: OutputFile,
    format: VectorFormat,
    dim: usize,
    n_rows: usize,
}

impl VectorWriter {
    /// Starts a file of vectors of `dim` dimensions.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the folder cannot be written, [`Error::Usage`] for more dimensions than the
    /// formats can hold.
    pub fn create(path: &Path, format: VectorFormat, dim: usize) -> Result<Self> {
        if i32::try_from(dim).is_err() {
            return Err(Error::usage(format!("{dim} dimensions are too many for a vector file")));
        }
        let mut this = Self { out: OutputFile::create(path)?, format, dim, n_rows: 0 };
        // A placeholder: `finish` writes the final header, which has the same length.
        let header = this.header();
        this.out.put(&header)?;
        Ok(this)
    }

    /// Writes the next vector, `[dim]`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Usage`] if the length differs or the format holds no more vectors.
    pub fn push(&mut self, vector: &[f32]) -> Result<()> {
        let full = self.format == VectorFormat::Fbin && self.n_rows == u32::MAX as usize;
        if vector.len() != self.dim || full {
            return Err(Error::usage(format!(
                "a vector of {} dimensions does not fit a file of {} dimensions with {} vectors",
                vector.len(),
                self.dim,
                self.n_rows
            )));
        }
        self.n_rows += 1;
        let mut bytes = Vec::with_capacity(4 + 4 * vector.len());
        if self.format == VectorFormat::Fvecs {
            bytes.extend((self.dim as i32).to_le_bytes());
        }
        bytes.extend(vector.iter().flat_map(|v| v.to_le_bytes()));
        self.out.put(&bytes)
    }

    /// Writes the number of vectors into the header, makes the file appear, and returns the number.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn finish(mut self) -> Result<usize> {
        let header = self.header();
        self.out.put_at_start(&header)?;
        self.out.finish()?;
        Ok(self.n_rows)
    }

    fn header(&self) -> Vec<u8> {
        match self.format {
            VectorFormat::Npy => npy::header(self.n_rows, self.dim),
            VectorFormat::Fvecs => Vec::new(),
            VectorFormat::Fbin => {
                [(self.n_rows as u32).to_le_bytes(), (self.dim as u32).to_le_bytes()].concat()
            }
            VectorFormat::Faiss => faiss::header(self.n_rows, self.dim),
        }
    }
}
