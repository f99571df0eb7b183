//! Records that a program holds in memory, as documents.

use serde_json::{Map, Value};
use warpseek_error::{Error, Place, Result};

use crate::document::{Document, TextKind, check_id};
use crate::fields::FieldRoles;
use crate::notes::ReadNotes;
use crate::options::FieldMap;
use crate::partition::Partitions;
use crate::paths::STREAM_SOURCE;

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
}

/// A record whose parts have their roles already.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecordParts {
    /// The id; without one it is made from the record's number.
    pub id: Option<String>,
    /// The text; empty only where the vector is given.
    pub text: String,
    /// The title, empty if there is none. It is embedded in front of the text.
    pub title: String,
    /// The metadata, whose fields may have any names.
    pub metadata: Map<String, Value>,
}

impl Records {
    /// Records of a sequence that messages call `name`.
    pub fn new(name: impl Into<String>, map: FieldMap) -> Self {
        Self { name: name.into(), map, roles: None, number: 0, notes: ReadNotes::default() }
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
    pub fn document(&mut self, record: Map<String, Value>) -> Result<Document> {
        let place = self.next_place();
        self.number += 1;
        let roles = match &mut self.roles {
            Some(roles) => roles,
            empty => {
                let roles =
                    FieldRoles::resolve(&record, &self.map, &self.name, Partitions::default())?;
                empty.insert(roles)
            }
        };
        let document = roles.document(record, place, &self.name, self.number)?;
        Ok(Document { source: Some(STREAM_SOURCE.into()), ..document })
    }

    /// Makes a record of known parts the next document. An empty text is refused unless
    /// `has_vector`.
    ///
    /// # Errors
    ///
    /// As [`Records::document`].
    pub fn document_of(&mut self, parts: RecordParts, has_vector: bool) -> Result<Document> {
        let place = self.next_place();
        self.number += 1;
        if parts.text.trim().is_empty() && !has_vector {
            return Err(Error::input(place.field("text"), "the text is empty"));
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
            source: Some(STREAM_SOURCE.into()),
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
        let mut records = Records::new("records", FieldMap::default());
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
        let mut records = Records::new("records", FieldMap::default());
        let metadata = object(json!({"id": 1, "text": "x", "title": null}));
        let parts = RecordParts { metadata: metadata.clone(), ..RecordParts::default() };
        assert!(records.document_of(parts.clone(), false).is_err());
        let document = records.document_of(parts, true).unwrap();
        assert_eq!((document.id.as_str(), document.has_own_id), ("records:2", false));
        assert_eq!(document.metadata, metadata);
    }
}
