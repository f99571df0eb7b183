//! XLSX, XLSB, XLS and ODS: blocks of rows, read by the crate `calamine`.

use std::io::Cursor;

use calamine::{
    Data, Ods, Reader, SheetType, SheetVisible, Sheets, Xls, Xlsb, Xlsx, open_workbook_from_rs,
};

use super::archive::{Archive, decoded, encrypted, no_archive};
use super::event::{ExtractError, Section, Sink};
use super::limits::ExtractLimits;
use super::{cells, table};
use crate::format::FileFormat;
use crate::magic::{FileKind, OLE_MAGIC};
use crate::message::shown as shown_name;

/// Bytes of text at which a block of rows is full: about as much as a chunk holds.
const BLOCK: usize = 800;

/// Maximum number of columns.
const MAX_COLUMNS: u32 = 1 << 14;

type Book = Sheets<Cursor<Vec<u8>>>;

/// Writes the rows of all visible sheets.
pub(super) fn extract(bytes: Vec<u8>, sink: &mut Sink<'_>) -> Result<(), ExtractError> {
    let mut book = open(bytes, sink)?;
    let sheets = book.sheets_metadata().to_vec();
    let (shown, hidden): (Vec<_>, Vec<_>) = sheets
        .iter()
        .filter(|sheet| sheet.typ == SheetType::WorkSheet)
        .partition(|sheet| sheet.visible == SheetVisible::Visible);
    sink.note("hidden sheets; show them to index them", hidden.len() as u64)?;
    for sheet in shown {
        let mut rows = SheetRows::new(&sheet.name, sink);
        let mut output = Ok(());
        let read = for_each_cell(&mut book, &sheet.name, |row, column, text| {
            output = rows.cell(row, column, text);
            output.is_ok()
        });
        output?;
        match read {
            Ok(()) => rows.finish()?,
            Err(reason) => {
                rows.finish()?;
                let reason = format!("the sheet is damaged ({reason}): save the file again");
                sink.failed(Some(format!("sheet '{}'", shown_name(&sheet.name))), reason)?;
            }
        }
    }
    Ok(())
}

fn open(bytes: Vec<u8>, sink: &Sink<'_>) -> Result<Book, ExtractError> {
    if bytes.starts_with(&OLE_MAGIC) {
        return open_xls(bytes, sink.limits());
    }
    let mut archive = Archive::open(bytes, FileFormat::Xlsx, sink.limits())?;
    let is_xlsb = archive.has("xl/workbook.bin");
    let is_ods = archive.has("content.xml");
    if is_ods {
        let content = archive.read("content.xml")?.unwrap_or_default();
        cells::check(cells::of_ods(&decoded(&content)), sink.limits())?;
    }
    let bytes = Cursor::new(archive.into_bytes());
    if is_xlsb {
        return open_workbook_from_rs::<Xlsb<_>, _>(bytes)
            .map(Sheets::Xlsb)
            .map_err(|e| damaged(&e));
    }
    if is_ods {
        let ods = open_workbook_from_rs::<Ods<_>, _>(bytes).map(Sheets::Ods);
        return ods.map_err(|e| match e {
            calamine::OdsError::Password => ExtractError::new(encrypted("ods")),
            e => damaged(&e),
        });
    }
    open_workbook_from_rs::<Xlsx<_>, _>(bytes).map(Sheets::Xlsx).map_err(|e| damaged(&e))
}

fn open_xls(bytes: Vec<u8>, limits: &ExtractLimits) -> Result<Book, ExtractError> {
    cells::check(cells::of_xls(&bytes), limits)?;
    let xls = open_workbook_from_rs::<Xls<_>, _>(Cursor::new(bytes.clone()));
    xls.map(Sheets::Xls).map_err(|e| match FileKind::of(&bytes) {
        _ if matches!(e, calamine::XlsError::Password) => ExtractError::new(encrypted("xls")),
        Some(kind) if kind.reader != Ok(FileFormat::Xlsx) => {
            ExtractError::new(no_archive(&bytes, FileFormat::Xlsx))
        }
        _ => damaged(&e),
    })
}

fn damaged(error: &dyn std::fmt::Display) -> ExtractError {
    ExtractError::new(format!(
        "the workbook is damaged or cut off ({error}): copy it again, or save it anew"
    ))
}

/// Calls `visit` with row, column and text of each cell that has one, until that returns false.
/// Formulas have the value that the program stored when it saved them.
fn for_each_cell(
    book: &mut Book,
    name: &str,
    mut visit: impl FnMut(u32, u32, String) -> bool,
) -> Result<(), String> {
    // A sparse sheet as one rectangle could exceed the memory: these formats are read by cell.
    macro_rules! cells {
        ($book:expr) => {{
            let mut cells = $book.worksheet_cells_reader(name).map_err(|e| e.to_string())?;
            while let Some(cell) = cells.next_cell().map_err(|e| e.to_string())? {
                let (row, column) = cell.get_position();
                let text = text(&Data::from(cell.get_value().clone()));
                if !text.is_empty() && !visit(row, column, text) {
                    break;
                }
            }
        }};
    }
    match book {
        Sheets::Xlsx(book) => cells!(book),
        Sheets::Xlsb(book) => cells!(book),
        book => {
            let range = book.worksheet_range(name).map_err(|e| e.to_string())?;
            let (row_0, column_0) = range.start().unwrap_or_default();
            for (row, column, value) in range.used_cells() {
                let text = text(value);
                let (row, column) = (row_0 + row as u32, column_0 + column as u32);
                if !text.is_empty() && !visit(row, column, text) {
                    break;
                }
            }
        }
    }
    Ok(())
}

