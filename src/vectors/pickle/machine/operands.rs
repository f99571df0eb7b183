//! The operands of opcodes: numbers, texts and bytes behind them in the file.

use super::{Defect, PickleMachine};
use crate::vectors::pickle::{PickleValue, Span};

impl<'a> PickleMachine<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Defect> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return Err(format!("the pickle is cut off inside {}", self.opcode_name()));
        };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A little-endian integer of `N` bytes, 8 at most.
    pub(super) fn number<const N: usize>(&mut self) -> Result<u64, Defect> {
        let bytes = self.take(N)?;
        Ok(bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }

    /// The range of bytes behind a length of `width` bytes.
    pub(super) fn span(&mut self, width: usize) -> Result<Span, Defect> {
        let length = match width {
            1 => self.number::<1>()?,
            4 => self.number::<4>()?,
            _ => self.number::<8>()?,
        };
        let Ok(len) = u32::try_from(length) else {
            return Err(format!(
                "{} at byte {}: it is cut off, or longer than 4 GiB",
                self.opcode_name(),
                self.opcode_at
            ));
        };
        let start = self.at;
        self.take(len as usize)?;
        Ok(Span { start, len })
    }

    /// The text up to the end of the line.
    pub(super) fn line(&mut self) -> Result<&'a str, Defect> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(format!("the pickle is cut off inside {}", self.opcode_name()));
        };
        let line = self.take(length + 1)?;
        match std::str::from_utf8(&line[..length]) {
            Ok(line) => Ok(line),
            Err(_) => self.damaged("text that is not UTF-8"),
        }
    }

    /// An integer in decimal notation; `L` has that letter at its end, `I` 00 and 01 for booleans.
    pub(super) fn decimal_integer(&mut self) -> Result<PickleValue, Defect> {
        let (start, line) = (self.at, self.line()?);
        let digits = match self.opcode {
            b'L' => line.strip_suffix('L').unwrap_or(line),
            _ => line,
        };
        if self.opcode == b'I' && (line == "00" || line == "01") {
            return Ok(PickleValue::Bool(line == "01"));
        }
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.damaged("an integer that is not written as one");
        }
        match (digits.parse(), u32::try_from(digits.len())) {
            (Ok(number), _) => Ok(PickleValue::Int(number)),
            (_, Ok(len)) => Ok(PickleValue::Digits(Span { start, len })),
            _ => self.damaged("an integer of more than 4 GiB"),
        }
    }

    /// An integer in two's complement behind a length of `width` bytes.
    pub(super) fn long(&mut self, width: usize) -> Result<PickleValue, Defect> {
        let span = self.span(width)?;
        let bytes = span.of(self.bytes, &[]);
        if bytes.len() > 8 {
            return Ok(PickleValue::Long(span));
        }
        let fill = if bytes.last().is_some_and(|byte| *byte >= 0x80) { 0xff } else { 0 };
        let mut whole = [fill; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        Ok(PickleValue::Int(i64::from_le_bytes(whole)))
    }

    /// The text up to the end of the line in Python's raw-unicode-escape: Latin-1 with `\uXXXX`
    /// and `\UXXXXXXXX`.
    pub(super) fn escaped(&mut self) -> Result<Span, Defect> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
            return Err(format!("the pickle is cut off inside {}", self.opcode_name()));
        };
        let mut line = &self.take(length + 1)?[..length];
        let start = self.bytes.len() + self.decoded.len();
        while let Some((&byte, rest)) = line.split_first() {
            let width = match (byte, rest.first()) {
                (b'\\', Some(b'u')) => 4,
                (b'\\', Some(b'U')) => 8,
                _ => 0,
            };
            let code = match width {
                0 => Some(u32::from(byte)),
                _ => rest
                    .get(1..=width)
                    .filter(|hex| hex.iter().all(u8::is_ascii_hexdigit))
                    .and_then(|hex| u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()),
            };
            let Some(code) = code.filter(|code| *code <= 0x10_ffff) else {
                return self.damaged("an escape that is not one");
            };
            match char::from_u32(code) {
                Some(c) => self.decoded.extend(c.encode_utf8(&mut [0; 4]).as_bytes()),
                // Half of a surrogate pair, in the form that the binary opcodes have.
                None => self.decoded.extend([
                    0xe0 | (code >> 12) as u8,
                    0x80 | (code >> 6 & 0x3f) as u8,
                    0x80 | (code & 0x3f) as u8,
                ]),
            }
            line = if width == 0 { rest } else { &rest[width + 1..] };
        }
        match u32::try_from(self.bytes.len() + self.decoded.len() - start) {
            Ok(len) => Ok(Span { start, len }),
            Err(_) => self.damaged("a text of more than 4 GiB"),
        }
    }
}
