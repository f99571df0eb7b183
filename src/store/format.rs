//! Every byte of the vector files: a 4,096-byte header, then rows. A generation has three files: the
//! rows in half precision, the same in 8 bits (see [`super::prefilter`]), and the scales of those.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0..8 | magic `WARPSEEK` |
//! | 8..12 | format version, u32 |
//! | 12..16 | element type, u32: 1 = IEEE half, 2 = int8, 3 = scale (float32), residual (float32), sum (int32) |
//! | 16..20 | dim, u32 |
//! | 20..24 | stride in elements, u32 |
//! | 24..32 | generation, u64 |
//! | 32..4088 | zero |
//! | 4088..4096 | XXH3-64 of bytes 0..4088 |
//!
//! All numbers are little-endian. The number of rows stands in the database, not here: the database
//! is the commit point.
//!
//! Version 1 had the half-precision rows alone. Such an index is read and written as it is, and
//! `compact` brings it to version 2. The version that counts is the database's; `manifest.json` keeps the
//! one that the index was made in.

use super::matrix::stride_of;
use super::prefilter::{RowScale, prefilter_stride};
use crate::error::{Error, Result};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// The newest version of the index format, which new indexes have.
pub const FORMAT_VERSION: u32 = 2;

/// The first version that has a prefilter.
pub(super) const PREFILTER_VERSION: u32 = 2;

/// The header's length; rows start behind it, page-aligned.
pub const HEADER_LEN: usize = 4096;

const MAGIC: &[u8; 8] = b"WARPSEEK";
const CHECKSUM_AT: usize = HEADER_LEN - 8;

/// Which vector file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorFile {
    /// The rows in half precision.
    Half,
    /// The prefilter's integers.
    Prefilter,
    /// The prefilter's scales.
    Scales,
}

impl VectorFile {
    /// All files of a generation.
    pub const ALL: [Self; 3] = [Self::Half, Self::Prefilter, Self::Scales];

    /// The file's name in a generation.
    pub fn name(self, generation: u64) -> String {
        format!("vectors-{generation}.{}", self.extension())
    }

    /// Whether a file of this name is a vector file of any generation.
    pub fn is_name(name: &str) -> bool {
        name.starts_with("vectors-")
            && Self::ALL
                .iter()
                .any(|f| name.strip_suffix(f.extension()).is_some_and(|stem| stem.ends_with('.')))
    }

    /// The bytes of a row.
    pub fn row_len(self, dim: usize) -> usize {
        match self {
            Self::Half => stride_of(dim) * size_of::<half::f16>(),
            Self::Prefilter => prefilter_stride(dim),
            Self::Scales => size_of::<RowScale>(),
        }
    }

    /// What to do about a damaged file.
    pub(super) fn cure(self) -> &'static str {
        match self {
            Self::Half => REBUILD,
            Self::Prefilter | Self::Scales => "`warpseek compact` makes it anew",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Half => "f16",
            Self::Prefilter => "i8",
            Self::Scales => "scale",
        }
    }

    fn element_type(self) -> u32 {
        match self {
            Self::Half => 1,
            Self::Prefilter => 2,
            Self::Scales => 3,
        }
    }

    fn stride(self, dim: u32) -> u32 {
        match self {
            Self::Half => stride_of(dim as usize) as u32,
            Self::Prefilter => prefilter_stride(dim as usize) as u32,
            Self::Scales => 1,
        }
    }
}

