//! Server-sent events, as in the HTML standard, section 9.2.6.

use std::io::{self, BufRead, Read};

/// Reader of the `data` of events. Comments and other fields are skipped.
///
/// Lines end in LF, CRLF or CR. An empty line ends an event. Several `data` lines are joined by LF.
pub(super) struct EventReader<R> {
    reader: R,
    /// The last byte was CR: a following LF belongs to it.
    after_cr: bool,
}

impl<R: BufRead> EventReader<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, after_cr: false }
    }

    /// Data of the next event that has any; None at the end. An event without its empty line is
    /// dropped.
    pub(super) fn next_event(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut data: Option<Vec<u8>> = None;
        while let Some(line) = self.line()? {
            let value = match line.strip_prefix(b"data") {
                _ if line.is_empty() && data.is_some() => return Ok(data),
                Some([]) => &[][..],
                Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
                _ => continue,
            };
            data = Some(data.map_or(value.to_vec(), |data| [&data[..], value].join(&b'\n')));
        }
        Ok(None)
    }

    /// The next line without its end; None if there is no further line end.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        for byte in self.reader.by_ref().bytes() {
            let byte = byte?;
            let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => return Ok(Some(line)),
                _ => line.push(byte),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufReader;

    fn events(reader: impl Read, capacity: usize) -> Vec<String> {
        let mut events = EventReader::new(BufReader::with_capacity(capacity, reader));
        let next = || events.next_event().unwrap();
        std::iter::from_fn(next).map(|data| String::from_utf8(data).unwrap()).collect()
    }

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_split() {
        let text = ": a comment\r\n\r\ndata: {\"a\": \"\u{e9}\u{1f600}\"}\n\nevent: x\ndata:one\r\n\
                    data: two\n\ndata\n\nid: 7\n\ndata: [DONE]\r\r";
        let expected = ["{\"a\": \"\u{e9}\u{1f600}\"}", "one\ntwo", "", "[DONE]"];
        let bytes = text.as_bytes();
        for at in 0..=bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(events(first.chain(second), 999), expected, "split at {at}");
        }
        assert_eq!(events(bytes, 1), expected);
    }

    #[test]
    fn event_without_its_empty_line_is_not_given() {
        assert!(events(&b"data: half\n"[..], 999).is_empty());
    }
}
