//! The compiler: a parsed condition to SQLite's SQL, with every value bound as a parameter.

use crate::store::fields::{FieldCatalog, FieldTypes};
use rusqlite::types::Value as Bound;
use sqlparser::ast::{BinaryOperator, Expr, Ident, UnaryOperator, Value};

/// The largest number of comparisons in one filter. SQLite limits the depth of expressions.
const MAX_COMPARISONS: usize = 400;

/// Names and columns of the built-in fields.
const BUILT_IN: [(&str, &str); 3] = [("id", "d.id"), ("doc_id", "d.doc_id"), ("title", "d.title")];

/// Result with a plain reason. `Filter::compile` puts the filter in front of it.
pub(super) type Compiled<T = String> = std::result::Result<T, String>;

/// A condition for `WHERE` over the table `document`, which the query names `d`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) struct SqlCondition {
    pub(in crate::store) sql: String,
    /// Values of the parameters `?1`, `?2`, ...
    pub(in crate::store) values: Vec<Bound>,
}

/// JSON type of a literal.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Text,
    Number,
    Boolean,
}

impl Type {
    /// Name for messages, SQLite's `json_type` names, and the number of values of the type in a
    /// field.
    fn describe(self, seen: &FieldTypes) -> (&'static str, &'static str, u64) {
        match self {
            Self::Text => ("text", "'text'", seen.texts),
            Self::Number => ("a number", "'integer', 'real'", seen.numbers),
            Self::Boolean => ("a boolean", "'true', 'false'", seen.booleans),
        }
    }
}

/// A field of the index.
struct Field {
    name: String,
    types: FieldTypes,
    /// Column of a built-in field; `None` for a metadata field.
    column: Option<&'static str>,
    /// JSON paths of a metadata field. A dotted name has two meanings: members of members, and one
    /// name with dots.
    paths: Vec<String>,
}