/// The text of a cell: dates as 2024-05-31, with the time if there is one; errors are empty.
fn text(value: &Data) -> String {
    match value {
        Data::Int(number) => number.to_string(),
        Data::Float(number) => number.to_string(),
        Data::String(text) => table::flat(text),
        Data::Bool(flag) => flag.to_string(),
        Data::DateTime(time) if time.is_duration() => {
            let seconds = (time.as_f64() * 86_400.0).round();
            let sign = if seconds < 0.0 { "-" } else { "" };
            let seconds = seconds.abs() as u64;
            format!("{sign}{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
        }
        Data::DateTime(time) => {
            let (year, month, day, hour, minute, second, _) = time.to_ymd_hms_milli();
            let date = format!("{year:04}-{month:02}-{day:02}");
            let clock = format!("{hour:02}:{minute:02}:{second:02}");
            match (time.as_f64() < 1.0, time.as_f64().fract() == 0.0) {
                (true, _) => clock,
                (_, true) => date,
                _ => format!("{date} {clock}"),
            }
        }
        Data::DateTimeIso(text) | Data::DurationIso(text) => text.clone(),
        Data::Error(_) | Data::Empty => String::new(),
    }
}

/// Writer of the rows of one sheet.
struct SheetRows<'a, 'b> {
    sink: &'a mut Sink<'b>,
    sheet: &'a str,
    /// The cells of the current row.
    cells: Vec<String>,
    row: u32,
    /// The first row with two or more texts, which names the columns.
    header: Option<Vec<String>>,
    /// True after the first row with values.
    has_values: bool,
    text: String,
    /// The first row in `text`.
    first_row: u32,
    parts: u32,
}

impl<'a, 'b> SheetRows<'a, 'b> {
    fn new(sheet: &'a str, sink: &'a mut Sink<'b>) -> Self {
        Self {
            sink,
            sheet,
            cells: Vec::new(),
            row: 0,
            header: None,
            has_values: false,
            text: String::new(),
            first_row: 0,
            parts: 0,
        }
    }

    fn cell(&mut self, row: u32, column: u32, text: String) -> Result<(), ExtractError> {
        if row != self.row {
            self.end_row()?;
            self.row = row;
        }
        if column < MAX_COLUMNS {
            let column = column as usize;
            if self.cells.len() <= column {
                self.cells.resize(column + 1, String::new());
            }
            self.cells[column] = text;
        }
        Ok(())
    }

    fn end_row(&mut self) -> Result<(), ExtractError> {
        let cells = std::mem::take(&mut self.cells);
        let filled = cells.iter().filter(|cell| !cell.is_empty()).count();
        if filled == 0 {
            return Ok(());
        }
        if self.header.is_none() && !self.has_values && table::is_header(&cells) {
            self.header = Some(cells);
            return Ok(());
        }
        // Lines above the names of the columns are titles.
        self.has_values |= filled > 1;
        let line = table::line(self.header.as_deref(), &cells);
        self.line(&line)
    }

    fn line(&mut self, line: &str) -> Result<(), ExtractError> {
        if !self.text.is_empty() && self.text.len() + line.len() > BLOCK {
            self.flush()?;
        }
        if self.text.is_empty() {
            self.first_row = self.row + 1;
        } else {
            self.text.push('\n');
        }
        self.text.push_str(line);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ExtractError> {
        if self.text.is_empty() {
            return Ok(());
        }
        self.parts += 1;
        let mut anchor = format!("sheet={}", anchor(self.sheet));
        if self.parts > 1 {
            anchor.push_str(&format!("&part={}", self.parts));
        }
        let section = Section::new(anchor).with("sheet", self.sheet).with("row", self.first_row);
        self.sink.section(Section { text: std::mem::take(&mut self.text), ..section })
    }

    fn finish(mut self) -> Result<(), ExtractError> {
        self.end_row()?;
        if let Some(header) = self.header.take().filter(|_| !self.has_values) {
            // A sheet of one row, which was taken for the names of columns.
            let line = table::line(None, &header);
            self.line(&line)?;
        }
        self.flush()
    }
}

/// The name of a sheet in an id, without the characters that separate the parts of ids.
fn anchor(name: &str) -> String {
    let mut anchor = String::new();
    for c in name.chars() {
        match c {
            '#' | '&' | '%' | '=' | '\0'..='\u{1f}' => {
                anchor.push_str(&format!("%{:02X}", u32::from(c)));
            }
            c if c.is_control() => anchor.push('_'),
            c => anchor.push(c),
        }
    }
    anchor
}
