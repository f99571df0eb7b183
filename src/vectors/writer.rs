//! Writing vector files.

use super::{VectorFormat, faiss, npy};
use crate::error::{Error, Result};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes float32 vectors to a file that appears, whole, with [`VectorWriter::finish`].
#[derive(Debug)]
pub struct VectorWriter {
    path: PathBuf,
    out: BufWriter<NamedTempFile>,
    format: VectorFormat,
    dim: usize,
    left: usize,
}

impl VectorWriter {
    /// Starts a file of `n_rows` vectors of `dim` dimensions.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the folder cannot be written, [`Error::Usage`] for sizes the format cannot
    /// state.
    pub fn create(path: &Path, format: VectorFormat, n_rows: usize, dim: usize) -> Result<Self> {
        let fits = i32::try_from(dim).is_ok()
            && (format != VectorFormat::Fbin || u32::try_from(n_rows).is_ok());
        if !fits {
            return Err(Error::usage(format!(
                "{n_rows} vectors of {dim} dimensions are too many for the format {}",
                format.name()
            )));
        }
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = NamedTempFile::new_in(dir).map_err(Error::io("create a file in", dir))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let header = match format {
            VectorFormat::Npy => npy::header(n_rows, dim),
            VectorFormat::Fvecs => Vec::new(),
            VectorFormat::Fbin => {
                [(n_rows as u32).to_le_bytes(), (dim as u32).to_le_bytes()].concat()
            }
            VectorFormat::Faiss => faiss::header(n_rows, dim),
        };
        out.write_all(&header).map_err(Error::io("write", path))?;
        Ok(Self { path: path.to_path_buf(), out, format, dim, left: n_rows })
    }

    /// Writes the next vector, `[dim]`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Usage`] where the length differs or there are too many.
    pub fn push(&mut self, vector: &[f32]) -> Result<()> {
        if vector.len() != self.dim || self.left == 0 {
            return Err(Error::usage(format!(
                "a vector of {} dimensions does not fit a file of {} with {} left",
                vector.len(),
                self.dim,
                self.left
            )));
        }
        self.left -= 1;
        let mut bytes = Vec::with_capacity(4 + 4 * vector.len());
        if self.format == VectorFormat::Fvecs {
            bytes.extend((self.dim as i32).to_le_bytes());
        }
        bytes.extend(vector.iter().flat_map(|v| v.to_le_bytes()));
        self.out.write_all(&bytes).map_err(Error::io("write", &self.path))
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Usage`] where vectors are missing.
    pub fn finish(self) -> Result<()> {
        if self.left > 0 {
            return Err(Error::usage(format!("{} vectors are missing", self.left)));
        }
        let failed = || Error::io("write", &self.path);
        let file = self.out.into_inner().map_err(|e| failed()(e.into_error()))?;
        file.as_file().sync_all().map_err(failed())?;
        file.persist(&self.path).map_err(|e| failed()(e.error))?;
        Ok(())
    }
}
