//! The CPU's encoder: sequences end to end without padding, one group of sequences a thread.
//!
//! A group goes through all layers on one thread, so that its activations stay in that core's cache
//! and threads never wait for each other. Biases and residuals are laid into the output before a
//! matrix product, which accumulates on top: no pass of their own.

use super::Weights;
use super::config::{Activation, BertConfig};
use super::elementwise::Passes;
use super::groups_by_length;
use crate::error::Result;
use crate::model::tokenize::Sequence;
use rayon::prelude::*;

/// Tokens of a group: enough for the matrix products to run at speed, few enough for the cache.
const GROUP_TOKENS: usize = 512;

/// The weights of a BERT encoder in float32.
#[derive(Debug)]
pub struct PackedBert {
    config: BertConfig,
    passes: Passes,
    words: Vec<f32>,
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

/// `y = x W^T + b`.
#[derive(Debug)]
struct Linear {
    /// `[n_out, n_in]`.
    weight: Vec<f32>,
    bias: Vec<f32>,
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
    /// `[tokens, intermediate]`.
    wide: Vec<f32>,
    /// `[len, len]` of the longest sequence.
    scores: Vec<f32>,
}

impl PackedBert {
    pub(super) fn new(weights: &Weights, config: &BertConfig) -> Result<Self> {
        let prefix = weights.prefix();
        let hidden = config.hidden_size;
        let get = |name: &str, shape: &[usize]| weights.get(&format!("{prefix}{name}"), shape);
        let linear = |name: &str, n_out: usize, n_in: usize| -> Result<Linear> {
            Ok(Linear {
                weight: get(&format!("{name}.weight"), &[n_out, n_in])?,
                bias: get(&format!("{name}.bias"), &[n_out])?,
            })
        };
        let norm = |name: &str| -> Result<Norm> {
            Ok(Norm {
                weight: get(&format!("{name}.weight"), &[hidden])?,
                bias: get(&format!("{name}.bias"), &[hidden])?,
            })
        };
        let layer = |i: usize| -> Result<Layer> {
            let at = format!("encoder.layer.{i}");
            let mut qkv = Linear { weight: Vec::new(), bias: Vec::new() };
            for part in ["query", "key", "value"] {
                let part = linear(&format!("{at}.attention.self.{part}"), hidden, hidden)?;
                qkv.weight.extend(part.weight);
                qkv.bias.extend(part.bias);
            }
            Ok(Layer {
                qkv,
                attention_out: linear(&format!("{at}.attention.output.dense"), hidden, hidden)?,
                attention_norm: norm(&format!("{at}.attention.output.LayerNorm"))?,
                up: linear(&format!("{at}.intermediate.dense"), config.intermediate_size, hidden)?,
                down: linear(&format!("{at}.output.dense"), hidden, config.intermediate_size)?,
                out_norm: norm(&format!("{at}.output.LayerNorm"))?,
            })
        };
        Ok(Self {
            words: get("embeddings.word_embeddings.weight", &[config.vocab_size, hidden])?,
            positions: get(
                "embeddings.position_embeddings.weight",
                &[config.max_positions, hidden],
            )?,
            token_types: get(
                "embeddings.token_type_embeddings.weight",
                &[config.n_token_types, hidden],
            )?,
            norm: norm("embeddings.LayerNorm")?,
            layers: (0..config.n_layers).map(layer).collect::<Result<_>>()?,
            config: config.clone(),
            passes: Passes::best(),
        })
    }

    pub(super) fn config(&self) -> &BertConfig {
        &self.config
    }

