//! `y = x W^T + b`, in float32, bfloat16 or bytes.
//!
//! In bfloat16 and bytes the weights lie in groups of 16 outputs, interleaved as [`crate::cpu`]'s kernels
//! take them. Bytes have a scale an output and, on the other side, a scale and a centre a token; many inputs are
//! cut into pieces with scales of their own. Before that, inputs that are large are made smaller and their
//! weights larger, which leaves the product as it is and the rounding of both sides small (Xiao et al., "SmoothQuant",
//! ICML 2023); how large an input is, is read off the layer norm in front, not measured.

use super::Arithmetic;
use super::elementwise::{ByteColumns, ByteRow, Passes};
use crate::cpu::bf16::{Bf16, to_bf16};
use crate::cpu::{GROUP, Kernels, LINE, PANEL_GROUPS, floats};
use std::ops::Range;

/// Tokens whose products are computed before they are finished: they stay in the first-level cache.
const TILE_ROWS: usize = 48;

/// Inputs of a piece with scales of its own, about.
const PIECE: usize = 384;

/// Tokens for which float32 weights are read as they lie: taking them apart for a faster product would take longer.
const FEW_TOKENS: usize = 32;

/// Outputs of a panel.
const PANEL: usize = PANEL_GROUPS * GROUP;

/// Weights and bias of a layer.
#[derive(Debug)]
pub(super) struct Linear {
    weight: Weight,
    bias: Vec<f32>,
    n_in: usize,
}

#[derive(Debug)]
enum Weight {
    /// `[n_out, n_in]`.
    Float(Vec<f32>),
    /// Groups `[length / 2][GROUP][2]`.
    Halves { groups: Vec<u16>, length: usize, bf16: Bf16 },
    /// See [`Bytes`]; per input what it is multiplied by.
    Bytes { pieces: Vec<Bytes>, factors: Vec<f32>, kernels: Kernels },
}

/// The weights of some inputs in bytes.
#[derive(Debug)]
struct Bytes {
    inputs: Range<usize>,
    /// Groups `[length / 4][GROUP][4]`.
    groups: Vec<u8>,
    length: usize,
    /// What an integer counts, per output.
    scales: Vec<f32>,
    /// The sum of the weights, per output.
    sums: Vec<f32>,
    /// The layer's bias in the first piece, else zeros.
    bias: Vec<f32>,
}

/// Inputs in the precision of the weights, and products; reused over layers.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    bytes: Vec<i8>,
    terms: Vec<ByteRow>,
    halves: Vec<u16>,
    integers: Vec<i32>,
    floats: Vec<f32>,
}

impl Linear {
    /// A layer of `weight`, `[n_out, n_in]`, and `bias`, `[n_out]`. `spread` says about how large each input is, the
    /// weights of the layer norm that it comes from, say.
    pub(super) fn new(
        weight: Vec<f32>,
        bias: Vec<f32>,
        spread: Option<&[f32]>,
        arithmetic: Arithmetic,
    ) -> Self {
        let n_in = weight.len() / bias.len();
        let weight = match arithmetic {
            Arithmetic::Float => Weight::Float(weight),
            Arithmetic::Halves(bf16) => halves(&weight, n_in, bf16),
            Arithmetic::Bytes(kernels, _) => bytes(&weight, &bias, spread, kernels),
        };
        Self { weight, bias, n_in }
    }

    /// Outputs a token.
    pub(super) fn n_out(&self) -> usize {
        self.bias.len()
    }

    /// `out <- x W^T + b`, or with `add` `out <- out + x W^T + b`; `x` is `[tokens, n_in]` and `out`
    /// `[tokens, n_out]`.
    pub(super) fn apply(
        &self,
        x: &[f32],
        out: &mut [f32],
        add: bool,
        passes: &Passes,
        scratch: &mut Scratch,
    ) {
        match &self.weight {
            Weight::Float(weight) => {
                let rows = out.chunks_exact_mut(self.n_out());
                if add {
                    rows.for_each(|row| row.iter_mut().zip(&self.bias).for_each(|(v, b)| *v += b));
                } else {
                    rows.for_each(|row| row.copy_from_slice(&self.bias));
                }
                let tokens = x.len() / self.n_in;
                if tokens <= FEW_TOKENS && floats::few_rows(x, weight, self.n_in, out) {
                    return;
                }
                Product {
                    shape: [tokens, self.n_out(), self.n_in],
                    left: (x, self.n_in, 1),
                    right: (weight, 1, self.n_in),
                    out: (out, self.n_out()),
                    accumulate: true,
                }
                .run();
            }
            Weight::Halves { groups, length, bf16 } => {
                self.apply_halves((groups, *length, *bf16), x, out, add, passes, scratch);
            }
            Weight::Bytes { .. } => self.apply_bytes(x, out, add, passes, scratch),
        }
    }

