//! Metadata filters: SQL conditions over metadata, checked and turned into a row mask.
//!
//! ```text
//! "year >= 2015 AND topic = 'a'"   text of a user
//!   -> Filter::parse               syntax tree, by sqlparser with the dialect of dialect.rs
//!   -> compile.rs                  fields are looked up in the field catalogue of the index
//!   -> comparison.rs               literals are brought to the type of their field
//!   -> SqlCondition                json_extract(d.metadata, ?1) >= ?2 AND
//!                                  json_extract(d.metadata, ?3) = ?4, and the values; long numbers
//!                                  and times go through the functions of functions.rs
//!   -> Index::rows_where           one SQLite query over the documents, then a row mask
//! ```
//!
//! SQLite never sees the user's text: values and the JSON paths of fields are bound parameters, and
//! the rest of the SQL consists of constants.
//!
//! Allowed: `=`, `<>`, `!=`, `<`, `<=`, `>`, `>=`, `BETWEEN`, `IN (...)`, `LIKE`, `ILIKE`,
//! `IS [NOT] NULL`, `AND`, `OR`, `NOT`, parentheses, a boolean field alone, `DATE '...'`,
//! `TIMESTAMP '...'`, and for arrays `'x' IN field` or `field CONTAINS 'x'`. Fields are metadata
//! names (`meta.year` for nested ones) and the built-in `id`, `doc_id` and `title`. Where metadata
//! has such a name too, they are `metadata.id` and `document.id`. NULL follows SQL: a missing field
//! makes a comparison unknown, which does not pass.

mod comparison;
mod compile;
mod dialect;
pub(super) mod functions;
mod literal;
mod names;
mod pattern;

use super::fields::FieldCatalog;
use crate::error::{Error, Result};
use compile::Compiler;
use dialect::FilterDialect;
use rusqlite::types::Value as Bound;
use sqlparser::ast::Expr;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use warpseek_topk::RowMask;

/// The length limit of a filter in bytes.
const MAX_LEN: usize = 32 << 10;

/// Result with a plain reason. `Filter::compile` puts the filter in front of it.
type Compiled<T = String> = std::result::Result<T, String>;

/// A condition for `WHERE` over the table `document`, which the query names `d`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SqlCondition {
    pub(super) sql: String,
    /// Values of the parameters `?1`, `?2`, ...
    pub(super) values: Vec<Bound>,
    pub(super) notes: Vec<Note>,
}

/// A count of rows whose values a comparison leaves out, or takes for something else.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Note {
    field: String,
    /// The end of the message, behind the number of rows and their values.
    end: String,
    /// SQL over the table `document`, named `d`: a label of the value, or NULL.
    pub(super) sql: String,
    pub(super) values: Vec<Bound>,
}

impl Note {
    /// The message about `rows` rows whose values have this label.
    pub(super) fn message(&self, label: &str, rows: u64) -> String {
        let Self { field, end, .. } = self;
        let (rows, end) = match rows {
            1 => ("1 row holds".to_owned(), end.clone()),
            rows => (format!("{rows} rows hold"), end.replacen("was ", "were ", 1)),
        };
        format!("field '{field}': {rows} {label} and {end}")
    }
}

/// The rows that pass a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassingRows {
    /// The rows.
    pub mask: RowMask,
    /// Messages about rows whose values the filter did not compare, or took as UTC.
    pub warnings: Vec<String>,
    /// The rows of the notes from which the messages are made.
    pub notes: FilterNotes,
}

/// Rows of the notes of a filter: the note's place in the filter, the label of the values and the
/// number of rows.
pub type FilterNotes = Vec<(usize, String, u64)>;

/// A parsed metadata filter, not yet checked against an index's fields.
///
/// Clones share the syntax tree, and filters are equal if their texts are: a copy or comparison of
/// the tree itself recurses as deep as the tree, which a long filter makes thousands of levels.
#[derive(Debug, Clone)]
pub struct Filter {
    source: String,
    expr: Arc<Expr>,
    /// The rows that pass it in the snapshot that it was last evaluated for.
    evaluated: Arc<Mutex<Option<Evaluated>>>,
}

/// The rows that pass a filter, and the snapshot that they are rows of.
type Evaluated = (Weak<()>, Arc<PassingRows>);

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Filter {
    /// The rows that pass it in the snapshot of this owner, if it was evaluated for that last.
    pub(super) fn evaluated(&self, owner: &Arc<()>) -> Option<Arc<PassingRows>> {
        let evaluated = self.evaluated.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, rows) = evaluated.as_ref()?;
        known.ptr_eq(&Arc::downgrade(owner)).then(|| Arc::clone(rows))
    }

    /// Remembers the rows that pass it in the snapshot of this owner, for it and its clones.
    pub(super) fn set_evaluated(&self, owner: &Arc<()>, rows: &Arc<PassingRows>) {
        let mut evaluated = self.evaluated.lock().unwrap_or_else(PoisonError::into_inner);
        *evaluated = Some((Arc::downgrade(owner), Arc::clone(rows)));
    }

    /// Parses a filter.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] with the position of the syntax error.
    pub fn parse(source: &str) -> Result<Self> {
        let fail = |reason: &str| Err(refused(source, reason));
        if source.trim().is_empty() {
            return fail("it is empty; leave the filter out to pass every row");
        }
        if source.len() > MAX_LEN {
            return fail(&format!("{} bytes, and at most {MAX_LEN} are allowed", source.len()));
        }
        let parsed = Parser::new(&FilterDialect).try_with_sql(source).and_then(|mut parser| {
            let expr = parser.parse_expr()?;
            parser.expect_token(&Token::EOF)?;
            Ok(expr)
        });
        match parsed {
            Ok(expr) => Ok(Self {
                source: source.to_owned(),
                expr: Arc::new(expr),
                evaluated: Arc::default(),
            }),
            Err(ParserError::TokenizerError(e) | ParserError::ParserError(e)) => fail(&e),
            Err(ParserError::RecursionLimitExceeded) => fail("it is nested too deeply"),
        }
    }

    /// The filter as the user wrote it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Checks the condition against `fields` and turns it into SQL.
    pub(super) fn compile(&self, fields: &FieldCatalog) -> Result<SqlCondition> {
        Compiler::new(fields).compile(&self.expr).map_err(|reason| refused(&self.source, &reason))
    }
}

/// The first `limit` characters of a text, for messages.
fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn refused(source: &str, reason: &str) -> Error {
    Error::usage(format!("filter `{}`: {}", shorten(source, 120), shorten(reason, 400)))
}
