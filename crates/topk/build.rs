//! Compiles the scan's kernels, and generates their parameter structs (feature `cuda`).

#[path = "../../kernels/build.rs"]
mod kernels;

fn main() {
    kernels::build("params.cuh", "pub(super)", Some("topk"));
}
