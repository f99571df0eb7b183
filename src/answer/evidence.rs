//! Whether an answer's quotes stand in the passages it names, sentence by sentence, while it is still being
//! written.

use serde::Serialize;

/// Words that a quote needs to count as one: shorter ones are names and terms.
const QUOTE_WORDS: usize = 3;

/// Words from which on a sentence makes a statement that needs support.
const STATEMENT_WORDS: usize = 4;

/// A passage that may be quoted.
#[derive(Debug, Clone)]
pub struct Source {
    folded: Folded,
}

/// What became of a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum QuoteStatus {
    /// It stands in the passage that the answer names, or in one where it names none.
    Found,
    /// It stands in another passage than the answer names.
    Misattributed,
    /// It stands in none.
    Absent,
}

/// A quote of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Citation {
    /// The quoted words, as the answer has them.
    pub quote: String,
    /// The passage that the answer names, from 1; none where it names none.
    pub cited: Option<usize>,
    /// What became of it.
    pub status: QuoteStatus,
    /// The passage it stands in, from 1.
    pub passage: Option<usize>,
    /// The bytes of that passage's text.
    pub range: Option<[usize; 2]>,
}

/// A sentence of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sentence {
    /// The sentence, with its quotes and marks.
    pub text: String,
    /// Whether it has a quote, and all its quotes were found where it says. Sentences that state nothing
    /// are supported.
    pub supported: bool,
    /// Its quotes.
    pub citations: Vec<Citation>,
}

/// A piece of a checked answer, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Text as it came.
    Text(String),
    /// The sentence before is not supported.
    Unsupported,
}

/// Checks an answer as it arrives.
#[derive(Debug)]
pub struct Evidence {
    sources: Vec<Source>,
    refusal: Vec<char>,
    /// The text of the sentence that is not over yet.
    open: String,
    /// Bytes of `open` that were given out.
    given: usize,
    sentences: Vec<Sentence>,
}

impl Source {
    /// Makes a passage searchable.
    pub fn new(text: &str) -> Self {
        Self { folded: Folded::of(text) }
    }

    /// The bytes where a quote stands, if it does: differences of case, white space, quotation marks, hyphens and
    /// line-end hyphenation do not count, and `...` in it stands for any words.
    pub fn find(&self, quote: &str) -> Option<[usize; 2]> {
        let quote = quote.replace('…', "...").replace("[...]", "...");
        let mut from = 0;
        let mut range: Option<[usize; 2]> = None;
        for part in quote.split("...") {
            let part =
                Folded::of(part.trim_matches(|c: char| c.is_whitespace() || ".,;:".contains(c)));
            if part.chars.is_empty() {
                continue;
            }
            let at = self.folded.find(&part.chars, from)?;
            let last = at + part.chars.len() - 1;
            let start = range.map_or(self.folded.spans[at][0], |r| r[0]);
            range = Some([start, self.folded.spans[last][1]]);
            from = last + 1;
        }
        range
    }
}

impl Evidence {
    /// Checks against `sources`, numbered from 1; an answer that is `refusal` needs no support.
    pub fn new(sources: Vec<Source>, refusal: &str) -> Self {
        let refusal = Folded::of(refusal.trim_end_matches('.')).chars;
        Self { sources, refusal, open: String::new(), given: 0, sentences: Vec::new() }
    }

    /// Takes in a part of the answer, cut anywhere, and calls `piece` with what can be shown.
    pub fn push(&mut self, text: &str, piece: &mut dyn FnMut(Piece)) {
        self.open.push_str(text);
        while let Some(end) = sentence_end(&self.open, false) {
            self.close(end, piece);
        }
        // White space waits: a mark may have to stand before it.
        let shown = self.open.trim_end().len();
        if shown > self.given {
            piece(Piece::Text(self.open[self.given..shown].to_owned()));
            self.given = shown;
        }
    }

    /// Ends the answer.
    pub fn finish(&mut self, piece: &mut dyn FnMut(Piece)) {
        while let Some(end) = sentence_end(&self.open, true) {
            self.close(end, piece);
        }
    }

    /// The sentences that are over.
    pub fn sentences(&self) -> &[Sentence] {
        &self.sentences
    }

    /// Whether the answer is the refusal and nothing else.
    pub fn is_refusal(&self) -> bool {
        let all: Vec<&str> = self.sentences.iter().map(|s| s.text.as_str()).collect();
        self.says_no(&all.join(" "))
    }

    fn says_no(&self, text: &str) -> bool {
        let plain = text.trim_matches(|c: char| c.is_whitespace() || "\"'.*“”".contains(c));
        Folded::of(plain).chars == self.refusal
    }

