//! The footer of a parquet file, checked before it is decoded.
//!
//! The decoder trusts the footer's nesting and sizes: it recurses once a level of the schema and
//! copies each column's path. What is checked here keeps it from running out of stack or memory.
//! The bytes are Thrift's compact protocol
//! (<https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::Fault;

const TAIL: u64 = 8;
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// Fields of the schema, groups included.
const MAX_ELEMENTS: usize = 50_000;
/// Levels of groups in the schema.
const MAX_DEPTH: usize = 32;
/// The length of all columns' paths together.
const MAX_PATH_BYTES: usize = 16 << 20;
/// Entries of one list: row groups, or columns of a row group.
const MAX_LIST: u64 = 1 << 20;
/// Structs and lists inside one another; the format needs less than ten.
const MAX_NESTING: usize = 24;

/// Types of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const I32: u8 = 5;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// Reads and decodes the footer of `file`, which is `length` bytes long.
pub(super) fn read(file: &mut File, length: u64) -> Result<ParquetMetaData, Fault> {
    let not_parquet = || Fault::from("not a parquet file, or cut off: it does not end in PAR1");
    if length < TAIL + 4 {
        return Err(not_parquet());
    }
    let mut tail = [0; TAIL as usize];
    file.seek(SeekFrom::Start(length - TAIL))?;
    file.read_exact(&mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    match &magic {
        b"PAR1" => {}
        b"PARE" => return Err(Fault::from("is encrypted: decrypt it first")),
        _ => return Err(not_parquet()),
    }
    let footer = u64::from(u32::from_le_bytes([a, b, c, d]));
    if footer > length - TAIL - 4 || footer > MAX_FOOTER_BYTES {
        return Err(Fault::from(format!("is damaged: it claims a footer of {footer} bytes")));
    }
    let mut bytes = vec![0; footer as usize];
    file.seek(SeekFrom::Start(length - TAIL - footer))?;
    file.read_exact(&mut bytes)?;
    check(&bytes).map_err(|reason| Fault::from(format!("the footer is damaged: {reason}")))?;
    super::guarded(|| Ok(ParquetMetaDataReader::decode_metadata(&bytes)?))
}

/// What the header of a page says about its size.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct PageSize {
    pub(super) is_dictionary: bool,
    pub(super) compressed: u64,
    pub(super) uncompressed: u64,
    /// The levels before the values, which are never compressed.
    pub(super) levels: u64,
}

/// Reads the front of a page header. The sizes must come first, as all writers have it.
pub(super) fn page_size(header: &[u8]) -> Result<PageSize, &'static str> {
    const DICTIONARY_PAGE: i64 = 2;
    const DATA_PAGE_V2: i64 = 3;
    const DATA_PAGE_HEADER_V2: i16 = 8;
    let mut compact = Compact { bytes: header, at: 0 };
    let mut last = 0;
    let mut numbers = [0; 3];
    for (number, id) in numbers.iter_mut().zip(1..) {
        if compact.field(&mut last)? != Some((id, I32)) {
            return Err("a page header does not begin with the page's type and sizes");
        }
        *number = compact.zigzag()?;
    }
    let [kind, uncompressed, compressed] = numbers;
    let positive = |size: i64| u64::try_from(size).map_err(|_| "a page of negative size");
    let mut size = PageSize {
        is_dictionary: kind == DICTIONARY_PAGE,
        compressed: positive(compressed)?,
        uncompressed: positive(uncompressed)?,
        levels: 0,
    };
    if kind != DATA_PAGE_V2 {
        return Ok(size);
    }
    while let Some((id, kind)) = compact.field(&mut last)? {
        if id != DATA_PAGE_HEADER_V2 || kind != STRUCT {
            compact.skip(kind, 0)?;
            continue;
        }
        let mut last = 0;
        // Fields 5 and 6 are the lengths of the definition and repetition levels.
        while let Some((id, kind)) = compact.field(&mut last)? {
            match (id, kind) {
                (5 | 6, I32) => size.levels += positive(compact.zigzag()?)?,
                (7.., _) => return Ok(size),
                _ => compact.skip(kind, 0)?,
            }
        }
        return Ok(size);
    }
    Err("a page header without sizes")
}

