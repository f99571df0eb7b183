//! The packed encoder on the CPU: all families over sequences that lie end to end, without padding.
//!
//! Padding wastes work: in a batch of texts of 5 to 256 tokens most of a padded matrix is zeros.
//! Here the tokens of a micro-batch form one matrix `[tokens, hidden]`; only attention looks at
//! sequence boundaries (`cu_seqlens` in other implementations: the running sum of lengths, here
//! implied by the order), and position ids restart at each sequence.
//!
//! ```text
//! sort sequences by length, divide them into micro-batches of about 256 tokens
//! for each micro-batch, in parallel, each on one thread:
//!     x = layer norm(words[id] + positions[i] + types[t])           [tokens, hidden]
//!     for each layer:
//!         qkv = x Wqkv                                              one GEMM, [tokens, 3 hidden]
//!         context = attention(qkv), per sequence and head
//!         x = layer norm(x + context Wo)                            residual added by the GEMM
//!         x = layer norm(x + gelu(x Wup) Wdown)
//!     in the last layer only the CLS token, if that is all the output needs
//!     pool x into the output
//! ```
//!
//! This is the family BERT in float32; bfloat16 and int8 have steps of their own
//! (`low_precision`). Other families have norms in front of the blocks, a gate in the feed-forward
//! block, rotary positions, a relative attention bias, or embeddings narrower than x.
//!
//! A micro-batch stays on one thread through all layers, so that its activations stay in that
//! core's cache and threads never wait for each other.

use crate::activation::Activation;
use crate::attention::{Attention, AttentionScratch};
use crate::batching::micro_batches;
use crate::compute_type::ComputeType;
use crate::config::EncoderConfig;
use crate::encoder_weights::{EncoderWeights, LayerNorms};
use crate::error::Result;
use crate::linear::{Linear, LinearScratch};
use crate::linear_input::{LayerInput, RoundedRows};
use crate::pooling::{NeededStates, Pooler};
use crate::tokenizer::Sequence;
use crate::vector_ops::VectorOps;
use crate::weights::{Affine, WeightTable, Weights};
use rayon::prelude::*;
use std::sync::Arc;

/// Tokens of a micro-batch in float32: its GEMM packs the weights anew for each micro-batch, which
/// pays off for many tokens.
const F32_BATCH_TOKENS: usize = 512;

/// Tokens of a micro-batch in bfloat16 and int8: enough for fast products, few enough for the
/// cache.
const BATCH_TOKENS: usize = 256;

/// The weights of an encoder.
#[derive(Debug)]
pub(crate) struct PackedEncoder {
    pub(crate) config: EncoderConfig,
    pub(crate) compute: ComputeType,
    pub(crate) ops: VectorOps,
    pub(crate) attention: Attention,
    /// Source of the word embeddings, which are read one token at a time.
    weights: Arc<Weights>,
    positions: Vec<f32>,
    token_types: Vec<f32>,
    norm: Affine,
    projection: Option<Linear>,
    pub(crate) layers: Vec<Layer>,
    final_norm: Option<Affine>,
}

#[derive(Debug)]
pub(crate) struct Layer {
    /// Queries, keys and values in one product.
    pub(crate) qkv: Linear,
    pub(crate) attention_out: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
    pub(crate) norms: LayerNorms,
}

/// Activations of one micro-batch, reused over layers and micro-batches.
#[derive(Default)]
pub(crate) struct LayerBuffers {
    /// `[tokens, hidden]`: input and output of a layer.
    pub(crate) x: Vec<f32>,
    /// `[tokens, 3 hidden]`.
    pub(crate) qkv: Vec<f32>,
    /// `[tokens, hidden]`.
    pub(crate) context: Vec<f32>,
    /// The normed input of a block, where the norm is in front of it; `[tokens, hidden]`.
    pub(crate) normed: Vec<f32>,
    /// `[tokens of a feed-forward step, outputs of its first layer]`.
    pub(crate) wide: Vec<f32>,
    /// The input of a product, `[tokens, hidden]`, in bfloat16 or int8.
    pub(crate) input: LayerInput,
    /// As `qkv`, in bfloat16.
    pub(crate) rounded_qkv: RoundedRows,
    /// The input of the second product of the feed-forward block, in bfloat16 or int8.
    pub(crate) wide_input: LayerInput,
    pub(crate) linear: LinearScratch,
    pub(crate) attention: AttentionScratch,
}

