//! Relevance judgments: which documents answer which query, and how well.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::lines::{Lines, MAX_TABLE_LINE, space_columns, tab_columns};

/// Relevance levels by query and document.
///
/// Queries, and the documents of a query, are iterated in the order in which they first appeared.
/// A level above 0 is a degree of relevance, 0 is judged and not relevant, and a negative level
/// counts as 0 in every measure.
#[derive(Debug, Clone, Default)]
pub struct Judgments {
    queries: Vec<QueryJudgments>,
    by_query: HashMap<String, usize>,
}

/// The judged documents of one query.
#[derive(Debug, Clone)]
pub struct QueryJudgments {
    query: String,
    documents: Vec<(Arc<str>, i32)>,
    by_document: HashMap<Arc<str>, usize>,
}

/// What the third column of a BEIR table may be called; no level reads like this, so a first
/// line that ends in one of them is a header.
const LEVEL_HEADERS: [&str; 5] = ["score", "relevance", "rel", "label", "level"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// `query-id <tab> corpus-id <tab> level`.
    Beir,
    /// `query iteration document level`, any white space between.
    Trec,
}

impl Judgments {
    /// No judgments yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a judgments file, plain or gzip.
    ///
    /// The first line tells the format. Three tab-separated columns are BEIR's (`query-id`,
    /// `corpus-id`, `score`; the header line may be missing; ids may hold blanks). Four columns
    /// between any white space are TREC's (query, an iteration that is ignored, document, level).
    /// Blank lines are skipped; lines end in LF or CR LF.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read. [`Error::Input`] with file and line for neither
    /// of the formats, a wrong number of columns, an empty id, a level that is no 32-bit integer,
    /// a document judged twice with different levels, a line over 64 KiB, invalid UTF-8, a
    /// damaged gzip stream, or a file without a judgment.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_lines(Lines::open(path.as_ref(), MAX_TABLE_LINE)?)
    }

    /// Reads judgments as [`Judgments::read`] does, from any reader; `file` is its name in
    /// messages.
    ///
    /// # Errors
    ///
    /// As [`Judgments::read`].
    pub fn from_reader(reader: impl Read, file: &str) -> Result<Self> {
        Self::from_lines(Lines::new(reader, file, MAX_TABLE_LINE)?)
    }

    /// Adds one judgment. The same judgment again changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the document is judged already for this query, at another level.
    pub fn insert(&mut self, query: &str, document: &str, level: i32) -> Result<()> {
        match self.add(query, document, level) {
            None => Ok(()),
            Some(before) => Err(Error::usage(conflict(query, document, before, level))),
        }
    }

    /// The judgments of one query.
    pub fn get(&self, query: &str) -> Option<&QueryJudgments> {
        self.by_query.get(query).and_then(|&at| self.queries.get(at))
    }

    /// All judged queries, by first appearance.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &QueryJudgments> {
        self.queries.iter()
    }

    /// How many queries have judgments.
    pub fn len(&self) -> usize {
        self.queries.len()
    }

    /// Whether there is no judgment at all.
    pub fn is_empty(&self) -> bool {
        self.queries.is_empty()
    }

    fn from_lines(mut lines: Lines<'_>) -> Result<Self> {
        let mut judgments = Self::new();
        let mut known_format = None;
        while let Some(line) = lines.next()? {
            let format = match known_format {
                Some(format) => format,
                None => {
                    let Some(format) = Format::of(line) else {
                        let reason = not_judgments(line);
                        return Err(lines.error(reason));
                    };
                    known_format = Some(format);
                    if format.is_header(line) {
                        continue;
                    }
                    format
                }
            };
            // The row borrows the line, and an error needs the reader: outcome first, error then.
            let outcome = format.row(line).and_then(|(query, document, level)| {
                match judgments.add(query, document, level) {
                    None => Ok(()),
                    Some(before) => Err((None, conflict(query, document, before, level))),
                }
            });
            match outcome {
                Ok(()) => {}
                Err((Some(field), reason)) => return Err(lines.field_error(field, reason)),
                Err((None, reason)) => return Err(lines.error(reason)),
            }
        }
        if judgments.is_empty() {
            return Err(lines.file_error("the file holds no judgment"));
        }
        Ok(judgments)
    }

    /// Adds one judgment; gives the earlier level where there is one and it differs.
    fn add(&mut self, query: &str, document: &str, level: i32) -> Option<i32> {
        let at = match self.by_query.get(query) {
            Some(&at) => at,
            None => {
                self.by_query.insert(query.to_owned(), self.queries.len());
                self.queries.push(QueryJudgments::new(query));
                self.queries.len() - 1
            }
        };
        self.queries.get_mut(at).and_then(|judged| judged.add(document, level))
    }
}