    fn apply_halves(
        &self,
        (groups, length, bf16): (&[u16], usize, Bf16),
        x: &[f32],
        out: &mut [f32],
        add: bool,
        passes: &Passes,
        scratch: &mut Scratch,
    ) {
        let tokens = x.len() / self.n_in;
        scratch.halves.resize(tokens * length, 0);
        for (x, row) in x.chunks_exact(self.n_in).zip(scratch.halves.chunks_exact_mut(length)) {
            (passes.to_bf16)(x, &mut row[..self.n_in]);
            row[self.n_in..].fill(0);
        }
        scratch.floats.resize(TILE_ROWS * PANEL, 0.0);
        for (columns, groups) in self.panels().zip(groups.chunks(PANEL * length)) {
            let width = groups.len() / length;
            for_each_tile(&scratch.halves, length, out, self.n_out(), |rows, out| {
                let products = &mut scratch.floats[..rows.len() * width];
                bf16.panel_products(rows, groups, products, width);
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

    fn apply_bytes(
        &self,
        x: &[f32],
        out: &mut [f32],
        add: bool,
        passes: &Passes,
        scratch: &mut Scratch,
    ) {
        let Weight::Bytes { pieces, factors, kernels } = &self.weight else { return };
        let tokens = x.len() / self.n_in;
        scratch.integers.resize(TILE_ROWS * PANEL, 0);
        for (p, piece) in pieces.iter().enumerate() {
            let length = piece.length;
            scratch.bytes.resize(tokens * length, 0);
            scratch.terms.clear();
            let factors = &factors[piece.inputs.clone()];
            for (x, row) in x.chunks_exact(self.n_in).zip(scratch.bytes.chunks_exact_mut(length)) {
                let (row, rest) = row.split_at_mut(factors.len());
                scratch.terms.push((passes.to_bytes)(&x[piece.inputs.clone()], factors, row));
                rest.fill(0);
            }
            for (columns, groups) in self.panels().zip(piece.groups.chunks(PANEL * length)) {
                let width = groups.len() / length;
                let terms = ByteColumns {
                    start: columns.start,
                    stride: self.n_out(),
                    offset: kernels.column_levels() + 1,
                    scales: &piece.scales[columns.clone()],
                    sums: &piece.sums[columns.clone()],
                    bias: &piece.bias[columns],
                };
                let mut row_terms = scratch.terms.chunks(TILE_ROWS);
                for_each_tile(&scratch.bytes, length, out, self.n_out(), |rows, out| {
                    let products = &mut scratch.integers[..rows.len() * width];
                    kernels.panel_products(rows, groups, products);
                    let rows = row_terms.next().unwrap_or_default();
                    (passes.finish_bytes)(products, rows, &terms, out, add || p > 0);
                });
            }
        }
    }

    /// The outputs of each panel.
    fn panels(&self) -> impl Iterator<Item = Range<usize>> {
        let n_out = self.n_out();
        (0..n_out).step_by(PANEL).map(move |start| start..(start + PANEL).min(n_out))
    }
}

/// Hands `work` some rows of `length` values of `x` at a time, and the output's rows of them.
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

/// The place of input `i` of output `o` in groups of columns with `per_lane` elements in 32 bits.
fn place(o: usize, i: usize, length: usize, per_lane: usize) -> usize {
    let group = o / GROUP * GROUP * length;
    group + i / per_lane * GROUP * per_lane + o % GROUP * per_lane + i % per_lane
}

fn halves(weight: &[f32], n_in: usize, bf16: Bf16) -> Weight {
    let length = n_in.next_multiple_of(LINE / 2);
    let n_out = weight.len() / n_in;
    let mut groups = vec![0u16; n_out.next_multiple_of(GROUP) * length];
    for (o, row) in weight.chunks_exact(n_in).enumerate() {
        for (i, &value) in row.iter().enumerate() {
            groups[place(o, i, length, 2)] = to_bf16(value);
        }
    }
    Weight::Halves { groups, length, bf16 }
}

fn bytes(weight: &[f32], bias: &[f32], spread: Option<&[f32]>, kernels: Kernels) -> Weight {
    let n_in = weight.len() / bias.len();
    let factors = factors(weight, n_in, spread);
    let piece_len = n_in.div_ceil(n_in.div_ceil(PIECE)).next_multiple_of(LINE);
    let pieces = (0..n_in)
        .step_by(piece_len)
        .map(|start| {
            let inputs = start..(start + piece_len).min(n_in);
            let bias = if start == 0 { bias.to_vec() } else { vec![0.0; bias.len()] };
            Bytes::new(weight, inputs, &factors, bias, kernels)
        })
        .collect();
    Weight::Bytes { pieces, factors, kernels }
}

/// What each input is multiplied by, and its weights divided by: the square root of the weights' mean
/// magnitude over the input's.
fn factors(weight: &[f32], n_in: usize, spread: Option<&[f32]>) -> Vec<f32> {
    let mut magnitudes = vec![0f32; n_in];
    for row in weight.chunks_exact(n_in) {
        magnitudes.iter_mut().zip(row).for_each(|(m, v)| *m += v.abs());
    }
    let n_out = (weight.len() / n_in) as f32;
    let factor = |(i, magnitude): (usize, &f32)| {
        let spread = spread.map_or(1.0, |s| s[i].abs().max(1e-4));
        ((magnitude / n_out).max(1e-6) / spread).sqrt()
    };
    magnitudes.iter().enumerate().map(factor).collect()
}

impl Bytes {
    fn new(
        weight: &[f32],
        inputs: Range<usize>,
        factors: &[f32],
        bias: Vec<f32>,
        kernels: Kernels,
    ) -> Self {
        let length = inputs.len().next_multiple_of(LINE);
        let n_out = bias.len();
        let levels = kernels.column_levels();
        let zero = (levels + 1) as u8;
        let mut groups = vec![zero; n_out.next_multiple_of(GROUP) * length];
        let (mut scales, mut sums) = (Vec::with_capacity(n_out), Vec::with_capacity(n_out));
        let mut divided = Vec::new();
        for (o, row) in weight.chunks_exact(factors.len()).enumerate() {
            let terms = row[inputs.clone()].iter().zip(&factors[inputs.clone()]);
            divided.clear();
            divided.extend(terms.map(|(v, f)| v / f));
            let largest = divided.iter().fold(0f32, |m, v| m.max(v.abs()));
            let scale = if largest > 0.0 { largest / levels as f32 } else { 1.0 };
            let inverse = 1.0 / scale;
            let mut sum = 0;
            for (i, &value) in divided.iter().enumerate() {
                // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
                let integer = (value * inverse + 12_582_912.0 - 12_582_912.0) as i32;
                let integer = integer.clamp(-levels, levels);
                groups[place(o, i, length, 4)] = (integer + levels + 1) as u8;
                sum += integer;
            }
            scales.push(scale);
            sums.push(scale * sum as f32);
        }
        Self { inputs, groups, length, scales, sums, bias }
    }
}

/// A matrix product on one thread. Operands are slices with the distance between rows and columns.
pub(super) struct Product<'a> {
    /// Rows of the left, columns of the right, and what they share.
    pub(super) shape: [usize; 3],
    pub(super) left: (&'a [f32], usize, usize),
    pub(super) right: (&'a [f32], usize, usize),
    /// Columns of the output are next to each other.
    pub(super) out: (&'a mut [f32], usize),
    /// Whether the product is added to what stands in the output.
    pub(super) accumulate: bool,
}

impl Product<'_> {
    pub(super) fn run(self) {
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
