//! Chunks: byte ranges within the limit, their overlap, and the stop of one long text.

use std::cell::Cell;
use std::fmt::Write;
use std::ops::Range;

use proptest::prelude::*;
use text_splitter::{ChunkConfig, ChunkSizer, MarkdownSplitter, TextSplitter};
use warpseek_error::{Error, Place};
use warpseek_ingest::chunk::{Chunking, split, split_while};
use warpseek_ingest::{Document, TextKind};

use super::assert_has;

fn document(kind: TextKind, text: impl Into<String>) -> Document {
    Document { kind, ..Document::new("d", text, Place::file("d.txt")) }
}

/// Tokens as a model's tokenizer counts them: up to five letters or digits, or another character.
fn tokens(text: &str) -> usize {
    let (mut count, mut letters) = (0, 0);
    for c in text.chars() {
        letters = if c.is_ascii_alphanumeric() { letters + 1 } else { 0 };
        count += usize::from(!c.is_whitespace() && (letters % 5 == 1 || letters == 0));
    }
    count
}

/// Chunks of a text, after checking that they are within the limit, in order and leave nothing
/// out.
#[track_caller]
fn chunks(document: &Document, max_tokens: usize, overlap: usize) -> Vec<Range<usize>> {
    let chunking = Chunking { max_tokens, overlap, split_records: true };
    let chunks = split(document, &chunking, tokens).unwrap_or_else(|e| panic!("{e}"));
    let text = &document.text;
    let title = if document.embed_title { tokens(&document.title) } else { 0 };
    let mut end = 0;
    for (i, chunk) in chunks.iter().enumerate() {
        let n = tokens(&text[chunk.clone()]);
        assert!(n > 0 && n + title <= max_tokens, "{n} tokens in {:?}", &text[chunk.clone()]);
        assert!(chunk.end > end && (i == 0 || chunk.start > chunks[i - 1].start), "{chunks:?}");
        let between = text.get(end..chunk.start).unwrap_or_default();
        assert!(between.trim().is_empty(), "{between:?} is in no chunk");
        end = chunk.end;
    }
    assert!(text[end..].trim().is_empty(), "{:?} is in no chunk", &text[end..]);
    chunks
}

/// The text that each chunk repeats of the one before it.
fn repeated<'a>(text: &'a str, chunks: &[Range<usize>]) -> Vec<&'a str> {
    chunks.windows(2).map(|pair| text.get(pair[1].start..pair[0].end).unwrap_or_default()).collect()
}

/// Checks that each chunk begins at a word and repeats between half of the overlap and all of it.
#[track_caller]
fn assert_overlap(kind: TextKind, text: &str, max_tokens: usize, overlap: usize) {
    let chunks = chunks(&document(kind, text), max_tokens, overlap);
    assert!(chunks.len() > 3, "{}", chunks.len());
    for (part, chunk) in repeated(text, &chunks).iter().zip(&chunks[1..]) {
        let n = tokens(part);
        assert!(n <= overlap && n >= overlap.div_ceil(2), "{n} of {overlap} tokens in {part:?}");
        let (before, after) = text.split_at(chunk.start);
        let within_word = before.ends_with(char::is_alphanumeric);
        assert!(!(within_word && after.starts_with(char::is_alphanumeric)), "{part:?}");
        assert!(after.starts_with(|c: char| !c.is_whitespace()), "{part:?}");
    }
}

/// `n` sentences of `words` words and a full stop each, a token for each of these, and
/// `per_paragraph` sentences in a paragraph.
fn prose(n: usize, words: usize, per_paragraph: usize) -> String {
    let names = ["river", "lamp", "grass", "train", "glass", "paper", "storm", "bread", "clock"];
    let mut text = String::new();
    for i in 0..n {
        for j in 0..words {
            let word = names[(i * 7 + j * j + j) % names.len()];
            match j {
                0 => text.push_str(["The", "This"][i % 2]),
                _ => write!(text, " {word}").expect("a text"),
            }
        }
        text.push_str(if (i + 1) % per_paragraph == 0 { ".\n\n" } else { ". " });
    }
    text
}

/// A program: blocks of lines that are indented, with blank lines between them.
fn code() -> String {
    let function = |i: usize| {
        format!(
            "fn step_{i}(state: &mut State, input: &[u8]) -> Result<usize> {{\n    let mut total = \
             {i};\n    for (at, byte) in input.iter().enumerate() {{\n        if *byte == b'x' {{\n\
             \x20           total += state.weights[at] * {i};\n        }}\n    }}\n    \
             state.history.push(total);\n    Ok(total)\n}}\n\n"
        )
    };
    (0..60).map(function).collect()
}

