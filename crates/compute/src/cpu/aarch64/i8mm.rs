//! The int8 matrix tier: two rows times two columns by one instruction. A single column takes the
//! kernels of the tier below.

use super::pairs;

pub(in crate::cpu) use super::dotprod::{dot_i8, gemv_i8};

/// See [`crate::cpu::Kernels::gemm_i8`].
///
/// # Safety
///
/// The CPU has the feature `i8mm`; the lengths are those of `Kernels::gemm_i8`.
#[target_feature(enable = "i8mm")]
pub(in crate::cpu) unsafe fn gemm_i8(rows: &[&[i8]], panels: &[u8], products: &mut [i32]) {
    let (length, stride) = (rows[0].len(), products.len() / rows.len());
    let row = |r: usize| rows[r].as_ptr().cast();
    // SAFETY: passed on from the caller.
    unsafe {
        pairs::int8::gemm(row, rows.len(), length, panels, products.as_mut_ptr(), stride);
    }
}
