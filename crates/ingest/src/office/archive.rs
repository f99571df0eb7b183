//! The entries of a zip archive, within limits.

use std::collections::HashMap;
use std::io::{self, Cursor, Read, Write};

use zip::result::{ZipError, ZipResult};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::event::ExtractError;
use super::limits::ExtractLimits;
use crate::format::FileFormat;
use crate::magic::{ENCRYPTED, FileKind};
use crate::message::{shown, size};

/// Maximum number of entries.
const MAX_ENTRIES: usize = 100_000;

/// A zip archive whose entries were all decompressed once to see that they are within the limits.
pub(super) struct Archive {
    zip: ZipArchive<Cursor<Vec<u8>>>,
    limits: ExtractLimits,
    /// Numbers of the XML entries that are compressed too much for the crate `undoc`.
    dense: Vec<usize>,
    /// New contents of entries.
    replaced: HashMap<String, Vec<u8>>,
}

/// The crate `undoc` refuses entries that are larger than this and compressed more than
/// [`MAX_EXPANSION`] times.
const MIN_DENSE: u64 = 100 << 10;

/// See [`MIN_DENSE`].
const MAX_EXPANSION: u64 = 100;

impl Archive {
    /// Opens an archive, which is what files of `format` are. Sizes in the archive's directory are
    /// not trusted.
    pub(super) fn open(
        bytes: Vec<u8>,
        format: FileFormat,
        limits: &ExtractLimits,
    ) -> Result<Self, ExtractError> {
        if !bytes.starts_with(b"PK") {
            return Err(ExtractError::new(no_archive(&bytes, format)));
        }
        let zip = ZipArchive::new(Cursor::new(bytes)).map_err(|e| {
            ExtractError::new(format!(
                "the zip archive is cut off or damaged ({e}): copy or download the file again"
            ))
        })?;
        let (dense, replaced) = (Vec::new(), HashMap::new());
        let mut archive = Self { zip, limits: limits.clone(), dense, replaced };
        archive.check()?;
        match archive.kind()? {
            Some(kind) if kind.reader != Ok(format) => {
                Err(ExtractError::new(kind.error(format.name(), true)))
            }
            _ => Ok(archive),
        }
    }

    /// The kind of the file, by the names of its entries.
    fn kind(&mut self) -> Result<Option<FileKind>, ExtractError> {
        let kind = self.read("mimetype")?.unwrap_or_default();
        let kind = String::from_utf8_lossy(&kind);
        Ok(FileKind::of_zip(|part| {
            let names = self.zip.file_names().flatten();
            kind.contains(part) || names.into_iter().any(|name| name.starts_with(part))
        }))
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
            let compressed = entry.compressed_size();
            let is_xml = entry.name().is_ok_and(|name| {
                let name = name.to_ascii_lowercase();
                name.ends_with(".xml") || name.ends_with(".rels")
            });
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
                Ok(length) => {
                    let is_dense = length > MIN_DENSE && length / MAX_EXPANSION >= compressed;
                    if is_xml && is_dense {
                        self.dense.push(index);
                    }
                    length
                }
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

    /// Gives an entry another content, for [`Archive::into_repacked`].
    pub(super) fn replace(&mut self, name: &str, content: Vec<u8>) {
        self.replaced.insert(name.to_owned(), content);
    }

    /// The whole archive.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.zip.into_inner().into_inner()
    }

    /// The whole archive for the crate `undoc`: with the contents of [`Archive::replace`], and with
    /// XML that is compressed more than 100 times stored as it is.
    pub(super) fn into_repacked(mut self) -> Result<Vec<u8>, ExtractError> {
        if self.dense.is_empty() && self.replaced.is_empty() {
            return Ok(self.into_bytes());
        }
        self.repacked().map_err(|e| {
            ExtractError::new(format!(
                "XML that is compressed more than {MAX_EXPANSION} times cannot be unpacked ({e}): \
                 convert the file to another format (odt, pdf)"
            ))
        })
    }

    fn repacked(&mut self) -> ZipResult<Vec<u8>> {
        let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        // A reader needs many times the memory of such XML, of which a small file may hold much.
        let limit = self.limits.entry_bytes / 4;
        let mut left = limit;
        for index in 0..self.zip.len() {
            // A damaged entry is missed where it is needed.
            let Ok(entry) = self.zip.by_index_raw(index) else { continue };
            let name = entry.name().map(|name| name.into_owned()).unwrap_or_default();
            if let Some(content) = self.replaced.remove(&name) {
                writer.start_file(name, stored)?;
                writer.write_all(&content)?;
            } else if self.dense.contains(&index) {
                drop(entry);
                writer.start_file(name, stored)?;
                let entry = self.zip.by_index(index)?;
                let length = io::copy(&mut entry.take(left.saturating_add(1)), &mut writer)?;
                left = left.checked_sub(length).ok_or_else(|| {
                    let limit = size(limit);
                    io::Error::other(format!("more than {limit} of XML, as in a zip bomb"))
                })?;
            } else {
                writer.raw_copy_file(entry)?;
            }
        }
        Ok(writer.finish()?.into_inner())
    }
}

/// The reason for a file that is no zip archive, as files of `format` are.
pub(super) fn no_archive(bytes: &[u8], format: FileFormat) -> String {
    match FileKind::of_any(bytes) {
        Some(ENCRYPTED) => encrypted(format.name()),
        Some(kind) => kind.error(format.name(), true),
        None => format!(
            "this is no {format} file (a zip archive): rename it, or name its format with --format"
        ),
    }
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
