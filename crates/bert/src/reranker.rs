//! Reranker: query and passage to a relevance score, by a cross-encoder.
//!
//! A passage too long for the model is read in overlapping windows. Its score is that of its best
//! window, whose byte range is returned.

use crate::batching::overlapped;
use crate::config::EncoderConfig;
use crate::encoder::Encoder;
use crate::encoder_weights::EncoderWeights;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::model_files::{ModelFiles, unusable};
use crate::modules::Modules;
use crate::pooling::Output;
use crate::tokenizer::{Sequence, TokenMeter, TokenSpans, Tokenizer};
use crate::tokenizer_settings::TokenizerSettings;
use crate::weights::Weights;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use warpseek_compute::device::ComputeOptions;

/// Tokens shared by two neighbouring windows, of which they are at most half.
const WINDOW_OVERLAP: usize = 64;

/// Jobs per call of a GPU; the next ones are tokenized meanwhile.
const DEVICE_JOBS: usize = 16;

/// A cross-encoder, ready to run. May be shared between threads.
#[derive(Debug)]
pub struct Reranker {
    tokenizer: Tokenizer,
    encoder: Encoder,
    max_tokens: usize,
    retriever_weight: f32,
    calibration: Option<Calibration>,
}

/// The combination of a reranker's logit with a cosine, fitted for one embedder: the key
/// `cosine * cos + logit` orders passages, and `sigmoid(scale * key + offset)` is the probability
/// that one is relevant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Calibration {
    /// Weight of the cosine in the key; the logit has the weight 1.
    pub cosine: f64,
    /// Slope of the probability's logit.
    pub scale: f64,
    /// The logit of the probability at a key of 0.
    pub offset: f64,
}

impl Calibration {
    /// Returns the key that orders passages; higher is more relevant.
    pub fn key(&self, cosine: f32, logit: f32) -> f64 {
        self.cosine * f64::from(cosine) + f64::from(logit)
    }

    /// Returns the probability of relevance at a key.
    pub fn probability(&self, key: f64) -> f64 {
        1.0 / (1.0 + (-(self.scale * key + self.offset)).exp())
    }
}

/// The relevance of a passage.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PassageScore {
    /// The model's output; higher is more relevant.
    pub logit: f32,
    /// The sigmoid of the logit, 0..1.
    pub score: f32,
    /// The bytes of the passage that the best window covers.
    pub window: Range<usize>,
    /// Windows of the passage.
    pub n_windows: usize,
}

/// Passages to score against one query.
#[derive(Debug, Clone)]
pub struct RerankJob<'a> {
    /// The query.
    pub query: &'a str,
    /// The passages.
    pub passages: Vec<&'a str>,
}

/// The outcome of a [`RerankJob`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RerankScores {
    /// Scores in the order of the passages.
    pub scores: Vec<PassageScore>,
    /// Truncated tokens of the query.
    pub query_tokens_lost: usize,
}

/// The windows of a [`RerankJob`].
#[derive(Debug, Clone)]
pub struct RerankPlan {
    windows: Vec<Vec<Range<usize>>>,
    query_tokens_lost: usize,
}

impl Reranker {
    /// Opens a cross-encoder. Query and passage have at most `max_tokens` tokens together, or, if
    /// that is none, as many as the folder's files state or the encoder takes.
    ///
    /// # Errors
    ///
    /// [`Error::ModelUnavailable`] if the folder is incomplete, or its model is not a sequence
    /// classifier with one output.
    pub fn open(
        files: impl Into<ModelFiles>,
        max_tokens: Option<usize>,
        compute: ComputeOptions,
    ) -> Result<Self> {
        let files = files.into();
        let modules = Modules::read(&files)?;
        let config = EncoderConfig::read(&modules.encoder)?;
        let fail = |reason: String| unusable(&files, reason);
        let weights = Weights::open(&modules.encoder)?;
        if !EncoderWeights::new(&weights, &config).has_head() {
            return Err(unusable(&files, "it has no classifier: not a cross-encoder"));
        }
        modules.check_cross_encoder(&files)?;
        let n = config.n_labels;
        if n != 1 {
            return Err(fail(format!("its classifier has {n} outputs; a reranker has one")));
        }
        let tokenizer = Tokenizer::open(&modules.encoder)?;
        let limit = max_tokens.or(tokenizer.max_tokens()).unwrap_or(config.max_tokens);
        let max_tokens = limit.min(config.max_tokens);
        if max_tokens < tokenizer.n_special_pair() + 2 {
            return Err(fail(format!("{max_tokens} tokens leave no room for a pair of texts")));
        }
        let encoder = Encoder::open(&modules.encoder, &config, compute)?;
        Ok(Self { tokenizer, encoder, max_tokens, retriever_weight: 0.0, calibration: None })
    }

