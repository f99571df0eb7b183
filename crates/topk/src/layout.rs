//! Layout of rows in memory and on disk: padding, limits, norms, bytes.

use half::f16;

/// Rows are padded with zeros to a multiple of this many values.
pub const STRIDE_MULTIPLE: usize = 32;

/// The most rows of a matrix: row numbers have 32 bits.
pub const MAX_ROWS: u64 = u32::MAX as u64;

/// The most dimensions of a vector.
pub const MAX_DIM: usize = 16_384;

/// Returns the values from the start of one row to the next: `dim` rounded up to
/// [`STRIDE_MULTIPLE`].
pub const fn stride_of(dim: usize) -> usize {
    dim.next_multiple_of(STRIDE_MULTIPLE)
}

/// Int8 rows are padded with zeros to a multiple of this many values: a cache line, and a row of an
/// AMX tile.
pub const SQ8_STRIDE_MULTIPLE: usize = 64;

/// Returns the values from the start of one int8 row to the next: `dim` rounded up to
/// [`SQ8_STRIDE_MULTIPLE`].
pub const fn sq8_stride(dim: usize) -> usize {
    dim.next_multiple_of(SQ8_STRIDE_MULTIPLE)
}

/// Values in vector files.
///
/// # Safety
///
/// The type has no padding, and any bytes are a valid value of it.
pub unsafe trait Stored: Copy {}

// SAFETY: two bytes, any of which are a number.
unsafe impl Stored for f16 {}
// SAFETY: one byte, any of which is a number.
unsafe impl Stored for i8 {}

/// Returns the bytes of values as they stand in a file.
pub fn as_bytes<T: Stored>(values: &[T]) -> &[u8] {
    // SAFETY: a `Stored` type has no padding, any byte is a valid `u8`, and the length in bytes is
    // that of the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// Returns the Euclidean norm of a row, computed in float64 and rounded up to the next float32.
pub fn row_norm_upper(row: &[f16]) -> f32 {
    let sum: f64 = row.iter().map(|v| f64::from(v.to_f32()).powi(2)).sum();
    // The sum of n squares has a relative error below n * 2^-53; 1e-9 covers 2^22 values.
    round_up_f32(sum.sqrt() * (1.0 + 1e-9))
}

/// Returns the smallest float32 that is not below `value`.
pub fn round_up_f32(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) < value { near.next_up() } else { near }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norm_of_a_row_is_never_below_the_true_one() {
        let row: Vec<f16> = (0..384).map(|i| f16::from_f32((i as f32).sin())).collect();
        let exact: f64 = row.iter().map(|v| f64::from(v.to_f32()).powi(2)).sum::<f64>().sqrt();
        let bound = f64::from(row_norm_upper(&row));
        assert!(bound >= exact && bound < exact * (1.0 + 1e-6));
    }
}
