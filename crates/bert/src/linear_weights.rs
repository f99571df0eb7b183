//! The weights of linear layers in bfloat16 and int8, packed into panels of 16 outputs.
//!
//! Int8 quantization is symmetric for weights, with one scale per output, and asymmetric for
//! activations, with one scale and one zero point per token. Long inputs are divided into
//! quantization groups with scales of their own. Before quantization, smoothing factors make large
//! inputs smaller and their weights larger, which leaves the product unchanged and the rounding
//! errors of both sides small (Xiao et al., "SmoothQuant", ICML 2023). The range of an input is
//! taken from the layer norm in front, not measured.

use crate::vector_ops::BLOCK_COLUMNS;
use std::ops::Range;
use warpseek_compute::cpu::{AlignedVec, CACHE_LINE, Kernels, PANEL, to_bf16};

/// Inputs of a quantization group, approximately.
const QUANT_GROUP: usize = 384;

/// Bfloat16 weights.
#[derive(Debug)]
pub(crate) struct Bf16Weights {
    /// `[length / 2][PANEL][2]` each.
    pub(crate) panels: AlignedVec<u16>,
    /// Inputs with their padding.
    pub(crate) length: usize,
    /// The layer's bias, padded to whole blocks of columns.
    pub(crate) bias: Vec<f32>,
}

/// Int8 weights.
#[derive(Debug)]
pub(crate) struct Int8Weights {
    pub(crate) groups: Vec<QuantGroup>,
    /// Smoothing factor of each input.
    pub(crate) smoothing: Vec<f32>,
}

/// The int8 weights of one quantization group.
#[derive(Debug)]
pub(crate) struct QuantGroup {
    pub(crate) inputs: Range<usize>,
    /// `[length / 4][PANEL][4]` each.
    pub(crate) panels: AlignedVec<u8>,
    /// Inputs with their padding.
    pub(crate) length: usize,
    /// Scale of each output, padded to whole blocks of columns.
    pub(crate) scales: Vec<f32>,
    /// Sum of the weights of each output, padded likewise.
    pub(crate) sums: Vec<f32>,
    /// The layer's bias in the first group, else zeros; padded likewise.
    pub(crate) bias: Vec<f32>,
}

/// Returns the index of input `i` of output `o` in panels with `per_lane` elements in 32 bits.
fn panel_index(o: usize, i: usize, length: usize, per_lane: usize) -> usize {
    let panel = o / PANEL * PANEL * length;
    panel + i / per_lane * PANEL * per_lane + o % PANEL * per_lane + i % per_lane
}

/// Pads terms of outputs to whole blocks of columns.
fn pad(mut terms: Vec<f32>) -> Vec<f32> {
    terms.resize(terms.len().next_multiple_of(BLOCK_COLUMNS), 0.0);
    terms
}

impl Bf16Weights {
    /// Rounds weights, `[n_out, n_in]`.
    pub(crate) fn new(weight: &[f32], bias: &[f32]) -> Self {
        let (n_out, n_in) = (bias.len(), weight.len() / bias.len());
        let length = n_in.next_multiple_of(CACHE_LINE / 2);
        let mut panels = AlignedVec::zeros(n_out.next_multiple_of(PANEL) * length);
        for (o, row) in weight.chunks_exact(n_in).enumerate() {
            for (i, &value) in row.iter().enumerate() {
                panels[panel_index(o, i, length, 2)] = to_bf16(value);
            }
        }
        Self { panels, length, bias: pad(bias.to_vec()) }
    }
}

impl Int8Weights {
    /// Quantizes weights, `[n_out, n_in]`.
    pub(crate) fn new(
        weight: &[f32],
        bias: &[f32],
        activation_range: Option<&[f32]>,
        kernels: Kernels,
    ) -> Self {
        let n_in = weight.len() / bias.len();
        let smoothing = smoothing_factors(weight, n_in, activation_range);
        let group_len = n_in.div_ceil(n_in.div_ceil(QUANT_GROUP)).next_multiple_of(CACHE_LINE);
        let groups = (0..n_in)
            .step_by(group_len)
            .map(|start| {
                let inputs = start..(start + group_len).min(n_in);
                let bias = if start == 0 { bias.to_vec() } else { vec![0.0; bias.len()] };
                QuantGroup::new(weight, inputs, &smoothing, bias, kernels)
            })
            .collect();
        Self { groups, smoothing }
    }

    /// Returns the values of a row of all groups.
    pub(crate) fn row_length(&self) -> usize {
        self.groups.iter().map(|group| group.length).sum()
    }
}

/// Returns the smoothing factors: each input is multiplied, and its weights are divided, by the
/// square root of (mean magnitude of its weights / magnitude of the input).
fn smoothing_factors(weight: &[f32], n_in: usize, activation_range: Option<&[f32]>) -> Vec<f32> {
    let mut magnitudes = vec![0f32; n_in];
    for row in weight.chunks_exact(n_in) {
        magnitudes.iter_mut().zip(row).for_each(|(m, v)| *m += v.abs());
    }
    let n_out = (weight.len() / n_in) as f32;
    let factor = |(i, magnitude): (usize, &f32)| {
        let range = activation_range.map_or(1.0, |range| range[i].abs().max(1e-4));
        ((magnitude / n_out).max(1e-6) / range).sqrt()
    };
    magnitudes.iter().enumerate().map(factor).collect()
}

impl QuantGroup {
    fn new(
        weight: &[f32],
        inputs: Range<usize>,
        smoothing: &[f32],
        bias: Vec<f32>,
        kernels: Kernels,
    ) -> Self {
        let length = inputs.len().next_multiple_of(CACHE_LINE);
        let n_out = bias.len();
        let qmax = kernels.column_qmax();
        let zero = (qmax + 1) as u8;
        let mut panels = AlignedVec::zeros(n_out.next_multiple_of(PANEL) * length);
        panels.fill(zero);
        let (mut scales, mut sums) = (Vec::with_capacity(n_out), Vec::with_capacity(n_out));
        let mut divided = Vec::new();
        for (o, row) in weight.chunks_exact(smoothing.len()).enumerate() {
            let terms = row[inputs.clone()].iter().zip(&smoothing[inputs.clone()]);
            divided.clear();
            divided.extend(terms.map(|(v, f)| v / f));
            let largest = divided.iter().fold(0f32, |m, v| m.max(v.abs()));
            let scale = if largest > 0.0 { largest / qmax as f32 } else { 1.0 };
            let inverse = 1.0 / scale;
            let mut sum = 0;
            for (i, &value) in divided.iter().enumerate() {
                // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
                let integer = (value * inverse + 12_582_912.0 - 12_582_912.0) as i32;
                let integer = integer.clamp(-qmax, qmax);
                panels[panel_index(o, i, length, 4)] = (integer + qmax + 1) as u8;
                sum += integer;
            }
            scales.push(scale);
            sums.push(scale * sum as f32);
        }
        let [scales, sums, bias] = [scales, sums, bias].map(pad);
        Self { inputs, panels, length, scales, sums, bias }
    }
}