    /// Reads the limit of a pair from a folder's files, as [`Reranker::open`] does, without opening
    /// the tokenizer or the weights.
    ///
    /// # Errors
    ///
    /// As [`Reranker::open`].
    pub fn read_limit(files: &ModelFiles, max_tokens: Option<usize>) -> Result<usize> {
        let modules = Modules::read(files)?;
        let config = EncoderConfig::read(&modules.encoder)?;
        let stated = TokenizerSettings::read(&modules.encoder)?.max_tokens()?;
        Ok(max_tokens.or(stated).unwrap_or(config.max_tokens).min(config.max_tokens))
    }

    /// Sets [`Reranker::retriever_weight`].
    #[must_use]
    pub fn with_retriever_weight(self, retriever_weight: f32) -> Self {
        Self { retriever_weight, ..self }
    }

    /// Sets [`Reranker::calibration`].
    #[must_use]
    pub fn with_calibration(self, calibration: Option<Calibration>) -> Self {
        Self { calibration, ..self }
    }

    /// Returns the combination with the cosines of all-MiniLM-L6-v2, if it was fitted.
    pub fn calibration(&self) -> Option<Calibration> {
        self.calibration
    }

    /// Returns the default weight of the retrieval score beside this model's score, 0..=1, for
    /// searches that do not set one.
    pub fn retriever_weight(&self) -> f32 {
        self.retriever_weight
    }

    /// Returns the limit of a pair in tokens, special tokens included.
    pub fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Scores passages against a query.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer refuses a text, [`Error::Compute`] if the encoder fails.
    pub fn score(&self, query: &str, passages: &[&str]) -> Result<RerankScores> {
        let job = RerankJob { query, passages: passages.to_vec() };
        Ok(self.score_batch(std::slice::from_ref(&job))?.pop().unwrap_or_default())
    }

