//! Pages of a column, with bounds on what they may unfold to.
//!
//! The decoder believes what a page says of itself: sizes after decompression, numbers of values,
//! lengths. Everything that it would allocate by is checked here first.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length, SerializedPageReader};
use parquet::schema::types::ColumnDescPtr;

use super::footer::{PageSize, page_size};
use super::levels::{Deltas, RowLengths};

/// The largest page, before and after decompression. Most writers stay near 1 MiB, some reach
/// 100 MB.
const MAX_PAGE_BYTES: u64 = 256 << 20;

/// The current pages of all columns of a file together.
const MAX_OPEN_BYTES: u64 = 1 << 30;

/// Entries of a dictionary. Writers give up on dictionaries of a few MiB.
const MAX_DICTIONARY: u32 = 4 << 20;

/// Values of a page whose lengths are decoded all at once.
const MAX_DELTAS: u64 = 16 << 20;

/// The bytes of one column chunk's pages: a file, and what has been opened of it.
pub(super) struct ColumnFile {
    file: Arc<File>,
    length: u64,
    compression: Compression,
    open: Arc<OpenPages>,
}

impl ColumnFile {
    /// `all_open` counts the bytes of the open pages of all columns.
    pub(super) fn new(
        file: Arc<File>,
        length: u64,
        compression: Compression,
        all_open: Arc<AtomicU64>,
    ) -> Self {
        let mut open = OpenPages::default();
        open.all = all_open;
        Self { file, length, compression, open: Arc::new(open) }
    }

    /// Two codecs of the decoder unpack all there is: for them, what there is is measured first.
    fn check_body(&self, body: &[u8]) -> Result<()> {
        let levels = self.open.levels.load(Ordering::Relaxed);
        let claimed = self.open.unpacked.load(Ordering::Relaxed).saturating_sub(levels);
        let packed = usize::try_from(levels).ok().and_then(|l| body.get(l..)).unwrap_or_default();
        let mut unpacked: Box<dyn Read> = match self.compression {
            Compression::GZIP(_) => Box::new(MultiGzDecoder::new(packed)),
            Compression::BROTLI(_) => Box::new(brotli::Decompressor::new(packed, 4096)),
            _ => return Ok(()),
        };
        // Where it cannot be unpacked, the decoder says why.
        let length = io::copy(&mut unpacked.by_ref().take(claimed + 1), &mut io::sink());
        if length.is_ok_and(|length| length > claimed) {
            return Err(bad("a page unpacks to more bytes than it claims"));
        }
        Ok(())
    }
}

impl Length for ColumnFile {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for ColumnFile {
    type T = PageHeader;

    /// Called for page headers alone.
    fn get_read(&self, start: u64) -> Result<PageHeader> {
        let bytes = BufReader::new(FileFrom { file: Arc::clone(&self.file), at: start });
        Ok(PageHeader { bytes, open: Arc::clone(&self.open), checked: false })
    }

    /// Called for page bodies alone.
    fn get_bytes(&self, start: u64, length: usize) -> Result<bytes::Bytes> {
        if length as u64 > MAX_PAGE_BYTES || start.saturating_add(length as u64) > self.length {
            return Err(bad("a page reaches beyond the end of the file"));
        }
        let mut body = vec![0; length];
        FileFrom { file: Arc::clone(&self.file), at: start }.read_exact(&mut body)?;
        self.check_body(&body)?;
        Ok(body.into())
    }
}

/// What the current pages of a column claim to be.
#[derive(Default)]
struct OpenPages {
    /// Bytes of the open pages of all columns.
    all: Arc<AtomicU64>,
    dictionary: AtomicU64,
    data: AtomicU64,
    /// Of the page whose header was read last: its size, and that of the levels in it.
    unpacked: AtomicU64,
    levels: AtomicU64,
}

impl OpenPages {
    fn add(&self, page: PageSize) -> std::result::Result<(), String> {
        let largest = page.compressed.max(page.uncompressed);
        if largest > MAX_PAGE_BYTES {
            return Err(format!(
                "a page claims {largest} bytes, at most {MAX_PAGE_BYTES} are read: write the file \
                 with smaller pages"
            ));
        }
        let kind = if page.is_dictionary { &self.dictionary } else { &self.data };
        let before = kind.swap(page.uncompressed, Ordering::Relaxed);
        self.all.fetch_add(page.uncompressed, Ordering::Relaxed);
        let all = self.all.fetch_sub(before, Ordering::Relaxed) - before;
        if all > MAX_OPEN_BYTES {
            return Err(format!(
                "the pages of all columns together claim {all} bytes, at most {MAX_OPEN_BYTES} \
                 are read: choose fewer columns with --metadata-fields"
            ));
        }
        self.levels.store(page.levels, Ordering::Relaxed);
        self.unpacked.store(page.uncompressed, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for OpenPages {
    fn drop(&mut self) {
        let open = *self.data.get_mut() + *self.dictionary.get_mut();
        self.all.fetch_sub(open, Ordering::Relaxed);
    }
}

/// A page header, whose claims are checked when it is read.
pub(super) struct PageHeader {
    bytes: BufReader<FileFrom>,
    open: Arc<OpenPages>,
    checked: bool,
}

impl Read for PageHeader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.checked {
            let size = page_size(self.bytes.fill_buf()?).map_err(io::Error::other)?;
            self.open.add(size).map_err(io::Error::other)?;
            self.checked = true;
        }
        self.bytes.read(buffer)
    }
}

/// A file from some byte on; others may read it in between.
struct FileFrom {
    file: Arc<File>,
    at: u64,
}

impl Read for FileFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(self.at))?;
        let read = file.read(buffer)?;
        self.at += read as u64;
        Ok(read)
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
    /// No row may have more than `max_levels` values in this column.
    pub(super) fn new(
        pages: SerializedPageReader<ColumnFile>,
        column: ColumnDescPtr,
        max_levels: u64,
    ) -> Self {
        let rows = RowLengths::new(column.max_rep_level(), max_levels);
        Self { pages, column, rows, has_dictionary: false }
    }

