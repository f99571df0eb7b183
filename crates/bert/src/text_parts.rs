//! Long texts, tokenized in parts: memory for a part of the text instead of all of it, a limit that
//! is met while tokens are counted, and an end within milliseconds.
//!
//! A tokenizer needs some 150 bytes a token while it works. A text is therefore cut where no token
//! can reach across: at a single space or line break between letters or digits, or after the end of
//! a sentence. Normalizers that look at one character, or at a composed sequence of them, see no
//! difference there, and the pre-tokenizers that are known here end a word at any space. With any
//! other tokenizer a text stays whole, and so does one without such places, as of Chinese without
//! line breaks.

use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{AddedToken, NormalizerWrapper, PreTokenizerWrapper};

/// Bytes of a text that are tokenized at a time.
pub(crate) const PART_BYTES: usize = 32 << 10;

/// The place where a text is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextCut {
    /// Behind the space, which is no token and part of none.
    AfterSpace,
    /// Before the space, which belongs to the next token.
    BeforeSpace,
}

impl TextCut {
    /// The place where this tokenizer's texts can be cut; none if a cut could change tokens.
    pub(crate) fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let cut = match tokenizer.get_pre_tokenizer()? {
            PreTokenizerWrapper::ByteLevel(bytes) if bytes.use_regex => Self::BeforeSpace,
            PreTokenizerWrapper::Metaspace(space)
                if space.split && space.prepend_scheme == PrependScheme::Always =>
            {
                Self::BeforeSpace
            }
            words if ends_words_at_spaces(words) => Self::AfterSpace,
            _ => return None,
        };
        let normalizer = tokenizer.get_normalizer();
        let is_local = normalizer.is_none_or(|normalizer| is_local(normalizer, cut));
        let added = tokenizer.get_added_tokens_decoder();
        let is_apart = |token: &AddedToken| {
            // Without any of these a token cannot hold or touch the space of a cut.
            let has_words =
                token.content == " " || token.content.contains(|c| is_before(c) || is_after(c));
            let reaches = token.content.contains(char::is_whitespace)
                || token.lstrip && token.content.starts_with(is_after)
                || token.rstrip && token.content.ends_with(is_before);
            !(has_words && reaches)
        };
        (is_local && added.values().all(is_apart)).then_some(cut)
    }

    /// Cuts a text into parts of at least `part_bytes`, the last one excepted.
    pub(crate) fn parts(cut: Option<Self>, text: &str, part_bytes: usize) -> CutText<'_> {
        CutText { cut, left: Some(text), at: 0, part_bytes }
    }
}

/// The parts of a text, each with its first byte in it.
pub(crate) struct CutText<'a> {
    cut: Option<TextCut>,
    left: Option<&'a str>,
    at: usize,
    part_bytes: usize,
}

impl<'a> Iterator for CutText<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (text, at) = (self.left.take()?, self.at);
        let bytes = text.as_bytes();
        let is_cut = |i: &usize| {
            // An ASCII byte is a character of its own.
            let is_space =
                bytes[*i] == b' ' || bytes[*i] == b'\n' && self.cut == Some(TextCut::AfterSpace);
            is_space
                && text[..*i].chars().next_back().is_some_and(is_before)
                && text[i + 1..].chars().next().is_some_and(is_after)
        };
        let space = self.cut.and_then(|_| {
            let last = bytes.len().checked_sub(1)?;
            (self.part_bytes.max(1)..last).find(is_cut)
        });
        let Some(space) = space else { return Some((at, text)) };
        let next = space + usize::from(self.cut == Some(TextCut::AfterSpace));
        self.left = Some(&text[next..]);
        self.at = at + next;
        Some((at, &text[..space]))
    }
}

/// True for a character before the space of a cut: a letter, a digit, or the end of a sentence.
fn is_before(c: char) -> bool {
    c.is_alphanumeric() || ".,;:!?".contains(c)
}

/// True for a character after the space of a cut: a letter or digit, which combines with no space.
fn is_after(c: char) -> bool {
    c.is_alphanumeric()
}

