//! Linear layers, `y = x W^T + b`, in float32, bfloat16 or int8.
//!
//! Bfloat16 and int8 weights are packed into panels of 16 outputs for the GEMM kernels of
//! [`warpseek_compute::cpu`]. Int8 quantization is symmetric for weights, with one scale per
//! output, and asymmetric for activations, with one scale and one zero point per token. Long inputs
//! are divided into quantization groups with scales of their own. Before quantization, smoothing
//! factors make large inputs smaller and their weights larger, which leaves the product unchanged
//! and the rounding errors of both sides small (Xiao et al., "SmoothQuant", ICML 2023). The range
//! of an input is taken from the layer norm in front, not measured.

use crate::compute_type::ComputeType;
use crate::vector_ops::{ColumnQuant, RowQuant, VectorOps};
use crate::weights::Affine;
use std::ops::Range;
use warpseek_compute::cpu::{Bf16, CACHE_LINE, Kernels, MAX_PANELS, PANEL, to_bf16};

/// Tokens whose products are computed before they are dequantized: they stay in the L1 cache.
const TILE_ROWS: usize = 48;

/// Inputs of a quantization group, approximately.
const QUANT_GROUP: usize = 384;

/// The most tokens for which float32 weights are read in memory order (GEMV): packing them for GEMM
/// would take longer.
const FEW_TOKENS: usize = 32;

/// Outputs of one GEMM call.
const CALL_COLUMNS: usize = MAX_PANELS * PANEL;

/// Weights and bias of a layer.
#[derive(Debug)]
pub(crate) struct Linear {
    weight: Weight,
    bias: Vec<f32>,
    n_in: usize,
    ops: VectorOps,
}

#[derive(Debug)]
enum Weight {
    /// `[n_out, n_in]`.
    F32(Vec<f32>, Kernels),
    /// Panels `[length / 2][PANEL][2]`.
    Bf16 { panels: Vec<u16>, length: usize, bf16: Bf16 },
    /// Quantization groups, and per input its smoothing factor.
    Int8 { groups: Vec<QuantGroup>, smoothing: Vec<f32>, kernels: Kernels },
}

/// The int8 weights of one quantization group.
#[derive(Debug)]
struct QuantGroup {
    inputs: Range<usize>,
    /// Panels `[length / 4][PANEL][4]`.
    panels: Vec<u8>,
    length: usize,
    /// Scale of each output.
    scales: Vec<f32>,
    /// Sum of the weights of each output.
    sums: Vec<f32>,
    /// The layer's bias in the first group, else zeros.
    bias: Vec<f32>,
}

/// Buffers for inputs in the precision of the weights, and for products; reused over layers.
#[derive(Debug, Default)]
pub(crate) struct LinearScratch {
    x_i8: Vec<i8>,
    rows: Vec<RowQuant>,
    x_bf16: Vec<u16>,
    products_i32: Vec<i32>,
    products_f32: Vec<f32>,
}

impl Linear {
    /// Makes a layer. The weights of `norm`, the layer norm in front, are the approximate magnitude
    /// of each input.
    pub(crate) fn new(affine: Affine, norm: Option<&Affine>, compute: ComputeType) -> Self {
        let Affine { weight, bias } = affine;
        let activation_range = norm.map(|norm| norm.weight.as_slice());
        let n_in = weight.len() / bias.len();
        let weight = match compute {
            ComputeType::F32(kernels) => Weight::F32(weight, kernels),
            ComputeType::Bf16(_, bf16) => pack_bf16(&weight, n_in, bf16),
            ComputeType::Int8(kernels) => quantize(&weight, &bias, activation_range, kernels),
        };
        Self { weight, bias, n_in, ops: VectorOps::of(compute.kernels()) }
    }

    /// Returns the number of outputs per token.
    pub(crate) fn n_out(&self) -> usize {
        self.bias.len()
    }

