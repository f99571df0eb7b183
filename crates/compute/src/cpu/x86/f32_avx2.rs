//! Float32 products, 8 at a time, with software prefetch of the next weights.

use std::arch::x86_64::*;

/// Rows and columns of a register tile, whose sums fill most of the 16 registers.
const ROWS: usize = 3;
const COLUMNS: usize = 3;

/// See [`crate::cpu::Kernels::gemv_f32`].
///
/// # Safety
///
/// The CPU has AVX2 and FMA; `x` and `weight` are whole numbers of rows of `n_in`; `out` has one
/// value per pair of rows.
#[target_feature(enable = "avx2,fma")]
pub(in crate::cpu) unsafe fn gemv_f32(x: &[f32], weight: &[f32], n_in: usize, out: &mut [f32]) {
    let n_out = weight.len() / n_in;
    let n_passes = x.len().div_ceil(ROWS * n_in);
    for (c, columns) in weight.chunks(COLUMNS * n_in).enumerate() {
        let next = weight.chunks(COLUMNS * n_in).nth(c + 1).unwrap_or_default();
        // The next columns are prefetched while these are multiplied, one part per pass.
        let mut parts = next.chunks(next.len().div_ceil(n_passes).max(1));
        for (r, rows) in x.chunks(ROWS * n_in).enumerate() {
            for line in parts.next().unwrap_or_default().chunks(16) {
                _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
            }
            let (n_rows, n_columns) = (rows.len() / n_in, columns.len() / n_in);
            // An incomplete last tile repeats its last row or column and drops the surplus.
            let products = tile(
                std::array::from_fn(|i| &rows[i.min(n_rows - 1) * n_in..][..n_in]),
                std::array::from_fn(|i| &columns[i.min(n_columns - 1) * n_in..][..n_in]),
            );
            for (i, products) in products.iter().enumerate().take(n_rows) {
                let out = &mut out[(r * ROWS + i) * n_out + c * COLUMNS..][..n_columns];
                out.iter_mut().zip(products).for_each(|(out, product)| *out += product);
            }
        }
    }
}

/// Inner products of each row with each column; all have the same length.
#[target_feature(enable = "avx2,fma")]
fn tile(rows: [&[f32]; ROWS], columns: [&[f32]; COLUMNS]) -> [[f32; COLUMNS]; ROWS] {
    let n = rows[0].len();
    let (row, column) = (rows.map(<[f32]>::as_ptr), columns.map(<[f32]>::as_ptr));
    let whole = n / 8 * 8;
    // The code below indexes a copy of the sums, so that the originals stay in registers.
    let sums = {
        let mut sums = [[_mm256_setzero_ps(); COLUMNS]; ROWS];
        for i in (0..whole).step_by(8) {
            // SAFETY: 8 values follow every pointer from value `i` on.
            unsafe {
                let columns: [__m256; COLUMNS] =
                    std::array::from_fn(|c| _mm256_loadu_ps(column[c].add(i)));
                for (sums, row) in sums.iter_mut().zip(row) {
                    let row = _mm256_loadu_ps(row.add(i));
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = _mm256_fmadd_ps(row, column, *sum);
                    }
                }
            }
        }
        sums
    };
    std::array::from_fn(|r| {
        std::array::from_fn(|c| {
            let mut lanes = [0f32; 8];
            // SAFETY: `lanes` holds 8 values.
            unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sums[r][c]) };
            let rest: f32 = (whole..n).map(|i| rows[r][i] * columns[c][i]).sum();
            lanes.iter().sum::<f32>() + rest
        })
    })
}
