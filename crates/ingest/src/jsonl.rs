//! JSON lines: one object per line. Also the objects of one JSON array, and objects over several
//! lines, as programs write files `.json` (json_stream.rs).
//!
//! `NaN`, `Infinity` and `-Infinity` are not JSON. DuckDB and Python's `json` write them all the
//! same. In metadata they become null, which is counted and told.

use std::io::BufRead;

use serde_json::Value;
use warpseek_error::{Error, Place, Result};

use crate::document::Document;
use crate::fields::{list, names};
use crate::inputs::{Content, InputFile};
use crate::json;
use crate::json_stream::{Element, ElementReader, JsonLayout};
use crate::lines::read_line;
use crate::message::{shown, size, utf8_error};
use crate::notes::{NON_FINITE, NoteKind, ReadNotes};
use crate::options::{ReadOptions, SKIPPED_RECORDS};
use crate::roles::{RoleRules, Roles};
use crate::stream::InputStream;

/// The records of one file.
pub(crate) struct JsonlReader {
    stream: InputStream,
    layout: JsonLayout,
    elements: ElementReader,
    label: String,
    rules: RoleRules,
    notes: ReadNotes,
    /// Known from the first record on; provisional until a record has a text.
    fields: Option<Roles>,
    max_record_bytes: u64,
    line: u64,
    record: u64,
    /// Blank lines passed over so far.
    pub(crate) blank: u64,
    position: Position,
}

#[derive(PartialEq)]
enum Position {
    AtLine,
    /// Inside a line that was too long.
    InLine,
    Done,
}

/// Bytes at the front of a file that are looked at for its layout.
const HEAD: u64 = 64 << 10;

impl JsonlReader {
    pub(crate) fn open(
        stream: InputStream,
        input: &InputFile,
        options: &ReadOptions,
        notes: &ReadNotes,
    ) -> Result<Self> {
        let (line, stream) = stream.utf8(notes)?.peek_line(HEAD)?;
        let layout = layout_of(&line);
        if layout == JsonLayout::Array {
            notes.decide(format!("{}: one JSON array, read as its elements", input.name));
        }
        Ok(Self {
            stream,
            layout,
            elements: ElementReader::new(layout, options.max_record_bytes),
            label: input.label.clone(),
            rules: RoleRules::new(input, options, notes),
            notes: notes.clone(),
            fields: None,
            max_record_bytes: options.max_record_bytes,
            line: 0,
            record: 0,
            blank: 0,
            position: Position::AtLine,
        })
    }

    fn place(&self) -> Place {
        let record = match self.layout {
            JsonLayout::Lines => format!("line {}", self.line),
            JsonLayout::Array | JsonLayout::Objects => format!("record {}", self.record),
        };
        Place::record(&self.stream.origin.name, record)
    }

    /// The next record of an array, or the next object; `None` at the end.
    fn next_element(&mut self) -> Result<Option<Vec<u8>>> {
        self.record += 1;
        let element = self.elements.next(&mut self.stream);
        let reason = match element.map_err(|e| self.read_error(e))? {
            Element::Found(record) => return Ok(Some(record)),
            Element::End => return Ok(None),
            Element::Bad(reason) => reason,
            Element::Fatal(reason) => {
                self.position = Position::Done;
                reason
            }
        };
        Err(Error::input(self.place(), reason))
    }

