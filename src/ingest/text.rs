//! Text, Markdown and HTML: one document a file.

use std::io::Read;

use serde_json::{Map, Value};

use super::format::Format;
use super::source::Input;
use super::stream::{Stream, utf8_error};
use super::{Document, ReadOptions, Shape, fields, html, markdown, size};
use crate::error::{Error, Place, Result};

/// Reads the whole of `stream` as one document.
///
/// Its id and `doc_id` are the path. The title is the first heading of Markdown (or the `title:`
/// of its front matter), the `<title>` or first `<h1>` of HTML, else the file's name without the
/// ending.
pub(super) fn read(stream: Stream, input: &Input, options: &ReadOptions) -> Result<Document> {
    let place = Place::file(&input.name);
    let fail = |reason: String| Error::input(place.clone(), reason);
    let mut stream = stream.utf8()?;
    let mut bytes = Vec::new();
    let most = options.max_record_bytes;
    (&mut stream)
        .take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| stream.origin.read_error(e, None))?;
    if bytes.len() as u64 > most {
        let limit = size(most);
        return Err(fail(format!(
            "the file is longer than {limit}: split it, or raise --max-record-bytes"
        )));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(fail("no records in this file".into()));
    }
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        return Err(fail(format!("holds a NUL byte at byte {}: this is a binary file", at + 1)));
    }
    let content = String::from_utf8(bytes).map_err(|e| {
        let charset = match input.format {
            Format::Html => html::charset(e.as_bytes()),
            _ => None,
        };
        let reason = utf8_error(e.utf8_error(), "file");
        fail(match charset {
            Some(name) => reason.replace("LATIN1", &name),
            None => reason,
        })
    })?;

    let (kind, shape) = match input.format {
        Format::Markdown => ("markdown", Shape::Markdown),
        Format::Html => ("html", Shape::Prose),
        _ => ("text", Shape::Prose),
    };
    let (title, text) = match input.format {
        Format::Markdown => markdown::title_and_text(content),
        Format::Html => html::title_and_text(&content).map_err(fail)?,
        _ => (None, content),
    };
    if text.trim().is_empty() {
        return Err(fail(format!("no text: nothing is left of this {kind} file but markup")));
    }
    fields::check_id(&input.label, &place)?;
    let mut metadata = Map::new();
    metadata.insert("path".into(), Value::from(input.label.as_str()));
    metadata.insert("format".into(), Value::from(kind));
    Ok(Document {
        id: input.label.clone(),
        doc_id: input.label.clone(),
        title: title.unwrap_or_else(|| stem(&input.label).to_string()),
        text,
        embed_title: false,
        metadata,
        shape,
        place,
    })
}

/// The file's name without `.gz` and without the ending that tells the format.
fn stem(label: &str) -> &str {
    let name = label.rsplit('/').next().unwrap_or(label);
    let name = name.strip_suffix(".gz").unwrap_or(name);
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => name,
    }
}
