//! The lexical index: BM25 over the words of titles and texts, by SQLite's FTS5.
//!
//! Without a language FTS5 makes the words. With one, `language` makes the terms, and FTS5 splits
//! them at blanks. The table holds no text of its own.

use super::database::{Database, SCHEMA};
use super::language::{Language, QueryTerm};
use crate::error::Result;
use rusqlite::Connection;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use warpseek_topk::RowMask;

/// The largest number of distinct query words that are looked up, in the order of the query. The
/// embedder's token limit is similar.
const MAX_WORDS: usize = 256;

/// FTS5's tokenizer without a language, as in `schema.sql`.
const WORDS_TOKENIZER: &str = "porter unicode61 remove_diacritics 2";

/// FTS5's tokenizer of terms: it splits at blanks, and keeps letters, digits and marks as they are.
const TERMS_TOKENIZER: &str = "ascii";

/// FTS5's tokenizer of an index of a language.
pub(super) fn tokenizer(language: Language) -> &'static str {
    if language.is_none() { WORDS_TOKENIZER } else { TERMS_TOKENIZER }
}

/// The tables of the database of an index of a language.
pub(super) fn schema(language: Language) -> String {
    SCHEMA.replace(WORDS_TOKENIZER, tokenizer(language))
}

/// A row and its BM25 score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LexicalHit {
    /// The row's number.
    pub row: u32,
    /// BM25 with FTS5's constants (k1 = 1.2, b = 0.75); higher is better.
    pub score: f64,
}

/// The outcome of a lexical search.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LexicalHits {
    /// The first rows by BM25, best first, ties by row. Each has at least one of the query's words.
    pub hits: Vec<LexicalHit>,
    /// Those of the rows that were asked for which have one of the words, with their BM25.
    pub asked: Vec<LexicalHit>,
    /// Distinct terms of the query that were looked up.
    pub n_terms: usize,
}

impl LexicalHits {
    /// BM25 of all rows that it is known of.
    pub(crate) fn by_row(&self) -> HashMap<u32, f64> {
        self.hits.iter().chain(&self.asked).map(|hit| (hit.row, hit.score)).collect()
    }
}

/// The first `k` rows of `mask` by BM25, and BM25 of the rows `asked`.
pub(super) fn search(
    database: &Database,
    language: Language,
    query: &str,
    k: usize,
    mask: &RowMask,
    asked: &[u32],
) -> Result<LexicalHits> {
    let Some((expression, n_terms)) = match_expression(language, query) else {
        return Ok(LexicalHits::default());
    };
    let wanted: HashSet<u32> = asked.iter().copied().collect();
    let mut asked = Vec::new();
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
            let hit = LexicalHit { row, score: -r.get::<_, f64>(1)? };
            if wanted.contains(&row) {
                asked.push(hit);
            }
            hits.push(hit);
            // Bounds the memory for a query that matches very many rows.
            if hits.len() >= k.saturating_mul(2).max(1024) {
                keep_best(&mut hits);
            }
        }
        Ok(())
    })?;
    keep_best(&mut hits);
    Ok(LexicalHits { hits, asked, n_terms })
}

/// Adds the terms of a row's chunk, `text[range]`, and its title. A chunk that starts with the
/// title does not count the title's words twice.
pub(super) fn add_words(
    conn: &Connection,
    language: Language,
    row: u64,
    title: &str,
    text: &str,
    range: Range<usize>,
) -> rusqlite::Result<()> {
    let body = text.get(range).unwrap_or_default();
    let title = if body.starts_with(title) { "" } else { title };
    let (title, body) = (language.document_terms(title), language.document_terms(body));
    conn.prepare_cached("INSERT INTO lexical (rowid, title, body) VALUES (?1, ?2, ?3)")?
        .execute((row, &*title, &*body))
        .map(drop)
}

/// Adds the terms of all live rows.
pub(super) fn add_all_words(conn: &Connection, language: Language) -> rusqlite::Result<()> {
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
            let range = chunk.get(1)?..chunk.get(2)?;
            add_words(conn, language, chunk.get(0)?, title, text, range)?;
        }
    }
    Ok(())
}

/// FTS5 expression of a query, its terms alone, each quoted, joined by OR; and their number.
fn match_expression(language: Language, query: &str) -> Option<(String, usize)> {
    let mut seen = HashSet::new();
    let quoted: Vec<String> = language
        .query_terms(query)
        .into_iter()
        .filter(|term| seen.insert(term.clone()))
        .take(MAX_WORDS)
        .map(|QueryTerm { text, is_prefix }| {
            format!("\"{text}\"{}", if is_prefix { " *" } else { "" })
        })
        .collect();
    (!quoted.is_empty()).then(|| (quoted.join(" OR "), quoted.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expression_holds_only_quoted_words() {
        let hostile = "drop\" OR title:x NEAR(a b) -- * ^ {é} AND";
        let (expression, n_terms) = match_expression(Language::NONE, hostile).unwrap();
        assert_eq!(n_terms, 9);
        let words = ["drop", "or", "title", "x", "near", "a", "b", "é", "and"];
        assert_eq!(expression, words.map(|word| format!("\"{word}\"")).join(" OR "));
        assert_eq!(match_expression(Language::NONE, " ... !?"), None);
        let (expression, _) =
            match_expression("zh".parse().unwrap(), "\"BERT\" 水 模型 水*").unwrap();
        assert_eq!(expression, "\"bert\" OR \"水\" * OR \"模型\"");
    }

    #[test]
    fn tables_of_a_language_differ_in_the_tokenizer_alone() {
        assert_eq!(schema(Language::NONE), SCHEMA);
        let german = schema("de".parse().unwrap());
        assert!(german.contains("tokenize = 'ascii'"), "{german}");
        assert_eq!(german.lines().count(), SCHEMA.lines().count());
    }
}
