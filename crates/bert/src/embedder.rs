//! Embedder: texts to vectors, with prompts by role, truncation, pooling and normalization.

use crate::batching::{longest, overlapped};
use crate::config::EncoderConfig;
use crate::encoder::{Encoder, Encoders};
use crate::error::{Error, Result};
use crate::model_files::{ModelFiles, unusable};
use crate::modules::{EmbedConfig, Modules, Similarity, Step};
pub use crate::pooling::normalize;
use crate::pooling::{Output, Pooling};
use crate::tokenizer::{Sequence, TokenMeter, Tokenized, Tokenizer};
use crate::tokenizer_settings::TokenizerSettings;
use rayon::prelude::*;
use std::collections::BTreeMap;
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
    pub(crate) encoder_config: EncoderConfig,
    /// First tokens that pooling leaves out, by role: those of the prompt.
    n_skipped: [usize; 3],
}

/// Options for opening an [`Embedder`].
#[derive(Debug, Clone, Default)]
pub struct EmbedderOptions {
    /// Settings that override those of the folder, for models whose manifest entry states them.
    pub known: Option<KnownEmbedder>,
    /// The first dimensions of vectors that are kept, for models that were trained for it
    /// (Kusupati et al. 2022, "Matryoshka"); none for all.
    pub dimensions: Option<usize>,
}

/// Settings of a listed embedder.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownEmbedder {
    /// Pooling of token vectors.
    pub pooling: Pooling,
    /// True to scale vectors to unit length.
    pub normalize: bool,
    /// The longest text in tokens, special tokens included.
    pub max_tokens: usize,
    /// Prompt in front of a query.
    pub query_prompt: String,
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
    /// A text of neither role, which has no prompt; it is computed as a passage is.
    Plain,
}

