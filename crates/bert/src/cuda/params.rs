//! Parameters of the encoder's kernels, generated from `kernels/encoder_params.cuh`.

include!(concat!(env!("OUT_DIR"), "/params.rs"));