    /// Computes `out <- x W^T + b`, or with `add` `out <- out + x W^T + b`. `x` is `[tokens,
    /// n_in]`, `out` `[tokens, n_out]`.
    pub(crate) fn apply(&self, x: &[f32], out: &mut [f32], add: bool, scratch: &mut LinearScratch) {
        match &self.weight {
            Weight::F32(weight, kernels) => {
                let rows = out.chunks_exact_mut(self.n_out());
                if add {
                    rows.for_each(|row| row.iter_mut().zip(&self.bias).for_each(|(v, b)| *v += b));
                } else {
                    rows.for_each(|row| row.copy_from_slice(&self.bias));
                }
                let tokens = x.len() / self.n_in;
                if tokens <= FEW_TOKENS && kernels.gemv_f32(x, weight, self.n_in, out) {
                    return;
                }
                F32Gemm {
                    shape: [tokens, self.n_out(), self.n_in],
                    left: (x, self.n_in, 1),
                    right: (weight, 1, self.n_in),
                    out: (out, self.n_out()),
                    accumulate: true,
                }
                .run();
            }
            Weight::Bf16 { .. } => self.apply_bf16(x, out, add, scratch),
            Weight::Int8 { .. } => self.apply_int8(x, out, add, scratch),
        }
    }

    fn apply_bf16(&self, x: &[f32], out: &mut [f32], add: bool, scratch: &mut LinearScratch) {
        let Weight::Bf16 { panels, length, bf16 } = &self.weight else { return };
        let length = *length;
        let tokens = x.len() / self.n_in;
        scratch.x_bf16.resize(tokens * length, 0);
        for (x, row) in x.chunks_exact(self.n_in).zip(scratch.x_bf16.chunks_exact_mut(length)) {
            (self.ops.to_bf16)(x, &mut row[..self.n_in]);
            row[self.n_in..].fill(0);
        }
        scratch.products_f32.resize(TILE_ROWS * CALL_COLUMNS, 0.0);
        for (columns, panels) in self.calls().zip(panels.chunks(CALL_COLUMNS * length)) {
            let width = panels.len() / length;
            for_each_tile(&scratch.x_bf16, length, out, self.n_out(), |rows, out| {
                let products = &mut scratch.products_f32[..rows.len() * width];
                bf16.gemm(rows, panels, products, width);
                for (products, out) in
                    products.chunks_exact(width).zip(out.chunks_exact_mut(self.n_out()))
                {
                    let terms = products.iter().zip(&self.bias[columns.clone()]);
                    for (out, (product, bias)) in out[columns.clone()].iter_mut().zip(terms) {
                        *out = if add { *out + (product + bias) } else { product + bias };
                    }
                }
            });
        }
    }

    fn apply_int8(&self, x: &[f32], out: &mut [f32], add: bool, scratch: &mut LinearScratch) {
        let Weight::Int8 { groups, smoothing, kernels } = &self.weight else { return };
        let tokens = x.len() / self.n_in;
        scratch.products_i32.resize(TILE_ROWS * CALL_COLUMNS, 0);
        for (g, group) in groups.iter().enumerate() {
            let length = group.length;
            scratch.x_i8.resize(tokens * length, 0);
            scratch.rows.clear();
            let smoothing = &smoothing[group.inputs.clone()];
            for (x, row) in x.chunks_exact(self.n_in).zip(scratch.x_i8.chunks_exact_mut(length)) {
                let (row, rest) = row.split_at_mut(smoothing.len());
                scratch.rows.push((self.ops.quantize)(&x[group.inputs.clone()], smoothing, row));
                rest.fill(0);
            }
            for (columns, panels) in self.calls().zip(group.panels.chunks(CALL_COLUMNS * length)) {
                let width = panels.len() / length;
                let terms = ColumnQuant {
                    start: columns.start,
                    stride: self.n_out(),
                    zero_point: kernels.column_qmax() + 1,
                    scales: &group.scales[columns.clone()],
                    sums: &group.sums[columns.clone()],
                    bias: &group.bias[columns],
                };
                let mut row_terms = scratch.rows.chunks(TILE_ROWS);
                for_each_tile(&scratch.x_i8, length, out, self.n_out(), |rows, out| {
                    let products = &mut scratch.products_i32[..rows.len() * width];
                    kernels.gemm_i8(rows, panels, products);
                    let rows = row_terms.next().unwrap_or_default();
                    (self.ops.dequantize)(products, rows, &terms, out, add || g > 0);
                });
            }
        }
    }

