//! The CPU's encoder: sequences end to end without padding, one group of sequences a thread.
//!
//! A group goes through all layers on one thread, so that its activations stay in that core's cache
//! and threads never wait for each other. Biases and residuals are added where a matrix product is
//! finished: no pass of their own.

use super::attention::{Attention, AttentionSpace};
use super::config::{Activation, BertConfig};
use super::elementwise::Passes;
use super::linear::{Linear, Scratch};
use super::weights::Table;
use super::{Arithmetic, States, Weights, groups_by_length};
use crate::error::Result;
use crate::model::tokenize::Sequence;
use rayon::prelude::*;
use std::sync::Arc;

/// Tokens of a group: enough for the matrix products to run at speed, few enough for the cache. Float32 products
/// take their weights apart anew for each group, which pays for many tokens.
const GROUP_TOKENS: usize = 512;
const ROUGH_GROUP_TOKENS: usize = 256;

/// The weights of a BERT encoder.
#[derive(Debug)]
pub(super) struct PackedBert {
    config: BertConfig,
    arithmetic: Arithmetic,
    passes: Passes,
    attention: Attention,
    /// Of which the word embedding is read a token at a time.
    weights: Arc<Weights>,
    positions: Vec<f32>,
    token_types: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// Queries, keys and values in one product.
    qkv: Linear,
    attention_out: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    out_norm: Norm,
}

#[derive(Debug)]
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

/// Activations of one group, reused over layers and groups.
#[derive(Default)]
struct Workspace {
    /// `[tokens, hidden]`: what a layer reads and, at its end, writes.
    x: Vec<f32>,
    /// `[tokens, 3 hidden]`.
    qkv: Vec<f32>,
    /// `[tokens, hidden]`.
    context: Vec<f32>,
    /// `[tokens of a piece, intermediate]`.
    wide: Vec<f32>,
    scratch: Scratch,
    attention: AttentionSpace,
}

impl PackedBert {
    pub(super) fn new(
        weights: &Arc<Weights>,
        config: &BertConfig,
        arithmetic: Arithmetic,
    ) -> Result<Self> {
        let prefix = weights.prefix();
        let hidden = config.hidden_size;
        let get = |name: &str, shape: &[usize]| weights.get(&format!("{prefix}{name}"), shape);
        let norm = |name: &str| -> Result<Norm> {
            Ok(Norm {
                weight: get(&format!("{name}.weight"), &[hidden])?,
                bias: get(&format!("{name}.bias"), &[hidden])?,
            })
        };
        let layer = |i: usize| -> Result<Layer> {
            let at = format!("encoder.layer.{i}");
            let linear = |name: &str, n_out: usize, n_in: usize, before: Option<&Norm>| {
                let weight = get(&format!("{at}.{name}.weight"), &[n_out, n_in])?;
                let bias = get(&format!("{at}.{name}.bias"), &[n_out])?;
                let spread = before.map(|norm| norm.weight.as_slice());
                Ok(Linear::new(weight, bias, spread, arithmetic))
            };
            let (mut weight, mut bias) = (Vec::new(), Vec::new());
            for part in ["query", "key", "value"] {
                let name = format!("{at}.attention.self.{part}");
                weight.extend(get(&format!("{name}.weight"), &[hidden, hidden])?);
                bias.extend(get(&format!("{name}.bias"), &[hidden])?);
            }
            let before = match i {
                0 => norm("embeddings.LayerNorm")?,
                _ => norm(&format!("encoder.layer.{}.output.LayerNorm", i - 1))?,
            };
            let attention_norm = norm(&format!("{at}.attention.output.LayerNorm"))?;
            let wide = config.intermediate_size;
            Ok(Layer {
                qkv: Linear::new(weight, bias, Some(&before.weight), arithmetic),
                attention_out: linear("attention.output.dense", hidden, hidden, None)?,
                up: linear("intermediate.dense", wide, hidden, Some(&attention_norm))?,
                attention_norm,
                down: linear("output.dense", hidden, wide, None)?,
                out_norm: norm(&format!("{at}.output.LayerNorm"))?,
            })
        };
        Ok(Self {
            positions: get(
                "embeddings.position_embeddings.weight",
                &[config.max_positions, hidden],
            )?,
            token_types: get(
                "embeddings.token_type_embeddings.weight",
                &[config.n_token_types, hidden],
            )?,
            norm: norm("embeddings.LayerNorm")?,
            layers: (0..config.n_layers).into_par_iter().map(layer).collect::<Result<_>>()?,
            attention: Attention::new(config, arithmetic),
            config: config.clone(),
            passes: Passes::best(),
            arithmetic,
            weights: Arc::clone(weights),
        })
    }

