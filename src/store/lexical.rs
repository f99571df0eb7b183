//! The lexical index: BM25 over the words of titles and texts, by SQLite's FTS5.

use super::database::Database;
use crate::error::Result;
use rusqlite::Connection;
use std::collections::HashSet;
use std::ops::Range;
use warpseek_topk::RowMask;

/// The largest number of distinct query words that are looked up, in the order of the query. The
/// embedder's token limit is similar.
const MAX_WORDS: usize = 256;

/// A row and its BM25 score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LexicalHit {
    /// The row's number.
    pub row: u32,
    /// BM25 with FTS5's constants (k1 = 1.2, b = 0.75); higher is better.
    pub score: f64,
}

/// The first `k` rows of `mask` by BM25, best first, ties by row. A hit has at least one of the
/// query's words.
pub(super) fn search(
    database: &Database,
    query: &str,
    k: usize,
    mask: &RowMask,
) -> Result<Vec<LexicalHit>> {
    let Some(expression) = match_expression(query) else { return Ok(Vec::new()) };
    let mut hits: Vec<LexicalHit> = Vec::new();
    let keep_best = |hits: &mut Vec<LexicalHit>| {
        hits.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
        hits.truncate(k);
    };
    let sql = "SELECT rowid, bm25(lexical) FROM lexical WHERE lexical MATCH ?1";
    database.for_each(sql, [expression], |r| {
        let row: u32 = r.get(0)?;
        if mask.contains(row as usize) {
            // FTS5 gives better matches lower values.
            hits.push(LexicalHit { row, score: -r.get::<_, f64>(1)? });
            // Bounds the memory for a query that matches very many rows.
            if hits.len() >= k.saturating_mul(2).max(1024) {
                keep_best(&mut hits);
            }
        }
        Ok(())
    })?;
    keep_best(&mut hits);
    Ok(hits)
}

/// Adds the words of a row's chunk, `text[range]`, and its title. A chunk that starts with the
/// title does not count the title's words twice.
pub(super) fn add_words(
    conn: &Connection,
    row: u64,
    title: &str,
    text: &str,
    range: Range<usize>,
) -> rusqlite::Result<()> {
    let body = text.get(range).unwrap_or_default();
    let title = if body.starts_with(title) { "" } else { title };
    conn.prepare_cached("INSERT INTO lexical (rowid, title, body) VALUES (?1, ?2, ?3)")?
        .execute((row, title, body))
        .map(drop)
}

/// Adds the words of all live rows.
pub(super) fn add_all_words(conn: &Connection) -> rusqlite::Result<()> {
    // Two statements instead of a join: the text of a document is read once, not for each chunk.
    let mut documents =
        conn.prepare("SELECT seq, title, text FROM document WHERE dead = 0 ORDER BY seq")?;
    let mut chunks = conn
        .prepare("SELECT row, start_byte, end_byte FROM chunk WHERE document = ?1 ORDER BY row")?;
    let mut documents = documents.query([])?;
    while let Some(document) = documents.next()? {
        let (title, text) = (document.get_ref(1)?.as_str()?, document.get_ref(2)?.as_str()?);
        let mut chunks = chunks.query([document.get::<_, i64>(0)?])?;
        while let Some(chunk) = chunks.next()? {
            add_words(conn, chunk.get(0)?, title, text, chunk.get(1)?..chunk.get(2)?)?;
        }
    }
    Ok(())
}

/// FTS5 expression of a query: its words alone, each quoted, joined by OR.
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

#[cfg(test)]
mod tests {
    use super::match_expression;

    #[test]
    fn expression_holds_only_quoted_words() {
        let hostile = "drop\" OR title:x NEAR(a b) -- * ^ {é} AND";
        let expression = match_expression(hostile).unwrap();
        let words = ["drop", "or", "title", "x", "near", "a", "b", "é", "and"];
        assert_eq!(expression, words.map(|word| format!("\"{word}\"")).join(" OR "));
        assert_eq!(match_expression(" ... !?"), None);
    }
}
