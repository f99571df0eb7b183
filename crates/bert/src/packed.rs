//! The packed encoder on the CPU: BERT over sequences that lie end to end, without padding.
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
//!         for each 96 tokens of x:                                  fits into the L2 cache
//!             x = layer norm(x + gelu(x Wup) Wdown)
//!     in the last layer only the CLS token, if that is all the output needs
//!     pool x into the output
//! ```
//!
//! A micro-batch stays on one thread through all layers, so that its activations stay in that
//! core's cache and threads never wait for each other. Biases and residuals are added while
//! products are dequantized, without passes of their own.

use crate::attention::{Attention, AttentionScratch};
use crate::batching::micro_batches;
use crate::compute_type::ComputeType;
use crate::config::{Activation, BertConfig};
use crate::error::Result;
use crate::linear::{Linear, LinearScratch};
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

/// The weights of a BERT encoder.
#[derive(Debug)]
pub(crate) struct PackedBert {
    config: BertConfig,
    compute: ComputeType,
    ops: VectorOps,
    attention: Attention,
    /// Source of the word embeddings, which are read one token at a time.
    weights: Arc<Weights>,
    positions: Vec<f32>,
    token_types: Vec<f32>,
    norm: Affine,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// Queries, keys and values in one product.
    qkv: Linear,
    attention_out: Linear,
    attention_norm: Affine,
    up: Linear,
    down: Linear,
    out_norm: Affine,
}

/// Activations of one micro-batch, reused over layers and micro-batches.
#[derive(Default)]
struct Activations {
    /// `[tokens, hidden]`: input and output of a layer.
    x: Vec<f32>,
    /// `[tokens, 3 hidden]`.
    qkv: Vec<f32>,
    /// `[tokens, hidden]`.
    context: Vec<f32>,
    /// `[tokens of a feed-forward step, intermediate]`.
    wide: Vec<f32>,
    linear: LinearScratch,
    attention: AttentionScratch,
}

impl PackedBert {
    pub(crate) fn new(
        weights: &Arc<Weights>,
        config: &BertConfig,
        compute: ComputeType,
    ) -> Result<Self> {
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let norm = |name: &str| weights.affine(name, &[hidden]);
        let layer = |i: usize| -> Result<Layer> {
            let at = format!("encoder.layer.{i}");
            let linear = |name: &str, n_out: usize, n_in: usize, before: Option<&Affine>| {
                let affine = weights.affine(&format!("{at}.{name}"), &[n_out, n_in])?;
                Ok(Linear::new(affine, before, compute))
            };
            let qkv = weights.qkv(&at, hidden)?;
            let before = match i {
                0 => norm("embeddings.LayerNorm")?,
                _ => norm(&format!("encoder.layer.{}.output.LayerNorm", i - 1))?,
            };
            let attention_norm = norm(&format!("{at}.attention.output.LayerNorm"))?;
            Ok(Layer {
                qkv: Linear::new(qkv, Some(&before), compute),
                attention_out: linear("attention.output.dense", hidden, hidden, None)?,
                up: linear("intermediate.dense", wide, hidden, Some(&attention_norm))?,
                attention_norm,
                down: linear("output.dense", hidden, wide, None)?,
                out_norm: norm(&format!("{at}.output.LayerNorm"))?,
            })
        };
        Ok(Self {
            positions: weights.embedding("position", config.max_positions, hidden)?,
            token_types: weights.embedding("token_type", config.n_token_types, hidden)?,
            norm: norm("embeddings.LayerNorm")?,
            layers: (0..config.n_layers).into_par_iter().map(layer).collect::<Result<_>>()?,
            attention: Attention::new(config, compute),
            config: config.clone(),
            ops: VectorOps::of(compute.kernels()),
            compute,
            weights: Arc::clone(weights),
        })
    }

