//! A checker for messages in Thrift's compact protocol.
//!
//! The `parquet` crate decodes footers and page headers without three checks that damaged or
//! hostile files call for. It reads a field as the type that the format declares, whatever type
//! the file claims. It recurses once per level of the schema. It reserves memory by claimed counts.
//! [`check`] walks a message before the crate sees it and compares each field with the declaration
//! in `parquet.thrift`. The crate then reads an accepted message at the same byte positions as the
//! walk did, so that limits on the values found here hold for the crate too.
//!
//! Sources: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>,
//! <https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift>.

use self::Declared::{Binary, Bool, Byte, Double, Int, List, Struct};

/// Limit on the entries of a list: schema fields, row groups, columns of a row group.
const MAX_LIST: u64 = 1 << 20;
/// Limit on the nesting of structs and lists; the format needs less than ten levels.
const MAX_NESTING: usize = 24;

/// Error of a message that goes on beyond its last byte.
pub(super) const CUT_OFF: &str = "it is cut off";

/// Type of a field in the format's declaration.
pub(super) enum Declared {
    Bool,
    Byte,
    /// An integer of 16, 32 or 64 bits: all are encoded alike.
    Int,
    Double,
    Binary,
    List(&'static Declared),
    /// The fields by id, from 1. Fields with other ids may have any type.
    Struct(&'static [Declared]),
}

/// A value that [`check`] came upon.
pub(super) enum Found {
    Number(i64),
    /// The length of a string in bytes.
    Length(usize),
    End,
}

const INTS: Declared = List(&Int);
const EMPTY: Declared = Struct(&[]);
const TIME: Declared = Struct(&[Bool, Struct(&[EMPTY, EMPTY, EMPTY])]);
const DECIMAL: Declared = Struct(&[Int, Int]);
const INTEGER: Declared = Struct(&[Byte, Bool]);
const VARIANT: Declared = Struct(&[Byte]);
const GEOMETRY: Declared = Struct(&[Binary]);
const GEOGRAPHY: Declared = Struct(&[Binary, Int]);
const LOGICAL: Declared = Struct(&[
    EMPTY, EMPTY, EMPTY, EMPTY, DECIMAL, EMPTY, TIME, TIME, EMPTY, INTEGER, EMPTY, EMPTY, EMPTY,
    EMPTY, EMPTY, VARIANT, GEOMETRY, GEOGRAPHY,
]);
const ELEMENT: Declared = Struct(&[Int, Int, Int, Binary, Int, Int, Int, Int, Int, LOGICAL]);
const KEY_VALUES: Declared = List(&Struct(&[Binary, Binary]));
const STATISTICS: Declared = Struct(&[Binary, Binary, Int, Int, Binary, Binary, Bool, Bool, Int]);
const PAGE_STATS: Declared = List(&Struct(&[Int, Int, Int]));
const SIZE_STATS: Declared = Struct(&[Int, INTS, INTS]);
const BOX: Declared = Struct(&[Double, Double, Double, Double, Double, Double, Double, Double]);
const GEO_STATS: Declared = Struct(&[BOX, INTS]);
const PATH: Declared = List(&Binary);
const METADATA: Declared = Struct(&[
    Int, INTS, PATH, Int, Int, Int, Int, KEY_VALUES, Int, Int, Int, STATISTICS, PAGE_STATS, Int,
    Int, SIZE_STATS, GEO_STATS,
]);
const CHUNKS: Declared = List(&Struct(&[Binary, Int, METADATA, Int, Int, Int, Int]));
const SORTING: Declared = List(&Struct(&[Int, Bool, Bool]));
const ROW_GROUPS: Declared = List(&Struct(&[CHUNKS, Int, Int, SORTING, Int, Int, Int]));
const ORDERS: Declared = List(&Struct(&[EMPTY, EMPTY]));

/// `FileMetaData`, the footer.
pub(super) const FILE_METADATA: Declared =
    Struct(&[Int, List(&ELEMENT), Int, ROW_GROUPS, KEY_VALUES, Binary, ORDERS]);

const PAGE_V1: Declared = Struct(&[Int, Int, Int, Int, STATISTICS]);
const DICTIONARY: Declared = Struct(&[Int, Int, Bool]);
const PAGE_V2: Declared = Struct(&[Int, Int, Int, Int, Int, Int, Bool, STATISTICS]);

/// `PageHeader`.
pub(super) const PAGE_HEADER: Declared =
    Struct(&[Int, Int, Int, Int, PAGE_V1, EMPTY, DICTIONARY, PAGE_V2]);

/// Checks the message at the start of `bytes`.
///
/// `found` is called for each integer and string of a known field and for the end of each known
/// struct, with the ids of the fields on the way there. Entries of a list have the list's id.
pub(super) fn check(
    bytes: &[u8],
    message: &Declared,
    found: &mut dyn FnMut(&[i16], Found),
) -> Result<(), &'static str> {
    let mut walk = Walk { rest: bytes, ids: Vec::new(), found };
    walk.value(message, STRUCT)
}

/// Wire types of the compact protocol.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

struct Walk<'a> {
    rest: &'a [u8],
    ids: Vec<i16>,
    found: &'a mut dyn FnMut(&[i16], Found),
}

