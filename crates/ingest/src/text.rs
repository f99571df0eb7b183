//! Text, Markdown and HTML: one document per file.

use std::io::Read;

use serde_json::json;
use warpseek_error::{Error, Place, Result};

use crate::document::{Document, TextKind, check_id};
use crate::format::FileFormat;
use crate::inputs::InputFile;
use crate::message::{size, utf8_error};
use crate::options::ReadOptions;
use crate::stream::InputStream;
use crate::{html, markdown};

/// Reads the whole of `stream` as one document.
///
/// Its id and `doc_id` are the file's resolved path. The title is the first heading of Markdown (or
/// the `title:` of its front matter), the `<title>` or first `<h1>` of HTML, else the file's name
/// without the ending.
pub(crate) fn read(
    stream: InputStream,
    input: &InputFile,
    options: &ReadOptions,
) -> Result<Document> {
    let place = Place::file(&input.name);
    let fail = |reason: String| Error::input(place.clone(), reason);
    let mut stream = stream.utf8()?;
    let mut bytes = Vec::new();
    let limit = options.max_record_bytes;
    (&mut stream)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| stream.origin.read_error(e, None))?;
    if bytes.len() as u64 > limit {
        let limit = size(limit);
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
        let reason = utf8_error(e.utf8_error(), "file");
        match html::charset(e.as_bytes()) {
            Some(name) if input.format == FileFormat::Html => fail(reason.replace("LATIN1", &name)),
            _ => fail(reason),
        }
    })?;
    let (kind, (title, text)) = match input.format {
        FileFormat::Markdown => (TextKind::Markdown, markdown::title_and_text(content)),
        FileFormat::Html => (TextKind::Prose, html::title_and_text(&content)),
        _ => (TextKind::Prose, (None, content)),
    };
    let format = input.format.name();
    if text.trim().is_empty() {
        return Err(fail(format!("no text: nothing is left of this {format} file but markup")));
    }
    let id = input.label.clone();
    check_id(&id, &place)?;
    let fields = [("path", json!(id)), ("format", json!(format))];
    Ok(Document {
        doc_id: id.clone(),
        title: title.unwrap_or_else(|| stem(&id).to_owned()),
        id,
        text,
        embed_title: false,
        metadata: fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
        is_untyped: false,
        kind,
        place,
        has_own_id: false,
        source: None,
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
