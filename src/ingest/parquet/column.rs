//! One column of a row group, a row at a time.

use parquet::column::page::PageReader;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::{
    BoolType, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType, Int32Type,
    Int64Type, Int96Type,
};
use parquet::errors::Result;
use parquet::schema::types::ColumnDescPtr;
use serde_json::Value;

use super::value::{Meaning, Raw};

/// The values of the current row in one column, with their levels.
///
/// How levels place values in lists and structs is told in the Dremel paper
/// (<https://research.google/pubs/pub36632/>).
pub(super) struct Column {
    leaf: Leaf,
    meaning: Meaning,
    max_def: i16,
    max_rep: i16,
    defs: Vec<i16>,
    reps: Vec<i16>,
    /// How many values, nulls included, the row has.
    length: usize,
    /// The next of them, and the next of those that are not null.
    at: usize,
    value_at: usize,
}

/// The repetition and the definition level of a value.
pub(super) struct Levels {
    pub(super) rep: i16,
    pub(super) def: i16,
}

impl Column {
    pub(super) fn new(column: ColumnDescPtr, pages: Box<dyn PageReader>, meaning: Meaning) -> Self {
        let (max_def, max_rep) = (column.max_def_level(), column.max_rep_level());
        Self {
            leaf: Leaf::new(get_column_reader(column, pages)),
            meaning,
            max_def,
            max_rep,
            defs: Vec::new(),
            reps: Vec::new(),
            length: 0,
            at: 0,
            value_at: 0,
        }
    }

    /// Goes to the next row, and gives the size of its strings in bytes; `None` at the end.
    pub(super) fn next_row(&mut self) -> Result<Option<u64>> {
        self.defs.clear();
        self.reps.clear();
        (self.at, self.value_at) = (0, 0);
        let (rows, levels) = self.leaf.read_row(&mut self.defs, &mut self.reps)?;
        self.length = levels;
        Ok((rows == 1).then(|| self.leaf.bytes()))
    }

    /// The levels of the next value, `None` behind the last.
    pub(super) fn levels(&self) -> Option<Levels> {
        (self.at < self.length).then(|| Levels {
            rep: if self.max_rep == 0 { 0 } else { self.reps.get(self.at).copied().unwrap_or(0) },
            def: if self.max_def == 0 { 0 } else { self.defs.get(self.at).copied().unwrap_or(0) },
        })
    }

    /// Passes a null.
    pub(super) fn skip(&mut self) {
        self.at += 1;
    }

    /// Takes the next value, which is not null.
    pub(super) fn take(&mut self) -> std::result::Result<Value, String> {
        const INCONSISTENT: &str = "the file's levels and values do not agree";
        if self.levels().is_none_or(|levels| levels.def != self.max_def) {
            return Err(INCONSISTENT.into());
        }
        let raw = self.leaf.raw(self.value_at).ok_or(INCONSISTENT)?;
        self.at += 1;
        self.value_at += 1;
        self.meaning.to_json(raw)
    }
}

enum Leaf {
    Bool(Typed<BoolType>),
    Int32(Typed<Int32Type>),
    Int64(Typed<Int64Type>),
    Int96(Typed<Int96Type>),
    Float(Typed<FloatType>),
    Double(Typed<DoubleType>),
    Bytes(Typed<ByteArrayType>),
    Fixed(Typed<FixedLenByteArrayType>),
}

struct Typed<T: DataType> {
    reader: ColumnReaderImpl<T>,
    values: Vec<T::T>,
}

impl<T: DataType> Typed<T> {
    fn new(reader: ColumnReaderImpl<T>) -> Self {
        Self { reader, values: Vec::new() }
    }

    /// Reads one row, and gives the numbers of rows and levels that there were.
    fn read_row(&mut self, defs: &mut Vec<i16>, reps: &mut Vec<i16>) -> Result<(usize, usize)> {
        self.values.clear();
        let (rows, _, levels) =
            self.reader.read_records(1, Some(defs), Some(reps), &mut self.values)?;
        Ok((rows, levels))
    }
}

impl Leaf {
    fn new(reader: ColumnReader) -> Self {
        match reader {
            ColumnReader::BoolColumnReader(r) => Self::Bool(Typed::new(r)),
            ColumnReader::Int32ColumnReader(r) => Self::Int32(Typed::new(r)),
            ColumnReader::Int64ColumnReader(r) => Self::Int64(Typed::new(r)),
            ColumnReader::Int96ColumnReader(r) => Self::Int96(Typed::new(r)),
            ColumnReader::FloatColumnReader(r) => Self::Float(Typed::new(r)),
            ColumnReader::DoubleColumnReader(r) => Self::Double(Typed::new(r)),
            ColumnReader::ByteArrayColumnReader(r) => Self::Bytes(Typed::new(r)),
            ColumnReader::FixedLenByteArrayColumnReader(r) => Self::Fixed(Typed::new(r)),
        }
    }

    fn read_row(&mut self, defs: &mut Vec<i16>, reps: &mut Vec<i16>) -> Result<(usize, usize)> {
        match self {
            Self::Bool(leaf) => leaf.read_row(defs, reps),
            Self::Int32(leaf) => leaf.read_row(defs, reps),
            Self::Int64(leaf) => leaf.read_row(defs, reps),
            Self::Int96(leaf) => leaf.read_row(defs, reps),
            Self::Float(leaf) => leaf.read_row(defs, reps),
            Self::Double(leaf) => leaf.read_row(defs, reps),
            Self::Bytes(leaf) => leaf.read_row(defs, reps),
            Self::Fixed(leaf) => leaf.read_row(defs, reps),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Bytes(leaf) => leaf.values.iter().map(|value| value.len() as u64).sum(),
            Self::Fixed(leaf) => leaf.values.iter().map(|value| value.len() as u64).sum(),
            _ => 0,
        }
    }

    fn raw(&self, at: usize) -> Option<Raw<'_>> {
        Some(match self {
            Self::Bool(leaf) => Raw::Bool(*leaf.values.get(at)?),
            Self::Int32(leaf) => Raw::Int32(*leaf.values.get(at)?),
            Self::Int64(leaf) => Raw::Int64(*leaf.values.get(at)?),
            Self::Int96(leaf) => Raw::Int96(leaf.values.get(at)?),
            Self::Float(leaf) => Raw::Float(*leaf.values.get(at)?),
            Self::Double(leaf) => Raw::Double(*leaf.values.get(at)?),
            Self::Bytes(leaf) => Raw::Bytes(leaf.values.get(at)?.data()),
            Self::Fixed(leaf) => Raw::Bytes(leaf.values.get(at)?.data()),
        })
    }
}
