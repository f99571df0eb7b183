//! The AVX-VNNI tier: AVX2 with one instruction for int8 products, summed in 32 bits.

use super::int8_256::{self, MultiplyAdd};
use std::arch::x86_64::*;

struct Vnni;

impl MultiplyAdd for Vnni {
    #[inline(always)]
    unsafe fn multiply_add(sums: __m256i, column: __m256i, row: __m256i) -> __m256i {
        // SAFETY: the caller guarantees AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(sums, column, row) }
    }
}

int8_256::bind!(Vnni, "avx2,avxvnni");
