//! Quote check: looks up every quote of an answer in the passage that the answer cites, sentence by
//! sentence, while the answer is still arriving.

use serde::Serialize;

/// The fewest words of a quote. Shorter quoted text is a name or a term.
const QUOTE_WORDS: usize = 3;

/// The fewest words of a statement, which needs support.
const STATEMENT_WORDS: usize = 4;

/// A passage in which quotes are looked up: its text without the differences that quotes may have.
#[derive(Debug, Clone, Default)]
pub struct QuoteSource {
    chars: Vec<char>,
    /// The byte range of the original text that a character stands for.
    spans: Vec<[usize; 2]>,
}

/// Result of the quote check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuoteStatus {
    /// The quote is in the cited passage, or in any passage if the answer cites none.
    Found,
    /// The quote is in another passage than the cited one.
    Misattributed,
    /// The quote is in no passage.
    Absent,
}

/// A quote of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Citation {
    /// The quoted words, as in the answer.
    pub quote: String,
    /// The passage that the answer cites, from 1; none if it cites none.
    pub cited: Option<usize>,
    /// Result of the quote check.
    pub status: QuoteStatus,
    /// The passage that holds the quote, from 1.
    pub passage: Option<usize>,
    /// The byte range in that passage's text.
    pub range: Option<[usize; 2]>,
}

/// A sentence of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sentence {
    /// The sentence, with its quotes and citation marks.
    pub text: String,
    /// True if it has quotes and all were found in the cited passages, or if it states nothing.
    pub supported: bool,
    /// Its quotes.
    pub citations: Vec<Citation>,
}

/// A piece of a checked answer, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it arrived.
    Text(String),
    /// Mark that the sentence before is not supported.
    Unsupported,
}

/// Checks the quotes of an answer as it arrives.
#[derive(Debug)]
pub struct QuoteChecker {
    sources: Vec<QuoteSource>,
    refusal: Vec<char>,
    /// The text of the unfinished sentence.
    open: String,
    /// Bytes of `open` that were already passed on.
    shown: usize,
    sentences: Vec<Sentence>,
}

impl QuoteSource {
    /// Makes a passage searchable.
    pub fn new(text: &str) -> Self {
        let mut folded = Self::default();
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            let mut end = at + c.len_utf8();
            if is_invisible(c) {
                continue;
            }
            if c.is_whitespace() {
                while let Some((i, c)) = chars.next_if(|(_, c)| c.is_whitespace()) {
                    end = i + c.len_utf8();
                }
                if !folded.chars.is_empty() {
                    folded.push(' ', [at, end]);
                }
                continue;
            }
            if is_hyphen(c) {
                // A hyphen within a word, or at a line's end within a word, is optional.
                let mut ahead = chars.clone();
                let mut broken = false;
                while let Some((_, space)) = ahead.next_if(|(_, c)| c.is_whitespace()) {
                    broken |= space == '\n';
                }
                let word_before = folded.chars.last().is_some_and(|c| c.is_alphanumeric());
                let word_behind = ahead.peek().is_some_and(|(_, c)| c.is_alphanumeric());
                let next_to_it = chars.peek().is_some_and(|(_, c)| !c.is_whitespace());
                if word_before && word_behind && (broken || next_to_it) {
                    chars = ahead;
                    continue;
                }
            }
            for c in canonical(c).to_lowercase() {
                folded.push(c, [at, end]);
            }
        }
        if folded.chars.last() == Some(&' ') {
            folded.chars.pop();
            folded.spans.pop();
        }
        folded
    }

    fn push(&mut self, c: char, span: [usize; 2]) {
        self.chars.push(c);
        self.spans.push(span);
    }

    /// The byte range of a quote, if the passage holds it. Differences of case, white space,
    /// quotation marks, hyphens and line-end hyphenation are ignored. `...` in the quote matches
    /// any words.
    pub fn find(&self, quote: &str) -> Option<[usize; 2]> {
        let quote = quote.replace('…', "...").replace("[...]", "...");
        let mut from = 0;
        let mut range: Option<[usize; 2]> = None;
        for part in quote.split("...") {
            let part =
                Self::new(part.trim_matches(|c: char| c.is_whitespace() || ".,;:".contains(c)));
            if part.chars.is_empty() {
                continue;
            }
            let at = self.position(&part.chars, from)?;
            let last = at + part.chars.len() - 1;
            let start = range.map_or(self.spans[at][0], |r| r[0]);
            range = Some([start, self.spans[last][1]]);
            from = last + 1;
        }
        range
    }

    /// The position of `wanted`, searched from character `from`.
    fn position(&self, wanted: &[char], from: usize) -> Option<usize> {
        let mut windows = self.chars.get(from..)?.windows(wanted.len());
        windows.position(|window| window == wanted).map(|at| from + at)
    }
}

