//! Server-sent events out of bytes that arrive in any pieces.

/// Collects bytes and gives the `data` of whole events. Comments and other fields are passed over.
///
/// As in the HTML standard, section 9.2.6: lines end in LF, CRLF or CR, an empty line ends an event, several
/// `data` lines are joined by LF.
#[derive(Debug, Default)]
pub(super) struct Events {
    bytes: Vec<u8>,
    data: Option<Vec<u8>>,
    /// A CR came last: an LF that follows belongs to it.
    after_cr: bool,
}

impl Events {
    /// Takes bytes in and calls `event` with the data of each event that they complete.
    pub(super) fn push<E>(
        &mut self,
        bytes: &[u8],
        mut event: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for &byte in bytes {
            let ends = byte == b'\n' || byte == b'\r';
            if byte == b'\n' && std::mem::take(&mut self.after_cr) {
                continue;
            }
            self.after_cr = byte == b'\r';
            if !ends {
                self.bytes.push(byte);
            } else if let Some(data) = self.line() {
                event(&data)?;
            }
        }
        Ok(())
    }

    /// Ends a line; returns the event's data where the line ends an event that has any.
    fn line(&mut self) -> Option<Vec<u8>> {
        let line = std::mem::take(&mut self.bytes);
        if line.is_empty() {
            return self.data.take();
        }
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[][..],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return None,
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            None => self.data = Some(value.to_vec()),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(pieces: &[&[u8]]) -> Vec<String> {
        let mut events = Events::default();
        let mut found = Vec::new();
        for piece in pieces {
            let push = |data: &[u8]| -> Result<(), ()> {
                found.push(String::from_utf8(data.to_vec()).unwrap());
                Ok(())
            };
            events.push(piece, push).unwrap();
        }
        found
    }

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_split() {
        let text = ": a comment\r\n\r\ndata: {\"a\": \"\u{e9}\u{1f600}\"}\n\nevent: x\ndata:one\r\ndata: two\n\n\
                    data\n\nid: 7\n\ndata: [DONE]\r\r";
        let expected = ["{\"a\": \"\u{e9}\u{1f600}\"}", "one\ntwo", "", "[DONE]"];
        let bytes = text.as_bytes();
        assert_eq!(all(&[bytes]), expected);
        for at in 0..=bytes.len() {
            assert_eq!(all(&[&bytes[..at], &bytes[at..]]), expected, "split at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(all(&single), expected);
    }

    #[test]
    fn event_without_its_empty_line_is_not_given() {
        assert!(all(&[b"data: half\n"]).is_empty());
    }
}
