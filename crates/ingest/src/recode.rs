//! Text in other encodings than UTF-8, read as UTF-8 while it streams.
//!
//! UTF-16 is detected by its byte order mark, or by the positions of its zero bytes. Other text is
//! taken for ASCII up to the first byte that is not. If most of the sequences from there on are not
//! UTF-8, the encoding is guessed from them (crate `chardetng`), as browsers do for pages that do
//! not name theirs. UTF-8 with single invalid bytes is passed on as it is, and the readers of
//! records refuse it.

use std::io::{self, BufRead, Read};

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Decoder, Encoding, UTF_8, UTF_16BE, UTF_16LE};

use crate::notes::ReadNotes;

/// Bytes from the first one that is not ASCII, by which the encoding is decided.
const AHEAD: usize = 64 << 10;

/// ASCII bytes before it that count too.
const BEFORE: usize = 64;

/// Bytes that are decoded at a time.
const STEP: usize = 16 << 10;

/// A reader of UTF-8 from a reader of another encoding.
pub(crate) struct RecodingReader<R> {
    inner: R,
    state: State,
    /// Bytes to hand out, from `at` on.
    ready: Vec<u8>,
    at: usize,
    /// The last ASCII bytes that were handed out.
    before: Vec<u8>,
    /// The encoding that the text itself names, if any.
    named: Option<&'static Encoding>,
    /// The input's name, for the note.
    name: String,
    notes: ReadNotes,
}

enum State {
    /// ASCII so far.
    Undecided,
    /// UTF-8, or damaged.
    AsIs,
    Decoding(Box<Decoder>),
    Done,
}

impl<R: BufRead> RecodingReader<R> {
    /// A reader that decides the encoding where the ASCII ends. `named` is the encoding that an
    /// HTML page claims to have.
    pub(crate) fn deciding(
        inner: R,
        named: Option<&'static Encoding>,
        name: &str,
        notes: &ReadNotes,
    ) -> Self {
        Self::new(inner, State::Undecided, named, name, notes)
    }

    /// A reader of text in `encoding`, without a byte order mark.
    pub(crate) fn decoding(
        inner: R,
        encoding: &'static Encoding,
        name: &str,
        notes: &ReadNotes,
    ) -> Self {
        let mut reader = Self::new(inner, State::Done, None, name, notes);
        reader.decode_as(encoding);
        reader
    }

    fn new(
        inner: R,
        state: State,
        named: Option<&'static Encoding>,
        name: &str,
        notes: &ReadNotes,
    ) -> Self {
        let (ready, before) = (Vec::new(), Vec::new());
        let (name, notes) = (name.to_owned(), notes.clone());
        Self { inner, state, ready, at: 0, before, named, name, notes }
    }

    fn decode_as(&mut self, encoding: &'static Encoding) {
        self.notes.decide(format!("{}: read as {}, not UTF-8", self.name, encoding.name()));
        self.state = State::Decoding(Box::new(encoding.new_decoder_without_bom_handling()));
    }

    /// Hands out ASCII, or decides the encoding of the bytes after it.
    fn pass_ascii(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.inner.fill_buf()?;
        if bytes.is_empty() {
            self.state = State::Done;
            return Ok(0);
        }
        let length = Encoding::ascii_valid_up_to(bytes).min(buffer.len());
        if length > 0 {
            buffer[..length].copy_from_slice(&bytes[..length]);
            self.before.extend(&bytes[length.saturating_sub(BEFORE)..length]);
            self.before.drain(..self.before.len().saturating_sub(BEFORE));
            self.inner.consume(length);
            return Ok(length);
        }
        let mut ahead = Vec::new();
        (&mut self.inner).take(AHEAD as u64).read_to_end(&mut ahead)?;
        let is_end = ahead.len() < AHEAD;
        match guess(&self.before, &ahead, is_end, self.named) {
            None => {
                (self.ready, self.at) = (ahead, 0);
                self.state = State::AsIs;
            }
            Some(encoding) => {
                self.decode_as(encoding);
                self.decode(&ahead, false)?;
            }
        }
        Ok(0)
    }

    /// Decodes all of `bytes` into `ready`.
    fn decode(&mut self, bytes: &[u8], is_last: bool) -> io::Result<()> {
        let State::Decoding(decoder) = &mut self.state else { return Ok(()) };
        let length = decoder.max_utf8_buffer_length(bytes.len());
        let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.ready.clear();
        self.ready.resize(length, 0);
        let (_, _, written, is_damaged) = decoder.decode_to_utf8(bytes, &mut self.ready, is_last);
        self.ready.truncate(written);
        self.at = 0;
        if is_damaged {
            let reason = "some bytes are not of this encoding and became U+FFFD";
            self.notes.decide_once(format!("{}: {reason}", self.name));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for RecodingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let rest = &self.ready[self.at..];
            if !rest.is_empty() {
                let length = rest.len().min(buffer.len());
                buffer[..length].copy_from_slice(&rest[..length]);
                self.at += length;
                return Ok(length);
            }
            match &self.state {
                State::Done => return Ok(0),
                State::AsIs => return self.inner.read(buffer),
                State::Undecided => {
                    let length = self.pass_ascii(buffer)?;
                    if length > 0 {
                        return Ok(length);
                    }
                }
                State::Decoding(_) => {
                    let bytes = self.inner.fill_buf()?;
                    let bytes = bytes[..bytes.len().min(STEP)].to_vec();
                    self.decode(&bytes, bytes.is_empty())?;
                    if bytes.is_empty() {
                        self.state = State::Done;
                    }
                    self.inner.consume(bytes.len());
                }
            }
        }
    }
}