    fn check(&mut self, page: &Page) -> Result<()> {
        let buffer: &[u8] = page.buffer();
        match page {
            Page::DictionaryPage { num_values, encoding, .. } => {
                self.has_dictionary = true;
                self.check_dictionary(buffer, *num_values, *encoding)
            }
            Page::DataPage {
                num_values, encoding, def_level_encoding, rep_level_encoding, ..
            } => {
                let mut rest = buffer;
                if self.column.max_rep_level() > 0 {
                    if *rep_level_encoding != Encoding::RLE {
                        return Err(bad("levels in an encoding that is not supported"));
                    }
                    let levels = prefixed(&mut rest)?;
                    self.rows.add(levels, *num_values).map_err(bad)?;
                }
                if self.column.max_def_level() > 0 {
                    match *def_level_encoding {
                        Encoding::RLE => prefixed(&mut rest)?,
                        _ => return Err(bad("levels in an encoding that is not supported")),
                    };
                }
                self.check_values(rest, *num_values, *encoding)
            }
            Page::DataPageV2 {
                num_values,
                encoding,
                def_levels_byte_len,
                rep_levels_byte_len,
                ..
            } => {
                let (def, rep) = (*def_levels_byte_len as usize, *rep_levels_byte_len as usize);
                let (Some(levels), Some(values)) = (buffer.get(..rep), buffer.get(rep + def..))
                else {
                    return Err(bad("a page is shorter than its levels"));
                };
                if self.column.max_rep_level() > 0 {
                    self.rows.add(levels, *num_values).map_err(bad)?;
                }
                self.check_values(values, *num_values, *encoding)
            }
        }
    }

    fn check_dictionary(&self, buffer: &[u8], count: u32, encoding: Encoding) -> Result<()> {
        if !matches!(encoding, Encoding::PLAIN | Encoding::PLAIN_DICTIONARY) {
            return Err(bad(format!("a dictionary encoded as {encoding}")));
        }
        if count > MAX_DICTIONARY {
            return Err(bad(format!("a dictionary with {count} entries")));
        }
        let mut rest = buffer;
        let fits = match self.column.physical_type() {
            Type::BOOLEAN => false,
            Type::BYTE_ARRAY => (0..count).all(|_| prefixed(&mut rest).is_ok()),
            Type::FIXED_LEN_BYTE_ARRAY => fits(count, self.column.type_length(), buffer),
            Type::INT96 => fits(count, 12, buffer),
            Type::INT64 | Type::DOUBLE => fits(count, 8, buffer),
            Type::INT32 | Type::FLOAT => fits(count, 4, buffer),
        };
        if fits { Ok(()) } else { Err(bad("a dictionary that does not hold its entries")) }
    }

    fn check_values(&self, values: &[u8], count: u32, encoding: Encoding) -> Result<()> {
        let count = u64::from(count);
        match encoding {
            Encoding::PLAIN | Encoding::RLE | Encoding::BYTE_STREAM_SPLIT => Ok(()),
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY if self.has_dictionary => Ok(()),
            Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => {
                Err(bad("a page that needs a dictionary, and there is none"))
            }
            Encoding::DELTA_BINARY_PACKED => check_deltas(values, count).map(|_| ()),
            Encoding::DELTA_LENGTH_BYTE_ARRAY => check_deltas(values, count).map(|_| ()),
            Encoding::DELTA_BYTE_ARRAY => {
                let prefixes = check_deltas(values, count)?;
                let end = prefixes.end().ok_or_else(|| bad("prefix lengths are cut off"))?;
                check_deltas(&values[end..], count).map(|_| ())
            }
            other => Err(bad(format!("the encoding {other} is not supported"))),
        }
    }
}

/// Numbers packed as differences, if there are no more than the page has values.
fn check_deltas(values: &[u8], count: u64) -> Result<Deltas<'_>> {
    let deltas = Deltas::new(values).ok_or_else(|| bad("packed numbers without a header"))?;
    if deltas.count > count || deltas.count > MAX_DELTAS {
        return Err(bad(format!("{} packed numbers in a page of {count} values", deltas.count)));
    }
    Ok(deltas)
}

/// Takes what follows a length of four bytes.
fn prefixed<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let cut_off = || bad("a page is cut off");
    let (length, behind) = rest.split_first_chunk().ok_or_else(cut_off)?;
    let length = u32::from_le_bytes(*length) as usize;
    let (taken, behind) = behind.split_at_checked(length).ok_or_else(cut_off)?;
    *rest = behind;
    Ok(taken)
}

fn fits(count: u32, width: i32, buffer: &[u8]) -> bool {
    u64::try_from(width).is_ok_and(|width| {
        width > 0 && u64::from(count).saturating_mul(width) <= buffer.len() as u64
    })
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
        let page = self.pages.get_next_page()?;
        if let Some(page) = &page {
            self.check(page)?;
        }
        Ok(page)
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
