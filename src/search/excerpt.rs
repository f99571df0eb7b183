//! Excerpts: the part of a passage that shows best why it was found.

use std::ops::Range;

/// Characters by which an excerpt that ends in a long word may exceed the wanted length.
const SLACK: usize = 40;

/// The byte range of `text` to show for a query, whole words of about `most` characters. It lies in
/// the reranker's best window if there is one, and starts at the word from which an excerpt holds
/// the most words of the query.
pub fn excerpt(text: &str, window: Option<[usize; 2]>, query: &str, most: usize) -> Range<usize> {
    let [start, end] = window.unwrap_or([0, text.len()]);
    let (start, shown) = text.get(start..end).map_or((0, text), |shown| (start, shown));
    let wanted: Vec<String> = query
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| w.chars().count() > 3)
        .map(str::to_lowercase)
        .collect();
    let mut words = Vec::new();
    let mut position = 0;
    for text in shown.split_whitespace() {
        let at = start + (text.as_ptr() as usize - shown.as_ptr() as usize);
        let lower = text.to_lowercase();
        let is_wanted = wanted.iter().any(|w| lower.contains(w.as_str()));
        words.push(Word { text, at, position, is_wanted });
        position += text.chars().count() + 1;
    }
    let excerpt_from = |first: usize| {
        let limit = words.get(first).map_or(0, |word| word.position) + most;
        words[first..].iter().take_while(move |word| word.position < limit)
    };
    // The passage's beginning wins ties.
    let mut best = 0;
    if position > most {
        let matches_from = |i: usize| excerpt_from(i).filter(|word| word.is_wanted).count();
        let mut highest = matches_from(0);
        for i in (0..words.len()).filter(|&i| words[i].is_wanted) {
            let n = matches_from(i);
            if n > highest {
                (best, highest) = (i, n);
            }
        }
    }
    let (Some(first), Some(last)) = (words.get(best), excerpt_from(best).last()) else {
        return start..start;
    };
    // Text without blanks is one word, which may be longer than an excerpt.
    let left = most + SLACK - (last.position - first.position).min(most);
    let length = last.text.char_indices().nth(left).map_or(last.text.len(), |(at, _)| at);
    first.at..last.at + length
}

/// A word of a passage.
struct Word<'a> {
    text: &'a str,
    /// Its first byte.
    at: usize,
    /// The number of characters before it, with single blanks.
    position: usize,
    /// True if it holds a word of the query.
    is_wanted: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_hold_the_words_of_the_query_within_the_window() {
        let text = format!("{} the yeast makes gas {}", "filler ".repeat(50), "tail ".repeat(50));
        let range = excerpt(&text, None, "which yeast makes gas", 40);
        assert!(text[range.clone()].starts_with("yeast makes gas"), "{}", &text[range]);
        let end = text.len() - 100;
        let range = excerpt(&text, Some([end, text.len()]), "yeast", 40);
        assert!(range.start >= end && text[range.clone()].len() <= 80, "{range:?}");
        assert_eq!(excerpt("short text", None, "text", 40), 0..10);
        assert_eq!(excerpt("  ", None, "text", 40), 0..0);
    }

    #[test]
    fn texts_without_blanks_are_cut_between_characters() {
        let text = "\u{4e2d}".repeat(1000);
        let range = excerpt(&text, None, "query", 100);
        assert_eq!(text[range].chars().count(), 140);
    }
}
