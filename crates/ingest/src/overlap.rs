//! Overlap of chunks: a chunk repeats the end of the text before it.
//!
//! The text is first cut into pieces that leave room for the overlap. A short piece, such as the
//! last words of a paragraph, joins the one before it. Then each piece is extended to the left:
//!
//! ```text
//! word start   the one with the most tokens from there to the border, `overlap` at most
//! sentence     the first sentence start behind it, if at least half of `overlap` remains
//! paragraph    likewise; a paragraph before a sentence, a sentence before a word
//! ```

use std::ops::Range;
use std::sync::LazyLock;

use icu_segmenter::options::{SentenceBreakInvariantOptions, WordBreakInvariantOptions};
use icu_segmenter::{
    SentenceSegmenter, SentenceSegmenterBorrowed, WordSegmenter, WordSegmenterBorrowed,
};

/// Bytes of text per token that are looked at first; more if that is too few.
const TOKEN_BYTES: usize = 8;

/// Maximum number of bytes that are looked at for the start of a chunk.
const MAX_BYTES: usize = 16 << 10;

static SENTENCES: LazyLock<SentenceSegmenterBorrowed<'static>> =
    LazyLock::new(|| SentenceSegmenter::new(SentenceBreakInvariantOptions::default()));

static WORDS: LazyLock<WordSegmenterBorrowed<'static>> =
    LazyLock::new(|| WordSegmenter::new_dictionary(WordBreakInvariantOptions::default()));

/// The start of a chunk, and the tokens from there to the border before its own text.
type Start = (usize, usize);

/// Extends pieces of at most `room - overlap` tokens to chunks of at most `room`, each with up to
/// `overlap` tokens of the text before it. A chunk that the next one contains is left out.
///
/// # Errors
///
/// The errors of `count`, which returns the number of tokens of a text.
pub(crate) fn extend<E>(
    text: &str,
    pieces: Vec<Range<usize>>,
    room: usize,
    overlap: usize,
    count: impl Fn(&str) -> Result<usize, E>,
) -> Result<Vec<Range<usize>>, E> {
    let mut chunks: Vec<Range<usize>> = Vec::with_capacity(pieces.len());
    let mut pieces = pieces.into_iter().peekable();
    while let Some(mut piece) = pieces.next() {
        let border = chunks.last().map(|last| last.end);
        let least = if border.is_some() { overlap - overlap * 3 / 8 } else { 0 };
        let mut budget = overlap;
        while let Some(next) = pieces.peek()
            && next.len() <= piece.len() / 2
            && count(&text[next.clone()])? <= overlap
        {
            let tokens = count(&text[piece.start..next.end])?;
            if tokens + least > room {
                break;
            }
            piece.end = next.end;
            budget = overlap.min(room - tokens);
            pieces.next();
        }
        if let Some(border) = border {
            let half = overlap.div_ceil(2).min(budget);
            let start = start_before(&text[..border], budget, half, &count)?;
            piece.start = within(text, start..piece.end, piece.start, room, &count)?;
        }
        while chunks.last().is_some_and(|last| piece.start <= last.start) {
            chunks.pop();
        }
        chunks.push(piece);
    }
    Ok(chunks)
}

/// The largest index of a character that is at most `at`.
pub(crate) fn char_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The place in `text` from which the next chunk repeats it: at most `budget` tokens, and at least
/// `half` if the text allows.
fn start_before<E>(
    text: &str,
    budget: usize,
    half: usize,
    count: &impl Fn(&str) -> Result<usize, E>,
) -> Result<usize, E> {
    let mut word = farthest(text, budget, count, blank_separated)?;
    if word.is_none_or(|(_, tokens)| tokens < half) {
        // A long word, or a script without blanks.
        let inner = farthest(text, budget, count, word_borders)?;
        word = [inner, word].into_iter().flatten().max_by_key(|(_, tokens)| *tokens);
    }
    let Some((start, _)) = word else { return Ok(text.len()) };
    let sentences = sentence_starts(text, start);
    let paragraph = sentences.iter().copied().find(|&at| begins_paragraph(text, at));
    for at in [paragraph, sentences.first().copied()].into_iter().flatten() {
        if at == start || count(&text[at..])? >= half {
            return Ok(at);
        }
    }
    Ok(start)
}

/// Of the places that `starts` finds in the end of `text`, the one with the most tokens behind it,
/// `budget` at most.
fn farthest<E>(
    text: &str,
    budget: usize,
    count: &impl Fn(&str) -> Result<usize, E>,
    starts: impl Fn(&str, usize) -> Vec<usize>,
) -> Result<Option<Start>, E> {
    let mut bytes = budget.saturating_mul(TOKEN_BYTES).clamp(1, MAX_BYTES);
    loop {
        let from = char_boundary(text, text.len().saturating_sub(bytes));
        let starts = starts(text, from);
        let (mut low, mut high) = (0, starts.len());
        let mut best = None;
        while low < high {
            let middle = low.midpoint(high);
            let tokens = count(&text[starts[middle]..])?;
            if tokens <= budget {
                best = Some((starts[middle], tokens));
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        if low > 0 || from == 0 || bytes == MAX_BYTES {
            return Ok(best);
        }
        bytes = bytes.saturating_mul(4).min(MAX_BYTES);
    }
}

/// Starts of words behind blanks, from `from` on.
fn blank_separated(text: &str, from: usize) -> Vec<usize> {
    let mut behind_blank = text[..from].chars().next_back().is_none_or(char::is_whitespace);
    let chars = text[from..].char_indices();
    let starts = chars.filter_map(|(at, c)| {
        let is_start = behind_blank && !c.is_whitespace();
        behind_blank = c.is_whitespace();
        is_start.then_some(from + at)
    });
    starts.collect()
}

/// Word borders of Unicode (UAX 29) behind `from`, without those before blanks.
fn word_borders(text: &str, from: usize) -> Vec<usize> {
    let borders = WORDS.segment_str(&text[from..]).map(|at| from + at);
    borders.filter(|&at| (at > from || from == 0) && !is_blank_at(text, at)).collect()
}

/// Sentence starts of Unicode (UAX 29) from `from` on. A line begins a sentence.
fn sentence_starts(text: &str, from: usize) -> Vec<usize> {
    // What a border is depends on the text before it.
    let context = char_boundary(text, from.saturating_sub(256));
    let borders = SENTENCES.segment_str(&text[context..]).map(|at| context + at);
    let is_start =
        |at: &usize| *at >= from && (*at > context || context == 0) && !is_blank_at(text, *at);
    borders.filter(is_start).collect()
}

/// True for a blank at `at`, and at the end.
fn is_blank_at(text: &str, at: usize) -> bool {
    text[at..].chars().next().is_none_or(char::is_whitespace)
}

/// True if a blank line or nothing is before `at`.
fn begins_paragraph(text: &str, at: usize) -> bool {
    let blanks = &text[text[..at].trim_end().len()..at];
    blanks.len() == at || blanks.matches('\n').count() > 1
}

/// The start of `chunk`, moved towards `own` by as many words as make the chunk fit: tokens may
/// go across the border.
fn within<E>(
    text: &str,
    chunk: Range<usize>,
    own: usize,
    room: usize,
    count: &impl Fn(&str) -> Result<usize, E>,
) -> Result<usize, E> {
    let Range { mut start, end } = chunk;
    while start < own && count(&text[start..end])? > room {
        let words = blank_separated(&text[..own], start);
        start = words.into_iter().find(|&at| at > start).unwrap_or(own);
    }
    Ok(start)
}
