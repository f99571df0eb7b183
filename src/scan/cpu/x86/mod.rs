//! Kernels of the x86-64 instruction sets, one file each. What they compute stands at
//! [`super::kernels::Kernels`].

pub(super) mod avx2;
pub(super) mod avx512;
