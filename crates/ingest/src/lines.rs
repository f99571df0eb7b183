//! Lines of a text file, plain or gzip, numbered and limited in length.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

use warpseek_error::{Error, Place, Result};

use crate::gzip::{GZIP_MAGIC, GzipReader};

/// Reads one line after another.
pub struct Lines<'a> {
    reader: Box<dyn BufRead + 'a>,
    file: String,
    number: u64,
    blank: u64,
    max_line: usize,
    buffer: Vec<u8>,
}

impl Lines<'static> {
    /// Opens a file whose lines have at most `max_line` bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read.
    pub fn open(path: &Path, max_line: usize) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        Self::new(file, &path.display().to_string(), max_line)
    }
}

impl<'a> Lines<'a> {
    /// Reads from `reader`, which messages call `file`. A gzip stream, also one of several members,
    /// is recognised by its first two bytes and decompressed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the first bytes cannot be read.
    pub fn new(mut reader: impl Read + 'a, file: &str, max_line: usize) -> Result<Self> {
        let mut head = Vec::with_capacity(GZIP_MAGIC.len());
        reader
            .by_ref()
            .take(GZIP_MAGIC.len() as u64)
            .read_to_end(&mut head)
            .map_err(Error::io("read", file))?;
        let is_gzip = head == GZIP_MAGIC;
        let whole = Cursor::new(head).chain(reader);
        let reader: Box<dyn BufRead + 'a> = match is_gzip {
            true => Box::new(BufReader::new(GzipReader::new(BufReader::new(whole)))),
            false => Box::new(BufReader::new(whole)),
        };
        let file = file.to_owned();
        Ok(Self { reader, file, number: 0, blank: 0, max_line, buffer: Vec::new() })
    }

    /// The next line that is not blank, without its end and without a byte order mark; `None` at
    /// the end of the file.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] with file and line for a line that is too long or not UTF-8 and for a
    /// damaged gzip stream, [`Error::Io`] if the file cannot be read.
    #[allow(clippy::should_implement_trait, reason = "the line borrows the reader")]
    pub fn next(&mut self) -> Result<Option<&str>> {
        loop {
            let limit = self.max_line as u64 + 2;
            let read = read_line(&mut self.reader, limit, &mut self.buffer);
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

    /// The number of blank lines so far.
    pub fn blank(&self) -> u64 {
        self.blank
    }

    /// The number of the line that was read last, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// An error about the line that was read last.
    pub fn error(&self, reason: impl Into<String>) -> Error {
        Error::input(Place::record(&self.file, format!("line {}", self.number)), reason)
    }

    /// An error about one field of the line that was read last.
    pub fn field_error(&self, field: &str, reason: impl Into<String>) -> Error {
        let place = Place::record(&self.file, format!("line {}", self.number));
        Error::input(place.field(field), reason)
    }

    /// An error about the file as a whole.
    pub fn file_error(&self, reason: impl Into<String>) -> Error {
        Error::input(Place::file(&self.file), reason)
    }

    fn read_error(&self, source: io::Error) -> Error {
        if !is_damage(&source) {
            return Error::io("read", &self.file)(source);
        }
        self.file_error(format!(
            "the gzip stream is damaged or cut short after line {} ({source}): get the file again",
            self.number
        ))
    }
}

/// Reads up to the end of a line, at most `limit` bytes, and returns their number.
pub(crate) fn read_line(
    reader: &mut impl BufRead,
    limit: u64,
    line: &mut Vec<u8>,
) -> io::Result<usize> {
    line.clear();
    reader.take(limit).read_until(b'\n', line)
}

/// True for an error about the data of a gzip stream, false for one of the system.
pub(crate) fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
}
