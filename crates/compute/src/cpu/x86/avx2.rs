//! The AVX2 tier: 32 bytes at a time, int8 products summed in pairs in 16 bits.

use super::int8_256::{self, MultiplyAdd};
use std::arch::x86_64::*;

/// Sums of four neighbouring products in each 32-bit lane. With qmax 63 a column byte is at most
/// 127, a product at most 127 * 127, so two products fit into 16 bits.
struct Pairs;

impl MultiplyAdd for Pairs {
    #[inline(always)]
    unsafe fn multiply_add(sums: __m256i, column: __m256i, row: __m256i) -> __m256i {
        // SAFETY: the caller guarantees AVX2.
        unsafe {
            let pairs = _mm256_maddubs_epi16(column, row);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

int8_256::bind!(Pairs, "avx2");
