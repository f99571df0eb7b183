//! The place of a passage: file and line, or page, if the file still exists.

use crate::search::Hit;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Files that are larger are not read for a line number.
const MAX_BYTES: u64 = 16 << 20;

/// The place of a passage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PassagePlace {
    /// `notes/bread.md:12`, `paper.pdf, page 3`, or the id of the hit.
    pub(super) label: String,
    /// The file, if it exists.
    pub(super) file: Option<PathBuf>,
}

impl PassagePlace {
    /// The place of a hit, `offset` bytes into its text. Paths in ids start at the folder `base`.
    pub(super) fn of(hit: &Hit, offset: usize, base: &Path) -> Self {
        let path = base.join(&hit.doc_id);
        if path.is_file() {
            let label = match position(hit) {
                Some(position) => format!("{}, {position}", hit.doc_id),
                None => match line(&path, hit, offset) {
                    Some(line) => format!("{}:{line}", hit.doc_id),
                    None => hit.doc_id.clone(),
                },
            };
            return Self { label, file: Some(path) };
        }
        // The id of a record is its file and number.
        let record = hit.doc_id.rsplit_once(':');
        let record = record.filter(|(_, n)| n.bytes().all(|b| b.is_ascii_digit()));
        let file = record.map(|(file, _)| base.join(file)).filter(|path| path.is_file());
        let label = if file.is_some() { hit.doc_id.clone() } else { hit.id.clone() };
        Self { label, file }
    }
}

/// The place in a file of pages, slides, sheets or sections: `page 3`, `sheet Prices, from row 40`.
fn position(hit: &Hit) -> Option<String> {
    let anchor = hit.id.strip_prefix(&hit.doc_id).and_then(|id| id.strip_prefix('#'));
    let is_anchor = |field: &&str| {
        let number = anchor.and_then(|anchor| anchor.strip_prefix(field));
        number.is_some_and(|number| number.starts_with('='))
    };
    let has_page = hit.metadata.get("page").is_some_and(Value::is_u64);
    let field = ["page", "slide", "sheet", "section"].into_iter().find(is_anchor);
    let field = field.or(has_page.then_some("page"))?;
    let text = |name: &str| match hit.metadata.get(name)? {
        Value::String(text) => Some(text.clone()),
        value => Some(value.to_string()),
    };
    let row = text("row").filter(|_| field == "sheet").map(|row| format!(", from row {row}"));
    Some(format!("{field} {}{}", text(field)?, row.unwrap_or_default()))
}

/// The line of the file, from 1, if the file holds the passage where it was when it was indexed.
fn line(path: &Path, hit: &Hit, offset: usize) -> Option<usize> {
    let [start, end] = hit.document_range;
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    (bytes.get(start..end)? == hit.text.as_bytes()).then_some(())?;
    Some(bytes.get(..start + offset)?.iter().filter(|&&byte| byte == b'\n').count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hit(doc_id: &str, text: &str, start: usize) -> Hit {
        Hit {
            rank: 1,
            row: 0,
            id: format!("{doc_id}#0"),
            doc_id: doc_id.to_owned(),
            title: String::new(),
            text: text.to_owned(),
            score: 0.5,
            dense_score: None,
            bm25_score: None,
            final_score: Some(0.5),
            retrieved_rank: Some(1),
            low: false,
            rerank_score: None,
            rerank_logit: None,
            window: None,
            tokens_lost: 0,
            document_range: [start, start + text.len()],
            metadata: Default::default(),
        }
    }

    #[test]
    fn place_of_a_text_is_its_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        let place = |hit: &Hit, offset| {
            let place = PassagePlace::of(hit, offset, base);
            (place.label, place.file.is_some())
        };
        std::fs::write(base.join("a.md"), "one\ntwo\nthree\nfour\n").unwrap();
        let two = hit("a.md", "two\nthree", 4);
        assert_eq!(place(&two, 0), ("a.md:2".to_owned(), true));
        assert_eq!(place(&two, 4), ("a.md:3".to_owned(), true));
        // The file changed since, or is another one.
        assert_eq!(place(&hit("a.md", "gone", 4), 0), ("a.md".to_owned(), true));
        assert_eq!(place(&hit("a.md", "gone", 400), 0), ("a.md".to_owned(), true));
        assert_eq!(place(&hit("b.md", "two", 4), 0), ("b.md#0".to_owned(), false));
        let mut page = hit("a.md", "two", 4);
        page.metadata.insert("page".to_owned(), json!(7));
        assert_eq!(place(&page, 0), ("a.md, page 7".to_owned(), true));
        let mut sheet = hit("a.md", "two", 4);
        sheet.id = "a.md#sheet=2&row=40".to_owned();
        sheet.metadata.insert("sheet".to_owned(), json!("Prices"));
        sheet.metadata.insert("row".to_owned(), json!(40));
        assert_eq!(place(&sheet, 0), ("a.md, sheet Prices, from row 40".to_owned(), true));
        std::fs::write(base.join("c.jsonl"), "{}\n").unwrap();
        assert_eq!(place(&hit("c.jsonl:7", "x", 0), 0), ("c.jsonl:7".to_owned(), true));
        assert_eq!(place(&hit("c.jsonl:x", "x", 0), 0), ("c.jsonl:x#0".to_owned(), false));
    }
}
