//! The weights of an encoder by their place in it, independent of the names of its family.

use crate::config::EncoderConfig;
use crate::error::Result;
use crate::family::{Names, NormOrder};
use crate::weights::{Affine, WeightTable, Weights};

/// The tensors of an encoder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EncoderWeights<'a> {
    weights: &'a Weights,
    config: &'a EncoderConfig,
    names: &'static Names,
    /// The prefix of the encoder's tensors: empty in models without a head.
    prefix: &'static str,
}

/// The layer norms around the two blocks of a layer.
#[derive(Debug, Default)]
pub(crate) struct LayerNorms {
    /// In front of attention.
    pub(crate) before_attention: Option<Affine>,
    /// Behind attention and its residual.
    pub(crate) after_attention: Option<Affine>,
    /// In front of the feed-forward block.
    pub(crate) before_feed_forward: Option<Affine>,
    /// Behind the feed-forward block and its residual.
    pub(crate) after_feed_forward: Option<Affine>,
}

impl<'a> EncoderWeights<'a> {
    pub(crate) fn new(weights: &'a Weights, config: &'a EncoderConfig) -> Self {
        let names = config.family.names();
        let prefixed = weights.has(&format!("{}{}.weight", names.prefix, names.words));
        Self { weights, config, names, prefix: if prefixed { names.prefix } else { "" } }
    }

