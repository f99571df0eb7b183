//! Kernels of the x86-64 instruction sets, one file each. [`super::Kernels`] documents what they
//! compute.

pub(super) mod amx;
pub(super) mod amx_rows;
pub(super) mod amx_tiles;
pub(super) mod avx2;
pub(super) mod avx512bf16;
pub(super) mod avx512vnni;
pub(super) mod avxvnni;
pub(super) mod f32_avx2;
mod int8_256;
pub(super) mod pack_bf16;
mod tiles_512;
