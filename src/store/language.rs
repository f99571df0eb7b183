//! Languages of the lexical index: words to terms, for documents and queries alike.
//!
//! An index without a language leaves both steps, words and stems, to FTS5's own tokenizers, whose
//! Porter stemmer knows English alone. With a language the terms are made here, and FTS5 gets them
//! with blanks between them:
//!
//! ```text
//! text: compatibility normalization (NFKC), lower case
//! run of letters, digits and marks of scripts with blanks between words -> one word:
//!     its stem by the language's Snowball algorithm, then without the accents of Latin letters
//! run of a script without blanks (Han, kana, Thai, ...) or of Hangul -> overlapping pairs:
//!     东京都 -> 东京 京都 都
//! ```
//!
//! Every character of such a run begins one term of a document. So a query of two characters finds
//! their pair, and a query of one character finds the terms that begin with it. A character is a
//! grapheme cluster: a Thai consonant with its vowel and tone marks.

use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use snowball_stemmers_rs::{Algorithm, Stemmer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;
use unicode_script::{Script, UnicodeScript};
use unicode_segmentation::UnicodeSegmentation;

/// Language of the lexical index, by its ISO 639-1 code, or `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Language {
    code: &'static str,
    stems: Stems,
}

/// The stemmer of a language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stems {
    /// That of FTS5, which makes the words too.
    Fts5,
    /// None: words are kept whole.
    Words,
    /// A Snowball stemmer.
    Snowball(Algorithm),
}

/// Length in bytes from which on a word is not stemmed: it is none.
const MAX_STEMMED: usize = 256;

/// Scripts whose words have no blanks between them, and Hangul, whose words change their ends.
const PAIRED_SCRIPTS: [Script; 9] = [
    Script::Han,
    Script::Hiragana,
    Script::Katakana,
    Script::Bopomofo,
    Script::Hangul,
    Script::Thai,
    Script::Lao,
    Script::Khmer,
    Script::Myanmar,
];

/// All languages, `none` first, then by code.
const LANGUAGES: [Language; 40] = [
    Language::NONE,
    snowball("ar", Algorithm::Arabic),
    snowball("ca", Algorithm::Catalan),
    snowball("cs", Algorithm::Czech),
    snowball("da", Algorithm::Danish),
    snowball("de", Algorithm::German),
    snowball("el", Algorithm::Greek),
    snowball("en", Algorithm::English),
    snowball("eo", Algorithm::Esperanto),
    snowball("es", Algorithm::Spanish),
    snowball("et", Algorithm::Estonian),
    snowball("eu", Algorithm::Basque),
    snowball("fa", Algorithm::Persian),
    snowball("fi", Algorithm::Finnish),
    snowball("fr", Algorithm::French),
    snowball("ga", Algorithm::Irish),
    snowball("hi", Algorithm::Hindi),
    snowball("hu", Algorithm::Hungarian),
    snowball("hy", Algorithm::Armenian),
    snowball("id", Algorithm::Indonesian),
    snowball("it", Algorithm::Italian),
    Language { code: "ja", stems: Stems::Words },
    Language { code: "ko", stems: Stems::Words },
    snowball("lt", Algorithm::Lithuanian),
    snowball("ne", Algorithm::Nepali),
    snowball("nl", Algorithm::Dutch),
    snowball("no", Algorithm::Norwegian),
    snowball("pl", Algorithm::Polish),
    snowball("pt", Algorithm::Portuguese),
    snowball("ro", Algorithm::Romanian),
    snowball("ru", Algorithm::Russian),
    snowball("sr", Algorithm::Serbian),
    snowball("st", Algorithm::Sesotho),
    snowball("sv", Algorithm::Swedish),
    snowball("ta", Algorithm::Tamil),
    Language { code: "th", stems: Stems::Words },
    snowball("tr", Algorithm::Turkish),
    snowball("uk", Algorithm::Ukrainian),
    snowball("yi", Algorithm::Yiddish),
    Language { code: "zh", stems: Stems::Words },
];