    /// Scores the passages of several queries together, which keeps all threads busy.
    ///
    /// # Errors
    ///
    /// As [`Reranker::score`].
    pub fn score_batch(&self, jobs: &[RerankJob<'_>]) -> Result<Vec<RerankScores>> {
        self.score_batch_until(jobs, None)
    }

    /// As [`Reranker::score_batch`], unless `stop` becomes true meanwhile.
    ///
    /// # Errors
    ///
    /// As [`Reranker::score`]; [`Error::Interrupted`] if it was stopped.
    pub fn score_batch_until(
        &self,
        jobs: &[RerankJob<'_>],
        stop: Option<&AtomicBool>,
    ) -> Result<Vec<RerankScores>> {
        let on_device = self.is_on_device();
        let part = if on_device { DEVICE_JOBS } else { jobs.len().max(1) };
        let plan = |jobs: &[RerankJob<'_>]| -> Result<Vec<(RerankPlan, Vec<Sequence>)>> {
            jobs.iter().map(|job| self.plan(job)).collect()
        };
        let mut scores = Vec::with_capacity(jobs.len());
        overlapped(jobs.chunks(part), on_device, plan, |planned| {
            let (plans, sequences): (Vec<_>, Vec<_>) = planned.into_iter().unzip();
            let sequences: Vec<Sequence> = sequences.into_iter().flatten().collect();
            let logits = self.encoder.forward_until(&sequences, Output::Logit, stop)?;
            let mut logits = logits.into_iter();
            scores.extend(plans.into_iter().map(|plan| plan.scores(&mut logits)));
            Ok(())
        })?;
        Ok(scores)
    }

    /// Returns the windows of a job as encoder input: the first step of [`Reranker::score`].
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer refuses a text.
    pub fn plan(&self, job: &RerankJob<'_>) -> Result<(RerankPlan, Vec<Sequence>)> {
        self.plan_within(job, &TokenMeter::default())
    }

    /// As [`Reranker::plan`], within the limit of `meter`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::batch_within`].
    pub fn plan_within(
        &self,
        job: &RerankJob<'_>,
        meter: &TokenMeter,
    ) -> Result<(RerankPlan, Vec<Sequence>)> {
        let query = self.tokenizer.spans_within(job.query, meter)?.ids;
        let room = self.max_tokens - self.tokenizer.n_special_pair();
        let kept = &query[..query.len().min(room / 2)];
        let windows = (job.passages.par_iter())
            .map(|passage| self.windows(&query, kept, room, passage, meter))
            .collect::<Result<Vec<_>>>()?;
        let lost = windows.iter().map(|(_, query_tokens_lost)| *query_tokens_lost).max();
        let mut sequences = Vec::with_capacity(windows.len());
        let windows = windows.into_iter().map(|(windows, _)| {
            let (of_passage, ranges): (Vec<_>, Vec<_>) = windows.into_iter().unzip();
            sequences.extend(of_passage);
            ranges
        });
        let windows = windows.collect();
        Ok((RerankPlan { windows, query_tokens_lost: lost.unwrap_or(0) }, sequences))
    }

    /// Returns the text of the first `most` tokens of a passage, and the number of tokens after
    /// them, within the limit of `meter`.
    ///
    /// # Errors
    ///
    /// As [`Tokenizer::batch_within`].
    pub fn first_tokens<'a>(
        &self,
        passage: &'a str,
        most: usize,
        meter: &TokenMeter,
    ) -> Result<(&'a str, usize)> {
        let (end, lost) = self.tokenizer.end_of_first(passage, most, meter)?;
        Ok((passage.get(..end).unwrap_or(passage), lost))
    }

    /// Returns the limit of a passage in tokens, from a limit of tokens, of windows beside `query`,
    /// or both.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the tokenizer refuses the query.
    pub fn windows_to_tokens(
        &self,
        tokens: Option<usize>,
        windows: Option<usize>,
        query: &str,
    ) -> Result<Option<usize>> {
        let Some(windows) = windows else { return Ok(tokens) };
        let room = self.max_tokens - self.tokenizer.n_special_pair();
        let size = room - self.tokenizer.spans(query)?.ids.len().min(room / 2);
        let more = windows.saturating_sub(1).saturating_mul(size - overlap(size));
        Ok(Some((size.saturating_add(more)).min(tokens.unwrap_or(usize::MAX))))
    }

    /// True if it runs on a GPU.
    pub fn is_on_device(&self) -> bool {
        self.encoder.is_on_device()
    }

    /// Returns a good number of pairs per call.
    pub fn batch_pairs(&self) -> usize {
        if self.is_on_device() { 2048 } else { 100 }
    }

    /// Returns the logit of each window: the second step of [`Reranker::score`].
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for a sequence that does not fit the model, [`Error::Compute`] if the
    /// encoder fails.
    pub fn logits(&self, sequences: &[Sequence]) -> Result<Vec<f32>> {
        self.encoder.forward(sequences, Output::Logit)
    }

    /// Divides a passage into windows: one if query and passage fit together, else overlapping
    /// ones. The query takes at most half of the limit. Returns the windows with their bytes, and
    /// the truncated tokens of the query.
    fn windows(
        &self,
        query: &[u32],
        kept: &[u32],
        room: usize,
        passage: &str,
        meter: &TokenMeter,
    ) -> Result<(Vec<Window>, usize)> {
        let TokenSpans { ids, spans } = self.tokenizer.spans_within(passage, meter)?;
        if query.len() + ids.len() <= room {
            return Ok((vec![(self.tokenizer.pair(query, &ids), 0..passage.len())], 0));
        }
        let size = room - kept.len();
        let step = size - overlap(size);
        // The last window is a full one too, as far as the text goes.
        let last = ids.len().saturating_sub(size);
        let windows = (0..=last.div_ceil(step)).map(|i| {
            let start = last.min(i * step);
            let tokens = start..ids.len().min(start + size);
            let spans = &spans[tokens.clone()];
            let first = spans.first().map_or(0, |span| span.start);
            let bytes = first..spans.last().map_or(0, |span| span.end);
            (self.tokenizer.pair(kept, &ids[tokens]), bytes)
        });
        Ok((windows.collect(), query.len() - kept.len()))
    }
}

/// Returns the tokens that windows of `size` tokens share with the next one.
fn overlap(size: usize) -> usize {
    WINDOW_OVERLAP.min(size / 2)
}

/// A pair of query and window, and the bytes of the window in its passage.
type Window = (Sequence, Range<usize>);

impl RerankPlan {
    /// Returns the windows of each passage, in bytes of the passage.
    pub fn windows(&self) -> &[Vec<Range<usize>>] {
        &self.windows
    }

    /// Takes the logits of all windows in order and keeps the best of each passage: the last step
    /// of [`Reranker::score`].
    pub fn scores(self, logits: &mut impl Iterator<Item = f32>) -> RerankScores {
        let mut scores = Vec::with_capacity(self.windows.len());
        for ranges in self.windows {
            let n_windows = ranges.len();
            let mut best: Option<(f32, Range<usize>)> = None;
            for (logit, range) in logits.by_ref().take(n_windows).zip(ranges) {
                if best.as_ref().is_none_or(|(b, _)| logit > *b) {
                    best = Some((logit, range));
                }
            }
            if let Some((logit, window)) = best {
                scores.push(PassageScore { logit, score: sigmoid(logit), window, n_windows });
            }
        }
        RerankScores { scores, query_tokens_lost: self.query_tokens_lost }
    }
}

/// Returns `1 / (1 + exp(-x))`.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
