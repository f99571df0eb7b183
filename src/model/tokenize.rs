//! Texts to token sequences, with the special tokens of the model and without padding.

use super::builtin;
use super::encoder::config::unusable;
use crate::error::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::path::Path;

/// A tokenizer with the limits that warpseek sets: what `tokenizer.json` says of truncation and
/// padding is ignored.
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
    /// The first token of the second segment; `ids.len()` where there is only one.
    pub second_from: usize,
}

/// A text's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// What the encoder gets.
    pub sequence: Sequence,
    /// Tokens that did not fit.
    pub lost: usize,
}

/// The special tokens around one or two texts.
#[derive(Debug, Clone, Default)]
struct Template {
    before: Vec<u32>,
    between: Vec<u32>,
    after: Vec<u32>,
    /// Of `between`, how many belong to the first segment.
    between_first: usize,
}

/// A text cut at token borders, for windows over long passages.
#[derive(Debug, Clone)]
pub struct TokenSpans {
    /// Token ids without special tokens.
    pub ids: Vec<u32>,
    /// Per token the bytes of the text it stands for.
    pub spans: Vec<Range<usize>>,
}

/// One token of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPiece {
    /// Its id.
    pub id: u32,
    /// Its name in the vocabulary.
    pub token: String,
    /// The characters of the text it stands for; none for a special token.
    pub chars: Option<Range<usize>>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model folder.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] where the file is missing or cannot be understood.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("tokenizer.json");
        let bytes = builtin::read(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => unusable(
                &path,
                "the file is missing; save the model with a fast tokenizer to get it".to_owned(),
            ),
            _ => Error::io("read", &path)(e),
        })?;
        let fail = |e: tokenizers::Error| unusable(&path, format!("cannot be read ({e})"));
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(fail)?;
        inner.with_truncation(None).map_err(fail)?;
        inner.with_padding(None);
        let single = Template::of(&inner.encode("a", true).map_err(fail)?);
        let pair = Template::of(&inner.encode(("a", "a"), true).map_err(fail)?);
        let (Some(single), Some(pair)) = (single, pair) else {
            return Err(unusable(&path, "its special tokens cannot be understood".to_owned()));
        };
        Ok(Self { inner, single, pair })
    }

    /// Special tokens around one text.
    pub fn n_special(&self) -> usize {
        self.single.len()
    }

    /// Special tokens around a pair of texts.
    pub fn n_special_pair(&self) -> usize {
        self.pair.len()
    }

    /// The number of tokens of a text, special tokens not counted.
    pub fn count(&self, text: &str) -> usize {
        self.inner.encode_fast(text, false).map_or(0, |e| e.len())
    }

    /// One text, cut at `max_tokens` (special tokens included).
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the tokenizer refuses the text.
    pub fn single(&self, text: &str, max_tokens: usize) -> Result<Tokenized> {
        let encoding = self.inner.encode_fast(text, false).map_err(refused)?;
        let ids = encoding.get_ids();
        let kept = ids.len().min(max_tokens.saturating_sub(self.n_special()));
        let sequence = self.single.wrap(&ids[..kept], None);
        Ok(Tokenized { sequence, lost: ids.len() - kept })
    }

    /// One text as [`Tokenizer::single`] gives it, but cut at its beginning.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::single`].
    pub fn single_end(&self, text: &str, max_tokens: usize) -> Result<Tokenized> {
        let encoding = self.inner.encode_fast(text, false).map_err(refused)?;
        let ids = encoding.get_ids();
        let kept = ids.len().min(max_tokens.saturating_sub(self.n_special()));
        let sequence = self.single.wrap(&ids[ids.len() - kept..], None);
        Ok(Tokenized { sequence, lost: ids.len() - kept })
    }

    /// Whether these are the ids of a whole text, special tokens included, of this vocabulary.
    pub fn is_whole(&self, ids: &[u32]) -> bool {
        let Template { before, after, .. } = &self.single;
        let n = self.inner.get_vocab_size(true) as u32;
        ids.len() > self.n_special()
            && ids.starts_with(before)
            && ids.ends_with(after)
            && ids.iter().all(|&id| id < n)
    }

    /// A text's tokens one by one, with the special ones around them where `special` says so.
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

    /// The text that token ids stand for, as far as the vocabulary tells.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the tokenizer cannot say.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner
            .decode(ids, skip_special)
            .map_err(|e| Error::usage(format!("the tokenizer cannot decode this: {e}")))
    }

    /// Many texts, over the threads of the current rayon pool; see [`Tokenizer::single`].
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the tokenizer refuses a text.
    pub fn batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        max_tokens: usize,
    ) -> Result<Vec<Tokenized>> {
        texts.par_iter().map(|text| self.single(text.as_ref(), max_tokens)).collect()
    }

    /// A pair from token ids without special tokens.
    pub fn pair(&self, first: &[u32], second: &[u32]) -> Sequence {
        self.pair.wrap(first, Some(second))
    }

    /// A text's tokens and where each stands in the text.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] where the tokenizer refuses the text.
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

    /// Reads the template off an encoding of one-token texts.
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