impl QuoteChecker {
    /// Checks against `sources`, numbered from 1. An answer equal to `refusal` needs no support.
    pub fn new(sources: Vec<QuoteSource>, refusal: &str) -> Self {
        let refusal = QuoteSource::new(refusal.trim_end_matches('.')).chars;
        Self { sources, refusal, open: String::new(), shown: 0, sentences: Vec::new() }
    }

    /// Adds a part of the answer, cut anywhere, and calls `piece` with the text that can be shown.
    pub fn push(&mut self, text: &str, piece: &mut dyn FnMut(Piece)) {
        self.open.push_str(text);
        while let Some(end) = sentence_end(&self.open, false) {
            self.close(end, piece);
        }
        // White space is held back, because a mark may have to come before it.
        let end = self.open.trim_end().len();
        if end > self.shown {
            piece(Piece::Text(self.open[self.shown..end].to_owned()));
            self.shown = end;
        }
    }

    /// Ends the answer.
    pub fn finish(&mut self, piece: &mut dyn FnMut(Piece)) {
        while let Some(end) = sentence_end(&self.open, true) {
            self.close(end, piece);
        }
    }

    /// The complete sentences.
    pub fn sentences(&self) -> &[Sentence] {
        &self.sentences
    }

    /// True if the answer is the refusal and nothing else.
    pub fn is_refusal(&self) -> bool {
        let all: Vec<&str> = self.sentences.iter().map(|s| s.text.as_str()).collect();
        self.refuses(&all.join(" "))
    }

    fn refuses(&self, text: &str) -> bool {
        let plain = text.trim_matches(|c: char| c.is_whitespace() || "\"'.*“”".contains(c));
        QuoteSource::new(plain).chars == self.refusal
    }

    /// Ends the sentence at byte `end` of the open text.
    fn close(&mut self, end: usize, piece: &mut dyn FnMut(Piece)) {
        let rest = self.open.split_off(end);
        let text = std::mem::replace(&mut self.open, rest);
        if text.len() > self.shown {
            piece(Piece::Text(text[self.shown..].to_owned()));
        }
        self.shown = 0;
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return;
        }
        let refuses = self.refuses(trimmed);
        let citations = if refuses { Vec::new() } else { citations(trimmed, &self.sources) };
        let words = trimmed.split_whitespace().filter(|w| w.chars().any(char::is_alphanumeric));
        let is_statement = words.count() >= STATEMENT_WORDS && !trimmed.ends_with(':') && !refuses;
        let supported = match citations.is_empty() {
            true => !is_statement,
            false => citations.iter().all(|c| c.status == QuoteStatus::Found),
        };
        if !supported {
            piece(Piece::Unsupported);
        }
        self.sentences.push(Sentence { text: trimmed.to_owned(), supported, citations });
    }
}

/// The quotes of a sentence, each with the citation marks that follow it.
fn citations(sentence: &str, sources: &[QuoteSource]) -> Vec<Citation> {
    let mut found = Vec::new();
    let mut quotes: Vec<&str> = Vec::new();
    let mut opened: Option<(usize, char)> = None;
    let mut settle = |quotes: &mut Vec<&str>, numbers: &[usize]| {
        for quote in quotes.drain(..) {
            found.push(look_up(quote, numbers, sources));
        }
    };
    let mut chars = sentence.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match opened {
            Some((start, close)) if c == close => {
                let quote = &sentence[start..at];
                if quote.split_whitespace().count() >= QUOTE_WORDS {
                    quotes.push(quote);
                }
                opened = None;
            }
            Some(_) => {}
            None => {
                opened = closing(c).map(|close| (at + c.len_utf8(), close));
                if let Some((numbers, len)) = mark(&sentence[at..]) {
                    settle(&mut quotes, &numbers);
                    while chars.next_if(|(i, _)| *i < at + len).is_some() {}
                }
            }
        }
    }
    settle(&mut quotes, &[]);
    found
}

/// The mark that closes a quotation which `c` opens.
fn closing(c: char) -> Option<char> {
    match c {
        '"' => Some('"'),
        '“' | '„' => Some('”'),
        '«' => Some('»'),
        _ => None,
    }
}

/// The numbers of a citation mark such as `[2]` or `[1, 3]` at the start of a text, and its
/// length in bytes.
fn mark(text: &str) -> Option<(Vec<usize>, usize)> {
    let inside = text.strip_prefix('[')?;
    let end = inside.find(']')?;
    let numbers: Option<Vec<usize>> =
        inside[..end].split([',', ';']).map(|n| n.trim().parse().ok()).collect();
    Some((numbers?, end + 2))
}

