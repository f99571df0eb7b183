//! The AVX-VNNI tier: AVX2 with one instruction for products of bytes, summed in 32 bits.

use super::bytes::{self, Bytes};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
struct Vnni;

impl Bytes for Vnni {
    #[inline(always)]
    unsafe fn multiply_add(sums: __m256i, column: __m256i, row: __m256i) -> __m256i {
        // SAFETY: the caller vouches for AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(sums, column, row) }
    }
}

bytes::bind!(Vnni, "avx2,avxvnni");
