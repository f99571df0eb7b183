//! The iterator over the documents of one file.

use std::fs::File;
use std::io::{self, BufRead, Read, Seek};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use warpseek_error::{Error, Place, Result};

use super::event::{Event, Section};
use super::worker::{self, Extracted};
use crate::document::{Document, TextKind, check_id};
use crate::format::FileFormat;
use crate::inputs::{InputFile, Location};
use crate::message::size;
use crate::notes::{NoteKind, ReadNotes};
use crate::options::ReadOptions;
use crate::stream::InputStream;
use crate::text::stem;

/// The documents of a PDF, Office or EPUB file.
pub(crate) struct OfficeReader {
    extracted: Extracted,
    /// The file's name in messages, and in ids.
    name: String,
    label: String,
    format: FileFormat,
    title: String,
    notes: ReadNotes,
    /// True if a document or an error has come out.
    has_any: bool,
    is_done: bool,
}

impl OfficeReader {
    /// Extracts the text of a file. `counter` counts its bytes, which are read elsewhere.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read, or no process or thread can be started.
    pub(crate) fn open(
        stream: InputStream,
        input: &InputFile,
        counter: &AtomicU64,
        options: &ReadOptions,
        notes: &ReadNotes,
    ) -> Result<Self> {
        let file = file_of(stream, input, counter, options.extract.limits.file_bytes)?;
        let extracted = worker::extract(file, input.format, &options.extract)?;
        Ok(Self {
            extracted,
            name: input.name.clone(),
            label: input.label.clone(),
            format: input.format,
            title: stem(&input.label).to_owned(),
            notes: notes.clone(),
            has_any: false,
            is_done: false,
        })
    }

    fn fail(&self, part: Option<String>, reason: impl Into<String>) -> Error {
        let place = Place { file: self.name.clone(), record: part, field: None };
        Error::input(place, reason)
    }

    /// The next line; `None` after the last complete one.
    fn event(&mut self) -> Result<Option<Event>> {
        let mut line = Vec::new();
        let read = self.extracted.lines.read_until(b'\n', &mut line);
        read.map_err(Error::io("read", std::env::temp_dir()))?;
        if line.pop() != Some(b'\n') {
            return Ok(None);
        }
        let event = serde_json::from_slice(&line);
        event.map(Some).map_err(|e| {
            self.fail(None, format!("the program that extracts text wrote something else: {e}"))
        })
    }

    /// The error at the end of lines without a last one.
    fn cut_off(&mut self) -> Error {
        let error = self.extracted.error.take();
        let reason = "the text is cut off: the program that extracts it ended too early; save the \
                      file anew, or convert it to text";
        self.fail(None, error.unwrap_or_else(|| reason.to_owned()))
    }

    fn document(&self, section: Section) -> Result<Document> {
        let Section { anchor, fields, text, is_markdown } = section;
        let id = format!("{}#{anchor}", self.label);
        let place = Place::record(&self.name, anchor);
        check_id(&id, &place)?;
        let own = [("path", json!(self.label)), ("format", json!(self.format.name()))];
        let own = own.map(|(name, value)| (name.to_owned(), value));
        Ok(Document {
            doc_id: self.label.clone(),
            title: self.title.clone(),
            metadata: own.into_iter().chain(fields).collect(),
            kind: if is_markdown { TextKind::Markdown } else { TextKind::Prose },
            has_own_id: false,
            ..Document::new(id, text, place)
        })
    }
}

impl Iterator for OfficeReader {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Result<Document>> {
        while !self.is_done {
            let next = match self.event() {
                Ok(Some(Event::Title(title))) => {
                    self.title = title;
                    continue;
                }
                Ok(Some(Event::Note { reason, count })) => {
                    self.notes.add(&self.name, "", NoteKind::Omitted, &reason, count);
                    continue;
                }
                Ok(Some(Event::Section(section))) => self.document(section),
                Ok(Some(Event::Failed { part, reason })) => Err(self.fail(part, reason)),
                Ok(Some(Event::End)) => {
                    self.is_done = true;
                    if self.has_any {
                        return None;
                    }
                    Err(self.fail(None, format!("no text in this {} file", self.format)))
                }
                Ok(None) => {
                    self.is_done = true;
                    Err(self.cut_off())
                }
                Err(error) => {
                    self.is_done = true;
                    Err(error)
                }
            };
            self.has_any = true;
            return Some(next);
        }
        None
    }
}

/// The input as a file at its start: itself, or a copy of a stream or of compressed data.
fn file_of(
    mut stream: InputStream,
    input: &InputFile,
    counter: &AtomicU64,
    limit: u64,
) -> Result<File> {
    if let Location::Regular { path, length } = &input.location
        && !stream.origin.compressed
    {
        counter.store(*length, Ordering::Relaxed);
        return File::open(path).map_err(Error::io("read", path));
    }
    let mut file = worker::temporary()?;
    let copied = io::copy(&mut (&mut stream).take(limit.saturating_add(1)), &mut file);
    if copied.map_err(|e| stream.origin.read_error(e, None))? > limit {
        let place = Place::file(&input.name);
        let limit = size(limit);
        return Err(Error::input(place, format!("the file is larger than {limit}: split it")));
    }
    file.rewind().map_err(Error::io("read", std::env::temp_dir()))?;
    Ok(file)
}