impl PackedEncoder {
    pub(crate) fn new(
        weights: &Arc<Weights>,
        config: &EncoderConfig,
        compute: ComputeType,
    ) -> Result<Self> {
        let from = EncoderWeights::new(weights, config);
        let layer = |i: usize| -> Result<Layer> {
            let norms = from.norms(i)?;
            let before_up = norms.before_feed_forward.as_ref().or(norms.after_attention.as_ref());
            Ok(Layer {
                qkv: Linear::new(from.qkv(i)?, Some(&from.norm_of_input(i)?), compute),
                attention_out: Linear::new(from.attention_out(i)?, None, compute),
                up: Linear::new(from.up(i)?, before_up, compute),
                down: Linear::new(from.down(i)?, None, compute),
                norms,
            })
        };
        let norm = from.embedding_norm()?;
        let project = |affine| Linear::new(affine, Some(&norm), compute);
        Ok(Self {
            positions: from.positions()?,
            token_types: from.token_types()?,
            projection: from.projection()?.map(project),
            layers: (0..config.n_layers).into_par_iter().map(layer).collect::<Result<_>>()?,
            final_norm: from.final_norm()?,
            attention: Attention::new(config, &from.relative_bias()?, compute),
            norm,
            config: config.clone(),
            ops: VectorOps::of(compute.kernels()),
            compute,
            weights: Arc::clone(weights),
        })
    }

    /// See [`crate::encoder::Encoder::forward`], which checks the sequences.
    pub(crate) fn forward(&self, sequences: &[Sequence], pool: Pooler<'_>) -> Result<Vec<f32>> {
        let (states, n_out) = (pool.needs(), pool.n_out);
        let words = EncoderWeights::new(&self.weights, &self.config).words()?;
        let total: usize = sequences.iter().map(|s| s.ids.len()).sum();
        // Few tokens are spread over the threads rather than packed into one micro-batch.
        let most = if self.is_f32() { F32_BATCH_TOKENS } else { BATCH_TOKENS };
        let tokens = total.div_ceil(rayon::current_num_threads()).clamp(64, most);
        let batches = micro_batches(sequences, tokens);
        let pooled: Vec<Vec<f32>> = batches
            .par_iter()
            .map_init(LayerBuffers::default, |space, batch| {
                if pool.is_stopped() {
                    return Vec::new();
                }
                let batch: Vec<&Sequence> = batch.iter().map(|&i| &sequences[i]).collect();
                self.encode(&batch, states, words, space);
                let mut out = vec![0f32; batch.len() * n_out];
                let mut start = 0;
                for (sequence, out) in batch.iter().zip(out.chunks_exact_mut(n_out)) {
                    let len = states.rows(sequence) * self.config.hidden_size;
                    pool.apply(&space.x[start..start + len], out);
                    start += len;
                }
                out
            })
            .collect();
        let mut out = vec![0f32; sequences.len() * n_out];
        for (batch, pooled) in batches.iter().zip(pooled) {
            for (&i, values) in batch.iter().zip(pooled.chunks_exact(n_out)) {
                out[i * n_out..(i + 1) * n_out].copy_from_slice(values);
            }
        }
        Ok(out)
    }

    /// Runs all layers. The needed hidden states end in `space.x`.
    fn encode(
        &self,
        batch: &[&Sequence],
        needed: NeededStates,
        words: WeightTable<'_>,
        space: &mut LayerBuffers,
    ) {
        let hidden = self.config.hidden_size;
        self.embed_tokens(batch, words, space);
        if !self.is_f32() {
            self.encode_low(batch, needed, space);
            return self.normalize(&mut space.x, self.final_norm.as_ref());
        }
        space.qkv.resize(space.x.len() * 3, 0.0);
        space.context.resize(space.x.len(), 0.0);
        for (i, layer) in self.layers.iter().enumerate() {
            let LayerBuffers { x, qkv, context, normed, linear, attention, .. } = space;
            let input = self.normed(x, layer.norms.before_attention.as_ref(), normed);
            layer.qkv.apply(input, qkv, false, linear);
            let states = if i + 1 == self.layers.len() { needed } else { NeededStates::All };
            if states == NeededStates::First {
                keep_first(batch, x, hidden);
                context.truncate(x.len());
            }
            self.attention.apply(i, batch, states, qkv, context, attention);
            // The residual is already in x.
            layer.attention_out.apply(context, x, true, linear);
            self.normalize(x, layer.norms.after_attention.as_ref());
            self.feed_forward(layer, space);
        }
        self.normalize(&mut space.x, self.final_norm.as_ref());
    }

    fn feed_forward(&self, layer: &Layer, space: &mut LayerBuffers) {
        let config = &self.config;
        let hidden = config.hidden_size;
        let LayerBuffers { x, normed, wide, linear, .. } = space;
        for x in x.chunks_mut(F32_BATCH_TOKENS * hidden) {
            let input = self.normed(x, layer.norms.before_feed_forward.as_ref(), normed);
            wide.resize(x.len() / hidden * layer.up.n_out(), 0.0);
            layer.up.apply(input, wide, false, linear);
            if config.is_gated {
                let len = gate(wide, config.intermediate_size, |values| self.activate(values));
                wide.truncate(len);
            } else {
                self.activate(wide);
            }
            layer.down.apply(wide, x, true, linear);
            self.normalize(x, layer.norms.after_feed_forward.as_ref());
        }
    }

