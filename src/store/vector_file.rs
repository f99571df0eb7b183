//! Making and opening vector files.

use super::documents::State;
use super::format::{HEADER_LEN, Header, REBUILD, VALUE_LEN, vectors_file};
use super::manifest::IndexManifest;
use super::matrix::stride_of;
use crate::error::{Error, Result};
use half::f16;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// Makes the vector file of a generation: its header alone, synced.
pub(super) fn create_vectors(dir: &Path, dim: usize, generation: u64) -> Result<File> {
    let path = dir.join(vectors_file(generation));
    let header = Header { dim: dim as u32, generation };
    let mut file = File::create(&path).map_err(Error::io("create", &path))?;
    file.write_all(&header.encode())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", &path))?;
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
    Header::decode(&header, &expected, &path)?;
    let row_len = (stride_of(manifest.dim) * VALUE_LEN) as u64;
    let have = file.metadata().map_err(Error::io("read", &path))?.len() - HEADER_LEN as u64;
    if have / row_len < state.n_rows {
        return Err(Error::corrupt(
            &path,
            format!(
                "the file is cut off: it holds {} rows, the index committed {}; {REBUILD}",
                have / row_len,
                state.n_rows
            ),
        ));
    }
    Ok(file)
}

/// The bytes of half-precision values as they stand in the file.
pub(super) fn as_bytes(values: &[f16]) -> &[u8] {
    // SAFETY: `f16` is a transparent u16 without padding, any byte may be read as u8, and the length
    // in bytes is that of the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