pub(super) struct Compiler<'a> {
    fields: &'a FieldCatalog,
    values: Vec<Bound>,
    comparisons: usize,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(fields: &'a FieldCatalog) -> Self {
        Self { fields, values: Vec::new(), comparisons: 0 }
    }

    /// The condition for `WHERE`, or the reason why it does not fit an index with these fields.
    pub(super) fn compile(mut self, expr: &Expr) -> Compiled<SqlCondition> {
        let sql = self.condition(expr)?;
        Ok(SqlCondition { sql, values: self.values })
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
        match expr {
            Expr::BinaryOp { left, op, right } => self.binary(expr, left, op, right),
            Expr::Between { expr, negated, low, high } => {
                let (low, kind) = literal(low)?;
                let (high, high_kind) = literal(high)?;
                if kind != high_kind {
                    return Err("the two ends of BETWEEN differ in type".to_owned());
                }
                let field = self.operand(expr, kind)?;
                let (low, high) = (self.bind(low), self.bind(high));
                Ok(format!("{field} {}BETWEEN {low} AND {high}", not(*negated)))
            }
            Expr::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            Expr::Like { negated, any: false, expr, pattern, escape_char }
            | Expr::ILike { negated, any: false, expr, pattern, escape_char } => {
                let (pattern, kind) = literal(pattern)?;
                if kind != Type::Text {
                    return Err("the pattern of LIKE must be text in single quotes".to_owned());
                }
                let Field { name, types, .. } = self.field(expr)?;
                if types.texts == 0 {
                    let types = types.describe();
                    return Err(format!("field '{name}' holds {types}; LIKE compares text"));
                }
                let field = self.operand(expr, kind)?;
                let mut sql = format!("{field} {}LIKE {}", not(*negated), self.bind(pattern));
                if let Some(escape) = escape_char {
                    let (escape, _) = literal(escape)?;
                    if !matches!(&escape, Bound::Text(t) if t.chars().count() == 1) {
                        return Err("ESCAPE takes one character".to_owned());
                    }
                    sql.push_str(&format!(" ESCAPE {}", self.bind(escape)));
                }
                Ok(sql)
            }
            Expr::IsNull(inner) | Expr::IsNotNull(inner) => {
                let field = self.field(inner)?;
                let not = not(matches!(expr, Expr::IsNotNull(_)));
                Ok(format!("{} IS {not}NULL", self.json("json_extract", &field)))
            }
            Expr::IsTrue(inner) => Ok(format!("{} IS 1", self.operand(inner, Type::Boolean)?)),
            Expr::IsFalse(inner) => Ok(format!("{} IS 0", self.operand(inner, Type::Boolean)?)),
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                self.array_contains(left, right)
            }
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                Ok(format!("{} = 1", self.operand(expr, Type::Boolean)?))
            }
            other => Err(format!(
                "`{}` is not supported: a filter compares fields with values (AND, OR, NOT join)",
                shorten(&other.to_string(), 120)
            )),
        }
    }

    fn binary(&mut self, whole: &Expr, left: &Expr, op: &BinaryOperator, right: &Expr) -> Compiled {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        if !matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq) {
            return Err(format!("the operator {op} is not supported"));
        }
        let mut operands = |field: &Expr, value: &Expr| -> Compiled<[String; 2]> {
            let (value, kind) = literal(value)?;
            Ok([self.operand(field, kind)?, self.bind(value)])
        };
        match (is_field(left), is_field(right)) {
            (true, false) => operands(left, right).map(|[f, v]| format!("{f} {op} {v}")),
            (false, true) => operands(right, left).map(|[f, v]| format!("{v} {op} {f}")),
            (true, true) => Err(format!(
                "`{whole}` compares two fields; compare a field with a value (texts go in single \
                 quotes)"
            )),
            (false, false) => match [left, right].into_iter().find(|e| literal(e).is_err()) {
                Some(odd) => Err(format!("`{odd}` is not a field and not a value")),
                None => Err(format!("`{whole}` names no field")),
            },
        }
    }

    fn in_list(&mut self, expr: &Expr, list: &[Expr], negated: bool) -> Compiled {
        let literals: Vec<(Bound, Type)> = list.iter().map(literal).collect::<Compiled<_>>()?;
        let kind = literals.first().map_or(Type::Text, |l| l.1);
        if literals.iter().any(|l| l.1 != kind) {
            return Err("the values of an IN list differ in type".to_owned());
        }
        let field = self.operand(expr, kind)?;
        // The whole list is one parameter.
        let array: serde_json::Value = literals.into_iter().map(|(v, _)| to_json(v)).collect();
        let array = self.bind(Bound::Text(array.to_string()));
        Ok(format!("{field} {}IN (SELECT value FROM json_each({array}))", not(negated)))
    }

    fn array_contains(&mut self, value: &Expr, array: &Expr) -> Compiled {
        if !is_field(array) {
            return Err(format!("`{array}` is not a field that could contain a value"));
        }
        let (value, kind) = literal(value)?;
        let Field { name, types, paths, .. } = self.field(array)?;
        if types.arrays == 0 {
            let types = types.describe();
            return Err(format!("field '{name}' holds {types}, not arrays; use = instead"));
        }
        let (_, json_types, _) = kind.describe(&types);
        let value = self.bind(value);
        let case = |path: String| {
            let path = self.bind(Bound::Text(path));
            format!(
                "WHEN json_type(d.metadata, {path}) = 'array' THEN EXISTS (SELECT 1 FROM \
                 json_each(d.metadata, {path}) WHERE type IN ({json_types}) AND atom = {value})"
            )
        };
        let cases: Vec<String> = paths.into_iter().map(case).collect();
        Ok(format!("CASE {} END", cases.join(" ")))
    }

    /// SQL operand of a field for a comparison with a literal of type `kind`. Values of other types
    /// become NULL.
    fn operand(&mut self, expr: &Expr, kind: Type) -> Compiled {
        let field = self.field(expr)?;
        let Field { name, types, .. } = &field;
        let (type_name, json_types, seen) = kind.describe(types);
        let others =
            types.texts + types.numbers + types.booleans + types.arrays + types.objects - seen;
        if seen == 0 && others > 0 {
            let remedy = if types.arrays > 0 {
                format!("; use `{name} CONTAINS value`")
            } else if types.numbers > 0 && kind == Type::Text {
                "; write the value without quotes".to_owned()
            } else if types.texts > 0 && kind == Type::Number {
                "; write the value in single quotes".to_owned()
            } else {
                String::new()
            };
            let types = types.describe();
            return Err(format!("field '{name}' holds {types}, never {type_name}{remedy}"));
        }
        let extract = self.json("json_extract", &field);
        if others == 0 {
            return Ok(extract);
        }
        let json_type = self.json("json_type", &field);
        Ok(format!("CASE WHEN {json_type} IN ({json_types}) THEN {extract} END"))
    }

    /// Looks up a field in the catalogue.
    fn field(&self, expr: &Expr) -> Compiled<Field> {
        let idents: Vec<&Ident> = match expr {
            Expr::Nested(inner) => return self.field(inner),
            Expr::Identifier(ident) => vec![ident],
            Expr::CompoundIdentifier(idents) => idents.iter().collect(),
            other => return Err(format!("`{other}` is not a field")),
        };
        let mut parts: Vec<&str> = idents.iter().map(|i| i.value.as_str()).collect();
        if let [only] = parts[..]
            && let Some((name, column)) = BUILT_IN.into_iter().find(|(name, _)| *name == only)
        {
            let types = FieldTypes { texts: 1, ..FieldTypes::default() };
            let (name, column) = (name.to_owned(), Some(column));
            return Ok(Field { name, types, column, paths: Vec::new() });
        }
        if parts.len() > 1 && parts[0] == "metadata" && self.fields.get(&parts.join(".")).is_none()
        {
            parts.remove(0);
        }
        let name = parts.join(".");
        let Some(&types) = self.fields.get(&name) else {
            let near = self.fields.near(&name);
            let mut hint = if near.is_empty() {
                let built_in = BUILT_IN.into_iter().map(|(name, _)| name);
                let all: Vec<&str> = built_in.chain(self.fields.names().take(20)).collect();
                format!("the fields are {}", all.join(", "))
            } else {
                format!("did you mean {}?", near.join(" or "))
            };
            if idents.len() == 1 && idents[0].quote_style == Some('"') {
                hint.push_str(" (texts go in single quotes)");
            }
            return Err(format!("no field is called '{name}'; {hint}"));
        };
        if name.contains(['"', '\\']) {
            return Err(format!("field '{name}' cannot be filtered: its name holds a quote"));
        }
        let mut paths =
            vec![parts.iter().fold("$".to_owned(), |path, part| format!("{path}.\"{part}\""))];
        if parts.len() > 1 {
            paths.push(format!("$.\"{name}\""));
        }
        Ok(Field { name, types, column: None, paths })
    }

    /// SQL call of a JSON function with the first path of a field that exists; for a built-in field
    /// its column.
    fn json(&mut self, function: &str, field: &Field) -> String {
        if let Some(column) = field.column {
            return column.to_owned();
        }
        let call =
            |path: &String| format!("{function}(d.metadata, {})", self.bind(path.clone().into()));
        let mut calls: Vec<String> = field.paths.iter().map(call).collect();
        if calls.len() == 1 { calls.remove(0) } else { format!("coalesce({})", calls.join(", ")) }
    }

    /// Adds a bound value; returns its parameter.
    fn bind(&mut self, value: Bound) -> String {
        self.values.push(value);
        format!("?{}", self.values.len())
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

fn is_field(expr: &Expr) -> bool {
    match expr {
        Expr::Nested(inner) => is_field(inner),
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => true,
        _ => false,
    }
}

fn literal(expr: &Expr) -> Compiled<(Bound, Type)> {
    match expr {
        Expr::Nested(inner) => literal(inner),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Ok((Bound::Text(text.clone()), Type::Text)),
            Value::Boolean(b) => Ok((Bound::Integer(i64::from(*b)), Type::Boolean)),
            Value::Number(text, _) => match (text.parse(), text.parse::<f64>()) {
                (Ok(integer), _) => Ok((Bound::Integer(integer), Type::Number)),
                (_, Ok(real)) if real.is_finite() => Ok((Bound::Real(real), Type::Number)),
                _ => Err(format!("`{text}` is not a number that can be compared")),
            },
            Value::Null => Err("compare with NULL through IS NULL or IS NOT NULL".to_owned()),
            other => Err(format!("`{other}` is not a value that a filter takes")),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match literal(expr)? {
            (Bound::Integer(i), Type::Number) => Ok((Bound::Integer(-i), Type::Number)),
            (Bound::Real(r), _) => Ok((Bound::Real(-r), Type::Number)),
            _ => Err(format!("`-{expr}` is not a number")),
        },
        Expr::Identifier(name) => Err(format!(
            "'{}' stands where a value is expected; texts go in single quotes",
            name.value
        )),
        other => Err(format!("`{}` is not a plain value", shorten(&other.to_string(), 120))),
    }
}

fn to_json(value: Bound) -> serde_json::Value {
    match value {
        Bound::Integer(i) => i.into(),
        Bound::Real(r) => r.into(),
        Bound::Text(t) => t.into(),
        _ => serde_json::Value::Null,
    }
}

/// The first `limit` characters of a text, for messages.
pub(super) fn shorten(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
