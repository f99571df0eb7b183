//! The format version, and the names and bytes of the vector files.
//!
//! A vector file is a 4,096-byte header followed by rows. A generation `G` has four of them: the
//! rows in half precision (`vectors-G.f16`), the same rows quantized to 8 bits (`vectors-G.i8`),
//! the scales of those (`vectors-G.scale`), and checksums of each row (`vectors-G.sum`).
//!
//! | bytes | content |
//! | --- | --- |
//! | 0..8 | magic `WARPSEEK` |
//! | 8..12 | format version, u32 |
//! | 12..16 | element type, u32: 1 = IEEE half, 2 = int8, 3 = scale record, 4 = checksums |
//! | 16..20 | dim, u32 |
//! | 20..24 | stride in elements, u32 |
//! | 24..32 | generation, u64 |
//! | 32..4088 | zero |
//! | 4088..4096 | XXH3-64 of bytes 0..4088 |
//!
//! A scale record is scale (float32), residual (float32), sum (int32); checksums are two u32. All
//! numbers are little-endian. The database holds the number of rows, because the database is the
//! commit point.
//!
//! Version 1 had the half-precision rows alone, and the first indexes of version 2 no checksums of
//! rows. Such an index is read and written as it is, and `compact` adds what it lacks. The
//! database's version counts; `manifest.json` keeps the version that the index was created in.
//!
//! Version 3 is that of a database whose pages have checksums: a program that does not know them
//! would write pages without. It is also that of a manifest whose index ranks by the inner product
//! of vectors of any length, or has a language: programs that would scale such vectors, or take
//! words as they are, refuse it.

use crate::error::{Error, Result};
use half::f16;
use std::path::Path;
use warpseek_topk::checksums::RowChecksum;
use warpseek_topk::layout::{Stored, sq8_stride};
use warpseek_topk::sq8::RowScale;
use warpseek_topk::stride_of;
use xxhash_rust::xxh3::xxh3_64;

/// The newest version of vector files, and that of the manifest of new indexes that rank by the
/// cosine and have no language.
pub(super) const FORMAT_VERSION: u32 = 2;

/// The first version with an int8 copy.
pub(super) const INT8_VERSION: u32 = 2;

/// The newest version of the database, whose pages have checksums.
pub(super) const DATABASE_VERSION: u32 = 3;

/// The version of the manifest of an index that ranks by the inner product or has a language. Its
/// other files are those of version 2, but programs that know neither must refuse the index.
pub(super) const MANIFEST_VERSION: u32 = 3;

/// Remedy for most damage.
pub(super) const REBUILD: &str =
    "restore it from a backup, or delete the index folder and run `warpseek index` again";

/// Message about a file that was written by a newer version; `newest` is the newest known one.
pub(super) fn newer_version(version: u32, newest: u32) -> String {
    format!(
        "written in format version {version}, and this warpseek reads up to {newest}: update \
         warpseek, or rebuild the index with this version"
    )
}

/// Kind of a vector file. The discriminant is the element type in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum VectorFileKind {
    /// Rows in half precision.
    F16 = 1,
    /// Integers of the int8 copy.
    Int8 = 2,
    /// Scales of the int8 copy.
    Scales = 3,
    /// Checksums of the rows and of their int8 copy.
    Checksums = 4,
}

impl VectorFileKind {
    /// All kinds; a generation has one file of each.
    pub(super) const ALL: [Self; 4] = [Self::F16, Self::Int8, Self::Scales, Self::Checksums];

    /// File name in a generation.
    pub(super) fn name(self, generation: u64) -> String {
        format!("vectors-{generation}.{}", self.extension())
    }

    /// True if this is the name of a vector file of any generation.
    pub(super) fn is_name(name: &str) -> bool {
        name.strip_prefix("vectors-")
            .and_then(|rest| rest.rsplit_once('.'))
            .is_some_and(|(_, extension)| Self::ALL.iter().any(|k| k.extension() == extension))
    }

    /// Bytes per row.
    pub(super) fn row_len(self, dim: usize) -> usize {
        let (stride, element_size) = self.stride_and_size(dim);
        stride * element_size
    }

    /// Remedy for a damaged file.
    pub(super) fn remedy(self) -> &'static str {
        match self {
            Self::F16 => REBUILD,
            Self::Int8 | Self::Scales | Self::Checksums => "`warpseek compact` makes it anew",
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "i8",
            Self::Scales => "scale",
            Self::Checksums => "sum",
        }
    }

    /// Elements per row, padding included, and bytes per element.
    fn stride_and_size(self, dim: usize) -> (usize, usize) {
        match self {
            Self::F16 => (stride_of(dim), size_of::<f16>()),
            Self::Int8 => (sq8_stride(dim), size_of::<i8>()),
            Self::Scales => (1, size_of::<RowScale>()),
            Self::Checksums => (1, size_of::<RowChecksum>()),
        }
    }
}

