//! Documents to chunks: byte ranges of a document's text, cut at its own borders.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};
use warpseek_error::{Error, Result};

use crate::document::{Document, TextKind};

/// Options of chunking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunking {
    /// Maximum number of tokens of a chunk, special tokens not counted.
    pub max_tokens: usize,
    /// Maximum number of tokens that a chunk repeats of the one before it.
    pub overlap: usize,
    /// True if records of table-like formats are cut too, instead of staying one chunk each.
    pub split_records: bool,
}

impl Default for Chunking {
    fn default() -> Self {
        Self { max_tokens: 254, overlap: 32, split_records: false }
    }
}

impl Chunking {
    /// Checks the options against a model that embeds `model_tokens` tokens, special tokens not
    /// counted.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if a chunk could not fit, or would be all overlap.
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
    /// Embedded tokens, special tokens included.
    pub tokens: u32,
    /// Tokens truncated at the model's limit.
    pub tokens_lost: u32,
}

/// Cuts a document into chunks: non-empty byte ranges of its text, in order, each within
/// `chunking.max_tokens` by `count_tokens`. An embedded title counts as part of each chunk.
///
/// Text and Markdown are cut at headings, paragraphs, sentences and words, at the largest of these
/// that fits. A record stays whole unless [`Chunking::split_records`] is set.
///
/// # Errors
///
/// [`Error::Input`] if the title alone leaves no room for text.
pub fn split(
    document: &Document,
    chunking: &Chunking,
    count_tokens: impl Fn(&str) -> usize,
) -> Result<Vec<Range<usize>>> {
    let text = document.text.as_str();
    let whole = || std::iter::once(0..text.len()).collect();
    if document.kind == TextKind::Record && !chunking.split_records {
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
        .with_sizer(TokenSizer(count_tokens))
        .with_overlap(chunking.overlap)
        .map_err(|e| Error::usage(format!("chunk overlap: {e}")))?;
    let ranges = match document.kind {
        TextKind::Markdown => {
            let splitter = MarkdownSplitter::new(config);
            split_windows(text, |window| splitter.chunk_indices(window).collect())
        }
        TextKind::Prose | TextKind::Record => {
            let splitter = TextSplitter::new(config);
            split_windows(text, |window| splitter.chunk_indices(window).collect())
        }
    };
    Ok(if ranges.is_empty() { whole() } else { ranges })
}

/// Bytes that the splitter sees at a time: its work grows faster than its text.
const WINDOW: usize = 24 << 10;

/// Splits a text window by window.
fn split_windows<'a>(
    text: &'a str,
    split: impl Fn(&'a str) -> Vec<(usize, &'a str)>,
) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = window_end(text, start);
        let pieces = split(&text[start..end]);
        // The last chunk of a window may end only because the window does: the next window begins
        // with it.
        let is_last = end == text.len() || pieces.len() < 2;
        let keep = if is_last { pieces.len() } else { pieces.len() - 1 };
        let next = pieces.get(keep).map_or(end, |(offset, _)| start + offset);
        ranges.extend(pieces[..keep].iter().map(|(offset, piece)| {
            let offset = start + offset;
            offset..offset + piece.len()
        }));
        start = next;
    }
    ranges
}

/// The end of the window that begins at `start`: behind a blank line, a line or a blank in its
/// second half, if there is one.
fn window_end(text: &str, start: usize) -> usize {
    if text.len() - start <= WINDOW {
        return text.len();
    }
    let mut end = start + WINDOW;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let border = |border: &&str| {
        let at = text[start..end].rfind(border).filter(|at| *at > WINDOW / 2)?;
        Some(start + at + border.len())
    };
    ["\n\n", "\n", " "].iter().find_map(border).unwrap_or(end)
}

/// Sizes chunks in tokens.
struct TokenSizer<F>(F);

impl<F: Fn(&str) -> usize> ChunkSizer for TokenSizer<F> {
    fn size(&self, chunk: &str) -> usize {
        (self.0)(chunk)
    }
}
