//! Making, opening, extending and reading the vector files of a generation.

use super::documents::State;
use super::format::{HEADER_LEN, Header, VectorFile};
use super::matrix::stride_of;
use super::prefilter::{Prefilter, RowScale};
use crate::error::{Error, Result};
use half::f16;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// The vector files of one generation.
#[derive(Debug)]
pub(super) struct VectorFiles {
    /// The rows in half precision.
    pub(super) half: File,
    /// The prefilter's integers and scales; none in an index of version 1, and none where one of
    /// these files cannot be used: all that is lost then is speed.
    pub(super) prefilter: Option<[File; 2]>,
    dir: PathBuf,
    dim: usize,
    generation: u64,
}

impl VectorFiles {
    /// Makes the files of a generation: their headers alone, synced. Files of the same names, left by
    /// an interruption, are taken out of the folder first, never cut: somebody may map them.
    pub(super) fn create(dir: &Path, dim: usize, generation: u64) -> Result<Self> {
        let make = |file| create_file(dir, Header { file, dim: dim as u32, generation });
        Ok(Self {
            half: make(VectorFile::Half)?,
            prefilter: Some([make(VectorFile::Prefilter)?, make(VectorFile::Scales)?]),
            dir: dir.to_path_buf(),
            dim,
            generation,
        })
    }

    /// Opens the files of the committed generation and checks headers and lengths.
    pub(super) fn open(dir: &Path, dim: usize, state: State, write: bool) -> Result<Self> {
        let open = |file| {
            let header = Header { file, dim: dim as u32, generation: state.generation };
            open_file(dir, header, state.n_rows, write)
        };
        let prefilter = || Ok([open(VectorFile::Prefilter)?, open(VectorFile::Scales)?]);
        let prefilter = match state.has_prefilter.then(prefilter) {
            None => None,
            Some(Ok(files)) => Some(files),
            Some(Err(e @ (Error::Corrupt { .. } | Error::Io { .. }))) => {
                tracing::warn!("{e}. Searches are slower without this file, and find the same");
                None
            }
            Some(Err(e)) => return Err(e),
        };
        Ok(Self {
            half: open(VectorFile::Half)?,
            prefilter,
            dir: dir.to_path_buf(),
            dim,
            generation: state.generation,
        })
    }

    /// Writes rows, `[n, stride_of(dim)]`, from row `first` on.
    pub(super) fn write(&self, first: u64, rows: &[f16]) -> Result<()> {
        let place = |file: VectorFile| {
            let at = HEADER_LEN as u64 + first * file.row_len(self.dim) as u64;
            (at, self.dir.join(file.name(self.generation)))
        };
        let write = |mut file: &File, (at, path): (u64, PathBuf), bytes: &[u8]| {
            file.seek(SeekFrom::Start(at))
                .and_then(|_| file.write_all(bytes))
                .map_err(Error::io("write", path))
        };
        write(&self.half, place(VectorFile::Half), as_bytes(rows))?;
        if let Some([values, scales]) = &self.prefilter {
            let prefilter = Prefilter::of(rows, self.dim);
            write(values, place(VectorFile::Prefilter), as_bytes(&prefilter.values))?;
            write(scales, place(VectorFile::Scales), as_bytes(&prefilter.scales))?;
        }
        Ok(())
    }

    /// Waits until everything written is on the disk.
    pub(super) fn sync(&self) -> Result<()> {
        let sync = |file: &File, kind: VectorFile| {
            let path = self.dir.join(kind.name(self.generation));
            file.sync_data().map_err(Error::io("write", path))
        };
        sync(&self.half, VectorFile::Half)?;
        if let Some([values, scales]) = &self.prefilter {
            sync(values, VectorFile::Prefilter)?;
            sync(scales, VectorFile::Scales)?;
        }
        Ok(())
    }

