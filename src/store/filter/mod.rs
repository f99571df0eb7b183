//! SQL-style conditions over metadata: parsed, checked against the field catalogue, and turned into a
//! parameterised SQLite condition. No part of the user's text is ever spliced into SQL.
//!
//! Allowed: `=`, `<>`, `!=`, `<`, `<=`, `>`, `>=`, `BETWEEN`, `IN (...)`, `LIKE`, `IS [NOT] NULL`,
//! `AND`, `OR`, `NOT`, parentheses, a boolean field alone, and for arrays `'x' IN field` or
//! `field CONTAINS 'x'`. Fields are metadata names (`meta.year` for nested ones) and the built-in
//! `id`, `doc_id` and `title`; `metadata.id` reaches a metadata field of a built-in's name.
//! NULL follows SQL: a missing field makes a comparison unknown, which does not pass.

mod compile;
mod dialect;

use super::fields::FieldCatalog;
use crate::error::{Error, Result};
use compile::Compiler;
use dialect::FilterDialect;
use rusqlite::types::Value as Bound;
use sqlparser::ast::Expr;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// The longest filter, in bytes.
const MAX_LEN: usize = 32 << 10;

/// A parsed condition, not yet checked against an index's fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    source: String,
    expr: Expr,
}

/// A condition for `WHERE`, over a table `document` under the name `d`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Condition {
    pub(super) sql: String,
    pub(super) values: Vec<Bound>,
}

impl Filter {
    /// Parses a condition.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] with the place of the syntax error.
    pub fn parse(source: &str) -> Result<Self> {
        let fail = |reason: String| refused(source, &reason);
        if source.trim().is_empty() {
            return Err(fail("it is empty; leave the filter out to pass every row".to_owned()));
        }
        if source.len() > MAX_LEN {
            return Err(fail(format!("{} bytes, and at most {MAX_LEN} are allowed", source.len())));
        }
        let expr = Parser::new(&FilterDialect)
            .try_with_sql(source)
            .and_then(|mut parser| {
                let expr = parser.parse_expr()?;
                parser.expect_token(&Token::EOF)?;
                Ok(expr)
            })
            .map_err(|e| {
                let reason = match e {
                    ParserError::TokenizerError(m) | ParserError::ParserError(m) => m,
                    ParserError::RecursionLimitExceeded => "it is nested too deeply".to_owned(),
                };
                fail(reason)
            })?;
        Ok(Self { source: source.to_owned(), expr })
    }

    /// The condition as the user wrote it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Checks the condition against `fields` and turns it into SQL.
    pub(super) fn compile(&self, fields: &FieldCatalog) -> Result<Condition> {
        match Compiler::new(fields).compile(&self.expr) {
            Ok(condition) => Ok(condition),
            Err(reason) => Err(refused(&self.source, &reason)),
        }
    }
}

fn refused(source: &str, reason: &str) -> Error {
    Error::usage(format!("filter `{}`: {}", shorten(source, 120), shorten(reason, 400)))
}

/// The first characters of a text, for messages.
fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