    /// Yields the outputs of each GEMM call.
    fn calls(&self) -> impl Iterator<Item = Range<usize>> {
        let n_out = self.n_out();
        (0..n_out).step_by(CALL_COLUMNS).map(move |start| start..(start + CALL_COLUMNS).min(n_out))
    }
}

/// Passes up to [`TILE_ROWS`] rows of `x`, `length` values each, and their rows of the output to
/// `work`.
fn for_each_tile<T>(
    x: &[T],
    length: usize,
    out: &mut [f32],
    n_out: usize,
    mut work: impl FnMut(&[&[T]], &mut [f32]),
) {
    for (x, out) in x.chunks(TILE_ROWS * length).zip(out.chunks_mut(TILE_ROWS * n_out)) {
        let mut rows: [&[T]; TILE_ROWS] = [&[]; TILE_ROWS];
        let n = x.len() / length;
        rows.iter_mut().zip(x.chunks_exact(length)).for_each(|(row, x)| *row = x);
        work(&rows[..n], out);
    }
}

/// Returns the index of input `i` of output `o` in panels with `per_lane` elements in 32 bits.
fn panel_index(o: usize, i: usize, length: usize, per_lane: usize) -> usize {
    let panel = o / PANEL * PANEL * length;
    panel + i / per_lane * PANEL * per_lane + o % PANEL * per_lane + i % per_lane
}

fn pack_bf16(weight: &[f32], n_in: usize, bf16: Bf16) -> Weight {
    let length = n_in.next_multiple_of(CACHE_LINE / 2);
    let n_out = weight.len() / n_in;
    let mut panels = vec![0u16; n_out.next_multiple_of(PANEL) * length];
    for (o, row) in weight.chunks_exact(n_in).enumerate() {
        for (i, &value) in row.iter().enumerate() {
            panels[panel_index(o, i, length, 2)] = to_bf16(value);
        }
    }
    Weight::Bf16 { panels, length, bf16 }
}

fn quantize(
    weight: &[f32],
    bias: &[f32],
    activation_range: Option<&[f32]>,
    kernels: Kernels,
) -> Weight {
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
    Weight::Int8 { groups, smoothing, kernels }
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
        let mut panels = vec![zero; n_out.next_multiple_of(PANEL) * length];
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
        Self { inputs, panels, length, scales, sums, bias }
    }
}

/// A float32 GEMM on one thread, by the crate `gemm`. Operands are slices with the distances
/// between rows and between columns.
pub(crate) struct F32Gemm<'a> {
    /// Rows of the left operand, columns of the right one, and their common dimension.
    pub(crate) shape: [usize; 3],
    pub(crate) left: (&'a [f32], usize, usize),
    pub(crate) right: (&'a [f32], usize, usize),
    /// The output, with contiguous columns.
    pub(crate) out: (&'a mut [f32], usize),
    /// True to add the product to the output.
    pub(crate) accumulate: bool,
}

impl F32Gemm<'_> {
    pub(crate) fn run(self) {
        let [m, n, k] = self.shape;
        let last =
            |rows: usize, cols: usize, rs: usize, cs: usize| (rows - 1) * rs + (cols - 1) * cs;
        assert!(m > 0 && n > 0 && k > 0, "empty matrix product");
        assert!(last(m, k, self.left.1, self.left.2) < self.left.0.len());
        assert!(last(k, n, self.right.1, self.right.2) < self.right.0.len());
        assert!(last(m, n, self.out.1, 1) < self.out.0.len());
        // SAFETY: the last element of each operand is within its slice, as checked above, so all
        // are; the output is borrowed exclusively.
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
