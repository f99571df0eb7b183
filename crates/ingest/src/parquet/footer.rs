//! The footer of a parquet file, checked before the `parquet` crate decodes it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use parquet::basic::Compression;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader,
    ParquetStatisticsPolicy,
};
use warpseek_error::{Error, Place, Result};

use super::guard::guarded;
use super::thrift::{self, Found};

/// Length of the footer's length and of the magic number behind it.
const TAIL: u64 = 8;
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// Limit on the fields of the schema, groups included.
const MAX_ELEMENTS: usize = 50_000;
/// Limit on the nesting of groups in the schema.
const MAX_DEPTH: usize = 32;
/// Limit on the size of all columns' paths together: the crate makes a copy of each.
const MAX_PATH_BYTES: usize = 16 << 20;

/// Reads, checks and decodes the footer of `file`, which is called `name` and `length` bytes long.
pub(super) fn read(file: &mut File, name: &str, length: u64) -> Result<ParquetMetaData> {
    let fail = |reason: String| Error::input(Place::file(name), reason);
    let not_parquet = || fail("not a parquet file, or cut off: it does not end in PAR1".into());
    if length < TAIL + 4 {
        return Err(not_parquet());
    }
    let mut read_at = |offset: u64, bytes: &mut [u8]| {
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(bytes))
            .map_err(Error::io("read", name))
    };
    let mut tail = [0; TAIL as usize];
    read_at(length - TAIL, &mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    match &magic {
        b"PAR1" => {}
        b"PARE" => return Err(fail("is encrypted: decrypt it first".into())),
        _ => return Err(not_parquet()),
    }
    let size = u64::from(u32::from_le_bytes([a, b, c, d]));
    if size > length - TAIL - 4 || size > MAX_FOOTER_BYTES {
        return Err(fail(format!("is damaged: it claims a footer of {size} bytes")));
    }
    let mut bytes = vec![0; size as usize];
    read_at(length - TAIL - size, &mut bytes)?;
    check_bytes(&bytes).map_err(|reason| fail(format!("the footer is damaged: {reason}")))?;
    let options =
        ParquetMetaDataOptions::new().with_column_stats_policy(ParquetStatisticsPolicy::SkipAll);
    let metadata =
        guarded(|| ParquetMetaDataReader::decode_metadata_with_options(&bytes, Some(&options)))
            .map_err(fail)?;
    check_row_groups(&metadata).map_err(|reason| fail(reason.into()))?;
    Ok(metadata)
}

/// A field of the schema: the length of its name, and the number of its children.
#[derive(Default)]
struct SchemaElement {
    name_bytes: usize,
    children: i64,
}

/// Checks the footer's structure, and that the schema has a sane size and depth.
fn check_bytes(footer: &[u8]) -> Result<(), &'static str> {
    let mut elements = Vec::new();
    let mut element = SchemaElement::default();
    thrift::check(footer, &thrift::FILE_METADATA, &mut |ids, found| match (ids, found) {
        ([2, 4], Found::Length(bytes)) => element.name_bytes = bytes,
        ([2, 5], Found::Number(children)) => element.children = children,
        ([2], Found::End) => elements.push(std::mem::take(&mut element)),
        _ => {}
    })?;
    if elements.len() > MAX_ELEMENTS {
        return Err("the schema has too many fields");
    }
    // Of each open group: the number of children to come, and the length of its path.
    let mut open: Vec<(usize, usize)> = Vec::new();
    let mut path_bytes = 0;
    for (number, element) in elements.iter().enumerate() {
        while open.last().is_some_and(|(children, _)| *children == 0) {
            open.pop();
        }
        let path = match open.last_mut() {
            Some((children, path)) => {
                *children -= 1;
                *path + element.name_bytes
            }
            None if number == 0 => 0,
            None => return Err("the schema has more than one root"),
        };
        match usize::try_from(element.children) {
            Ok(0) => path_bytes += path,
            Ok(children) if children < elements.len() - number => open.push((children, path)),
            _ => return Err("a group with more fields than the schema has"),
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

/// Checks the claims of the footer about its row groups.
fn check_row_groups(metadata: &ParquetMetaData) -> Result<(), &'static str> {
    let columns = metadata.file_metadata().schema_descr().num_columns();
    let mut rows = 0i64;
    for group in metadata.row_groups() {
        rows = Some(group.num_rows())
            .filter(|rows| *rows >= 0)
            .and_then(|more| rows.checked_add(more))
            .ok_or("the footer is damaged: an impossible number of rows")?;
        if group.num_columns() != columns {
            return Err("the footer is damaged: a row group without all columns");
        }
    }
    Ok(())
}

/// Checks the claims of the footer about one column of a row group, in a file of `length` bytes.
pub(super) fn check_chunk(chunk: &ColumnChunkMetaData, length: u64) -> Result<(), String> {
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let end = u64::try_from(start)
        .ok()
        .zip(u64::try_from(chunk.compressed_size()).ok())
        .and_then(|(start, size)| start.checked_add(size));
    let reason = if end.is_none_or(|end| end > length) {
        "the footer is damaged: the column lies outside of the file"
    } else if chunk.file_path().is_some() {
        "the column lies in another file, which is not supported"
    } else if chunk.compression() == Compression::LZO {
        "the column is compressed with LZO: write it with zstd"
    } else {
        return Ok(());
    };
    Err(reason.into())
}
