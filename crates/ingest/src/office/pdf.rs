//! PDF: pages. The crate `unpdf` finds lines, columns, paragraphs and headings, joins words that
//! are hyphenated at the end of a line, and leaves out page numbers.

use std::ops::ControlFlow;

use unpdf::model::{Block as PdfBlock, ExtractionQuality, Page as PdfPage};
use unpdf::{ErrorKind, PageStreamOptions, ParseEvent, ParseOptions, PdfParser};

use super::event::{ExtractError, Sink};
use super::pages::{Page, PageBlock, Pages};
use super::title;
use crate::magic::FileKind;

/// The remedy for pages without text.
const OCR: &str = "run OCR on the file first (ocrmypdf in.pdf out.pdf, say)";

/// Bytes at the start in which the signature stands.
const HEAD: usize = 1024;

/// Bytes at the end in which the mark of the end stands; some writers append to a file.
const TAIL: usize = 4096;

/// Writes the pages of a PDF file.
pub(super) fn extract(bytes: &[u8], sink: &mut Sink<'_>) -> Result<(), ExtractError> {
    if !bytes[..bytes.len().min(HEAD)].windows(5).any(|window| window == b"%PDF-") {
        return Err(ExtractError::new(match FileKind::of_any(bytes) {
            Some(kind) => kind.error("pdf", true),
            None => "this is no PDF file (it does not begin with %PDF-): rename it, or name its \
                     format with --format"
                .to_owned(),
        }));
    }
    let options = ParseOptions::new().lenient().sequential();
    let parser =
        PdfParser::from_bytes_with_options(bytes, options.clone()).map_err(extract_error)?;
    let tail = &bytes[bytes.len().saturating_sub(TAIL)..];
    let has_end = tail.windows(5).any(|window| window == b"%%EOF");
    let (mut counts, mut lost) = (Counts::default(), None);
    let mut pages = Pages::new(sink);
    let mut outcome = Ok(());
    let options = PageStreamOptions { parallel: false, ..PageStreamOptions::from(&options) };
    let streamed = parser.for_each_page(options, |event| {
        outcome = match event {
            ParseEvent::DocumentStart { metadata, .. } => {
                let title = title::real(metadata.title.as_deref());
                title.map_or(Ok(()), |title| pages.sink().title(&title))
            }
            ParseEvent::PageParsed(page) => {
                let text = read(&page);
                counts.add(&page, &text);
                let pushed = pages.push(text);
                match page.undecodable_content_streams {
                    0 => pushed,
                    _ => pushed.and_then(|()| {
                        counts.failed += 1;
                        let reason = "text of the page is damaged: copy or download the file again";
                        let page = format!("page {}", page.number);
                        pages.sink().failed(Some(page), reason.to_owned())
                    }),
                }
            }
            ParseEvent::PageFailed { page, error } => {
                counts.failed += 1;
                let reason = format!("the page is damaged ({error}): copy the file again");
                pages.sink().failed(Some(format!("page {page}")), reason)
            }
            ParseEvent::DocumentEnd { quality } => {
                lost = missing(&quality, counts.with_text, has_end);
                Ok(())
            }
            ParseEvent::Progress { .. } => Ok(()),
        };
        if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    outcome?;
    pages.finish()?;
    streamed.map_err(extract_error)?;
    if let Some(reason) = lost {
        counts.failed += 1;
        sink.failed(None, reason)?;
    }
    counts.report(sink)
}

/// Counts of what the text lacks.
#[derive(Debug, Default)]
struct Counts {
    with_text: u64,
    failed: u64,
    /// Pages with images and without text.
    scanned: u64,
    /// Pieces of text in fonts without a mapping to Unicode.
    unreadable: u64,
}

impl Counts {
    fn add(&mut self, page: &PdfPage, text: &Page) {
        self.unreadable += page.suppressed_text_runs as u64;
        match text.blocks.is_empty() {
            false => self.with_text += 1,
            true => self.scanned += u64::from(page.image_op_count > 0),
        }
    }

    fn report(&self, sink: &mut Sink<'_>) -> Result<(), ExtractError> {
        if self.with_text == 0 && self.failed == 0 {
            return Err(ExtractError::new(match (self.scanned, self.unreadable) {
                (0, 0) => format!("no text: all pages are empty, or drawings; {OCR}"),
                (0, _) => format!("no text: its fonts have no mapping to Unicode; {OCR}"),
                _ => format!("no text layer: it holds scanned images; {OCR}"),
            }));
        }
        sink.note(&format!("pages without a text layer, which hold images; {OCR}"), self.scanned)?;
        let reason = "pieces of text in fonts without a mapping to Unicode";
        sink.note(reason, self.unreadable)
    }
}

/// The error for a file of which pages are lost, or may be because it has no end; `found` is the
/// number of those with text.
fn missing(quality: &ExtractionQuality, found: u64, has_end: bool) -> Option<String> {
    let of = match quality.declared_page_count {
        Some(declared) if quality.pages_incomplete => format!(" of {declared}"),
        None if quality.pages_incomplete || quality.xref_reconstructed => String::new(),
        _ if !has_end => String::new(),
        _ => return None,
    };
    Some(format!(
        "the PDF is damaged or cut off: the text of {found} pages{of} could be read, and page \
         numbers may be wrong; copy or download it again"
    ))
}

/// The text of a page.
fn read(page: &PdfPage) -> Page {
    let blocks = page.elements.iter().map(|element| {
        let (text, is_prose) = match element {
            PdfBlock::Paragraph(paragraph) => {
                let text = joined(&expanded(paragraph.plain_text().trim()));
                let is_prose = !paragraph.is_heading() && !paragraph.is_list_item();
                let level = paragraph.heading_level().filter(|_| !text.is_empty());
                let mark = level.map(|level| "#".repeat(level.clamp(1, 6).into()) + " ");
                (mark.unwrap_or_default() + &text, is_prose)
            }
            PdfBlock::Table(table) => (expanded(table.plain_text().trim()), false),
            PdfBlock::Code { content } => (content.trim_end().to_owned(), false),
            PdfBlock::Raw { content } => (expanded(content.trim()), true),
            _ => (String::new(), false),
        };
        PageBlock { text, is_prose }
    });
    let blocks = blocks.filter(|block| !block.text.trim().is_empty());
    Page { number: page.number, blocks: blocks.collect() }
}

/// The text with letters in place of ligatures, and without hyphens that are not printed.
fn expanded(text: &str) -> String {
    let mut expanded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'ﬀ' => expanded.push_str("ff"),
            'ﬁ' => expanded.push_str("fi"),
            'ﬂ' => expanded.push_str("fl"),
            'ﬃ' => expanded.push_str("ffi"),
            'ﬄ' => expanded.push_str("ffl"),
            'ﬅ' | 'ﬆ' => expanded.push_str("st"),
            '\u{ad}' | '\0' => {}
            c => expanded.push(c),
        }
    }
    expanded
}