    /// Applies the activation function of the feed-forward block.
    pub(crate) fn activate(&self, values: &mut [f32]) {
        let ops = &self.ops;
        match self.config.activation {
            Activation::Gelu if self.is_f32() => (ops.gelu)(values),
            Activation::Gelu => (ops.gelu_fast)(values),
            Activation::GeluTanh => (ops.gelu_tanh)(values),
            other => values.iter_mut().for_each(|v| *v = other.apply(*v)),
        }
    }

    /// Returns the input of a block: x, or its norm in `space`.
    pub(crate) fn normed<'a>(
        &self,
        x: &'a [f32],
        norm: Option<&Affine>,
        space: &'a mut Vec<f32>,
    ) -> &'a [f32] {
        let Some(norm) = norm else { return x };
        space.clear();
        space.extend_from_slice(x);
        self.normalize(space, Some(norm));
        space
    }

    fn is_f32(&self) -> bool {
        matches!(self.compute, ComputeType::F32(_))
    }

    fn embed_tokens(&self, batch: &[&Sequence], words: WeightTable<'_>, space: &mut LayerBuffers) {
        let Self { config, .. } = self;
        let width = config.embedding_size;
        let tokens: usize = batch.iter().map(|s| s.ids.len()).sum();
        let LayerBuffers { x, normed, linear, .. } = space;
        let embeddings = if self.projection.is_some() { &mut *normed } else { &mut *x };
        embeddings.resize(tokens * width, 0.0);
        let last_type = config.n_token_types.max(1) - 1;
        let entry = |i: usize| i * width..(i + 1) * width;
        let mut rows = embeddings.chunks_exact_mut(width);
        for sequence in batch {
            let positions = config.positions(&sequence.ids).enumerate();
            for ((i, position), row) in positions.zip(&mut rows) {
                words.read(sequence.ids[i] as usize, row);
                let kind = usize::from(i >= sequence.second_from).min(last_type);
                let kind = self.token_types.get(entry(kind));
                let position = self.positions.get(entry(position));
                match (kind, position) {
                    (Some(kind), Some(position)) => {
                        let both = kind.iter().zip(position);
                        row.iter_mut().zip(both).for_each(|(v, (t, p))| *v += t + p);
                    }
                    (Some(one), None) | (None, Some(one)) => {
                        row.iter_mut().zip(one).for_each(|(v, e)| *v += e);
                    }
                    (None, None) => {}
                }
            }
        }
        for row in embeddings.chunks_exact_mut(width) {
            (self.ops.layer_norm)(row, &self.norm.weight, &self.norm.bias, config.layer_norm_eps);
        }
        if let Some(projection) = &self.projection {
            x.resize(tokens * config.hidden_size, 0.0);
            projection.apply(normed, x, false, linear);
        }
    }

    pub(crate) fn normalize(&self, x: &mut [f32], norm: Option<&Affine>) {
        let Some(norm) = norm else { return };
        for row in x.chunks_exact_mut(self.config.hidden_size) {
            (self.ops.layer_norm)(row, &norm.weight, &norm.bias, self.config.layer_norm_eps);
        }
    }
}

/// Multiplies the activated halves of rows, `[2 width]` each, by their gates, the other halves.
/// The products, `[width]` a row, stand at the start; returns their number.
pub(crate) fn gate(rows: &mut [f32], width: usize, activate: impl Fn(&mut [f32])) -> usize {
    let n = rows.len() / (2 * width);
    for i in 0..n {
        let row = &mut rows[2 * i * width..][..2 * width];
        let (values, gates) = row.split_at_mut(width);
        activate(values);
        values.iter_mut().zip(gates).for_each(|(v, gate)| *v *= *gate);
        rows.copy_within(2 * i * width..(2 * i + 1) * width, i * width);
    }
    n * width
}

impl NeededStates {
    /// Returns the number of needed states of a sequence.
    pub(crate) fn rows(self, sequence: &Sequence) -> usize {
        match self {
            Self::All => sequence.ids.len(),
            Self::First => 1,
        }
    }
}

/// Keeps only the rows of the first token of each sequence.
pub(crate) fn keep_first(batch: &[&Sequence], x: &mut Vec<f32>, hidden: usize) {
    let mut token = 0;
    for (i, sequence) in batch.iter().enumerate() {
        x.copy_within(token * hidden..(token + 1) * hidden, i * hidden);
        token += sequence.ids.len();
    }
    x.truncate(batch.len() * hidden);
}
