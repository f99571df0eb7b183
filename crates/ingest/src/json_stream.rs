//! The records of one JSON array, or JSON objects one after another, as bytes that are not parsed.

use std::io::{self, BufRead};

use crate::message::size;
use crate::options::SKIPPED_RECORDS;

/// The layout of the records in a JSON file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonLayout {
    /// One record per line.
    Lines,
    /// The elements of one array.
    Array,
    /// Objects over several lines, one or more.
    Objects,
}

/// The outcome of looking for a record.
pub(crate) enum Element {
    Found(Vec<u8>),
    End,
    /// An error about this record; reading continues after it.
    Bad(String),
    /// The rest of the file cannot be read.
    Fatal(String),
}

/// Reads one record after another from a stream.
#[derive(Debug)]
pub(crate) struct ElementReader {
    is_array: bool,
    max_bytes: u64,
    /// Records found so far.
    count: u64,
    is_open: bool,
}

impl ElementReader {
    pub(crate) fn new(layout: JsonLayout, max_bytes: u64) -> Self {
        Self { is_array: layout == JsonLayout::Array, max_bytes, count: 0, is_open: false }
    }

    /// The next record.
    pub(crate) fn next(&mut self, stream: &mut impl BufRead) -> io::Result<Element> {
        let mut first = peek(stream)?;
        if self.is_array {
            if !self.is_open {
                if first != Some(b'[') {
                    return Ok(Element::Fatal("expected the start of an array".into()));
                }
                stream.consume(1);
                self.is_open = true;
                first = peek(stream)?;
            } else if first == Some(b',') && self.count > 0 {
                stream.consume(1);
                first = peek(stream)?;
            } else if self.count > 0 && !matches!(first, Some(b']') | None) {
                return Ok(Element::Fatal(
                    "no comma in front of this record: the rest of the file is not read".into(),
                ));
            }
            match first {
                None => {
                    return Ok(Element::Fatal(
                        "the file ends inside the array, it is cut off: copy or write it again"
                            .into(),
                    ));
                }
                Some(b']') => {
                    stream.consume(1);
                    return Ok(match peek(stream)? {
                        None => Element::End,
                        Some(_) => Element::Fatal(
                            "text after the end of the array: write one record per line".into(),
                        ),
                    });
                }
                Some(_) => {}
            }
        }
        let Some(first) = first else { return Ok(Element::End) };
        self.count += 1;
        if !self.is_array && first != b'{' {
            return Ok(Element::Fatal("not a JSON object: expected '{'".into()));
        }
        self.cut(stream)
    }

    /// Reads one value.
    fn cut(&self, stream: &mut impl BufRead) -> io::Result<Element> {
        let (mut record, mut length) = (Vec::new(), 0u64);
        let mut scan = Scan::default();
        loop {
            let bytes = stream.fill_buf()?;
            if bytes.is_empty() {
                return Ok(match scan.depth == 0 && !scan.in_string {
                    true => Element::Found(record),
                    false => Element::Fatal(
                        "the file ends inside this record, it is cut off: copy or write it again"
                            .into(),
                    ),
                });
            }
            let (taken, is_done) = scan.take(bytes);
            length += taken as u64;
            if length <= self.max_bytes {
                record.extend(&bytes[..taken]);
            }
            stream.consume(taken);
            let limit = size(self.max_bytes);
            if is_done {
                return Ok(match length <= self.max_bytes {
                    true => Element::Found(record),
                    false => Element::Bad(format!(
                        "the record is longer than {limit}: raise --max-record-bytes"
                    )),
                });
            }
            if length > self.max_bytes.saturating_mul(SKIPPED_RECORDS) {
                return Ok(Element::Fatal(format!(
                    "no end of a record longer than {limit}: the rest of the file is not read"
                )));
            }
        }
    }
}

/// The first byte that is not white space, which stays in the stream.
fn peek(stream: &mut impl BufRead) -> io::Result<Option<u8>> {
    loop {
        let bytes = stream.fill_buf()?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let blank = bytes.iter().take_while(|b| b.is_ascii_whitespace()).count();
        let first = bytes.get(blank).copied();
        stream.consume(blank);
        if first.is_some() {
            return Ok(first);
        }
    }
}

/// The state inside a value.
#[derive(Debug, Default)]
struct Scan {
    depth: u64,
    in_string: bool,
    is_escaped: bool,
    has_begun: bool,
}

impl Scan {
    /// The number of bytes that belong to the value, and whether it ends with them.
    fn take(&mut self, bytes: &[u8]) -> (usize, bool) {
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' => self.is_escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return (at + 1, true);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth == 0 => return (at, true),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return (at + 1, true);
                    }
                }
                b',' if self.depth == 0 && self.has_begun => return (at, true),
                _ => {}
            }
            self.has_begun = true;
        }
        (bytes.len(), false)
    }
}