const fn snowball(code: &'static str, algorithm: Algorithm) -> Language {
    Language { code, stems: Stems::Snowball(algorithm) }
}

/// A term of a query.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct QueryTerm {
    /// The term; letters, digits and marks alone.
    pub(super) text: String,
    /// True if the query asks for all terms that begin with it.
    pub(super) is_prefix: bool,
}

/// A stretch of normalized text.
enum TextRun<'a> {
    Word(&'a str),
    Paired(&'a str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CharClass {
    Separator,
    Word,
    Paired,
}

impl Language {
    /// No language: FTS5's tokenizer `unicode61` with the Porter stemmer, made for English.
    pub const NONE: Self = Self { code: "none", stems: Stems::Fts5 };

    /// The code: `none`, or that of ISO 639-1.
    pub fn code(self) -> &'static str {
        self.code
    }

    /// True for `none`.
    pub fn is_none(self) -> bool {
        self.stems == Stems::Fts5
    }

    /// All codes.
    pub fn codes() -> impl Iterator<Item = &'static str> {
        LANGUAGES.iter().map(|language| language.code)
    }

    /// The stem by which a word is recognised in another form; without a language the English one.
    pub fn stem_of(self, word: &str) -> String {
        let english = snowball("en", Algorithm::English);
        let language = if self.is_none() { english } else { self };
        language.stem(&language.normalize(word)).into_owned()
    }

    /// The terms of a text with blanks between them; the text itself without a language.
    pub(super) fn document_terms(self, text: &str) -> Cow<'_, str> {
        if self.is_none() {
            return Cow::Borrowed(text);
        }
        let mut terms = String::with_capacity(text.len());
        let mut add = |parts: &[&str]| {
            parts.iter().for_each(|part| terms.push_str(part));
            terms.push(' ');
        };
        for_each_run(&self.normalize(text), |run| match run {
            TextRun::Word(word) => add(&[&self.stem(word)]),
            TextRun::Paired(run) => {
                let characters: Vec<&str> = run.graphemes(true).collect();
                characters.windows(2).for_each(&mut add);
                add(&characters[characters.len() - 1..]);
            }
        });
        Cow::Owned(terms)
    }

    /// The terms of a query, in its order.
    pub(super) fn query_terms(self, query: &str) -> Vec<QueryTerm> {
        let term = |text: String, is_prefix| QueryTerm { text, is_prefix };
        if self.is_none() {
            let words = query.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty());
            return words.map(|word| term(word.to_lowercase(), false)).collect();
        }
        let mut terms = Vec::new();
        for_each_run(&self.normalize(query), |run| match run {
            TextRun::Word(word) => terms.push(term(self.stem(word).into_owned(), false)),
            TextRun::Paired(run) => {
                let characters: Vec<&str> = run.graphemes(true).collect();
                match &characters[..] {
                    [single] => terms.push(term((*single).to_owned(), true)),
                    more => terms.extend(more.windows(2).map(|pair| term(pair.concat(), false))),
                }
            }
        });
        terms
    }

    /// Compatibility composition, lower case, and no variation selectors.
    fn normalize(self, text: &str) -> String {
        let is_turkish = self.code == "tr";
        let mut normalized = String::with_capacity(text.len());
        for c in text.nfkc() {
            match c {
                '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => {}
                'I' if is_turkish => normalized.push('ı'),
                'İ' => normalized.push('i'),
                _ => normalized.extend(c.to_lowercase()),
            }
        }
        normalized
    }

    /// The stem of a lower-case word, without the accents of Latin letters.
    fn stem(self, word: &str) -> Cow<'_, str> {
        let stem = match self.stems {
            Stems::Snowball(algorithm) if word.len() < MAX_STEMMED => {
                Stemmer::create(algorithm).stem(word)
            }
            _ => Cow::Borrowed(word),
        };
        // A stemmer may take a whole word for an ending.
        let stem = if stem.is_empty() { Cow::Borrowed(word) } else { stem };
        if stem.is_ascii() { stem } else { Cow::Owned(without_accents(&stem)) }
    }
}

