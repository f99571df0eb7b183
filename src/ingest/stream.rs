//! An input's bytes: counted, decompressed, and known not to be another encoding.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::bufread::MultiGzDecoder;

use super::source::{Bytes, Input};
use crate::error::{Error, Place, Result};

const BUFFER: usize = 64 << 10;

/// How many bytes at the front are searched for the marks of other encodings.
const HEAD: usize = 4096;

/// Decompressed bytes of one input, without a byte order mark.
pub(super) struct Stream {
    bytes: BufReader<Box<dyn Read + Send>>,
    pub(super) origin: Origin,
}

/// What messages about a stream need to know.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    pub(super) name: String,
    path: PathBuf,
    pub(super) compressed: bool,
}

impl Origin {
    /// The error for a failed read at `place`: damaged gzip data blames the input, all else the
    /// operating system.
    pub(super) fn read_error(&self, error: io::Error, record: Option<String>) -> Error {
        use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        let place = Place { file: self.name.clone(), record, field: None };
        if self.compressed && matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof) {
            let what = if error.kind() == UnexpectedEof { "cut off" } else { "damaged" };
            return Error::input(
                place,
                format!("the gzip data is {what} here ({error}): check the file with gzip -t"),
            );
        }
        Error::io("read", &self.path)(error)
    }
}

impl Stream {
    /// The bytes as they are, whatever they mean.
    pub(super) fn open(input: &Input, counter: Arc<AtomicU64>) -> Result<Self> {
        let (raw, path): (Box<dyn Read + Send>, _) = match &input.bytes {
            Bytes::File(path, _) | Bytes::Pipe(path) => {
                (Box::new(File::open(path).map_err(Error::io("read", path))?), path.clone())
            }
            Bytes::Stdin => (Box::new(io::stdin()), input.name.clone().into()),
        };
        Self::new(raw, input, path, counter)
    }

    /// As [`Stream::open`], from bytes that the caller has.
    pub(super) fn from_raw(
        raw: Box<dyn Read + Send>,
        input: &Input,
        counter: Arc<AtomicU64>,
    ) -> Result<Self> {
        Self::new(raw, input, input.name.clone().into(), counter)
    }

    fn new(
        raw: Box<dyn Read + Send>,
        input: &Input,
        path: PathBuf,
        counter: Arc<AtomicU64>,
    ) -> Result<Self> {
        let mut origin = Origin { name: input.name.clone(), path, compressed: false };
        let raw = Replay::read_ahead(Counting { inner: raw, counter }, 2, 2);
        origin.compressed = raw.head() == [0x1f, 0x8b];
        let named_gz = input.label.to_ascii_lowercase().ends_with(".gz");
        if named_gz && !origin.compressed && !raw.head().is_empty() {
            return Err(Error::input(
                Place::file(&input.name),
                "is not gzip data although its name ends with .gz: rename it",
            ));
        }
        let raw = BufReader::with_capacity(BUFFER, raw);
        let bytes: Box<dyn Read + Send> = match origin.compressed {
            true => Box::new(MultiGzDecoder::new(raw)),
            false => Box::new(raw),
        };
        Ok(Self { bytes: BufReader::with_capacity(BUFFER, bytes), origin })
    }

    /// The same stream as UTF-8: a byte order mark is dropped, other encodings and binary data
    /// are refused.
    pub(super) fn utf8(self) -> Result<Self> {
        let mut bytes = Replay::read_ahead(self.bytes, 4, HEAD);
        if let Some(reason) = not_utf8(bytes.head()) {
            return Err(Error::input(Place::file(&self.origin.name), reason));
        }
        if bytes.head().starts_with(b"\xef\xbb\xbf") {
            bytes.head.set_position(3);
        }
        let bytes: Box<dyn Read + Send> = Box::new(bytes);
        Ok(Self { bytes: BufReader::with_capacity(BUFFER, bytes), origin: self.origin })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer)
    }
}

impl BufRead for Stream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.bytes.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.bytes.consume(amount);
    }
}

/// Why `name`, field or record cannot be read as UTF-8, and where: byte numbers count from 1.
pub(super) fn utf8_error(error: std::str::Utf8Error, of: &str) -> String {
    format!(
        "not valid UTF-8 at byte {} of the {of}: convert the file (iconv -f LATIN1 -t UTF-8, say)",
        error.valid_up_to() + 1
    )
}

struct Counting<R> {
    inner: R,
    counter: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
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

/// Bytes that were read ahead, the error that came behind them if one did, then the rest.
struct Replay<R> {
    head: Cursor<Vec<u8>>,
    error: Option<io::Error>,
    rest: R,
}

impl<R: Read> Replay<R> {
    /// Reads `least` bytes ahead, fewer only at the end or before an error, and up to `most` if
    /// they come at once.
    fn read_ahead(mut rest: R, least: usize, most: usize) -> Self {
        let mut head = vec![0; most];
        let mut length = 0;
        let mut error = None;
        while length < least {
            match rest.read(&mut head[length..]) {
                Ok(0) => break,
                Ok(n) => length += n,
                Err(e) => {
                    error = Some(e);
                    break;
                }
            }
        }
        head.truncate(length);
        Self { head: Cursor::new(head), error, rest }
    }

    fn head(&self) -> &[u8] {
        self.head.get_ref()
    }
}

impl<R: Read> Read for Replay<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buffer)? {
            0 if buffer.is_empty() => Ok(0),
            0 => match self.error.take() {
                Some(error) => Err(error),
                None => self.rest.read(buffer),
            },
            n => Ok(n),
        }
    }
}

fn not_utf8(head: &[u8]) -> Option<String> {
    let encoding = match head {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16",
        _ if head.contains(&0) => {
            return Some(
                "holds NUL bytes: this is a binary file, or UTF-16 without a byte order mark \
                 (convert it with iconv -f UTF-16LE -t UTF-8)"
                    .into(),
            );
        }
        _ => return None,
    };
    Some(format!("is {encoding}: convert it with iconv -f {encoding} -t UTF-8"))
}
