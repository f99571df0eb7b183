//! Vector files of other tools, in and out: NumPy's npy, fvecs, fbin, and FAISS IndexFlat.

mod faiss;
mod npy;
mod writer;

pub use writer::VectorWriter;

use crate::error::{Error, Place, Result};
use half::f16;
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A format of vector files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorFormat {
    /// NumPy's format, a two-dimensional array of float16, float32 or float64.
    Npy,
    /// Per vector an int32 dimension, then its float32 components (TEXMEX).
    Fvecs,
    /// uint32 count, uint32 dimension, then float32 rows (big-ann-benchmarks).
    Fbin,
    /// A FAISS index of type IndexFlat.
    Faiss,
}

impl VectorFormat {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Npy, Self::Fvecs, Self::Fbin, Self::Faiss];

    /// The format's name, also its usual file extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Npy => "npy",
            Self::Fvecs => "fvecs",
            Self::Fbin => "fbin",
            Self::Faiss => "faiss",
        }
    }

    /// The format of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an unknown name.
    pub fn named(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| {
            Error::usage(format!(
                "no vector format is called '{name}': use npy, fvecs, fbin or faiss"
            ))
        })
    }

    /// The format of this name, else the one that the file's extension names.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an unknown name, or an extension that names no format.
    pub fn choose(name: Option<&str>, path: &Path) -> Result<Self> {
        if let Some(name) = name {
            return Self::named(name);
        }
        Self::of_path(path).ok_or_else(|| {
            Error::usage(format!(
                "{}: the name says no vector format; end it in .npy, .fvecs, .fbin or .faiss",
                path.display()
            ))
        })
    }

    /// The format that a file's extension names (`.index` and `.faissindex` count as FAISS).
    pub fn of_path(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "index" | "faissindex" => Some(Self::Faiss),
            other => Self::ALL.into_iter().find(|f| f.name() == other),
        }
    }
}

/// How the vectors of a file are meant to be compared, where the file says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Inner product.
    InnerProduct,
    /// Euclidean distance.
    L2,
}

/// An open vector file, mapped into memory.
#[derive(Debug)]
pub struct VectorFile {
    path: PathBuf,
    map: Mmap,
    layout: Layout,
}

/// Where the numbers stand in a file.
#[derive(Debug, Clone, Copy)]
struct Layout {
    n_rows: usize,
    dim: usize,
    element: Element,
    /// The first row's first byte.
    start: usize,
    /// Bytes from one row to the next, and from one column to the next.
    row_step: usize,
    column_step: usize,
    metric: Option<Metric>,
    /// Whether every row states its dimension in the four bytes before it.
    stated: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    F16,
    F32,
    F64,
}

