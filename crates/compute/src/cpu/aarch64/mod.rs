//! Kernels of the AArch64 instruction sets. [`super::Kernels`] documents what they compute.
//!
//! Instructions are written in assembly where the functions of the standard library for them are
//! not stable.

pub(super) mod dotprod;
pub(super) mod i8mm;
pub(super) mod pairs;
