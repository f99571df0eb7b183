//! DOCX: sections by headings. PPTX: slides. Both are read by the crate `undoc`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use quick_xml::events::Event;
use undoc::container::OoxmlContainer;
use undoc::docx::DocxParser;
use undoc::model::{Block, Paragraph, RevisionType, Section as OfficeSection, Table};
use undoc::pptx::PptxParser;
use undoc::{ParseEvent, SectionStreamOptions};

use super::archive::{Archive, decoded, encrypted};
use super::event::{ExtractError, Section, Sink};
use super::hidden::{HiddenStyles, without_hidden_runs};
use super::outline::Outline;
use super::{table, title, xml};
use crate::format::FileFormat;

/// Maximum depth of tables in cells of tables.
const MAX_DEPTH: usize = 16;

/// Writes the sections of a DOCX file.
pub(super) fn extract_docx(bytes: Vec<u8>, sink: &mut Sink<'_>) -> Result<(), ExtractError> {
    let mut archive = Archive::open(bytes, FileFormat::Docx, sink.limits())?;
    let is_cut_off = archive.read("word/document.xml")?.is_some_and(|xml| !has_end(&xml));
    let n_hidden = hide_runs(&mut archive)?;
    let extract_error = |error| extract_error(error, "docx");
    let mut parser = DocxParser::from_bytes(archive.into_repacked()?).map_err(extract_error)?;
    let document = parser.parse().map_err(extract_error)?;
    let real_title = title::real(document.metadata.title.as_deref());
    real_title.map_or(Ok(()), |title| sink.title(&title))?;
    let mut outline = Outline::new(sink);
    for section in &document.sections {
        for block in &section.content {
            match block {
                Block::Paragraph(paragraph) => {
                    let text = text(paragraph);
                    let level = paragraph.heading.level();
                    match &paragraph.list_info {
                        _ if level > 0 => outline.heading(level, &text)?,
                        Some(list) => outline.item(list.level.into(), &text),
                        None => outline.paragraph(&text),
                    }
                }
                Block::Table(table) => add_table(table, 0, &mut |rows| outline.table(rows)),
                Block::Note { content, .. } => outline.paragraph(&texts(content)),
                _ => {}
            }
        }
    }
    outline.finish()?;
    sink.note("pieces of hidden text (font effect Hidden); show them to index them", n_hidden)?;
    match is_cut_off {
        true => {
            Err(ExtractError::new("the entry 'word/document.xml' is cut off: copy the file again"))
        }
        false => Ok(()),
    }
}

/// Removes the text of hidden runs from the archive of a DOCX file, and returns their number.
fn hide_runs(archive: &mut Archive) -> Result<u64, ExtractError> {
    let mut n_hidden = 0;
    let styles = archive.read("word/styles.xml")?.unwrap_or_default();
    let styles = match styles.windows(VANISH.len()).any(|window| window == VANISH) {
        true => HiddenStyles::parse(&decoded(&styles)),
        false => HiddenStyles::default(),
    };
    for entry in ["word/document.xml", "word/footnotes.xml", "word/endnotes.xml"] {
        let Some(bytes) = archive.read(entry)? else { continue };
        let may_hide =
            !styles.is_empty() || bytes.windows(VANISH.len()).any(|window| window == VANISH);
        let Some(xml) = std::str::from_utf8(&bytes).ok().filter(|_| may_hide) else { continue };
        let xml = xml.strip_prefix('\u{feff}').unwrap_or(xml);
        if let Some((kept, n)) = without_hidden_runs(xml, &styles) {
            archive.replace(entry, kept.into_bytes());
            n_hidden += n;
        }
    }
    Ok(n_hidden)
}

/// The name of the property of hidden runs.
const VANISH: &[u8] = b"w:vanish";

/// True if a document in XML ends with an end tag of the element `document`.
fn has_end(xml: &[u8]) -> bool {
    let tail = &xml[xml.len().saturating_sub(TAIL)..];
    tail.windows(9).any(|window| window == b"document>")
}

/// Bytes at the end of a document in which its last tag stands.
const TAIL: usize = 4096;

/// Prompts of layouts for text that was not written.
const PROMPTS: [&str; 6] = [
    "Click to edit Master title style",
    "Click to edit Master subtitle style",
    "Click to edit Master text styles",
    "Click to add title",
    "Click to add subtitle",
    "Click to add text",
];

