//! Products by the x86-64 instruction sets, one file each. What they compute stands at
//! [`super::Kernels`].

pub(super) mod amx;
pub(super) mod avx2;
pub(super) mod avx512bf16;
pub(super) mod avx512vnni;
pub(super) mod avxvnni;
mod bytes;
pub(super) mod floats;
mod quads;