    /// The next line that is not blank, with its line break; `None` at the end.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        if self.position == Position::InLine {
            self.skip_line()?;
        }
        let mut line = Vec::new();
        loop {
            self.line += 1;
            let limit = self.max_record_bytes.saturating_add(1);
            read_line(&mut self.stream, limit, &mut line).map_err(|e| self.read_error(e))?;
            if line.is_empty() {
                return Ok(None);
            }
            if line.len() as u64 == limit && !line.ends_with(b"\n") {
                self.record += 1;
                self.position = Position::InLine;
                let limit = size(self.max_record_bytes);
                return Err(Error::input(
                    self.place(),
                    format!("the line is longer than {limit}: raise --max-record-bytes"),
                ));
            }
            if !line.trim_ascii().is_empty() {
                self.record += 1;
                return Ok(Some(line));
            }
            self.blank += 1;
        }
    }

    /// Reads up to the end of the line, within a limit.
    fn skip_line(&mut self) -> Result<()> {
        let limit = self.max_record_bytes.saturating_mul(SKIPPED_RECORDS);
        let mut skipped = 0;
        while skipped < limit {
            let bytes = match self.stream.fill_buf() {
                Ok(bytes) => bytes,
                Err(e) => return Err(self.read_error(e)),
            };
            let end = bytes.iter().position(|b| *b == b'\n');
            let n = end.map_or(bytes.len(), |end| end + 1);
            self.stream.consume(n);
            skipped += n as u64;
            if end.is_some() || n == 0 {
                self.position = Position::AtLine;
                return Ok(());
            }
        }
        self.position = Position::Done;
        let limit = size(limit);
        Err(Error::input(
            self.place(),
            format!("no end of the line within {limit}: the rest of the file is not read"),
        ))
    }

    fn read_error(&mut self, error: std::io::Error) -> Error {
        self.position = Position::Done;
        self.stream.origin.read_error(error, self.place().record)
    }

    fn document(&mut self, line: &[u8]) -> Result<Document> {
        let place = self.place();
        let fail = |reason: String| Error::input(place.clone(), reason);
        let line = std::str::from_utf8(line).map_err(|e| fail(utf8_error(e, "line")))?.trim_ascii();
        let (value, non_finite) = json::parse_line(line).map_err(fail)?;
        let record = match value {
            Value::Object(record) => record,
            other => {
                // An array of something else than records.
                if self.layout == JsonLayout::Array && self.fields.is_none() {
                    self.position = Position::Done;
                }
                return Err(fail(format!(
                    "not a JSON object: expected an object, found {}",
                    json::kind(&other)
                )));
            }
        };
        let fields = match &self.fields {
            Some(fields) if !fields.is_provisional() => fields,
            known => match (self.rules.of_record(&record), known) {
                // A file of settings may have a name. Without a text it is not a record.
                (Ok(fields), None)
                    if fields.is_provisional() && self.layout == JsonLayout::Objects =>
                {
                    self.position = Position::Done;
                    let names = list(&names(&record, 1));
                    return Err(fail(format!(
                        "no text field: it has {names}; name one with --text-field"
                    )));
                }
                (Ok(fields), _) => self.fields.insert(fields),
                // The provisional roles tell what this record lacks.
                (Err(_), Some(fields)) => fields,
                (Err(e), None) => {
                    self.position = Position::Done;
                    return Err(e);
                }
            },
        };
        if let Some(name) = non_finite.keys().find(|name| fields.is_essential(name)) {
            let reason = "NaN and Infinity are not JSON, and this field cannot do without a value";
            return Err(Error::input(place.field(shown(name)), reason));
        }
        // The number that stands for a missing id.
        let number = match (self.rules.content, self.layout) {
            (Content::Queries, JsonLayout::Lines) => self.line,
            _ => self.record,
        };
        let document = fields.document(record, place, &self.label, number)?;
        for (name, count) in non_finite.into_iter().filter(|(name, _)| fields.keeps(name)) {
            self.notes.add(&document.place.file, &name, NoteKind::Null, NON_FINITE, count);
        }
        Ok(document)
    }
}

/// The layout of a file with this first line, which may be cut.
fn layout_of(line: &[u8]) -> JsonLayout {
    let is_whole = line.ends_with(b"\n");
    let text = String::from_utf8_lossy(line);
    match text.trim() {
        text if text.starts_with('[') => JsonLayout::Array,
        text if is_whole && text.starts_with('{') && json::is_cut(text) => JsonLayout::Objects,
        _ => JsonLayout::Lines,
    }
}

impl Iterator for JsonlReader {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.position == Position::Done {
            return None;
        }
        let line = match self.layout {
            JsonLayout::Lines => self.next_line(),
            JsonLayout::Array | JsonLayout::Objects => self.next_element(),
        };
        let line = line.transpose();
        if line.is_none() {
            self.position = Position::Done;
        }
        Some(line?.and_then(|line| self.document(&line)))
    }
}
