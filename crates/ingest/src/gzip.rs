//! Gzip data of one or more members, with padding behind the last.
//!
//! Tape and block devices, and tools that write whole blocks, fill the last block with zeros.
//! `gzip -t` accepts zeros behind the last member and nothing else; so does this reader. The crate
//! `flate2` takes the zeros for the header of another member.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The first bytes of a gzip stream (RFC 1952, section 2.3.1).
pub(crate) const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A decoder of all members.
pub(crate) struct GzipReader<R> {
    /// The current member; `None` behind the last.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipReader<R> {
    /// Reads members from `reader`.
    pub(crate) fn new(reader: R) -> Self {
        Self { member: Some(GzDecoder::new(reader)) }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let n = member.read(buffer)?;
            if n > 0 {
                return Ok(n);
            }
            let is_end = skip_padding(member.get_mut())?;
            let ended = self.member.take();
            self.member = ended.filter(|_| !is_end).map(|m| GzDecoder::new(m.into_inner()));
        }
        Ok(0)
    }
}

/// Passes zeros up to the end. Returns false if another member follows instead.
fn skip_padding(reader: &mut impl BufRead) -> io::Result<bool> {
    let mut padding = false;
    loop {
        let bytes = match reader.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        match bytes.get(zeros) {
            _ if bytes.is_empty() => return Ok(true),
            Some(_) if padding || zeros > 0 => {
                let reason = "data that is not gzip behind the zeros that end it";
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            Some(_) => return Ok(false),
            None => padding = true,
        }
        reader.consume(zeros);
    }
}
