//! Headings and paragraphs to sections.

use super::event::{ExtractError, Section, Sink};
use super::table;

/// A text with headings that is cut into sections: one for each heading that has text below it
/// before the next.
pub(super) struct Outline<'a, 'b> {
    sink: &'a mut Sink<'b>,
    /// The open headings, with their levels.
    path: Vec<(u8, String)>,
    text: String,
    /// True if there is more than headings in `text`.
    has_body: bool,
    number: u64,
}

impl<'a, 'b> Outline<'a, 'b> {
    pub(super) fn new(sink: &'a mut Sink<'b>) -> Self {
        Self { sink, path: Vec::new(), text: String::new(), has_body: false, number: 0 }
    }

    /// Adds a heading of level 1 to 6.
    pub(super) fn heading(&mut self, level: u8, text: &str) -> Result<(), ExtractError> {
        let text = table::flat(text);
        if text.is_empty() {
            return Ok(());
        }
        if self.has_body {
            self.flush()?;
        }
        let level = level.clamp(1, 6);
        self.path.retain(|(above, _)| *above < level);
        self.push(&format!("{} {text}", "#".repeat(level.into())));
        self.path.push((level, text));
        Ok(())
    }

    /// Adds a paragraph.
    pub(super) fn paragraph(&mut self, text: &str) {
        let text = text.trim();
        if !text.is_empty() {
            self.push(text);
            self.has_body = true;
        }
    }

    /// Adds an item of a list, right below the one before it.
    pub(super) fn item(&mut self, level: usize, text: &str) {
        let text = table::flat(text);
        if text.is_empty() {
            return;
        }
        let last = self.text.rsplit('\n').next().unwrap_or_default().trim_start();
        let is_next = last.starts_with("- ");
        let item = format!("{}- {text}", "  ".repeat(level.min(8)));
        match is_next {
            true => self.text.extend(["\n", &item]),
            false => self.push(&item),
        }
        self.has_body = true;
    }

    /// Adds a table.
    pub(super) fn table(&mut self, rows: &[Vec<String>]) {
        self.paragraph(&table::lines(rows).join("\n"));
    }

    /// Writes the last section.
    pub(super) fn finish(mut self) -> Result<(), ExtractError> {
        self.flush()
    }

    fn push(&mut self, block: &str) {
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        self.text.push_str(block);
    }

    fn flush(&mut self) -> Result<(), ExtractError> {
        if self.text.is_empty() {
            return Ok(());
        }
        self.number += 1;
        let mut section = Section::new(format!("section={}", self.number));
        if !self.path.is_empty() {
            let titles: Vec<&str> = self.path.iter().map(|(_, title)| title.as_str()).collect();
            section = section.with("section", titles.join(" > "));
        }
        section.text = std::mem::take(&mut self.text);
        section.is_markdown = true;
        self.has_body = false;
        self.sink.section(section)
    }
}