/// The encoding of UTF-16 text that begins with these bytes, with or without a byte order mark, and
/// the length of the mark. If the text is longer than `head`, `head` has an even length.
pub(crate) fn utf16(head: &[u8]) -> Option<(&'static Encoding, usize)> {
    match head {
        [0xff, 0xfe, ..] => return Some((UTF_16LE, 2)),
        [0xfe, 0xff, ..] => return Some((UTF_16BE, 2)),
        _ => {}
    }
    // Letters of Latin scripts have a zero in one half; other text has neither zeros nor controls.
    if !head.len().is_multiple_of(2) {
        return None;
    }
    let zeros = |parity: usize| head.iter().skip(parity).step_by(2).filter(|b| **b == 0).count();
    let encoding = match (zeros(0), zeros(1)) {
        (0, high) if high * 8 > head.len() => UTF_16LE,
        (high, 0) if high * 8 > head.len() => UTF_16BE,
        _ => return None,
    };
    // The last character may be cut in half.
    let (text, _) = encoding.decode_without_bom_handling(head);
    let text = text.strip_suffix(char::REPLACEMENT_CHARACTER).unwrap_or(&text);
    let is_text = |c: char| !c.is_control() || c.is_whitespace();
    let is_text = text.chars().all(|c| is_text(c) && c != char::REPLACEMENT_CHARACTER);
    is_text.then_some((encoding, 0))
}

/// The encoding of `ahead`, which begins with a byte that is not ASCII; `None` for UTF-8, damaged
/// or not, and for binary data.
fn guess(
    before: &[u8],
    ahead: &[u8],
    is_end: bool,
    named: Option<&'static Encoding>,
) -> Option<&'static Encoding> {
    let (mut valid, mut invalid) = (0, 0);
    let mut chunks = ahead.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        valid += chunk.valid().chars().filter(|c| !c.is_ascii()).count();
        let is_cut = chunks.peek().is_none() && !is_end;
        invalid += usize::from(!chunk.invalid().is_empty() && !is_cut);
    }
    if invalid <= valid || ahead.contains(&0) {
        return None;
    }
    if let Some(named) = named.filter(|named| *named != UTF_8) {
        return Some(named);
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(before, false);
    detector.feed(ahead, is_end);
    Some(detector.guess(None, Utf8Detection::Deny))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Cursor};

    fn read(bytes: &[u8], capacity: usize) -> (Vec<u8>, Vec<String>) {
        let notes = ReadNotes::default();
        let inner = BufReader::with_capacity(capacity, Cursor::new(bytes.to_vec()));
        let mut read = Vec::new();
        RecodingReader::deciding(inner, None, "f", &notes).read_to_end(&mut read).unwrap();
        (read, notes.take_decisions())
    }

    #[test]
    fn legacy_text_is_read_as_utf8_wherever_it_begins() {
        let note = ["f: read as windows-1252, not UTF-8"];
        for start in [0, 1, 100, 70_000] {
            let text = "x".repeat(start) + "Größe und Maß, “so” – für 5 €, Übung. Voilà un café.";
            let (bytes, _, _) = encoding_rs::WINDOWS_1252.encode(&text);
            for capacity in [1, 7, 64 << 10] {
                let (read, notes) = read(&bytes, capacity);
                assert_eq!(String::from_utf8(read).unwrap(), text);
                assert_eq!(notes, note);
            }
        }
        for (word, bytes) in [("café", &b"caf\xe9"[..]), ("Straße", b"Stra\xdfe"), ("é", b"\xe9")]
        {
            assert_eq!(read(bytes, 64).0, word.as_bytes(), "{word}");
        }
    }

    #[test]
    fn utf8_stays_as_it_is_damaged_or_not() {
        let long = "é".repeat(AHEAD);
        let cases =
            [&b"plain"[..], "déjà vu".as_bytes(), long.as_bytes(), b"\xc3\xa9\xc3\xa8 \xff", b""];
        for bytes in cases {
            assert_eq!(read(bytes, 64), (bytes.to_vec(), Vec::new()));
        }
    }

    #[test]
    fn utf16_is_known_with_and_without_a_mark() {
        let le = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let be = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
        assert_eq!(utf16(&le("\u{feff}x")), Some((UTF_16LE, 2)));
        assert_eq!(utf16(&be("\u{feff}x")), Some((UTF_16BE, 2)));
        assert_eq!(utf16(&le("plain words\r\n")), Some((UTF_16LE, 0)));
        assert_eq!(utf16(&be("naïve – words")), Some((UTF_16BE, 0)));
        for binary in
            [&b"\x01\0\x02\0\x03\0\x04\0"[..], b"GIF89a\0\0\x01\0", b"\0\0\0\0", b"", b"text"]
        {
            assert_eq!(utf16(binary), None, "{binary:?}");
        }
    }
}
