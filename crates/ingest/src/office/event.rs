//! The lines that an extraction writes.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::limits::ExtractLimits;
use crate::message::{shortened, size};

/// One line: a JSON value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// The title of the whole file, before its sections.
    Title(String),
    /// A page, slide, sheet or section.
    Section(Section),
    /// Something that is left out, and how often.
    Note {
        /// The things, and the remedy.
        reason: String,
        /// Their number.
        count: u64,
    },
    /// A part of the file, or all the rest of it, that cannot be read.
    Failed {
        /// The part: `page 3`.
        part: Option<String>,
        /// The error, and the remedy.
        reason: String,
    },
    /// The last line. Without it the output is cut off.
    End,
}

/// A part of a file that becomes a document.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Section {
    /// The end of the id, after the path and `#`: `page=3`.
    pub(super) anchor: String,
    /// Metadata: `page`, `slide`, `sheet` and `row`, or `section`.
    pub(super) fields: Map<String, Value>,
    pub(super) text: String,
    /// True if headings begin with `#`.
    pub(super) is_markdown: bool,
}

impl Section {
    /// A section without text and metadata.
    pub(super) fn new(anchor: String) -> Self {
        Self { anchor, ..Self::default() }
    }

    /// The section with one more field.
    pub(super) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

/// The error that ends an extraction before the end of the file.
#[derive(Debug)]
pub(super) enum ExtractError {
    /// The file cannot be read, or not to its end.
    Input { part: Option<String>, reason: String },
    /// The lines cannot be written: their reader has closed them, say.
    Output(io::Error),
}

impl ExtractError {
    /// An error about the whole file.
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self::Input { part: None, reason: reason.into() }
    }
}

/// The writer of the lines, which counts the text.
pub(super) struct Sink<'a> {
    output: &'a mut dyn Write,
    limits: &'a ExtractLimits,
    text_bytes: u64,
    /// The number of sections so far.
    pub(super) sections: u64,
}

impl<'a> Sink<'a> {
    pub(super) fn new(output: &'a mut dyn Write, limits: &'a ExtractLimits) -> Self {
        Self { output, limits, text_bytes: 0, sections: 0 }
    }

    pub(super) fn limits(&self) -> &'a ExtractLimits {
        self.limits
    }

    /// Writes the title of the file.
    pub(super) fn title(&mut self, title: &str) -> Result<(), ExtractError> {
        self.write(&Event::Title(shortened(title, 1000)))
    }

    /// Writes a section, unless it has no text.
    pub(super) fn section(&mut self, mut section: Section) -> Result<(), ExtractError> {
        section.text.truncate(section.text.trim_end().len());
        if section.text.trim().is_empty() {
            return Ok(());
        }
        self.text_bytes += section.text.len() as u64;
        self.sections += 1;
        let ExtractLimits { text_bytes, sections, .. } = *self.limits;
        if self.text_bytes > text_bytes {
            let limit = size(text_bytes);
            return Err(ExtractError::new(format!("more than {limit} of text: split the file")));
        }
        if self.sections > sections {
            let reason = format!("more than {sections} pages or sections: split the file");
            return Err(ExtractError::new(reason));
        }
        self.write(&Event::Section(section))
    }

    /// Writes a note, unless `count` is 0.
    pub(super) fn note(&mut self, reason: &str, count: u64) -> Result<(), ExtractError> {
        match count {
            0 => Ok(()),
            _ => self.write(&Event::Note { reason: reason.to_owned(), count }),
        }
    }

    /// Writes an error about one part of the file, or about all of it.
    pub(super) fn failed(
        &mut self,
        part: Option<String>,
        reason: String,
    ) -> Result<(), ExtractError> {
        self.write(&Event::Failed { part, reason: shortened(&reason, 600) })
    }

    /// Writes the last line.
    pub(super) fn end(&mut self) -> Result<(), ExtractError> {
        self.write(&Event::End)?;
        self.output.flush().map_err(ExtractError::Output)
    }

    fn write(&mut self, event: &Event) -> Result<(), ExtractError> {
        let mut line = serde_json::to_vec(event).map_err(|e| ExtractError::Output(e.into()))?;
        line.push(b'\n');
        self.output.write_all(&line).map_err(ExtractError::Output)
    }
}