/// Writes the slides of a PPTX file.
pub(super) fn extract_pptx(bytes: Vec<u8>, sink: &mut Sink<'_>) -> Result<(), ExtractError> {
    let archive = Archive::open(bytes, FileFormat::Pptx, sink.limits())?;
    let extract_error = |error| extract_error(error, "pptx");
    let mut parser = PptxParser::from_bytes(archive.into_repacked()?).map_err(extract_error)?;
    let hidden = hidden_slides(parser.container());
    let options = SectionStreamOptions { lenient: true, extract_resources: false };
    let mut outcome = Ok(());
    let streamed = parser.for_each_section(options, |event| {
        outcome = match event {
            ParseEvent::DocumentStart { metadata, .. } => {
                let title = title::real(metadata.title.as_deref());
                title.map_or(Ok(()), |title| sink.title(&title))
            }
            ParseEvent::SectionParsed(section) if hidden.contains(&section.index) => Ok(()),
            ParseEvent::SectionFailed { index, .. } if hidden.contains(&index) => Ok(()),
            ParseEvent::SectionParsed(section) => sink.section(slide(section)),
            ParseEvent::SectionFailed { index, error } => {
                let reason = format!("the slide is damaged ({error}): save the file again");
                sink.failed(Some(format!("slide {}", index + 1)), reason)
            }
            _ => Ok(()),
        };
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    outcome?;
    sink.note("hidden slides; show them to index them", hidden.len() as u64)?;
    streamed.map_err(extract_error)
}

/// The places of hidden slides among all, in the order of the presentation. What is damaged is
/// found when the slides are read.
fn hidden_slides(container: &OoxmlContainer) -> HashSet<usize> {
    const PRESENTATION: &str = "ppt/presentation.xml";
    let targets = container.read_optional_relationships_for_part(PRESENTATION).unwrap_or_default();
    let presentation = container.read_xml(PRESENTATION).unwrap_or_default();
    let mut reader = xml::reader(&presentation);
    let (mut hidden, mut count) = (HashSet::new(), 0);
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(tag) | Event::Empty(tag) if tag.local_name().as_ref() == "sldId" => {
                // The other attribute is `id`.
                let mut attributes = tag.attributes().flatten();
                let id = attributes.find(|a| a.key.as_ref().ends_with(":id"));
                let Some(id) = id else { continue };
                let target = targets.get(&id.value).map(|found| found.target.as_str());
                let path = target.map(|target| match target.strip_prefix('/') {
                    Some(absolute) => absolute.to_owned(),
                    None => format!("ppt/{target}"),
                });
                let slide = path.and_then(|path| container.read_xml(&path).ok());
                if slide.is_some_and(|slide| is_hidden(&slide)) {
                    hidden.insert(count);
                }
                count += 1;
            }
            Event::Eof => break,
            _ => {}
        }
    }
    hidden
}

/// True if the first element of a slide says that it is not shown.
fn is_hidden(slide: &str) -> bool {
    let mut reader = xml::reader(slide);
    while let Ok(event) = reader.read_event() {
        match event {
            Event::Start(tag) => {
                let show = xml::attribute(&tag, "show");
                return matches!(show.as_deref(), Some("0" | "false"));
            }
            Event::Eof => break,
            _ => {}
        }
    }
    false
}

/// A slide: its title, its text and the speaker's notes.
fn slide(slide: &OfficeSection) -> Section {
    let number = slide.index + 1;
    let mut blocks: Vec<String> = Vec::new();
    for block in &slide.content {
        match block {
            Block::Paragraph(paragraph) => {
                let text = text(paragraph);
                let text = text.trim();
                let level = paragraph.heading.level();
                let is_item = paragraph.list_info.is_some();
                match blocks.last_mut().filter(|last| is_item && last.starts_with("- ")) {
                    _ if text.is_empty() || PROMPTS.contains(&text) => {}
                    Some(last) => last.extend(["\n- ", &table::flat(text)]),
                    None if level > 0 => {
                        let mark = "#".repeat(level.into());
                        blocks.push(format!("{mark} {}", table::flat(text)));
                    }
                    None if is_item => blocks.push(format!("- {}", table::flat(text))),
                    None => blocks.push(text.to_owned()),
                }
            }
            Block::Table(table) => {
                add_table(table, 0, &mut |rows| blocks.push(table::lines(rows).join("\n")));
            }
            Block::Note { content, .. } => blocks.push(texts(content)),
            _ => {}
        }
    }
    let name = slide.name.as_deref().map(table::flat).filter(|name| {
        !name.is_empty()
            && *name != format!("Slide {number}")
            && blocks.first().is_none_or(|block| block.trim_start_matches('#').trim() != name)
    });
    if let Some(name) = name {
        blocks.insert(0, format!("# {name}"));
    }
    let notes = slide.notes.as_deref().map(texts).unwrap_or_default();
    if !notes.trim().is_empty() {
        blocks.push(notes);
    }
    blocks.retain(|block| !block.trim().is_empty());
    let mut section = Section::new(format!("slide={number}")).with("slide", number);
    section.text = blocks.join("\n\n");
    section.is_markdown = true;
    section
}

/// The text of a paragraph, without what is marked as deleted.
fn text(paragraph: &Paragraph) -> String {
    let mut text = String::new();
    for run in paragraph.runs.iter().filter(|run| run.revision != RevisionType::Deleted) {
        text.push_str(&run.text);
        if run.line_break || run.page_break {
            text.push('\n');
        }
    }
    text
}

fn texts(paragraphs: &[Paragraph]) -> String {
    paragraphs.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// Passes the rows of a table to `add`, then those of the tables in its cells.
fn add_table(table: &Table, depth: usize, add: &mut dyn FnMut(&[Vec<String>])) {
    let columns = table.cell_columns();
    let row = |(row, columns): (&undoc::model::Row, &Vec<usize>)| {
        let mut cells = Vec::new();
        for (cell, column) in row.cells.iter().zip(columns) {
            cells.resize(cells.len().max((*column).min(MAX_COLUMNS)), String::new());
            cells.push(texts(&cell.content));
        }
        cells
    };
    let rows: Vec<Vec<String>> = table.rows.iter().zip(&columns).map(row).collect();
    add(&rows);
    let cells = table.rows.iter().flat_map(|row| &row.cells);
    for nested in cells.flat_map(|cell| &cell.nested_tables).filter(|_| depth < MAX_DEPTH) {
        add_table(nested, depth + 1, add);
    }
}

/// Maximum number of columns of a table.
const MAX_COLUMNS: usize = 10_000;

fn extract_error(error: undoc::Error, format: &str) -> ExtractError {
    ExtractError::new(match error {
        undoc::Error::Encrypted => encrypted(format),
        error => format!(
            "the {format} file is damaged or cut off ({error}): copy it again, or save it anew"
        ),
    })
}