    /// Returns the file's tensors.
    pub(crate) fn file(&self) -> &'a Weights {
        self.weights
    }

    /// Returns the prefix of the encoder's tensors.
    pub(crate) fn prefix(&self) -> &'static str {
        self.prefix
    }

    /// True if the file has a cross-encoder's head.
    pub(crate) fn has_head(&self) -> bool {
        self.weights.has(&format!("{}.weight", self.names.head.out))
    }

    /// Returns a part with its full name.
    pub(crate) fn raw(&self, name: &str, shape: &[usize], has_bias: bool) -> Result<Affine> {
        self.weights.affine(name, shape, has_bias)
    }

    /// Returns the word embedding, `[vocabulary, embedding size]`.
    pub(crate) fn words(&self) -> Result<WeightTable<'a>> {
        let EncoderConfig { vocab_size, embedding_size, .. } = *self.config;
        let name = format!("{}{}.weight", self.prefix, self.names.words);
        self.weights.table(&name, [vocab_size, embedding_size])
    }

    /// Returns the position embedding, `[positions, embedding size]`; empty with rotary positions.
    pub(crate) fn positions(&self) -> Result<Vec<f32>> {
        self.table(self.names.positions, self.config.n_positions, self.config.embedding_size)
    }

    /// Returns the token type embedding, `[types, embedding size]`; empty without token types.
    pub(crate) fn token_types(&self) -> Result<Vec<f32>> {
        self.table(self.names.token_types, self.config.n_token_types, self.config.embedding_size)
    }

    /// Returns the relative attention bias, `[buckets, heads]`; empty without one.
    pub(crate) fn relative_bias(&self) -> Result<Vec<f32>> {
        let EncoderConfig { n_relative_buckets, n_heads, .. } = *self.config;
        self.table(self.names.relative_bias, n_relative_buckets, n_heads)
    }

    fn table(&self, name: Option<&str>, n: usize, width: usize) -> Result<Vec<f32>> {
        let Some(name) = name else { return Ok(Vec::new()) };
        self.weights.get(&format!("{}{name}.weight", self.prefix), &[n, width])
    }

    /// Returns the norm of the embeddings.
    pub(crate) fn embedding_norm(&self) -> Result<Affine> {
        self.norm(self.names.embedding_norm, self.config.embedding_size)
    }

    /// Returns the norm behind the last layer.
    pub(crate) fn final_norm(&self) -> Result<Option<Affine>> {
        let name = self.names.final_norm;
        name.map(|name| self.norm(name, self.config.hidden_size)).transpose()
    }

    /// Returns the projection of narrow embeddings to hidden states.
    pub(crate) fn projection(&self) -> Result<Option<Affine>> {
        let EncoderConfig { embedding_size, hidden_size, .. } = *self.config;
        if embedding_size == hidden_size {
            return Ok(None);
        }
        let name = format!("{}{}", self.prefix, self.names.projection);
        self.raw(&name, &[hidden_size, embedding_size], true).map(Some)
    }

    /// Returns queries, keys and values of a layer as one part, `[3 hidden, hidden]`.
    pub(crate) fn qkv(&self, layer: usize) -> Result<Affine> {
        let hidden = self.config.hidden_size;
        let rows = 3 * hidden / self.names.qkv.len();
        let mut all = Affine::default();
        for name in self.names.qkv {
            let part = self.linear(layer, name, [rows, hidden], self.config.has_attention_bias)?;
            all.weight.extend(part.weight);
            all.bias.extend(part.bias);
        }
        Ok(all)
    }

    /// Returns the linear layer behind attention.
    pub(crate) fn attention_out(&self, layer: usize) -> Result<Affine> {
        let EncoderConfig { hidden_size, has_attention_bias, .. } = *self.config;
        let shape = [hidden_size, hidden_size];
        self.linear(layer, self.names.attention_out, shape, has_attention_bias)
    }

    /// Returns the first linear layer of the feed-forward block; with a gate its outputs are the
    /// input of the activation and, behind it, the gate.
    pub(crate) fn up(&self, layer: usize) -> Result<Affine> {
        let shape = [self.config.up_width(), self.config.hidden_size];
        self.linear(layer, self.names.up, shape, self.config.has_feed_forward_bias)
    }

    /// Returns the second linear layer of the feed-forward block.
    pub(crate) fn down(&self, layer: usize) -> Result<Affine> {
        let shape = [self.config.hidden_size, self.config.intermediate_size];
        self.linear(layer, self.names.down, shape, self.config.has_feed_forward_bias)
    }

    /// Returns the layer norms of a layer.
    pub(crate) fn norms(&self, layer: usize) -> Result<LayerNorms> {
        let names = self.names.norms;
        let norm = |name: &str| {
            let name = format!("{}.{layer}.{name}", self.names.layer);
            self.norm(&name, self.config.hidden_size).map(Some)
        };
        Ok(match names.order {
            NormOrder::Behind => LayerNorms {
                after_attention: norm(names.attention)?,
                after_feed_forward: norm(names.feed_forward)?,
                ..LayerNorms::default()
            },
            NormOrder::InFront => LayerNorms {
                before_attention: if layer == 0 { None } else { norm(names.attention)? },
                before_feed_forward: norm(names.feed_forward)?,
                ..LayerNorms::default()
            },
        })
    }

    /// Returns the norm whose output is the input of a layer: its weights tell the magnitudes.
    pub(crate) fn norm_of_input(&self, layer: usize) -> Result<Affine> {
        let own = self.norms(layer)?.before_attention;
        match (own, layer) {
            (Some(own), _) => Ok(own),
            (None, 0) if self.config.embedding_size == self.config.hidden_size => {
                self.embedding_norm()
            }
            // A projection follows the norm of narrow embeddings.
            (None, 0) => Ok(Affine {
                weight: vec![1.0; self.config.hidden_size],
                bias: vec![0.0; self.config.hidden_size],
            }),
            (None, _) => Ok(self.norms(layer - 1)?.after_feed_forward.unwrap_or_default()),
        }
    }

    fn linear(
        &self,
        layer: usize,
        name: &str,
        shape: [usize; 2],
        has_bias: bool,
    ) -> Result<Affine> {
        let name = format!("{}{}.{layer}.{name}", self.prefix, self.names.layer);
        self.raw(&name, &shape, has_bias)
    }

    fn norm(&self, name: &str, width: usize) -> Result<Affine> {
        self.raw(&format!("{}{name}", self.prefix), &[width], self.config.has_norm_bias)
    }

    /// Checks that all tensors exist with the right shape, without reading them.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { config, names, .. } = self;
        let EncoderConfig { hidden_size: hidden, embedding_size: narrow, .. } = **config;
        let look = |name: &str, shape: &[usize]| {
            self.weights.view(&format!("{}{name}", self.prefix), shape).map(drop)
        };
        let table = |name: Option<&str>, shape: [usize; 2]| {
            name.map_or(Ok(()), |name| look(&format!("{name}.weight"), &shape))
        };
        let part = |name: &str, shape: &[usize], has_bias: bool| {
            look(&format!("{name}.weight"), shape)?;
            if has_bias { look(&format!("{name}.bias"), &shape[..1]) } else { Ok(()) }
        };
        self.words()?;
        table(names.positions, [config.n_positions, narrow])?;
        table(names.token_types, [config.n_token_types, narrow])?;
        table(names.relative_bias, [config.n_relative_buckets, config.n_heads])?;
        part(names.embedding_norm, &[narrow], config.has_norm_bias)?;
        if narrow != hidden {
            part(names.projection, &[hidden, narrow], true)?;
        }
        for i in 0..config.n_layers {
            let layer = |name: &str, shape: &[usize], has_bias: bool| {
                part(&format!("{}.{i}.{name}", names.layer), shape, has_bias)
            };
            let rows = 3 * hidden / names.qkv.len();
            for name in names.qkv {
                layer(name, &[rows, hidden], config.has_attention_bias)?;
            }
            layer(names.attention_out, &[hidden, hidden], config.has_attention_bias)?;
            let has_bias = config.has_feed_forward_bias;
            layer(names.up, &[config.up_width(), hidden], has_bias)?;
            layer(names.down, &[hidden, config.intermediate_size], has_bias)?;
            if i > 0 || names.norms.order == NormOrder::Behind {
                layer(names.norms.attention, &[hidden], config.has_norm_bias)?;
            }
            layer(names.norms.feed_forward, &[hidden], config.has_norm_bias)?;
        }
        names.final_norm.map_or(Ok(()), |name| part(name, &[hidden], config.has_norm_bias))
    }
}
