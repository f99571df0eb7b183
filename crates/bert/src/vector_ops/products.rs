//! Finishing of products: dequantization, bias, GELU and rounding in one pass over a block.

use super::functions::gelu_fast_of;
use super::instructions::{InstructionSet, LANES, multiply_add};
use std::convert::identity;
use warpseek_compute::cpu::PANEL;

/// Columns of the products that are finished at a time: two panels.
pub(crate) const BLOCK_COLUMNS: usize = 2 * PANEL;

/// A block of products, `[rows, BLOCK_COLUMNS]`, with the terms that make values of them. Terms of
/// columns are padded to [`BLOCK_COLUMNS`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum ProductBlock<'a> {
    /// Products of bfloat16 numbers, and the bias of each column.
    F32(&'a [f32], &'a [f32]),
    /// Products of int8 numbers, the quantization of each row and of the columns.
    I32(&'a [i32], &'a [RowQuant], ColumnQuant<'a>),
}

/// Asymmetric quantization of one token: integer `i` stands for `zero_point + scale * i`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowQuant {
    /// The value of integer 0.
    pub(crate) zero_point: f32,
    pub(crate) scale: f32,
    /// The sum of the integers.
    pub(crate) sum: i32,
}

/// Quantization of some columns of weights (outputs), one value per column. With `v = zero_point +
/// scale i` in a row and `w = s j` in a column, `v.w = scale s (i.j) + zero_point (sum of w)`. The
/// int8 products are `i.(j + zero_point of the column)`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnQuant<'a> {
    /// Integer that was added to all integers of the columns.
    pub(crate) zero_point: i32,
    /// Scale of each column.
    pub(crate) scales: &'a [f32],
    /// Sum of the weights of each column.
    pub(crate) sums: &'a [f32],
    /// Bias of each column.
    pub(crate) bias: &'a [f32],
}

#[inline(always)]
pub(super) fn finish<I: InstructionSet>(
    products: &ProductBlock<'_>,
    width: usize,
    out: &mut [f32],
    stride: usize,
    add: bool,
) {
    if add {
        each_value::<I, f32>(products, width, out, stride, identity, |values, out| {
            out.iter_mut().zip(values).for_each(|(out, v)| *out += v);
        });
    } else {
        each_value::<I, f32>(products, width, out, stride, identity, |values, out| {
            *out = *values;
        });
    }
}

#[inline(always)]
pub(super) fn finish_gelu<I: InstructionSet>(
    products: &ProductBlock<'_>,
    width: usize,
    out: &mut [f32],
    stride: usize,
) {
    each_value::<I, f32>(products, width, out, stride, gelu_fast_of::<I>, |values, out| {
        *out = *values;
    });
}

#[inline(always)]
pub(super) fn finish_bf16<I: InstructionSet>(
    products: &ProductBlock<'_>,
    width: usize,
    out: &mut [u16],
    stride: usize,
) {
    each_value::<I, u16>(products, width, out, stride, identity, |values, out| {
        *out = I::round(values);
    });
}

#[inline(always)]
pub(super) fn finish_gelu_bf16<I: InstructionSet>(
    products: &ProductBlock<'_>,
    width: usize,
    out: &mut [u16],
    stride: usize,
) {
    each_value::<I, u16>(products, width, out, stride, gelu_fast_of::<I>, |values, out| {
        *out = I::round(values);
    });
}

/// Passes the values of products, after `f`, to `write`, 16 at a time, with their place in `out`;
/// fewer at the end of a line.
#[inline(always)]
fn each_value<I: InstructionSet, T: Copy + Default>(
    products: &ProductBlock<'_>,
    width: usize,
    out: &mut [T],
    stride: usize,
    f: impl Fn(f32) -> f32,
    write: impl Fn(&[f32; LANES], &mut [T; LANES]),
) {
    let lines = out.chunks_mut(stride).map(|line| line[..width].chunks_mut(LANES).enumerate());
    let write = |values: &[f32; LANES], out: &mut [T]| match out.as_chunks_mut() {
        ([out], []) => write(values, out),
        _ => {
            let mut lanes = [T::default(); LANES];
            lanes[..out.len()].copy_from_slice(out);
            write(values, &mut lanes);
            out.copy_from_slice(&lanes[..out.len()]);
        }
    };
    match *products {
        ProductBlock::F32(products, bias) => {
            for (products, line) in products.chunks_exact(BLOCK_COLUMNS).zip(lines) {
                for (c, out) in line {
                    let products = &products[c * LANES..][..LANES];
                    let bias = &bias[c * LANES..][..LANES];
                    let mut values = [0f32; LANES];
                    for j in 0..LANES {
                        values[j] = f(products[j] + bias[j]);
                    }
                    write(&values, out);
                }
            }
        }
        ProductBlock::I32(products, rows, columns) => {
            let products = products.chunks_exact(BLOCK_COLUMNS).zip(rows);
            for ((products, row), line) in products.zip(lines) {
                let base = columns.zero_point * row.sum;
                for (c, out) in line {
                    let of = c * LANES..(c + 1) * LANES;
                    let [scales, sums, bias] = [columns.scales, columns.sums, columns.bias]
                        .map(|terms| &terms[of.clone()]);
                    let products = &products[of.clone()];
                    let mut values = [0f32; LANES];
                    for j in 0..LANES {
                        let constant = multiply_add::<I>(row.zero_point, sums[j], bias[j]);
                        let product = (products[j] - base) as f32 * scales[j];
                        values[j] = f(multiply_add::<I>(product, row.scale, constant));
                    }
                    write(&values, out);
                }
            }
        }
    }
}
