//! Columns that stand in the names of folders: `year=2023/part-0.parquet` (Hive's layout).
//!
//! Spark, pyarrow, polars and DuckDB write a partition column in this way and leave it out of the
//! files. The values of a column are numbers if all of them, over all inputs, are written as JSON
//! writes numbers, else texts.

use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::collections::BTreeSet;

use crate::json::typed;
use crate::notes::{NoteKind, ReadNotes};

/// The value that stands for null in folder names.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// The partition columns of one file, which all of its records share.
#[derive(Debug, Clone, Default)]
pub(crate) struct Partitions {
    columns: Vec<(String, Value)>,
    notes: ReadNotes,
}

impl Partitions {
    /// The columns in the folders of the file `name`, whose path with `/` between its parts is
    /// `label`. If a column stands there twice, the inner folder counts.
    ///
    /// The values of the columns `texts` are texts.
    pub(crate) fn of_path(
        name: &str,
        label: &str,
        texts: &BTreeSet<String>,
        notes: &ReadNotes,
    ) -> Self {
        let mut columns: Vec<(String, Value)> = Vec::new();
        for (column, value) in columns_of(label) {
            let value = match value {
                Some(text) if !texts.contains(&column) => typed(text),
                Some(text) => Value::String(text),
                None => Value::Null,
            };
            if let Some(at) = columns.iter().position(|(other, _)| *other == column) {
                let reason = "a folder further in has the same name";
                notes.left_out(name, &column, reason);
                columns.remove(at);
            }
            columns.push((column, value));
        }
        Self { columns, notes: notes.clone() }
    }

    /// True if there is no column.
    pub(crate) fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// True if there is a column of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.columns.iter().any(|(column, _)| column == name)
    }

    /// The columns that a record of `file` lacks and `is_kept` wants. `own` finds the record's own
    /// value; another one than the folder's counts as a conflict.
    pub(crate) fn beside<'r>(
        &self,
        own: impl Fn(&str) -> Option<&'r Value>,
        file: &str,
        is_kept: impl Fn(&str) -> bool,
    ) -> Vec<(String, Value)> {
        let mut beside = Vec::new();
        for (name, value) in self.columns.iter().filter(|(name, _)| is_kept(name)) {
            match own(name) {
                None => beside.push((name.clone(), value.clone())),
                Some(own) if agree(own, value) => {}
                Some(_) => {
                    let folder = format!("{name}={}", text(value));
                    self.notes.add(file, name, NoteKind::Conflict, &folder, 1);
                }
            }
        }
        beside
    }
}

/// The columns some of whose values, in the paths of all files, are texts.
pub(crate) fn text_columns<'a>(paths: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let is_text = |value: &Option<String>| {
        value.as_ref().is_some_and(|text| matches!(typed(text.clone()), Value::String(_)))
    };
    let texts = paths.flat_map(columns_of).filter(|(_, value)| is_text(value));
    texts.map(|(column, _)| column).collect()
}

/// The columns in the folders of a path.
fn columns_of(path: &str) -> impl Iterator<Item = (String, Option<String>)> {
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').filter_map(column)
}

/// The column of a folder called `name=value`, and its value unless that is null.
fn column(folder: &str) -> Option<(String, Option<String>)> {
    let (name, value) = folder.split_once('=')?;
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let name = decoded(name);
    let value = match value {
        NULL => None,
        value => Some(decoded(value)),
    };
    (!name.trim().is_empty()).then_some((name, value))
}

/// True if the value of a file's column says the same as that of a folder, whose type is a guess.
fn agree(in_file: &Value, in_folder: &Value) -> bool {
    let (a, b) = (text(in_file), text(in_folder));
    let number = |text: &str| text.parse::<f64>().ok();
    a == b || number(&a).zip(number(&b)).is_some_and(|(a, b)| a == b)
}

/// A value as a folder name has it; null is empty, as in a csv file.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn folders_are_columns() {
        let path = "data/year=2023/city=S%C3%A3o%20Paulo/zip=02139/p=__HIVE_DEFAULT_PARTITION__/f";
        let expected = [
            ("year", json!(2023)),
            ("city", json!("São Paulo")),
            ("zip", json!("02139")),
            ("p", json!(null)),
        ];
        let columns = |path: &str| {
            let texts = text_columns([path].into_iter());
            Partitions::of_path("f", path, &texts, &ReadNotes::default()).columns
        };
        let expected = expected.map(|(name, value)| (name.to_owned(), value));
        assert_eq!(columns(path), expected);
        assert_eq!(columns("a=1/a=2/f"), [("a".to_owned(), json!(2))]);
        assert_eq!(columns("a%3Db=x=y/f"), [("a=b".to_owned(), json!("x=y"))]);
        assert_eq!(columns("=1/no/x=1"), []);
        assert_eq!(columns("100%=5%/f"), [("100%".to_owned(), json!("5%"))]);
    }

    #[test]
    fn values_agree_whatever_their_type() {
        for (a, b) in [(json!(1), json!("01")), (json!("x"), json!("x")), (json!(2.0), json!(2))] {
            assert!(agree(&a, &b), "{a} {b}");
        }
        assert!(!agree(&json!(1999), &json!("2023")));
        assert!(!agree(&json!(null), &json!("2023")));
        assert!(agree(&json!(""), &json!(null)));
    }
}