#[test]
fn chunks_overlap_wherever_the_border_lies() {
    let list = |mark: &str| {
        let item = |i: usize| format!("{mark}the {i}th item names a river, a lamp and a train\n");
        (0..200).map(item).collect::<String>()
    };
    let nested =
        |i: usize| format!("- group {i}\n  - first member of it\n  - the second, longer\n");
    let wrapped = prose(200, 12, 7).replace("grass ", "grass\n");
    let texts = [
        (TextKind::Prose, prose(160, 9, 4)),
        (TextKind::Prose, prose(60, 40, 1000)),
        (TextKind::Prose, prose(60, 40, 1)),
        (TextKind::Prose, prose(90, 57, 4)),
        (TextKind::Prose, prose(1, 3000, 1)),
        (TextKind::Prose, prose(300, 3, 1)),
        (TextKind::Prose, wrapped.clone()),
        (TextKind::Prose, wrapped.replace('\n', "\r\n")),
        (TextKind::Prose, code()),
        (TextKind::Prose, list("* ")),
        (TextKind::Record, prose(160, 9, 4)),
        (TextKind::Markdown, prose(160, 9, 4)),
        (TextKind::Markdown, list("- ")),
        (TextKind::Markdown, list("1. ")),
        (TextKind::Markdown, (0..150).map(nested).collect()),
        (TextKind::Markdown, format!("# Head\n\n```rust\n{}```\n", code())),
        (TextKind::Markdown, format!("# Head\n\n{}\n## Next\n\n{}", prose(80, 9, 4), code())),
    ];
    for (kind, text) in &texts {
        for (max_tokens, overlap) in [(254, 32), (126, 24), (126, 60), (64, 32), (64, 24)] {
            assert_overlap(*kind, text, max_tokens, overlap);
        }
    }
}

#[test]
fn overlap_prefers_paragraphs_and_sentences_to_words() {
    // Sentences of 10 tokens in paragraphs of 4: half of 32 tokens hold one, 32 hold three.
    let text = prose(160, 9, 4);
    let chunks_of = chunks(&document(TextKind::Prose, &*text), 254, 32);
    for chunk in &chunks_of[1..] {
        let before = text[..chunk.start].trim_end();
        assert!(before.ends_with('.'), "{:?}", &before[before.len() - 40..]);
    }
    // Paragraphs of 20 tokens are repeated whole, and sentences of 41 tokens begin at a word.
    let text = prose(160, 9, 2);
    let all = chunks(&document(TextKind::Prose, &*text), 254, 32);
    assert!(all[1..].iter().all(|chunk| text[..chunk.start].ends_with("\n\n")));
    let text = prose(60, 40, 1000);
    let all = chunks(&document(TextKind::Prose, &*text), 254, 32);
    assert!(repeated(&text, &all).iter().all(|part| tokens(part) >= 31));
}

#[test]
fn short_rest_of_a_paragraph_stays_with_it() {
    // Each paragraph has 232 tokens: with 20 or more before it, it is a chunk of its own.
    let text = prose(20, 231, 1);
    let all = chunks(&document(TextKind::Prose, &*text), 254, 32);
    assert_eq!(all.len(), 20);
    for part in repeated(&text, &all) {
        assert!((20..=22).contains(&tokens(part)), "{part:?}");
    }
}

#[test]
fn overlap_is_smaller_only_where_a_word_or_the_text_is() {
    // The word before the second chunk is longer than the overlap, and has no border within.
    let long = "x".repeat(200);
    let text = format!("{}{long} {}", prose(1, 20, 1), prose(1, 60, 1));
    for part in repeated(&text, &chunks(&document(TextKind::Prose, &*text), 60, 16)) {
        assert!(tokens(part) <= 16);
    }
    // A word with borders of its own is repeated in part.
    let path = format!("{} {}", "https://example.org/some/path/that/goes/on".repeat(30), "a b c");
    let all = chunks(&document(TextKind::Prose, &*path), 64, 16);
    assert!(repeated(&path, &all).iter().all(|part| (6..=16).contains(&tokens(part))));
    // A first piece that is shorter than the overlap is no chunk of its own.
    let text = format!("# Head\n\n{}", prose(60, 9, 100));
    let all = chunks(&document(TextKind::Markdown, &*text), 64, 16);
    assert!(tokens(&text[all[0].clone()]) > 32, "{:?}", &text[all[0].clone()]);
    // Scripts without blanks have words and sentences too.
    let text = "川は庭の前を流れている。窓辺でランプが燃えている。列車は朝に着く。".repeat(60);
    let all = chunks(&document(TextKind::Prose, &*text), 254, 32);
    for (part, chunk) in repeated(&text, &all).iter().zip(&all[1..]) {
        assert!((16..=32).contains(&tokens(part)), "{part:?}");
        assert!(text[..chunk.start].ends_with('。'), "{part:?}");
    }
}