/// Walks the whole footer: lengths must fit, and the schema must be of a sane size and depth.
fn check(footer: &[u8]) -> Result<(), &'static str> {
    const SCHEMA: i16 = 2;
    let mut compact = Compact { bytes: footer, at: 0 };
    let mut last = 0;
    while let Some((id, kind)) = compact.field(&mut last)? {
        if id == SCHEMA && kind == LIST {
            check_schema(&schema(&mut compact)?)?;
        } else {
            compact.skip(kind, 0)?;
        }
    }
    Ok(())
}

/// A field of the schema: how long its name is, and how many children follow it.
struct Element {
    name_bytes: usize,
    children: usize,
}

fn schema(compact: &mut Compact) -> Result<Vec<Element>, &'static str> {
    const NAME: i16 = 4;
    const CHILDREN: i16 = 5;
    let (count, kind) = compact.list()?;
    if kind != STRUCT && count > 0 {
        return Err("the schema is not a list of fields");
    }
    if count > MAX_ELEMENTS as u64 {
        return Err("the schema has too many fields");
    }
    let mut elements = Vec::new();
    for _ in 0..count {
        let mut element = Element { name_bytes: 0, children: 0 };
        let mut last = 0;
        while let Some((id, kind)) = compact.field(&mut last)? {
            match (id, kind) {
                (NAME, BINARY) => element.name_bytes = compact.binary()?,
                (CHILDREN, I32) => {
                    element.children = usize::try_from(compact.zigzag()?)
                        .map_err(|_| "a group with a negative number of fields")?;
                }
                _ => compact.skip(kind, 0)?,
            }
        }
        elements.push(element);
    }
    Ok(elements)
}

fn check_schema(elements: &[Element]) -> Result<(), &'static str> {
    // Of each open group: how many children are to come, and the length of its path.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut path_bytes = 0;
    for (number, element) in elements.iter().enumerate() {
        while open.last().is_some_and(|(left, _)| *left == 0) {
            open.pop();
        }
        let path = match open.last_mut() {
            Some((left, path)) => {
                *left -= 1;
                *path + element.name_bytes
            }
            None if number == 0 => 0,
            None => return Err("the schema has more than one root"),
        };
        if element.children > elements.len() - number - 1 {
            return Err("a group with more fields than the schema has");
        }
        if element.children > 0 {
            open.push((element.children, path));
        } else {
            path_bytes += path;
        }
        if open.len() > MAX_DEPTH {
            return Err("the schema is nested too deeply");
        }
        if path_bytes > MAX_PATH_BYTES {
            return Err("the names of the fields are too long");
        }
    }
    Ok(())
}

/// A reader of the compact protocol.
struct Compact<'a> {
    bytes: &'a [u8],
    at: usize,
}

const CUT_OFF: &str = "it is cut off";

