//! The memory that the cells of XLS and ODS workbooks need in the crate `calamine`, which reads all
//! sheets at once, each as a rectangle with the empty cells between the others. A few bytes of a
//! file may stand for a billion cells, so their number is counted before.

use std::io::{Cursor, Read};
use std::mem::size_of;

use calamine::{Cell, Data};
use quick_xml::events::{BytesStart, Event};

use super::event::ExtractError;
use super::limits::ExtractLimits;
use super::xml;
use crate::message::size;

/// Rows and columns of an ODS sheet at most; `calamine` reads no more.
const MAX_ROWS: u64 = 1 << 20;
const MAX_COLUMNS: u64 = 1 << 14;

/// Bytes of a cell of a rectangle: its value, once more while the sheet is read, and its formula.
const CELL: u64 = (2 * size_of::<Data>() + size_of::<String>()) as u64;

/// Bytes of a cell with its place.
const PLACED_CELL: u64 = size_of::<Cell<Data>>() as u64;

/// Checks that cells of this size are within the limit on memory.
pub(super) fn check(bytes: u64, limits: &ExtractLimits) -> Result<(), ExtractError> {
    if bytes <= limits.memory {
        return Ok(());
    }
    let limit = size(limits.memory);
    Err(ExtractError::new(format!(
        "the cells of the workbook, the empty ones between them included, need more than {limit} \
         of memory: save it as xlsx, or split it"
    )))
}

/// The cells of one ODS sheet.
#[derive(Debug, Default)]
struct OdsTable {
    /// Rows from the first that is not empty to the last, and the cells of the longest.
    rows: u64,
    columns: u64,
    /// Empty rows since the last one that is not.
    empty_rows: u64,
    /// Bytes of all texts.
    text: u64,
}

/// The current row of an ODS sheet.
#[derive(Debug, Default)]
struct OdsRow {
    repeated: u64,
    columns: u64,
    /// Empty cells since the last one that is not.
    empty: u64,
    text: u64,
}

/// Upper bound of the bytes for the cells of an ODS file, by its entry `content.xml`.
pub(super) fn of_ods(content: &str) -> u64 {
    let mut reader = xml::reader(content);
    let (mut total, mut table, mut row) = (0_u64, OdsTable::default(), OdsRow::default());
    // The start of the open cell, and its number of columns.
    let mut open: Option<(u64, u64)> = None;
    loop {
        let start = reader.buffer_position();
        // What is damaged is found when the file is read.
        let Ok(event) = reader.read_event() else { break };
        let (tag, is_empty) = match &event {
            Event::Start(tag) => (Some(tag), false),
            Event::Empty(tag) => (Some(tag), true),
            Event::Eof => break,
            _ => (None, false),
        };
        if let Some(tag) = tag {
            match tag.name().as_ref() {
                "table:table-row" => {
                    let repeated = repeated(tag, "table:number-rows-repeated").min(MAX_ROWS);
                    row = OdsRow { repeated, ..OdsRow::default() };
                }
                "table:table-cell" | "table:covered-table-cell" => {
                    let columns = repeated(tag, "table:number-columns-repeated").min(MAX_COLUMNS);
                    if !has_value(tag) {
                        row.empty = row.empty.saturating_add(columns).min(MAX_COLUMNS);
                    } else if is_empty {
                        row.add(columns, reader.buffer_position() - start);
                    } else {
                        open = Some((start, columns));
                    }
                }
                _ => {}
            }
            continue;
        }
        let Event::End(tag) = &event else { continue };
        match tag.name().as_ref() {
            "table:table-cell" | "table:covered-table-cell" => {
                if let Some((start, columns)) = open.take() {
                    row.add(columns, reader.buffer_position() - start);
                }
            }
            "table:table-row" => {
                let row = std::mem::take(&mut row);
                let cells = row.columns.saturating_mul(CELL).saturating_add(row.text);
                total = total.saturating_add(cells);
                table.add(&row);
            }
            "table:table" => total = total.saturating_add(std::mem::take(&mut table).bytes()),
            _ => {}
        }
    }
    total.saturating_add(table.bytes())
}

impl OdsRow {
    fn add(&mut self, columns: u64, text: u64) {
        self.columns = (self.columns + std::mem::take(&mut self.empty) + columns).min(MAX_COLUMNS);
        self.text = self.text.saturating_add(columns.saturating_mul(text));
    }
}

