//! ODT: sections by headings, without hidden text.

use std::collections::HashSet;

use quick_xml::events::{BytesStart, Event};

use super::archive::{Archive, decoded, encrypted};
use super::event::{ExtractError, Sink};
use super::outline::Outline;
use super::{title, xml};
use crate::format::FileFormat;

/// Maximum number of times that a repeated cell is repeated.
const MAX_REPEATED: usize = 64;

/// Maximum number of spaces that one tag stands for.
const MAX_SPACES: usize = 64;

/// Writes the sections of an ODT file.
pub(super) fn extract(bytes: Vec<u8>, sink: &mut Sink<'_>) -> Result<(), ExtractError> {
    let mut archive = Archive::open(bytes, FileFormat::Odt, sink.limits())?;
    let manifest = archive.read("META-INF/manifest.xml")?.unwrap_or_default();
    if manifest.windows(15).any(|window| window == b"encryption-data") {
        return Err(ExtractError::new(encrypted("odt")));
    }
    if archive.has("meta.xml") {
        let found = xml::element_text(&archive.text("meta.xml")?, "dc:title");
        title::real(found.as_deref()).map_or(Ok(()), |title| sink.title(&title))?;
    }
    let mut styles = HiddenStyleNames::default();
    if let Some(bytes) = archive.read("styles.xml")? {
        styles.add_all(&decoded(&bytes));
    }
    let content = archive.text("content.xml")?;
    drop(archive);
    let mut reader = xml::reader(&content);
    let mut body = Body::new(Outline::new(sink), styles);
    let mut n_open = 0_usize;
    loop {
        match xml::next(&mut reader, "content.xml")? {
            Event::Start(tag) => {
                n_open += 1;
                body.open(&tag);
            }
            Event::Empty(tag) => {
                body.open(&tag);
                body.close(tag.name().as_ref())?;
            }
            Event::End(tag) => {
                n_open = n_open.saturating_sub(1);
                body.close(tag.name().as_ref())?;
            }
            Event::Text(text) => body.text(&text.xml10_content()),
            Event::CData(text) => body.text(&text.xml10_content()),
            Event::GeneralRef(entity) => body.text(&xml::reference(&entity)),
            Event::Eof => break,
            _ => {}
        }
    }
    let n_hidden = body.n_hidden;
    body.outline.finish()?;
    sink.note("pieces of hidden text; show them to index them", n_hidden)?;
    match n_open {
        0 => Ok(()),
        _ => Err(ExtractError::new("the entry 'content.xml' is cut off: copy the file again")),
    }
}

/// The names of styles whose text is hidden (`text:display="none"`).
#[derive(Default)]
struct HiddenStyleNames {
    names: HashSet<String>,
    /// The style whose properties are being read.
    current: String,
}

impl HiddenStyleNames {
    /// Adds the styles of an entry, up to its first defect.
    fn add_all(&mut self, styles: &str) {
        let mut reader = xml::reader(styles);
        while let Ok(event) = reader.read_event() {
            match event {
                Event::Start(tag) | Event::Empty(tag) => self.add(&tag),
                Event::Eof => break,
                _ => {}
            }
        }
    }

    /// Adds a style if this is the start of one, or of its properties.
    fn add(&mut self, tag: &BytesStart<'_>) {
        match tag.name().as_ref() {
            "style:style" => {
                self.current = xml::attribute(tag, "style:name").unwrap_or_default();
                let parent = xml::attribute(tag, "style:parent-style-name");
                // Another one of this name may be that of a header or footer.
                match parent.is_some_and(|parent| self.names.contains(&parent)) {
                    true => self.names.insert(self.current.clone()),
                    false => self.names.remove(&self.current),
                };
            }
            "style:text-properties" => match xml::attribute(tag, "text:display").as_deref() {
                Some("none") => drop(self.names.insert(self.current.clone())),
                Some(_) => drop(self.names.remove(&self.current)),
                None => {}
            },
            _ => {}
        }
    }

    /// True if an element is hidden by its style or by itself.
    fn hides(&self, tag: &BytesStart<'_>) -> bool {
        match tag.name().as_ref() {
            "text:section" => {
                let display = xml::attribute(tag, "text:display");
                display.as_deref() == Some("none") || is_hidden(tag)
            }
            "text:hidden-text" => is_hidden(tag),
            "text:p" | "text:h" | "text:span" if !self.names.is_empty() => {
                let style = xml::attribute(tag, "text:style-name");
                style.is_some_and(|style| self.names.contains(&style))
            }
            _ => false,
        }
    }
}

/// True if the program that saved the file found that a condition hides the element.
fn is_hidden(tag: &BytesStart<'_>) -> bool {
    xml::attribute(tag, "text:is-hidden").as_deref() == Some("true")
}

