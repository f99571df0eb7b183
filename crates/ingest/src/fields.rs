//! Roles of a record's fields: id, text, title, metadata.

use std::collections::HashSet;

use serde_json::{Map, Value};
use warpseek_error::{Error, Place, Result};

use crate::document::{Document, TextKind, check_id};
use crate::json::kind;
use crate::message::shown;
use crate::notes::{NoteKind, ReadNotes, TITLE_ALONE};
use crate::options::FieldMap;
use crate::partition::Partitions;
use crate::questions::{question_and_answer, with_question};

const ID_NAMES: [&str; 6] = ["id", "_id", "doc_id", "docid", "docno", "pid"];
pub(crate) const TEXT_NAMES: [&str; 7] =
    ["text", "contents", "content", "body", "passage", "chunk", "abstract"];
const TITLE_NAMES: [&str; 3] = ["title", "headline", "name"];

/// The object in BEIR's layout whose fields move up into the metadata.
const BEIR_METADATA: &str = "metadata";
/// The field in the chunked layout that counts the chunks of a document.
const CHUNK_ID: &str = "chunk-id";

/// The roles of the fields in the records of one file.
#[derive(Debug, Clone)]
pub(crate) struct FieldRoles {
    layout: RecordLayout,
    id: Option<String>,
    text: String,
    /// The question in front of the text, which is its answer.
    question: Option<String>,
    title: Option<String>,
    metadata: Option<Vec<String>>,
    /// Further metadata, which is the same for all records.
    partitions: Partitions,
    /// True if the records so far have no text, so that its field is a guess.
    pub(crate) is_provisional: bool,
    /// True if texts may be empty, as those of given vectors may.
    pub(crate) allows_empty_texts: bool,
    /// Counts records without a text.
    notes: ReadNotes,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum RecordLayout {
    /// `_id`, `text`, perhaps `title` and an object `metadata`.
    Beir,
    /// `id`, `chunk-id`, `chunk`: several records per document.
    Chunked,
    Other,
}

impl FieldRoles {
    /// Assigns the roles by the first record of `file`. If it has a title and no text, the text's
    /// field is a guess, and the roles are provisional.
    pub(crate) fn of_record(
        first: &Map<String, Value>,
        map: &FieldMap,
        file: &str,
        (partitions, notes): (Partitions, &ReadNotes),
    ) -> Result<Self> {
        let has_text = || TEXT_NAMES.iter().any(|name| first.contains_key(*name));
        if map.text.is_some() || has_text() || !has_title_alone(first, map) {
            return Self::of_columns(first, map, file, (partitions, notes));
        }
        let mut sample = first.clone();
        sample.insert(TEXT_NAMES[0].into(), Value::Null);
        let roles = Self::of_columns(&sample, map, file, (partitions, notes))?;
        Ok(Self { is_provisional: true, ..roles })
    }

    /// Assigns the roles by `sample`, a record of `file` or an object with its columns.
    pub(crate) fn of_columns(
        sample: &Map<String, Value>,
        map: &FieldMap,
        file: &str,
        (partitions, notes): (Partitions, &ReadNotes),
    ) -> Result<Self> {
        let has = |name: &str| sample.contains_key(name);
        let layout = match (map.id.as_deref(), map.text.as_deref()) {
            (None | Some("_id"), None | Some("text")) if has("_id") && has("text") => {
                RecordLayout::Beir
            }
            (None, None | Some("chunk")) if has("id") && has(CHUNK_ID) && has("chunk") => {
                RecordLayout::Chunked
            }
            _ => RecordLayout::Other,
        };
        // A name that the user gives must be a field of the sample.
        let given = |name: &Option<String>, flag: &str| match name {
            Some(name) if find(sample, name).is_none() => {
                Err(no_such_field(name, sample, flag, file))
            }
            name => Ok(name.clone()),
        };
        let first_of = |names: &[&str], taken: [Option<&String>; 2]| {
            let free = |name: &&&str| has(name) && !taken.iter().flatten().any(|t| t == *name);
            names.iter().find(free).map(|name| (*name).to_string())
        };

        let (question, text) = match (layout, given(&map.text, "--text-field")?) {
            (RecordLayout::Chunked, _) => (None, "chunk".into()),
            (_, Some(name)) => (None, name),
            (_, None) => match first_of(&TEXT_NAMES, [map.id.as_ref(), map.title.as_ref()]) {
                Some(name) => (None, name),
                None => question_and_answer(sample, map).ok_or_else(|| {
                    let fields = list(&names(sample, 1));
                    let reason =
                        format!("no text field: it has {fields}; name one with --text-field");
                    Error::input(Place::file(file), reason)
                })?,
            },
        };
        let id = match (layout, given(&map.id, "--id-field")?) {
            (RecordLayout::Beir, _) => Some("_id".into()),
            (RecordLayout::Chunked, _) => Some("id".into()),
            (RecordLayout::Other, Some(name)) => Some(name),
            (RecordLayout::Other, None) => first_of(&ID_NAMES, [Some(&text), map.title.as_ref()]),
        };
        let title = given(&map.title, "--title-field")?.or_else(|| {
            // A title that only later records have is still a title.
            first_of(&TITLE_NAMES, [Some(&text), id.as_ref()])
                .or_else(|| Some("title".into()))
                .filter(|title| *title != text && Some(title) != id.as_ref())
        });
        for name in map.metadata.iter().flatten() {
            if find_metadata(sample, name, layout).is_none() && !partitions.has(name) {
                return Err(no_such_field(name, sample, "--metadata-fields", file));
            }
        }
        Ok(Self {
            layout,
            id,
            text,
            question,
            title,
            metadata: map.metadata.clone(),
            partitions,
            is_provisional: false,
            allows_empty_texts: false,
            notes: notes.clone(),
        })
    }