impl OdsTable {
    fn add(&mut self, row: &OdsRow) {
        if row.columns == 0 {
            // Those above the first row that is not empty take no place.
            let is_inside = self.rows > 0;
            self.empty_rows += if is_inside { row.repeated } else { 0 };
            return;
        }
        let rows = self.rows + std::mem::take(&mut self.empty_rows) + row.repeated;
        self.rows = rows.min(MAX_ROWS);
        self.columns = self.columns.max(row.columns);
        self.text = self.text.saturating_add(row.text.saturating_mul(row.repeated));
    }

    fn bytes(&self) -> u64 {
        (self.rows * self.columns * CELL).saturating_add(self.text.saturating_mul(2))
    }
}

fn repeated(tag: &BytesStart<'_>, name: &str) -> u64 {
    xml::attribute(tag, name).and_then(|n| n.parse().ok()).unwrap_or(1)
}

/// True if a cell has a value or a formula.
fn has_value(tag: &BytesStart<'_>) -> bool {
    tag.attributes().with_checks(false).flatten().any(|attribute| {
        let key = attribute.key.as_ref();
        key == "table:formula" || key.starts_with("office:") || key.starts_with("calcext:")
    })
}

/// Types of records of an XLS file: end of a sheet, sheet, dimensions, and those with a cell.
const EOF: u16 = 0x000a;
const SHEET: u16 = 0x0085;
const DIMENSIONS: u16 = 0x0200;
const FORMULA: u16 = 0x0006;
const MANY_NUMBERS: u16 = 0x00bd;
const VALUES: [u16; 6] = [0x0203, 0x0204, 0x00d6, 0x0205, 0x027e, 0x00fd];

/// Upper bound of the bytes for the cells of an XLS file, without their texts; 0 if the file cannot
/// be read, which `calamine` finds too.
pub(super) fn of_xls(bytes: &[u8]) -> u64 {
    let Some(stream) = workbook(bytes) else { return 0 };
    let sheets = records(&stream).take_while(|(kind, _)| *kind != EOF);
    let starts = sheets.filter(|(kind, _)| *kind == SHEET).filter_map(|(_, data)| number(data, 0));
    let mut total = 0_u64;
    // Sheets do not overlap.
    let mut left = stream.len() / 4;
    for start in starts {
        let sheet = usize::try_from(start).ok().and_then(|start| stream.get(start..));
        let sheet = records(sheet.unwrap_or_default()).take_while(|(kind, _)| *kind != EOF);
        let (mut values, mut formulas) = (CellRectangle::default(), CellRectangle::default());
        for (kind, data) in sheet {
            if left == 0 {
                return u64::MAX;
            }
            left -= 1;
            let Some((row, column)) = place(data) else { continue };
            match kind {
                DIMENSIONS => {
                    total = total.saturating_add(dimensions(data).saturating_mul(PLACED_CELL));
                }
                FORMULA => {
                    formulas.add(row, column);
                    values.add(row, column);
                }
                MANY_NUMBERS => {
                    values.add(row, column);
                    let last = data.last_chunk().map(|last| u16::from_le_bytes(*last));
                    values.add(row, last.unwrap_or(column));
                }
                kind if VALUES.contains(&kind) => values.add(row, column),
                _ => {}
            }
        }
        let cells = values.area().saturating_add(formulas.area()).saturating_mul(CELL);
        total = total.saturating_add(cells);
    }
    total
}

/// The stream of an XLS file that holds its sheets.
fn workbook(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut file = cfb::CompoundFile::open(Cursor::new(bytes)).ok()?;
    let name = ["/Workbook", "/Book"].into_iter().find(|name| file.exists(name))?;
    let mut stream = Vec::new();
    let opened = file.open_stream(name).ok()?;
    opened.take(bytes.len() as u64).read_to_end(&mut stream).ok()?;
    Some(stream)
}

/// The records of a stream: types and contents.
fn records(mut stream: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (kind, rest) = stream.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let (data, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
        stream = rest;
        Some((u16::from_le_bytes(*kind), data))
    })
}

/// The row and the column at the start of a record.
fn place(data: &[u8]) -> Option<(u16, u16)> {
    let (row, rest) = data.split_first_chunk()?;
    let column = rest.first_chunk()?;
    Some((u16::from_le_bytes(*row), u16::from_le_bytes(*column)))
}

