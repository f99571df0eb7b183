//! Scaled dot-product attention within each sequence, in float32 or bfloat16, by tiles of queries.

use crate::compute_type::ComputeType;
use crate::config::{EncoderConfig, RELATIVE_BUCKETS};
use crate::linear::F32Gemm;
use crate::pooling::NeededStates;
use crate::rotary::Rotary;
use crate::tokenizer::Sequence;
use crate::vector_ops::VectorOps;
use std::ops::Range;
use std::sync::Arc;
use warpseek_compute::cpu::{Bf16, CACHE_LINE, MAX_PANELS, PANEL};

/// Queries of a tile: with 256 keys, their scores take 48 KiB.
const TILE_ROWS: usize = 48;

/// Keys of one GEMM call.
const CALL_KEYS: usize = MAX_PANELS * PANEL;

/// Bfloat16 numbers in a row of an AMX tile.
const BF16_LINE: usize = CACHE_LINE / 2;

/// The attention of a model.
#[derive(Debug)]
pub(crate) struct Attention {
    hidden: usize,
    /// Values of a head.
    width: usize,
    bf16: Option<Bf16>,
    ops: VectorOps,
    /// The relative attention bias by head and distance, in units of scores before scaling; empty
    /// without one. See [`relative_bias`].
    relative: Vec<f32>,
    /// Rotary positions and window of each layer; empty without them.
    layers: Vec<(Arc<Rotary>, Option<usize>)>,
}

/// Buffers of the attention, reused over layers.
#[derive(Debug, Default)]
pub(crate) struct AttentionScratch {
    scores: Vec<f32>,
    /// `[len, 3 hidden]`.
    qkv: Vec<u16>,
    /// Panels of keys, `[width / 2][PANEL][2]`.
    keys: Vec<u16>,
    /// Panels of values, `[keys / 2][PANEL][2]`.
    values: Vec<u16>,
    weights: Vec<u16>,
}

impl Attention {
    /// Makes the attention of a model. `bias` is its relative attention bias, `[buckets, heads]`,
    /// or empty.
    pub(crate) fn new(config: &EncoderConfig, bias: &[f32], compute: ComputeType) -> Self {
        let width = config.head_width();
        let bf16 = match compute {
            ComputeType::F32(_) => None,
            ComputeType::Bf16(_, bf16) => Some(bf16),
            ComputeType::Int8(kernels) => kernels.bf16(),
        };
        // The kernel requires heads of whole tile rows; others are rare.
        let fits = width.is_multiple_of(BF16_LINE) && width <= CALL_KEYS;
        let (bf16, ops) = (bf16.filter(|_| fits), VectorOps::of(compute.kernels()));
        let mut relative = relative_bias(bias, config.n_heads, config.max_tokens);
        relative.iter_mut().for_each(|v| *v *= (width as f32).sqrt());
        Self { hidden: config.hidden_size, width, bf16, ops, relative, layers: Rotary::all(config) }
    }

