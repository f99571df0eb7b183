//! Which field of a record is the id, the text and the title; the rest is metadata.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::json::kind;
use super::{Document, MAX_ID_BYTES, Shape, shown};
use crate::error::{Error, Place, Result};

const ID_NAMES: [&str; 6] = ["id", "_id", "doc_id", "docid", "docno", "pid"];
const TEXT_NAMES: [&str; 7] =
    ["text", "contents", "content", "body", "passage", "chunk", "abstract"];
const TITLE_NAMES: [&str; 3] = ["title", "headline", "name"];

/// The field of BEIR's layout whose object is poured out into the metadata.
const BEIR_METADATA: &str = "metadata";

/// Which field is what, where the user says so. A field that is not named is found by its name.
///
/// A name with dots reaches into nested objects (`meta.title`), unless a field has just that name.
/// The first record must have every field that is named here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldMap {
    /// The id; else the first of `id`, `_id`, `doc_id`, `docid`, `docno`, `pid`.
    pub id: Option<String>,
    /// The text; else the first of `text`, `contents`, `content`, `body`, `passage`, `chunk`,
    /// `abstract`.
    pub text: Option<String>,
    /// The title; else the first of `title`, `headline`, `name`.
    pub title: Option<String>,
    /// The fields that are kept as metadata, under the names given here; `None` keeps all that
    /// did not become id, text or title. A record that lacks one has it not in its metadata.
    pub metadata: Option<Vec<String>>,
}

/// How the records of one file become documents.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fields {
    layout: Layout,
    id: Option<String>,
    text: String,
    title: Option<String>,
    metadata: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// `_id`, `text`, perhaps `title` and an object `metadata`.
    Beir,
    /// `id`, `chunk-id`, `chunk`: several records a document.
    Chunked,
    Other,
}

impl Fields {
    /// Decides by `sample`, the first record of `file`, or an object with its columns.
    pub(super) fn resolve(sample: &Map<String, Value>, map: &FieldMap, file: &str) -> Result<Self> {
        let has = |name: &str| sample.contains_key(name);
        let asked = (map.id.as_deref(), map.text.as_deref());
        let layout = match asked {
            (None | Some("_id"), None | Some("text")) if has("_id") && has("text") => Layout::Beir,
            (None, None | Some("chunk")) if has("id") && has("chunk-id") && has("chunk") => {
                Layout::Chunked
            }
            _ => Layout::Other,
        };
        let first_of = |names: &[&str], taken: &[Option<&String>]| {
            let free = |name: &&&str| has(name) && !taken.iter().flatten().any(|t| t == *name);
            names.iter().find(free).map(|name| (*name).to_string())
        };

        let text = match (layout, named(&map.text, sample, "--text-field", file)?) {
            (Layout::Chunked, _) => "chunk".into(),
            (_, Some(name)) => name,
            (_, None) => {
                first_of(&TEXT_NAMES, &[map.id.as_ref(), map.title.as_ref()]).ok_or_else(|| {
                    let fields = list(&names(sample, 1));
                    Error::input(
                        Place::file(file),
                        format!("no text field: it has {fields}; name one with --text-field"),
                    )
                })?
            }
        };
        let id = match (layout, named(&map.id, sample, "--id-field", file)?) {
            (Layout::Beir, _) => Some("_id".into()),
            (Layout::Chunked, _) => Some("id".into()),
            (Layout::Other, Some(name)) => Some(name),
            (Layout::Other, None) => first_of(&ID_NAMES, &[Some(&text), map.title.as_ref()]),
        };
        let title = match named(&map.title, sample, "--title-field", file)? {
            Some(name) => Some(name),
            // A title that only later records have is still a title.
            None => first_of(&TITLE_NAMES, &[Some(&text), id.as_ref()])
                .or_else(|| Some("title".into()))
                .filter(|title| *title != text && Some(title) != id.as_ref()),
        };
        for name in map.metadata.iter().flatten() {
            if find_metadata(sample, name, layout).is_none() {
                return Err(no_such_field(name, sample, "--metadata-fields", file));
            }
        }
        Ok(Self { layout, id, text, title, metadata: map.metadata.clone() })
    }

    /// The top-level fields that [`Fields::document`] looks at; `None` for all of them.
    pub(super) fn needed(&self, sample: &Map<String, Value>) -> Option<Vec<String>> {
        let metadata = self.metadata.as_ref()?;
        let mut needed = vec!["chunk-id".into(), BEIR_METADATA.into()];
        for name in [Some(&self.text), self.id.as_ref(), self.title.as_ref()]
            .into_iter()
            .flatten()
            .chain(metadata)
        {
            let top = if sample.contains_key(name) { name } else { split(name).0 };
            needed.push(top.to_string());
        }
        Some(needed)
    }

    /// The document that `record` is: the `number`th of the file `label`, counted from 1.
    pub(super) fn document(
        &self,
        mut record: Map<String, Value>,
        place: Place,
        label: &str,
        number: u64,
    ) -> Result<Document> {
        let (id, doc_id) = self.ids(&record, &place, label, number)?;
        let asked = self.metadata.as_ref().map(|names| {
            let found = |name: &String| {
                Some((name.clone(), find_metadata(&record, name, self.layout)?.clone()))
            };
            names.iter().filter_map(found).collect::<Map<_, _>>()
        });
        if self.layout == Layout::Beir && asked.is_none() {
            record = pour_out(record);
        }
        let text = text(remove(&mut record, &self.text), &self.text, &place)?;
        let title = match &self.title {
            Some(name) => title(remove(&mut record, name), name, &place)?,
            None => String::new(),
        };
        if let Some(name) = &self.id {
            remove(&mut record, name);
        }
        Ok(Document {
            id,
            doc_id,
            title,
            text,
            embed_title: self.layout != Layout::Chunked,
            metadata: asked.unwrap_or(record),
            shape: Shape::Record,
            place,
        })
    }

