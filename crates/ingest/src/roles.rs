//! Roles of fields in the records of a file, whatever the records are.

use serde_json::{Map, Value};
use warpseek_error::{Place, Result};

use crate::document::Document;
use crate::fields::FieldRoles;
use crate::inputs::{Content, InputFile};
use crate::notes::ReadNotes;
use crate::options::{FieldMap, ReadOptions};
use crate::partition::Partitions;
use crate::query_fields::QueryRoles;

/// The rules by which the fields of a file get their roles.
#[derive(Debug, Clone)]
pub(crate) struct RoleRules {
    pub(crate) content: Content,
    map: FieldMap,
    /// The file's name, for messages.
    file: String,
    partitions: Partitions,
    notes: ReadNotes,
}

/// The roles of the fields in the records of one file.
#[derive(Debug, Clone)]
pub(crate) enum Roles {
    Documents(FieldRoles),
    Queries(QueryRoles),
}

impl RoleRules {
    /// The rules for `input`. Conflicts of fields with partition columns, and records without text,
    /// go to `notes`.
    pub(crate) fn new(input: &InputFile, options: &ReadOptions, notes: &ReadNotes) -> Self {
        Self {
            content: input.content,
            map: options.fields.clone(),
            file: input.name.clone(),
            partitions: input.partitions(notes),
            notes: notes.clone(),
        }
    }

    /// Assigns the roles by an object with the columns of the file, which every record has.
    pub(crate) fn of_columns(&self, columns: &Map<String, Value>) -> Result<Roles> {
        let Self { content, map, file, partitions, notes } = self;
        Ok(match content {
            Content::Documents => {
                let parts = (partitions.clone(), notes);
                Roles::Documents(FieldRoles::of_columns(columns, map, file, parts)?)
            }
            Content::Queries => Roles::Queries(QueryRoles::of_columns(columns, map, file)?),
        })
    }

    /// Assigns the roles by the first record of the file; others may have other fields.
    pub(crate) fn of_record(&self, first: &Map<String, Value>) -> Result<Roles> {
        let Self { content, map, file, partitions, notes } = self;
        Ok(match content {
            Content::Documents => {
                let parts = (partitions.clone(), notes);
                Roles::Documents(FieldRoles::of_record(first, map, file, parts)?)
            }
            Content::Queries => Roles::Queries(QueryRoles::of_record(first, map, file)?),
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

    /// True if no record can do without this field: it is the text or (part of) the id. In queries
    /// every field that is read counts.
    pub(crate) fn is_essential(&self, field: &str) -> bool {
        match self {
            Self::Documents(roles) => roles.is_essential(field),
            Self::Queries(roles) => roles.reads(field),
        }
    }

    /// True if the top-level field is essential or has a field that is.
    pub(crate) fn is_essential_part(&self, field: &str) -> bool {
        match self {
            Self::Documents(roles) => roles.is_essential_part(field),
            Self::Queries(roles) => roles.reads(field),
        }
    }

    /// True if the records so far left open which field is the text.
    pub(crate) fn is_provisional(&self) -> bool {
        matches!(self, Self::Documents(roles) if roles.is_provisional)
    }

    /// True if the file's path has columns that its records share.
    pub(crate) fn has_partitions(&self) -> bool {
        matches!(self, Self::Documents(roles) if roles.has_partitions())
    }

    /// True if the field is the title.
    pub(crate) fn is_title(&self, field: &str) -> bool {
        matches!(self, Self::Documents(roles) if roles.is_title(field))
    }

    /// True if the user chose this field, or an object that it belongs to, as metadata.
    pub(crate) fn is_chosen(&self, field: &str) -> bool {
        matches!(self, Self::Documents(roles) if roles.is_chosen(field))
    }

    /// True if a document shows anything of this field, which may be one of an object.
    pub(crate) fn keeps(&self, field: &str) -> bool {
        match self {
            Self::Documents(roles) => roles.keeps(field),
            Self::Queries(roles) => roles.reads(field),
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
