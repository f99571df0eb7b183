//! Pages of a column, checked before they are decoded.
//!
//! The `parquet` crate reserves memory by what a page claims: its size after decompression, the
//! entries of a dictionary, the number of packed lengths, the length of a list. Each claim is
//! compared here with the bytes that the page has and with a limit.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::{ChunkReader, Length, SerializedPageReader};
use parquet::schema::types::ColumnDescPtr;

use super::encodings::{RowLengths, deltas};
use super::thrift::{self, Found};

/// Limit on the size of a page, before and after decompression. Most writers stay near 1 MiB, some
/// reach 100 MB.
const MAX_PAGE_BYTES: u64 = 256 << 20;
/// Limit on the size of the current pages of all columns together.
const MAX_OPEN_BYTES: u64 = 1 << 30;
/// Limit on the size of a page header, the statistics in it included.
const MAX_HEADER_BYTES: u64 = 4 << 20;
/// Limit on the entries of a dictionary. Writers give up on dictionaries of a few MiB.
const MAX_DICTIONARY: u32 = 4 << 20;
/// Limit on the values of a page whose lengths are decoded all at once.
const MAX_DELTAS: u64 = 16 << 20;

/// Minimum size of a value in a list, for the limit on a row.
const BYTES_PER_VALUE: usize = 8;

/// The file of a row group's columns, and limits that they share.
#[derive(Clone)]
pub(super) struct PageSource {
    pub(super) file: Arc<File>,
    pub(super) length: u64,
    pub(super) max_record_bytes: u64,
    /// Uncompressed bytes of the current pages of all columns.
    pub(super) open_bytes: Arc<AtomicU64>,
}

/// The bytes of one column chunk, and the claims of its current pages.
#[derive(Clone)]
struct ColumnFile {
    source: PageSource,
    compression: Compression,
    claims: Arc<Mutex<Claims>>,
}

/// Sizes that the headers of a column's current pages claim.
#[derive(Default)]
struct Claims {
    open_bytes: Arc<AtomicU64>,
    dictionary: u64,
    data: u64,
    /// Size after decompression of the page whose header was read last, without its levels.
    values: u64,
    /// Size of the uncompressed levels in front of its values.
    levels: u64,
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.open_bytes.fetch_sub(self.dictionary + self.data, Ordering::Relaxed);
    }
}

impl ColumnFile {
    fn read_at(&self, start: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut file = &*self.source.file;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; length as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads and checks the page header at `start`. The result goes on behind the header.
    fn read_header(&self, start: u64) -> io::Result<Vec<u8>> {
        let available = self.source.length.saturating_sub(start).min(MAX_HEADER_BYTES);
        let mut length = 1 << 10;
        loop {
            let header = self.read_at(start, available.min(length))?;
            match self.check_header(&header) {
                Ok(()) => return Ok(header),
                Err(reason) if reason.ends_with(thrift::CUT_OFF) && length < available => {
                    length *= 8;
                }
                Err(reason) => return Err(io::Error::other(reason)),
            }
        }
    }

    /// Checks a page header and accounts for the page.
    fn check_header(&self, header: &[u8]) -> std::result::Result<(), String> {
        const DICTIONARY_PAGE: i64 = 2;
        let (mut kind, mut unpacked, mut packed, mut levels) = (0, None, None, 0i64);
        thrift::check(header, &thrift::PAGE_HEADER, &mut |ids, found| match (ids, found) {
            ([1], Found::Number(number)) => kind = number,
            ([2], Found::Number(number)) => unpacked = Some(number),
            ([3], Found::Number(number)) => packed = Some(number),
            ([8, 5 | 6], Found::Number(number)) => levels = levels.saturating_add(number),
            _ => {}
        })
        .map_err(|reason| format!("the page header is damaged: {reason}"))?;
        let (Some(unpacked), Some(packed)) = (unpacked, packed) else {
            return Err("a page without sizes".into());
        };
        let size = |claim: i64| u64::try_from(claim).map_err(|_| "a page of negative size");
        let (unpacked, packed, levels) = (size(unpacked)?, size(packed)?, size(levels)?);
        let largest = packed.max(unpacked);
        if largest > MAX_PAGE_BYTES {
            return Err(format!(
                "a page claims {largest} bytes, at most {MAX_PAGE_BYTES} are read: write the file \
                 with smaller pages"
            ));
        }
        let claims = &mut *lock(&self.claims);
        let current = match kind {
            DICTIONARY_PAGE => &mut claims.dictionary,
            _ => &mut claims.data,
        };
        let before = std::mem::replace(current, unpacked);
        claims.open_bytes.fetch_add(unpacked, Ordering::Relaxed);
        let open = claims.open_bytes.fetch_sub(before, Ordering::Relaxed) - before;
        (claims.levels, claims.values) = (levels, unpacked.saturating_sub(levels));
        if open > MAX_OPEN_BYTES {
            return Err(format!(
                "the pages of all columns together claim {open} bytes, at most {MAX_OPEN_BYTES} \
                 are read: choose fewer columns with --metadata-fields"
            ));
        }
        Ok(())
    }

    /// Checks the size of a compressed page whose codec unpacks all there is.
    fn check_body(&self, body: &[u8]) -> Result<()> {
        let (values, levels) = {
            let claims = lock(&self.claims);
            (claims.values, usize::try_from(claims.levels)?)
        };
        let packed = body.get(levels..).unwrap_or_default();
        let unpacked: &mut dyn Read = match self.compression {
            Compression::GZIP(_) => &mut MultiGzDecoder::new(packed),
            Compression::BROTLI(_) => &mut brotli::Decompressor::new(packed, 4096),
            _ => return Ok(()),
        };
        // Data that cannot be unpacked is left to the decoder.
        match io::copy(&mut unpacked.take(values + 1), &mut io::sink()) {
            Ok(length) if length > values => {
                Err(bad("a page unpacks to more bytes than it claims"))
            }
            _ => Ok(()),
        }
    }
}

impl Length for ColumnFile {
    fn len(&self) -> u64 {
        self.source.length
    }
}

impl ChunkReader for ColumnFile {
    type T = HeaderReader;

