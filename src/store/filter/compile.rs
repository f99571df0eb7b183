//! A parsed condition to SQLite's SQL, with every value bound as a parameter.

use super::{Condition, shorten};
use crate::store::fields::{FieldCatalog, FieldTypes};
use rusqlite::types::Value as Bound;
use sqlparser::ast::{BinaryOperator, Expr, Ident, UnaryOperator, Value};

/// The most comparisons in one filter: SQLite limits how deep an expression nests.
const MAX_COMPARISONS: usize = 400;

/// Reasons are plain texts here; [`super::Filter::compile`] puts the filter in front.
pub(super) type Compiled<T = String> = std::result::Result<T, String>;

/// The JSON type of a literal.
#[derive(Clone, Copy, PartialEq)]
enum Type {
    Text,
    Number,
    Boolean,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Number => "a number",
            Self::Boolean => "a boolean",
        }
    }

    /// SQLite's `json_type` names for it.
    fn json_types(self) -> &'static str {
        match self {
            Self::Text => "'text'",
            Self::Number => "'integer', 'real'",
            Self::Boolean => "'true', 'false'",
        }
    }
}

/// A field of the index.
enum Field<'a> {
    Column(&'static str),
    /// `paths` are the ways a dotted name can be meant: members of members, and one name with dots.
    Json {
        name: String,
        paths: Vec<String>,
        types: &'a FieldTypes,
    },
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

    /// The condition for `WHERE`, or the reason why it fits no index with these fields.
    pub(super) fn compile(mut self, expr: &Expr) -> Compiled<Condition> {
        let sql = self.condition(expr)?;
        Ok(Condition { sql, values: self.values })
    }

    fn condition(&mut self, expr: &Expr) -> Compiled {
        match expr {
            Expr::Nested(inner) => self.condition(inner),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                Ok(format!("NOT ({})", self.condition(expr)?))
            }
            Expr::BinaryOp { op: op @ (BinaryOperator::And | BinaryOperator::Or), .. } => {
                // Chains lean to the left: walk them without recursion.
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
                let word = if *op == BinaryOperator::And { " AND " } else { " OR " };
                Ok(format!("({})", parts?.join(word)))
            }
            _ => {
                self.comparisons += 1;
                if self.comparisons > MAX_COMPARISONS {
                    return Err(format!(
                        "more than {MAX_COMPARISONS} comparisons; use `field IN (...)` for long lists"
                    ));
                }
                self.comparison(expr)
            }
        }
    }

    fn comparison(&mut self, expr: &Expr) -> Compiled {
        match expr {
            Expr::BinaryOp { left, op, right } => {
                let (symbol, flipped) = match op {
                    BinaryOperator::Eq => ("=", "="),
                    BinaryOperator::NotEq => ("<>", "<>"),
                    BinaryOperator::Lt => ("<", ">"),
                    BinaryOperator::LtEq => ("<=", ">="),
                    BinaryOperator::Gt => (">", "<"),
                    BinaryOperator::GtEq => (">=", "<="),
                    other => return Err(format!("the operator {other} is not supported")),
                };
                let (field, symbol, literal) = match (is_field(left), is_field(right)) {
                    (true, false) => (left, symbol, right),
                    (false, true) => (right, flipped, left),
                    (true, true) => {
                        return Err(format!(
                            "`{expr}` compares two fields; compare a field with a value (texts go in \
                             single quotes)"
                        ));
                    }
                    (false, false) => {
                        let odd = [left, right].into_iter().find(|e| literal_value(e).is_err());
                        return Err(match odd {
                            Some(odd) => format!("`{odd}` is not a field and not a value"),
                            None => format!("`{expr}` names no field"),
                        });
                    }
                };
                let (value, kind) = literal_value(literal)?;
                let field = self.operand(field, kind)?;
                Ok(format!("{field} {symbol} {}", self.bind(value)))
            }
            Expr::Between { expr, negated, low, high } => {
                let (low, kind) = literal_value(low)?;
                let (high, high_kind) = literal_value(high)?;
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
                let (pattern, kind) = literal_value(pattern)?;
                if kind != Type::Text {
                    return Err("the pattern of LIKE must be text in single quotes".to_owned());
                }
                if let Field::Json { name, types, .. } = self.field(expr)?
                    && types.texts == 0
                {
                    return Err(format!(
                        "field '{name}' holds {}; LIKE compares text",
                        types.describe()
                    ));
                }
                let field = self.operand(expr, kind)?;
                let mut sql = format!("{field} {}LIKE {}", not(*negated), self.bind(pattern));
                if let Some(escape) = escape_char {
                    let (escape, _) = literal_value(escape)?;
                    if !matches!(&escape, Bound::Text(t) if t.chars().count() == 1) {
                        return Err("ESCAPE takes one character".to_owned());
                    }
                    sql.push_str(&format!(" ESCAPE {}", self.bind(escape)));
                }
                Ok(sql)
            }
            Expr::IsNull(inner) => Ok(format!("{} IS NULL", self.untyped(inner)?)),
            Expr::IsNotNull(inner) => Ok(format!("{} IS NOT NULL", self.untyped(inner)?)),
            Expr::IsTrue(inner) => Ok(format!("{} IS 1", self.operand(inner, Type::Boolean)?)),
            Expr::IsFalse(inner) => Ok(format!("{} IS 0", self.operand(inner, Type::Boolean)?)),
            Expr::AnyOp { left, compare_op: BinaryOperator::Eq, right, .. } => {
                self.array_contains(left, right)
            }
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => {
                Ok(format!("{} = 1", self.operand(expr, Type::Boolean)?))
            }
            other => Err(format!(
                "`{}` is not supported: a filter compares fields with values, joined by AND, OR and NOT",
                shorten(&other.to_string(), 120)
            )),
        }
    }

    fn in_list(&mut self, expr: &Expr, list: &[Expr], negated: bool) -> Compiled {
        let literals: Vec<(Bound, Type)> =
            list.iter().map(literal_value).collect::<Compiled<_>>()?;
        let kind = literals.first().map_or(Type::Text, |l| l.1);
        if literals.iter().any(|l| l.1 != kind) {
            return Err("the values of an IN list differ in type".to_owned());
        }
        let field = self.operand(expr, kind)?;
        // One parameter however long the list is.
        let array: Vec<serde_json::Value> = literals.into_iter().map(|(v, _)| to_json(v)).collect();
        let array = self.bind(Bound::Text(serde_json::Value::Array(array).to_string()));
        Ok(format!("{field} {}IN (SELECT value FROM json_each({array}))", not(negated)))
    }

    fn array_contains(&mut self, value: &Expr, array: &Expr) -> Compiled {
        if !is_field(array) {
            return Err(format!("`{array}` is no field that could contain something"));
        }
        let (value, kind) = literal_value(value)?;
        match self.field(array)? {
            Field::Column(_) => Err(format!("`{array}` is text, not an array; use = or LIKE")),
            Field::Json { name, types, .. } if types.arrays == 0 => {
                Err(format!("field '{name}' holds {}, not arrays; use = instead", types.describe()))
            }
            Field::Json { paths, .. } => {
                let value = self.bind(value);
                let cases: Vec<String> = paths
                    .into_iter()
                    .map(|path| {
                        let path = self.bind(Bound::Text(path));
                        format!(
                            "WHEN json_type(d.metadata, {path}) = 'array' THEN EXISTS (SELECT 1 FROM \
                             json_each(d.metadata, {path}) WHERE type IN ({}) AND atom = {value})",
                            kind.json_types()
                        )
                    })
                    .collect();
                Ok(format!("CASE {} END", cases.join(" ")))
            }
        }
    }

    /// A field as an SQL operand to compare with a literal of `kind`; values of other types are NULL.
    fn operand(&mut self, expr: &Expr, kind: Type) -> Compiled {
        match self.field(expr)? {
            Field::Column(column) if kind == Type::Text => Ok(column.to_owned()),
            Field::Column(_) => Err(format!("`{expr}` is text; write the value in single quotes")),
            Field::Json { name, paths, types } => {
                let seen = match kind {
                    Type::Text => types.texts,
                    Type::Number => types.numbers,
                    Type::Boolean => types.booleans,
                };
                let others =
                    types.texts + types.numbers + types.booleans + types.arrays + types.objects
                        - seen;
                if seen == 0 && others > 0 {
                    let cure = if types.arrays > 0 {
                        format!("; use `{name} CONTAINS value`")
                    } else if types.numbers > 0 && kind == Type::Text {
                        "; write the value without quotes".to_owned()
                    } else if types.texts > 0 && kind == Type::Number {
                        "; write the value in single quotes".to_owned()
                    } else {
                        String::new()
                    };
                    return Err(format!(
                        "field '{name}' holds {}, never {}{cure}",
                        types.describe(),
                        kind.name()
                    ));
                }
                let extract = self.json("json_extract", &paths);
                if others == 0 {
                    return Ok(extract);
                }
                let seen = self.json("json_type", &paths);
                Ok(format!("CASE WHEN {seen} IN ({}) THEN {extract} END", kind.json_types()))
            }
        }
    }

    fn untyped(&mut self, expr: &Expr) -> Compiled {
        match self.field(expr)? {
            Field::Column(column) => Ok(column.to_owned()),
            Field::Json { paths, .. } => Ok(self.json("json_extract", &paths)),
        }
    }

    fn field(&self, expr: &Expr) -> Compiled<Field<'_>> {
        let idents: Vec<&Ident> = match expr {
            Expr::Nested(inner) => return self.field(inner),
            Expr::Identifier(ident) => vec![ident],
            Expr::CompoundIdentifier(idents) => idents.iter().collect(),
            other => return Err(format!("`{other}` is not a field")),
        };
        let mut parts: Vec<&str> = idents.iter().map(|i| i.value.as_str()).collect();
        if let [name] = parts[..] {
            match name {
                "id" => return Ok(Field::Column("d.id")),
                "doc_id" => return Ok(Field::Column("d.doc_id")),
                "title" => return Ok(Field::Column("d.title")),
                _ => {}
            }
        }
        if parts.len() > 1 && parts[0] == "metadata" && self.fields.get(&parts.join(".")).is_none()
        {
            parts.remove(0);
        }
        let name = parts.join(".");
        let Some(types) = self.fields.get(&name) else {
            let near = self.fields.near(&name);
            let mut hint: String = if near.is_empty() {
                let all: Vec<&str> = ["id", "doc_id", "title"]
                    .into_iter()
                    .chain(self.fields.names().take(20))
                    .collect();
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
        Ok(Field::Json { name, paths, types })
    }

    /// `function` over the first of the paths that leads somewhere.
    fn json(&mut self, function: &str, paths: &[String]) -> String {
        let calls: Vec<String> = paths
            .iter()
            .map(|path| format!("{function}(d.metadata, {})", self.bind(Bound::Text(path.clone()))))
            .collect();
        match &calls[..] {
            [one] => one.clone(),
            _ => format!("coalesce({})", calls.join(", ")),
        }
    }

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

fn literal_value(expr: &Expr) -> Compiled<(Bound, Type)> {
    match expr {
        Expr::Nested(inner) => literal_value(inner),
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Ok((Bound::Text(text.clone()), Type::Text)),
            Value::Boolean(b) => Ok((Bound::Integer(i64::from(*b)), Type::Boolean)),
            Value::Number(text, _) => number(text),
            Value::Null => Err("compare with NULL through IS NULL or IS NOT NULL".to_owned()),
            other => Err(format!("`{other}` is not a value that a filter takes")),
        },
        Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match literal_value(expr)? {
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

fn number(text: &str) -> Compiled<(Bound, Type)> {
    if let Ok(integer) = text.parse::<i64>() {
        return Ok((Bound::Integer(integer), Type::Number));
    }
    match text.parse::<f64>() {
        Ok(real) if real.is_finite() => Ok((Bound::Real(real), Type::Number)),
        _ => Err(format!("`{text}` is not a number that can be compared")),
    }
}

fn to_json(value: Bound) -> serde_json::Value {
    match value {
        Bound::Integer(i) => i.into(),
        Bound::Real(r) => r.into(),
        Bound::Text(t) => t.into(),
        Bound::Null | Bound::Blob(_) => serde_json::Value::Null,
    }
}
