//! Generates the shapes of the kernels' tiles (feature `cuda`).

#[path = "../../kernels/build.rs"]
mod kernels;

fn main() {
    kernels::build("tiles_params.cuh", "pub", None);
}
