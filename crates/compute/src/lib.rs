//! Compute devices: CPU instruction sets with their matrix products, and GPUs.
//!
//! | module | content |
//! | --- | --- |
//! | [`device`] | names of devices and precisions, as users choose them |
//! | [`cpu`] | CPU tiers, int8, bfloat16 and float32 matrix products, dispatched at run time |
//! | [`gpu`] | GPU context, buffers, launches, CUDA graphs (feature `cuda`) |
//!
//! The exact scan (`warpseek-topk`) and the encoder (`warpseek-bert`) build on this crate.

pub mod cpu;
pub mod device;
pub mod gpu;

pub use warpseek_error as error;
