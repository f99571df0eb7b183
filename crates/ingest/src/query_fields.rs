//! Roles of the fields of queries: id, text, title, vector, filter.

use serde_json::{Map, Value};
use warpseek_error::{Error, Place, Result};

use crate::document::Document;
use crate::fields::{find, list, names, no_such_field};
use crate::json::kind;
use crate::options::FieldMap;

/// Names of the id, in the order of preference; `-` and blanks count as `_`, upper as lower case.
const ID_NAMES: [&str; 12] = [
    "_id",
    "id",
    "query_id",
    "qid",
    "queryid",
    "question_id",
    "topic_id",
    "doc_id",
    "docid",
    "docno",
    "pid",
    "passage_id",
];

/// Names of the text.
const TEXT_NAMES: [&str; 13] = [
    "text",
    "query",
    "question",
    "query_text",
    "question_text",
    "queries",
    "contents",
    "content",
    "body",
    "passage",
    "sentence",
    "chunk",
    "abstract",
];

const TITLE: &str = "title";
const VECTOR: &str = "vector";
const FILTER: &str = "filter";

/// The roles of the fields of the queries of one file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QueryRoles {
    /// The field of the id; `None` for the known names, in each record anew.
    id: Option<String>,
    text: Option<String>,
    /// Another column that could be the text.
    other_text: Option<String>,
}

/// True for a name by which a header is recognised.
pub(crate) fn is_known(name: &str) -> bool {
    let name = normalized(name);
    let known = ID_NAMES.iter().chain(&TEXT_NAMES).chain([&TITLE]);
    known.into_iter().any(|known| *known == name)
}

impl QueryRoles {
    /// The roles in files whose records may differ in their fields; `first` must have the fields
    /// that the user names.
    pub(crate) fn of_record(
        first: &Map<String, Value>,
        map: &FieldMap,
        file: &str,
    ) -> Result<Self> {
        for (name, flag) in [(&map.id, "--id-field"), (&map.text, "--query-field")] {
            if let Some(name) = name
                && find(first, name).is_none()
            {
                return Err(no_such_field(name, first, flag, file));
            }
        }
        Ok(Self { id: map.id.clone(), text: map.text.clone(), other_text: None })
    }

    /// The roles in a table with these columns.
    pub(crate) fn of_columns(
        columns: &Map<String, Value>,
        map: &FieldMap,
        file: &str,
    ) -> Result<Self> {
        let given = Self::of_record(columns, map, file)?;
        let name = |found: Option<(&str, &Value)>| found.map(|(name, _)| name.to_owned());
        let mut text = given.text.clone().or_else(|| name(given.find_text(columns)));
        let id = given.id.clone().or_else(|| {
            let id = name(find_known(columns, &ID_NAMES));
            id.filter(|id| text.as_ref() != Some(id))
        });
        if text.is_none() && !columns.contains_key(VECTOR) {
            // A single column besides the id is the text, whatever its name.
            let is_other = |name: &&String| id.as_ref() != Some(*name) && *name != FILTER;
            let others: Vec<&String> = columns.keys().filter(is_other).collect();
            let [only] = others[..] else {
                let columns = list(&names(columns, 1));
                let reason = format!(
                    "no column with the text: it has {columns}; name one with --query-field"
                );
                return Err(Error::input(Place::file(file), reason));
            };
            text = Some(only.clone());
        }
        let other_text = match &given.text {
            Some(_) => None,
            None => columns.keys().find(|name| {
                let is_text = TEXT_NAMES.contains(&normalized(name).as_str());
                is_text && text.as_ref() != Some(*name) && id.as_ref() != Some(*name)
            }),
        };
        Ok(Self { id, text, other_text: other_text.cloned() })
    }

    /// The top-level fields that [`QueryRoles::document`] reads.
    pub(crate) fn needed(&self, columns: &Map<String, Value>) -> Vec<String> {
        let title = find_known(columns, &[TITLE]).map(|(name, _)| name.to_owned());
        let fixed = [VECTOR, FILTER].map(str::to_owned).into_iter().chain(title);
        let given = [&self.id, &self.text].into_iter().flatten();
        let top = |name: &String| name.split('.').next().unwrap_or(name).to_owned();
        given.clone().cloned().chain(given.map(top)).chain(fixed).collect()
    }

    /// True if the top-level field is read, or one of its fields.
    pub(crate) fn reads(&self, field: &str) -> bool {
        let top = |name: &String| name.split('.').next() == Some(field);
        [VECTOR, FILTER].contains(&field)
            || [&self.id, &self.text].into_iter().flatten().any(|name| name == field || top(name))
            || self.text.is_none() && TEXT_NAMES.contains(&normalized(field).as_str())
            || self.id.is_none() && ID_NAMES.contains(&normalized(field).as_str())
            || normalized(field) == TITLE
    }

