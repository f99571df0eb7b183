//! The entries of a zip archive, within limits.

use std::io::{self, Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use super::event::ExtractError;
use super::limits::ExtractLimits;
use crate::message::{shown, size};

/// The first bytes of an OLE compound file: old Office formats, and encrypted new ones.
pub(super) const OLE_MAGIC: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];

/// Maximum number of entries.
const MAX_ENTRIES: usize = 100_000;

/// A zip archive whose entries were all decompressed once to see that they are within the limits.
pub(super) struct Archive {
    zip: ZipArchive<Cursor<Vec<u8>>>,
    limits: ExtractLimits,
}

impl Archive {
    /// Opens an archive, which is what files of `format` are. Sizes in the archive's directory are
    /// not trusted.
    pub(super) fn open(
        bytes: Vec<u8>,
        format: &str,
        limits: &ExtractLimits,
    ) -> Result<Self, ExtractError> {
        if bytes.starts_with(&OLE_MAGIC) {
            return Err(ole_error(&bytes, format));
        }
        if !bytes.starts_with(b"PK") {
            return Err(ExtractError::new(format!(
                "this is no {format} file (a zip archive): rename it, or name its format with \
                 --format"
            )));
        }
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| {
            ExtractError::new(format!(
                "the zip archive is cut off or damaged ({e}): copy or download the file again"
            ))
        })?;
        let mut archive = Self { zip, limits: limits.clone() };
        archive.check()?;
        Ok(archive)
    }

    fn check(&mut self) -> Result<(), ExtractError> {
        if self.zip.len() > MAX_ENTRIES {
            let reason =
                format!("the zip archive has more than {MAX_ENTRIES} entries: split the file");
            return Err(ExtractError::new(reason));
        }
        let mut total = 0;
        for index in 0..self.zip.len() {
            let Ok(entry) = self.zip.by_index(index) else { continue };
            let name = entry.name().map_or_else(|_| index.to_string(), |name| shown(&name));
            let limit = self.limits.entry_bytes;
            // A damaged entry is an error when it is read; some entries are never read.
            total += match io::copy(&mut entry.take(limit + 1), &mut io::sink()) {
                Ok(length) if length > limit => {
                    return Err(ExtractError::new(format!(
                        "the entry '{name}' is larger than {} when decompressed, as in a zip bomb: \
                         split the file if you trust it",
                        size(limit)
                    )));
                }
                Ok(length) => length,
                Err(_) => 0,
            };
            if total > self.limits.unpacked_bytes {
                return Err(ExtractError::new(format!(
                    "the entries are larger than {} when decompressed, as in a zip bomb: split the \
                     file if you trust it",
                    size(self.limits.unpacked_bytes)
                )));
            }
        }
        Ok(())
    }

    /// True if the archive has this entry.
    pub(super) fn has(&self, name: &str) -> bool {
        self.zip.index_for_name(name).is_some()
    }

    /// The bytes of an entry; `None` if there is none of that name.
    pub(super) fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, ExtractError> {
        let damaged = |e: &dyn std::fmt::Display| {
            let name = shown(name);
            ExtractError::new(format!(
                "the entry '{name}' of the zip archive is damaged ({e}): save the file again"
            ))
        };
        let entry = match self.zip.by_name(name) {
            Ok(entry) => entry,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(e) => return Err(damaged(&e)),
        };
        let mut bytes = Vec::new();
        let read = entry.take(self.limits.entry_bytes).read_to_end(&mut bytes);
        read.map_err(|e| damaged(&e))?;
        Ok(Some(bytes))
    }

    /// The text of an entry that must be there.
    pub(super) fn text(&mut self, name: &str) -> Result<String, ExtractError> {
        match self.read(name)? {
            Some(bytes) => Ok(decoded(&bytes)),
            None => Err(ExtractError::new(format!(
                "the zip archive has no entry '{}': the file is damaged or of another format; copy \
                 it again, or name its format with --format",
                shown(name)
            ))),
        }
    }

    /// The whole archive.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.zip.into_inner().into_inner()
    }
}

/// The error for an OLE compound file in place of a zip archive.
pub(super) fn ole_error(bytes: &[u8], format: &str) -> ExtractError {
    let is_encrypted = ["EncryptedPackage", "EncryptionInfo"].iter().any(|name| {
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        bytes.windows(name.len()).any(|window| window == name)
    });
    ExtractError::new(match is_encrypted {
        true => encrypted(format),
        false => format!("this is a file of an old binary format: save it as {format}"),
    })
}

/// The reason for a file with a password.
pub(super) fn encrypted(format: &str) -> String {
    format!("the {format} file is encrypted: save a copy without a password")
}

/// XML or HTML as text: UTF-8, or UTF-16 with a byte order mark.
pub(super) fn decoded(bytes: &[u8]) -> String {
    let utf16 = |decode: fn([u8; 2]) -> u16| {
        let (pairs, _) = bytes.get(2..).unwrap_or_default().as_chunks::<2>();
        String::from_utf16_lossy(&pairs.iter().map(|pair| decode(*pair)).collect::<Vec<_>>())
    };
    match bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}
