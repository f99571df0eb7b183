//! The bytes of an input: counted, decompressed, and read as UTF-8.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use encoding_rs::Encoding;
use warpseek_error::{Error, Place, Result};

use crate::gzip::{GZIP_MAGIC, GzipReader};
use crate::inputs::{InputFile, Location};
use crate::lines::is_damage;
use crate::magic::FileKind;
use crate::notes::ReadNotes;
use crate::recode::{self, RecodingReader};

const BUFFER: usize = 64 << 10;

/// Bytes at the front that are searched for signs of other encodings.
const HEAD: usize = 4096;

/// Bytes by which the kind of a file is told that is none of text.
const KIND_HEAD: usize = 1 << 20;

/// Decompressed bytes of one input.
pub(crate) struct InputStream {
    bytes: BufReader<Box<dyn Read + Send>>,
    pub(crate) origin: StreamOrigin,
}

/// The source of a stream, for messages.
#[derive(Debug, Clone)]
pub(crate) struct StreamOrigin {
    pub(crate) name: String,
    pub(crate) compressed: bool,
}

impl StreamOrigin {
    /// The error for a failed read in `record`: damaged gzip data is a defect of the input, all
    /// else an error of the system.
    pub(crate) fn read_error(&self, error: io::Error, record: Option<String>) -> Error {
        if !self.compressed || !is_damage(&error) {
            return Error::io("read", &self.name)(error);
        }
        let damage = match error.kind() {
            io::ErrorKind::UnexpectedEof => "cut off",
            _ => "damaged",
        };
        Error::input(
            Place { file: self.name.clone(), record, field: None },
            format!("the gzip data is {damage} here ({error}): check the file with gzip -t"),
        )
    }
}

impl InputStream {
    /// Opens the input's file, pipe or standard input. `counter` counts its bytes as stored.
    pub(crate) fn open(input: &InputFile, counter: Arc<AtomicU64>) -> Result<Self> {
        let reader: Box<dyn Read + Send> = match &input.location {
            Location::Regular { path, .. } | Location::Pipe(path) => {
                Box::new(File::open(path).map_err(Error::io("read", path))?)
            }
            Location::Stdin => Box::new(io::stdin()),
        };
        Self::from_reader(reader, input, counter)
    }