impl Compact<'_> {
    fn byte(&mut self) -> Result<u8, &'static str> {
        let byte = self.bytes.get(self.at).ok_or(CUT_OFF)?;
        self.at += 1;
        Ok(*byte)
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number is too long")
    }

    fn zigzag(&mut self) -> Result<i64, &'static str> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The next field's id and type; `None` at the end of the struct.
    fn field(&mut self, last: &mut i16) -> Result<Option<(i16, u8)>, &'static str> {
        let header = self.byte()?;
        let kind = header & 0x0f;
        if kind == 0 {
            return Ok(None);
        }
        *last = match header >> 4 {
            0 => i16::try_from(self.zigzag()?).map_err(|_| "a field number is too large")?,
            delta => last.checked_add(i16::from(delta)).ok_or("a field number is too large")?,
        };
        Ok(Some((*last, kind)))
    }

    /// The number and type of a list's entries.
    fn list(&mut self) -> Result<(u64, u8), &'static str> {
        let header = self.byte()?;
        let count = match header >> 4 {
            15 => self.varint()?,
            count => u64::from(count),
        };
        if count > MAX_LIST {
            return Err("a list is too long");
        }
        Ok((count, header & 0x0f))
    }

    /// Passes bytes, and gives their number.
    fn binary(&mut self) -> Result<usize, &'static str> {
        let length = usize::try_from(self.varint()?).map_err(|_| CUT_OFF)?;
        self.advance(length)?;
        Ok(length)
    }

    fn advance(&mut self, length: usize) -> Result<(), &'static str> {
        if length > self.bytes.len() - self.at {
            return Err(CUT_OFF);
        }
        self.at += length;
        Ok(())
    }

    fn skip(&mut self, kind: u8, nesting: usize) -> Result<(), &'static str> {
        if nesting > MAX_NESTING {
            return Err("it is nested too deeply");
        }
        match kind {
            TRUE | FALSE => Ok(()),
            3 => self.advance(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.advance(8),
            BINARY => self.binary().map(|_| ()),
            LIST | SET => {
                let (count, kind) = self.list()?;
                (0..count).try_for_each(|_| self.skip_entry(kind, nesting))
            }
            MAP => {
                let count = self.varint()?;
                if count > MAX_LIST {
                    return Err("a map is too long");
                }
                let kinds = if count > 0 { self.byte()? } else { 0 };
                (0..count).try_for_each(|_| {
                    self.skip_entry(kinds >> 4, nesting)?;
                    self.skip_entry(kinds & 0x0f, nesting)
                })
            }
            STRUCT => {
                let mut last = 0;
                while let Some((_, kind)) = self.field(&mut last)? {
                    self.skip(kind, nesting + 1)?;
                }
                Ok(())
            }
            _ => Err("a value of unknown type"),
        }
    }

    /// As [`Compact::skip`], but truth values take a byte inside of lists.
    fn skip_entry(&mut self, kind: u8, nesting: usize) -> Result<(), &'static str> {
        match kind {
            TRUE | FALSE => self.advance(1),
            kind => self.skip(kind, nesting + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer with a schema of nested groups, each with one child.
    fn nested(levels: usize) -> Vec<u8> {
        let mut footer = vec![0x15, 0x02, 0x19, 0xfc];
        let mut count = levels;
        while count >= 0x80 {
            footer.push(count as u8 | 0x80);
            count >>= 7;
        }
        footer.push(count as u8);
        for _ in 0..levels {
            // name "x", one child
            footer.extend([0x48, 1, b'x', 0x15, 2, 0]);
        }
        footer.push(0);
        footer
    }

    #[test]
    fn check_schema_nested_without_end_is_refused() {
        assert_eq!(check(&nested(10_000)), Err("the schema is nested too deeply"));
        assert_eq!(check(&nested(MAX_ELEMENTS + 1)), Err("the schema has too many fields"));
        assert_eq!(check(&nested(5)), Err("a group with more fields than the schema has"));
    }

    #[test]
    fn check_paths_longer_than_memory_are_refused() {
        // A group with a name of 1 MiB above 100 columns.
        let group = Element { name_bytes: 1 << 20, children: 100 };
        let mut elements = vec![Element { name_bytes: 4, children: 1 }, group];
        elements.extend((0..100).map(|_| Element { name_bytes: 1, children: 0 }));
        assert_eq!(check_schema(&elements), Err("the names of the fields are too long"));
        elements[1].name_bytes = 10;
        assert_eq!(check_schema(&elements), Ok(()));
    }

    #[test]
    fn check_lengths_beyond_the_end_are_refused() {
        // Field 6, a string of 2^40 bytes.
        assert_eq!(check(&[0x68, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40]), Err(CUT_OFF));
        // Field 5, a list of 2^30 structs.
        assert_eq!(check(&[0x59, 0xfc, 0x80, 0x80, 0x80, 0x80, 0x04]), Err("a list is too long"));
        // Lists inside lists.
        assert_eq!(check(&[&[0x59][..], &[0x19; 100]].concat()), Err("it is nested too deeply"));
    }

    #[test]
    fn page_size_of_second_version_includes_levels() {
        // type 3, 100 bytes, 50 compressed, then the v2 header: 7 and 9 bytes of levels.
        let header = [
            0x15, 6, 0x15, 200, 1, 0x15, 100, 0x5c, 0x15, 2, 0x15, 0, 0x15, 2, 0x15, 0, 0x15, 14,
            0x15, 18, 0x11, 0, 0,
        ];
        let expected =
            PageSize { is_dictionary: false, compressed: 50, uncompressed: 100, levels: 16 };
        assert_eq!(page_size(&header), Ok(expected));
        assert!(page_size(&header[..6]).is_err());
        assert!(page_size(&[0x25, 6]).is_err());
    }
}
