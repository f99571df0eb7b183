//! One column of a row group, a row at a time.

use parquet::column::page::PageReader;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_column_reader};
use parquet::data_type::DataType;
use parquet::errors::Result;
use parquet::schema::types::ColumnDescPtr;
use serde_json::Value;

use super::substitute::Substitute;
use super::value::{ColumnType, RawValue};

/// The values of the current row in one column, with their levels.
///
/// A value's repetition level tells which list it continues; its definition level tells how many of
/// the optional and repeated fields around it are there. Both come from the Dremel paper
/// (<https://research.google/pubs/pub36632/>).
pub(super) struct LeafColumn {
    reader: ColumnReader,
    column_type: ColumnType,
    max_def: i16,
    max_rep: i16,
    row: ColumnRow,
    /// The next value of the row, nulls included, and the next that is not null.
    next: usize,
    next_value: usize,
}

/// A value as JSON.
pub(super) type TakenValue = std::result::Result<Value, Substitute>;

/// The repetition and the definition level of a value.
pub(super) type Levels = (i16, i16);

/// One row of a column. The levels are empty if they are always zero.
#[derive(Default)]
struct ColumnRow {
    defs: Vec<i16>,
    reps: Vec<i16>,
    values: Vec<RawValue>,
    /// Number of values, nulls included.
    length: usize,
}

impl LeafColumn {
    pub(super) fn new(
        column: ColumnDescPtr,
        pages: Box<dyn PageReader>,
        column_type: ColumnType,
    ) -> Self {
        Self {
            max_def: column.max_def_level(),
            max_rep: column.max_rep_level(),
            reader: get_column_reader(column, pages),
            column_type,
            row: ColumnRow::default(),
            next: 0,
            next_value: 0,
        }
    }

    /// Goes to the next row and returns the size of its strings in bytes; `None` at the end.
    pub(super) fn next_row(&mut self) -> Result<Option<u64>> {
        use ColumnReader as Reader;
        let row = &mut self.row;
        match &mut self.reader {
            Reader::BoolColumnReader(reader) => row.read(reader, RawValue::Bool),
            Reader::Int32ColumnReader(reader) => row.read(reader, |n| RawValue::Int(n.into())),
            Reader::Int64ColumnReader(reader) => row.read(reader, RawValue::Int),
            Reader::Int96ColumnReader(reader) => row.read(reader, RawValue::Int96),
            Reader::FloatColumnReader(reader) => row.read(reader, RawValue::Float),
            Reader::DoubleColumnReader(reader) => row.read(reader, RawValue::Double),
            Reader::ByteArrayColumnReader(reader) => row.read(reader, RawValue::Bytes),
            Reader::FixedLenByteArrayColumnReader(reader) => {
                row.read(reader, |bytes| RawValue::Bytes(bytes.into()))
            }
        }?;
        (self.next, self.next_value) = (0, 0);
        let bytes = |value: &RawValue| match value {
            RawValue::Bytes(bytes) => bytes.len() as u64,
            _ => 0,
        };
        Ok((row.length > 0).then(|| row.values.iter().map(bytes).sum()))
    }

    /// The levels of the row's next value; `None` behind the last.
    pub(super) fn levels(&self) -> Option<Levels> {
        let level = |levels: &[i16], max| match max {
            0 => 0,
            _ => levels.get(self.next).copied().unwrap_or(0),
        };
        (self.next < self.row.length)
            .then(|| (level(&self.row.reps, self.max_rep), level(&self.row.defs, self.max_def)))
    }

    /// Passes a null.
    pub(super) fn skip(&mut self) {
        self.next += 1;
    }

    /// Takes the next value, which is not null, or what stands in its place. The outer error tells
    /// that the column is damaged.
    pub(super) fn take(&mut self) -> std::result::Result<TakenValue, String> {
        let is_value = self.levels().is_some_and(|(_, def)| def == self.max_def);
        match self.row.values.get(self.next_value).filter(|_| is_value) {
            Some(raw) => {
                self.next += 1;
                self.next_value += 1;
                Ok(self.column_type.to_json(raw))
            }
            None => Err("the file's levels and values do not agree".into()),
        }
    }
}

impl ColumnRow {
    /// Reads one row. It has no values at the end of the column.
    fn read<T: DataType>(
        &mut self,
        reader: &mut ColumnReaderImpl<T>,
        raw: impl Fn(T::T) -> RawValue,
    ) -> Result<()> {
        self.defs.clear();
        self.reps.clear();
        self.values.clear();
        let mut values = Vec::new();
        (_, _, self.length) =
            reader.read_records(1, Some(&mut self.defs), Some(&mut self.reps), &mut values)?;
        self.values.extend(values.into_iter().map(raw));
        Ok(())
    }
}