    /// `id` and `doc_id`.
    fn ids(
        &self,
        record: &Map<String, Value>,
        place: &Place,
        label: &str,
        number: u64,
    ) -> Result<(String, String)> {
        let Some(name) = &self.id else {
            let id = format!("{label}:{number}");
            check_id(&id, place)?;
            return Ok((id.clone(), id));
        };
        let part = |name: &str| {
            let place = place.clone().field(name);
            let part = id_text(find(record, name), &place)?;
            check_id(&part, &place)?;
            Ok::<_, Error>(part)
        };
        let doc_id = part(name)?;
        if self.layout != Layout::Chunked {
            return Ok((doc_id.clone(), doc_id));
        }
        let id = format!("{doc_id}-{}", part("chunk-id")?);
        check_id(&id, place)?;
        Ok((id, doc_id))
    }
}

/// The document that a JSON object is, by the rules of a line of jsonl. It must carry an id.
///
/// # Errors
///
/// [`Error::Input`] at `place`, naming the field.
pub fn from_object(object: Map<String, Value>, place: Place) -> Result<Document> {
    let lacks = |names: &[&str]| !names.iter().any(|name| object.contains_key(*name));
    let missing = |what: &str, names: &[&str]| {
        let quoted: Vec<String> = names.iter().map(|n| format!("`{n}`")).collect();
        let reason = format!(
            "there is no {what}: a field of one of the names {} is needed",
            quoted.join(", ")
        );
        Err(Error::input(place.clone(), reason))
    };
    if lacks(&ID_NAMES) {
        return missing("id", &ID_NAMES);
    }
    if lacks(&TEXT_NAMES) {
        return missing("text", &TEXT_NAMES);
    }
    let fields = Fields::resolve(&object, &FieldMap::default(), &place.file)?;
    fields.document(object, place, "", 0)
}

/// Refuses ids that are empty, too long or unprintable.
///
/// # Errors
///
/// [`Error::Input`] at `place`.
pub fn check_id(id: &str, place: &Place) -> Result<()> {
    let reason = if id.trim().is_empty() {
        "an id may not be empty".into()
    } else if id.len() > MAX_ID_BYTES {
        format!("the id is {} bytes long: at most {MAX_ID_BYTES} are allowed", id.len())
    } else if id.chars().any(char::is_control) {
        "an id may not hold control characters (line breaks, tabs)".into()
    } else {
        return Ok(());
    };
    Err(Error::input(place.clone(), reason))
}

/// A name that the user gave, once it is known that the sample has it.
fn named(
    name: &Option<String>,
    sample: &Map<String, Value>,
    flag: &str,
    file: &str,
) -> Result<Option<String>> {
    match name {
        Some(name) if find(sample, name).is_none() => Err(no_such_field(name, sample, flag, file)),
        name => Ok(name.clone()),
    }
}

fn no_such_field(name: &str, sample: &Map<String, Value>, flag: &str, file: &str) -> Error {
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
    Error::input(
        Place::file(file).field(shown(name)),
        format!("no such field in the first record ({flag}): {cure}"),
    )
}

/// All field names, nested ones with dots, down to `depth` levels.
fn names(sample: &Map<String, Value>, depth: usize) -> Vec<String> {
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

fn list(names: &[String]) -> String {
    const MOST: usize = 20;
    if names.is_empty() {
        return "no fields at all".into();
    }
    let quoted: Vec<String> =
        names.iter().take(MOST).map(|name| format!("'{}'", shown(name))).collect();
    let more = match names.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    quoted.join(", ") + &more
}

/// The first part of a dotted name, and what follows it.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (name, None),
    }
}

/// The field `name`: the one of just that name, else along the dots.
fn find<'a>(record: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    match (record.get(name), split(name)) {
        (Some(value), _) => Some(value),
        (None, (first, Some(rest))) => find(record.get(first)?.as_object()?, rest),
        (None, (_, None)) => None,
    }
}

/// Takes the field `name` out, with the objects that it leaves empty.
fn remove(record: &mut Map<String, Value>, name: &str) -> Option<Value> {
    if record.contains_key(name) {
        return record.shift_remove(name);
    }
    let (first, rest) = split(name);
    let inner = record.get_mut(first)?.as_object_mut()?;
    let value = remove(inner, rest?)?;
    if inner.is_empty() {
        record.shift_remove(first);
    }
    Some(value)
}

fn find_metadata<'a>(
    record: &'a Map<String, Value>,
    name: &str,
    layout: Layout,
) -> Option<&'a Value> {
    let poured = || match layout {
        Layout::Beir => find(record.get(BEIR_METADATA)?.as_object()?, name),
        Layout::Chunked | Layout::Other => None,
    };
    find(record, name).or_else(poured)
}

/// Puts the fields of an object named `metadata` in its place.
fn pour_out(record: Map<String, Value>) -> Map<String, Value> {
    if !record.get(BEIR_METADATA).is_some_and(Value::is_object) {
        return record;
    }
    let taken: HashSet<String> = record.keys().cloned().collect();
    let mut poured = Map::new();
    for (name, value) in record {
        match value {
            Value::Object(inner) if name == BEIR_METADATA => {
                for (name, value) in inner {
                    let name = match taken.contains(&name) {
                        true => format!("{BEIR_METADATA}.{name}"),
                        false => name,
                    };
                    poured.insert(name, value);
                }
            }
            value => {
                poured.insert(name, value);
            }
        }
    }
    poured
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
        Some(other) => Err(Error::input(
            place.clone().field(name),
            format!("the title must be a string, found {}", kind(&other)),
        )),
    }
}
