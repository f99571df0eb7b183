//! Highlights the words of a query in the texts of hits.

use crate::store::Language;
use std::collections::HashSet;
use unicode_segmentation::UnicodeSegmentation;

/// English stop words, which are not highlighted.
const STOP_WORDS: [&str; 39] = [
    "a", "an", "and", "are", "as", "at", "be", "by", "can", "did", "do", "does", "for", "from",
    "has", "have", "how", "if", "in", "is", "it", "my", "of", "on", "or", "that", "the", "this",
    "to", "was", "what", "when", "where", "which", "who", "why", "with", "you", "your",
];

/// The words of a query, by their stems.
pub(super) struct QueryWords {
    language: Language,
    stems: HashSet<String>,
}

impl QueryWords {
    pub(super) fn new(query: &str, language: Language) -> Self {
        let is_wanted = |word: &&str| {
            let word = word.to_lowercase();
            word.chars().nth(1).is_some() && !STOP_WORDS.contains(&word.as_str())
        };
        let words = query.unicode_words().filter(is_wanted);
        Self { language, stems: words.map(|word| language.stem_of(word)).collect() }
    }

    /// The text, with `style` applied to each word of the query.
    pub(super) fn marked(&self, text: &str, style: impl Fn(&str) -> String) -> String {
        let (mut marked, mut at) = (String::with_capacity(text.len()), 0);
        for (start, word) in text.unicode_word_indices() {
            if self.stems.contains(&self.language.stem_of(word)) {
                marked.push_str(&text[at..start]);
                marked.push_str(&style(word));
                at = start + word.len();
            }
        }
        marked + &text[at..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(query: &str, text: &str, code: &str) -> String {
        let words = QueryWords::new(query, code.parse().unwrap());
        words.marked(text, |word| format!("[{word}]"))
    }

    #[test]
    fn words_of_the_query_are_marked_in_every_form() {
        let text = "Sharing a variable: variables that are shared, and the sharer's lines.";
        let expected =
            "[Sharing] a [variable]: [variables] that are [shared], and the sharer's lines.";
        assert_eq!(marked("Why is the shared variable slow?", text, "none"), expected);
        assert_eq!(marked("Häuser", "Das Haus; die Häuser.", "de"), "Das [Haus]; die [Häuser].");
    }

    #[test]
    fn common_words_and_single_characters_are_not_marked() {
        let text = "what is it to be of C, or of a kind";
        assert_eq!(marked("what is C to be?", text, "none"), text);
        assert_eq!(marked("", text, "none"), text);
    }
}
