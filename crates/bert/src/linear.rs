//! Linear layers, `y = x W^T + b`, in float32, bfloat16 or int8.
//!
//! Float32 layers take rows of float32. The others take a [`LayerInput`], rows that were rounded or
//! quantized where they were made, and multiply them by panels of weights in blocks whose products
//! stay in the L1 cache until they are finished: dequantized, biased, activated, and written or
//! added where the next step needs them.

use crate::compute_type::ComputeType;
use crate::linear_input::{LayerInput, RoundedRows};
use crate::linear_weights::{Bf16Weights, Int8Weights};
use crate::vector_ops::{BLOCK_COLUMNS, ColumnQuant, ProductBlock, VectorOps};
use crate::weights::Affine;
use std::ops::Range;
use warpseek_compute::cpu::{AlignedVec, Bf16, Kernels, OperandRows, PANEL, PlainNumber};

/// The most tokens for which float32 weights are read in memory order (GEMV): packing them for GEMM
/// would take longer.
const FEW_TOKENS: usize = 32;

/// Rows of products that are finished at a time: a whole number of the kernels' register tiles.
const BLOCK_ROWS: usize = 96;

/// The same for tiles of 32 x 32 products.
const TILED_ROWS: usize = 32;

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
    Bf16(Bf16Weights, Bf16),
    Int8(Int8Weights, Kernels),
}