    /// See [`super::Encoder::forward`], which checks the sequences.
    pub(super) fn forward(
        &self,
        sequences: &[Sequence],
        n_out: usize,
        finish: impl Fn(&[f32], &mut [f32]) + Sync,
    ) -> Vec<f32> {
        let total: usize = sequences.iter().map(|s| s.ids.len()).sum();
        // Few tokens are spread over the threads rather than packed into one group.
        let group = total.div_ceil(rayon::current_num_threads()).clamp(64, GROUP_TOKENS);
        let groups = groups_by_length(sequences, group);
        let finished: Vec<Vec<f32>> = groups
            .par_iter()
            .map_init(Workspace::default, |space, group| {
                let group: Vec<&Sequence> = group.iter().map(|&i| &sequences[i]).collect();
                self.encode(&group, space);
                let mut out = vec![0f32; group.len() * n_out];
                let mut start = 0;
                for (sequence, out) in group.iter().zip(out.chunks_exact_mut(n_out)) {
                    let len = sequence.ids.len() * self.config.hidden_size;
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
        out
    }

    /// Leaves the hidden states of all tokens in `space.x`.
    fn encode(&self, group: &[&Sequence], space: &mut Workspace) {
        let config = &self.config;
        let (hidden, wide) = (config.hidden_size, config.intermediate_size);
        let tokens: usize = group.iter().map(|s| s.ids.len()).sum();
        let longest = group.iter().map(|s| s.ids.len()).max().unwrap_or(0);
        space.x.resize(tokens * hidden, 0.0);
        space.qkv.resize(tokens * 3 * hidden, 0.0);
        space.context.resize(tokens * hidden, 0.0);
        space.wide.resize(tokens * wide, 0.0);
        space.scores.resize(longest * longest, 0.0);
        self.embed_tokens(group, &mut space.x);
        for layer in &self.layers {
            layer.qkv.bias_rows(&mut space.qkv);
            layer.qkv.accumulate(&space.x, &mut space.qkv);
            self.attention(group, space);
            // x <- norm(x + attention): the residual is in place already.
            add_bias(&mut space.x, &layer.attention_out.bias);
            layer.attention_out.accumulate(&space.context, &mut space.x);
            self.normalize(&mut space.x, &layer.attention_norm);
            layer.up.bias_rows(&mut space.wide);
            layer.up.accumulate(&space.x, &mut space.wide);
            match config.activation {
                Activation::Gelu => (self.passes.gelu)(&mut space.wide),
                Activation::GeluTanh => (self.passes.gelu_tanh)(&mut space.wide),
                Activation::Relu => space.wide.iter_mut().for_each(|v| *v = v.max(0.0)),
            }
            add_bias(&mut space.x, &layer.down.bias);
            layer.down.accumulate(&space.wide, &mut space.x);
            self.normalize(&mut space.x, &layer.out_norm);
        }
    }

    fn embed_tokens(&self, group: &[&Sequence], x: &mut [f32]) {
        let hidden = self.config.hidden_size;
        let mut rows = x.chunks_exact_mut(hidden);
        for sequence in group {
            for (position, (&id, row)) in sequence.ids.iter().zip(&mut rows).enumerate() {
                let token_type = usize::from(position >= sequence.second_from);
                let token_type = token_type.min(self.config.n_token_types - 1);
                let row_of =
                    |table: &'_ [f32], i: usize| i * hidden..((i + 1) * hidden).min(table.len());
                let word = &self.words[row_of(&self.words, id as usize)];
                let place = &self.positions[row_of(&self.positions, position)];
                let kind = &self.token_types[row_of(&self.token_types, token_type)];
                for (((v, w), p), t) in row.iter_mut().zip(word).zip(place).zip(kind) {
                    *v = w + t + p;
                }
            }
        }
        self.normalize(x, &self.norm);
    }

    /// Scaled dot-product attention within each sequence, from `space.qkv` into `space.context`.
    fn attention(&self, group: &[&Sequence], space: &mut Workspace) {
        let hidden = self.config.hidden_size;
        let width = hidden / self.config.n_heads;
        let scale = 1.0 / (width as f32).sqrt();
        let mut start = 0;
        for sequence in group {
            let len = sequence.ids.len();
            let qkv = &space.qkv[start * 3 * hidden..(start + len) * 3 * hidden];
            let context = &mut space.context[start * hidden..(start + len) * hidden];
            let scores = &mut space.scores[..len * len];
            for head in 0..self.config.n_heads {
                let at = |part: usize| &qkv[part * hidden + head * width..];
                Product {
                    shape: [len, len, width],
                    left: (at(0), 3 * hidden, 1),
                    right: (at(1), 1, 3 * hidden),
                    out: (scores, len),
                    accumulate: false,
                }
                .run();
                scores.chunks_exact_mut(len).for_each(|row| (self.passes.softmax)(row, scale));
                Product {
                    shape: [len, width, len],
                    left: (scores, len, 1),
                    right: (at(2), 3 * hidden, 1),
                    out: (&mut context[head * width..], hidden),
                    accumulate: false,
                }
                .run();
            }
            start += len;
        }
    }

    fn normalize(&self, x: &mut [f32], norm: &Norm) {
        for row in x.chunks_exact_mut(self.config.hidden_size) {
            (self.passes.layer_norm)(row, &norm.weight, &norm.bias, self.config.layer_norm_eps);
        }
    }
}

impl Linear {
    /// Lays the bias into every row.
    fn bias_rows(&self, out: &mut [f32]) {
        out.chunks_exact_mut(self.bias.len()).for_each(|row| row.copy_from_slice(&self.bias));
    }

    /// `out <- out + x W^T`, `x` being `[rows, n_in]` and `out` `[rows, n_out]`.
    fn accumulate(&self, x: &[f32], out: &mut [f32]) {
        let n_out = self.bias.len();
        let n_in = self.weight.len() / n_out;
        Product {
            shape: [x.len() / n_in, n_out, n_in],
            left: (x, n_in, 1),
            right: (&self.weight, 1, n_in),
            out: (out, n_out),
            accumulate: true,
        }
        .run();
    }
}

fn add_bias(x: &mut [f32], bias: &[f32]) {
    for row in x.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(v, b)| *v += b);
    }
}

/// A matrix product on one thread. Operands are slices with the distance between rows and columns.
struct Product<'a> {
    /// Rows of the left, columns of the right, and what they share.
    shape: [usize; 3],
    left: (&'a [f32], usize, usize),
    right: (&'a [f32], usize, usize),
    /// Columns of the output are next to each other.
    out: (&'a mut [f32], usize),
    /// Whether the product is added to what stands in the output.
    accumulate: bool,
}

impl Product<'_> {
    fn run(self) {
        let [m, n, k] = self.shape;
        let last =
            |rows: usize, cols: usize, rs: usize, cs: usize| (rows - 1) * rs + (cols - 1) * cs;
        assert!(m > 0 && n > 0 && k > 0, "empty matrix product");
        assert!(last(m, k, self.left.1, self.left.2) < self.left.0.len());
        assert!(last(k, n, self.right.1, self.right.2) < self.right.0.len());
        assert!(last(m, n, self.out.1, 1) < self.out.0.len());
        // SAFETY: the last element of each operand lies within its slice, as checked above, so all do;
        // the output is borrowed exclusively.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                self.out.0.as_mut_ptr(),
                1,
                self.out.1 as isize,
                self.accumulate,
                self.left.0.as_ptr(),
                self.left.2 as isize,
                self.left.1 as isize,
                self.right.0.as_ptr(),
                self.right.2 as isize,
                self.right.1 as isize,
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
    }
}