    /// Ends the sentence at byte `end` of what is open.
    fn close(&mut self, end: usize, piece: &mut dyn FnMut(Piece)) {
        let rest = self.open.split_off(end);
        let text = std::mem::replace(&mut self.open, rest);
        if text.len() > self.given {
            piece(Piece::Text(text[self.given..].to_owned()));
        }
        self.given = 0;
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return;
        }
        let refuses = self.says_no(trimmed);
        let citations = if refuses { Vec::new() } else { citations(trimmed, &self.sources) };
        let words = trimmed.split_whitespace().filter(|w| w.chars().any(char::is_alphanumeric));
        let states = words.count() >= STATEMENT_WORDS && !trimmed.ends_with(':') && !refuses;
        let backed =
            !citations.is_empty() && citations.iter().all(|c| c.status == QuoteStatus::Found);
        let supported = backed || (!states && citations.is_empty());
        if !supported {
            piece(Piece::Unsupported);
        }
        self.sentences.push(Sentence { text: trimmed.to_owned(), supported, citations });
    }
}

/// The quotes of a sentence, each with the marks that follow it.
fn citations(sentence: &str, sources: &[Source]) -> Vec<Citation> {
    let mut found = Vec::new();
    let mut quotes: Vec<&str> = Vec::new();
    let mut opened: Option<(usize, char)> = None;
    let mut settle = |quotes: &mut Vec<&str>, numbers: &[usize]| {
        for quote in quotes.drain(..) {
            found.push(judge(quote, numbers, sources));
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
                if let Some(close) = closing(c) {
                    opened = Some((at + c.len_utf8(), close));
                } else if c == '['
                    && let Some((numbers, len)) = mark(&sentence[at..])
                {
                    settle(&mut quotes, &numbers);
                    while chars.next_if(|(i, _)| *i < at + len).is_some() {}
                }
            }
        }
    }
    settle(&mut quotes, &[]);
    found
}

/// What closes a quotation that `c` opens.
fn closing(c: char) -> Option<char> {
    match c {
        '"' => Some('"'),
        '“' | '„' => Some('”'),
        '«' => Some('»'),
        _ => None,
    }
}

/// The numbers of a mark such as `[2]` or `[1, 3]` that the text begins with, and its length in bytes.
fn mark(text: &str) -> Option<(Vec<usize>, usize)> {
    let inside = text.strip_prefix('[')?;
    let end = inside.find(']')?;
    let numbers: Option<Vec<usize>> =
        inside[..end].split([',', ';']).map(|n| n.trim().parse().ok()).collect();
    Some((numbers?, end + 2))
}

fn judge(quote: &str, numbers: &[usize], sources: &[Source]) -> Citation {
    let source = |number: usize| sources.get(number.checked_sub(1)?);
    let look = |number: usize| Some((number, source(number)?.find(quote)?));
    let cited = numbers.iter().find_map(|&n| look(n));
    let anywhere = || (1..=sources.len()).find_map(look);
    let (status, place) = match (cited, numbers.is_empty()) {
        (Some(place), _) => (QuoteStatus::Found, Some(place)),
        (None, named_none) => match anywhere() {
            Some(place) if named_none => (QuoteStatus::Found, Some(place)),
            Some(place) => (QuoteStatus::Misattributed, Some(place)),
            None => (QuoteStatus::Absent, None),
        },
    };
    Citation {
        quote: quote.to_owned(),
        cited: cited.map(|(n, _)| n).or(numbers.first().copied()),
        status,
        passage: place.map(|(n, _)| n),
        range: place.map(|(_, range)| range),
    }
}

/// Words after which a full stop ends no sentence.
const ABBREVIATIONS: [&str; 14] =
    ["e.g", "i.e", "etc", "al", "fig", "eq", "sec", "vs", "cf", "dr", "mr", "mrs", "no", "approx"];

/// Where the first sentence of `text` ends, closing quotation marks and citation marks included; none where that
/// is not certain yet. `last` says that nothing follows.
fn sentence_end(text: &str, last: bool) -> Option<usize> {
    let mut opened: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match opened {
            Some(close) if c == close => opened = None,
            // A quotation that is never closed must not swallow the answer.
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
                    None => break may_not_become_a_mark(&rest[blank..], last),
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
        // What was looked at belongs to this sentence, quotation marks too.
        opened = inside;
        while chars.offset() < end {
            chars.next();
        }
    }
    (last && !text.is_empty()).then_some(text.len())
}

