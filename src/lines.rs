//! The lines of a text file, plain or gzip, numbered and bounded in length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Place, Result};

/// The longest line of a table, in bytes without its end. Two ids, a number and a tag are far
/// shorter; a longer line means that the file is something else.
pub(crate) const MAX_TABLE_LINE: usize = 64 * 1024;

/// The first bytes of a gzip stream (RFC 1952, section 2.3.1).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads one line after another.
pub(crate) struct Lines<'a> {
    reader: Box<dyn BufRead + 'a>,
    file: String,
    number: u64,
    blank: u64,
    max_line: usize,
    buffer: Vec<u8>,
}

impl Lines<'static> {
    /// Opens a file; lines may be up to `max_line` bytes long.
    pub(crate) fn open(path: &Path, max_line: usize) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Self::new(file, &path.display().to_string(), max_line)
    }
}

impl<'a> Lines<'a> {
    /// Reads from `reader`, called `file` in messages. A gzip stream (also one of several members)
    /// is known by its first two bytes and decompressed on the way.
    pub(crate) fn new(mut reader: impl Read + 'a, file: &str, max_line: usize) -> Result<Self> {
        let mut head = Vec::with_capacity(GZIP_MAGIC.len());
        reader
            .by_ref()
            .take(GZIP_MAGIC.len() as u64)
            .read_to_end(&mut head)
            .map_err(Error::io("read", file))?;
        let zipped = head == GZIP_MAGIC;
        let whole = Cursor::new(head).chain(reader);
        let reader: Box<dyn BufRead + 'a> = if zipped {
            Box::new(BufReader::new(MultiGzDecoder::new(whole)))
        } else {
            Box::new(BufReader::new(whole))
        };
        Ok(Self {
            reader,
            file: file.to_owned(),
            number: 0,
            blank: 0,
            max_line,
            buffer: Vec::new(),
        })
    }

    /// The next line that is not blank, without its end and without a byte order mark; `None` at
    /// the end of the file.
    pub(crate) fn next(&mut self) -> Result<Option<&str>> {
        loop {
            self.buffer.clear();
            let limit = (self.max_line + 2) as u64;
            let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.buffer);
            if read.map_err(|source| self.read_error(source))? == 0 {
                return Ok(None);
            }
            self.number += 1;
            while matches!(self.buffer.last(), Some(b'\n' | b'\r')) {
                self.buffer.pop();
            }
            if self.buffer.len() > self.max_line {
                return Err(self.error(format!("the line is longer than {} bytes", self.max_line)));
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
            self.blank += 1;
        }
        match std::str::from_utf8(&self.buffer) {
            Ok(line) if self.number == 1 => Ok(Some(line.trim_start_matches('\u{feff}'))),
            Ok(line) => Ok(Some(line)),
            Err(_) => Err(self.error("not valid UTF-8: convert the file to UTF-8")),
        }
    }

    /// Blank lines that were passed over so far.
    pub(crate) fn blank(&self) -> u64 {
        self.blank
    }

    /// The number of the line that was read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// An error about the line that was read last.
    pub(crate) fn error(&self, reason: impl Into<String>) -> Error {
        Error::input(Place::record(&self.file, format!("line {}", self.number)), reason)
    }

    /// An error about one field of the line that was read last.
    pub(crate) fn field_error(&self, field: &str, reason: impl Into<String>) -> Error {
        let place = Place::record(&self.file, format!("line {}", self.number));
        Error::input(place.field(field), reason)
    }

    /// An error about the file as a whole.
    pub(crate) fn file_error(&self, reason: impl Into<String>) -> Error {
        Error::input(Place::file(&self.file), reason)
    }

    fn read_error(&self, source: io::Error) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        if matches!(source.kind(), InvalidData | InvalidInput | UnexpectedEof) {
            return self.file_error(format!(
                "the gzip stream is damaged or cut short after line {} ({source}): get the file \
                 again",
                self.number
            ));
        }
        Error::io("read", &self.file)(source)
    }
}

/// The columns of a table whose separator is the tab, if there are exactly `N`, trimmed.
pub(crate) fn tab_columns<const N: usize>(line: &str) -> Option<[&str; N]> {
    exactly(line.split('\t').map(str::trim))
}

/// The columns of a table whose separator is any white space, if there are exactly `N`.
pub(crate) fn space_columns<const N: usize>(line: &str) -> Option<[&str; N]> {
    exactly(line.split_ascii_whitespace())
}

fn exactly<'a, const N: usize>(mut columns: impl Iterator<Item = &'a str>) -> Option<[&'a str; N]> {
    let mut found = [""; N];
    for slot in &mut found {
        *slot = columns.next()?;
    }
    columns.next().is_none().then_some(found)
}
