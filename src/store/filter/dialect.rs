//! The SQL dialect of filters, for sqlparser.

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};
use sqlparser::dialect::Dialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// SQL expressions with two additions, `field CONTAINS 'x'` and `'x' IN field`, and with hyphens in
/// names. Both additions are parsed to `Expr::AnyOp`.
#[derive(Debug)]
pub(super) struct FilterDialect;

impl Dialect for FilterDialect {
    fn is_identifier_start(&self, ch: char) -> bool {
        ch.is_alphabetic() || ch == '_'
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        ch.is_alphanumeric() || ch == '_' || ch == '-'
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        is_contains(&parser.peek_token().token)
            .then(|| Ok(self.prec_value(sqlparser::dialect::Precedence::Between)))
    }

    fn parse_infix(
        &self,
        parser: &mut Parser,
        expr: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        let keyword = |at: usize| match parser.peek_nth_token(at).token {
            Token::Word(word) => word.keyword,
            _ => Keyword::NoKeyword,
        };
        // `IN (...)` is left to sqlparser.
        let is_in = |at: usize| {
            keyword(at) == Keyword::IN && parser.peek_nth_token(at + 1).token != Token::LParen
        };
        let contains = is_contains(&parser.peek_token().token);
        let negated = keyword(0) == Keyword::NOT && is_in(1);
        if !contains && !negated && !is_in(0) {
            return None;
        }
        parser.next_token();
        if negated {
            parser.next_token();
        }
        // The left side must not be a condition itself, so that the two never nest.
        if !matches!(
            expr,
            Expr::Identifier(_)
                | Expr::CompoundIdentifier(_)
                | Expr::Value(_)
                | Expr::Nested(_)
                | Expr::UnaryOp { op: UnaryOperator::Minus, .. }
        ) {
            return Some(Err(ParserError::ParserError(
                "IN and CONTAINS stand between a field and a value".to_owned(),
            )));
        }
        Some(parser.parse_subexpr(precedence).map(|other| {
            let (left, right) =
                if contains { (other, expr.clone()) } else { (expr.clone(), other) };
            let any = Expr::AnyOp {
                left: Box::new(left),
                compare_op: BinaryOperator::Eq,
                right: Box::new(right),
                is_some: false,
            };
            if negated {
                Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(any) }
            } else {
                any
            }
        }))
    }
}

fn is_contains(token: &Token) -> bool {
    let Token::Word(word) = token else { return false };
    word.quote_style.is_none() && word.value.eq_ignore_ascii_case("contains")
}