    /// Returns the page header at `start`, which is all that the crate calls this for.
    fn get_read(&self, start: u64) -> Result<HeaderReader> {
        Ok(HeaderReader { file: self.clone(), start, bytes: None })
    }

    /// Returns a page without its header, which is all that the crate calls this for.
    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes> {
        let length = length as u64;
        if length > MAX_PAGE_BYTES || start.saturating_add(length) > self.source.length {
            return Err(bad("a page reaches beyond the end of the file"));
        }
        let body = self.read_at(start, length)?;
        self.check_body(&body)?;
        Ok(body.into())
    }
}

/// A page header. It is read when its first byte is: the crate opens some that it does not need.
struct HeaderReader {
    file: ColumnFile,
    start: u64,
    bytes: Option<Cursor<Vec<u8>>>,
}

impl Read for HeaderReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.bytes.is_none() {
            self.bytes = Some(Cursor::new(self.file.read_header(self.start)?));
        }
        self.bytes.as_mut().map_or(Ok(0), |bytes| bytes.read(buffer))
    }
}

/// The pages of one column chunk, each checked before it goes to the decoder.
pub(super) struct CheckedPages {
    pages: SerializedPageReader<ColumnFile>,
    column: ColumnDescPtr,
    rows: RowLengths,
    has_dictionary: bool,
}

impl CheckedPages {
    /// Opens a column of a row group with `rows` rows.
    pub(super) fn open(
        source: &PageSource,
        chunk: &ColumnChunkMetaData,
        rows: usize,
    ) -> Result<Self> {
        let column = chunk.column_descr_ptr();
        let claims = Claims { open_bytes: Arc::clone(&source.open_bytes), ..Claims::default() };
        let file = Arc::new(ColumnFile {
            source: source.clone(),
            compression: chunk.compression(),
            claims: Arc::new(Mutex::new(claims)),
        });
        let properties = ReaderProperties::builder().set_backward_compatible_lz4(false).build();
        let properties = Arc::new(properties);
        let pages = SerializedPageReader::new_with_properties(file, chunk, rows, None, properties)?;
        // Each value of a struct in a list repeats the names of the fields.
        let names: usize = column.path().parts().iter().map(String::len).sum();
        let bytes = BYTES_PER_VALUE.max(names / BYTES_PER_VALUE) as u64;
        let max_values = (source.max_record_bytes / bytes).max(1);
        let rows = RowLengths::new(column.max_rep_level(), max_values);
        Ok(Self { pages, column, rows, has_dictionary: false })
    }

