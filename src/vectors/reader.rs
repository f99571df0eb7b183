//! Reader of vector files.

use super::format::VectorFormat;
use super::layout::{self, Component, Metric, VectorLayout, u32_at, u64_at};
use super::{faiss, npy};
use crate::error::{Error, Place, Result};
use half::f16;
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// An open vector file, mapped into memory.
#[derive(Debug)]
pub struct VectorFile {
    path: PathBuf,
    map: Mmap,
    layout: VectorLayout,
}

impl VectorFile {
    /// Opens a file; without `format` its extension decides.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if it cannot be read, [`Error::Usage`] for an unknown extension,
    /// [`Error::Input`] if it is cut off or not of the format.
    pub fn open(path: &Path, format: Option<VectorFormat>) -> Result<Self> {
        let format = VectorFormat::choose(format, path)?;
        let file = File::open(path).map_err(Error::io("open", path))?;
        if file.metadata().map_err(Error::io("read", path))?.len() == 0 {
            return Err(invalid(path, "the file is empty"));
        }
        // SAFETY: the file is only read. As with every mapped file, the process is interrupted if
        // the user truncates the file meanwhile.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let layout = match format {
            VectorFormat::Npy => npy::layout(&map),
            VectorFormat::Fvecs => layout::fvecs(&map),
            VectorFormat::Fbin => layout::fbin(&map),
            VectorFormat::Faiss => faiss::layout(&map),
        }
        .and_then(|layout| check_length(layout, map.len()).map(|()| layout))
        .map_err(|reason| invalid(path, reason))?;
        Ok(Self { path: path.to_path_buf(), map, layout })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of vectors.
    pub fn n_rows(&self) -> usize {
        self.layout.n_rows
    }

    /// The number of dimensions.
    pub fn dim(&self) -> usize {
        self.layout.dim
    }

    /// The metric that the file names, if any.
    pub fn metric(&self) -> Option<Metric> {
        self.layout.metric
    }

    /// The id of a vector, if the file has ids (a FAISS IndexIDMap).
    pub fn id(&self, row: usize) -> Option<i64> {
        let ids = self.layout.ids.filter(|_| row < self.layout.n_rows)?;
        u64_at(&self.map, ids + row * 8).map(u64::cast_signed)
    }

    /// Copies a vector into `out`, `[dim]`; float64 is rounded to float32.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] past the end, or (fvecs) if the vector has another dimension.
    pub fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let VectorLayout { n_rows, dim, component, start, row_step, column_step, .. } = self.layout;
        if row >= n_rows || out.len() != dim {
            return Err(invalid(&self.path, format!("there is no vector {row}")));
        }
        let first = start + row * row_step;
        if self.layout.has_row_dims {
            let own = u32_at(&self.map, first - 4).unwrap_or(0) as usize;
            if own != dim {
                return Err(Error::input(
                    Place::record(self.path.display().to_string(), format!("vector {row}")),
                    format!("it has {own} dimensions, the first one {dim}"),
                ));
            }
        }
        for (i, value) in out.iter_mut().enumerate() {
            let at = first + i * column_step;
            let bytes = &self.map[at..at + component.len()];
            *value = match (component, bytes) {
                (Component::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
                (Component::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
                (Component::F64, &[a, b, c, d, e, f, g, h]) => {
                    f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32
                }
                _ => 0.0,
            };
        }
        Ok(())
    }

    /// All vectors, `[n_rows, dim]`.
    ///
    /// # Errors
    ///
    /// As [`VectorFile::read`].
    pub fn read_all(&self) -> Result<Vec<f32>> {
        let mut values = vec![0f32; self.n_rows() * self.dim()];
        let rows = values.chunks_exact_mut(self.dim()).enumerate();
        rows.into_iter().try_for_each(|(i, row)| self.read(i, row))?;
        Ok(values)
    }
}

/// Checks that there are vectors, and that all lie within `len` bytes.
fn check_length(layout: VectorLayout, len: usize) -> Result<(), String> {
    let VectorLayout { n_rows, dim, component, start, row_step, column_step, .. } = layout;
    if dim == 0 {
        return Err("the vectors have no dimensions".to_owned());
    }
    if n_rows == 0 {
        return Err("the file holds no vectors".to_owned());
    }
    let end = (n_rows - 1)
        .checked_mul(row_step)
        .and_then(|rows| rows.checked_add((dim - 1).checked_mul(column_step)?))
        .and_then(|last| last.checked_add(start)?.checked_add(component.len()));
    match end {
        Some(end) if end <= len => Ok(()),
        _ => Err(format!(
            "the file is cut off: {n_rows} vectors of {dim} dimensions do not fit into {len} bytes"
        )),
    }
}

fn invalid(path: &Path, reason: impl Into<String>) -> Error {
    Error::input(Place::file(path.display().to_string()), reason)
}
