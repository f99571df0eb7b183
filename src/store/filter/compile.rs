//! The compiler: a parsed condition to SQLite's SQL, with every value bound as a parameter.

use super::comparison::Comparer;
use super::literal::Literal;
use super::names::{Field, look_up};
use super::pattern::Pattern;
use super::{Compiled, SqlCondition, shorten};
use crate::store::fields::FieldCatalog;
use rusqlite::types::Value as Bound;
use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

/// The largest number of comparisons in one filter. SQLite limits the depth of expressions.
const MAX_COMPARISONS: usize = 400;

pub(super) struct Compiler<'a> {
    fields: &'a FieldCatalog,
    comparer: Comparer<'a>,
    comparisons: usize,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(fields: &'a FieldCatalog) -> Self {
        Self { fields, comparer: Comparer::new(fields), comparisons: 0 }
    }

    /// The condition for `WHERE`, or the reason why it does not fit an index with these fields.
    pub(super) fn compile(mut self, expr: &Expr) -> Compiled<SqlCondition> {
        let sql = self.condition(expr)?;
        let Comparer { values, notes, .. } = self.comparer;
        Ok(SqlCondition { sql, values, notes })
    }

    fn condition(&mut self, expr: &Expr) -> Compiled {
        match expr {
            Expr::Nested(inner) => self.condition(inner),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                Ok(format!("NOT ({})", self.condition(expr)?))
            }
            Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                // Chains are nested to the left. The loop avoids a recursion for each operand.
                let mut operands = Vec::new();
                let mut rest = expr;
                while let Expr::BinaryOp { left, op: here, right } = rest
                    && here == op
                {
                    operands.push(right.as_ref());
                    rest = left;
                }
                operands.push(rest);
                let parts: Compiled<Vec<String>> =
                    operands.iter().rev().map(|e| self.condition(e)).collect();
                Ok(format!("({})", parts?.join(&format!(" {op} "))))
            }
            _ => {
                self.comparisons += 1;
                if self.comparisons > MAX_COMPARISONS {
                    return Err(format!(
                        "more than {MAX_COMPARISONS} comparisons; use `field IN (...)` for lists"
                    ));
                }
                self.comparison(expr)
            }
        }
    }

    fn comparison(&mut self, expr: &Expr) -> Compiled {
        let (sql, negated) = match expr {
            Expr::BinaryOp { left, op, right } => (self.binary(expr, left, op, right)?, false),
            Expr::Between { expr, negated, low, high } => {
                let [low, high] = [Literal::of(low)?, Literal::of(high)?];
                if std::mem::discriminant(&low) != std::mem::discriminant(&high) {
                    return Err("the two ends of BETWEEN differ in type".to_owned());
                }
                let field = look_up(expr, self.fields)?;
                let low = self.comparer.compare(&field, ">=", &low)?;
                (format!("({low} AND {})", self.comparer.compare(&field, "<=", &high)?), *negated)
            }
            Expr::InList { expr, list, negated } => {
                let list: Vec<Literal> = list.iter().map(Literal::of).collect::<Compiled<_>>()?;
                let discriminant = |i: usize| list.get(i).map(std::mem::discriminant);
                if (1..list.len()).any(|i| discriminant(i) != discriminant(0)) {
                    return Err("the values of an IN list differ in type".to_owned());
                }
                let field = look_up(expr, self.fields)?;
                (self.comparer.in_list(&field, &list)?, *negated)
            }
            Expr::Like { negated, any: false, expr: field, pattern, escape_char }
            | Expr::ILike { negated, any: false, expr: field, pattern, escape_char } => {
                let ignores_case = matches!(expr, Expr::ILike { .. });
                (self.like(field, pattern, escape_char.as_deref(), ignores_case)?, *negated)
            }
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                let field = look_up(inner, self.fields)?;
                let value = self.comparer.extract(&field);
                (format!("{value} IS NULL"), matches!(expr, Expr::IsNotNull(_)))
            }
            Expr::IsTrue(inner) | Expr::IsFalse(inner) => {
                let field = look_up(inner, self.fields)?;
                let wanted = Literal::Boolean(matches!(expr, Expr::IsTrue(_)));
                (format!("({}) IS 1", self.comparer.compare(&field, "=", &wanted)?), false)
            }
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                (self.array_contains(left, right)?, false)
            }
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                let field = look_up(expr, self.fields)?;
                (self.comparer.compare(&field, "=", &Literal::Boolean(true))?, false)
            }
            other => {
                return Err(format!(
                    "`{}` is not supported: a filter compares fields with values (AND, OR, NOT \
                     join)",
                    shorten(&other.to_string(), 120)
                ));
            }
        };
        Ok(if negated { format!("NOT ({sql})") } else { sql })
    }

    fn binary(&mut self, whole: &Expr, left: &Expr, op: &BinaryOperator, right: &Expr) -> Compiled {
        // The operator, and the one for exchanged operands.
        let (op, exchanged) = match op {
            BinaryOperator::Eq => ("=", "="),
            BinaryOperator::NotEq => ("<>", "<>"),
            BinaryOperator::Lt => ("<", ">"),
            BinaryOperator::LtEq => ("<=", ">="),
            BinaryOperator::Gt => (">", "<"),
            BinaryOperator::GtEq => (">=", "<="),
            _ => return Err(format!("the operator {op} is not supported")),
        };
        let (field, op, value) = match (is_field(left), is_field(right)) {
            (true, false) => (left, op, right),
            (false, true) => (right, exchanged, left),
            (true, true) => {
                return Err(format!(
                    "`{whole}` compares two fields; compare a field with a value (texts go in \
                     single quotes)"
                ));
            }
            (false, false) => {
                let odd = [left, right].into_iter().find(|e| Literal::of(e).is_err());
                return Err(match odd {
                    Some(odd) => format!("`{odd}` is not a field and not a value"),
                    None => format!("`{whole}` names no field"),
                });
            }
        };
        let value = Literal::of(value)?;
        let field = look_up(field, self.fields)?;
        self.comparer.compare(&field, op, &value)
    }

    fn like(
        &mut self,
        field: &Expr,
        pattern: &Expr,
        escape: Option<&Expr>,
        ignores_case: bool,
    ) -> Compiled {
        let Literal::Text(pattern) = Literal::of(pattern)? else {
            return Err("the pattern of LIKE must be text in single quotes".to_owned());
        };
        let escape = match escape.map(Literal::of).transpose()? {
            None => None,
            Some(Literal::Text(escape)) if escape.chars().count() == 1 => Some(escape),
            Some(_) => return Err("ESCAPE takes one character".to_owned()),
        };
        if let Some(escape) = &escape
            && pattern.replace(&escape.repeat(2), "").ends_with(escape)
        {
            return Err("the pattern of LIKE ends with the escape character".to_owned());
        }
        let field = look_up(field, self.fields)?;
        let text = self.comparer.text_for_pattern(&field)?;
        let first = escape.as_ref().and_then(|escape| escape.chars().next());
        let shape = Pattern::new(&pattern, first, ignores_case);
        // SQLite's own functions are faster, where there is one.
        match shape.plain_parts() {
            Some([whole]) => {
                return Ok(format!("{text} = {}", self.comparer.bind(Bound::Text(whole.clone()))));
            }
            Some([start, end]) if end.is_empty() => {
                let mut glob = String::with_capacity(start.len() + 1);
                for char in start.chars() {
                    match char {
                        '*' | '?' | '[' => glob.extend(['[', char, ']']),
                        char => glob.push(char),
                    }
                }
                glob.push('*');
                return Ok(format!("{text} GLOB {}", self.comparer.bind(Bound::Text(glob))));
            }
            Some([start, middle, end]) if start.is_empty() && end.is_empty() => {
                let middle = self.comparer.bind(Bound::Text(middle.clone()));
                return Ok(format!("instr({text}, {middle}) > 0"));
            }
            _ => {}
        }
        let pattern = self.comparer.bind(Bound::Text(pattern));
        let escape = self.comparer.bind(escape.map_or(Bound::Null, Bound::Text));
        let ignores_case = self.comparer.bind(Bound::Integer(i64::from(ignores_case)));
        Ok(format!("fits({text}, {pattern}, {escape}, {ignores_case})"))
    }

    fn array_contains(&mut self, value: &Expr, array: &Expr) -> Compiled {
        if !is_field(array) {
            return Err(format!("`{array}` is not a field that could contain a value"));
        }
        let value = Literal::of(value)?;
        let Field { name, types, paths, .. } = look_up(array, self.fields)?;
        if types.arrays == 0 {
            let types = types.describe();
            return Err(format!("field '{name}' holds {types}, not arrays; use = instead"));
        }
        let Some(bound) = value.bound() else {
            return Err(format!(
                "{} has more digits than numbers in arrays are compared by",
                value.as_number().unwrap_or_default()
            ));
        };
        let json_types = match value {
            Literal::Text(_) | Literal::Time(_) => "'text'",
            Literal::Number(_) => "'integer', 'real'",
            Literal::Boolean(_) => "'true', 'false'",
        };
        let value = self.comparer.bind(bound);
        let case = |path: String| {
            let path = self.comparer.bind(Bound::Text(path));
            format!(
                "WHEN json_type(d.metadata, {path}) = 'array' THEN EXISTS (SELECT 1 FROM \
                 json_each(d.metadata, {path}) WHERE type IN ({json_types}) AND atom = {value})"
            )
        };
        let cases: Vec<String> = paths.into_iter().map(case).collect();
        Ok(format!("CASE {} END", cases.join(" ")))
    }
}

fn is_field(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_field(inner),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        _ => false,
    }
}