    /// The top-level fields that [`FieldRoles::document`] reads; `None` for all of them.
    pub(crate) fn needed(&self, sample: &Map<String, Value>) -> Option<Vec<String>> {
        let metadata = self.metadata.as_ref()?.iter();
        let parts = [self.question.as_ref(), self.id.as_ref(), self.title.as_ref()];
        let roles = [Some(&self.text)].into_iter().chain(parts);
        let top = |name: &String| match sample.contains_key(name) {
            true => name.clone(),
            false => name.split('.').next().unwrap_or(name).to_owned(),
        };
        let mut needed = vec![CHUNK_ID.into(), BEIR_METADATA.into()];
        needed.extend(roles.flatten().chain(metadata).map(top));
        Some(needed)
    }

    /// True if the file's path has partition columns.
    pub(crate) fn has_partitions(&self) -> bool {
        !self.partitions.is_empty()
    }

    /// True if no record can do without this field: it is the text or (part of) the id.
    pub(crate) fn is_essential(&self, field: &str) -> bool {
        self.text == field
            || self.id.as_deref() == Some(field)
            || self.layout == RecordLayout::Chunked && field == CHUNK_ID
    }

    /// True if the top-level field is essential or has a field that is.
    pub(crate) fn is_essential_part(&self, field: &str) -> bool {
        self.is_essential(field)
            || is_below(&self.text, field)
            || self.id.iter().any(|id| is_below(id, field))
    }

    /// True if the field is the title.
    pub(crate) fn is_title(&self, field: &str) -> bool {
        self.title.as_deref() == Some(field)
    }

    /// True if the user chose this field, or an object that it belongs to, as metadata.
    pub(crate) fn is_chosen(&self, field: &str) -> bool {
        self.metadata.iter().flatten().any(|name| is_below(field, name))
    }

    /// True if a document shows anything of this field, which may be one of an object.
    pub(crate) fn keeps(&self, field: &str) -> bool {
        let Some(metadata) = &self.metadata else { return true };
        let mut names =
            metadata.iter().chain(&self.title).chain(&self.question).chain([&self.text]);
        names.any(|name| is_below(name, field) || is_below(field, name))
            || self.layout == RecordLayout::Beir && field == BEIR_METADATA
    }

