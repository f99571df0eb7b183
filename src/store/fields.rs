//! The catalogue of metadata fields: names, and the JSON types seen under each.

use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How often each JSON type was seen in a field.
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
pub struct FieldCatalog(pub(super) BTreeMap<String, FieldTypes>);

/// How deep nested objects are catalogued.
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

    /// Counts the fields of one record.
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

    /// Up to three names that look like `name`, nearest first.
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
}