impl QueryJudgments {
    /// The query's id.
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The level of a document; `None` where it was not judged.
    pub fn level(&self, document: &str) -> Option<i32> {
        let &at = self.by_document.get(document)?;
        self.documents.get(at).map(|&(_, level)| level)
    }

    /// Documents and their levels, by first appearance.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, i32)> {
        self.documents.iter().map(|(document, level)| (document.as_ref(), *level))
    }

    /// How many documents were judged for this query; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a query without a judgment is not kept")]
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    fn new(query: &str) -> Self {
        Self { query: query.to_owned(), documents: Vec::new(), by_document: HashMap::new() }
    }

    fn add(&mut self, document: &str, level: i32) -> Option<i32> {
        let document: Arc<str> = document.into();
        match self.by_document.entry(Arc::clone(&document)) {
            Entry::Vacant(slot) => {
                slot.insert(self.documents.len());
                self.documents.push((document, level));
                None
            }
            Entry::Occupied(slot) => {
                let before = self.documents.get(*slot.get()).map(|&(_, level)| level);
                before.filter(|&before| before != level)
            }
        }
    }
}

/// What is wrong with a line, and in which field, if in one.
type RowError = (Option<&'static str>, String);

impl Format {
    fn of(line: &str) -> Option<Self> {
        if tab_columns::<3>(line).is_some() {
            Some(Self::Beir)
        } else {
            space_columns::<4>(line).map(|_| Self::Trec)
        }
    }

    fn is_header(self, line: &str) -> bool {
        self == Self::Beir
            && tab_columns(line).is_some_and(|[_, _, level]| {
                LEVEL_HEADERS.iter().any(|header| level.eq_ignore_ascii_case(header))
            })
    }

    fn row(self, line: &str) -> Result<(&str, &str, i32), RowError> {
        let (row, names) = match self {
            Self::Beir => (tab_columns(line), ["query-id", "corpus-id", "score"]),
            Self::Trec => (
                space_columns(line).map(|[query, _, document, level]| [query, document, level]),
                ["query", "document", "level"],
            ),
        };
        let Some([query, document, level]) = row else {
            return Err((None, self.wrong_count(line)));
        };
        for (value, name) in [(query, names[0]), (document, names[1])] {
            if value.is_empty() {
                return Err((Some(name), "the id is empty".to_owned()));
            }
        }
        match level.parse() {
            Ok(level) => Ok((query, document, level)),
            Err(_) => {
                Err((Some(names[2]), format!("'{level}' is no relevance level: write an integer")))
            }
        }
    }

    fn wrong_count(self, line: &str) -> String {
        match self {
            Self::Beir => format!(
                "expected 3 tab-separated columns (query-id, corpus-id, score) as on the first \
                 line, found {}",
                line.split('\t').count()
            ),
            Self::Trec => format!(
                "expected 4 columns (query, iteration, document, level) as on the first line, \
                 found {}",
                line.split_ascii_whitespace().count()
            ),
        }
    }
}

fn not_judgments(line: &str) -> String {
    format!(
        "no relevance judgments: expected 3 tab-separated columns (query-id, corpus-id, score) or \
         4 columns (query, iteration, document, level), found {} by tab and {} by white space",
        line.split('\t').count(),
        line.split_ascii_whitespace().count()
    )
}

fn conflict(query: &str, document: &str, before: i32, level: i32) -> String {
    format!(
        "document '{document}' of query '{query}' has level {level} here and level {before} \
         before: keep one of them"
    )
}