/// The choice to scale vectors to unit length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalize {
    /// As the model folder configures it.
    AsConfigured,
    /// Always, as an index that ranks by the cosine requires.
    Always,
    /// Always for a model of [`Similarity::Cosine`], as configured for one of [`Similarity::Dot`]:
    /// as a new index requires.
    BySimilarity,
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
    /// Opens an embedder.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the folder is incomplete or of an unsupported kind, with the
    /// name of the setting; [`Error::Usage`] for more dimensions than the model has.
    pub fn open(
        files: impl Into<ModelFiles>,
        options: EmbedderOptions,
        normalize: Normalize,
        compute: ComputeOptions,
    ) -> Result<Self> {
        let files = files.into();
        let modules = Modules::read(&files)?;
        let encoder = EncoderConfig::read(&modules.encoder)?;
        let tokenizer = Tokenizer::open(&modules.encoder)?;
        let limit = tokenizer.max_tokens();
        let mut config = configuration(&files, &modules, &encoder, limit, options.known)?;
        if let Some(kept) = options.dimensions {
            let dim = config.dim(encoder.hidden_size);
            if !(1..=dim).contains(&kept) {
                return Err(Error::usage(format!(
                    "{kept} dimensions: vectors of this model have {dim}; give 1 to {dim}"
                )));
            }
            config.truncate_dim = Some(kept).filter(|&kept| kept < dim).or(config.truncate_dim);
        }
        // sentence-transformers scales vectors before it shortens them; vectors that are shortened
        // here, or always scaled, are scaled at the end.
        let at_end = config.truncate_dim.is_none() || options.dimensions.is_some();
        if config.normalize && !at_end {
            config.steps.push(Step::Normalize);
        }
        let always = match normalize {
            Normalize::AsConfigured => false,
            Normalize::Always => true,
            Normalize::BySimilarity => config.similarity == Similarity::Cosine,
        };
        config.normalize = always || config.normalize && at_end;
        if config.max_tokens <= tokenizer.n_special() {
            let reason = format!("a limit of {} tokens leaves no room for text", config.max_tokens);
            return Err(unusable(&files, reason));
        }
        let encoders = Encoders::open(&modules.encoder, &encoder, compute)?;
        if encoders.has_head() && !modules.has_pooling() {
            let reason = "this is a cross-encoder, which makes no vectors; name it with --reranker";
            return Err(unusable(&files, reason));
        }
        let dim = config.dim(encoder.hidden_size);
        let mut embedder =
            Self { tokenizer, encoders, config, dim, encoder_config: encoder, n_skipped: [0; 3] };
        embedder.n_skipped = [
            embedder.prompt_tokens(embedder.prompt(Role::Query))?,
            embedder.prompt_tokens(embedder.prompt(Role::Passage))?,
            0,
        ];
        Ok(embedder)
    }

    /// Reads the configuration of a folder, and the dimensions of its vectors. Opens neither the
    /// tokenizer nor the encoder's weights.
    ///
    /// # Errors
    ///
    /// As [`Embedder::open`].
    pub fn read_config(
        files: &ModelFiles,
        known: Option<KnownEmbedder>,
    ) -> Result<(EmbedConfig, usize)> {
        let modules = Modules::read(files)?;
        let encoder = EncoderConfig::read(&modules.encoder)?;
        let limit = TokenizerSettings::read(&modules.encoder)?.max_tokens()?;
        let config = configuration(files, &modules, &encoder, limit, known)?;
        let dim = config.dim(encoder.hidden_size);
        Ok((config, dim))
    }

    /// Returns the first tokens that pooling leaves out: those of the prompt, and the special ones
    /// in front of it, unless the prompt is pooled too.
    fn prompt_tokens(&self, prompt: &str) -> Result<usize> {
        if self.config.pooling.include_prompt || prompt.is_empty() {
            return Ok(0);
        }
        let tokens = self.tokenizer.single(prompt, self.config.max_tokens)?.sequence.ids.len();
        Ok(tokens - usize::from(self.tokenizer.ends_with_special()))
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
            Role::Plain => "",
        }
    }

    /// True if vectors are scaled to unit length.
    pub fn is_normalized(&self) -> bool {
        self.config.normalize
    }

    /// Returns the encoder's family, as `model_type` in `config.json` names it.
    pub fn family(&self) -> &'static str {
        self.encoder_config.family.model_type()
    }

    /// Returns the pooling of token states, as sentence-transformers names it: `mean`, `cls`.
    pub fn pooling(&self) -> String {
        self.config.pooling.name()
    }

    /// Returns the similarity that the vectors are for.
    pub fn similarity(&self) -> Similarity {
        self.config.similarity
    }

    /// Returns the configuration.
    pub fn config(&self) -> &EmbedConfig {
        &self.config
    }

    /// True if pooling leaves out the tokens of a prompt.
    pub fn skips_prompt(&self) -> bool {
        !self.config.pooling.include_prompt
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
        let prompt = options.prompt.unwrap_or(self.prompt(role));
        let n_skipped = match options.prompt {
            Some(prompt) => self.prompt_tokens(prompt)?,
            None => self.n_skipped[role as usize],
        };
        let mut embeddings = self.encode(texts, prompt, |sequences, _| {
            vectors.extend(self.pooled_until(sequences, role, n_skipped, options.stop)?);
            Ok(())
        })?;
        vectors.chunks_exact_mut(self.dim).for_each(|vector| self.finish(vector));
        embeddings.vectors = vectors;
        Ok(embeddings)
    }

    /// As [`Embedder::embed`], but leaves the vectors on the GPU, `stride` values apart; the
    /// returned [`Embeddings`] has none. Returns `None` if the encoder or a step behind it runs on
    /// the CPU.
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
        let Some(output) = self.config.pooling.output(self.n_skipped[role as usize]) else {
            return Ok(None);
        };
        if self.has_steps() {
            return Ok(None);
        }
        let Some(mut vectors) = encoder.allocate(texts.len(), stride)? else { return Ok(None) };
        let unit = self.config.normalize;
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
        let meter = TokenMeter::default();
        let tokenize = |texts: &[T]| self.tokenize_after(prompt, texts, &meter);
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
        self.tokenize_within(texts, role, &TokenMeter::default())
    }

    /// As [`Embedder::tokenize`], within the limit of `meter`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::batch_within`].
    pub fn tokenize_within<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        role: Role,
        meter: &TokenMeter,
    ) -> Result<Vec<Tokenized>> {
        self.tokenize_after(self.prompt(role), texts, meter)
    }

    fn tokenize_after<T: AsRef<str> + Sync>(
        &self,
        prompt: &str,
        texts: &[T],
        meter: &TokenMeter,
    ) -> Result<Vec<Tokenized>> {
        if prompt.is_empty() {
            return self.tokenizer.batch_within(texts, self.config.max_tokens, meter);
        }
        let texts: Vec<String> = texts.iter().map(|t| format!("{prompt}{}", t.as_ref())).collect();
        self.tokenizer.batch_within(&texts, self.config.max_tokens, meter)
    }

    /// Returns the vectors of sequences before the last normalization, `[n, dim]`: the second step
    /// of [`Embedder::embed`]. The sequences have the role's prompt.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a sequence that does not fit the model, [`Error::Compute`] if the
    /// encoder fails.
    pub fn pooled(&self, sequences: &[Sequence], role: Role) -> Result<Vec<f32>> {
        self.pooled_until(sequences, role, self.n_skipped[role as usize], None)
    }

    fn pooled_until(
        &self,
        sequences: &[Sequence],
        role: Role,
        n_skipped: usize,
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<f32>> {
        let encoder = self.encoder(role)?;
        let pooled = encoder.pooled_until(sequences, &self.config.pooling, n_skipped, stop)?;
        if !self.has_steps() {
            return Ok(pooled);
        }
        let width = self.config.pooling.modes.len() * self.encoder_config.hidden_size;
        let vectors = pooled.par_chunks_exact(width).flat_map_iter(|pooled| {
            let steps = self.config.steps.iter();
            let mut vector = steps.fold(pooled.to_vec(), |vector, step| step.apply(vector));
            vector.truncate(self.dim);
            vector
        });
        Ok(vectors.collect())
    }

    /// True if a pooled state is not yet the vector, but for its length.
    fn has_steps(&self) -> bool {
        !self.config.steps.is_empty() || self.config.truncate_dim.is_some()
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

    /// Returns the states of all tokens, special ones included, `[len, hidden size]` per sequence.
    ///
    /// # Errors
    ///
    /// As [`Embedder::pooled`].
    pub fn token_states(&self, sequences: &[Sequence], role: Role) -> Result<Vec<Vec<f32>>> {
        let all = self.encoder(role)?.forward(sequences, Output::Tokens)?;
        let width = self.encoder_config.hidden_size;
        let each = all.chunks_exact((longest(sequences) * width).max(1)).zip(sequences);
        Ok(each.map(|(states, s)| states[..s.ids.len() * width].to_vec()).collect())
    }

    fn encoder(&self, role: Role) -> Result<&Encoder> {
        match role {
            Role::Query => self.encoders.queries(),
            Role::Passage | Role::Plain => self.encoders.passages(),
        }
    }
}

/// Returns the configuration of an embedder: that of its folder, or what is known of it.
fn configuration(
    files: &ModelFiles,
    modules: &Modules,
    encoder: &EncoderConfig,
    limit: Option<usize>,
    known: Option<KnownEmbedder>,
) -> Result<EmbedConfig> {
    let config = match known {
        None => EmbedConfig::read(files, modules, encoder, limit)?,
        Some(known) => EmbedConfig {
            pooling: known.pooling,
            steps: Vec::new(),
            normalize: known.normalize,
            truncate_dim: None,
            max_tokens: known.max_tokens,
            prompts: BTreeMap::from([("query".to_owned(), known.query_prompt.clone())]),
            query_prompt: known.query_prompt,
            passage_prompt: String::new(),
            similarity: Similarity::default(),
        },
    };
    Ok(EmbedConfig { max_tokens: config.max_tokens.min(encoder.max_tokens), ..config })
}
