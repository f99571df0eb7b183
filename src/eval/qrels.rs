//! Qrels: relevance judgments, by query and document.

use super::table::{MAX_LINE, TableLayout, VALUE, read_rows};
use crate::error::{Error, Result};
use indexmap::IndexMap;
use std::io::Read;
use std::path::Path;
use warpseek_ingest::lines::Lines;

/// Relevance levels of the judged documents of a query, in the order in which they first appeared.
pub type DocumentLevels = IndexMap<String, i32>;

/// Relevance judgments.
///
/// Queries, and the documents of a query, are iterated in the order in which they first appeared.
/// A level above 0 is a degree of relevance, 0 is judged and not relevant, and a negative level
/// counts as 0 in every measure.
#[derive(Debug, Clone, Default)]
pub struct Qrels(IndexMap<String, DocumentLevels>);

/// BEIR's layout, and TREC's.
static LAYOUTS: [TableLayout; 2] = [
    TableLayout {
        by_tab: true,
        columns: &["query-id", "corpus-id", "score"],
        fields: [0, 1, 2],
        headers: &["score", "relevance", "rel", "label", "level"],
        needs_header: false,
    },
    TableLayout {
        by_tab: false,
        columns: &["query", "iteration", "document", "level"],
        fields: [0, 2, 3],
        headers: &[],
        needs_header: false,
    },
];

impl Qrels {
    /// Qrels without a judgment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a qrels file, plain or gzip.
    ///
    /// The first line decides the format. Three tab-separated columns are BEIR's (`query-id`,
    /// `corpus-id`, `score`; the header line is optional; ids may hold blanks). Four columns
    /// between any white space are TREC's (query, an iteration that is ignored, document, level).
    /// Blank lines are skipped; lines end in LF or CR LF.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read. [`Error::Input`] with file and line for neither
    /// of the formats, a wrong number of columns, an empty id, a level that is not a 32-bit
    /// integer (`2.0` is one), a document judged twice with different levels, a line over 64 KiB,
    /// invalid UTF-8, a damaged gzip stream, or a file without a judgment.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_lines(Lines::open(path.as_ref(), MAX_LINE)?)
    }

    /// Reads qrels as [`Qrels::read`] does, from any reader; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// As [`Qrels::read`].
    pub fn from_reader(reader: impl Read, file: &str) -> Result<Self> {
        Self::from_lines(Lines::new(reader, file, MAX_LINE)?)
    }

    /// Adds one judgment. Adding the same judgment again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the document is already judged for this query, at another level.
    pub fn insert(&mut self, query: &str, document: &str, level: i32) -> Result<()> {
        self.add(query, document, level).map_err(Error::usage)
    }

    /// The judgments of one query.
    pub fn get(&self, query: &str) -> Option<&DocumentLevels> {
        self.0.get(query)
    }

    /// All judged queries with their judgments, by first appearance.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &DocumentLevels)> {
        self.0.iter().map(|(query, levels)| (query.as_str(), levels))
    }

    /// The number of judged queries.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is no judgment at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn from_lines(lines: Lines<'_>) -> Result<Self> {
        let mut qrels = Self::new();
        read_rows(lines, &LAYOUTS, "relevance judgment", |row| {
            let level = level(row.value).ok_or_else(|| {
                (VALUE, format!("invalid relevance level '{}': write an integer", row.value))
            })?;
            qrels.add(row.query, row.document, level).map_err(|reason| (None, reason))
        })?;
        Ok(qrels)
    }

    fn add(&mut self, query: &str, document: &str, level: i32) -> Result<(), String> {
        if !self.0.contains_key(query) {
            self.0.insert(query.to_owned(), DocumentLevels::new());
        }
        let levels = &mut self.0[query];
        let before = *levels.entry(document.to_owned()).or_insert(level);
        if before == level {
            return Ok(());
        }
        Err(format!(
            "document '{document}' of query '{query}' has level {level} here and level {before} \
             before: keep one of them"
        ))
    }
}

/// An integer, also as a decimal number with nothing but zeros behind the point: `1.0`, as tools
/// write that keep the column as floats.
fn level(value: &str) -> Option<i32> {
    let integer = match value.split_once('.') {
        Some((integer, zeros)) if !zeros.is_empty() && zeros.bytes().all(|b| b == b'0') => integer,
        Some(_) => return None,
        None => value,
    };
    integer.parse().ok()
}
