//! Every byte of the vector files: a 4,096-byte header, then half-precision rows.
//!
//! | bytes | content |
//! | --- | --- |
//! | 0..8 | magic `WARPSEEK` |
//! | 8..12 | format version, u32 |
//! | 12..16 | element type, u32: 1 = IEEE half |
//! | 16..20 | dim, u32 |
//! | 20..24 | stride in elements, u32 |
//! | 24..32 | generation, u64 |
//! | 32..4088 | zero |
//! | 4088..4096 | XXH3-64 of bytes 0..4088 |
//!
//! All numbers are little-endian. The number of rows stands in the database, not here: the database
//! is the commit point.

use super::matrix::stride_of;
use crate::error::{Error, Result};
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// The version of the index format this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The header's length; rows start behind it, page-aligned.
pub const HEADER_LEN: usize = 4096;

/// Bytes of one stored value.
pub const VALUE_LEN: usize = 2;

const MAGIC: &[u8; 8] = b"WARPSEEK";
const DTYPE_F16: u32 = 1;
const CHECKSUM_AT: usize = HEADER_LEN - 8;

/// What a vector file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The number of meaningful values in a row.
    pub dim: u32,
    /// The generation the file belongs to, raised by every `compact`.
    pub generation: u64,
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; HEADER_LEN];
        let stride = stride_of(self.dim as usize) as u32;
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&DTYPE_F16.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.dim.to_le_bytes());
        bytes[20..24].copy_from_slice(&stride.to_le_bytes());
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
        let fail = |reason: String| Err(Error::corrupt(path, reason));
        let Some(bytes) = bytes.get(..HEADER_LEN) else {
            return fail(format!(
                "the file is cut off: {} bytes, and the header alone takes {HEADER_LEN}; {REBUILD}",
                bytes.len()
            ));
        };
        if &bytes[..8] != MAGIC {
            return fail(format!(
                "this is not a warpseek vector file (no magic number); {REBUILD}"
            ));
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return fail(newer_version(version));
        }
        let checksum = bytes[CHECKSUM_AT..].iter().rev().fold(0u64, |v, &b| v << 8 | u64::from(b));
        if xxh3_64(&bytes[..CHECKSUM_AT]) != checksum {
            return fail(format!("the header is damaged (its checksum does not match); {REBUILD}"));
        }
        let dtype = u32_at(bytes, 12);
        if dtype != DTYPE_F16 {
            return fail(format!("element type {dtype} is not known; {REBUILD}"));
        }
        let header = Self {
            dim: u32_at(bytes, 16),
            generation: u64::from(u32_at(bytes, 24)) | u64::from(u32_at(bytes, 28)) << 32,
        };
        if header != *expected || u32_at(bytes, 20) as usize != stride_of(header.dim as usize) {
            return fail(format!(
                "the file holds generation {} with {} dimensions, the index expects generation {} \
                 with {}: it belongs to another index; {REBUILD}",
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

/// The name of the vector file of a generation.
pub fn vectors_file(generation: u64) -> String {
    format!("vectors-{generation}.f16")
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

    proptest! {
        #[test]
        fn header_round_trips(dim in 1u32..5000, generation: u64) {
            let header = Header { dim, generation };
            check(&header.encode(), &header).unwrap();
            let other = Header { generation: generation ^ 1, ..header };
            prop_assert!(check(&header.encode(), &other).is_err());
        }

        #[test]
        fn header_with_any_flipped_bit_is_refused(bit in 0usize..HEADER_LEN * 8) {
            let header = Header { dim: 384, generation: 3 };
            let mut bytes = header.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = check(&bytes, &header).unwrap_err();
            prop_assert_eq!(error.exit_code(), 5);
            prop_assert!(error.to_string().starts_with("vectors-0.f16: "));
        }

        #[test]
        fn header_cut_off_is_refused(len in 0usize..HEADER_LEN) {
            let header = Header { dim: 384, generation: 3 };
            let error = check(&header.encode()[..len], &header).unwrap_err();
            prop_assert!(error.to_string().contains("cut off"));
        }
    }

    #[test]
    fn header_of_a_newer_version_names_the_cure() {
        let header = Header { dim: 384, generation: 0 };
        let mut bytes = header.encode();
        bytes[8] = 9;
        let message = check(&bytes, &header).unwrap_err().to_string();
        assert!(message.contains("version 9") && message.contains("update warpseek"), "{message}");
    }
}
