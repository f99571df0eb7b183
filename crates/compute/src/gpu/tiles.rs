//! Shapes of the tiles that kernels multiply, generated from `kernels/tiles_params.cuh`.

include!(concat!(env!("OUT_DIR"), "/params.rs"));
