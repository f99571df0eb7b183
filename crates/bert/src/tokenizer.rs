//! Tokenizer: texts to token sequences with the model's special tokens, without padding.

use crate::error::{Error, Result};
use crate::model_files::{ModelFiles, hex_of, unusable};
pub use crate::text_parts::TokenMeter;
use crate::text_parts::{PART_BYTES, TextCut};
use crate::tokenizer_settings::TokenizerSettings;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::ops::Range;
use tokenizers::TruncationDirection;

/// A tokenizer. Truncation and padding of `tokenizer.json` are ignored: callers pass the limit.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    single: Template,
    pair: Template,
    /// True if texts that are too long lose their beginning.
    truncates_start: bool,
    max_tokens: Option<usize>,
    cut: Option<TextCut>,
    sha256: String,
}

/// One input of the encoder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Index of the first token of the second token type; `ids.len()` if there is only one.
    pub second_from: usize,
}

/// The tokens of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// The encoder's input.
    pub sequence: Sequence,
    /// Truncated tokens.
    pub lost: usize,
}

/// The special tokens around one or two texts.
#[derive(Debug, Clone, Default)]
struct Template {
    before: Vec<u32>,
    between: Vec<u32>,
    after: Vec<u32>,
    /// Special tokens and texts of the first token type: the first ones.
    first_type: (usize, usize),
}