/// Looks up a quote in the passages `numbers`, then in all passages.
fn look_up(quote: &str, numbers: &[usize], sources: &[QuoteSource]) -> Citation {
    let source = |number: usize| sources.get(number.checked_sub(1)?);
    let find = |number: usize| Some((number, source(number)?.find(quote)?));
    let cited = numbers.iter().find_map(|&n| find(n));
    let found = cited.or_else(|| (1..=sources.len()).find_map(find));
    let status = match found {
        None => QuoteStatus::Absent,
        Some(_) if cited.is_some() || numbers.is_empty() => QuoteStatus::Found,
        Some(_) => QuoteStatus::Misattributed,
    };
    Citation {
        quote: quote.to_owned(),
        cited: cited.map(|(n, _)| n).or(numbers.first().copied()),
        status,
        passage: found.map(|(n, _)| n),
        range: found.map(|(_, range)| range),
    }
}

/// Words whose full stop does not end a sentence.
const ABBREVIATIONS: [&str; 14] =
    ["e.g", "i.e", "etc", "al", "fig", "eq", "sec", "vs", "cf", "dr", "mr", "mrs", "no", "approx"];

/// The end of the first sentence of `text`, closing quotation marks and citation marks included.
/// None if the end is not certain yet. `last` is true if no more text follows.
fn sentence_end(text: &str, last: bool) -> Option<usize> {
    let mut opened: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match opened {
            Some(close) if c == close => opened = None,
            // A quotation that is never closed ends with its line.
            Some(_) if c == '\n' => opened = None,
            Some(_) => {}
            None => opened = closing(c),
        }
        if c == '\n' && !text[..at].trim().is_empty() {
            return Some(at);
        }
        if !".!?".contains(c) {
            continue;
        }
        let mut end = at + c.len_utf8();
        let mut inside = opened;
        let certain = loop {
            let rest = &text[end..];
            let Some(next) = rest.chars().next() else { break last };
            if inside == Some(next) {
                inside = None;
                end += next.len_utf8();
            } else if ".!?)]'’*".contains(next) {
                end += next.len_utf8();
            } else {
                let blank = rest.len() - rest.trim_start_matches([' ', '\t']).len();
                match mark(&rest[blank..]) {
                    Some((_, len)) => end += blank + len,
                    None => break cannot_become_mark(&rest[blank..], last),
                }
            }
        };
        if inside.is_some() {
            continue;
        }
        if !certain {
            return None;
        }
        let follows = text[end..].chars().next();
        if follows.is_none_or(char::is_whitespace) && !is_abbreviation(&text[..at], c) {
            return Some(end);
        }
        // The characters up to `end` belong to this sentence, quotation marks included.
        opened = inside;
        while chars.offset() < end {
            chars.next();
        }
    }
    (last && !text.is_empty()).then_some(text.len())
}

/// True if more text cannot turn `rest` into a citation mark.
fn cannot_become_mark(rest: &str, last: bool) -> bool {
    if last {
        return true;
    }
    match rest.strip_prefix('[') {
        Some(inside) => inside.contains(|c: char| !c.is_ascii_digit() && !" ,;".contains(c)),
        None => !rest.is_empty(),
    }
}

fn is_abbreviation(before: &str, end: char) -> bool {
    let word = before.rsplit(|c: char| c.is_whitespace() || c == '(').next().unwrap_or_default();
    let initial = word.chars().count() == 1 && word.chars().all(char::is_uppercase);
    end == '.' && (initial || ABBREVIATIONS.iter().any(|a| word.eq_ignore_ascii_case(a)))
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
}