/// True if words end at any space, which is part of none.
fn ends_words_at_spaces(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    use PreTokenizerWrapper as P;
    match pre_tokenizer {
        P::BertPreTokenizer(_) | P::Whitespace(_) | P::WhitespaceSplit(_) => true,
        P::Sequence(parts) => parts.as_ref().first().is_some_and(|first| match first {
            P::BertPreTokenizer(_) | P::Whitespace(_) | P::WhitespaceSplit(_) => {
                // A later step sees one word at a time.
                parts.as_ref()[1..].iter().all(|later| match later {
                    P::Metaspace(space) => space.prepend_scheme != PrependScheme::First,
                    P::ByteLevel(bytes) => !bytes.add_prefix_space,
                    P::Punctuation(_) | P::Digits(_) => true,
                    _ => false,
                })
            }
            _ => false,
        }),
        _ => false,
    }
}

/// True if the normalized text on one side of a cut does not depend on the other side.
fn is_local(normalizer: &NormalizerWrapper, cut: TextCut) -> bool {
    use NormalizerWrapper as N;
    match normalizer {
        N::NFC(_) | N::NFD(_) | N::NFKC(_) | N::NFKD(_) => true,
        N::Lowercase(_) | N::StripAccents(_) | N::Precompiled(_) | N::Nmt(_) => true,
        N::Replace(_) => is_replacement_of_spaces(normalizer),
        // These change the space at the beginning of a part, or could.
        N::BertNormalizer(_) | N::StripNormalizer(_) => cut == TextCut::AfterSpace,
        N::Sequence(parts) => parts.as_ref().iter().all(|part| is_local(part, cut)),
        _ => false,
    }
}

/// True for the replacement of several spaces by one.
fn is_replacement_of_spaces(normalizer: &NormalizerWrapper) -> bool {
    let Ok(value) = serde_json::to_value(normalizer) else { return false };
    value["pattern"] == serde_json::json!({"Regex": " {2,}"}) && value["content"].is_string()
}

/// A limit of the tokens of a request, met while they are counted; and a way to end the count.
#[derive(Debug)]
pub struct TokenMeter {
    counted: AtomicUsize,
    most: usize,
    is_stopped: AtomicBool,
}

impl Default for TokenMeter {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl TokenMeter {
    /// Allows `most` tokens.
    pub fn new(most: usize) -> Self {
        Self { counted: AtomicUsize::new(0), most, is_stopped: AtomicBool::new(false) }
    }

    /// Ends all counting soon, with [`Error::Interrupted`].
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    /// True after [`TokenMeter::stop`].
    pub fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }

