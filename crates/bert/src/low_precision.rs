//! The layers of the packed encoder in bfloat16 or int8: inputs of products are rounded or
//! quantized once, where they are made, and results are written once, where the next step needs
//! them. In the family BERT:
//!
//! ```text
//! input = round(x)
//! for each layer:
//!     qkv = round(input Wqkv)                               bfloat16, if the CPU multiplies it
//!     context = attention(qkv);  input = round(context)
//!     x += input Wo;             x = layer norm(x);  input = round(x)
//!     wide = round(gelu(input Wup))
//!     x += wide Wdown;           x = layer norm(x);  input = round(x)
//! ```
//!
//! The sum x stays in float32. A row is normed and rounded while it is in the L1 cache; biases and
//! GELU are applied to blocks of products that are there.

use crate::activation::Activation;
use crate::attention::AttentionOutput;
use crate::linear::{Linear, Outputs};
use crate::packed::{Layer, LayerBuffers, PackedEncoder, gate, keep_first};
use crate::pooling::NeededStates;
use crate::tokenizer::Sequence;
use crate::weights::Affine;

/// Tokens of a step of the feed-forward block.
const FEED_FORWARD_TOKENS: usize = 256;

impl PackedEncoder {
    /// Runs all layers from the embedded tokens in `space.x`, where the needed hidden states end.
    pub(crate) fn encode_low(
        &self,
        batch: &[&Sequence],
        needed: NeededStates,
        space: &mut LayerBuffers,
    ) {
        let _tiles = self.compute.kernels().tile_scope();
        let mut norm_after = None;
        for (i, layer) in self.layers.iter().enumerate() {
            let norms = &layer.norms;
            self.norm_and_round(norm_after, norms.before_attention.as_ref(), &layer.qkv, space);
            let states = if i + 1 == self.layers.len() { needed } else { NeededStates::All };
            self.attend(i, batch, states, space);
            let (after, before) = (&norms.after_attention, &norms.before_feed_forward);
            self.norm_and_round(after.as_ref(), before.as_ref(), &layer.up, space);
            self.feed_forward_low(layer, space);
            norm_after = norms.after_feed_forward.as_ref();
        }
        self.normalize(&mut space.x, norm_after);
    }

    /// Norms x in place, if a norm follows the block before, and rounds it, or its norm in front of
    /// the next block, as the input of `layer`.
    fn norm_and_round(
        &self,
        after: Option<&Affine>,
        before: Option<&Affine>,
        layer: &Linear,
        space: &mut LayerBuffers,
    ) {
        let hidden = self.config.hidden_size;
        let LayerBuffers { x, input, normed, .. } = space;
        layer.resize(input, x.len() / hidden);
        for (i, x) in x.chunks_exact_mut(hidden).enumerate() {
            self.normalize(x, after);
            layer.set_row(input, i, self.normed(x, before, normed));
        }
    }

    /// The attention block. The residual is already in x.
    fn attend(
        &self,
        i: usize,
        batch: &[&Sequence],
        states: NeededStates,
        space: &mut LayerBuffers,
    ) {
        let (layer, hidden) = (&self.layers[i], self.config.hidden_size);
        let LayerBuffers { x, qkv, context, input, rounded_qkv, linear, attention, .. } = space;
        let tokens = 0..x.len() / hidden;
        let is_rounded = self.attention.takes_rounded() && layer.qkv.has_one_pass();
        if is_rounded {
            layer.qkv.apply_to(input, tokens, Outputs::Rounded(rounded_qkv), linear);
        } else {
            qkv.resize(x.len() * 3, 0.0);
            layer.qkv.apply_to(input, tokens, Outputs::F32(qkv), linear);
        }
        if states == NeededStates::First {
            keep_first(batch, x, hidden);
        }
        let tokens = 0..x.len() / hidden;
        layer.attention_out.resize(input, tokens.len());
        if is_rounded && layer.attention_out.is_bf16() {
            let context = AttentionOutput::Rounded(&mut input.rounded);
            self.attention.apply_rounded(i, batch, states, rounded_qkv, context, attention);
        } else {
            context.resize(x.len(), 0.0);
            if is_rounded {
                let context = AttentionOutput::F32(context);
                self.attention.apply_rounded(i, batch, states, rounded_qkv, context, attention);
            } else {
                self.attention.apply(i, batch, states, qkv, context, attention);
            }
            for (row, context) in context.chunks_exact(hidden).enumerate() {
                layer.attention_out.set_row(input, row, context);
            }
        }
        layer.attention_out.apply_to(input, tokens, Outputs::Added(x), linear);
    }

    fn feed_forward_low(&self, layer: &Layer, space: &mut LayerBuffers) {
        let config = &self.config;
        let LayerBuffers { x, input, wide, wide_input, linear, .. } = space;
        let n = x.len() / config.hidden_size;
        for first in (0..n).step_by(FEED_FORWARD_TOKENS) {
            let tokens = first..(first + FEED_FORWARD_TOKENS).min(n);
            let x = &mut x[tokens.start * config.hidden_size..tokens.end * config.hidden_size];
            let is_plain = !config.is_gated && config.activation == Activation::Gelu;
            if is_plain && layer.up.has_one_pass() {
                layer.up.apply_gelu(input, tokens.clone(), &layer.down, wide_input, linear);
            } else {
                wide.resize(tokens.len() * layer.up.n_out(), 0.0);
                layer.up.apply_to(input, tokens.clone(), Outputs::F32(wide), linear);
                if config.is_gated {
                    let len = gate(wide, config.intermediate_size, |values| self.activate(values));
                    wide.truncate(len);
                } else {
                    self.activate(wide);
                }
                layer.down.resize(wide_input, tokens.len());
                for (row, wide) in wide.chunks_exact(config.intermediate_size).enumerate() {
                    layer.down.set_row(wide_input, row, wide);
                }
            }
            layer.down.apply_to(wide_input, 0..tokens.len(), Outputs::Added(x), linear);
        }
    }
}