/// Tokens of a text with their byte ranges, for windows over long passages.
#[derive(Debug, Clone)]
pub struct TokenSpans {
    /// Token ids without special tokens.
    pub ids: Vec<u32>,
    /// Byte range of each token in the text.
    pub spans: Vec<Range<usize>>,
}

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPiece {
    /// Its id.
    pub id: u32,
    /// Its name in the vocabulary.
    pub token: String,
    /// Its character range in the text; none for a special token.
    pub chars: Option<Range<usize>>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model folder, and the files beside it that change tokens.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the file is missing or cannot be parsed, or if a file sets
    /// something that is not supported, by name.
    pub fn open(files: impl Into<ModelFiles>) -> Result<Self> {
        let files = files.into();
        let path = files.path("tokenizer.json");
        let fail = |reason: &str| unusable(path.display(), reason);
        let bytes = files.read("tokenizer.json").map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                fail("the file is missing; save the model with a fast tokenizer to get it")
            }
            _ => Error::io("read", &path)(e),
        })?;
        let unreadable = |e: tokenizers::Error| fail(&format!("cannot be read ({e})"));
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(unreadable)?;
        let direction = inner.get_truncation().map(|truncation| truncation.direction);
        let from_start = direction == Some(TruncationDirection::Left);
        inner.with_truncation(None).map_err(unreadable)?;
        inner.with_padding(None);
        let settings = TokenizerSettings::read(&files)?;
        settings.apply(&mut inner)?;
        let types = settings.has_token_types()?;
        let single = Template::of(&inner.encode("a", true).map_err(unreadable)?, 1, types);
        let pair = Template::of(&inner.encode(("a", "a"), true).map_err(unreadable)?, 2, types);
        let (Some(single), Some(pair)) = (single, pair) else {
            return Err(fail("its special tokens or token types cannot be understood"));
        };
        let truncates_start = settings.truncates_start(from_start)?;
        let max_tokens = settings.max_tokens()?;
        let mut digest = Sha256::new().chain_update(&bytes);
        let parts = (inner.get_normalizer(), inner.get_pre_tokenizer(), inner.get_post_processor());
        let special = inner.get_encode_special_tokens();
        let beside = serde_json::to_vec(&(parts, types, truncates_start, special));
        digest.update(beside.unwrap_or_default());
        let sha256 = hex_of(digest);
        let cut = TextCut::of(&inner);
        Ok(Self { inner, single, pair, truncates_start, max_tokens, cut, sha256 })
    }

    /// Returns the sha256 of `tokenizer.json` and of what other files set, lower-case hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns the limit of a text, or of a pair, that the folder's files state, in tokens, special
    /// tokens included.
    pub fn max_tokens(&self) -> Option<usize> {
        self.max_tokens
    }

    /// Returns the number of special tokens of a single text.
    pub fn n_special(&self) -> usize {
        self.single.len()
    }

    /// True if a text ends with a special token.
    pub fn ends_with_special(&self) -> bool {
        !self.single.after.is_empty()
    }

    /// Returns the number of special tokens of a pair.
    pub fn n_special_pair(&self) -> usize {
        self.pair.len()
    }

    /// Returns the number of tokens of a text, without special tokens.
    pub fn count(&self, text: &str) -> usize {
        self.count_within(text, &TokenMeter::default())
    }

    /// As [`Tokenizer::count`]; a count that `meter` stops is too low.
    pub fn count_within(&self, text: &str, meter: &TokenMeter) -> usize {
        let parts = TextCut::parts(self.cut, text, PART_BYTES).take_while(|_| !meter.is_stopped());
        parts.map(|(_, part)| self.inner.encode_fast(part, false).map_or(0, |e| e.len())).sum()
    }

    /// Tokenizes one text, truncated to `max_tokens`, special tokens included.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer refuses the text.
    pub fn single(&self, text: &str, max_tokens: usize) -> Result<Tokenized> {
        self.truncated(text, max_tokens, self.truncates_start, &TokenMeter::default())
    }

    /// As [`Tokenizer::single`], but truncates the beginning, within the limit of `meter`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::batch_within`].
    pub fn single_end(
        &self,
        text: &str,
        max_tokens: usize,
        meter: &TokenMeter,
    ) -> Result<Tokenized> {
        self.truncated(text, max_tokens, true, meter)
    }

    /// Tokenizes one text, truncated at its start or end.
    fn truncated(
        &self,
        text: &str,
        max_tokens: usize,
        at_start: bool,
        meter: &TokenMeter,
    ) -> Result<Tokenized> {
        let most = max_tokens.saturating_sub(self.n_special());
        let (mut kept, mut n) = (Vec::new(), 0);
        for (_, part) in TextCut::parts(self.cut, text, PART_BYTES) {
            meter.add(0)?;
            let encoding = self.inner.encode_fast(part, false).map_err(refused)?;
            let (ids, before) = (encoding.get_ids(), kept.len());
            n += ids.len();
            if at_start {
                kept.extend_from_slice(ids);
                kept.drain(..kept.len().saturating_sub(most));
            } else {
                kept.extend(ids.iter().take(most - before));
            }
            meter.add(kept.len() - before)?;
        }
        let sequence = self.single.wrap(&kept, None);
        Ok(Tokenized { sequence, lost: n - kept.len() })
    }

    /// True if these are the ids of a complete text with special tokens, within the vocabulary.
    pub fn is_whole(&self, ids: &[u32]) -> bool {
        let Template { before, after, .. } = &self.single;
        let n = self.inner.get_vocab_size(true) as u32;
        ids.len() > self.n_special()
            && ids.starts_with(before)
            && ids.ends_with(after)
            && ids.iter().all(|&id| id < n)
    }

    /// Returns the tokens of a text one by one, with special tokens if `special`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::single`].
    pub fn pieces(&self, text: &str, special: bool) -> Result<Vec<TokenPiece>> {
        let encoding = self.inner.encode_char_offsets(text, special).map_err(refused)?;
        let all = encoding.get_ids().iter().zip(encoding.get_tokens());
        let places = encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask());
        Ok(all
            .zip(places)
            .map(|((&id, token), (&(start, end), &special))| TokenPiece {
                id,
                token: token.clone(),
                chars: (special == 0).then_some(start..end),
            })
            .collect())
    }

    /// Returns the text of token ids, as far as the vocabulary determines it.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer cannot decode them.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|e| Error::usage(format!("the tokenizer cannot decode this: {e}")))
    }

    /// Tokenizes many texts on the current rayon pool; see [`Tokenizer::single`].
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer refuses a text.
    pub fn batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        max_tokens: usize,
    ) -> Result<Vec<Tokenized>> {
        self.batch_within(texts, max_tokens, &TokenMeter::default())
    }

    /// As [`Tokenizer::batch`], within the limit of `meter`; truncated tokens do not count.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::batch`]; [`Error::Usage`] beyond the limit, and [`Error::Interrupted`] soon
    /// after the meter was stopped.
    pub fn batch_within<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        max_tokens: usize,
        meter: &TokenMeter,
    ) -> Result<Vec<Tokenized>> {
        let one = |text: &T| self.truncated(text.as_ref(), max_tokens, self.truncates_start, meter);
        texts.par_iter().map(one).collect()
    }

    /// Builds a pair from token ids without special tokens.
    pub fn pair(&self, first: &[u32], second: &[u32]) -> Sequence {
        self.pair.wrap(first, Some(second))
    }

    /// Returns the tokens of a text with their byte ranges.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer refuses the text.
    pub fn spans(&self, text: &str) -> Result<TokenSpans> {
        self.spans_within(text, &TokenMeter::default())
    }

    /// Returns the end of the first `most` tokens in bytes of the text, and the number of tokens
    /// after them, which do not count for `meter`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::batch_within`].
    pub fn end_of_first(
        &self,
        text: &str,
        most: usize,
        meter: &TokenMeter,
    ) -> Result<(usize, usize)> {
        let (mut n, mut end) = (0, text.len());
        for (at, part) in TextCut::parts(self.cut, text, PART_BYTES) {
            meter.add(0)?;
            let encoding = self.inner.encode(part, false).map_err(refused)?;
            let offsets = encoding.get_offsets();
            if (n..n + offsets.len()).contains(&most) {
                end = at + offsets[most - n].0;
            }
            meter.add(offsets.len().min(most.saturating_sub(n)))?;
            n += offsets.len();
        }
        Ok((end, n.saturating_sub(most)))
    }

    /// As [`Tokenizer::spans`], within the limit of `meter`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::batch_within`].
    pub fn spans_within(&self, text: &str, meter: &TokenMeter) -> Result<TokenSpans> {
        let (mut ids, mut spans) = (Vec::new(), Vec::new());
        for (at, part) in TextCut::parts(self.cut, text, PART_BYTES) {
            meter.add(0)?;
            let encoding = self.inner.encode(part, false).map_err(refused)?;
            meter.add(encoding.len())?;
            ids.extend_from_slice(encoding.get_ids());
            spans.extend(encoding.get_offsets().iter().map(|&(start, end)| at + start..at + end));
        }
        Ok(TokenSpans { ids, spans })
    }
}