fn is_hyphen(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// One character for all that mean the same.
fn canonical(c: char) -> char {
    match c {
        '\u{2018}'..='\u{201b}' | '\u{2032}' | '`' | '\u{b4}' => '\'',
        '\u{201c}'..='\u{201f}' | '\u{2033}' | '\u{ab}' | '\u{bb}' => '"',
        c if is_hyphen(c) => '-',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REFUSAL: &str = "The passages do not answer this question.";

    const PASSAGE: &str = "RLHF fine-tunes a model with human pref-\nerences, so that \
                           it\u{a0}follows “the user’s intent”.";

    /// The text shown, the sentences, and true for a refusal, of an answer that arrives in parts.
    fn check(parts: &[&str]) -> (String, Vec<Sentence>, bool) {
        let other =
            "Cross-encoders read query and passage together. They are slow [12] but accurate.";
        let sources = [PASSAGE, other].map(QuoteSource::new).into();
        let mut checker = QuoteChecker::new(sources, REFUSAL);
        let mut shown = String::new();
        let mut show = |piece| match piece {
            Piece::Text(text) => shown.push_str(&text),
            Piece::Unsupported => shown.push_str(" [unsupported]"),
        };
        parts.iter().for_each(|part| checker.push(part, &mut show));
        checker.finish(&mut show);
        let refusal = checker.is_refusal();
        (shown, checker.sentences, refusal)
    }

    #[test]
    fn quote_is_found_whatever_its_case_spacing_quotes_and_hyphens() {
        let source = QuoteSource::new(PASSAGE);
        for (quote, expected) in [
            ("human preferences, so that", "human pref-\nerences, so that"),
            ("Finetunes   a MODEL", "fine-tunes a model"),
            ("fine\u{2011}tunes a model.", "fine-tunes a model"),
            ("it follows \"the user's intent\"", "it\u{a0}follows “the user’s intent”"),
            (
                "RLHF ... so that it",
                "RLHF fine-tunes a model with human pref-\nerences, so that it",
            ),
            ("fine-tunes […] human", "fine-tunes a model with human"),
        ] {
            let [start, end] = source.find(quote).unwrap_or_else(|| panic!("{quote}"));
            assert_eq!(&PASSAGE[start..end], expected, "{quote}");
        }
        for absent in ["human intent", "so that ... RLHF", "fine tunes a model"] {
            assert_eq!(source.find(absent), None, "{absent}");
        }
    }

    #[test]
    fn answer_is_judged_quote_by_quote() {
        let answer = "It learns from people \"with human preferences\" [1]. Reading is joint \
                      \"read query and passage together\" [1]. It is fast \
                      \"they are very fast indeed\" [2]! Nobody knows why that is. See Fig. 3 \
                      there, \"They are slow [12] but accurate\" [1, 2].";
        let (shown, sentences, refusal) = check(&[answer]);
        assert!(!refusal);
        let status: Vec<(bool, Vec<QuoteStatus>)> = sentences
            .iter()
            .map(|s| (s.supported, s.citations.iter().map(|c| c.status).collect()))
            .collect();
        use QuoteStatus::{Absent, Found, Misattributed};
        assert_eq!(
            status,
            [
                (true, vec![Found]),
                (false, vec![Misattributed]),
                (false, vec![Absent]),
                (false, vec![]),
                (true, vec![Found]),
            ]
        );
        assert_eq!(
            (sentences[1].citations[0].cited, sentences[1].citations[0].passage),
            (Some(1), Some(2))
        );
        assert_eq!(sentences[4].citations[0].cited, Some(2));
        assert_eq!(shown.matches(" [unsupported]").count(), 3);
        assert!(shown.contains("together\" [1]. [unsupported] It is fast"), "{shown}");
        assert_eq!(shown.replace(" [unsupported]", ""), answer);
    }

    #[test]
    fn refusal_is_recognised_and_needs_no_support() {
        for answer in [
            REFUSAL,
            " the passages do not  answer this question",
            "\"The passages do not answer this question.\"",
        ] {
            let (shown, sentences, refusal) = check(&[answer]);
            assert!(refusal, "{answer}");
            assert!(
                sentences.iter().all(|s| s.supported) && !shown.contains("unsupported"),
                "{answer}"
            );
        }
        assert!(!check(&["The passages do not answer this question. But I think it is so."]).2);
    }

    #[test]
    fn sentences_without_a_statement_need_no_support() {
        let answer = "Yes.\n\nHere is what the passages say:\n- \"RLHF fine-tunes a model\" [1]\n";
        let (shown, ..) = check(&[answer]);
        assert!(!shown.contains("unsupported"), "{shown}");
    }

    proptest! {
        #[test]
        fn answer_is_judged_alike_however_it_arrives(
            words in proptest::collection::vec(
                prop::sample::select(vec![
                    "\"read query and passage together\" [2]", "word", "\n", ".", " ", "[1]",
                    "e.g.", "“human preferences, so”", "!", "\"", "3.5", "é", ". ", " [2, 1] ", "A",
                ]),
                0..40,
            ),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let answer = words.concat();
            let mut ends: Vec<usize> = cuts.iter().map(|c| c.index(answer.len() + 1)).collect();
            ends.push(answer.len());
            ends.retain(|&at| answer.is_char_boundary(at));
            ends.sort_unstable();
            let starts = std::iter::once(&0).chain(&ends);
            let parts: Vec<&str> = starts.zip(&ends).map(|(&a, &b)| &answer[a..b]).collect();
            prop_assert_eq!(check(&parts), check(&[&answer]));
        }

        #[test]
        fn folding_any_text_keeps_whole_characters(
            text in "\\PC{0,60}",
            from in 0usize..60,
            len in 1usize..30,
        ) {
            let source = QuoteSource::new(&text);
            let quote: String = text.chars().skip(from).take(len).collect();
            if let Some([start, end]) = source.find(&quote) {
                let ends = [start, end];
                prop_assert!(start < end && ends.iter().all(|&at| text.is_char_boundary(at)));
            }
        }
    }
}
