//! The formats, and how a file's name tells its own.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A format this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// One JSON object a line: `.jsonl`, `.ndjson`, `.json`.
    Jsonl,
    /// Comma-separated values with a header line: `.csv`.
    Csv,
    /// Tab-separated values with a header line: `.tsv`.
    Tsv,
    /// Apache Parquet: `.parquet`.
    Parquet,
    /// Running text, one document a file: `.txt`, `.text`.
    Text,
    /// Markdown, one document a file: `.md`, `.markdown`.
    Markdown,
    /// HTML, one document a file: `.html`, `.htm`.
    Html,
}

impl Format {
    /// All formats, in the order in which messages list them.
    pub const ALL: [Self; 7] =
        [Self::Jsonl, Self::Csv, Self::Tsv, Self::Parquet, Self::Text, Self::Markdown, Self::Html];

    /// The name that `--format` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Csv => "csv",
            Self::Tsv => "tsv",
            Self::Parquet => "parquet",
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::Html => "html",
        }
    }

    /// The file name endings of the format, lower-case, without the dot.
    pub fn extensions(self) -> &'static [&'static str] {
        match self {
            Self::Jsonl => &["jsonl", "ndjson", "json"],
            Self::Csv => &["csv"],
            Self::Tsv => &["tsv"],
            Self::Parquet => &["parquet"],
            Self::Text => &["txt", "text"],
            Self::Markdown => &["md", "markdown"],
            Self::Html => &["html", "htm"],
        }
    }

    /// The format that a file's name tells, upper or lower case, with or without `.gz`.
    pub fn of_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let (_, extension) = name.rsplit_once('.')?;
        Self::ALL.into_iter().find(|format| format.extensions().contains(&extension))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    /// Takes a format's name or one of its file name endings.
    fn from_str(name: &str) -> Result<Self> {
        let wanted = name.to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|f| f.name() == wanted || f.extensions().contains(&wanted.as_str()))
            .ok_or_else(|| {
                Error::usage(format!(
                    "unknown format '{}': use one of {}",
                    super::shown(name),
                    format_names()
                ))
            })
    }
}

/// The names of all formats, for messages.
pub(super) fn format_names() -> String {
    Format::ALL.map(Format::name).join(", ")
}

/// All file name endings, for messages.
pub(super) fn known_endings() -> String {
    let endings: Vec<String> =
        Format::ALL.iter().flat_map(|f| f.extensions()).map(|e| format!(".{e}")).collect();
    endings.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_of_a_path_goes_by_its_ending() {
        let cases = [
            ("a.jsonl", Some(Format::Jsonl)),
            ("a.b/c.NDJSON.gz", Some(Format::Jsonl)),
            ("x.json", Some(Format::Jsonl)),
            ("x.csv", Some(Format::Csv)),
            ("x.tsv.gz", Some(Format::Tsv)),
            ("x.parquet", Some(Format::Parquet)),
            ("x.text", Some(Format::Text)),
            ("x.txt", Some(Format::Text)),
            ("README.md", Some(Format::Markdown)),
            ("x.markdown", Some(Format::Markdown)),
            ("x.htm", Some(Format::Html)),
            ("x.html", Some(Format::Html)),
            ("x.gz", None),
            ("csv", None),
            ("x.jsonl.zst", None),
        ];
        for (path, expected) in cases {
            assert_eq!(Format::of_path(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn format_names_parse_back() {
        for format in Format::ALL {
            assert_eq!(format.name().parse::<Format>().expect("a format"), format);
        }
        assert_eq!("NDJSON".parse::<Format>().expect("a format"), Format::Jsonl);
        let error = "docx".parse::<Format>().expect_err("not a format").to_string();
        assert!(error.contains("'docx'") && error.contains("jsonl, csv, tsv"), "{error}");
    }
}
