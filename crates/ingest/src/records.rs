//! Records that a program holds in memory, as documents.

use serde_json::{Map, Value};
use warpseek_error::{Error, Place, Result};

use crate::document::{Document, TextKind, check_id};
use crate::fields::{FieldRoles, TEXT_NAMES};
use crate::notes::{NoteKind, ReadNotes, TITLE_ALONE};
use crate::options::FieldMap;
use crate::partition::Partitions;
use crate::paths::RECORDS_SOURCE;

/// Makes documents of the records of one sequence, as the lines of a jsonl stream would be.
///
/// The first record decides which field is what; see the crate's documentation.
#[derive(Debug)]
pub struct Records {
    name: String,
    map: FieldMap,
    roles: Option<FieldRoles>,
    number: u64,
    notes: ReadNotes,
    has_vectors: bool,
}

/// A record whose parts have their roles already.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordParts {
    /// The id; without one it is made from the record's number.
    pub id: Option<String>,
    /// The text; empty only where the vector is given, or a title.
    pub text: String,
    /// The title, empty if there is none. It is embedded in front of the text.
    pub title: String,
    /// The metadata, whose fields may have any names.
    pub metadata: Map<String, Value>,
}

impl Records {
    /// Records of a sequence that messages call `name`. With `has_vectors` their vectors are given,
    /// so that texts may be empty, or absent from all of them.
    pub fn new(name: impl Into<String>, map: FieldMap, has_vectors: bool) -> Self {
        let (name, notes) = (name.into(), ReadNotes::default());
        Self { name, map, roles: None, number: 0, notes, has_vectors }
    }

    /// The place of the next record, for messages about it.
    pub fn next_place(&self) -> Place {
        Place::record(&self.name, format!("record {}", self.number + 1))
    }

    /// Notes on the records so far. A clone goes on with these records.
    pub fn notes(&self) -> &ReadNotes {
        &self.notes
    }

    /// The name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts a record that cannot be read.
    pub fn skip(&mut self) {
        self.number += 1;
    }

    /// Makes the next record a document.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with the number of the record and the field.
    pub fn document(&mut self, mut record: Map<String, Value>) -> Result<Document> {
        let place = self.next_place();
        self.number += 1;
        let has_text = || TEXT_NAMES.iter().any(|name| record.contains_key(*name));
        if self.has_vectors && self.map.text.is_none() && !has_text() {
            record.insert("text".to_owned(), Value::String(String::new()));
        }
        let roles = match &mut self.roles {
            Some(roles) if !roles.is_provisional => roles,
            known => {
                let parts = (Partitions::default(), &self.notes);
                match (FieldRoles::of_record(&record, &self.map, &self.name, parts), known) {
                    (Ok(mut roles), known) => {
                        roles.allows_empty_texts = self.has_vectors;
                        known.insert(roles)
                    }
                    // The provisional roles tell what this record lacks.
                    (Err(_), Some(roles)) => roles,
                    (Err(e), None) => return Err(e),
                }
            }
        };
        let document = roles.document(record, place, &self.name, self.number)?;
        Ok(Document { source: Some(RECORDS_SOURCE.into()), ..document })
    }

    /// Makes a record of known parts the next document.
    ///
    /// # Errors
    ///
    /// As [`Records::document`].
    pub fn document_of(&mut self, parts: RecordParts) -> Result<Document> {
        let place = self.next_place();
        self.number += 1;
        if parts.text.trim().is_empty() && !self.has_vectors {
            if parts.title.trim().is_empty() {
                return Err(Error::input(place.field("text"), "the text is empty"));
            }
            self.notes.add(&self.name, "text", NoteKind::NoText, TITLE_ALONE, 1);
        }
        let has_own_id = parts.id.is_some();
        let id = parts.id.unwrap_or_else(|| format!("{}:{}", self.name, self.number));
        check_id(&id, &place.clone().field("id"))?;
        Ok(Document {
            title: parts.title,
            embed_title: true,
            metadata: parts.metadata,
            kind: TextKind::Record,
            has_own_id,
            source: Some(RECORDS_SOURCE.into()),
            ..Document::new(id, parts.text, place)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn records_are_documents_as_lines_of_jsonl_are() {
        let mut records = Records::new("records", FieldMap::default(), false);
        let document = records
            .document(object(json!({"_id": 7, "title": "T", "text": "one", "metadata": {"y": 1}})))
            .unwrap();
        assert_eq!((document.id.as_str(), document.title.as_str()), ("7", "T"));
        assert_eq!(Value::Object(document.metadata), json!({"y": 1}));
        let error = records.document(object(json!({"_id": "8", "text": ""}))).unwrap_err();
        assert_eq!(error.to_string(), "records, record 2, field 'text': the text is empty");
    }

    #[test]
    fn parts_keep_metadata_of_any_name_and_need_a_text_or_a_vector() {
        let mut records = Records::new("records", FieldMap::default(), true);
        let metadata = object(json!({"id": 1, "text": "x", "title": null}));
        let parts = RecordParts { metadata: metadata.clone(), ..RecordParts::default() };
        let document = records.document_of(parts.clone()).unwrap();
        assert_eq!((document.id.as_str(), document.has_own_id), ("records:1", false));
        assert_eq!(document.metadata, metadata);
        assert_eq!(records.document(object(json!({"id": "a"}))).unwrap().text, "");
        let mut embedded = Records::new("records", FieldMap::default(), false);
        assert!(embedded.document_of(parts).is_err());
        assert!(embedded.document(object(json!({"id": "a"}))).is_err());
    }
}