    /// Reads the input from `reader` instead.
    pub(crate) fn from_reader(
        reader: Box<dyn Read + Send>,
        input: &InputFile,
        counter: Arc<AtomicU64>,
    ) -> Result<Self> {
        let mut origin = StreamOrigin { name: input.name.clone(), compressed: false };
        let mut raw = CountingReader { inner: reader, counter };
        let head = read_head(&mut raw, GZIP_MAGIC.len(), &origin)?;
        origin.compressed = head == GZIP_MAGIC;
        let named_gz = input.name.to_ascii_lowercase().ends_with(".gz");
        if named_gz && !origin.compressed && !head.is_empty() {
            return Err(Error::input(
                Place::file(&input.name),
                "is not gzip data although its name ends with .gz: rename it",
            ));
        }
        let raw = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(raw));
        let bytes: Box<dyn Read + Send> = match origin.compressed {
            true => Box::new(GzipReader::new(raw)),
            false => Box::new(raw),
        };
        Ok(Self { bytes: BufReader::with_capacity(BUFFER, bytes), origin })
    }

    /// The same stream as UTF-8, without a byte order mark. UTF-16 is converted, with a decision in
    /// `notes`; UTF-32, binary data and files of other formats are errors.
    pub(crate) fn utf8(mut self, notes: &ReadNotes) -> Result<Self> {
        let mut head = read_head(&mut self.bytes, 4, &self.origin)?;
        let fail = |reason: String| Error::input(Place::file(&self.origin.name), reason);
        if let [0xff, 0xfe, 0, 0] | [0, 0, 0xfe, 0xff] = head[..] {
            return Err(fail("is UTF-32: convert it with iconv -f UTF-32 -t UTF-8".into()));
        }
        head.extend(self.bytes.buffer());
        self.bytes.consume(self.bytes.buffer().len());
        if FileKind::of(&head).is_some() {
            let more = read_head(&mut self.bytes, KIND_HEAD, &self.origin);
            head.extend(more.unwrap_or_default());
        }
        if let Some(kind) = FileKind::of(&head) {
            return Err(fail(kind.error("text", !self.origin.name.starts_with('<'))));
        }
        if let Some((encoding, mark)) = recode::utf16(&head[..head.len().min(HEAD)]) {
            head.drain(..mark);
            let name = self.origin.name.clone();
            return Ok(self.unread(head).recoded(|bytes| {
                Box::new(RecodingReader::decoding(bytes, encoding, &name, notes))
            }));
        }
        if head.iter().take(HEAD).any(|byte| *byte == 0) {
            return Err(fail("holds NUL bytes: this is a binary file".into()));
        }
        if head.starts_with(b"\xef\xbb\xbf") {
            head.drain(..3);
        }
        Ok(self.unread(head))
    }

    /// As [`InputStream::utf8`], and text in a legacy encoding is converted too. `named` is the
    /// encoding that the text itself names.
    pub(crate) fn text(self, named: Option<&'static Encoding>, notes: &ReadNotes) -> Result<Self> {
        let name = self.origin.name.clone();
        Ok(self
            .utf8(notes)?
            .recoded(|bytes| Box::new(RecodingReader::deciding(bytes, named, &name, notes))))
    }

    fn recoded(
        self,
        recode: impl FnOnce(BufReader<Box<dyn Read + Send>>) -> Box<dyn Read + Send>,
    ) -> Self {
        let bytes = BufReader::with_capacity(BUFFER, recode(self.bytes));
        Self { bytes, origin: self.origin }
    }

    /// The first lines, at most `lines` and `limit` bytes, and the stream as it was before.
    pub(crate) fn peek_lines(mut self, lines: usize, limit: u64) -> Result<(Vec<u8>, Self)> {
        let mut head = Vec::new();
        for number in 1..=lines {
            let left = limit - head.len() as u64;
            let read = (&mut self.bytes).take(left).read_until(b'\n', &mut head);
            match read {
                Ok(0) => break,
                Ok(_) => {}
                // The error is returned where the records are read.
                Err(e) if number > 1 => {
                    let failing = FailingReader { error: Some(e), inner: self.bytes };
                    let bytes = BufReader::with_capacity(BUFFER, Box::new(failing) as Box<_>);
                    let stream = Self { bytes, origin: self.origin };
                    return Ok((head.clone(), stream.unread(head)));
                }
                Err(e) => return Err(self.origin.read_error(e, Some("line 1".into()))),
            }
        }
        Ok((head.clone(), self.unread(head)))
    }

    /// The first bytes, fewer than `length` only at the end, and the stream as it was before.
    pub(crate) fn peek(mut self, length: usize) -> Result<(Vec<u8>, Self)> {
        let head = read_head(&mut self.bytes, length, &self.origin)?;
        Ok((head.clone(), self.unread(head)))
    }

    /// The first line that is not blank, with its end, and the stream as it was before. The line is
    /// cut, or empty, if it ends more than `limit` bytes into the stream.
    pub(crate) fn peek_line(mut self, limit: u64) -> Result<(Vec<u8>, Self)> {
        let mut head = Vec::new();
        let mut start = 0;
        while (head.len() as u64) < limit {
            start = head.len();
            let left = limit - head.len() as u64;
            let read = (&mut self.bytes).take(left).read_until(b'\n', &mut head);
            let read = read.map_err(|e| self.origin.read_error(e, Some("line 1".into())))?;
            if read == 0 || !head[start..].trim_ascii().is_empty() {
                break;
            }
        }
        let line = head[start..].to_vec();
        Ok((line, self.unread(head)))
    }

    /// True if the stream starts with these bytes; and the stream as it was before.
    pub(crate) fn starts_with(mut self, magic: &[u8]) -> Result<(bool, Self)> {
        let head = read_head(&mut self.bytes, magic.len(), &self.origin)?;
        Ok((head == magic, self.unread(head)))
    }

    /// The stream with `head` in front.
    fn unread(self, head: Vec<u8>) -> Self {
        let bytes: Box<dyn Read + Send> = Box::new(Cursor::new(head).chain(self.bytes));
        Self { bytes: BufReader::with_capacity(BUFFER, bytes), origin: self.origin }
    }
}

impl Read for InputStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer)
    }
}

impl BufRead for InputStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.bytes.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes.consume(amount);
    }
}

/// Reads `length` bytes, fewer only at the end.
fn read_head(reader: &mut impl Read, length: usize, origin: &StreamOrigin) -> Result<Vec<u8>> {
    let mut head = Vec::with_capacity(length);
    let read = reader.take(length as u64).read_to_end(&mut head);
    read.map(|_| head).map_err(|error| origin.read_error(error, None))
}

/// A reader that returns an error first, then reads on.
struct FailingReader<R> {
    error: Option<io::Error>,
    inner: R,
}

impl<R: Read> Read for FailingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.inner.read(buffer),
        }
    }
}

struct CountingReader<R> {
    inner: R,
    counter: Arc<AtomicU64>,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                // Not every reader above this one tries again.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
                Ok(n) => {
                    self.counter.fetch_add(n as u64, Ordering::Relaxed);
                    return Ok(n);
                }
            }
        }
    }
}
