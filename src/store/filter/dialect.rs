//! SQL expressions as filters write them.

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};
use sqlparser::dialect::Dialect;
use sqlparser::keywords::Keyword;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::Token;

/// SQL expressions, with `CONTAINS` and `'x' IN field`, and hyphens inside names.
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
        let (skip, negated, flipped) = if is_contains(&parser.peek_token().token) {
            (1, false, true)
        } else if keyword(0) == Keyword::IN && parser.peek_nth_token(1).token != Token::LParen {
            (1, false, false)
        } else if keyword(0) == Keyword::NOT
            && keyword(1) == Keyword::IN
            && parser.peek_nth_token(2).token != Token::LParen
        {
            (2, true, false)
        } else {
            return None;
        };
        for _ in 0..skip {
            parser.next_token();
        }
        // Neither side is a condition itself, so that these never nest.
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
            let (left, right) = if flipped { (other, expr.clone()) } else { (expr.clone(), other) };
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
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("contains"))
}
