//! Parquet files written by the `parquet` crate.

use std::sync::Arc;

use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray,
    FixedLenByteArrayType, FloatType, Int32Type, Int64Type, Int96, Int96Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

/// The values of one column in one row group, with definition and repetition levels.
pub(super) enum Cells {
    Bool(Vec<bool>, ColumnLevels),
    Int(Vec<i32>, ColumnLevels),
    Long(Vec<i64>, ColumnLevels),
    Int96(Vec<Int96>, ColumnLevels),
    Float(Vec<f32>, ColumnLevels),
    Double(Vec<f64>, ColumnLevels),
    Bytes(Vec<ByteArray>, ColumnLevels),
    Fixed(Vec<FixedLenByteArray>, ColumnLevels),
}

/// Definition and repetition levels; none for a required column.
pub(super) type ColumnLevels = Option<(Vec<i16>, Option<Vec<i16>>)>;

pub(super) fn text(values: &[&str]) -> Cells {
    Cells::Bytes(values.iter().map(|value| ByteArray::from(*value)).collect(), None)
}

/// Values of an optional column: the present ones, and which rows have one.
pub(super) fn some(present: &[i16]) -> ColumnLevels {
    Some((present.to_vec(), None))
}

pub(super) fn nested(defs: &[i16], reps: &[i16]) -> ColumnLevels {
    Some((defs.to_vec(), Some(reps.to_vec())))
}

/// A file with these row groups.
pub(super) fn write(
    schema: &str,
    properties: WriterProperties,
    groups: Vec<Vec<Cells>>,
) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    let mut writer =
        SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).expect("a writer");
    for columns in groups {
        let mut group = writer.next_row_group().expect("a row group");
        for cells in columns {
            macro_rules! write {
                ($type:ty, $values:expr, $levels:expr) => {
                    write_column::<$type>(&mut group, &$values, $levels)
                };
            }
            match cells {
                Cells::Bool(values, levels) => write!(BoolType, values, levels),
                Cells::Int(values, levels) => write!(Int32Type, values, levels),
                Cells::Long(values, levels) => write!(Int64Type, values, levels),
                Cells::Int96(values, levels) => write!(Int96Type, values, levels),
                Cells::Float(values, levels) => write!(FloatType, values, levels),
                Cells::Double(values, levels) => write!(DoubleType, values, levels),
                Cells::Bytes(values, levels) => write!(ByteArrayType, values, levels),
                Cells::Fixed(values, levels) => write!(FixedLenByteArrayType, values, levels),
            }
        }
        group.close().expect("a row group");
    }
    writer.into_inner().expect("a file")
}

fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: &[T::T],
    levels: ColumnLevels,
) {
    let mut column = group.next_column().expect("a column").expect("one more column");
    let (defs, reps) = levels.map_or((None, None), |(defs, reps)| (Some(defs), reps));
    column.typed::<T>().write_batch(values, defs.as_deref(), reps.as_deref()).expect("values");
    column.close().expect("a column");
}
