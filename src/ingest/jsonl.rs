//! JSON lines: one object a line.

use std::io::{BufRead, Read};

use serde_json::Value;

use super::fields::Fields;
use super::source::Input;
use super::stream::{Stream, utf8_error};
use super::{Document, FieldMap, ReadOptions, json, size};
use crate::error::{Error, Place, Result};

/// A line that is longer than this many records may be is not worth looking for its end.
const SKIPPED_RECORDS: u64 = 64;

/// The records of one file.
pub(super) struct Lines {
    stream: Stream,
    label: String,
    map: FieldMap,
    /// Known from the first record on.
    fields: Option<Fields>,
    longest: u64,
    line: u64,
    record: u64,
    state: State,
}

#[derive(PartialEq)]
enum State {
    AtLine,
    /// Inside a line that was too long.
    InLine,
    Done,
}

impl Lines {
    pub(super) fn open(stream: Stream, input: &Input, options: &ReadOptions) -> Result<Self> {
        Ok(Self {
            stream: stream.utf8()?,
            label: input.label.clone(),
            map: options.fields.clone(),
            fields: None,
            longest: options.max_record_bytes,
            line: 0,
            record: 0,
            state: State::AtLine,
        })
    }

    fn place(&self) -> Place {
        Place::record(&self.stream.origin.name, format!("line {}", self.line))
    }

    /// The next line that is not blank, with its line break; `None` at the end.
    fn next_line(&mut self) -> Result<Option<Vec<u8>>> {
        if self.state == State::InLine {
            self.skip_line()?;
            self.state = State::AtLine;
        }
        let mut line = Vec::new();
        loop {
            line.clear();
            self.line += 1;
            let most = self.longest.saturating_add(1);
            (&mut self.stream)
                .take(most)
                .read_until(b'\n', &mut line)
                .map_err(|e| self.read_error(e))?;
            if line.is_empty() {
                return Ok(None);
            }
            if line.len() as u64 == most && !line.ends_with(b"\n") {
                self.record += 1;
                self.state = State::InLine;
                let limit = size(self.longest);
                return Err(Error::input(
                    self.place(),
                    format!("the line is longer than {limit}: raise --max-record-bytes"),
                ));
            }
            if !line.trim_ascii().is_empty() {
                self.record += 1;
                return Ok(Some(line));
            }
        }
    }

    /// Reads up to the end of the line, but not without end.
    fn skip_line(&mut self) -> Result<()> {
        let most = self.longest.saturating_mul(SKIPPED_RECORDS);
        let mut skipped = 0;
        while skipped < most {
            let bytes = match self.stream.fill_buf() {
                Ok(bytes) => bytes,
                Err(e) => return Err(self.read_error(e)),
            };
            let (n, ended) = match bytes.iter().position(|b| *b == b'\n') {
                Some(at) => (at + 1, true),
                None => (bytes.len(), bytes.is_empty()),
            };
            self.stream.consume(n);
            skipped += n as u64;
            if ended {
                return Ok(());
            }
        }
        self.state = State::Done;
        let limit = size(most);
        Err(Error::input(
            self.place(),
            format!("no end of the line within {limit}: the rest of the file is not read"),
        ))
    }

    fn read_error(&mut self, error: std::io::Error) -> Error {
        self.state = State::Done;
        self.stream.origin.read_error(error, Some(format!("line {}", self.line)))
    }

    fn document(&mut self, line: &[u8]) -> Result<Document> {
        let place = self.place();
        let line = std::str::from_utf8(line)
            .map_err(|e| Error::input(place.clone(), utf8_error(e, "line")))?
            .trim_ascii();
        let value = match self.fields {
            Some(_) => json::parse(line),
            None => self.parse_first(line),
        }
        .map_err(|reason| Error::input(place.clone(), reason))?;
        let Value::Object(record) = value else {
            let found = json::kind(&value);
            return Err(Error::input(place, format!("expected an object, found {found}")));
        };
        let fields = match &self.fields {
            Some(fields) => fields,
            None => match Fields::resolve(&record, &self.map, &self.stream.origin.name) {
                Ok(fields) => self.fields.insert(fields),
                Err(error) => {
                    self.state = State::Done;
                    return Err(error);
                }
            },
        };
        fields.document(record, place, &self.label, self.record)
    }

    /// As [`json::parse`], but JSON that is laid out otherwise than one object a line is refused
    /// with the cure, and the file is then done with.
    fn parse_first(&mut self, line: &str) -> Result<Value, String> {
        let (what, cure) = match line.as_bytes() {
            [b'[', ..] => ("one JSON array", ".[]"),
            _ => match json::parse(line) {
                Err(reason) if reason.starts_with("not valid JSON: EOF") => {
                    ("JSON over several lines", ".")
                }
                parsed => return parsed,
            },
        };
        self.state = State::Done;
        Err(format!(
            "the file seems to be {what}, not one object a line: convert it with \
             jq -c '{cure}' FILE > FILE.jsonl"
        ))
    }
}

impl Iterator for Lines {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done {
            return None;
        }
        match self.next_line() {
            Ok(Some(line)) => Some(self.document(&line)),
            Ok(None) => {
                self.state = State::Done;
                None
            }
            Err(error) => Some(Err(error)),
        }
    }
}
