//! The catalogue of metadata fields: their names, and the JSON types seen under each.

use super::database::Database;
use crate::error::Result;
use rusqlite::Connection;
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Number of values of each JSON type in a field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FieldTypes {
    /// Strings.
    pub texts: u64,
    /// Integers and floats.
    pub numbers: u64,
    /// `true` and `false`.
    pub booleans: u64,
    /// Arrays.
    pub arrays: u64,
    /// Objects; their members are catalogued as `field.member`.
    pub objects: u64,
    /// Nulls.
    pub nulls: u64,
}

impl FieldTypes {
    /// The types seen, most frequent first, for messages: `text, null`.
    pub fn describe(&self) -> String {
        let mut seen = [
            ("text", self.texts),
            ("number", self.numbers),
            ("boolean", self.booleans),
            ("array", self.arrays),
            ("object", self.objects),
            ("null", self.nulls),
        ];
        seen.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
        seen.iter().filter(|&&(_, n)| n > 0).map(|&(name, _)| name).collect::<Vec<_>>().join(", ")
    }
}

/// All fields by name; members of nested objects under dotted names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct FieldCatalog(BTreeMap<String, FieldTypes>);

/// Depth to which nested objects are catalogued.
const MAX_DEPTH: usize = 4;

impl FieldCatalog {
    /// The types seen under `name`.
    pub fn get(&self, name: &str) -> Option<&FieldTypes> {
        self.0.get(name)
    }

    /// All names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// All names with their types, in alphabetical order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &FieldTypes)> {
        self.0.iter().map(|(name, types)| (name.as_str(), types))
    }

    /// Up to three names that resemble `name`, nearest first.
    pub fn near(&self, name: &str) -> Vec<&str> {
        let wanted = name.to_lowercase();
        let mut scored: Vec<(f64, &str)> = self
            .names()
            .map(|n| (strsim::jaro_winkler(&wanted, &n.to_lowercase()), n))
            .filter(|&(likeness, _)| likeness > 0.7)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0));
        scored.into_iter().take(3).map(|(_, n)| n).collect()
    }

    /// Counts the fields of one document.
    pub(super) fn count(&mut self, metadata: &Map<String, Value>) {
        self.count_members("", metadata, 1);
    }

    fn count_members(&mut self, prefix: &str, members: &Map<String, Value>, depth: usize) {
        for (name, value) in members {
            let name = format!("{prefix}{name}");
            if let Value::Object(inner) = value
                && depth < MAX_DEPTH
            {
                self.count_members(&format!("{name}."), inner, depth + 1);
            }
            let types = self.0.entry(name).or_default();
            *match value {
                Value::String(_) => &mut types.texts,
                Value::Number(_) => &mut types.numbers,
                Value::Bool(_) => &mut types.booleans,
                Value::Array(_) => &mut types.arrays,
                Value::Object(_) => &mut types.objects,
                Value::Null => &mut types.nulls,
            } += 1;
        }
    }

    /// The catalogue in the database.
    pub(super) fn read(database: &Database) -> Result<Self> {
        let sql = "SELECT name, texts, numbers, booleans, arrays, objects, nulls FROM field";
        let fields = database.collect(sql, [], |r| {
            let (name, texts, numbers, booleans, arrays, objects, nulls) = r.try_into()?;
            Ok((name, FieldTypes { texts, numbers, booleans, arrays, objects, nulls }))
        })?;
        Ok(Self(fields.into_iter().collect()))
    }

    /// Adds these counts to the catalogue in the database.
    pub(super) fn add_to(&self, conn: &Connection) -> rusqlite::Result<()> {
        let mut add = conn.prepare_cached(
            "INSERT INTO field VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (name) DO UPDATE SET
             texts = texts + excluded.texts, numbers = numbers + excluded.numbers,
             booleans = booleans + excluded.booleans, arrays = arrays + excluded.arrays,
             objects = objects + excluded.objects, nulls = nulls + excluded.nulls",
        )?;
        for (name, types) in &self.0 {
            let FieldTypes { texts, numbers, booleans, arrays, objects, nulls } = types;
            add.execute((name, texts, numbers, booleans, arrays, objects, nulls))?;
        }
        Ok(())
    }
}
