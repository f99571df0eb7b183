//! Compiles the encoder's kernels, and generates their parameter structs (feature `cuda`).

#[path = "../../kernels/build.rs"]
mod kernels;

fn main() {
    kernels::build("encoder_params.cuh", "pub(super)", Some("encoder"));
}
