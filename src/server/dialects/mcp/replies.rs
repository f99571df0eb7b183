//! Results of tools that fit into a context window: excerpts, parts of texts, short metadata.

use crate::search::excerpt;
use crate::server::dialects::search_replies::HitReply;
use crate::store::{FieldCatalog, FieldTypes, Row};
use serde_json::{Map, Value, json};

/// The maximum size of all hits of a search, in bytes.
const MAX_HITS_BYTES: usize = 32_000;

/// The maximum size of the metadata of one hit, in bytes.
const MAX_METADATA_BYTES: usize = 1000;

/// The maximum length of one metadata value, in characters.
const MAX_VALUE_CHARS: usize = 200;

/// The maximum number of fields that `list_indexes` names of an index.
const MAX_FIELDS: usize = 60;

/// Hits for a model to read.
pub(super) struct Passages<'a> {
    query: &'a str,
    excerpt_chars: usize,
    bytes: usize,
    pub(super) hits: Vec<Value>,
}

impl<'a> Passages<'a> {
    pub(super) fn new(query: &'a str, excerpt_chars: usize) -> Self {
        Self { query, excerpt_chars, bytes: 0, hits: Vec::new() }
    }

    /// Adds a hit. Returns false if it does not fit any more; the first one always fits.
    pub(super) fn add(&mut self, hit: &HitReply) -> bool {
        let text = hit.text.as_deref().unwrap_or_default();
        let mut shown = json!({ "id": hit.id });
        if hit.doc_id != hit.id {
            shown["doc_id"] = json!(hit.doc_id);
        }
        if !hit.title.is_empty() {
            shown["title"] = json!(shortened(&hit.title, MAX_VALUE_CHARS));
        }
        if self.excerpt_chars > 0 {
            let range = excerpt(text, hit.window, self.query, self.excerpt_chars);
            let start = hit.document_range[0];
            shown["excerpt"] = json!(text[range.clone()]);
            shown["span"] = json!([start + range.start, start + range.end]);
        }
        shown["score"] = rounded(hit.score);
        if let Some(score) = hit.final_score {
            shown["final_score"] = rounded(score);
        }
        if hit.low {
            shown["low"] = json!(true);
        }
        if let Some(score) = hit.rerank_score {
            shown["rerank_score"] = rounded(score);
        }
        let (metadata, is_cut) = short_metadata(&hit.metadata);
        if !metadata.is_empty() {
            shown["metadata"] = Value::Object(metadata);
        }
        if is_cut {
            shown["metadata_cut"] = json!(true);
        }
        let bytes = shown.to_string().len();
        if !self.hits.is_empty() && self.bytes + bytes > MAX_HITS_BYTES {
            return false;
        }
        self.bytes += bytes;
        self.hits.push(shown);
        true
    }
}

/// Texts by id, as far as they fit.
pub(super) struct TextParts {
    offset: usize,
    left: usize,
    pub(super) texts: Vec<Value>,
    /// Ids that the index does not have.
    pub(super) missing: Vec<String>,
}

impl TextParts {
    /// The texts from the byte `offset` on, at most `most` characters of all together.
    pub(super) fn new(offset: usize, most: usize) -> Self {
        Self { offset, left: most, texts: Vec::new(), missing: Vec::new() }
    }

    /// Adds the text that the rows of an id make.
    pub(super) fn add(&mut self, id: String, rows: Vec<Row>) {
        let Some(first) = rows.first() else { return self.missing.push(id) };
        let (title, doc_id, start) = (&first.title, &first.doc_id, first.range.start);
        let (metadata, is_cut) = short_metadata(&first.metadata);
        let mut reply = json!({ "id": id });
        if *doc_id != id {
            reply["doc_id"] = json!(doc_id);
        }
        if !title.is_empty() {
            reply["title"] = json!(title);
        }
        let text = joined(&rows);
        let from = (self.offset..text.len()).find(|&at| text.is_char_boundary(at));
        let from = from.unwrap_or(text.len());
        let rest = &text[from..];
        let end = rest.char_indices().nth(self.left).map_or(rest.len(), |(at, _)| at);
        self.left -= rest[..end].chars().count().min(self.left);
        reply["text"] = json!(rest[..end]);
        if rows.len() == 1 {
            reply["span"] = json!([start + from, start + from + end]);
        }
        if end < rest.len() {
            reply["next_offset"] = json!(from + end);
            reply["bytes_left"] = json!(rest.len() - end);
        }
        if !metadata.is_empty() {
            reply["metadata"] = Value::Object(metadata);
        }
        if is_cut {
            reply["metadata_cut"] = json!(true);
        }
        self.texts.push(reply);
    }
}

/// The text of rows in order. The overlap of consecutive chunks of a document comes once; other
/// rows follow after an empty line.
fn joined(rows: &[Row]) -> String {
    let mut text = String::new();
    let mut end = None;
    for row in rows {
        match end {
            Some(end) if (row.range.start..=row.range.end).contains(&end) => {
                text += row.text.get(end - row.range.start..).unwrap_or_default();
            }
            Some(_) => {
                text += "\n\n";
                text += &row.text;
            }
            None => text += &row.text,
        }
        end = Some(row.range.end);
    }
    text
}

/// Metadata within the limits, and true if some of it was left out or shortened.
fn short_metadata(metadata: &Map<String, Value>) -> (Map<String, Value>, bool) {
    let (mut short, mut bytes, mut is_cut) = (Map::new(), 0, false);
    for (name, value) in metadata {
        let written = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let is_long = written.chars().count() > MAX_VALUE_CHARS;
        let value = match is_long {
            true => json!(shortened(&written, MAX_VALUE_CHARS)),
            false => value.clone(),
        };
        bytes += name.len() + written.len().min(4 * MAX_VALUE_CHARS);
        if bytes > MAX_METADATA_BYTES {
            return (short, true);
        }
        is_cut |= is_long;
        short.insert(name.clone(), value);
    }
    (short, is_cut)
}

/// The beginning of a text, with dots if there is more.
fn shortened(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text.to_owned(),
    }
}

/// A score with four decimals.
fn rounded(score: f32) -> Value {
    json!((f64::from(score) * 1e4).round() / 1e4)
}

/// The first fields of an index with their types.
pub(super) fn fields_of(catalog: &FieldCatalog) -> Map<String, Value> {
    let fields = catalog.iter().take(MAX_FIELDS);
    fields.map(|(name, types)| (name.to_owned(), json!(kind_of(types)))).collect()
}

/// The word for the values of a field.
fn kind_of(types: &FieldTypes) -> &'static str {
    let FieldTypes { texts, numbers, booleans, arrays, objects, .. } = *types;
    let times = types.dates + types.times + types.zoned_times;
    match (texts, numbers, booleans, arrays + objects) {
        (0, 0, 0, 0) => "null",
        (0, 0, 0, _) if objects == 0 => "list",
        (0, 0, 0, _) if arrays == 0 => "object",
        (0, _, 0, 0) => "number",
        (0, 0, _, 0) => "boolean",
        (_, 0, 0, 0) if times == texts => "date",
        (_, _, 0, 0) if types.numeric_texts == texts => "number",
        (_, 0, 0, 0) => "text",
        _ => "mixed",
    }
}
