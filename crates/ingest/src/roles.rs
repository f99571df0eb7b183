//! Roles of fields in the records of a file, whatever the records are.

use serde_json::{Map, Value};
use warpseek_error::{Place, Result};

use crate::document::Document;
use crate::fields::FieldRoles;
use crate::inputs::Content;
use crate::options::FieldMap;
use crate::query_fields::QueryRoles;

/// The rules by which fields get their roles.
#[derive(Debug, Clone)]
pub(crate) struct RoleRules {
    pub(crate) content: Content,
    map: FieldMap,
}

/// The roles of the fields in the records of one file.
#[derive(Debug, Clone)]
pub(crate) enum Roles {
    Documents(FieldRoles),
    Queries(QueryRoles),
}

impl RoleRules {
    pub(crate) fn new(content: Content, map: &FieldMap) -> Self {
        Self { content, map: map.clone() }
    }

    /// Assigns the roles by an object with the columns of `file`, which every record has.
    pub(crate) fn of_columns(&self, columns: &Map<String, Value>, file: &str) -> Result<Roles> {
        match self.content {
            Content::Documents => self.of_record(columns, file),
            Content::Queries => {
                Ok(Roles::Queries(QueryRoles::of_columns(columns, &self.map, file)?))
            }
        }
    }

    /// Assigns the roles by the first record of `file`; others may have other fields.
    pub(crate) fn of_record(&self, first: &Map<String, Value>, file: &str) -> Result<Roles> {
        Ok(match self.content {
            Content::Documents => Roles::Documents(FieldRoles::resolve(first, &self.map, file)?),
            Content::Queries => Roles::Queries(QueryRoles::of_record(first, &self.map, file)?),
        })
    }
}

impl Roles {
    /// The top-level fields that [`Roles::document`] reads; `None` for all of them.
    pub(crate) fn needed(&self, columns: &Map<String, Value>) -> Option<Vec<String>> {
        match self {
            Self::Documents(roles) => roles.needed(columns),
            Self::Queries(roles) => Some(roles.needed(columns)),
        }
    }

    /// Makes `record` a document. `number` stands for a missing id.
    pub(crate) fn document(
        &self,
        record: Map<String, Value>,
        place: Place,
        label: &str,
        number: u64,
    ) -> Result<Document> {
        match self {
            Self::Documents(roles) => roles.document(record, place, label, number),
            Self::Queries(roles) => roles.document(record, place, number),
        }
    }

    /// The fields of id and text, for a note; `None` for documents.
    pub(crate) fn describe(&self) -> Option<String> {
        match self {
            Self::Documents(_) => None,
            Self::Queries(roles) => Some(roles.describe()),
        }
    }
}
