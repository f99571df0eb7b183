//! Making, opening and reading vector files.

use super::documents::State;
use super::format::{HEADER_LEN, Header, REBUILD, VALUE_LEN, vectors_file};
use super::manifest::IndexManifest;
use super::matrix::stride_of;
use crate::error::{Error, Result};
use half::f16;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Makes the vector file of a generation: its header alone, synced. A file of the same name, left by
/// an interruption, is taken out of the folder first, never cut: somebody may map it.
pub(super) fn create_vectors(dir: &Path, dim: usize, generation: u64) -> Result<File> {
    let path = dir.join(vectors_file(generation));
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("remove", &path)(e));
        }
        _ => {}
    }
    let header = Header { dim: dim as u32, generation };
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

/// Opens the vector file of the committed generation and checks header and length.
pub(super) fn open_vectors(
    dir: &Path,
    manifest: &IndexManifest,
    state: State,
    write: bool,
) -> Result<File> {
    let path = dir.join(vectors_file(state.generation));
    let mut file = match File::options().read(true).write(write).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::corrupt(&path, format!("the file is missing; {REBUILD}")));
        }
        Err(e) => return Err(Error::io("open", &path)(e)),
    };
    let mut header = Vec::with_capacity(HEADER_LEN);
    (&mut file)
        .take(HEADER_LEN as u64)
        .read_to_end(&mut header)
        .map_err(Error::io("read", &path))?;
    let expected = Header { dim: manifest.dim as u32, generation: state.generation };
    Header::check(&header, &expected, &path)?;
    let row_len = (stride_of(manifest.dim) * VALUE_LEN) as u64;
    let len = file.metadata().map_err(Error::io("read", &path))?.len();
    let have = len.saturating_sub(HEADER_LEN as u64) / row_len;
    if have < state.n_rows {
        return Err(Error::corrupt(
            &path,
            format!(
                "the file is cut off: it holds {have} rows, the index committed {}; {REBUILD}",
                state.n_rows
            ),
        ));
    }
    Ok(file)
}

/// Reads `n` rows of `stride` values from row `first` on into `rows`.
pub(super) fn read_rows(
    file: &mut File,
    first: u64,
    n: usize,
    stride: usize,
    rows: &mut Vec<f16>,
) -> std::io::Result<()> {
    rows.resize(n * stride, f16::ZERO);
    file.seek(SeekFrom::Start(HEADER_LEN as u64 + first * (stride * VALUE_LEN) as u64))?;
    file.read_exact(as_bytes_mut(rows))
}

/// The bytes of half-precision values as they stand in the file.
pub(super) fn as_bytes(values: &[f16]) -> &[u8] {
    // SAFETY: `f16` is a transparent u16 without padding, any byte may be read as u8, and the length
    // in bytes is that of the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn as_bytes_mut(values: &mut [f16]) -> &mut [u8] {
    // SAFETY: as in `as_bytes`; any two bytes are a valid `f16`, and the slice is borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