/// The state of reading the text of a file.
struct Body<'a, 'b> {
    outline: Outline<'a, 'b>,
    styles: HiddenStyleNames,
    /// The number of hidden sections, paragraphs and pieces of them.
    n_hidden: u64,
    /// The number of open elements within one that is not part of the text, itself included.
    hidden: usize,
    lists: usize,
    /// The open paragraph: its text, and how deep it is nested in others.
    text: String,
    depth: usize,
    /// The level of the open heading.
    level: Option<u8>,
    /// True if a field in the open paragraph hides all of it.
    is_paragraph_hidden: bool,
    tables: Vec<OpenTable>,
}

/// A table whose end has not come yet.
#[derive(Default)]
struct OpenTable {
    rows: Vec<Vec<String>>,
    cell: String,
    repeated: usize,
    /// The paragraph around it.
    outer: (String, usize),
}

impl<'a, 'b> Body<'a, 'b> {
    fn new(outline: Outline<'a, 'b>, styles: HiddenStyleNames) -> Self {
        let (text, tables) = (String::new(), Vec::new());
        Self {
            outline,
            styles,
            n_hidden: 0,
            hidden: 0,
            lists: 0,
            text,
            depth: 0,
            level: None,
            is_paragraph_hidden: false,
            tables,
        }
    }

    fn open(&mut self, tag: &BytesStart<'_>) {
        if self.hidden > 0 {
            self.hidden += 1;
            return;
        }
        self.styles.add(tag);
        if self.styles.hides(tag) {
            self.n_hidden += 1;
            self.hidden = 1;
            return;
        }
        let name = tag.name();
        let number = |name: &str| xml::attribute(tag, name).and_then(|value| value.parse().ok());
        match name.as_ref() {
            "office:annotation"
            | "text:tracked-changes"
            | "text:note-citation"
            | "office:forms"
            | "text:table-of-content"
            | "svg:desc" => self.hidden = 1,
            "text:list" => self.lists += 1,
            "text:h" | "text:p" => {
                if self.depth == 0 {
                    self.text.clear();
                    let level = || number("text:outline-level").unwrap_or(1);
                    self.level = (name.as_ref() == "text:h").then(level);
                } else {
                    self.text.push(' ');
                }
                self.depth += 1;
            }
            "text:s" => {
                let spaces: usize = number("text:c").map_or(1, usize::from);
                self.text.push_str(&" ".repeat(spaces.min(MAX_SPACES)));
            }
            "text:hidden-paragraph" if is_hidden(tag) => self.is_paragraph_hidden = true,
            "text:tab" => self.text.push('\t'),
            "text:line-break" => self.text.push('\n'),
            "table:table" => {
                let outer = (std::mem::take(&mut self.text), std::mem::take(&mut self.depth));
                self.tables.push(OpenTable { outer, ..OpenTable::default() });
            }
            "table:table-row" => {
                if let Some(table) = self.tables.last_mut() {
                    table.rows.push(Vec::new());
                }
            }
            "table:table-cell" | "table:covered-table-cell" => {
                let repeated = xml::attribute(tag, "table:number-columns-repeated");
                let repeated = repeated.and_then(|n| n.parse().ok()).unwrap_or(1);
                if let Some(table) = self.tables.last_mut() {
                    table.cell.clear();
                    table.repeated = repeated.clamp(1, MAX_REPEATED);
                }
            }
            _ => {}
        }
    }

    fn close(&mut self, name: &str) -> Result<(), ExtractError> {
        if self.hidden > 0 {
            self.hidden -= 1;
            return Ok(());
        }
        match name {
            "text:list" => self.lists = self.lists.saturating_sub(1),
            "text:h" | "text:p" if self.depth == 1 => {
                self.depth = 0;
                let mut text = std::mem::take(&mut self.text);
                if std::mem::take(&mut self.is_paragraph_hidden) {
                    self.n_hidden += 1;
                    text.clear();
                }
                match (self.tables.last_mut(), self.level.take()) {
                    (Some(table), _) => table.cell.extend([text.trim(), "\n"]),
                    (None, Some(level)) => self.outline.heading(level, &text)?,
                    (None, None) if self.lists > 0 => self.outline.item(self.lists - 1, &text),
                    (None, None) => self.outline.paragraph(&text),
                }
            }
            "text:h" | "text:p" => self.depth = self.depth.saturating_sub(1),
            "table:table-cell" | "table:covered-table-cell" => {
                if let Some(OpenTable { rows, cell, repeated, .. }) = self.tables.last_mut()
                    && let Some(row) = rows.last_mut()
                {
                    row.extend(std::iter::repeat_n(cell.trim().to_owned(), *repeated));
                    cell.clear();
                }
            }
            "table:table" => {
                let Some(table) = self.tables.pop() else { return Ok(()) };
                (self.text, self.depth) = table.outer;
                match self.tables.last_mut() {
                    Some(outer) => {
                        let lines = super::table::lines(&table.rows);
                        outer.cell.extend([&lines.join("\n"), "\n"]);
                    }
                    None => self.outline.table(&table.rows),
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn text(&mut self, text: &str) {
        if self.hidden == 0 && self.depth > 0 {
            self.text.push_str(text);
        }
    }
}