/// Latin letters without their accents; other letters as they are.
fn without_accents(word: &str) -> String {
    let mut folded = String::with_capacity(word.len());
    let mut is_latin = false;
    for c in word.nfd() {
        if is_combining_mark(c) && is_latin {
            continue;
        }
        is_latin = c.script() == Script::Latin;
        match c {
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'ø' => folded.push('o'),
            'ł' => folded.push('l'),
            'đ' => folded.push('d'),
            'ı' => folded.push('i'),
            _ => folded.push(c),
        }
    }
    folded.nfc().collect()
}

/// Calls `visit` with the runs of a normalized text, in order.
fn for_each_run(text: &str, mut visit: impl FnMut(TextRun<'_>)) {
    let mut finish = |run: &str, class| match class {
        CharClass::Separator => {}
        CharClass::Word => visit(TextRun::Word(run)),
        CharClass::Paired => visit(TextRun::Paired(run)),
    };
    let (mut start, mut class) = (0, CharClass::Separator);
    for (at, c) in text.char_indices() {
        let next = char_class(c, class);
        if next != class {
            finish(&text[start..at], class);
            (start, class) = (at, next);
        }
    }
    finish(&text[start..], class);
}

/// The class of a character. A combining mark is of the class of the character before it.
fn char_class(c: char, before: CharClass) -> CharClass {
    if c.is_ascii() {
        return if c.is_ascii_alphanumeric() { CharClass::Word } else { CharClass::Separator };
    }
    if is_combining_mark(c) {
        return before;
    }
    if !c.is_alphanumeric() {
        return CharClass::Separator;
    }
    let script = c.script();
    let is_paired = match script {
        // Characters that a few scripts share, such as the mark of a long vowel in kana.
        Script::Common | Script::Inherited => {
            let shared = c.script_extension();
            !shared.is_common()
                && !shared.is_inherited()
                && PAIRED_SCRIPTS.iter().any(|script| shared.contains_script(*script))
        }
        _ => PAIRED_SCRIPTS.contains(&script),
    };
    if is_paired { CharClass::Paired } else { CharClass::Word }
}

impl Default for Language {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl FromStr for Language {
    type Err = Error;

    fn from_str(code: &str) -> Result<Self> {
        let found = LANGUAGES.iter().find(|language| language.code.eq_ignore_ascii_case(code));
        found.copied().ok_or_else(|| {
            let codes: Vec<&str> = Self::codes().collect();
            Error::usage(format!("unknown language '{code}': choose from {}", codes.join(", ")))
        })
    }
}

impl Serialize for Language {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

impl<'de> Deserialize<'de> for Language {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(code: &str, text: &str) -> Vec<String> {
        let language: Language = code.parse().unwrap();
        language.document_terms(text).split_whitespace().map(str::to_owned).collect()
    }

    fn query(code: &str, text: &str) -> Vec<(String, bool)> {
        let language: Language = code.parse().unwrap();
        language.query_terms(text).into_iter().map(|term| (term.text, term.is_prefix)).collect()
    }

    #[test]
    fn languages_are_sorted_and_parse_back() {
        assert!(LANGUAGES[1..].is_sorted_by_key(|language| language.code));
        for language in LANGUAGES {
            assert_eq!(language.code().parse::<Language>().unwrap(), language);
        }
        assert_eq!("DE".parse::<Language>().unwrap().code(), "de");
        let error = "tlh".parse::<Language>().unwrap_err().to_string();
        assert!(error.starts_with("unknown language 'tlh': choose from none, ar, ca"), "{error}");
    }

    /// Stems are stored in indexes: another stem of these words needs another format version.
    #[test]
    fn stems_of_each_language_stay_as_they_are() {
        for (code, text, expected) in [
            ("ar", "الكتاب", "كتاب"),
            ("ca", "cançons", "cancon"),
            ("cs", "knihy", "knih"),
            ("da", "husene", "hus"),
            ("de", "Häuser HAUSES Haeuser Straße", "haus haus haus strass"),
            ("el", "ΛΟΓΟΣ λόγου", "λογ λογ"),
            ("en", "generously models' running", "generous model run"),
            ("es", "canciones canción niños", "cancion cancion nin"),
            ("fi", "taloissa", "talo"),
            ("fr", "l'élève chevaux cœurs", "l elev cheval coeur"),
            ("hi", "किताबें", "किताब"),
            ("it", "dell'arte città", "dell arte citt"),
            ("nl", "huizen", "huis"),
            ("no", "husene", "hus"),
            ("pl", "książki", "ksiazk"),
            ("pt", "canções", "canco"),
            ("ru", "книгами Ёлка", "книг елк"),
            ("sv", "husen", "hus"),
            ("tr", "KITAPLAR Kitabı", "kitap kitap"),
            ("uk", "книги", "книг"),
        ] {
            let found = terms(code, text);
            assert_eq!(found.join(" "), expected, "{code}: {text}");
            let asked: Vec<String> = query(code, text).into_iter().map(|(text, _)| text).collect();
            assert_eq!(asked, found, "{code}: {text}");
        }
    }

    #[test]
    fn scripts_without_blanks_become_pairs() {
        for (code, text, expected) in [
            ("ja", "東京都の天気", "東京 京都 都の の天 天気 気"),
            ("ja", "ｶﾞｰﾄﾞはOpenAIのAPI2です", "ガー ード ドは は openai の api2 です す"),
            ("zh", "北京2023年，BERT模型", "北京 京 2023 年 bert 模型 型"),
            ("ko", "학교에서 책을", "학교 교에 에서 서 책을 을"),
            // NFKC splits the vowel AM, in documents and queries alike.
            ("th", "น้ำตก", "น\u{e49}\u{e4d}า าต ตก ก"),
            ("de", "Die 東京 Häuser", "die 東京 京 haus"),
        ] {
            assert_eq!(terms(code, text).join(" "), expected, "{code}: {text}");
        }
        let pairs = |texts: &[&str]| -> Vec<(String, bool)> {
            texts.iter().map(|text| ((*text).to_owned(), false)).collect()
        };
        assert_eq!(query("ja", "東京都"), pairs(&["東京", "京都"]));
        assert_eq!(query("zh", "模型"), pairs(&["模型"]));
        assert_eq!(query("zh", "水"), [("水".to_owned(), true)]);
        assert_eq!(query("th", "น้ำ"), pairs(&["น\u{e49}\u{e4d}า"]));
        assert_eq!(query("th", "ปู"), [("ปู".to_owned(), true)]);
    }

    #[test]
    fn width_composition_and_variants_do_not_count() {
        assert_eq!(terms("de", "Ha\u{308}user"), ["haus"]);
        assert_eq!(terms("ja", "ＡＢＣ１２"), ["abc12"]);
        assert_eq!(terms("ja", "葛\u{E0100}城"), ["葛城", "城"]);
    }

    proptest! {
        #[test]
        fn query_of_any_text_finds_the_text(text in "\\PC{0,40}", at in 0..LANGUAGES.len()) {
            let language = LANGUAGES[at];
            prop_assume!(!language.is_none());
            let terms = language.document_terms(&text);
            let terms: Vec<&str> = terms.split(' ').collect();
            for QueryTerm { text, is_prefix } in language.query_terms(&text) {
                prop_assert!(!text.is_empty() && !text.contains(['"', ' ']));
                let matches = |term: &&str| *term == text || is_prefix && term.starts_with(&text);
                prop_assert!(terms.iter().any(matches), "{text}");
            }
        }
    }
}
