//! Pages to documents: removes running heads, and joins sentences that continue on the next page.

use std::collections::VecDeque;

use super::event::{ExtractError, Section, Sink};

/// A page of text.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) number: u32,
    pub(super) blocks: Vec<PageBlock>,
}

/// A paragraph, heading or other piece of a page.
#[derive(Debug, PartialEq)]
pub(super) struct PageBlock {
    pub(super) text: String,
    /// True for running text, which may continue on the next page.
    pub(super) is_prose: bool,
}

/// Maximum length of a running head.
const MAX_RUNNING: usize = 120;

/// Maximum length of the rest of a sentence that is taken from the next page.
const MAX_REST: usize = 1500;

/// Writer of the pages of one file.
///
/// A line at the top or at the bottom that two of the four neighbouring pages have too, apart from
/// its numbers, is left out, except on the first page that has it. The rest of a sentence that
/// continues on the next page is moved to the page where the sentence begins.
pub(super) struct Pages<'a, 'b> {
    sink: &'a mut Sink<'b>,
    /// Pages that wait for the two pages after them.
    waiting: VecDeque<(Page, Edges)>,
    /// The edges of the two pages before them.
    before: VecDeque<Edges>,
    /// A page that waits for the start of the next.
    open: Option<Page>,
}

/// The first and the last line of a page, with 0 for each number.
type Edges = [Option<String>; 2];

impl<'a, 'b> Pages<'a, 'b> {
    pub(super) fn new(sink: &'a mut Sink<'b>) -> Self {
        Self { sink, waiting: VecDeque::new(), before: VecDeque::new(), open: None }
    }

    /// The writer of the lines.
    pub(super) fn sink(&mut self) -> &mut Sink<'b> {
        self.sink
    }

    /// Adds the next page.
    pub(super) fn push(&mut self, page: Page) -> Result<(), ExtractError> {
        let edges = [page.blocks.first(), page.blocks.last()].map(|block| block.and_then(running));
        self.waiting.push_back((page, edges));
        if self.waiting.len() > 2 { self.take() } else { Ok(()) }
    }

    /// Writes all pages that are left.
    pub(super) fn finish(mut self) -> Result<(), ExtractError> {
        while !self.waiting.is_empty() {
            self.take()?;
        }
        self.open.take().map_or(Ok(()), |page| self.write(page))
    }

    /// Takes the first waiting page.
    fn take(&mut self) -> Result<(), ExtractError> {
        let Some((mut page, edges)) = self.waiting.pop_front() else { return Ok(()) };
        for (side, edge) in edges.iter().enumerate() {
            let Some(edge) = edge else { continue };
            let is_same = |other: &&Edges| other[side].as_ref() == Some(edge);
            let earlier = self.before.iter().filter(is_same).count();
            let later = self.waiting.iter().map(|(_, edges)| edges).filter(is_same).count();
            if earlier > 0 && earlier + later >= 2 && page.blocks.len() > 1 {
                let at = if side == 0 { 0 } else { page.blocks.len() - 1 };
                page.blocks.remove(at);
            }
        }
        self.before.push_back(edges);
        if self.before.len() > 2 {
            self.before.pop_front();
        }
        if let Some(mut open) = self.open.take() {
            if open.number + 1 == page.number {
                join(&mut open, &mut page);
            }
            self.write(open)?;
        }
        self.open = Some(page);
        Ok(())
    }

    fn write(&mut self, page: Page) -> Result<(), ExtractError> {
        let texts: Vec<&str> = page.blocks.iter().map(|block| block.text.as_str()).collect();
        let mut section = Section::new(format!("page={}", page.number)).with("page", page.number);
        section.text = texts.join("\n\n");
        section.is_markdown = true;
        self.sink.section(section)
    }
}

