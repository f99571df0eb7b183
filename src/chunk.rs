//! Documents to chunks: byte ranges into a document's text, cut on its own borders.

use crate::error::{Error, Result};
use crate::ingest::{Document, Shape};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};

/// How texts are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunking {
    /// The most tokens of a chunk, special tokens not counted.
    pub max_tokens: usize,
    /// How many tokens at most a chunk repeats of the one before it.
    pub overlap: usize,
    /// Whether records of table-like formats are cut too, instead of staying one row each.
    pub split_records: bool,
}

impl Default for Chunking {
    fn default() -> Self {
        Self { max_tokens: 254, overlap: 32, split_records: false }
    }
}

impl Chunking {
    /// Checks that the numbers go together with a model that embeds `model_tokens` tokens,
    /// special tokens not counted.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where a chunk could not fit, or would be all overlap.
    pub fn check(&self, model_tokens: usize) -> Result<()> {
        if self.max_tokens == 0 || self.max_tokens > model_tokens {
            return Err(Error::usage(format!(
                "chunks of {} tokens: this model takes 1 to {model_tokens}",
                self.max_tokens
            )));
        }
        if self.overlap >= self.max_tokens {
            return Err(Error::usage(format!(
                "an overlap of {} tokens leaves nothing new in chunks of {}: make it smaller",
                self.overlap, self.max_tokens
            )));
        }
        Ok(())
    }
}

/// A piece of a document, one row of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes of the document's text.
    pub range: Range<usize>,
    /// Tokens that were embedded, special tokens included.
    pub tokens: u32,
    /// Tokens that the model's limit cut off.
    pub tokens_lost: u32,
}

/// Where `document` is cut: non-empty byte ranges of its text, in order, each within
/// `chunking.max_tokens` as `count_tokens` counts (the title, where it is embedded too, included).
///
/// Text and Markdown are cut on heading, paragraph, sentence and word borders, whichever is the
/// largest that fits. A record stays whole unless [`Chunking::split_records`] is set.
///
/// # Errors
///
/// [`Error::Usage`] where the title alone leaves no room for text.
pub fn split(
    document: &Document,
    chunking: &Chunking,
    count_tokens: impl Fn(&str) -> usize,
) -> Result<Vec<Range<usize>>> {
    let text = document.text.as_str();
    let whole = || std::iter::once(0..text.len()).collect();
    if document.shape == Shape::Record && !chunking.split_records {
        return Ok(whole());
    }
    let title_tokens = if document.embed_title { count_tokens(&document.title) } else { 0 };
    let room = chunking.max_tokens.saturating_sub(title_tokens);
    if room <= chunking.overlap {
        return Err(Error::input(
            document.place.clone().field("title"),
            format!(
                "the title takes {title_tokens} of the {} tokens of a chunk and leaves no room for \
                 text: shorten it, or choose another --title-field",
                chunking.max_tokens
            ),
        ));
    }
    if count_tokens(text) <= room {
        return Ok(whole());
    }
    let config = ChunkConfig::new(room)
        .with_sizer(Tokens(count_tokens))
        .with_overlap(chunking.overlap)
        .map_err(|e| Error::usage(format!("chunk overlap: {e}")))?;
    let splitter = match document.shape {
        Shape::Markdown => Splitter::Markdown(MarkdownSplitter::new(config)),
        _ => Splitter::Text(TextSplitter::new(config)),
    };
    let mut ranges: Vec<Range<usize>> = Vec::new();
    let mut start = 0;
    loop {
        let end = window_end(text, start);
        let pieces: Vec<Range<usize>> = splitter.split(&text[start..end], start);
        let n = pieces.len();
        // The last chunk of a window may end where the window does and not where the text would have
        // it: the next window begins with it.
        let keep = if end < text.len() && n > 1 { n - 1 } else { n };
        let next = pieces.get(keep).map_or(end, |piece| piece.start);
        ranges.extend(pieces.into_iter().take(keep));
        if end == text.len() {
            return Ok(if ranges.is_empty() { whole() } else { ranges });
        }
        start = next;
    }
}

/// Bytes that the splitter sees at a time: its work grows faster than its text.
const WINDOW: usize = 24 << 10;

/// Where a window that begins at `start` ends: at a blank line, a line's end or a blank near its full
/// length, where there is one.
fn window_end(text: &str, start: usize) -> usize {
    if text.len() - start <= WINDOW {
        return text.len();
    }
    let mut end = start + WINDOW;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let late = start + WINDOW / 2;
    for border in ["\n\n", "\n", " "] {
        if let Some(at) = text[start..end].rfind(border)
            && start + at > late
        {
            return start + at + border.len();
        }
    }
    end
}

/// A splitter for one kind of text.
enum Splitter<S: ChunkSizer> {
    Text(TextSplitter<S>),
    Markdown(MarkdownSplitter<S>),
}

impl<S: ChunkSizer> Splitter<S> {
    /// Byte ranges of chunks of `text`, moved by `offset`.
    fn split(&self, text: &str, offset: usize) -> Vec<Range<usize>> {
        let range = |(start, piece): (usize, &str)| offset + start..offset + start + piece.len();
        match self {
            Self::Text(splitter) => splitter.chunk_indices(text).map(range).collect(),
            Self::Markdown(splitter) => splitter.chunk_indices(text).map(range).collect(),
        }
    }
}

/// Sizes chunks in tokens.
struct Tokens<F>(F);

impl<F: Fn(&str) -> usize> ChunkSizer for Tokens<F> {
    fn size(&self, chunk: &str) -> usize {
        (self.0)(chunk)
    }
}