    /// See [`super::Encoder::forward`], which checks the sequences.
    pub(super) fn forward(
        &self,
        sequences: &[Sequence],
        states: States,
        n_out: usize,
        finish: impl Fn(&[f32], &mut [f32]) + Sync,
    ) -> Result<Vec<f32>> {
        let words = words(&self.weights, &self.config)?;
        let total: usize = sequences.iter().map(|s| s.ids.len()).sum();
        // Few tokens are spread over the threads rather than packed into one group.
        let most = if self.is_rough() { ROUGH_GROUP_TOKENS } else { GROUP_TOKENS };
        let group = total.div_ceil(rayon::current_num_threads()).clamp(64, most);
        let groups = groups_by_length(sequences, group);
        let finished: Vec<Vec<f32>> = groups
            .par_iter()
            .map_init(Workspace::default, |space, group| {
                let group: Vec<&Sequence> = group.iter().map(|&i| &sequences[i]).collect();
                self.encode(&group, states, words, space);
                let mut out = vec![0f32; group.len() * n_out];
                let mut start = 0;
                for (sequence, out) in group.iter().zip(out.chunks_exact_mut(n_out)) {
                    let len = states.rows(sequence) * self.config.hidden_size;
                    finish(&space.x[start..start + len], out);
                    start += len;
                }
                out
            })
            .collect();
        let mut out = vec![0f32; sequences.len() * n_out];
        for (group, finished) in groups.iter().zip(finished) {
            for (&i, values) in group.iter().zip(finished.chunks_exact(n_out)) {
                out[i * n_out..(i + 1) * n_out].copy_from_slice(values);
            }
        }
        Ok(out)
    }

    /// Leaves the hidden states that are wanted in `space.x`.
    fn encode(&self, group: &[&Sequence], wanted: States, words: Table<'_>, space: &mut Workspace) {
        let config = &self.config;
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let tokens: usize = group.iter().map(|s| s.ids.len()).sum();
        space.x.resize(tokens * hidden, 0.0);
        space.qkv.resize(tokens * 3 * hidden, 0.0);
        space.context.resize(tokens * hidden, 0.0);
        self.embed_tokens(group, words, &mut space.x);
        let passes = &self.passes;
        for (i, layer) in self.layers.iter().enumerate() {
            let Workspace { x, qkv, context, wide: between, scratch, attention } = space;
            layer.qkv.apply(x, qkv, false, passes, scratch);
            let states = if i + 1 == self.layers.len() { wanted } else { States::All };
            if states == States::First {
                keep_first(group, x, hidden);
                context.truncate(x.len());
            }
            self.attention.apply(group, states, qkv, context, passes, attention);
            // x <- norm(x + attention): the residual is in place already.
            layer.attention_out.apply(context, x, true, passes, scratch);
            self.normalize(x, &layer.attention_norm);
            for x in x.chunks_mut(self.piece_tokens() * hidden) {
                between.resize(x.len() / hidden * wide, 0.0);
                layer.up.apply(x, between, false, passes, scratch);
                match config.activation {
                    Activation::Gelu if self.is_rough() => (passes.gelu_rough)(between),
                    Activation::Gelu => (passes.gelu)(between),
                    Activation::GeluTanh => (passes.gelu_tanh)(between),
                    Activation::Relu => between.iter_mut().for_each(|v| *v = v.max(0.0)),
                }
                layer.down.apply(between, x, true, passes, scratch);
                self.normalize(x, &layer.out_norm);
            }
        }
    }

