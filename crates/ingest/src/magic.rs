//! Formats that the first bytes of a file tell, for errors about files with another name.

use crate::format::FileFormat;

/// A format with a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileKind {
    /// The name with its article: `a PDF file`.
    pub(crate) name: &'static str,
    /// The format that reads it, or the remedy.
    pub(crate) reader: Result<FileFormat, &'static str>,
}

/// The first bytes of an OLE compound file: old Office formats, and encrypted new ones.
pub(crate) const OLE_MAGIC: [u8; 8] = [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1];

/// Kinds of zip archives, by the beginning of the name of an entry, or a part of the text of the
/// entry `mimetype`.
const ZIP_KINDS: [(&str, FileKind); 7] = [
    ("word/document", readable("a Word file (docx)", FileFormat::Docx)),
    ("ppt/presentation", readable("a PowerPoint file (pptx)", FileFormat::Pptx)),
    ("xl/workbook", readable("an Excel file (xlsx)", FileFormat::Xlsx)),
    ("opendocument.text", readable("an OpenDocument text (odt)", FileFormat::Odt)),
    ("opendocument.spreadsheet", readable("a spreadsheet (ods)", FileFormat::Xlsx)),
    ("opendocument.presentation", other("a presentation (odp)", "save it as pptx or pdf")),
    ("application/epub+zip", readable("an EPUB file", FileFormat::Epub)),
];

/// Kinds of OLE compound files, by the name of a stream.
const OLE_KINDS: [(&str, FileKind); 6] = [
    ("EncryptedPackage", ENCRYPTED),
    ("EncryptionInfo", ENCRYPTED),
    ("WordDocument", other("an old Word file (doc)", "save it as docx")),
    ("PowerPoint Document", other("an old PowerPoint file (ppt)", "save it as pptx")),
    ("Workbook", OLD_EXCEL),
    ("Book", OLD_EXCEL),
];

/// An Office file with a password.
pub(crate) const ENCRYPTED: FileKind =
    other("an encrypted Office file", "save a copy without a password");

const OLD_EXCEL: FileKind = readable("an old Excel file (xls)", FileFormat::Xlsx);

const fn readable(name: &'static str, format: FileFormat) -> FileKind {
    FileKind { name, reader: Ok(format) }
}

const fn other(name: &'static str, remedy: &'static str) -> FileKind {
    FileKind { name, reader: Err(remedy) }
}

impl FileKind {
    /// The kind of a file that begins with these bytes, if it has a signature. Of a zip archive or
    /// an OLE compound file more is told if the rest is there too.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let has_version = |magic: &[u8]| {
            let rest = bytes.strip_prefix(magic);
            rest.and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
        };
        if has_version(b"%PDF-") {
            return Some(readable("a PDF file", FileFormat::Pdf));
        }
        if has_version(b"{\\rtf") {
            return Some(other("an RTF file", "save it as docx or as text"));
        }
        if bytes.starts_with(b"%!PS") {
            return Some(other("a PostScript file", "convert it to PDF (ps2pdf, say)"));
        }
        if bytes.starts_with(&OLE_MAGIC) {
            let place = |name: &str| {
                let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
                find(bytes, &name)
            };
            // Embedded files have streams of these names too, further on.
            let found = OLE_KINDS.iter().filter_map(|(name, kind)| Some((place(name)?, kind)));
            let kind = found.min_by_key(|(place, _)| *place).map(|(_, kind)| *kind);
            let unknown = other("an old Office file", "save it as docx, pptx or xlsx");
            return Some(kind.unwrap_or(unknown));
        }
        if bytes.starts_with(b"PK\x03\x04") {
            // The names stand at the start, and in the directory at the end.
            let (head, tail) = (bytes.len().min(EDGE), bytes.len().saturating_sub(EDGE));
            let edges = [&bytes[..head], &bytes[tail..]];
            let kind =
                Self::of_zip(|name| edges.iter().any(|e| find(e, name.as_bytes()).is_some()));
            return Some(kind.unwrap_or(other("a zip archive", "unpack it first")));
        }
        None
    }

    /// The kind of a zip archive, by its names: see [`ZIP_KINDS`].
    pub(crate) fn of_zip(has: impl Fn(&str) -> bool) -> Option<Self> {
        ZIP_KINDS.iter().find(|(name, _)| has(name)).map(|(_, kind)| *kind)
    }

    /// The kind of a file that was taken for an Office file, a web page included.
    pub(crate) fn of_any(bytes: &[u8]) -> Option<Self> {
        let head = bytes[..bytes.len().min(64)].trim_ascii_start().to_ascii_lowercase();
        let is_html = head.starts_with(b"<!doctype html") || head.starts_with(b"<html");
        let html = is_html.then_some(readable("an HTML file", FileFormat::Html));
        Self::of(bytes).or(html)
    }

    /// The error for such a file where another was expected: `is_named` if it can be renamed.
    pub(crate) fn error(&self, expected: &str, is_named: bool) -> String {
        let remedy = match self.reader {
            Ok(format) if is_named => {
                format!("rename it, or name its format with --format {format}")
            }
            Ok(format) => format!("name its format with --format {format}"),
            Err(remedy) => remedy.to_owned(),
        };
        format!("this is {}, not {expected}: {remedy}", self.name)
    }
}

/// Bytes at both ends of a zip archive in which names of entries are looked for.
const EDGE: usize = 64 << 10;

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_is_told_by_the_first_bytes() {
        let utf16 = |name: &str| name.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        let ole = |name: &str| [&OLE_MAGIC[..], &[0; 500], &utf16(name)].concat();
        let zip = |name: &str| [b"PK\x03\x04", &[0; 26][..], name.as_bytes()].concat();
        for (bytes, name) in [
            (b"%PDF-1.7\n".to_vec(), "a PDF file"),
            (b"{\\rtf1\\ansi".to_vec(), "an RTF file"),
            (b"%!PS-Adobe-3.0".to_vec(), "a PostScript file"),
            (ole("WordDocument"), "an old Word file (doc)"),
            (ole("Workbook"), "an old Excel file (xls)"),
            (ole("EncryptionInfo"), "an encrypted Office file"),
            (ole("x"), "an old Office file"),
            (zip("word/document.xml"), "a Word file (docx)"),
            (zip("mimetypeapplication/vnd.oasis.opendocument.text"), "an OpenDocument text (odt)"),
            (zip("a.txt"), "a zip archive"),
        ] {
            assert_eq!(FileKind::of(&bytes).map(|kind| kind.name), Some(name));
        }
        for text in ["", "%PDF-", "%PDF-files", "% %PDF-1.4", "{\\rtfm", "PK", "%!TEX"] {
            assert_eq!(FileKind::of(text.as_bytes()), None, "{text}");
        }
        assert_eq!(FileKind::of_any(b"\n<HTML>").map(|kind| kind.name), Some("an HTML file"));
    }
}