    /// See [`crate::encoder::Encoder::forward`], which checks the sequences.
    pub(crate) fn forward(&self, sequences: &[Sequence], pool: Pooler<'_>) -> Result<Vec<f32>> {
        let (states, n_out) = (pool.output.needs(), pool.n_out);
        let words = words(&self.weights, &self.config)?;
        let total: usize = sequences.iter().map(|s| s.ids.len()).sum();
        // Few tokens are spread over the threads rather than packed into one micro-batch.
        let most = if self.is_f32() { F32_BATCH_TOKENS } else { BATCH_TOKENS };
        let tokens = total.div_ceil(rayon::current_num_threads()).clamp(64, most);
        let batches = micro_batches(sequences, tokens);
        let pooled: Vec<Vec<f32>> = batches
            .par_iter()
            .map_init(Activations::default, |space, batch| {
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
        space: &mut Activations,
    ) {
        let config = &self.config;
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let tokens: usize = batch.iter().map(|s| s.ids.len()).sum();
        space.x.resize(tokens * hidden, 0.0);
        space.qkv.resize(tokens * 3 * hidden, 0.0);
        space.context.resize(tokens * hidden, 0.0);
        self.embed_tokens(batch, words, &mut space.x);
        let ops = &self.ops;
        for (i, layer) in self.layers.iter().enumerate() {
            let Activations { x, qkv, context, wide: between, linear, attention } = space;
            layer.qkv.apply(x, qkv, false, linear);
            let states = if i + 1 == self.layers.len() { needed } else { NeededStates::All };
            if states == NeededStates::Cls {
                keep_cls(batch, x, hidden);
                context.truncate(x.len());
            }
            self.attention.apply(batch, states, qkv, context, attention);
            // x <- norm(x + attention): the residual is already in x.
            layer.attention_out.apply(context, x, true, linear);
            self.normalize(x, &layer.attention_norm);
            for x in x.chunks_mut(self.feed_forward_tokens() * hidden) {
                between.resize(x.len() / hidden * wide, 0.0);
                layer.up.apply(x, between, false, linear);
                match config.activation {
                    Activation::Gelu if self.is_f32() => (ops.gelu)(between),
                    Activation::Gelu => (ops.gelu_fast)(between),
                    Activation::GeluTanh => (ops.gelu_tanh)(between),
                    Activation::Relu => between.iter_mut().for_each(|v| *v = v.max(0.0)),
                }
                layer.down.apply(between, x, true, linear);
                self.normalize(x, &layer.out_norm);
            }
        }
    }

    fn is_f32(&self) -> bool {
        matches!(self.compute, ComputeType::F32(_))
    }

    /// Returns the tokens of one step of the feed-forward block.
    fn feed_forward_tokens(&self) -> usize {
        if self.is_f32() { F32_BATCH_TOKENS } else { 96 }
    }

    fn embed_tokens(&self, batch: &[&Sequence], words: WeightTable<'_>, x: &mut [f32]) {
        let hidden = self.config.hidden_size;
        let row_of = |table: &[f32], i: usize| i * hidden..((i + 1) * hidden).min(table.len());
        let mut rows = x.chunks_exact_mut(hidden);
        for sequence in batch {
            for (position, (&id, row)) in sequence.ids.iter().zip(&mut rows).enumerate() {
                let token_type = usize::from(position >= sequence.second_from);
                let token_type = token_type.min(self.config.n_token_types - 1);
                let position = &self.positions[row_of(&self.positions, position)];
                let kind = &self.token_types[row_of(&self.token_types, token_type)];
                words.read(id as usize, row);
                for ((v, p), t) in row.iter_mut().zip(position).zip(kind) {
                    *v += t + p;
                }
            }
        }
        self.normalize(x, &self.norm);
    }

    fn normalize(&self, x: &mut [f32], norm: &Affine) {
        for row in x.chunks_exact_mut(self.config.hidden_size) {
            (self.ops.layer_norm)(row, &norm.weight, &norm.bias, self.config.layer_norm_eps);
        }
    }
}

impl NeededStates {
    /// Returns the number of needed states of a sequence.
    pub(crate) fn rows(self, sequence: &Sequence) -> usize {
        match self {
            Self::All => sequence.ids.len(),
            Self::Cls => 1,
        }
    }
}

/// Keeps only the rows of the CLS tokens, the first of each sequence.
fn keep_cls(batch: &[&Sequence], x: &mut Vec<f32>, hidden: usize) {
    let mut token = 0;
    for (i, sequence) in batch.iter().enumerate() {
        x.copy_within(token * hidden..(token + 1) * hidden, i * hidden);
        token += sequence.ids.len();
    }
    x.truncate(batch.len() * hidden);
}

fn words<'a>(weights: &'a Weights, config: &BertConfig) -> Result<WeightTable<'a>> {
    let name = format!("{}embeddings.word_embeddings.weight", weights.prefix());
    weights.table(&name, [config.vocab_size, config.hidden_size])
}

/// Checks that all tensors of an encoder exist with the right shape, without reading them.
pub(crate) fn check(weights: &Weights, config: &BertConfig) -> Result<()> {
    let prefix = weights.prefix();
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let look =
        |name: &str, shape: &[usize]| weights.view(&format!("{prefix}{name}"), shape).map(drop);
    words(weights, config)?;
    look("embeddings.position_embeddings.weight", &[config.max_positions, hidden])?;
    look("embeddings.token_type_embeddings.weight", &[config.n_token_types, hidden])?;
    let part = |name: &str, shape: &[usize]| {
        look(&format!("{name}.weight"), shape)?;
        look(&format!("{name}.bias"), &shape[..1])
    };
    part("embeddings.LayerNorm", &[hidden])?;
    for i in 0..config.n_layers {
        let at = format!("encoder.layer.{i}");
        for name in ["self.query", "self.key", "self.value", "output.dense"] {
            part(&format!("{at}.attention.{name}"), &[hidden, hidden])?;
        }
        part(&format!("{at}.attention.output.LayerNorm"), &[hidden])?;
        part(&format!("{at}.intermediate.dense"), &[wide, hidden])?;
        part(&format!("{at}.output.dense"), &[hidden, wide])?;
        part(&format!("{at}.output.LayerNorm"), &[hidden])?;
    }
    Ok(())
}
