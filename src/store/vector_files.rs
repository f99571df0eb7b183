//! The vector files of a generation: creating, opening, extending, reading and mapping them.

use super::commit_record::{CommitRecord, RowHasher};
use super::database::CommitState;
use super::folder::{file_number, read_error, remove_if_present};
use super::format::{HEADER_LEN, Header, VectorFileKind, as_bytes_mut};
use crate::error::{Error, Result};
use half::f16;
use memmap2::Mmap;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use warpseek_topk::Sq8Matrix;
use warpseek_topk::checksums::RowChecksum;
use warpseek_topk::layout::as_bytes;
use warpseek_topk::stride_of;

/// Rows that are read or written at a time.
pub(super) const BLOCK_ROWS: usize = 8_192;

/// The open vector files of a generation.
#[derive(Debug)]
pub(super) struct VectorFiles {
    /// Rows in half precision.
    pub(super) f16: RowFile,
    /// Integers and scales of the int8 copy. `None` in an index of version 1, and if one of the
    /// files is unusable: searches are slower then and find the same.
    pub(super) int8: Option<[RowFile; 2]>,
    /// Checksums of the rows. `None` in indexes of earlier versions, and if the file is unusable.
    pub(super) checksums: Option<RowFile>,
    dim: usize,
}

/// Damage of the files that are made from the rows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct DerivedDamage {
    /// The int8 copy differs.
    pub(super) int8: bool,
    /// The checksums differ.
    pub(super) checksums: bool,
}

impl VectorFiles {
    /// Creates the files of a generation, without rows, and syncs them.
    pub(super) fn create(dir: &Path, dim: usize, generation: u64) -> Result<Self> {
        let create = |kind| RowFile::create(dir, Header { kind, dim: dim as u32, generation });
        Ok(Self {
            f16: create(VectorFileKind::F16)?,
            int8: Some([create(VectorFileKind::Int8)?, create(VectorFileKind::Scales)?]),
            checksums: Some(create(VectorFileKind::Checksums)?),
            dim,
        })
    }

    /// Opens the files of the committed generation and checks their headers and lengths.
    pub(super) fn open(dir: &Path, dim: usize, state: CommitState, write: bool) -> Result<Self> {
        let open = |kind| {
            let header = Header { kind, dim: dim as u32, generation: state.generation };
            RowFile::open(dir, header, state.n_rows, write)
        };
        let open_int8 = || Ok([open(VectorFileKind::Int8)?, open(VectorFileKind::Scales)?]);
        let f16 = open(VectorFileKind::F16)?;
        let int8 = match state.has_int8.then(open_int8).transpose() {
            Ok(files) => files,
            Err(e @ (Error::Corrupt { .. } | Error::Io { .. })) => {
                tracing::warn!("{e}. Searches are slower without this file, and find the same");
                None
            }
            Err(e) => return Err(e),
        };
        let checksums = match open(VectorFileKind::Checksums) {
            Ok(file) => Some(file),
            Err(e @ (Error::Corrupt { .. } | Error::Io { .. })) => {
                warn_once(&e);
                None
            }
            Err(e) => return Err(e),
        };
        Ok(Self { f16, int8, checksums, dim })
    }

    /// Device and inode number of each file; zeros where the system has none, and there a file that
    /// is mapped cannot be replaced.
    pub(super) fn identity(&self) -> Result<Vec<(u64, u64)>> {
        let int8 = self.int8.iter().flatten();
        std::iter::once(&self.f16)
            .chain(int8)
            .chain(&self.checksums)
            .map(RowFile::identity)
            .collect()
    }

    /// Writes rows, `[n, stride_of(dim)]`, from row `first` on.
    pub(super) fn write(&self, first: u64, rows: &[f16]) -> Result<()> {
        self.f16.write(first, as_bytes(rows))?;
        let quantized = self.int8.is_some().then(|| Sq8Matrix::of(rows, self.dim));
        if let (Some([integers, scales]), Some(quantized)) = (&self.int8, &quantized) {
            integers.write(first, as_bytes(&quantized.values))?;
            scales.write(first, as_bytes(&quantized.scales))?;
        }
        if let Some(file) = &self.checksums {
            file.write(first, as_bytes(&self.checksums_of(rows, quantized.as_ref())))?;
        }
        Ok(())
    }

    /// Waits until everything written is on the disk.
    pub(super) fn sync(&self) -> Result<()> {
        self.f16.sync()?;
        self.int8.iter().flatten().chain(&self.checksums).try_for_each(RowFile::sync)
    }

    fn checksums_of(&self, rows: &[f16], quantized: Option<&Sq8Matrix>) -> Vec<RowChecksum> {
        let sq8 = quantized.and_then(|quantized| quantized.view(self.dim));
        RowChecksum::of_rows(rows, stride_of(self.dim), sq8.as_ref())
    }

    /// Reads the rows of a commit record block by block. Calls `visit` with the first row and the
    /// values of each block, `[n, stride_of(dim)]`. Returns the hash of all of them.
    pub(super) fn read_rows(
        &self,
        record: &CommitRecord,
        mut visit: impl FnMut(u64, &[f16]) -> Result<()>,
    ) -> Result<RowHasher> {
        let stride = stride_of(self.dim);
        let mut hasher = RowHasher::default();
        let mut rows: Vec<f16> = Vec::new();
        for first in (record.first_row..record.end()).step_by(BLOCK_ROWS) {
            let n = BLOCK_ROWS.min((record.end() - first) as usize);
            rows.resize(n * stride, f16::ZERO);
            self.f16.read(first, as_bytes_mut(&mut rows))?;
            hasher.add(&rows, stride);
            visit(first, &rows)?;
        }
        Ok(hasher)
    }