    /// Reads `n` rows from row `first` on into `rows`, `[n, stride_of(dim)]`.
    pub(super) fn read_half(
        &self,
        first: u64,
        n: usize,
        rows: &mut Vec<f16>,
    ) -> std::io::Result<()> {
        rows.resize(n * stride_of(self.dim), f16::ZERO);
        let at = first * VectorFile::Half.row_len(self.dim) as u64;
        read_at(&self.half, at, as_bytes_mut(rows))
    }

    /// Whether the prefilter of `rows`, which stand from row `first` on, is what the files hold.
    pub(super) fn prefilter_matches(&self, first: u64, rows: &[f16]) -> std::io::Result<bool> {
        let Some([values, scales]) = &self.prefilter else { return Ok(true) };
        let expected = Prefilter::of(rows, self.dim);
        let same = |file: &File, kind: VectorFile, expected: &[u8]| -> std::io::Result<bool> {
            let mut bytes = vec![0; expected.len()];
            read_at(file, first * kind.row_len(self.dim) as u64, &mut bytes)?;
            Ok(bytes == expected)
        };
        Ok(same(values, VectorFile::Prefilter, as_bytes(&expected.values))?
            && same(scales, VectorFile::Scales, as_bytes(&expected.scales))?)
    }
}

fn create_file(dir: &Path, header: Header) -> Result<File> {
    let path = dir.join(header.file.name(header.generation));
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &path)(e));
        }
        _ => {}
    }
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(Error::io("create", &path))?;
    file.write_all(&header.encode())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", &path))?;
    crate::output::sync_folder_of(&path);
    Ok(file)
}

fn open_file(dir: &Path, expected: Header, n_rows: u64, write: bool) -> Result<File> {
    let path = dir.join(expected.file.name(expected.generation));
    let cure = expected.file.cure();
    let mut file = match File::options().read(true).write(write).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::corrupt(&path, format!("the file is missing; {cure}")));
        }
        Err(e) => return Err(Error::io("open", &path)(e)),
    };
    let mut header = Vec::with_capacity(HEADER_LEN);
    (&mut file)
        .take(HEADER_LEN as u64)
        .read_to_end(&mut header)
        .map_err(Error::io("read", &path))?;
    Header::check(&header, &expected, &path)?;
    let row_len = expected.file.row_len(expected.dim as usize) as u64;
    let len = file.metadata().map_err(Error::io("read", &path))?.len();
    let have = len.saturating_sub(HEADER_LEN as u64) / row_len;
    if have < n_rows {
        return Err(Error::corrupt(
            &path,
            format!(
                "the file is cut off: it holds {have} rows, the index committed {n_rows}; {cure}"
            ),
        ));
    }
    Ok(file)
}

/// Fills `bytes` from `at` behind the header.
fn read_at(mut file: &File, at: u64, bytes: &mut [u8]) -> std::io::Result<()> {
    file.seek(SeekFrom::Start(HEADER_LEN as u64 + at))?;
    file.read_exact(bytes)
}

/// What the vector files hold: values without padding of which any bytes make a valid one.
pub(super) trait Stored: Copy {}
impl Stored for f16 {}
impl Stored for i8 {}
impl Stored for RowScale {}

/// The bytes of values as they stand in a file.
pub(super) fn as_bytes<T: Stored>(values: &[T]) -> &[u8] {
    // SAFETY: a stored type has no padding, any byte may be read as u8, and the length in bytes is
    // that of the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The values that stand in the bytes of a file; none where these are no whole number, or not aligned.
pub(super) fn as_values<T: Stored>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: any bytes are a valid value of a stored type; `align_to` leaves unaligned ends out.
    let (head, values, tail) = unsafe { bytes.align_to::<T>() };
    (head.is_empty() && tail.is_empty()).then_some(values)
}

fn as_bytes_mut(values: &mut [f16]) -> &mut [u8] {
    // SAFETY: as in `as_bytes`; any two bytes are a valid `f16`, and the slice is borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
