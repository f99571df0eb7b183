//! Scaled dot-product attention within each sequence, in float32 or bfloat16, by tiles of queries.

use crate::compute_type::ComputeType;
use crate::config::{EncoderConfig, RELATIVE_BUCKETS};
use crate::linear::F32Gemm;
use crate::linear_input::RoundedRows;
use crate::pooling::NeededStates;
use crate::rotary::Rotary;
use crate::tokenizer::Sequence;
use crate::vector_ops::VectorOps;
use std::ops::Range;
use std::sync::Arc;
use warpseek_compute::cpu::{AlignedVec, Bf16, CACHE_LINE, OperandRows};

/// Queries of a tile: with 256 keys, their scores take 32 KiB.
const TILE_ROWS: usize = 32;

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
    scores: AlignedVec<f32>,
    /// `[tokens, 3 hidden]`.
    qkv: RoundedRows,
    /// Panels of keys, `[width / 2][PANEL][2]`.
    keys: AlignedVec<u16>,
    /// Panels of values, `[keys / 2][PANEL][2]`.
    values: AlignedVec<u16>,
    weights: AlignedVec<u16>,
    /// Sums of values, `[TILE_ROWS, width]`.
    sums: AlignedVec<f32>,
}

/// The destination of the attention's results, `[needed tokens, hidden]`.
pub(crate) enum AttentionOutput<'a> {
    /// In float32.
    F32(&'a mut [f32]),
    /// Rounded to bfloat16.
    Rounded(&'a mut RoundedRows),
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
        let fits = width.is_multiple_of(BF16_LINE);
        let (bf16, ops) = (bf16.filter(|_| fits), VectorOps::of(compute.kernels()));
        let mut relative = relative_bias(bias, config.n_heads, config.max_tokens);
        relative.iter_mut().for_each(|v| *v *= (width as f32).sqrt());
        Self { hidden: config.hidden_size, width, bf16, ops, relative, layers: Rotary::all(config) }
    }

    /// True if [`Attention::apply_rounded`] takes queries, keys and values as they are computed:
    /// without rotary positions, which are applied in float32.
    pub(crate) fn takes_rounded(&self) -> bool {
        self.bf16.is_some() && self.layers.is_empty()
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
        if let Some((rotary, _)) = self.layers.get(layer) {
            let mut rest = &mut *qkv;
            for sequence in batch {
                let (this, later) = rest.split_at_mut(sequence.ids.len() * 3 * self.hidden);
                rotary.apply(this, self.hidden);
                rest = later;
            }
        }
        if self.bf16.is_some() {
            let mut rounded = std::mem::take(&mut scratch.qkv);
            rounded.resize(qkv.len() / (3 * self.hidden), 3 * self.hidden);
            for (i, qkv) in qkv.chunks_exact(3 * self.hidden).enumerate() {
                (self.ops.to_bf16)(qkv, rounded.row_mut(i));
            }
            let context = AttentionOutput::F32(context);
            self.apply_rounded(layer, batch, states, &rounded, context, scratch);
            scratch.qkv = rounded;
            return;
        }
        let (mut qkv, mut context) = (&*qkv, context);
        for sequence in batch {
            let len = sequence.ids.len();
            let (this, rest) = qkv.split_at(len * 3 * self.hidden);
            let (out, later) = context.split_at_mut(states.rows(sequence) * self.hidden);
            self.apply_f32((len, self.window(layer)), this, out, scratch);
            (qkv, context) = (rest, later);
        }
    }

    /// As [`Attention::apply`], from bfloat16 numbers, which were rotated where the model does.
    pub(crate) fn apply_rounded(
        &self,
        layer: usize,
        batch: &[&Sequence],
        states: NeededStates,
        qkv: &RoundedRows,
        mut context: AttentionOutput<'_>,
        scratch: &mut AttentionScratch,
    ) {
        let Some(bf16) = self.bf16 else { return };
        let rows = qkv.rows(0..qkv.len());
        if let AttentionOutput::Rounded(context) = &mut context {
            context.resize(batch.iter().map(|s| states.rows(s)).sum(), self.hidden);
        }
        let (mut first, mut out) = (0, 0);
        for sequence in batch {
            let shape = Shape {
                len: sequence.ids.len(),
                queries: states.rows(sequence),
                window: self.window(layer),
                out,
            };
            let values = &rows.values[first * rows.stride..];
            self.apply_bf16(bf16, shape, OperandRows { values, ..rows }, &mut context, scratch);
            first += shape.len;
            out += shape.queries;
        }
    }

    fn window(&self, layer: usize) -> Option<usize> {
        self.layers.get(layer).and_then(|(_, window)| *window)
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

    /// Returns the columns of scores with the keys of some queries: whole registers.
    fn columns(&self, queries: Range<usize>, len: usize, window: Option<usize>) -> Range<usize> {
        let padded = len.next_multiple_of(BF16_LINE);
        match window {
            None => 0..padded,
            Some(most) => {
                let first = queries.start.saturating_sub(most) / BF16_LINE * BF16_LINE;
                first..(queries.end + most).next_multiple_of(BF16_LINE).min(padded)
            }
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
        space.scores.resize(queries * len);
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
        shape: Shape,
        qkv: OperandRows<'_, u16>,
        context: &mut AttentionOutput<'_>,
        scratch: &mut AttentionScratch,
    ) {
        let Self { hidden, width, ops, .. } = *self;
        let AttentionScratch { scores, keys, values, weights, sums, .. } = scratch;
        let Shape { len, queries, window, out: first_out } = shape;
        // Keys and values are padded with zeros.
        let padded = len.next_multiple_of(BF16_LINE);
        keys.resize(padded * width);
        values.resize(padded * width);
        scores.resize(TILE_ROWS * padded);
        sums.resize(TILE_ROWS * width);
        weights.resize(TILE_ROWS * padded);
        for head in 0..hidden / width {
            let part = |token: usize, part: usize| {
                &qkv.values[token * qkv.stride + part * hidden + head * width..]
            };
            let of = |values| OperandRows { values, n: len, length: width, ..qkv };
            bf16.pack_columns(of(part(0, 1)), keys);
            bf16.pack_rows(of(part(0, 2)), padded, values);
            for start in (0..queries).step_by(TILE_ROWS) {
                let n = TILE_ROWS.min(queries - start);
                let rows = OperandRows { values: part(start, 0), n, length: width, ..qkv };
                bf16.gemm(rows, keys, scores, padded);
                // The keys of all queries of the tile. Others have a weight of zero, and those in
                // between that a query does not attend to one of 2^-100 of the largest.
                let columns = self.columns(start..start + n, len, window);
                for (i, row) in scores.chunks_exact_mut(padded).take(n).enumerate() {
                    let keys = self.keys_of(head, start + i, window, &mut row[..len]);
                    row[columns.start..keys.start].fill(f32::NEG_INFINITY);
                    row[keys.end..columns.end].fill(f32::NEG_INFINITY);
                    weights[i * padded..][..columns.start].fill(0);
                    weights[i * padded..][columns.end..padded].fill(0);
                }
                let mut inverses = [0f32; TILE_ROWS];
                let of = &mut inverses[..n];
                (ops.softmax_bf16)(scores, padded, &columns, self.scale(), weights, of);
                let rows = OperandRows { values: weights, stride: padded, n, length: padded };
                bf16.gemm(rows, values, sums, width);
                for (i, (sums, inverse)) in sums.chunks_exact(width).zip(&inverses[..n]).enumerate()
                {
                    let token = first_out + start + i;
                    match context {
                        AttentionOutput::F32(out) => {
                            let out = &mut out[token * hidden + head * width..][..width];
                            out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * inverse);
                        }
                        AttentionOutput::Rounded(out) => {
                            let (out, stride) = out.values_mut();
                            let out = &mut out[token * stride + head * width..][..width];
                            (ops.scale_bf16)(sums, *inverse, out);
                        }
                    }
                }
            }
        }
    }
}

/// A sequence of a batch.
#[derive(Debug, Clone, Copy)]
struct Shape {
    /// Its tokens.
    len: usize,
    /// The first of them, whose states are needed.
    queries: usize,
    window: Option<usize>,
    /// The row of the context of its first query.
    out: usize,
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