/// Length of the header in bytes. Rows start behind it, page-aligned.
pub(super) const HEADER_LEN: usize = 4096;

const MAGIC: &[u8; 8] = b"WARPSEEK";
const CHECKSUM_AT: usize = HEADER_LEN - 8;

/// Header of a vector file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: VectorFileKind,
    pub(super) dim: u32,
    /// Generation of the file, raised by every `compact`.
    pub(super) generation: u64,
}

impl Header {
    /// The bytes of the header, `HEADER_LEN` of them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; HEADER_LEN];
        let stride = self.kind.stride_and_size(self.dim as usize).0 as u32;
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.dim.to_le_bytes());
        bytes[20..24].copy_from_slice(&stride.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.generation.to_le_bytes());
        let checksum = xxh3_64(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Compares the header in `bytes` with the expected one.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] naming `path`: too short, another kind of file, a newer version, a wrong
    /// checksum, or values that differ from `self`.
    pub(super) fn check(&self, bytes: &[u8], path: &Path) -> Result<()> {
        let remedy = self.kind.remedy();
        let fail = |reason: String| Err(Error::corrupt(path, reason));
        let Some(bytes) = bytes.get(..HEADER_LEN) else {
            return fail(format!(
                "the file is cut off: {} bytes, and the header alone takes {HEADER_LEN}; {remedy}",
                bytes.len()
            ));
        };
        if &bytes[..8] != MAGIC {
            return fail(format!("this is not a warpseek vector file (no magic number); {remedy}"));
        }
        let version = number(&bytes[8..12]) as u32;
        if version > FORMAT_VERSION {
            return fail(newer_version(version, FORMAT_VERSION));
        }
        if xxh3_64(&bytes[..CHECKSUM_AT]) != number(&bytes[CHECKSUM_AT..]) {
            return fail(format!("the header is damaged (its checksum does not match); {remedy}"));
        }
        let element_type = number(&bytes[12..16]);
        if element_type != self.kind as u64 {
            return fail(format!("unexpected element type {element_type}; {remedy}"));
        }
        let (dim, stride) = (number(&bytes[16..20]), number(&bytes[20..24]));
        let generation = number(&bytes[24..32]);
        if dim != u64::from(self.dim)
            || generation != self.generation
            || stride != self.kind.stride_and_size(self.dim as usize).0 as u64
        {
            return fail(format!(
                "the file holds generation {generation} with {dim} dimensions, the index expects \
                 generation {} with {}: it belongs to another index; {remedy}",
                self.generation, self.dim
            ));
        }
        Ok(())
    }
}

/// Little-endian number of at most eight bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// The bytes of values, to be overwritten.
pub(super) fn as_bytes_mut<T: Stored>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: a `Stored` type has no padding, and any bytes are a valid value of it. The slice is
    // borrowed exclusively.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// The values in the bytes of a file; `None` if they are not aligned or not a whole number.
pub(super) fn as_values<T: Stored>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: any bytes are a valid value of a `Stored` type, and `align_to` splits off unaligned
    // ends.
    let (head, values, tail) = unsafe { bytes.align_to::<T>() };
    (head.is_empty() && tail.is_empty()).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(bytes: &[u8], expected: &Header) -> Result<()> {
        expected.check(bytes, Path::new("vectors-0.f16"))
    }

    const HEADER: Header = Header { kind: VectorFileKind::F16, dim: 384, generation: 3 };

    #[test]
    fn names_of_vector_files_are_known() {
        for kind in VectorFileKind::ALL {
            assert!(VectorFileKind::is_name(&kind.name(12)), "{kind:?}");
        }
        for other in ["vectors-0.txt", "vectors-0f16", "documents.db", "vectors-0.f16.bak"] {
            assert!(!VectorFileKind::is_name(other), "{other}");
        }
    }

    proptest! {
        #[test]
        fn header_round_trips(dim in 1u32..5000, generation: u64, kind in 0usize..4) {
            let header = Header { kind: VectorFileKind::ALL[kind], dim, generation };
            check(&header.encode(), &header).unwrap();
            let other = Header { generation: generation ^ 1, ..header };
            prop_assert!(check(&header.encode(), &other).is_err());
            let other = Header { kind: VectorFileKind::ALL[(kind + 1) % 4], ..header };
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
    fn header_of_a_newer_version_names_the_remedy() {
        let mut bytes = HEADER.encode();
        bytes[8] = 9;
        let message = check(&bytes, &HEADER).unwrap_err().to_string();
        assert!(message.contains("version 9") && message.contains("update warpseek"), "{message}");
    }
}
