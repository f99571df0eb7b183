//! Kernels of the x86-64 instruction sets, one file each. [`super::kernels::ScanKernels`] documents
//! what they compute.

pub(super) mod amx;
mod amx_tiles;
pub(super) mod avx2;
pub(super) mod avx512;
mod tiling;