/// The destination of a layer's outputs.
pub(crate) enum Outputs<'a> {
    /// `[tokens, n_out]`.
    F32(&'a mut [f32]),
    /// The same, added to what is there.
    Added(&'a mut [f32]),
    /// Rounded to bfloat16.
    Rounded(&'a mut RoundedRows),
}

/// Buffers for products and inputs, reused over layers.
#[derive(Debug, Default)]
pub(crate) struct LinearScratch {
    products_i32: [AlignedVec<i32>; 2],
    products_f32: [AlignedVec<f32>; 2],
    /// Outputs of a block of rows before they are quantized.
    staged: AlignedVec<f32>,
    input: LayerInput,
}

impl Linear {
    /// Makes a layer. The weights of `norm`, the layer norm in front, are the approximate magnitude
    /// of each input.
    pub(crate) fn new(affine: Affine, norm: Option<&Affine>, compute: ComputeType) -> Self {
        let Affine { weight, bias } = affine;
        let n_in = weight.len() / bias.len();
        let weight = match compute {
            ComputeType::F32(kernels) => Weight::F32(weight, kernels),
            ComputeType::Bf16(_, bf16) => Weight::Bf16(Bf16Weights::new(&weight, &bias), bf16),
            ComputeType::Int8(kernels) => {
                let range = norm.map(|norm| norm.weight.as_slice());
                Weight::Int8(Int8Weights::new(&weight, &bias, range, kernels), kernels)
            }
        };
        Self { weight, bias, n_in, ops: VectorOps::of(compute.kernels()) }
    }

    /// True for a bfloat16 layer.
    pub(crate) fn is_bf16(&self) -> bool {
        matches!(self.weight, Weight::Bf16(..))
    }

    /// Returns the number of outputs per token.
    pub(crate) fn n_out(&self) -> usize {
        self.bias.len()
    }

    /// Computes `out <- x W^T + b`, or with `add` `out <- out + x W^T + b`. `x` is `[tokens,
    /// n_in]`, `out` `[tokens, n_out]`.
    pub(crate) fn apply(&self, x: &[f32], out: &mut [f32], add: bool, scratch: &mut LinearScratch) {
        let tokens = x.len() / self.n_in;
        let Weight::F32(weight, kernels) = &self.weight else {
            let mut input = std::mem::take(&mut scratch.input);
            self.resize(&mut input, tokens);
            let rows = x.chunks_exact(self.n_in).enumerate();
            rows.for_each(|(row, x)| self.set_row(&mut input, row, x));
            let out = if add { Outputs::Added(out) } else { Outputs::F32(out) };
            self.apply_to(&input, 0..tokens, out, scratch);
            scratch.input = input;
            return;
        };
        let rows = out.chunks_exact_mut(self.n_out());
        if add {
            rows.for_each(|row| row.iter_mut().zip(&self.bias).for_each(|(v, b)| *v += b));
        } else {
            rows.for_each(|row| row.copy_from_slice(&self.bias));
        }
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

    /// Makes room for `n` rows of inputs of this layer.
    pub(crate) fn resize(&self, input: &mut LayerInput, n: usize) {
        match &self.weight {
            Weight::F32(..) => {}
            Weight::Bf16(..) => input.rounded.resize(n, self.n_in),
            Weight::Int8(weights, _) => {
                input.quantized.resize(n, weights.row_length(), weights.groups.len());
            }
        }
    }

    /// Rounds or quantizes a row of inputs, `[n_in]`.
    pub(crate) fn set_row(&self, input: &mut LayerInput, row: usize, x: &[f32]) {
        match &self.weight {
            Weight::F32(..) => {}
            Weight::Bf16(..) => (self.ops.to_bf16)(x, input.rounded.row_mut(row)),
            Weight::Int8(weights, _) => {
                for group in 0..weights.groups.len() {
                    self.set_group(input, row, group, &x[weights.groups[group].inputs.clone()]);
                }
            }
        }
    }

    /// Quantizes the inputs of a quantization group.
    fn set_group(&self, input: &mut LayerInput, row: usize, group: usize, x: &[f32]) {
        let Weight::Int8(weights, _) = &self.weight else { return };
        let inputs = weights.groups[group].inputs.clone();
        let length = weights.groups[group].length;
        let (values, quant) = input.quantized.group_mut(row, group, inputs.start, length);
        let (values, padding) = values.split_at_mut(inputs.len());
        padding.fill(0);
        *quant = (self.ops.quantize)(x, &weights.smoothing[inputs], values);
    }

    /// Computes the outputs of some rows of its input; not for float32 layers. Rounded outputs need
    /// [`Linear::has_one_pass`] and are resized. The first row of the outputs is that of the first
    /// of `tokens`.
    pub(crate) fn apply_to(
        &self,
        input: &LayerInput,
        tokens: Range<usize>,
        mut out: Outputs<'_>,
        scratch: &mut LinearScratch,
    ) {
        let n_out = self.n_out();
        if let Outputs::Rounded(out) = &mut out {
            out.resize(tokens.len(), n_out);
        }
        for group in 0..self.n_groups() {
            let blocks = self.blocks(0..n_out, tokens.len());
            self.multiply(input, tokens.clone(), group, blocks, scratch, |block, products| {
                let (first, start, width) = (block.first, block.start, block.width);
                match &mut out {
                    Outputs::F32(out) => {
                        let out = &mut out[first * n_out + start..];
                        (self.ops.finish)(products, width, out, n_out, group > 0);
                    }
                    Outputs::Added(out) => {
                        let out = &mut out[first * n_out + start..];
                        (self.ops.finish)(products, width, out, n_out, true);
                    }
                    Outputs::Rounded(out) => {
                        let (out, stride) = out.values_mut();
                        let out = &mut out[first * stride + start..];
                        (self.ops.finish_bf16)(products, width, out, stride);
                    }
                }
            });
        }
    }

    /// Computes the inputs of the layer `next` from some rows of its input, with GELU in between,
    /// if [`Linear::has_one_pass`]. `to` is resized.
    pub(crate) fn apply_gelu(
        &self,
        input: &LayerInput,
        tokens: Range<usize>,
        next: &Self,
        to: &mut LayerInput,
        scratch: &mut LinearScratch,
    ) {
        next.resize(to, tokens.len());
        let Weight::Int8(next_weights, _) = &next.weight else {
            let (out, stride) = to.rounded.values_mut();
            let blocks = self.blocks(0..self.n_out(), tokens.len());
            self.multiply(input, tokens, 0, blocks, scratch, |block, products| {
                let out = &mut out[block.first * stride + block.start..];
                (self.ops.finish_gelu_bf16)(products, block.width, out, stride);
            });
            return;
        };
        let mut staged = std::mem::take(&mut scratch.staged);
        for (n, next_group) in next_weights.groups.iter().enumerate() {
            let outputs = next_group.inputs.clone();
            let stride = outputs.len().next_multiple_of(BLOCK_COLUMNS);
            staged.resize(self.block_rows() * stride);
            for first in (0..tokens.len()).step_by(self.block_rows()) {
                let rows = self.block_rows().min(tokens.len() - first);
                let tokens = tokens.start + first..tokens.start + first + rows;
                let blocks = self.blocks(outputs.clone(), rows);
                self.multiply(input, tokens, 0, blocks, scratch, |block, products| {
                    let out = &mut staged[block.start - outputs.start..];
                    (self.ops.finish_gelu)(products, block.width, out, stride);
                });
                for (i, x) in staged.chunks_exact(stride).take(rows).enumerate() {
                    next.set_group(to, first + i, n, &x[..outputs.len()]);
                }
            }
        }
        scratch.staged = staged;
    }

    /// True if [`Linear::apply_gelu`] can compute it: not a float32 layer, nor one of several
    /// quantization groups, whose sums need a pass each.
    pub(crate) fn has_one_pass(&self) -> bool {
        match &self.weight {
            Weight::F32(..) => false,
            Weight::Bf16(..) => true,
            Weight::Int8(weights, _) => weights.groups.len() == 1,
        }
    }

    fn n_groups(&self) -> usize {
        match &self.weight {
            Weight::F32(..) | Weight::Bf16(..) => 1,
            Weight::Int8(weights, _) => weights.groups.len(),
        }
    }

    fn block_rows(&self) -> usize {
        let is_tiled = match &self.weight {
            Weight::F32(..) => false,
            Weight::Bf16(_, bf16) => bf16.is_tiled(),
            Weight::Int8(_, kernels) => kernels.is_tiled(),
        };
        if is_tiled { TILED_ROWS } else { BLOCK_ROWS }
    }

    /// Yields the blocks of some outputs of `n` rows. The panels of a block stay in the L1 cache
    /// while the rows pass by.
    fn blocks(&self, outputs: Range<usize>, n: usize) -> impl Iterator<Item = OutputBlock> + use<> {
        let (step, end) = (self.block_rows(), outputs.end);
        outputs.step_by(BLOCK_COLUMNS).flat_map(move |start| {
            (0..n).step_by(step).map(move |first| OutputBlock {
                first,
                rows: step.min(n - first),
                start,
                width: BLOCK_COLUMNS.min(end - start),
            })
        })
    }

    /// Multiplies blocks and passes the products to `finish`. It is double-buffered: each block is
    /// finished while the next one is multiplied, since tiles and vectors have units of their own.
    /// Of int8 inputs it takes the quantization group `group`.
    fn multiply(
        &self,
        input: &LayerInput,
        tokens: Range<usize>,
        group: usize,
        blocks: impl Iterator<Item = OutputBlock>,
        scratch: &mut LinearScratch,
        mut finish: impl FnMut(OutputBlock, &ProductBlock<'_>),
    ) {
        let len = self.block_rows() * BLOCK_COLUMNS;
        match &self.weight {
            Weight::F32(..) => {}
            Weight::Bf16(weights, bf16) => {
                let rows = input.rounded.rows(tokens);
                let buffers = &mut scratch.products_f32;
                buffers.iter_mut().for_each(|buffer| buffer.resize(len));
                let multiply = |block: OutputBlock, out: &mut [f32]| {
                    let panels = &weights.panels[block.panels(weights.length)];
                    bf16.gemm(block.of(rows), panels, out, BLOCK_COLUMNS);
                };
                in_turn(blocks, buffers, multiply, |block, products| {
                    let bias = &weights.bias[block.start..][..BLOCK_COLUMNS];
                    finish(block, &ProductBlock::F32(&products[..block.len()], bias));
                });
            }
            Weight::Int8(weights, kernels) => {
                let group_weights = &weights.groups[group];
                let (rows, quants) = input.quantized.rows(tokens, group, group_weights.length);
                let buffers = &mut scratch.products_i32;
                buffers.iter_mut().for_each(|buffer| buffer.resize(len));
                let multiply = |block: OutputBlock, out: &mut [i32]| {
                    let panels = &group_weights.panels[block.panels(group_weights.length)];
                    kernels.gemm_rows_i8(block.of(rows), panels, out, BLOCK_COLUMNS);
                };
                in_turn(blocks, buffers, multiply, |block, products| {
                    let terms = ColumnQuant {
                        zero_point: kernels.column_qmax() + 1,
                        scales: &group_weights.scales[block.start..][..BLOCK_COLUMNS],
                        sums: &group_weights.sums[block.start..][..BLOCK_COLUMNS],
                        bias: &group_weights.bias[block.start..][..BLOCK_COLUMNS],
                    };
                    let quants = &quants[block.first..][..block.rows];
                    finish(block, &ProductBlock::I32(&products[..block.len()], quants, terms));
                });
            }
        }
    }
}

/// A block of products: some rows and up to [`BLOCK_COLUMNS`] outputs.
#[derive(Debug, Clone, Copy)]
struct OutputBlock {
    /// The first row.
    first: usize,
    rows: usize,
    /// The first output.
    start: usize,
    width: usize,
}

impl OutputBlock {
    /// Returns its products with their padding.
    fn len(self) -> usize {
        self.rows * BLOCK_COLUMNS
    }

    /// Returns its rows.
    fn of<T>(self, rows: OperandRows<'_, T>) -> OperandRows<'_, T> {
        OperandRows { values: &rows.values[self.first * rows.stride..], n: self.rows, ..rows }
    }

    /// Returns where the values of its panels are, which have `length` values per output.
    fn panels(self, length: usize) -> Range<usize> {
        self.start * length..(self.start + self.width).next_multiple_of(PANEL) * length
    }
}

/// Multiplies each block, and finishes it after the next one was multiplied.
fn in_turn<P: PlainNumber>(
    blocks: impl Iterator<Item = OutputBlock>,
    [even, odd]: &mut [AlignedVec<P>; 2],
    multiply: impl Fn(OutputBlock, &mut [P]),
    mut finish: impl FnMut(OutputBlock, &[P]),
) {
    let (mut now, mut before) = (even, odd);
    let mut last = None;
    for block in blocks {
        multiply(block, now);
        if let Some(last) = last.replace(block) {
            finish(last, before);
        }
        std::mem::swap(&mut now, &mut before);
    }
    if let Some(last) = last {
        finish(last, before);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activation::Activation;
    use warpseek_compute::cpu::Tier;
    use warpseek_compute::device::Precision;

    /// Numbers of some spread, the same for the same seed.
    fn numbers(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn affine(n_in: usize, n_out: usize) -> Affine {
        Affine { weight: numbers(n_in * n_out, n_out), bias: numbers(n_out, 3) }
    }

    /// The layer's outputs in float64.
    fn exact(x: &[f32], affine: &Affine, n_in: usize) -> Vec<f64> {
        let mut out = Vec::new();
        for x in x.chunks_exact(n_in) {
            for (w, b) in affine.weight.chunks_exact(n_in).zip(&affine.bias) {
                let product = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                out.push(product.sum::<f64>() + f64::from(*b));
            }
        }
        out
    }

    fn gelu(v: f64) -> f64 {
        f64::from(Activation::Gelu.apply(v as f32))
    }

    #[test]
    fn low_precision_layers_of_every_shape_are_close_to_float64_whatever_the_buffers_held() {
        let shapes = [(24, 20), (60, 48), (312, 312), (400, 33), (768, 80), (1024, 16)];
        for tier in Tier::ALL.into_iter().filter(|t| t.is_available()) {
            for precision in [Precision::Int8, Precision::Bf16] {
                let Ok(compute) = ComputeType::of(precision, tier) else { continue };
                // Reused over all shapes.
                let mut scratch = LinearScratch::default();
                let (mut input, mut wide) = (LayerInput::default(), LayerInput::default());
                let mut rounded = RoundedRows::default();
                for ((n_in, n_out), tokens) in
                    shapes.into_iter().flat_map(|s| [1, 15, 17, 33, 97].map(move |t| (s, t)))
                {
                    let what = format!("{}, {n_in} to {n_out}, {tokens}", compute.name());
                    let first = affine(n_in, n_out);
                    let layer = Linear::new(first.clone(), None, compute);
                    let x = numbers(tokens * n_in, 5);
                    let expected = exact(&x, &first, n_in);
                    // Errors of rounding add up like a random walk.
                    let room = 0.02 * (n_in as f64).sqrt();
                    let check = |got: &[f32], expected: &mut dyn Iterator<Item = f64>| {
                        for (got, expected) in got.iter().zip(expected) {
                            let error = (f64::from(*got) - expected).abs();
                            let room = room + 0.004 * expected.abs();
                            assert!(error < room, "{what}: {got} for {expected}");
                        }
                    };
                    layer.resize(&mut input, tokens);
                    let rows = x.chunks_exact(n_in).enumerate();
                    rows.for_each(|(row, x)| layer.set_row(&mut input, row, x));
                    let mut out = vec![f32::NAN; tokens * n_out];
                    layer.apply_to(&input, 0..tokens, Outputs::F32(&mut out), &mut scratch);
                    check(&out, &mut expected.iter().copied());
                    // Buffers that held other shapes change no bit.
                    let mut again = vec![0f32; tokens * n_out];
                    layer.apply(&x, &mut again, false, &mut LinearScratch::default());
                    assert_eq!(out, again, "{what}");
                    // Some rows alone, added.
                    let some = tokens / 2..tokens;
                    let of_some = &expected[some.start * n_out..];
                    let mut sum = vec![1f32; of_some.len()];
                    layer.apply_to(&input, some.clone(), Outputs::Added(&mut sum), &mut scratch);
                    check(&sum, &mut of_some.iter().map(|v| v + 1.0));
                    if !layer.has_one_pass() {
                        continue;
                    }
                    let out = Outputs::Rounded(&mut rounded);
                    layer.apply_to(&input, some.clone(), out, &mut scratch);
                    for (row, expected) in of_some.chunks_exact(n_out).enumerate() {
                        let row = rounded.row_mut(row).iter();
                        let got: Vec<f32> =
                            row.map(|v| f32::from_bits(u32::from(*v) << 16)).collect();
                        check(&got, &mut expected.iter().copied());
                    }
                    // Another layer behind GELU.
                    let second = affine(n_out, 40);
                    let next = Linear::new(second.clone(), None, compute);
                    layer.apply_gelu(&input, some.clone(), &next, &mut wide, &mut scratch);
                    let mut out = vec![0f32; some.len() * 40];
                    next.apply_to(&wide, 0..some.len(), Outputs::F32(&mut out), &mut scratch);
                    let hidden: Vec<f32> = of_some.iter().map(|v| gelu(*v) as f32).collect();
                    let room = 0.03 * largest(&hidden) * (n_out as f64).sqrt();
                    let expected = exact(&hidden, &second, n_out);
                    for (got, expected) in out.iter().zip(expected) {
                        let error = (f64::from(*got) - expected).abs();
                        assert!(error < room, "{what}, behind GELU: {got} for {expected}");
                    }
                }
            }
        }
    }

    fn largest(values: &[f32]) -> f64 {
        values.iter().fold(0.0, |m, v| f64::from(v.abs()).max(m))
    }
}