    /// Counts tokens.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] beyond the limit, [`Error::Interrupted`] after [`TokenMeter::stop`].
    pub(crate) fn add(&self, n: usize) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::Interrupted("the tokens were not counted to their end".to_owned()));
        }
        let before = self.counted.fetch_add(n, Ordering::Relaxed);
        if before.saturating_add(n) > self.most {
            return Err(Error::usage(format!(
                "the request has more than {} tokens, and no more are allowed: send it in parts",
                self.most
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tokenizer(normalizer: &str, pre_tokenizer: &str, model: &str) -> tokenizers::Tokenizer {
        let json = format!(
            r#"{{"version": "1.0", "added_tokens": [], "normalizer": {normalizer},
                "pre_tokenizer": {pre_tokenizer}, "post_processor": null, "decoder": null,
                "model": {model}}}"#
        );
        json.parse().unwrap()
    }

    fn all() -> Vec<(tokenizers::Tokenizer, TextCut)> {
        let pieces = r###"{"[UNK]": 0, "a": 1, "b": 2, "##a": 3, "##b": 4, "ab": 5, "1": 6,
            "##1": 7, ".": 8, "e": 9, "##e": 10}"###;
        let word_piece = format!(
            r###"{{"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": {pieces}}}"###
        );
        let bert = r#"{"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true}"#;
        let bytes: Vec<String> = (b'!'..=b'~')
            .map(char::from)
            .chain(['Ġ', 'Ċ', 'ĉ', 'Ã', '©', 'Ì', 'ģ', 'Â', 'ł'])
            .enumerate()
            .map(|(i, c)| format!("{}: {i}", serde_json::to_string(&c.to_string()).unwrap()))
            .collect();
        let bpe = format!(
            r#"{{"type": "BPE", "vocab": {{{}, "Ġa": 900, "ab": 901}}, "merges": [["Ġ", "a"],
                ["a", "b"]]}}"#,
            bytes.join(", ")
        );
        let unigram = r#"{"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["▁", -2.0],
            ["▁a", -1.5], ["a", -2.5], ["b", -2.5], ["ab", -3.0], ["1", -4.0], [".", -3.0]]}"#;
        let metaspace = r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always",
            "split": true}"#;
        let split = format!(
            r#"{{"type": "Sequence", "pretokenizers": [{{"type": "WhitespaceSplit"}},
                {metaspace}]}}"#
        );
        let spaces = r#"{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}"#;
        let byte_level = r#"{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
            "use_regex": true}"#;
        let bert_words = r#"{"type": "BertPreTokenizer"}"#;
        vec![
            (tokenizer(bert, bert_words, &word_piece), TextCut::AfterSpace),
            (tokenizer("null", byte_level, &bpe), TextCut::BeforeSpace),
            (tokenizer(r#"{"type": "NFC"}"#, byte_level, &bpe), TextCut::BeforeSpace),
            (tokenizer(spaces, metaspace, unigram), TextCut::BeforeSpace),
            (tokenizer(r#"{"type": "NFKC"}"#, &split, unigram), TextCut::AfterSpace),
        ]
    }

    proptest! {
        #[test]
        fn tokens_of_the_parts_are_those_of_the_text(
            text in "[ab1.,! \n\u{e9}\u{301}\u{a0}\u{4e2d}\u{930}\u{93f}]{0,200}",
            part_bytes in 0usize..40,
        ) {
            for (tokenizer, cut) in all() {
                prop_assert_eq!(TextCut::of(&tokenizer), Some(cut));
                let whole = tokenizer.encode(text.as_str(), false).unwrap();
                let (mut ids, mut places) = (Vec::new(), Vec::new());
                for (at, part) in TextCut::parts(Some(cut), &text, part_bytes) {
                    let part = tokenizer.encode(part, false).unwrap();
                    ids.extend_from_slice(part.get_ids());
                    places.extend(part.get_offsets().iter().map(|(a, b)| (a + at, b + at)));
                }
                prop_assert_eq!(&ids, whole.get_ids());
                prop_assert_eq!(&places, whole.get_offsets());
            }
        }
    }

    #[test]
    fn text_of_an_unknown_tokenizer_stays_whole() {
        let model = r###"{"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"a": 0}}"###;
        let bert = r#"{"type": "BertPreTokenizer"}"#;
        let of = |normalizer: &str, words: &str| TextCut::of(&tokenizer(normalizer, words, model));
        let prepend = r#"{"type": "Prepend", "prepend": "x"}"#;
        let first = r#"{"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
            "split": true}"#;
        assert_eq!(of("null", bert), Some(TextCut::AfterSpace));
        assert_eq!(of(prepend, bert), None);
        assert_eq!(of("null", first), None);
        assert_eq!(of("null", "null"), None);
        let parts: Vec<_> = TextCut::parts(None, "a b c", 0).collect();
        assert_eq!(parts, [(0, "a b c")]);
        let mut added = tokenizer("null", bert, model);
        added.add_tokens([AddedToken::from("two words", false)]).unwrap();
        assert_eq!(TextCut::of(&added), None);
    }

    #[test]
    fn meter_ends_at_its_limit_and_when_it_is_stopped() {
        let meter = TokenMeter::new(10);
        assert!(meter.add(10).is_ok());
        assert_eq!(meter.add(1).unwrap_err().exit_code(), 2);
        let meter = TokenMeter::default();
        assert!(meter.add(usize::MAX / 2).is_ok());
        meter.stop();
        assert!(matches!(meter.add(0), Err(Error::Interrupted(_))));
    }
}