    /// Makes `record` a document: the `number`th record of the file `label`, counted from 1.
    pub(crate) fn document(
        &self,
        mut record: Map<String, Value>,
        place: Place,
        label: &str,
        number: u64,
    ) -> Result<Document> {
        let (id, doc_id) = self.ids(&record, &place, label, number)?;
        let own = |name: &str| find_metadata(&record, name, self.layout);
        let partitions = self.partitions.beside(own, &place.file, |name| self.keeps(name));
        let selected = self.metadata.as_ref().map(|names| {
            let found = |name: &String| {
                Some((name.clone(), find_metadata(&record, name, self.layout)?.clone()))
            };
            names.iter().filter_map(found).collect::<Map<_, _>>()
        });
        let possible_text = match self.is_provisional {
            true => possible_text(&record, [self.id.as_ref(), self.title.as_ref()]),
            false => None,
        };
        let possible_text = possible_text.map(shown);
        if self.layout == RecordLayout::Beir && selected.is_none() {
            record = flatten_metadata(record);
        }
        let question = self.question.as_ref().and_then(|name| remove(&mut record, name));
        let found = with_question(question, remove(&mut record, &self.text));
        let title = match &self.title {
            Some(name) => title(remove(&mut record, name), name, &place)?,
            None => String::new(),
        };
        let is_blank = match &found {
            None | Some(Value::Null) => true,
            Some(value) => value.as_str().is_some_and(|text| text.trim().is_empty()),
        };
        let has_title = !title.trim().is_empty();
        let text = match found {
            Some(Value::String(empty)) if self.allows_empty_texts && is_blank => empty,
            None if possible_text.is_some() => {
                let name = possible_text.unwrap_or_default();
                let reason = format!("the record has no text, unless '{name}' is it");
                let cure = "name the field of the text with --text-field";
                return Err(Error::input(place, format!("{reason}: {cure}")));
            }
            _ if is_blank && has_title => {
                self.notes.add(&place.file, &self.text, NoteKind::NoText, TITLE_ALONE, 1);
                String::new()
            }
            value => text(value, &self.text, &place)?,
        };
        let has_text = !text.is_empty();
        if let Some(name) = &self.id {
            remove(&mut record, name);
        }
        let mut metadata = selected.unwrap_or(record);
        metadata.extend(partitions);
        Ok(Document {
            id,
            doc_id,
            title,
            text,
            embed_title: self.layout != RecordLayout::Chunked || !has_text,
            metadata,
            is_untyped: false,
            kind: TextKind::Record,
            place,
            has_own_id: self.id.is_some(),
            source: None,
        })
    }

    /// Returns `id` and `doc_id`.
    fn ids(
        &self,
        record: &Map<String, Value>,
        place: &Place,
        label: &str,
        number: u64,
    ) -> Result<(String, String)> {
        let part = |name: &str| {
            let place = place.clone().field(name);
            let part = id_text(find(record, name), &place)?;
            check_id(&part, &place)?;
            Ok::<_, Error>(part)
        };
        let (id, doc_id) = match (&self.id, self.layout) {
            (None, _) => (format!("{label}:{number}"), None),
            (Some(name), RecordLayout::Chunked) => {
                let doc_id = part(name)?;
                (format!("{doc_id}-{}", part(CHUNK_ID)?), Some(doc_id))
            }
            (Some(name), _) => (part(name)?, None),
        };
        check_id(&id, place)?;
        Ok((id.clone(), doc_id.unwrap_or(id)))
    }
}

/// Makes a JSON object a document, as a line of a jsonl file would be. It must have an id. The text
/// is empty if the object has a title alone.
///
/// # Errors
///
/// [`Error::Input`] at `place`, with the field.
pub fn from_object(object: Map<String, Value>, place: Place) -> Result<Document> {
    let map = FieldMap::default();
    for (role, names) in [("id", &ID_NAMES[..]), ("text", &TEXT_NAMES)] {
        let is_absent = !names.iter().any(|name| object.contains_key(*name));
        if is_absent && (role == "id" || !has_title_alone(&object, &map)) {
            let quoted: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
            let names = quoted.join(", ");
            let reason =
                format!("there is no {role}: a field of one of the names {names} is needed");
            return Err(Error::input(place, reason));
        }
    }
    let parts = (Partitions::default(), &ReadNotes::default());
    let fields = FieldRoles::of_record(&object, &map, &place.file, parts)?;
    fields.document(object, place, "", 0)
}

/// True if a record has a title, and no field beside it that could be the text.
fn has_title_alone(record: &Map<String, Value>, map: &FieldMap) -> bool {
    let title = match &map.title {
        Some(name) => find(record, name),
        None => TITLE_NAMES.iter().find_map(|name| record.get(*name)),
    };
    title.and_then(Value::as_str).is_some_and(|title| !title.trim().is_empty())
        && possible_text(record, [map.id.as_ref(), map.title.as_ref()]).is_none()
}

/// The first field that could be the text: a string of several words that is neither the id nor the
/// title, for which the names of `taken` stand too.
fn possible_text<'a>(
    record: &'a Map<String, Value>,
    taken: [Option<&String>; 2],
) -> Option<&'a str> {
    let is_taken = |name: &String| {
        let given = taken.iter().flatten().any(|taken| *taken == name);
        given || TITLE_NAMES.contains(&name.as_str()) || ID_NAMES.contains(&name.as_str())
    };
    let has_words =
        |value: &Value| value.as_str().is_some_and(|text| text.split_whitespace().nth(1).is_some());
    let found = record.iter().find(|(name, value)| has_words(value) && !is_taken(name));
    found.map(|(name, _)| name.as_str())
}

