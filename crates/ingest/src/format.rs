//! The file formats, and their names and file name endings.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use warpseek_error::{Error, Result};

use crate::code;

/// A format that this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileFormat {
    /// One JSON object per line: `.jsonl`, `.ndjson`, `.json`.
    Jsonl,
    /// Comma-separated values with a header line: `.csv`.
    Csv,
    /// Tab-separated values with a header line: `.tsv`.
    Tsv,
    /// Apache Parquet: `.parquet`.
    Parquet,
    /// Running text, one document per file: `.txt`, `.text`.
    Text,
    /// Markdown, one document per file: `.md`, `.markdown`.
    Markdown,
    /// HTML, one document per file: `.html`, `.htm`.
    Html,
    /// reStructuredText, one document per file: `.rst`.
    Rst,
    /// Org mode, one document per file: `.org`.
    Org,
    /// TeX and LaTeX, one document per file: `.tex`.
    Tex,
    /// Source code, one document per file: `.py`, `.rs`, `.ts` and others.
    Code,
    /// A Jupyter notebook, one document per file: `.ipynb`.
    Notebook,
    /// An e-mail message, one document per file: `.eml`.
    Email,
    /// PDF, one document per page.
    Pdf,
    /// Word, one document per section: `.docx`, `.docm`.
    Docx,
    /// PowerPoint, one document per slide: `.pptx`, `.pptm`, `.ppsx`.
    Pptx,
    /// Excel and other spreadsheets, one document per block of rows: `.xlsx`, `.xlsm`, `.xlsb`,
    /// `.xls`, `.ods`.
    Xlsx,
    /// OpenDocument text, one document per section.
    Odt,
    /// EPUB, one document per chapter.
    Epub,
}

impl FileFormat {
    /// All formats, in the order in which messages list them.
    pub const ALL: [Self; 19] = [
        Self::Jsonl,
        Self::Csv,
        Self::Tsv,
        Self::Parquet,
        Self::Text,
        Self::Markdown,
        Self::Html,
        Self::Rst,
        Self::Org,
        Self::Tex,
        Self::Code,
        Self::Notebook,
        Self::Email,
        Self::Pdf,
        Self::Docx,
        Self::Pptx,
        Self::Xlsx,
        Self::Odt,
        Self::Epub,
    ];

    /// The name for `--format`, which is also the first of the endings.
    pub fn name(self) -> &'static str {
        self.extensions()[0]
    }

    /// The file name endings of the format, lower-case, without the dot.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Jsonl => &["jsonl", "ndjson", "json"],
            Self::Csv => &["csv"],
            Self::Tsv => &["tsv"],
            Self::Parquet => &["parquet"],
            Self::Text => &["text", "txt"],
            Self::Markdown => &["markdown", "md"],
            Self::Html => &["html", "htm"],
            Self::Rst => &["rst"],
            Self::Org => &["org"],
            Self::Tex => &["tex"],
            Self::Code => code::EXTENSIONS,
            Self::Notebook => &["ipynb"],
            Self::Email => &["eml"],
            Self::Pdf => &["pdf"],
            Self::Docx => &["docx", "docm"],
            Self::Pptx => &["pptx", "pptm", "ppsx"],
            Self::Xlsx => &["xlsx", "xlsm", "xlsb", "xls", "ods"],
            Self::Odt => &["odt"],
            Self::Epub => &["epub"],
        }
    }

    /// True if a file may hold many records with ids of their own.
    pub fn has_records(self) -> bool {
        matches!(self, Self::Jsonl | Self::Csv | Self::Tsv | Self::Parquet)
    }

    /// True if a file has a document per page, slide, sheet or section.
    pub fn has_parts(self) -> bool {
        use FileFormat::{Docx, Epub, Odt, Pdf, Pptx, Xlsx};
        matches!(self, Pdf | Docx | Pptx | Xlsx | Odt | Epub)
    }

    /// The format by a file's name, in upper or lower case, with or without `.gz`.
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        name.rsplit_once('.')?.1.parse().ok()
    }
}

impl fmt::Display for FileFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FileFormat {
    type Err = Error;

    /// Accepts a format's name or one of its file name endings.
    fn from_str(name: &str) -> Result<Self> {
        let wanted = name.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(|f| f.extensions().contains(&wanted.as_str()));
        found.ok_or_else(|| {
            let name = crate::message::shown(name);
            Error::usage(format!("unknown format '{name}': use one of {}", format_names()))
        })
    }
}

/// The names of all formats, for messages.
pub(crate) fn format_names() -> String {
    FileFormat::ALL.map(FileFormat::name).join(", ")
}

/// The file name endings for messages; of source code the first alone.
pub(crate) fn known_endings() -> String {
    let of_format = |format: &FileFormat| match format {
        FileFormat::Code => &code::EXTENSIONS[1..5],
        other => other.extensions(),
    };
    let endings = FileFormat::ALL.iter().flat_map(of_format).map(|e| format!(".{e}"));
    endings.collect::<Vec<_>>().join(" ")
}