#[test]
fn title_counts_in_every_chunk() {
    let mut document = document(TextKind::Record, prose(80, 9, 4));
    document.title = "river lamp grass train glass".into();
    document.embed_title = true;
    let all = chunks(&document, 64, 16);
    assert!(all.len() > 10);
    let chunking = Chunking { max_tokens: 21, overlap: 16, split_records: true };
    let error = split(&document, &chunking, tokens).expect_err("no room").to_string();
    assert_has(&error, &["d.txt", "'title'", "5 of the 21 tokens", "--title-field"]);
}

/// [`tokens`] for the splitter.
struct Tokens;

impl ChunkSizer for Tokens {
    fn size(&self, chunk: &str) -> usize {
        tokens(chunk)
    }
}

#[test]
fn chunks_without_overlap_are_those_of_the_splitter() {
    let config = || ChunkConfig::new(100).with_sizer(Tokens);
    let range = |(at, part): (usize, &str)| at..at + part.len();
    for text in [prose(160, 9, 4), prose(60, 40, 1), code()] {
        let expected: Vec<_> =
            TextSplitter::new(config()).chunk_indices(&text).map(range).collect();
        assert_eq!(chunks(&document(TextKind::Prose, &*text), 100, 0), expected);
        let text = format!("# Head\n\n{text}\n\n## Next\n\n{text}");
        let text = &text[..text.len().min(20_000)];
        let expected: Vec<_> =
            MarkdownSplitter::new(config()).chunk_indices(text).map(range).collect();
        assert_eq!(chunks(&document(TextKind::Markdown, text), 100, 0), expected);
    }
    // A text that fits is one chunk, also if it is long.
    let text = format!("river {} lamp", " ".repeat(100_000));
    assert_eq!(chunks(&document(TextKind::Prose, &*text), 100, 32), vec![0..text.len()]);
}

#[test]
fn long_text_is_counted_in_short_parts_and_stops_when_told() {
    let texts = [prose(40_000, 9, 4), prose(400_000, 9, 4).replace([' ', '\n'], "-")];
    for text in texts {
        let document = document(TextKind::Prose, text);
        let (counts, longest) = (Cell::new(0), Cell::new(0));
        let count = |part: &str| {
            counts.set(counts.get() + 1);
            longest.set(longest.get().max(part.len()));
            tokens(part)
        };
        for limit in [0, 1, 100] {
            counts.set(0);
            let go_on = || counts.get() < limit;
            let error = split_while(&document, &Chunking::default(), count, go_on);
            assert!(matches!(error, Err(Error::Interrupted(ref what)) if what.contains("d.txt")));
            assert_eq!(counts.get(), limit);
        }
        assert!(longest.get() < 32 << 10, "{} bytes at once", longest.get());
    }
}

/// Texts of words of all lengths, marks and blanks.
fn any_text() -> impl Strategy<Value = String> {
    let word = "[a-z]{1,12}|[a-z]{60,90}|[.,;(){}#*-]{1,3}|[你川。]{1,4}|é|\u{301}";
    let blank = " |  |\n|\n\n|\n    |\r\n|";
    prop::collection::vec((word, blank), 0..400)
        .prop_map(|parts| parts.into_iter().map(|(word, blank)| word + &blank).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chunks_of_any_text_keep_to_their_limits(
        text in any_text(),
        max_tokens in 1usize..80,
        part in 0usize..100,
        is_markdown: bool,
    ) {
        let overlap = max_tokens * part / 100;
        let kind = if is_markdown { TextKind::Markdown } else { TextKind::Prose };
        if !text.trim().is_empty() {
            let all = chunks(&document(kind, &*text), max_tokens, overlap);
            for part in repeated(&text, &all) {
                prop_assert!(tokens(part) <= overlap, "{part:?}");
            }
        }
    }
}