    /// The roles, for a note.
    pub(crate) fn describe(&self) -> String {
        let ids = match &self.id {
            Some(id) => format!("ids from '{id}'"),
            None => "no ids, so they are numbered".to_owned(),
        };
        let texts = match &self.text {
            Some(text) => format!("texts from '{text}'"),
            None => format!("vectors from '{VECTOR}'"),
        };
        let other = self
            .other_text
            .as_ref()
            .map(|name| format!(" (not from '{name}': --query-field chooses)"));
        format!("{ids}, {texts}{}", other.unwrap_or_default())
    }

    /// Makes `record` a document whose metadata holds the vector and the filter, where it has them.
    /// `number` stands for a missing id.
    pub(crate) fn document(
        &self,
        mut record: Map<String, Value>,
        place: Place,
        number: u64,
    ) -> Result<Document> {
        let wrong = |name: &str, wanted: &str, got: &Value| {
            let reason = format!("expected {wanted}, not {}", kind(got));
            Err(Error::input(place.clone().field(name), reason))
        };
        let mut text_name = None;
        let text = match self.find_text(&record) {
            Some((name, Value::String(text))) => {
                text_name = Some(name);
                text.clone()
            }
            Some((name, Value::Null)) if has_vector(&record) => {
                text_name = Some(name);
                String::new()
            }
            Some((name, other)) => return wrong(name, "text", other),
            None if record.contains_key(VECTOR) => String::new(),
            None => {
                let have = list(&names(&record, 1)).replace('\'', "");
                let reason = format!(
                    "no field 'text', 'query' or 'question'; it has {have}: name the field with \
                     --query-field"
                );
                return Err(Error::input(place, reason));
            }
        };
        let id = match &self.id {
            Some(name) => find(&record, name).map(|value| (name.as_str(), value)),
            None => find_known(&record, &ID_NAMES).filter(|(name, _)| Some(*name) != text_name),
        };
        let id = match id {
            None if self.id.is_some() => {
                let name = self.id.clone().unwrap_or_default();
                return Err(Error::input(place.field(name), "the record has no id"));
            }
            None => number.to_string(),
            Some((_, Value::String(id))) if !id.trim().is_empty() => id.trim().to_owned(),
            Some((_, Value::Number(id))) if !id.is_f64() => id.to_string(),
            Some((name, Value::String(_))) => {
                return Err(Error::input(place.field(name), "the id is empty"));
            }
            Some((name, other)) => return wrong(name, "text or an integer", other),
        };
        if text.trim().is_empty() && !has_vector(&record) {
            let name = text_name.unwrap_or("text").to_owned();
            return Err(Error::input(place.field(name), "the record has no text"));
        }
        let is_free = |name: &str| text_name != Some(name) && self.id.as_deref() != Some(name);
        let title = match find_known(&record, &[TITLE]) {
            Some((name, Value::String(title))) if is_free(name) => title.clone(),
            _ => String::new(),
        };
        let mut metadata = Map::new();
        for name in [VECTOR, FILTER] {
            if let Some(value) = record.shift_remove(name).filter(|value| !value.is_null()) {
                metadata.insert(name.to_owned(), value);
            }
        }
        let embed_title = !title.is_empty();
        Ok(Document { title, embed_title, metadata, ..Document::new(id, text, place) })
    }

    fn find_text<'a>(&'a self, record: &'a Map<String, Value>) -> Option<(&'a str, &'a Value)> {
        match &self.text {
            Some(name) => find(record, name).map(|value| (name.as_str(), value)),
            None => {
                let is_free = |(name, _): &(&str, &Value)| self.id.as_deref() != Some(*name);
                find_known(record, &TEXT_NAMES).filter(is_free)
            }
        }
    }
}

fn has_vector(record: &Map<String, Value>) -> bool {
    record.get(VECTOR).is_some_and(|vector| !vector.is_null() && vector != "")
}

/// The field with the first of `names`: spelled so, else in another spelling.
fn find_known<'a>(record: &'a Map<String, Value>, names: &[&str]) -> Option<(&'a str, &'a Value)> {
    let exact = names.iter().find_map(|name| record.get_key_value(*name));
    let found = exact.or_else(|| {
        names.iter().find_map(|name| record.iter().find(|(key, _)| normalized(key) == *name))
    });
    found.map(|(name, value)| (name.as_str(), value))
}

/// A name in lower case, with `_` for `-` and blanks.
fn normalized(name: &str) -> String {
    name.trim().to_lowercase().replace(['-', ' '], "_")
}