impl Element {
    fn len(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl VectorFile {
    /// Opens a file; without `format` its extension tells.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where it cannot be read, [`Error::Usage`] for an unknown extension,
    /// [`Error::Input`] where it is cut off or not what it claims to be.
    pub fn open(path: &Path, format: Option<VectorFormat>) -> Result<Self> {
        let format = match format {
            Some(format) => format,
            None => VectorFormat::choose(None, path)?,
        };
        let file = File::open(path).map_err(Error::io("open", path))?;
        if file.metadata().map_err(Error::io("read", path))?.len() == 0 {
            return Err(invalid(path, "the file is empty"));
        }
        // SAFETY: the file is only read; as everywhere, someone who truncates a file that is being
        // imported interrupts the process.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        let layout = match format {
            VectorFormat::Npy => npy::layout(&map),
            VectorFormat::Fvecs => fvecs_layout(&map),
            VectorFormat::Fbin => fbin_layout(&map),
            VectorFormat::Faiss => faiss::layout(&map),
        }
        .map_err(|reason| invalid(path, &reason))?;
        let this = Self { path: path.to_path_buf(), map, layout };
        this.check_length()?;
        Ok(this)
    }

    fn check_length(&self) -> Result<()> {
        let Layout { n_rows, dim, element, start, row_step, column_step, .. } = self.layout;
        if dim == 0 {
            return Err(invalid(&self.path, "the vectors have no dimensions"));
        }
        if n_rows == 0 {
            return Err(invalid(&self.path, "the file holds no vectors"));
        }
        let end = (n_rows - 1)
            .checked_mul(row_step)
            .and_then(|rows| rows.checked_add((dim - 1).checked_mul(column_step)?))
            .and_then(|last| last.checked_add(start)?.checked_add(element.len()));
        match end {
            Some(end) if end <= self.map.len() => Ok(()),
            _ => Err(invalid(
                &self.path,
                &format!(
                    "the file is cut off: {n_rows} vectors of {dim} dimensions do not fit into {} bytes",
                    self.map.len()
                ),
            )),
        }
    }

    /// The number of vectors.
    pub fn n_rows(&self) -> usize {
        self.layout.n_rows
    }

    /// The number of dimensions.
    pub fn dim(&self) -> usize {
        self.layout.dim
    }

    /// The metric that the file names, if it does.
    pub fn metric(&self) -> Option<Metric> {
        self.layout.metric
    }

    /// Copies a vector into `out`, `[dim]`; float64 is rounded to float32.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] past the end, or (fvecs) where the vector states another dimension.
    pub fn read(&self, row: usize, out: &mut [f32]) -> Result<()> {
        let Layout { n_rows, dim, element, start, row_step, column_step, .. } = self.layout;
        if row >= n_rows || out.len() != dim {
            return Err(invalid(&self.path, &format!("there is no vector {row}")));
        }
        let first = start + row * row_step;
        if self.layout.stated {
            let stated = u32_at(&self.map, first - 4).unwrap_or(0) as usize;
            if stated != dim {
                return Err(Error::input(
                    Place::record(self.path.display().to_string(), format!("vector {row}")),
                    format!("it has {stated} dimensions, the first one {dim}"),
                ));
            }
        }
        for (i, value) in out.iter_mut().enumerate() {
            let at = first + i * column_step;
            let bytes = &self.map[at..at + element.len()];
            *value = match (element, bytes) {
                (Element::F16, &[a, b]) => f16::from_le_bytes([a, b]).to_f32(),
                (Element::F32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
                (Element::F64, &[a, b, c, d, e, f, g, h]) => {
                    f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32
                }
                _ => 0.0,
            };
        }
        Ok(())
    }
}

fn fvecs_layout(bytes: &[u8]) -> Result<Layout, String> {
    let dim = u32_at(bytes, 0).ok_or("the file is too short for a vector")? as usize;
    if dim == 0 || dim > 1 << 20 {
        return Err(format!("{dim} dimensions: this is not an fvecs file"));
    }
    let step = 4 + dim * 4;
    if !bytes.len().is_multiple_of(step) {
        return Err(format!(
            "{} bytes are not a whole number of vectors of {dim} dimensions",
            bytes.len()
        ));
    }
    let n_rows = bytes.len() / step;
    let rows = Layout::rows(n_rows, dim, Element::F32);
    Ok(Layout { start: 4, row_step: step, stated: true, ..rows })
}

fn fbin_layout(bytes: &[u8]) -> Result<Layout, String> {
    let header = u32_at(bytes, 0).zip(u32_at(bytes, 4));
    let (n_rows, dim) = header.ok_or("the file is too short for a header")?;
    let layout = Layout { start: 8, ..Layout::rows(n_rows as usize, dim as usize, Element::F32) };
    let expected = (n_rows as usize).checked_mul(dim as usize * 4).and_then(|n| n.checked_add(8));
    if expected.is_some_and(|n| n < bytes.len()) {
        return Err(format!(
            "{n_rows} vectors of {dim} dimensions take fewer than the file's {} bytes: this is not an \
             fbin file",
            bytes.len()
        ));
    }
    Ok(layout)
}

impl Layout {
    /// Rows one behind the other.
    fn rows(n_rows: usize, dim: usize, element: Element) -> Self {
        let row_step = dim.saturating_mul(element.len());
        Self {
            n_rows,
            dim,
            element,
            start: 0,
            row_step,
            column_step: element.len(),
            metric: None,
            stated: false,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn invalid(path: &Path, reason: &str) -> Error {
    Error::input(Place::file(path.display().to_string()), reason)
}