/// The number of 32 bits at an offset.
fn number(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

/// The number of cells for which `calamine` reserves memory at a record of dimensions.
fn dimensions(data: &[u8]) -> u64 {
    let short = |at: usize| {
        let bytes = data.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map(|bytes| u32::from(u16::from_le_bytes(*bytes)))
    };
    let places = match data.len() {
        14.. => [number(data, 0), number(data, 4), short(8), short(10)],
        _ => [short(0), short(2), short(4), short(6)],
    };
    let [Some(top), Some(bottom), Some(left), Some(right)] = places else { return 0 };
    let left = if left > 0xff || right < left { 0 } else { left };
    // The end is behind the last. A row before the first is a very large number there.
    u64::from(bottom.wrapping_sub(top).max(1)) * u64::from((right - left).max(1))
}

/// The rectangle around some cells.
#[derive(Debug, Default)]
struct CellRectangle(Option<[u16; 4]>);

impl CellRectangle {
    fn add(&mut self, row: u16, column: u16) {
        let [top, left, bottom, right] = self.0.unwrap_or([row, column, row, column]);
        let upper = [top.min(row), left.min(column)];
        self.0 = Some([upper[0], upper[1], bottom.max(row), right.max(column)]);
    }

    fn area(&self) -> u64 {
        let length = |first: u16, last: u16| u64::from(last - first) + 1;
        self.0.map_or(0, |[top, left, bottom, right]| length(top, bottom) * length(left, right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ods(rows: &str) -> u64 {
        of_ods(&format!("<office:spreadsheet><table:table>{rows}</table:table>"))
    }

    #[test]
    fn repeated_cells_of_ods_are_counted() {
        let cell = "<table:table-cell office:value-type='float' office:value='1'/>";
        let row = |cells: &str| format!("<table:table-row>{cells}</table:table-row>");
        assert_eq!(ods(&row("<table:table-cell table:number-columns-repeated='9'/>")), 0);
        let one = ods(&row(cell));
        assert!((2 * CELL..1000).contains(&one), "{one}");
        let gap = "<table:table-cell table:number-columns-repeated='99'/>";
        assert!(ods(&row(&[gap, cell].concat())) > 200 * CELL);
        let blank = "<table:table-row table:number-rows-repeated='999'><table:table-cell/>\
                     </table:table-row>";
        assert!(ods(&[&row(cell), blank, &row(cell)].concat()) > 1001 * CELL);
        // Empty rows above and below take no place.
        assert_eq!(ods(&[blank, &row(cell), blank].concat()), one);
        let all = "<table:table-row table:number-rows-repeated='9999999'><table:table-cell \
                   office:value-type='string' table:number-columns-repeated='9999999'><text:p>x\
                   </text:p></table:table-cell></table:table-row>";
        assert!(ods(all) > MAX_ROWS * MAX_COLUMNS * CELL);
    }

    #[test]
    fn rectangles_of_xls_are_counted() {
        let record = |kind: u16, data: &[u8]| {
            let length = u16::try_from(data.len()).unwrap();
            [&kind.to_le_bytes()[..], &length.to_le_bytes(), data].concat()
        };
        let number = |row: u16, column: u16| {
            let place = [row.to_le_bytes(), column.to_le_bytes()].concat();
            record(0x0203, &[&place[..], &[0; 10]].concat())
        };
        let sheet = [number(0, 0), number(65_535, 255), record(EOF, &[])].concat();
        let globals = |n: usize| {
            let start = u32::try_from(n * 10 + 4).unwrap();
            let one = record(SHEET, &[&start.to_le_bytes()[..], &[0; 2]].concat());
            [one.repeat(n), record(EOF, &[])].concat()
        };
        let file = |stream: &[u8]| {
            let mut file = cfb::CompoundFile::create(Cursor::new(Vec::new())).unwrap();
            std::io::Write::write_all(&mut file.create_stream("/Workbook").unwrap(), stream)
                .unwrap();
            file.into_inner().into_inner()
        };
        let one = of_xls(&file(&[globals(1), sheet.clone()].concat()));
        assert_eq!(one, 65_536 * 256 * CELL);
        // Sheets at the same place, with more records than the stream can hold.
        let long = [number(0, 0).repeat(100), record(EOF, &[])].concat();
        assert_eq!(of_xls(&file(&[globals(60), long].concat())), u64::MAX);
        let wide = [0_u32.to_le_bytes(), 0xffff_fff0_u32.to_le_bytes(), [0, 0, 255, 0], [0; 4]];
        let dimensions = record(DIMENSIONS, &wide.concat()[..14]);
        let claimed = of_xls(&file(&[globals(1), dimensions, sheet].concat()));
        assert!(claimed > 0xffff_fff0 * 255 * PLACED_CELL, "{claimed}");
        assert_eq!(of_xls(b"no workbook"), 0);
        let limits = ExtractLimits::default();
        assert!(check(one, &limits).is_ok() && check(claimed, &limits).is_err());
    }
}
