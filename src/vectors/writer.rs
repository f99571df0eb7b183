//! Writing vector files.

use super::{VectorFormat, faiss, npy};
use crate::error::{Error, Result};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes float32 vectors to a file that appears, whole, with [`VectorWriter::finish`].
#[derive(Debug)]
pub struct VectorWriter {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
    format: VectorFormat,
    dim: usize,
    n_rows: usize,
}

impl VectorWriter {
    /// Starts a file of vectors of `dim` dimensions.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the folder cannot be written, [`Error::Usage`] for a dimension that the
    /// formats cannot state.
    pub fn create(path: &Path, format: VectorFormat, dim: usize) -> Result<Self> {
        if i32::try_from(dim).is_err() {
            return Err(Error::usage(format!("{dim} dimensions are too many for a vector file")));
        }
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(dir).map_err(Error::io("create a file in", dir))?;
        let out = BufWriter::with_capacity(1 << 20, file);
        let mut this = Self { path: path.to_path_buf(), out, format, dim, n_rows: 0 };
        // Holds the place of the final one, which is as long.
        let header = this.header();
        this.out.write_all(&header).map_err(Error::io("write", path))?;
        Ok(this)
    }

    /// Writes the next vector, `[dim]`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Usage`] where the length differs or the format is full.
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
        self.out.write_all(&bytes).map_err(Error::io("write", &self.path))
    }

    /// Writes the count into the header and puts the file in its place. Returns the count.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn finish(self) -> Result<usize> {
        let header = self.header();
        let failed = || Error::io("write", &self.path);
        let mut file = self.out.into_inner().map_err(|e| failed()(e.into_error()))?;
        file.seek(SeekFrom::Start(0))
            .and_then(|_| file.write_all(&header))
            .and_then(|()| file.as_file().sync_all())
            .map_err(failed())?;
        file.persist(&self.path).map_err(|e| failed()(e.error))?;
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
