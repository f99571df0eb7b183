//! Embedder: texts to vectors, with prompts by role, truncation, pooling and normalization.

use crate::batching::{longest, overlapped};
use crate::config::{BertConfig, EmbedConfig, Pooling, unusable};
use crate::encoder::{Encoder, Encoders};
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::model_files::ModelFiles;
use crate::pooling::Output;
use crate::tokenizer::{Sequence, Tokenized, Tokenizer};
use crate::weights::Weights;
use std::sync::atomic::AtomicBool;
use warpseek_compute::device::ComputeOptions;
use warpseek_compute::gpu::DeviceVectors;

/// Texts per call of a GPU; the next ones are tokenized meanwhile.
const DEVICE_TEXTS: usize = 1024;

/// An embedding model, ready to run. May be shared between threads.
#[derive(Debug)]
pub struct Embedder {
    tokenizer: Tokenizer,
    encoders: Encoders,
    config: EmbedConfig,
    dim: usize,
}

/// Vectors of a list of texts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Embeddings {
    /// `[n, dim]`, row-major.
    pub vectors: Vec<f32>,
    /// Tokens of each text that were embedded, special tokens included.
    pub tokens: Vec<u32>,
    /// Truncated tokens of each text, beyond the model's limit.
    pub lost: Vec<u32>,
}

/// The role of a text: models may put a different prompt in front of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A search query.
    Query,
    /// A text that searches find.
    Passage,
}

/// The choice to scale vectors to unit length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalize {
    /// As the model folder configures it.
    AsConfigured,
    /// Always, as an index requires.
    Always,
}

/// Options of [`Embedder::embed_with`].
#[derive(Debug, Clone, Copy, Default)]
pub struct EmbedOptions<'a> {
    /// The prompt, instead of the role's own.
    pub prompt: Option<&'a str>,
    /// Set to true, it ends the call with [`Error::Interrupted`].
    pub stop: Option<&'a AtomicBool>,
}

impl Embedder {
    /// Opens an embedder. `known` overrides the folder's pooling, length and prompts, for models
    /// whose manifest entry states them.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the folder is incomplete or of an unsupported kind.
    pub fn open(
        files: impl Into<ModelFiles>,
        known: Option<EmbedConfig>,
        normalize: Normalize,
        compute: ComputeOptions,
    ) -> Result<Self> {
        let files = files.into();
        let bert = BertConfig::read(&files)?;
        let mut config = known.map_or_else(|| EmbedConfig::read(&files, &bert), Ok)?;
        config.max_tokens = config.max_tokens.min(bert.max_positions);
        config.normalize |= normalize == Normalize::Always;
        let tokenizer = Tokenizer::open(&files)?;
        if config.max_tokens <= tokenizer.n_special() {
            let reason = format!("a limit of {} tokens leaves no room for text", config.max_tokens);
            return Err(unusable(&files, reason));
        }
        if Weights::open(&files)?.has("classifier.weight") {
            let reason = "this is a cross-encoder, which makes no vectors; name it with --reranker";
            return Err(unusable(&files, reason));
        }
        let encoders = Encoders::open(&files, &bert, compute)?;
        Ok(Self { tokenizer, encoders, config, dim: bert.hidden_size })
    }

    /// Returns the number of dimensions of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the limit of a text in tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    /// Returns the tokens that a passage has beside its text: special tokens and the prompt.
    pub fn overhead(&self) -> usize {
        self.tokenizer.n_special() + self.tokenizer.count(&self.config.passage_prompt)
    }

    /// Returns the text that stands in front of every text of a role.
    pub fn prompt(&self, role: Role) -> &str {
        match role {
            Role::Query => &self.config.query_prompt,
            Role::Passage => &self.config.passage_prompt,
        }
    }

    /// True if vectors are scaled to unit length.
    pub fn is_normalized(&self) -> bool {
        self.config.normalize
    }