    /// Computes `context`, `[needed tokens, hidden]`, from queries, keys and values, `[tokens, 3
    /// hidden]`, which it may rotate in place.
    pub(crate) fn apply(
        &self,
        layer: usize,
        batch: &[&Sequence],
        states: NeededStates,
        qkv: &mut [f32],
        context: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        let (mut qkv, mut context) = (qkv, context);
        let (rotary, window) = match self.layers.get(layer) {
            Some((rotary, window)) => (Some(rotary), *window),
            None => (None, None),
        };
        for sequence in batch {
            let len = sequence.ids.len();
            let (this, rest) = qkv.split_at_mut(len * 3 * self.hidden);
            if let Some(rotary) = rotary {
                rotary.apply(this, self.hidden);
            }
            let (out, later) = context.split_at_mut(states.rows(sequence) * self.hidden);
            match self.bf16 {
                Some(bf16) => self.apply_bf16(bf16, (len, window), this, out, scratch),
                None => self.apply_f32((len, window), this, out, scratch),
            }
            (qkv, context) = (rest, later);
        }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.width as f32).sqrt()
    }

    /// Adds the relative attention bias to the scores of a query with all keys, and returns the
    /// keys that it attends to.
    fn keys_of(
        &self,
        head: usize,
        query: usize,
        window: Option<usize>,
        scores: &mut [f32],
    ) -> Range<usize> {
        let n_distances = self.relative.len() / (self.hidden / self.width);
        if n_distances > 0 {
            // Distance 0 is in the middle.
            let first = head * n_distances + n_distances / 2 - query;
            let bias = &self.relative[first..];
            scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
        }
        match window {
            None => 0..scores.len(),
            Some(most) => query.saturating_sub(most)..(query + most + 1).min(scores.len()),
        }
    }

    fn apply_f32(
        &self,
        (len, window): (usize, Option<usize>),
        qkv: &[f32],
        out: &mut [f32],
        space: &mut AttentionScratch,
    ) {
        let Self { hidden, width, .. } = *self;
        let queries = out.len() / hidden;
        space.scores.resize(queries * len, 0.0);
        let scores = &mut space.scores[..queries * len];
        for head in 0..hidden / width {
            let at = |part: usize| &qkv[part * hidden + head * width..];
            F32Gemm {
                shape: [queries, len, width],
                left: (at(0), 3 * hidden, 1),
                right: (at(1), 1, 3 * hidden),
                out: (scores, len),
                accumulate: false,
            }
            .run();
            for (query, row) in scores.chunks_exact_mut(len).enumerate() {
                let keys = self.keys_of(head, query, window, row);
                row[..keys.start].fill(0.0);
                row[keys.end..].fill(0.0);
                (self.ops.softmax)(&mut row[keys], self.scale());
            }
            F32Gemm {
                shape: [queries, width, len],
                left: (scores, len, 1),
                right: (at(2), 3 * hidden, 1),
                out: (&mut out[head * width..], hidden),
                accumulate: false,
            }
            .run();
        }
    }

    fn apply_bf16(
        &self,
        bf16: Bf16,
        (len, window): (usize, Option<usize>),
        qkv: &[f32],
        context: &mut [f32],
        scratch: &mut AttentionScratch,
    ) {
        let Self { hidden, width, ops, .. } = *self;
        let AttentionScratch { scores, qkv: qkv_bf16, keys, values, weights } = scratch;
        let queries = context.len() / hidden;
        // Keys are padded with zeros, whose attention weights are zeros too.
        let padded = len.next_multiple_of(BF16_LINE);
        qkv_bf16.resize(len * 3 * hidden, 0);
        (ops.to_bf16)(qkv, qkv_bf16);
        keys.clear();
        keys.resize(padded * width, 0);
        values.clear();
        values.resize(padded * width, 0);
        scores.resize(TILE_ROWS * padded, 0.0);
        weights.clear();
        weights.resize(TILE_ROWS * padded, 0);
        for head in 0..hidden / width {
            let part = |token: usize, part: usize| {
                &qkv_bf16[token * 3 * hidden + part * hidden + head * width..][..width]
            };
            for token in 0..len {
                interleave_key(part(token, 1), token, keys);
                interleave_value(part(token, 2), token, padded, values);
            }
            for start in (0..queries).step_by(TILE_ROWS) {
                let mut rows: [&[u16]; TILE_ROWS] = [&[]; TILE_ROWS];
                let n = TILE_ROWS.min(queries - start);
                (0..n).for_each(|i| rows[i] = part(start + i, 0));
                for (p, panels) in keys.chunks(CALL_KEYS * width).enumerate() {
                    bf16.gemm(&rows[..n], panels, &mut scores[p * CALL_KEYS..], padded);
                }
                let mut inverses = [0f32; TILE_ROWS];
                for (i, inverse) in inverses[..n].iter_mut().enumerate() {
                    let row = &mut scores[i * padded..i * padded + len];
                    let out = &mut weights[i * padded..][..len];
                    let keys = self.keys_of(head, start + i, window, row);
                    out[..keys.start].fill(0);
                    out[keys.end..].fill(0);
                    *inverse = (ops.softmax_bf16)(&row[keys.clone()], self.scale(), &mut out[keys]);
                }
                let weights = weights.chunks_exact(padded);
                rows.iter_mut().zip(weights).for_each(|(row, weights)| *row = weights);
                let out = &mut context[start * hidden + head * width..];
                bf16.gemm(&rows[..n], values, out, hidden);
                for (out, inverse) in out.chunks_mut(hidden).zip(&inverses[..n]) {
                    out[..width].iter_mut().for_each(|v| *v *= inverse);
                }
            }
        }
    }
}

/// Writes a key into its lane of its panel.
fn interleave_key(key: &[u16], token: usize, keys: &mut [u16]) {
    let start = token / PANEL * PANEL * key.len() + token % PANEL * 2;
    for (pair, lane) in key.chunks_exact(2).zip(keys[start..].chunks_mut(2 * PANEL)) {
        lane[..2].copy_from_slice(pair);
    }
}

/// Writes a value, one number per lane, beside that of the neighbouring token.
fn interleave_value(value: &[u16], token: usize, padded: usize, values: &mut [u16]) {
    for (p, value) in value.chunks_exact(PANEL).enumerate() {
        let start = p * PANEL * padded + token / 2 * 2 * PANEL + token % 2;
        for (value, out) in value.iter().zip(values[start..].iter_mut().step_by(2)) {
            *out = *value;
        }
    }
}

/// Returns the relative attention bias of each head for the distances `-(most - 1)` to `most - 1`
/// from query to key, `[heads, 2 most - 1]`, from a table `[buckets, heads]`; empty without one.
///
/// Half of the buckets are for keys in front. Distances below 8 have a bucket each, larger ones up
/// to 128 share buckets by their logarithm (Raffel et al. 2020).
pub(crate) fn relative_bias(table: &[f32], n_heads: usize, most: usize) -> Vec<f32> {
    const HALF: usize = RELATIVE_BUCKETS / 2;
    const EXACT: usize = HALF / 2;
    const FARTHEST: usize = 128;
    if table.is_empty() {
        return Vec::new();
    }
    let bucket = |distance: usize| {
        if distance < EXACT {
            return distance;
        }
        let octaves = (distance as f32 / EXACT as f32).ln();
        let all = ((FARTHEST / EXACT) as f64).ln() as f32;
        (EXACT + (octaves / all * (HALF - EXACT) as f32) as usize).min(HALF - 1)
    };
    let buckets = (0..2 * most - 1).map(|i| match i.checked_sub(most - 1) {
        // Keys behind the query.
        Some(0) => 0,
        Some(behind) => HALF + bucket(behind),
        None => bucket(most - 1 - i),
    });
    let buckets: Vec<usize> = buckets.collect();
    (0..n_heads).flat_map(|head| buckets.iter().map(move |b| table[b * n_heads + head])).collect()
}