    fn check(&mut self, page: &Page) -> Result<()> {
        let (levels, values) = match page {
            Page::DictionaryPage { buf, num_values, encoding, .. } => {
                self.has_dictionary = true;
                return self.check_dictionary(buf, *num_values, *encoding);
            }
            Page::DataPage { buf, def_level_encoding, rep_level_encoding, .. } => {
                let mut rest = buf.as_ref();
                let mut levels = |max_level: i16, encoding: Encoding| match encoding {
                    _ if max_level == 0 => Ok(&[][..]),
                    Encoding::RLE => prefixed(&mut rest),
                    _ => Err(bad("levels in an encoding that is not supported")),
                };
                let repetition = levels(self.column.max_rep_level(), *rep_level_encoding)?;
                levels(self.column.max_def_level(), *def_level_encoding)?;
                (repetition, rest)
            }
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let short = || bad("a page is shorter than its levels");
                let (repetition, rest) =
                    buf.split_at_checked(*rep_levels_byte_len as usize).ok_or_else(short)?;
                (repetition, rest.get(*def_levels_byte_len as usize..).ok_or_else(short)?)
            }
        };
        if self.column.max_rep_level() > 0 {
            self.rows.add(levels, page.num_values()).map_err(bad)?;
        }
        self.check_values(values, u64::from(page.num_values()), page.encoding())
    }

    fn check_dictionary(&self, buffer: &[u8], count: u32, encoding: Encoding) -> Result<()> {
        if !matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) {
            return Err(bad(format!("a dictionary encoded as {encoding}")));
        }
        if count > MAX_DICTIONARY {
            return Err(bad(format!("a dictionary with {count} entries")));
        }
        let least = match self.column.physical_type() {
            Type::BOOLEAN => return Err(bad("a dictionary of truth values")),
            Type::BYTE_ARRAY | Type::INT32 | Type::FLOAT => 4,
            Type::INT64 | Type::DOUBLE => 8,
            Type::INT96 => 12,
            Type::FIXED_LEN_BYTE_ARRAY => self.column.type_length().max(1) as u64,
        };
        match u64::from(count).saturating_mul(least) <= buffer.len() as u64 {
            true => Ok(()),
            false => Err(bad("a dictionary that does not hold its entries")),
        }
    }

    fn check_values(&self, values: &[u8], count: u64, encoding: Encoding) -> Result<()> {
        // The crate reserves memory for all lengths at once.
        let lengths = |bytes| match deltas(bytes) {
            None => Err(bad("packed numbers without a header")),
            Some((claimed, _)) if claimed > count.min(MAX_DELTAS) => {
                Err(bad(format!("{claimed} packed numbers in a page of {count} values")))
            }
            Some((_, behind)) => Ok(behind),
        };
        match encoding {
            Encoding::PLAIN | Encoding::RLE | Encoding::BYTE_STREAM_SPLIT => Ok(()),
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY if self.has_dictionary => Ok(()),
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => {
                Err(bad("a page that needs a dictionary, and there is none"))
            }
            Encoding::DELTA_BINARY_PACKED | Encoding::DELTA_LENGTH_BYTE_ARRAY => {
                lengths(values).map(drop)
            }
            Encoding::DELTA_BYTE_ARRAY => {
                let suffixes = lengths(values)?.ok_or_else(|| bad("prefix lengths are cut off"))?;
                lengths(suffixes).map(drop)
            }
            other => Err(bad(format!("the encoding {other} is not supported"))),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the bytes that follow a length of four bytes.
fn prefixed<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let cut_off = || bad("a page is cut off");
    let (length, behind) = rest.split_first_chunk().ok_or_else(cut_off)?;
    *rest = behind;
    rest.split_off(..u32::from_le_bytes(*length) as usize).ok_or_else(cut_off)
}

fn bad(reason: impl Into<String>) -> ParquetError {
    ParquetError::General(reason.into())
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        loop {
            let Some(page) = self.pages.get_next_page()? else { return Ok(None) };
            self.check(&page)?;
            // The decoder takes a page without values for the end of the column.
            if !page.is_data_page() || page.num_values() > 0 {
                return Ok(Some(page));
            }
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}