/// What a vector file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which file it is.
    pub file: VectorFile,
    /// The number of meaningful values in a row.
    pub dim: u32,
    /// The generation the file belongs to, raised by every `compact`.
    pub generation: u64,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.file.element_type().to_le_bytes());
        bytes[16..20].copy_from_slice(&self.dim.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.file.stride(self.dim).to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        let checksum = xxh3_64(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header and checks it against what the index says of itself.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] naming `path`: too short, another kind of file, a newer version, a wrong
    /// checksum, or values that do not fit `expected`.
    pub fn check(bytes: &[u8], expected: &Self, path: &Path) -> Result<()> {
        let cure = expected.file.cure();
        let fail = |reason: String| Err(Error::corrupt(path, reason));
        let Some(bytes) = bytes.get(..HEADER_LEN) else {
            return fail(format!(
                "the file is cut off: {} bytes, and the header alone takes {HEADER_LEN}; {cure}",
                bytes.len()
            ));
        };
        if &bytes[..8] != MAGIC {
            return fail(format!("this is not a warpseek vector file (no magic number); {cure}"));
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return fail(newer_version(version));
        }
        let checksum = bytes[CHECKSUM_AT..].iter().rev().fold(0u64, |v, &b| v << 8 | u64::from(b));
        if xxh3_64(&bytes[..CHECKSUM_AT]) != checksum {
            return fail(format!("the header is damaged (its checksum does not match); {cure}"));
        }
        let element_type = u32_at(bytes, 12);
        if element_type != expected.file.element_type() {
            return fail(format!("element type {element_type} does not belong here; {cure}"));
        }
        let header = Self {
            file: expected.file,
            dim: u32_at(bytes, 16),
            generation: u64::from(u32_at(bytes, 24)) | u64::from(u32_at(bytes, 28)) << 32,
        };
        if header != *expected || u32_at(bytes, 20) != header.file.stride(header.dim) {
            return fail(format!(
                "the file holds generation {} with {} dimensions, the index expects generation {} \
                 with {}: it belongs to another index; {cure}",
                header.generation, header.dim, expected.generation, expected.dim
            ));
        }
        Ok(())
    }
}

/// The cure that most damage has.
pub(crate) const REBUILD: &str =
    "restore it from a backup, or delete the index folder and run `warpseek index` again";

/// The message for a file that a newer version wrote.
pub(crate) fn newer_version(version: u32) -> String {
    format!(
        "written in format version {version}, and this warpseek reads up to {FORMAT_VERSION}: \
         update warpseek, or rebuild the index with this version"
    )
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |v, &b| v << 8 | u32::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: &Header) -> Result<()> {
        Header::check(bytes, expected, Path::new("vectors-0.f16"))
    }

    const HEADER: Header = Header { file: VectorFile::Half, dim: 384, generation: 3 };

    #[test]
    fn names_of_vector_files_are_known() {
        for file in VectorFile::ALL {
            assert!(VectorFile::is_name(&file.name(12)), "{file:?}");
        }
        for other in ["vectors-0.txt", "vectors-0f16", "documents.db", "vectors-0.f16.bak"] {
            assert!(!VectorFile::is_name(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn header_round_trips(dim in 1u32..5000, generation: u64, file in 0usize..3) {
            let header = Header { file: VectorFile::ALL[file], dim, generation };
            check(&header.encode(), &header).unwrap();
            let other = Header { generation: generation ^ 1, ..header };
            prop_assert!(check(&header.encode(), &other).is_err());
            let other = Header { file: VectorFile::ALL[(file + 1) % 3], ..header };
            prop_assert!(check(&header.encode(), &other).is_err());
        }

        #[test]
        fn header_with_any_flipped_bit_is_refused(bit in 0usize..HEADER_LEN * 8) {
            let mut bytes = HEADER.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = check(&bytes, &HEADER).unwrap_err();
            prop_assert_eq!(error.exit_code(), 5);
            prop_assert!(error.to_string().starts_with("vectors-0.f16: "));
        }

        #[test]
        fn header_cut_off_is_refused(len in 0usize..HEADER_LEN) {
            let error = check(&HEADER.encode()[..len], &HEADER).unwrap_err();
            prop_assert!(error.to_string().contains("cut off"));
        }
    }

    #[test]
    fn header_of_a_newer_version_names_the_cure() {
        let mut bytes = HEADER.encode();
        bytes[8] = 9;
        let message = check(&bytes, &HEADER).unwrap_err().to_string();
        assert!(message.contains("version 9") && message.contains("update warpseek"), "{message}");
    }
}