    /// Makes the int8 copy and the checksums of `rows`, from row `first` on, again, and compares
    /// them with the files. A missing file is not damaged.
    pub(super) fn derived_damage(&self, first: u64, rows: &[f16]) -> Result<DerivedDamage> {
        let mut damage = DerivedDamage::default();
        let quantized = self.int8.is_some().then(|| Sq8Matrix::of(rows, self.dim));
        if let (Some([integers, scales]), Some(expected)) = (&self.int8, &quantized) {
            damage.int8 = !integers.holds(first, as_bytes(&expected.values))?
                || !scales.holds(first, as_bytes(&expected.scales))?;
        }
        if let Some(file) = &self.checksums {
            let expected = self.checksums_of(rows, quantized.as_ref());
            let mut stored = vec![RowChecksum::default(); expected.len()];
            file.read(first, as_bytes_mut(&mut stored))?;
            // Without the int8 copy its checksums mean nothing.
            let same = |(a, b): (&RowChecksum, &RowChecksum)| {
                a.f16 == b.f16 && (quantized.is_none() || a.int8 == b.int8)
            };
            damage.checksums = !stored.iter().zip(&expected).all(same);
        }
        Ok(damage)
    }

    /// Removes the files of all other generations: older ones, and remains of an interrupted
    /// compaction. If the system refuses because a reader maps a file, a later writer tries again.
    pub(super) fn remove_other_generations(dir: &Path, generation: u64) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        let keep = VectorFileKind::ALL.map(|kind| kind.name(generation));
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if VectorFileKind::is_name(&name) && !keep.contains(&name) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// Tells that checksums are missing; once per file, since a server opens an index again and again.
fn warn_once(error: &Error) {
    static TOLD: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if error.path().is_none_or(|path| told.insert(path.to_path_buf())) {
        tracing::warn!("{error}. Until then damaged vectors go unnoticed, but by `verify`");
    }
}

/// An open vector file.
#[derive(Debug)]
pub(super) struct RowFile {
    file: File,
    pub(super) path: PathBuf,
    /// Bytes per row.
    row_len: usize,
}

impl RowFile {
    /// Creates the file with its header alone and syncs it. A file of this name, left by an
    /// interruption, is unlinked and never truncated: a reader may still map it.
    fn create(dir: &Path, header: Header) -> Result<Self> {
        let path = dir.join(header.kind.name(header.generation));
        remove_if_present(&path)?;
        let mut file = File::create_new(&path).map_err(Error::io("create", &path))?;
        file.write_all(&header.encode())
            .and_then(|()| file.sync_all())
            .map_err(Error::io("write", &path))?;
        crate::output::sync_folder_of(&path);
        Ok(Self { file, path, row_len: header.kind.row_len(header.dim as usize) })
    }

    fn open(dir: &Path, expected: Header, n_rows: u64, write: bool) -> Result<Self> {
        let path = dir.join(expected.kind.name(expected.generation));
        let remedy = expected.kind.remedy();
        let mut file = File::options().read(true).write(write).open(&path).map_err(|e| {
            if e.kind() == ErrorKind::NotFound {
                Error::corrupt(&path, format!("the file is missing; {remedy}"))
            } else if write {
                Error::io("open", &path)(e)
            } else {
                read_error(&path, e)
            }
        })?;
        let mut header = Vec::with_capacity(HEADER_LEN);
        (&mut file)
            .take(HEADER_LEN as u64)
            .read_to_end(&mut header)
            .map_err(Error::io("read", &path))?;
        expected.check(&header, &path)?;
        let row_len = expected.kind.row_len(expected.dim as usize);
        let len = file.metadata().map_err(Error::io("read", &path))?.len();
        let held = len.saturating_sub(HEADER_LEN as u64) / row_len as u64;
        if held < n_rows {
            let reason = format!(
                "the file is cut off: it holds {held} rows, the index committed {n_rows}; {remedy}"
            );
            return Err(Error::corrupt(path, reason));
        }
        Ok(Self { file, path, row_len })
    }

    /// Maps the header and the first `n_rows` rows, which must be committed.
    pub(super) fn map(&self, n_rows: u64) -> Result<Mmap> {
        let len = HEADER_LEN + n_rows as usize * self.row_len;
        // SAFETY: the file has at least `len` bytes, as `RowFile::open` checked. warpseek never
        // shrinks a vector file and never rewrites committed rows.
        unsafe { memmap2::MmapOptions::new().len(len).map(&self.file) }
            .map_err(Error::io("map", &self.path))
    }

    fn identity(&self) -> Result<(u64, u64)> {
        let found = self.file.metadata().map_err(Error::io("read", &self.path))?;
        Ok(file_number(&found))
    }

    /// The file at the start of a row.
    fn at(&self, row: u64) -> std::io::Result<&File> {
        let at = HEADER_LEN as u64 + row * self.row_len as u64;
        (&self.file).seek(SeekFrom::Start(at)).map(|_| &self.file)
    }

    fn write(&self, first: u64, bytes: &[u8]) -> Result<()> {
        let result = self.at(first).and_then(|mut file| file.write_all(bytes));
        result.map_err(Error::io("write", &self.path))
    }

    fn read(&self, first: u64, bytes: &mut [u8]) -> Result<()> {
        let result = self.at(first).and_then(|mut file| file.read_exact(bytes));
        result.map_err(Error::io("read", &self.path))
    }

    /// True if the file holds these bytes from row `first` on.
    fn holds(&self, first: u64, expected: &[u8]) -> Result<bool> {
        let mut bytes = vec![0; expected.len()];
        self.read(first, &mut bytes)?;
        Ok(bytes == expected)
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.path))
    }
}
