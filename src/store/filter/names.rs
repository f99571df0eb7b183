//! Names of fields: built-in ones, and those of the field catalogue.

use super::Compiled;
use super::literal::Literal;
use crate::store::fields::{FieldCatalog, FieldTypes};
use sqlparser::ast::{Expr, Ident};

/// Names and columns of the built-in fields.
pub(super) const BUILT_IN: [(&str, &str); 3] =
    [("id", "d.id"), ("doc_id", "d.doc_id"), ("title", "d.title")];

/// A field of the index.
pub(super) struct Field {
    pub(super) name: String,
    pub(super) types: FieldTypes,
    /// Column of a built-in field; `None` for a metadata field.
    pub(super) column: Option<&'static str>,
    /// JSON paths of a metadata field. A dotted name has two meanings: members of members, and one
    /// name with dots.
    pub(super) paths: Vec<String>,
}

impl Field {
    /// True if numbers need their JSON text to be compared exactly.
    pub(super) fn has_long_numbers(&self) -> bool {
        self.types.texts + self.types.large_integers > 0
    }

    /// The error for a literal that no value can be compared with.
    pub(super) fn refuse(&self, literal: &Literal, remedy: &str) -> String {
        let (name, types) = (&self.name, self.types.describe());
        format!("field '{name}' holds {types}, never {}{remedy}", literal.type_name())
    }
}

/// Looks up a field in the catalogue.
pub(super) fn look_up(expr: &Expr, catalog: &FieldCatalog) -> Compiled<Field> {
    let idents: Vec<&Ident> = match expr {
        Expr::Nested(inner) => return look_up(inner, catalog),
        Expr::Identifier(ident) => vec![ident],
        Expr::CompoundIdentifier(idents) => idents.iter().collect(),
        other => return Err(format!("`{other}` is not a field")),
    };
    let mut parts: Vec<&str> = idents.iter().map(|i| i.value.as_str()).collect();
    let is_known = |name: &str| catalog.get(name).is_some();
    // `doc_id`, or `document.doc_id`, which needs no look at the metadata.
    let built_in = match parts[..] {
        [only] => BUILT_IN.into_iter().find(|(name, _)| *name == only),
        ["document", name] => BUILT_IN.into_iter().find(|(known, _)| *known == name),
        _ => None,
    };
    if let Some((name, column)) = built_in {
        if parts.len() == 1 && is_known(name) {
            return Err(format!(
                "'{name}' is the {name} of every document, and a metadata field here: write \
                 document.{name} or metadata.{name}"
            ));
        }
        let types = FieldTypes { texts: 1, ..FieldTypes::default() };
        let (name, column) = (name.to_owned(), Some(column));
        return Ok(Field { name, types, column, paths: Vec::new() });
    }
    if parts.len() > 1 && parts[0] == "metadata" && !is_known(&parts.join(".")) {
        parts.remove(0);
    }
    let name = parts.join(".");
    let Some(&types) = catalog.get(&name) else {
        let near = catalog.near(&name);
        let mut hint = if near.is_empty() {
            let built_in = BUILT_IN.into_iter().map(|(name, _)| name);
            let is_other = |name: &&str| BUILT_IN.iter().all(|(known, _)| known != name);
            let others = catalog.names().filter(is_other).take(20);
            format!("the fields are {}", built_in.chain(others).collect::<Vec<_>>().join(", "))
        } else {
            format!("did you mean {}?", near.join(" or "))
        };
        if idents.len() == 1 && idents[0].quote_style == Some('"') {
            hint.push_str(" (texts go in single quotes)");
        }
        return Err(format!("no field is called '{name}'; {hint}"));
    };
    // JSON paths of SQLite have no escapes, and end at a NUL.
    if name.contains(['"', '\\', '\0']) {
        let reason = "its name holds a quote, a backslash or a NUL";
        return Err(format!("field '{}' cannot be filtered: {reason}", name.escape_debug()));
    }
    let mut paths =
        vec![parts.iter().fold("$".to_owned(), |path, part| format!("{path}.\"{part}\""))];
    if parts.len() > 1 {
        paths.push(format!("$.\"{name}\""));
    }
    Ok(Field { name, types, column: None, paths })
}
