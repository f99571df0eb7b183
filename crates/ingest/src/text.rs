//! Text, Markdown, HTML, source code, notebooks, messages: one document per file.

use std::io::Read;

use encoding_rs::Encoding;
use serde_json::{Map, Value, json};
use warpseek_error::{Error, Place, Result};

use crate::document::{Document, TextKind, check_id};
use crate::format::FileFormat;
use crate::inputs::InputFile;
use crate::message::{size, utf8_error};
use crate::notes::{NoteKind, ReadNotes};
use crate::options::ReadOptions;
use crate::stream::InputStream;
use crate::{code, email, html, markdown, markup, notebook, tex};

/// The content of a file.
struct FileContent {
    kind: TextKind,
    title: Option<String>,
    text: String,
    /// Metadata beside path and format.
    metadata: Map<String, Value>,
}

impl FileContent {
    fn new(kind: TextKind, (title, text): (Option<String>, String)) -> Self {
        Self { kind, title, text, metadata: Map::new() }
    }

    /// The content with the language of its code.
    fn in_language(mut self, language: Option<String>) -> Self {
        self.metadata.extend(language.map(|name| ("language".to_owned(), Value::String(name))));
        self
    }
}

/// Reads the whole of `stream` as one document.
///
/// Its id and `doc_id` are the file's resolved path. The title is the first heading of a format
/// that has them (or the `title:` of front matter, `<title>`, `\title`), the subject of a message,
/// the name of a file of code, else the file's name without the ending.
pub(crate) fn read(
    stream: InputStream,
    input: &InputFile,
    options: &ReadOptions,
    notes: &ReadNotes,
) -> Result<Document> {
    let place = Place::file(&input.name);
    let fail = |reason: String| Error::input(place.clone(), reason);
    let name = input.label.rsplit('/').next().unwrap_or(&input.label);
    let content = match input.format {
        FileFormat::Email => {
            let email = email::read(&bytes_of(stream, options)?).map_err(fail)?;
            if email.attachments > 0 {
                let reason = "attachments are not read";
                notes.add(&input.name, "", NoteKind::Omitted, reason, email.attachments);
            }
            let parts = (email.subject, email.text);
            FileContent { metadata: email.metadata, ..FileContent::new(TextKind::Prose, parts) }
        }
        format => {
            let text = text_of(stream, input, options, notes)?;
            match format {
                FileFormat::Markdown => {
                    FileContent::new(TextKind::Markdown, markdown::title_and_text(text))
                }
                FileFormat::Html => FileContent::new(TextKind::Prose, html::title_and_text(&text)),
                FileFormat::Rst => FileContent::new(TextKind::Prose, markup::rst(&text)),
                FileFormat::Org => FileContent::new(TextKind::Prose, markup::org(&text)),
                FileFormat::Tex => FileContent::new(TextKind::Prose, tex::title_and_text(&text)),
                FileFormat::Notebook => {
                    let (title, text, language) = notebook::title_and_text(&text).map_err(fail)?;
                    FileContent::new(TextKind::Markdown, (title, text)).in_language(language)
                }
                FileFormat::Code => FileContent::new(TextKind::Code, (Some(name.to_owned()), text))
                    .in_language(code::language(name)),
                _ => FileContent::new(TextKind::Prose, (None, text)),
            }
        }
    };
    let FileContent { kind, title, text, metadata } = content;
    let format = input.format.name();
    if text.trim().is_empty() {
        return Err(fail(format!("no text: nothing is left of this {format} file but markup")));
    }
    let id = input.label.clone();
    check_id(&id, &place)?;
    let fields = [("path", json!(id)), ("format", json!(format))];
    let fields = fields.map(|(name, value)| (name.to_owned(), value));
    Ok(Document {
        doc_id: id.clone(),
        title: title.unwrap_or_else(|| stem(&id).to_owned()),
        id,
        text,
        embed_title: false,
        metadata: fields.into_iter().chain(metadata).collect(),
        is_untyped: false,
        kind,
        place,
        has_own_id: false,
        source: None,
    })
}

/// The text of a file, whatever its encoding.
fn text_of(
    stream: InputStream,
    input: &InputFile,
    options: &ReadOptions,
    notes: &ReadNotes,
) -> Result<String> {
    let (named, stream) = match input.format {
        FileFormat::Html => {
            let (head, stream) = stream.peek(html::CHARSET_HEAD)?;
            let named = html::charset(&head);
            (named.and_then(|name| Encoding::for_label(name.as_bytes())), stream)
        }
        _ => (None, stream),
    };
    let bytes = bytes_of(stream.text(named, notes)?, options)?;
    let place = Place::file(&input.name);
    let fail = |reason: String| Error::input(place.clone(), reason);
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        return Err(fail(format!("holds a NUL byte at byte {}: this is a binary file", at + 1)));
    }
    String::from_utf8(bytes).map_err(|e| fail(utf8_error(e.utf8_error(), "file")))
}

/// All bytes of a stream that is not longer than a record may be.
fn bytes_of(mut stream: InputStream, options: &ReadOptions) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = options.max_record_bytes;
    (&mut stream)
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|e| stream.origin.read_error(e, None))?;
    let fail = |reason: String| Error::input(Place::file(&stream.origin.name), reason);
    if bytes.len() as u64 > limit {
        let limit = size(limit);
        return Err(fail(format!(
            "the file is longer than {limit}: split it, or raise --max-record-bytes"
        )));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(fail("no records in this file".into()));
    }
    Ok(bytes)
}

/// The file's name without `.gz` and without the ending that tells the format.
pub(crate) fn stem(label: &str) -> &str {
    let name = label.rsplit('/').next().unwrap_or(label);
    let name = name.strip_suffix(".gz").unwrap_or(name);
    match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => name,
    }
}