/// Words before which a hyphen and a space do not divide a word: "two- or three-day", "Hin- und
/// Rückfahrt".
const CONJUNCTIONS: [&str; 18] = [
    "and", "or", "to", "nor", "but", "und", "oder", "bis", "sowie", "et", "ou", "y", "o", "e",
    "en", "of", "og", "och",
];

/// The text with words joined that were hyphenated at the end of a line.
fn joined(text: &str) -> String {
    let mut joined = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("- ") {
        let (before, after) = (&rest[..at], rest[at + 2..].trim_start_matches(' '));
        let word = after.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        let mut last = before.chars().rev();
        let is_divided = last.next().is_some_and(char::is_lowercase)
            && last.next().is_some_and(char::is_alphabetic)
            && word.starts_with(char::is_lowercase)
            && !CONJUNCTIONS.contains(&word);
        joined.push_str(before);
        joined.push_str(if is_divided { "" } else { "- " });
        rest = after;
    }
    joined + rest
}

fn extract_error(error: unpdf::Error) -> ExtractError {
    ExtractError::new(match error.kind() {
        ErrorKind::Encrypted | ErrorKind::InvalidPassword => {
            "the PDF is encrypted: save a copy without a password (qpdf --decrypt \
             --password=... in.pdf out.pdf, say)"
                .to_owned()
        }
        _ => format!("the PDF is damaged or cut off ({error}): copy or download it again"),
    })
}

#[cfg(test)]
mod tests {
    use super::joined;

    #[test]
    fn divided_words_are_joined_and_other_hyphens_stay() {
        for (text, expected) in [
            ("it was so be- cause the way", "it was so because the way"),
            (
                "a two- or three-day trip, Hin- und Rückfahrt",
                "a two- or three-day trip, Hin- und Rückfahrt",
            ),
            ("- one - two a- b X- ray 3- fold", "- one - two a- b X- ray 3- fold"),
            ("ends with a hyphen- ", "ends with a hyphen- "),
        ] {
            assert_eq!(joined(text), expected);
        }
    }
}
