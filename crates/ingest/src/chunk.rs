//! Documents to chunks: byte ranges of a document's text, cut at its own borders.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use text_splitter::{ChunkConfig, MarkdownSplitter, TextSplitter, TryChunkSizer};
use warpseek_error::{Error, Result};

use crate::code;
use crate::document::{Document, TextKind};
use crate::overlap::{self, char_boundary};

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

/// Cuts a document into chunks: non-empty byte ranges of its text (of an empty one, all of it), in
/// order, each within
/// `chunking.max_tokens` by `count_tokens`. An embedded title counts as part of each chunk.
///
/// Text and Markdown are cut at headings, paragraphs, sentences and words, at the largest of these
/// that fits; source code between functions, or at lines, without repeating any. A record stays
/// whole unless [`Chunking::split_records`] is set. A chunk begins up to [`Chunking::overlap`]
/// tokens before its own part of the text, at a paragraph, sentence or word: at the largest of
/// these that repeats at least half of the tokens asked for.
///
/// # Errors
///
/// [`Error::Input`] if the title alone leaves no room for text.
pub fn split(
    document: &Document,
    chunking: &Chunking,
    count_tokens: impl Fn(&str) -> usize,
) -> Result<Vec<Range<usize>>> {
    split_while(document, chunking, count_tokens, || true)
}

/// As [`split`]; stops as soon as `go_on`, which is asked before every count of tokens, returns
/// false.
///
/// # Errors
///
/// As [`split`], and [`Error::Interrupted`] if `go_on` returned false.
pub fn split_while(
    document: &Document,
    chunking: &Chunking,
    count_tokens: impl Fn(&str) -> usize,
    go_on: impl Fn() -> bool,
) -> Result<Vec<Range<usize>>> {
    let text = document.text.as_str();
    if text.is_empty() || document.kind == TextKind::Record && !chunking.split_records {
        return Ok(whole(text));
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
    let count = |part: &str| if go_on() { Ok(count_tokens(part)) } else { Err(Stopped) };
    cut(text, document.kind, room, chunking.overlap, &count)
        .map_err(|Stopped| Error::Interrupted(format!("{} was not cut to its end", document.place)))
}

/// The answer of a count of tokens that was told to stop.
struct Stopped;

/// A text as one chunk.
fn whole(text: &str) -> Vec<Range<usize>> {
    std::iter::once(0..text.len()).collect()
}

/// Cuts a text into chunks of at most `room` tokens, which may be one chunk.
fn cut<F: Fn(&str) -> Result<usize, Stopped>>(
    text: &str,
    kind: TextKind,
    room: usize,
    overlap: usize,
    count: &F,
) -> Result<Vec<Range<usize>>, Stopped> {
    if fits(text, room, count)? {
        return Ok(whole(text));
    }
    if kind == TextKind::Code {
        return cut_code(text, room, count);
    }
    // The splitter repeats whole units of one level only, which may be none: it leaves the room.
    let config = ChunkConfig::new(room - overlap).with_sizer(TokenSizer(count));
    let pieces = match kind {
        TextKind::Markdown => {
            let splitter = MarkdownSplitter::new(config);
            split_windows(text, |window| splitter.try_chunk_indices(window).collect())?
        }
        TextKind::Prose | TextKind::Record | TextKind::Code => {
            let splitter = TextSplitter::new(config);
            split_windows(text, |window| splitter.try_chunk_indices(window).collect())?
        }
    };
    match (pieces.is_empty(), overlap) {
        (true, _) => Ok(whole(text)),
        (false, 0) => Ok(pieces),
        (false, _) => overlap::extend(text, pieces, room, overlap, count),
    }
}

/// Cuts code between its blocks, and a line that is too long as prose is.
fn cut_code<F: Fn(&str) -> Result<usize, Stopped>>(
    text: &str,
    room: usize,
    count: &F,
) -> Result<Vec<Range<usize>>, Stopped> {
    let mut pieces = Vec::new();
    for piece in code::split(text, room, count)? {
        let line = &text[piece.clone()];
        if line.contains('\n') || fits(line, room, count)? {
            pieces.push(piece);
            continue;
        }
        let splitter = TextSplitter::new(ChunkConfig::new(room).with_sizer(TokenSizer(count)));
        let parts = split_windows(line, |window| splitter.try_chunk_indices(window).collect())?;
        pieces.extend(parts.into_iter().map(|p| piece.start + p.start..piece.start + p.end));
    }
    Ok(if pieces.is_empty() { whole(text) } else { pieces })
}

/// True if a text has at most `room` tokens. A long text is seldom read to its end.
fn fits<F: Fn(&str) -> Result<usize, Stopped>>(
    text: &str,
    room: usize,
    count: &F,
) -> Result<bool, Stopped> {
    let mut tokens = 0;
    let mut rest = text;
    while rest.len() > WINDOW {
        // Tokens do not go across blanks and punctuation, or very few do.
        let is_border = |c: char| c.is_whitespace() || c.is_ascii_punctuation();
        let behind = char_boundary(rest, WINDOW);
        let end = rest[behind..].find(is_border).map_or(rest.len(), |at| behind + at);
        tokens += count(&rest[..end])?;
        if tokens > 2 * room {
            return Ok(false);
        }
        rest = &rest[end..];
    }
    Ok(count(text)? <= room)
}

/// Bytes that the splitter sees at a time: its work grows faster than its text.
const WINDOW: usize = 24 << 10;

/// Splits a text window by window.
fn split_windows<'a>(
    text: &'a str,
    split: impl Fn(&'a str) -> Result<Vec<(usize, &'a str)>, Stopped>,
) -> Result<Vec<Range<usize>>, Stopped> {
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < text.len() {
        let end = window_end(text, start);
        let pieces = split(&text[start..end])?;
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
    Ok(ranges)
}

/// The end of the window that begins at `start`: behind a blank line, a line or a blank in its
/// second half, if there is one.
fn window_end(text: &str, start: usize) -> usize {
    if text.len() - start <= WINDOW {
        return text.len();
    }
    let end = char_boundary(text, start + WINDOW);
    let border = |border: &&str| {
        let at = text[start..end].rfind(border).filter(|at| *at > WINDOW / 2)?;
        Some(start + at + border.len())
    };
    ["\n\n", "\n", " "].iter().find_map(border).unwrap_or(end)
}

/// Sizes chunks in tokens.
struct TokenSizer<'a, F>(&'a F);

impl<F: Fn(&str) -> Result<usize, Stopped>> TryChunkSizer for TokenSizer<'_, F> {
    type Error = Stopped;

    fn try_size(&self, chunk: &str) -> Result<usize, Stopped> {
        (self.0)(chunk)
    }
}
