//! Writer of TREC run files in which every reader sees the intended order.

use crate::error::{Error, Place, Result};
use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

/// Writes a TREC run, one query at a time.
///
/// trec_eval ignores the rank column, sorts by score (older releases and pytrec_eval keep it as a
/// 32-bit float) and breaks ties by document id descending. To keep the order, each score is
/// rounded to a 32-bit float. A score that would not be smaller than the one before is replaced by
/// the next smaller float. The digits written parse to exactly that float, directly or through a
/// 64-bit float.
#[derive(Debug)]
pub struct RunWriter<W> {
    writer: W,
    path: PathBuf,
    tag: String,
    block: String,
}

impl<W: Write> RunWriter<W> {
    /// Writes to `writer`. `path` is its name in messages, `tag` the system's name in the last
    /// column. The lines of a query are written at once, so `writer` needs no buffer.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tag is empty or has white space or control characters.
    pub fn new(writer: W, path: impl Into<PathBuf>, tag: &str) -> Result<Self> {
        if let Some(problem) = unwritable(tag) {
            return Err(Error::usage(format!("run tag '{}' {problem}", tag.escape_debug())));
        }
        Ok(Self { writer, path: path.into(), tag: tag.to_owned(), block: String::new() })
    }

    /// Writes the ranked documents of one query, best first. Of a document that occurs twice only
    /// the first rank is written; trec_eval refuses a run with both. The caller must write each
    /// query only once.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if an id is empty or has white space or control characters, or a score is
    /// not finite as a 32-bit float; nothing of the query is written then. [`Error::Io`] if
    /// writing fails.
    pub fn write_query<D: AsRef<str>>(&mut self, query: &str, ranking: &[(D, f64)]) -> Result<()> {
        self.check_id("query", query, query)?;
        self.block.clear();
        let mut seen = HashSet::with_capacity(ranking.len());
        let mut last = f32::INFINITY;
        for (document, score) in ranking {
            let document = document.as_ref();
            self.check_id("document", document, query)?;
            if !seen.insert(document) {
                continue;
            }
            let Some(written) = below(last, *score) else {
                let reason = format!(
                    "the score {score} of document '{document}' is not a finite 32-bit float"
                );
                return Err(self.error(query, reason));
            };
            last = written;
            let (rank, digits, tag) = (seen.len(), digits(written), &self.tag);
            // Writing to a string cannot fail.
            let _ = writeln!(self.block, "{query} Q0 {document} {rank} {digits} {tag}");
        }
        self.writer.write_all(self.block.as_bytes()).map_err(Error::io("write", &self.path))
    }

    /// Flushes and gives the writer back.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if flushing fails.
    pub fn finish(mut self) -> Result<W> {
        self.writer.flush().map_err(Error::io("write", &self.path))?;
        Ok(self.writer)
    }

    fn check_id(&self, kind: &str, id: &str, query: &str) -> Result<()> {
        let Some(problem) = unwritable(id) else { return Ok(()) };
        let reason = format!(
            "{kind} id '{}' {problem}, which a TREC run cannot hold: change the id or choose \
             another output format",
            id.escape_debug()
        );
        Err(self.error(query, reason))
    }

    fn error(&self, query: &str, reason: String) -> Error {
        let record = format!("query '{}'", query.escape_debug());
        Error::input(Place::record(self.path.display().to_string(), record), reason)
    }
}

/// The float to write after `last`: the score itself, or the next float below `last`. `None` if it
/// is not finite.
fn below(last: f32, score: f64) -> Option<f32> {
    let rounded = score as f32;
    if !rounded.is_finite() {
        return None;
    }
    let written = if rounded < last { rounded } else { last.next_down() };
    written.is_finite().then_some(written)
}

/// Digits that parse to exactly `score`, as a 32-bit float and as a 64-bit float that is then
/// rounded. The shortest digits suffice for every float but 7.038531e-26 of either sign: double
/// rounding moves it to its neighbour, so all digits of its 64-bit value are written.
fn digits(score: f32) -> String {
    let short = format!("{score:?}");
    match short.parse::<f64>() {
        Ok(parsed) if parsed as f32 == score => short,
        _ => format!("{:?}", f64::from(score)),
    }
}

/// The reason why a TREC file cannot hold this id or tag, if there is one.
fn unwritable(id: &str) -> Option<&'static str> {
    if id.is_empty() {
        Some("is empty")
    } else if id.chars().any(|c| c.is_whitespace() || c.is_control()) {
        Some("has white space or a control character")
    } else {
        None
    }
}
