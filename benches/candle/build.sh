#!/bin/sh
# Builds Candle's own BERT for CUDA, a peer of the benchmarks, without CUDA's libraries here: what is linked are empty ones of their names, and the
# program finds the real ones where it runs (those of torch's wheels will do: benches/gpu_models.py looks there). Some ten minutes on two cores.
#
#     benches/candle/build.sh      (target/candle/release/candle-bert)
set -eu
cd "$(dirname "$0")"
root=$(cd ../.. && pwd)
"$root/kernels/toolkit.sh"
target=$root/target/candle
mkdir -p "$target/stubs"
linked="-Wl,--no-as-needed"
for library in cuda.so.1 nvrtc.so.13 cublas.so.13 cublasLt.so.13 curand.so.10 cudart.so.13; do
    name=${library%%.so*}
    printf '' | cc -shared -x c -o "$target/stubs/lib$name.so" -Wl,-soname,"lib$library" -
    linked="$linked -l$name"
done
toolkit=$(cd "$root/target/cuda-toolkit" && pwd)
export CUDA_HOME="$toolkit" PATH="$toolkit/bin:$PATH" CUDA_COMPUTE_CAP=80 CUDAFORGE_THREADS=2 CARGO_TARGET_DIR="$target"
RUSTFLAGS="-L native=$target/stubs -C link-arg=-Wl,--unresolved-symbols=ignore-all" cargo rustc --release --bin candle-bert -- -C link-args="$linked"
