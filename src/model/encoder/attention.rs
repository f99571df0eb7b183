//! Scaled dot-product attention within each sequence, in float32 or bfloat16.

use super::config::BertConfig;
use super::elementwise::Passes;
use super::linear::Product;
use super::{Arithmetic, States};
use crate::cpu::bf16::Bf16;
use crate::cpu::{GROUP, LINE, PANEL_GROUPS};
use crate::model::tokenize::Sequence;

/// Queries whose scores are computed before they are used: with 256 keys, 48 KiB.
const TILE_ROWS: usize = 48;

/// Keys whose scores with some queries one call computes.
const PANEL: usize = PANEL_GROUPS * GROUP;

/// A multiple of this many bfloat16 numbers fills a row of a matrix tile.
const HALF_LINE: usize = LINE / 2;

/// How a model attends.
#[derive(Debug)]
pub(super) struct Attention {
    hidden: usize,
    /// Values of a head.
    width: usize,
    bf16: Option<Bf16>,
}

/// What attention needs beside inputs and outputs; reused over layers.
#[derive(Debug, Default)]
pub(super) struct AttentionSpace {
    scores: Vec<f32>,
    /// `[len, 3 hidden]`.
    qkv: Vec<u16>,
    /// Groups of keys, `[width / 2][GROUP][2]`.
    keys: Vec<u16>,
    /// Groups of values, `[keys / 2][GROUP][2]`.
    values: Vec<u16>,
    weights: Vec<u16>,
}

impl Attention {
    pub(super) fn new(config: &BertConfig, arithmetic: Arithmetic) -> Self {
        let width = config.hidden_size / config.n_heads;
        let bf16 = match arithmetic {
            Arithmetic::Float => None,
            Arithmetic::Halves(bf16) => Some(bf16),
            Arithmetic::Bytes(_, bf16) => bf16,
        };
        // The kernel takes heads of whole tile rows; others are rare.
        let fits = width.is_multiple_of(HALF_LINE) && width <= PANEL;
        Self { hidden: config.hidden_size, width, bf16: bf16.filter(|_| fits) }
    }

    /// From queries, keys and values, `[tokens, 3 hidden]`, into `context`, `[tokens that are wanted, hidden]`.
    pub(super) fn apply(
        &self,
        group: &[&Sequence],
        states: States,
        qkv: &[f32],
        context: &mut [f32],
        passes: &Passes,
        space: &mut AttentionSpace,
    ) {
        let (mut qkv, mut context) = (qkv, context);
        for sequence in group {
            let len = sequence.ids.len();
            let (here, rest) = qkv.split_at(len * 3 * self.hidden);
            let (out, later) = context.split_at_mut(states.rows(sequence) * self.hidden);
            match self.bf16 {
                Some(bf16) => self.in_bf16(bf16, len, here, out, passes, space),
                None => self.in_float(len, here, out, passes, space),
            }
            (qkv, context) = (rest, later);
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    fn in_float(
        &self,
        len: usize,
        qkv: &[f32],
        context: &mut [f32],
        passes: &Passes,
        space: &mut AttentionSpace,
    ) {
        let Self { hidden, width, .. } = *self;
        let queries = context.len() / hidden;
        space.scores.resize(queries * len, 0.0);
        let scores = &mut space.scores[..queries * len];
        for head in 0..hidden / width {
            let at = |part: usize| &qkv[part * hidden + head * width..];
            Product {
                shape: [queries, len, width],
                left: (at(0), 3 * hidden, 1),
                right: (at(1), 1, 3 * hidden),
                out: (scores, len),
                accumulate: false,
            }
            .run();
            scores.chunks_exact_mut(len).for_each(|row| (passes.softmax)(row, self.scale()));
            Product {
                shape: [queries, width, len],
                left: (scores, len, 1),
                right: (at(2), 3 * hidden, 1),
                out: (&mut context[head * width..], hidden),
                accumulate: false,
            }
            .run();
        }
    }

    fn in_bf16(
        &self,
        bf16: Bf16,
        len: usize,
        qkv: &[f32],
        context: &mut [f32],
        passes: &Passes,
        space: &mut AttentionSpace,
    ) {
        let Self { hidden, width, .. } = *self;
        let AttentionSpace { scores, qkv: halves, keys, values, weights } = space;
        let queries = context.len() / hidden;
        // Keys are padded with zeros, whose weights are zeros too.
        let padded = len.next_multiple_of(HALF_LINE);
        halves.resize(len * 3 * hidden, 0);
        (passes.to_bf16)(qkv, halves);
        keys.clear();
        keys.resize(padded * width, 0);
        values.clear();
        values.resize(padded * width, 0);
        scores.resize(TILE_ROWS * padded, 0.0);
        weights.clear();
        weights.resize(TILE_ROWS * padded, 0);
        for head in 0..hidden / width {
            let part = |token: usize, part: usize| {
                &halves[token * 3 * hidden + part * hidden + head * width..][..width]
            };
            for token in 0..len {
                interleave_key(part(token, 1), token, keys);
                interleave_value(part(token, 2), token, padded, values);
            }
            for start in (0..queries).step_by(TILE_ROWS) {
                let mut rows: [&[u16]; TILE_ROWS] = [&[]; TILE_ROWS];
                let n = TILE_ROWS.min(queries - start);
                (0..n).for_each(|i| rows[i] = part(start + i, 0));
                for (p, panel) in keys.chunks(PANEL * width).enumerate() {
                    bf16.panel_products(&rows[..n], panel, &mut scores[p * PANEL..], padded);
                }
                let mut inverses = [0f32; TILE_ROWS];
                for (i, inverse) in inverses[..n].iter_mut().enumerate() {
                    let row = &scores[i * padded..i * padded + len];
                    let out = &mut weights[i * padded..][..len];
                    *inverse = (passes.softmax_bf16)(row, self.scale(), out);
                }
                let weights = weights.chunks_exact(padded);
                rows.iter_mut().zip(weights).for_each(|(row, weights)| *row = weights);
                let out = &mut context[start * hidden + head * width..];
                bf16.panel_products(&rows[..n], values, out, hidden);
                for (out, inverse) in out.chunks_mut(hidden).zip(&inverses[..n]) {
                    out[..width].iter_mut().for_each(|v| *v *= inverse);
                }
            }
        }
    }
}

/// Puts a key into its lane of its group.
fn interleave_key(key: &[u16], token: usize, keys: &mut [u16]) {
    let start = token / GROUP * GROUP * key.len() + token % GROUP * 2;
    for (pair, lane) in key.chunks_exact(2).zip(keys[start..].chunks_mut(2 * GROUP)) {
        lane[..2].copy_from_slice(pair);
    }
}

/// Puts a value, one number a lane, beside that of its neighbour.
fn interleave_value(value: &[u16], token: usize, padded: usize, values: &mut [u16]) {
    for (g, value) in value.chunks_exact(GROUP).enumerate() {
        let start = g * GROUP * padded + token / 2 * 2 * GROUP + token % 2;
        for (value, out) in value.iter().zip(values[start..].iter_mut().step_by(2)) {
            *out = *value;
        }
    }
}