    /// Returns the pooling of token states: `mean` or `cls`.
    pub fn pooling(&self) -> &'static str {
        match self.config.pooling {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
        }
    }

    /// Returns the tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Describes the computation of passages, for messages.
    pub fn precision(&self) -> String {
        self.encoders.name()
    }

    /// Embeds texts. A text longer than [`Embedder::max_tokens`] is truncated, and its truncated
    /// tokens are counted.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer refuses a text, [`Error::Compute`] if the encoder fails.
    pub fn embed<T: AsRef<str> + Sync>(&self, texts: &[T], role: Role) -> Result<Embeddings> {
        self.embed_with(texts, role, EmbedOptions::default())
    }

    /// As [`Embedder::embed`], with options.
    ///
    /// # Errors
    ///
    /// As [`Embedder::embed`]; [`Error::Interrupted`] if it was stopped.
    pub fn embed_with<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        role: Role,
        options: EmbedOptions<'_>,
    ) -> Result<Embeddings> {
        let mut vectors = Vec::with_capacity(texts.len() * self.dim);
        let (encoder, output) = (self.encoder(role)?, self.output());
        let prompt = options.prompt.unwrap_or(self.prompt(role));
        let mut embeddings = self.encode(texts, prompt, |sequences, _| {
            vectors.extend(encoder.forward_until(sequences, output, options.stop)?);
            Ok(())
        })?;
        vectors.chunks_exact_mut(self.dim).for_each(|vector| self.finish(vector));
        embeddings.vectors = vectors;
        Ok(embeddings)
    }

    /// As [`Embedder::embed`], but leaves the vectors on the GPU, `stride` values apart; the
    /// returned [`Embeddings`] has none. Returns `None` if the encoder runs on the CPU.
    ///
    /// # Errors
    ///
    /// As [`Embedder::embed`].
    pub fn embed_on_device<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        role: Role,
        stride: usize,
    ) -> Result<Option<(DeviceVectors, Embeddings)>> {
        let encoder = self.encoder(role)?;
        let Some(mut vectors) = encoder.allocate(texts.len(), stride)? else { return Ok(None) };
        let (output, unit) = (self.output(), self.config.normalize);
        let embeddings = self.encode(texts, self.prompt(role), |sequences, first| {
            encoder.forward_on_device(sequences, output, unit, &mut vectors, first)
        })?;
        Ok(Some((vectors, embeddings)))
    }

    /// Tokenizes texts and passes some at a time to `run`, with the index of the first.
    fn encode<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        prompt: &str,
        mut run: impl FnMut(&[Sequence], usize) -> Result<()>,
    ) -> Result<Embeddings> {
        let mut embeddings = Embeddings::default();
        let on_device = self.is_on_device();
        let part = if on_device { DEVICE_TEXTS } else { texts.len().max(1) };
        let tokenize = |texts: &[T]| self.tokenize_after(prompt, texts);
        overlapped(texts.chunks(part), on_device, tokenize, |tokenized| {
            let first = embeddings.tokens.len();
            embeddings.tokens.extend(tokenized.iter().map(|text| text.sequence.ids.len() as u32));
            embeddings.lost.extend(tokenized.iter().map(|text| text.lost as u32));
            let sequences: Vec<_> = tokenized.into_iter().map(|text| text.sequence).collect();
            run(&sequences, first)
        })?;
        Ok(embeddings)
    }

    /// True if it runs on a GPU.
    pub fn is_on_device(&self) -> bool {
        self.encoders.is_on_device()
    }

    /// Returns a good number of passages per call.
    pub fn batch_texts(&self) -> usize {
        if self.is_on_device() { 4 * DEVICE_TEXTS } else { 128 }
    }

    /// Tokenizes texts, with the prompt of their role and special tokens, truncated to
    /// [`Embedder::max_tokens`]: the first step of [`Embedder::embed`].
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer refuses a text.
    pub fn tokenize<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        role: Role,
    ) -> Result<Vec<Tokenized>> {
        self.tokenize_after(self.prompt(role), texts)
    }

    fn tokenize_after<T: AsRef<str> + Sync>(
        &self,
        prompt: &str,
        texts: &[T],
    ) -> Result<Vec<Tokenized>> {
        if prompt.is_empty() {
            return self.tokenizer.batch(texts, self.config.max_tokens);
        }
        let texts: Vec<String> = texts.iter().map(|t| format!("{prompt}{}", t.as_ref())).collect();
        self.tokenizer.batch(&texts, self.config.max_tokens)
    }

    /// Returns the pooled states of sequences, `[n, dim]`: the second step of [`Embedder::embed`].
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a sequence that does not fit the model, [`Error::Compute`] if the
    /// encoder fails.
    pub fn pooled(&self, sequences: &[Sequence], role: Role) -> Result<Vec<f32>> {
        self.encoder(role)?.forward(sequences, self.output())
    }

    fn output(&self) -> Output {
        match self.config.pooling {
            Pooling::Mean => Output::Mean,
            Pooling::Cls => Output::Cls,
        }
    }

    /// Returns the seconds of a GPU's kernels for sequences, by step; nothing on a CPU.
    ///
    /// # Errors
    ///
    /// As [`Embedder::pooled`].
    pub fn profile(&self, sequences: &[Sequence]) -> Result<Vec<(&'static str, f64)>> {
        self.encoder(Role::Passage)?.profile(sequences)
    }

    /// Turns a pooled state into the vector, normalized if configured: the last step of
    /// [`Embedder::embed`].
    pub fn finish(&self, pooled: &mut [f32]) {
        if self.config.normalize {
            normalize(pooled);
        }
    }

    /// Returns the states of all tokens, special ones included, `[len, dim]` per sequence.
    ///
    /// # Errors
    ///
    /// As [`Embedder::pooled`].
    pub fn token_states(&self, sequences: &[Sequence], role: Role) -> Result<Vec<Vec<f32>>> {
        let all = self.encoder(role)?.forward(sequences, Output::Tokens)?;
        let each = all.chunks_exact((longest(sequences) * self.dim).max(1)).zip(sequences);
        Ok(each.map(|(states, s)| states[..s.ids.len() * self.dim].to_vec()).collect())
    }

    fn encoder(&self, role: Role) -> Result<&Encoder> {
        match role {
            Role::Query => self.encoders.queries(),
            Role::Passage => self.encoders.passages(),
        }
    }
}

/// Scales a vector to unit length; a zero vector stays zero.
///
/// The squares are summed in float64 in 16 lanes, then lanes 8, 4, 2 and 1 apart are added, as
/// `kernels/encoder.cu` does: a vector has the same bits on every device.
pub fn normalize(vector: &mut [f32]) {
    let mut sums = [0f64; 16];
    for values in vector.chunks(16) {
        sums.iter_mut().zip(values).for_each(|(sum, &v)| *sum += f64::from(v).powi(2));
    }
    for apart in [8, 4, 2, 1] {
        (0..apart).for_each(|i| sums[i] += sums[i + apart]);
    }
    let norm = sums[0].sqrt();
    if norm > 0.0 {
        let scale = 1.0 / norm;
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
    }
}