impl Walk<'_> {
    /// Checks a value of known type.
    fn value(&mut self, declared: &Declared, wire: u8) -> Result<(), &'static str> {
        match (declared, wire) {
            (Bool, TRUE | FALSE) => {}
            (Byte, BYTE) => self.take(1)?,
            (Int, I16..=I64) => {
                let number = self.zigzag()?;
                (self.found)(&self.ids, Found::Number(number));
            }
            (Double, DOUBLE) => self.take(8)?,
            (Binary, BINARY) => {
                let length = usize::try_from(self.varint()?).map_err(|_| CUT_OFF)?;
                self.take(length)?;
                (self.found)(&self.ids, Found::Length(length));
            }
            (List(entry), LIST) => {
                let (count, wire) = self.list()?;
                for _ in 0..count {
                    self.value(entry, wire)?;
                }
            }
            (Struct(fields), STRUCT) => {
                let (mut last, mut seen) = (0, 0u64);
                while let Some(wire) = self.field(&mut last)? {
                    let known = usize::try_from(last).ok().filter(|id| (1..64).contains(id));
                    if known.is_some_and(|id| seen & (1 << id) != 0) {
                        return Err("a field appears twice");
                    }
                    seen |= known.map_or(0, |id| 1 << id);
                    match known.and_then(|id| fields.get(id - 1)) {
                        Some(declared) => {
                            self.ids.push(last);
                            self.value(declared, wire)?;
                            self.ids.pop();
                        }
                        None => self.skip(wire, 0)?,
                    }
                }
                (self.found)(&self.ids, Found::End);
            }
            _ => return Err("a field has the wrong type"),
        }
        Ok(())
    }

    /// Passes a value of an unknown field.
    fn skip(&mut self, wire: u8, nesting: usize) -> Result<(), &'static str> {
        if nesting > MAX_NESTING {
            return Err("it is nested too deeply");
        }
        match wire {
            TRUE | FALSE => Ok(()),
            BYTE => self.take(1),
            I16..=I64 => self.varint().map(drop),
            DOUBLE => self.take(8),
            BINARY => {
                let length = usize::try_from(self.varint()?).map_err(|_| CUT_OFF)?;
                self.take(length)
            }
            LIST => match self.list()? {
                // The crate skips these without reading their bytes.
                (1.., TRUE | FALSE) => Err("a list of truth values"),
                (count, wire) => (0..count).try_for_each(|_| self.skip(wire, nesting + 1)),
            },
            STRUCT => {
                let mut last = 0;
                while let Some(wire) = self.field(&mut last)? {
                    self.skip(wire, nesting + 1)?;
                }
                Ok(())
            }
            _ => Err("a value of unknown type"),
        }
    }

    /// Reads a field's wire type and moves `last` to its id; `None` at the end of the struct.
    fn field(&mut self, last: &mut i16) -> Result<Option<u8>, &'static str> {
        let header = self.byte()?;
        if header & 0x0f == 0 {
            return Ok(None);
        }
        let id = match header >> 4 {
            0 => i16::try_from(self.zigzag()?).ok(),
            delta => last.checked_add(i16::from(delta)),
        };
        *last = id.ok_or("a field number is too large")?;
        Ok(Some(header & 0x0f))
    }

    /// Reads the number and the wire type of a list's entries.
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

    fn zigzag(&mut self) -> Result<i64, &'static str> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        super::encodings::varint(&mut self.rest).ok_or(CUT_OFF)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        self.rest.split_off_first().copied().ok_or(CUT_OFF)
    }

    fn take(&mut self, length: usize) -> Result<(), &'static str> {
        self.rest.split_off(..length).map(drop).ok_or(CUT_OFF)
    }
}
