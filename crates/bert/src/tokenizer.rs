//! Tokenizer: texts to token sequences with the model's special tokens, without padding.

use crate::config::unusable;
use crate::error::{Error, Result};
use crate::model_files::ModelFiles;
use rayon::prelude::*;
use std::ops::Range;

/// A tokenizer. Truncation and padding of `tokenizer.json` are ignored: callers pass the limit.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    single: Template,
    pair: Template,
}

/// One input of the encoder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sequence {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Index of the first token of the second segment; `ids.len()` if there is only one segment.
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
    /// The number of tokens of `between` in the first segment.
    between_first: usize,
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
    /// Reads `tokenizer.json` of a model folder.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the file is missing or cannot be parsed.
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
        inner.with_truncation(None).map_err(unreadable)?;
        inner.with_padding(None);
        let single = Template::of(&inner.encode("a", true).map_err(unreadable)?);
        let pair = Template::of(&inner.encode(("a", "a"), true).map_err(unreadable)?);
        let (Some(single), Some(pair)) = (single, pair) else {
            return Err(fail("its special tokens cannot be understood"));
        };
        Ok(Self { inner, single, pair })
    }

    /// Returns the number of special tokens of a single text.
    pub fn n_special(&self) -> usize {
        self.single.len()
    }

    /// Returns the number of special tokens of a pair.
    pub fn n_special_pair(&self) -> usize {
        self.pair.len()
    }

    /// Returns the number of tokens of a text, without special tokens.
    pub fn count(&self, text: &str) -> usize {
        self.inner.encode_fast(text, false).map_or(0, |e| e.len())
    }

    /// Tokenizes one text, truncated to `max_tokens`, special tokens included.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer refuses the text.
    pub fn single(&self, text: &str, max_tokens: usize) -> Result<Tokenized> {
        self.truncated(text, max_tokens, |_, kept| 0..kept)
    }

    /// As [`Tokenizer::single`], but truncates the beginning.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::single`].
    pub fn single_end(&self, text: &str, max_tokens: usize) -> Result<Tokenized> {
        self.truncated(text, max_tokens, |n, kept| n - kept..n)
    }

    /// Tokenizes one text. `range` is passed the numbers of tokens before and after truncation.
    fn truncated(
        &self,
        text: &str,
        max_tokens: usize,
        range: impl Fn(usize, usize) -> Range<usize>,
    ) -> Result<Tokenized> {
        let encoding = self.inner.encode_fast(text, false).map_err(refused)?;
        let ids = encoding.get_ids();
        let kept = ids.len().min(max_tokens.saturating_sub(self.n_special()));
        let sequence = self.single.wrap(&ids[range(ids.len(), kept)], None);
        Ok(Tokenized { sequence, lost: ids.len() - kept })
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
        texts.par_iter().map(|text| self.single(text.as_ref(), max_tokens)).collect()
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
        let encoding = self.inner.encode(text, false).map_err(refused)?;
        Ok(TokenSpans {
            ids: encoding.get_ids().to_vec(),
            spans: encoding.get_offsets().iter().map(|&(start, end)| start..end).collect(),
        })
    }
}

impl Template {
    fn len(&self) -> usize {
        self.before.len() + self.between.len() + self.after.len()
    }

    /// Derives the template from an encoding of one-token texts.
    fn of(encoding: &tokenizers::Encoding) -> Option<Self> {
        let special: Vec<bool> =
            encoding.get_special_tokens_mask().iter().map(|&m| m == 1).collect();
        let first = special.iter().position(|s| !s)?;
        let last = special.iter().rposition(|s| !s)?;
        let ids = encoding.get_ids();
        let types = encoding.get_type_ids();
        let between: Vec<usize> = (first + 1..last).collect();
        // A pair has exactly two ordinary tokens, a single text one.
        if between.iter().any(|&i| !special[i]) {
            return None;
        }
        Some(Self {
            before: ids[..first].to_vec(),
            between_first: between.iter().filter(|&&i| types[i] == 0).count(),
            between: between.iter().map(|&i| ids[i]).collect(),
            after: ids[last + 1..].to_vec(),
        })
    }

    fn wrap(&self, first: &[u32], second: Option<&[u32]>) -> Sequence {
        let mut ids = Vec::with_capacity(self.len() + first.len() + second.map_or(0, <[u32]>::len));
        ids.extend_from_slice(&self.before);
        ids.extend_from_slice(first);
        let mut second_from = None;
        if let Some(second) = second {
            ids.extend_from_slice(&self.between[..self.between_first]);
            second_from = Some(ids.len());
            ids.extend_from_slice(&self.between[self.between_first..]);
            ids.extend_from_slice(second);
        }
        ids.extend_from_slice(&self.after);
        let second_from = second_from.unwrap_or(ids.len());
        Sequence { ids, second_from }
    }
}

fn refused(e: tokenizers::Error) -> Error {
    Error::usage(format!("the tokenizer refused a text: {e}"))
}