/// True if the dotted name `name` is `field` or leads to a field of it.
fn is_below(name: &str, field: &str) -> bool {
    name.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The error for a field that the user names with `flag` and that `sample` does not have.
pub(crate) fn no_such_field(
    name: &str,
    sample: &Map<String, Value>,
    flag: &str,
    file: &str,
) -> Error {
    let names = names(sample, 3);
    let mut near: Vec<(f64, &String)> = names
        .iter()
        .map(|n| (strsim::jaro_winkler(&n.to_lowercase(), &name.to_lowercase()), n))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<String> = near.into_iter().take(3).map(|(_, n)| n.clone()).collect();
    let cure = match near.is_empty() {
        true => format!("it has {}", list(&names)),
        false => format!("did you mean {}?", list(&near)),
    };
    let place = Place::file(file).field(shown(name));
    Error::input(place, format!("no such field in the first record ({flag}): {cure}"))
}

/// All field names, nested ones with dots, down to `depth` levels.
pub(crate) fn names(sample: &Map<String, Value>, depth: usize) -> Vec<String> {
    let mut names = Vec::new();
    for (name, value) in sample {
        names.push(name.clone());
        if let Value::Object(inner) = value
            && depth > 1
        {
            names.extend(self::names(inner, depth - 1).iter().map(|n| format!("{name}.{n}")));
        }
    }
    names
}

/// Names for messages.
pub(crate) fn list(names: &[String]) -> String {
    const MAX_NAMES: usize = 20;
    if names.is_empty() {
        return "no fields at all".into();
    }
    let quoted: Vec<String> =
        names.iter().take(MAX_NAMES).map(|name| format!("'{}'", shown(name))).collect();
    let more = match names.len().saturating_sub(MAX_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    quoted.join(", ") + &more
}

/// Finds the field with exactly the name `name`, else the one along its dots.
pub(crate) fn find<'a>(record: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    record.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        find(record.get(first)?.as_object()?, rest)
    })
}

/// Takes the field `name` out, with the objects that it leaves empty.
fn remove(record: &mut Map<String, Value>, name: &str) -> Option<Value> {
    if record.contains_key(name) {
        return record.shift_remove(name);
    }
    let (first, rest) = name.split_once('.')?;
    let inner = record.get_mut(first)?.as_object_mut()?;
    let value = remove(inner, rest)?;
    if inner.is_empty() {
        record.shift_remove(first);
    }
    Some(value)
}

fn find_metadata<'a>(
    record: &'a Map<String, Value>,
    name: &str,
    layout: RecordLayout,
) -> Option<&'a Value> {
    let inner = || match layout {
        RecordLayout::Beir => find(record.get(BEIR_METADATA)?.as_object()?, name),
        RecordLayout::Chunked | RecordLayout::Other => None,
    };
    find(record, name).or_else(inner)
}

/// Replaces an object named `metadata` by its fields.
fn flatten_metadata(record: Map<String, Value>) -> Map<String, Value> {
    let taken: HashSet<String> = record.keys().cloned().collect();
    let mut flat = Map::new();
    for (name, value) in record {
        match value {
            Value::Object(inner) if name == BEIR_METADATA => {
                flat.extend(inner.into_iter().map(|(name, value)| match taken.contains(&name) {
                    true => (format!("{BEIR_METADATA}.{name}"), value),
                    false => (name, value),
                }));
            }
            value => {
                flat.insert(name, value);
            }
        }
    }
    flat
}

fn id_text(value: Option<&Value>, place: &Place) -> Result<String> {
    let reason = match value {
        Some(Value::String(id)) => return Ok(id.clone()),
        Some(Value::Number(id)) if id.is_i64() || id.is_u64() => return Ok(id.to_string()),
        Some(Value::Number(id)) => {
            format!("an id must be a string or a 64-bit integer, found {id}: write it as a string")
        }
        Some(other) => format!("an id must be a string or an integer, found {}", kind(other)),
        None => "this record has no id although others of the file have one".into(),
    };
    Err(Error::input(place.clone(), reason))
}

fn text(value: Option<Value>, name: &str, place: &Place) -> Result<String> {
    let reason = match value {
        Some(Value::String(text)) if !text.trim().is_empty() => return Ok(text),
        Some(Value::String(_)) => "the text is empty".into(),
        Some(other) => format!("the text must be a string, found {}", kind(&other)),
        None => "the record has no text".into(),
    };
    Err(Error::input(place.clone().field(name), reason))
}

fn title(value: Option<Value>, name: &str, place: &Place) -> Result<String> {
    match value {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(title)) => Ok(title),
        Some(other) => {
            let reason = format!("the title must be a string, found {}", kind(&other));
            Err(Error::input(place.clone().field(name), reason))
        }
    }
}