/// Whether it is certain that what begins here is no citation mark.
fn may_not_become_a_mark(rest: &str, last: bool) -> bool {
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

/// A text without what does not count, and where each character came from.
#[derive(Debug, Clone, Default)]
struct Folded {
    chars: Vec<char>,
    /// The bytes of the original that a character stands for.
    spans: Vec<[usize; 2]>,
}

impl Folded {
    fn of(text: &str) -> Self {
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
                // Within a word, at a line's end too, it may be left out.
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
            for c in same(c).to_lowercase() {
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

    /// Where `wanted` stands from character `from` on.
    fn find(&self, wanted: &[char], from: usize) -> Option<usize> {
        let places = self.chars.get(from..)?.windows(wanted.len());
        places.into_iter().position(|window| window == wanted).map(|at| from + at)
    }
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}')
}

fn is_hyphen(c: char) -> bool {
    matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}')
}

/// One character for those that mean the same.
fn same(c: char) -> char {
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

    fn sources() -> Vec<Source> {
        [
            "RLHF fine-tunes a model with human pref-\nerences, so that it\u{a0}follows “the user’s intent”.",
            "Cross-encoders read query and passage together. They are slow [12] but accurate.",
        ]
        .map(Source::new)
        .into()
    }

    fn check(answer: &str) -> (String, Vec<Sentence>, bool) {
        let mut evidence = Evidence::new(sources(), REFUSAL);
        let mut shown = String::new();
        let mut show = |piece| match piece {
            Piece::Text(text) => shown.push_str(&text),
            Piece::Unsupported => shown.push_str(" [unsupported]"),
        };
        evidence.push(answer, &mut show);
        evidence.finish(&mut show);
        let refusal = evidence.is_refusal();
        (shown, evidence.sentences, refusal)
    }

    #[test]
    fn quote_is_found_whatever_its_case_spacing_quotes_and_hyphens() {
        let text = "RLHF fine-tunes a model with human pref-\nerences, so that it\u{a0}follows “the user’s intent”.";
        let source = Source::new(text);
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
            assert_eq!(&text[start..end], expected, "{quote}");
        }
        for absent in ["human intent", "so that ... RLHF", "fine tunes a model"] {
            assert_eq!(source.find(absent), None, "{absent}");
        }
    }

    #[test]
    fn answer_is_judged_quote_by_quote() {
        let answer = "It learns from people \"with human preferences\" [1]. Reading is joint \
                      \"read query and passage together\" [1]. It is fast \"they are very fast indeed\" [2]! \
                      Nobody knows why that is. See Fig. 3 there, \"They are slow [12] but accurate\" [1, 2].";
        let (shown, sentences, refusal) = check(answer);
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
            let (shown, sentences, refusal) = check(answer);
            assert!(refusal, "{answer}");
            assert!(
                sentences.iter().all(|s| s.supported) && !shown.contains("unsupported"),
                "{answer}"
            );
        }
        assert!(!check("The passages do not answer this question. But I think it is so.").2);
    }

    #[test]
    fn sentences_without_a_statement_need_no_support() {
        let (shown, ..) =
            check("Yes.\n\nHere is what the passages say:\n- \"RLHF fine-tunes a model\" [1]\n");
        assert!(!shown.contains("unsupported"), "{shown}");
    }

    proptest! {
        #[test]
        fn answer_is_judged_alike_however_it_arrives(
            words in proptest::collection::vec(
                prop_oneof![
                    Just("\"read query and passage together\" [2]"), Just("word"), Just("\n"), Just("."), Just(" "),
                    Just("[1]"), Just("e.g."), Just("“human preferences, so”"), Just("!"), Just("\""), Just("3.5"),
                    Just("é"), Just(". "), Just(" [2, 1] "), Just("A"),
                ],
                0..40,
            ),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let answer = words.concat();
            let (whole, sentences, _) = check(&answer);
            let mut places: Vec<usize> = cuts.iter().map(|c| c.index(answer.len() + 1)).collect();
            places.push(answer.len());
            places.retain(|&at| answer.is_char_boundary(at));
            places.sort_unstable();
            let mut evidence = Evidence::new(sources(), REFUSAL);
            let mut shown = String::new();
            let mut show = |piece| match piece {
                Piece::Text(text) => shown.push_str(&text),
                Piece::Unsupported => shown.push_str(" [unsupported]"),
            };
            let mut start = 0;
            for at in places {
                evidence.push(&answer[start..at], &mut show);
                start = at;
            }
            evidence.finish(&mut show);
            prop_assert_eq!(&evidence.sentences, &sentences);
            prop_assert_eq!(shown, whole);
        }

        #[test]
        fn folding_any_text_keeps_whole_characters(text in "\\PC{0,60}", from in 0usize..60, len in 1usize..30) {
            let source = Source::new(&text);
            let quote: String = text.chars().skip(from).take(len).collect();
            if let Some([start, end]) = source.find(&quote) {
                prop_assert!(text.is_char_boundary(start) && text.is_char_boundary(end) && start < end);
            }
        }
    }
}