impl Template {
    fn len(&self) -> usize {
        self.before.len() + self.between.len() + self.after.len()
    }

    /// Derives the template from an encoding of one text or of two. Without `types` all tokens have
    /// the first type.
    fn of(encoding: &tokenizers::Encoding, n_texts: usize, types: bool) -> Option<Self> {
        let mut parts = vec![Vec::new()];
        let mut first_type = (0, 0);
        let (mut in_text, mut last_type) = (false, 0);
        let tokens = encoding.get_ids().iter().zip(encoding.get_special_tokens_mask());
        for ((&id, &special), &kind) in tokens.zip(encoding.get_type_ids()) {
            let kind = if types { kind } else { 0 };
            // Token types are a run of zeros and a run of ones.
            if kind > 1 || kind < last_type {
                return None;
            }
            last_type = kind;
            let is_text = special == 0;
            if is_text && !in_text {
                parts.push(Vec::new());
                first_type.1 += usize::from(kind == 0);
            }
            in_text = is_text;
            if !is_text {
                parts.last_mut()?.push(id);
                first_type.0 += usize::from(kind == 0);
            }
        }
        let mut parts = parts.into_iter();
        let (before, second, third) = (parts.next()?, parts.next()?, parts.next());
        let (between, after) = match (n_texts, third) {
            (1, None) => (Vec::new(), second),
            (2, Some(after)) => (second, after),
            _ => return None,
        };
        parts.next().is_none().then_some(Self { before, between, after, first_type })
    }

    fn wrap(&self, first: &[u32], second: Option<&[u32]>) -> Sequence {
        let mut ids = Vec::with_capacity(self.len() + first.len() + second.map_or(0, <[u32]>::len));
        ids.extend_from_slice(&self.before);
        ids.extend_from_slice(first);
        if let Some(second) = second {
            ids.extend_from_slice(&self.between);
            ids.extend_from_slice(second);
        }
        ids.extend_from_slice(&self.after);
        let texts = [first.len(), second.map_or(0, <[u32]>::len)];
        let (special, n_texts) = self.first_type;
        let second_from = special + texts[..n_texts].iter().sum::<usize>();
        Sequence { ids, second_from }
    }
}

fn refused(e: tokenizers::Error) -> Error {
    Error::usage(format!("the tokenizer refused a text: {e}"))
}