/// A line that may be a running head, with 0 for each number.
fn running(block: &PageBlock) -> Option<String> {
    let text = block.text.trim();
    let is_line = !text.is_empty() && text.len() <= MAX_RUNNING && !text.contains('\n');
    let mut line = String::new();
    for c in is_line.then_some(text)?.chars() {
        match c.is_numeric() {
            true if line.ends_with('0') => {}
            true => line.push('0'),
            false => line.push(c),
        }
    }
    Some(line)
}

/// Moves the rest of the last sentence of `page` from the start of `next`.
fn join(page: &mut Page, next: &mut Page) {
    let (Some(last), Some(first)) = (page.blocks.last_mut(), next.blocks.first_mut()) else {
        return;
    };
    let goes_on = last.is_prose
        && first.is_prose
        && last.text.ends_with(|c: char| c.is_alphanumeric() || matches!(c, ',' | '-' | '\u{ad}'))
        && first.text.starts_with(char::is_lowercase);
    let Some(end) = sentence_end(&first.text).filter(|end| goes_on && *end <= MAX_REST) else {
        return;
    };
    let rest = first.text[..end].trim_end().to_owned();
    first.text = first.text[end..].trim_start().to_owned();
    match last.text.strip_suffix(['-', '\u{ad}']) {
        Some(word) => last.text = format!("{word}{rest}"),
        None => last.text.extend([" ", &rest]),
    }
    if first.text.is_empty() {
        next.blocks.remove(0);
    }
}

/// The end of the first sentence; the end of a text without a full stop.
fn sentence_end(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let behind = chars.peek().map(|(_, c)| *c);
        if matches!(c, '.' | '!' | '?' | '…') && behind.is_none_or(char::is_whitespace) {
            return Some(at + c.len_utf8());
        }
    }
    Some(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::office::event::Event;
    use crate::office::limits::ExtractLimits;

    fn page(number: u32, blocks: &[&str]) -> Page {
        let block = |text: &&str| PageBlock { text: (*text).to_owned(), is_prose: true };
        Page { number, blocks: blocks.iter().map(block).collect() }
    }

    fn texts(pages: Vec<Page>) -> Vec<String> {
        let mut output = Vec::new();
        let limits = ExtractLimits::default();
        let mut sink = Sink::new(&mut output, &limits);
        let mut all = Pages::new(&mut sink);
        pages.into_iter().for_each(|page| all.push(page).unwrap());
        all.finish().unwrap();
        let text = |line: &str| match serde_json::from_str(line).unwrap() {
            Event::Section(section) => section.text,
            other => panic!("{other:?}"),
        };
        std::str::from_utf8(&output).unwrap().lines().map(text).collect()
    }

    #[test]
    fn running_heads_stay_on_their_first_page_only() {
        let head = |n: u32| format!("Annual report {n}");
        let pages = (1..6).map(|n| page(n, &[&head(n), &format!("Text {n}X"), "Acme Ltd"]));
        let texts = texts(pages.collect());
        assert_eq!(texts[0], "Annual report 1\n\nText 1X\n\nAcme Ltd");
        for (n, text) in texts.iter().enumerate().skip(1) {
            assert_eq!(*text, format!("Text {}X", n + 1));
        }
    }

    #[test]
    fn lines_that_only_one_neighbour_has_are_kept() {
        let pages =
            vec![page(1, &["Results", "A."]), page(2, &["Results", "B."]), page(3, &["C."])];
        assert_eq!(texts(pages), ["Results\n\nA.", "Results\n\nB.", "C."]);
    }

    #[test]
    fn sentences_end_on_the_page_where_they_begin() {
        let pages = vec![
            page(1, &["The bridge was"]),
            page(2, &["built of stone. It stands.", "Later it was re-"]),
            page(3, &["paired. Twice."]),
            page(4, &["No. Join here"]),
            page(5, &["Because of the capital letter."]),
        ];
        let expected = [
            "The bridge was built of stone.",
            "It stands.\n\nLater it was repaired.",
            "Twice.",
            "No. Join here",
            "Because of the capital letter.",
        ];
        assert_eq!(texts(pages), expected);
    }
}