    /// Whether products have fewer digits than float32.
    fn is_rough(&self) -> bool {
        !matches!(self.arithmetic, Arithmetic::Float)
    }

    /// Tokens that go through the feed-forward block together.
    fn piece_tokens(&self) -> usize {
        if self.is_rough() { 96 } else { GROUP_TOKENS }
    }

    fn embed_tokens(&self, group: &[&Sequence], words: Table<'_>, x: &mut [f32]) {
        let hidden = self.config.hidden_size;
        let row_of = |table: &[f32], i: usize| i * hidden..((i + 1) * hidden).min(table.len());
        let mut rows = x.chunks_exact_mut(hidden);
        for sequence in group {
            for (position, (&id, row)) in sequence.ids.iter().zip(&mut rows).enumerate() {
                let token_type = usize::from(position >= sequence.second_from);
                let token_type = token_type.min(self.config.n_token_types - 1);
                let place = &self.positions[row_of(&self.positions, position)];
                let kind = &self.token_types[row_of(&self.token_types, token_type)];
                words.read(id as usize, row);
                for ((v, p), t) in row.iter_mut().zip(place).zip(kind) {
                    *v += t + p;
                }
            }
        }
        self.normalize(x, &self.norm);
    }

    fn normalize(&self, x: &mut [f32], norm: &Norm) {
        for row in x.chunks_exact_mut(self.config.hidden_size) {
            (self.passes.layer_norm)(row, &norm.weight, &norm.bias, self.config.layer_norm_eps);
        }
    }
}

impl States {
    /// How many of a sequence's states are wanted.
    pub(super) fn rows(self, sequence: &Sequence) -> usize {
        match self {
            Self::All => sequence.ids.len(),
            Self::First => 1,
        }
    }
}

/// Of rows of all tokens, keeps each sequence's first.
fn keep_first(group: &[&Sequence], x: &mut Vec<f32>, hidden: usize) {
    let mut token = 0;
    for (i, sequence) in group.iter().enumerate() {
        x.copy_within(token * hidden..(token + 1) * hidden, i * hidden);
        token += sequence.ids.len();
    }
    x.truncate(group.len() * hidden);
}

/// The word embedding.
fn words<'a>(weights: &'a Weights, config: &BertConfig) -> Result<Table<'a>> {
    let name = format!("{}embeddings.word_embeddings.weight", weights.prefix());
    weights.table(&name, [config.vocab_size, config.hidden_size])
}

/// Checks that all tensors of an encoder are there and of the right shape, without reading them.
pub(super) fn check(weights: &Weights, config: &BertConfig) -> Result<()> {
    let prefix = weights.prefix();
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let look =
        |name: &str, shape: &[usize]| weights.view(&format!("{prefix}{name}"), shape).map(drop);
    words(weights, config)?;
    look("embeddings.position_embeddings.weight", &[config.max_positions, hidden])?;
    look("embeddings.token_type_embeddings.weight", &[config.n_token_types, hidden])?;
    let norm = |name: &str| {
        look(&format!("{name}.weight"), &[hidden])?;
        look(&format!("{name}.bias"), &[hidden])
    };
    let linear = |name: &str, n_out: usize, n_in: usize| {
        look(&format!("{name}.weight"), &[n_out, n_in])?;
        look(&format!("{name}.bias"), &[n_out])
    };
    norm("embeddings.LayerNorm")?;
    for i in 0..config.n_layers {
        let at = format!("encoder.layer.{i}");
        for part in ["self.query", "self.key", "self.value", "output.dense"] {
            linear(&format!("{at}.attention.{part}"), hidden, hidden)?;
        }
        norm(&format!("{at}.attention.output.LayerNorm"))?;
        linear(&format!("{at}.intermediate.dense"), wide, hidden)?;
        linear(&format!("{at}.output.dense"), hidden, wide)?;
        norm(&format!("{at}.output.LayerNorm"))?;
    }
    Ok(())
}
