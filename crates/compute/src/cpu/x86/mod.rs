//! Kernels of the x86-64 instruction sets, one file each. [`super::Kernels`] documents what they
//! compute.

pub(super) mod amx;
pub(super) mod avx2;
pub(super) mod avx512bf16;
pub(super) mod avx512vnni;
pub(super) mod avxvnni;
pub(super) mod f32_avx2;
mod int8_256;
mod tiles_512;
