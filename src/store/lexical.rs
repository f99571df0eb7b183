//! Lexical retrieval: BM25 over the words of titles and texts, by SQLite's FTS5.

use super::matrix::RowMask;
use super::reader::Index;
use crate::error::Result;
use std::collections::{BinaryHeap, HashSet};

/// The most distinct words of a query that are looked up, in the order of the query; the embedder
/// takes no more tokens either.
const MAX_WORDS: usize = 256;

/// A row and its BM25 score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LexicalHit {
    /// The row's number.
    pub row: u32,
    /// BM25 with FTS5's constants (k1 = 1.2, b = 0.75); higher is better.
    pub score: f64,
}

impl Index {
    /// The first `k` rows by BM25 among those that `mask` holds, best first, ties by row. A row needs
    /// at least one of the query's words; a query without words finds nothing.
    ///
    /// # Errors
    ///
    /// [`crate::error::Error::Database`] or [`crate::error::Error::Corrupt`].
    pub fn lexical(
        &self,
        query: &str,
        k: usize,
        mask: Option<&RowMask>,
    ) -> Result<Vec<LexicalHit>> {
        let Some(expression) = match_expression(query) else { return Ok(Vec::new()) };
        let documents = self.documents();
        // The worst hit on top, so that it can make room.
        let mut best: BinaryHeap<Worst> = BinaryHeap::new();
        let mut run = || -> rusqlite::Result<()> {
            let mut statement = documents.conn.prepare_cached(
                "SELECT rowid, bm25(lexical) FROM lexical WHERE lexical MATCH ?1",
            )?;
            let mut rows = statement.query([&expression])?;
            while let Some(row) = rows.next()? {
                let number = row.get::<_, i64>(0)? as usize;
                if mask.unwrap_or(self.live()).contains(number) {
                    // FTS5 gives better matches lower values.
                    best.push(Worst(LexicalHit {
                        row: number as u32,
                        score: -row.get::<_, f64>(1)?,
                    }));
                    if best.len() > k {
                        best.pop();
                    }
                }
            }
            Ok(())
        };
        run().map_err(documents.failure())?;
        Ok(best.into_sorted_vec().into_iter().map(|w| w.0).collect())
    }
}

/// An FTS5 expression from the words of a query alone: each quoted, joined by OR.
fn match_expression(query: &str) -> Option<String> {
    let mut seen = HashSet::new();
    let quoted: Vec<String> = query
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty())
        .map(str::to_lowercase)
        .filter(|w| seen.insert(w.clone()))
        .take(MAX_WORDS)
        .map(|w| format!("\"{w}\""))
        .collect();
    (!quoted.is_empty()).then(|| quoted.join(" OR "))
}

/// Orders hits so that the worst is the greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Worst(LexicalHit);

impl Eq for Worst {}

impl PartialOrd for Worst {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Worst {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.score.total_cmp(&self.0.score).then(self.0.row.cmp(&other.0.row))
    }
}

#[cfg(test)]
mod tests {
    use super::match_expression;

    #[test]
    fn expression_holds_only_quoted_words() {
        let hostile = "drop\" OR title:x NEAR(a b) -- * ^ {é} AND";
        let expression = match_expression(hostile).unwrap();
        assert_eq!(
            expression,
            "\"drop\" OR \"or\" OR \"title\" OR \"x\" OR \"near\" OR \"a\" OR \"b\" OR \"é\" OR \"and\""
        );
        assert_eq!(match_expression(" ... !?"), None);
    }
}
